//! What is said about an overflow: its numbers and its evidence.

use std::time::Duration;

use crate::correlate::{Correlator, Listener, Namespace, Overflows, Reading, per_second};
use crate::event::observation;
use crate::finding::case::Description;
use crate::finding::owner_state::who_accepts;
use crate::finding::queue_limit::QueueLimit;
use crate::finding::words::{count, rate, span};
use crate::finding::{Confidence, Evidence, Party, Severity};

use super::stall::STALL;
use super::{Overflow, kernel_overflows};

/// A shorter wait is not printed: it would read as none.
const TOLD: Duration = Duration::from_millis(1);

/// All that is said about an overflow, computed once.
pub(super) struct Account<'a> {
    pub(super) listener: &'a Listener,
    pub(super) memory: &'a Overflow,
    pub(super) world: &'a Correlator,
    pub(super) namespace: Option<&'a Namespace>,
    pub(super) subject: Party,
    pub(super) drops: Overflows,
    pub(super) limit: Option<QueueLimit>,
    pub(super) arrivals: Option<f64>,
    pub(super) accepts: Option<f64>,
    /// The time in which the drops and the rates were counted.
    pub(super) duration: Duration,
}

impl<'a> Account<'a> {
    pub(super) fn of(listener: &'a Listener, memory: &'a Overflow, world: &'a Correlator) -> Self {
        let namespace = world.namespace(listener.endpoints.netns);
        let drops = listener.overflows().since(&memory.before);
        // Rates and drops are of one interval: from the reading before the first drop to the one after the last.
        let start = &memory.start;
        let end = memory.end.as_ref().filter(|end| end.time >= memory.last);
        let rate_of = |counter: fn(&Reading) -> Option<u64>| {
            let end = end?;
            per_second(counter(start), counter(end), end.time.since(start.time))
        };
        let came = || {
            let end = end?;
            let enqueued = end.enqueued?.checked_sub(start.enqueued?)?;
            per_second(Some(0), Some(enqueued + drops.total()), end.time.since(start.time))
        };
        Self {
            listener,
            memory,
            world,
            namespace,
            subject: Party::of_listener(listener, world),
            drops,
            limit: QueueLimit::of(listener, namespace),
            // Where SYNs are not seen: those that came through, and those that did not.
            arrivals: rate_of(|reading| reading.syns).or_else(came),
            accepts: rate_of(|reading| reading.accepted),
            duration: end.map_or(memory.last, |end| end.time).since(start.time),
        }
    }

    pub(super) fn describe(&self) -> Description {
        let cause = self.cause();
        let certainty = match (self.drops.inferred, self.listener.inferred.shared) {
            (0, _) => cause.confidence,
            (_, false) => cause.confidence.min(Confidence::Likely),
            (_, true) => Confidence::Possible,
        };
        // Whether it drains at all is unknown: any advice about the queue's length is a guess then.
        let blind = self.is_blind() && cause.code != "accept-stalled";
        let confidence = if blind { certainty.min(Confidence::Possible) } else { certainty };
        let limit = self.limit.map_or_else(String::new, |limit| format!(" ({})", limit.limit));
        Description {
            severity: Severity::Critical,
            confidence,
            title: format!("{} drops connections: its accept queue{limit} is full", self.subject),
            subject: self.subject.clone(),
            cause: cause.code,
            evidence: self.evidence(&cause.explanation),
            numbers: self.numbers(),
            explanation: cause.explanation,
            remedy: cause.remedy,
        }
    }

    fn evidence(&self, explanation: &str) -> Evidence {
        let knobs = self.namespace.map(|namespace| &namespace.knobs);
        let seen = |name: &str, number: u64| self.world.observes(name).then_some(number);
        let (syn, ack) = match self.drops.inferred {
            0 => (seen(observation::SYN_DROP, self.drops.syn), seen(observation::ACK_DROP, self.drops.ack)),
            inferred if self.tells_stages() => (Some(self.drops.syn + inferred), Some(self.drops.ack)),
            _ => (None, None),
        };
        let call = self.listener.listen;
        let (kernel, waits) = (self.kernel_growth(), self.waits());
        let evidence = Evidence::new()
            .with("syn_drops", syn)
            .with("ack_drops", ack)
            .with_some("drops", (syn.is_none() || ack.is_none()).then(|| self.drops.total()))
            .with_some("drops_polled", (self.drops.inferred > 0).then_some(self.drops.inferred))
            .with_some("drops_shared", self.shared().then_some(true))
            .with("queue", self.memory.deepest)
            .with("queue_limit", self.limit.map(|limit| limit.limit))
            .with("backlog", self.limit.and_then(|limit| limit.asked))
            .with(
                "somaxconn",
                knobs.and_then(|knobs| knobs.somaxconn).or(call.and_then(|call| call.somaxconn)),
            )
            .with_some("somaxconn_at_listen", call.and_then(|call| call.somaxconn))
            .with("arrivals_per_s", self.arrivals)
            .with("accepts_per_s", self.accepts)
            .with("wait_max_ms", waits.longest.map(milliseconds))
            .with_some("wait_mean_ms", waits.mean.map(milliseconds))
            .with("kernel_ListenOverflows", kernel)
            .with("duration_s", self.duration.as_secs_f64())
            .with("peers", self.memory.peers.count())
            .with_some("peers_more", (!self.memory.peers.is_exact()).then_some(true))
            .with("accept_threads", self.accept_threads())
            .with_some("no_accept_s", self.memory.stall.longest.map(|stall| stall.as_secs_f64()));
        self.memory
            .stall
            .owner
            .add_to(evidence)
            .with_some("abort_on_overflow", knobs.and_then(|knobs| knobs.abort_on_overflow))
            .with_some("steered_from", self.listener.steered_from)
            .with_some("syncookies", knobs.and_then(|knobs| knobs.syncookies))
            .with_some("max_syn_backlog", knobs.and_then(|knobs| knobs.max_syn_backlog))
            .with("why", explanation)
    }

