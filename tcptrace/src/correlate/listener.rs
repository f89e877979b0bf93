//! A listener: who has it, its queue, what was dropped there, how fast it accepts.

use std::net::SocketAddr;
use std::time::Duration;

use crate::event::{
    Accept, AcceptFail, Acceptor, Endpoints, Listen, ListenerRef, ListenerTotals, SocketOptions, Task,
    Timestamp,
};

use super::acceptors::{AcceptFailure, Acceptors};
use super::deferred::Deferred;
use super::half_open::Unanswered;
use super::owner::Owners;
use super::rate::{Reading, Readings};
use super::waits::RecentWaits;

/// Names a listener for as long as it is remembered; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub(super) u64);

/// Processes and reasons of failed accepts that are told apart.
const ACCEPT_FAILURES: usize = 32;

/// A listener, from the first that was heard of it to a while after its end.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name here.
    pub id: ListenerId,
    /// Its local end. Until its own address is known: the one that a packet was sent to.
    pub endpoints: Endpoints,
    /// Whether its own address is known.
    pub(super) place_known: bool,
    /// An address that is not its own, to which connections were sent that were steered to it (BPF `sk_lookup`, TPROXY).
    pub steered_from: Option<SocketAddr>,
    /// Its address in kernel memory; 0 until known.
    pub sk: u64,
    /// Inode number of its file; 0 until known.
    pub inode: u64,
    /// Who has it.
    pub owners: Owners,
    /// The call of listen() that made it or last changed it, if it was seen.
    pub listen: Option<ListenCall>,
    /// Accept-queue depth when last seen.
    pub depth: u32,
    /// Accept-queue limit when last seen; 0 if never (then `limit_seen` is false).
    pub limit: u32,
    /// Whether the limit was seen.
    pub limit_seen: bool,
    /// Requests in the SYN queue when last seen; `None` if they were not looked at.
    pub syn_queue: Option<u32>,
    /// When depth and limit were last seen.
    queue_seen: Timestamp,
    /// What was counted for its port before it began to listen there.
    pub(super) port_base: ListenerTotals,
    /// Its counts, the highest that any source gave.
    pub totals: ListenerTotals,
    /// Drops at the full accept queue that no probe saw, deduced from the namespace's counter.
    pub inferred: InferredDrops,
    /// SYNs at its full SYN queue that no probe saw, deduced likewise.
    pub inferred_syns: InferredSyns,
    /// Counts over the last seconds.
    pub readings: Readings,
    /// Accept waits over the last seconds.
    pub waits: RecentWaits,
    /// Since when its accept queue has not been seen empty.
    waiting_since: Option<Timestamp>,
    /// When it last dropped at its full accept queue.
    pub last_overflow: Option<Timestamp>,
    /// When nobody had accepted for long, last.
    pub last_stall: Option<Timestamp>,
    /// Seconds in a row in which it suffered while others of its reuseport group were idle.
    pub(super) suffered: u32,
    /// When that had lasted, last.
    pub last_imbalance: Option<Timestamp>,
    /// The time in which its SYN queue was full, if that is now or a moment ago.
    pub syn_queue_full: Option<Box<SynQueueFull>>,
    /// Requests that wait for data in its SYN queue (`TCP_DEFER_ACCEPT`).
    pub deferred: Deferred,
    /// Threads that were seen accepting.
    pub acceptors: Acceptors,
    /// Accepts that failed for want of something, by process and reason.
    pub accept_failures: Vec<AcceptFailure>,
    /// The process that had the kernel make it: a socket of the kernel itself, which no process has open.
    pub made_by: Option<Task>,
    /// When it was first heard of.
    pub first_seen: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// When it was closed.
    pub closed: Option<Timestamp>,
    /// How it was closed, if that was seen.
    pub closing: Option<Closing>,
}

