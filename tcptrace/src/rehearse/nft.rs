//! The one firewall rule that an incident needs, by nf_tables' netlink: no nft or iptables on a rescue system.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use super::error::Error;
use super::netlink::{Request, acknowledged};

/// Where packets meet the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// Packets for a socket of the namespace.
    Input,
    /// Packets of a socket of the namespace.
    Output,
}

/// A chain of a table, and the hook that it is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    hook: Hook,
    /// `NFPROTO_*`: of which address family, or of both.
    family: u8,
    table: &'static [u8],
    name: &'static [u8],
    /// Its rules count what they meet.
    counts: bool,
}

impl Chain {
    /// One of our own, for both address families.
    pub(super) fn nft(hook: Hook) -> Self {
        Self { hook, family: INET, table: b"tt-rehearsal\0", name: hook.chain(), counts: false }
    }

    /// The one that `iptables-nft` and `ip6tables-nft` keep their rules in; the rules count, as theirs do.
    pub(super) fn iptables(hook: Hook, ipv6: bool) -> Self {
        let family = if ipv6 { IPV6 } else { IPV4 };
        Self { hook, family, table: b"filter\0", name: hook.chain(), counts: true }
    }
}

impl Hook {
    fn chain(self) -> &'static [u8] {
        match self {
            Self::Input => b"INPUT\0",
            Self::Output => b"OUTPUT\0",
        }
    }
}

/// Which packets it meets, beside being TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// To this port.
    To(u16),
    /// From this port.
    From(u16),
    /// To this port, with no flag but ACK.
    BareAckTo(u16),
}

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are dropped without a word.
    Drop,
    /// They are answered by ICMP, port unreachable.
    PortUnreachable,
    /// They are answered by ICMP, host (or address) unreachable.
    HostUnreachable,
    /// They are answered by RST.
    Reset,
    /// They go to this queue, which some program reads or not.
    Queue(u16),
    /// The same as `iptables-nft` writes it, for its own chains.
    IptablesQueue(u16),
    /// They go on. That their connection is asked for has connections tracked from now on.
    Track,
}

// linux/netfilter/nf_tables.h and nfnetlink.h: part of the system-call interface.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NESTED: u16 = 0x8000;
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// First general register, and the one for verdicts.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;

/// Makes the rule in the calling thread's namespace; it lives as long as that.
pub(super) fn rule(chain: Chain, packets: Match, verdict: Verdict) -> io::Result<()> {
    let hook: u32 = match chain.hook {
        Hook::Input => 1,
        Hook::Output => 3,
    };
    let message = |kind, flags| message(chain.family, kind, flags).attribute(1, chain.table);
    let table = message(NEW_TABLE, libc::NLM_F_CREATE);
    let base = message(NEW_CHAIN, libc::NLM_F_CREATE)
        .attribute(3, chain.name)
        .nested(4 | NESTED, &[], |to| number(number(to, 1, hook), 2, 0))
        .attribute(7, b"filter\0");
    let rule = message(NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND).attribute(2, chain.name).nested(
        4 | NESTED,
        &[],
        |to| expressions(to, chain, packets, verdict),
    );
    commit([table, base, rule])
}

/// Has connections that the calling thread's namespace opens to `port` translated to `to`; it lives as long as the namespace.
pub(super) fn translate(port: u16, to: SocketAddr) -> io::Result<()> {
    const PORT_REGISTER: u32 = 2;
    const DESTINATION: u32 = 1; // NFT_NAT_DNAT
    let (family, number_of_family, address) = match to.ip() {
        IpAddr::V4(ip) => (IPV4, 2, ip.octets().to_vec()),
        IpAddr::V6(ip) => (IPV6, 10, ip.octets().to_vec()),
    };
    let message = |kind, flags| message(family, kind, flags).attribute(1, b"tt-published\0");
    let table = message(NEW_TABLE, libc::NLM_F_CREATE);
    let base = message(NEW_CHAIN, libc::NLM_F_CREATE)
        .attribute(3, b"output\0")
        // NF_INET_LOCAL_OUT, at the priority of translation of destinations (-100).
        .nested(4 | NESTED, &[], |to| number(number(to, 1, 3), 2, (-100_i32).cast_unsigned()))
        .attribute(7, b"nat\0");
    let rule = message(NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND).attribute(2, b"output\0").nested(
        4 | NESTED,
        &[],
        |list| {
            let list = tcp(list);
            let list = equals(transport(list, 2, 2), &port.to_be_bytes());
            let list = immediate(list, REGISTER, &address);
            let list = immediate(list, PORT_REGISTER, &to.port().to_be_bytes());
            expression(list, b"nat\0", |nat| {
                let nat = number(number(nat, 1, DESTINATION), 2, number_of_family);
                number(number(nat, 3, REGISTER), 5, PORT_REGISTER)
            })
        },
    );
    commit([table, base, rule])
}

/// Has connections that come into the calling thread's namespace for `port` taken by the transparent listener on port `to`, whichever
/// address they are for; it lives as long as the namespace.
pub(super) fn intercept(port: u16, to: u16, ipv6: bool) -> io::Result<()> {
    let (family, number_of_family) = if ipv6 { (IPV6, 10) } else { (IPV4, 2) };
    let message = |kind, flags| message(family, kind, flags).attribute(1, b"tt-transparent\0");
    let table = message(NEW_TABLE, libc::NLM_F_CREATE);
    let base = message(NEW_CHAIN, libc::NLM_F_CREATE)
        .attribute(3, b"prerouting\0")
        // NF_INET_PRE_ROUTING, at the priority of mangling (-150).
        .nested(4 | NESTED, &[], |to| number(number(to, 1, 0), 2, (-150_i32).cast_unsigned()))
        .attribute(7, b"filter\0");
    let rule = message(NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND)
        .attribute(2, b"prerouting\0")
        .nested(4 | NESTED, &[], |list| {
            let list = equals(transport(tcp(list), 2, 2), &port.to_be_bytes());
            let list = immediate(list, REGISTER, &to.to_be_bytes());
            expression(list, b"tproxy\0", |proxy| number(number(proxy, 1, number_of_family), 3, REGISTER))
        });
    commit([table, base, rule])
}

