//! `tcptrace agent`: one a host, always on.

use std::net::TcpListener;

use super::{
    args::{AgentArgs, LookArgs},
    exit::{Exit, Failure},
    settings, trace,
};
use crate::{
    agent::{
        Agent, AgentError, Bounds, Options, Place, PlaceError, Reloaded, Retention, Tuning, bind,
        keep_memory_small,
    },
    config::{AgentSettings, Settings},
    output::stdout_output,
};

/// Keys that hold from a start to the end: to change them takes a restart, and reading the configuration again says so.
const FOR_GOOD: [&str; 3] = ["agent.dir", "agent.metrics", "agent.metrics-remote"];

pub(super) fn run(args: &AgentArgs, look: &LookArgs, settings: Settings) -> Result<Exit, Failure> {
    keep_memory_small();
    let settings = settled(args, settings);
    let agent = &settings.config.agent;
    let tuning = tuning(&settings)?;
    let filters = trace::Filters::of(&args.filter.port, &args.filter.netns)?;
    let Some(directory) = &agent.dir else {
        let why =
            "--dir: name the directory to record in (or set dir in the section [agent] of the configuration)";
        return Err(Failure::new(Exit::Usage, why));
    };
    let place = Place::take(directory).map_err(refused)?;
    let listener = listener(agent)?;
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
        tuning,
        limit: args.limit,
    };
    let mut known = settings.clone();
    let reload = || {
        let fresh = settled(args, settings::of(look).map_err(|error| error.to_string())?);
        let tuning = self::tuning(&fresh).map_err(|failure| failure.message)?;
        let words = in_words(&known.changes(&fresh, &["agent", "thresholds"]));
        known = fresh;
        Ok(Reloaded { tuning, words })
    };
    let agent = Agent::new(place, output, listener);
    trace::runtime()?.block_on(agent.run(&options, reload)).map_err(ended)?;
    Ok(Exit::Done)
}

/// The settings, with what the command line says in place of what files say.
fn settled(args: &AgentArgs, mut settings: Settings) -> Settings {
    let mut flags = Vec::new();
    macro_rules! take {
        ($($field:ident)+) => {
            let agent = &mut settings.config.agent;
            $( if let Some(value) = args.$field.clone() {
                agent.$field = value.into();
                flags.push(stringify!($field).replace('_', "-"));
            } )+
        };
    }
    take!(dir metrics metrics_remote max_listeners keep_size keep_age keep_on before after keep_incidents part);
    for flag in flags {
        settings.note(&format!("agent.{flag}"), format!("--{flag}"));
    }
    settings
}

/// What has changed, for whoever asked for it.
fn in_words(changed: &[String]) -> String {
    let (later, now): (Vec<&str>, Vec<&str>) =
        changed.iter().map(String::as_str).partition(|key| FOR_GOOD.contains(key));
    let mut words = "the configuration was read again: ".to_owned();
    words += &match now.as_slice() {
        [] => "nothing that holds at once has changed".to_owned(),
        now => format!("changed: {}", now.join(", ")),
    };
    if !later.is_empty() {
        words += &format!("; only after a restart: {}", later.join(", "));
    }
    words
}

fn tuning(settings: &Settings) -> Result<Tuning, Failure> {
    let agent = &settings.config.agent;
    Ok(Tuning {
        retention: retention(agent)?,
        keep_on: agent.keep_on.into(),
        bounds: Bounds { listeners: agent.max_listeners, ..Bounds::default() },
        thresholds: settings.config.thresholds,
    })
}

fn retention(of: &AgentSettings) -> Result<Retention, Failure> {
    let usage = |why: &str| Err(Failure::new(Exit::Usage, why));
    if of.part.as_secs() == 0 {
        return usage("--part: a part is a second long at least");
    }
    if of.keep_size < 8 << 20 {
        return usage("--keep-size: the ring needs 8M at least");
    }
    if of.keep_age < of.before.saturating_add(of.part) {
        return usage("--keep-age: the ring must reach back for --before and a --part at least");
    }
    Ok(Retention {
        ring_bytes: of.keep_size,
        ring_age: of.keep_age,
        incident_bytes: of.keep_incidents,
        before: of.before,
        after: of.after,
        part: of.part,
    })
}

fn listener(of: &AgentSettings) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = of.metrics else { return Ok(None) };
    if !address.ip().is_loopback() && !of.metrics_remote {
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
