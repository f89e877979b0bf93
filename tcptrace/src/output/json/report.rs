//! A report on recordings as lines: of several recordings first `clock` and `stall`; then for each recording `recording`, its
//! `finding`, `listener-report`, `port-user`, `port-space`, `destination`, `network`, `port-holder`, `gap` and `lost` lines, and a
//! `summary`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::Serialize;

use super::finding::{ElsewhereLine, FindingLine, HistoryLine, MomentLine};
use super::identity::{Container, Endpoint, Missing, Netns, Process, Range, Subject, Time};
use super::trace::LostLine;
use super::{Line, SummaryLine};
use crate::event::Timestamp;
use crate::finding::Confidence;
use crate::record::{Condition, Mark, Metadata};
use crate::report::{
    self, Across, Clock, Comparison, Destination, Gap, Holding, ListenerChange, ListenerReport, LostEvents,
    NetworkReport, Pair, PortQuestion, PortSpace, PortUser, Report, Stall, TimesChange, Verdict,
};

/// A recording, and what is wrong with its files; `time` is its end.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RecordingLine {
    /// Kernel release of its host.
    pub kernel: String,
    /// Version of tcptrace that recorded.
    pub version: String,
    /// The command that was recorded; null if there was none.
    pub command: Option<Vec<String>>,
    /// Its first moment, or the one that was asked for.
    pub from: Time,
    /// Its last.
    pub to: Time,
    /// Events in it.
    pub events: u64,
    /// Whether nothing of it is missing.
    pub complete: bool,
    /// What is missing, all in all.
    pub missing: Vec<Missing>,
    /// What is wrong with its files.
    pub damage: Vec<DamageLine>,
    /// What was left out of the report because there was too much, by name.
    pub left_out: BTreeMap<String, u64>,
}

/// One thing that is wrong with a recording's file.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DamageLine {
    /// Which file; null: the recording as a whole.
    pub file: Option<String>,
    /// What, in words.
    pub title: String,
    /// Whether events are missing.
    pub events_missing: bool,
    /// How many, if that is known.
    pub events: Option<u64>,
    /// Over how long, if that is known.
    pub duration_s: Option<f64>,
    /// Not before this.
    pub from: Option<Time>,
    /// Not after this.
    pub to: Option<Time>,
}

/// A listener in a recording.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ListenerReportLine {
    /// The listener and the process that has it.
    pub subject: Subject,
    /// Limit of its accept queue, as last seen.
    pub queue_limit: u32,
    /// Deepest accept queue seen.
    pub queue_max: u32,
    /// SYNs that reached it, where that is counted.
    pub syns: Option<u64>,
    /// SYNs dropped at its full accept queue.
    pub syn_drops: Option<u64>,
    /// Final ACKs dropped there.
    pub ack_drops: Option<u64>,
    /// The socket's own count (`sk_drops`): what is left where drops are not seen one by one.
    pub socket_drops: Option<u64>,
    /// SYNs dropped at its full SYN queue.
    pub syn_queue_drops: Option<u64>,
    /// SYN-ACKs sent again.
    pub synack_retransmits: Option<u64>,
    /// Connections put into the accept queue.
    pub enqueued: Option<u64>,
    /// Connections accepted.
    pub accepted: Option<u64>,
    /// Accept wait that half of the connections were not over.
    pub wait_p50_ms: Option<f64>,
    /// The same of 99 %.
    pub wait_p99_ms: Option<f64>,
    /// Longest accept wait.
    pub wait_max_ms: Option<f64>,
    /// When it was closed; null if it was not.
    pub closed: Option<Time>,
    /// Over time.
    pub series: SeriesLine,
}

/// Numbers over time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SeriesLine {
    /// Where the first bin begins.
    pub start: Time,
    /// Width of a bin.
    pub bin_s: u64,
    /// The bins.
    pub bins: Vec<BinLine>,
}

