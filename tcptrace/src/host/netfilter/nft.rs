//! Rules of nf_tables, by its netlink. Those that iptables-nft makes stand there as well, with matches and targets of xtables.

use std::collections::HashMap;

use super::NetfilterError;
use super::netlink::{Whole, ask};
use super::ruleset::{Action, ChainKey, Condition, Family, Hook, How, Rule, Ruleset};
use super::wire::{Request, attribute, attributes, be16, be32, text};
use super::{address, xtables};
use crate::host::netns::Netns;

// linux/netfilter/nfnetlink.h and nf_tables.h.
const SUBSYSTEM: u8 = 10;
const GET_CHAIN: u8 = 4;
const GET_RULE: u8 = 7;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const HOOK_NUM: u16 = 1;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const JUMP: i32 = -3;
const GOTO: i32 = -4;

/// Adds the rules of a namespace. Where nf_tables is not loaded there are none, and the question would load it.
pub(super) fn read(netns: &Netns, into: &mut Ruleset) -> Result<(), NetfilterError> {
    if !is_loaded() {
        return Ok(());
    }
    let dump = |message| Request::new(SUBSYSTEM, message, libc::NLM_F_DUMP, 0);
    let asked = ask(netns, &dump(GET_CHAIN), true, |_, family, attributes| {
        if let Some((chain, hook)) = base(family, attributes) {
            into.add_base(chain, hook);
        }
    });
    // Kernels without nf_tables, or without the last of its modules.
    if let Err(NetfilterError::Ask { source, .. }) = &asked
        && matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT))
    {
        return Ok(());
    }
    let mut whole = asked?;
    if whole == Whole::Yes {
        whole = ask(netns, &dump(GET_RULE), true, |_, family, attributes| {
            if let Some((chain, rule)) = rule(family, attributes) {
                into.add_rule(chain, rule);
            }
        })?;
    }
    match whole {
        Whole::Yes => Ok(()),
        Whole::Cut => {
            let source = std::io::Error::other("there are too many to read them all");
            Err(NetfilterError::Ask { netns: netns.id(), source })
        }
    }
}

/// Whether nf_tables is in the kernel already: as a module, or built in.
fn is_loaded() -> bool {
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    let has = |name: &str| modules.lines().any(|line| line.split(' ').next() == Some(name));
    // Built in, it is in no list; but then its question loads nothing either. A module of this kernel that is not loaded has a file.
    has("nf_tables") || !is_a_module("nf_tables")
}

/// Whether the running kernel has it as a module, loaded or not.
fn is_a_module(name: &str) -> bool {
    let Ok(system) = nix::sys::utsname::uname().map(|found| found.release().to_os_string()) else {
        return false;
    };
    let index = std::path::Path::new("/lib/modules").join(system).join("modules.dep");
    let Ok(index) = std::fs::read_to_string(index) else { return false };
    index
        .lines()
        .filter_map(|line| line.split(':').next()?.rsplit('/').next())
        .any(|file| file.strip_prefix(name).is_some_and(|ending| ending.starts_with(".ko")))
}

fn family(number: u8) -> Option<Family> {
    match number {
        1 => Some(Family::Both),
        2 => Some(Family::V4),
        10 => Some(Family::V6),
        _ => None,
    }
}

/// A chain that is called at one of the hooks that matter.
fn base(number: u8, attributes: &[u8]) -> Option<(ChainKey, Hook)> {
    let hook = attribute(attribute(attributes, CHAIN_HOOK)?, HOOK_NUM).and_then(be32)?;
    let hook = match hook {
        0 => Hook::Prerouting,
        3 => Hook::Output,
        _ => return None,
    };
    let chain = ChainKey {
        family: family(number)?,
        table: text(attribute(attributes, CHAIN_TABLE)?),
        chain: text(attribute(attributes, CHAIN_NAME)?),
    };
    Some((chain, hook))
}

/// A rule and its chain.
fn rule(number: u8, attributes: &[u8]) -> Option<(ChainKey, Rule)> {
    let chain = ChainKey {
        family: family(number)?,
        table: text(attribute(attributes, RULE_TABLE)?),
        chain: text(attribute(attributes, RULE_CHAIN)?),
    };
    let handle = attribute(attributes, RULE_HANDLE)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes);
    let mut reading = Reading::default();
    for (_, expression) in self::attributes(attribute(attributes, RULE_EXPRESSIONS).unwrap_or_default()) {
        let name = attribute(expression, EXPRESSION_NAME).map(text).unwrap_or_default();
        reading.expression(&name, attribute(expression, EXPRESSION_DATA).unwrap_or_default());
    }
    let rule = Rule {
        label: format!("handle {handle}"),
        conditions: reading.conditions,
        action: reading.action.unwrap_or(Action::None),
    };
    Some((chain, rule))
}

