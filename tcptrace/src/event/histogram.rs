//! Distributions of times: counts by log-linear bucket, as the kernel side keeps them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tcptrace_common::listener::{HISTOGRAM_BUCKETS, bucket_of, bucket_start};

/// How many times fell into each bucket ([`tcptrace_common::listener::bucket_of`]); buckets without any are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Distribution(Vec<(u16, u64)>);

impl Distribution {
    /// From the count of every bucket, in order.
    pub fn from_counts(counts: impl IntoIterator<Item = u64>) -> Self {
        let buckets = (0_u16..).zip(counts.into_iter().take(HISTOGRAM_BUCKETS));
        Self(buckets.filter(|(_, count)| *count > 0).collect())
    }

    /// From the buckets that are not empty, each by a time that belongs to it (ns) and its count; buckets named twice add up.
    pub fn from_buckets(buckets: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut counts = std::collections::BTreeMap::new();
        for (time, count) in buckets.into_iter().filter(|(_, count)| *count > 0) {
            // There are far fewer buckets than u16 has numbers.
            let bucket = u16::try_from(bucket_of(time)).unwrap_or(u16::MAX);
            let sum: &mut u64 = counts.entry(bucket).or_default();
            *sum = sum.saturating_add(count);
        }
        Self(counts.into_iter().collect())
    }

    /// The buckets that are not empty, in order: the shortest time of each (ns), and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|&(bucket, count)| (bucket_start(usize::from(bucket)), count))
    }

    /// How many times were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Whether none was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was counted since `earlier`, a reading of the same histogram. The kernel's counts are 32 bits wide and wrap.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bucket: u16| {
            earlier.0.binary_search_by_key(&bucket, |entry| entry.0).ok().and_then(|at| earlier.0.get(at))
        };
        let grown = self.0.iter().map(|&(bucket, count)| match before(bucket) {
            Some(&(_, then)) if then <= count => (bucket, count - then),
            Some(&(_, then)) => (bucket, count.saturating_add(1 << 32).saturating_sub(then)),
            None => (bucket, count),
        });
        Self(grown.filter(|(_, count)| *count > 0).collect())
    }

    /// The two together.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut sum = std::collections::BTreeMap::new();
        for (bucket, count) in self.0.iter().chain(&other.0) {
            *sum.entry(*bucket).or_insert(0) += count;
        }
        Self(sum.into_iter().collect())
    }

    /// The time that the share `quantile` (0–1) of all is not longer than, to the middle of its bucket: at most 3.2 % off.
    /// `None` when nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total = self.total();
        #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
        let mut rank = (quantile.clamp(0.0, 1.0) * total as f64).ceil().max(1.0);
        for &(bucket, count) in &self.0 {
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            let count = count as f64;
            if rank <= count {
                let (start, end) = (bucket_start(usize::from(bucket)), bucket_start(usize::from(bucket) + 1));
                return Some(Duration::from_nanos(start.midpoint(end)));
            }
            rank -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times_ms: &[u64]) -> Distribution {
        let mut counts = vec![0; HISTOGRAM_BUCKETS];
        for ms in times_ms {
            counts[bucket_of(ms * 1_000_000)] += 1;
        }
        Distribution::from_counts(counts)
    }

    #[test]
    fn quantiles_are_within_their_bucket() {
        let times: Vec<u64> = (1..=1000).collect();
        let distribution = of(&times);
        assert_eq!(distribution.total(), 1000);
        for (quantile, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let ms = distribution.quantile(quantile).unwrap().as_secs_f64() * 1e3;
            assert!((ms / exact - 1.0).abs() < 0.033, "{quantile}: {ms}");
        }
        assert_eq!(Distribution::default().quantile(0.5), None);
    }

    #[test]
    fn growth_is_what_came_since() {
        let (before, after) = (of(&[1, 5]), of(&[1, 5, 5, 900]));
        assert_eq!(after.since(&before), of(&[5, 900]));
        assert_eq!(before.and(&of(&[5, 900])), after);
        assert!(after.since(&after).is_empty());
    }
}
