//! The command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::moment::Moment;
use crate::{
    config::KeepOn,
    event::PortSet,
    finding::Severity,
    probe::{BackEnd, Tier},
    record::Rotation,
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
    /// How everything is to look.
    #[command(flatten)]
    pub look: LookArgs,
}

/// How everything is to look.
#[derive(Args, Clone, Debug)]
pub struct LookArgs {
    /// Colours: always, never, or (auto) on a terminal, unless NO_COLOR or TERM=dumb says no; CLICOLOR_FORCE says yes
    #[arg(long, global = true, value_name = "WHEN")]
    pub color: Option<clap::ColorChoice>,
    /// Tell times in UTC, not in the local time zone (TZ, else the system's)
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub utc: Option<bool>,
    /// Read the settings from this file (docs/config.md) instead of /etc/tcptrace/tcptrace.toml and the user's own; /dev/null: none
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Live findings, as they happen (the default); of recordings that are named, those that were given then
    Watch(WatchFilesArgs),
    /// Everything on one screen, live or of a recording: findings, queues, ports, connects, half-open requests, single connections
    Top(TopArgs),
    /// Record what happens, for example while a load test runs: record -o run.arrows -- wrk …
    Record(RecordArgs),
    /// Always on, one a host: keeps the last hours of recording within a size, and the minutes around each incident
    Agent(AgentArgs),
    /// A recording as if it happened now: the findings that watch gave, or would have given
    Replay(ReplayArgs),
    /// What happened, from recordings: what was found, who held which port, listeners, ports, destinations, losses
    Report(ReportArgs),
    /// What changed between two recordings (before and after a fix, two load tests); exit code 1 if something is worse
    Compare(CompareArgs),
    /// A recording as Parquet, JSON lines or CSV
    Export(ExportArgs),
    /// Every listener now: owner, queue, limit and the knob that sets it, drops; with --for, what a trace adds
    Listeners(ListenersArgs),
    /// Why one destination does not answer: walks the candidate causes, ends in one verdict (exit code 0 only if healthy)
    Why(WhyArgs),
    /// What this kernel allows, what is attached, what is not and why
    Probes(ProbesArgs),
    /// Make an incident in a private network namespace while tracing it, and explain it
    Rehearse(RehearseArgs),
    /// Ephemeral ports now: by process and destination, how many are left, and with --for how long they last
    Ports(PortsArgs),
    /// Who holds a port, in every state and network namespace, and what a bind to it would meet
    Who(WhoArgs),
    /// Settings and listeners that will hurt, each with its remedy; exit code 1 if there is any. Needs no BPF
    Check(CheckArgs),
    /// The page that explains a finding: what opens it, its causes and what each rests on, what to do
    Explain(ExplainArgs),
    /// The settings in force, and where each comes from: files, environment, flags; as a file that sets the same
    Config,
    /// The JSON Schema of what --json prints: of one type of line, or one that any line of any command satisfies
    Schema(SchemaArgs),
    /// What a shell needs to complete command lines: `tcptrace completions bash`, to be sourced or put where it looks for such
    Completions(CompletionsArgs),
    /// The manual page, of tcptrace or of a subcommand: `tcptrace man record | man -l -`
    Man(ManArgs),
}

/// Of which lines.
#[derive(Args, Clone, Debug)]
pub struct SchemaArgs {
    /// The `type` of a line; without it, the schema of any line
    #[arg(value_name = "TYPE")]
    pub kind: Option<String>,
    /// List the types instead
    #[arg(long, conflicts_with = "kind")]
    pub list: bool,
}

/// For which shell.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Shells that complete command lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// elvish
    Elvish,
    /// fish
    Fish,
    /// Nushell
    Nushell,
    /// PowerShell
    Powershell,
    /// zsh
    Zsh,
}

/// Which manual page.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// The subcommand; without it, the page of tcptrace itself
    #[arg(value_name = "SUBCOMMAND")]
    pub subcommand: Option<String>,
}

/// Which finding to explain.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The finding's code, as in its headline; without it, the codes are listed
    pub code: Option<String>,
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
    /// Print (and stream from the kernel) every connect, handshake, accept and port, not only the anomalies
    #[arg(long)]
    pub all: bool,
    /// With --all: every SYN, too, with both queues as it left them
    #[arg(long, requires = "all")]
    pub syns: bool,
    /// At the end: list every counter of the kernel beside ours, not only those that differ and should not
    #[arg(long)]
    pub counters: bool,
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
    /// What to look at.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// What to print.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// End with exit code 1 if there was a finding of this severity or a worse one
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
}

