//! The few rtnetlink requests that a stage needs: links up, a veth pair, addresses, routes. No iproute2 on a rescue system.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

const HEADER: usize = 16;
/// From linux/veth.h; libc has no name for it.
const VETH_INFO_PEER: u16 = 1;

/// A request under construction: `nlmsghdr`, then a fixed part, then attributes, which may nest.
pub(super) struct Request(Vec<u8>);

impl Request {
    pub(super) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or_default();
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes()); // the length, set when sent
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&1u32.to_ne_bytes()); // sequence number: one request a socket
        bytes.extend_from_slice(&0u32.to_ne_bytes()); // our port: the kernel fills it in
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend_from_slice(&length(value.len() + 4).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn nested(self, kind: u16, fixed: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let mut inner = Self(fixed.to_vec());
        inner = fill(inner);
        self.attribute(kind, &inner.0)
    }

    /// Its bytes, with their length in front.
    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        let length = u32::try_from(self.0.len()).map_err(io::Error::other)?;
        if let Some(field) = self.0.get_mut(..4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        Ok(self.0)
    }

    /// Sends it to the kernel of the calling thread's namespace and waits for the acknowledgement.
    fn send(self) -> io::Result<()> {
        acknowledged(&self.ask(SockProtocol::NetlinkRoute)?)
    }

    /// Sends it to the kernel's `protocol` in the calling thread's namespace; the first answer.
    pub(super) fn ask(self, protocol: SockProtocol) -> io::Result<Vec<u8>> {
        let bytes = self.finish()?;
        let netlink: OwnedFd =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        send(netlink.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut reply = vec![0; 16_384];
        let read = recv(netlink.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        reply.truncate(read);
        Ok(reply)
    }
}

fn length(bytes: usize) -> u16 {
    // Requests here are a hundred bytes long; a longer one is refused by the kernel as malformed.
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// The answer is one NLMSG_ERROR whose error is 0 for an acknowledgement.
pub(super) fn acknowledged(reply: &[u8]) -> io::Result<()> {
    let kind = reply.get(4..6).and_then(|field| field.try_into().ok()).map(u16::from_ne_bytes);
    let code = reply.get(HEADER..HEADER + 4).and_then(|field| field.try_into().ok()).map(i32::from_ne_bytes);
    match (kind.map(i32::from), code) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel answered rtnetlink with something else",
        )),
    }
}

/// `struct ifinfomsg`.
fn link(index: i32, flags: i32) -> [u8; 16] {
    let mut bytes = [0u8; 16];
    let (head, tail) = bytes.split_at_mut(8);
    if let Some(field) = head.get_mut(4..8) {
        field.copy_from_slice(&index.to_ne_bytes());
    }
    let (now, changed) = tail.split_at_mut(4);
    now.copy_from_slice(&flags.to_ne_bytes());
    changed.copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn index_of(name: &str) -> io::Result<i32> {
    i32::try_from(if_nametoindex(name)?).map_err(io::Error::other)
}

/// Sets a link up, in the calling thread's namespace.
pub(super) fn set_up(name: &str) -> io::Result<()> {
    Request::new(libc::RTM_NEWLINK, 0, &link(index_of(name)?, libc::IFF_UP)).send()
}

/// One end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// Its name.
    pub(super) name: &'static str,
    /// Its Ethernet address.
    pub(super) mac: [u8; 6],
}

/// Makes a veth pair: `here` in the calling thread's namespace, `there` in the namespace behind `elsewhere`.
pub(super) fn add_veth(here: End, there: End, elsewhere: BorrowedFd<'_>) -> io::Result<()> {
    let name = |end: End| [end.name.as_bytes(), b"\0"].concat();
    Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &link(0, 0))
        .attribute(libc::IFLA_IFNAME, &name(here))
        .attribute(libc::IFLA_ADDRESS, &here.mac)
        .nested(libc::IFLA_LINKINFO, &[], |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"veth").nested(libc::IFLA_INFO_DATA, &[], |data| {
                data.nested(VETH_INFO_PEER, &link(0, 0), |peer| {
                    peer.attribute(libc::IFLA_IFNAME, &name(there))
                        .attribute(libc::IFLA_ADDRESS, &there.mac)
                        .attribute(libc::IFLA_NET_NS_FD, &elsewhere.as_raw_fd().to_ne_bytes())
                })
            })
        })
        .send()
}

/// From linux/if_link.h; libc has no name for it.
const VRF_TABLE: u16 = 1;

/// Makes a VRF with a routing table of its own.
pub(super) fn add_vrf(name: &str, table: u32) -> io::Result<()> {
    Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &link(0, 0))
        .attribute(libc::IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat())
        .nested(libc::IFLA_LINKINFO, &[], |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"vrf")
                .nested(libc::IFLA_INFO_DATA, &[], |data| data.attribute(VRF_TABLE, &table.to_ne_bytes()))
        })
        .send()
}

/// Makes a link belong to another one, as to a VRF.
pub(super) fn set_master(name: &str, master: &str) -> io::Result<()> {
    Request::new(libc::RTM_NEWLINK, 0, &link(index_of(name)?, 0))
        .attribute(libc::IFLA_MASTER, &index_of(master)?.to_ne_bytes())
        .send()
}

