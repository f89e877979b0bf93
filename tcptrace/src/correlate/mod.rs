//! State machines over events. Pure: no clock, no I/O, no globals; the time is the event's.
//!
//! The [`Correlator`] takes events one by one and keeps what they say about listeners, conflicts over ports, namespaces and
//! processes. Each event may bring about [`Change`]s, from which findings are made. Every table is bounded, and what had to
//! be forgotten is counted.

mod absent;
mod acceptors;
mod bind_rule;
mod bounded;
mod change;
mod client;
mod conflict;
mod connect;
mod deferred;
mod drop_reason;
mod existing;
mod half_open;
mod identity;
mod inference;
mod limiter;
mod listener;
mod listeners;
mod loss;
mod namespace;
mod observed;
mod on_event;
mod owner;
mod path;
mod ports;
mod process;
mod rate;
mod reconcile;
mod refusal;
mod served;
mod server;
mod syn_inference;
mod syn_queues;
mod thresholds;
mod waits;

pub use absent::{Absent, AbsentKey, Former};
pub use acceptors::{AcceptFailure, Acceptors};
pub use bind_rule::{Reason, Verdict};
pub(crate) use bind_rule::{Side, verdict};
pub use bounded::{BoundedMap, DistinctCount};
pub use change::Change;
pub use conflict::{Conflict, ConflictKey, PortHolder};
pub use connect::{Client, Destination, DestinationKey, Here, ServerSide};
pub use deferred::{DEFERRED_LATELY, Deferred};
pub(crate) use drop_reason::BY_RULE;
pub use drop_reason::{DropCause, DropReason, REASONS};
pub use existing::{Existing, TupleKey};
pub use half_open::{HalfOpen, PeerPattern, Unanswered, UnansweredNetwork};
pub use listener::{
    Closing, InferredDrops, InferredSyns, ListenCall, Listener, ListenerId, Overflows, SynQueueFull,
};
pub use listeners::Listeners;
pub use loss::{Loss, Losses};
pub use namespace::Namespace;
use namespace::Observed;
pub use owner::{KnownOwner, Owners};
pub use path::{Hook, PathDrops, PathKey};
pub use ports::{Exhaustion, Growth, PortSpace, PortUser, Ports, ProcessPorts};
pub use process::{Process, Processes};
pub use rate::{Reading, per_second};
pub use reconcile::{Reconciliation, ReconciliationStatus};
pub use refusal::{Refusal, RefusalKey};
pub use served::{Grab, Served, ServedPort, Server};
pub use thresholds::Thresholds;
pub use waits::RecentWaits;

use absent::Absences;
use conflict::Conflicts;
use connect::Destinations;
use existing::ExistingTuples;
use owner::SocketOwners;
use path::Paths;
use refusal::Refusals;

use crate::command::Standpoint;
use crate::event::{Coverage, Device, ListenerTotals, ObservationStatus, Timestamp, observation};

/// How many network namespaces are remembered.
const NAMESPACES: usize = 4096;

/// How many devices are remembered.
const DEVICES: usize = 4096;

/// How many ports the tracepoint tier's counts are remembered of.
const PORTS: usize = 16_384;

/// How many listeners with unanswered SYN-ACKs are remembered.
const HALF_OPEN: usize = 256;

/// What is known from the events so far.
#[derive(Debug)]
pub struct Correlator {
    thresholds: Thresholds,
    first: Option<Timestamp>,
    now: Timestamp,
    listeners: Listeners,
    conflicts: Conflicts,
    refusals: Refusals,
    existing: ExistingTuples,
    namespaces: BoundedMap<u32, Namespace>,
    /// By namespace and index.
    devices: BoundedMap<(u32, u32), Device>,
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
    /// Few: a look through all of them is quicker than any table.
    kinds: Vec<(&'static str, u64)>,
}

impl Default for Correlator {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            first: None,
            now: Timestamp::default(),
            listeners: Listeners::default(),
            conflicts: Conflicts::default(),
            refusals: Refusals::default(),
            existing: ExistingTuples::default(),
            namespaces: BoundedMap::new(NAMESPACES),
            devices: BoundedMap::new(DEVICES),
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
            kinds: Vec::new(),
        }
    }
}

impl Correlator {
    /// From when on something is reported.
    pub fn with(thresholds: Thresholds) -> Self {
        let mut world = Self::default();
        world.set_thresholds(thresholds);
        world
    }

