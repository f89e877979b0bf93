//! Expressions of nf_tables: what a rule asks of a packet, and what it does with it.

use crate::event::{Packet, RuleDeed};

use super::{FirewallPacket, IPV6};
use crate::host::firewall::rules::wire::Attributes;

/// Whether a packet is as a rule asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// It cannot be told from what is known of the packet.
    Open,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Return,
    Jump(String),
    Goto(String),
    Ends(RuleDeed, Option<u16>),
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Bytes of a header go to a register.
    Payload { register: u32, base: u32, offset: u32, length: u32 },
    /// A property of the packet goes to a register.
    Meta { register: u32, key: u32 },
    /// A register is compared.
    Compare { register: u32, operation: u32, value: Vec<u8> },
    /// A register lies in a range.
    Range { register: u32, outside: bool, from: Vec<u8>, to: Vec<u8> },
    /// Bits of a register are cut out.
    Bitwise { source: u32, register: u32, mask: Vec<u8>, xor: Vec<u8> },
    /// iptables' match on TCP ports and flags, as `iptables-nft` writes it.
    Tcp { source: [u16; 2], destination: [u16; 2], mask: u8, flags: u8, inverted: u8 },
    /// It ends the rule.
    Decide(Verdict),
    /// It changes nothing: counters, logs.
    Nothing,
    /// It writes a register, and what is not known.
    Fills { register: u32 },
    /// It asks for something that is not understood.
    Open,
}

/// Registers: 64 bytes, each known or not.
pub(super) struct Registers([Option<u8>; 64]);

impl Default for Registers {
    fn default() -> Self {
        Self([None; 64])
    }
}

impl Registers {
    /// Where a register begins: 1 to 4 have 16 bytes each, those from 8 on 4.
    fn start(register: u32) -> usize {
        let words = if register >= 8 { register - 8 } else { register.saturating_sub(1) * 4 };
        usize::try_from(words).unwrap_or_default() * 4
    }

    fn set(&mut self, register: u32, bytes: impl IntoIterator<Item = Option<u8>>) {
        let places = self.0.iter_mut().skip(Self::start(register));
        places.zip(bytes).for_each(|(place, byte)| *place = byte);
    }

    fn get(&self, register: u32, length: usize) -> Option<Vec<u8>> {
        let bytes: Vec<u8> =
            self.0.iter().skip(Self::start(register)).take(length).copied().collect::<Option<_>>()?;
        (bytes.len() == length).then_some(bytes)
    }
}

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

const META_PROTOCOL: u32 = 1;
const META_IIF: u32 = 4;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const TCP: u8 = 6;

