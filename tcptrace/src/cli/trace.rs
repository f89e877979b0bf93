//! What the subcommands that trace have in common: from arguments to a live trace and its output.

use std::io;

use nix::sys::utsname::UtsName;
use tcptrace_common::{
    TraceConfig,
    config::{PORT_FILTERS, STREAM_ALL, STREAM_SYNS},
};

use super::{
    args::{TraceArgs, union},
    exit::{Exit, Failure},
    netns,
};
use crate::{
    event::{PortSet, Timestamp},
    host::netns::Netns,
    live,
    output::{Output, Written, zone},
    probe,
};

/// Filters of what is traced.
#[derive(Default)]
pub(super) struct Filters {
    pub(super) ports: PortSet,
    pub(super) netns: Vec<Netns>,
    /// How the user wrote them: those with which our counts are smaller than the kernel's. A namespace is not one: the
    /// kernel counts by namespace, too.
    pub(super) words: Vec<String>,
    /// The namespaces, as the user wrote them.
    pub(super) scope: Vec<String>,
}

impl Filters {
    /// From the command line.
    pub(super) fn of(ports: &[PortSet], netns: &[String]) -> Result<Self, Failure> {
        let ports = union(ports);
        let words = if ports.is_empty() { Vec::new() } else { vec![format!("--port {ports}")] };
        let scope = netns.iter().map(|name| format!("--netns {name}")).collect();
        Ok(Self { ports, netns: netns::find_all(netns)?, words, scope })
    }
}

/// What the kernel side streams beside the anomalies: the flags of a [`TraceConfig`].
pub(super) fn streams(all: bool, syns: bool) -> u32 {
    let flag = |wanted, flag| if wanted { flag } else { 0 };
    flag(all, STREAM_ALL) | flag(syns, STREAM_SYNS)
}

/// Options of a live trace, which streams what [`streams`] says.
pub(super) fn options(trace: &TraceArgs, flags: u32, filters: Filters) -> live::Options {
    let mut config = TraceConfig { flags, ..TraceConfig::default() };
    // More than that is filtered in user space.
    if let [only] = filters.netns.as_slice() {
        config.netns = only.id();
    }
    if usize::try_from(filters.ports.len()).is_ok_and(|count| count <= PORT_FILTERS) {
        for (slot, port) in config.ports.iter_mut().zip(filters.ports.ranges().flatten()) {
            *slot = port;
            config.port_count += 1;
        }
    }
    live::Options {
        probe: probe::Options {
            config,
            tier: trace.attach.into(),
            ring_bytes: trace.ring_kib << 10,
            kernel_log: trace.kernel_log,
        },
        netns: filters.netns,
        ports: filters.ports,
        filters: filters.words,
        scope: filters.scope,
    }
}

/// This program, host and moment, for the first line.
pub(super) fn here() -> String {
    let name = nix::sys::utsname::uname().ok();
    let word = |of: Option<&std::ffi::OsStr>| of.unwrap_or_default().to_string_lossy().into_owned();
    format!(
        "tcptrace {} on {}, kernel {} {}, {}",
        env!("CARGO_PKG_VERSION"),
        word(name.as_ref().map(UtsName::nodename)),
        word(name.as_ref().map(UtsName::release)),
        std::env::consts::ARCH,
        zone::moment_and_zone(&zone::local(), Timestamp::now())
    )
}

/// Prints the first line, and passes it on.
pub(super) fn at_once<W: io::Write>(output: &mut Output<W>, opening: &str) -> Written {
    if output.opening(opening)?.is_break() {
        return Ok(std::ops::ControlFlow::Break(()));
    }
    output.flush()
}

/// The runtime that everything runs on: one thread.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::NotSupported, format!("no runtime: {error}")))
}

/// Output cannot be written, for another reason than that nobody reads it.
pub(super) fn cannot_write(error: &io::Error) -> Failure {
    Failure::new(
        Exit::CannotWrite,
        format!("the output cannot be written: {}{}", crate::record::write_failure(error), full(error)),
    )
}

/// What to do about it, where that is known.
pub(super) fn full(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room there, or write elsewhere",
        _ => "",
    }
}
