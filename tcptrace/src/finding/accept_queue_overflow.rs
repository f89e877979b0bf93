//! accept-queue-overflow: a SYN or final ACK was dropped because the listener's accept queue was full.
//!
//! Its cause is the one thing to change: nobody accepts (accept-stalled), somaxconn cut the queue (somaxconn), the program
//! asked for a short one (backlog-argument), or accepting is too slow for any queue (accept-slow).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::correlate::{
    Change, Correlator, DistinctCount, Listener, ListenerId, Namespace, Overflows, Reading, per_second,
};
use crate::event::{ProcessState, Timestamp, observation};

use super::case::{Concern, Description, Diagnosis};
use super::queue_limit::{QueueLimit, SetBy};
use super::words::{count, rate, span};
use super::{Confidence, Evidence, Party, ProcessName, Remedy, Severity};

/// So long nobody must have accepted, the queue being full, for accepting to be called stalled.
const STALL: Duration = Duration::from_secs(3);

/// Applications that ask for less than this have not thought about it.
const SHORT_QUEUE: u32 = 128;

/// A full queue that drains faster than this rides out bursts if it is made longer; a slower one only makes clients wait.
const DRAINS_SOON: Duration = Duration::from_secs(5);

/// Peers that are told apart.
const PEERS: usize = 4096;

/// The diagnosis.
#[derive(Default)]
pub(super) struct AcceptQueueOverflow {
    /// Drops that earlier findings of a listener have told of.
    told: HashMap<ListenerId, Overflows>,
}

/// An overflow in progress.
pub(super) struct Overflow {
    /// Drops of the listener that are not this finding's.
    before: Overflows,
    /// First and last drop.
    first: Timestamp,
    last: Timestamp,
    /// Counters of the listener before the first drop, and by the first reading after the last one.
    start: Reading,
    end: Option<Reading>,
    deepest: u32,
    peers: DistinctCount<IpAddr>,
    /// Growth of the namespace's ListenOverflows before the first drop.
    kernel_before: Option<u64>,
    stall: Stall,
}

/// Stretches of time in which the queue was full and nobody accepted.
#[derive(Default)]
struct Stall {
    /// The last accept before the present stretch, and the drops until then.
    since: Option<Timestamp>,
    drops_before: u64,
    /// Longest stretch that counts as a stall.
    longest: Option<Duration>,
    /// Drops in such stretches.
    drops: u64,
    /// Drops in the present one, if it counts.
    drops_now: u64,
    /// What the owner did meanwhile, when it was last looked at.
    process: Option<ProcessState>,
    /// All its threads were stopped.
    stopped: bool,
}