/// How to watch, live or from recordings.
#[derive(Args, Clone, Debug)]
pub struct WatchFilesArgs {
    /// How to watch.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Instead of this host: a recording (a file, the parts of a rotated one, or a directory); as replay does it
    #[arg(value_name = "FILE", conflicts_with_all = ["limit", "attach", "ring_kib", "kernel_log"])]
    pub files: Vec<PathBuf>,
}

/// What to show on the screen.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Instead of this host: a recording (a file, the parts of a rotated one, or a directory), with a time slider
    #[arg(value_name = "FILE", conflicts_with_all = ["all", "syns", "bpf_cost", "attach", "ring_kib", "kernel_log"])]
    pub files: Vec<PathBuf>,
    /// Stream every connect, handshake, accept and port from the kernel, for the timelines of single connections
    #[arg(long)]
    pub all: bool,
    /// With --all: every SYN as well, with both queues as it left them
    #[arg(long, requires = "all")]
    pub syns: bool,
    /// Colours; without it those for a dark background, and none with NO_COLOR or --color never
    #[arg(long, value_enum, value_name = "THEME")]
    pub theme: Option<crate::top::Theme>,
    /// Draw bars and lines with ASCII only; without it that depends on the locale
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ascii: Option<bool>,
    /// Take clicks and the wheel (the terminal then marks text only with Shift)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub mouse: Option<bool>,
    /// Have the kernel measure its BPF programs, and show what ours take: costs every program of the host about 20 ns a run
    #[arg(long)]
    pub bpf_cost: bool,
    /// What to look at.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// What to show first; it can be changed on the screen.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// What to look at.
#[derive(Args, Clone, Debug, Default)]
pub struct FilterArgs {
    /// Only sockets of these ports (local; for clients also remote): 80, 80,443 or 8000-8099; up to eight are filtered in the
    /// kernel
    #[arg(long, value_name = "PORTS", value_parser = ports)]
    pub port: Vec<PortSet>,
    /// Only this network namespace: its inode number, a pid in it, or a name in /run/netns; one is filtered in the kernel
    #[arg(long, value_name = "NETNS", value_delimiter = ',')]
    pub netns: Vec<String>,
}

/// Of which time.
#[derive(Args, Clone, Debug, Default)]
pub struct PeriodArgs {
    /// Only from then on: 2026-11-22T03:00:00Z, 03:12, 10m ago
    #[arg(long, value_name = "TIME")]
    pub from: Option<Moment>,
    /// Only until then
    #[arg(long, value_name = "TIME")]
    pub to: Option<Moment>,
}

/// What to print.
#[derive(Args, Clone, Debug, Default)]
pub struct SelectionArgs {
    /// Whom it is to be about.
    #[command(flatten)]
    pub parties: PartyArgs,
    /// Only these findings
    #[arg(long, visible_alias = "code", value_name = "CODE", value_delimiter = ',')]
    pub finding: Vec<String>,
}

/// Whom it is to be about.
#[derive(Args, Clone, Debug, Default)]
pub struct PartyArgs {
    /// Only what concerns these processes
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Only what concerns processes of these names (as the kernel has them: 15 bytes at most)
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = comm)]
    pub comm: Vec<String>,
    /// Only what concerns these containers, pods or units (part of the name)
    #[arg(long, visible_alias = "cgroup", value_name = "NAME", value_delimiter = ',', value_parser = part_of_a_name)]
    pub container: Vec<String>,
    /// Only what concerns remote addresses in these networks
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub peer: Vec<crate::output::Network>,
}

