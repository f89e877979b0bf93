//! What the tracer lost, added up.

use std::collections::BTreeMap;

use crate::event::{LossPlace, Lost, Timestamp};
use crate::probe::plan::{Observation, observations};

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

    /// What was lost of the observations in `names`, in words: `12 syn-drop, 3 runs of fexit_accept`; `None` if nothing.
    pub(super) fn of(&self, names: &[&str]) -> Option<String> {
        let concern = self.iter().filter(|(what, _)| concerns(what, names));
        let words: Vec<String> = concern.map(|(what, loss)| format!("{} {what}", loss.count)).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// Whether a loss of `what` may be missing from what the observations in `names` count. What cannot be told concerns them all.
fn concerns(what: &str, names: &[&str]) -> bool {
    let program = what.strip_prefix("runs of ");
    let is_of = |observation: &&Observation| match program {
        Some(program) => observation.ways.iter().flat_map(|way| way.probes).any(|p| p.program == program),
        None => observation.name == what,
    };
    let mut of = observations().filter(is_of).peekable();
    of.peek().is_none() || of.any(|observation| names.contains(&observation.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::observation::{ACCEPT, SYN_DROP, SYNACK_RETRANSMIT};

    #[test]
    fn a_loss_concerns_what_its_program_observes() {
        assert!(concerns("runs of fexit_accept", &[ACCEPT]));
        assert!(!concerns("runs of fexit_accept", &[SYN_DROP, SYNACK_RETRANSMIT]));
        assert!(concerns("syn-drop", &[SYN_DROP]));
        assert!(!concerns("syn-drop", &[ACCEPT]));
    }

    #[test]
    fn a_loss_of_what_is_not_known_concerns_everything() {
        for what in ["runs of a_program_of_a_later_release", "listener-state", "record", "other"] {
            assert!(concerns(what, &[ACCEPT]), "{what}");
        }
    }
}
