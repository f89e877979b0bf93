//! What is known of a network namespace: its knobs, and whether what we saw adds up to what its kernel counters say.

use serde::Serialize;

use crate::event::{
    ConnectTotals, CounterSample, Coverage, KnobSample, ObservationStatus, Timestamp, observation,
};

/// One network namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Its knobs, as last read; all unknown if they were not.
    pub knobs: KnobSample,
    /// First reading of its counters, and when.
    baseline: Option<(Timestamp, CounterSample)>,
    /// It was met after the start, and is taken for new.
    late: bool,
    /// Latest reading.
    latest: Option<(Timestamp, CounterSample)>,
    /// What our probes saw, one by one.
    pub(super) observed: ObservedDrops,
    /// What became of connects that were not answered at once.
    pub(super) connects: ConnectTotals,
    /// Of these: what came since the counters were last looked at. The kernel may or may not have counted it by then.
    in_flight: ObservedDrops,
    pub(super) inference: Inference,
}

/// Drops at the listeners of a namespace that our probes saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservedDrops {
    /// SYNs at a full accept queue.
    pub syn_accept_queue: u64,
    /// SYNs at the SYN-queue check, or for want of memory.
    pub syn_other: u64,
    /// Final ACKs at a full accept queue.
    pub ack_accept_queue: u64,
    /// Final ACKs for another reason.
    pub ack_other: u64,
}

impl ObservedDrops {
    /// What `ListenOverflows` counts.
    pub fn overflows(&self) -> u64 {
        self.syn_accept_queue + self.ack_accept_queue
    }

    fn add(&mut self, more: &Self) {
        self.syn_accept_queue += more.syn_accept_queue;
        self.syn_other += more.syn_other;
        self.ack_accept_queue += more.ack_accept_queue;
        self.ack_other += more.ack_other;
    }

    /// What `ListenDrops` counts.
    pub fn all(&self) -> u64 {
        self.overflows() + self.syn_other + self.ack_other
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
}

impl Namespace {
    /// A reading of its counters. A namespace that was met `late`, after the start, was made since: its counters began at
    /// zero.
    pub(super) fn note_counters(&mut self, time: Timestamp, sample: CounterSample, late: bool) {
        if self.baseline.is_none() {
            let zero = |counter: Option<u64>| counter.map(|_| 0);
            let baseline = CounterSample {
                netns: sample.netns,
                listen_overflows: zero(sample.listen_overflows),
                listen_drops: zero(sample.listen_drops),
                req_queue_full_drop: zero(sample.req_queue_full_drop),
                req_queue_full_do_cookies: zero(sample.req_queue_full_do_cookies),
            };
            self.baseline = Some((time, if late { baseline } else { sample }));
            self.late = late;
        }
        if self.latest.is_none_or(|(before, _)| before <= time) {
            self.latest = Some((time, sample));
        }
    }

    /// Our probes saw more drops at `time`.
    pub(super) fn note_observed(&mut self, time: Timestamp, more: &ObservedDrops) {
        // Between the attachment of the probes and the first look at the counters.
        if !self.late && self.baseline.as_ref().is_some_and(|(baseline, _)| time < *baseline) {
            return;
        }
        self.observed.add(more);
        self.in_flight.add(more);
    }

    /// More connects were not answered.
    pub(super) fn note_connects(&mut self, time: Timestamp, more: &ConnectTotals) {
        if !self.late && self.baseline.as_ref().is_some_and(|(baseline, _)| time < *baseline) {
            return;
        }
        self.connects.add(more);
    }

    /// The counters were looked at; if there is no new reading they have not changed.
    pub(super) fn note_looked(&mut self) {
        self.in_flight = ObservedDrops::default();
    }

    /// Growth of a counter since the tracer started, and when it was last read. `None` where it was not read.
    pub fn grown(&self, counter: impl Fn(&CounterSample) -> Option<u64>) -> Option<(Timestamp, u64)> {
        let (_, baseline) = self.baseline.as_ref()?;
        let (time, latest) = self.latest.as_ref()?;
        Some((*time, counter(latest)?.saturating_sub(counter(baseline)?)))
    }
}

/// Whether our count of something equals the kernel's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// Network namespace.
    pub netns: u32,
    /// The kernel's name of the counter.
    pub counter: &'static str,
    /// What the kernel counted while we traced.
    pub kernel: u64,
    /// What we saw; `None` where we cannot see it.
    pub observed: Option<u64>,
    /// How they compare.
    pub status: ReconciliationStatus,
    /// Why they differ, or may differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How our count compares with the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReconciliationStatus {
    /// They are equal.
    Exact,
    /// They differ, and should not.
    Mismatch,
    /// They differ, as they must: a part of it cannot be seen here, or was filtered out.
    Partial,
    /// We cannot see it here.
    Unobserved,
}

