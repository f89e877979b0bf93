//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    finding::Severity,
    probe::{BackEnd, Tier},
};

/// Why are connections not being set up? Who, where, why, and what to change.
///
/// Without a subcommand: watch.
#[derive(Debug, Parser)]
#[command(name = "tcptrace", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to watch.
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Live findings, as they happen (the default)
    Watch(WatchArgs),
    /// Every listener now: owner, queue, limit and the knob that sets it, drops; with --for, what a trace adds
    Listeners(ListenersArgs),
    /// What this kernel allows, what is attached, what is not and why
    Probes(ProbesArgs),
    /// Make an incident in a private network namespace while tracing it, and explain it
    Rehearse(RehearseArgs),
    /// Who holds a port, in every state and network namespace, and what a bind to it would meet
    Who(WhoArgs),
    /// Settings and listeners that will hurt, each with its remedy; exit code 1 if there is any. Needs no BPF
    Check(CheckArgs),
}

/// How to trace.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Use one kind of attachment only
    #[arg(long, value_enum, default_value_t = Attach::Auto, value_name = "TIER")]
    pub attach: Attach,
    /// Size of the ring buffer between kernel and tcptrace, KiB (a power of two)
    #[arg(long, default_value_t = 4096, value_name = "KIB", value_parser = power_of_two)]
    pub ring_kib: u32,
    /// Print the kernel side's own log to stderr (RUST_LOG=tcptrace=debug shows user space's)
    #[arg(long)]
    pub kernel_log: bool,
}

/// How to print.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// One JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
    /// Print the events behind the findings, too
    #[arg(long)]
    pub events: bool,
    /// Print (and stream from the kernel) every handshake step, accept and port, not only the anomalies
    #[arg(long)]
    pub all: bool,
}

/// How to watch.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// Stop after this long: 250ms, 30s, 5m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub limit: Option<Duration>,
    /// Only sockets of these ports (local; for clients also remote); filtered in the kernel
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Only this network namespace: its inode number, a pid in it, or a name in /run/netns; filtered in the kernel
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// Print only what concerns these processes
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Print only what concerns processes of these names
    #[arg(long, value_name = "NAME")]
    pub comm: Vec<String>,
    /// Print only what concerns these containers, pods or units (part of the name)
    #[arg(long, visible_alias = "cgroup", value_name = "NAME")]
    pub container: Vec<String>,
    /// Print only what concerns remote addresses in these networks
    #[arg(long, value_name = "CIDR")]
    pub peer: Vec<crate::output::Network>,
    /// Print only these findings
    #[arg(long, value_name = "CODE")]
    pub finding: Vec<String>,
    /// End with exit code 1 if there was a finding of this severity or a worse one
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
}

