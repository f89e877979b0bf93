//! The live source: probes, and what user space reads beside them, as one stream of events in the order of their times.
//!
//! Whoever drives it calls [`Live::poll`] about ten times a second (a hundred times if everything is streamed, and when its
//! descriptor is readable), [`Live::second`] once a second, and [`Live::finish`] in the end. Everything here blocks for
//! milliseconds at most.

mod absence;
mod clock;
mod conflict;
pub mod drive;
mod grown;
mod listeners;
mod losses;
mod once;
mod people;
mod places;
mod polled;
mod ports;
mod reverse_path;
mod surroundings;
mod syn_queues;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use tcptrace_common::record::KINDS;

use crate::{
    event::{
        self, AddressKey, ClockOffset, ConnectTotals, Endpoints, Event, Holder, Kind, ListenerRef,
        OwnerConfidence, PlaceFilter, PortSet, RetransmitCause, Task, Timestamp, connect_sample,
        decode_record,
    },
    host::{
        kallsyms::Kallsyms,
        netns::{Netns, NetnsError, standpoint},
        procfs::Procfs,
    },
    probe::{self, BackEnd, ProbeError, Tracer},
};

use absence::Absence;
use conflict::Refused;
use people::People;
use places::Places;
use polled::{ByPort, Polled};
use ports::Ports;
use surroundings::Surroundings;
use syn_queues::{Requests, SynQueues};

/// How to trace.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Tier, in-kernel filters, ring buffer.
    pub probe: probe::Options,
    /// Only these namespaces; all if there is none. If there is one, the kernel side filters by it as well.
    pub netns: Vec<Netns>,
    /// Only sockets of these ports, all if there is none. If they are few, the kernel side filters by them as well.
    pub ports: PortSet,
    /// In-kernel filters as the user wrote them, for the coverage.
    pub filters: Vec<String>,
    /// The namespace and what else is asked for, likewise.
    pub scope: Vec<String>,
}

/// Why a trace cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The probes.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The namespaces.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// A running trace of this host.
pub struct Live {
    tracer: Tracer,
    clock: ClockOffset,
    /// When what is being read now began to be read, which is the time that it carries: whatever comes into the ring buffer
    /// meanwhile is later, and is told later.
    moment: Timestamp,
    people: People,
    places: Places,
    absence: Absence,
    surroundings: Surroundings,
    kallsyms: Kallsyms,
    /// `Some` when drops or listeners must be polled.
    polled: Option<Polled>,
    /// What had been counted by port when the listeners were last polled, as a digest.
    said_ports: u64,
    /// Where SYN queues must be polled as well.
    syn_queues: SynQueues,
    /// What was last said of each listener, as a digest: there may be tens of thousands.
    said_listeners: HashMap<u64, u64>,
    /// When a SYN-ACK was last sent again, by any listener.
    last_retransmit: Option<Timestamp>,
    /// Listeners that changed since the last look at their histograms.
    changed: HashSet<u64>,
    said_lost: [u64; KINDS],
    said_misses: BTreeMap<&'static str, u64>,
    said_prefixes: HashMap<(u64, [u8; 16]), u64>,
    said_connects: HashMap<(u32, u32, SocketAddr), ConnectTotals>,
    /// A connect was told of since the counts were last read.
    connects: bool,
    undecoded: u64,
    seconds: u64,
    last_second: Timestamp,
    /// Listeners, by inode, whose owners' state is worth a look this second: something was dropped, or waits.
    troubled: HashMap<u64, (u64, Endpoints)>,
    /// Processes and threads that were seen accepting, by namespace and port: the tracepoint tier does not see from which listener.
    acceptors: HashMap<(u32, u16), Vec<(u32, u32)>>,
    ports: Ports,
    filter: PlaceFilter,
    addresses: AddressKey,
}

