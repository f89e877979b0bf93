//! Packets of handshakes that this host drops on their way: where, why, how many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::event::{
    Connect, ConnectResult, DropFacts, Endpoints, HandshakeDrop, ListenerReport, NeighbourFacts, Packet,
    ReportedListener, Task, Timestamp,
};

use super::ListenerId;
use super::bounded::{BoundedMap, DistinctCount};
use super::drop_reason::{Class, DropCause, class_of};
use super::limiter::Limiter;
use super::thresholds::HandshakeDropped;

/// How many are told apart.
const PLACES: usize = 1024;
/// How many times of drops are kept.
const TIMES: usize = 16;
const WINDOW: Duration = Duration::from_secs(60);
/// How many clients, servers and neighbours are told apart.
const NAMED: usize = 16;
/// How many handshakes are remembered of which a packet was dropped, to see that it was dropped again.
const HANDSHAKES: usize = 64;
/// Servers of one cause that are reported one by one. What hits more of them is reported once for all further ones.
const SEPARATE: usize = 4;
/// How connect() fails at once for a blackhole, prohibit and unreachable route: EINVAL, EACCES, EHOSTUNREACH.
const NOWHERE: [u32; 3] = [22, 13, 113];

/// Which hook of netfilter a packet was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before its route was known.
    Prerouting,
    /// To a socket of this host.
    Input,
    /// To another host.
    Forward,
    /// From a socket of this host.
    Output,
}

impl Hook {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
        }
    }

    fn of(drop: &HandshakeDrop) -> Self {
        if drop.outgoing {
            return Self::Output;
        }
        match drop.input_name.as_deref() {
            _ if drop.input == 0 => Self::Prerouting,
            Some("ip_forward" | "ip6_forward") => Self::Forward,
            _ => Self::Input,
        }
    }
}

/// Packets of one kind, of handshakes with one server, or with many where they share a cause, dropped for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathKey {
    /// Network namespace.
    pub netns: u32,
    /// The server's end; `None` for drops that are reported together, whoever the server is.
    pub server: Option<SocketAddr>,
    /// Which packets.
    pub packet: Packet,
    /// They were made here.
    pub outgoing: bool,
    /// Why.
    pub cause: DropCause,
}

/// What is known of them.
#[derive(Debug)]
pub struct PathDrops {
    times: VecDeque<Timestamp>,
    /// The first one.
    pub first: Timestamp,
    /// How many; what the kernel side did not tell one by one is in it.
    pub seen: u64,
    /// There may be more by now: the kernel side tells of only so many in a second.
    pub at_least: bool,
    /// The kernel's word for the reason.
    pub reason: Option<String>,
    /// The kernel function that dropped the last one.
    pub function: Option<String>,
    /// The hook that the last one was in.
    pub hook: Hook,
    /// Index of the device that it came in by; 0 for none.
    pub device: u32,
    /// Addresses of the clients.
    pub peers: DistinctCount<IpAddr>,
    /// Processes of this host that connect.
    pub clients: BTreeMap<u32, Task>,
    /// Who listens on the server's port on this host.
    pub report: Option<ListenerReport>,
    /// The listener that would have answered, where the kernel told.
    pub answering: Option<ListenerId>,
    /// connect() failed with this errno, before there was a packet.
    pub errno: Option<u32>,
    /// The servers' ends, and how many packets were for each.
    pub servers: BTreeMap<SocketAddr, u64>,
    /// How many servers there are.
    pub server_count: DistinctCount<SocketAddr>,
    /// Neighbours that the packets were to go to.
    pub neighbours: BTreeSet<IpAddr>,
    /// What the host showed when the last one was dropped.
    pub facts: Option<Box<DropFacts>>,
    /// Handshakes of which a packet was dropped, and how often.
    handshakes: BTreeMap<(SocketAddr, SocketAddr), u32>,
}