impl Diagnosis for AcceptQueueOverflow {
    const CODE: &'static str = "accept-queue-overflow";
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ListenerId;
    type Memory = Overflow;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<ListenerId>> {
        match change {
            Change::Overflowed { listener, .. } => Some(Concern::Happened(*listener)),
            Change::ListenerRead(listener) => Some(Concern::Known(*listener)),
            Change::ListenerClosed(listener) => Some(Concern::Gone(*listener)),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ListenerId, world: &Correlator) -> Overflow {
        let now = world.now();
        let listener = world.listener(*key);
        // Listeners that are forgotten have no findings to come.
        self.told.retain(|listener, _| world.listener(*listener).is_some());
        let before = self.told.get(key).copied().unwrap_or_default();
        Overflow {
            before,
            first: now,
            last: now,
            start: listener.map_or_else(Reading::default, |listener| start_reading(listener, now)),
            end: None,
            deepest: 0,
            peers: DistinctCount::new(PEERS),
            kernel_before: listener
                .and_then(|listener| kernel_overflows(listener, world))
                .map(|(_, grown)| grown),
            stall: Stall { drops_before: before.total(), ..Stall::default() },
        }
    }

    fn observe(&mut self, key: &ListenerId, memory: &mut Overflow, change: &Change, world: &Correlator) {
        let Some(listener) = world.listener(*key) else { return };
        match change {
            Change::Overflowed { peer, .. } => {
                memory.last = world.now();
                memory.deepest = memory.deepest.max(listener.depth);
                if let Some(peer) = peer {
                    memory.peers.note(peer.ip());
                }
            }
            Change::ListenerRead(_) | Change::ListenerClosed(_) => {
                memory.deepest = memory.deepest.max(listener.depth);
                memory.note_reading(listener);
            }
            _ => {}
        }
        memory.stall.note_process(listener, memory.first, world);
    }

    fn describe(&self, key: &ListenerId, memory: &Overflow, world: &Correlator) -> Option<Description> {
        let listener = world.listener(*key)?;
        Some(Account::of(listener, memory, world).describe())
    }

    fn end(&mut self, key: &ListenerId, _memory: &Overflow, world: &Correlator) {
        if let Some(listener) = world.listener(*key) {
            self.told.insert(*key, listener.overflows());
        }
    }
}

/// What the counters said before the first drop. Listeners are read once a second if they changed, so an older reading was
/// still true a second ago; and what was never read began within that second.
fn start_reading(listener: &Listener, now: Timestamp) -> Reading {
    let a_second_ago = now.before(Duration::from_secs(1));
    let nothing = Reading {
        time: a_second_ago,
        syns: Some(0),
        enqueued: Some(0),
        accepted: Some(0),
        waits: Some((0, 0)),
        ..Reading::default()
    };
    let read = listener.readings.at(now).filter(|reading| reading.time < now).copied().unwrap_or(nothing);
    Reading { time: read.time.max(a_second_ago), ..read }
}

fn kernel_overflows(listener: &Listener, world: &Correlator) -> Option<(Timestamp, u64)> {
    world.namespace(listener.endpoints.netns)?.grown(|counters| counters.listen_overflows)
}

impl Overflow {
    fn note_reading(&mut self, listener: &Listener) {
        let Some(reading) = listener.readings.latest() else { return };
        if reading.time <= self.start.time {
            return;
        }
        // Rates are those of the time with drops: readings of the quiet time before closing are left out. One of the same
        // time is the same, completed.
        if self.end.is_none_or(|end| end.time < self.last || end.time == reading.time) {
            self.end = Some(*reading);
        }
        self.stall.note_reading(reading, self.first);
    }
}

impl Stall {
    fn note_reading(&mut self, reading: &Reading, first_drop: Timestamp) {
        if reading.accepted.is_none() {
            return;
        }
        let accepted_or_full = reading.last_accept.max(Some(first_drop));
        if self.since != accepted_or_full || !reading.full {
            // Somebody accepted, or there was room: another stretch begins.
            if self.since.is_some() {
                self.drops += self.drops_now;
                self.drops_before = reading.overflows;
            }
            self.drops_now = 0;
            self.since = accepted_or_full;
        }
        let stretch = accepted_or_full.map_or(Duration::ZERO, |since| reading.time.since(since));
        if reading.full && stretch >= STALL {
            self.longest = self.longest.max(Some(stretch));
            self.drops_now = reading.overflows.saturating_sub(self.drops_before);
        }
    }

    fn note_process(&mut self, listener: &Listener, first_drop: Timestamp, world: &Correlator) {
        /// Looks at a process happen about once a second; an older one may be of before the overflow.
        const RECENT: Duration = Duration::from_secs(3);
        let state_of = |pid: u32| {
            let (time, state) = world.processes().get(pid)?.state?;
            (time.after(RECENT) >= first_drop).then_some(state)
        };
        let Some(first) = listener.owners.first() else { return };
        let Some(state) = state_of(first.pid) else { return };
        self.process = Some(state);
        // One worker of several that is stopped leaves the others to accept.
        let all_stopped =
            listener.owners.iter().all(|owner| state_of(owner.pid).is_some_and(|state| state.is_stopped()));
        self.stopped |= all_stopped;
    }

    /// Whether most of `drops` fell into stalls.
    fn explains(&self, drops: u64) -> bool {
        self.stopped || (self.longest.is_some() && (self.drops + self.drops_now).saturating_mul(2) >= drops)
    }
}

/// All that is said about an overflow, computed once.
struct Account<'a> {
    listener: &'a Listener,
    memory: &'a Overflow,
    world: &'a Correlator,
    namespace: Option<&'a Namespace>,
    subject: Party,
    drops: Overflows,
    limit: Option<QueueLimit>,
    arrivals: Option<f64>,
    accepts: Option<f64>,
    /// Time from the first to the last drop.
    duration: Duration,
}

