//! Who has which port: kept in the kernel, so that a failed bind names its holder in the same event.

use crate::wire::{Endpoints, Task};

/// Taken by `bind()` to a port that the application asked for.
pub const HOW_BIND: u8 = 1;
/// Taken by `bind()` to port 0: the kernel chose it.
pub const HOW_BIND_ANY: u8 = 2;
/// Taken by `connect()`: the kernel chose it.
pub const HOW_CONNECT: u8 = 3;
/// Taken by `listen()` on an unbound socket: the kernel chose it.
pub const HOW_LISTEN_ANY: u8 = 4;
/// Not seen being taken: held since before the tracer attached, or inherited by an accepted connection.
pub const HOW_UNKNOWN: u8 = 0;

/// SO_REUSEADDR was set (`sk_reuse`).
pub const OPT_REUSEADDR: u8 = 1 << 0;
/// SO_REUSEPORT was set.
pub const OPT_REUSEPORT: u8 = 1 << 1;
/// IPV6_V6ONLY was set.
pub const OPT_V6ONLY: u8 = 1 << 2;
/// IP_FREEBIND was set.
pub const OPT_FREEBIND: u8 = 1 << 3;
/// IP_TRANSPARENT was set.
pub const OPT_TRANSPARENT: u8 = 1 << 4;
/// IP_BIND_ADDRESS_NO_PORT was set: bind() to port 0 leaves the choice of the port to connect().
pub const OPT_LATE_PORT: u8 = 1 << 5;

/// The holder was found in the kernel's bind hash at the moment of the conflict: it is a fact.
pub const FOUND_BIND_HASH: u8 = 1;
/// The holder is the last one that took the port according to our own records: it is likely.
pub const FOUND_HISTORY: u8 = 2;

/// The process that took a port, and how.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Taker {
    /// Who.
    pub task: Task,
    /// When (`CLOCK_MONOTONIC`, ns).
    pub since_ns: u64,
    /// When the socket gave it back (it may live on in TIME_WAIT); 0 while held.
    pub released_ns: u64,
    /// One of `HOW_*`.
    pub how: u8,
    /// Not 0: not seen taking it, but found to have it when the tracer started; `since_ns` is then 0.
    pub bootstrapped: u8,
    /// How often a connect's SYN was sent again.
    pub syns_again: u8,
    /// 1 when the end of the connect was told.
    pub told: u8,
    /// Padding, zero.
    pub pad: [u8; 4],
}
const _: () = assert!(size_of::<Taker>() == 64);

/// Key of what is counted of a process's ephemeral ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct PortUseKey {
    /// Network namespace.
    pub netns: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
}
const _: () = assert!(size_of::<PortUseKey>() == 8);

/// What was counted of the ephemeral ports of one process in one namespace: those that the kernel chose.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct PortUse {
    /// Since when (`CLOCK_MONOTONIC`, ns): another time means that counting began anew.
    pub since_ns: u64,
    /// Taken by `connect()`.
    pub by_connect: u64,
    /// Taken by `bind()` to port 0, or by `listen()` without a port.
    pub by_bind: u64,
    /// Of those taken by `bind()`: how many were then connected.
    pub bound_connects: u64,
    /// Given back.
    pub released: u64,
    /// Of these: how many live on in TIME_WAIT.
    pub time_wait: u64,
    /// `connect()` calls that found no port.
    pub refused: u64,
    /// Of those taken by `connect()`: after a `bind()` to an address that left the port to it (IP_BIND_ADDRESS_NO_PORT).
    pub late: u64,
    /// Of all taken: from a range that the socket has for itself (IP_LOCAL_PORT_RANGE).
    pub own_range: u64,
    /// Began a second of streaming (`CLOCK_MONOTONIC`, ns).
    pub window_ns: u64,
    /// Refusals streamed in it.
    pub streamed: u64,
    /// Name of the process's thread that took the first.
    pub comm: [u8; crate::wire::COMM_LEN],
}
const _: () = assert!(size_of::<PortUse>() == 104);

/// So many refusals of one process are streamed in a second; of more only the count goes on.
pub const REFUSALS_STREAMED: u64 = 32;

/// One holder of a port in a bind-conflict record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Holder {
    /// Addresses and namespace.
    pub endpoints: Endpoints,
    /// Who took it, if that was seen (`task.tgid` 0 otherwise).
    pub taker: Taker,
    /// Address of the socket in kernel memory: an identity, not to be followed.
    pub sk: u64,
    /// Inode number of the socket's file; 0 for TIME_WAIT, orphans and kernel sockets.
    pub ino: u64,
    /// Uid of the socket; 0xffffffff where it has none (TIME_WAIT).
    pub uid: u32,
    /// TCP state as the kernel numbers it.
    pub state: u8,
    /// Bit set of `OPT_*`.
    pub options: u8,
    /// One of `FOUND_*`.
    pub found: u8,
    /// Padding, zero.
    pub pad: u8,
}
const _: () = assert!(size_of::<Holder>() == 48 + 64 + 24);
