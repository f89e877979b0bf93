//! The answer of `tcptrace who` as lines: a `holder` each, then a `port` for each port and namespace that says what a bind would
//! meet, then the `summary`.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;

use super::identity::{Endpoint, Missing, Netns, Process, Range, Subject, Time, options};
use super::{JsonWriter, SummaryLine};
use crate::event::{Family, Timestamp};
use crate::output::go_on;
use crate::who::{Answer, Holder, Outlook, Place, Since, Way};

/// A socket that has a port; `time` is when it was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct HolderLine {
    /// The socket and the process that has it, as findings name them.
    pub subject: Subject,
    /// Family of the socket.
    pub family: Family,
    /// Whose it is: a process's, or none's and why.
    pub belongs: &'static str,
    /// Descriptors of the process named first.
    pub fds: Vec<u32>,
    /// When the process was started, where it is not known since when it has the port: it has had it no longer than that, unless
    /// it inherited it.
    pub since_not_before: Option<Time>,
    /// Inode number of the socket; null if it has none.
    pub inode: Option<u64>,
    /// IPV6_V6ONLY.
    pub v6only: bool,
    /// A socket of MPTCP.
    pub mptcp: bool,
    /// A listener's accept queue.
    pub queue: Option<u32>,
    /// Its limit.
    pub queue_limit: Option<u32>,
}

/// What a bind to a port would meet.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PortLine {
    /// The port.
    pub port: u16,
    /// The network namespace.
    pub netns: Netns,
    /// Sockets that have it.
    pub holders: usize,
    /// What would happen to each way of binding.
    pub binds: Vec<BindLine>,
    /// `net.ipv4.ip_local_port_range`.
    pub ephemeral_range: Option<Range>,
    /// Whether the port lies in it.
    pub in_ephemeral_range: Option<bool>,
    /// Whether it is in `net.ipv4.ip_local_reserved_ports`.
    pub reserved: Option<bool>,
    /// Whether it takes CAP_NET_BIND_SERVICE.
    pub privileged: Option<bool>,
}

/// A way of binding.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct BindLine {
    /// The address to bind to.
    pub bind: Endpoint,
    /// Whether SO_REUSEADDR is set.
    pub reuseaddr: bool,
    /// succeeds, fails or depends (on the holder's SO_REUSEADDR, which could not be read).
    pub outlook: &'static str,
    /// The socket that is in the way.
    pub holder: Option<Subject>,
}

/// Writes the answer about `ports`.
///
/// # Errors
/// When it cannot be written; a reader that has gone is one.
pub(crate) fn write(
    answer: &Answer,
    ports: &[u16],
    now: Timestamp,
    out: &mut JsonWriter<impl Write>,
) -> io::Result<()> {
    for place in &answer.places {
        for holder in &place.holders {
            go_on(out.write(now, &HolderLine::of(holder, place, now).into()))?;
        }
    }
    for place in &answer.places {
        for &port in ports.iter().filter(|port| place.is_own || place.has(**port)) {
            go_on(out.write(now, &PortLine::of(port, place).into()))?;
        }
    }
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let summary = SummaryLine {
        command: "who",
        counts: SummaryLine::counts([
            ("holders", count(answer.holders().count())),
            ("namespaces", count(answer.places.len())),
        ]),
        missing: answer.gaps.iter().map(Missing::from).collect(),
        owners_via: Some(answer.owners_via.to_owned()),
        ..SummaryLine::default()
    };
    go_on(out.write(now, &summary.into()))?;
    go_on(out.flush())
}

/// As findings name it.
fn subject(holder: &Holder, place: &Place) -> Subject {
    let name = holder.name();
    Subject {
        kind: if holder.queue.is_some() { "listener" } else { "socket" },
        address: Some(holder.local.ip()),
        port: Some(holder.local.port()),
        device: place.device_name(holder),
        remote: holder.remote.map(Endpoint::from),
        netns: Some(Netns::named(place.id, place.name.as_deref())),
        process: Some(Process::of(&name)),
        confidence: Some(name.confidence),
        also: name.also.iter().map(Process::from).collect(),
        state: Some(holder.state.name()),
        how: holder.taken.map(crate::who::Taken::name),
        time_wait_left_s: holder.time_wait_left.map(|left| left.as_secs_f64()),
        options: holder.options.map(options),
        uid: holder.uid,
        ..Subject::default()
    }
}

impl HolderLine {
    fn of(holder: &Holder, place: &Place, now: Timestamp) -> Self {
        let since = holder.since(now);
        let mut subject = subject(holder, place);
        if let Since::At(time) = since {
            subject.since = Some(Time(time));
        }
        Self {
            subject,
            family: holder.family,
            belongs: holder.belongs.name(),
            fds: holder.processes.first().map_or_else(Vec::new, |process| process.descriptors.clone()),
            since_not_before: match since {
                Since::NotBefore(time) => Some(Time(time)),
                _ => None,
            },
            inode: Some(holder.inode).filter(|inode| *inode != 0),
            v6only: holder.v6only,
            mptcp: holder.mptcp,
            queue: holder.queue.map(|(depth, _)| depth),
            queue_limit: holder.queue.map(|(_, limit)| limit),
        }
    }
}

impl PortLine {
    fn of(port: u16, place: &Place) -> Self {
        let knobs = &place.knobs;
        Self {
            port,
            netns: Netns::named(place.id, place.name.as_deref()),
            holders: place.holders.iter().filter(|holder| holder.local.port() == port).count(),
            binds: Way::ALL.iter().map(|&way| BindLine::of(way, port, place)).collect(),
            ephemeral_range: knobs.ip_local_port_range.map(Range::from),
            in_ephemeral_range: knobs.ip_local_port_range.map(|range| range.contains(port)),
            reserved: knobs.ip_local_reserved_ports.as_ref().map(|reserved| reserved.contains(port)),
            privileged: knobs.ip_unprivileged_port_start.map(|start| u32::from(port) < start),
        }
    }
}

impl BindLine {
    fn of(way: Way, port: u16, place: &Place) -> Self {
        let outlook = Outlook::of(way, port, place);
        Self {
            bind: way.address(port).into(),
            reuseaddr: way.reuseaddr,
            outlook: outlook.name(),
            holder: outlook.holder().map(|holder| subject(holder, place)),
        }
    }
}
