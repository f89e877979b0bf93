//! State machines over events. Pure: no clock, no I/O, no globals; the time is the event's.
//!
//! The [`Correlator`] takes events one by one and keeps what they say about listeners, conflicts over ports, namespaces and
//! processes. Each event may bring about [`Change`]s, from which findings are made. Every table is bounded, and what had to
//! be forgotten is counted.

mod absent;
mod bind_rule;
mod bounded;
mod conflict;
mod connect;
mod half_open;
mod inference;
mod limiter;
mod listener;
mod listeners;
mod loss;
mod namespace;
mod owner;
mod path;
mod ports;
mod process;
mod rate;
mod reconcile;
mod served;
mod waits;

pub use absent::{Absent, AbsentKey, Former};
pub use bind_rule::{Reason, Verdict};
pub(crate) use bind_rule::{Side, verdict};
pub use bounded::{BoundedMap, DistinctCount};
pub use conflict::{Conflict, ConflictKey, PortHolder};
pub use connect::{Client, Destination, DestinationKey, ServerSide};
pub use half_open::{HalfOpen, PeerPattern, Unanswered, UnansweredNetwork};
pub use listener::{Closing, InferredDrops, ListenCall, Listener, ListenerId, Overflows, SynQueueFull};
pub use listeners::Listeners;
pub use loss::{Loss, Losses};
pub use namespace::Namespace;
use namespace::Observed;
pub use owner::{KnownOwner, Owners};
pub use path::{DropCause, Hook, PathDrops, PathKey};
pub use ports::{Exhaustion, Growth, PortSpace, PortUser, Ports, ProcessPorts};
pub use process::{Process, Processes};
pub use rate::{Reading, per_second};
pub use reconcile::{Reconciliation, ReconciliationStatus};
pub use served::{Grab, Served, ServedPort, Server};
pub use waits::RecentWaits;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use absent::Absences;
use conflict::Conflicts;
use connect::Destinations;
use owner::SocketOwners;
use path::Paths;

use crate::event::{
    AckDrop, AckDropCause, BindFail, Connect, Coverage, Endpoints, Event, HandshakeDrop, Kind, Listen,
    ListenerClosed, ListenerRef, ListenerSample, ListenerTotals, LossPlace, Lost, ObservationStatus, Packet,
    RequestEnding, RetransmitCause, SampleSource, SocketOwner, SynDropCause, Timestamp, observation,
};

/// How many network namespaces are remembered.
const NAMESPACES: usize = 4096;

/// How many ports the tracepoint tier's counts are remembered of.
const PORTS: usize = 16_384;

/// What is read when the tracer starts comes within this time. A namespace that is met later is new.
const START: Duration = Duration::from_millis(500);

/// So long nobody must have accepted, connections waiting, for accepting to be called stalled.
pub const STALL: Duration = Duration::from_secs(3);

/// How many listeners with unanswered SYN-ACKs are remembered.
const HALF_OPEN: usize = 256;

/// After so long without a sign the SYN queue is not full any more.
const SYN_QUEUE_QUIET: Duration = Duration::from_secs(10);

/// A SYN that is sent again was dropped so long ago: less than the pause before the fourth repetition.
const RECENT_OVERFLOW: Duration = Duration::from_secs(10);

/// `EADDRINUSE`: the only errno that is a conflict.
const EADDRINUSE: u32 = 98;

/// What an event brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A listener dropped at its full accept queue.
    Overflowed {
        /// The listener.
        listener: ListenerId,
        /// Whose SYN or final ACK it was, if one was seen.
        peer: Option<SocketAddr>,
    },
    /// Connections have been waiting for [`STALL`], and nobody has accepted meanwhile. Told again every second.
    AcceptStalled(ListenerId),
    /// Connections wait at one member of a reuseport group, or are dropped there, while the others are idle. Told again every
    /// second.
    Imbalanced(ListenerId),
    /// The SYN queue of a listener is full, of connections that nobody else tells of. Told every second while it lasts.
    SynQueueFull(ListenerId),
    /// SYN-ACKs of a listener stay unanswered, and pile up. Told every second while it lasts.
    Captured(ListenerId),
    /// New numbers of a listener.
    ListenerRead(ListenerId),
    /// listen() made a listener, or changed its backlog.
    Listened(ListenerId),
    /// A listener was closed.
    ListenerClosed(ListenerId),
    /// bind() or listen() failed because of somebody else. Told once it is known as well as can be, at the latest a second
    /// of event time after the attempt.
    Conflict(ConflictKey),
    /// More is known of a conflict.
    ConflictExplained(ConflictKey),
    /// SYNs arrive for a port that nobody listens on.
    NoListener(AbsentKey),
    /// Packets of handshakes are dropped on their way by this host.
    HandshakeDropped(PathKey),
    /// Somebody wanted an ephemeral port of this namespace, and there was none. Told once it is known who has them, at the
    /// latest 1.5 s after the first failure.
    PortsExhausted(u32),
    /// A server listens on this port, which it asked for by number.
    PortServed(ServedPort),
    /// A client was given this port, which a server asked for by number before.
    PortGrabbed(ServedPort),
    /// More is known of who has the ports of this namespace.
    PortsRead(u32),
    /// A process takes ports and does not give them back. Told every second while it grows.
    PortsLeak(PortUser),
    /// Connects to a destination go unanswered.
    Unanswered(DestinationKey),
    /// Connects to a destination are refused.
    Refused(DestinationKey),
    /// The tracer lost events.
    EventsLost {
        /// Where.
        place: LossPlace,
    },
    /// Something may be known better: knobs, processes, counters.
    Learnt,
    /// A second has passed.
    Tick,
    /// Nothing more will come.
    End,
}