impl ReconciliationStatus {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Mismatch => "mismatch",
            Self::Partial => "partial",
            Self::Unobserved => "unobserved",
        }
    }
}

/// Compares what we saw in `namespace` with what its kernel counted. Counters that did not move, as we saw too, are left out
/// unless `all`.
pub(super) fn reconcile(
    netns: u32,
    namespace: &Namespace,
    coverage: Option<&Coverage>,
    lost: Option<&str>,
) -> Vec<Reconciliation> {
    type Read = fn(&CounterSample) -> Option<u64>;
    let sees_all = [observation::SYN_DROP, observation::ACK_DROP];
    type Ours = fn(&ObservedDrops) -> u64;
    let rows: [(&'static str, Read, Ours, &[&str]); 3] = [
        ("ListenOverflows", |sample| sample.listen_overflows, ObservedDrops::overflows, &sees_all),
        ("ListenDrops", |sample| sample.listen_drops, ObservedDrops::all, &sees_all),
        (
            "TCPReqQFullDrop",
            |sample| sample.req_queue_full_drop,
            |ours| ours.syn_other,
            &[observation::SYN_DROP],
        ),
    ];
    let mut compared = Vec::new();
    for (counter, read, ours, needs) in rows {
        let observed = ours(&namespace.observed);
        let Some((_, kernel)) = namespace.grown(read) else { continue };
        // Namespaces in which nothing ever happened are no news, and there can be many.
        if kernel == 0 && observed == 0 && counter != "ListenOverflows" {
            continue;
        }
        let mut row = compare(netns, counter, kernel, observed, needs, coverage, lost);
        if row.status == ReconciliationStatus::Mismatch
            && observed.checked_sub(kernel).is_some_and(|more| more <= ours(&namespace.in_flight))
        {
            row.status = ReconciliationStatus::Partial;
            row.reason = Some("drops went on after the counter was last read".to_owned());
        }
        if row.status == ReconciliationStatus::Mismatch && namespace.late && lost.is_none() {
            row.reason =
                Some("the namespace was met after the start: it may be older than it seemed".to_owned());
        }
        compared.push(row);
    }
    compared
}

fn compare(
    netns: u32,
    counter: &'static str,
    kernel: u64,
    observed: u64,
    needs: &[&str],
    coverage: Option<&Coverage>,
    lost: Option<&str>,
) -> Reconciliation {
    let status_of = |name: &&str| match coverage {
        // Without a coverage event nothing is known to be missing.
        None => ObservationStatus::Attached,
        Some(coverage) => coverage.status(name).unwrap_or(ObservationStatus::Missing),
    };
    let blind: Vec<&str> =
        needs.iter().filter(|name| status_of(name) != ObservationStatus::Attached).copied().collect();
    let filters = coverage.map(|coverage| coverage.filters.join(" ")).filter(|filters| !filters.is_empty());
    let (observed, status, reason) = if blind.len() == needs.len() {
        (None, ReconciliationStatus::Unobserved, Some(format!("{} not observable here", blind.join(", "))))
    } else if kernel == observed {
        (Some(observed), ReconciliationStatus::Exact, None)
    } else if !blind.is_empty() {
        let reason = format!("{} not observable here", blind.join(", "));
        (Some(observed), ReconciliationStatus::Partial, Some(reason))
    } else if let Some(filters) = filters.filter(|_| observed < kernel) {
        (Some(observed), ReconciliationStatus::Partial, Some(format!("filtered: {filters}")))
    } else {
        (
            Some(observed),
            ReconciliationStatus::Mismatch,
            Some(mismatch_reason(counter, kernel, observed, lost)),
        )
    };
    Reconciliation { netns, counter, kernel, observed, status, reason }
}

fn mismatch_reason(counter: &str, kernel: u64, observed: u64, lost: Option<&str>) -> String {
    match lost {
        Some(lost) if observed < kernel => format!("events were lost: {lost}"),
        _ if counter == "TCPReqQFullDrop" && observed > kernel => {
            "SYNs dropped for want of memory are counted with those of a full SYN queue".to_owned()
        }
        _ if counter == "ListenDrops" && observed < kernel => {
            "the kernel also counts requests dropped after an ICMP error, and SYNs to broadcast addresses"
                .to_owned()
        }
        _ => "our probes and the kernel's counter disagree".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Observation, Tier};

    fn namespace(kernel: u64, syn: u64, ack: u64) -> Namespace {
        let mut namespace = Namespace::default();
        let sample = |value| CounterSample {
            listen_overflows: Some(value),
            listen_drops: Some(value),
            ..CounterSample::default()
        };
        namespace.note_counters(Timestamp::from_nanos(1), sample(1000), false);
        namespace.note_counters(Timestamp::from_nanos(3), sample(1000 + kernel), false);
        // Late and older: ignored.
        namespace.note_counters(Timestamp::from_nanos(2), sample(1001), false);
        namespace.observed =
            ObservedDrops { syn_accept_queue: syn, ack_accept_queue: ack, ..ObservedDrops::default() };
        namespace
    }

    fn coverage(syn: ObservationStatus, ack: ObservationStatus, filters: &[&str]) -> Coverage {
        let observation = |name: &str, status| Observation {
            name: name.to_owned(),
            status,
            via: String::new(),
            reason: None,
        };
        Coverage {
            kernel: "6.12".into(),
            tier: Tier::Tracepoint,
            observations: vec![
                observation(observation::SYN_DROP, syn),
                observation(observation::ACK_DROP, ack),
            ],
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
        }
    }

    fn overflows(namespace: &Namespace, coverage: Option<&Coverage>, lost: Option<&str>) -> Reconciliation {
        reconcile(1, namespace, coverage, lost).remove(0)
    }

    #[test]
    fn both_stages_add_up() {
        let row = overflows(&namespace(353, 312, 41), None, None);
        assert_eq!(
            (row.counter, row.kernel, row.observed, row.status),
            ("ListenOverflows", 353, Some(353), ReconciliationStatus::Exact)
        );
        assert_eq!(row.reason, None);
    }

    #[test]
    fn what_happens_before_or_after_the_counters_are_read_is_no_mismatch() {
        let drops = |count| ObservedDrops { syn_accept_queue: count, ..ObservedDrops::default() };
        let mut namespace = namespace(10, 0, 0);
        namespace.note_observed(Timestamp::from_nanos(0), &drops(5));
        namespace.note_observed(Timestamp::from_nanos(2), &drops(10));
        namespace.note_looked();
        assert_eq!(overflows(&namespace, None, None).status, ReconciliationStatus::Exact);
        namespace.note_observed(Timestamp::from_nanos(4), &drops(2));
        let row = overflows(&namespace, None, None);
        assert_eq!((row.status, row.observed), (ReconciliationStatus::Partial, Some(12)));
        namespace.note_looked();
        assert_eq!(overflows(&namespace, None, None).status, ReconciliationStatus::Mismatch);
    }

    #[test]
    fn a_namespace_that_is_met_late_began_at_zero() {
        let mut namespace = Namespace::default();
        let sample = CounterSample { listen_overflows: Some(7), ..CounterSample::default() };
        namespace.note_counters(Timestamp::from_nanos(1), sample, true);
        namespace.observed.syn_accept_queue = 7;
        assert_eq!(overflows(&namespace, None, None).status, ReconciliationStatus::Exact);
        namespace.observed.syn_accept_queue = 3;
        let row = overflows(&namespace, None, None);
        assert_eq!(row.status, ReconciliationStatus::Mismatch);
        assert!(row.reason.unwrap().contains("met after the start"));
    }

    #[test]
    fn differences_have_reasons() {
        use ObservationStatus::{Attached, Polled};
        let row = overflows(&namespace(10, 3, 4), None, Some("3 syn-drop"));
        assert_eq!(
            (row.status, row.reason.as_deref()),
            (ReconciliationStatus::Mismatch, Some("events were lost: 3 syn-drop"))
        );
        let filtered = coverage(Attached, Attached, &["--port 1080"]);
        let row = overflows(&namespace(10, 3, 4), Some(&filtered), None);
        assert_eq!(
            (row.status, row.reason.as_deref()),
            (ReconciliationStatus::Partial, Some("filtered: --port 1080"))
        );
        let half = coverage(Polled, Attached, &[]);
        let row = overflows(&namespace(10, 0, 4), Some(&half), None);
        assert_eq!(row.status, ReconciliationStatus::Partial);
        assert_eq!(row.reason.as_deref(), Some("syn-drop not observable here"));
        let blind = coverage(Polled, ObservationStatus::Missing, &[]);
        let row = overflows(&namespace(10, 0, 0), Some(&blind), None);
        assert_eq!((row.status, row.observed), (ReconciliationStatus::Unobserved, None));
    }
}