impl Live {
    /// Attaches, and reads what there is: the events that come first.
    ///
    /// # Errors
    /// When nothing can be traced at all; a part that cannot is in the coverage, which is the first event.
    pub fn start(options: &Options) -> Result<(Self, Vec<Event>), Error> {
        let procfs = Procfs::default();
        // Before the probes: from here on, every namespace's counters are compared with what we see. What happens between
        // this and the attachment is missed, so the baseline is read again when all is attached.
        let places = Places::new(procfs.clone(), &options.netns)?;
        let tracer = Tracer::start(&options.probe)?;
        let clock = clock::offset();
        let polls = ["syn-drop", "ack-drop", "listen"]
            .iter()
            .any(|name| tracer.coverage().back_end(name).is_none_or(|b| b == BackEnd::Tracepoint));
        let mut live = Self {
            tracer,
            clock,
            moment: clock::now(clock),
            surroundings: Surroundings::new(procfs.clone(), &places),
            people: People::new(procfs),
            places,
            absence: Absence::default(),
            kallsyms: Kallsyms::default(),
            polled: polls.then(Polled::default),
            said_ports: 0,
            syn_queues: SynQueues::default(),
            said_listeners: HashMap::new(),
            last_retransmit: None,
            changed: HashSet::new(),
            said_lost: [0; KINDS],
            said_misses: BTreeMap::new(),
            said_prefixes: HashMap::new(),
            said_connects: HashMap::new(),
            connects: false,
            undecoded: 0,
            seconds: 0,
            last_second: clock::now(clock),
            troubled: HashMap::new(),
            acceptors: HashMap::new(),
            ports: Ports::default(),
            addresses: AddressKey::default(),
            filter: PlaceFilter {
                ports: options.ports.clone(),
                netns: options.netns.iter().map(Netns::id).collect(),
            },
        };
        let mut first = vec![Kind::Coverage(Box::new(coverage(
            live.tracer.coverage(),
            options.filters.clone(),
            options.scope.clone(),
        )))];
        first.extend(live.places.knobs());
        let listeners = live.places.listeners();
        for (netns, listener) in &listeners {
            first.extend(live.places.introduce_device(*netns, listener.ifindex));
        }
        first.extend(match live.tracer.take_open_sockets() {
            Some(sockets) => live.people.bootstrap(sockets),
            None => {
                let sockets: Vec<(u64, u64, Endpoints)> =
                    listeners.iter().map(|(netns, l)| (0, l.inode, places::endpoints(*netns, l))).collect();
                live.people.owner_events(&sockets, OwnerConfidence::Bootstrapped)
            }
        });
        if let Some(polled) = &mut live.polled {
            first.extend(polled.samples(&listeners, &ByPort::default(), &Requests::new(), false));
        }
        first.extend(live.places.counters());
        for kind in &first {
            live.ports.note(kind);
        }
        live.watch_served_ports();
        let now = clock::now(clock);
        let mut first: Vec<Event> = first.into_iter().map(|kind| Event { time: now, kind }).collect();
        first.iter().for_each(|event| live.syn_queues.note(event));
        live.hand_over(&mut first);
        Ok((live, first))
    }

    /// The probes, for what concerns them alone.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// How this trace makes wall-clock times of the kernel's.
    #[must_use]
    pub fn clock(&self) -> ClockOffset {
        self.clock
    }

