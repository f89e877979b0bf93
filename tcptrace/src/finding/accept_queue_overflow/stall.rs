//! Stalls: the queue is full and nobody accepts.

use std::time::Duration;

use crate::correlate::{Correlator, Listener, Reading};
use crate::event::Timestamp;
use crate::finding::owner_state::OwnerState;

/// So long nobody must have accepted, the queue being full, for accepting to be called stalled.
pub(super) const STALL: Duration = Duration::from_secs(3);

/// Stretches of time in which the queue was full and nobody accepted.
#[derive(Default)]
pub(super) struct Stall {
    /// Since when connections had waited without an accept when the first was dropped, if that was a stall already.
    before: Option<Timestamp>,
    /// The last accept before the present stretch, and the drops until then.
    since: Option<Timestamp>,
    drops_before: u64,
    /// Longest stretch, if it counts as a stall.
    pub(super) longest: Option<Duration>,
    /// Longest stretch: somebody has been waiting in the full queue for at least that long.
    pub(super) waiting: Option<Duration>,
    /// Drops in such stretches.
    drops: u64,
    /// Drops in the present one, if it counts.
    drops_now: u64,
    /// What its processes did meanwhile, when they were last looked at.
    pub(super) owner: OwnerState,
}

impl Stall {
    /// `drops` were before; connections have waited without an accept since `waiting`.
    pub(super) fn after(drops: u64, waiting: Option<Timestamp>, now: Timestamp) -> Self {
        let before = waiting.filter(|since| now.since(*since) >= STALL);
        Self { drops_before: drops, before, since: before, ..Self::default() }
    }

    /// Whether nothing was accepted for a while before the queue was full: what filled it is that.
    pub(super) fn filled_the_queue(&self) -> bool {
        self.before.is_some()
    }

    /// A connection was dropped: `listener` has not accepted since before the first one, as a rule.
    pub(super) fn note_drop(&mut self, listener: &Listener, now: Timestamp) {
        let Some(since) = self.before else { return };
        if listener.totals.last_accept.is_none_or(|last| last <= since) {
            let stretch = Some(now.since(since));
            self.longest = self.longest.max(stretch);
            self.waiting = self.waiting.max(stretch);
            self.drops_now = listener.overflows().total().saturating_sub(self.drops_before);
        }
    }

    /// Takes in a reading of the listener's counters.
    pub(super) fn note_reading(&mut self, reading: &Reading, first_drop: Timestamp) {
        if reading.accepted.is_none() {
            return;
        }
        let accepted_or_full = reading.last_accept.max(Some(self.before.unwrap_or(first_drop)));
        if self.since != accepted_or_full || !reading.full {
            // Somebody accepted, or there was room: another stretch begins.
            if self.since.is_some() {
                self.drops += self.drops_now;
                self.drops_before = reading.overflows;
            }
            self.drops_now = 0;
            self.since = accepted_or_full;
        }
        let stretch = accepted_or_full.map_or(Duration::ZERO, |since| reading.time.since(since));
        if reading.full {
            self.waiting = self.waiting.max(Some(stretch));
        }
        if reading.full && stretch >= STALL {
            self.longest = self.longest.max(Some(stretch));
            self.drops_now = reading.overflows.saturating_sub(self.drops_before);
        }
    }

    /// Takes in what the owners were doing when they were last looked at.
    pub(super) fn note_process(&mut self, listener: &Listener, first_drop: Timestamp, world: &Correlator) {
        let newer = OwnerState::of(listener, first_drop, world);
        // Once a process accepts again, what it does says nothing about the time in which it did not.
        if newer.stopped || self.is_stalled() {
            self.owner.learn(newer);
        } else {
            self.owner.process = newer.process.or(self.owner.process);
        }
    }

    /// Whether the present stretch counts as a stall.
    fn is_stalled(&self) -> bool {
        self.drops_now > 0
    }

    /// Whether most of `drops` fell into stalls.
    pub(super) fn explains(&self, drops: u64) -> bool {
        self.owner.stopped
            || (self.longest.is_some() && (self.drops + self.drops_now).saturating_mul(2) >= drops)
    }
}
