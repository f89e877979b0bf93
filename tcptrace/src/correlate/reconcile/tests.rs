//! That our counts are compared with the right ones, and what a difference is put down to.

use super::super::namespace::Observed;
use super::*;
use crate::event::{
    ConnectTotals, CounterSample, ListenerTotals, LossPlace, Lost, Observation, Tier, Timestamp, observation,
};

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
    namespace.observed.listeners = ListenerTotals {
        syn_drops_accept_queue: Some(syn),
        ack_drops_accept_queue: Some(ack),
        ..ListenerTotals::default()
    };
    namespace
}

fn coverage(syn: ObservationStatus, ack: ObservationStatus, filters: &[&str]) -> Coverage {
    let observation =
        |name: &str, status| Observation { name: name.to_owned(), status, via: String::new(), reason: None };
    Coverage {
        kernel: "6.12".into(),
        tier: Tier::Tracepoint,
        observations: vec![observation(observation::SYN_DROP, syn), observation(observation::ACK_DROP, ack)],
        filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
        ..Coverage::default()
    }
}

fn overflows(
    namespace: &Namespace,
    coverage: Option<&Coverage>,
    lost: Option<(u64, &str)>,
) -> Reconciliation {
    reconcile(1, namespace, coverage, &losses(lost)).remove(0)
}

fn losses(lost: Option<(u64, &str)>) -> Losses {
    let mut losses = Losses::default();
    if let Some((count, what)) = lost {
        let now = Timestamp::from_nanos(1);
        losses.note(&Lost { what: what.to_owned(), count, place: LossPlace::Probe, from: now, to: now });
    }
    losses
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
    let drops = |count| ListenerTotals { syn_drops_accept_queue: Some(count), ..ListenerTotals::default() };
    let mut namespace = namespace(10, 0, 0);
    namespace.note_observed(Timestamp::from_nanos(0), &drops(5).into());
    namespace.note_observed(Timestamp::from_nanos(2), &drops(10).into());
    namespace.note_looked();
    assert_eq!(overflows(&namespace, None, None).status, ReconciliationStatus::Exact);
    namespace.note_observed(Timestamp::from_nanos(4), &drops(2).into());
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
    namespace.observed.listeners.syn_drops_accept_queue = Some(7);
    assert_eq!(overflows(&namespace, None, None).status, ReconciliationStatus::Exact);
    namespace.observed.listeners.syn_drops_accept_queue = Some(3);
    let row = overflows(&namespace, None, None);
    assert_eq!(row.status, ReconciliationStatus::Mismatch);
    assert!(row.reason.unwrap().contains("met after the start"));
}