/// The cause, and how it is told.
struct Cause {
    code: &'static str,
    confidence: Confidence,
    explanation: String,
    remedy: Vec<Remedy>,
}

impl<'a> Account<'a> {
    fn of(listener: &'a Listener, memory: &'a Overflow, world: &'a Correlator) -> Self {
        let namespace = world.namespace(listener.endpoints.netns);
        let drops = listener.overflows().since(&memory.before);
        let (start, end) = (&memory.start, memory.end.as_ref());
        let rate_of = |counter: fn(&Reading) -> Option<u64>| {
            let end = end?;
            per_second(counter(start), counter(end), end.time.since(start.time))
        };
        Self {
            listener,
            memory,
            world,
            namespace,
            subject: Party {
                kind: "listener",
                address: Some(listener.endpoints.local),
                netns: Some(listener.endpoints.netns),
                process: Some(ProcessName::of_owners(&listener.owners, world.processes())),
                ..Party::default()
            },
            drops,
            limit: QueueLimit::of(listener, namespace),
            // Where SYNs are not seen: those that came through, and those that did not.
            arrivals: rate_of(|reading| reading.syns)
                .or_else(|| rate_of(|reading| Some(reading.enqueued? + reading.overflows))),
            accepts: rate_of(|reading| reading.accepted),
            duration: memory.last.since(memory.first),
        }
    }

    fn describe(&self) -> Description {
        let cause = self.cause();
        let confidence = match (self.drops.inferred, self.listener.inferred.shared) {
            (0, _) => cause.confidence,
            (_, false) => cause.confidence.min(Confidence::Likely),
            (_, true) => Confidence::Possible,
        };
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
        // Deduced drops are SYNs where final ACKs are seen; otherwise nobody knows which.
        let (syn, ack) = match self.drops.inferred {
            0 => (seen(observation::SYN_DROP, self.drops.syn), seen(observation::ACK_DROP, self.drops.ack)),
            inferred => {
                let ack = seen(observation::ACK_DROP, self.drops.ack);
                (ack.map(|_| self.drops.syn + inferred), ack)
            }
        };
        let call = self.listener.listen;
        let process = self.memory.stall.process;
        let (kernel, waits) = (self.kernel_growth(), self.waits());
        Evidence::new()
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
            .with_some("no_accept_s", self.memory.stall.longest.map(|stall| stall.as_secs_f64()))
            .with_some("threads", process.map(|process| process.threads))
            .with_some("threads_stopped", process.map(|process| process.stopped).filter(|number| *number > 0))
            .with_some("threads_blocked", process.map(|process| process.blocked).filter(|number| *number > 0))
            .with_some("open_files", process.and_then(|process| process.open_files))
            .with_some("open_files_limit", process.and_then(|process| process.open_files_limit))
            .with_some("abort_on_overflow", knobs.and_then(|knobs| knobs.abort_on_overflow))
            .with_some("syncookies", knobs.and_then(|knobs| knobs.syncookies))
            .with_some("max_syn_backlog", knobs.and_then(|knobs| knobs.max_syn_backlog))
            .with("why", explanation)
    }

    fn numbers(&self) -> Vec<String> {
        let limit = self.limit.map_or_else(|| "unknown".to_owned(), |limit| limit.limit.to_string());
        let kernel = self
            .kernel_growth()
            .map_or_else(String::new, |grown| format!(" (kernel: ListenOverflows +{grown})"));
        let dropped = if self.drops.inferred > 0 {
            let polled = if self.shared() { "polled; some may be another listener's" } else { "polled" };
            format!("{} ({polled})", count(self.drops.total(), "SYN or final ACK", "SYNs and final ACKs"))
        } else {
            format!(
                "{} and {}",
                count(self.drops.syn, "SYN", "SYNs"),
                count(self.drops.ack, "final ACK", "final ACKs")
            )
        };
        let over =
            if self.duration.is_zero() { String::new() } else { format!(" in {}", span(self.duration)) };
        let queue =
            format!("{} waiting, limit {limit}; {dropped} dropped{over}{kernel}", self.memory.deepest);
        let mut rates = Vec::new();
        if let Some(arrivals) = self.arrivals {
            rates.push(format!("arrivals {}", rate(arrivals)));
        }
        if let Some(accepts) = self.accepts {
            rates.push(format!("accepts {}", rate(accepts)));
        }
        let waits = self.waits();
        if let Some(longest) = waits.longest {
            rates.push(format!("longest wait {}", span(longest)));
        } else if let Some(mean) = waits.mean {
            rates.push(format!("mean wait {}", span(mean)));
        }
        let mut lines = vec![queue];
        let threads = self.accept_threads().map(|threads| match threads {
            1 => "1 thread accepts".to_owned(),
            threads => format!("{threads} threads accept"),
        });
        let both: Vec<String> =
            [(!rates.is_empty()).then(|| rates.join(", ")), threads].into_iter().flatten().collect();
        if !both.is_empty() {
            lines.push(both.join("; "));
        }
        lines
    }