/// What happened in one bin of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BinLine {
    /// Deepest accept queue; null if it was not looked at.
    pub queue: Option<u32>,
    /// Most requests in the SYN queue.
    pub syn_queue: Option<u32>,
    /// Connections dropped.
    pub drops: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Ports in use at its end, or SYN-ACKs sent again: whatever the series is of.
    pub level: Option<u64>,
    /// Accept waits by power of two: the first below 2 µs, then 2–4 µs, …, the last over 34 s. Left out if there were none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<u64>,
}

/// A process that takes ports.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PortUserLine {
    /// The process.
    pub process: Process,
    /// Ports taken.
    pub taken: u64,
    /// Of these: chosen by the kernel, from the ephemeral range.
    pub ephemeral: u64,
    /// Given back.
    pub released: u64,
    /// Of these: left in TIME_WAIT.
    pub time_wait: u64,
    /// connect() calls that found no port.
    pub refused: u64,
    /// Most at a time.
    pub held_max: u64,
    /// Ports in use over time.
    pub series: SeriesLine,
}

/// The ephemeral ports of a network namespace, where a look was taken because it mattered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PortSpaceLine {
    /// The network namespace.
    pub netns: Netns,
    /// `net.ipv4.ip_local_port_range`.
    pub range: Range,
    /// Ports in it that are not reserved.
    pub capacity: u32,
    /// Most that were in use.
    pub in_use_max: u32,
    /// When that was.
    pub in_use_max_at: Time,
    /// Most that TIME_WAIT alone had.
    pub time_wait_max: u32,
    /// How often a look was taken.
    pub looks: u64,
}

/// Where connections were made to.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DestinationLine {
    /// Remote end.
    pub remote: Endpoint,
    /// Connects that took a port for it, as far as these are recorded (`record --all`).
    pub connects: u64,
    /// Connects whose SYN was sent again.
    pub unanswered: u64,
    /// Connects answered by RST.
    pub refused: u64,
    /// Connects that ended otherwise without a connection.
    pub failed: u64,
    /// The longest that a connect took or waited in vain, of those that were slow or failed.
    pub longest_ms: Option<f64>,
    /// The process that connected there first.
    pub process: Process,
    /// How many processes connected there.
    pub processes: u64,
}

/// A remote network whose SYN-ACKs stayed unanswered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NetworkLine {
    /// `192.0.2.0/24`.
    pub prefix: String,
    /// SYN-ACKs sent again to it.
    pub retransmissions: u64,
    /// Requests that expired; null where ends of requests are not seen.
    pub expired: Option<u64>,
    /// SYN-ACKs sent again over time.
    pub series: SeriesLine,
}

/// A socket that had the port that was asked for (`--who-had`).
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PortHolderLine {
    /// The port that was asked for.
    pub port: u16,
    /// The time that was asked for; null: any.
    pub at: Option<Time>,
    /// The socket and its process.
    pub subject: Subject,
    /// Since when; with `since_seen` false it was first seen then, and may have been there before.
    pub since: Time,
    /// Whether the taking itself was seen.
    pub since_seen: bool,
    /// Until when; null: still held at the recording's end, as far as was seen.
    pub until: Option<Time>,
    /// Whether a TIME_WAIT remnant held it for up to a minute longer.
    pub time_wait: bool,
}

/// Something that was not observed, or not every time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GapLine {
    /// What.
    pub what: String,
    /// polled or missing.
    pub status: &'static str,
    /// Why.
    pub why: Option<String>,
    /// From when on it was so.
    pub since: Time,
}

/// A recording's clock, beside those of the other recordings.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ClockLine {
    /// The recording: its host's name, numbered if there are several of that name.
    pub recording: String,
    /// The recording whose clock it is compared with; null for that one itself.
    pub against: Option<String>,
    /// How far it is ahead.
    pub ahead_ms: Option<f64>,
    /// It may be so much more or less.
    pub error_ms: Option<f64>,
    /// Handshakes seen at both ends that say so; 0 for recordings of one boot of one host, which have one clock.
    pub handshakes: u64,
    /// Handshakes that say otherwise.
    pub contradicting: u64,
    /// Why it cannot be said how far it is ahead.
    pub untold: Option<&'static str>,
}