    /// From when on something is reported from now on.
    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
        self.paths.report_from(thresholds.handshake_dropped.packets);
        self.destinations.report_from(thresholds.connect_refused.connects);
    }

    /// From when on something is reported.
    pub(crate) fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Every single handshake packet that is dropped, and every connect that is refused, is reported from now on.
    pub fn report_each(&mut self) {
        self.paths.report_each();
        self.destinations.report_each();
    }

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
        let listener = self.listener(id);
        let last_overflow = listener.and_then(|listener| listener.last_overflow);
        // Where it is not seen how requests end, those that are still in the SYN queue have not.
        let still_there = listener.filter(|_| !self.observes(observation::REQUEST_END));
        let still_there = still_there.and_then(|listener| listener.syn_queue);
        self.half_open.get(&id).map_or_else(Unanswered::default, |half_open| {
            half_open.unanswered(self.now, last_overflow, still_there)
        })
    }

    /// Where connects went that were not answered, while it is remembered.
    pub fn destination(&self, key: &DestinationKey) -> Option<&Destination> {
        self.destinations.get(key)
    }

    /// Whether a SYN of each of the last unanswered connects to a destination was seen to be dropped by this host.
    pub fn drops_were_seen(&self, key: &DestinationKey) -> bool {
        self.destinations.drops_were_seen(key)
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

    /// A refused bind() or listen(), while it is remembered.
    pub fn refusal(&self, key: &RefusalKey) -> Option<&Refusal> {
        self.refusals.get(key)
    }

    /// A connection that was wanted and existed already, while it is remembered.
    pub fn existing(&self, key: &TupleKey) -> Option<&Existing> {
        self.existing.get(key)
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

    /// All namespaces, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = (u32, &Namespace)> {
        self.namespaces.iter().map(|(netns, namespace)| (*netns, namespace))
    }

    /// The name of a namespace, if it has one.
    pub fn netns_name(&self, netns: u32) -> Option<&str> {
        self.namespace(netns)?.knobs.name.as_deref()
    }

    /// All namespaces that have a name.
    pub fn netns_names(&self) -> impl Iterator<Item = (u32, &str)> {
        self.namespaces.iter().filter_map(|(netns, known)| Some((*netns, known.knobs.name.as_deref()?)))
    }

    /// The device with this index in a namespace, if it was introduced.
    pub fn device(&self, netns: u32, index: u32) -> Option<&Device> {
        self.devices.get(&(netns, index))
    }

    /// Its name, or its number; `None` for index 0, which is no device.
    pub fn device_name(&self, netns: u32, index: u32) -> Option<String> {
        let known = || self.device(netns, index).map(|device| device.name.clone());
        (index != 0).then(|| known().unwrap_or_else(|| format!("device {index}")))
    }

    /// All processes.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// What is observed here, once that was said.
    pub fn coverage(&self) -> Option<&Coverage> {
        self.coverage.as_ref()
    }

    /// Which network namespaces a command of this host need not look for. Recordings of before 0.2 do not say: those were made
    /// where the host's has the number that it had before 6.18.
    pub fn standpoint(&self) -> Standpoint {
        const BEFORE_6_18: Standpoint = Standpoint { own: Some(4_026_531_840), host: None };
        match &self.coverage {
            Some(Coverage { own_netns: own @ Some(_), host_netns: host, .. }) => {
                Standpoint { own: *own, host: *host }
            }
            _ => BEFORE_6_18,
        }
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

    /// How many kernel records of each kind came, by name.
    pub fn events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut kinds = self.kinds.clone();
        kinds.sort_unstable();
        kinds.into_iter()
    }

    fn count(&mut self, kind: &'static str) {
        match self.kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => self.kinds.push((kind, 1)),
        }
    }

    /// Whether what we saw adds up to the kernel's own counters, by namespace.
    pub fn reconcile(&self) -> Vec<Reconciliation> {
        let mut namespaces: Vec<(&u32, &Namespace)> = self.namespaces.iter().collect();
        namespaces.sort_unstable_by_key(|(netns, _)| **netns);
        namespaces
            .into_iter()
            .flat_map(|(netns, namespace)| {
                reconcile::reconcile(*netns, namespace, self.coverage.as_ref(), &self.losses)
            })
            .collect()
    }

    /// What had to be forgotten because a table was full: its name, and how many entries.
    pub fn forgotten(&self) -> Vec<(&'static str, u64)> {
        [
            ("listeners", self.listeners.forgotten()),
            ("conflicts", self.conflicts.forgotten()),
            ("refused binds", self.refusals.forgotten()),
            ("existing-connections", self.existing.forgotten()),
            ("namespaces", self.namespaces.forgotten()),
            ("devices", self.devices.forgotten()),
            ("processes", self.processes.forgotten()),
            ("socket-owners", self.sockets.forgotten()),
            ("half-open-listeners", self.half_open.forgotten()),
            ("port-users", self.ports.forgotten()),
            ("served-ports", self.served.forgotten()),
            ("destinations", self.destinations.forgotten()),
            ("absent-listeners", self.absences.forgotten()),
            ("dropping-places", self.paths.forgotten()),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect()
    }

    fn namespace_mut(&mut self, netns: u32) -> &mut Namespace {
        self.namespaces.get_or_insert_with(netns, Namespace::default)
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
