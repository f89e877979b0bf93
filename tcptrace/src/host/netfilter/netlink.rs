//! One conversation with the kernel's netfilter in a network namespace.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt,
    socket,
};
use nix::sys::time::TimeVal;

use super::NetfilterError;
use super::wire::{self, Message, Request};
use crate::host::netns::{Netns, in_netns};

const BUFFER_LEN: usize = 64 * 1024;
/// An answer takes microseconds; without one for this long, something is wrong.
const ANSWER_TIMEOUT_SECONDS: i64 = 5;
/// A dump is left after this many objects: a table of a million connections is not worth the wait.
const OBJECTS: usize = 200_000;

/// Whether everything was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    Yes,
    /// There are more than [`OBJECTS`].
    Cut,
}

/// Sends `request` and hands over the objects of the answer: message number, family, attributes. A request that is no dump is
/// answered by one object, or by an error.
pub(super) fn ask(
    netns: &Netns,
    request: &Request,
    is_dump: bool,
    mut take: impl FnMut(u8, u8, &[u8]),
) -> Result<Whole, NetfilterError> {
    const SEQUENCE: u32 = 1;
    let failed = |source: io::Error| NetfilterError::Ask { netns: netns.id(), source };
    let socket = in_netns(netns, open)?.map_err(|errno| failed(errno.into()))?;
    let fd = socket.as_raw_fd();
    retry(|| send(fd, &request.to_bytes(SEQUENCE), MsgFlags::empty())).map_err(failed)?;
    let mut buffer = vec![0; BUFFER_LEN];
    let mut taken = 0;
    loop {
        let count = retry(|| recv(fd, &mut buffer, MsgFlags::MSG_TRUNC)).map_err(failed)?;
        let Some(datagram) = buffer.get(..count).filter(|datagram| !datagram.is_empty()) else {
            return Err(failed(strange("a datagram that cannot be taken whole")));
        };
        for message in wire::messages(datagram) {
            let (sequence, message) =
                message.ok_or_else(|| failed(strange("a message that makes no sense")))?;
            if sequence != SEQUENCE {
                continue;
            }
            match message {
                Message::Object { message, family, attributes } => {
                    take(message, family, attributes);
                    taken += 1;
                    if !is_dump {
                        return Ok(Whole::Yes);
                    }
                    if taken >= OBJECTS {
                        return Ok(Whole::Cut);
                    }
                }
                Message::Done(0) | Message::Error(0) => return Ok(Whole::Yes),
                Message::Done(errno) | Message::Error(errno) => {
                    return Err(failed(io::Error::from_raw_os_error(errno)));
                }
            }
        }
    }
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kernel answered with {what}"))
}

fn open() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT_SECONDS, 0))?;
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}