/// An error of its own for a kernel that lacks what a rule takes.
pub(super) fn lacking(source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOENT) => {
            Error::NotSupported("this kernel has no nf_tables, or not what the rule takes".into())
        }
        _ => Error::Io { what: "making a firewall rule in the private namespace".into(), source },
    }
}

/// Makes these three, or none of them.
fn commit(parts: [Request; 3]) -> io::Result<()> {
    let mut batch = edge(BATCH_BEGIN);
    for part in parts {
        batch.extend(part.finish()?);
    }
    batch.extend(edge(BATCH_END));

    let netfilter: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(netfilter.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(netfilter.as_raw_fd(), &batch, MsgFlags::empty())?;
    // One answer for each of the three; the first error tells.
    for _ in 0..3 {
        let mut reply = [0u8; 4096];
        let read = recv(netfilter.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        acknowledged(reply.get(..read).unwrap_or_default())?;
    }
    Ok(())
}

/// `nfgenmsg`: family, version, resource.
fn message(family: u8, kind: u16, flags: i32) -> Request {
    Request::new(kind, flags, &[family, 0, 0, 0])
}

/// The begin or the end of a batch, which is not acknowledged.
fn edge(kind: u16) -> Vec<u8> {
    let mut bytes = 20_u32.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&1_u16.to_ne_bytes()); // NLM_F_REQUEST
    bytes.extend_from_slice(&[0; 8]); // sequence number, port
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&SUBSYSTEM.to_be_bytes());
    bytes
}

fn number(to: Request, kind: u16, value: u32) -> Request {
    to.attribute(kind, &value.to_be_bytes())
}

fn expression(to: Request, name: &[u8], data: impl FnOnce(Request) -> Request) -> Request {
    to.nested(1 | NESTED, &[], |to| to.attribute(1, name).nested(2 | NESTED, &[], data))
}

/// These bytes go to the register.
fn immediate(to: Request, register: u32, value: &[u8]) -> Request {
    expression(to, b"immediate\0", |to| {
        number(to, 1, register).nested(2 | NESTED, &[], |to| to.attribute(1, value))
    })
}

/// The register equals these bytes.
fn equals(to: Request, value: &[u8]) -> Request {
    expression(to, b"cmp\0", |to| {
        number(number(to, 1, REGISTER), 2, 0).nested(3 | NESTED, &[], |to| to.attribute(1, value))
    })
}

/// Bytes of the transport header go to the register.
fn transport(to: Request, offset: u32, length: u32) -> Request {
    const TRANSPORT_HEADER: u32 = 2;
    expression(to, b"payload\0", |to| {
        number(number(number(number(to, 1, REGISTER), 2, TRANSPORT_HEADER), 3, offset), 4, length)
    })
}

/// It is TCP.
fn tcp(to: Request) -> Request {
    const L4PROTO: u32 = 16;
    equals(expression(to, b"meta\0", |to| number(number(to, 1, REGISTER), 2, L4PROTO)), &[6])
}

fn expressions(to: Request, chain: Chain, packets: Match, verdict: Verdict) -> Request {
    const ACK: u8 = 0x10;
    let to = tcp(to);
    let to = match packets {
        Match::From(port) => equals(transport(to, 0, 2), &port.to_be_bytes()),
        Match::To(port) | Match::BareAckTo(port) => equals(transport(to, 2, 2), &port.to_be_bytes()),
    };
    let to = match packets {
        Match::BareAckTo(_) => equals(transport(to, 13, 1), &[ACK]),
        _ => to,
    };
    let to = if chain.counts { expression(to, b"counter\0", |to| to) } else { to };
    match verdict {
        Verdict::Drop => expression(to, b"immediate\0", |to| {
            number(to, 1, VERDICT_REGISTER).nested(2 | NESTED, &[], |to| {
                to.nested(2 | NESTED, &[], |to| number(to, 1, 0)) // NF_DROP
            })
        }),
        // NFT_REJECT_ICMPX_UNREACH, and the code of it that stands for both address families' words.
        Verdict::PortUnreachable => expression(to, b"reject\0", |to| number(to, 1, 2).attribute(2, &[1])),
        // NFT_REJECT_TCP_RST.
        Verdict::Reset => expression(to, b"reject\0", |to| number(to, 1, 1).attribute(2, &[0])),
        Verdict::Queue(queue) => {
            let number = |to: Request, kind, value: u16| to.attribute(kind, &value.to_be_bytes());
            expression(to, b"queue\0", |to| number(number(to, 1, queue), 2, 1))
        }
        // `struct xt_NFQ_info`, filled up as iptables' structures are.
        Verdict::IptablesQueue(queue) => expression(to, b"target\0", |to| {
            let [low, high] = queue.to_ne_bytes();
            number(to.attribute(1, b"NFQUEUE\0"), 2, 0).attribute(3, &[low, high, 0, 0, 0, 0, 0, 0])
        }),
        // NFT_CT_STATE goes to the register, and nothing follows from it.
        Verdict::Track => expression(to, b"ct\0", |to| number(number(to, 1, REGISTER), 2, 0)),
        Verdict::HostUnreachable => expression(to, b"reject\0", |to| number(to, 1, 2).attribute(2, &[2])),
    }
}
