//! Rules of legacy iptables (`iptables-legacy`, and iptables before nf_tables), by its socket options.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::expression::{Decision, Expression, decision};
use super::packet::{Hook, META_IIFNAME, META_L4PROTO, META_OIFNAME, NETWORK};
use super::ruleset::{Base, IPV4, IPV6, Named, Place, Rule, Ruleset};
use super::wire::{array, text, u16_at, u32_at};
use super::{Rules, xtables};
use crate::event::RuleDeed;
use crate::host::netns::{Netns, in_netns};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; IPv6's are the same numbers.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `struct ipt_getinfo`.
const INFO_LEN: usize = 84;
/// `struct ipt_get_entries` up to the entries.
const ENTRIES_HEADER: usize = 40;
const NAME_LEN: usize = 32;
/// A table is larger only by mistake.
const LARGEST: usize = 64 << 20;

/// The layout of an entry of one family.
struct Layout {
    family: u8,
    level: libc::c_int,
    domain: AddressFamily,
    names: &'static str,
    address_len: usize,
    /// Where the addresses are in the entry (source, destination, then their masks), and in a packet's header.
    addresses: [usize; 2],
    header: [u32; 2],
    /// Where the names of the devices are (in, out, then their masks), the protocol, flags and inversions.
    devices: usize,
    protocol: usize,
    flags: usize,
    /// The bit of the flags that makes a jump one without return.
    goto: u8,
    /// Where the offset of the target is; that of the next entry follows.
    target: usize,
    /// Where matches begin.
    matches: usize,
}

const V4: Layout = Layout {
    family: IPV4,
    level: libc::IPPROTO_IP,
    domain: AddressFamily::Inet,
    names: "/proc/thread-self/net/ip_tables_names",
    address_len: 4,
    addresses: [0, 4],
    header: [12, 16],
    devices: 16,
    protocol: 80,
    flags: 82,
    goto: 2,
    target: 88,
    matches: 112,
};

const V6: Layout = Layout {
    family: IPV6,
    level: libc::IPPROTO_IPV6,
    domain: AddressFamily::Inet6,
    names: "/proc/thread-self/net/ip6_tables_names",
    address_len: 16,
    addresses: [0, 16],
    header: [8, 24],
    devices: 64,
    protocol: 128,
    flags: 131,
    goto: 4,
    target: 140,
    matches: 168,
};

/// The tables, and the priorities of their chains: at the last hook `nat` comes later, which changes nothing here.
const TABLES: [(&str, i32); 5] =
    [("raw", -300), ("mangle", -150), ("nat", -100), ("filter", 0), ("security", 50)];

/// Adds the tables that are in use in the namespace.
pub(super) fn read(netns: &Netns, into: &mut Rules) {
    for layout in [&V4, &V6] {
        let names = in_netns(netns, || std::fs::read_to_string(layout.names));
        let names = match names {
            Ok(Ok(names)) => names,
            // Not loaded.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(Err(error)) => {
                into.unread.push(format!("legacy iptables' rules: cannot read {}: {error}", layout.names));
                continue;
            }
            Err(error) => {
                into.unread.push(format!("legacy iptables' rules: {error}"));
                continue;
            }
        };
        // To ask for a table that is not in use would put it into use.
        for (table, priority) in TABLES {
            if !names.lines().any(|name| name == table) {
                continue;
            }
            let read = in_netns(netns, || entries(layout, table));
            match read
                .map_err(|error| error.to_string())
                .and_then(|read| read.map_err(|error| error.to_string()))
            {
                Ok((info, bytes)) => {
                    if add(layout, (table, priority), &info, &bytes, &mut into.rules).is_none() {
                        into.unread.push(format!("legacy iptables' table {table}: it makes no sense"));
                    }
                }
                Err(error) => into.unread.push(format!("legacy iptables' table {table}: {error}")),
            }
        }
    }
}