/// What is known from the events so far.
#[derive(Debug)]
pub struct Correlator {
    first: Option<Timestamp>,
    now: Timestamp,
    listeners: Listeners,
    conflicts: Conflicts,
    namespaces: BoundedMap<u32, Namespace>,
    /// What the tracepoint tier counted for each port, whoever listened there.
    port_counts: BoundedMap<(u32, u16), ListenerTotals>,
    processes: Processes,
    sockets: SocketOwners,
    half_open: BoundedMap<ListenerId, HalfOpen>,
    ports: Ports,
    served: Served,
    destinations: Destinations,
    absences: Absences,
    paths: Paths,
    coverage: Option<Coverage>,
    losses: Losses,
    kinds: BTreeMap<&'static str, u64>,
}

impl Default for Correlator {
    fn default() -> Self {
        Self {
            first: None,
            now: Timestamp::default(),
            listeners: Listeners::default(),
            conflicts: Conflicts::default(),
            namespaces: BoundedMap::new(NAMESPACES),
            port_counts: BoundedMap::new(PORTS),
            processes: Processes::default(),
            sockets: SocketOwners::default(),
            half_open: BoundedMap::new(HALF_OPEN),
            ports: Ports::default(),
            served: Served::default(),
            destinations: Destinations::default(),
            absences: Absences::default(),
            paths: Paths::default(),
            coverage: None,
            losses: Losses::default(),
            kinds: BTreeMap::new(),
        }
    }
}

impl Correlator {
    /// The latest time that an event named.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The time of the first event.
    pub fn start(&self) -> Timestamp {
        self.first.unwrap_or(self.now)
    }

