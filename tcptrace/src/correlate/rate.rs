//! Rates over a stretch of time, from counters read now and then.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Timestamp;

/// What a listener's counters said at one time. `None` where the source cannot know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// When.
    pub time: Timestamp,
    /// SYNs that reached the listener.
    pub syns: Option<u64>,
    /// Connections put into the accept queue.
    pub enqueued: Option<u64>,
    /// Connections taken from it.
    pub accepted: Option<u64>,
    /// Sum of known accept waits, ns, and how many they were.
    pub waits: Option<(u64, u64)>,
    /// Longest accept wait so far, ns.
    pub wait_max_ns: Option<u64>,
    /// The kernel's `sk_drops`.
    pub socket_drops: Option<u64>,
    /// SYNs and final ACKs dropped at the full accept queue, as far as known.
    pub overflows: u64,
    /// When a connection was last accepted.
    pub last_accept: Option<Timestamp>,
    /// Most requests in the SYN queue since the reading before; `None` where it was not looked at.
    pub syn_queue: Option<u32>,
    /// Whether the accept queue was full.
    pub full: bool,
    /// Whether it was full then, or at a reading that this one replaced.
    pub was_full: bool,
}

/// Growth per second from `before` to `after` over `span`; `None` if unknown, or if the span is too short to say.
pub fn per_second(before: Option<u64>, after: Option<u64>, span: Duration) -> Option<f64> {
    const SHORTEST: Duration = Duration::from_millis(400);
    if span < SHORTEST {
        return None;
    }
    let grown = after?.checked_sub(before?)?;
    // Counts beyond 2^53 lose their last digits: of no matter for a rate.
    #[expect(clippy::cast_precision_loss, reason = "a rate has few significant digits")]
    Some(grown as f64 / span.as_secs_f64())
}

/// The last readings of a listener.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    kept: VecDeque<Reading>,
}

/// Readings kept: about so many seconds.
const KEPT: usize = 8;

/// Of readings nearer than this only the latest is kept: polling is faster than rates change.
const SPACING: Duration = Duration::from_millis(900);

impl Readings {
    pub(super) fn push(&mut self, reading: Reading) {
        let mut kept = self.kept.iter().rev();
        let (last, before) = (kept.next().copied(), kept.next().copied());
        match last {
            // Counters only grow: an older reading that comes late says nothing new.
            Some(last) if reading.time < last.time => {}
            Some(last)
                if reading.time == last.time
                    || before.is_some_and(|before| reading.time.since(before.time) < SPACING) =>
            {
                self.kept.pop_back();
                self.kept.push_back(Reading {
                    was_full: reading.was_full || last.was_full,
                    syn_queue: reading.syn_queue.max(last.syn_queue),
                    ..reading
                });
            }
            _ => {
                if self.kept.len() == KEPT {
                    self.kept.pop_front();
                }
                if self.kept.is_empty() {
                    // Most listeners are idle, and have this one for ever.
                    self.kept.reserve_exact(1);
                }
                self.kept.push_back(reading);
            }
        }
    }

    /// The latest.
    pub fn latest(&self) -> Option<&Reading> {
        self.kept.back()
    }

    /// Whether `test` holds for one of those made since `time`.
    pub(super) fn any_since(&self, time: Timestamp, test: impl Fn(&Reading) -> bool) -> bool {
        self.kept.iter().any(|reading| reading.time >= time && test(reading))
    }

    /// The latest that was made no later than `time`; else the earliest there is.
    pub fn at(&self, time: Timestamp) -> Option<&Reading> {
        self.kept.iter().rev().find(|reading| reading.time <= time).or_else(|| self.kept.front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(ms: u64, accepted: u64) -> Reading {
        Reading {
            time: Timestamp::from_nanos(ms * 1_000_000),
            accepted: Some(accepted),
            ..Reading::default()
        }
    }

    #[test]
    fn rates_need_two_readings_and_a_while() {
        assert_eq!(per_second(Some(10), Some(26), Duration::from_secs(2)), Some(8.0));
        assert_eq!(per_second(Some(10), Some(26), Duration::from_millis(10)), None);
        assert_eq!(per_second(None, Some(26), Duration::from_secs(2)), None);
        assert_eq!(per_second(Some(27), Some(26), Duration::from_secs(2)), None);
    }

    #[test]
    fn readings_are_bounded_ordered_and_merged() {
        let mut readings = Readings::default();
        for second in 0..100 {
            readings.push(reading(second * 1000, second));
        }
        readings.push(reading(98_000, 7));
        readings.push(reading(99_000, 100));
        assert_eq!(readings.kept.len(), KEPT);
        assert_eq!(readings.latest(), Some(&reading(99_000, 100)));
        assert_eq!(readings.at(Timestamp::from_nanos(97_500_000_000)), Some(&reading(97_000, 97)));
        assert_eq!(readings.at(Timestamp::from_nanos(0)), Some(&reading(92_000, 92)));
    }

    #[test]
    fn fast_polling_does_not_shorten_the_memory() {
        let mut readings = Readings::default();
        for tenth in 0..200 {
            readings.push(Reading {
                full: tenth == 151,
                was_full: tenth == 151,
                ..reading(tenth * 100, tenth)
            });
        }
        assert_eq!(readings.latest().unwrap().accepted, Some(199));
        let earliest = readings.at(Timestamp::from_nanos(0)).unwrap();
        assert!(earliest.time <= Timestamp::from_nanos(14_500_000_000), "{earliest:?}");
        assert!(readings.any_since(Timestamp::from_nanos(15_000_000_000), |reading| reading.was_full));
        assert!(!readings.any_since(Timestamp::from_nanos(17_000_000_000), |reading| reading.was_full));
    }
}