/// Connects of one host to one destination that stalled for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StallLine {
    /// The recording made at the client.
    pub client_recording: String,
    /// The process that connects most often of these.
    pub client: Process,
    /// Network namespace of the clients.
    pub client_netns: Netns,
    /// Where it connects to.
    pub destination: Endpoint,
    /// What was found at the client about this destination.
    pub client_finding: Option<&'static str>,
    /// Its connects to this destination that stalled or failed, for whatever reason.
    pub stalled: u64,
    /// Of these: those that this server was seen to treat so.
    pub matched: u64,
    /// The recording made at the server.
    pub server_recording: String,
    /// Why, as the code of a finding; lost-on-the-way: the server did not see the SYNs that were sent in vain.
    pub code: &'static str,
    /// How sure that is: certain where the very connection was seen at both ends and their clocks were compared.
    pub confidence: Confidence,
    /// What the server did with them, in words.
    pub deeds: String,
    /// What was found at the server, in one sentence.
    pub server_finding: Option<String>,
    /// The cause that was found there.
    pub server_cause: Option<&'static str>,
    /// How long the longest of them took.
    pub longest_ms: Option<f64>,
    /// What happened to that one at both ends.
    pub course: Vec<CourseLine>,
}

/// A moment of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CourseLine {
    /// When: by the client's clock, unless `own_clock`.
    pub time: Time,
    /// By the recording's own clock, which could not be compared with the client's.
    pub own_clock: bool,
    /// Whose recording says so.
    pub recording: String,
    /// What.
    pub title: String,
}

/// Two recordings side by side (`compare`).
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ComparisonLine {
    /// Length of the first.
    pub before_s: f64,
    /// Length of the second.
    pub after_s: f64,
    /// Listeners that had anything to do in either.
    pub listeners: Vec<ListenerChangeLine>,
    /// Findings that only the second has.
    pub appeared: Vec<FoundLine>,
    /// Findings that only the first has.
    pub went: Vec<FoundLine>,
    /// Findings that both have.
    pub stayed: Vec<FoundLine>,
    /// What is worse beyond the threshold, a sentence each.
    pub worse: Vec<String>,
    /// Whether nothing of either recording is missing.
    pub complete: bool,
    /// What is wrong with the first.
    pub damage_before: Vec<DamageLine>,
    /// What is wrong with the second.
    pub damage_after: Vec<DamageLine>,
}

/// A finding, without what differs between two runs of the same program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FoundLine {
    /// Its code.
    pub code: &'static str,
    /// Its cause.
    pub cause: &'static str,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// Name of its process.
    pub comm: Option<String>,
}

/// What changed at a listener.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ListenerChangeLine {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Name of the process that has it.
    pub comm: Option<String>,
    /// Which recording has it: before, after or both.
    pub present: report::Present,
    /// Connections accepted a second.
    pub accepted_per_s: PairLine,
    /// Connections dropped a second.
    pub drops_per_s: PairLine,
    /// Deepest accept queue.
    pub queue_max: PairLine,
    /// Limit of the accept queue.
    pub queue_limit: PairLine,
    /// Accept waits.
    pub waits: Option<TimesChangeLine>,
    /// Handshake times.
    pub handshakes: Option<TimesChangeLine>,
}

/// A number in both recordings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PairLine {
    /// In the first.
    pub before: f64,
    /// In the second.
    pub after: f64,
}

/// What changed between two distributions of times.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TimesChangeLine {
    /// Half were not longer.
    pub p50_ms: PairLine,
    /// 99 % were not longer.
    pub p99_ms: PairLine,
    /// Chance that one of the second is longer than one of the first, ties counted half; 0.5: alike.
    pub longer: f64,
    /// How probable so large a difference would be by chance alone (Mann-Whitney U test, two-sided).
    pub p: f64,
    /// How many times in the first.
    pub count_before: u64,
    /// How many times in the second.
    pub count_after: u64,
}

