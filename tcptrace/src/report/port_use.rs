//! Ephemeral ports by process as the tracer sums them up every second, and whole namespaces when it looked.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::{PortSurvey, PortUse, Timestamp};

use super::series::Series;

/// So many processes are followed; the rest is counted.
const PROCESSES: usize = 2_000;

/// What is counted from so short before the recording's beginning on began with it.
const BOOTSTRAP: Duration = Duration::from_secs(2);

/// The ephemeral ports of a network namespace, where somebody looked because it mattered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpace {
    /// Network namespace.
    pub netns: u32,
    /// First port of the range.
    pub first: u16,
    /// Last port of the range.
    pub last: u16,
    /// Ports in it that are not reserved.
    pub capacity: u32,
    /// Most that were in use when it was looked at.
    pub in_use_max: u32,
    /// When that was.
    pub in_use_max_at: Timestamp,
    /// Most that were held by TIME_WAIT alone.
    pub time_wait_max: u32,
    /// How often it was looked at.
    pub looks: u64,
}

/// What a process did with ephemeral ports.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// Its counts before the report's time.
    before: PortUse,
    /// Its last counts.
    now: PortUse,
    /// Most ports at a time.
    pub(super) held_max: u64,
    /// Ports held over time.
    pub(super) series: Series,
}

impl Use {
    /// Its name, and what was counted in the report's time: taken, given back, of these left in TIME_WAIT, refused.
    pub(super) fn counts(&self) -> (&str, [u64; 4]) {
        let grown = |of: fn(&PortUse) -> u64| of(&self.now).saturating_sub(of(&self.before));
        let counts: [fn(&PortUse) -> u64; 4] =
            [PortUse::taken, |of| of.released, |of| of.time_wait, |of| of.refused];
        (&self.now.comm, counts.map(grown))
    }
}

/// Sums as they come.
#[derive(Debug, Default)]
pub(super) struct PortUses {
    by_process: BTreeMap<(u32, u32), Use>,
    spaces: BTreeMap<u32, PortSpace>,
    pub(super) untold: u64,
}

impl PortUses {
    pub(super) fn note(&mut self, time: Timestamp, start: Timestamp, within: bool, now: &PortUse) {
        let key = (now.netns, now.pid);
        if self.by_process.len() >= PROCESSES && !self.by_process.contains_key(&key) {
            self.untold += 1;
            return;
        }
        let of = self.by_process.entry(key).or_insert_with(|| {
            // What a part of a rotated recording is told first goes back to before it began.
            let older = now.since < start.before(BOOTSTRAP);
            let before = if older { now.clone() } else { PortUse::default() };
            Use { before, now: PortUse::default(), held_max: 0, series: Series::new(start) }
        });
        of.now.clone_from(now);
        if within {
            of.held_max = of.held_max.max(now.held());
            of.series.at(time).level = Some(now.held());
        } else {
            of.before.clone_from(now);
        }
    }

    pub(super) fn survey(&mut self, time: Timestamp, survey: &PortSurvey) {
        let space = self.spaces.entry(survey.netns).or_insert_with(|| PortSpace {
            netns: survey.netns,
            first: 0,
            last: 0,
            capacity: 0,
            in_use_max: 0,
            in_use_max_at: time,
            time_wait_max: 0,
            looks: 0,
        });
        (space.first, space.last, space.capacity) = (survey.range.first, survey.range.last, survey.capacity);
        space.looks += 1;
        space.time_wait_max = space.time_wait_max.max(survey.time_wait);
        if survey.in_use > space.in_use_max {
            (space.in_use_max, space.in_use_max_at) = (survey.in_use, time);
        }
    }

    /// By namespace and process; and what whole namespaces had.
    pub(super) fn finish(self) -> (BTreeMap<(u32, u32), Use>, Vec<PortSpace>) {
        (self.by_process, self.spaces.into_values().collect())
    }
}
