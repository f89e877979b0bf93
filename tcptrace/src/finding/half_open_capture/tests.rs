//! Each pattern, and what must stay silent.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;

use crate::event::{
    Endpoints, Kind, ListenerRef, PrefixSample, RequestEnd, RequestEnding, RetransmitCause, SynAckRetransmit,
};
use crate::finding::testing::{NETNS, Play, Server, place, task};
use crate::finding::{Confidence, Severity, State};

/// When the request began, what is sent again (nothing: it expires), timeouts.
type Step = (u64, Option<(RetransmitCause, u32)>, u32);

/// A listener and its half-open requests, which are sent SYN-ACKs like the kernel does.
struct Queue {
    server: Server,
    /// What happens, by time (ms) and peer.
    to_come: BTreeMap<(u64, SocketAddr), Step>,
    timer: u64,
    duplicates: u64,
    expired: u64,
    /// Neither the cause of a SYN-ACK nor the end of a request is told.
    blind: bool,
}

impl Queue {
    fn new(play: &mut Play) -> Self {
        let server = Server::new(100, "0.0.0.0:443", 128);
        server.listen(play, task(6039, "web"), Some(128), 4096);
        Self { server, to_come: BTreeMap::new(), timer: 0, duplicates: 0, expired: 0, blind: false }
    }

    /// A request at `at` ms that is answered after `timeouts` retransmissions, or never; the peer repeats its SYN or not.
    fn request(&mut self, at: u64, peer: &str, answered_after: Option<u32>, repeats: bool) {
        let peer: SocketAddr = peer.parse().unwrap();
        for round in 0..answered_after.unwrap_or(5).min(5) {
            let when = at + ((1 << (round + 1)) - 1) * 1000;
            self.to_come.insert((when, peer), (at, Some((RetransmitCause::Timer, round)), round));
            if repeats {
                self.to_come
                    .insert((when + 3, peer), (at, Some((RetransmitCause::DuplicateSyn, round)), round));
            }
        }
        if answered_after.is_none() {
            self.to_come.insert((at + 63_000, peer), (at, None, 5));
        }
    }

    fn run(&mut self, play: &mut Play, until: u64) {
        for second in play.now / 1000 + 1..=until / 1000 {
            while let Some(entry) = self.to_come.first_entry().filter(|entry| entry.key().0 < second * 1000) {
                let ((at, peer), (began, what, timeouts)) = entry.remove_entry();
                let endpoints = Endpoints { remote: Some(peer), ..place(self.server.local) };
                let pending: std::collections::BTreeSet<_> = self.to_come.keys().map(|key| key.1).collect();
                let listener = ListenerRef {
                    syn_queue: u32::try_from(pending.len()).unwrap(),
                    ..self.server.listener()
                };
                let age_ns = Some((at - began) * 1_000_000);
                play.send(
                    at,
                    match what {
                        Some((cause, timeouts)) => {
                            let cause = if self.blind { RetransmitCause::Unknown } else { cause };
                            let total = match cause {
                                RetransmitCause::Timer => &mut self.timer,
                                _ => &mut self.duplicates,
                            };
                            *total += 1;
                            let total = *total;
                            Kind::SynAckRetransmit(SynAckRetransmit {
                                endpoints,
                                listener,
                                age_ns,
                                cause,
                                timeouts,
                                total,
                                acked: false,
                                deferred: false,
                            })
                        }
                        None if self.blind => continue,
                        None => {
                            self.expired += 1;
                            let (how, total) = (RequestEnding::Expired, self.expired);
                            Kind::RequestEnd(RequestEnd {
                                endpoints,
                                listener,
                                age_ns,
                                how,
                                timeouts,
                                total,
                                acked: false,
                                deferred: false,
                                icmp: None,
                            })
                        }
                    },
                );
            }
            play.tick(second * 1000);
        }
    }

    fn completed(play: &mut Play, at: u64, network: &str, completed: u64) {
        let network = network.parse().unwrap();
        play.send(
            at,
            Kind::PrefixSample(PrefixSample { netns: NETNS, sk: 100, network, bits: 24, completed }),
        );
    }
}

