//! The live source: probes, and what user space reads beside them, as one stream of events in the order of their times.
//!
//! Whoever drives it calls [`Live::poll`] about ten times a second (a hundred times if everything is streamed, and when its
//! descriptor is readable), [`Live::second`] once a second, and [`Live::finish`] in the end. Everything here blocks for
//! milliseconds at most.

mod absence;
mod clock;
pub mod drive;
mod people;
mod places;
mod polled;
mod ports;
mod reverse_path;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use tcptrace_common::{
    listener::{HISTOGRAM_BUCKETS, ListenerState, PREFIX_BITS_V4, PREFIX_BITS_V6},
    record::KINDS,
};

use crate::{
    event::{
        self, BindFail, BindFailure, ClockOffset, ConnectTotals, Distribution, Endpoints, Event, Holder,
        HolderReport, Kind, ListenerRef, ListenerSample, ListenerTotals, LossPlace, Lost, Owner,
        OwnerConfidence, PrefixSample, ReportedHolder, RetransmitCause, Task, Timestamp,
        decode::{decode_connect_sample, decode_listener_state, decode_record, record_name},
    },
    host::{
        kallsyms::Kallsyms,
        netns::{Netns, NetnsError},
        procfs::Procfs,
        sock_diag,
    },
    probe::{self, BackEnd, ListenerBytes, ProbeError, Tracer, plan::PROCESS_CONTEXT},
};

use absence::Absence;
use people::People;
use places::Places;
use polled::{ByPort, Polled};
use ports::Ports;

