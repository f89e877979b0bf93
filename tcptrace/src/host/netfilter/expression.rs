//! What a rule asks of a packet, and what it does with it: expressions of nf_tables, to which the matches and targets of iptables
//! are brought as well.

use std::net::IpAddr;

use super::packet::{Bytes, RulePacket};
use super::ruleset::How;
use super::set::{Data, Set, may_equal};
use super::{address, xtables};
use crate::event::RuleDeed;
use crate::host::netfilter::wire::Attributes;

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

impl Answer {
    fn but(self, inverted: bool) -> Self {
        match self {
            Self::Open => Self::Open,
            known => ((known == Self::Yes) != inverted).into(),
        }
    }
}

/// What a rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Accept,
    Return,
    Jump(String),
    Goto(String),
    /// To any chain of the table: a map decides that could not be read.
    JumpSomewhere,
    Ends(RuleDeed, Option<u16>),
    /// Its destination is changed, or a socket is chosen for it.
    Steer {
        how: How,
        to: Option<IpAddr>,
        port: Option<u16>,
    },
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Bytes of a header go to a register.
    Payload { register: u32, base: u32, offset: u32, length: u32 },
    /// A property of the packet goes to a register.
    Meta { register: u32, key: u32 },
    /// The type of the destination's address goes to a register.
    AddressType { register: u32 },
    /// These bytes go to a register.
    Load { register: u32, value: Vec<u8> },
    /// A register is compared.
    Compare { register: u32, operation: u32, value: Vec<u8> },
    /// A register lies in a range.
    Range { register: u32, outside: bool, from: Vec<u8>, to: Vec<u8> },
    /// Bits of a register are cut out.
    Bitwise { source: u32, register: u32, mask: Vec<u8>, xor: Vec<u8> },
    /// A register is an element of a set; a map leads to bytes for a register, or to a verdict (register 0).
    Lookup { register: u32, set: String, inverted: bool, to: Option<u32> },
    /// iptables' match on TCP ports and flags.
    Tcp { source: [u16; 2], destination: [u16; 2], mask: u8, flags: u8, inverted: u8 },
    /// iptables' match on several ports and ranges.
    Ports { of_source: bool, of_destination: bool, ranges: Vec<[u16; 2]>, inverted: bool },
    /// The destination is one of the namespace's own addresses.
    ToLocal { inverted: bool },
    /// It ends the rule.
    Decide(Decision),
    /// The destination is changed to what registers hold.
    Steer { how: How, address: Option<u32>, port: Option<u32> },
    /// It changes nothing: counters, logs.
    Nothing,
    /// It writes a register with what is not known, which is named.
    Fills { register: u32, what: String },
    /// It asks for something that is not understood, which is named.
    Open(String),
}

/// What an expression comes to.
pub(super) enum Outcome {
    Is(Answer),
    /// With whether it is known to be so.
    Decides(Vec<(Decision, Answer)>),
}

/// Registers: 64 bytes, each known or not, and what those are that are not known.
pub(super) struct Registers {
    bytes: [Option<u8>; 64],
    names: Vec<(usize, String)>,
    /// Where it is known of a type of address that it is not `RTN_LOCAL`.
    not_local: Option<usize>,
}

impl Default for Registers {
    fn default() -> Self {
        Self { bytes: [None; 64], names: Vec::new(), not_local: None }
    }
}

const RTN_LOCAL: [u8; 4] = (libc::RTN_LOCAL as u32).to_ne_bytes();

impl Registers {
    /// Where a register begins: 1 to 4 have 16 bytes each, those from 8 on 4, in the same memory.
    fn start(register: u32) -> usize {
        let words = if register >= 8 { register - 8 } else { register.saturating_sub(1) * 4 };
        usize::try_from(words).unwrap_or_default() * 4
    }

    /// Writes whole words, as the kernel does.
    fn set(&mut self, register: u32, mut bytes: Bytes, what: &str) {
        let start = Self::start(register);
        bytes.resize(bytes.len().next_multiple_of(4), Some(0));
        self.not_local = self.not_local.filter(|at| *at != start);
        self.names.retain(|(at, _)| *at != start);
        if bytes.contains(&None) {
            self.names.push((start, what.to_owned()));
        }
        self.bytes.iter_mut().skip(start).zip(bytes).for_each(|(place, byte)| *place = byte);
    }

