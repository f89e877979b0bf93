//! Packets of handshakes that this host drops on their way: where, why, how many.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::event::{
    Connect, ConnectResult, Endpoints, HandshakeDrop, ListenerReport, Packet, ReportedListener, Task,
    Timestamp,
};

use super::ListenerId;
use super::bounded::{BoundedMap, DistinctCount};
use super::limiter::Limiter;

/// How many are told apart.
const PLACES: usize = 1024;
/// So many packets within this time are no accident.
const PACKETS: usize = 2;
const WINDOW: Duration = Duration::from_secs(60);
/// How many clients are told apart.
const NAMED: usize = 16;
/// How connect() fails at once for a blackhole, prohibit and unreachable route: EINVAL, EACCES, EHOSTUNREACH.
const NOWHERE: [u32; 3] = [22, 13, 113];

/// Why a packet was dropped, as far as findings tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropCause {
    /// A firewall rule.
    Netfilter,
    /// The way back goes by another device.
    RpFilter,
    /// A wrong checksum.
    Checksum,
    /// There is no route, or one that goes nowhere.
    NoRoute,
    /// Something else, which the kernel's own word names.
    Other,
}

impl DropCause {
    /// Its code in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Netfilter => "netfilter",
            Self::RpFilter => "rp-filter",
            Self::Checksum => "checksum",
            Self::NoRoute => "no-route",
            Self::Other => "other",
        }
    }
}

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

/// Packets of one kind, of handshakes with one server, dropped for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathKey {
    /// Network namespace.
    pub netns: u32,
    /// The server's end.
    pub server: SocketAddr,
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
}

impl PathDrops {
    /// The listener that the packets were for.
    pub fn listener(&self, key: &PathKey) -> Option<&ReportedListener> {
        let here = |l: &&ReportedListener| l.netns == key.netns && l.takes(key.server);
        self.report.as_ref()?.listeners.iter().find(here)
    }

    /// A firewall that keeps out what nobody here waits for does its work.
    fn matters(&self, key: &PathKey) -> bool {
        key.outgoing || key.packet == Packet::SynAck || self.listener(key).is_some()
    }

