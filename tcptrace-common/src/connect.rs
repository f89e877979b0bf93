//! What becomes of connects that are not answered at once: kept in the kernel by process and destination, so that nothing is
//! lost when there are more than can be told one by one.

/// The SYN was sent again: the connect goes on.
pub const CONNECT_SYN_AGAIN: u32 = 1;
/// The handshake was completed.
pub const CONNECT_ESTABLISHED: u32 = 2;
/// Answered by an RST.
pub const CONNECT_REFUSED: u32 = 3;
/// Ended by an error that came another way than by RST, as an ICMP message does; `errno` says which.
pub const CONNECT_UNREACHABLE: u32 = 4;
/// The SYN was sent as often as allowed, and nothing answered.
pub const CONNECT_TIMED_OUT: u32 = 5;
/// The process closed the socket (or ended) before there was an answer.
pub const CONNECT_CANCELLED: u32 = 6;
/// connect() itself failed, before a SYN was sent.
pub const CONNECT_ERROR: u32 = 7;

/// Key of what is counted: who connects where to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct ConnectKey {
    /// Remote address, IPv4 mapped into IPv6.
    pub peer: [u8; 16],
    /// Network namespace of the client.
    pub netns: u32,
    /// Process; 0 if the connect is older than the tracer.
    pub tgid: u32,
    /// Remote port, host order.
    pub port: u16,
    /// Padding, zero.
    pub pad: [u16; 3],
}
const _: () = assert!(size_of::<ConnectKey>() == 32);

/// What was counted of one process's connects to one destination. Connects that are answered at once are not counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct ConnectTotals {
    /// Since when (`CLOCK_MONOTONIC`, ns): another time means that counting began anew.
    pub since_ns: u64,
    /// SYNs sent again.
    pub syns_again: u64,
    /// Connects whose SYN was sent again, once or more.
    pub unanswered: u64,
    /// Of these: connects that were established in the end. Counted only where that is observed.
    pub established: u64,
    /// Connects that ended as the `CONNECT_*` of the name says.
    pub refused: u64,
    /// Likewise.
    pub unreachable: u64,
    /// Likewise.
    pub timed_out: u64,
    /// Likewise; counted only if their SYN had been sent again.
    pub cancelled: u64,
    /// Likewise.
    pub errors: u64,
    /// Began a second of streaming (`CLOCK_MONOTONIC`, ns).
    pub window_ns: u64,
    /// Records streamed in it.
    pub streamed: u64,
}
const _: () = assert!(size_of::<ConnectTotals>() == 88);

/// So many records of one process and destination are streamed in a second; of more only the counts go on.
pub const CONNECTS_STREAMED: u64 = 64;