    fn get(&self, register: u32, length: usize) -> Bytes {
        let mut bytes: Bytes = self.bytes.iter().skip(Self::start(register)).take(length).copied().collect();
        bytes.resize(length, None);
        bytes
    }

    fn known(&self, register: u32, length: usize) -> Option<Vec<u8>> {
        self.get(register, length).into_iter().collect()
    }

    fn name(&self, register: u32) -> &str {
        let start = Self::start(register);
        self.names.iter().find(|(at, _)| *at == start).map_or("a value", |(_, name)| name)
    }
}

fn meta_name(key: u32) -> &'static str {
    match key {
        3 => "meta mark",
        4..=7 => "the device",
        10 | 11 => "the socket's user",
        _ => "meta",
    }
}

impl Expression {
    /// From its name and its attributes.
    pub(super) fn read(name: &str, of: &Attributes<'_>) -> Self {
        let data = |kind| of.nested(kind).bytes(1).map(<[u8]>::to_vec);
        let fills = |register: u16, what: &str| match of.number(register) {
            Some(register) => Self::Fills { register, what: what.to_owned() },
            // It sets a property of the packet or connection.
            None => Self::Nothing,
        };
        let read = || match name {
            "payload" => Some(match of.number(1) {
                Some(register) => Self::Payload {
                    register,
                    base: of.number(2)?,
                    offset: of.number(3)?,
                    length: of.number(4)?,
                },
                None => Self::Nothing,
            }),
            "meta" => Some(match of.number(1) {
                Some(register) => Self::Meta { register, key: of.number(2)? },
                None => Self::Nothing,
            }),
            // The type of the destination (NFTA_FIB_F_DADDR, NFT_FIB_RESULT_ADDRTYPE), and of nothing else.
            "fib" if of.number(2) == Some(3) && of.number(3) == Some(2) => {
                Some(Self::AddressType { register: of.number(1)? })
            }
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
            "bitwise" | "byteorder" => Some(fills(2, "a changed value")),
            "lookup" => Some(Self::Lookup {
                register: of.number(2)?,
                set: of.text(1)?,
                inverted: of.number(5).unwrap_or(0) & 1 != 0,
                to: of.number(3),
            }),
            "immediate" => {
                let (register, verdict) = (of.number(1)?, of.nested(2).nested(2));
                match verdict.number(1) {
                    Some(code) => decision(code, verdict.text(2)).map(Self::decide),
                    None => Some(Self::Load { register, value: data(2)? }),
                }
            }
            "nat" if of.number(1) == Some(1) => {
                Some(Self::Steer { how: How::Dnat, address: of.number(3), port: of.number(5) })
            }
            "nat" | "masq" => Some(Self::Decide(Decision::Accept)),
            "redir" => Some(Self::Steer { how: How::Redirect, address: None, port: of.number(1) }),
            "tproxy" => Some(Self::Steer { how: How::Tproxy, address: of.number(2), port: of.number(3) }),
            "counter" | "log" | "comment" | "notrack" | "last" | "dup" => Some(Self::Nothing),
            // A counter or a helper of connection tracking changes nothing; a limit or quota by name may.
            "objref" if matches!(of.number(1), Some(1 | 3)) => Some(Self::Nothing),
            "reject" => Some(Self::Decide(Decision::Ends(RuleDeed::Reject, None))),
            "synproxy" => Some(Self::Decide(Decision::Ends(RuleDeed::Synproxy, None))),
            "queue" => Some(Self::Decide(Decision::Ends(RuleDeed::Queue, of.short(1)))),
            "ct" => Some(fills(1, if of.number(2) == Some(0) { "ct state" } else { "ct" })),
            "rt" | "fib" | "numgen" | "exthdr" | "osf" | "xfrm" => Some(fills(1, name)),
            "socket" | "hash" => Some(fills(2, name)),
            "match" => {
                xtables::matches(&of.text(1)?, of.number(2).unwrap_or(0), of.bytes(3).unwrap_or_default())
            }
            "target" => {
                xtables::target(&of.text(1)?, of.number(2).unwrap_or(0), of.bytes(3).unwrap_or_default())
            }
            _ => None,
        };
        read().unwrap_or_else(|| {
            let what = of.text(1).filter(|_| matches!(name, "match" | "target"));
            Self::Open(what.map_or_else(|| name.to_owned(), |what| format!("{name} {what}")))
        })
    }

