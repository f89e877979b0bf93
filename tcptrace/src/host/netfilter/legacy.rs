//! Rules of legacy iptables (`iptables-legacy`, and iptables before nf_tables), by its socket options.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::Rules;
use super::ruleset::{Action, ChainKey, Condition, Family, Hook, Rule, Ruleset};
use super::wire::{array, text, u16_at, u32_at};
use super::{address, xtables};
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
    family: Family,
    level: libc::c_int,
    domain: AddressFamily,
    names: &'static str,
    /// Where the destination, its mask, the protocol and the inversions are.
    destination: usize,
    mask: usize,
    address_len: usize,
    protocol: usize,
    inversions: usize,
    /// Where the offset of the target is; that of the next entry follows.
    target: usize,
    /// Where matches begin.
    matches: usize,
}

const V4: Layout = Layout {
    family: Family::V4,
    level: libc::IPPROTO_IP,
    domain: AddressFamily::Inet,
    names: "/proc/thread-self/net/ip_tables_names",
    destination: 4,
    mask: 12,
    address_len: 4,
    protocol: 80,
    inversions: 83,
    target: 88,
    matches: 112,
};

const V6: Layout = Layout {
    family: Family::V6,
    level: libc::IPPROTO_IPV6,
    domain: AddressFamily::Inet6,
    names: "/proc/thread-self/net/ip6_tables_names",
    destination: 16,
    mask: 48,
    address_len: 16,
    protocol: 128,
    inversions: 132,
    target: 140,
    matches: 168,
};