impl PathDrops {
    /// The listener that the packets were for.
    pub fn listener(&self, key: &PathKey) -> Option<&ReportedListener> {
        let server = key.server.or_else(|| self.only_server())?;
        let here = |l: &&ReportedListener| l.netns == key.netns && l.takes(server);
        self.report.as_ref()?.listeners.iter().find(here)
    }

    /// The server, if there is no other.
    pub fn only_server(&self) -> Option<SocketAddr> {
        let mut servers = self.servers.keys();
        servers.next().copied().filter(|_| servers.next().is_none())
    }

    /// Handshakes of which a packet was dropped and, sent again, dropped again: these fail, where others are only slow.
    pub fn failing(&self) -> usize {
        self.handshakes.values().filter(|dropped| **dropped > 1).count()
    }

    /// A firewall that keeps out what no process here waits for does its work.
    fn matters(&self, key: &PathKey) -> bool {
        key.outgoing
            || key.packet == Packet::SynAck
            || key.cause.is_fault()
            || key.server.is_none()
            || self.listener(key).is_some()
    }

    fn note_ends(&mut self, client: SocketAddr, server: SocketAddr) {
        self.peers.note(client.ip());
        self.server_count.note(server);
        if let Some(packets) = self.servers.get_mut(&server) {
            *packets += 1;
        } else if self.servers.len() < NAMED {
            self.servers.insert(server, 1);
        }
        if let Some(dropped) = self.handshakes.get_mut(&(client, server)) {
            *dropped += 1;
        } else if self.handshakes.len() < HANDSHAKES {
            self.handshakes.insert((client, server), 1);
        }
    }