    /// What a verdict is, if it is one; otherwise the rule goes on.
    pub(super) fn decide(decision: Option<Decision>) -> Self {
        decision.map_or(Self::Nothing, Self::Decide)
    }

    /// What it asks for that cannot be told, in words.
    pub(super) fn what(&self, registers: &Registers) -> String {
        match self {
            Self::Open(what) => what.clone(),
            Self::Compare { register, .. } | Self::Range { register, .. } => {
                registers.name(*register).to_owned()
            }
            Self::Lookup { set, .. } => format!("set {set}"),
            Self::ToLocal { .. } => "whether the address is local".to_owned(),
            _ => "a port".to_owned(),
        }
    }

    /// What the packet makes of it. `sets` gives a set of its table by name, if it was read.
    pub(super) fn about<'s>(
        &self,
        packet: &RulePacket,
        registers: &mut Registers,
        sets: &impl Fn(&str) -> Option<&'s Set>,
    ) -> Outcome {
        Outcome::Is(match self {
            Self::Payload { register, base, offset, length } => {
                registers.set(*register, packet.header(*base, *offset, *length), "its source or headers");
                Answer::Yes
            }
            Self::Meta { register, key } => {
                registers.set(*register, packet.meta(*key), meta_name(*key));
                Answer::Yes
            }
            Self::AddressType { register } => {
                let local = packet.is_local == Some(true);
                let bytes = if local { RTN_LOCAL.map(Some) } else { [None; 4] };
                registers.set(*register, bytes.to_vec(), "the type of the address");
                registers.not_local = (packet.is_local == Some(false)).then(|| Registers::start(*register));
                Answer::Yes
            }
            Self::Load { register, value } => {
                registers.set(*register, value.iter().copied().map(Some).collect(), "");
                Answer::Yes
            }
            Self::Compare { register, operation, value } => compare(registers, *register, *operation, value),
            Self::Range { register, outside, from, to } => match registers.known(*register, from.len()) {
                Some(known) => ((*from <= known && known <= *to) != *outside).into(),
                None => Answer::Open,
            },
            Self::Bitwise { source, register, mask, xor } => {
                let what = registers.name(*source).to_owned();
                let bytes = registers.get(*source, mask.len()).into_iter().zip(mask.iter().zip(xor));
                // What is cut off need not be known.
                let cut =
                    bytes.map(
                        |(byte, (mask, xor))| {
                            if *mask == 0 { Some(*xor) } else { byte.map(|byte| (byte & mask) ^ xor) }
                        },
                    );
                let cut: Bytes = cut.collect();
                registers.set(*register, cut, &what);
                Answer::Yes
            }
            Self::Lookup { register, set, inverted, to } => {
                return lookup(registers, *register, sets(set), *inverted, *to);
            }
            Self::Tcp { source, destination, mask, flags, inverted } => {
                let inside = |port: Option<u16>, [first, last]: [u16; 2], bit: u8| match port {
                    Some(port) => Answer::from((first..=last).contains(&port)).but(inverted & bit != 0),
                    None if (first, last) == (0, u16::MAX) => Answer::Yes.but(inverted & bit != 0),
                    None => Answer::Open,
                };
                all([
                    inside(packet.source_port(), *source, 1),
                    inside(Some(packet.destination.port()), *destination, 2),
                    Answer::from(packet.flags() & mask == *flags).but(inverted & 4 != 0),
                ])
            }
            Self::Ports { of_source, of_destination, ranges, inverted } => {
                let is = |port: u16| ranges.iter().any(|[first, last]| (*first..=*last).contains(&port));
                let source = packet.source_port().filter(|_| *of_source).map(is);
                let destination = *of_destination && is(packet.destination.port());
                match (destination || source == Some(true), *of_source && source.is_none()) {
                    (false, true) => Answer::Open,
                    (found, _) => (found != *inverted).into(),
                }
            }
            Self::ToLocal { inverted } => {
                packet.is_local.map_or(Answer::Open, |local| (local != *inverted).into())
            }
            Self::Decide(decision) => return Outcome::Decides(vec![(decision.clone(), Answer::Yes)]),
            Self::Steer { how, address: at, port } => {
                let length = if packet.destination.is_ipv4() { 4 } else { 16 };
                let to = at.and_then(|register| address(&registers.known(register, length)?));
                let port = port.and_then(|register| registers.known(register, 2));
                let port = port.and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
                return Outcome::Decides(vec![(Decision::Steer { how: *how, to, port }, Answer::Yes)]);
            }
            Self::Nothing => Answer::Yes,
            Self::Fills { register, what } => {
                registers.set(*register, vec![None; 16], what);
                Answer::Yes
            }
            Self::Open(_) => Answer::Open,
        })
    }
}

