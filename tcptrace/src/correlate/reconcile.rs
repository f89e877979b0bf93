//! Whether what we saw adds up to what the kernel's own counters say.

use serde::Serialize;

use crate::event::{ConnectTotals, CounterSample, Coverage, ListenerTotals, ObservationStatus, observation};

use super::Namespace;

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

/// Our count of what a counter counts: at least and at most, where that cannot be told exactly.
type Ours = fn(&ListenerTotals, &ConnectTotals) -> (u64, u64);

/// A counter of the kernel, and what it is of ours.
struct Row {
    counter: &'static str,
    read: fn(&CounterSample) -> Option<u64>,
    ours: Ours,
    /// We count it by samples only, without a time for each.
    sampled: bool,
    /// Observations without which we do not see all of it.
    needs: &'static [&'static str],
}

fn exactly(counts: &[Option<u64>]) -> (u64, u64) {
    let sum = counts.iter().flatten().fold(0_u64, |sum, count| sum.saturating_add(*count));
    (sum, sum)
}

/// Where the kernel counts each stands in KERNEL.md §12.
const ROWS: [Row; 10] = [
    Row {
        counter: "ListenOverflows",
        read: |kernel| kernel.listen_overflows,
        ours: |ours, _| exactly(&[ours.syn_drops_accept_queue, ours.ack_drops_accept_queue]),
        sampled: false,
        needs: &[observation::SYN_DROP, observation::ACK_DROP],
    },
    Row {
        counter: "ListenDrops",
        read: |kernel| kernel.listen_drops,
        ours: |ours, _| {
            exactly(&[
                ours.syn_drops_accept_queue,
                ours.syn_drops_syn_queue,
                ours.syn_drops_max_syn_backlog,
                ours.ack_drops_accept_queue,
                ours.ack_drops_other,
                ours.icmp_ends,
            ])
        },
        sampled: false,
        needs: &[observation::SYN_DROP, observation::ACK_DROP, observation::REQUEST_END],
    },
    Row {
        counter: "TCPReqQFullDrop",
        read: |kernel| kernel.req_queue_full_drop,
        ours: |ours, _| exactly(&[ours.syn_drops_syn_queue]),
        sampled: false,
        needs: &[observation::SYN_DROP],
    },
    Row {
        counter: "TCPReqQFullDoCookies",
        read: |kernel| kernel.req_queue_full_do_cookies,
        ours: |ours, _| {
            let (sure, _) = exactly(&[ours.cookies_sent, ours.cookies_dropped]);
            let doubtful = ours.cookies_dropped_at_limit.unwrap_or(0);
            // A cookie was sent with the SYN queue exactly at its limit: that counts as full in this release.
            let full_at_limit = ours.cookies_at_limit.unwrap_or(0) > 0;
            (if full_at_limit { sure + doubtful } else { sure }, sure + doubtful)
        },
        sampled: true,
        needs: &[observation::SYN_DROP, observation::COOKIE],
    },
    Row {
        counter: "SyncookiesSent",
        read: |kernel| kernel.syncookies_sent,
        ours: |ours, _| exactly(&[ours.cookies_sent]),
        sampled: true,
        needs: &[observation::COOKIE],
    },
    Row {
        counter: "SyncookiesRecv",
        read: |kernel| kernel.syncookies_received,
        ours: |ours, _| exactly(&[ours.cookies_valid]),
        sampled: true,
        needs: &[observation::COOKIE],
    },
    Row {
        counter: "TCPSynRetrans",
        read: |kernel| kernel.syn_retransmits,
        ours: |ours, connects| {
            exactly(&[
                ours.retransmits_timer,
                ours.retransmits_duplicate_syn,
                ours.retransmits_unknown,
                Some(connects.syns_again),
            ])
        },
        sampled: false,
        // In the tracepoint tier a few are missed when one interrupts another; there its counts are no proof.
        needs: &[observation::SYNACK_RETRANSMIT, observation::SYN_RETRANSMIT, observation::SYN_DROP],
    },
    Row {
        counter: "EmbryonicRsts",
        read: |kernel| kernel.embryonic_resets,
        ours: |ours, _| exactly(&[ours.resets, ours.aborts]),
        sampled: false,
        needs: &[observation::REQUEST_END],
    },
    Row {
        counter: "TCPFastOpenPassive",
        read: |kernel| kernel.fastopen_passive,
        ours: |ours, _| exactly(&[ours.fast_opens]),
        sampled: true,
        needs: &[observation::SYN_DROP, observation::ENQUEUE],
    },
    Row {
        counter: "PassiveOpens",
        read: |kernel| kernel.passive_opens,
        // Every child that was made: enqueued, given up, or not needed.
        ours: |ours, _| exactly(&[ours.enqueued, ours.ack_drops_other, ours.joins, ours.orphans]),
        sampled: true,
        needs: &[
            observation::ENQUEUE,
            observation::ACK_DROP,
            observation::SYN_DROP,
            observation::REQUEST_END,
        ],
    },
];

