//! bind-conflict: bind() or listen() failed with EADDRINUSE for a port that was asked for by number.
//!
//! Its cause says what kind of holder is in the way, because that decides what to do: a client that was given the port by
//! the kernel (ephemeral-grab), another server (listener), the remains of a connection (time-wait), a socket that is bound
//! and does nothing (bound-socket), a process that inherited the descriptor (inherited-fd), a wildcard of the other address
//! family (wildcard), or the kernel itself (kernel-socket).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::correlate::{Change, Conflict, ConflictKey, Correlator, PortHolder, Reason, Verdict};
use crate::event::{Found, How, Owner, OwnerConfidence, PortRange, PortRanges, SocketOptions, SocketState};

use super::case::{Concern, Description, Diagnosis};
use super::commands::sysctl;
use super::words::{count, span};
use super::{Confidence, Evidence, Party, ProcessName, Remedy, Severity, SocketFacts};

/// The diagnosis.
#[derive(Default)]
pub(super) struct BindConflict {
    /// Attempts that earlier findings of a conflict have told of.
    told: HashMap<ConflictKey, u64>,
}

impl Diagnosis for BindConflict {
    const CODE: &'static str = "bind-conflict";
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ConflictKey;
    /// Attempts before this finding: an earlier one has told of them.
    type Memory = u64;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<ConflictKey>> {
        match change {
            Change::Conflict(key) => Some(Concern::Happened(key.clone())),
            Change::ConflictExplained(key) => Some(Concern::Known(key.clone())),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ConflictKey, world: &Correlator) -> u64 {
        self.told.retain(|key, _| world.conflict(key).is_some());
        self.told.get(key).copied().unwrap_or(0)
    }

    fn observe(&mut self, _key: &ConflictKey, _memory: &mut u64, _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &ConflictKey, before: &u64, world: &Correlator) -> Option<Description> {
        let conflict = world.conflict(key)?;
        Some(Account { conflict, world, attempts: conflict.attempts.saturating_sub(*before) }.describe())
    }

    fn end(&mut self, key: &ConflictKey, _before: &u64, world: &Correlator) {
        if let Some(conflict) = world.conflict(key) {
            self.told.insert(key.clone(), conflict.attempts);
        }
    }
}

/// What kind of holder is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    EphemeralGrab,
    Listener,
    TimeWait,
    BoundSocket,
    InheritedFd,
    Wildcard,
    KernelSocket,
}

impl Kind {
    fn code(self) -> &'static str {
        match self {
            Self::EphemeralGrab => "ephemeral-grab",
            Self::Listener => "listener",
            Self::TimeWait => "time-wait",
            Self::BoundSocket => "bound-socket",
            Self::InheritedFd => "inherited-fd",
            Self::Wildcard => "wildcard",
            Self::KernelSocket => "kernel-socket",
        }
    }
}

/// All that is said about a conflict.
struct Account<'a> {
    conflict: &'a Conflict,
    world: &'a Correlator,
    attempts: u64,
}