    fn is_no_accident(&self, now: Timestamp) -> bool {
        self.times.iter().filter(|&&time| now.since(time) < WINDOW).count() >= PACKETS
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Paths {
    all: BoundedMap<PathKey, PathDrops>,
    /// The kernel side's counts, by what it tells apart.
    counts: BoundedMap<CountKey, Limiter>,
}

/// Namespace, server's port, packet, direction, place and reason.
type CountKey = (u32, u16, Packet, bool, u64, u32);

impl Default for Paths {
    fn default() -> Self {
        Self { all: BoundedMap::new(PLACES), counts: BoundedMap::new(PLACES) }
    }
}

impl Paths {
    /// How many were forgotten because the table was full.
    pub(super) fn forgotten(&self) -> u64 {
        self.all.forgotten()
    }

    pub(super) fn get(&self, key: &PathKey) -> Option<&PathDrops> {
        self.all.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PathKey, &PathDrops)> {
        self.all.iter()
    }

    /// A packet was dropped: under which key, and whether there is something to tell.
    pub(super) fn note(&mut self, time: Timestamp, drop: &HandshakeDrop) -> Option<(PathKey, bool)> {
        let cause = cause_of(drop)?;
        let key = PathKey {
            netns: drop.endpoints.netns,
            server: drop.server(),
            packet: drop.packet,
            outgoing: drop.outgoing,
            cause,
        };
        let (netns, port) = (key.netns, key.server.port());
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
        known.peers.note(drop.client().ip());
        if let Some(task) = drop.task.as_ref().filter(|_| known.clients.len() < NAMED) {
            known.clients.insert(task.pid, task.clone());
        }
        Some((key, known.matters(&key) && known.is_no_accident(time)))
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
            server: ends.local,
            packet: Packet::SynAck,
            outgoing: true,
            cause: DropCause::NoRoute,
        };
        let known = self.count(time, key, Hook::Output, 1);
        known.function = Some("tcp_conn_request".to_owned());
        known.peers.note(client.ip());
        known.answering = Some(listener);
        (key, known.is_no_accident(time))
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
            server,
            packet: Packet::Syn,
            outgoing: true,
            cause: DropCause::NoRoute,
        };
        let known = self.count(time, key, Hook::Output, 1);
        let function = if server.is_ipv4() { "tcp_v4_connect" } else { "tcp_v6_connect" };
        known.function = Some(function.to_owned());
        known.errno = Some(errno);
        known.peers.note(connect.endpoints.local.ip());
        let tells = known.is_no_accident(time);
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
        };
        let known = self.all.get_or_insert_with(key, fresh);
        if known.times.back().is_some_and(|&last| time.since(last) >= WINDOW) {
            *known = fresh();
        }
        if known.times.len() >= 2 * PACKETS {
            known.times.pop_front();
        }
        known.times.push_back(time);
        known.seen += more;
        known
    }

    /// Who listens where was looked up: what there is to tell now.
    pub(super) fn note_report(&mut self, now: Timestamp, report: &ListenerReport) -> Vec<PathKey> {
        let mut keys: Vec<PathKey> = self
            .all
            .iter()
            .map(|(key, _)| *key)
            .filter(|key| key.netns == report.netns && key.server.port() == report.port)
            .collect();
        keys.sort_unstable();
        keys.retain(|key| {
            let Some(known) = self.all.get_mut(key) else { return false };
            known.report = Some(report.clone());
            known.matters(key) && known.is_no_accident(now)
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

/// Why, by the kernel's own word where it has one, else by the function; `None` for what is no loss on the way: sockets that
/// discard what does not fit them, which others tell of.
fn cause_of(drop: &HandshakeDrop) -> Option<DropCause> {
    let function = drop.function.as_deref().unwrap_or_default();
    let by_function = || match function {
        "nf_hook_slow" | "nf_hook_slow_list" => Some(DropCause::Netfilter),
        "ip_rcv_finish_core" | "ip_rcv_finish" | "ip_error" | "ip_pkt_drop" | "ip6_pkt_drop"
        | "ip6_pkt_discard" => Some(DropCause::NoRoute),
        "ip_rcv_core" | "ip6_rcv_core" => Some(DropCause::Checksum),
        "__dev_queue_xmit"
        | "neigh_resolve_output"
        | "arp_error_report"
        | "ndisc_error_report"
        | "__neigh_event_send"
        | "neigh_invalidate"
        | "ip_finish_output2" => Some(DropCause::Other),
        _ => None,
    };
    match drop.reason_name.as_deref() {
        None | Some("NOT_SPECIFIED") => by_function(),
        Some("NETFILTER_DROP") => Some(DropCause::Netfilter),
        Some("IP_RPFILTER") => Some(DropCause::RpFilter),
        Some("TCP_CSUM" | "IP_CSUM" | "SKB_CSUM") => Some(DropCause::Checksum),
        Some("IP_OUTNOROUTES" | "IP_INNOROUTES" | "IP_INADDRERRORS" | "IP_INVALID_DEST" | "IP_LOCALNET") => {
            Some(DropCause::NoRoute)
        }
        // What sockets and their owners do with what reaches them.
        Some(reason)
            if reason.starts_with("TCP_")
                || reason.starts_with("SOCKET_")
                || matches!(
                    reason,
                    "NO_SOCKET" | "CONSUMED" | "SKB_CONSUMED" | "QUEUE_PURGE" | "NOT_DROPPED_YET"
                ) =>
        {
            None
        }
        Some(_) => Some(DropCause::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::testing::handshake_drop;

    #[test]
    fn causes_come_from_the_kernel_s_word_or_from_the_function() {
        let with = |reason: Option<&str>, function: &str| {
            let mut drop = handshake_drop(Packet::Syn, false);
            drop.reason_name = reason.map(str::to_owned);
            drop.function = Some(function.to_owned());
            cause_of(&drop)
        };
        assert_eq!(with(Some("NETFILTER_DROP"), "x"), Some(DropCause::Netfilter));
        assert_eq!(with(None, "nf_hook_slow"), Some(DropCause::Netfilter));
        assert_eq!(with(Some("IP_RPFILTER"), "x"), Some(DropCause::RpFilter));
        assert_eq!(with(None, "ip_rcv_finish_core"), Some(DropCause::NoRoute));
        assert_eq!(with(Some("NEIGH_FAILED"), "x"), Some(DropCause::Other));
        assert_eq!(with(None, "tcp_v4_rcv"), None);
        assert_eq!(with(Some("TCP_LISTEN_OVERFLOW"), "tcp_v4_rcv"), None);
    }

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
