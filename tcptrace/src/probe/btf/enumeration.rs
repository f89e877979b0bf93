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
        for constant in self.named(enum_name).filter(|found| found.kind.is_enum()).flat_map(|found| found.constants())
        {
            let Ok(value) = u32::try_from(constant.value) else { continue };
            let name = constant.name.strip_prefix(prefix.as_bytes()).unwrap_or(constant.name);
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
    found.constants().find(|constant| constant.name == name.as_bytes()).map(|constant| constant.value)
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