    /// The first that applies, in the order in which they would have to be mended.
    fn cause(&self) -> Cause {
        if self.memory.stall.explains(self.drops.total()) {
            return self.stalled();
        }
        let Some(limit) = self.limit else {
            return self.slow(Confidence::Possible, "the queue's limit is not known");
        };
        let observed = if self.accepts.is_some() { Confidence::Certain } else { Confidence::Likely };
        let longer_helps = limit.limit < SHORT_QUEUE || self.drains_soon(limit.limit);
        match limit.set_by() {
            SetBy::Somaxconn => self.cut(&limit),
            SetBy::Argument { somaxconn_allows_more: true, seen } if longer_helps => {
                self.short_argument(&limit, if seen { observed } else { Confidence::Likely }, seen)
            }
            SetBy::Argument { seen, .. } => {
                self.slow(if seen { observed } else { Confidence::Likely }, &limit_in_words(&limit))
            }
            SetBy::Either if longer_helps => self.either(&limit),
            SetBy::Either => self.slow(Confidence::Likely, &limit_in_words(&limit)),
        }
    }

    fn stalled(&self) -> Cause {
        let stall = &self.memory.stall;
        let pid = self.subject.process.as_ref().and_then(|process| process.pid);
        let who = self.subject.process.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        let mut explanation = match stall.longest {
            Some(longest) => format!("nobody accepted for {} while the queue was full", span(longest)),
            None => "nobody accepts".to_owned(),
        };
        let process = stall.process.unwrap_or_default();
        let mut remedy = Vec::new();
        if stall.stopped {
            explanation.push_str(&format!(": {who} is stopped (by a signal or a debugger)"));
            remedy.push(match pid {
                Some(pid) => Remedy::command(format!("continue {who}"), format!("kill -CONT {pid}")),
                None => Remedy::text("continue the process"),
            });
        } else if process.is_at_file_limit() {
            let limit = process.open_files_limit.unwrap_or_default();
            explanation
                .push_str(&format!(": {who} is at its limit of {limit} open files, so accept() fails"));
            remedy.push(match pid {
                Some(pid) => Remedy::command(
                    "raise the limit on open files, then look for connections that are never closed",
                    format!("prlimit --pid {pid} --nofile={}", limit.saturating_mul(4)),
                ),
                None => Remedy::text("raise the limit on open files (RLIMIT_NOFILE)"),
            });
        } else {
            if process.blocked > 0 {
                let threads = count(process.blocked.into(), "thread", "threads");
                explanation.push_str(&format!(
                    ": {threads} of {who} in uninterruptible sleep (disk, network file system, a kernel lock)"
                ));
            }
            remedy.push(match pid {
                Some(pid) => Remedy::command(
                    format!("find out what {who} does instead of accepting"),
                    format!("cat /proc/{pid}/task/*/stack"),
                ),
                None => Remedy::text("find out what the process does instead of accepting"),
            });
        }
        remedy.push(Remedy::text(format!("no queue is long enough for that: {}", self.not_the_limit(&[]))));
        let confidence =
            if stall.stopped || self.accepts.is_some() { Confidence::Certain } else { Confidence::Likely };
        Cause { code: "accept-stalled", confidence, explanation, remedy }
    }

