//! Numbers over time, in a bounded number of bins: when they do not suffice, two become one.

use std::time::Duration;

use crate::event::{Distribution, Timestamp};

/// At most so many bins.
const BINS: usize = 240;

/// Accept waits over time are kept by power of two, from 1 µs to over 34 s.
pub const WAIT_BUCKETS: usize = 26;

/// The shortest wait of such a bucket, ns.
pub fn wait_bucket_start_ns(bucket: usize) -> u64 {
    if bucket == 0 { 0 } else { 1024 << bucket.min(WAIT_BUCKETS) }
}

fn wait_bucket(ns: u64) -> usize {
    let power = usize::try_from((ns >> 10).checked_ilog2().unwrap_or(0)).unwrap_or(0);
    power.min(WAIT_BUCKETS - 1)
}

/// What happened in one bin of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bin {
    /// Deepest accept queue seen; `None` if it was not looked at.
    pub queue: Option<u32>,
    /// Most requests seen in the SYN queue.
    pub syn_queue: Option<u32>,
    /// Connections dropped, at either stage.
    pub drops: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Ports in use at the end of the bin, or requests unanswered: whatever else the series is of.
    pub level: Option<u64>,
    /// Accept waits by [`wait_bucket_start_ns`]; empty if there were none.
    pub waits: Vec<u64>,
}

impl Bin {
    /// Notes accept waits.
    pub(super) fn wait(&mut self, waits: &Distribution) {
        for (ns, count) in waits.buckets() {
            self.waits.resize(WAIT_BUCKETS, 0);
            if let Some(cell) = self.waits.get_mut(wait_bucket(ns)) {
                *cell = cell.saturating_add(count);
            }
        }
    }

    fn and(&mut self, later: &Self) {
        self.queue = self.queue.max(later.queue);
        self.syn_queue = self.syn_queue.max(later.syn_queue);
        self.drops = self.drops.saturating_add(later.drops);
        self.accepted = self.accepted.saturating_add(later.accepted);
        self.level = later.level.or(self.level);
        if !later.waits.is_empty() {
            self.waits.resize(WAIT_BUCKETS, 0);
            for (cell, more) in self.waits.iter_mut().zip(&later.waits) {
                *cell = cell.saturating_add(*more);
            }
        }
    }
}

/// Bins of equal width, from `start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Where the first bin begins.
    pub start: Timestamp,
    /// Width of a bin, seconds.
    pub width: u64,
    /// The bins.
    pub bins: Vec<Bin>,
}

impl Series {
    /// From `start` on, with bins of a second to begin with.
    pub fn new(start: Timestamp) -> Self {
        Self { start, width: 1, bins: Vec::new() }
    }

    /// The bin that `time` lies in; what is earlier than the start belongs to the first.
    pub(super) fn at(&mut self, time: Timestamp) -> &mut Bin {
        let seconds = time.since(self.start).as_secs();
        let last = u64::try_from(BINS).unwrap_or(u64::MAX) - 1;
        while seconds / self.width > last {
            self.halve();
        }
        let index = usize::try_from(seconds / self.width).unwrap_or(0);
        if self.bins.len() <= index {
            self.bins.resize_with(index + 1, Bin::default);
        }
        // It has just been made to exist; a vector cannot be empty here.
        let index = index.min(self.bins.len().saturating_sub(1));
        #[expect(clippy::indexing_slicing, reason = "the vector was made longer than this just above")]
        &mut self.bins[index]
    }

    fn halve(&mut self) {
        self.width = self.width.saturating_mul(2);
        let pairs = std::mem::take(&mut self.bins);
        for pair in pairs.chunks(2) {
            let mut sum = Bin::default();
            pair.iter().for_each(|bin| sum.and(bin));
            self.bins.push(sum);
        }
    }

    /// When a bin begins.
    pub fn time_of(&self, bin: usize) -> Timestamp {
        let seconds = u64::try_from(bin).unwrap_or(u64::MAX).saturating_mul(self.width);
        self.start.after(Duration::from_secs(seconds))
    }

    /// Whether anything was dropped, waited or queued.
    pub fn is_quiet(&self) -> bool {
        self.bins.iter().all(|bin| bin.drops == 0 && bin.accepted == 0 && bin.queue.unwrap_or(0) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_time_needs_no_more_bins() {
        let start = Timestamp::from_nanos(1_000_000_000);
        let mut series = Series::new(start);
        for second in 0..10_000 {
            let bin = series.at(start.after(Duration::from_secs(second)));
            bin.drops += 1;
            bin.queue = bin.queue.max(Some(u32::try_from(second).unwrap()));
        }
        assert!(series.bins.len() <= BINS);
        assert_eq!(series.width, 64);
        assert_eq!(series.bins.iter().map(|bin| bin.drops).sum::<u64>(), 10_000);
        assert_eq!(series.bins.last().unwrap().queue, Some(9_999));
        assert_eq!(series.time_of(1), start.after(Duration::from_secs(64)));
    }

    #[test]
    fn waits_fall_into_their_power_of_two() {
        for (ns, bucket) in [(0, 0), (1500, 0), (2048, 1), (1 << 20, 10), (u64::MAX, WAIT_BUCKETS - 1)] {
            assert_eq!(wait_bucket(ns), bucket, "{ns}");
            assert!(wait_bucket_start_ns(bucket) <= ns);
        }
    }
}