    /// All listeners.
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// A listener, while it is remembered.
    pub fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(id)
    }

    /// What is unanswered at a listener now; nothing, if none of its SYN-ACKs was sent again lately.
    pub fn unanswered(&self, id: ListenerId) -> Unanswered {
        let last_overflow = self.listener(id).and_then(|listener| listener.last_overflow);
        self.half_open
            .get(&id)
            .map_or_else(Unanswered::default, |half_open| half_open.unanswered(self.now, last_overflow))
    }

    /// Where connects went that were not answered, while it is remembered.
    pub fn destination(&self, key: &DestinationKey) -> Option<&Destination> {
        self.destinations.get(key)
    }

    /// All such destinations, in no order.
    pub fn destinations(&self) -> impl Iterator<Item = (&DestinationKey, &Destination)> {
        self.destinations.iter()
    }

    /// A port that SYNs arrive for though nobody listens on it, while it is remembered.
    pub fn absent(&self, key: AbsentKey) -> Option<&Absent> {
        self.absences.get(key)
    }

    /// The last listener on a port, if it was closed while we watched.
    pub fn former_listener(&self, key: AbsentKey) -> Option<&Former> {
        self.absences.former(key)
    }

    /// Packets of handshakes that were dropped on their way, while they are remembered.
    pub fn path_drops(&self, key: &PathKey) -> Option<&PathDrops> {
        self.paths.get(key)
    }

    /// All such drops, in no order.
    pub fn all_path_drops(&self) -> impl Iterator<Item = (&PathKey, &PathDrops)> {
        self.paths.iter()
    }

    /// A conflict, while it is remembered.
    pub fn conflict(&self, key: &ConflictKey) -> Option<&Conflict> {
        self.conflicts.get(key)
    }

    /// Ports that servers asked for by number.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Ephemeral ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// What is known of a namespace.
    pub fn namespace(&self, netns: u32) -> Option<&Namespace> {
        self.namespaces.get(&netns)
    }

    /// All processes.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// What is observed here, once that was said.
    pub fn coverage(&self) -> Option<&Coverage> {
        self.coverage.as_ref()
    }

    /// Whether an observation (one of [`observation`]) sees every single case. Assumed until coverage says otherwise.
    pub fn observes(&self, name: &str) -> bool {
        self.coverage
            .as_ref()
            .is_none_or(|coverage| coverage.status(name) == Some(ObservationStatus::Attached))
    }

    /// What was lost.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// How many kernel records of each kind came.
    pub fn events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.kinds.iter().map(|(name, count)| (*name, *count))
    }

    /// Whether what we saw adds up to the kernel's own counters, by namespace.
    pub fn reconcile(&self) -> Vec<Reconciliation> {
        let mut namespaces: Vec<(&u32, &Namespace)> = self.namespaces.iter().collect();
        namespaces.sort_unstable_by_key(|(netns, _)| **netns);
        let lost = self.losses.in_words();
        namespaces
            .into_iter()
            .flat_map(|(netns, namespace)| {
                reconcile::reconcile(*netns, namespace, self.coverage.as_ref(), lost.as_deref())
            })
            .collect()
    }

    /// What had to be forgotten because a table was full: its name, and how many entries.
    pub fn forgotten(&self) -> Vec<(&'static str, u64)> {
        [
            ("listeners", self.listeners.forgotten()),
            ("conflicts", self.conflicts.forgotten()),
            ("namespaces", self.namespaces.forgotten()),
            ("processes", self.processes.forgotten()),
            ("socket-owners", self.sockets.forgotten()),
            ("half-open-listeners", self.half_open.forgotten()),
            ("port-users", self.ports.forgotten()),
            ("served-ports", self.served.forgotten()),
            ("destinations", self.destinations.forgotten()),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect()
    }

    /// Takes in an event; what it brings about is added to `changes`.
    pub fn on_event(&mut self, event: &Event, changes: &mut Vec<Change>) {
        let time = event.time;
        self.first.get_or_insert(time);
        self.now = self.now.max(time);
        if event.kind.is_kernel_record() {
            *self.kinds.entry(event.kind.name()).or_default() += 1;
        }
        match &event.kind {
            Kind::Listen(listen) => {
                self.on_listen(time, listen, changes);
                if self.served.note_listen(time, listen) {
                    let port = (listen.endpoints.netns, listen.endpoints.local.port());
                    changes.push(Change::PortServed(port));
                }
            }
            Kind::SynDrop(drop) => {
                let mut totals = ListenerTotals::default();
                match drop.cause {
                    SynDropCause::AcceptQueue => totals.syn_drops_accept_queue = Some(drop.total),
                    SynDropCause::SynQueue | SynDropCause::Other => {
                        totals.syn_drops_syn_queue = Some(drop.total);
                    }
                    SynDropCause::MaxSynBacklog => totals.syn_drops_max_syn_backlog = Some(drop.total),
                    SynDropCause::NoRoute => totals.syn_drops_no_route = Some(drop.total),
                }
                if matches!(drop.cause, SynDropCause::SynQueue | SynDropCause::MaxSynBacklog) {
                    let id = self.listeners.resolve(time, &drop.endpoints, &drop.listener);
                    if let Some(listener) = self.listeners.get_mut(id) {
                        let before = listener.totals;
                        listener.note_syn_queue_full(time, &before);
                    }
                }
                let overflow = drop.cause == SynDropCause::AcceptQueue;
                let id = self.on_drop(time, &drop.endpoints, &drop.listener, totals, overflow, changes);
                if let Some(client) = drop.endpoints.remote {
                    let what = match drop.cause {
                        SynDropCause::AcceptQueue => ServerSide::AcceptQueueFull(id),
                        SynDropCause::NoRoute => {
                            let told = self.paths.note_no_way_back(time, &drop.endpoints, client, id);
                            changes.extend(told.1.then_some(Change::HandshakeDropped(told.0)));
                            ServerSide::Dropped(told.0)
                        }
                        _ => ServerSide::SynQueueFull(id),
                    };
                    self.destinations.note_server_side(client, drop.endpoints.local, what);
                }
            }
            Kind::AckDrop(drop) => {
                let id = self.listeners.resolve(time, &drop.endpoints, &drop.listener);
                self.note_port_acks(drop);
                if let (Some(half_open), Some(peer)) = (self.half_open.get_mut(&id), drop.endpoints.remote) {
                    half_open.note_answer(peer);
                }
                let total = self.ack_total(id, drop.total, drop.cause);
                let mut totals = ListenerTotals::default();
                match drop.cause {
                    AckDropCause::AcceptQueue => totals.ack_drops_accept_queue = Some(total),
                    AckDropCause::Other => totals.ack_drops_other = Some(total),
                }
                let overflow = drop.cause == AckDropCause::AcceptQueue;
                let _ = self.on_drop(time, &drop.endpoints, &drop.listener, totals, overflow, changes);
            }
            Kind::SynAckRetransmit(again) => {
                let mut totals = ListenerTotals { last_retransmit: Some(time), ..ListenerTotals::default() };
                match again.cause {
                    RetransmitCause::Timer => totals.retransmits_timer = Some(again.total),
                    RetransmitCause::DuplicateSyn => totals.retransmits_duplicate_syn = Some(again.total),
                    RetransmitCause::Unknown => totals.retransmits_unknown = Some(again.total),
                }
                let id = self.on_half_open(time, &again.endpoints, &again.listener, totals);
                self.half_open.get_or_insert_with(id, HalfOpen::default).note_retransmit(time, again);
            }
            Kind::RequestEnd(end) => {
                let mut totals = ListenerTotals::default();
                match end.how {
                    RequestEnding::Expired => totals.expired = Some(end.total),
                    RequestEnding::Reset => totals.resets = Some(end.total),
                    RequestEnding::Aborted => totals.aborts = Some(end.total),
                    RequestEnding::Icmp => totals.icmp_ends = Some(end.total),
                    RequestEnding::Joined => totals.joins = Some(end.total),
                    RequestEnding::ListenerClosed => {}
                }
                let id = self.on_half_open(time, &end.endpoints, &end.listener, totals);
                if end.how == RequestEnding::Expired && !end.acked {
                    self.half_open.get_or_insert_with(id, HalfOpen::default);
                }
                if let Some(half_open) = self.half_open.get_mut(&id) {
                    half_open.note_end(time, end);
                }
            }
            Kind::Enqueue(enqueue) => {
                if let Some(id) = self.quiet_listener(time, &enqueue.endpoints, &enqueue.listener)
                    && let Some(listener) = self.listeners.get_mut(id)
                {
                    if enqueue.listener.sk != 0 {
                        listener.note_queue(time, &enqueue.listener);
                    }
                    listener.last_seen = listener.last_seen.max(time);
                }
            }
            Kind::Accept(accept) => {
                if let Some(id) = self.quiet_listener(time, &accept.endpoints, &accept.listener)
                    && let Some(listener) = self.listeners.get_mut(id)
                {
                    if accept.listener.sk != 0 {
                        listener.note_queue(time, &accept.listener);
                    }
                    listener.owners.observe(&accept.task);
                    listener.note_accept(time, accept);
                }
            }
            Kind::Connect(connect) => self.on_connect(time, connect, changes),
            Kind::NoListener(absent) => {
                let key = (absent.endpoints.netns, absent.endpoints.local.port());
                if let Some(client) = absent.endpoints.remote {
                    let what = ServerSide::NoListener(key);
                    self.destinations.note_server_side(client, absent.endpoints.local, what);
                }
                let (more, told) = self.absences.note(time, absent);
                let more = Observed { absent: more, ..Observed::default() };
                self.namespace_mut(key.0).note_observed(time, &more);
                changes.extend(told.map(Change::NoListener));
            }
            Kind::HandshakeDrop(drop) => self.on_handshake_drop(time, drop, changes),
            Kind::ListenerReport(report) => {
                changes.extend(self.absences.note_report(self.now, report).map(Change::NoListener));
                let told = self.paths.note_report(self.now, report);
                changes.extend(told.into_iter().map(Change::HandshakeDropped));
            }
            Kind::ConnectSample(sample) => {
                let (key, grown) = self.destinations.note_sample(time, sample);
                self.namespace_mut(key.netns).note_observed(time, &grown.into());
                changes.push(Change::Learnt);
            }
            Kind::BindFail(fail) => self.on_bind_fail(time, fail, changes),
            Kind::ListenerClosed(closed) => self.on_closed(time, closed, changes),
            Kind::ListenerSample(sample) => self.on_sample(time, sample, changes),
            Kind::PrefixSample(sample) => {
                if let Some(id) = self.listeners.with_sk(sample.sk).map(|listener| listener.id)
                    && let Some(half_open) = self.half_open.get_mut(&id)
                {
                    half_open.note_completed(sample);
                }
            }
            Kind::CounterSample(sample) => {
                let late = time.since(self.start()) > START;
                self.namespace_mut(sample.netns).note_counters(time, **sample, late);
                changes.push(Change::Learnt);
            }
            Kind::KnobSample(sample) => {
                self.namespace_mut(sample.netns).knobs = (**sample).clone();
                changes.push(Change::Learnt);
            }
            Kind::ProcessInfo(info) => {
                self.processes.note_info(info);
                changes.push(Change::Learnt);
            }
            Kind::ProcessState(state) => {
                self.processes.note_state(time, *state);
                changes.push(Change::Learnt);
            }
            Kind::SocketOwner(found) => {
                self.on_owner(found, changes);
                if self.served.note_owner(time, found) {
                    let port = (found.endpoints.netns, found.endpoints.local.port());
                    changes.push(Change::PortServed(port));
                }
            }
            Kind::HolderReport(report) => {
                let (sockets, listeners) = (&self.sockets, &self.listeners);
                let waiting =
                    self.conflicts.note_report(report, &|inode| owners_of(sockets, listeners, inode));
                for (key, was_waiting) in waiting {
                    changes.push(if was_waiting {
                        Change::Conflict(key)
                    } else {
                        Change::ConflictExplained(key)
                    });
                }
            }
            Kind::Coverage(coverage) => self.coverage = Some((**coverage).clone()),
            Kind::Lost(lost) => self.on_lost(lost, changes),
            Kind::Tick => self.on_tick(false, changes),
            Kind::End => self.on_tick(true, changes),
            Kind::NoPort(refused) => {
                // Otherwise the connection exists already, and a port would not help.
                if refused.endpoints.local.port() == 0 && self.ports.note_no_port(time, refused) {
                    changes.push(Change::PortsExhausted(refused.endpoints.netns));
                }
            }
            Kind::PortUse(latest) => {
                let dialled = self.ports.note_use(time, latest);
                let more = Observed { dialled, ..Observed::default() };
                self.namespace_mut(latest.netns).note_observed(time, &more);
            }
            Kind::PortSurvey(survey) => changes.push(if self.ports.note_survey(time, survey) {
                Change::PortsExhausted(survey.netns)
            } else {
                Change::PortsRead(survey.netns)
            }),
            Kind::PortTaken(taken) => {
                if self.served.note_taken(time, taken) {
                    let port = (taken.endpoints.netns, taken.endpoints.local.port());
                    changes.push(Change::PortGrabbed(port));
                }
            }
            // Ports are followed in the kernel; these are streamed to be shown.
            Kind::PortReleased(_) => {}
        }
    }

    fn namespace_mut(&mut self, netns: u32) -> &mut Namespace {
        self.namespaces.get_or_insert_with(netns, Namespace::default)
    }

    fn on_listen(&mut self, time: Timestamp, listen: &Listen, changes: &mut Vec<Change>) {
        let id = if listen.again {
            self.listeners.resolve(time, &listen.endpoints, &listen.listener)
        } else {
            self.listeners.began(time, &listen.endpoints, &listen.listener)
        };
        let zero = self.as_far_as_observed(ListenerTotals::ZERO);
        let port = (listen.endpoints.netns, listen.endpoints.local.port());
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.note_place(&listen.endpoints);
        listener.note_queue(time, &listen.listener);
        listener.owners.observe(&listen.task);
        listener.note_listen(time, listen);
        changes.push(Change::Listened(id));
        if listen.again {
            return;
        }
        self.absences.note_listening(port);
        // What it counted before is nothing: rates start here.
        listener.port_base = self.port_counts.get(&port).copied().unwrap_or_default();
        listener.note_totals(&zero);
        listener.take_reading(time);
    }

    fn on_drop(
        &mut self,
        time: Timestamp,
        endpoints: &Endpoints,
        queue: &ListenerRef,
        totals: ListenerTotals,
        overflow: bool,
        changes: &mut Vec<Change>,
    ) -> ListenerId {
        let id = self.listeners.resolve(time, endpoints, queue);
        let Some(listener) = self.listeners.get_mut(id) else { return id };
        listener.note_queue(time, queue);
        let seen = listener.note_totals(&totals);
        if listener.owners.is_empty()
            && let Some(owners) = self.sockets.of(listener.inode)
        {
            listener.owners = owners.clone();
        }
        if !listener.place_known
            && let Some(place) = self.sockets.place_of(listener.inode)
        {
            listener.note_place(place);
        }
        if overflow {
            listener.last_overflow = listener.last_overflow.max(Some(time));
        }
        self.namespace_mut(endpoints.netns).note_observed(time, &seen.into());
        if overflow {
            changes.push(Change::Overflowed { listener: id, peer: endpoints.remote });
        }
        id
    }

    fn on_handshake_drop(&mut self, time: Timestamp, drop: &HandshakeDrop, changes: &mut Vec<Change>) {
        if !drop.handshake && !self.is_half_open(drop) {
            return;
        }
        let Some((key, tells)) = self.paths.note(time, drop) else { return };
        if drop.packet == Packet::Syn {
            self.destinations.note_server_side(drop.client(), drop.server(), ServerSide::Dropped(key));
        }
        if tells {
            changes.push(Change::HandshakeDropped(key));
        }
    }

    /// Whether an ACK is the answer to a SYN-ACK that was sent again.
    fn is_half_open(&self, drop: &HandshakeDrop) -> bool {
        let (client, server) = (drop.client(), drop.server());
        let mut listeners = self.listeners.at_port(drop.endpoints.netns, server.port());
        listeners.any(|listener| self.half_open.get(&listener.id).is_some_and(|known| known.awaits(client)))
    }

    fn on_connect(&mut self, time: Timestamp, connect: &Connect, changes: &mut Vec<Change>) {
        if let Some((path, tells)) = self.paths.note_unroutable(time, connect) {
            changes.extend(tells.then_some(Change::HandshakeDropped(path)));
        }
        let Some((key, meaning, grown)) = self.destinations.note(time, connect) else { return };
        self.namespace_mut(key.netns).note_observed(time, &grown.into());
        if !meaning.refused && self.destination(&key).is_some_and(|known| known.server_side.is_none()) {
            // Where no probe sees the drop itself: a listener here that overflows, and has that address.
            let (local, remote) = (connect.endpoints.local.ip(), key.remote.ip());
            let here = remote.is_loopback() || remote == local;
            let mut listeners = self.listeners.at_port(key.netns, key.remote.port()).filter(|_| here);
            if let Some(listener) = listeners.find(|l| l.overflowed_within(RECENT_OVERFLOW, time)) {
                self.destinations.note_full_listener(&key, listener.id);
            }
        }
        let server_side = self.destination(&key).and_then(|known| known.server_side);
        match (server_side, &connect.task) {
            (Some(ServerSide::NoListener(absent)), Some(task)) => self.absences.note_client(absent, task),
            (Some(ServerSide::Dropped(path)), Some(task)) => self.paths.note_client(&path, task),
            _ => {}
        }
        if meaning.unanswered {
            changes.push(Change::Unanswered(key));
        }
        // Where the port is this host's, it is told from there, and who calls is told with it.
        if meaning.refused && !matches!(server_side, Some(ServerSide::NoListener(_))) {
            changes.push(Change::Refused(key));
        }
    }

    fn note_port_acks(&mut self, drop: &AckDrop) {
        if self.observes(observation::SYN_DROP) {
            return;
        }
        let mut counts = ListenerTotals::default();
        match drop.cause {
            AckDropCause::AcceptQueue => counts.ack_drops_accept_queue = Some(drop.total),
            AckDropCause::Other => counts.ack_drops_other = Some(drop.total),
        }
        let port = (drop.endpoints.netns, drop.endpoints.local.port());
        self.port_counts.get_or_insert_with(port, ListenerTotals::default).raise_to(&counts);
    }

    /// The tracepoint tier counts final-ACK drops by port. That is the listener's own count if it is alone there; otherwise
    /// the drops that name it are counted one by one.
    fn ack_total(&self, id: ListenerId, total: u64, cause: AckDropCause) -> u64 {
        let Some(listener) = self.listeners.get(id) else { return total };
        let (netns, port) = (listener.endpoints.netns, listener.endpoints.local.port());
        if self.observes(observation::SYN_DROP) {
            return total;
        }
        let (mine, base) = match cause {
            AckDropCause::AcceptQueue => {
                (listener.totals.ack_drops_accept_queue, listener.port_base.ack_drops_accept_queue)
            }
            AckDropCause::Other => (listener.totals.ack_drops_other, listener.port_base.ack_drops_other),
        };
        if self.listeners.only_at_port(netns, port) == Some(id) {
            return total.saturating_sub(base.unwrap_or(0));
        }
        mine.unwrap_or(0) + 1
    }

    /// Takes in what happened to a half-open request of a listener.
    fn on_half_open(
        &mut self,
        time: Timestamp,
        endpoints: &Endpoints,
        queue: &ListenerRef,
        totals: ListenerTotals,
    ) -> ListenerId {
        let id = self.listeners.resolve(time, endpoints, queue);
        if let Some(listener) = self.listeners.get_mut(id) {
            let seen = listener.note_totals(&totals);
            if queue.sk != 0 {
                listener.syn_queue = queue.syn_queue;
            }
            listener.last_seen = listener.last_seen.max(time);
            self.namespace_mut(endpoints.netns).note_observed(time, &seen.into());
        }
        id
    }

    /// The listener of a connection, which in the tracepoint tier is known by its port alone.
    fn quiet_listener(
        &mut self,
        time: Timestamp,
        endpoints: &Endpoints,
        queue: &ListenerRef,
    ) -> Option<ListenerId> {
        if queue.sk != 0 || queue.inode != 0 {
            // The local end of a connection has the address that the peer called, not the listener's own.
            return Some(self.listeners.resolve(time, endpoints, queue));
        }
        self.listeners.only_at_port(endpoints.netns, endpoints.local.port())
    }

    fn on_bind_fail(&mut self, time: Timestamp, fail: &BindFail, changes: &mut Vec<Change>) {
        if fail.errno != EADDRINUSE {
            return;
        }
        // Port 0 asks for any port: there is none left, which is no conflict.
        if fail.endpoints.local.port() == 0 {
            if self.ports.note_bind(time, fail) {
                changes.push(Change::PortsExhausted(fail.endpoints.netns));
            }
            return;
        }
        self.served.note_refused(time, fail);
        let (sockets, listeners) = (&self.sockets, &self.listeners);
        let key = self.conflicts.note(time, fail, &|inode| owners_of(sockets, listeners, inode));
        if self.conflicts.get(&key).is_some_and(Conflict::is_explained) {
            changes.push(Change::Conflict(key));
        }
    }

    fn on_closed(&mut self, time: Timestamp, closed: &ListenerClosed, changes: &mut Vec<Change>) {
        let id = self.listeners.resolve(time, &closed.endpoints, &closed.listener);
        let last = closed.last.map(|last| self.as_far_as_observed(last));
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.note_place(&closed.endpoints);
            listener.note_queue(time, &closed.listener);
            if listener.owners.is_empty() {
                listener.owners.observe(&closed.task);
            }
            listener.closing = Some(Closing {
                task: closed.task.clone(),
                queued: closed.listener.depth,
                half_open: closed.listener.syn_queue,
                exiting: closed.exiting,
            });
            if let Some(last) = last {
                let seen = listener.note_totals(&last);
                listener.take_reading(time);
                self.namespace_mut(closed.endpoints.netns).note_observed(time, &seen.into());
            }
        }
        let owners = self.listeners.get(id).map(|listener| listener.owners.clone()).unwrap_or_default();
        let (netns, local) = (closed.endpoints.netns, closed.endpoints.local);
        let former = Former { local, owners, closed: time, exiting: closed.exiting };
        self.absences.note_closed((netns, local.port()), former);
        self.listeners.close(id, time);
        self.sockets.forget(closed.listener.inode);
        changes.push(Change::ListenerClosed(id));
    }

    fn on_sample(&mut self, time: Timestamp, sample: &ListenerSample, changes: &mut Vec<Change>) {
        let (netns, port) = (sample.endpoints.netns, sample.endpoints.local.port());
        // Counts of the tracepoint tier are kept by namespace and port, under a key made of both.
        let keyed_by_port =
            sample.listener.sk != 0 && sample.listener.sk == u64::from(netns) << 16 | u64::from(port);
        // Samples of sock_diag carry them, too, when a listener is alone on its port.
        let by_port = keyed_by_port || sample.source == SampleSource::Polled;
        if by_port {
            self.port_counts
                .get_or_insert_with((netns, port), ListenerTotals::default)
                .raise_to(&ListenerTotals { socket_drops: None, depth_max: None, ..sample.totals });
        }
        let id = if keyed_by_port {
            let Some(id) = self.listeners.only_at_port(netns, port) else { return };
            id
        } else {
            self.listeners.resolve(time, &sample.endpoints, &sample.listener)
        };
        let mut totals = match sample.source {
            SampleSource::Observed => self.as_far_as_observed(sample.totals),
            SampleSource::Polled => sample.totals,
        };
        if let Some(listener) = self.listeners.get(id).filter(|_| by_port) {
            totals = totals.less(&listener.port_base);
        }
        // Where no probe sees the queue, only polling does.
        let sees_queue = sample.source == SampleSource::Polled
            || (!keyed_by_port
                && (self.observes(observation::SYN_DROP) || self.observes(observation::ENQUEUE)));
        let syncookies = self.namespaces.get(&netns).and_then(|namespace| namespace.knobs.syncookies);
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.last_seen = listener.last_seen.max(time);
        // With tcp_syncookies=2 cookies are always sent.
        let for_want_of_room = match syncookies {
            Some(value) => value != 2,
            None => totals.syn_queue_max.is_some_and(|deepest| deepest >= sample.listener.limit),
        };
        if (for_want_of_room && totals.cookies_sent > listener.totals.cookies_sent.or(Some(0)))
            || totals.syn_drops_max_syn_backlog > listener.totals.syn_drops_max_syn_backlog.or(Some(0))
        {
            let before = listener.totals;
            listener.note_syn_queue_full(time, &before);
        }
        if !keyed_by_port {
            listener.note_place(&sample.endpoints);
        }
        if sees_queue {
            listener.note_queue(time, &sample.listener);
        }
        if let Some(acceptor) = totals.last_acceptor {
            listener.owners.confirm(acceptor.pid);
        }
        let before = listener.overflows();
        let accepted_before = listener.totals.accepted;
        let seen = listener.note_totals(&totals);
        if totals.last_accept.is_none() && listener.totals.accepted > accepted_before {
            listener.note_accepted_until(time);
        }
        listener.take_reading(time);
        if let Some(waits) = &sample.waits {
            listener.waits.note(time, waits);
        }
        if listener.owners.is_empty()
            && let Some(owners) = self.sockets.of(listener.inode)
        {
            listener.owners = owners.clone();
        }
        let overflowed = listener.overflows() != before;
        if overflowed {
            listener.last_overflow = listener.last_overflow.max(Some(time));
        }
        self.namespace_mut(netns).note_observed(time, &seen.into());
        // Drops whose own records were lost, or are still on their way.
        if overflowed {
            changes.push(Change::Overflowed { listener: id, peer: None });
        }
        changes.push(Change::ListenerRead(id));
    }

    /// `totals` of our probes without what they do not see here: a zero there means nothing.
    pub fn as_far_as_observed(&self, totals: ListenerTotals) -> ListenerTotals {
        let mut seen = totals;
        if !self.observes(observation::SYN_DROP) {
            seen.syns = None;
            seen.syn_drops_accept_queue = None;
            seen.syn_drops_syn_queue = None;
        }
        if !self.observes(observation::ACK_DROP) {
            seen.ack_drops_accept_queue = None;
            seen.ack_drops_other = None;
        }
        if !self.observes(observation::ENQUEUE) {
            seen.enqueued = None;
            seen.last_enqueue = None;
        }
        if !self.observes(observation::COOKIE) {
            seen.cookies_sent = None;
            seen.cookies_at_limit = None;
            seen.cookies_valid = None;
            seen.cookies_invalid = None;
        }
        if !self.observes(observation::SYNACK_RETRANSMIT) {
            seen.retransmits_timer = None;
            seen.retransmits_duplicate_syn = None;
        }
        if !self.observes(observation::REQUEST_END) {
            // Without the timer in sight, every retransmission looks like the answer to a SYN.
            seen.retransmits_unknown = seen.retransmits_duplicate_syn.take();
            seen.retransmits_timer = None;
            seen.expired = None;
            seen.resets = None;
            seen.aborts = None;
            seen.icmp_ends = None;
            seen.joins = None;
            seen.deferred = None;
        }
        if !self.observes(observation::ACCEPT) {
            seen.accepted = None;
            seen.last_accept = None;
        }
        if !self.observes(observation::ENQUEUE) || !self.observes(observation::ACCEPT) {
            seen.waits = None;
            seen.wait_total_ns = None;
            seen.wait_max_ns = None;
        }
        seen
    }

    fn on_owner(&mut self, found: &SocketOwner, changes: &mut Vec<Change>) {
        self.sockets.note(found);
        if let Some(id) = self.listeners.with_inode(found.inode).map(|listener| listener.id)
            && let Some(listener) = self.listeners.get_mut(id)
        {
            for owner in &found.owners {
                listener.owners.found(owner, found.confidence);
            }
        }
        changes.push(Change::Learnt);
    }

    fn on_lost(&mut self, lost: &Lost, changes: &mut Vec<Change>) {
        self.losses.note(lost);
        if lost.count > 0 {
            changes.push(Change::EventsLost { place: lost.place });
        }
    }

    fn on_tick(&mut self, end: bool, changes: &mut Vec<Change>) {
        if !self.observes(observation::SYN_DROP) || !self.observes(observation::ACK_DROP) {
            let mut netnses: Vec<u32> = self.namespaces.iter().map(|(netns, _)| *netns).collect();
            // In the same order every time: so findings get the same numbers in a replay.
            netnses.sort_unstable();
            for netns in netnses {
                let Some(namespace) = self.namespaces.get_mut(&netns) else { continue };
                for listener in inference::attribute(netns, namespace, &mut self.listeners, self.now) {
                    if let Some(listener) = self.listeners.get_mut(listener) {
                        listener.last_overflow = Some(self.now);
                    }
                    changes.push(Change::Overflowed { listener, peer: None });
                }
            }
        }
        if !end {
            // In this order: what imbalance explains is not told as a stall.
            changes.extend(self.listeners.imbalanced(self.now).into_iter().map(Change::Imbalanced));
            changes.extend(self.listeners.stalled(self.now).into_iter().map(Change::AcceptStalled));
        }
        self.look_at_syn_queues(end, changes);
        if !end {
            self.namespaces.values_mut().for_each(Namespace::note_looked);
        }
        self.listeners.expire(self.now);
        changes.extend(self.ports.tick(self.now, end).into_iter().map(Change::PortsExhausted));
        let namespaces = &self.namespaces;
        let leaks = self.ports.leaks(self.now, |netns| namespaces.get(&netns)?.knobs.ephemeral_ports());
        changes.extend(leaks.into_iter().map(Change::PortsLeak));
        changes.extend(self.conflicts.stop_waiting(self.now, end).into_iter().map(Change::Conflict));
        changes.push(if end { Change::End } else { Change::Tick });
    }
}