/// A time in which the SYN queue of a listener was full: SYNs were dropped for it, or answered by a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynQueueFull {
    /// First sign of it.
    pub first: Timestamp,
    /// Last sign of it.
    pub last: Timestamp,
    /// The counts before.
    pub before: ListenerTotals,
    /// What had been deduced before.
    pub inferred_before: InferredSyns,
    /// The unanswered requests of that time, at their most. Later they expire, and the finding must not end without them.
    pub unanswered: Unanswered,
    /// It was told of.
    pub(super) told: bool,
}

/// The end of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Who closed it; at exit the dying process.
    pub task: Task,
    /// Connections in its accept queue, which are reset.
    pub queued: u32,
    /// Requests in its SYN queue, which are dropped.
    pub half_open: u32,
    /// Whether the task was exiting, if the source can tell.
    pub exiting: Option<bool>,
    /// The task was a thread of the kernel, in place of the process that had it.
    pub by_kernel: bool,
}

/// A call of listen().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenCall {
    /// When.
    pub time: Timestamp,
    /// Process that called it.
    pub pid: u32,
    /// Its argument, before the kernel cut it; `None` if it was not seen.
    pub backlog: Option<u32>,
    /// `net.core.somaxconn` at that moment, if it was read.
    pub somaxconn: Option<u32>,
    /// Options of the socket.
    pub options: SocketOptions,
    /// It listened before; only its backlog changed.
    pub again: bool,
}

/// Drops that were deduced, not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InferredDrops {
    /// How many, at either stage unless the other stage is observed.
    pub count: u64,
    /// Some of them may belong to another listener of the namespace, which dropped at the same time.
    pub shared: bool,
}

/// SYNs at a full SYN queue that were deduced, not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InferredSyns {
    /// Dropped.
    pub drops: u64,
    /// Dropped because the rest of `tcp_max_syn_backlog` is kept for known peers.
    pub reserved: u64,
    /// Answered by a cookie.
    pub cookies: u64,
    /// Some of them may belong to another listener of the namespace, whose queue was full at the same time.
    pub shared: bool,
}

impl InferredSyns {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            drops: self.drops.saturating_sub(earlier.drops),
            reserved: self.reserved.saturating_sub(earlier.reserved),
            cookies: self.cookies.saturating_sub(earlier.cookies),
            shared: self.shared,
        }
    }
}

/// Drops of a listener at its full accept queue since the tracer started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflows {
    /// SYNs, seen one by one.
    pub syn: u64,
    /// Final ACKs, seen one by one.
    pub ack: u64,
    /// Deduced from a counter.
    pub inferred: u64,
}

impl Overflows {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.syn + self.ack + self.inferred
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            syn: self.syn.saturating_sub(earlier.syn),
            ack: self.ack.saturating_sub(earlier.ack),
            inferred: self.inferred.saturating_sub(earlier.inferred),
        }
    }
}

impl Listener {
    pub(super) fn new(id: ListenerId, endpoints: Endpoints, time: Timestamp) -> Self {
        Self {
            id,
            endpoints: Endpoints { remote: None, ..endpoints },
            place_known: false,
            steered_from: None,
            sk: 0,
            inode: 0,
            owners: Owners::default(),
            listen: None,
            depth: 0,
            limit: 0,
            limit_seen: false,
            syn_queue: None,
            queue_seen: Timestamp::default(),
            port_base: ListenerTotals::default(),
            totals: ListenerTotals::default(),
            inferred: InferredDrops::default(),
            inferred_syns: InferredSyns::default(),
            readings: Readings::default(),
            waits: RecentWaits::default(),
            waiting_since: None,
            last_overflow: None,
            last_stall: None,
            suffered: 0,
            last_imbalance: None,
            syn_queue_full: None,
            deferred: Deferred::default(),
            acceptors: Acceptors::default(),
            accept_failures: Vec::new(),
            made_by: None,
            first_seen: time,
            last_seen: time,
            closed: None,
            closing: None,
        }
    }

    /// Drops at its full accept queue since the tracer started.
    pub fn overflows(&self) -> Overflows {
        Overflows {
            syn: self.totals.syn_drops_accept_queue.unwrap_or(0),
            ack: self.totals.ack_drops_accept_queue.unwrap_or(0),
            inferred: self.inferred.count,
        }
    }