    fn cut(&self, limit: &QueueLimit) -> Cause {
        let asked = limit.asked_in_words().unwrap_or_default();
        let wanted = limit.wanted_somaxconn();
        let explanation =
            format!("net.core.somaxconn: listen(fd, {asked}) was cut to {}{}", limit.limit, self.too_slow());
        let now = limit.somaxconn_now.filter(|now| *now > limit.limit);
        let mut remedy = vec![match now {
            Some(now) => Remedy::text(format!(
                "net.core.somaxconn is {now} by now, but takes effect at the next listen(): restart the application"
            )),
            None => Remedy::command(
                "raise net.core.somaxconn, then restart the application: it takes effect at the next listen()",
                self.sysctl(&format!("net.core.somaxconn={wanted}")),
            ),
        }];
        remedy.extend(self.more_workers());
        remedy.push(Remedy::text(self.not_the_limit(&["somaxconn"])));
        Cause { code: "somaxconn", confidence: Confidence::Certain, explanation, remedy }
    }

    fn short_argument(&self, limit: &QueueLimit, confidence: Confidence, seen: bool) -> Cause {
        let somaxconn = limit.somaxconn_now.or(limit.somaxconn_then).unwrap_or_default();
        let explanation = if seen {
            let asked = limit.asked_in_words().unwrap_or_default();
            format!(
                "the application's backlog: listen(fd, {asked}); somaxconn is {somaxconn}{}",
                self.too_slow()
            )
        } else {
            format!(
                "the application's backlog, {}: its listen() was not seen, but somaxconn ({somaxconn}) is higher \
                 (unless that was raised since){}",
                limit.limit,
                self.too_slow()
            )
        };
        let mut remedy = vec![Remedy::text(format!(
            "raise the application's own listen backlog (its configuration); somaxconn ({somaxconn}) needs no change"
        ))];
        remedy.extend(self.more_workers());
        remedy.push(Remedy::text(format!("{} either", self.not_the_limit(&["somaxconn"]))));
        Cause { code: "backlog-argument", confidence, explanation, remedy }
    }

    fn either(&self, limit: &QueueLimit) -> Cause {
        let explanation = match limit.somaxconn_now {
            Some(somaxconn) if somaxconn == limit.limit => format!(
                "net.core.somaxconn ({somaxconn}), or an equal argument of listen(), which was not seen{}",
                self.too_slow()
            ),
            Some(somaxconn) => format!(
                "the argument of listen(), which was not seen, or the somaxconn of that time; now it is {somaxconn}{}",
                self.too_slow()
            ),
            None => format!("a short queue; neither listen() nor somaxconn was seen{}", self.too_slow()),
        };
        let wanted = limit.wanted_somaxconn();
        let mut remedy = vec![
            Remedy::command("raise net.core.somaxconn", self.sysctl(&format!("net.core.somaxconn={wanted}"))),
            Remedy::text(
                "raise the application's own listen backlog as well, and restart it: the lower of both counts",
            ),
        ];
        remedy.extend(self.more_workers());
        remedy.push(Remedy::text(self.not_the_limit(&["somaxconn"])));
        Cause { code: "somaxconn", confidence: Confidence::Possible, explanation, remedy }
    }

    fn slow(&self, confidence: Confidence, queue: &str) -> Cause {
        let explanation = match (self.accepts, self.arrivals) {
            (Some(accepts), Some(arrivals)) => format!(
                "accepts are too slow for any backlog: {} against {} arriving; {queue}",
                rate(accepts),
                rate(arrivals)
            ),
            (Some(accepts), None) => {
                format!("accepts are too slow for any backlog: {}; {queue}", rate(accepts))
            }
            (None, _) => format!("accepts are too slow, or came in a burst (not known yet); {queue}"),
        };
        let mut remedy = self.more_workers();
        if remedy.is_empty() {
            remedy.push(Remedy::text(
                "accept faster: more threads or processes, or less work before the next accept()",
            ));
        }
        let limit = self.limit.map_or_else(String::new, |limit| format!(" ({})", limit.limit));
        remedy.push(Remedy::text(format!(
            "a longer queue{limit} would only make clients wait longer; {}",
            self.not_the_limit(&[])
        )));
        Cause { code: "accept-slow", confidence, explanation, remedy }
    }

