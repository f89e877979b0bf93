//! The bytes of `NETLINK_SOCK_DIAG`: requests for TCP sockets, and what the kernel answers.
//!
//! Written by hand (`include/uapi/linux/{netlink,sock_diag,inet_diag}.h`) because netlink-packet-sock-diag 0.5 cannot
//! send a filter, drops the time left of TIME_WAIT sockets, and gives up a whole message for one odd attribute.
//! Parsing takes any bytes: every length is checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{DiagSocket, Family, SocketOptions, Timer, TimerKind};
use crate::event::SocketState;

const NLMSG_HEADER_LEN: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;

/// `struct inet_diag_req_v2` and `struct inet_diag_msg` without attributes.
const REQUEST_LEN: usize = 56;
const SOCKET_LEN: usize = 72;

const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;
/// Where `struct tcp_info` has `tcpi_last_ack_recv`.
const INFO_LAST_ACK_RECEIVED: usize = 56;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;
const INET_DIAG_SOCKOPT: u16 = 22;
const SK_MEMINFO_DROPS: usize = 8;

const BC_S_GE: u8 = 2;
const BC_S_LE: u8 = 3;
const BC_D_GE: u8 = 4;
const BC_D_LE: u8 = 5;
const BC_JMP: u8 = 1;

/// Ports that a socket must have to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Its own.
    Local(RangeInclusive<u16>),
    /// Its peer's.
    Remote(RangeInclusive<u16>),
    /// Either is this one.
    Either(u16),
}

/// One netlink message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A socket.
    Socket(DiagSocket),
    /// The dump is over: errno (positive), 0 for success.
    Done(i32),
    /// The request was refused: errno (positive).
    Error(i32),
    /// Something else, of no interest.
    Other,
}

/// A message with what its header says about the dump it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framed {
    /// The request that this answers.
    pub sequence: u32,
    /// The table changed while the kernel walked it (`NLM_F_DUMP_INTR`): sockets may be missing or doubled.
    pub interrupted: bool,
    /// The message.
    pub message: Message,
}

/// Bytes that are no netlink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed sock_diag answer: {0}")]
pub struct Malformed(&'static str);

/// A dump request for TCP sockets of one family.
///
/// `states` is a mask of `1 << state`; `ports` restricts to ports in that range, decided by the kernel. With `ages`, the
/// kernel tells when each connection last heard of its peer, for which it locks each socket.
pub fn request(family: Family, states: u32, ports: Option<&Ports>, ages: bool, sequence: u32) -> Vec<u8> {
    let mut body = Vec::with_capacity(REQUEST_LEN + 40);
    body.push(family.number());
    body.push(IPPROTO_TCP);
    body.push(1 << (INET_DIAG_SKMEMINFO - 1) | u8::from(ages) << (INET_DIAG_INFO - 1));
    body.push(0);
    body.extend(states.to_ne_bytes());
    body.extend([0; 48]); // struct inet_diag_sockid: any
    if let Some(ports) = ports {
        let code = port_filter(ports);
        body.extend(u16::try_from(4 + code.len()).unwrap_or(0).to_ne_bytes());
        body.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
        body.extend(code);
    }
    let mut message = Vec::with_capacity(NLMSG_HEADER_LEN + body.len());
    message.extend(u32::try_from(NLMSG_HEADER_LEN + body.len()).unwrap_or(0).to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    message
}

const IPPROTO_TCP: u8 = 6;

/// Filter program (`struct inet_diag_bc_op`). A socket with which it comes to its end is listed; a jump to four bytes past the end
/// rejects.
fn port_filter(ports: &Ports) -> Vec<u8> {
    match ports {
        Ports::Local(range) => within(BC_S_GE, BC_S_LE, range),
        Ports::Remote(range) => within(BC_D_GE, BC_D_LE, range),
        Ports::Either(port) => {
            let mut code = within(BC_S_GE, BC_S_LE, &(*port..=*port));
            let other = within(BC_D_GE, BC_D_LE, &(*port..=*port));
            // What the first rejects comes to four bytes past its end, and so to the other; what it takes jumps over that. (The
            // kernel does not let a comparison that holds jump so far.)
            code.extend([BC_JMP, 4]);
            code.extend(u16::try_from(4 + other.len()).unwrap_or(u16::MAX).to_ne_bytes());
            code.extend(other);
            code
        }
    }
}

/// Port ≥ first and ≤ last. A comparison is two operations long, the second carrying the port.
fn within(at_least: u8, at_most: u8, range: &RangeInclusive<u16>) -> Vec<u8> {
    const COMPARISON: u8 = 8;
    let mut code = Vec::with_capacity(36);
    for (operation, port, to_reject) in [(at_least, *range.start(), 20u16), (at_most, *range.end(), 12)] {
        code.push(operation);
        code.push(COMPARISON);
        code.extend(to_reject.to_ne_bytes());
        code.extend([0, 0]);
        code.extend(port.to_ne_bytes());
    }
    code
}

/// Splits what one `recv` returned into its messages.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Framed, Malformed>> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let taken = take_message(rest);
        match &taken {
            Ok((_, after)) => rest = after,
            Err(_) => rest = &[],
        }
        Some(taken.map(|(framed, _)| framed))
    })
}