/// The lines for one recording, and for what is wrong with its files, each with its time.
pub fn lines(metadata: &Metadata, condition: &Condition, report: &Report) -> Vec<(Timestamp, Line)> {
    let mut lines: Vec<Line> = vec![recording(metadata, condition, report).into()];
    lines.extend(report.verdicts.iter().map(|of| finding(of).into()));
    let named = |netns: Netns| Netns::named(netns.id, report.netns_names.get(&netns.id).map(String::as_str));
    lines.extend(report.listeners.iter().map(|of| {
        let mut line = ListenerReportLine::from(of);
        line.subject.netns = line.subject.netns.map(named);
        line.into()
    }));
    lines.extend(report.users.iter().map(|of| PortUserLine::from(of).into()));
    lines.extend(report.port_spaces.iter().map(|of| {
        let line = PortSpaceLine::from(of);
        PortSpaceLine { netns: named(line.netns.clone()), ..line }.into()
    }));
    lines.extend(report.destinations.iter().map(|of| DestinationLine::from(of).into()));
    lines.extend(report.networks.iter().map(|of| NetworkLine::from(of).into()));
    if let Some((question, holdings)) = &report.holdings {
        lines.extend(holdings.iter().map(|of| {
            let mut line = port_holder(question, of);
            line.subject.netns = line.subject.netns.map(named);
            line.into()
        }));
    }
    lines.extend(report.gaps.iter().map(|of| GapLine::from(of).into()));
    lines.extend(report.losses.iter().map(|of| LostLine::from(of).into()));
    let mut summary = SummaryLine::of_trace("report", &report.summary);
    summary.complete = Some(condition.is_complete());
    summary.missing.extend(shortage(condition));
    lines.push(summary.into());
    // A finding has the time at which it was reported last; all else is of the recording's end.
    let time = |line: &Line| match line {
        Line::Finding(of) => of.history.as_ref().map_or(report.to, |history| history.to.0),
        _ => report.to,
    };
    lines.into_iter().map(|line| (time(&line), line)).collect()
}

/// The lines for what several recordings say together.
pub fn across(across: &Across) -> Vec<Line> {
    let clocks = across.clocks.iter().map(|of| ClockLine::from(of).into());
    clocks.chain(across.stalls.iter().map(|of| StallLine::from(of).into())).collect()
}

fn shortage(condition: &Condition) -> Option<Missing> {
    condition.shortage().map(|why| Missing { what: "events".to_owned(), why })
}

fn recording(metadata: &Metadata, condition: &Condition, report: &Report) -> RecordingLine {
    RecordingLine {
        kernel: metadata.kernel.clone(),
        version: metadata.version.clone(),
        command: metadata.command.clone(),
        from: report.from.into(),
        to: report.to.into(),
        events: report.events,
        complete: condition.is_complete(),
        missing: shortage(condition).into_iter().collect(),
        damage: condition.marks.iter().map(DamageLine::from).collect(),
        left_out: report.left_out.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
    }
}

fn finding(of: &Verdict) -> FindingLine {
    let moments = of.course.iter().map(|moment| MomentLine {
        time: moment.time.into(),
        state: moment.state,
        severity: moment.severity,
        cause: moment.cause,
        numbers: moment.numbers.clone(),
    });
    let elsewhere = of.elsewhere.iter().map(|of| ElsewhereLine {
        recording: of.recording.clone(),
        code: of.code,
        cause: of.cause,
        title: of.title.clone(),
        confidence: of.confidence,
    });
    FindingLine {
        history: Some(HistoryLine {
            from: of.opened.into(),
            to: of.until.into(),
            worst: of.worst,
            moments: moments.collect(),
            elsewhere: elsewhere.collect(),
        }),
        ..FindingLine::from(&of.finding)
    }
}

