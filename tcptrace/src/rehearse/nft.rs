//! The one firewall rule that an incident needs, by nf_tables' netlink: no nft or iptables on a rescue system.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use super::netlink::{Request, acknowledged};

/// Where packets meet the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// Packets for a socket of the namespace.
    Input,
    /// Packets of a socket of the namespace.
    Output,
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
    Unreachable,
}

// linux/netfilter/nf_tables.h and nfnetlink.h: part of the system-call interface.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NESTED: u16 = 0x8000;
const TABLE: &[u8] = b"tt-rehearsal\0";
const CHAIN: &[u8] = b"rule\0";
const INET: u8 = 1;
/// First general register, and the one for verdicts.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;

/// Makes the rule in the calling thread's namespace; it lives as long as that.
pub(super) fn rule(hook: Hook, packets: Match, verdict: Verdict) -> io::Result<()> {
    let hook: u32 = match hook {
        Hook::Input => 1,
        Hook::Output => 3,
    };
    let table = message(NEW_TABLE, libc::NLM_F_CREATE).attribute(1, TABLE);
    let chain = message(NEW_CHAIN, libc::NLM_F_CREATE)
        .attribute(1, TABLE)
        .attribute(3, CHAIN)
        .nested(4 | NESTED, &[], |to| number(number(to, 1, hook), 2, 0))
        .attribute(7, b"filter\0");
    let rule = message(NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND)
        .attribute(1, TABLE)
        .attribute(2, CHAIN)
        .nested(4 | NESTED, &[], |to| expressions(to, packets, verdict));
    let mut batch = edge(BATCH_BEGIN);
    for part in [table, chain, rule] {
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
fn message(kind: u16, flags: i32) -> Request {
    Request::new(kind, flags, &[INET, 0, 0, 0])
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

fn expressions(to: Request, packets: Match, verdict: Verdict) -> Request {
    const L4PROTO: u32 = 16;
    const ACK: u8 = 0x10;
    let to = expression(to, b"meta\0", |to| number(number(to, 1, REGISTER), 2, L4PROTO));
    let to = equals(to, &[6]);
    let to = match packets {
        Match::From(port) => equals(transport(to, 0, 2), &port.to_be_bytes()),
        Match::To(port) | Match::BareAckTo(port) => equals(transport(to, 2, 2), &port.to_be_bytes()),
    };
    let to = match packets {
        Match::BareAckTo(_) => equals(transport(to, 13, 1), &[ACK]),
        _ => to,
    };
    match verdict {
        Verdict::Drop => expression(to, b"immediate\0", |to| {
            number(to, 1, VERDICT_REGISTER).nested(2 | NESTED, &[], |to| {
                to.nested(2 | NESTED, &[], |to| number(to, 1, 0)) // NF_DROP
            })
        }),
        Verdict::Unreachable => expression(to, b"reject\0", |to| number(to, 1, 2).attribute(2, &[1])),
    }
}