impl Expression {
    /// From its name and its attributes.
    pub(super) fn read(name: &str, of: &Attributes<'_>) -> Self {
        let data = |kind| of.nested(kind).bytes(1).map(<[u8]>::to_vec);
        let read = || match name {
            "payload" => Some(Self::Payload {
                register: of.number(1)?,
                base: of.number(2)?,
                offset: of.number(3)?,
                length: of.number(4)?,
            }),
            "meta" => Some(match of.number(1) {
                Some(register) => Self::Meta { register, key: of.number(2)? },
                // It sets a property of the packet, such as its mark.
                None => Self::Nothing,
            }),
            "cmp" => {
                Some(Self::Compare { register: of.number(1)?, operation: of.number(2)?, value: data(3)? })
            }
            "range" => Some(Self::Range {
                register: of.number(1)?,
                outside: of.number(2)? == 1,
                from: data(3)?,
                to: data(4)?,
            }),
            // An operation other than 0 shifts.
            "bitwise" if of.number(6).unwrap_or(0) == 0 => Some(Self::Bitwise {
                source: of.number(1)?,
                register: of.number(2)?,
                mask: data(4)?,
                xor: data(5)?,
            }),
            "immediate" => {
                let verdict = of.nested(2).nested(2);
                match (verdict.number(1), of.number(1)) {
                    (Some(code), _) => Self::verdict(code, verdict.text(2)),
                    (None, Some(register)) => Some(Self::Fills { register }),
                    _ => None,
                }
            }
            "counter" | "log" | "comment" | "notrack" => Some(Self::Nothing),
            "reject" => Some(Self::Decide(Verdict::Ends(RuleDeed::Reject, None))),
            "synproxy" => Some(Self::Decide(Verdict::Ends(RuleDeed::Synproxy, None))),
            "queue" => Some(Self::Decide(Verdict::Ends(RuleDeed::Queue, of.short(1)))),
            "ct" | "rt" | "socket" | "fib" | "hash" | "numgen" | "exthdr" => match of.number(1) {
                Some(register) => Some(Self::Fills { register }),
                None => Some(Self::Nothing),
            },
            "match" if of.text(1).as_deref() == Some("tcp") => Self::tcp(of.bytes(3)?),
            "match" if of.text(1).as_deref() == Some("comment") => Some(Self::Nothing),
            "target" => match of.text(1)?.as_str() {
                "REJECT" => Some(Self::Decide(Verdict::Ends(RuleDeed::Reject, None))),
                "DROP" => Some(Self::Decide(Verdict::Ends(RuleDeed::Drop, None))),
                "SYNPROXY" => Some(Self::Decide(Verdict::Ends(RuleDeed::Synproxy, None))),
                "NFQUEUE" => {
                    let number = of.bytes(3)?.first_chunk::<2>().map(|bytes| u16::from_ne_bytes(*bytes));
                    Some(Self::Decide(Verdict::Ends(RuleDeed::Queue, number)))
                }
                "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" | "CT" => Some(Self::Nothing),
                _ => None,
            },
            _ => None,
        };
        read().unwrap_or(Self::Open)
    }

    fn verdict(code: u32, chain: Option<String>) -> Option<Self> {
        Some(Self::Decide(match code.cast_signed() {
            -1 => return Some(Self::Nothing),
            -3 => Verdict::Jump(chain?),
            -4 => Verdict::Goto(chain?),
            -5 => Verdict::Return,
            code if code < 0 => return None,
            _ => match code & 0xff {
                0 => Verdict::Ends(RuleDeed::Drop, None),
                1 => Verdict::Accept,
                3 => Verdict::Ends(RuleDeed::Queue, u16::try_from(code >> 16).ok()),
                _ => return None,
            },
        }))
    }

    /// `struct xt_tcp`.
    fn tcp(info: &[u8]) -> Option<Self> {
        let port = |at: usize| Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk::<2>()?));
        Some(Self::Tcp {
            source: [port(0)?, port(2)?],
            destination: [port(4)?, port(6)?],
            mask: *info.get(9)?,
            flags: *info.get(10)?,
            inverted: *info.get(11)?,
        })
    }

    /// Whether the packet is so; an error is the rule's verdict.
    pub(super) fn about(
        &self,
        packet: &FirewallPacket,
        family: u8,
        registers: &mut Registers,
    ) -> Result<Answer, Verdict> {
        Ok(match self {
            Self::Payload { register, base, offset, length } => {
                let header = match *base {
                    NETWORK_HEADER => network_header(packet),
                    TRANSPORT_HEADER => transport_header(packet),
                    _ => Vec::new(),
                };
                let (offset, length) = (size(*offset), size(*length));
                let bytes = (offset..offset + length).map(|at| header.get(at).copied().flatten());
                registers.set(*register, bytes);
                Answer::Yes
            }
            Self::Meta { register, key } => {
                registers.set(*register, meta(packet, *key, family));
                Answer::Yes
            }
            Self::Compare { register, operation, value } => match registers.get(*register, value.len()) {
                Some(known) => compare(&known, *operation, value),
                None => Answer::Open,
            },
            Self::Range { register, outside, from, to } => match registers.get(*register, from.len()) {
                Some(known) => ((*from <= known && known <= *to) != *outside).into(),
                None => Answer::Open,
            },
            Self::Bitwise { source, register, mask, xor } => {
                let known = registers.get(*source, mask.len());
                let bits = mask.iter().zip(xor).enumerate().map(|(at, (mask, xor))| {
                    let byte = known.as_ref()?.get(at)?;
                    Some((byte & mask) ^ xor)
                });
                registers.set(*register, bits);
                Answer::Yes
            }
            Self::Tcp { source, destination, mask, flags, inverted } => {
                let inside = |port: u16, [first, last]: [u16; 2], bit: u8| {
                    (first..=last).contains(&port) != (inverted & bit != 0)
                };
                let fits = (packet_flags(packet.packet) & mask == *flags) != (inverted & 4 != 0);
                (inside(packet.source.port(), *source, 1)
                    && inside(packet.destination.port(), *destination, 2)
                    && fits)
                    .into()
            }
            Self::Decide(verdict) => return Err(verdict.clone()),
            Self::Nothing => Answer::Yes,
            Self::Fills { register } => {
                registers.set(*register, [None; 16]);
                Answer::Yes
            }
            Self::Open => Answer::Open,
        })
    }
}

