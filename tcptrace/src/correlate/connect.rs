//! Connects of this host's processes that were not answered, by destination.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::event::{
    Connect, ConnectResult, ConnectSample, ConnectTotals, Endpoints, ListenerReport, ReportedListener, Task,
    Timestamp,
};

use super::bounded::BoundedMap;
use super::thresholds::ConnectRefused;
use super::{AbsentKey, DropCause, ListenerId, PathKey};

/// How many destinations are remembered.
const DESTINATIONS: usize = 2048;
/// How many processes are told apart that connect to one destination.
const CLIENTS: usize = 64;
/// How many SYNs are remembered that a socket on this host dropped or refused.
const SERVER_SIDES: usize = 8192;
/// Times that are remembered of what decides whether there is something to tell.
const STAMPS: usize = 16;

/// How many ends of unanswered connects are remembered of a destination.
const UNANSWERED_ENDS: usize = 16;
/// What happened longer ago does not count any more.
const WINDOW: Duration = Duration::from_secs(60);
/// So many connects that waited for long are no accident.
const STUBBORN: usize = 3;
/// A connect whose SYN was sent again so often waits for long. The loss of one packet is nothing to tell of.
const LONG: u32 = 3;

/// How long an unanswered connect waits for the drop that explains it, before it is reported.
const A_MOMENT: Duration = Duration::from_millis(900);

const ECONNREFUSED: u32 = 111;

/// Where connects go to, and from which namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationKey {
    /// Network namespace of the clients.
    pub netns: u32,
    /// The address that they call.
    pub remote: SocketAddr,
}

/// Connects to one destination.
#[derive(Debug)]
pub struct Destination {
    clients: BTreeMap<u32, Client>,
    /// First and last sign of trouble.
    pub first: Timestamp,
    /// The last one.
    pub last: Timestamp,
    /// When a connect failed because nothing answered.
    failed: VecDeque<Timestamp>,
    /// When a connect had waited for a while, or was called off after it had.
    stubborn: VecDeque<Timestamp>,
    /// When a connect was refused.
    refused: VecDeque<Timestamp>,
    /// The longest that a connect has waited so far.
    pub longest_ns: u64,
    /// Highest number of times that the SYN of one connect was sent again.
    pub most_syns_again: u32,
    /// errno of the last failure that had one.
    pub errno: Option<u32>,
    /// How often an ICMP message was seen to refuse the port.
    pub refused_by_icmp: u64,
    /// What happened at the other end, if that is on this host.
    pub server_side: Option<ServerSide>,
    /// The clients' ends of the last connects that had to send their SYN again.
    unanswered_ends: VecDeque<SocketAddr>,
    /// The listener of this host that has the address, if there is one.
    pub here: Option<Here>,
    /// The SYN of the last connect that was refused had been dropped by this host's netfilter: a rule rejects.
    pub rejected_here: bool,
    /// The function that dropped a SYN for it without giving a reason.
    pub dropped_in: Option<String>,
}

/// A listener of this host for an address that is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// The listener.
    pub listener: ReportedListener,
    /// No other namespace of this host with such a listener has the address.
    pub alone: bool,
}

/// A process that connects to a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// It; `None` if its connects are older than the tracer.
    pub task: Option<Task>,
    /// Counts of the kernel side's earlier entries for it.
    past: ConnectTotals,
    now: ConnectTotals,
}

/// What a socket, or the lack of one, on this host did with a client's SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerSide {
    /// It was dropped at the full accept queue of this listener.
    AcceptQueueFull(ListenerId),
    /// It was dropped at the SYN queue of this listener.
    SynQueueFull(ListenerId),
    /// Nobody listens there: it was answered by RST.
    NoListener(AbsentKey),
    /// It was dropped on its way.
    Dropped(PathKey),
}

impl Client {
    /// All that was counted of its connects to the destination.
    pub fn totals(&self) -> ConnectTotals {
        self.past.each(&self.now, u64::saturating_add)
    }

    /// Takes in counts; by how much they grew is returned.
    fn note(&mut self, totals: &ConnectTotals) -> ConnectTotals {
        let before = self.totals();
        if totals.since > self.now.since && self.now != ConnectTotals::default() {
            self.past = before;
            self.now = *totals;
        } else if totals.since >= self.now.since {
            self.now = self.now.each(totals, u64::max);
        }
        let after = self.totals();
        after.each(&before, u64::saturating_sub)
    }
}

impl Destination {
    fn new(time: Timestamp) -> Self {
        Self {
            clients: BTreeMap::new(),
            first: time,
            last: time,
            failed: VecDeque::new(),
            stubborn: VecDeque::new(),
            refused: VecDeque::new(),
            longest_ns: 0,
            most_syns_again: 0,
            errno: None,
            refused_by_icmp: 0,
            server_side: None,
            unanswered_ends: VecDeque::new(),
            here: None,
            rejected_here: false,
            dropped_in: None,
        }
    }