/// How to trace.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Tier, in-kernel filters, ring buffer.
    pub probe: probe::Options,
    /// Only this namespace; its id must be that of the in-kernel filter.
    pub netns: Option<Netns>,
    /// In-kernel filters as the user wrote them, for the coverage.
    pub filters: Vec<String>,
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
    people: People,
    places: Places,
    absence: Absence,
    kallsyms: Kallsyms,
    /// `Some` when drops or listeners must be polled.
    polled: Option<Polled>,
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
    /// Owners whose state is worth a look this second: their listener dropped something.
    troubled: HashSet<u64>,
    ports: Ports,
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
        let places = Places::new(procfs.clone(), options.netns.clone())?;
        let tracer = Tracer::start(&options.probe)?;
        let clock = clock::offset();
        let polls = ["syn-drop", "ack-drop", "listen"]
            .iter()
            .any(|name| tracer.coverage().back_end(name).is_none_or(|b| b == BackEnd::Tracepoint));
        let mut live = Self {
            tracer,
            clock,
            people: People::new(procfs),
            places,
            absence: Absence::default(),
            kallsyms: Kallsyms::default(),
            polled: polls.then(Polled::default),
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
            troubled: HashSet::new(),
            ports: Ports::default(),
        };
        let mut first =
            vec![Kind::Coverage(Box::new(coverage(live.tracer.coverage(), options.filters.clone())))];
        first.extend(live.places.knobs());
        let listeners = live.places.listeners();
        first.extend(match live.tracer.take_open_sockets() {
            Some(sockets) => live.people.bootstrap(sockets),
            None => {
                let sockets: Vec<(u64, u64, Endpoints)> =
                    listeners.iter().map(|(netns, l)| (0, l.inode, places::endpoints(*netns, l))).collect();
                live.people.owner_events(&sockets, OwnerConfidence::Bootstrapped)
            }
        });
        if let Some(polled) = &mut live.polled {
            first.extend(polled.samples(&listeners, &ByPort::default(), false));
        }
        first.extend(live.places.counters());
        for kind in &first {
            live.ports.note(kind);
        }
        live.watch_served_ports();
        let now = clock::now(clock);
        Ok((live, first.into_iter().map(|kind| Event { time: now, kind }).collect()))
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

    /// Everything that waits in the ring buffer, with what must be known about it; oldest first.
    pub fn poll(&mut self, into: &mut Vec<Event>) {
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
        let mut conflicts: Vec<(Timestamp, BindFail)> = Vec::new();
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
                if dropped.reason == 0 && input && self.places.filters_reverse_path(dropped.endpoints.netns) {
                    dropped.reason_name = Some("IP_RPFILTER".to_owned());
                }
            }
            if let Kind::BindFail(fail) = &mut event.kind
                && fail.errno == EADDRNOTAVAIL
            {
                fail.addresses = self.places.addresses_of(fail.endpoints.netns);
            }
            self.introduce(&event, into);
            self.ports.note(&event.kind);
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
                    let unknown = connect.task.is_none() && !self.people.has_looked_for(connect.inode);
                    if unknown && !strangers.iter().any(|stranger| stranger.1 == connect.inode) {
                        strangers.push((connect.sk, connect.inode, connect.endpoints));
                    }
                }
                Kind::Listen(listen) => {
                    let inode = listen.listener.inode;
                    self.people.saw_owner(inode, listen.task.pid);
                }
                Kind::SynDrop(drop) => self.trouble(drop.listener, drop.endpoints, &mut strangers),
                Kind::SynAckRetransmit(again) => {
                    self.trouble(again.listener, again.endpoints, &mut strangers);
                }
                Kind::AckDrop(drop) => self.trouble(drop.listener, drop.endpoints, &mut strangers),
                Kind::BindFail(fail) if fail.failure() == BindFailure::Conflict => {
                    let again = |(_, other): &(_, BindFail)| {
                        other.endpoints.netns == fail.endpoints.netns
                            && other.endpoints.local.port() == fail.endpoints.local.port()
                            && other.task.pid == fail.task.pid
                    };
                    if !conflicts.iter().any(again) {
                        conflicts.push((event.time, (**fail).clone()));
                    }
                }
                _ => {}
            }
            into.push(event);
        }
        let now = self.now();
        if !strangers.is_empty() {
            let owners = self.people.owner_events(&strangers, OwnerConfidence::Likely);
            into.extend(owners.into_iter().map(|kind| Event { time: now, kind }));
        }
        let kinds = self.absence.look(&mut self.places, &mut self.people);
        into.extend(kinds.into_iter().map(|kind| Event { time: now, kind }));
        for (time, conflict) in conflicts {
            self.report_holders(time, &conflict, into);
        }
        self.watch_served_ports();
        self.look_where_ports_are_wanted(into);
    }

    /// Introduces every process that `event` names for the first time.
    fn introduce(&mut self, event: &Event, into: &mut Vec<Event>) {
        let one = |task| (Some(task), &[][..]);
        let (task, holders): (Option<&Task>, &[Holder]) = match &event.kind {
            Kind::Listen(listen) => one(&listen.task),
            Kind::Accept(accept) => one(&accept.task),
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
        self.troubled.insert(listener.inode);
        if !self.people.has_looked_for(listener.inode) && !strangers.iter().any(|s| s.1 == listener.inode) {
            strangers.push((listener.sk, listener.inode, Endpoints { remote: None, ..of }));
        }
    }

    /// What sock_diag and procfs say about the holders of a port that was refused a moment ago.
    fn report_holders(&mut self, time: Timestamp, conflict: &BindFail, into: &mut Vec<Event>) {
        let (netns, port) = (conflict.endpoints.netns, conflict.endpoints.local.port());
        let mut incomplete = None;
        let sockets = match self.places.diag(netns).map(|diag| diag.holders(port)) {
            Some(Ok(found)) => {
                if found.interrupted {
                    incomplete = Some("the kernel's tables changed while they were listed".to_owned());
                }
                found.sockets
            }
            Some(Err(error)) => {
                incomplete = Some(error.to_string());
                Vec::new()
            }
            None => {
                incomplete = Some("that namespace cannot be entered".to_owned());
                Vec::new()
            }
        };
        if incomplete.is_none() && sock_diag::lists_bound_only() == Some(false) {
            incomplete = Some("before 6.8 sock_diag does not list sockets that are only bound".to_owned());
        }
        let mut inodes: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
        inodes.extend(conflict.holders.iter().map(|holder| holder.inode));
        inodes.remove(&0);
        let owners: HashMap<u64, Vec<Owner>> = self.people.find_owners(&inodes);
        let now = self.now();
        for owner in owners.values().flatten() {
            if let Some(kind) = self.people.introduce(owner.pid) {
                into.push(Event { time: now, kind });
            }
        }
        let mut holders: Vec<ReportedHolder> = sockets
            .iter()
            .map(|socket| ReportedHolder {
                local: event::canonical(socket.local),
                remote: (socket.remote.port() != 0).then(|| event::canonical(socket.remote)),
                state: places::state(socket.state),
                inode: socket.inode,
                uid: (socket.inode != 0).then_some(socket.uid),
                v6only: socket.v6only,
                time_wait_left_ms: socket
                    .time_wait_left()
                    .map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                owners: owners.get(&socket.inode).cloned().unwrap_or_default(),
            })
            .collect();
        // Bound-only sockets that only the kernel's own table shows: their owners are found all the same.
        for holder in conflict.holders.iter().filter(|h| h.inode != 0) {
            if !holders.iter().any(|reported| reported.inode == holder.inode)
                && let Some(owners) = owners.get(&holder.inode)
            {
                holders.push(ReportedHolder {
                    local: holder.endpoints.local,
                    remote: holder.endpoints.remote,
                    state: holder.state,
                    inode: holder.inode,
                    uid: holder.uid,
                    v6only: holder.options.map(event::SocketOptions::v6only),
                    time_wait_left_ms: None,
                    owners: owners.clone(),
                });
            }
        }
        let report =
            HolderReport { netns, port, requester: conflict.task.pid, conflict: time, holders, incomplete };
        into.push(Event { time: now, kind: Kind::HolderReport(Box::new(report)) });
    }

    /// Reads what is only polled: several times a second, so that a short overflow is not missed.
    pub fn look(&mut self, into: &mut Vec<Event>) {
        self.look_at_listeners(into, false);
    }

    fn look_at_listeners(&mut self, into: &mut Vec<Event>, waiting_too: bool) {
        let Some(mut polled) = self.polled.take() else { return };
        let listeners = self.places.listeners();
        let samples = polled.samples(&listeners, &self.by_port(), waiting_too);
        self.polled = Some(polled);
        let now = self.now();
        let mut strangers = Vec::new();
        for (netns, listener) in &listeners {
            // Full, or waiting: which of the two matters is for the findings to say.
            if listener.depth > 0 {
                let ends = places::endpoints(*netns, listener);
                let listener = ListenerRef { inode: listener.inode, ..ListenerRef::default() };
                self.trouble(listener, ends, &mut strangers);
            }
        }
        let owners = if strangers.is_empty() {
            Vec::new()
        } else {
            self.people.owner_events(&strangers, OwnerConfidence::Likely)
        };
        into.extend(owners.into_iter().chain(samples).map(|kind| Event { time: now, kind }));
    }

    /// What the tracepoint tier counted by namespace and port.
    fn by_port(&self) -> ByPort {
        let mut by_port = ByPort::new();
        self.each_listener(|key, bytes| {
            if is_port_key(key)
                && let Some(sample) = self.sample(key, bytes)
            {
                by_port.insert(
                    (sample.endpoints.netns, sample.endpoints.local.port()),
                    (self.known_by_port(sample.totals), self.tracer.waits(key).map(distribution)),
                );
            }
        });
        by_port
    }

    /// Of the counts kept by port, those that the attached probes make.
    fn known_by_port(&self, totals: ListenerTotals) -> ListenerTotals {
        let sees = |name: &str| self.tracer.coverage().back_end(name).is_some();
        ListenerTotals {
            syns: None,
            syn_drops_accept_queue: None,
            syn_drops_syn_queue: None,
            ack_drops_accept_queue: totals.ack_drops_accept_queue.filter(|_| sees("ack-drop")),
            ack_drops_other: None,
            enqueued: totals.enqueued.filter(|_| sees("enqueue")),
            accepted: totals.accepted.filter(|_| sees("accept")),
            depth_max: None,
            ..totals
        }
    }

    /// Hands every listener in the kernel's map to `each`.
    fn each_listener(&self, mut each: impl FnMut(u64, &ListenerBytes)) {
        if let Err(error) = self.tracer.listeners(&mut each) {
            log::error!("the listeners' counters cannot be read: {error}");
        }
    }

    /// A listener in the terms of events.
    fn sample(&self, key: u64, bytes: &ListenerBytes) -> Option<ListenerSample> {
        decode_listener_state(key, bytes, self.clock)
            .inspect_err(|error| log::error!("a listener's counters cannot be decoded: {error}"))
            .ok()
    }

    /// The listeners whose counters changed since the last second, and those with connections that wait.
    fn news_of_listeners(&mut self) -> Vec<(u64, bool, ListenerSample)> {
        let mut news = Vec::new();
        let mut said = HashMap::with_capacity(self.said_listeners.len());
        self.each_listener(|key, bytes| {
            if is_port_key(key) {
                return;
            }
            let mut digest = DefaultHasher::new();
            bytes.hash(&mut digest);
            let digest = digest.finish();
            let changed = self.said_listeners.get(&key) != Some(&digest);
            said.insert(key, digest);
            if (changed || waiting_in(bytes) > 0 || self.changed.contains(&key))
                && let Some(sample) = self.sample(key, bytes)
            {
                news.push((key, changed, sample));
            }
        });
        self.said_listeners = said;
        news
    }

    /// Once a second: what changed of listeners, counters and knobs, what was lost, and that time passed.
    pub fn second(&mut self, into: &mut Vec<Event>) {
        self.samples_of_second(into, false);
    }

    fn samples_of_second(&mut self, into: &mut Vec<Event>, ending: bool) {
        self.people.second();
        self.absence.second(self.now());
        self.look_at_listeners(into, true);
        let mut kinds = self.listener_samples(ending);
        if std::mem::take(&mut self.connects) {
            kinds.extend(self.connect_samples());
        }
        for inode in std::mem::take(&mut self.troubled) {
            kinds.extend(self.people.owners_of(inode).iter().filter_map(|&pid| self.people.state(pid)));
        }
        kinds.extend(self.absence.look(&mut self.places, &mut self.people));
        kinds.extend(self.places.second());
        self.ports_of_second(into);
        let now = self.now();
        kinds.extend(self.lost(now));
        kinds.push(Kind::Tick);
        self.last_second = now;
        into.extend(kinds.into_iter().map(|kind| Event { time: now, kind }));
    }

    /// What the kernel side counted of each listener, where that changed; with `in_full` also the histograms.
    fn listener_samples(&mut self, in_full: bool) -> Vec<Kind> {
        let mut kinds = Vec::new();
        let counts_by_listener =
            self.tracer.coverage().back_end("syn-drop").is_some_and(|b| b < BackEnd::Tracepoint);
        if !counts_by_listener {
            return kinds;
        }
        // Each map is read by system calls, during which the kernel skips kprobes on this CPU: no more often than needed.
        self.seconds += 1;
        let in_full = in_full || self.seconds.is_multiple_of(IN_FULL);
        for (key, changed, sample) in self.news_of_listeners() {
            if is_waiting(&sample, self.now()) {
                self.troubled.insert(sample.listener.inode);
            }
            self.last_retransmit = self.last_retransmit.max(sample.totals.last_retransmit);
            if changed {
                self.changed.insert(key);
            }
            // A histogram that was not read when its listener changed is news in the next full look.
            let look = in_full && self.changed.remove(&key);
            // Waiting is news as long as it lasts.
            if changed || look || sample.listener.depth > 0 {
                let mut news = sample;
                if look {
                    news.waits = self.tracer.waits(key).map(distribution);
                    news.handshakes = self.tracer.handshakes(key).map(distribution);
                }
                kinds.push(Kind::ListenerSample(Box::new(news)));
            }
        }
        if in_full && self.last_retransmit.is_some_and(|last| self.now().since(last) < PREFIX_WATCH) {
            kinds.extend(self.prefixes());
        }
        kinds
    }

    /// Connections completed by remote network, where that changed.
    fn prefixes(&mut self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for (key, completed) in self.tracer.prefixes() {
            let said = self.said_prefixes.insert((key.listener, key.prefix), completed);
            if said == Some(completed) {
                continue;
            }
            let network = Ipv6Addr::from(key.prefix).to_canonical();
            kinds.push(Kind::PrefixSample(PrefixSample {
                netns: self.netns_of(key.listener),
                sk: key.listener,
                network,
                bits: if network.is_ipv4() { PREFIX_BITS_V4 } else { PREFIX_BITS_V6 },
                completed,
            }));
        }
        kinds
    }

    /// Counts of connects, where they changed: those that could not be told one by one are among them.
    fn connect_samples(&mut self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        let mut said = HashMap::new();
        for (key, bytes) in self.tracer.connects() {
            match decode_connect_sample(&key, &bytes, self.clock) {
                Ok(sample) => {
                    let whose = (sample.netns, sample.pid, sample.remote);
                    if self.said_connects.get(&whose) != Some(&sample.totals) {
                        kinds.push(Kind::ConnectSample(Box::new(sample)));
                    }
                    said.insert(whose, sample.totals);
                }
                Err(error) => log::error!("counts of connects cannot be decoded: {error}"),
            }
        }
        self.said_connects = said;
        kinds
    }

    /// The namespace of a listener; 0 if it is gone.
    fn netns_of(&self, listener: u64) -> u32 {
        let sample = self.tracer.listener(listener).and_then(|bytes| self.sample(listener, &bytes));
        sample.map_or(0, |sample| sample.endpoints.netns)
    }

    /// What was lost since the last second.
    fn lost(&mut self, now: Timestamp) -> Vec<Kind> {
        let from = self.last_second;
        let mut events = Vec::new();
        match self.tracer.lost() {
            Ok(lost) => {
                for (kind, (now_lost, said)) in (0_u16..).zip(lost.iter().zip(&mut self.said_lost)) {
                    let count = now_lost.saturating_sub(*said);
                    *said = *now_lost;
                    if count > 0 {
                        let place = if kind == 0 { LossPlace::KernelTable } else { LossPlace::RingBuffer };
                        let what = record_name(kind).to_owned();
                        events.push(Kind::Lost(Box::new(Lost { what, count, place, from, to: now })));
                    }
                }
            }
            Err(error) => log::error!("the loss counters cannot be read: {error}"),
        }
        for (program, now_missed) in self.tracer.misses() {
            let said = self.said_misses.insert(program, now_missed).unwrap_or(0);
            let count = now_missed.saturating_sub(said);
            if count > 0 {
                let what = format!("runs of {program}");
                events.push(Kind::Lost(Box::new(Lost {
                    what,
                    count,
                    place: if PROCESS_CONTEXT.contains(&program) {
                        LossPlace::Preempted
                    } else {
                        LossPlace::Probe
                    },
                    from,
                    to: now,
                })));
            }
        }
        let undecoded = std::mem::take(&mut self.undecoded);
        if undecoded > 0 {
            let what = "record".to_owned();
            events.push(Kind::Lost(Box::new(Lost {
                what,
                count: undecoded,
                place: LossPlace::Decode,
                from,
                to: now,
            })));
        }
        events
    }

    /// The last events. Everything detaches when this is dropped.
    pub fn finish(mut self, into: &mut Vec<Event>) {
        // Counters last: what the kernel counted must not be newer than what we saw. What falls in between makes the
        // comparison inexact by that much, and it says so.
        self.poll(into);
        self.samples_of_second(into, true);
        self.poll(into);
        // What is counted and not told one by one has gone on since the counters were read; that it has is then known.
        let mut last = self.listener_samples(true);
        last.extend(self.connect_samples());
        let now = self.now();
        into.extend(last.into_iter().map(|kind| Event { time: now, kind }));
        into.push(Event { time: self.now(), kind: Kind::End });
    }
}