    /// Whether its accept queue was full when last seen.
    pub fn is_full(&self) -> bool {
        self.limit_seen && self.depth > self.limit
    }

    /// When a connection was last accepted, if accepts are observed.
    pub fn last_accept(&self) -> Option<Timestamp> {
        self.totals.last_accept
    }

    /// What its counters say now.
    pub fn reading(&self, time: Timestamp) -> Reading {
        Reading {
            time,
            syns: self.totals.syns,
            enqueued: self.totals.enqueued,
            accepted: self.totals.accepted,
            waits: self.totals.wait_total_ns.zip(self.totals.waits),
            wait_max_ns: self.totals.wait_max_ns,
            socket_drops: self.totals.socket_drops,
            overflows: self.overflows().total(),
            last_accept: self.totals.last_accept,
            syn_queue: self.syn_queue,
            full: self.is_full(),
            was_full: self.is_full(),
        }
    }

    /// Its own local end, not that of a packet.
    pub(super) fn note_place(&mut self, place: &Endpoints) {
        self.endpoints = Endpoints { remote: None, ..*place };
        self.place_known = true;
    }

    pub(super) fn note_queue(&mut self, time: Timestamp, queue: &ListenerRef) {
        self.last_seen = self.last_seen.max(time);
        if queue.sk != 0 {
            self.sk = queue.sk;
        }
        if queue.inode != 0 {
            self.inode = queue.inode;
        }
        // Events of another CPU may come late: the queue is as the latest says.
        if time >= self.queue_seen {
            // Connections leave the queue by accept() alone, be it one that the tracer does not see.
            if queue.depth < self.depth {
                self.note_accepted_until(time);
            }
            self.queue_seen = time;
            self.depth = queue.depth;
            self.limit = queue.limit;
            self.limit_seen = true;
            if queue.sk != 0 {
                self.syn_queue = Some(queue.syn_queue);
            }
            self.waiting_since = (queue.depth > 0).then(|| self.waiting_since.unwrap_or(time));
        }
        raise(&mut self.totals.depth_max, Some(queue.depth));
    }

    pub(super) fn note_listen(&mut self, time: Timestamp, listen: &Listen) {
        if self.listen.is_some_and(|call| call.time > time) {
            return;
        }
        self.listen = Some(ListenCall {
            time,
            pid: listen.task.pid,
            backlog: listen.backlog,
            somaxconn: listen.somaxconn,
            options: listen.options,
            again: listen.again,
        });
    }

    /// Takes over counts, which only grow; returns by how much they did.
    pub(super) fn note_totals(&mut self, totals: &ListenerTotals) -> ListenerTotals {
        let before = self.totals;
        self.totals.raise_to(totals);
        if let Some((acceptor, last)) = totals.last_acceptor.zip(totals.last_accept) {
            self.acceptors.note(acceptor, last);
        }
        self.totals.less(&before)
    }

    /// A connection was accepted. Its count comes with samples.
    pub(super) fn note_accept(&mut self, time: Timestamp, accept: &Accept) {
        self.last_seen = self.last_seen.max(time);
        let acceptor = Acceptor { pid: accept.task.pid, tid: accept.task.tid };
        self.acceptors.note(acceptor, time);
        if Some(time) >= self.totals.last_accept {
            self.totals.last_acceptor = Some(acceptor);
        }
        raise(&mut self.totals.last_accept, Some(time));
        raise(&mut self.totals.wait_max_ns, accept.wait_ns);
    }