/// What a register holds.
#[derive(Debug, Clone)]
enum Held {
    Port,
    Address { v4: bool, prefix: u8 },
    Protocol,
    IsLocal,
    Bytes(Vec<u8>),
    Something,
}

#[derive(Default)]
struct Reading {
    registers: HashMap<u32, Held>,
    conditions: Vec<Condition>,
    action: Option<Action>,
}

impl Reading {
    fn expression(&mut self, name: &str, data: &[u8]) {
        let number = |kind| attribute(data, kind).and_then(be32);
        let register = |kind| number(kind).map(canonical);
        match name {
            "payload" => self.set(register(1), payload(number(2), number(3), number(4))),
            // NFT_META_L4PROTO
            "meta" if number(2) == Some(16) => self.set(register(1), Held::Protocol),
            // NFT_META_NFPROTO: both families have chains of their own here.
            "meta" => self.set(register(1), Held::Something),
            // The type of the destination (NFTA_FIB_F_DADDR, NFT_FIB_RESULT_ADDRTYPE), and of nothing else.
            "fib" if number(2) == Some(3) && number(3) == Some(2) => self.set(register(1), Held::IsLocal),
            "bitwise" => self.mask(register(1), register(2), data),
            "cmp" => self.compare(register(1), number(2), attribute(data, 3)),
            "range" => self.range(register(1), number(2), attribute(data, 3), attribute(data, 4)),
            "immediate" => self.immediate(register(1), attribute(data, 2).unwrap_or_default()),
            "lookup" => self.lookup(register(3)),
            "nat" if number(1) == Some(1) => self.steer(How::Dnat, register(3), register(5)),
            "nat" | "masq" | "counter" | "log" | "notrack" | "objref" => {}
            "redir" => self.steer(How::Redirect, None, register(1)),
            "tproxy" => self.steer(How::Tproxy, register(2), register(3)),
            "match" => {
                let (name, revision) = (attribute(data, 1).map(text).unwrap_or_default(), number(2));
                let info = attribute(data, 3).unwrap_or_default();
                self.conditions.extend(xtables::matches(&name, revision.unwrap_or(0), info));
            }
            "target" => {
                let (name, revision) = (attribute(data, 1).map(text).unwrap_or_default(), number(2));
                let info = attribute(data, 3).unwrap_or_default();
                self.action = xtables::target(&name, revision.unwrap_or(0), info).or(self.action.take());
            }
            // It writes registers, or lets packets through on conditions of its own.
            _ => {
                if let Some(register) = register(1) {
                    self.registers.insert(register, Held::Something);
                }
                self.conditions.push(Condition::Other);
            }
        }
    }

    fn set(&mut self, register: Option<u32>, held: Held) {
        if let Some(register) = register {
            self.registers.insert(register, held);
        }
    }

    fn held(&self, register: Option<u32>) -> Held {
        register.and_then(|register| self.registers.get(&register)).cloned().unwrap_or(Held::Something)
    }

    fn mask(&mut self, from: Option<u32>, to: Option<u32>, data: &[u8]) {
        let mask = attribute(data, 4).and_then(|mask| attribute(mask, DATA_VALUE));
        let held = match (self.held(from), mask.and_then(prefix_of)) {
            (Held::Address { v4, .. }, Some(prefix)) => Held::Address { v4, prefix },
            _ => Held::Something,
        };
        self.set(to, held);
    }