/// Adds the tables that translate (`nat`) or steer (`mangle`), if they are in use in the namespace.
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
        for table in names.lines().filter(|name| matches!(*name, "nat" | "mangle")) {
            let read = in_netns(netns, || entries(layout, table));
            match read
                .map_err(|error| error.to_string())
                .and_then(|read| read.map_err(|error| error.to_string()))
            {
                Ok((info, bytes)) => {
                    if add(layout, table, &info, &bytes, &mut into.rules).is_none() {
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

/// One entry: where it begins, what it asks for, what it does.
struct Entry {
    conditions: Vec<Condition>,
    action: Step,
}

enum Step {
    Is(Action),
    /// To the entry at this offset.
    Jump(u32),
    /// The head of a chain that a user made, or the end of the table.
    Boundary,
}

/// Adds a table's rules: a chain for each place at which one begins. `None` if the bytes make no sense.
fn add(layout: &Layout, table: &str, info: &[u8], bytes: &[u8], into: &mut Ruleset) -> Option<()> {
    let mut all: BTreeMap<u32, Entry> = BTreeMap::new();
    let mut at = 0;
    while at < bytes.len() {
        let (found, length) = entry(layout, bytes.get(at..)?)?;
        all.insert(u32::try_from(at).ok()?, found);
        at += length;
    }
    // `valid_hooks`, then the offset of each hook's first entry.
    let valid = u32_at(info, NAME_LEN)?;
    let first_at = |hook: usize| u32_at(info, NAME_LEN + 4 + hook * 4);
    let mut beginnings: BTreeSet<u32> = BTreeSet::new();
    for (number, hook) in [(0, Hook::Prerouting), (3, Hook::Output)] {
        if valid & (1 << number) != 0 {
            let first = first_at(number)?;
            beginnings.insert(first);
            into.add_base(chain(layout, table, first), hook);
        }
    }
    beginnings.extend(all.values().filter_map(|entry| match entry.action {
        Step::Jump(to) => Some(to),
        _ => None,
    }));
    // The other hooks' chains end a chain as well.
    let ends: BTreeSet<u32> = (0..5).filter(|hook| valid & (1 << hook) != 0).filter_map(first_at).collect();
    for beginning in beginnings {
        for (number, (at, entry)) in all.range(beginning..).enumerate() {
            if number > 0 && ends.contains(at) {
                break;
            }
            let action = match &entry.action {
                Step::Boundary => break,
                Step::Is(action) => action.clone(),
                Step::Jump(to) => Action::Jump(name(*to)),
            };
            let rule =
                Rule { label: format!("rule {}", number + 1), conditions: entry.conditions.clone(), action };
            into.add_rule(chain(layout, table, beginning), rule);
        }
    }
    Some(())
}

fn name(at: u32) -> String {
    format!("at offset {at}")
}

fn chain(layout: &Layout, table: &str, at: u32) -> ChainKey {
    ChainKey { family: layout.family, table: format!("{table} (iptables-legacy)"), chain: name(at) }
}

/// An entry and its length.
fn entry(layout: &Layout, bytes: &[u8]) -> Option<(Entry, usize)> {
    const INVERTED_DESTINATION: u8 = 0x10;
    const INVERTED_PROTOCOL: u8 = 0x40;
    let target_at = usize::from(u16_at(bytes, layout.target)?);
    let length = usize::from(u16_at(bytes, layout.target + 2)?);
    if target_at < layout.matches || length <= target_at {
        return None;
    }
    let bytes = bytes.get(..length)?;
    let mut conditions = Vec::new();
    let part = |at: usize| bytes.get(at..at + layout.address_len);
    let (to, mask) = (part(layout.destination)?, part(layout.mask)?);
    let inverted = *bytes.get(layout.inversions)?;
    let protocol = u16_at(bytes, layout.protocol)?;
    if mask.iter().any(|byte| *byte != 0) {
        let prefix: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
        let negated = inverted & INVERTED_DESTINATION != 0;
        conditions.push(Condition::To { ip: address(to)?, prefix: u8::try_from(prefix).ok()?, negated });
    }
    if protocol != 0 {
        let known = u8::try_from(protocol).ok().filter(|_| inverted & INVERTED_PROTOCOL == 0);
        conditions.push(known.map_or(Condition::Other, Condition::Protocol));
    }
    // Source, and the devices that it came by or goes by: everything before the protocol that is neither destination nor its mask.
    let rest = bytes.get(..layout.protocol)?.iter().enumerate().any(|(at, byte)| {
        let covered = |from: usize| (from..from + layout.address_len).contains(&at);
        *byte != 0 && !covered(layout.destination) && !covered(layout.mask)
    });
    if rest || inverted & !(INVERTED_DESTINATION | INVERTED_PROTOCOL) != 0 {
        conditions.push(Condition::Other);
    }
    let mut at = layout.matches;
    while at < target_at {
        let (name, revision, info, size) = extension(bytes.get(at..target_at)?)?;
        conditions.extend(xtables::matches(&name, revision, info));
        at += size;
    }
    let (name, revision, info, _) = extension(bytes.get(target_at..)?)?;
    let action = match name.as_str() {
        "ERROR" => Step::Boundary,
        // The standard target: a jump, or a verdict.
        "" => match u32_at(info, 0)?.cast_signed() {
            // To the entry that follows: no jump at all.
            to if to >= 0 => Step::Jump(to.cast_unsigned()),
            _ => Step::Is(Action::None),
        },
        name => Step::Is(xtables::target(name, revision, info).unwrap_or(Action::None)),
    };
    Some((Entry { conditions, action }, length))
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
    fn a_table_with_a_jump_to_a_chain_that_translates() {
        let jump = |to: i32| extension_bytes("", 0, &[to.to_ne_bytes(), [0; 4]].concat());
        let mut range = 1_u32.to_ne_bytes().to_vec();
        range.extend(3_u32.to_ne_bytes());
        range.extend([10, 0, 0, 2, 10, 0, 0, 2]);
        range.extend([80_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat());
        // PREROUTING: policy; OUTPUT: a jump to the third chain, policy; its head, its rule.
        let policy = entry_bytes([0; 4], &jump(-2));
        let first = policy.len();
        let head = entry_bytes([0; 4], &extension_bytes("ERROR", 0, &[0; 32]));
        let chain_at = i32::try_from(first + 2 * policy.len() + head.len()).unwrap();
        let bytes = [
            policy.clone(),
            entry_bytes([10, 0, 0, 1], &jump(chain_at)),
            policy.clone(),
            head,
            entry_bytes([0; 4], &extension_bytes("DNAT", 0, &range)),
            policy,
        ]
        .concat();
        let mut info = vec![0; INFO_LEN];
        info[32..36].copy_from_slice(&0b1001_u32.to_ne_bytes());
        info[36 + 12..36 + 16].copy_from_slice(&u32::try_from(first).unwrap().to_ne_bytes());
        let mut rules = Ruleset::default();
        add(&V4, "nat", &info, &bytes, &mut rules).unwrap();
        let met = |hook, to: &str| rules.steering(hook, to.parse().unwrap(), true);
        assert_eq!(met(Hook::Output, "10.0.0.1:8080")[0].port, Some(80));
        assert!(met(Hook::Output, "10.0.0.9:8080").is_empty());
        assert!(met(Hook::Prerouting, "10.0.0.1:8080").is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600),
                     info in proptest::collection::vec(any::<u8>(), 0..100)) {
            for layout in [&V4, &V6] {
                let _ = (entry(layout, &bytes), add(layout, "nat", &info, &bytes, &mut Ruleset::default()));
            }
        }
    }
}