/// How to record.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// The file to make (an Arrow IPC stream; *.arrows)
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Overwrite it
    #[arg(long)]
    pub force: bool,
    /// Record every connect, handshake, accept and port, not only anomalies and the listeners' numbers
    #[arg(long)]
    pub all: bool,
    /// With --all: every SYN, too, with both queues as it left them
    #[arg(long, requires = "all")]
    pub syns: bool,
    /// Stop after this long: 250ms, 30s, 5m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub limit: Option<Duration>,
    /// Begin a new file at this size (64M, 1G) or after this long (10m, 1h): FILE.000001.arrows, FILE.000002.arrows…
    #[arg(long, value_name = "SIZE|TIME", value_parser = rotation)]
    pub rotate: Option<Rotation>,
    /// With --rotate: delete the oldest files, so that all together stay below this size
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "rotate")]
    pub keep: Option<u64>,
    /// What to look at.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Whom to record: others' events are left out, and what the kernel counts of them is said to be filtered.
    #[command(flatten)]
    pub parties: PartyArgs,
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// Run the command as root, and not as the user who called sudo
    #[arg(long, requires = "command")]
    pub as_root: bool,
    /// Record while this command runs, then report; ends with the command's exit code
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// How to run as an agent. What is not said here is as the section `[agent]` of the configuration has it.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// Where it records: ring/ has the last hours, incidents/ what is kept; one agent for each directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Answer HTTP requests here: /metrics (OpenMetrics), /health, /ready, POST /snapshot; 127.0.0.1:9797
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<std::net::SocketAddr>,
    /// Allow --metrics an address that other hosts can reach; there is neither encryption nor a password
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub metrics_remote: Option<bool>,
    /// How many listeners have metrics of their own (500); all others share series whose labels are (other)
    #[arg(long, value_name = "COUNT")]
    pub max_listeners: Option<usize>,
    /// What the ring may have of the disk (512M); the oldest parts are deleted
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub keep_size: Option<u64>,
    /// How long a part stays in the ring (24h)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub keep_age: Option<Duration>,
    /// Keep the minutes around findings of this severity or a worse one (critical), beside those that SIGUSR1 or POST /snapshot ask for
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub keep_on: Option<KeepOn>,
    /// How much of the time before an incident is kept (2m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub before: Option<Duration>,
    /// And of the time after it (2m); what comes meanwhile prolongs it, to ten times as much
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub after: Option<Duration>,
    /// What kept incidents may have of the disk, beside the ring (512M); the oldest incidents are deleted
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub keep_incidents: Option<u64>,
    /// How long a part of the recording is (1m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub part: Option<Duration>,
    /// Findings as one JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
    /// Stop after this long: 250ms, 30s, 5m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub limit: Option<Duration>,
    /// Have the kernel measure its BPF programs: costs every program of the host about 20 ns a run
    #[arg(long)]
    pub bpf_cost: bool,
    /// What to look at.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// How to replay.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The recording: a file, the parts of a rotated one, or a directory
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
    /// Print the events behind the findings, too
    #[arg(long)]
    pub events: bool,
    /// At the end: list every counter of the kernel beside ours, not only those that differ and should not
    #[arg(long)]
    pub counters: bool,
    /// Of which time.
    #[command(flatten)]
    pub period: PeriodArgs,
    /// Only sockets of these ports (local; for clients also remote): 80, 80,443 or 8000-8099
    #[arg(long, value_name = "PORTS", value_parser = ports)]
    pub port: Vec<PortSet>,
    /// Only this network namespace: its inode number then
    #[arg(long, value_name = "INODE", value_delimiter = ',')]
    pub netns: Vec<u32>,
    /// What to print.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// End with exit code 1 if there was a finding of this severity or a worse one
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
}

/// How to report.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Recordings: files, parts of rotated ones, directories; of several hosts, too
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
    /// Write one self-contained page into this file, - is stdout (and with --json the lines to stdout)
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write it as Markdown into this file, to be pasted into a chat, an issue or a wiki; - is stdout
    #[arg(long, value_name = "FILE")]
    pub md: Option<PathBuf>,
    /// Overwrite these files
    #[arg(long)]
    pub force: bool,
    /// Of which time.
    #[command(flatten)]
    pub period: PeriodArgs,
    /// Who had this local port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// At this time; without: all that are known
    #[arg(long, value_name = "TIME", requires = "port")]
    pub at: Option<Moment>,
    /// End with exit code 1 if there was a finding of this severity or a worse one
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
}

/// What to compare.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// The recording before: a file or a directory with its parts
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The recording after
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
    /// Worse is: a new finding; or drops a second, or significantly longer accept waits or handshakes (p < 0.001), by more than
    /// so many percent
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT")]
    pub threshold: f64,
    /// Compare what can be read of recordings that are damaged or cut, instead of refusing them
    #[arg(long)]
    pub partial: bool,
}

