//! What the `task_file` iterator writes: one row for each TCP socket in each process's descriptor table.

use crate::wire::Endpoints;

/// A process's descriptor for a TCP socket that has a port. A socket that several processes share, or that is duplicated,
/// has several rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct OpenSocket {
    /// Addresses and namespace.
    pub endpoints: Endpoints,
    /// Address of the socket in kernel memory: an identity, not to be followed.
    pub sk: u64,
    /// Inode number of its file.
    pub ino: u64,
    /// Its cookie; 0 until somebody asked for it.
    pub cookie: u64,
    /// Process (thread group) in the initial pid namespace.
    pub tgid: u32,
    /// Descriptor.
    pub fd: u32,
    /// Uid of the socket.
    pub uid: u32,
    /// Accept-queue depth, of a listener.
    pub depth: u32,
    /// Accept-queue limit, of a listener.
    pub limit: u32,
    /// TCP state as the kernel numbers it.
    pub state: u8,
    /// Bit set of `port::OPT_*`.
    pub options: u8,
    /// Not 0: an MPTCP socket.
    pub mptcp: u8,
    /// `sk_userlocks`: [`PORT_LOCKED`].
    pub locks: u8,
}

/// Bit of `sk_userlocks` (SOCK_BINDPORT_LOCK): bind() was given this port by number. Neither accepted connections nor ports
/// that the kernel chose have it.
pub const PORT_LOCKED: u8 = 8;
const _: () = assert!(size_of::<OpenSocket>() == 48 + 24 + 24);

/// What the iterator is asked for, a read-only global.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct OpenSocketQuery {
    /// First local port of interest.
    pub first: u16,
    /// Last local port of interest.
    pub last: u16,
    /// Not 0: remember who has each port, as if it had been seen being taken.
    pub remember: u16,
    /// Only sockets in this state, as the kernel numbers it; 0: in any.
    pub state: u16,
}
const _: () = assert!(size_of::<OpenSocketQuery>() == 8);
