//! Rules of nf_tables, by its netlink. Those that iptables-nft makes stand there as well, with matches and targets of xtables.

use std::collections::{BTreeSet, HashMap};
use std::io;

use super::expression::{Expression, decision};
use super::netlink::{Whole, ask};
use super::packet::Hook;
use super::ruleset::{Base, INET, NETDEV, Named, Place, Rule};
use super::set::{Data, Listed, Set, elements};
use super::wire::{Attributes, Request};
use super::{NetfilterError, Rules};
use crate::host::netns::Netns;

// linux/netfilter/nfnetlink.h and nf_tables.h.
const SUBSYSTEM: u8 = 10;
const GET_CHAIN: u8 = 4;
const GET_RULE: u8 = 7;
const GET_SET: u8 = 10;
const GET_ELEMENTS: u8 = 13;

/// Elements of all sets that are read at most. What is beyond is not looked at, and rules that ask for it are left open.
const ELEMENTS: usize = 300_000;

/// Adds the rules of a namespace. Where nf_tables is not loaded there are none, and the question would load it.
pub(super) fn read(netns: &Netns, into: &mut Rules) -> Result<(), NetfilterError> {
    if !is_loaded() {
        return Ok(());
    }
    let asked = dump(netns, GET_CHAIN, |family, of| {
        if let Some(base) = base(family, of) {
            into.rules.add_base(base);
        }
    });
    // Kernels without nf_tables, or without the last of its modules.
    if let Err(NetfilterError::Ask { source, .. }) = &asked
        && matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT))
    {
        return Ok(());
    }
    asked?;
    dump(netns, GET_RULE, |family, of| {
        if let Some((chain, rule)) = rule(family, of) {
            into.rules.add_rule(chain, rule);
        }
    })?;
    let wanted: BTreeSet<Named> = into.rules.wanted_sets().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut shapes: HashMap<Named, Shape> = HashMap::new();
    dump(netns, GET_SET, |family, of| shapes.extend(shape(family, of)))?;
    let mut left = ELEMENTS;
    for name in wanted {
        let Some(shape) = shapes.get(&name) else { continue };
        match read_set(netns, &name, shape, &mut left) {
            Ok(set) => into.rules.add_set(name, set),
            Err(error) => into.unread.push(format!("set {} of table {}: {error}", name.name, name.table)),
        }
    }
    Ok(())
}

fn dump(netns: &Netns, message: u8, mut each: impl FnMut(u8, &Attributes<'_>)) -> Result<(), NetfilterError> {
    let request = Request::new(SUBSYSTEM, message, libc::NLM_F_DUMP, 0);
    let whole = ask(netns, &request, true, |_, family, bytes| each(family, &Attributes(bytes)))?;
    match whole {
        Whole::Yes => Ok(()),
        Whole::Cut => Err(too_many(netns)),
    }
}

fn too_many(netns: &Netns) -> NetfilterError {
    NetfilterError::Ask { netns: netns.id(), source: io::Error::other("there are too many to read them all") }
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

/// A chain that the kernel calls itself.
fn base(family: u8, of: &Attributes<'_>) -> Option<Base> {
    let hook = of.nested(4);
    let number = hook.number(1)?;
    let place = match (family, number) {
        // Of a device: ingress 0, egress 1; of the family inet: ingress 5.
        (NETDEV, 0 | 1) | (INET, 5) => {
            let mut names: Vec<String> = hook.list(4).map(|name| super::wire::text(name.0)).collect();
            names.extend(hook.text(3));
            Place::Device { outgoing: (family, number) == (NETDEV, 1), names }
        }
        _ => Place::Hook(Hook::of(number)?),
    };
    Some(Base {
        chain: Named { family, table: of.text(1)?, name: of.text(3)? },
        place,
        priority: hook.number(2).map_or(0, u32::cast_signed),
        drops: of.number(5) == Some(0),
    })
}

/// A rule and its chain.
fn rule(family: u8, of: &Attributes<'_>) -> Option<(Named, Rule)> {
    let chain = Named { family, table: of.text(1)?, name: of.text(2)? };
    let handle = of.bytes(3).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    let expression = |one: Attributes<'_>| Expression::read(&one.text(1).unwrap_or_default(), &one.nested(2));
    let rule = Rule { label: format!("handle {handle}"), expressions: of.list(4).map(expression).collect() };
    Some((chain, rule))
}

/// What a set is like, without its elements.
struct Shape {
    fields: Vec<usize>,
    /// Each of its keys begins a range.
    ranges: bool,
}

fn shape(family: u8, of: &Attributes<'_>) -> Option<(Named, Shape)> {
    const INTERVAL: u32 = 4;
    const CONCATENATED: u32 = 0x80;
    let name = Named { family, table: of.text(1)?, name: of.text(2)? };
    let size = |length: u32| usize::try_from(length).ok().filter(|length| *length <= 64);
    let flags = of.number(3).unwrap_or(0);
    let mut fields: Vec<usize> =
        of.nested(9).list(2).map(|field| size(field.number(1)?)).collect::<Option<_>>()?;
    if fields.is_empty() {
        fields.push(size(of.number(5)?)?);
    }
    Some((name, Shape { fields, ranges: flags & INTERVAL != 0 && flags & CONCATENATED == 0 }))
}

fn read_set(netns: &Netns, name: &Named, shape: &Shape, left: &mut usize) -> Result<Set, NetfilterError> {
    let zero_ended = |text: &str| [text.as_bytes(), &[0]].concat();
    let request = Request::new(SUBSYSTEM, GET_ELEMENTS, libc::NLM_F_DUMP, name.family)
        .with(1, &zero_ended(&name.table))
        .with(2, &zero_ended(&name.name));
    let mut set = Set { fields: shape.fields.clone(), ..Set::default() };
    let (key_len, mut listed, mut strange) = (set.key_len(), Vec::new(), false);
    let whole = ask(netns, &request, true, |_, _, bytes| {
        for one in Attributes(bytes).list(3) {
            if listed.len() >= *left {
                strange = true;
                return;
            }
            match element(&one, key_len) {
                Some(Ok(element)) => listed.push(element),
                Some(Err(others)) => set.others = Some(others),
                None => strange = true,
            }
        }
    })?;
    if whole == Whole::Cut || strange {
        return Err(too_many(netns));
    }
    *left = left.saturating_sub(listed.len());
    set.elements = elements(listed, shape.ranges);
    Ok(set)
}

/// An element, or what keys have that are none.
fn element(of: &Attributes<'_>, key_len: usize) -> Option<Result<Listed, Data>> {
    const ENDS: u32 = 1;
    const CATCH_ALL: u32 = 2;
    let flags = of.number(3).unwrap_or(0);
    let verdict = of.nested(2).nested(2);
    let data = match (verdict.number(1), of.nested(2).bytes(1)) {
        (Some(code), _) => Data::Decides(decision(code, verdict.text(2))?),
        (None, Some(value)) => Data::Value(value.to_vec()),
        (None, None) => Data::Nothing,
    };
    if flags & CATCH_ALL != 0 {
        return Some(Err(data));
    }
    let key = |kind| of.nested(kind).bytes(1).map(<[u8]>::to_vec);
    let whole = key(1).filter(|key| key.len() >= key_len)?;
    Some(Ok(Listed { key: whole, last: key(10), ends: flags & ENDS != 0, data }))
}

#[cfg(test)]
mod tests;