impl Account<'_> {
    fn describe(&self) -> Description {
        let conflict = self.conflict;
        let (netns, wanted) = (conflict.endpoints.netns, conflict.endpoints.local);
        let requester = self.requester();
        let Some(holder) = conflict.holder() else { return self.describe_unknown(requester) };
        let kind = self.kind(holder);
        let held = self.party(holder);
        let confidence = self.confidence(holder, kind);
        let why = self.why(holder, kind);
        let call = conflict.stage.name();
        Description {
            severity: Severity::Critical,
            confidence,
            title: format!(
                "{} cannot {call} {wanted}: {}",
                process_of(&requester),
                self.has_it(holder, kind, &held)
            ),
            subject: subject(netns, wanted),
            cause: kind.code(),
            numbers: self.numbers(holder, &held),
            evidence: self.evidence(requester.clone(), &why),
            remedy: self.remedy(holder, kind, &held, &requester),
            explanation: why,
        }
    }

    /// Nobody knows who has the port.
    fn describe_unknown(&self, requester: Party) -> Description {
        let conflict = self.conflict;
        let (netns, wanted) = (conflict.endpoints.netns, conflict.endpoints.local);
        let why = match &conflict.incomplete {
            Some(reason) => format!("its holder could not be found: {reason}"),
            None => {
                "its holder was gone before it could be looked up, or is a kind of socket that sock_diag \
                     does not show (bound, but neither listening nor connected)"
                    .to_owned()
            }
        };
        Description {
            severity: Severity::Critical,
            confidence: Confidence::Possible,
            title: format!(
                "{} cannot {} {wanted}: the port is in use, by whom is not known",
                process_of(&requester),
                conflict.stage.name()
            ),
            subject: subject(netns, wanted),
            // Whatever does not show up anywhere is most often a socket that is bound and does nothing.
            cause: Kind::BoundSocket.code(),
            numbers: vec![self.attempts_in_words()],
            evidence: self.evidence(requester, &why),
            remedy: vec![Remedy::command(
                "look for sockets that are bound but not listening",
                format!("ss -tanp --bound-inactive 'sport = :{}'", wanted.port()),
            )],
            explanation: why,
        }
    }

    fn kind(&self, holder: &PortHolder) -> Kind {
        if holder.state == SocketState::TimeWait {
            return Kind::TimeWait;
        }
        let idle = matches!(holder.state, SocketState::Listen | SocketState::Bound);
        if idle && self.is_kernel_s(holder) {
            return Kind::KernelSocket;
        }
        if is_wildcard_of_other_family(self.conflict.endpoints.local.ip(), holder.endpoints.local.ip())
            && idle
        {
            return Kind::Wildcard;
        }
        if idle && self.heir_of(holder).is_some() {
            return Kind::InheritedFd;
        }
        if holder.how.is_ephemeral() {
            return Kind::EphemeralGrab;
        }
        if holder.state == SocketState::Listen {
            return Kind::Listener;
        }
        if holder.state.is_connected() && holder.how == How::Unknown && self.may_be_client(holder) {
            return Kind::EphemeralGrab;
        }
        Kind::BoundSocket
    }

    /// A socket that no process has, and that is not the remains of one.
    fn is_kernel_s(&self, holder: &PortHolder) -> bool {
        holder.inode == 0
            && !holder.is_named()
            && holder.uid == Some(0)
            // In the kernel's list the inode was looked for; sock_diag tells it, too.
            && (holder.found == Found::BindHash || self.conflict.reported)
    }

    /// A connection whose port the kernel may have chosen: it lies in the ephemeral range, and no listener that could have
    /// accepted the connection is known.
    fn may_be_client(&self, holder: &PortHolder) -> bool {
        let (netns, port) = (holder.endpoints.netns, holder.endpoints.local.port());
        let listens =
            self.conflict.holders.iter().any(|other| other.state == SocketState::Listen)
                || self.world.listeners().iter().any(|listener| {
                    listener.endpoints.netns == netns && listener.endpoints.local.port() == port
                });
        !listens && self.range().is_some_and(|range| range.contains(port))
    }

    /// The process that took the port, if it has the socket no more and others do, who did not call listen() themselves.
    fn heir_of(&self, holder: &PortHolder) -> Option<Owner> {
        let taker = holder.taker.as_ref()?;
        let present = holder.present.as_ref()?;
        let listened = self
            .world
            .listeners()
            .with_inode(holder.inode)
            .and_then(|listener| listener.listen)
            .is_some_and(|call| present.contains(&call.pid));
        (!present.contains(&taker.pid) && !listened)
            .then(|| Owner { pid: taker.pid, comm: self.world.processes().comm(taker).to_owned() })
    }

    fn range(&self) -> Option<PortRange> {
        self.world.namespace(self.conflict.endpoints.netns)?.knobs.local_port_range
    }

    fn confidence(&self, holder: &PortHolder, kind: Kind) -> Confidence {
        let convicted = matches!(holder.verdict, Verdict::Conflict(_));
        let named = match kind {
            // Nobody has these.
            Kind::TimeWait | Kind::KernelSocket => true,
            // Who has it now was looked up a moment later.
            Kind::InheritedFd => false,
            _ => holder.owners.first().is_some_and(|owner| owner.confidence == OwnerConfidence::Observed),
        };
        let guessed = kind == Kind::EphemeralGrab && holder.how == How::Unknown;
        if holder.verdict == Verdict::Compatible {
            Confidence::Possible
        } else if convicted && named && !guessed && holder.found == Found::BindHash {
            Confidence::Certain
        } else if convicted || self.conflict.holders.len() == 1 {
            Confidence::Likely
        } else {
            Confidence::Possible
        }
    }

    /// Which side lacks what.
    fn why(&self, holder: &PortHolder, kind: Kind) -> String {
        let wanted = self.conflict.endpoints.local;
        let held = holder.endpoints.local;
        let place = if wanted.ip() == held.ip() {
            format!("both want {wanted}")
        } else if held.ip().is_unspecified() {
            format!(
                "{held} covers {wanted}{}",
                if kind == Kind::Wildcard { " too, without IPV6_V6ONLY" } else { "" }
            )
        } else if wanted.ip().is_unspecified() {
            format!("{wanted} covers {held}")
        } else {
            format!("{held} is in the way of {wanted}")
        };
        let place = if kind == Kind::Wildcard && !held.is_ipv6() {
            format!("{wanted} covers {held} too")
        } else {
            place
        };
        let reason = match holder.verdict {
            Verdict::Conflict(Reason::Listening { requester_reuseport, holder_reuseport }) => {
                let missing = lacks(requester_reuseport, holder_reuseport);
                format!(
                    "; a listener shares its port only with SO_REUSEPORT on both sides, which {missing}; \
                     SO_REUSEADDR does not help against a listener"
                )
            }
            Verdict::Conflict(Reason::NoReuse { requester_reuseaddr, holder_reuseaddr }) => {
                let missing = lacks(requester_reuseaddr, holder_reuseaddr);
                format!("; they could share the port with SO_REUSEADDR on both sides, which {missing}")
            }
            Verdict::Conflict(Reason::OtherUser) => {
                "; both have SO_REUSEPORT, but belong to different users".to_owned()
            }
            Verdict::Unreadable => "; the holder's socket options could not be read".to_owned(),
            Verdict::Compatible => {
                "; by the kernel's rule this holder should not be in the way: the one that was may be gone"
                    .to_owned()
            }
        };
        let state = match self.conflict.reuse_state {
            Some(state) => format!(" (fastreuse {}, fastreuseport {})", state.fastreuse, state.fastreuseport),
            None => String::new(),
        };
        format!("{place}{reason}{state}")
    }

    fn has_it(&self, holder: &PortHolder, kind: Kind, held: &Party) -> String {
        let who = process_of(held);
        let place = holder.endpoints.local;
        match kind {
            Kind::EphemeralGrab => {
                let given = match holder.how {
                    How::Connect => "was given the port by connect()",
                    How::BindAny => "was given the port by bind() to port 0",
                    How::ListenAny => "was given the port by listen() without bind()",
                    How::Bind | How::Unknown => "has it for a connection, probably given by the kernel",
                };
                match holder.endpoints.remote {
                    Some(remote) => format!("{who} {given} (connection to {remote})"),
                    None => format!("{who} {given}"),
                }
            }
            Kind::Listener => format!("{who} listens on {place}"),
            Kind::TimeWait => {
                let whose = match &holder.taker {
                    Some(taker) => format!(" of {}[{}]", self.world.processes().comm(taker), taker.pid),
                    None => String::new(),
                };
                let peer = holder.endpoints.remote.map_or_else(String::new, |remote| format!(" to {remote}"));
                format!("an old connection{whose}{peer} is in TIME_WAIT")
            }
            Kind::BoundSocket if holder.state == SocketState::Bound => {
                format!("{who} is bound to {place} (neither listening nor connected)")
            }
            Kind::BoundSocket => {
                let peer = holder.endpoints.remote.map_or_else(String::new, |remote| format!(" to {remote}"));
                format!("{who} has a connection{peer} on it ({})", holder.state)
            }
            Kind::InheritedFd => {
                let from = self.heir_of(holder).map_or_else(String::new, |taker| {
                    format!(", inherited from {}[{}]", taker.comm, taker.pid)
                });
                format!("{who} holds the socket on {place}{from}")
            }
            Kind::Wildcard => format!("{who} has {place}, which covers the other address family"),
            Kind::KernelSocket => format!("a socket of the kernel itself has {place}"),
        }
    }

    fn numbers(&self, holder: &PortHolder, held: &Party) -> Vec<String> {
        let mut facts = vec![format!("held by {held}: {}", holder.state)];
        let before = holder.since.map(|since| format!("{} before", span(self.conflict.last.since(since))));
        match (holder.how, before) {
            (How::Unknown, None) => {}
            (How::Unknown, Some(before)) => facts.push(format!("taken {before}")),
            (how, Some(before)) => facts.push(format!("taken by {} {before}", how.name())),
            (how, None) => facts.push(format!("taken by {}", how.name())),
        }
        if let Some(remote) = holder.endpoints.remote {
            facts.push(format!("peer {remote}"));
        }
        if let Some(left) = holder.time_wait_left_ms {
            facts
                .push(format!("{:.0} s of TIME_WAIT left", Duration::from_millis(left).as_secs_f64().ceil()));
        }
        let mut lines = vec![facts.join(", ")];
        let others = self.conflict.holders.len().saturating_sub(1);
        let others = others.max(usize::try_from(self.conflict.holders_met).unwrap_or(0).saturating_sub(1));
        if others > 0 {
            lines.push(format!("{others} more on the same port"));
        }
        lines.push(self.attempts_in_words());
        lines
    }

    fn attempts_in_words(&self) -> String {
        let conflict = self.conflict;
        let tries = count(self.attempts, "attempt", "attempts");
        let options = conflict.options;
        format!(
            "{tries} by uid {}, options {options}, at {}()",
            conflict.requester.uid,
            conflict.stage.name()
        )
    }

    fn evidence(&self, requester: Party, why: &str) -> Evidence {
        let conflict = self.conflict;
        let holders: Vec<Party> = conflict.holders.iter().map(|holder| self.party(holder)).collect();
        let met = u64::from(conflict.holders_met).max(u64::try_from(holders.len()).unwrap_or(u64::MAX));
        let knobs = self.world.namespace(conflict.endpoints.netns).map(|namespace| &namespace.knobs);
        let reserved = knobs.and_then(|knobs| knobs.reserved_ports.as_ref());
        Evidence::new()
            .with("requester", requester)
            .with("holders", holders)
            .with("holders_met", met)
            .with("requested", conflict.endpoints.local.to_string())
            .with("port", conflict.endpoints.local.port())
            .with("errno", "EADDRINUSE")
            .with("stage", conflict.stage.name())
            .with("options", conflict.options.to_string())
            .with_some("fastreuse", conflict.reuse_state.map(|state| state.fastreuse.to_string()))
            .with_some("fastreuseport", conflict.reuse_state.map(|state| state.fastreuseport.to_string()))
            .with("attempts", self.attempts)
            .with_some("ip_local_port_range", self.range().map(|range| range.to_string()))
            .with_some("ip_local_reserved_ports", reserved.map(ToString::to_string))
            .with_some("incomplete", conflict.incomplete.clone())
            .with("why", why)
    }

    fn remedy(&self, holder: &PortHolder, kind: Kind, held: &Party, requester: &Party) -> Vec<Remedy> {
        let port = self.conflict.endpoints.local.port();
        let other_port = format!("or let {} use another port than {port}", process_of(requester));
        let stop = |what: &str| match held.process.as_ref().and_then(|process| process.pid) {
            Some(pid) => Remedy::command(format!("stop {} {what}", process_of(held)), format!("kill {pid}")),
            None => Remedy::text(format!("stop the process that {what}")),
        };
        let reuseaddr = format!("set SO_REUSEADDR in {} before bind()", process_of(requester));
        match kind {
            Kind::EphemeralGrab => self.reserve(port, held, requester),
            Kind::Listener => vec![stop("which listens there"), Remedy::text(other_port)],
            Kind::TimeWait => {
                let mut remedy = Vec::new();
                if !self.conflict.options.reuseaddr() {
                    remedy.push(Remedy::text(reuseaddr));
                } else {
                    remedy.push(Remedy::text(
                        "the socket that left the TIME_WAIT had no SO_REUSEADDR: set it there as well",
                    ));
                }
                remedy.push(Remedy::text(match holder.time_wait_left_ms {
                    Some(left) => format!("or try again in {} s", left.div_ceil(1000)),
                    None => "or try again: TIME_WAIT ends within 60 s".to_owned(),
                }));
                if holder.how.is_ephemeral() {
                    remedy.extend(self.reserve(port, held, requester));
                }
                remedy
            }
            Kind::BoundSocket if holder.state == SocketState::Bound => {
                vec![stop("which holds the port without using it"), Remedy::text(other_port)]
            }
            Kind::BoundSocket => {
                let mut remedy = Vec::new();
                if !self.conflict.options.reuseaddr() {
                    remedy.push(Remedy::text(format!(
                        "{reuseaddr}; the old connection's socket needs it, too"
                    )));
                }
                remedy.push(stop("which has the connection"));
                remedy
            }
            Kind::InheritedFd => vec![
                stop("which holds the inherited socket"),
                Remedy::text("open sockets with SOCK_CLOEXEC, so that children do not inherit them"),
            ],
            Kind::Wildcard => vec![
                Remedy::text(format!(
                    "set IPV6_V6ONLY on the IPv6 socket ({}), so that each family has the port to itself",
                    if held.address.is_some_and(|address| address.is_ipv6()) {
                        process_of(held)
                    } else {
                        process_of(requester)
                    }
                )),
                stop("which has the wildcard"),
                Remedy::text(other_port),
            ],
            Kind::KernelSocket => vec![
                Remedy::text(
                    "find the kernel service that uses the port (NFS, lockd, a tunnel, a module) and configure its port",
                ),
                Remedy::text(other_port),
            ],
        }
    }

    /// How to keep the kernel from handing the port out again, what is reserved already staying so.
    fn reserve(&self, port: u16, held: &Party, requester: &Party) -> Vec<Remedy> {
        let netns = self.conflict.endpoints.netns;
        let knobs = self.world.namespace(netns).map(|namespace| &namespace.knobs);
        let process = requester.process.as_ref();
        let mut remedy = Vec::new();
        match knobs.and_then(|knobs| knobs.reserved_ports.as_ref()) {
            Some(reserved) if reserved.contains(port) => remedy.push(Remedy::text(format!(
                "port {port} is reserved by now: it will not be handed out again once {} gives it back",
                process_of(held)
            ))),
            reserved => {
                // Not knowing what is reserved, the command must not be run as it is: it would undo that.
                let merged =
                    reserved.map_or_else(|| PortRanges::default().with(port), |reserved| reserved.with(port));
                let known = reserved.is_some();
                let text = format!(
                    "reserve the port, so that the kernel does not hand it out{}",
                    if known { "" } else { " (add what is reserved already)" }
                );
                let setting = format!("net.ipv4.ip_local_reserved_ports={merged}");
                remedy.push(Remedy::command(text, sysctl(netns, process, &setting)));
            }
        }
        if let Some(range) = self.range().filter(|range| range.contains(port)) {
            let moved = beyond(range, port);
            let text = format!("or move the ephemeral range ({range}) away from it");
            remedy.push(match moved {
                Some(moved) => Remedy::command(
                    text,
                    sysctl(
                        netns,
                        process,
                        &format!("net.ipv4.ip_local_port_range=\"{} {}\"", moved.first, moved.last),
                    ),
                ),
                None => Remedy::text(text),
            });
        }
        remedy.push(Remedy::text(format!(
            "until then: start again once {} has closed its socket",
            process_of(held)
        )));
        remedy
    }

    fn requester(&self) -> Party {
        let conflict = self.conflict;
        Party {
            kind: "process",
            address: Some(conflict.endpoints.local),
            netns: Some(conflict.endpoints.netns),
            process: Some(ProcessName::of_task(&conflict.requester, self.world.processes())),
            socket: Some(SocketFacts {
                options: Some(conflict.options.to_string()),
                uid: Some(conflict.requester.uid),
                ..SocketFacts::default()
            }),
            ..Party::default()
        }
    }

    fn party(&self, holder: &PortHolder) -> Party {
        let processes = self.world.processes();
        let taken_by = self.heir_of(holder).or_else(|| {
            let taker = holder.taker.as_ref()?;
            (holder.state == SocketState::TimeWait)
                .then(|| Owner { pid: taker.pid, comm: processes.comm(taker).to_owned() })
        });
        let process = match (&holder.taker, holder.owners.is_empty()) {
            // What is in TIME_WAIT belongs to nobody any more, but was left by somebody.
            (Some(taker), true) => ProcessName::of_task(taker, processes),
            _ => {
                let mut owners = holder.owners.clone();
                if taken_by.is_some() {
                    owners.remove(holder.taker.as_ref().map_or(0, |taker| taker.pid));
                }
                ProcessName::of_owners(&owners, processes)
            }
        };
        Party {
            kind: "process",
            address: Some(holder.endpoints.local),
            remote: holder.endpoints.remote,
            netns: Some(holder.endpoints.netns),
            process: Some(process),
            socket: Some(SocketFacts {
                state: Some(holder.state.name()),
                how: Some(holder.how.name()),
                since: holder.since,
                time_wait_s_left: holder
                    .time_wait_left_ms
                    .map(|left| Duration::from_millis(left).as_secs_f64()),
                options: holder.options.map(|options: SocketOptions| options.to_string()),
                uid: holder.uid,
                taken_by,
            }),
            ..Party::default()
        }
    }
}

