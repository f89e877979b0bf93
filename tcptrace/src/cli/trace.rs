//! What the subcommands that trace have in common: from arguments to a live trace and its output.

use std::io::{self, IsTerminal as _, Write};

use tcptrace_common::{
    TraceConfig,
    config::{PORT_FILTERS, STREAM_ALL, STREAM_SYNS},
};

use super::{
    args::{FilterArgs, TraceArgs},
    exit::{Exit, Failure},
    netns,
};
use crate::{
    host::netns::Netns,
    live,
    output::{JsonWriter, Output, TextWriter},
    probe,
};

/// In-kernel filters.
#[derive(Default)]
pub(super) struct Filters<'a> {
    pub(super) ports: &'a [u16],
    pub(super) netns: Option<Netns>,
    /// How the user wrote them: those with which our counts are smaller than the kernel's. A namespace is not one: the
    /// kernel counts by namespace, too.
    pub(super) words: Vec<String>,
    /// The namespace, as the user wrote it.
    pub(super) scope: Vec<String>,
}

impl<'a> Filters<'a> {
    /// From the command line.
    pub(super) fn of(args: &'a FilterArgs) -> Result<Self, Failure> {
        let words = args.port.iter().map(|port| format!("--port {port}")).collect();
        let scope = args.netns.iter().map(|name| format!("--netns {name}")).collect();
        Ok(Self {
            ports: &args.port,
            netns: args.netns.as_deref().map(netns::find).transpose()?,
            words,
            scope,
        })
    }
}

/// What the kernel side streams beside the anomalies: the flags of a [`TraceConfig`].
pub(super) fn streams(all: bool, syns: bool) -> u32 {
    let flag = |wanted, flag| if wanted { flag } else { 0 };
    flag(all, STREAM_ALL) | flag(syns, STREAM_SYNS)
}

/// Options of a live trace, which streams what [`streams`] says.
pub(super) fn options(trace: &TraceArgs, flags: u32, filters: Filters<'_>) -> Result<live::Options, Failure> {
    let mut config =
        TraceConfig { flags, netns: filters.netns.as_ref().map_or(0, Netns::id), ..TraceConfig::default() };
    if filters.ports.len() > PORT_FILTERS {
        return Err(Failure::new(
            Exit::Usage,
            format!("--port: at most {PORT_FILTERS} ports can be filtered for"),
        ));
    }
    for (slot, port) in config.ports.iter_mut().zip(filters.ports) {
        *slot = *port;
        config.port_count += 1;
    }
    Ok(live::Options {
        probe: probe::Options {
            config,
            tier: trace.attach.into(),
            ring_bytes: trace.ring_kib << 10,
            kernel_log: trace.kernel_log,
        },
        netns: filters.netns,
        filters: filters.words,
        scope: filters.scope,
    })
}

/// The runtime that everything runs on: one thread.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::NotSupported, format!("no runtime: {error}")))
}

/// Standard output in the form asked for.
pub(super) fn output(json: bool) -> Output<impl Write> {
    let stdout = io::stdout();
    let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let out = io::BufWriter::new(stdout);
    if json {
        Output::Json(JsonWriter::new(out))
    } else {
        Output::Text(TextWriter::new(out, jiff::tz::TimeZone::system(), colour))
    }
}

/// Output cannot be written, for another reason than that nobody reads it.
pub(super) fn cannot_write(error: &io::Error) -> Failure {
    Failure::new(Exit::NotSupported, format!("the output cannot be written: {error}"))
}