fn port_holder(question: &PortQuestion, of: &Holding) -> PortHolderLine {
    let socket = subject("socket", of.local, of.netns);
    PortHolderLine {
        port: question.port,
        at: question.at.map(|(first, _)| first.into()),
        subject: Subject {
            remote: of.remote.map(Endpoint::from),
            process: Some(Process {
                command: of.command.clone(),
                exe: of.details.exe.clone(),
                container: Container::of(of.container.as_deref(), &of.details),
                ..Process::named(of.pid, of.comm.as_deref())
            }),
            how: Some(of.how),
            ..socket
        },
        since: of.since.into(),
        since_seen: of.since_seen,
        until: of.until.map(Time),
        time_wait: of.time_wait,
    }
}

fn subject(kind: &'static str, at: SocketAddr, netns: u32) -> Subject {
    Subject {
        kind,
        address: Some(at.ip()),
        port: Some(at.port()),
        netns: Some(netns.into()),
        ..Subject::default()
    }
}

impl From<&Mark> for DamageLine {
    fn from(of: &Mark) -> Self {
        Self {
            file: of.file.clone(),
            title: of.what.clone(),
            events_missing: of.missing,
            events: of.events,
            duration_s: of.seconds,
            from: of.from.map(Time),
            to: of.to.map(Time),
        }
    }
}

impl From<&report::Series> for SeriesLine {
    fn from(of: &report::Series) -> Self {
        let bins = of.bins.iter().map(|bin| BinLine {
            queue: bin.queue,
            syn_queue: bin.syn_queue,
            drops: bin.drops,
            accepted: bin.accepted,
            level: bin.level,
            waits: bin.waits.clone(),
        });
        Self { start: of.start.into(), bin_s: of.width, bins: bins.collect() }
    }
}

impl From<&ListenerReport> for ListenerReportLine {
    fn from(of: &ListenerReport) -> Self {
        Self {
            subject: Subject {
                process: Some(of.process.as_ref().map(Process::of).unwrap_or_default()),
                confidence: of.process.as_ref().map(|process| process.confidence),
                also: of.process.iter().flat_map(|process| &process.also).map(Process::from).collect(),
                ..subject("listener", of.address, of.netns)
            },
            queue_limit: of.queue_limit,
            queue_max: of.queue_max,
            syns: of.syns,
            syn_drops: of.syn_drops,
            ack_drops: of.ack_drops,
            socket_drops: of.socket_drops,
            syn_queue_drops: of.syn_queue_drops,
            synack_retransmits: of.synack_retransmits,
            enqueued: of.enqueued,
            accepted: of.accepted,
            wait_p50_ms: of.wait_p50_ms,
            wait_p99_ms: of.wait_p99_ms,
            wait_max_ms: of.wait_max_ms,
            closed: of.closed.map(Time),
            series: SeriesLine::from(&of.series),
        }
    }
}

impl From<&PortUser> for PortUserLine {
    fn from(of: &PortUser) -> Self {
        Self {
            process: Process::of(&of.process),
            taken: of.taken,
            ephemeral: of.ephemeral,
            released: of.released,
            time_wait: of.time_wait,
            refused: of.refused,
            held_max: of.held_max,
            series: SeriesLine::from(&of.series),
        }
    }
}

impl From<&PortSpace> for PortSpaceLine {
    fn from(of: &PortSpace) -> Self {
        Self {
            netns: of.netns.into(),
            range: Range { from: of.first, to: of.last },
            capacity: of.capacity,
            in_use_max: of.in_use_max,
            in_use_max_at: of.in_use_max_at.into(),
            time_wait_max: of.time_wait_max,
            looks: of.looks,
        }
    }
}

impl From<&Destination> for DestinationLine {
    fn from(of: &Destination) -> Self {
        Self {
            remote: of.remote.into(),
            connects: of.connects,
            unanswered: of.unanswered,
            refused: of.refused,
            failed: of.failed,
            longest_ms: of.longest_ms,
            process: Process::of(&of.process),
            processes: of.processes,
        }
    }
}

impl From<&NetworkReport> for NetworkLine {
    fn from(of: &NetworkReport) -> Self {
        Self {
            prefix: of.network.clone(),
            retransmissions: of.retransmits,
            expired: of.expired,
            series: SeriesLine::from(&of.series),
        }
    }
}