/// How to export.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The form
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: ExportFormat,
    /// Where to write it; without: stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Overwrite it
    #[arg(long)]
    pub force: bool,
}

/// Forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Parquet, packed with zstd
    Parquet,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values
    Csv,
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
    /// Only these ports: 80, 80,443 or 8000-8099
    #[arg(long, value_name = "PORTS", value_parser = ports)]
    pub port: Vec<PortSet>,
    /// Only this network namespace: its inode number, a pid in it, or a name in /run/netns
    #[arg(long, value_name = "NETNS", value_delimiter = ',')]
    pub netns: Vec<String>,
    /// Only listeners that these processes have open
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Only listeners that processes of these names have open (as the kernel has them: 15 bytes at most)
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = comm)]
    pub comm: Vec<String>,
    /// Only listeners of these containers, pods or units (part of the name)
    #[arg(long, visible_alias = "cgroup", value_name = "NAME", value_delimiter = ',', value_parser = part_of_a_name)]
    pub container: Vec<String>,
    /// How to trace, with --for.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// What to ask about.
#[derive(Args, Clone, Debug)]
pub struct WhyArgs {
    /// The destination: web.example:443, 10.0.0.5:80 or [2001:db8::5]:80
    #[arg(value_name = "HOST:PORT")]
    pub target: crate::why::Target,
    /// Watch for this long (0s: not at all); without it 10 s, unless the verdict is certain at once
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub limit: Option<Duration>,
    /// Open one connection, and close it again without sending a byte; without this nothing is sent (but to resolve a name)
    #[arg(long)]
    pub probe: bool,
    /// How long that connection may take
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub timeout: Duration,
    /// Ask from this network namespace: its inode number, a pid in it, or a name in /run/netns
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// One JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
    /// How to trace.
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
    /// Record what is traced into this file, too
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// How to trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// How to look at ephemeral ports.
#[derive(Args, Clone, Debug)]
pub struct PortsArgs {
    /// One JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
    /// Only this network namespace: its inode number, a pid in it, or a name in /run/netns
    #[arg(long, value_name = "NETNS", value_delimiter = ',')]
    pub netns: Vec<String>,
    /// All processes and destinations, not only the first ten
    #[arg(long)]
    pub all: bool,
    /// Trace so long before, for rates and forecasts (needs BPF): 10s, 2m
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub limit: Option<Duration>,
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
    #[arg(required = true, value_name = "PORT", value_parser = ports)]
    pub ports: Vec<PortSet>,
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
    #[arg(long, value_name = "NETNS", value_delimiter = ',')]
    pub netns: Vec<String>,
    /// Ports of servers that are still to be started, as 35000-36000,40000: checked like those that listen now
    #[arg(long, value_name = "PORTS")]
    pub servers: Option<PortSet>,
    /// Leave out these kinds of risk
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
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

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a time: use 250ms, 30s, 5m or 2h"))?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is less than nothing"))
}

/// 80, 80,443, 8000-8099. Port 0 is no port: bind() and connect() take it for "any".
pub(crate) fn ports(text: &str) -> Result<PortSet, String> {
    let set: PortSet = text.parse().map_err(|error| format!("{error}"))?;
    if set.contains(0) {
        return Err("port 0 is no port that a socket can have: it stands for \"any\" in bind()".to_owned());
    }
    if set.is_empty() { Err("no port is given".to_owned()) } else { Ok(set) }
}

/// All that was given, as one set.
pub(crate) fn union(sets: &[PortSet]) -> PortSet {
    let mut all = PortSet::new();
    sets.iter().for_each(|set| all.merge(set));
    all
}

/// The name of a process, which the kernel cuts (`TASK_COMM_LEN`): a longer one is the name of none.
pub(crate) fn comm(text: &str) -> Result<String, String> {
    const LONGEST: usize = 15;
    match text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= LONGEST).last() {
        None => Err("no process is called so".to_owned()),
        Some(end) if end < text.len() => {
            Err(format!("the kernel keeps 15 bytes of a name: use {:?}", text.get(..end).unwrap_or_default()))
        }
        Some(_) => Ok(text.to_owned()),
    }
}