fn take_message(bytes: &[u8]) -> Result<(Framed, &[u8]), Malformed> {
    let mut header = Reader(bytes);
    let cut = Malformed("shorter than a message header");
    let length = header.u32().ok_or(cut)?;
    let kind = header.u16().ok_or(cut)?;
    let flags = header.u16().ok_or(cut)?;
    let sequence = header.u32().ok_or(cut)?;
    header.u32().ok_or(cut)?;
    let length = usize::try_from(length).map_err(|_| cut)?;
    let body =
        bytes.get(NLMSG_HEADER_LEN..length).ok_or(Malformed("a message longer than what was received"))?;
    let after = bytes.get(align4(length)..).unwrap_or_default();
    let mut reader = Reader(body);
    let message = match kind {
        // Both carry a negative errno; kernels before 4.14 sent a DONE without one.
        NLMSG_DONE => Message::Done(reader.i32().unwrap_or(0).saturating_neg()),
        NLMSG_ERROR => {
            Message::Error(reader.i32().ok_or(Malformed("an error without number"))?.saturating_neg())
        }
        SOCK_DIAG_BY_FAMILY => Message::Socket(socket(body)?),
        _ => Message::Other,
    };
    Ok((Framed { sequence, interrupted: flags & NLM_F_DUMP_INTR != 0, message }, after))
}

/// `struct inet_diag_msg` and its attributes.
fn socket(body: &[u8]) -> Result<DiagSocket, Malformed> {
    let mut socket = fixed_part(body).ok_or(Malformed("a socket shorter than inet_diag_msg"))??;
    let mut rest = body.get(SOCKET_LEN..).unwrap_or_default();
    while let Some((kind, value, after)) = take_attribute(rest) {
        let mut value = Reader(value);
        match kind {
            INET_DIAG_INFO => {
                value.skip(INFO_LAST_ACK_RECEIVED);
                socket.silent_for = value.u32().map(|ms| Duration::from_millis(u64::from(ms)));
            }
            INET_DIAG_SKMEMINFO => {
                value.skip(4 * SK_MEMINFO_DROPS);
                socket.drops = value.u32();
            }
            INET_DIAG_SKV6ONLY => socket.v6only = value.u8().map(|flag| flag != 0),
            INET_DIAG_CGROUP_ID => socket.cgroup = value.u64(),
            INET_DIAG_SOCKOPT => socket.options = options(&mut value),
            _ => {}
        }
        rest = after;
    }
    Ok(socket)
}