    /// Now, as this trace tells time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        clock::now(self.clock)
    }

    /// Whether every step of every connection is streamed; see [`Tracer::streams_all`].
    pub(super) fn streams_all(&self) -> bool {
        self.tracer.streams_all()
    }

    /// What every event passes before anything else sees it. What was not asked for is left out: what is polled, and what the
    /// kernel side has no room to filter by. No address of the kernel's memory goes further than here.
    pub(super) fn hand_over(&self, events: &mut Vec<Event>) {
        if !self.filter.is_everywhere() {
            events.retain(|event| self.filter.wants(&event.kind.about()));
        }
        for event in events {
            event.kind.hide_addresses(&self.addresses);
        }
    }

    /// Everything that waits in the ring buffer, with what must be known about it; oldest first.
    pub fn poll(&mut self, into: &mut Vec<Event>) {
        for _ in 0..POLLS {
            self.moment = self.now();
            self.poll_once(into);
            // What took long has let events wait, which must not come after what the caller says of this moment.
            if self.now().since(self.moment) < PROMPT {
                break;
            }
        }
    }

    fn poll_once(&mut self, into: &mut Vec<Event>) {
        let now = self.moment;
        let clock = self.clock;
        let mut batch: Vec<Event> = Vec::new();
        let mut undecoded = 0;
        self.tracer.drain(|bytes| match decode_record(bytes, clock) {
            Ok(event) => batch.push(event),
            Err(error) => {
                log::error!("a record of the kernel side cannot be decoded: {error}");
                undecoded += 1;
            }
        });
        self.undecoded += undecoded;
        // The ring buffer keeps the order of reservation, which on several CPUs is only nearly that of time.
        batch.sort_by_key(|event| event.time);
        let mut conflicts: Vec<Refused> = Vec::new();
        let mut strangers: Vec<(u64, u64, Endpoints)> = Vec::new();
        let tells_causes = self.tracer.coverage().back_end("request-end").is_some();
        for mut event in batch {
            if let Kind::SynAckRetransmit(again) = &mut event.kind {
                // Whether the timer did it is seen in the timer's handler.
                if !tells_causes {
                    again.cause = RetransmitCause::Unknown;
                }
            }
            if let Kind::HandshakeDrop(dropped) = &mut event.kind {
                dropped.reason_name = self.tracer.drop_reason(dropped.reason).map(str::to_owned);
                dropped.function = self.kallsyms.function_at(dropped.location);
                dropped.input_name = self.kallsyms.function_at(dropped.input);
                // A kernel without reasons counts this one, at least.
                let input = dropped.function.as_deref().is_some_and(|name| name.starts_with("ip_rcv_finish"));
                let netns = dropped.endpoints.netns;
                let filtered =
                    |places: &mut Places| places.filters_reverse_path(netns, event.time, self.clock);
                if dropped.reason == 0 && input && filtered(&mut self.places) {
                    dropped.reason_name = Some("IP_RPFILTER".to_owned());
                }
                let now = clock::now(self.clock);
                dropped.facts = self.surroundings.of(dropped, event.time, now, &mut self.places);
            }
            if let Kind::AcceptFail(fail) = &mut event.kind
                && fail.errno == ENFILE
                && let Some((open, limit)) = self.people.files_of_host()
            {
                (fail.host_files, fail.host_files_limit) = (Some(open), Some(limit));
            }
            if let Kind::BindFail(fail) = &mut event.kind
                && fail.errno == EADDRNOTAVAIL
            {
                self.places.explain_address(fail);
            }
            if let Some(netns) = event.kind.netns_of_record() {
                // Before the event: what was known of another namespace with this number must not be told of this one.
                into.extend(self.places.meet(netns).into_iter().map(|kind| Event { time: event.time, kind }));
            }
            self.introduce(&event, into);
            self.ports.note(&event.kind);
            if let Some(refused) = Refused::of(event.time, &event.kind)
                && !conflicts.iter().any(|other| refused.is_like(other))
            {
                conflicts.push(refused);
            }
            self.syn_queues.note(&event);
            match &event.kind {
                Kind::NoListener(absent) if absent.total >= absence::SYNS => {
                    self.absence.ask((absent.endpoints.netns, absent.endpoints.local.port()), event.time);
                }
                Kind::HandshakeDrop(dropped) => {
                    let server = dropped.server().port();
                    self.absence.ask((dropped.endpoints.netns, server), event.time);
                }
                Kind::Connect(connect) => {
                    self.connects = true;
                    if let Some(called) = connect.endpoints.remote.filter(|_| is_in_vain(connect)) {
                        let place = (connect.endpoints.netns, called.port());
                        self.absence.ask_called(place, called.ip(), event.time);
                    }
                    let unknown = connect.task.is_none() && !self.people.has_looked_for(connect.inode);
                    if unknown && !strangers.iter().any(|stranger| stranger.1 == connect.inode) {
                        strangers.push((connect.sk, connect.inode, connect.endpoints));
                    }
                }
                Kind::Listen(listen) => {
                    let inode = listen.listener.inode;
                    self.people.saw_owner(inode, listen.task.pid);
                }
                Kind::Accept(accept) => {
                    self.note_acceptor(&accept.endpoints, accept.listener.inode, &accept.task);
                }
                Kind::AcceptFail(fail) => {
                    self.note_acceptor(&fail.endpoints, fail.listener.inode, &fail.task);
                    self.trouble(fail.listener, fail.endpoints, &mut strangers);
                }
                Kind::ListenerClosed(closed) => {
                    let port = (closed.endpoints.netns, closed.endpoints.local.port());
                    self.acceptors.remove(&port);
                    if closed.by_kernel {
                        let owners = self.people.owners_of(closed.listener.inode).to_vec();
                        let states = owners.into_iter().filter_map(|pid| self.people.state(pid, 0, &[]));
                        into.extend(states.map(|kind| Event { time: event.time, kind }));
                    }
                }
                Kind::SynDrop(drop) => self.trouble(drop.listener, drop.endpoints, &mut strangers),
                Kind::SynAckRetransmit(again) => {
                    self.trouble(again.listener, again.endpoints, &mut strangers);
                }
                Kind::AckDrop(drop) => self.trouble(drop.listener, drop.endpoints, &mut strangers),
                _ => {}
            }
            into.push(event);
        }
        if !strangers.is_empty() {
            let owners = self.people.owner_events(&strangers, OwnerConfidence::Likely);
            into.extend(owners.into_iter().map(|kind| Event { time: now, kind }));
        }
        let kinds = self.absence.look(&mut self.places, &mut self.people);
        into.extend(kinds.into_iter().map(|kind| Event { time: now, kind }));
        for conflict in conflicts {
            self.report_holders(&conflict, into);
        }
        self.watch_served_ports();
        self.look_where_ports_are_wanted(into);
    }

    /// Introduces every process that `event` names for the first time.
    fn introduce(&mut self, event: &Event, into: &mut Vec<Event>) {
        let socket = match &event.kind {
            Kind::Listen(listen) => Some(listen.endpoints),
            Kind::NoListener(absent) => Some(absent.endpoints),
            Kind::HandshakeDrop(dropped) => Some(dropped.endpoints),
            Kind::BindFail(fail) => Some(fail.endpoints),
            Kind::NoPort(refused) => Some(refused.endpoints),
            _ => None,
        };
        // What these lead to is judged by the range of ports, and by what is reserved in it.
        let of_ports = match &event.kind {
            Kind::Listen(listen) => Some(listen.endpoints.netns),
            Kind::BindFail(fail) => Some(fail.endpoints.netns),
            Kind::PortTaken(taken) => Some(taken.endpoints.netns),
            _ => None,
        };
        let knobs = of_ports.and_then(|netns| self.places.fresh_knobs(netns));
        into.extend(knobs.map(|kind| Event { time: event.time, kind }));
        let device = socket.and_then(|ends| self.places.introduce_device(ends.netns, ends.device));
        into.extend(device.map(|kind| Event { time: event.time, kind }));
        let one = |task| (Some(task), &[][..]);
        let (task, holders): (Option<&Task>, &[Holder]) = match &event.kind {
            Kind::Listen(listen) => one(&listen.task),
            Kind::Accept(accept) => one(&accept.task),
            Kind::AcceptFail(fail) => one(&fail.task),
            Kind::PortTaken(taken) => one(&taken.task),
            Kind::NoPort(refused) => one(&refused.task),
            Kind::ListenerClosed(closed) => one(&closed.task),
            Kind::HandshakeDrop(dropped) => (dropped.task.as_ref(), &[]),
            Kind::Connect(connect) => (connect.task.as_ref(), &[]),
            Kind::BindFail(fail) => (Some(&fail.task), &fail.holders),
            _ => return,
        };
        let takers = holders.iter().filter_map(|holder| holder.taker.as_ref()).map(|taker| &taker.task);
        for task in task.into_iter().chain(takers) {
            if let Some(kind) = self.people.introduce_actor(task) {
                into.push(Event { time: event.time, kind });
            }
        }
    }

    /// Notes that a listener dropped something, and that its owner must be found if it is not known.
    fn trouble(&mut self, listener: ListenerRef, of: Endpoints, strangers: &mut Vec<(u64, u64, Endpoints)>) {
        if listener.inode != 0 {
            let ends = Endpoints { remote: None, ..of };
            self.troubled.entry(listener.inode).or_insert((listener.sk, ends));
        }
        if !self.people.has_looked_for(listener.inode) && !strangers.iter().any(|s| s.1 == listener.inode) {
            strangers.push((listener.sk, listener.inode, Endpoints { remote: None, ..of }));
        }
    }

    /// Reads what is only polled: several times a second, so that a short overflow is not missed.
    pub fn look(&mut self, into: &mut Vec<Event>) {
        self.moment = self.now();
        if self.is_anything_new_of_listeners() {
            self.look_at_listeners(into, false);
        }
    }

    /// Once a second: what changed of listeners, counters and knobs, what was lost, and that time passed.
    pub fn second(&mut self, into: &mut Vec<Event>) {
        self.samples_of_second(into, false);
    }

    fn samples_of_second(&mut self, into: &mut Vec<Event>, ending: bool) {
        let now = self.now();
        self.moment = now;
        self.people.second();
        self.kallsyms.second();
        self.absence.second(now);
        self.surroundings.second(now, &self.places);
        self.look_at_listeners(into, true);
        let mut kinds = self.listener_samples(ending);
        if std::mem::take(&mut self.connects) {
            kinds.extend(self.connect_samples());
        }
        kinds.extend(self.owners_of_the_troubled());
        kinds.extend(self.absence.look(&mut self.places, &mut self.people));
        kinds.extend(self.places.second());
        for gone in self.places.take_gone() {
            self.acceptors.retain(|(netns, _), _| *netns != gone);
            self.ports.forget(gone);
        }
        self.ports_of_second(into);
        kinds.extend(self.lost(now));
        kinds.push(Kind::Tick);
        self.last_second = now;
        for kind in kinds {
            let event = Event { time: now, kind };
            self.syn_queues.note(&event);
            into.push(event);
        }
    }

    /// Who has the listeners that are in trouble, looked for again where that may have changed, and what they are doing.
    fn owners_of_the_troubled(&mut self) -> Vec<Kind> {
        /// Processes of one listener that are looked at.
        const OWNERS: usize = 64;
        let troubled = std::mem::take(&mut self.troubled);
        let stale: Vec<(u64, u64, Endpoints)> = troubled
            .iter()
            .filter(|(inode, _)| self.people.is_stale(**inode))
            .map(|(inode, (sk, ends))| (*sk, *inode, *ends))
            .collect();
        let mut kinds = match stale.as_slice() {
            [] => Vec::new(),
            stale => self.people.owner_events(stale, OwnerConfidence::Likely),
        };
        for (inode, (_, ends)) in troubled {
            let accepting = self.acceptors.get(&(ends.netns, ends.local.port())).cloned().unwrap_or_default();
            let mut pids = self.people.owners_of(inode).to_vec();
            pids.extend(accepting.iter().map(|(pid, _)| *pid));
            pids.sort_unstable();
            pids.dedup();
            for pid in pids.into_iter().take(OWNERS) {
                let threads: Vec<u32> =
                    accepting.iter().filter(|(of, _)| *of == pid).map(|(_, tid)| *tid).collect();
                kinds.extend(self.people.state(pid, inode, &threads));
            }
        }
        kinds
    }

    /// Remembers who accepts, or tries to.
    fn note_acceptor(&mut self, endpoints: &Endpoints, inode: u64, task: &Task) {
        /// Ports, and threads of each, that are remembered.
        const PORTS: usize = 4096;
        const THREADS: usize = 256;
        self.people.saw_owner(inode, task.pid);
        if self.acceptors.len() >= PORTS {
            self.acceptors.clear();
        }
        let known = self.acceptors.entry((endpoints.netns, endpoints.local.port())).or_default();
        if known.len() < THREADS && !known.contains(&(task.pid, task.tid)) {
            known.push((task.pid, task.tid));
        }
    }

    /// Counts of connects, where they changed: those that could not be told one by one are among them.
    fn connect_samples(&mut self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        let mut said = HashMap::new();
        for (key, totals) in self.tracer.connects() {
            let sample = connect_sample(&key, &totals, self.clock);
            let whose = (sample.netns, sample.pid, sample.remote);
            let totals = sample.totals;
            if self.said_connects.get(&whose) != Some(&totals) {
                kinds.push(Kind::ConnectSample(Box::new(sample)));
            }
            said.insert(whose, totals);
        }
        self.said_connects = said;
        kinds
    }

    /// The last events. Everything detaches when this is dropped.
    pub fn finish(mut self, into: &mut Vec<Event>) {
        // Counters last: what the kernel counted must not be newer than what we saw. What falls in between makes the
        // comparison inexact by that much, and it says so.
        self.absence.hurry();
        self.poll(into);
        self.samples_of_second(into, true);
        self.poll(into);
        // What is counted and not told one by one has gone on since the counters were read; that it has is then known.
        let mut last = self.listener_samples(true);
        last.extend(self.connect_samples());
        let now = self.now();
        into.extend(last.into_iter().map(|kind| Event { time: now, kind }));
        into.push(Event { time: self.now(), kind: Kind::End });
        self.hand_over(into);
    }
}

