//! What connection tracking knows of a connection: the tuple it was opened with, and the one that its answers come by. Where
//! they differ, the connection is translated, and the answers' source is its other end.

use std::net::{IpAddr, SocketAddr};

use super::netlink::{Whole, ask};
use super::wire::{Request, attribute, attributes, be16, push_attribute, push_nested};
use super::{NetfilterError, address};
use crate::host::netns::{Netns, in_netns};

// linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const SUBSYSTEM: u8 = 1;
const GET: u8 = 1;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const TCP: u8 = 6;

/// A direction of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where packets come from.
    pub from: SocketAddr,
    /// Where they go.
    pub to: SocketAddr,
}

/// A connection that is tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// As it was opened.
    pub original: Tuple,
    /// As its answers come.
    pub reply: Tuple,
}

impl Connection {
    /// The tuple that it has behind the translation.
    pub fn translated(&self) -> Tuple {
        Tuple { from: self.reply.to, to: self.reply.from }
    }
}

/// Whether connection tracking is there at all: without it no rule of netfilter can translate. Asking it would load it.
pub fn is_loaded(netns: &Netns) -> bool {
    let looked =
        in_netns(netns, || std::path::Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists());
    looked.unwrap_or(true)
}

/// The connection that was opened with this tuple; `None` if it is not tracked in that namespace (default zone).
///
/// # Errors
/// When the namespace cannot be entered, or the kernel refuses (`CAP_NET_ADMIN`).
pub fn lookup(netns: &Netns, opened: Tuple) -> Result<Option<Connection>, NetfilterError> {
    let mut found = None;
    let asked = ask(netns, &request(opened), false, |_, _, attributes| found = connection(attributes));
    match asked {
        Ok(_) => Ok(found),
        Err(NetfilterError::Ask { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where connections that were opened to `to` really go, with how many each; and whether all were looked at.
///
/// # Errors
/// As for [`lookup`].
pub fn destinations(netns: &Netns, to: SocketAddr) -> Result<(Vec<(SocketAddr, u32)>, bool), NetfilterError> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let request = Request::new(SUBSYSTEM, GET, libc::NLM_F_DUMP, u8::try_from(family).unwrap_or_default());
    let mut found: Vec<(SocketAddr, u32)> = Vec::new();
    let whole = ask(netns, &request, true, |_, _, attributes| {
        let Some(connection) = connection(attributes).filter(|found| found.original.to == to) else { return };
        match found.iter_mut().find(|(known, _)| *known == connection.reply.from) {
            Some((_, count)) => *count += 1,
            None => found.push((connection.reply.from, 1)),
        }
    })?;
    found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok((found, whole == Whole::Yes))
}

fn request(opened: Tuple) -> Request {
    let family = if opened.to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut addresses = Vec::new();
    for (address, v4, v6) in [(opened.from.ip(), 1, 3), (opened.to.ip(), 2, 4)] {
        match address {
            IpAddr::V4(address) => push_attribute(&mut addresses, v4, &address.octets()),
            IpAddr::V6(address) => push_attribute(&mut addresses, v6, &address.octets()),
        }
    }
    let mut protocol = Vec::new();
    push_attribute(&mut protocol, PROTO_NUM, &[TCP]);
    push_attribute(&mut protocol, PROTO_SRC_PORT, &opened.from.port().to_be_bytes());
    push_attribute(&mut protocol, PROTO_DST_PORT, &opened.to.port().to_be_bytes());
    let mut tuple = Vec::new();
    push_nested(&mut tuple, TUPLE_IP, &addresses);
    push_nested(&mut tuple, TUPLE_PROTO, &protocol);
    Request::new(SUBSYSTEM, GET, 0, u8::try_from(family).unwrap_or_default()).nested(TUPLE_ORIG, &tuple)
}

/// A TCP connection of an answer.
fn connection(attributes: &[u8]) -> Option<Connection> {
    Some(Connection {
        original: tuple(attribute(attributes, TUPLE_ORIG)?)?,
        reply: tuple(attribute(attributes, TUPLE_REPLY)?)?,
    })
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut from, mut to) = (None, None);
    for (kind, value) in attributes(attribute(bytes, TUPLE_IP)?) {
        match kind {
            1 | 3 => from = address(value),
            2 | 4 => to = address(value),
            _ => {}
        }
    }
    let protocol = attribute(bytes, TUPLE_PROTO)?;
    let port = |kind| attribute(protocol, kind).and_then(be16);
    if attribute(protocol, PROTO_NUM)? != [TCP] {
        return None;
    }
    Some(Tuple {
        from: SocketAddr::new(from?, port(PROTO_SRC_PORT)?),
        to: SocketAddr::new(to?, port(PROTO_DST_PORT)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netfilter::wire::{Message, messages};
    use proptest::prelude::*;

    fn tuple_of(from: &str, to: &str) -> Tuple {
        Tuple { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    /// The attributes of the request for this tuple.
    fn encoded(tuple: Tuple) -> Vec<u8> {
        let bytes = request(tuple).to_bytes(1);
        let Some(Some((_, Message::Object { attributes, .. }))) = messages(&bytes).next() else { panic!() };
        attributes.to_vec()
    }

    #[test]
    fn what_is_asked_for_is_what_is_read() {
        for tuple in [tuple_of("10.0.0.1:40000", "10.0.0.2:80"), tuple_of("[fd00::1]:40000", "[fd00::2]:443")]
        {
            let bytes = encoded(tuple);
            assert_eq!(super::tuple(attribute(&bytes, TUPLE_ORIG).unwrap()), Some(tuple));
        }
    }

    #[test]
    fn a_translated_connection_has_another_end() {
        let opened = tuple_of("10.0.0.1:40000", "10.0.0.2:8080");
        let reply = tuple_of("172.17.0.2:80", "172.17.0.1:40000");
        let mut attributes = encoded(opened);
        push_nested(&mut attributes, TUPLE_REPLY, attribute(&encoded(reply), TUPLE_ORIG).unwrap());
        let found = connection(&attributes).unwrap();
        assert_eq!(found, Connection { original: opened, reply });
        assert_eq!(found.translated(), tuple_of("172.17.0.1:40000", "172.17.0.2:80"));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = connection(&bytes);
            let _ = tuple(&bytes);
        }
    }
}