fn fixed_part(body: &[u8]) -> Option<Result<DiagSocket, Malformed>> {
    let mut reader = Reader(body);
    let (family, state, timer, retransmits) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let (local_port, remote_port) = (reader.be16()?, reader.be16()?);
    let (local_ip, remote_ip) = (reader.bytes16()?, reader.bytes16()?);
    let ifindex = reader.u32()?;
    let (cookie_low, cookie_high) = (reader.u32()?, reader.u32()?);
    let (expires, rqueue, wqueue) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let (uid, inode) = (reader.u32()?, reader.u32()?);
    let Some(family) = Family::from_number(family) else {
        return Some(Err(Malformed("a socket that is neither IPv4 nor IPv6")));
    };
    let state = SocketState::from_kernel(state);
    if state == SocketState::Unknown {
        return Some(Err(Malformed("a socket in a state that TCP does not have")));
    }
    Some(Ok(DiagSocket {
        family,
        state,
        local: SocketAddr::new(address(family, local_ip), local_port),
        remote: SocketAddr::new(address(family, remote_ip), remote_port),
        ifindex,
        cookie: u64::from(cookie_high) << 32 | u64::from(cookie_low),
        timer: timer_kind(timer).map(|kind| Timer {
            kind,
            left: Duration::from_millis(u64::from(expires)),
            retransmits,
        }),
        rqueue,
        wqueue,
        uid,
        inode: u64::from(inode),
        drops: None,
        v6only: None,
        cgroup: None,
        options: None,
        silent_for: None,
    }))
}

fn address(family: Family, bytes: [u8; 16]) -> IpAddr {
    match (family, bytes) {
        (Family::V4, [a, b, c, d, ..]) => Ipv4Addr::new(a, b, c, d).into(),
        (Family::V6, bytes) => Ipv6Addr::from(bytes).into(),
    }
}

fn timer_kind(number: u8) -> Option<TimerKind> {
    Some(match number {
        1 => TimerKind::Retransmit,
        2 => TimerKind::KeepAlive,
        3 => TimerKind::TimeWait,
        4 => TimerKind::ZeroWindowProbe,
        _ => return None,
    })
}

/// `struct inet_diag_sockopt`: bit fields, so their place in the byte follows the machine's endianness.
fn options(value: &mut Reader<'_>) -> Option<SocketOptions> {
    let (first, second) = (value.u8()?, value.u8()?);
    let bit = |byte: u8, number: u8| {
        let byte = if cfg!(target_endian = "big") { byte.reverse_bits() } else { byte };
        byte & (1 << number) != 0
    };
    Some(SocketOptions {
        freebind: bit(first, 2),
        transparent: bit(first, 5),
        bind_address_no_port: bit(second, 0),
    })
}

/// The next attribute (`struct nlattr`): kind without its flag bits, value, and what follows. `None` at the end, and at
/// an attribute that is cut.
fn take_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    const KIND_MASK: u16 = 0x3fff;
    let mut header = Reader(bytes);
    let (length, kind) = (usize::from(header.u16()?), header.u16()?);
    let value = bytes.get(4..length)?;
    Some((kind & KIND_MASK, value, bytes.get(align4(length)..).unwrap_or_default()))
}

