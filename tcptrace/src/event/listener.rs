//! Listeners, their queues, and what happens to connections there.

use serde::{Deserialize, Serialize};

use std::net::IpAddr;

use super::{Distribution, Endpoints, ListenerTotals, SocketOptions, Task};

/// Which listener, and the state of its queues at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRef {
    /// Identity of the socket while it lives: its address in kernel memory, which the live source hides
    /// ([`AddressKey`](super::AddressKey)). 0 where the source cannot know it.
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
    /// There is no route for the answer, or a security module refuses the request.
    NoRoute,
    /// Neither looked full: no memory, or a queue that had just emptied.
    Other,
}

impl SynDropCause {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::AcceptQueue => "accept-queue",
            Self::SynQueue => "syn-queue",
            Self::MaxSynBacklog => "max-syn-backlog",
            Self::NoRoute => "no-route",
            Self::Other => "other",
        }
    }
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

/// A SYN passed the queue checks (streamed with `--syns` only).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syn {
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener, its queues as the SYN left them.
    pub listener: ListenerRef,
    /// What became of it.
    pub answer: SynAnswer,
}

/// What became of a SYN that passed the queue checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SynAnswer {
    /// It became a half-open request; a SYN-ACK is sent.
    Request,
    /// It was answered with a cookie; nothing is kept of it.
    Cookie,
    /// It is a connection already, with TCP Fast Open.
    FastOpen,
}

impl SynAnswer {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Cookie => "cookie",
            Self::FastOpen => "fast-open",
        }
    }
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

impl AckDropCause {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::AcceptQueue => "accept-queue",
            Self::Other => "other",
        }
    }
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
    /// Identity of the connection while it lives, likewise.
    pub child: u64,
    /// By what.
    #[serde(default)]
    pub how: EnqueuedBy,
    /// Time since the first SYN-ACK, ns; `None` for cookies and Fast Open, and where the source cannot know.
    #[serde(default)]
    pub handshake_ns: Option<u64>,
}

/// What put a connection into the accept queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnqueuedBy {
    /// A final ACK that met its request.
    #[default]
    Handshake,
    /// A final ACK that brought a valid cookie back.
    Cookie,
    /// The SYN itself, with TCP Fast Open: the final ACK is still to come.
    FastOpen,
}

impl EnqueuedBy {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Cookie => "cookie",
            Self::FastOpen => "fast-open",
        }
    }
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
    /// Identity of the connection while it lives, likewise.
    pub child: u64,
}

/// How a sample was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SampleSource {
    /// Counted by our probes, event by event.
    Observed,
    /// Read from sock_diag now and then. What the tracepoint tier counts by port (connections enqueued and accepted, final
    /// ACKs dropped) comes along when the listener is alone on its port: whoever listened there before is in it.
    Polled,
}

impl SampleSource {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Polled => "polled",
        }
    }
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

impl RetransmitCause {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::DuplicateSyn => "duplicate-syn",
            Self::Unknown => "unknown",
        }
    }
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
    /// The final ACK has come, and was put aside: by `TCP_DEFER_ACCEPT`, or at a full accept queue.
    #[serde(default)]
    pub acked: bool,
    /// The listener has `TCP_DEFER_ACCEPT`.
    #[serde(default)]
    pub deferred: bool,
}

/// How a half-open request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestEnding {
    /// Its timer ran out for the last time.
    Expired,
    /// Its listener was closed.
    ListenerClosed,
    /// The peer reset it: by a RST, or a SYN inside the window.
    Reset,
    /// We reset it: its final ACK met a full accept queue, and `net.ipv4.tcp_abort_on_overflow` is set.
    Aborted,
    /// An ICMP error came for it.
    Icmp,
    /// It became a subflow of an MPTCP connection, which is in no accept queue.
    Joined,
}

impl RequestEnding {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::ListenerClosed => "listener-closed",
            Self::Reset => "reset",
            Self::Aborted => "aborted",
            Self::Icmp => "icmp",
            Self::Joined => "mptcp-join",
        }
    }
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
    /// The final ACK had come, and was put aside: by `TCP_DEFER_ACCEPT`, or at a full accept queue.
    #[serde(default)]
    pub acked: bool,
    /// The listener has `TCP_DEFER_ACCEPT`.
    #[serde(default)]
    pub deferred: bool,
    /// Of [`RequestEnding::Icmp`]: type and code of the message (ICMP, or ICMPv6 for an IPv6 peer).
    #[serde(default)]
    pub icmp: Option<(u8, u8)>,
}

/// Connections that a listener completed from one remote network. Counted only for a minute after an unanswered SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixSample {
    /// Network namespace of the listener; 0 if unknown.
    pub netns: u32,
    /// Identity of the listener.
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
    /// It was a thread of the kernel, in place of the process that had the listener (io_uring closes files so).
    #[serde(default)]
    pub by_kernel: bool,
    /// Its counts at the end, if there were any.
    pub last: Option<ListenerTotals>,
}

/// accept() failed for want of something, or was forbidden: connections stay in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptFail {
    /// Local end of the listener.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Who called accept().
    pub task: Task,
    /// Why it failed: EMFILE, ENFILE, ENOBUFS, ENOMEM or EPERM.
    pub errno: u32,
    /// The process's soft limit on open files at that moment, if it was read.
    pub open_files_limit: Option<u64>,
    /// How often accept() of this process has failed so at this listener; not each failure is an event of its own.
    pub total: u64,
    /// Connections accepted until then from the listener (in the tracepoint tier: from its port).
    pub accepted: u64,
    /// The host's limit on open files (`fs.file-max`), read where that is what was reached.
    #[serde(default)]
    pub host_files_limit: Option<u64>,
    /// Files open on the host at that moment, likewise.
    #[serde(default)]
    pub host_files: Option<u64>,
}