    fn note_unanswered_end(&mut self, end: SocketAddr) {
        if !self.unanswered_ends.contains(&end) {
            if self.unanswered_ends.len() >= UNANSWERED_ENDS {
                self.unanswered_ends.pop_front();
            }
            self.unanswered_ends.push_back(end);
        }
    }

    /// The processes that connect to it, those with most failures first; equals by pid.
    pub fn clients(&self) -> Vec<(u32, &Client)> {
        let mut clients: Vec<(u32, &Client)> =
            self.clients.iter().map(|(pid, client)| (*pid, client)).collect();
        clients.sort_by_key(|(_, client)| {
            let totals = client.totals();
            std::cmp::Reverse(totals.unanswered + totals.refused + totals.unreachable + totals.errors)
        });
        clients
    }

    /// All counts together.
    pub fn totals(&self) -> ConnectTotals {
        let mut all = ConnectTotals::default();
        self.clients.values().for_each(|client| all.add(&client.totals()));
        all
    }

    /// Whether connects go unanswered here, and not by accident.
    fn is_unanswered(&self, now: Timestamp) -> bool {
        let lately =
            |times: &VecDeque<Timestamp>| times.iter().filter(|&&time| now.since(time) < WINDOW).count();
        lately(&self.failed) > 0 || lately(&self.stubborn) >= STUBBORN
    }

    /// Whether at least `needed` connects were refused lately.
    fn is_refused(&self, now: Timestamp, needed: usize) -> bool {
        self.refused.iter().filter(|&&time| now.since(time) < WINDOW).count() >= needed
    }
}

fn stamp(times: &mut VecDeque<Timestamp>, time: Timestamp) {
    if times.len() >= STAMPS {
        times.pop_front();
    }
    times.push_back(time);
}

/// What a connect's end means for its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Connects to it go unanswered.
    pub unanswered: bool,
    /// Connects to it are refused.
    pub refused: bool,
}

/// All destinations.
#[derive(Debug)]
pub(super) struct Destinations {
    all: BoundedMap<DestinationKey, Destination>,
    /// What was done on this host with the SYN of a client, by its two ends, the client's first.
    server_sides: BoundedMap<(SocketAddr, SocketAddr), ServerSide>,
    /// The same by the client's end alone, with the server that it was translated to; on loopback addresses also by namespace.
    translated: BoundedMap<(u32, SocketAddr), (SocketAddr, ServerSide)>,
    /// Connects that go unanswered, since when, and their own ends: the drop that explains it may come a little later.
    waiting: Vec<(Timestamp, DestinationKey, SocketAddr)>,
    /// From how many refused connects on that is reported.
    refusals: usize,
}

impl Default for Destinations {
    fn default() -> Self {
        Self {
            all: BoundedMap::new(DESTINATIONS),
            server_sides: BoundedMap::new(SERVER_SIDES),
            translated: BoundedMap::new(SERVER_SIDES),
            waiting: Vec::new(),
            refusals: usize::try_from(ConnectRefused::default().connects.get()).unwrap_or(STAMPS),
        }
    }
}

/// A client's end; loopback addresses are every namespace's own.
fn client_of(netns: u32, client: SocketAddr) -> (u32, SocketAddr) {
    (if client.ip().to_canonical().is_loopback() { netns } else { 0 }, client)
}

impl Destinations {
    /// Every single refusal is reported from now on.
    pub(super) fn report_each(&mut self) {
        self.refusals = 1;
    }

    /// So many refusals are reported.
    pub(super) fn report_from(&mut self, refusals: NonZeroU32) {
        self.refusals = usize::try_from(refusals.get()).unwrap_or(STAMPS).min(STAMPS);
    }

    /// Nothing is known any more of this namespace.
    pub(super) fn forget(&mut self, netns: u32) {
        self.all.retain(|key, _| key.netns != netns);
        self.waiting.retain(|(_, key, _)| key.netns != netns);
    }

    pub(super) fn get(&self, key: &DestinationKey) -> Option<&Destination> {
        self.all.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&DestinationKey, &Destination)> {
        self.all.iter()
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.all.forgotten()
    }

    /// This host dropped or refused a SYN: `client` and `server` are its ends.
    pub(super) fn note_server_side(&mut self, client: SocketAddr, server: SocketAddr, what: ServerSide) {
        *self.server_sides.get_or_insert_with((client, server), || what) = what;
    }

    /// The same where a SYN ends, at a full queue or where no process listens: translated on the way, it has another server's address
    /// than the connect.
    pub(super) fn note_end_of_way(&mut self, called: &Endpoints, client: SocketAddr, what: ServerSide) {
        let known = (called.local, what);
        *self.translated.get_or_insert_with(client_of(called.netns, client), || known) = known;
    }