    fn numbers(&self) -> Vec<String> {
        let limit = self.limit.map_or_else(|| "unknown".to_owned(), |limit| limit.limit.to_string());
        let kernel = self
            .kernel_growth()
            .map_or_else(String::new, |grown| format!(" (kernel: ListenOverflows +{grown})"));
        let polled = if self.shared() { "polled; some may be another listener's" } else { "polled" };
        let dropped = if self.drops.inferred > 0 && self.tells_stages() {
            let syns = count(self.drops.syn + self.drops.inferred, "SYN", "SYNs");
            format!("{syns} ({polled}) and {}", count(self.drops.ack, "final ACK", "final ACKs"))
        } else if self.drops.inferred > 0 {
            format!("{} ({polled})", count(self.drops.total(), "SYN or final ACK", "SYNs and final ACKs"))
        } else {
            // What is not seen one by one is left out: it is known a second later, from the counters, and is not none until then.
            let seen = |name: &str, text: String| self.world.observes(name).then_some(text);
            let stages = [
                seen(observation::SYN_DROP, count(self.drops.syn, "SYN", "SYNs")),
                seen(observation::ACK_DROP, count(self.drops.ack, "final ACK", "final ACKs")),
            ];
            let stages: Vec<String> = stages.into_iter().flatten().collect();
            if stages.is_empty() {
                count(self.drops.total(), "SYN or final ACK", "SYNs and final ACKs")
            } else {
                stages.join(" and ")
            }
        };
        let over =
            if self.duration.is_zero() { String::new() } else { format!(" in {}", span(self.duration)) };
        let queue =
            format!("{} waiting, limit {limit}; {dropped} dropped{over}{kernel}", self.memory.deepest);
        let mut rates = Vec::new();
        if let Some(arrivals) = self.arrivals {
            rates.push(format!("arrivals {} (repeated SYNs included)", rate(arrivals)));
        }
        if let Some(accepts) = self.accepts {
            rates.push(format!("accepts {}", rate(accepts)));
        }
        let waits = self.waits();
        // What was accepted at once, before the queue filled, says nothing about those that wait now.
        if let Some(longest) = waits.longest.filter(|longest| *longest >= TOLD) {
            rates.push(format!("longest wait {}", span(longest)));
        } else if let Some(mean) = waits.mean.filter(|mean| *mean >= TOLD) {
            rates.push(format!("mean wait {}", span(mean)));
        }
        let mut lines = vec![queue];
        let threads = self.accept_threads().map(|_| who_accepts(self.listener, self.world));
        let both: Vec<String> =
            [(!rates.is_empty()).then(|| rates.join(", ")), threads].into_iter().flatten().collect();
        if !both.is_empty() {
            lines.push(both.join("; "));
        }
        lines
    }

    /// It is not known what this listener accepts: in the tracepoint tier, where several listen on the port.
    fn is_blind(&self) -> bool {
        self.listener.totals.accepted.is_none()
    }

    pub(super) fn accept_threads(&self) -> Option<u64> {
        let seen = self.world.observes(observation::ACCEPT) && !self.is_blind();
        seen.then(|| self.listener.acceptors.count())
    }

    /// Whether deduced drops are SYNs: they are where every final ACK is seen. Those that answer a SYN cookie are not, in the
    /// tier that has to deduce.
    fn tells_stages(&self) -> bool {
        let cookies = self.namespace.is_some_and(|namespace| {
            namespace.knobs.syncookies == Some(2)
                || namespace
                    .grown(|counters| counters.req_queue_full_do_cookies)
                    .is_some_and(|(_, grown)| grown > 0)
        });
        self.world.observes(observation::ACK_DROP) && !cookies
    }

    fn shared(&self) -> bool {
        self.drops.inferred > 0 && self.listener.inferred.shared
    }

    /// Growth of ListenOverflows of the namespace since before the first drop, once it was read after the last. A growth by
    /// less than was dropped is of a shorter time, as where the counter was first read after the first drop: it is not known
    /// then. Whether all counts agree, the summary says.
    fn kernel_growth(&self) -> Option<u64> {
        let (time, grown) = kernel_overflows(self.listener, self.world)?;
        let grown = grown.saturating_sub(self.memory.kernel_before.unwrap_or(0));
        (time >= self.memory.last && grown >= self.drops.total()).then_some(grown)
    }

    fn waits(&self) -> Waits {
        let Some(end) = self.memory.end else { return Waits::default() };
        let start = &self.memory.start;
        let mean = start.waits.zip(end.waits).and_then(|((total_before, before), (total, waits))| {
            let waits = waits.checked_sub(before)?;
            total.checked_sub(total_before)?.checked_div(waits)
        });
        // The maximum is that since the tracer started: of this overflow only if it rose meanwhile.
        let longest = end
            .wait_max_ns
            .filter(|longest| Some(*longest) > start.wait_max_ns.or(Some(0)))
            .map(Duration::from_nanos);
        // Who still waits counts, too.
        let longest = longest.max(self.memory.stall.waiting.filter(|waiting| *waiting >= STALL));
        Waits { mean: mean.map(Duration::from_nanos), longest }
    }
}

/// Accept waits during an overflow.
#[derive(Default)]
struct Waits {
    mean: Option<Duration>,
    longest: Option<Duration>,
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
