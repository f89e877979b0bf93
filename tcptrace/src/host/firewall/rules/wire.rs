//! nf_tables' netlink messages: chains and rules, dumped.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::expression::Expression;
use super::{Base, Chain, Rule};

const SUBSYSTEM: u16 = 10;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const HEADER: usize = 16;
/// `struct nfgenmsg`.
const GENERIC: usize = 4;
/// What is read of a ruleset at most. A service mesh's may be longer; what is beyond it is not looked at.
const LONGEST: usize = 16 * 1024 * 1024;

/// All chains of the calling thread's namespace, with their rules.
pub(super) fn dump() -> io::Result<Vec<Chain>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
    let mut chains = Vec::new();
    ask(&netlink, GET_CHAIN, |kind, body| {
        if kind == NEW_CHAIN {
            chains.extend(chain(body));
        }
    })?;
    ask(&netlink, GET_RULE, |kind, body| {
        if kind == NEW_RULE {
            rule(body, &mut chains);
        }
    })?;
    Ok(chains)
}

fn ask(netlink: &impl AsRawFd, kind: u16, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or_default();
    let mut request = 20_u32.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0; GENERIC]);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        total += length;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() || total > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the ruleset is too long to be read"));
        }
        while let Some((kind, body, after)) = message(rest) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let code = body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                _ => each(kind, body),
            }
            rest = after;
        }
    }
}

fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk::<4>()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk::<2>()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Attributes one after another. All numbers are big-endian.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(u16::from_ne_bytes(*rest.first_chunk::<2>()?));
            let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk::<2>()?) & 0x3fff;
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        })
    }

    pub(super) fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(known, _)| *known == kind).map(|(_, value)| value)
    }

    pub(super) fn nested(&self, kind: u16) -> Self {
        Self(self.bytes(kind).unwrap_or_default())
    }

    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(*self.bytes(kind)?.first_chunk::<4>()?))
    }

    pub(super) fn short(&self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(*self.bytes(kind)?.first_chunk::<2>()?))
    }

    pub(super) fn text(&self, kind: u16) -> Option<String> {
        let bytes = self.bytes(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.get(..end).map(|text| String::from_utf8_lossy(text).into_owned())
    }
}

pub(super) fn chain(body: &[u8]) -> Option<Chain> {
    let of = Attributes(body.get(GENERIC..)?);
    let hook = of.nested(4);
    let base = hook.number(1).map(|number| Base {
        hook: number,
        priority: hook.number(2).map_or(0, u32::cast_signed),
        device: hook.text(3),
        drops: of.number(5) == Some(0),
    });
    Some(Chain { family: *body.first()?, table: of.text(1)?, name: of.text(3)?, base, rules: Vec::new() })
}

pub(super) fn rule(body: &[u8], chains: &mut [Chain]) -> Option<()> {
    let family = *body.first()?;
    let of = Attributes(body.get(GENERIC..)?);
    let (table, name) = (of.text(1)?, of.text(2)?);
    let handle = u64::from_be_bytes(*of.bytes(3)?.first_chunk::<8>()?);
    let list = of.nested(4);
    let expressions = list.iter().map(|(_, element)| {
        let element = Attributes(element);
        Expression::read(&element.text(1).unwrap_or_default(), &element.nested(2))
    });
    let expressions = expressions.collect();
    let chain = chains.iter_mut().find(|c| c.family == family && c.table == table && c.name == name)?;
    chain.rules.push(Rule { handle, expressions });
    Some(())
}
