//! The records of the ring buffer: a [`Header`], then the body that its kind names.

use crate::{
    connect::ConnectTotals,
    listener::ListenerState,
    port::Holder,
    wire::{Endpoints, Task},
};

/// A listener began to listen, or changed its backlog: [`Listen`].
pub const LISTEN: u16 = 1;
/// A SYN was dropped at a queue check: [`SynDrop`].
pub const SYN_DROP: u16 = 2;
/// A final ACK was dropped: [`AckDrop`].
pub const ACK_DROP: u16 = 3;
/// A connection entered the accept queue: [`Enqueue`].
pub const ENQUEUE: u16 = 4;
/// accept() returned a connection: [`Accept`].
pub const ACCEPT: u16 = 5;
/// bind() or listen() failed for its port: [`BindFail`].
pub const BIND_FAIL: u16 = 6;
/// A port was taken: [`PortTaken`].
pub const PORT_TAKEN: u16 = 7;
/// A port was given back: [`PortReleased`].
pub const PORT_RELEASED: u16 = 8;
/// A listener was closed: [`ListenerClosed`].
pub const LISTENER_CLOSED: u16 = 9;
/// A SYN-ACK was sent again: [`SynAckRetransmit`].
pub const SYNACK_RETRANSMIT: u16 = 10;
/// A half-open request ended without a connection: [`RequestEnd`].
pub const REQUEST_END: u16 = 11;
/// A connect was not answered, failed, or was slow: [`Connect`].
pub const CONNECT: u16 = 12;
/// connect() found no port, or its addresses in use: [`NoPort`].
pub const NO_PORT: u16 = 13;
/// A packet of a handshake was dropped on its way: [`HandshakeDrop`].
pub const HANDSHAKE_DROP: u16 = 14;
/// A SYN came for a port that nobody listens on: [`NoListener`].
pub const NO_LISTENER: u16 = 15;
/// A SYN passed the queue checks: [`Syn`].
pub const SYN: u16 = 16;
/// A connect was answered at once: [`Established`].
pub const ESTABLISHED: u16 = 17;
/// accept() failed for want of something: [`AcceptFail`].
pub const ACCEPT_FAIL: u16 = 18;
/// Number of kinds, 0 (unused) included: the length of the loss-counter array.
pub const KINDS: usize = 19;

/// Starts every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Header {
    /// When (`CLOCK_MONOTONIC`, ns).
    pub time_ns: u64,
    /// One of the kinds above.
    pub kind: u16,
    /// Length of the whole record, bytes.
    pub len: u16,
    /// CPU that wrote it.
    pub cpu: u32,
}
const _: () = assert!(size_of::<Header>() == 16);

/// Identity and state of a listener at the time of an event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct ListenerRef {
    /// Address of the socket in kernel memory: an identity while it lives, not to be followed.
    pub sk: u64,
    /// Inode number of its file, by which /proc finds its owners; 0 when it has none.
    pub ino: u64,
    /// Accept-queue depth.
    pub depth: u32,
    /// Accept-queue limit: it is full when depth > limit, so it holds limit + 1.
    pub limit: u32,
    /// Requests in the SYN queue.
    pub syn_queue: u32,
    /// Padding, zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<ListenerRef>() == 32);

/// Body of [`LISTEN`]. Process context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Listen {
    /// Starts every record.
    pub header: Header,
    /// Local end; remote is empty.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Who called listen().
    pub task: Task,
    /// The argument of listen() before the kernel cut it, as unsigned as the kernel takes it; see [`LISTEN_BACKLOG_SEEN`].
    pub backlog: u32,
    /// `net.core.somaxconn` of the socket's namespace at that moment; 0 where not read.
    pub somaxconn: u32,
    /// Bit set of `port::OPT_*`.
    pub options: u32,
    /// Bit set of [`LISTEN_AGAIN`] and [`LISTEN_BACKLOG_SEEN`].
    pub flags: u32,
}
const _: () = assert!(size_of::<Listen>() == 16 + 48 + 32 + 40 + 16);

/// The socket already listened; only its backlog changed.
pub const LISTEN_AGAIN: u32 = 1 << 0;
/// [`Listen::backlog`] was seen. Any value is a legal one: `listen(fd, -1)` is common.
pub const LISTEN_BACKLOG_SEEN: u32 = 1 << 1;