    /// Advice to add workers, if accepts do not keep up.
    fn more_workers(&self) -> Vec<Remedy> {
        let (Some(accepts), Some(arrivals)) = (self.accepts, self.arrivals) else { return Vec::new() };
        if !self.falls_behind() {
            return Vec::new();
        }
        let who = match self.accept_threads() {
            None | Some(0) => "accepts are at".to_owned(),
            Some(1) => "1 thread accepts".to_owned(),
            Some(threads) => format!("{threads} threads accept"),
        };
        vec![Remedy::text(format!(
            "add workers: {who} {} against {} arriving",
            rate(accepts),
            rate(arrivals)
        ))]
    }

    fn too_slow(&self) -> &'static str {
        if self.falls_behind()
            && self.memory.end.is_some_and(|end| end.time.since(self.memory.start.time) >= STALL)
        {
            ". Accepts are too slow for any backlog"
        } else {
            ""
        }
    }

    /// Whether clearly less is accepted than arrives (repeated SYNs count as arrivals: they are not all new).
    fn falls_behind(&self) -> bool {
        matches!((self.accepts, self.arrivals), (Some(accepts), Some(arrivals)) if accepts * 1.5 < arrivals)
    }

    fn drains_soon(&self, limit: u32) -> bool {
        let places = f64::from(limit) + 1.0;
        self.accepts.is_some_and(|accepts| accepts > 0.0 && places / accepts < DRAINS_SOON.as_secs_f64())
    }

    /// Knobs that people turn in vain, with their values; `but` are not mentioned.
    fn not_the_limit(&self, but: &[&str]) -> String {
        let knobs = self.namespace.map(|namespace| &namespace.knobs);
        let named = [
            ("somaxconn", "net.core.somaxconn", knobs.and_then(|knobs| knobs.somaxconn)),
            (
                "max_syn_backlog",
                "net.ipv4.tcp_max_syn_backlog",
                knobs.and_then(|knobs| knobs.max_syn_backlog),
            ),
        ];
        let words: Vec<String> = named
            .into_iter()
            .filter(|(short, _, _)| !but.contains(short))
            .map(|(_, name, value)| match value {
                Some(value) => format!("{name} ({value})"),
                None => name.to_owned(),
            })
            .collect();
        let verb = if words.len() == 1 { "is" } else { "are" };
        format!("{} {verb} not the limit", words.join(" and "))
    }

    /// The command that sets a sysctl in the listener's namespace.
    fn sysctl(&self, setting: &str) -> String {
        super::commands::sysctl(self.listener.endpoints.netns, self.subject.process.as_ref(), setting)
    }

    fn accept_threads(&self) -> Option<u64> {
        self.world.observes(observation::ACCEPT).then(|| self.listener.acceptors.count())
    }

    fn shared(&self) -> bool {
        self.drops.inferred > 0 && self.listener.inferred.shared
    }

    /// Growth of ListenOverflows of the namespace since before the first drop, once it was read after that.
    fn kernel_growth(&self) -> Option<u64> {
        let (time, grown) = kernel_overflows(self.listener, self.world)?;
        (time >= self.memory.first).then(|| grown.saturating_sub(self.memory.kernel_before.unwrap_or(0)))
    }

    fn waits(&self) -> Waits {
        let Some(end) = self.memory.end else { return Waits::default() };
        let start = &self.memory.start;
        let mean = start.waits.zip(end.waits).and_then(|((total_before, before), (total, waits))| {
            let waits = waits.checked_sub(before)?;
            total.checked_sub(total_before)?.checked_div(waits)
        });
        // The maximum is that since the tracer started: of this overflow only if it rose meanwhile.
        let longest = end.wait_max_ns.filter(|longest| Some(*longest) > start.wait_max_ns);
        Waits { mean: mean.map(Duration::from_nanos), longest: longest.map(Duration::from_nanos) }
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

fn limit_in_words(limit: &QueueLimit) -> String {
    match (limit.asked_in_words(), limit.somaxconn_now) {
        (Some(asked), Some(somaxconn)) => format!("listen(fd, {asked}), somaxconn {somaxconn}"),
        (Some(asked), None) => format!("listen(fd, {asked})"),
        (None, Some(somaxconn)) => {
            format!("queue limit {}, somaxconn {somaxconn}; listen() was not seen", limit.limit)
        }
        (None, None) => format!("queue limit {}; listen() was not seen", limit.limit),
    }
}

#[cfg(test)]
mod tests;
