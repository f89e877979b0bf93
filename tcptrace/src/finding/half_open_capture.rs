//! half-open-capture: SYN-ACKs of a listener stay unanswered, and its half-open requests pile up. They go on taking places
//! after their clients have given up.

mod account;

use std::time::Duration;

use crate::correlate::{Change, Correlator, ListenerId, Unanswered};
use crate::event::ListenerTotals;

use super::case::{Concern, Description, Diagnosis};
use account::Account;

/// The diagnosis.
pub(super) struct HalfOpenCapture;

/// A pile of unanswered requests.
pub(super) struct Pile {
    /// As it was last seen to be one.
    unanswered: Unanswered,
    /// Counts of the listener when it began.
    before: ListenerTotals,
    deepest: u32,
}

impl Diagnosis for HalfOpenCapture {
    const CODE: &'static str = "half-open-capture";
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ListenerId;
    type Memory = Pile;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<ListenerId>> {
        match change {
            Change::Captured(id) => Some(Concern::Happened(*id)),
            Change::SynQueueFull(id) => Some(Concern::Over(*id)),
            Change::ListenerRead(id) => Some(Concern::Known(*id)),
            Change::ListenerClosed(id) => Some(Concern::Gone(*id)),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ListenerId, world: &Correlator) -> Pile {
        let listener = world.listener(*key);
        let full = listener.and_then(|listener| listener.syn_queue_full.as_ref());
        let before = full.map(|full| full.before).or(listener.map(|listener| listener.totals));
        Pile { unanswered: Unanswered::default(), before: before.unwrap_or_default(), deepest: 0 }
    }

    fn observe(&mut self, key: &ListenerId, memory: &mut Pile, change: &Change, world: &Correlator) {
        if let Some(listener) = world.listener(*key) {
            memory.deepest = memory.deepest.max(listener.syn_queue);
        }
        if let Change::Captured(_) = change {
            memory.unanswered = world.unanswered(*key);
        }
    }

    fn describe(&self, key: &ListenerId, memory: &Pile, world: &Correlator) -> Option<Description> {
        Some(Account::of(world.listener(*key)?, memory, world).describe())
    }
}

#[cfg(test)]
mod tests;