/// The SYN became a half-open request.
pub const SYN_REQUEST: u32 = 1;
/// It is answered with a cookie; nothing is kept of it.
pub const SYN_COOKIE: u32 = 2;
/// It is a connection already, by its Fast Open cookie.
pub const SYN_FAST_OPEN: u32 = 3;

/// Body of [`SYN`] (with [`crate::config::STREAM_SYNS`] only). Softirq context: names no task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Syn {
    /// Starts every record.
    pub header: Header,
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener, its queues as the SYN left them.
    pub listener: ListenerRef,
    /// What became of it: one of `SYN_REQUEST`, `SYN_COOKIE`, `SYN_FAST_OPEN`.
    pub answer: u32,
    /// Padding, zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<Syn>() == 16 + 48 + 32 + 8);

/// The accept queue was full.
pub const SYN_DROP_ACCEPT_QUEUE: u32 = 1;
/// The SYN queue was full (only with `tcp_syncookies=0`).
pub const SYN_DROP_SYN_QUEUE: u32 = 2;
/// Dropped at a queue check though neither queue looks full: no memory, or a queue that just emptied.
pub const SYN_DROP_OTHER: u32 = 3;
/// The last quarter of `tcp_max_syn_backlog` is kept for peers that are known (only with `tcp_syncookies=0`), and this one is
/// not.
pub const SYN_DROP_MAX_SYN_BACKLOG: u32 = 4;
/// There is no route for the answer (or a security module refuses the request, which the kernel does not tell apart).
pub const SYN_DROP_NO_ROUTE: u32 = 5;

/// Body of [`SYN_DROP`]. Softirq context: names no task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct SynDrop {
    /// Starts every record.
    pub header: Header,
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// One of `SYN_DROP_*`.
    pub cause: u32,
    /// `net.ipv4.tcp_syncookies` of the namespace.
    pub syncookies: u32,
    /// The listener's count of such drops, this one included: exact even if records are lost.
    pub total: u64,
}
const _: () = assert!(size_of::<SynDrop>() == 16 + 48 + 32 + 16);

/// The accept queue was full.
pub const ACK_DROP_ACCEPT_QUEUE: u32 = 1;
/// The child socket could not be finished (route, port inheritance, TCP-MD5/AO key).
pub const ACK_DROP_OTHER: u32 = 2;

/// Body of [`ACK_DROP`]. Softirq context: names no task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct AckDrop {
    /// Starts every record.
    pub header: Header,
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// One of `ACK_DROP_*`.
    pub cause: u32,
    /// Padding, zero.
    pub pad: u32,
    /// The listener's count of such drops, this one included.
    pub total: u64,
}
const _: () = assert!(size_of::<AckDrop>() == 16 + 48 + 32 + 16);

/// Body of [`ENQUEUE`] (streamed with [`crate::config::STREAM_ALL`] only). Softirq context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Enqueue {
    /// Starts every record.
    pub header: Header,
    /// The connection.
    pub endpoints: Endpoints,
    /// The listener, this connection counted in its depth. `sk` 0 in the tracepoint tier, which cannot see it.
    pub listener: ListenerRef,
    /// The child socket's address in memory.
    pub child: u64,
    /// Time from the first SYN-ACK to now, ns; [`AGE_UNKNOWN`] for cookies, and in the tracepoint tier.
    pub handshake_ns: u64,
    /// One of `ENQUEUE_*`.
    pub how: u32,
    /// Padding, zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<Enqueue>() == 16 + 48 + 32 + 24);

/// By a final ACK that met its request. In the tracepoint tier: however.
pub const ENQUEUE_HANDSHAKE: u32 = 1;
/// By a final ACK that brought a valid cookie back.
pub const ENQUEUE_COOKIE: u32 = 2;
/// By a SYN, with TCP Fast Open: the final ACK is still to come.
pub const ENQUEUE_FAST_OPEN: u32 = 3;

/// [`Accept::wait_ns`] when the enqueue was not seen.
pub const WAIT_UNKNOWN: u64 = u64::MAX;

/// Body of [`ACCEPT`] (streamed with [`crate::config::STREAM_ALL`] only). Process context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Accept {
    /// Starts every record.
    pub header: Header,
    /// The connection.
    pub endpoints: Endpoints,
    /// The listener, this connection no longer counted in its depth.
    pub listener: ListenerRef,
    /// Who accepted.
    pub task: Task,
    /// Time in the accept queue, ns; [`WAIT_UNKNOWN`].
    pub wait_ns: u64,
    /// The child socket's address in memory.
    pub child: u64,
}
const _: () = assert!(size_of::<Accept>() == 16 + 48 + 32 + 40 + 16);

