//! `tcptrace agent`: one a host, always on.

use std::net::TcpListener;

use super::{
    args::{AgentArgs, KeepOn},
    exit::{Exit, Failure},
    trace,
};
use crate::{
    agent::{Agent, AgentError, Bounds, Options, Place, PlaceError, Retention, bind},
    output::stdout_output,
};

pub(super) fn run(args: &AgentArgs) -> Result<Exit, Failure> {
    let retention = retention(args)?;
    let filters = trace::Filters::of(&args.filter.port, &args.filter.netns)?;
    let place = Place::take(&args.dir).map_err(refused)?;
    let listener = listener(args)?;
    let mut output = stdout_output("agent", args.json, false);
    let opening = format!("{}: attaching", trace::here());
    // Nobody need read what it prints.
    let _gone = trace::at_once(&mut output, &opening);
    // The kernel measures for as long as somebody holds this open (5.8).
    let _measuring = args
        .bpf_cost
        .then(|| aya::sys::enable_stats(aya::sys::Stats::RunTime))
        .transpose()
        .map_err(|error| Failure::new(Exit::NotPermitted, format!("--bpf-cost: {error}")))?;
    let options = Options {
        live: trace::options(&args.trace, trace::streams(false, false), filters),
        retention,
        keep_on: args.keep_on.into(),
        bounds: Bounds { listeners: args.max_listeners, ..Bounds::default() },
        limit: args.limit,
    };
    let agent = Agent::new(place, output, listener);
    trace::runtime()?.block_on(agent.run(&options)).map_err(ended)?;
    Ok(Exit::Done)
}

fn retention(args: &AgentArgs) -> Result<Retention, Failure> {
    let usage = |why: &str| Err(Failure::new(Exit::Usage, why));
    if args.part.as_secs() == 0 {
        return usage("--part: a part is a second long at least");
    }
    if args.keep_size < 8 << 20 {
        return usage("--keep-size: the ring needs 8M at least");
    }
    if args.keep_age < args.before.saturating_add(args.part) {
        return usage("--keep-age: the ring must reach back for --before and a --part at least");
    }
    Ok(Retention {
        ring_bytes: args.keep_size,
        ring_age: args.keep_age,
        incident_bytes: args.keep_incidents,
        before: args.before,
        after: args.after,
        part: args.part,
    })
}

fn listener(args: &AgentArgs) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = args.metrics else { return Ok(None) };
    if !address.ip().is_loopback() && !args.metrics_remote {
        let why = "from there, others could read which processes listen and connect, and have the disk written: \
                   name an address of this host alone (127.0.0.1:9797), or say --metrics-remote";
        return Err(Failure::new(Exit::Usage, format!("--metrics {address}: {why}")));
    }
    let bound = bind(address);
    bound.map(Some).map_err(|error| Failure::new(Exit::Usage, format!("--metrics {address}: {error}")))
}

fn refused(error: PlaceError) -> Failure {
    let exit = match &error {
        PlaceError::Taken { .. } | PlaceError::Shared { .. } | PlaceError::Foreign { .. } => Exit::Usage,
        PlaceError::Io { error, .. } => match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Exit::CannotWrite,
            _ => Exit::Usage,
        },
    };
    Failure::new(exit, error)
}

fn ended(error: AgentError) -> Failure {
    match error {
        AgentError::Live(error) => error.into(),
        AgentError::Directory { .. } => Failure::new(Exit::CannotWrite, error),
        AgentError::Process(_) => Failure::new(Exit::NotSupported, error),
    }
}

impl From<KeepOn> for crate::finding::Severity {
    fn from(on: KeepOn) -> Self {
        match on {
            KeepOn::Critical => Self::Critical,
            KeepOn::Warning => Self::Warning,
        }
    }
}