/// Which listeners to show.
#[derive(Args, Clone, Debug)]
pub struct ListenersArgs {
    /// One JSON object a line on stdout: every listener, then a summary that says what is missing
    #[arg(long)]
    pub json: bool,
    /// Trace for this long first (250ms, 30s, 5m), and add rates, drops by cause, waits and backlog arguments seen
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub limit: Option<Duration>,
    /// What to sort by
    #[arg(long, value_enum, default_value_t, value_name = "KEY")]
    pub sort: crate::stock::SortBy,
    /// Only these ports
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// Only this network namespace: its inode number, a pid in it, or a name in /run/netns
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// Only listeners that these processes have open
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Only listeners that processes of these names have open
    #[arg(long, value_name = "NAME")]
    pub comm: Vec<String>,
    /// Only listeners of these containers, pods or units (part of the name)
    #[arg(long, visible_alias = "cgroup", value_name = "NAME")]
    pub container: Vec<String>,
    /// How to trace, with --for.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// How to look at the probes.
#[derive(Args, Clone, Debug)]
pub struct ProbesArgs {
    /// One JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// Make a handshake, an overflow and a conflict in a private namespace, and name every probe that did not fire
    #[arg(long)]
    pub self_test: bool,
}

/// What to rehearse.
#[derive(Args, Clone, Debug)]
pub struct RehearseArgs {
    /// Name of the incident; `all` for all, `list` to list them
    pub name: String,
    /// A variant of it
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
    /// Addresses to use: 4, 6, or mapped (IPv4 clients of an IPv6 socket)
    #[arg(long, default_value = "4", value_name = "FAMILY")]
    pub family: crate::rehearse::Family,
    /// Set net.ipv4.tcp_abort_on_overflow in the private namespace
    #[arg(long)]
    pub abort_on_overflow: bool,
    /// net.ipv4.tcp_syncookies in the private namespace
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub syncookies: Option<u8>,
    /// Start the server before the tracer
    #[arg(long)]
    pub older: bool,
    /// How many conflicts to make (port-grab --variant vanishing)
    #[arg(long, value_name = "N")]
    pub count: Option<u16>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Whom to look for.
///
/// Exit code 0: somebody has one of the ports. 1: nobody has any. 2: usage. 3: not permitted.
#[derive(Args, Clone, Debug)]
pub struct WhoArgs {
    /// Ports and ranges of ports: 35010, 35000-35100, 80,443
    #[arg(required = true, value_name = "PORT")]
    pub ports: Vec<crate::host::port_set::PortSet>,
    /// Only in this network namespace: its inode number, a pid in it, or a name in /run/netns
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// One JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
}

/// How to check.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// One JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
    /// Only this network namespace: its inode number, a pid in it, or a name in /run/netns
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// Ports of servers that are still to be started, as 35000-36000,40000: checked like those that listen now
    #[arg(long, value_name = "PORTS")]
    pub servers: Option<crate::host::port_set::PortSet>,
    /// Leave out this kind of risk (several times for several)
    #[arg(long, value_name = "CODE")]
    pub ignore: Vec<String>,
}

/// Kinds of attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// For each observation the best that works
    Auto,
    /// fentry and fexit
    Fexit,
    /// kprobe and kretprobe
    Kprobe,
    /// BTF tracepoints and the tracepoints of system calls
    Tracepoint,
}

impl From<Attach> for Tier {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Fexit => Self::Only(BackEnd::Fexit),
            Attach::Kprobe => Self::Only(BackEnd::Kprobe),
            Attach::Tracepoint => Self::Only(BackEnd::Tracepoint),
        }
    }
}

/// Severities that can fail a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Worth knowing
    Info,
    /// Something is about to break, or breaks now and then
    Warning,
    /// Connections are being refused or dropped
    Critical,
}

impl From<FailOn> for Severity {
    fn from(fail_on: FailOn) -> Self {
        match fail_on {
            FailOn::Info => Self::Info,
            FailOn::Warning => Self::Warning,
            FailOn::Critical => Self::Critical,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a time: use 250ms, 30s, 5m or 2h"))?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is less than nothing"))
}

fn power_of_two(text: &str) -> Result<u32, String> {
    let kib: u32 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if kib.is_power_of_two() && (4..=1 << 20).contains(&kib) {
        Ok(kib)
    } else {
        Err(format!("{kib} is not a power of two between 4 and 1048576"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn watching_needs_no_subcommand() {
        let cli = Cli::try_parse_from(["tcptrace", "--json", "--for", "30s", "--port", "80"]).unwrap();
        assert!(cli.command.is_none());
        assert!(cli.watch.output.json);
        assert_eq!(cli.watch.limit, Some(Duration::from_secs(30)));
        assert_eq!(cli.watch.port, [80]);
    }

    #[test]
    fn times_are_as_documented() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert!(duration("soon").is_err());
        assert!(duration("-5s").is_err());
    }

    #[test]
    fn rings_are_powers_of_two() {
        assert_eq!(power_of_two("64"), Ok(64));
        assert!(power_of_two("65").is_err());
        assert!(power_of_two("0").is_err());
    }
}
