//! What the tracer lost, added up.

use std::collections::BTreeMap;

use crate::event::{LossPlace, Lost, Timestamp};

/// Losses by what was lost and where.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    by_kind: BTreeMap<(String, &'static str), Loss>,
}

/// How many of a kind were lost at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where.
    pub place: LossPlace,
    /// How many.
    pub count: u64,
    /// Not before this.
    pub from: Timestamp,
    /// Not after this.
    pub to: Timestamp,
}

/// Different kinds that are told apart: there are few; a damaged recording must not make them many.
const KINDS: usize = 64;

impl Losses {
    pub(super) fn note(&mut self, lost: &Lost) {
        if lost.count == 0 {
            return;
        }
        let mut key = (lost.what.clone(), lost.place.name());
        if self.by_kind.len() >= KINDS && !self.by_kind.contains_key(&key) {
            key.0 = "other".to_owned();
        }
        let loss = self.by_kind.entry(key).or_insert(Loss {
            place: lost.place,
            count: 0,
            from: lost.from,
            to: lost.to,
        });
        loss.count = loss.count.saturating_add(lost.count);
        loss.from = loss.from.min(lost.from);
        loss.to = loss.to.max(lost.to);
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.by_kind.values().fold(0, |sum, loss| sum.saturating_add(loss.count))
    }

    /// Each kind of event (`syn-drop`) and what was lost of it, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Loss)> {
        self.by_kind.iter().map(|((what, _), loss)| (what.as_str(), loss))
    }

    /// In words: `12 syn-drop, 3 listen`; `None` if nothing was lost.
    pub fn in_words(&self) -> Option<String> {
        let words: Vec<String> = self.iter().map(|(what, loss)| format!("{} {what}", loss.count)).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}