fn subject(netns: u32, wanted: SocketAddr) -> Party {
    Party {
        kind: "port",
        address: Some(wanted),
        port: Some(wanted.port()),
        netns: Some(netns),
        ..Party::default()
    }
}

fn process_of(party: &Party) -> String {
    party.process.as_ref().map_or_else(|| "unknown process".to_owned(), ToString::to_string)
}

fn lacks(requester: bool, holder: bool) -> &'static str {
    match (requester, holder) {
        (false, false) => "both lack",
        (false, true) => "the requester lacks",
        (true, false) => "the holder lacks",
        (true, true) => "both have",
    }
}

fn is_wildcard_of_other_family(wanted: IpAddr, held: IpAddr) -> bool {
    wanted.is_ipv4() != held.is_ipv4() && held.is_unspecified()
}

/// The larger part of `range` beside `port`.
fn beyond(range: PortRange, port: u16) -> Option<PortRange> {
    let above = port
        .checked_add(1)
        .filter(|first| *first <= range.last)
        .map(|first| PortRange { first, last: range.last });
    let below = port
        .checked_sub(1)
        .filter(|last| *last >= range.first)
        .map(|last| PortRange { first: range.first, last });
    let len = |range: &PortRange| range.last - range.first;
    [above, below].into_iter().flatten().max_by_key(len)
}

#[cfg(test)]
mod tests;
