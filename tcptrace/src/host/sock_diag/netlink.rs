//! One netlink conversation: a request, then datagrams until the kernel says done.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt,
    socket,
};
use nix::sys::time::TimeVal;

use super::wire::{self, Message, Ports};
use super::{DiagSocket, Family, SockDiagError};
use crate::host::netns::{Netns, in_netns};

/// The kernel sizes the datagrams of a dump after the buffer it was last read with, up to 32 KiB.
const BUFFER_LEN: usize = 32 * 1024;
/// A dump step takes microseconds; without an answer for so long, something is wrong.
const ANSWER_TIMEOUT_SECONDS: i64 = 10;

#[derive(Debug)]
pub(super) struct Dump {
    netns: Netns,
    /// None after a failure in the middle of a dump: the rest of that dump is still queued on the old socket.
    socket: Option<OwnedFd>,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Dump {
    pub(super) fn open(netns: &Netns) -> Result<Self, SockDiagError> {
        let socket = Some(open_socket(netns)?);
        Ok(Self { netns: netns.clone(), socket, sequence: 0, buffer: vec![0; BUFFER_LEN] })
    }

    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Dumps one family. Returns whether the kernel's tables changed during the dump.
    pub(super) fn run(
        &mut self,
        family: Family,
        states: u32,
        ports: Option<&Ports>,
        ages: bool,
        take: &mut impl FnMut(DiagSocket),
    ) -> Result<bool, SockDiagError> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open_socket(&self.netns)?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let interrupted = self.converse(&socket, family, states, ports, ages, take)?;
        self.socket = Some(socket);
        Ok(interrupted)
    }

    fn converse(
        &mut self,
        socket: &OwnedFd,
        family: Family,
        states: u32,
        ports: Option<&Ports>,
        ages: bool,
        take: &mut impl FnMut(DiagSocket),
    ) -> Result<bool, SockDiagError> {
        let (netns, sequence) = (self.netns.id(), self.sequence);
        let request = wire::request(family, states, ports, ages, sequence);
        retry(|| send(socket.as_raw_fd(), &request, MsgFlags::empty()))
            .map_err(|source| SockDiagError::Transfer { netns, what: "send the request", source })?;
        let mut interrupted = false;
        loop {
            let datagram = self.receive(socket).map_err(|source| SockDiagError::Transfer {
                netns,
                what: "receive the answer",
                source,
            })?;
            for framed in wire::messages(datagram) {
                let framed = framed.map_err(|source| SockDiagError::Malformed { netns, source })?;
                if framed.sequence != sequence {
                    continue;
                }
                interrupted |= framed.interrupted;
                match framed.message {
                    Message::Socket(socket) => take(socket),
                    Message::Done(0) => return Ok(interrupted),
                    // A missing handler (inet_diag or tcp_diag neither built in nor loadable) is told in either way.
                    Message::Done(libc::ENOENT) | Message::Error(libc::ENOENT) => {
                        return Err(SockDiagError::NotSupported);
                    }
                    Message::Done(errno) | Message::Error(errno) if errno != 0 => {
                        return Err(SockDiagError::Refused {
                            netns,
                            source: io::Error::from_raw_os_error(errno),
                        });
                    }
                    Message::Done(_) | Message::Error(_) | Message::Other => {}
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn break_buffer(&mut self, length: usize) {
        self.buffer.resize(length, 0);
    }

    fn receive(&mut self, socket: &OwnedFd) -> io::Result<&[u8]> {
        let fd = socket.as_raw_fd();
        let count = retry(|| recv(fd, &mut self.buffer, MsgFlags::MSG_TRUNC)).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                io::Error::new(io::ErrorKind::TimedOut, format!("no answer for {ANSWER_TIMEOUT_SECONDS} s"))
            } else {
                error
            }
        })?;
        // MSG_TRUNC makes recv return the datagram's true length.
        self.buffer.get(..count).filter(|datagram| !datagram.is_empty()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("a datagram of {count} bytes cannot be taken whole"),
            )
        })
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// A netlink socket belongs for ever to the network namespace that it was made in.
fn open_socket(netns: &Netns) -> Result<OwnedFd, SockDiagError> {
    let open = || -> nix::Result<OwnedFd> {
        let protocol = SockProtocol::NetlinkSockDiag;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT_SECONDS, 0))?;
        // Connected to the kernel (port 0): nobody else's messages are let in.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(socket)
    };
    in_netns(netns, open)?.map_err(|errno| SockDiagError::Open { netns: netns.id(), source: errno.into() })
}