impl Live {
    /// Whether every step of every connection is streamed; see [`Tracer::streams_all`].
    pub(super) fn streams_all(&self) -> bool {
        self.tracer.streams_all()
    }
}

impl AsFd for Live {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tracer.as_fd()
    }
}

/// A histogram of the kernel side, in the terms of events.
fn distribution(counts: [u32; HISTOGRAM_BUCKETS]) -> Distribution {
    Distribution::from_counts(counts.into_iter().map(u64::from))
}

/// errno: the address is none of the namespace's.
const EADDRNOTAVAIL: u32 = 99;

/// Seconds between two looks at the histograms.
const IN_FULL: u64 = 5;

/// For how long after an unanswered SYN-ACK the kernel side counts connections by remote network.
const PREFIX_WATCH: Duration = Duration::from_secs(60);

/// After so long without an accept, what the owner of a listener with waiting connections does is worth a look.
const WAITING: Duration = Duration::from_secs(2);

/// Whether connections wait and nobody has accepted for a while.
fn is_waiting(sample: &ListenerSample, now: Timestamp) -> bool {
    let last = sample.totals.last_accept.max(sample.totals.last_enqueue);
    let stuck = sample.totals.last_accept.is_none_or(|accept| now.since(accept) >= WAITING);
    sample.listener.depth > 0 && stuck && last.is_some()
}

/// How many connections wait in the accept queue of a listener in the kernel side's own terms.
fn waiting_in(bytes: &ListenerBytes) -> u32 {
    let depth = bytes.get(std::mem::offset_of!(ListenerState, depth)..).and_then(<[u8]>::first_chunk);
    depth.map_or(0, |depth| u32::from_ne_bytes(*depth))
}

/// Keys of counts by port (tracepoint tier) are small; addresses of sockets are in the kernel's half.
fn is_port_key(key: u64) -> bool {
    key >> 48 == 0
}

fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// What is observed, in the terms of events.
#[must_use]
pub fn coverage(coverage: &probe::Coverage, filters: Vec<String>) -> event::Coverage {
    let tier = |back_end: BackEnd| match back_end {
        BackEnd::Fexit => event::Tier::Fexit,
        BackEnd::Kprobe => event::Tier::Kprobe,
        BackEnd::Tracepoint => event::Tier::Tracepoint,
    };
    event::Coverage {
        kernel: kernel_release(),
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
    }
}
