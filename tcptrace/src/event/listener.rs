//! Listeners, their queues, and what happens to connections there.

use serde::{Deserialize, Serialize};

use std::net::IpAddr;

use super::{Distribution, Endpoints, SocketOptions, Task, Timestamp};

/// Which listener, and the state of its queues at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRef {
    /// Address of the socket in kernel memory: an identity while it lives. 0 where the source cannot know it.
    pub sk: u64,
    /// Inode number of its file; 0 if it has none or it is unknown.
    pub inode: u64,
    /// Accept-queue depth.
    pub depth: u32,
    /// Accept-queue limit: the queue is full when `depth > limit`, so it holds `limit + 1`.
    pub limit: u32,
    /// Requests in the SYN queue.
    pub syn_queue: u32,
}

impl ListenerRef {
    /// Whether the accept queue drops what comes next (`sk_acceptq_is_full()`).
    pub fn is_full(&self) -> bool {
        self.depth > self.limit
    }
}

/// A listener began to listen, or changed its backlog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// Its local end.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Who called listen().
    pub task: Task,
    /// The argument of listen() before the kernel cut it; `None` if it was not seen. The kernel takes it as unsigned, so a
    /// negative one is huge.
    pub backlog: Option<u32>,
    /// `net.core.somaxconn` of its namespace at that moment, if it was read.
    pub somaxconn: Option<u32>,
    /// Options that decide about sharing its port.
    pub options: SocketOptions,
    /// It listened before; only its backlog changed.
    pub again: bool,
}

/// Why a SYN was dropped at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SynDropCause {
    /// The accept queue was full.
    AcceptQueue,
    /// The SYN queue was full (only with `tcp_syncookies=0`).
    SynQueue,
    /// The rest of `tcp_max_syn_backlog` is kept for known peers (only with `tcp_syncookies=0`).
    MaxSynBacklog,
    /// Neither looked full: no memory, or a queue that had just emptied.
    Other,
}

/// A SYN was dropped at a queue check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynDrop {
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Why.
    pub cause: SynDropCause,
    /// `net.ipv4.tcp_syncookies` of the namespace (0–2).
    pub syncookies: u32,
    /// The listener's count of such drops (accept queue, or the other two together), this one included: exact even if
    /// records were lost.
    pub total: u64,
}

/// Why a final ACK was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AckDropCause {
    /// The accept queue was full.
    AcceptQueue,
    /// The child socket could not be finished (route, port inheritance, TCP-MD5/AO key).
    Other,
}

/// A final ACK was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckDrop {
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Why.
    pub cause: AckDropCause,
    /// The listener's count of such drops, this one included. In the tracepoint tier: of all listeners of that port.
    pub total: u64,
}

/// A connection entered the accept queue (streamed on request only).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueue {
    /// The connection.
    pub endpoints: Endpoints,
    /// The listener, this connection counted in its depth. `sk` is 0 in the tracepoint tier, which cannot see it.
    pub listener: ListenerRef,
    /// The connection's address in kernel memory.
    pub child: u64,
}

/// accept() returned a connection (streamed on request only).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The connection.
    pub endpoints: Endpoints,
    /// The listener, this connection no longer counted in its depth.
    pub listener: ListenerRef,
    /// Who accepted.
    pub task: Task,
    /// Time in the accept queue, ns; `None` if the enqueue was not seen.
    pub wait_ns: Option<u64>,
    /// The connection's address in kernel memory.
    pub child: u64,
}