    /// accept() failed.
    pub(super) fn note_accept_fail(&mut self, time: Timestamp, fail: &AcceptFail) {
        self.last_seen = self.last_seen.max(time);
        let before = self.port_base.accepted.unwrap_or(0);
        let accepted = self.totals.accepted.map(|known| known.max(fail.accepted.saturating_sub(before)));
        let same = |known: &&mut AcceptFailure| known.pid == fail.task.pid && known.errno == fail.errno;
        if let Some(known) = self.accept_failures.iter_mut().find(same) {
            known.last = known.last.max(time);
            known.accepted = known.accepted.max(accepted);
            known.total = known.total.max(fail.total);
            known.open_files_limit = fail.open_files_limit.or(known.open_files_limit);
            known.host_files_limit = fail.host_files_limit.or(known.host_files_limit);
            known.host_files = known.host_files.max(fail.host_files);
        } else if self.accept_failures.len() < ACCEPT_FAILURES {
            self.accept_failures.push(AcceptFailure {
                pid: fail.task.pid,
                comm: fail.task.comm.to_string(),
                errno: fail.errno,
                first: time,
                last: time,
                total: fail.total,
                open_files_limit: fail.open_files_limit,
                host_files_limit: fail.host_files_limit,
                host_files: fail.host_files,
                accepted,
            });
        }
    }

    /// The accept() that failed last, if none has succeeded since.
    pub fn failing_accept(&self) -> Option<&AcceptFailure> {
        let last = self.accept_failures.iter().max_by_key(|failure| failure.last)?;
        self.totals.last_accept.is_none_or(|accepted| accepted < last.last).then_some(last)
    }

    /// Takes a reading, for rates.
    pub(super) fn take_reading(&mut self, time: Timestamp) {
        let reading = self.reading(time);
        self.readings.push(reading);
    }

    /// Since when connections have been waiting and nobody has accepted, if accepts are observed: the oldest has waited for at
    /// least that long. `None` while nobody waits.
    pub fn stalled_since(&self) -> Option<Timestamp> {
        self.totals.accepted?;
        let waiting = self.waiting_since.filter(|_| self.closed.is_none() && self.depth > 0)?;
        Some(waiting.max(self.totals.last_accept.unwrap_or(waiting)))
    }

    /// Whether it dropped at its full accept queue in the time `span` before `now`.
    pub fn overflowed_within(&self, span: Duration, now: Timestamp) -> bool {
        self.last_overflow.is_some_and(|last| now.since(last) < span)
    }

    /// Somebody accepted in the time before `time`: who waits now may have come since.
    pub(super) fn note_accepted_until(&mut self, time: Timestamp) {
        self.waiting_since = self.waiting_since.map(|since| since.max(time));
    }

    /// Whether connections wait here for long, or were dropped a moment ago.
    pub fn suffers(&self, now: Timestamp) -> bool {
        const LONG: Duration = Duration::from_secs(1);
        let waits = || {
            let recent = self.waits.recent().filter(|_| self.depth > 0);
            recent.and_then(|(waits, _)| waits.quantile(0.5)).is_some_and(|median| median >= LONG)
        };
        self.overflowed_within(LONG * 2, now)
            || self.stalled_since().is_some_and(|since| now.since(since) >= LONG)
            || waits()
    }

    /// Its SYN queue was full at `time`; its counts were `before`.
    pub(super) fn note_syn_queue_full(&mut self, time: Timestamp, before: &ListenerTotals) {
        match &mut self.syn_queue_full {
            Some(full) => full.last = full.last.max(time),
            None => {
                let full = SynQueueFull {
                    first: time,
                    last: time,
                    before: *before,
                    inferred_before: self.inferred_syns,
                    unanswered: Unanswered::default(),
                    told: false,
                };
                self.syn_queue_full = Some(Box::new(full));
            }
        }
    }

    /// Whether a reading since `time` found its accept queue full, or a drop said so.
    pub(super) fn was_full_since(&self, time: Timestamp) -> bool {
        self.is_full() || self.readings.any_since(time, |reading| reading.was_full)
    }
}

/// Raises `mine` to `theirs`: counters only grow, and whatever comes late or from a poorer source is lower.
fn raise<T: Ord + Copy>(mine: &mut Option<T>, theirs: Option<T>) {
    *mine = (*mine).max(theirs);
}