impl AsFd for Live {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tracer.as_fd()
    }
}

/// A poll that takes less is at once.
const PROMPT: Duration = Duration::from_millis(50);
/// Polls in a row, at most: a machine that is too slow for its events must do other things, too.
const POLLS: usize = 4;

/// Whether a connect is refused, or has waited for so long that it is worth a look where the other end is.
fn is_in_vain(connect: &event::Connect) -> bool {
    match connect.result {
        event::ConnectResult::SynAgain => connect.syns_again == 2,
        event::ConnectResult::Refused => connect.totals.refused >= absence::SYNS,
        _ => false,
    }
}

/// errno: the address is none of the namespace's.
const EADDRNOTAVAIL: u32 = 99;
/// errno: the host has as many files open as it may.
const ENFILE: u32 = 23;

fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// What is observed, in the terms of events.
#[must_use]
pub fn coverage(coverage: &probe::Coverage, filters: Vec<String>, scope: Vec<String>) -> event::Coverage {
    let standpoint = standpoint();
    let tier = |back_end: BackEnd| match back_end {
        BackEnd::Fexit => event::Tier::Fexit,
        BackEnd::Kprobe => event::Tier::Kprobe,
        BackEnd::Tracepoint => event::Tier::Tracepoint,
    };
    event::Coverage {
        kernel: kernel_release(),
        architecture: std::env::consts::ARCH.to_owned(),
        tier: coverage.tier().map_or(event::Tier::None, tier),
        observations: coverage
            .observations
            .iter()
            .map(|observed| event::Observation {
                name: observed.name.to_owned(),
                status: match observed.status {
                    probe::Status::Attached => event::ObservationStatus::Attached,
                    probe::Status::Polled => event::ObservationStatus::Polled,
                    probe::Status::Missing => event::ObservationStatus::Missing,
                },
                via: observed.via.clone(),
                reason: observed.reason.clone(),
            })
            .collect(),
        filters,
        scope,
        hindrances: probe::hindrances(),
        own_netns: standpoint.own,
        host_netns: standpoint.host,
    }
}
