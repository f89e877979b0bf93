//! syn-queue-full: a SYN was dropped, or answered by a cookie, because the listener's SYN queue was full. Where it is full
//! because a return path is broken, half-open-capture tells of it instead.

use std::time::Duration;

use crate::correlate::{
    Change, Correlator, DEFERRED_LATELY, InferredSyns, Listener, ListenerId, PeerPattern, Unanswered,
};
use crate::event::{ListenerTotals, observation};
use crate::software::Need;

use super::case::{Concern, Description, Diagnosis};
use super::queue_limit::{QueueLimit, SetBy};
use super::words::count;
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, Remedy, Severity, commands, keys, own_words,
};

/// Fewer requests that nobody answers are no flood.
const FLOOD: u64 = 16;

/// The diagnosis.
#[derive(Default)]
pub(super) struct SynQueueFull;

/// A time in which the queue was full.
pub(super) struct Full {
    before: ListenerTotals,
    inferred_before: InferredSyns,
    /// Most requests seen in the queue; `None` if it was not looked at.
    deepest: Option<u32>,
    unanswered: Unanswered,
}

impl Diagnosis for SynQueueFull {
    const KIND: FindingKind = FindingKind {
        code: "syn-queue-full",
        opens_when: "a SYN was dropped, or answered by a cookie, at a full SYN queue",
        page: include_str!("../../../docs/findings/syn-queue-full.md"),
        observations: &["syn-drop", "cookie", "synack-retransmit", "request-end"],
        tracepoint_tier: "SYNs and cookies are known from the namespace's counters (TCPReqQFullDrop, TCPReqQFullDoCookies; ListenDrops for the last \
         quarter of tcp_max_syn_backlog), and put to the listener whose queue was full when it was polled: `likely`, or `possible` if \
         several were. Requests that TCP_DEFER_ACCEPT keeps are told from handshakes in flight by their timers. A flood is at most \
         `possible`: how its requests end is not seen.",
        causes: &[
            CauseRule {
                code: "deferred",
                means: "`TCP_DEFER_ACCEPT`: clients that connect and send nothing keep their places in the SYN queue",
                certain: None,
                likely: Some(
                    "at least half as many requests as were in the queue had sent their final ACK and waited for data in the last minute",
                ),
                possible: Some("the same, and, polled, several queues were full"),
                told_apart: &[
                    Apart {
                        from: "handshakes in flight",
                        by: "the final ACK has come: the timer runs out and no SYN-ACK is sent again",
                    },
                    Apart { from: "`syn-flood`", by: "the clients answer" },
                ],
            },
            CauseRule {
                code: "syn-flood",
                means: "most requests are never answered",
                certain: None,
                likely: Some("most of the requests ran out unanswered, from many addresses"),
                possible: Some(
                    "many addresses asked once each; timers are not seen, or several queues were full",
                ),
                told_apart: &[Apart {
                    from: "`half-open-capture`: a fault of the path",
                    by: "no peer tries again",
                }],
            },
            CauseRule {
                code: "max-syn-backlog",
                means: "without cookies, the last quarter of `net.ipv4.tcp_max_syn_backlog` is kept for known peers",
                certain: Some(
                    "the kernel asked whether the peer is known, which it does only then, and dropped the SYN",
                ),
                likely: Some(
                    "polled: ListenDrops grew, and so did the socket's own drops, while the queue held three quarters of it",
                ),
                possible: Some("polled: the queues of several listeners were that long"),
                told_apart: &[Apart {
                    from: "`backlog-argument`, `somaxconn`",
                    by: "the queue itself had room",
                }],
            },
            CauseRule {
                code: "somaxconn",
                means: "listen() asked for more than somaxconn allows",
                certain: Some("the drop or the cookie, and the argument of listen() above somaxconn"),
                likely: Some(
                    "polled: the kernel's counters of a full SYN queue grew while this queue was full",
                ),
                possible: Some(
                    "listen() was not seen: an equal argument looks the same; or, polled, several queues were full",
                ),
                told_apart: &[
                    Apart { from: "`syn-flood`", by: "requests are completed" },
                    Apart { from: "`backlog-argument`", by: "the argument was cut" },
                ],
            },
            CauseRule {
                code: "backlog-argument",
                means: "listen() asked for no more",
                certain: Some("the drop or the cookie, and the argument of listen()"),
                likely: Some("listen() was not seen: the limit is below somaxconn; or the drops are polled"),
                possible: Some("the limit is not known; or, polled, several queues were full"),
                told_apart: &[
                    Apart { from: "`syn-flood`", by: "requests are completed" },
                    Apart { from: "`somaxconn`", by: "the argument was not cut" },
                ],
            },
        ],
        evidence: &[
            keys::BACKLOG,
            keys::number("completed", "handshakes completed meanwhile"),
            keys::COOKIES_SENT,
            keys::number(
                "deferred",
                "requests whose handshake is complete and that wait for data (TCP_DEFER_ACCEPT)",
            ),
            keys::EXPIRED,
            keys::HALF_OPEN,
            keys::MAX_SYN_BACKLOG,
            keys::flag("polled", "the numbers are polled, not observed event by event"),
            keys::QUEUE_LIMIT,
            keys::number("retransmits_timer", "SYN-ACKs sent again by the timer"),
            keys::flag("shared", "the numbers are of the whole reuseport group"),
            keys::SOMAXCONN,
            keys::SYN_DROPS,
            keys::number(
                "syn_drops_max_syn_backlog",
                "of these: because the last quarter of tcp_max_syn_backlog is reserved",
            ),
            keys::SYNCOOKIES,
            keys::number("unanswered_sources", "remote addresses whose requests stay unanswered"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ListenerId;
    type Memory = Full;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<ListenerId>> {
        match change {
            Change::SynQueueFull(id) => Some(Concern::Happened(*id)),
            Change::Captured(id) => Some(Concern::Over(*id)),
            Change::ListenerRead(id) => Some(Concern::Known(*id)),
            Change::ListenerClosed(id) => Some(Concern::Gone(*id)),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ListenerId, world: &Correlator) -> Full {
        let listener = world.listener(*key);
        let full = listener.and_then(|listener| listener.syn_queue_full.as_ref());
        Full {
            before: full.map(|full| full.before).unwrap_or_default(),
            inferred_before: full.map(|full| full.inferred_before).unwrap_or_default(),
            deepest: None,
            unanswered: Unanswered::default(),
        }
    }

    fn observe(&mut self, key: &ListenerId, memory: &mut Full, change: &Change, world: &Correlator) {
        let Some(listener) = world.listener(*key) else { return };
        memory.deepest = memory.deepest.max(listener.syn_queue).max(listener.totals.syn_queue_max);
        if let Change::SynQueueFull(_) = change {
            let full = listener.syn_queue_full.as_ref();
            if let Some(unanswered) = full.map(|full| &full.unanswered)
                && unanswered.requests > memory.unanswered.requests
            {
                memory.unanswered = unanswered.clone();
            }
        }
    }

    fn describe(&self, key: &ListenerId, memory: &Full, world: &Correlator) -> Option<Description> {
        Some(Account::of(world.listener(*key)?, memory, world).describe())
    }
}

struct Account<'a> {
    listener: &'a Listener,
    memory: &'a Full,
    world: &'a Correlator,
    subject: Party,
    limit: Option<QueueLimit>,
    /// What the listener counted in that time.
    grown: ListenerTotals,
    /// What was deduced for it in that time.
    inferred: InferredSyns,
    /// How sure it is that this listener's queue was full.
    sure: Confidence,
}

impl<'a> Account<'a> {
    fn of(listener: &'a Listener, memory: &'a Full, world: &'a Correlator) -> Self {
        let inferred = listener.inferred_syns.since(&memory.inferred_before);
        let sure = match (world.observes(observation::SYN_DROP), inferred.shared) {
            (true, _) => Confidence::Certain,
            (false, false) => Confidence::Likely,
            (false, true) => Confidence::Possible,
        };
        Self {
            listener,
            memory,
            world,
            subject: Party::of_listener(listener, world),
            limit: QueueLimit::of(listener, world.namespace(listener.endpoints.netns)),
            grown: listener.totals.less(&memory.before),
            inferred,
            sure,
        }
    }

    fn describe(&self) -> Description {
        let (drops, reserved, cookies) = self.counts();
        let dropped = drops + reserved > 0;
        let (cause, confidence, explanation, remedy) = self.cause();
        let limit = self.limit.map_or_else(String::new, |limit| format!(" ({})", limit.limit));
        Description {
            severity: if dropped { Severity::Critical } else { Severity::Warning },
            confidence: confidence.min(self.sure),
            title: if dropped {
                format!("{} drops connections: its SYN queue{limit} is full", self.subject)
            } else {
                format!("{} lives on SYN cookies: its SYN queue{limit} is full", self.subject)
            },
            subject: self.subject.clone(),
            cause,
            numbers: vec![format!(
                "{}{}; {} dropped, {} sent{}",
                self.memory.deepest.map_or_else(
                    || "half-open requests not counted".to_owned(),
                    |deepest| format!("{deepest} half-open")
                ),
                self.limit.map_or_else(String::new, |limit| format!(", limit {}", limit.limit)),
                count(drops + reserved, "SYN", "SYNs"),
                count(cookies, "cookie", "cookies"),
                match (self.is_polled(), self.inferred.shared) {
                    (false, _) => "",
                    (true, false) => " (by the kernel's counters)",
                    (true, true) => " (by the kernel's counters; some may be another listener's)",
                }
            )],
            evidence: self.evidence(&explanation),
            explanation,
            remedy,
        }
    }

    /// SYNs dropped at the full queue, for the rest of `tcp_max_syn_backlog`, and answered by cookies.
    fn counts(&self) -> (u64, u64, u64) {
        if self.is_polled() {
            return (self.inferred.drops, self.inferred.reserved, self.inferred.cookies);
        }
        (
            self.grown.syn_drops_syn_queue.unwrap_or(0),
            self.grown.syn_drops_max_syn_backlog.unwrap_or(0),
            self.grown.cookies_sent.unwrap_or(0),
        )
    }

    /// Whether the SYNs are known from the namespace's counters only.
    fn is_polled(&self) -> bool {
        !self.world.observes(observation::SYN_DROP)
    }

    fn evidence(&self, explanation: &str) -> Evidence {
        let knobs = self.world.namespace(self.listener.endpoints.netns).map(|namespace| &namespace.knobs);
        let (drops, reserved, cookies) = self.counts();
        Evidence::new()
            .with("syn_drops", drops + reserved)
            .with_some("syn_drops_max_syn_backlog", (reserved > 0).then_some(reserved))
            .with("cookies_sent", cookies)
            .with_some("polled", self.is_polled().then_some(true))
            .with_some("shared", (self.is_polled() && self.inferred.shared).then_some(true))
            .with("half_open", self.memory.deepest)
            .with("queue_limit", self.limit.map(|limit| limit.limit))
            .with("backlog", self.limit.and_then(|limit| limit.asked))
            .with("somaxconn", self.limit.and_then(|limit| limit.somaxconn_now.or(limit.somaxconn_then)))
            .with("max_syn_backlog", knobs.and_then(|knobs| knobs.max_syn_backlog))
            .with("syncookies", knobs.and_then(|knobs| knobs.syncookies))
            .with("completed", self.grown.enqueued)
            .with("retransmits_timer", self.grown.retransmits_timer)
            .with("expired", self.grown.expired)
            .with("unanswered_sources", self.memory.unanswered.sources)
            .with_some("deferred", self.deferred())
            .with("why", explanation)
    }

    /// By the kernel's order of decisions: the queue's limit, then (without cookies) tcp_max_syn_backlog. But whose requests
    /// fill it matters more than its length.
    fn cause(&self) -> (&'static str, Confidence, String, Vec<Remedy>) {
        let knobs = self.world.namespace(self.listener.endpoints.netns).map(|namespace| &namespace.knobs);
        let (drops, reserved, _) = self.counts();
        let cookies_off = knobs.and_then(|knobs| knobs.syncookies) == Some(0);
        let cookies_on = cookies_off.then(|| {
            Remedy::command(
                "let SYN cookies take over when the queue is full (net.ipv4.tcp_syncookies is 0)",
                self.sysctl("net.ipv4.tcp_syncookies=1"),
            )
        });
        let limit = self.limit;
        let queue = limit
            .map_or_else(|| "the SYN queue".to_owned(), |limit| format!("the SYN queue ({})", limit.limit));
        let somaxconn = limit.and_then(|limit| limit.somaxconn_now.or(limit.somaxconn_then));
        let value = |value: Option<u32>| value.map_or_else(String::new, |value| format!(" ({value})"));
        let max_syn_backlog = value(knobs.and_then(|knobs| knobs.max_syn_backlog));
        let (cause, confidence, explanation, mut remedy) = if let Some(deferred) = self.deferred() {
            self.by_deferring(deferred, &queue)
        } else if let Some(flood) = self.flood() {
            let explanation = format!("{flood}: they fill {queue}");
            let remedy = vec![Remedy::text(format!(
                "drop the flood before it gets here; the backlog{}, net.core.somaxconn{} and net.ipv4.tcp_max_syn_backlog{max_syn_backlog} \
                 are not the cause: a longer queue fills up as well",
                value(limit.map(|limit| limit.limit)),
                value(somaxconn)
            ))];
            // Where timers are not seen, a SYN that came again may have been taken for one.
            let sure = if self.world.observes(observation::REQUEST_END) {
                Confidence::Likely
            } else {
                Confidence::Possible
            };
            ("syn-flood", sure, explanation, remedy)
        } else if reserved > drops {
            let wanted = limit.map_or(4096, |limit| limit.limit.max(512)).saturating_mul(2);
            let explanation = format!(
                "net.ipv4.tcp_max_syn_backlog{max_syn_backlog}: without SYN cookies its last quarter is kept for known peers"
            );
            let remedy = vec![
                Remedy::command(
                    "raise net.ipv4.tcp_max_syn_backlog",
                    self.sysctl(&format!("net.ipv4.tcp_max_syn_backlog={wanted}")),
                ),
                Remedy::not(format!(
                    "neither the backlog{} nor net.core.somaxconn{} is the limit",
                    value(limit.map(|limit| limit.limit)),
                    value(somaxconn)
                )),
            ];
            ("max-syn-backlog", Confidence::Certain, explanation, remedy)
        } else {
            self.by_limit(&queue, &max_syn_backlog)
        };
        remedy.extend(cookies_on);
        (cause, confidence, explanation, remedy)
    }

    /// How many requests waited for data lately, if they make up at least half of the queue.
    fn deferred(&self) -> Option<u64> {
        let deferred = self.listener.deferred.lately(self.world.now());
        let deepest = u64::from(self.memory.deepest?);
        (deferred > 0 && deferred.saturating_mul(2) >= deepest).then_some(deferred)
    }

    /// The kernel does not hand a connection to accept() before its data has come: until then it keeps its place here.
    fn by_deferring(&self, deferred: u64, queue: &str) -> (&'static str, Confidence, String, Vec<Remedy>) {
        let backlog = self.limit.map_or_else(String::new, |limit| format!(" ({})", limit.limit));
        let explanation = format!(
            "TCP_DEFER_ACCEPT: in the last {} s the program's option kept {} waiting for data; their clients have connected and \
             send nothing, and they fill {queue}",
            DEFERRED_LATELY.as_secs(),
            count(deferred, "completed handshake", "completed handshakes")
        );
        let remedy = vec![
            Remedy::text(
                "let the program do without TCP_DEFER_ACCEPT (its \"deferred\" option or accept filter), or give it a shorter time: \
                 then silent clients wait in the program, which can close them",
            ),
            Remedy::text(format!(
                "or raise the backlog{backlog} above the number of clients that connect and send nothing: they all wait in this queue"
            )),
        ];
        ("deferred", Confidence::Likely, explanation, remedy)
    }

    fn by_limit(
        &self,
        queue: &str,
        max_syn_backlog: &str,
    ) -> (&'static str, Confidence, String, Vec<Remedy>) {
        let not_it = format!(
            "net.ipv4.tcp_max_syn_backlog{max_syn_backlog} is not the limit: the SYN queue has the limit of the accept queue"
        );
        let Some(limit) = self.limit else {
            let explanation = format!("{queue} is full; its limit is not known");
            return ("backlog-argument", Confidence::Possible, explanation, vec![Remedy::not(not_it)]);
        };
        let somaxconn = limit.somaxconn_now.or(limit.somaxconn_then);
        let raise = Remedy::command(
            "raise net.core.somaxconn, then restart the application: it takes effect at the next listen()",
            self.sysctl(&format!("net.core.somaxconn={}", limit.wanted_somaxconn())),
        );
        match limit.set_by() {
            SetBy::Somaxconn => (
                "somaxconn",
                Confidence::Certain,
                format!(
                    "net.core.somaxconn: listen(fd, {}) was cut to {}, and so was {queue}",
                    limit.asked_in_words().unwrap_or_default(),
                    limit.limit
                ),
                vec![raise, Remedy::not(not_it)],
            ),
            SetBy::Argument { seen, somaxconn_allows_more } => {
                let rest = match somaxconn {
                    Some(value) if somaxconn_allows_more => format!("; somaxconn ({value}) needs no change"),
                    Some(value) => format!(", and net.core.somaxconn ({value}) with it"),
                    None => String::new(),
                };
                let mut remedy = own_words::or_general(
                    &self.subject,
                    Need::Backlog(limit.wanted_backlog()),
                    "raise the application's own listen backlog (its configuration)",
                    &rest,
                );
                remedy.push(Remedy::not(not_it));
                let how = if seen { "" } else { " (its listen() was not seen)" };
                let explanation = format!(
                    "the application's backlog, {}{how}, limits the SYN queue as well: more handshakes are in flight than it holds",
                    limit.limit
                );
                (
                    "backlog-argument",
                    if seen { Confidence::Certain } else { Confidence::Likely },
                    explanation,
                    remedy,
                )
            }
            SetBy::Either => (
                "somaxconn",
                Confidence::Possible,
                format!(
                    "net.core.somaxconn, or an equal argument of listen(), which was not seen, limits {queue}"
                ),
                [raise]
                    .into_iter()
                    .chain(own_words::or_general(
                        &self.subject,
                        Need::Backlog(limit.wanted_somaxconn()),
                        "raise the application's own listen backlog as well",
                        ": the lower of both counts",
                    ))
                    .chain([Remedy::not(not_it)])
                    .collect(),
            ),
        }
    }

    /// What says that the requests are never meant to be answered.
    fn flood(&self) -> Option<String> {
        let seen = &self.memory.unanswered;
        if seen.requests >= FLOOD && seen.pattern() == PeerPattern::Flood {
            return Some(format!(
                "{} asked once each and never again",
                count(seen.sources, "address", "addresses")
            ));
        }
        let unanswered =
            self.grown.retransmits_timer.unwrap_or(0).saturating_add(self.grown.expired.unwrap_or(0));
        let completed = self.grown.enqueued?;
        (unanswered >= FLOOD && unanswered > completed).then(|| {
            format!(
                "{} unanswered against {} completed",
                count(unanswered, "SYN-ACK", "SYN-ACKs"),
                count(completed, "connection", "connections")
            )
        })
    }

    fn sysctl(&self, setting: &str) -> commands::CommandLine {
        commands::sysctl(self.listener.endpoints.netns, self.subject.process.as_ref(), setting)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{CounterSample, Kind, ObservationStatus, SynDrop, SynDropCause};
    use crate::finding::testing::{NETNS, Play, Server, task};

    fn server(play: &mut Play, backlog: u32, somaxconn: u32) -> Server {
        let mut server = Server::new(100, "0.0.0.0:1080", backlog.min(somaxconn));
        server.totals.enqueued = Some(0);
        server.listen(play, task(6039, "delegated"), Some(backlog), somaxconn);
        server
    }

    fn drop(play: &mut Play, server: &mut Server, at: u64, cause: SynDropCause) {
        let total = match cause {
            SynDropCause::MaxSynBacklog => &mut server.totals.syn_drops_max_syn_backlog,
            _ => &mut server.totals.syn_drops_syn_queue,
        };
        *total = total.map(|total| total + 1);
        let total = total.unwrap();
        let mut listener = server.listener();
        listener.syn_queue = server.limit + 1;
        let endpoints = crate::finding::testing::place(server.local);
        play.send(at, Kind::SynDrop(SynDrop { endpoints, listener, cause, syncookies: 0, total }));
    }

    fn seconds(play: &mut Play, server: &mut Server, range: std::ops::Range<u64>, cause: SynDropCause) {
        for second in range {
            for at in 0..10 {
                drop(play, server, second * 1000 + at * 50, cause);
                server.totals.enqueued = server.totals.enqueued.map(|count| count + 5);
            }
            play.send(second * 1000 + 990, server.sample());
            play.tick(second * 1000 + 1000);
        }
    }

    #[test]
    fn drops_at_the_limit_of_the_program_are_its_backlog_s() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play, 20, 4096);
        seconds(&mut play, &mut server, 1..6, SynDropCause::SynQueue);
        play.end();
        let finding = play.only();
        assert_eq!((finding.code, finding.cause), ("syn-queue-full", "backlog-argument"));
        assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::Certain));
        assert_eq!(Play::json(finding)["evidence"]["syn_drops"], json!(50));
        assert!(finding.remedy[0].text.contains("somaxconn (4096) needs no change"), "{:?}", finding.remedy);
        assert!(finding.remedy[1].text.contains("tcp_max_syn_backlog (512) is not the limit"));
    }