fn align4(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// Reads numbers off the front of a slice. After a read past the end, every read is `None`.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = self.0.split_first_chunk();
        self.0 = taken.map_or(&[][..], |(_, rest)| rest);
        taken.map(|(bytes, _)| *bytes)
    }

    fn skip(&mut self, count: usize) {
        self.0 = self.0.get(count..).unwrap_or_default();
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_ne_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn be16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn bytes16(&mut self) -> Option<[u8; 16]> {
        self.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(align4(bytes.len()), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(align4(bytes.len()), 0);
        bytes
    }

    fn listener() -> Vec<u8> {
        let mut body = vec![10, 10, 0, 0];
        body.extend(8080u16.to_be_bytes());
        body.extend(0u16.to_be_bytes());
        body.extend([0; 32]);
        for number in [3u32, 0x11, 0x22, 0, 5, 128, 1000, 4242] {
            body.extend(number.to_ne_bytes());
        }
        assert_eq!(body.len(), SOCKET_LEN);
        let mut meminfo = Vec::new();
        for number in 0u32..9 {
            meminfo.extend((number * 11).to_ne_bytes());
        }
        body.extend(attribute(INET_DIAG_SKV6ONLY, &[1]));
        body.extend(attribute(99, b"from a later kernel"));
        body.extend(attribute(INET_DIAG_SKMEMINFO, &meminfo));
        body.extend(attribute(INET_DIAG_CGROUP_ID, &77u64.to_ne_bytes()));
        body
    }

    #[test]
    fn a_listener_with_attributes() {
        let datagram = framed(SOCK_DIAG_BY_FAMILY, 2, &listener());
        let all: Vec<_> = messages(&datagram).collect();
        let [Ok(Framed { sequence: 7, interrupted: false, message: Message::Socket(socket) })] =
            all.as_slice()
        else {
            panic!("{all:?}")
        };
        assert_eq!(socket.local, "[::]:8080".parse().unwrap());
        assert_eq!((socket.family, socket.state), (Family::V6, SocketState::Listen));
        assert_eq!((socket.rqueue, socket.wqueue, socket.drops), (5, 128, Some(88)));
        assert_eq!((socket.ifindex, socket.uid, socket.inode), (3, 1000, 4242));
        assert_eq!((socket.cookie, socket.cgroup, socket.v6only), (0x22_0000_0011, Some(77), Some(true)));
    }

    #[test]
    fn several_messages_and_the_interrupted_flag() {
        let mut datagram = framed(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP_INTR, &listener());
        datagram.extend(framed(1, 0, &[]));
        datagram.extend(framed(NLMSG_DONE, 2, &(-libc::ENOENT).to_ne_bytes()));
        let all: Vec<_> = messages(&datagram).map(Result::unwrap).collect();
        assert_eq!(all.len(), 3);
        assert!(all[0].interrupted);
        assert_eq!(all[1].message, Message::Other);
        assert_eq!(all[2].message, Message::Done(libc::ENOENT));
        let refused: Vec<_> = messages(&framed(NLMSG_ERROR, 0, &(-libc::EPERM).to_ne_bytes())).collect();
        assert_eq!(refused[0].as_ref().unwrap().message, Message::Error(libc::EPERM));
    }

    #[test]
    fn cut_messages_are_errors_at_every_length() {
        let whole = framed(SOCK_DIAG_BY_FAMILY, 2, &listener());
        for length in 1..whole.len() - 3 {
            assert!(messages(&whole[..length]).next().unwrap().is_err(), "{length}");
        }
        let short = framed(SOCK_DIAG_BY_FAMILY, 2, &listener()[..SOCKET_LEN - 1]);
        assert!(messages(&short).next().unwrap().is_err());
    }

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        let request = request(Family::V4, 1 << 10, Some(&Ports::Local(80..=90)), true, 3);
        assert_eq!(request.len(), 16 + 56 + 4 + 16);
        assert_eq!(request[..4], 92u32.to_ne_bytes());
        // INET_DIAG_SKMEMINFO and INET_DIAG_INFO.
        assert_eq!(request[16..20], [2, 6, 64 | 2, 0]);
        assert_eq!(request[20..24], 1024u32.to_ne_bytes());
    }

    /// What `ss "( sport = :80 or dport = :80 )"` sends.
    #[test]
    fn a_port_on_either_side_is_two_filters_with_a_jump_between() {
        let code = port_filter(&Ports::Either(80));
        assert_eq!(code.len(), 16 + 4 + 16);
        assert_eq!(code[..16], port_filter(&Ports::Local(80..=80)));
        assert_eq!(code[16..20], [BC_JMP, 4, 20, 0]);
        assert_eq!(code[20..], port_filter(&Ports::Remote(80..=80)));
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let limit = bytes.len() / 16 + 1;
            prop_assert!(messages(&bytes).count() <= limit);
        }

        #[test]
        fn takes_any_socket_body(body in proptest::collection::vec(any::<u8>(), 0..200), flags: u16) {
            for message in messages(&framed(SOCK_DIAG_BY_FAMILY, flags, &body)) {
                let _ = message;
            }
        }

        #[test]
        fn takes_any_attributes(tail in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut body = listener();
            body.truncate(SOCKET_LEN);
            body.extend(tail);
            let datagram = framed(SOCK_DIAG_BY_FAMILY, 2, &body);
            prop_assert!(messages(&datagram).next().unwrap().is_ok());
        }
    }
}