fn size(number: u32) -> usize {
    // Offsets and lengths in headers are below 256.
    usize::try_from(number).unwrap_or_default().min(256)
}

fn compare(known: &[u8], operation: u32, value: &[u8]) -> Answer {
    match operation {
        0 => (known == value).into(),
        1 => (known != value).into(),
        2 => (known < value).into(),
        3 => (known <= value).into(),
        4 => (known > value).into(),
        5 => (known >= value).into(),
        _ => Answer::Open,
    }
}

fn packet_flags(packet: Packet) -> u8 {
    match packet {
        Packet::Syn => 0x02,
        Packet::SynAck => 0x12,
        Packet::Ack => 0x10,
    }
}

fn network_header(packet: &FirewallPacket) -> Vec<Option<u8>> {
    let mut header = vec![None; 40];
    let mut put = |at: usize, bytes: &[u8]| {
        header.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = Some(*byte));
    };
    match (packet.source.ip(), packet.destination.ip()) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
            put(9, &[TCP]);
            put(12, &source.octets());
            put(16, &destination.octets());
            header.truncate(20);
        }
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
            put(6, &[TCP]);
            put(8, &source.octets());
            put(24, &destination.octets());
        }
        _ => {}
    }
    header
}

fn transport_header(packet: &FirewallPacket) -> Vec<Option<u8>> {
    let mut header = vec![None; 20];
    let ports = [packet.source.port().to_be_bytes(), packet.destination.port().to_be_bytes()].concat();
    header.iter_mut().zip(ports).for_each(|(place, byte)| *place = Some(byte));
    if let Some(place) = header.get_mut(13) {
        *place = Some(packet_flags(packet.packet));
    }
    header
}

fn meta(packet: &FirewallPacket, key: u32, family: u8) -> Vec<Option<u8>> {
    let ipv6 = packet.destination.is_ipv6();
    let known = |bytes: &[u8]| bytes.iter().copied().map(Some).collect();
    // 16 bytes, filled up with zeroes.
    let name = |wanted: bool| match packet.device_name.as_ref().filter(|_| wanted) {
        Some(name) => {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(16, 0);
            known(&bytes)
        }
        None => vec![None; 16],
    };
    match key {
        META_L4PROTO => known(&[TCP]),
        META_NFPROTO => known(&[if ipv6 { IPV6 } else { 2 }]),
        META_PROTOCOL if family != 7 => known(if ipv6 { &[0x86, 0xdd] } else { &[8, 0] }),
        META_IIF if !packet.outgoing && packet.device != 0 => known(&packet.device.to_ne_bytes()),
        META_IIFNAME => name(!packet.outgoing),
        META_OIFNAME => name(packet.outgoing),
        _ => vec![None; 16],
    }
}