    /// Whether at least `needed` were dropped lately.
    fn is_no_accident(&self, now: Timestamp, needed: usize) -> bool {
        self.times.iter().filter(|&&time| now.since(time) < WINDOW).count() >= needed
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Paths {
    all: BoundedMap<PathKey, PathDrops>,
    /// The kernel side's counts, by what it tells apart.
    counts: BoundedMap<CountKey, Limiter>,
    /// Servers that have drops of their own, by namespace, packet, direction and cause.
    separate: BoundedMap<(u32, Packet, bool, DropCause), BTreeSet<SocketAddr>>,
    /// The function that dropped a SYN without a reason, by its two ends, the client's first.
    silent: BoundedMap<(SocketAddr, SocketAddr), String>,
    /// From how many packets on a drop is reported.
    needed: usize,
}

/// Namespace, server's port, packet, direction, place and reason.
type CountKey = (u32, u16, Packet, bool, u64, u32);

impl Default for Paths {
    fn default() -> Self {
        Self {
            all: BoundedMap::new(PLACES),
            counts: BoundedMap::new(PLACES),
            separate: BoundedMap::new(PLACES),
            silent: BoundedMap::new(PLACES),
            needed: usize::try_from(HandshakeDropped::default().packets.get()).unwrap_or(TIMES),
        }
    }
}

impl Paths {
    /// Every single drop is reported from now on: for a question about one server, where each one is an answer.
    pub(super) fn report_each(&mut self) {
        self.needed = 1;
    }

    /// So many drops are reported.
    pub(super) fn report_from(&mut self, packets: NonZeroU32) {
        self.needed = usize::try_from(packets.get()).unwrap_or(TIMES).min(TIMES);
    }

    /// Nothing is known any more of this namespace.
    pub(super) fn forget(&mut self, netns: u32) {
        self.all.retain(|key, _| key.netns != netns);
        self.separate.retain(|(of, ..), _| *of != netns);
    }

    /// How many were forgotten because the table was full.
    pub(super) fn forgotten(&self) -> u64 {
        self.all.forgotten()
    }

    pub(super) fn get(&self, key: &PathKey) -> Option<&PathDrops> {
        self.all.get(key)
    }

    /// A packet was dropped: under which key, and whether there is something to tell.
    pub(super) fn note(&mut self, time: Timestamp, drop: &HandshakeDrop) -> Option<(PathKey, bool)> {
        let cause = match class_of(drop) {
            Class::Cause(cause) => cause,
            Class::Ignored => return None,
            Class::Silent => {
                let function = drop.function.clone().unwrap_or_default();
                let ends = (drop.client(), drop.server());
                *self.silent.get_or_insert_with(ends, String::new) = function;
                return None;
            }
        };
        let needed = self.needed;
        let (netns, port) = (drop.endpoints.netns, drop.server().port());
        let server = self.reported_alone(drop, cause).then(|| drop.server());
        let key = PathKey { netns, server, packet: drop.packet, outgoing: drop.outgoing, cause };
        let count = (netns, port, drop.packet, drop.outgoing, drop.location, drop.reason);
        let limiter = self.counts.get_or_insert_with(count, Limiter::default);
        let more = limiter.note(time, drop.total);
        let at_least = limiter.holds_back();
        let known = self.count(time, key, Hook::of(drop), more);
        known.at_least = at_least;
        known.reason.clone_from(&drop.reason_name);
        known.function.clone_from(&drop.function);
        known.hook = Hook::of(drop);
        known.device = drop.endpoints.device;
        known.note_ends(drop.client(), drop.server());
        if let Some(facts) = &drop.facts {
            if let Some(next_hop) = facts.next_hop.filter(|_| known.neighbours.len() < NAMED) {
                known.neighbours.insert(next_hop);
            }
            let mut facts = facts.clone();
            let before = known.facts.as_ref().and_then(|facts| facts.neighbours);
            if let (Some(before), Some(table)) =
                (before.filter(NeighbourFacts::is_full), &mut facts.neighbours)
            {
                // A table that was seen full was full, also if it was read a little late now; and its counter grows by fits and
                // starts, while the finding goes on.
                table.entries = table.entries.max(before.entries);
                table.limit = table.limit.or(before.limit);
                table.overflowed |= before.overflowed;
            }
            known.facts = Some(facts);
        }
        if let Some(task) = drop.task.as_ref().filter(|_| known.clients.len() < NAMED) {
            known.clients.insert(task.pid, task.clone());
        }
        Some((key, known.matters(&key) && known.is_no_accident(time, needed)))
    }

    /// Whether what is dropped for `cause` is reported for this server alone.
    fn reported_alone(&mut self, drop: &HandshakeDrop, cause: DropCause) -> bool {
        if cause.is_shared() {
            return false;
        }
        let kind = (drop.endpoints.netns, drop.packet, drop.outgoing, cause);
        let separate = self.separate.get_or_insert_with(kind, BTreeSet::new);
        let server = drop.server();
        // Packets that come in are for listeners, of which there are few, and each is a service of its own.
        let room = !drop.outgoing || drop.packet == Packet::SynAck || separate.len() < SEPARATE;
        if !separate.contains(&server) && room && separate.len() < PLACES {
            separate.insert(server);
        }
        separate.contains(&server)
    }

    /// The function that dropped a SYN between these ends without a reason.
    pub(super) fn dropped_silently(&self, client: SocketAddr, server: SocketAddr) -> Option<&str> {
        self.silent.get(&(client, server)).map(String::as_str)
    }

    /// A listener has no route for its answer to `client`: under which key, and whether there is something to tell.
    pub(super) fn note_no_way_back(
        &mut self,
        time: Timestamp,
        ends: &Endpoints,
        client: SocketAddr,
        listener: ListenerId,
    ) -> (PathKey, bool) {
        let key = PathKey {
            netns: ends.netns,
            server: Some(ends.local),
            packet: Packet::SynAck,
            outgoing: true,
            cause: DropCause::NoRoute,
        };
        let needed = self.needed;
        let known = self.count(time, key, Hook::Output, 1);
        known.function = Some("tcp_conn_request".to_owned());
        known.note_ends(client, ends.local);
        known.answering = Some(listener);
        (key, known.is_no_accident(time, needed))
    }

    /// connect() failed for a route that somebody made so that it leads nowhere: under which key, and whether there is
    /// something to tell. No route at all is how a host without IPv6 answers programs that try it first.
    pub(super) fn note_unroutable(&mut self, time: Timestamp, connect: &Connect) -> Option<(PathKey, bool)> {
        let server = connect.endpoints.remote?;
        let errno = connect.errno.filter(|errno| NOWHERE.contains(errno))?;
        // A link-local address without a device fails likewise.
        let link_local = matches!(server.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        if connect.result != ConnectResult::Error || link_local {
            return None;
        }
        let key = PathKey {
            netns: connect.endpoints.netns,
            server: Some(server),
            packet: Packet::Syn,
            outgoing: true,
            cause: DropCause::NoRoute,
        };
        let needed = self.needed;
        let known = self.count(time, key, Hook::Output, 1);
        let function = if server.is_ipv4() { "tcp_v4_connect" } else { "tcp_v6_connect" };
        known.function = Some(function.to_owned());
        known.errno = Some(errno);
        known.note_ends(connect.endpoints.local, server);
        let tells = known.is_no_accident(time, needed);
        if let Some(task) = &connect.task {
            self.note_client(&key, task);
        }
        Some((key, tells))
    }

    /// Told of one of `key`, which makes it so many more.
    fn count(&mut self, time: Timestamp, key: PathKey, hook: Hook, more: u64) -> &mut PathDrops {
        let fresh = || PathDrops {
            times: VecDeque::new(),
            first: time,
            seen: 0,
            at_least: false,
            reason: None,
            function: None,
            hook,
            device: 0,
            peers: DistinctCount::new(4096),
            clients: BTreeMap::new(),
            report: None,
            answering: None,
            errno: None,
            servers: BTreeMap::new(),
            server_count: DistinctCount::new(4096),
            neighbours: BTreeSet::new(),
            facts: None,
            handshakes: BTreeMap::new(),
        };
        let known = self.all.get_or_insert_with(key, fresh);
        if known.times.back().is_some_and(|&last| time.since(last) >= WINDOW) {
            *known = fresh();
        }
        if known.times.len() >= TIMES {
            known.times.pop_front();
        }
        known.times.push_back(time);
        known.seen += more;
        known
    }

    /// Who listens where was looked up: what there is to tell now.
    pub(super) fn note_report(&mut self, now: Timestamp, report: &ListenerReport) -> Vec<PathKey> {
        let about = |(key, known): &(&PathKey, &PathDrops)| {
            let server = key.server.or_else(|| known.only_server());
            key.netns == report.netns && server.is_some_and(|server| server.port() == report.port)
        };
        let mut keys: Vec<PathKey> = self.all.iter().filter(about).map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.retain(|key| {
            let Some(known) = self.all.get_mut(key) else { return false };
            known.report = Some(report.clone());
            known.matters(key) && known.is_no_accident(now, self.needed)
        });
        keys
    }

    /// A process of this host is among those whose packets were dropped.
    pub(super) fn note_client(&mut self, key: &PathKey, task: &Task) {
        if let Some(known) = self.all.get_mut(key)
            && known.clients.len() < NAMED
        {
            known.clients.entry(task.pid).or_insert_with(|| task.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::testing::handshake_drop;

    #[test]
    fn hooks_are_told_by_the_route() {
        let mut drop = handshake_drop(Packet::Syn, false);
        assert_eq!(Hook::of(&drop), Hook::Prerouting);
        drop.input = 1;
        assert_eq!(Hook::of(&drop), Hook::Input);
        drop.input_name = Some("ip_forward".to_owned());
        assert_eq!(Hook::of(&drop), Hook::Forward);
        assert_eq!(Hook::of(&handshake_drop(Packet::Syn, true)), Hook::Output);
    }
}