/// How many holders a [`BindFail`] carries.
pub const HOLDERS: usize = 8;

/// Failed in bind().
pub const STAGE_BIND: u32 = 1;
/// Failed in listen(): both sides had SO_REUSEADDR, which does not hold for listeners.
pub const STAGE_LISTEN: u32 = 2;
/// In bind(), by a security module, before the protocol was asked.
pub const STAGE_SECURITY: u32 = 3;

/// Body of [`BIND_FAIL`]. Process context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct BindFail {
    /// Starts every record.
    pub header: Header,
    /// The *requested* local end (the kernel zeroes it after the failure); remote is empty. Port 0 asks for any.
    pub endpoints: Endpoints,
    /// Who asked.
    pub task: Task,
    /// Address of the socket in kernel memory.
    pub sk: u64,
    /// errno (positive).
    pub errno: u32,
    /// One of `STAGE_*`.
    pub stage: u32,
    /// Bit set of `port::OPT_*` of the requesting socket.
    pub options: u32,
    /// How many holders were met; may exceed [`HOLDERS`], of which the first are kept.
    pub holders_met: u32,
    /// How many entries of `holders` are filled.
    pub holders_len: u32,
    /// `fastreuse` and `fastreuseport` of the bind bucket, as bytes 0 and 1; [`REUSE_STATE_UNKNOWN`] if there was none.
    pub reuse_state: u32,
    /// Range of ports that the requesting socket has for itself (IP_LOCAL_PORT_RANGE): the first in the lower half, the last in
    /// the upper; 0 on either side for the namespace's, 0 if it has none.
    pub own_range: u32,
    /// Padding, zero.
    pub pad: u32,
    /// The holders.
    pub holders: [Holder; HOLDERS],
}
const _: () = assert!(size_of::<BindFail>() == 16 + 48 + 40 + 8 + 32 + HOLDERS * size_of::<Holder>());

/// [`BindFail::reuse_state`] when the bind bucket was not read.
pub const REUSE_STATE_UNKNOWN: u32 = u32::MAX;

/// Body of [`PORT_TAKEN`] (explicit binds always; binds to port 0 with [`crate::config::STREAM_ALL`]; a port that connect() got
/// only if a server has or had it: [`CONNECT`] and [`ESTABLISHED`] tell the rest). Process context, but for
/// connect in the tracepoint tier, where `task` is the one that called connect().
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct PortTaken {
    /// Starts every record.
    pub header: Header,
    /// The socket's ends; remote only for connect.
    pub endpoints: Endpoints,
    /// Who took it.
    pub task: Task,
    /// Address of the socket in kernel memory.
    pub sk: u64,
    /// One of `port::HOW_*`.
    pub how: u32,
    /// Bit set of `port::OPT_*`.
    pub options: u32,
}
const _: () = assert!(size_of::<PortTaken>() == 16 + 48 + 40 + 16);

/// Body of [`PORT_RELEASED`] (with [`crate::config::STREAM_ALL`] only). Any context: names the taker, not a task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct PortReleased {
    /// Starts every record.
    pub header: Header,
    /// The socket's ends.
    pub endpoints: Endpoints,
    /// Address of the socket in kernel memory.
    pub sk: u64,
    /// How long it was held, ns.
    pub held_ns: u64,
    /// Process that took it.
    pub tgid: u32,
    /// One of `port::HOW_*`.
    pub how: u16,
    /// 1 when a TIME_WAIT remnant goes on holding the port.
    pub time_wait: u16,
    /// Name of the process that took it.
    pub comm: [u8; crate::wire::COMM_LEN],
}
const _: () = assert!(size_of::<PortReleased>() == 16 + 48 + 16 + 8 + 16);

/// [`AcceptFail::limit`] where it was not read.
pub const LIMIT_UNKNOWN: u64 = u64::MAX - 1;

