//! Sets, maps and verdict maps of nf_tables: which element a key is, as far as the key is known.

use super::expression::{Answer, Decision};
use super::packet::Bytes;

/// A set that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// The lengths of the parts of a key, each filled up to four bytes.
    pub(super) fields: Vec<usize>,
    pub(super) elements: Vec<Element>,
    /// What a key has that is no element.
    pub(super) others: Option<Data>,
}

/// An element: keys from the first to the last, in each field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) first: Vec<u8>,
    pub(super) last: Vec<u8>,
    pub(super) data: Data,
}

/// What an element leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    /// It is in the set, no more.
    Nothing,
    Value(Vec<u8>),
    /// `None`: the rule goes on.
    Decides(Option<Decision>),
}

/// What the kernel lists: a key, its end where it has one, and whether it ends the range that the key below begins.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) key: Vec<u8>,
    pub(super) last: Option<Vec<u8>>,
    pub(super) ends: bool,
    pub(super) data: Data,
}

/// The elements of what was listed. `ranges`: each key begins a range, up to the next one.
pub(super) fn elements(mut listed: Vec<Listed>, ranges: bool) -> Vec<Element> {
    listed.sort_by(|one, other| (&one.key, !one.ends).cmp(&(&other.key, !other.ends)));
    let of = |(at, one): (usize, &Listed)| {
        if one.ends {
            return None;
        }
        let next = listed.iter().skip(at + 1).map(|next| &next.key).find(|key| **key != one.key);
        let last = match &one.last {
            Some(last) => last.clone(),
            None if ranges => next.map_or_else(|| vec![u8::MAX; one.key.len()], |next| before(next)),
            None => one.key.clone(),
        };
        Some(Element { first: one.key.clone(), last, data: one.data.clone() })
    };
    listed.iter().enumerate().filter_map(of).collect()
}

/// The key before this one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let borrows = *byte == 0;
        *byte = byte.wrapping_sub(1);
        if !borrows {
            break;
        }
    }
    key
}

impl Set {
    /// How many bytes a key has.
    pub(super) fn key_len(&self) -> usize {
        let padded =
            |length: &usize| if self.fields.len() > 1 { length.next_multiple_of(4) } else { *length };
        self.fields.iter().map(padded).sum()
    }

    /// The elements that `key` is, or may be: one that it is for sure comes alone.
    pub(super) fn lookup(&self, key: &Bytes) -> Vec<(&Data, Answer)> {
        let mut open = Vec::new();
        for element in &self.elements {
            match self.is(element, key) {
                Answer::Yes => return vec![(&element.data, Answer::Yes)],
                Answer::Open => open.push((&element.data, Answer::Open)),
                Answer::No => {}
            }
        }
        let others = self.others.iter();
        let answer = if open.is_empty() { Answer::Yes } else { Answer::Open };
        open.extend(others.map(|others| (others, answer)));
        open
    }

    fn is(&self, element: &Element, key: &Bytes) -> Answer {
        let mut at = 0;
        let mut all = Answer::Yes;
        for length in &self.fields {
            let (first, last) = (element.first.get(at..at + length), element.last.get(at..at + length));
            let (Some(first), Some(last), Some(part)) = (first, last, key.get(at..at + length)) else {
                return Answer::Open;
            };
            let known: Option<Vec<u8>> = part.iter().copied().collect();
            let answer = match known {
                Some(known) => (first <= &*known && &*known <= last).into(),
                None if first == last => may_equal(part, first),
                None => Answer::Open,
            };
            match answer {
                Answer::No => return Answer::No,
                Answer::Open => all = Answer::Open,
                Answer::Yes => {}
            }
            at += length.next_multiple_of(4);
        }
        all
    }
}

/// Whether bytes of which some are not known equal these.
pub(super) fn may_equal(known: &[Option<u8>], value: &[u8]) -> Answer {
    if known.iter().zip(value).any(|(known, byte)| known.is_some_and(|known| known != *byte)) {
        return Answer::No;
    }
    if known.iter().all(Option::is_some) { Answer::Yes } else { Answer::Open }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(key: &[u8], ends: bool) -> Listed {
        Listed { key: key.to_vec(), last: None, ends, data: Data::Nothing }
    }

    fn known(bytes: &[u8]) -> Bytes {
        bytes.iter().copied().map(Some).collect()
    }

    fn is_in(set: &Set, key: &Bytes) -> Answer {
        set.lookup(key).first().map_or(Answer::No, |(_, answer)| *answer)
    }

    #[test]
    fn ranges_begin_and_end() {
        // 10.0.0.0/8, and 192.0.2.0 to the end, as the kernel lists them: in any order.
        let all = vec![
            listed(&[192, 0, 2, 0], false),
            listed(&[11, 0, 0, 0], true),
            listed(&[10, 0, 0, 0], false),
            listed(&[0, 0, 0, 0], true),
        ];
        let set = Set { fields: vec![4], elements: elements(all, true), others: None };
        assert_eq!(is_in(&set, &known(&[10, 255, 255, 255])), Answer::Yes);
        assert_eq!(is_in(&set, &known(&[11, 0, 0, 0])), Answer::No);
        assert_eq!(is_in(&set, &known(&[9, 255, 255, 255])), Answer::No);
        assert_eq!(is_in(&set, &known(&[255, 0, 0, 0])), Answer::Yes);
        assert_eq!(is_in(&set, &vec![None; 4]), Answer::Open);
    }

    #[test]
    fn one_range_may_begin_where_another_ends() {
        let mut second = listed(&[0, 20], false);
        second.data = Data::Value(vec![2]);
        let all = vec![listed(&[0, 30], true), second, listed(&[0, 20], true), listed(&[0, 10], false)];
        let set = Set { fields: vec![2], elements: elements(all, true), others: None };
        assert_eq!(set.lookup(&known(&[0, 20]))[0].0, &Data::Value(vec![2]));
        assert_eq!(set.lookup(&known(&[0, 19]))[0].0, &Data::Nothing);
        assert!(set.lookup(&known(&[0, 30])).is_empty());
    }

    #[test]
    fn a_key_of_several_parts_is_compared_part_by_part() {
        // An address and a range of ports, each in words of four bytes.
        let element = Listed {
            last: Some(vec![10, 0, 0, 2, 0, 90, 0, 0]),
            ..listed(&[10, 0, 0, 1, 0, 80, 0, 0], false)
        };
        let set = Set { fields: vec![4, 2], elements: elements(vec![element], false), others: None };
        assert_eq!(set.key_len(), 8);
        assert_eq!(is_in(&set, &known(&[10, 0, 0, 2, 0, 80, 0, 0])), Answer::Yes);
        assert_eq!(is_in(&set, &known(&[10, 0, 0, 2, 0, 91, 0, 0])), Answer::No);
        // The source is not known: another port is not in it all the same.
        let with = |port: u8| [vec![None; 4], known(&[0, port, 0, 0])].concat();
        assert_eq!((is_in(&set, &with(80)), is_in(&set, &with(99))), (Answer::Open, Answer::No));
    }

    #[test]
    fn what_is_no_element_may_have_a_verdict_of_its_own() {
        let set = Set {
            fields: vec![2],
            elements: elements(vec![listed(&[0, 80], false)], false),
            others: Some(Data::Value(vec![9])),
        };
        assert_eq!(set.lookup(&known(&[0, 80])), [(&Data::Nothing, Answer::Yes)]);
        assert_eq!(set.lookup(&known(&[0, 81])), [(&Data::Value(vec![9]), Answer::Yes)]);
        assert_eq!(set.lookup(&vec![None; 2]).len(), 2);
    }
}
