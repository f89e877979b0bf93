//! Enumerators: the numbers behind names such as drop reasons, which are renumbered nearly every release.

use std::collections::BTreeMap;

use super::member::Answer;
use super::reader::{Btf, Type};

impl Btf {
    /// Names of the enumerators of every enum called `enum_name`, by value, without `prefix` where they start with it.
    ///
    /// Of several names for one value the first declared stays. Values that do not fit (negative, or beyond 32 bits) are
    /// left out; the map is empty if there is no such enum.
    ///
    /// `enum_names("skb_drop_reason", "SKB_DROP_REASON_")` has, for one, `TCP_CSUM` behind that kernel's number for it.
    #[must_use]
    pub fn enum_names(&self, enum_name: &str, prefix: &str) -> BTreeMap<u32, String> {
        let mut names = BTreeMap::new();
        for constant in
            self.named(enum_name).filter(|found| found.kind.is_enum()).flat_map(|found| found.constants())
        {
            let Ok(value) = u32::try_from(constant.value) else { continue };
            let name = constant.name().strip_prefix(prefix.as_bytes()).unwrap_or(constant.name());
            names.entry(value).or_insert_with(|| String::from_utf8_lossy(name).into_owned());
        }
        names
    }
}

/// Looks up `enum.ENUMERATOR`, or `.ENUMERATOR` among the enums without a name. Absent if no such enumerator exists, if
/// its value does not fit a `u32`, or if enums of that name disagree about it.
pub(super) fn enumerator(btf: &Btf, path: &str) -> Answer<u32> {
    let Some((enum_name, name)) = path.split_once('.') else { return Answer::ABSENT };
    if enum_name.is_empty() {
        agreed(btf.nameless_enums().filter_map(|found| value_of(found, name)))
    } else {
        agreed(btf.named(enum_name).filter_map(|found| value_of(found, name)))
    }
    .and_then(|value| u32::try_from(value).ok())
}

fn value_of(found: Type<'_>, name: &str) -> Option<i128> {
    found.constants().find(|constant| constant.is_called(name)).map(|constant| constant.value)
}

/// The value that all give.
pub(super) fn agreed<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Answer<T> {
    let Some(first) = values.next() else { return Answer::ABSENT };
    if values.all(|other| other == first) {
        Answer { value: Some(first), ambiguous: false }
    } else {
        Answer { value: None, ambiguous: true }
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::Builder;
    use super::*;

    fn reasons() -> Btf {
        let mut builder = Builder::new();
        builder.enumeration(
            "reason",
            false,
            &[("R_NONE", 0), ("R_LISTEN", 40), ("R_ALIAS", 40), ("OTHER", 41)],
        );
        builder.enumeration("negative", true, &[("MINUS", -1), ("PLUS", 1)]);
        builder.enumeration("unsigned", false, &[("MASK", -0x1_0000)]);
        builder.enumeration64("wide", false, &[("FITS", 7), ("TOO_BIG", 1 << 32)]);
        builder.enumeration64("wide_negative", true, &[("MINUS", u64::MAX)]);
        builder.enumeration("", false, &[("INET_FLAGS_FREEBIND", 11)]);
        builder.enumeration("twice", false, &[("SAME", 1), ("MOVED", 2)]);
        builder.enumeration("twice", false, &[("SAME", 1), ("MOVED", 3)]);
        Btf::parse(builder.build()).unwrap()
    }

    #[test]
    fn values_that_fit_are_found_in_both_widths() {
        let btf = reasons();
        let value = |path| enumerator(&btf, path).value;
        assert_eq!(value("reason.R_LISTEN"), Some(40));
        assert_eq!(value("reason.R_ALIAS"), Some(40));
        assert_eq!(value("reason.R_ABSENT"), None);
        assert_eq!(value("absent.R_LISTEN"), None);
        assert_eq!(value("R_LISTEN"), None);
        assert_eq!(value("negative.MINUS"), None);
        assert_eq!(value("negative.PLUS"), Some(1));
        assert_eq!(value("unsigned.MASK"), Some(0xffff_0000));
        assert_eq!(value("wide.FITS"), Some(7));
        assert_eq!(value("wide.TOO_BIG"), None);
        assert_eq!(value("wide_negative.MINUS"), None);
    }

    #[test]
    fn constants_of_enums_without_a_name_are_found_by_a_leading_dot() {
        let btf = reasons();
        assert_eq!(enumerator(&btf, ".INET_FLAGS_FREEBIND").value, Some(11));
        assert_eq!(enumerator(&btf, ".R_LISTEN").value, None);
    }

    #[test]
    fn enums_that_disagree_give_no_value() {
        let btf = reasons();
        assert_eq!(enumerator(&btf, "twice.SAME"), Answer { value: Some(1), ambiguous: false });
        assert_eq!(enumerator(&btf, "twice.MOVED"), Answer { value: None, ambiguous: true });
    }

    #[test]
    fn names_by_value_without_their_prefix() {
        let names = reasons().enum_names("reason", "R_");
        let names: Vec<_> = names.iter().map(|(value, name)| (*value, name.as_str())).collect();
        assert_eq!(names, [(0, "NONE"), (40, "LISTEN"), (41, "OTHER")]);
        assert!(reasons().enum_names("absent", "").is_empty());
    }
}