/// A verdict; `Some(None)` for one by which the rule goes on, `None` for one that is not understood.
pub(super) fn decision(code: u32, chain: Option<String>) -> Option<Option<Decision>> {
    Some(Some(match code.cast_signed() {
        -1 => return Some(None),
        -3 => Decision::Jump(chain?),
        -4 => Decision::Goto(chain?),
        -5 => Decision::Return,
        code if code < 0 => return None,
        code => match code & 0xff {
            0 => Decision::Ends(RuleDeed::Drop, None),
            1 => Decision::Accept,
            3 => Decision::Ends(RuleDeed::Queue, u16::try_from(code >> 16).ok()),
            _ => return None,
        },
    }))
}

fn all(answers: [Answer; 3]) -> Answer {
    if answers.contains(&Answer::No) {
        return Answer::No;
    }
    if answers.contains(&Answer::Open) { Answer::Open } else { Answer::Yes }
}

fn compare(registers: &Registers, register: u32, operation: u32, value: &[u8]) -> Answer {
    if registers.not_local == Some(Registers::start(register)) && value == RTN_LOCAL {
        return match operation {
            0 => Answer::No,
            1 => Answer::Yes,
            _ => Answer::Open,
        };
    }
    let bytes = registers.get(register, value.len());
    if let 0 | 1 = operation {
        return may_equal(&bytes, value).but(operation == 1);
    }
    let Some(known) = bytes.into_iter().collect::<Option<Vec<u8>>>() else { return Answer::Open };
    match operation {
        2 => (*known < *value).into(),
        3 => (*known <= *value).into(),
        4 => (*known > *value).into(),
        5 => (*known >= *value).into(),
        _ => Answer::Open,
    }
}

fn lookup(
    registers: &mut Registers,
    register: u32,
    set: Option<&Set>,
    inverted: bool,
    to: Option<u32>,
) -> Outcome {
    let Some(set) = set else {
        return match to {
            Some(0) => Outcome::Decides(vec![(Decision::JumpSomewhere, Answer::Open)]),
            Some(to) => {
                registers.set(to, vec![None; 16], "what a map holds");
                Outcome::Is(Answer::Open)
            }
            None => Outcome::Is(Answer::Open),
        };
    };
    let found = set.lookup(&registers.get(register, set.key_len()));
    let first = found.first().map_or(Answer::No, |(_, answer)| *answer);
    match to {
        None => Outcome::Is(first.but(inverted)),
        Some(0) => {
            let decided = found.iter().filter_map(|(data, answer)| match data {
                Data::Decides(Some(decision)) => Some((decision.clone(), *answer)),
                _ => None,
            });
            let decided: Vec<_> = decided.collect();
            // Nothing found ends the rule; an element by which the rule goes on does not.
            if decided.is_empty() { Outcome::Is(first) } else { Outcome::Decides(decided) }
        }
        Some(to) => {
            let value = match found.as_slice() {
                [(Data::Value(value), Answer::Yes)] => value.iter().copied().map(Some).collect(),
                _ => vec![None; 16],
            };
            registers.set(to, value, "what a map holds");
            Outcome::Is(first)
        }
    }
}
