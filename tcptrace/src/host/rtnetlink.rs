//! One rtnetlink request that lists something of the calling thread's network namespace.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

const HEADER: usize = 16;
/// A message of the list is no longer than this, whatever a device has.
const LONGEST: usize = 256 * 1024;
/// Attributes may have flags in their upper bits.
const TYPE_MASK: u16 = 0x3fff;

/// Asks for a list: hands over the body of each of its messages.
pub(super) fn list(kind: u16, body: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
    ask(kind, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, body, each)
}

/// Asks for one thing.
pub(super) fn get(kind: u16, body: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
    ask(kind, libc::NLM_F_REQUEST, body, each)
}

fn ask(kind: u16, flags: libc::c_int, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    let mut message = u32::try_from(HEADER + body.len()).unwrap_or_default().to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one request a socket
    message.extend(body);
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut reply = vec![0; LONGEST];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        let mut rest = reply.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        while let Some((kind, body, after)) = take(rest) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let errno =
                        word(body, 0).map_or(libc::EINVAL, |code| code.cast_signed().saturating_neg());
                    return if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) };
                }
                _ => each(body),
            }
            if flags & libc::NLM_F_DUMP == 0 {
                return Ok(());
            }
            rest = after;
        }
    }
}

fn take(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// A number at an offset.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Text that ends with a zero byte.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// Attributes, up to the first that is cut.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    })
}