/// `struct ipt_getinfo`, and the entries.
fn entries(layout: &Layout, table: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let socket: OwnedFd = socket(layout.domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let named = |length: usize| {
        let mut bytes = table.as_bytes().to_vec();
        bytes.resize(length, 0);
        bytes
    };
    let mut info = named(INFO_LEN);
    option(&socket, layout.level, GET_INFO, &mut info)?;
    let size = u32_at(&info, 80).ok_or(io::ErrorKind::InvalidData)?;
    let length =
        usize::try_from(size).ok().filter(|length| *length <= LARGEST).ok_or(io::ErrorKind::InvalidData)?;
    let mut bytes = named(ENTRIES_HEADER + length);
    if let Some(field) = bytes.get_mut(NAME_LEN..NAME_LEN + 4) {
        field.copy_from_slice(&size.to_ne_bytes());
    }
    // EAGAIN: the table has changed in between; whoever changes it may do so again.
    option(&socket, layout.level, GET_ENTRIES, &mut bytes)?;
    bytes.drain(..ENTRIES_HEADER);
    Ok((info, bytes))
}

fn option(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes to `value`, and reads and writes `length`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One entry: what it asks for, what it does.
struct Entry {
    expressions: Vec<Expression>,
    step: Step,
}

enum Step {
    Is(Expression),
    /// To the entry at this offset, without return if so.
    Jump(u32, bool),
    /// The head of a chain that a user made, with its name, or the end of the table.
    Boundary(String),
}

/// The hooks, in the order of their numbers.
const HOOKS: [(Hook, &str); 5] = [
    (Hook::Prerouting, "PREROUTING"),
    (Hook::Input, "INPUT"),
    (Hook::Forward, "FORWARD"),
    (Hook::Output, "OUTPUT"),
    (Hook::Postrouting, "POSTROUTING"),
];

/// Adds a table's rules: a chain for each hook, and for each head. `None` if the bytes make no sense.
fn add(
    layout: &Layout,
    (table, priority): (&str, i32),
    info: &[u8],
    bytes: &[u8],
    into: &mut Ruleset,
) -> Option<()> {
    let chain = |name: &str| Named {
        family: layout.family,
        table: format!("{table} (iptables-legacy)"),
        name: name.to_owned(),
    };
    // `valid_hooks`, then the offset of each hook's first entry, then that of its policy.
    let valid = u32_at(info, NAME_LEN)?;
    let number = |at: usize| u32_at(info, NAME_LEN + 4 + at * 4);
    let mut all: BTreeMap<u32, Entry> = BTreeMap::new();
    // The chains, by where their first rule is.
    let mut heads: BTreeMap<u32, String> = BTreeMap::new();
    let mut policies: BTreeSet<u32> = BTreeSet::new();
    let mut hooks: Vec<(Hook, &str, u32)> = Vec::new();
    for (at, (hook, name)) in HOOKS.into_iter().enumerate().filter(|(at, _)| valid & (1 << at) != 0) {
        heads.insert(number(at)?, name.to_owned());
        policies.insert(number(5 + at)?);
        hooks.push((hook, name, number(5 + at)?));
    }
    let mut at = 0;
    while at < bytes.len() {
        let (found, length) = entry(layout, bytes.get(at..)?)?;
        let (begin, end) = (u32::try_from(at).ok()?, u32::try_from(at + length).ok()?);
        if let Step::Boundary(name) = &found.step {
            heads.insert(end, name.clone());
        }
        all.insert(begin, found);
        at += length;
    }
    for (hook, name, policy) in hooks {
        // A chain of no rules is there all the same.
        let drops = all.get(&policy).is_some_and(|entry| {
            matches!(&entry.step, Step::Is(Expression::Decide(Decision::Ends(RuleDeed::Drop, _))))
        });
        into.add_base(Base { chain: chain(name), place: Place::Hook(hook), priority, drops });
    }
    for (begin, name) in &heads {
        for (count, (at, entry)) in all.range(begin..).enumerate() {
            // The policy is the last of a hook's chain; the head of another chain ends a user's.
            if policies.contains(at) || (count > 0 && heads.contains_key(at)) {
                break;
            }
            let step = match &entry.step {
                Step::Boundary(_) => break,
                Step::Is(expression) => expression.clone(),
                Step::Jump(to, goto) => {
                    let name = heads.get(to).cloned().unwrap_or_else(|| format!("at offset {to}"));
                    let decision = if *goto { Decision::Goto(name) } else { Decision::Jump(name) };
                    Expression::Decide(decision)
                }
            };
            let expressions = entry.expressions.iter().cloned().chain([step]).collect();
            into.add_rule(chain(name), Rule { label: format!("rule {}", count + 1), expressions });
        }
    }
    Some(())
}

/// An entry and its length.
fn entry(layout: &Layout, bytes: &[u8]) -> Option<(Entry, usize)> {
    let target_at = usize::from(u16_at(bytes, layout.target)?);
    let length = usize::from(u16_at(bytes, layout.target + 2)?);
    if target_at < layout.matches || length <= target_at {
        return None;
    }
    let bytes = bytes.get(..length)?;
    let mut expressions = conditions(layout, bytes)?;
    let mut at = layout.matches;
    while at < target_at {
        let (name, revision, info, size) = extension(bytes.get(at..target_at)?)?;
        let read = xtables::matches(&name, revision, info);
        expressions.push(read.unwrap_or_else(|| Expression::Open(format!("match {name}"))));
        at += size;
    }
    let (name, revision, info, _) = extension(bytes.get(target_at..)?)?;
    let step = match name.as_str() {
        "ERROR" => Step::Boundary(text(info)),
        // The standard target: a jump, or a verdict.
        "" => match u32_at(info, 0)?.cast_signed() {
            // To the entry that follows: no jump at all.
            to if to >= 0 => Step::Jump(to.cast_unsigned(), bytes.get(layout.flags)? & layout.goto != 0),
            -5 => Step::Is(Expression::Decide(Decision::Return)),
            verdict => Step::Is(
                decision(verdict.saturating_add(1).saturating_neg().cast_unsigned(), None)
                    .map_or_else(|| Expression::Open("a verdict".to_owned()), Expression::decide),
            ),
        },
        name => Step::Is(
            xtables::target(name, revision, info)
                .unwrap_or_else(|| Expression::Open(format!("target {name}"))),
        ),
    };
    Some((Entry { expressions, step }, length))
}

/// What an entry asks for before its matches: addresses, devices, the protocol.
fn conditions(layout: &Layout, bytes: &[u8]) -> Option<Vec<Expression>> {
    const DEVICE_NAME: usize = 16;
    const REGISTER: u32 = 1;
    let inversions = *bytes.get(layout.flags + 1)?;
    let mut found = Vec::new();
    let mut asks = |load: Expression, value: &[u8], mask: &[u8], inversion: u8| {
        if mask.iter().all(|byte| *byte == 0) {
            return;
        }
        let value = value.iter().zip(mask).map(|(byte, mask)| byte & mask).collect();
        found.extend([
            load,
            Expression::Bitwise {
                source: REGISTER,
                register: REGISTER,
                mask: mask.to_vec(),
                xor: vec![0; mask.len()],
            },
            Expression::Compare {
                register: REGISTER,
                operation: u32::from(inversions & inversion != 0),
                value,
            },
        ]);
    };
    let length = layout.address_len;
    for ((at, offset), inversion) in layout.addresses.into_iter().zip(layout.header).zip([0x08, 0x10]) {
        let load = Expression::Payload {
            register: REGISTER,
            base: NETWORK,
            offset,
            length: u32::try_from(length).ok()?,
        };
        let mask_at = at + 2 * length;
        asks(load, bytes.get(at..at + length)?, bytes.get(mask_at..mask_at + length)?, inversion);
    }
    for ((number, key), inversion) in [META_IIFNAME, META_OIFNAME].into_iter().enumerate().zip([0x01, 0x02]) {
        let at = layout.devices + number * DEVICE_NAME;
        let mask_at = at + 2 * DEVICE_NAME;
        let load = Expression::Meta { register: REGISTER, key };
        asks(load, bytes.get(at..at + DEVICE_NAME)?, bytes.get(mask_at..mask_at + DEVICE_NAME)?, inversion);
    }
    if let protocol @ 1.. = u16_at(bytes, layout.protocol)? {
        let load = Expression::Meta { register: REGISTER, key: META_L4PROTO };
        asks(load, &[u8::try_from(protocol).ok()?], &[u8::MAX], 0x40);
    }
    // Fragments and the type of service.
    let rest = bytes.get(layout.flags)? & if layout.family == IPV4 { 0x01 } else { 0x02 };
    if rest != 0 || inversions & 0x24 != 0 {
        found.push(Expression::Open("fragments or the type of service".to_owned()));
    }
    Some(found)
}

/// `struct xt_entry_match` or `xt_entry_target`: size, name, revision, then its own bytes.
fn extension(bytes: &[u8]) -> Option<(String, u32, &[u8], usize)> {
    const HEADER: usize = 32;
    let size = usize::from(u16_at(bytes, 0)?);
    let name = text(bytes.get(2..31)?);
    let [revision] = array(bytes, 31)?;
    Some((name, u32::from(revision), bytes.get(HEADER..size)?, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extension_bytes(name: &str, revision: u8, info: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(32 + info.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.resize(31, 0);
        bytes.push(revision);
        bytes.extend(info);
        bytes
    }

    fn entry_bytes(destination: [u8; 4], target: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; V4.matches];
        bytes[4..8].copy_from_slice(&destination);
        if destination != [0; 4] {
            bytes[12..16].copy_from_slice(&[255; 4]);
        }
        bytes[80..82].copy_from_slice(&6_u16.to_ne_bytes());
        bytes[88..90].copy_from_slice(&112_u16.to_ne_bytes());
        bytes[90..92].copy_from_slice(&u16::try_from(112 + target.len()).unwrap().to_ne_bytes());
        bytes.extend(target);
        bytes
    }

    #[test]
    fn a_table_with_a_jump_to_a_chain_that_translates_and_one_that_drops() {
        let jump = |to: i32| extension_bytes("", 0, &[to.to_ne_bytes(), [0; 4]].concat());
        let mut range = 1_u32.to_ne_bytes().to_vec();
        range.extend(3_u32.to_ne_bytes());
        range.extend([10, 0, 0, 2, 10, 0, 0, 2]);
        range.extend([80_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat());
        // INPUT: what comes to 10.0.0.3 is dropped, policy drop; OUTPUT: a jump to the third chain, policy accept; its head, its rule.
        let (accepts, drops) = (entry_bytes([0; 4], &jump(-2)), entry_bytes([0; 4], &jump(-1)));
        let size = accepts.len();
        let mut name = b"DOCKER".to_vec();
        name.resize(32, 0);
        let head = entry_bytes([0; 4], &extension_bytes("ERROR", 0, &name));
        let chain_at = i32::try_from(4 * size + head.len()).unwrap();
        let bytes = [
            entry_bytes([10, 0, 0, 3], &jump(-2)),
            drops,
            entry_bytes([10, 0, 0, 1], &jump(chain_at)),
            accepts.clone(),
            head,
            entry_bytes([0; 4], &extension_bytes("DNAT", 0, &range)),
            accepts,
        ]
        .concat();
        let mut info = vec![0; INFO_LEN];
        info[32..36].copy_from_slice(&0b1010_u32.to_ne_bytes());
        let mut put = |hook: usize, first: usize, policy: usize| {
            for (at, value) in [(36 + 4 * hook, first), (56 + 4 * hook, policy)] {
                info[at..at + 4].copy_from_slice(&u32::try_from(value * size).unwrap().to_ne_bytes());
            }
        };
        put(1, 0, 1);
        put(3, 2, 3);
        let mut rules = Ruleset::default();
        add(&V4, ("nat", 0), &info, &bytes, &mut rules).unwrap();
        let met = |hook, to: &str| rules.steering(hook, to.parse().unwrap(), true);
        let found = met(Hook::Output, "10.0.0.1:8080");
        assert_eq!(found[0].port, Some(80));
        assert_eq!(found[0].rule, "table ip nat (iptables-legacy), chain DOCKER, rule 1");
        assert!(met(Hook::Output, "10.0.0.9:8080").is_empty());
        assert!(met(Hook::Prerouting, "10.0.0.1:8080").is_empty());
        let dropped = |to: &str| rules.about(&crate::host::netfilter::packet::testing::packet(to)).rule;
        assert_eq!(dropped("10.0.0.3:80"), None);
        let policy = dropped("10.0.0.4:80").unwrap();
        assert_eq!(
            (policy.deed, policy.place.as_str()),
            (RuleDeed::Policy, "table ip nat (iptables-legacy), chain INPUT, policy drop")
        );
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600),
                     info in proptest::collection::vec(any::<u8>(), 0..100)) {
            for layout in [&V4, &V6] {
                let _ = (entry(layout, &bytes), add(layout, ("nat", 0), &info, &bytes, &mut Ruleset::default()));
            }
        }
    }
}
