//! Which packets the reverse-path filter dropped, on kernels that give no reason: told by its counter.

use std::time::Duration;

use crate::event::Timestamp;

/// How many packets the reverse-path filter has dropped, for kernels that do not say of each why it was dropped.
#[derive(Default)]
pub(super) struct ReversePath {
    /// The counter, as last read.
    counted: u64,
    /// Drops that were counted and not met yet: the counter is often ahead of what comes from the ring buffer.
    unmet: u64,
    /// When the counter was read that had grown. What was dropped later is not in it.
    grew: Timestamp,
}

impl ReversePath {
    /// The kernel counts before it drops, and may be interrupted in between.
    const BETWEEN: Duration = Duration::from_millis(100);

    /// A packet was `dropped` for this or for want of a route, and the counter stood at `counted` when it was `read`: whether it
    /// is one of those.
    pub(super) fn meet(&mut self, dropped: Timestamp, counted: u64, read: Timestamp) -> bool {
        if counted > self.counted {
            self.unmet += counted - self.counted;
            self.grew = read;
        }
        self.counted = counted;
        if dropped > self.grew.after(Self::BETWEEN) {
            // Whatever is left was of another protocol.
            self.unmet = 0;
        }
        let met = self.unmet > 0;
        self.unmet = self.unmet.saturating_sub(1);
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_may_be_ahead_of_the_packets() {
        let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
        let mut filter = ReversePath::default();
        // Two were counted before the first one was met, and the second comes late.
        assert!(filter.meet(at(1000), 2, at(1010)) && filter.meet(at(1005), 2, at(9000)));
        assert!(!filter.meet(at(1006), 2, at(9001)), "for want of a route");
        assert!(filter.meet(at(9100), 3, at(9110)));
        // Packets of another protocol, long ago.
        assert!(filter.meet(at(9200), 5, at(9210)));
        assert!(!filter.meet(at(12_000), 5, at(12_001)));
    }
}
