//! What is known of a network namespace: its knobs, its counters, and what we counted ourselves.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::{ConnectTotals, CounterSample, KnobSample, ListenerTotals, Timestamp};

/// What samples counted up to then may have happened before the counters were first read.
const FIRST_SECOND: Duration = Duration::from_millis(1500);

/// Readings of ListenOverflows that are kept: more than the seconds between a reading of a listener and its overflow.
const READINGS: usize = 8;

/// One network namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Its cookie, where the kernel tells it.
    pub(super) cookie: Option<u64>,
    /// Its knobs, as last read; all unknown if they were not.
    pub knobs: KnobSample,
    /// First reading of its counters, and when.
    baseline: Option<(Timestamp, CounterSample)>,
    /// It was met after the start, and is taken for new.
    late: bool,
    /// Latest reading.
    latest: Option<(Timestamp, CounterSample)>,
    /// Earlier readings of how far ListenOverflows had grown: an overflow's own share begins at one of them.
    overflows: VecDeque<(Timestamp, u64)>,
    /// What our probes counted.
    pub(super) observed: Observed,
    /// Of these: what came since the counters were last looked at. The kernel may or may not have counted it by then.
    pub(super) in_flight: Observed,
    /// Of these: what came in the first second, part of which may be older than the first reading of the counters.
    pub(super) first_second: Observed,
    pub(super) inference: Inference,
}

/// What our probes counted in a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Observed {
    /// At its listeners.
    pub listeners: ListenerTotals,
    /// What became of connects that were not answered at once.
    pub connects: ConnectTotals,
    /// Connects that the kernel gave a port, or bind() had.
    pub dialled: u64,
    /// SYNs for ports that nobody listens on.
    pub absent: u64,
}

impl Observed {
    fn add(&mut self, more: &Self) {
        self.listeners.add(&more.listeners);
        self.connects.add(&more.connects);
        self.dialled += more.dialled;
        self.absent += more.absent;
    }
}

impl From<ListenerTotals> for Observed {
    fn from(listeners: ListenerTotals) -> Self {
        Self { listeners, ..Self::default() }
    }
}

impl From<ConnectTotals> for Observed {
    fn from(connects: ConnectTotals) -> Self {
        Self { connects, ..Self::default() }
    }
}

/// How far the growth of `ListenOverflows` is already explained, where no probe sees the drops.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inference {
    /// Growth of `ListenOverflows` since the baseline that was put to a listener, or given up on.
    pub explained: u64,
    /// Since when some of it has been waiting for a listener to show.
    pub waiting_since: Option<Timestamp>,
    /// Growth that no listener could be found for.
    pub unexplained: u64,
    /// Growth of the counters of a full SYN queue that was put to a listener, or given up on, and since when some of it has been
    /// waiting for a listener to show: SYNs dropped, those dropped for the rest of `tcp_max_syn_backlog`, and cookies.
    pub syn_queue_drops: u64,
    pub syn_queue_reserved: u64,
    pub syn_queue_cookies: u64,
    pub drops_waiting_since: Option<Timestamp>,
    pub reserved_waiting_since: Option<Timestamp>,
    pub cookies_waiting_since: Option<Timestamp>,
}

impl Namespace {
    /// A reading of its counters. A namespace that was met `late`, after the start, was made since: its counters began at
    /// zero.
    pub(super) fn note_counters(&mut self, time: Timestamp, sample: CounterSample, late: bool) {
        if self.baseline.is_none() {
            let baseline = sample.at_birth();
            self.baseline = Some((time, if late { baseline } else { sample }));
            self.late = late;
        }
        if self.latest.is_none_or(|(before, _)| before <= time) {
            self.latest = Some((time, sample));
            if let Some((read, grown)) = self.grown(|counters| counters.listen_overflows) {
                if self.overflows.len() >= READINGS {
                    self.overflows.pop_front();
                }
                self.overflows.push_back((read, grown));
            }
        }
    }

    /// Whether its counters are higher than those of a later reading: then that one is of another namespace.
    pub(super) fn outgrows(&self, time: Timestamp, later: &CounterSample) -> bool {
        self.latest.as_ref().is_some_and(|(read, latest)| *read < time && later.fell_since(latest))
    }

    /// Our probes counted more at `time`.
    pub(super) fn note_observed(&mut self, time: Timestamp, more: &Observed) {
        let baseline = self.baseline.as_ref().map(|(baseline, _)| *baseline).filter(|_| !self.late);
        // Between the attachment of the probes and the first look at the counters.
        if baseline.is_some_and(|baseline| time < baseline) {
            return;
        }
        self.observed.add(more);
        self.in_flight.add(more);
        if baseline.is_some_and(|baseline| time.since(baseline) < FIRST_SECOND) {
            self.first_second.add(more);
        }
    }

    /// The counters were looked at; if there is no new reading they have not changed.
    pub(super) fn note_looked(&mut self) {
        self.in_flight = Observed::default();
    }

    /// What our probes counted of its connects: those that were not answered at once, and how many had a port of the kernel's choice.
    pub fn connects(&self) -> (ConnectTotals, u64) {
        (self.observed.connects, self.observed.dialled)
    }

    /// Whether it was met after the start, and is taken for new.
    pub(super) fn is_late(&self) -> bool {
        self.late
    }

    /// Growth of ListenOverflows since the tracer started, as it was read last at `time` or before. `None` where it was not.
    pub fn overflows_until(&self, time: Timestamp) -> Option<u64> {
        self.overflows.iter().rev().find(|(read, _)| *read <= time).map(|(_, grown)| *grown)
    }

    /// Growth of a counter since the tracer started, and when it was last read. `None` where it was not read.
    pub fn grown(&self, counter: impl Fn(&CounterSample) -> Option<u64>) -> Option<(Timestamp, u64)> {
        let (_, baseline) = self.baseline.as_ref()?;
        let (time, latest) = self.latest.as_ref()?;
        Some((*time, counter(latest)?.saturating_sub(counter(baseline)?)))
    }
}