    /// What was done on this host with the SYN of a connect of `key` from `local`.
    fn side(&self, key: &DestinationKey, local: SocketAddr) -> Option<ServerSide> {
        let exact = self.server_sides.get(&(local, key.remote)).copied();
        // From one end there may be connects to several servers: what happens to those of another one is no news of this.
        let is_called = |remote: SocketAddr| self.all.iter().any(|(known, _)| known.remote == remote);
        let led = || {
            let (server, side) = self.translated.get(&client_of(key.netns, local))?;
            (*server != key.remote && !is_called(*server)).then_some(*side)
        };
        exact.or_else(led)
    }

    /// Whether a SYN of each of the last connects that went unanswered was seen to be dropped by this host. What is known of a
    /// destination from earlier connects, or from its listener's counts, is no proof for these.
    pub(super) fn drops_were_seen(&self, key: &DestinationKey) -> bool {
        let dropped = |end: &SocketAddr| {
            let side = self.server_sides.get(&(*end, key.remote));
            side.is_some_and(|side| !matches!(side, ServerSide::NoListener(_)))
        };
        self.all.get(key).is_some_and(|destination| {
            !destination.unanswered_ends.is_empty() && destination.unanswered_ends.iter().all(dropped)
        })
    }

    /// Connects to this destination wait because that listener's accept queue is full.
    pub(super) fn note_full_listener(&mut self, key: &DestinationKey, listener: ListenerId) {
        if let Some(destination) = self.all.get_mut(key) {
            destination.server_side.get_or_insert(ServerSide::AcceptQueueFull(listener));
        }
    }

    /// A connect from `local` goes unanswered. Whether this host drops its SYNs is known in a moment: the kernel sends a SYN
    /// again, or reports an error, before it frees the one that waited for a neighbour.
    pub(super) fn wait_for_a_drop(&mut self, time: Timestamp, key: DestinationKey, local: SocketAddr) {
        let known = self.waiting.iter().any(|(_, known, end)| (*known, *end) == (key, local));
        if !known && self.waiting.len() < DESTINATIONS {
            self.waiting.push((time, key, local));
        }
    }

    /// The destinations of connects for which no drop is to be expected any more, each once, with what this host did.
    pub(super) fn stop_waiting(&mut self, now: Timestamp, end: bool) -> Vec<DestinationKey> {
        let (over, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(since, ..)| end || now.since(*since) >= A_MOMENT);
        self.waiting = waiting;
        let mut settled: Vec<DestinationKey> = Vec::new();
        for (_, key, local) in over {
            let server_side = self.side(&key, local);
            if let Some(destination) = self.all.get_mut(&key) {
                destination.server_side = server_side.or(destination.server_side);
            }
            if !settled.contains(&key) {
                settled.push(key);
            }
        }
        settled
    }

    /// A SYN of a connect was dropped in `function`, which gave no reason.
    pub(super) fn note_silent_drop(&mut self, key: &DestinationKey, function: &str) {
        if let Some(destination) = self.all.get_mut(key) {
            destination.dropped_in = Some(function.to_owned());
        }
    }

    /// Who listens where was looked up, and who has the addresses that are called.
    pub(super) fn note_report(&mut self, report: &ListenerReport) {
        for called in &report.called {
            let key =
                DestinationKey { netns: report.netns, remote: SocketAddr::new(called.address, report.port) };
            let Some(destination) = self.all.get_mut(&key) else { continue };
            let takes = |l: &&ReportedListener| called.held_by.contains(&l.netns) && l.takes(key.remote);
            let listener = report.listeners.iter().find(takes);
            destination.here = listener
                .map(|listener| Here { listener: listener.clone(), alone: called.held_by.len() == 1 });
        }
    }