    #[test]
    fn somaxconn_and_max_syn_backlog_are_told_apart() {
        let mut play = Play::new(128);
        let mut server = server(&mut play, 4096, 128);
        seconds(&mut play, &mut server, 1..6, SynDropCause::SynQueue);
        let finding = play.only_of("syn-queue-full");
        assert_eq!(finding.cause, "somaxconn");
        assert_eq!(finding.remedy[0].command.as_deref(), Some("sysctl -w net.core.somaxconn=4096"));

        let mut play = Play::new(4096);
        let mut server = self::server(&mut play, 1024, 4096);
        seconds(&mut play, &mut server, 1..6, SynDropCause::MaxSynBacklog);
        let finding = play.only();
        assert_eq!(finding.cause, "max-syn-backlog");
        assert_eq!(finding.remedy[0].command.as_deref(), Some("sysctl -w net.ipv4.tcp_max_syn_backlog=2048"));
        assert_eq!(Play::json(finding)["evidence"]["syn_drops"], json!(50));
    }

    #[test]
    fn cookies_save_the_connections() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play, 20, 4096);
        for second in 1..8 {
            server.totals.cookies_sent = server.totals.cookies_sent.map(|count| count + 30);
            server.totals.syn_queue_max = Some(21);
            server.totals.enqueued = server.totals.enqueued.map(|count| count + 80);
            play.send(second * 1000 - 10, server.sample());
            play.tick(second * 1000);
        }
        let finding = play.only();
        assert_eq!((finding.cause, finding.severity), ("backlog-argument", Severity::Warning));
        assert!(finding.title.contains("lives on SYN cookies"));
    }

    #[test]
    fn requests_that_nobody_answers_are_a_flood() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play, 20, 4096);
        server.totals.retransmits_timer = Some(0);
        for second in 1..8_u64 {
            server.totals.cookies_sent = server.totals.cookies_sent.map(|count| count + 300);
            server.totals.retransmits_timer = Some((second - 1) * 20);
            play.send(second * 1000 - 10, server.sample());
            play.tick(second * 1000);
        }
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), ("syn-flood", Confidence::Likely));
        assert!(finding.remedy[0].text.contains("the backlog (20)"), "{:?}", finding.remedy);
    }

    /// Seconds in which the kernel's counters grow by `each` while the queue is polled at `half_open` requests.
    fn polled(play: &mut Play, server: &mut Server, half_open: u32, each: impl Fn(&mut CounterSample, u64)) {
        for second in 1..7_u64 {
            let mut counters = CounterSample { netns: NETNS, ..CounterSample::default() };
            for counter in [
                &mut counters.listen_overflows,
                &mut counters.listen_drops,
                &mut counters.req_queue_full_drop,
                &mut counters.req_queue_full_do_cookies,
            ] {
                *counter = Some(0);
            }
            counters.listen_overflows = Some(10_000);
            counters.listen_drops = Some(20_000);
            each(&mut counters, second - 1);
            server.totals.syn_queue_max = Some(half_open);
            play.send(second * 1000 - 20, server.polled_sample());
            play.send(second * 1000 - 10, Kind::CounterSample(Box::new(counters)));
            play.tick(second * 1000);
        }
    }

    /// `(cause, confidence)`, and the counts of drops and cookies.
    fn told(play: &Play) -> (&'static str, Confidence, serde_json::Value) {
        let finding = play.only();
        let evidence = &Play::json(finding)["evidence"];
        let counts = json!([evidence["syn_drops"], evidence["cookies_sent"], evidence["half_open"]]);
        (finding.cause, finding.confidence, counts)
    }

    fn polled_server(play: &mut Play, backlog: u32, syncookies: u32) -> Server {
        play.knobs_with(4096, syncookies);
        let mut server = server(play, backlog, 4096);
        server.totals.syn_queue_max = None;
        server
    }

    #[test]
    fn where_no_probe_sees_it_the_counters_and_the_polled_queue_do() {
        let mut play = Play::polled(4096, ObservationStatus::Attached);
        let mut server = polled_server(&mut play, 32, 0);
        server.socket_drops = 0;
        polled(&mut play, &mut server, 33, |counters, second| {
            counters.req_queue_full_drop = Some(second * 40);
            counters.listen_drops = Some(20_000 + second * 40);
        });
        // The socket's own drops did not grow: they were another's.
        assert!(play.findings.is_empty(), "{:#?}", play.findings);

        let mut play = Play::polled(4096, ObservationStatus::Attached);
        let mut server = polled_server(&mut play, 32, 1);
        polled(&mut play, &mut server, 33, |counters, second| {
            counters.req_queue_full_do_cookies = Some(second * 40);
        });
        assert_eq!(told(&play), ("backlog-argument", Confidence::Likely, json!([0, 200, 33])));
        assert!(play.only().title.contains("lives on SYN cookies"));
        assert!(play.only().numbers[0].contains("by the kernel's counters"), "{:?}", play.only().numbers);
        // Of what this tier does not see nothing is told.
        assert_eq!(Play::json(play.only())["evidence"]["expired"], json!(null));
    }

    #[test]
    fn of_two_full_queues_one_that_is_not_known_to_have_dropped_any_is_no_finding() {
        let mut play = Play::polled(4096, ObservationStatus::Attached);
        let mut other = Server::new(200, "0.0.0.0:2080", 32);
        other.listen(&mut play, task(7000, "other"), Some(32), 4096);
        let mut server = polled_server(&mut play, 32, 0);
        polled(&mut play, &mut other, 33, |_, _| ());
        for second in 7..12_u64 {
            server.totals.syn_queue_max = Some(33);
            server.socket_drops += 40;
            other.socket_drops += 1;
            let counters = CounterSample {
                netns: NETNS,
                listen_overflows: Some(10_000),
                listen_drops: Some(20_000 + (second - 6) * 40),
                req_queue_full_drop: Some((second - 6) * 40),
                req_queue_full_do_cookies: Some(0),
                ..CounterSample::default()
            };
            play.send(second * 1000 - 20, server.polled_sample());
            play.send(second * 1000 - 19, other.polled_sample());
            play.send(second * 1000 - 10, Kind::CounterSample(Box::new(counters)));
            play.tick(second * 1000);
        }
        let about: Vec<_> = play.findings.iter().map(|finding| finding.subject.address).collect();
        assert!(!about.is_empty());
        assert!(about.iter().all(|at| at.is_some_and(|at| at.port() != 2080)), "{:#?}", play.findings);
    }

    #[test]
    fn a_listener_that_drops_for_another_reason_is_not_the_one_with_the_full_queue() {
        let mut play = Play::polled(4096, ObservationStatus::Attached);
        play.knobs_with(4096, 0);
        // No route leads back to its clients.
        let mut other = Server::new(200, "0.0.0.0:1090", 128);
        other.listen(&mut play, task(7000, "elsewhere"), Some(128), 4096);
        let mut server = polled_server(&mut play, 4, 0);
        for at in (0..6000_u64).step_by(200) {
            other.socket_drops += 1;
            // Its queue is full from the third second on; the counter was read a moment before that was seen.
            server.socket_drops = at.saturating_sub(2200) / 100;
            server.totals.syn_queue_max = Some(if at > 2400 { 5 } else { 0 });
            for server in [&other, &server] {
                play.send(at + 1, server.polled_sample());
            }
            if at % 1000 == 400 {
                let mut counters = CounterSample { netns: NETNS, ..CounterSample::default() };
                counters.req_queue_full_drop = Some(u64::from(at >= 2400) + at.saturating_sub(2400) / 100);
                counters.listen_overflows = Some(0);
                counters.listen_drops = Some(100);
                play.send(at + 2, Kind::CounterSample(Box::new(counters)));
                play.tick(at + 3);
            }
        }
        assert_eq!(play.only().subject.address.map(|at| at.port()), Some(1080), "{:#?}", play.findings);
    }

    #[test]
    fn silent_clients_of_a_deferring_server_fill_the_queue() {
        let mut play = Play::polled(4096, ObservationStatus::Attached);
        let mut server = polled_server(&mut play, 32, 1);
        server.totals.deferred = Some(20);
        polled(&mut play, &mut server, 33, |counters, second| {
            counters.req_queue_full_do_cookies = Some(second * 40);
        });
        assert_eq!(told(&play), ("deferred", Confidence::Likely, json!([0, 200, 33])));
        assert!(play.only().remedy[0].text.contains("without TCP_DEFER_ACCEPT"), "{:?}", play.only().remedy);
        assert!(play.only().explanation.contains("20 completed handshakes"), "{}", play.only().explanation);
        // A few of them are not what fills it.
        let mut play = Play::polled(4096, ObservationStatus::Attached);
        let mut server = polled_server(&mut play, 32, 1);
        server.totals.deferred = Some(9);
        polled(&mut play, &mut server, 33, |counters, second| {
            counters.req_queue_full_do_cookies = Some(second * 40);
        });
        assert_eq!(play.only().cause, "backlog-argument");
    }

    #[test]
    fn cookies_that_are_always_sent_are_no_finding() {
        let mut play = Play::new(4096);
        play.knobs_with(4096, 2);
        let mut server = server(&mut play, 20, 4096);
        for second in 1..8 {
            server.totals.cookies_sent = server.totals.cookies_sent.map(|count| count + 300);
            play.send(second * 1000 - 10, server.sample());
            play.tick(second * 1000);
        }
        assert!(play.findings.is_empty(), "{:#?}", play.findings);
    }
}
