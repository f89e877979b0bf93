//! Accept waits of the last seconds, from distributions that only grow.

use std::time::Duration;

use crate::event::{Distribution, Timestamp};

/// What was counted up to a time.
#[derive(Clone, Debug, Default)]
struct Counted {
    until: Timestamp,
    waits: Distribution,
}

/// Accept waits of the last 5 to 10 seconds. Two old readings are kept, not ten: there can be many listeners.
#[derive(Clone, Debug, Default)]
pub struct RecentWaits {
    /// The window begins at the older one; the newer one takes its place when it is old enough.
    older: Counted,
    newer: Counted,
    latest: Option<Counted>,
}

/// Age at which the beginning of the window moves on.
const STEP: Duration = Duration::from_secs(5);

/// Listeners are read once a second if they changed: what grew came within this time.
const INTERVAL: Duration = Duration::from_secs(1);

impl RecentWaits {
    pub(super) fn note(&mut self, time: Timestamp, waits: &Distribution) {
        let latest =
            self.latest.get_or_insert_with(|| Counted { until: time.before(INTERVAL), ..Counted::default() });
        if time < latest.until {
            return;
        }
        if time.since(latest.until) > INTERVAL * 2 || self.older.until == Timestamp::default() {
            // Nothing came for a while.
            let quiet = Counted { until: time.before(INTERVAL), waits: latest.waits.clone() };
            (self.older, self.newer) = (quiet.clone(), quiet);
        } else if time.since(self.newer.until) >= STEP {
            self.older = std::mem::replace(&mut self.newer, latest.clone());
        }
        *latest = Counted { until: time, waits: waits.clone() };
    }

    /// All waits since the tracer attached.
    pub fn all(&self) -> Option<&Distribution> {
        self.latest.as_ref().map(|latest| &latest.waits)
    }

    /// The waits of the window, and how long it is.
    pub fn recent(&self) -> Option<(Distribution, Duration)> {
        let latest = self.latest.as_ref()?;
        Some((latest.waits.since(&self.older.waits), latest.until.since(self.older.until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` waits in one bucket.
    fn waits(count: u64) -> Distribution {
        Distribution::from_counts([0, 0, count])
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos((1000 + seconds) * 1_000_000_000)
    }

    #[test]
    fn the_window_moves_on() {
        let mut recent = RecentWaits::default();
        for second in 1..=60 {
            recent.note(at(second), &waits(second * 10));
            let (counted, span) = recent.recent().unwrap();
            assert_eq!(counted.total(), span.as_secs() * 10, "{second}");
            assert!(
                span >= STEP.min(Duration::from_secs(second)) && span <= STEP * 2 + INTERVAL,
                "{second} {span:?}"
            );
        }
        // A pause: what came before it is not recent.
        recent.note(at(100), &waits(607));
        assert_eq!(recent.recent(), Some((waits(7), INTERVAL)));
    }
}