/// Part of the name of a container, pod or unit. An empty part would be in every name.
pub(crate) fn part_of_a_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("no name is given".to_owned()) } else { Ok(text.to_owned()) }
}

/// 4096, 64k, 64M, 1G, 1T: powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: use 500k, 64M or 1G");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let factor: u64 = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|size| *size > 0).ok_or_else(wrong)
}

/// `64M` is a size, `10m` are ten minutes.
fn rotation(text: &str) -> Result<Rotation, String> {
    // A small m is a minute, as in every other time; sizes are written with capitals or in full.
    if let Ok(time) = duration(text)
        && !time.is_zero()
    {
        return Ok(Rotation::Time(time));
    }
    size(text)
        .map(Rotation::Size)
        .map_err(|_| format!("{text:?} is neither a size (64M, 1G) nor a time (10m, 1h)"))
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
        assert_eq!(union(&cli.watch.filter.port).to_string(), "80");
    }

    #[test]
    fn times_are_as_documented() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert!(duration("soon").is_err());
        assert!(duration("-5s").is_err());
    }

    #[test]
    fn rotations_are_sizes_or_times() {
        assert_eq!(rotation("64M"), Ok(Rotation::Size(64 << 20)));
        assert_eq!(rotation("1GiB"), Ok(Rotation::Size(1 << 30)));
        assert_eq!(rotation("10m"), Ok(Rotation::Time(Duration::from_secs(600))));
        assert_eq!(rotation("4096"), Ok(Rotation::Size(4096)));
        for wrong in ["", "0", "0s", "big", "-1M", "99999999T"] {
            assert!(rotation(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_is_recorded_as_it_is() {
        let words = ["tcptrace", "record", "-o", "f", "--", "wrk", "-t", "4", "--latency"];
        let Some(Command::Record(args)) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        assert_eq!(args.command, ["wrk", "-t", "4", "--latency"]);
        assert!(Cli::try_parse_from(["tcptrace", "record", "-o", "f", "--keep", "1G"]).is_err());
    }

    #[test]
    fn recordings_are_watched_as_they_are_replayed() {
        let words = ["tcptrace", "watch", "run.arrows", "--port", "80", "--comm", "nginx"];
        let Some(Command::Watch(args)) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        assert_eq!(args.files, [PathBuf::from("run.arrows")]);
        assert_eq!(union(&args.watch.filter.port).to_string(), "80");
        assert!(Cli::try_parse_from(["tcptrace", "watch", "run.arrows", "--for", "3s"]).is_err());
        assert!(Cli::try_parse_from(["tcptrace", "watch", "--for", "3s"]).is_ok());
    }

    #[test]
    fn filters_are_repeated_lists_and_ranges() {
        let words = ["tcptrace", "--port", "80,443", "--port", "8000-8099", "--netns", "a", "--netns", "b"];
        let filter = Cli::try_parse_from(words).unwrap().watch.filter;
        assert_eq!(union(&filter.port).to_string(), "80,443,8000-8099");
        assert_eq!(filter.netns, ["a", "b"]);
        let words = ["tcptrace", "--pid", "7,8", "--pid", "9", "--finding", "bind-conflict,no-listener"];
        let selection = Cli::try_parse_from(words).unwrap().watch.selection;
        assert_eq!(selection.parties.pid, [7, 8, 9]);
        assert_eq!(selection.finding, ["bind-conflict", "no-listener"]);
    }

    #[test]
    fn a_filter_that_matches_nothing_is_refused() {
        for words in [["--port", "0"], ["--port", "0-9"], ["--port", ""], ["--port", "9-1"], ["--comm", ""]] {
            assert!(Cli::try_parse_from(["tcptrace", words[0], words[1]]).is_err(), "{words:?}");
        }
        assert!(Cli::try_parse_from(["tcptrace", "who", "0"]).is_err());
        assert_eq!(comm("systemd-resolve"), Ok("systemd-resolve".to_owned()));
        assert!(comm("systemd-resolved").unwrap_err().contains("\"systemd-resolve\""));
    }

    #[test]
    fn rings_are_powers_of_two() {
        assert_eq!(power_of_two("64"), Ok(64));
        assert!(power_of_two("65").is_err());
        assert!(power_of_two("0").is_err());
    }
}
