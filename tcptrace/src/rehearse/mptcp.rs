//! Multipath TCP's own listener: announcing an address with a port makes the kernel listen there by itself (since 5.12), which
//! is the simplest socket that no process has.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::SockProtocol;

use super::netlink::{Request, acknowledged};

// linux/genetlink.h
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// linux/mptcp.h
const ADD_ADDRESS: u8 = 1;
const ATTR_ADDRESS: u16 = 1;
const ADDRESS_FAMILY: u16 = 1;
const ADDRESS_V4: u16 = 3;
const ADDRESS_V6: u16 = 4;
const ADDRESS_PORT: u16 = 5;
const ADDRESS_FLAGS: u16 = 6;
const FLAG_SIGNAL: u32 = 1;

/// Set in the type of an attribute that holds others (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;
/// `nlmsghdr` and `genlmsghdr`.
const HEADERS: usize = 20;

/// Announces `address` in the calling thread's namespace, so that the kernel listens there until the namespace ends.
///
/// # Errors
/// When there is no multipath TCP, the kernel is older than that, or the port is taken.
pub(super) fn announce(address: SocketAddr) -> io::Result<()> {
    let family = family()?;
    let (af, kind, bytes) = match address.ip() {
        IpAddr::V4(v4) => (libc::AF_INET, ADDRESS_V4, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, ADDRESS_V6, v6.octets().to_vec()),
    };
    let af = u16::try_from(af).map_err(io::Error::other)?;
    let request =
        Request::new(family, 0, &[ADD_ADDRESS, 1, 0, 0]).nested(ATTR_ADDRESS | NESTED, &[], |inner| {
            inner
                .attribute(ADDRESS_FAMILY, &af.to_ne_bytes())
                .attribute(kind, &bytes)
                .attribute(ADDRESS_PORT, &address.port().to_ne_bytes())
                .attribute(ADDRESS_FLAGS, &FLAG_SIGNAL.to_ne_bytes())
        });
    acknowledged(&request.ask(SockProtocol::NetlinkGeneric)?)
}

/// The number that generic netlink has given to `mptcp_pm`.
fn family() -> io::Result<u16> {
    let reply = Request::new(GENL_ID_CTRL, 0, &[CTRL_CMD_GETFAMILY, 1, 0, 0])
        .attribute(CTRL_ATTR_FAMILY_NAME, b"mptcp_pm\0")
        .ask(SockProtocol::NetlinkGeneric)?;
    number_in(&reply).ok_or_else(|| match acknowledged(&reply) {
        Err(error) => error,
        Ok(()) => io::Error::new(io::ErrorKind::InvalidData, "generic netlink does not tell of mptcp_pm"),
    })
}

fn number_in(reply: &[u8]) -> Option<u16> {
    let half = |at: usize| reply.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let mut at = HEADERS;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        if kind == CTRL_ATTR_FAMILY_ID {
            return half(at + 4);
        }
        at += usize::from(length).max(4).next_multiple_of(4);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_is_found_behind_its_name() {
        let attributes = Request::new(0, 0, &[1, 2, 0, 0])
            .attribute(CTRL_ATTR_FAMILY_NAME, b"mptcp_pm\0")
            .attribute(CTRL_ATTR_FAMILY_ID, &33_u16.to_ne_bytes())
            .finish()
            .unwrap();
        assert_eq!(number_in(&attributes), Some(33));
        assert_eq!(number_in(&attributes[..HEADERS + 16]), None);
    }
}
