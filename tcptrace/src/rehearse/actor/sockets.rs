//! Sockets with the options that an incident turns on, and what the kernel says about them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};
use nix::time::{ClockId, clock_gettime};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// Wake the accepting process only when data has come; in seconds.
    TcpDeferAccept, Both, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, libc::c_int
);
sockopt_impl!(
    /// Accept data in SYNs; the number of such connections that may wait.
    TcpFastOpen, SetOnly, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, libc::c_int
);
sockopt_impl!(
    /// `struct tcp_info` up to `tcpi_total_retrans`: that much of it, as 26 words, is the same in every kernel.
    TcpInfoHead, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u32; 26]
);

sockopt_impl!(
    /// Acknowledge at once.
    QuickAck, SetOnly, libc::IPPROTO_TCP, libc::TCP_QUICKACK, bool
);

sockopt_impl!(
    /// bind() to port 0 leaves the port to connect().
    LatePort, SetOnly, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, bool
);
sockopt_impl!(
    /// The socket's own range of ephemeral ports: the first in the lower half, the last in the upper.
    OwnRange, SetOnly, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, u32
);
/// From linux/in.h, since 6.3; libc has no name for it.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

sockopt_impl!(
    /// Take what is sent to others' addresses.
    TransparentV6, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, bool
);

/// Gives a socket a range of ephemeral ports of its own; ENOPROTOOPT before 6.3.
pub(super) fn set_own_range(socket: &impl AsFd, first: u16, last: u16) -> nix::Result<()> {
    setsockopt(socket, OwnRange, &(u32::from(last) << 16 | u32::from(first)))
}

/// Lets a socket take what is sent to others' addresses. One of both families takes both.
pub(super) fn set_transparent(socket: &impl AsFd, address: SocketAddr) -> nix::Result<()> {
    if address.is_ipv6() {
        setsockopt(socket, TransparentV6, &true)?;
    }
    setsockopt(socket, sockopt::IpTransparent, &true)
}

/// Whether this kernel lets a socket have a range of its own.
pub(in crate::rehearse) fn have_own_ranges() -> bool {
    let any = SocketAddr::from(([0; 4], 0));
    tcp(any, SockFlag::empty()).and_then(|socket| set_own_range(&socket, 1024, 1025)).is_ok()
}

/// A TCP socket of the address's family.
pub(super) fn tcp(address: SocketAddr, flags: SockFlag) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)
}

/// A multipath TCP socket of the address's family; EPROTONOSUPPORT or ENOPROTOOPT where there is none.
pub(in crate::rehearse) fn mptcp(address: SocketAddr, flags: SockFlag) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags.bits();
    // SAFETY: no pointer is passed.
    let fd = Errno::result(unsafe { libc::socket(family, kind, libc::IPPROTO_MPTCP) })?;
    // SAFETY: socket() has just handed this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An SMC socket of the address's family; EAFNOSUPPORT where there is none.
pub(super) fn smc(address: SocketAddr) -> nix::Result<OwnedFd> {
    /// From linux/socket.h; libc has no name for it.
    const AF_SMC: libc::c_int = 43;
    /// `SMCPROTO_SMC` and `SMCPROTO_SMC6` of net/smc/smc.h, part of the system-call interface.
    const OVER_V4: libc::c_int = 0;
    const OVER_V6: libc::c_int = 1;
    let protocol = if address.is_ipv4() { OVER_V4 } else { OVER_V6 };
    // SAFETY: no pointer is passed.
    let fd =
        Errno::result(unsafe { libc::socket(AF_SMC, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: socket() has just handed this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// CLOCK_MONOTONIC, in nanoseconds: one clock for every process of the machine.
pub(super) fn monotonic() -> nix::Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// Starts connecting without waiting for the outcome.
pub(super) fn start_connect(socket: &OwnedFd, to: SocketAddr) -> nix::Result<()> {
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Err(Errno::EINPROGRESS) => Ok(()),
        other => other,
    }
}

/// Closing then sends RST at once and leaves nothing behind: an orphan in FIN-WAIT-1 would go on retransmitting.
pub(super) fn reset_on_close(socket: &impl AsFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })
}

/// Closing then says FIN again, in the background.
pub(super) fn finish_on_close(socket: &impl AsFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::Linger, &libc::linger { l_onoff: 0, l_linger: 0 })
}

/// The part of `struct tcp_info` that tells what became of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// TCP_ESTABLISHED is 1, TCP_SYN_SENT 2.
    pub(super) state: u8,
    /// Segments retransmitted since the socket was made; until it is established these are SYNs.
    pub(super) retransmitted: u32,
    /// Segments sent and not yet acknowledged.
    pub(super) unacknowledged: u32,
}

/// Asks the kernel how far a connection has come.
pub(super) fn progress(socket: &impl AsFd) -> io::Result<Progress> {
    let words = nix::sys::socket::getsockopt(socket, TcpInfoHead)?;
    let [flags, .., retransmitted] = words;
    let [state, ..] = flags.to_ne_bytes();
    // tcpi_unacked is the fifth 32-bit field after eight bytes of small ones.
    Ok(Progress { state, retransmitted, unacknowledged: words.get(6).copied().unwrap_or_default() })
}
