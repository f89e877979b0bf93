//! The table of [`KernelLayout::ENTRIES`], looked up in a kernel's BTF.

use tcptrace_common::layout::Source;
use tcptrace_common::{ABSENT, KernelLayout};

use super::enumeration::enumerator;
use super::function::params;
use super::member::{Answer, member, size_of_struct};
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
fn look_up(btf: &Btf, source: Source) -> Answer<u32> {
    match source {
        Source::Offset(path) => member(btf, path).and_then(|member| member.byte()),
        // In a big-endian kernel bits are numbered from the other end of the byte; tcptrace runs on none.
        Source::BitShift(_) if !btf.is_little_endian() => Answer::ABSENT,
        Source::BitShift(path) => member(btf, path).and_then(|member| member.shift()),
        Source::Size(path) if path.contains('.') => member(btf, path).and_then(|member| member.size(btf)),
        Source::Size(name) => size_of_struct(btf, name),
        Source::Params(name) => params(btf, name),
        Source::Enumerator(path) => enumerator(btf, path),
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::{Builder, kind};
    use super::*;

    /// The same types in either byte order.
    fn types(mut builder: Builder) -> Btf {
        let byte = builder.int("unsigned char", 1);
        builder.bit_struct("sock", 16, &[("plain", byte, 8, 0), ("sk_userlocks", byte, 20, 4)]);
        builder.composite(kind::STRUCT, "sock", 8, &[("plain", byte, 7)]);
        builder.function("inet_csk_accept", byte, &[byte, byte]);
        builder.enumeration("reason", false, &[("FULL", 40)]);
        Btf::parse(builder.build()).unwrap()
    }

    #[test]
    fn every_kind_of_source_is_looked_up() {
        let btf = types(Builder::new());
        let value = |source| look_up(&btf, source).value;
        assert_eq!(value(Source::Offset("sock.sk_userlocks")), Some(2));
        assert_eq!(value(Source::BitShift("sock.sk_userlocks")), Some(4));
        assert_eq!(value(Source::BitShift("sock.plain")), Some(0));
        assert_eq!(value(Source::Size("sock.plain")), Some(1));
        assert_eq!(value(Source::Size("sock")), Some(16));
        assert_eq!(value(Source::Params("inet_csk_accept")), Some(2));
        assert_eq!(value(Source::Enumerator("reason.FULL")), Some(40));
        assert_eq!(value(Source::Enumerator("reason.EMPTY")), None);
    }

    #[test]
    fn disagreement_is_told() {
        let btf = types(Builder::new());
        let answer = look_up(&btf, Source::Offset("sock.plain"));
        assert_eq!(answer, Answer { value: Some(1), ambiguous: true });
    }

    #[test]
    fn bits_of_a_big_endian_kernel_are_absent_rather_than_wrong() {
        let btf = types(Builder::big_endian());
        assert_eq!(look_up(&btf, Source::Offset("sock.sk_userlocks")).value, Some(2));
        assert_eq!(look_up(&btf, Source::BitShift("sock.sk_userlocks")).value, None);
    }

    #[test]
    fn the_layout_keeps_the_order_of_the_table() {
        let mut values = [0; KernelLayout::ENTRIES.len()];
        values.iter_mut().zip(1..).for_each(|(value, at)| *value = at);
        let layout = KernelLayout::from_values(values);
        assert_eq!(layout.values(), values);
        assert_eq!(KernelLayout::ENTRIES[0].0, "skc_daddr");
        assert_eq!(layout.skc_daddr, 1);
    }
}
