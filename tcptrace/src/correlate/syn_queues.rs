//! The look at all SYN queues, once a second.

use std::time::Duration;

use super::half_open::PeerPattern;
use super::listener::ListenerId;
use super::{Change, Correlator};

/// After so long without a sign the SYN queue is not full any more.
const SYN_QUEUE_QUIET: Duration = Duration::from_secs(10);

impl Correlator {
    /// Which SYN queues are full, and at which listeners SYN-ACKs stay unanswered. The one often leads to the other, and only
    /// one of them is told: unanswered requests, unless they are a flood that has filled the queue.
    pub(super) fn look_at_syn_queues(&mut self, end: bool, changes: &mut Vec<Change>) {
        /// It takes so long to see whether requests are answered, if some SYN-ACKs had to be sent again, or none yet.
        const SUSPECT: Duration = Duration::from_secs(8);
        const UNSUSPECT: Duration = Duration::from_secs(2);
        /// The accept queue was full, and requests could not leave the SYN queue for that.
        const AFTER_OVERFLOW: Duration = Duration::from_secs(12);
        let now = self.now;
        self.half_open.retain(|_, half_open| half_open.expire(now));
        let mut ids: Vec<ListenerId> = self.half_open.iter().map(|(id, _)| *id).collect();
        for listener in self.listeners.iter_mut() {
            if listener.syn_queue_full.as_ref().is_some_and(|full| now.since(full.last) >= SYN_QUEUE_QUIET) {
                listener.syn_queue_full = None;
            }
            if listener.syn_queue_full.is_some() {
                ids.push(listener.id);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let unanswered = self.unanswered(id);
            let Some(listener) = self.listeners.get_mut(id).filter(|listener| listener.closed.is_none())
            else {
                continue;
            };
            let flood = unanswered.pattern() == PeerPattern::Flood;
            if unanswered.is_pile() && !(flood && listener.syn_queue_full.is_some()) {
                if !end {
                    changes.push(Change::Captured(id));
                }
                continue;
            }
            let overflowed = listener.overflowed_within(AFTER_OVERFLOW, now);
            let Some(full) = &mut listener.syn_queue_full else { continue };
            if unanswered.requests > full.unanswered.requests {
                full.unanswered = unanswered.clone();
            }
            let patience = match (end || unanswered.is_pile(), unanswered.may_become_pile()) {
                (true, _) => Duration::ZERO,
                (false, true) => SUSPECT,
                (false, false) => UNSUSPECT,
            };
            let fresh = now.since(full.last) < UNSUSPECT;
            if !overflowed
                && now.since(full.first) >= patience
                && (fresh || !full.told)
                && !(end && full.told)
            {
                full.told = true;
                changes.push(Change::SynQueueFull(id));
            }
        }
    }
}