    /// News of a connect; by how much the counts grew is the second part of the result.
    pub(super) fn note(
        &mut self,
        time: Timestamp,
        connect: &Connect,
    ) -> Option<(DestinationKey, Meaning, ConnectTotals)> {
        let remote = connect.endpoints.remote?;
        let key = DestinationKey { netns: connect.endpoints.netns, remote };
        let orderly = matches!(connect.result, ConnectResult::Established | ConnectResult::Cancelled);
        if orderly && connect.syns_again == 0 {
            return None;
        }
        let server_side = self.side(&key, connect.endpoints.local);
        let destination = self.all.get_or_insert_with(key, || Destination::new(time));
        if time.since(destination.last) >= WINDOW {
            // Long ago and forgotten: a new incident.
            *destination = Destination::new(time);
        }
        destination.last = destination.last.max(time);
        destination.server_side = server_side.or(destination.server_side);
        let pid = connect.task.as_ref().map_or(0, |task| task.pid);
        let grown = destination.client(pid, connect.task.as_ref()).note(&connect.totals);
        destination.most_syns_again = destination.most_syns_again.max(connect.syns_again);
        if connect.result != ConnectResult::Established {
            destination.longest_ns = destination.longest_ns.max(connect.age_ns.unwrap_or(0));
        }
        if connect.syns_again > 0 && connect.result != ConnectResult::Established {
            destination.note_unanswered_end(connect.endpoints.local);
        }
        destination.errno = connect.errno.or(destination.errno);
        let by_icmp = connect.result != ConnectResult::Refused && connect.errno == Some(ECONNREFUSED);
        destination.refused_by_icmp += u64::from(by_icmp);
        let refused = by_icmp || connect.result == ConnectResult::Refused;
        if refused {
            let by_netfilter = |path: PathKey| matches!(path.cause, DropCause::Netfilter | DropCause::Reject);
            destination.rejected_here =
                matches!(server_side, Some(ServerSide::Dropped(path)) if by_netfilter(path));
        }
        match connect.result {
            _ if refused => stamp(&mut destination.refused, time),
            ConnectResult::SynAgain if connect.syns_again == 2 => stamp(&mut destination.stubborn, time),
            ConnectResult::SynAgain if connect.syns_again == LONG => stamp(&mut destination.failed, time),
            ConnectResult::Cancelled if connect.syns_again == 1 => stamp(&mut destination.stubborn, time),
            ConnectResult::TimedOut | ConnectResult::Unreachable => stamp(&mut destination.failed, time),
            _ => {}
        }
        // A connect that is refused by ICMP may be called off before the kernel believes it.
        let waits = destination.refused_by_icmp == 0 && connect.result != ConnectResult::Established;
        let meaning = Meaning {
            unanswered: waits && !refused && destination.is_unanswered(time),
            refused: refused && destination.is_refused(time, self.refusals),
        };
        Some((key, meaning, grown))
    }

    /// Counts that were read, because there was more than could be told one by one.
    pub(super) fn note_sample(
        &mut self,
        time: Timestamp,
        sample: &ConnectSample,
    ) -> (DestinationKey, ConnectTotals) {
        let key = DestinationKey { netns: sample.netns, remote: sample.remote };
        let destination = self.all.get_or_insert_with(key, || Destination::new(time));
        let grown = destination.client(sample.pid, None).note(&sample.totals);
        (key, grown)
    }
}

impl Destination {
    fn client(&mut self, pid: u32, task: Option<&Task>) -> &mut Client {
        // Who comes when there are many already is counted with those who are not known.
        let pid = if self.clients.len() >= CLIENTS && !self.clients.contains_key(&pid) { 0 } else { pid };
        let client = self.clients.entry(pid).or_default();
        if client.task.is_none() && pid != 0 {
            client.task = task.cloned();
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(since: u64, refused: u64) -> ConnectTotals {
        ConnectTotals { since: Timestamp::from_nanos(since), refused, ..ConnectTotals::default() }
    }

    #[test]
    fn counts_survive_being_forgotten_by_the_kernel_side() {
        let mut client = Client::default();
        assert_eq!(client.note(&totals(1, 5)).refused, 5);
        // A record of another CPU, a little late.
        assert_eq!(client.note(&totals(1, 4)).refused, 0);
        assert_eq!(client.note(&totals(9, 2)).refused, 2);
        // Late, and of the entry before.
        assert_eq!(client.note(&totals(1, 5)).refused, 0);
        assert_eq!(client.totals().refused, 7);
    }

    #[test]
    fn a_connect_that_is_translated_is_found_by_its_own_end() {
        let mut all = Destinations::default();
        let (client, what) = ("10.0.0.9:40000".parse().unwrap(), ServerSide::NoListener((8, 80)));
        let called = crate::finding::testing::place("172.17.0.2:80");
        all.note_end_of_way(&called, client, what);
        let key = |remote: &str| DestinationKey { netns: called.netns + 1, remote: remote.parse().unwrap() };
        assert_eq!(all.side(&key("10.0.0.1:8080"), client), Some(what));
        assert_eq!(all.side(&key("10.0.0.1:8080"), "10.0.0.9:40001".parse().unwrap()), None);
        // From the same end a connect goes to that server itself: it is this one's SYN that was dropped.
        all.all.get_or_insert_with(key("172.17.0.2:80"), || Destination::new(Timestamp::from_nanos(1)));
        assert_eq!(all.side(&key("10.0.0.1:8080"), client), None);
        // A loopback address is that of one namespace.
        let (client, called) =
            ("127.0.0.1:40000".parse().unwrap(), crate::finding::testing::place("127.0.0.1:81"));
        all.note_end_of_way(&called, client, what);
        assert_eq!(all.side(&key("127.0.0.1:8080"), client), None);
    }
}