/// Counts of one listener since the tracer attached (or since it began to listen, if later); they only grow.
///
/// `None`: the source cannot know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerTotals {
    /// SYNs that reached the listener, retransmitted ones included.
    pub syns: Option<u64>,
    /// SYNs dropped because the accept queue was full.
    pub syn_drops_accept_queue: Option<u64>,
    /// SYNs dropped at the SYN-queue check, or for want of memory.
    pub syn_drops_syn_queue: Option<u64>,
    /// SYNs dropped because the rest of `tcp_max_syn_backlog` is kept for known peers.
    pub syn_drops_max_syn_backlog: Option<u64>,
    /// SYNs answered with a cookie.
    pub cookies_sent: Option<u64>,
    /// SYN-ACKs sent again because no final ACK came.
    pub retransmits_timer: Option<u64>,
    /// SYN-ACKs sent again because the SYN came again.
    pub retransmits_duplicate_syn: Option<u64>,
    /// Half-open requests whose timer ran out for the last time.
    pub expired: Option<u64>,
    /// Final ACKs dropped because the accept queue was full.
    pub ack_drops_accept_queue: Option<u64>,
    /// Final ACKs dropped for another reason.
    pub ack_drops_other: Option<u64>,
    /// The kernel's own `sk_drops` of the listener, polled: every SYN-stage drop once, every final-ACK-stage drop twice, and
    /// whatever else the socket threw away. Counts from the listener's birth, not from the tracer's start.
    pub socket_drops: Option<u64>,
    /// Connections put into the accept queue.
    pub enqueued: Option<u64>,
    /// Connections taken from it.
    pub accepted: Option<u64>,
    /// Sum of the accept waits of `waits` connections, ns.
    pub wait_total_ns: Option<u64>,
    /// How many accepted connections had a known accept wait.
    pub waits: Option<u64>,
    /// Longest accept wait, ns.
    pub wait_max_ns: Option<u64>,
    /// Deepest accept queue seen.
    pub depth_max: Option<u32>,
    /// Most requests seen in the SYN queue at a drop, a cookie or a retransmission.
    pub syn_queue_max: Option<u32>,
    /// When a SYN-ACK was last sent again.
    pub last_retransmit: Option<Timestamp>,
    /// When a connection was last accepted, since the tracer attached.
    pub last_accept: Option<Timestamp>,
    /// When a connection was last enqueued.
    pub last_enqueue: Option<Timestamp>,
    /// Who accepted last.
    pub last_acceptor: Option<Acceptor>,
}

impl ListenerTotals {
    /// Nothing has happened yet; everything is counted, but for `socket_drops`, which the kernel counts.
    pub const ZERO: Self = Self {
        syns: Some(0),
        syn_drops_accept_queue: Some(0),
        syn_drops_syn_queue: Some(0),
        syn_drops_max_syn_backlog: Some(0),
        cookies_sent: Some(0),
        retransmits_timer: Some(0),
        retransmits_duplicate_syn: Some(0),
        expired: Some(0),
        ack_drops_accept_queue: Some(0),
        ack_drops_other: Some(0),
        socket_drops: None,
        enqueued: Some(0),
        accepted: Some(0),
        wait_total_ns: Some(0),
        waits: Some(0),
        wait_max_ns: Some(0),
        depth_max: None,
        syn_queue_max: None,
        last_retransmit: None,
        last_accept: None,
        last_enqueue: None,
        last_acceptor: None,
    };

    /// Takes over what is higher in `other`: counts only grow, and what comes late or from a poorer source is lower.
    pub fn raise_to(&mut self, other: &Self) {
        if other.last_accept > self.last_accept {
            self.last_acceptor = other.last_acceptor.or(self.last_acceptor);
        }
        self.syns = self.syns.max(other.syns);
        self.syn_drops_accept_queue = self.syn_drops_accept_queue.max(other.syn_drops_accept_queue);
        self.syn_drops_syn_queue = self.syn_drops_syn_queue.max(other.syn_drops_syn_queue);
        self.syn_drops_max_syn_backlog = self.syn_drops_max_syn_backlog.max(other.syn_drops_max_syn_backlog);
        self.cookies_sent = self.cookies_sent.max(other.cookies_sent);
        self.retransmits_timer = self.retransmits_timer.max(other.retransmits_timer);
        self.retransmits_duplicate_syn = self.retransmits_duplicate_syn.max(other.retransmits_duplicate_syn);
        self.expired = self.expired.max(other.expired);
        self.syn_queue_max = self.syn_queue_max.max(other.syn_queue_max);
        self.last_retransmit = self.last_retransmit.max(other.last_retransmit);
        self.ack_drops_accept_queue = self.ack_drops_accept_queue.max(other.ack_drops_accept_queue);
        self.ack_drops_other = self.ack_drops_other.max(other.ack_drops_other);
        self.socket_drops = self.socket_drops.max(other.socket_drops);
        self.enqueued = self.enqueued.max(other.enqueued);
        self.accepted = self.accepted.max(other.accepted);
        self.wait_total_ns = self.wait_total_ns.max(other.wait_total_ns);
        self.waits = self.waits.max(other.waits);
        self.wait_max_ns = self.wait_max_ns.max(other.wait_max_ns);
        self.depth_max = self.depth_max.max(other.depth_max);
        self.last_accept = self.last_accept.max(other.last_accept);
        self.last_enqueue = self.last_enqueue.max(other.last_enqueue);
    }