/// Compares what we saw in `namespace` with what its kernel counted. Counters that did not move, as we saw too, are left
/// out, but for the first.
pub(super) fn reconcile(
    netns: u32,
    namespace: &Namespace,
    coverage: Option<&Coverage>,
    lost: Option<&str>,
) -> Vec<Reconciliation> {
    let mut compared = Vec::new();
    for row in &ROWS {
        let Some((_, kernel)) = namespace.grown(row.read) else { continue };
        let (least, most) = (row.ours)(&namespace.observed, &namespace.connects);
        // Namespaces in which nothing ever happened are no news, and there can be many.
        if kernel == 0 && most == 0 && row.counter != "ListenOverflows" {
            continue;
        }
        let observed = kernel.clamp(least, most);
        let mut result = compare(netns, row, kernel, observed, coverage, lost);
        if result.status == ReconciliationStatus::Exact && least != most {
            result.status = ReconciliationStatus::Partial;
            result.reason = Some(format!(
                "it is {least} or {most}: whether a SYN queue exactly at its limit is full depends on the release"
            ));
        }
        if result.status == ReconciliationStatus::Mismatch {
            let more = observed.checked_sub(kernel);
            let within =
                |listeners, connects| more.is_some_and(|more| more <= (row.ours)(listeners, connects).1);
            if within(&namespace.in_flight, &namespace.connects_in_flight) {
                result.status = ReconciliationStatus::Partial;
                result.reason = Some("it went on after the counter was last read".to_owned());
            } else if row.sampled && within(&namespace.first_second, &ConnectTotals::default()) {
                result.status = ReconciliationStatus::Partial;
                result.reason = Some("it had begun before the counter was first read".to_owned());
            } else if namespace.is_late() && lost.is_none() {
                result.reason =
                    Some("the namespace was met after the start: it may be older than it seemed".to_owned());
            }
        }
        compared.push(result);
    }
    compared
}

fn compare(
    netns: u32,
    row: &Row,
    kernel: u64,
    observed: u64,
    coverage: Option<&Coverage>,
    lost: Option<&str>,
) -> Reconciliation {
    let (counter, needs) = (row.counter, row.needs);
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
            "the kernel also counts SYNs to broadcast addresses".to_owned()
        }
        _ => "our probes and the kernel's counter disagree".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Observation, Tier, Timestamp};

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
        namespace.observed = ListenerTotals {
            syn_drops_accept_queue: Some(syn),
            ack_drops_accept_queue: Some(ack),
            ..ListenerTotals::default()
        };
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
        let drops =
            |count| ListenerTotals { syn_drops_accept_queue: Some(count), ..ListenerTotals::default() };
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
        namespace.observed.syn_drops_accept_queue = Some(7);
        assert_eq!(overflows(&namespace, None, None).status, ReconciliationStatus::Exact);
        namespace.observed.syn_drops_accept_queue = Some(3);
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

    /// What `counter` of the kernel, grown by `kernel`, comes to beside `observed`.
    fn row(
        counter: &str,
        kernel: impl Fn(&mut CounterSample, u64),
        observed: ListenerTotals,
    ) -> Option<Reconciliation> {
        let mut namespace = Namespace::default();
        let mut sample = CounterSample { listen_overflows: Some(0), ..CounterSample::default() };
        kernel(&mut sample, 100);
        namespace.note_counters(Timestamp::from_nanos(1), sample, false);
        kernel(&mut sample, 107);
        namespace.note_counters(Timestamp::from_nanos(2), sample, false);
        namespace.observed = observed;
        reconcile(1, &namespace, None, None).into_iter().find(|row| row.counter == counter)
    }

    #[test]
    fn every_child_is_a_passive_open() {
        let observed = ListenerTotals {
            enqueued: Some(4),
            ack_drops_other: Some(1),
            joins: Some(1),
            orphans: Some(1),
            ..ListenerTotals::default()
        };
        let row = row("PassiveOpens", |to, count| to.passive_opens = Some(count), observed).unwrap();
        assert_eq!((row.observed, row.status), (Some(7), ReconciliationStatus::Exact));
    }

    #[test]
    fn a_cookie_that_was_granted_and_not_sent_counts_as_well() {
        let read = |to: &mut CounterSample, count| to.req_queue_full_do_cookies = Some(count);
        let observed = |at_limit, dropped, doubtful| ListenerTotals {
            cookies_sent: Some(4),
            cookies_at_limit: Some(at_limit),
            cookies_dropped: Some(dropped),
            cookies_dropped_at_limit: Some(doubtful),
            ..ListenerTotals::default()
        };
        let row = |observed| row("TCPReqQFullDoCookies", read, observed).unwrap();
        assert_eq!(row(observed(0, 3, 0)).status, ReconciliationStatus::Exact);
        // In a release in which a queue at its limit is full.
        assert_eq!(row(observed(1, 0, 3)).status, ReconciliationStatus::Exact);
        assert_eq!(row(observed(1, 0, 4)).status, ReconciliationStatus::Mismatch);
        // Nothing tells which kind of release it is.
        assert_eq!(row(observed(0, 1, 3)).status, ReconciliationStatus::Partial);
        assert_eq!(row(observed(0, 1, 1)).status, ReconciliationStatus::Mismatch);
    }
}
