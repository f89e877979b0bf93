//! slow-accept: connections wait long in the accept queue before accept() returns them, though none is dropped.

use std::time::Duration;

use crate::correlate::{Change, Correlator, Listener, ListenerId, per_second};
use crate::event::observation;
use crate::software::Need;

use super::accept_queue_overflow::QUIET_AFTER_OVERFLOW;
use super::case::{Concern, Description, Diagnosis};
use super::owner_state::who_accepts;
use super::words::{count, rate, span};
use super::{Apart, CauseRule, Confidence, Evidence, FindingKind, Party, Remedy, Severity, keys, own_words};

/// The diagnosis.
#[derive(Default)]
pub(super) struct SlowAccept;

/// The worst seconds so far.
pub(super) struct Slow {
    worst: Option<Waits>,
    deepest: u32,
}

/// Accept waits of the last seconds.
#[derive(Clone, Copy)]
struct Waits {
    p50: Duration,
    p99: Duration,
    longest: Duration,
    accepts: u64,
    over: Duration,
    arrivals: Option<f64>,
    accepted: Option<f64>,
    /// The interval of the two rates.
    rates_over: Duration,
}

impl Diagnosis for SlowAccept {
    const KIND: FindingKind = FindingKind {
        code: "slow-accept",
        opens_when: "the 99th percentile of the accept wait is over a second",
        page: include_str!("../../../docs/findings/slow-accept.md"),
        observations: &["accept", "enqueue"],
        tracepoint_tier: "waits end when the system call returns, and are counted by port: where several listeners share a port there is no finding.",
        causes: &[CauseRule {
            code: "accept-slow",
            means: "accepts do not keep up with arrivals, or come in bursts",
            certain: Some("each wait was measured, from the final ACK to the return of accept()"),
            likely: None,
            possible: None,
            told_apart: &[
                Apart { from: "a slow answer after accept()", by: "the wait ends when accept() returns" },
                Apart {
                    from: "`accept-stall`, `accept-queue-overflow`",
                    by: "it is not reported while these are open for the same listener, nor for 12 s after",
                },
            ],
        }],
        evidence: &[
            keys::ACCEPT_THREADS,
            keys::number("accepts", "accepts that the waits are of"),
            keys::measure("accepts_over_s", "the span that the waits are of"),
            keys::ACCEPTS_PER_S,
            keys::ARRIVALS_PER_S,
            keys::QUEUE,
            keys::QUEUE_LIMIT,
            keys::RATES_OVER_S,
            keys::SOMAXCONN,
            keys::WAIT_MAX_MS,
            keys::measure("wait_p50_ms", "accept wait that half of the connections were not over"),
            keys::measure("wait_p99_ms", "the same of 99 %"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ListenerId;
    type Memory = Slow;

    fn concern(&self, change: &Change, world: &Correlator) -> Option<Concern<ListenerId>> {
        match change {
            Change::ListenerRead(id) => {
                let slow = waits(world.listener(*id)?, world).is_some();
                Some(if slow { Concern::Happened(*id) } else { Concern::Known(*id) })
            }
            // Those tell of it from now on.
            Change::Overflowed { listener, .. }
            | Change::AcceptStalled(listener)
            | Change::AcceptFailed(listener)
            | Change::Imbalanced(listener) => Some(Concern::Over(*listener)),
            Change::ListenerClosed(id) => Some(Concern::Gone(*id)),
            _ => None,
        }
    }

    fn begin(&mut self, _key: &ListenerId, _world: &Correlator) -> Slow {
        Slow { worst: None, deepest: 0 }
    }

    fn observe(&mut self, key: &ListenerId, memory: &mut Slow, _change: &Change, world: &Correlator) {
        let Some(listener) = world.listener(*key) else { return };
        memory.deepest = memory.deepest.max(listener.depth);
        if let Some(waits) = waits(listener, world)
            && memory.worst.is_none_or(|worst| waits.p99 >= worst.p99)
        {
            memory.worst = Some(waits);
        }
    }

    fn describe(&self, key: &ListenerId, memory: &Slow, world: &Correlator) -> Option<Description> {
        Some(describe(world.listener(*key)?, memory, memory.worst?, world))
    }
}

/// The accept waits of the last seconds, if they are too long and no other finding tells why.
fn waits(listener: &Listener, world: &Correlator) -> Option<Waits> {
    let (now, threshold) = (world.now(), world.thresholds().slow_accept);
    // The longest since the tracer started: spares the rest for nearly all listeners.
    if listener.totals.wait_max_ns.map(Duration::from_nanos).is_none_or(|longest| longest < threshold.wait) {
        return None;
    }
    let stalled = listener.last_stall.is_some_and(|last| now.since(last) < QUIET_AFTER_OVERFLOW);
    let imbalanced = listener.last_imbalance.is_some_and(|last| now.since(last) < QUIET_AFTER_OVERFLOW);
    let failed = listener.accept_failures.iter().map(|failure| failure.last).max();
    let failing = failed.is_some_and(|last| now.since(last) < QUIET_AFTER_OVERFLOW);
    if stalled || imbalanced || failing || listener.overflowed_within(QUIET_AFTER_OVERFLOW, now) {
        return None;
    }
    let (waits, over) = listener.waits.recent()?;
    let (accepts, p99) = (waits.total(), waits.quantile(0.99)?);
    if accepts < threshold.accepts.get() || p99 < threshold.wait {
        return None;
    }
    let latest = listener.readings.latest()?;
    // Both rates are of one interval, from reading to reading: that of the waits has other ends.
    let before = listener.readings.at(latest.time.before(over))?;
    let rates_over = latest.time.since(before.time);
    let arrivals = per_second(before.enqueued, latest.enqueued, rates_over);
    let accepted = per_second(before.accepted, latest.accepted, rates_over);
    let (p50, longest) = (waits.quantile(0.5)?, waits.quantile(1.0)?);
    Some(Waits { p50, p99, longest, accepts, over, arrivals, accepted, rates_over })
}

fn describe(listener: &Listener, memory: &Slow, waits: Waits, world: &Correlator) -> Description {
    let subject = Party::of_listener(listener, world);
    #[expect(clippy::cast_precision_loss, reason = "a rate has few significant digits")]
    let measured = waits.accepts as f64 / waits.over.as_secs_f64().max(0.5);
    // Where the listener's own count is not known, nothing is set against it: that would be of another interval.
    let (accepts, arrivals, rates_over) = match waits.accepted {
        Some(accepted) => (accepted, waits.arrivals, waits.rates_over),
        None => (measured, None, waits.over),
    };
    let threads = world.observes(observation::ACCEPT).then(|| listener.acceptors.count());
    let limit = listener.limit_seen.then_some(listener.limit);
    let knobs = world.namespace(listener.endpoints.netns).map(|namespace| &namespace.knobs);
    let who = match threads {
        None | Some(0) => "accepts are at".to_owned(),
        Some(_) => who_accepts(listener, world),
    };
    let against = arrivals.map_or_else(String::new, |arrivals| format!(", {} arrive", rate(arrivals)));
    let explanation = format!(
        "{who} {}{against}: every hundredth connection waits {} or longer before accept() returns it",
        rate(accepts),
        span(waits.p99)
    );
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let value = |value: Option<u32>| value.map_or_else(String::new, |value| format!(" ({value})"));
    Description {
        severity: Severity::Warning,
        confidence: Confidence::Certain,
        title: format!("{subject} accepts slowly: connections wait up to {}", span(waits.longest)),
        cause: "accept-slow",
        numbers: vec![
            format!(
                "accept wait p50 {}, p99 {}, longest {} ({} in {})",
                span(waits.p50),
                span(waits.p99),
                span(waits.longest),
                count(waits.accepts, "accept", "accepts"),
                span(waits.over)
            ),
            format!("{who} {}{against}; up to {} waiting", rate(accepts), memory.deepest),
        ],
        evidence: Evidence::new()
            .with("wait_p50_ms", milliseconds(waits.p50))
            .with("wait_p99_ms", milliseconds(waits.p99))
            .with("wait_max_ms", milliseconds(waits.longest))
            .with("accepts", waits.accepts)
            .with("accepts_over_s", waits.over.as_secs_f64())
            .with("accepts_per_s", accepts)
            .with("arrivals_per_s", arrivals)
            .with("rates_over_s", rates_over.as_secs_f64())
            .with("accept_threads", threads)
            .with("queue", memory.deepest)
            .with("queue_limit", limit)
            .with_some("somaxconn", knobs.and_then(|knobs| knobs.somaxconn))
            .with("why", explanation.as_str()),
        remedy: own_words::or_general(
            &subject,
            Need::Workers(
                arrivals.and_then(|arrivals| own_words::workers_for(&subject, threads, accepts, arrivals)),
            ),
            "add workers, or do less before the next accept()",
            &format!(": {who} {}{against}", rate(accepts)),
        )
        .into_iter()
        .chain([Remedy::not(format!(
                "nothing is dropped: neither the backlog{} nor net.core.somaxconn{} is the limit, and a longer queue only \
                 makes clients wait longer",
                value(limit),
                value(knobs.and_then(|knobs| knobs.somaxconn))
        ))])
        .collect(),
        subject,
        explanation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;
    use crate::finding::testing::{Play, Server, task};

    fn server(play: &mut Play, limit: u32) -> Server {
        let server = Server::new(100, "0.0.0.0:1080", limit);
        server.listen(play, task(6039, "delegated"), Some(limit), 4096);
        server
    }

    #[test]
    fn long_waits_without_a_drop_are_told_with_their_percentiles() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play, 1000);
        // 100/s against 40/s: the queue grows by 60 a second, the wait with it.
        server.run(&mut play, 10, 25, 9000);
        let finding = play.only();
        assert_eq!(
            (finding.code, finding.cause, finding.severity),
            ("slow-accept", "accept-slow", Severity::Warning)
        );
        let evidence = &Play::json(finding)["evidence"];
        let number = |name: &str| evidence[name].as_f64().unwrap();
        assert!(
            number("wait_p99_ms") > 5000.0 && number("wait_p50_ms") < number("wait_p99_ms"),
            "{evidence}"
        );
        assert!((number("accepts_per_s") - 40.0).abs() < 4.0, "{evidence}");
        assert!((number("arrivals_per_s") - 100.0).abs() < 5.0, "{evidence}");
        assert!(
            finding.remedy[0].text.contains("1 thread accepts 40/s, 100/s arrive"),
            "{:?}",
            finding.remedy
        );
        assert!(finding.remedy[1].text.contains("neither the backlog (1000)"));
        server.run(&mut play, 1000, 1, 40_000);
        assert_eq!(play.only().state, State::Closed);
    }

    #[test]
    fn an_overflow_takes_over() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play, 200);
        server.run(&mut play, 10, 25, 12_000);
        assert_eq!(play.codes(), ["accept-queue-overflow", "slow-accept"]);
        assert_eq!(play.only_of("slow-accept").state, State::Closed);
    }

    #[test]
    fn what_waited_in_a_stall_is_the_stall_s() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play, 1000);
        server.run(&mut play, 20, 10, 3000);
        server.run(&mut play, 20, 0, 9000);
        server.run(&mut play, 20, 2, 30_000);
        assert_eq!(play.codes(), ["accept-stall"]);
    }

    #[test]
    fn short_waits_and_few_accepts_are_quiet() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play, 1000);
        server.run(&mut play, 10, 9, 20_000);
        // A batch job that is called seldom, and slow then.
        for second in 21..60_u64 {
            if second % 2 == 0 {
                server.client();
                server.accept(second * 1000, crate::event::Acceptor { pid: 6039, tid: 6040 }, 1500);
            }
            play.send(second * 1000, server.sample());
            play.tick(second * 1000);
        }
        assert!(play.findings.is_empty(), "{:#?}", play.findings);
    }
}