    /// These counts without those of `earlier`. Times stay as they are.
    #[must_use]
    pub fn less(&self, earlier: &Self) -> Self {
        let rest = |now: Option<u64>, then: Option<u64>| now.map(|now| now.saturating_sub(then.unwrap_or(0)));
        Self {
            syns: rest(self.syns, earlier.syns),
            syn_drops_accept_queue: rest(self.syn_drops_accept_queue, earlier.syn_drops_accept_queue),
            syn_drops_syn_queue: rest(self.syn_drops_syn_queue, earlier.syn_drops_syn_queue),
            syn_drops_max_syn_backlog: rest(
                self.syn_drops_max_syn_backlog,
                earlier.syn_drops_max_syn_backlog,
            ),
            cookies_sent: rest(self.cookies_sent, earlier.cookies_sent),
            retransmits_timer: rest(self.retransmits_timer, earlier.retransmits_timer),
            retransmits_duplicate_syn: rest(
                self.retransmits_duplicate_syn,
                earlier.retransmits_duplicate_syn,
            ),
            expired: rest(self.expired, earlier.expired),
            ack_drops_accept_queue: rest(self.ack_drops_accept_queue, earlier.ack_drops_accept_queue),
            ack_drops_other: rest(self.ack_drops_other, earlier.ack_drops_other),
            socket_drops: rest(self.socket_drops, earlier.socket_drops),
            enqueued: rest(self.enqueued, earlier.enqueued),
            accepted: rest(self.accepted, earlier.accepted),
            wait_total_ns: rest(self.wait_total_ns, earlier.wait_total_ns),
            waits: rest(self.waits, earlier.waits),
            // One that did not rise is of earlier.
            wait_max_ns: self.wait_max_ns.filter(|longest| Some(*longest) > earlier.wait_max_ns),
            ..*self
        }
    }
}

/// A thread that accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Acceptor {
    /// Its process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
}

/// How a sample was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleSource {
    /// Counted by our probes, event by event.
    Observed,
    /// Read from sock_diag now and then. What the tracepoint tier counts by port (connections enqueued and accepted, final
    /// ACKs dropped) comes along when the listener is alone on its port: whoever listened there before is in it.
    Polled,
}

/// A listener, read once a second if it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSample {
    /// Its local end.
    pub endpoints: Endpoints,
    /// The listener and the state of its queues.
    pub listener: ListenerRef,
    /// How the numbers were got.
    pub source: SampleSource,
    /// Its counts.
    pub totals: ListenerTotals,
    /// Accept waits since the tracer attached; `None` where the source cannot know.
    #[serde(default)]
    pub waits: Option<Distribution>,
    /// Handshake times (first SYN-ACK to final ACK) since then, cookie connections left out.
    #[serde(default)]
    pub handshakes: Option<Distribution>,
}

/// Why a SYN-ACK was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetransmitCause {
    /// No final ACK came in time.
    Timer,
    /// The peer's SYN came again: our SYN-ACK did not reach it, or it is impatient.
    DuplicateSyn,
    /// One or the other: the source cannot tell.
    Unknown,
}

/// A SYN-ACK was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynAckRetransmit {
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Time since the request's first SYN-ACK, ns, if the kernel says.
    pub age_ns: Option<u64>,
    /// Why.
    pub cause: RetransmitCause,
    /// How often the request's timer had run out before.
    pub timeouts: u32,
    /// The listener's count of retransmissions of this cause, this one included.
    pub total: u64,
}

/// How a half-open request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestEnding {
    /// Its timer ran out for the last time.
    Expired,
    /// Its listener was closed.
    ListenerClosed,
}

/// A half-open request ended without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestEnd {
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Time since the request's first SYN-ACK, ns, if the kernel says.
    pub age_ns: Option<u64>,
    /// How it ended.
    pub how: RequestEnding,
    /// How often its timer had run out before.
    pub timeouts: u32,
    /// The listener's count of such ends, this one included; 0 for a closed listener.
    pub total: u64,
}

/// Connections that a listener completed from one remote network. Counted only for a minute after an unanswered SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixSample {
    /// Network namespace of the listener; 0 if unknown.
    pub netns: u32,
    /// Address of the listener in kernel memory.
    pub sk: u64,
    /// The network: an address with its host bits zero.
    pub network: IpAddr,
    /// How many bits of it count (24 or 64).
    pub bits: u8,
    /// Connections completed, in all.
    pub completed: u64,
}

/// A listener was closed; what waited in its accept queue is reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerClosed {
    /// Its local end.
    pub endpoints: Endpoints,
    /// The listener; its depth is the number of connections that are lost.
    pub listener: ListenerRef,
    /// Who closed it (at exit: the dying process).
    pub task: Task,
    /// Whether that process was exiting, if it was read.
    #[serde(default)]
    pub exiting: Option<bool>,
    /// Its counts at the end, if there were any.
    pub last: Option<ListenerTotals>,
}