    fn compare(&mut self, register: Option<u32>, operation: Option<u32>, data: Option<&[u8]>) {
        let value = data.and_then(|data| attribute(data, DATA_VALUE)).unwrap_or_default();
        // NFT_CMP_LTE and NFT_CMP_GTE: a range of ports, half of it each.
        if let (Held::Port, Some(operation @ (3 | 5)), Some(port)) =
            (self.held(register), operation, be16(value))
        {
            let (first, last) = if operation == 3 { (0, port) } else { (port, u16::MAX) };
            return self.conditions.push(Condition::Port { first, last, negated: false });
        }
        // NFT_CMP_EQ and NFT_CMP_NEQ.
        let negated = match operation {
            Some(0) => false,
            Some(1) => true,
            _ => return self.conditions.push(Condition::Other),
        };
        let condition = match (self.held(register), negated) {
            (Held::Port, _) => be16(value).map(|port| Condition::Port { first: port, last: port, negated }),
            (Held::Address { v4, prefix }, _) => {
                let mut padded = value.to_vec();
                padded.resize(if v4 { 4 } else { 16 }, 0);
                address(&padded).map(|ip| Condition::To { ip, prefix, negated })
            }
            (Held::Protocol, false) => value.first().map(|protocol| Condition::Protocol(*protocol)),
            (Held::IsLocal, _) => {
                const LOCAL: u32 = libc::RTN_LOCAL as u32;
                (value == LOCAL.to_ne_bytes()).then_some(Condition::ToLocal { negated })
            }
            _ => None,
        };
        self.conditions.push(condition.unwrap_or(Condition::Other));
    }

    fn range(
        &mut self,
        register: Option<u32>,
        operation: Option<u32>,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
    ) {
        let bound = |data: Option<&[u8]>| attribute(data?, DATA_VALUE).and_then(be16);
        let condition = match (self.held(register), operation, bound(from), bound(to)) {
            (Held::Port, Some(operation @ 0..=1), Some(first), Some(last)) => {
                Condition::Port { first, last, negated: operation == 1 }
            }
            _ => Condition::Other,
        };
        self.conditions.push(condition);
    }

    fn immediate(&mut self, register: Option<u32>, data: &[u8]) {
        if let Some(value) = attribute(data, DATA_VALUE) {
            return self.set(register, Held::Bytes(value.to_vec()));
        }
        let Some(verdict) = attribute(data, DATA_VERDICT) else { return };
        let code = attribute(verdict, VERDICT_CODE).and_then(be32).map(u32::cast_signed);
        if let (Some(JUMP | GOTO), Some(chain)) = (code, attribute(verdict, VERDICT_CHAIN)) {
            self.action = Some(Action::Jump(text(chain)));
        }
    }

    /// A set is a condition; a map gives a value, or a verdict (register 0).
    fn lookup(&mut self, to: Option<u32>) {
        match to {
            Some(0) => self.action = Some(Action::JumpSomewhere),
            Some(register) => self.set(Some(register), Held::Something),
            None => {}
        }
        self.conditions.push(Condition::Other);
    }

    fn steer(&mut self, how: How, ip: Option<u32>, port: Option<u32>) {
        let bytes = |register: Option<u32>| match self.held(register) {
            Held::Bytes(bytes) => Some(bytes),
            _ => None,
        };
        let port = bytes(port).and_then(|bytes| be16(bytes.get(..2)?));
        let to = bytes(ip).and_then(|bytes| address(&bytes));
        self.action = Some(Action::Steer { how, to, port });
    }
}

/// The four registers of 16 bytes are the same memory as those of 4 bytes, which are counted from 8.
fn canonical(register: u32) -> u32 {
    match register {
        1..=4 => 8 + 4 * (register - 1),
        other => other,
    }
}

fn payload(base: Option<u32>, offset: Option<u32>, length: Option<u32>) -> Held {
    let prefix = |length: u32| u8::try_from(length * 8).unwrap_or(u8::MAX);
    match (base, offset, length) {
        (Some(2), Some(2), Some(2)) => Held::Port,
        (Some(1), Some(16), Some(length @ 1..=4)) => Held::Address { v4: true, prefix: prefix(length) },
        (Some(1), Some(24), Some(length @ 1..=16)) => Held::Address { v4: false, prefix: prefix(length) },
        (Some(1), Some(9), Some(1)) => Held::Protocol,
        _ => Held::Something,
    }
}

/// The length of a mask whose ones come first.
fn prefix_of(mask: &[u8]) -> Option<u8> {
    let ones: u32 = mask.iter().take_while(|byte| **byte == 0xff).map(|_| 8).sum();
    let last = mask.get(usize::try_from(ones / 8).ok()?).copied().unwrap_or(0);
    let rest = mask.get(usize::try_from(ones / 8).ok()? + 1..).unwrap_or_default();
    let contiguous =
        last.leading_ones() + last.trailing_zeros().min(8) >= 8 && rest.iter().all(|byte| *byte == 0);
    contiguous.then(|| u8::try_from(ones + last.leading_ones()).ok()).flatten()
}

#[cfg(test)]
mod tests;
