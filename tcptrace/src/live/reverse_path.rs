//! Which packets the reverse-path filter dropped, on kernels that give no reason: told by its counter.

use std::time::{Duration, Instant};

/// How many packets the reverse-path filter has dropped, for kernels that do not say of each why it was dropped.
#[derive(Default)]
pub(super) struct ReversePath {
    /// The counter, as last read.
    counted: u64,
    /// Drops that were counted and not met yet: the counter is often ahead of what comes from the ring buffer.
    unmet: u64,
    /// When the counter was last seen to grow.
    grew: Option<Instant>,
}

impl ReversePath {
    /// After this nothing is to be met any more: they were packets of other protocols.
    const LATE: Duration = Duration::from_secs(2);

    /// A packet was dropped for this or for want of a route, and the counter stands at `counted`: whether it is one of those.
    pub(super) fn meet(&mut self, counted: u64, now: Instant) -> bool {
        if self.grew.is_some_and(|grew| now.duration_since(grew) > Self::LATE) {
            self.unmet = 0;
        }
        if counted > self.counted {
            self.unmet += counted - self.counted;
            self.grew = Some(now);
        }
        self.counted = counted;
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
        let start = Instant::now();
        let mut filter = ReversePath::default();
        // Two were counted before the first one was met.
        assert!(filter.meet(2, start) && filter.meet(2, start));
        assert!(!filter.meet(2, start), "for want of a route");
        assert!(filter.meet(3, start));
        // A packet of another protocol, long ago.
        assert!(filter.meet(5, start));
        assert!(!filter.meet(5, start + Duration::from_secs(3)));
    }
}