impl From<&Gap> for GapLine {
    fn from(of: &Gap) -> Self {
        Self { what: of.name.clone(), status: of.status, why: of.reason.clone(), since: of.since.into() }
    }
}

impl From<&LostEvents> for LostLine {
    fn from(of: &LostEvents) -> Self {
        Self {
            what: of.what.clone(),
            count: of.count,
            place: of.place,
            from: of.from.into(),
            to: of.to.into(),
        }
    }
}

impl From<&Clock> for ClockLine {
    fn from(of: &Clock) -> Self {
        Self {
            recording: of.recording.clone(),
            against: of.against.clone(),
            ahead_ms: of.ahead_ms,
            error_ms: of.error_ms,
            handshakes: of.handshakes,
            contradicting: of.contradicting,
            untold: of.untold,
        }
    }
}

impl From<&Stall> for StallLine {
    fn from(of: &Stall) -> Self {
        let course = of.course.iter().map(|step| CourseLine {
            time: step.time.into(),
            own_clock: step.own_clock,
            recording: step.recording.clone(),
            title: step.what.clone(),
        });
        Self {
            client_recording: of.client_recording.clone(),
            client: of.client_process.as_ref().map(Process::from).unwrap_or_default(),
            client_netns: Netns::named(of.client_netns, of.client_netns_name.as_deref()),
            destination: of.destination.into(),
            client_finding: of.client_finding,
            stalled: of.stalled,
            matched: of.matched,
            server_recording: of.server_recording.clone(),
            code: of.code,
            confidence: of.confidence,
            deeds: of.deeds.clone(),
            server_finding: of.server_finding.clone(),
            server_cause: of.server_cause,
            longest_ms: of.longest_ms,
            course: course.collect(),
        }
    }
}

impl ComparisonLine {
    /// Of two recordings with what is wrong with their files; `worse` as the comparison gives it.
    pub fn of(comparison: &Comparison, worse: &[String], before: &Condition, after: &Condition) -> Self {
        let damage = |of: &Condition| of.marks.iter().map(DamageLine::from).collect();
        let found = |of: &[report::Told]| of.iter().map(FoundLine::from).collect();
        Self {
            before_s: comparison.before_s,
            after_s: comparison.after_s,
            listeners: comparison.listeners.iter().map(ListenerChangeLine::from).collect(),
            appeared: found(&comparison.appeared),
            went: found(&comparison.went),
            stayed: found(&comparison.stayed),
            worse: worse.to_vec(),
            complete: before.is_complete() && after.is_complete(),
            damage_before: damage(before),
            damage_after: damage(after),
        }
    }
}

impl From<&report::Told> for FoundLine {
    fn from(of: &report::Told) -> Self {
        Self {
            code: of.code,
            cause: of.cause,
            address: of.address.map(|address| address.ip()),
            port: of.address.map(|address| address.port()).or(of.port),
            comm: of.comm.clone(),
        }
    }
}

impl From<&ListenerChange> for ListenerChangeLine {
    fn from(of: &ListenerChange) -> Self {
        Self {
            address: of.address.ip(),
            port: of.address.port(),
            comm: of.comm.clone(),
            present: of.present,
            accepted_per_s: of.accepted_per_s.into(),
            drops_per_s: of.drops_per_s.into(),
            queue_max: of.queue_max.into(),
            queue_limit: of.queue_limit.into(),
            waits: of.waits.as_ref().map(TimesChangeLine::from),
            handshakes: of.handshakes.as_ref().map(TimesChangeLine::from),
        }
    }
}

impl From<Pair> for PairLine {
    fn from(of: Pair) -> Self {
        Self { before: of.before, after: of.after }
    }
}

impl From<&TimesChange> for TimesChangeLine {
    fn from(of: &TimesChange) -> Self {
        Self {
            p50_ms: of.p50_ms.into(),
            p99_ms: of.p99_ms.into(),
            longer: of.longer,
            p: of.p,
            count_before: of.count.0,
            count_after: of.count.1,
        }
    }
}
