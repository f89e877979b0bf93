//! A set of TCP ports, kept and written as ranges: `35000-36000,40000`, the form of `ip_local_reserved_ports`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl PortRange {
    /// How many ports it has.
    pub fn len(self) -> u32 {
        (u32::from(self.last) + 1).saturating_sub(u32::from(self.first))
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether `port` is in it.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A set of ports (0–65535). Ranges are kept sorted, apart and merged, so that equal sets are equal and print alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<PortRange>", into = "Vec<PortRange>")]
pub struct PortSet {
    ranges: Vec<PortRange>,
}

impl From<Vec<PortRange>> for PortSet {
    fn from(ranges: Vec<PortRange>) -> Self {
        ranges.into_iter().map(|range| range.first..=range.last).collect()
    }
}

impl From<PortSet> for Vec<PortRange> {
    fn from(set: PortSet) -> Self {
        set.ranges
    }
}

impl PortSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the ports `first..=last`. Nothing when `first > last`.
    pub fn add_range(&mut self, first: u16, last: u16) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        // Ranges that overlap or touch the new one become part of it.
        self.ranges.retain(|range| {
            let apart = range.last.checked_add(1).is_some_and(|after| after < first)
                || last.checked_add(1).is_some_and(|after| after < range.first);
            if !apart {
                first = first.min(range.first);
                last = last.max(range.last);
            }
            apart
        });
        let at = self.ranges.partition_point(|range| range.first < first);
        self.ranges.insert(at, PortRange { first, last });
    }

    /// Adds one port.
    pub fn add(&mut self, port: u16) {
        self.add_range(port, port);
    }

    /// Adds every port of `other`.
    pub fn merge(&mut self, other: &Self) {
        for range in &other.ranges {
            self.add_range(range.first, range.last);
        }
    }

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        let at = self.ranges.partition_point(|range| range.last < port);
        self.ranges.get(at).is_some_and(|range| range.contains(port))
    }

    /// How many ports are in the set (0–65536).
    pub fn len(&self) -> u32 {
        self.len_within(PortRange { first: 0, last: u16::MAX })
    }

    /// How many ports of `within` are in the set.
    pub fn len_within(&self, within: PortRange) -> u32 {
        let common = |own: &PortRange| {
            PortRange { first: own.first.max(within.first), last: own.last.min(within.last) }.len()
        };
        self.ranges.iter().map(common).sum()
    }

    /// The set and `port`.
    #[must_use]
    pub fn with(&self, port: u16) -> Self {
        let mut set = self.clone();
        set.add(port);
        set
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, ascending, apart from each other.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        self.ranges.iter().map(|range| range.first..=range.last)
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self::new();
        for port in ports {
            set.add(port);
        }
        set
    }
}

impl FromIterator<RangeInclusive<u16>> for PortSet {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let given = ranges.into_iter().map(|range| PortRange { first: *range.start(), last: *range.end() });
        let mut given: Vec<PortRange> = given.filter(|range| !range.is_empty()).collect();
        given.sort_unstable_by_key(|range| range.first);
        let mut ranges: Vec<PortRange> = Vec::new();
        for range in given {
            match ranges.last_mut() {
                Some(before) if u32::from(range.first) <= u32::from(before.last) + 1 => {
                    before.last = before.last.max(range.last);
                }
                _ => ranges.push(range),
            }
        }
        Self { ranges }
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if range.first == range.last { write!(f, "{}", range.first)? } else { write!(f, "{range}")? }
        }
        Ok(())
    }
}

/// Text that is not a list of ports and port ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} is not a port or a range of ports: write for example 35000-36000,40000 (ports 0 to 65535)")]
pub struct ParsePortSetError {
    part: String,
}

impl FromStr for PortSet {
    type Err = ParsePortSetError;

    /// Reads `35000-36000,40000`; empty text is the empty set; blanks around numbers are allowed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = Self::new();
        if text.trim().is_empty() {
            return Ok(set);
        }
        for part in text.split(',') {
            let bad = || ParsePortSetError { part: part.trim().to_owned() };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u16 = first.trim().parse().map_err(|_| bad())?;
            let last: u16 = last.trim().parse().map_err(|_| bad())?;
            if first > last {
                return Err(bad());
            }
            set.add_range(first, last);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(text: &str) -> PortSet {
        text.parse().unwrap()
    }

    #[test]
    fn parses_merges_and_prints_like_the_sysctl() {
        for (text, printed) in [
            ("", ""),
            ("\n", ""),
            ("80", "80"),
            ("35000-36000,40000\n", "35000-36000,40000"),
            ("40000,35000-36000", "35000-36000,40000"),
            ("1-3,4-6", "1-6"),
            ("1-3,5-6", "1-3,5-6"),
            ("1-10,2-3", "1-10"),
            ("65535,0,65534", "0,65534-65535"),
            ("0-65535,7", "0-65535"),
        ] {
            assert_eq!(set(text).to_string(), printed, "{text:?}");
        }
    }

    #[test]
    fn rejects_what_is_not_ports() {
        for text in ["a", "1-", "-1", "2-1", "65536", "1,,2", "1;2", "1-2-3"] {
            assert!(text.parse::<PortSet>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn counts_within_a_range() {
        let reserved = set("35000-36000,40000");
        let within = |first, last| reserved.len_within(PortRange { first, last });
        assert_eq!(reserved.len(), 1002);
        assert_eq!(within(32768, 60999), 1002);
        assert_eq!(within(35500, 40000), 502);
        assert_eq!(within(50000, 60000), 0);
        assert_eq!(set("0-65535").len(), 65536);
    }

    #[test]
    fn one_port_more_and_back_from_json() {
        assert_eq!(set("35000-36000").with(35010), set("35000-36000"));
        assert_eq!(set("35000-36002").with(39999).to_string(), "35000-36002,39999");
        assert_eq!(PortSet::default().with(65535).to_string(), "65535");
        // A recording may come from anywhere: what it says is put in order.
        let unsorted = r#"[{"first":9,"last":9},{"first":5,"last":4},{"first":1,"last":8}]"#;
        assert_eq!(serde_json::from_str::<PortSet>(unsorted).unwrap(), set("1-9"));
        assert_eq!(crate::output::json_text(&set("1-9")), r#"[{"first":1,"last":9}]"#);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ranges in proptest::collection::vec((0u16..500, 0u16..40), 0..30)) {
            let mut ours = PortSet::new();
            let mut model = BTreeSet::new();
            for (first, width) in ranges {
                ours.add_range(first, first + width);
                model.extend(first..=first + width);
            }
            prop_assert_eq!(ours.len() as usize, model.len());
            for port in 0..600 {
                prop_assert_eq!(ours.contains(port), model.contains(&port));
            }
            prop_assert_eq!(&model.iter().copied().collect::<PortSet>(), &ours);
            prop_assert_eq!(&ours.to_string().parse::<PortSet>().unwrap(), &ours);
        }

        #[test]
        fn takes_any_text(text in ".{0,40}") {
            let _ = text.parse::<PortSet>();
        }
    }
}