#[test]
fn a_broken_return_path_is_told_with_its_networks_and_the_timeout() {
    let mut play = Play::new(4096);
    let mut queue = Queue::new(&mut play);
    for client in 1..=10 {
        queue.request(1000 + client, &format!("192.0.2.{client}:4000"), None, true);
        queue.request(9000 + client, &format!("192.0.2.{client}:4001"), None, true);
    }
    queue.run(&mut play, 5000);
    Queue::completed(&mut play, 5500, "198.51.100.0", 40);
    queue.run(&mut play, 30_000);
    let finding = play.only();
    assert_eq!((finding.code, finding.cause), ("half-open-capture", "return-path"));
    assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Likely));
    let evidence = &Play::json(finding)["evidence"];
    assert_eq!(
        (&evidence["synack_retries"], &evidence["timeout_s"], &evidence["retried_from_new_port"]),
        (&json!(5), &json!(63), &json!(10))
    );
    assert_eq!(evidence["limit"], json!(128));
    assert_eq!(evidence["half_open"], json!(20));
    let prefix = &evidence["prefixes"][0];
    assert_eq!(
        (&prefix["network"]["prefix"], &prefix["network"]["requests"], &prefix["network"]["sources"]),
        (&json!("192.0.2.0/24"), &json!(20), &json!(10))
    );
    assert_eq!(
        (&evidence["completed_elsewhere"], &evidence["completed_elsewhere_percent"]),
        (&json!(40), &json!(100))
    );
    assert!((28_000.0..30_000.0).contains(&evidence["oldest_ms"].as_f64().unwrap()), "{evidence}");
    assert!(finding.explanation.contains("one host cannot tell which"), "{}", finding.explanation);
    assert_eq!(finding.remedy[1].command.as_deref(), Some("sysctl -w net.ipv4.tcp_synack_retries=2"));
    assert!(finding.remedy[1].text.contains("5 keeps each for 63 s, 2 for 7 s"), "{:?}", finding.remedy);
    queue.run(&mut play, 200_000);
    assert_eq!(play.only().state, State::Closed);
    assert_eq!(queue.expired, 20);
}

#[test]
fn a_flood_is_many_sources_each_once() {
    let mut play = Play::new(4096);
    let mut queue = Queue::new(&mut play);
    for source in 0..60 {
        queue.request(1000 + source, &format!("10.{source}.7.9:{}", 1000 + source), None, false);
    }
    queue.run(&mut play, 20_000);
    assert_eq!((play.only().cause, play.only().confidence), ("syn-flood", Confidence::Likely));
}

#[test]
fn silence_of_a_few_says_nothing_of_its_cause() {
    let mut play = Play::new(4096);
    let mut queue = Queue::new(&mut play);
    for port in 0..12 {
        // At the same time, from several ports: no retry.
        queue.request(1000 + port, &format!("192.0.2.{}:{}", port % 3, 5000 + port), None, false);
    }
    queue.run(&mut play, 20_000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("unknown", Confidence::Possible));
    for alternative in ["the path", "clients that are gone", "a SYN flood"] {
        assert!(finding.explanation.contains(alternative), "{}", finding.explanation);
    }
    assert_eq!(finding.remedy[0].command.as_deref(), Some("tcpdump -ni any 'tcp port 443'"));
}

/// The tracepoint tier does not tell the timer from a SYN that came again, and sees no request end.
mod in_the_tracepoint_tier {
    use super::*;
    use crate::event::ObservationStatus;

    /// As [`Queue::run`] sends them, without what this tier cannot know.
    fn blind(repeats: bool, sources: u64) -> Play {
        let mut play = Play::polled(4096, ObservationStatus::Attached);
        let mut queue = Queue { blind: true, ..Queue::new(&mut play) };
        for source in 0..sources {
            let peer = format!("10.{source}.7.9:{}", 1000 + source);
            queue.request(1000 + source, &peer, None, repeats);
        }
        queue.run(&mut play, 20_000);
        play
    }

    #[test]
    fn a_syn_that_came_again_is_told_from_the_timer_by_its_time() {
        let play = blind(true, 20);
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), ("return-path", Confidence::Possible));
        let evidence = &Play::json(finding)["evidence"];
        assert_eq!((&evidence["repeated_syn"], &evidence["sources"]), (&json!(20), &json!(20)));
        // What is not seen is not told as none.
        assert_eq!((&evidence["expired"], &evidence["completed_elsewhere"]), (&json!(null), &json!(null)));
        assert!(!finding.numbers.join(" ").contains("expired"), "{:?}", finding.numbers);
    }

    #[test]
    fn what_a_flood_and_a_broken_path_have_in_common_has_no_name() {
        let play = blind(false, 60);
        assert_eq!((play.only().cause, play.only().confidence), ("unknown", Confidence::Possible));
        assert!(play.only().explanation.contains("not seen in this tier"), "{}", play.only().explanation);
    }
}

#[test]
fn slow_clients_and_a_handful_are_no_finding() {
    let mut play = Play::new(4096);
    let mut queue = Queue::new(&mut play);
    for client in 1..=40 {
        queue.request(1000 + client * 100, &format!("192.0.2.{client}:4000"), Some(2), client % 2 == 0);
    }
    for client in 1..=7 {
        queue.request(20_000 + client * 100, &format!("198.51.100.{client}:4000"), None, true);
    }
    queue.run(&mut play, 120_000);
    assert!(play.findings.is_empty(), "{:#?}", play.findings);
}

