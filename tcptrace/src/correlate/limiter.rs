//! How much of what happens often the kernel side keeps to itself.

use std::time::Duration;

use crate::event::Timestamp;

/// A second of the kernel side: it is over when more than this has passed since its first record.
const SECOND: Duration = Duration::from_secs(1);

/// Follows the records of one key, of which the kernel side streams only so many in a second: the next one has the count of
/// all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limiter {
    /// When the second began.
    began: Option<Timestamp>,
    told: u32,
    /// The count of all, as last told.
    total: Option<u64>,
}

impl Limiter {
    /// Takes in a record with the count of all; how many more these are than were told of before.
    pub(super) fn note(&mut self, time: Timestamp, total: u64) -> u64 {
        if self.began.is_none_or(|began| time.since(began) > SECOND) {
            self.began = Some(time);
            self.told = 0;
        }
        self.told += 1;
        // What was counted before anybody was told of it happened before anybody looked.
        let before = self.total.unwrap_or(total.saturating_sub(1));
        self.total = Some(before.max(total));
        total.saturating_sub(before)
    }

    /// Whether there may be more by now than was told of.
    pub(super) fn holds_back(&self) -> bool {
        self.told >= tcptrace_common::drop::DROPS_STREAMED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_back_is_counted_with_the_next_record() {
        let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
        let mut limiter = Limiter::default();
        let told: u64 = (1..=64).map(|nth| limiter.note(at(nth), nth)).sum();
        assert_eq!((told, limiter.holds_back()), (64, true));
        // 936 more in that second.
        assert_eq!((limiter.note(at(1500), 1001), limiter.holds_back()), (937, false));
        // A record of another CPU, a little late.
        assert_eq!(limiter.note(at(1501), 1000), 0);
        assert_eq!(limiter.note(at(1502), 1002), 1);
    }

    #[test]
    fn the_first_record_counts_itself() {
        assert_eq!(Limiter::default().note(Timestamp::from_nanos(1), 500), 1);
    }
}
