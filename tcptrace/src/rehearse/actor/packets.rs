//! A packet socket on the clients' end of the veth pair: the line of clients that no kernel plays.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send,
    setsockopt, socket, sockopt,
};

use super::frame;
use crate::rehearse::stage::{CLIENT_LINK, SERVER_LINK};

/// Room for every answer to a burst of thousands of segments.
const BUFFER: usize = 8 << 20;

/// Sends and receives whole IP packets of one family. What the kernel itself sends does not appear here.
#[derive(Debug)]
pub(super) struct Packets(OwnedFd);

impl Packets {
    /// Opens the line, in the clients' namespace of a pair.
    pub(super) fn open(ipv6: bool) -> io::Result<Self> {
        let (protocol, number) = if ipv6 {
            (SockProtocol::EthIpv6, libc::ETH_P_IPV6)
        } else {
            (SockProtocol::EthIp, libc::ETH_P_IP)
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let line = socket(AddressFamily::Packet, SockType::Raw, flags, protocol)?;
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
            sll_protocol: u16::try_from(number).map_err(io::Error::other)?.to_be(),
            sll_ifindex: i32::try_from(if_nametoindex(CLIENT_LINK.name)?).map_err(io::Error::other)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
        // SAFETY: `address` is a whole `sockaddr_ll`, alive during the call, and `length` is its size.
        let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
        bind(line.as_raw_fd(), &address.ok_or(Errno::EAFNOSUPPORT)?)?;
        // Beyond net.core.rmem_max, if we may.
        setsockopt(&line, sockopt::RcvBufForce, &BUFFER)
            .or_else(|_| setsockopt(&line, sockopt::RcvBuf, &BUFFER))?;
        Ok(Self(line))
    }

    /// Sends a packet to the server's end.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        let frame = frame::framed(CLIENT_LINK.mac, SERVER_LINK.mac, packet);
        send(self.0.as_raw_fd(), &frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Takes one frame out; None when there is none.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