/// Body of [`ACCEPT_FAIL`]. Process context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct AcceptFail {
    /// Starts every record.
    pub header: Header,
    /// Local end; remote is empty.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Who called accept().
    pub task: Task,
    /// Why it failed, positive.
    pub errno: u32,
    /// Padding, zero.
    pub pad: u32,
    /// The process's soft limit on open files (`RLIMIT_NOFILE`) at that moment; [`LIMIT_UNKNOWN`].
    pub limit: u64,
    /// How often accept() of this process has failed so at this listener: not each failure has a record of its own.
    pub total: u64,
    /// Connections accepted until then from the listener (in the tracepoint tier: from its port).
    pub accepted: u64,
}
const _: () = assert!(size_of::<AcceptFail>() == 16 + 48 + 32 + 40 + 32);

/// Body of [`LISTENER_CLOSED`]. Process context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct ListenerClosed {
    /// Starts every record.
    pub header: Header,
    /// Local end.
    pub endpoints: Endpoints,
    /// The listener; its depth is the number of connections that are lost.
    pub listener: ListenerRef,
    /// Who closed it (at exit: the dying process).
    pub task: Task,
    /// Its counters at the end: after this the kernel forgets them.
    pub last: ListenerState,
}
const _: () = assert!(size_of::<ListenerClosed>() == 16 + 48 + 32 + 40 + size_of::<ListenerState>());

/// [`SynAckRetransmit::age_ns`] and [`RequestEnd::age_ns`] when the kernel does not say (cookies, no SYN-ACK sent yet).
pub const AGE_UNKNOWN: u64 = u64::MAX;

/// The timer sent the SYN-ACK again: no final ACK came.
pub const RETRANSMIT_TIMER: u32 = 1;
/// The peer's SYN came again: the SYN-ACK did not reach it (or it is impatient).
pub const RETRANSMIT_DUPLICATE_SYN: u32 = 2;

/// Body of [`SYNACK_RETRANSMIT`]. Softirq context: names no task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct SynAckRetransmit {
    /// Starts every record.
    pub header: Header,
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Time since the first SYN-ACK of this request, ns; [`AGE_UNKNOWN`].
    pub age_ns: u64,
    /// One of `RETRANSMIT_*`.
    pub cause: u32,
    /// How often its timer had run out before (`num_timeout`).
    pub timeouts: u32,
    /// The listener's count of such retransmissions (of this cause), this one included.
    pub total: u64,
    /// Bit set of `REQUEST_*`.
    pub flags: u32,
    /// Padding, zero.
    pub pad: u32,
}
const _: () = assert!(size_of::<SynAckRetransmit>() == 16 + 48 + 32 + 32);

/// The peer's final ACK has come, and was put aside: by `TCP_DEFER_ACCEPT`, which waits for data, or at a full accept queue.
pub const REQUEST_ACKED: u32 = 1 << 0;
/// The listener has `TCP_DEFER_ACCEPT`.
pub const REQUEST_DEFERRED: u32 = 1 << 1;

/// Its timer ran out for the last time.
pub const END_EXPIRED: u32 = 1;
/// Its listener was closed; seen when its timer next ran out, or a packet came.
pub const END_LISTENER_CLOSED: u32 = 2;
/// The peer reset it: by a RST, or a SYN inside the window.
pub const END_RESET: u32 = 3;
/// We reset it: its final ACK met a full accept queue, and `net.ipv4.tcp_abort_on_overflow` is set.
pub const END_ABORTED: u32 = 4;
/// An ICMP error came for it: [`RequestEnd::icmp`].
pub const END_ICMP: u32 = 5;
/// It became a subflow of an MPTCP connection (`MP_JOIN`), which is in no accept queue.
pub const END_JOINED: u32 = 6;

/// Body of [`REQUEST_END`]. Softirq context: names no task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct RequestEnd {
    /// Starts every record.
    pub header: Header,
    /// The listener's end and the peer's.
    pub endpoints: Endpoints,
    /// The listener.
    pub listener: ListenerRef,
    /// Time since the first SYN-ACK of this request, ns; [`AGE_UNKNOWN`].
    pub age_ns: u64,
    /// One of `END_*`.
    pub how: u32,
    /// How often its timer had run out before.
    pub timeouts: u32,
    /// The listener's count of such ends, this one included; 0 for a closed listener.
    pub total: u64,
    /// Bit set of `REQUEST_*`.
    pub flags: u32,
    /// Of [`END_ICMP`]: type and code of the ICMP or ICMPv6 message, as bytes 1 and 0.
    pub icmp: u32,
}
const _: () = assert!(size_of::<RequestEnd>() == 16 + 48 + 32 + 32);

