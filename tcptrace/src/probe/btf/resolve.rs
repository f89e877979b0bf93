//! The table of [`KernelLayout::ENTRIES`], looked up in a kernel's BTF.

use tcptrace_common::layout::Source;
use tcptrace_common::{ABSENT, KernelLayout};

use super::enumeration::enumerator;
use super::function::params;
use super::member::{Answer, Member, member, size_of_struct};
use super::reader::Btf;

/// What a kernel's BTF says about [`KernelLayout::ENTRIES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The layout for the eBPF programs; [`ABSENT`] where this kernel has nothing.
    pub layout: KernelLayout,
    /// Names of the absent entries: gaps in what can be observed, or simply a kernel of another age.
    pub missing: Vec<&'static str>,
    /// Names of the entries for which several types or functions of one name give different answers. An offset is then
    /// that of the largest type; a count or an enumerator is absent.
    pub ambiguous: Vec<&'static str>,
}

/// Looks up every entry of [`KernelLayout::ENTRIES`]. What cannot be found is absent, and named as missing.
#[must_use]
pub fn resolve(btf: &Btf) -> Resolution {
    let mut values = [ABSENT; KernelLayout::ENTRIES.len()];
    let mut missing = Vec::new();
    let mut ambiguous = Vec::new();
    for (value, (name, source)) in values.iter_mut().zip(KernelLayout::ENTRIES) {
        let answer = look_up(btf, *source);
        match answer.value {
            Some(found) if found != ABSENT => *value = found,
            _ => missing.push(*name),
        }
        if answer.ambiguous {
            ambiguous.push(*name);
        }
    }
    Resolution { layout: KernelLayout::from_values(values), missing, ambiguous }
}

/// The value of one entry.
pub(super) fn look_up(btf: &Btf, source: Source) -> Answer<u32> {
    match source {
        Source::Offset(path) => member(btf, path).and_then(|member| member.byte()),
        // In a big-endian kernel bits are numbered from the other end of the byte; tcptrace runs on none.
        Source::BitShift(_) if !btf.is_little_endian() => Answer::ABSENT,
        Source::BitShift(path) => member(btf, path).and_then(|member| member.shift()),
        Source::Size(path) if path.contains('.') => member(btf, path).and_then(|member: Member| member.size(btf)),
        Source::Size(name) => size_of_struct(btf, name),
        Source::Params(name) => params(btf, name),
        Source::Enumerator(path) => enumerator(btf, path),
    }
}
