//! Per-listener state kept in the kernel and read once a second.

/// Counters of one listener since the tracer attached (or since it began to listen, if later).
///
/// Shared between CPUs and changed by atomic adds, so they are exact; `depth_max` and `wait_max_ns` are changed by a
/// compare-and-store that another CPU can overtake, so either may be low by one observation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerState {
    /// SYNs that reached the listener (`tcp_conn_request`), retransmitted ones included.
    pub syns: u64,
    /// SYNs dropped because the accept queue was full.
    pub syn_drops_accept_queue: u64,
    /// SYNs dropped at the SYN-queue check (only with `tcp_syncookies=0`), or for want of memory.
    pub syn_drops_syn_queue: u64,
    /// Final ACKs dropped because the accept queue was full (each data retransmission of the client counts again).
    pub ack_drops: u64,
    /// Final ACKs dropped for another reason (no route, port not inheritable, memory).
    pub ack_drops_other: u64,
    /// Connections put into the accept queue.
    pub enqueued: u64,
    /// Connections taken from the accept queue.
    pub accepted: u64,
    /// Sum of the accept waits of `waits` connections, ns.
    pub wait_total_ns: u64,
    /// How many accepted connections had a known accept wait.
    pub waits: u64,
    /// Longest accept wait, ns.
    pub wait_max_ns: u64,
    /// When a connection was last accepted (`CLOCK_MONOTONIC`, ns); 0 for never.
    pub last_accept_ns: u64,
    /// When a connection was last enqueued; 0 for never.
    pub last_enqueue_ns: u64,
    /// Deepest accept queue seen at an enqueue or a drop.
    pub depth_max: u32,
    /// Accept-queue depth when last seen.
    pub depth: u32,
    /// Accept-queue limit (`sk_max_ack_backlog`) when last seen.
    pub limit: u32,
    /// Thread that last accepted.
    pub last_acceptor_tid: u32,
    /// Its process.
    pub last_acceptor_tgid: u32,
    /// Padding, zero.
    pub pad: u32,
    /// Who and where: for listeners that the tracer did not see begin.
    pub endpoints: crate::wire::Endpoints,
    /// Inode number of the listener's file, 0 when it has none.
    pub ino: u64,
}
const _: () = assert!(size_of::<ListenerState>() == 12 * 8 + 6 * 4 + 48 + 8);