/// Body of [`NO_PORT`]. Process context: the current task called connect(), which fails with EADDRNOTAVAIL.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct NoPort {
    /// Starts every record.
    pub header: Header,
    /// Both ends. Local port 0: the kernel was to choose one, and there is none left for this destination. Otherwise the
    /// socket was bound to it before, and the same connection exists (or is in TIME_WAIT).
    pub endpoints: Endpoints,
    /// Who asked.
    pub task: Task,
    /// Address of the socket in kernel memory.
    pub sk: u64,
    /// How often this process found no port in this namespace, this time included: exact even if records are lost.
    pub total: u64,
    /// Bit set of `port::OPT_*`.
    pub options: u32,
    /// As [`BindFail::own_range`].
    pub own_range: u32,
}
const _: () = assert!(size_of::<NoPort>() == 16 + 48 + 40 + 8 + 8 + 8);

/// [`Connect::age_ns`] when the beginning was not seen.
pub const CONNECT_AGE_UNKNOWN: u64 = u64::MAX;

/// Body of [`CONNECT`]. Any context: `task` is the process that called connect(), `tgid` 0 if that was not seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Connect {
    /// Starts every record.
    pub header: Header,
    /// The client's ends. Local port 0 where connect() failed before it had one.
    pub endpoints: Endpoints,
    /// Who called connect().
    pub task: Task,
    /// Address of the socket in kernel memory.
    pub sk: u64,
    /// Inode number of the socket's file; 0 where it has none any more.
    pub ino: u64,
    /// Time since connect() was called, ns; [`CONNECT_AGE_UNKNOWN`].
    pub age_ns: u64,
    /// One of `connect::CONNECT_*`.
    pub result: u32,
    /// errno (positive) of a failure, or of what an ICMP message said meanwhile; 0 otherwise.
    pub errno: u32,
    /// How often the SYN was sent again, this time included.
    pub syns_again: u32,
    /// Padding, zero.
    pub pad: u32,
    /// The counts for this process and destination, this included.
    pub totals: ConnectTotals,
}
const _: () = assert!(size_of::<Connect>() == 16 + 48 + 40 + 24 + 16 + size_of::<ConnectTotals>());

/// Body of [`ESTABLISHED`] (with [`crate::config::STREAM_ALL`] only): what of a [`Connect`] is to be said when all went well.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Established {
    /// Starts every record.
    pub header: Header,
    /// The client's ends.
    pub endpoints: Endpoints,
    /// Who called connect().
    pub task: Task,
    /// Address of the socket in kernel memory.
    pub sk: u64,
    /// Inode number of the socket's file.
    pub ino: u64,
    /// Time since connect() was called, ns; [`CONNECT_AGE_UNKNOWN`].
    pub age_ns: u64,
}
const _: () = assert!(size_of::<Established>() == 16 + 48 + 40 + 24);

/// Body of [`HANDSHAKE_DROP`]. Any context: `task` is the process that called connect(), `tgid` 0 if that is not known or it is no
/// SYN made here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct HandshakeDrop {
    /// Starts every record.
    pub header: Header,
    /// The packet's ends: local is its destination if it came in, its source if it was made here. The device is the one that
    /// it came in by.
    pub endpoints: Endpoints,
    /// Who connects.
    pub task: Task,
    /// Where in the kernel it was dropped.
    pub location: u64,
    /// The function that its route hands it to (`dst->input`); 0 if it had none yet.
    pub input: u64,
    /// Address of the socket that it belongs to; 0 for none.
    pub sk: u64,
    /// Why (`enum skb_drop_reason` of the running kernel); 0 where the kernel does not say.
    pub reason: u32,
    /// One of `drop::PACKET_*`.
    pub packet: u32,
    /// One of `drop::DIRECTION_*`.
    pub direction: u32,
    /// Bit set of `drop::HANDSHAKE`.
    pub flags: u32,
    /// How many were dropped like this one, itself included.
    pub total: u64,
}
const _: () = assert!(size_of::<HandshakeDrop>() == 16 + 48 + 40 + 24 + 16 + 8);

/// Body of [`NO_LISTENER`]. Softirq context: names no task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct NoListener {
    /// Starts every record.
    pub header: Header,
    /// The address that was called, and who called.
    pub endpoints: Endpoints,
    /// How many SYNs came for this port, this one included.
    pub total: u64,
}
const _: () = assert!(size_of::<NoListener>() == 16 + 48 + 8);