/// Gives a link of the calling thread's namespace an address.
pub(super) fn add_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    // Without NODAD an IPv6 address is tentative, and cannot be bound, for its first second.
    add_flagged(name, address, prefix, libc::IFA_F_NODAD)
}

/// The same, of an IPv6 address that the kernel tests for uniqueness first.
pub(super) fn add_address_to_test(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    add_flagged(name, address, prefix, 0)
}

fn add_flagged(name: &str, address: IpAddr, prefix: u8, flags: u32) -> io::Result<()> {
    let (family, bytes) = wire(address)?;
    let flags = u8::try_from(flags).map_err(io::Error::other)?;
    let mut fixed = vec![family, prefix, flags, libc::RT_SCOPE_UNIVERSE];
    fixed.extend_from_slice(&index_of(name)?.to_ne_bytes()); // struct ifaddrmsg
    Request::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed)
        .attribute(libc::IFA_LOCAL, &bytes)
        .attribute(libc::IFA_ADDRESS, &bytes)
        .send()
}

/// Where packets for a range of addresses go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Via {
    /// To this neighbour.
    Gateway(IpAddr),
    /// The same, and who sends them goes by this address.
    GatewayFrom {
        /// The neighbour.
        gateway: IpAddr,
        /// The address.
        source: IpAddr,
    },
    /// To whoever has the address on this device.
    Device(&'static str),
    /// Nowhere, without a word to the sender.
    Nowhere,
}

/// Adds a route to the calling thread's namespace.
pub(super) fn add_route(to: IpAddr, prefix: u8, via: Via) -> io::Result<()> {
    let (family, destination) = wire(to)?;
    let kind = match via {
        Via::Gateway(_) | Via::GatewayFrom { .. } | Via::Device(_) => libc::RTN_UNICAST,
        Via::Nowhere => libc::RTN_BLACKHOLE,
    };
    let scope = match via {
        Via::Device(_) => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    // struct rtmsg: family, two prefix lengths, service, table, who made it, scope, type, flags.
    let head = [family, prefix, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, kind];
    let fixed = [&head[..], &[0; 4]].concat();
    let request = Request::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed)
        .attribute(libc::RTA_DST, &destination);
    match via {
        Via::Gateway(gateway) => request.attribute(libc::RTA_GATEWAY, &wire(gateway)?.1).send(),
        Via::GatewayFrom { gateway, source } => request
            .attribute(libc::RTA_GATEWAY, &wire(gateway)?.1)
            .attribute(libc::RTA_PREFSRC, &wire(source)?.1)
            .send(),
        Via::Device(name) => request.attribute(libc::RTA_OIF, &index_of(name)?.to_ne_bytes()).send(),
        Via::Nowhere => request.send(),
    }
}

/// An address's family and bytes, as rtnetlink takes them.
fn wire(address: IpAddr) -> io::Result<(u8, Vec<u8>)> {
    let (family, bytes) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    Ok((u8::try_from(family).map_err(io::Error::other)?, bytes))
}

/// Gives a device a queueing discipline that drops all that is to leave by it.
pub(super) fn drop_what_is_sent(name: &str) -> io::Result<()> {
    const TCA_KIND: u16 = 1;
    const TC_H_ROOT: u32 = u32::MAX;
    let index = if_nametoindex(name)?;
    // tcmsg: family, padding, device, handle, parent, info.
    let fixed: Vec<u8> = [0_u32, index, 0, TC_H_ROOT, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    Request::new(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &fixed)
        .attribute(TCA_KIND, b"blackhole\0")
        .send()
}

/// Makes packets to one of this host's own addresses go nowhere, in the calling thread's namespace.
pub(super) fn make_unreachable(address: std::net::Ipv4Addr) -> io::Result<()> {
    let family = u8::try_from(libc::AF_INET).map_err(io::Error::other)?;
    // In place of the local table's route to it: the address stays, so its sockets can still send.
    let (table, kind, scope) = (libc::RT_TABLE_LOCAL, libc::RTN_BLACKHOLE, libc::RT_SCOPE_UNIVERSE);
    let mut fixed = vec![family, 32, 0, 0, table, libc::RTPROT_STATIC, scope, kind]; // struct rtmsg
    fixed.extend_from_slice(&0u32.to_ne_bytes());
    Request::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &fixed)
        .attribute(libc::RTA_DST, &address.octets())
        .send()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_their_length_is_not() {
        let request = Request(Vec::new()).attribute(3, b"lo\0");
        assert_eq!(request.0, [7, 0, 3, 0, b'l', b'o', 0, 0]);
    }

    #[test]
    fn an_error_reply_becomes_its_errno() {
        let mut reply = vec![0u8; 36];
        reply[4..6].copy_from_slice(&2u16.to_ne_bytes());
        assert!(acknowledged(&reply).is_ok());
        reply[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(acknowledged(&reply).unwrap_err().raw_os_error(), Some(17));
        assert!(acknowledged(&reply[..10]).is_err());
    }
}