#[test]
fn differences_have_reasons() {
    use ObservationStatus::{Attached, Polled};
    let row = overflows(&namespace(10, 3, 4), None, Some((3, "syn-drop")));
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
    namespace.observed.listeners = observed;
    reconcile(1, &namespace, None, &losses(None)).into_iter().find(|row| row.counter == counter)
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

/// A namespace whose kernel counted this much of what connects do.
fn connecting(kernel: CounterSample, observed: Observed) -> Namespace {
    let mut namespace = Namespace::default();
    namespace.note_counters(Timestamp::from_nanos(1), kernel.at_birth(), false);
    namespace.note_counters(Timestamp::from_nanos(2), kernel, false);
    namespace.observed = observed;
    namespace
}

fn compared(counter: &str, namespace: &Namespace) -> (Option<u64>, ReconciliationStatus) {
    let rows = reconcile(1, namespace, None, &losses(None));
    let row = rows.into_iter().find(|row| row.counter == counter).unwrap();
    (row.observed, row.status)
}

#[test]
fn failed_connects_are_attempt_fails_if_all_connects_were_followed() {
    use ReconciliationStatus::{Exact, Mismatch, Partial};
    let kernel = |attempt_fails| CounterSample {
        active_opens: Some(10),
        attempt_fails: Some(attempt_fails),
        ..CounterSample::default()
    };
    let connects = ConnectTotals { refused: 3, timed_out: 2, cancelled: 1, ..ConnectTotals::default() };
    let listeners = ListenerTotals { resets: Some(1), ..ListenerTotals::default() };
    let observed = |dialled| Observed { connects, listeners, dialled, ..Observed::default() };
    assert_eq!(compared("AttemptFails", &connecting(kernel(6), observed(10))), (Some(6), Exact));
    assert_eq!(compared("AttemptFails", &connecting(kernel(7), observed(10))), (Some(6), Mismatch));
    assert_eq!(compared("AttemptFails", &connecting(kernel(5), observed(10))), (Some(6), Mismatch));
    // One connect was not followed: it may be the one.
    assert_eq!(compared("AttemptFails", &connecting(kernel(7), observed(9))), (Some(6), Partial));
    assert_eq!(compared("AttemptFails", &connecting(kernel(8), observed(9))), (Some(6), Mismatch));
}

#[test]
fn connects_that_failed_at_once_may_or_may_not_be_active_opens() {
    use ReconciliationStatus::{Exact, Mismatch, Partial};
    let kernel = |count| CounterSample { active_opens: Some(count), ..CounterSample::default() };
    let observed = |errors| Observed {
        dialled: 10,
        connects: ConnectTotals { errors, ..ConnectTotals::default() },
        ..Observed::default()
    };
    assert_eq!(compared("ActiveOpens", &connecting(kernel(10), observed(0))), (Some(10), Exact));
    assert_eq!(compared("ActiveOpens", &connecting(kernel(9), observed(0))), (Some(10), Mismatch));
    assert_eq!(compared("ActiveOpens", &connecting(kernel(9), observed(1))), (Some(9), Partial));
    assert_eq!(compared("ActiveOpens", &connecting(kernel(12), observed(0))), (Some(10), Partial));
}

#[test]
fn more_rsts_than_the_kernel_sent_is_wrong_and_fewer_is_not() {
    use ReconciliationStatus::{Exact, Mismatch, Partial};
    let kernel = CounterSample { resets_sent: Some(5), ..CounterSample::default() };
    let observed = |absent| Observed { absent, ..Observed::default() };
    assert_eq!(compared("OutRsts", &connecting(kernel, observed(5))), (Some(5), Exact));
    assert_eq!(compared("OutRsts", &connecting(kernel, observed(3))), (Some(3), Partial));
    assert_eq!(compared("OutRsts", &connecting(kernel, observed(6))), (Some(6), Mismatch));
    // What was lost changes nothing about that.
    let rows = reconcile(1, &connecting(kernel, observed(3)), None, &losses(Some((3, "no-listener"))));
    assert_eq!(rows.last().map(|row| (row.counter, row.status)), Some(("OutRsts", Partial)));
}

#[test]
fn syns_that_could_not_be_sent_again_explain_what_is_missing_and_no_more() {
    use ReconciliationStatus::{Mismatch, Partial};
    let kernel = |count| CounterSample {
        syn_retransmits: Some(count),
        retransmit_fails: Some(4),
        ..CounterSample::default()
    };
    let connects = ConnectTotals { syns_again: 6, ..ConnectTotals::default() };
    let observed = Observed { connects, ..Observed::default() };
    assert_eq!(compared("TCPSynRetrans", &connecting(kernel(10), observed)), (Some(6), Partial));
    assert_eq!(compared("TCPSynRetrans", &connecting(kernel(11), observed)), (Some(6), Mismatch));
    assert_eq!(compared("TCPSynRetrans", &connecting(kernel(5), observed)), (Some(6), Mismatch));
}

#[test]
fn what_was_lost_of_other_observations_takes_no_explanation_away() {
    use ReconciliationStatus::{Mismatch, Partial};
    let kernel =
        CounterSample { syn_retransmits: Some(10), retransmit_fails: Some(4), ..CounterSample::default() };
    let connects = ConnectTotals { syns_again: 6, ..ConnectTotals::default() };
    let namespace = connecting(kernel, Observed { connects, ..Observed::default() });
    let status = |lost| {
        let rows = reconcile(1, &namespace, None, &losses(lost));
        rows.into_iter().find(|row| row.counter == "TCPSynRetrans").map(|row| (row.status, row.reason))
    };
    let explained = status(None);
    assert_eq!(explained.as_ref().map(|(status, _)| *status), Some(Partial));
    // A run of a program that sees other things, and one of its own.
    assert_eq!(status(Some((1, "runs of fexit_accept"))), explained);
    let (kind, reason) = status(Some((1, "runs of tp_retransmit_skb"))).unwrap();
    assert_eq!((kind, reason.as_deref()), (Mismatch, Some("events were lost: 1 runs of tp_retransmit_skb")));
}

#[test]
fn kprobes_that_the_kernel_skips_uncounted_are_told_as_that() {
    let by = |via: &str, kernel: &str| {
        let mut coverage = coverage(ObservationStatus::Attached, ObservationStatus::Attached, &[]);
        for observation in &mut coverage.observations {
            observation.via = via.to_owned();
        }
        Coverage { kernel: kernel.to_owned(), tier: Tier::Kprobe, ..coverage }
    };
    let status = |missing: u64, coverage: &Coverage| {
        overflows(&namespace(207, 207 - missing, 0), Some(coverage), None).status
    };
    let uncounted = by("kprobe tcp_conn_request", "6.1.0-57-cloud-amd64");
    assert_eq!(status(1, &uncounted), ReconciliationStatus::Partial);
    assert_eq!(status(2, &uncounted), ReconciliationStatus::Partial);
    // So many are not skipped by chance: that probe is broken.
    assert_eq!(status(3, &uncounted), ReconciliationStatus::Mismatch);
    assert_eq!(status(1, &by("kprobe tcp_conn_request", "6.12.118+deb13")), ReconciliationStatus::Mismatch);
    assert_eq!(status(1, &by("fexit tcp_conn_request", "6.1.0-57")), ReconciliationStatus::Mismatch);
    let more = overflows(&namespace(207, 208, 0), Some(&uncounted), None);
    assert_eq!(more.status, ReconciliationStatus::Mismatch);
    let row = overflows(&namespace(207, 206, 0), Some(&uncounted), None);
    assert!(row.reason.is_some_and(|reason| reason.contains("no kprobe while another one runs")));
}