impl Correlator {
    /// Which SYN queues are full, and at which listeners SYN-ACKs stay unanswered. The one often leads to the other, and only
    /// one of them is told: unanswered requests, unless they are a flood that has filled the queue.
    fn look_at_syn_queues(&mut self, end: bool, changes: &mut Vec<Change>) {
        /// It takes so long to see whether requests are answered, if some SYN-ACKs had to be sent again, or none yet.
        const SUSPECT: Duration = Duration::from_secs(8);
        const UNSUSPECT: Duration = Duration::from_secs(2);
        /// The accept queue was full, and requests could not leave the SYN queue for that.
        const AFTER_OVERFLOW: Duration = Duration::from_secs(12);
        let now = self.now;
        self.half_open.retain(|_, half_open| half_open.expire(now));
        let mut ids: Vec<ListenerId> = self.half_open.iter().map(|(id, _)| *id).collect();
        for listener in self.listeners.iter_mut() {
            if listener.syn_queue_full.as_ref().is_some_and(|full| now.since(full.last) >= SYN_QUEUE_QUIET) {
                listener.syn_queue_full = None;
            }
            if listener.syn_queue_full.is_some() {
                ids.push(listener.id);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let unanswered = self.unanswered(id);
            let Some(listener) = self.listeners.get_mut(id).filter(|listener| listener.closed.is_none())
            else {
                continue;
            };
            let flood = unanswered.pattern() == PeerPattern::Flood;
            if unanswered.is_pile() && !(flood && listener.syn_queue_full.is_some()) {
                if !end {
                    changes.push(Change::Captured(id));
                }
                continue;
            }
            let overflowed = listener.overflowed_within(AFTER_OVERFLOW, now);
            let Some(full) = &mut listener.syn_queue_full else { continue };
            let patience = match (end || unanswered.is_pile(), unanswered.may_become_pile()) {
                (true, _) => Duration::ZERO,
                (false, true) => SUSPECT,
                (false, false) => UNSUSPECT,
            };
            let fresh = now.since(full.last) < UNSUSPECT;
            if !overflowed
                && now.since(full.first) >= patience
                && (fresh || !full.told)
                && !(end && full.told)
            {
                full.told = true;
                changes.push(Change::SynQueueFull(id));
            }
        }
    }
}

/// Who is known to have the socket with this inode.
fn owners_of(sockets: &SocketOwners, listeners: &Listeners, inode: u64) -> Option<Owners> {
    if inode == 0 {
        return None;
    }
    let listener =
        listeners.with_inode(inode).map(|listener| &listener.owners).filter(|owners| !owners.is_empty());
    listener.or_else(|| sockets.of(inode)).cloned()
}