#[test]
fn requests_whose_final_ack_was_dropped_are_the_overflow_s() {
    let mut play = Play::new(4096);
    let mut queue = Queue::new(&mut play);
    for client in 1..=20 {
        queue.request(1000 + client, &format!("192.0.2.{client}:4000"), None, false);
    }
    queue.server.depth = 129;
    for at in 0..20 {
        let drop = queue.server.ack_drop();
        play.send(1050 + at, drop);
    }
    queue.server.depth = 0;
    play.send(2000, queue.server.sample());
    queue.run(&mut play, 100_000);
    assert_eq!(play.codes(), ["accept-queue-overflow"]);
}

#[test]
fn a_full_queue_is_told_once() {
    for (insist, told) in [(true, "half-open-capture"), (false, "syn-queue-full")] {
        let mut play = Play::new(4096);
        let mut queue = Queue::new(&mut play);
        for source in 0..60_u64 {
            queue.request(1000 + source, &format!("10.{source}.7.9:{}", 1000 + source), None, insist);
        }
        for second in 1..20 {
            queue.server.totals.cookies_sent = queue.server.totals.cookies_sent.map(|count| count + 100);
            play.send(second * 1000 + 1, queue.server.sample());
            queue.run(&mut play, second * 1000 + 1000);
        }
        let finding = play.only();
        assert_eq!(finding.code, told);
        if insist {
            assert_eq!(finding.severity, Severity::Critical);
        } else {
            assert_eq!(finding.cause, "syn-flood");
        }
    }
}

/// Twenty requests that get `retransmissions` SYN-ACKs and then end by `how`, or never; their final ACK came if `acked`.
fn ended(retransmissions: u32, acked: bool, how: Option<RequestEnding>) -> Play {
    let mut play = Play::new(4096);
    let server = Server::new(100, "0.0.0.0:443", 128);
    server.listen(&mut play, task(6039, "web"), Some(128), 4096);
    let age_ns = Some(1_000_000_000);
    for timeouts in 0..=retransmissions {
        let at = 1000 * ((1 << (timeouts + 1)) - 1);
        while play.now < at {
            let next = play.now / 1000 + 1;
            play.tick(next * 1000);
        }
        for client in 0..20_u64 {
            let remote: SocketAddr = format!("10.9.{client}.1:4000").parse().unwrap();
            let endpoints = Endpoints { remote: Some(remote), ..place(server.local) };
            let (listener, total) = (server.listener(), u64::from(timeouts) * 20 + client + 1);
            let kind = if timeouts < retransmissions {
                let cause = RetransmitCause::Timer;
                Some(Kind::SynAckRetransmit(SynAckRetransmit {
                    endpoints,
                    listener,
                    age_ns: Some((at - 1000) * 1_000_000),
                    cause,
                    timeouts,
                    total,
                    acked,
                    deferred: false,
                }))
            } else {
                how.map(|how| {
                    Kind::RequestEnd(RequestEnd {
                        endpoints,
                        listener,
                        age_ns,
                        how,
                        timeouts,
                        total: client + 1,
                        acked,
                        deferred: false,
                        icmp: (how == RequestEnding::Icmp).then_some((3, 1)),
                    })
                })
            };
            if let Some(kind) = kind {
                play.send(at + 1 + client, kind);
            }
        }
    }
    for _ in 0..4 {
        let next = play.now / 1000 + 1;
        play.tick(next * 1000);
    }
    play
}

#[test]
fn late_answers_other_than_an_ack_tell_of_clients_that_gave_up() {
    for (how, evidence) in [(RequestEnding::Reset, "reset_by_peer"), (RequestEnding::Icmp, "ended_by_icmp")] {
        let play = ended(2, false, Some(how));
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), ("client-gave-up", Confidence::Likely));
        assert_eq!(Play::json(finding)["evidence"][evidence], 20);
    }
}

#[test]
fn what_is_answered_at_once_or_acknowledged_is_no_capture() {
    // A scanner's host answers the first SYN-ACK with RST.
    assert_eq!(ended(0, false, Some(RequestEnding::Reset)).codes(), Vec::<&str>::new());
    // TCP_DEFER_ACCEPT: the ACK has come, the data has not.
    assert_eq!(ended(4, true, Some(RequestEnding::Expired)).codes(), Vec::<&str>::new());
    assert_eq!(ended(4, false, None).codes(), ["half-open-capture"]);
}
