//! Each cause, what must not be one, and the numbers.

use serde_json::json;

use std::time::Duration;

use super::PEERS;
use crate::event::{
    Acceptor, Kind, LossPlace, Lost, ObservationStatus, Owner, OwnerConfidence, ProcessState, SocketOwner,
};
use crate::finding::testing::{NETNS, Play, Server, ms, place, task};
use crate::finding::{Confidence, State};

/// A server that listens since the beginning.
fn server(play: &mut Play, backlog: u32, somaxconn: u32) -> Server {
    let server = Server::new(100, "0.0.0.0:1080", backlog.min(somaxconn));
    server.listen(play, task(6039, "delegated"), Some(backlog), somaxconn);
    play.process(6039, "delegated", "delegated -P1080");
    server
}

fn evidence(finding: &crate::finding::Finding) -> serde_json::Value {
    Play::json(finding)["evidence"].clone()
}

#[test]
fn a_short_backlog_is_blamed_with_all_its_numbers() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 14, 125, 6000);
    play.end();
    let finding = play.only().clone();
    assert_eq!((finding.cause, finding.state), ("backlog-argument", State::Closed));
    assert_eq!(finding.confidence, Confidence::Certain);
    assert_eq!(
        finding.title,
        "delegated[6039] 0.0.0.0:1080 drops connections: its accept queue (20) is full"
    );
    let evidence = evidence(&finding);
    assert_eq!(evidence["syn_drops"], json!(server.overflows()));
    assert_eq!(evidence["ack_drops"], json!(0));
    assert_eq!(evidence["kernel_ListenOverflows"], json!(server.overflows()));
    assert_eq!(
        (&evidence["queue"], &evidence["queue_limit"], &evidence["backlog"], &evidence["somaxconn"]),
        (&json!(21), &json!(20), &json!(20), &json!(4096))
    );
    let arrivals = evidence["arrivals_per_s"].as_f64().unwrap();
    assert!((70.0..73.0).contains(&arrivals), "{arrivals}");
    assert_eq!(evidence["accepts_per_s"], json!(8.0));
    assert_eq!(evidence["accept_threads"], json!(1));
    assert_eq!(evidence["peers"], json!(server.overflows()));
    assert!(finding.remedy[0].text.contains("somaxconn (4096) needs no change"));
    assert!(finding.remedy[1].text.contains("1 thread accepts 8/s against 71/s arriving"));
    // The setting that ended it, where it happened.
    assert!(
        finding.remedy[0].text.starts_with("raise the listen backlog of DeleGate: `MAXIMA=listen:1024` ")
    );
    assert_eq!(play.findings[0].state, State::Opened);
    assert_eq!(play.findings[0].cause, "backlog-argument");
}

#[test]
fn a_process_that_ends_with_its_listener_has_left_it_to_no_other() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 14, 125, 4000);
    server.run(&mut play, 14, 0, 7900);
    let before = play.only_of("accept-queue-overflow").explanation.clone();
    // Its end is seen first, and its listener's after that.
    play.send(8000, Kind::ProcessState(ProcessState { pid: 6039, ..ProcessState::default() }));
    play.send(8010, server.closed(task(6039, "delegated")));
    play.ticks_until(9000);
    play.end();
    let finding = play.only_of("accept-queue-overflow");
    assert!(!finding.explanation.contains("keeps the socket open"), "{} after {before}", finding.explanation);
    assert!(!finding.remedy[0].text.contains("start it again"), "{:?}", finding.remedy);
}

#[test]
fn a_wait_of_less_than_a_millisecond_is_not_printed_as_none() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    for at in (0..1000).step_by(100) {
        server.client();
        server.accept(at, Acceptor { pid: 6039, tid: 6039 }, 0);
        server.totals.wait_max_ns = Some(200_000);
        play.send(at, server.sample());
    }
    server.run(&mut play, 20, 0, 3000);
    let lines = play.only_of("accept-queue-overflow").numbers.clone();
    assert!(lines.iter().all(|line| !line.contains("0 ms")), "{lines:?}");
}

#[test]
fn who_is_not_known_gets_the_general_words_and_a_worker_s_server_a_number() {
    let said = |comm: &str, command: &str, backlog: u32| {
        let mut play = Play::new(4096);
        let mut server = Server::new(100, "0.0.0.0:1080", backlog);
        server.listen(&mut play, task(6039, comm), Some(backlog), 4096);
        play.process(6039, comm, command);
        server.run(&mut play, 14, 125, 40_000);
        play.end();
        play.only_of("accept-queue-overflow").remedy.clone()
    };
    let unknown = said("ours", "/opt/ours", 20);
    assert!(unknown[0].text.starts_with("raise the application's own listen backlog (its configuration); "));
    assert!(unknown[1].text.starts_with("add workers: 1 thread accepts"), "{unknown:?}");
    // 8 are accepted a second: the queue of 200 needs 25 s to drain, and so a longer one is no use.
    let slow = said("gunicorn", "python3 /usr/bin/gunicorn app:app", 200);
    assert!(slow[0].text.starts_with("give gunicorn more workers: `--workers 1"), "{slow:?}");
    assert!(slow.iter().all(|remedy| !remedy.text.contains("raise the listen backlog")), "{slow:?}");
}

/// 500 are accepted a second: a queue of four is empty in 10 ms, and more workers would not keep a burst from being dropped.
#[test]
fn a_server_that_empties_its_queue_at_once_needs_no_workers() {
    let mut play = Play::new(4096);
    let mut server = Server::new(100, "0.0.0.0:8080", 4);
    server.listen(&mut play, task(17, "ours"), Some(4), 4096);
    server.run(&mut play, 1, 2, 4000);
    play.end();
    let finding = play.only_of("accept-queue-overflow");
    assert_eq!(finding.cause, "backlog-argument");
    assert!(!finding.explanation.contains("too slow"), "{}", finding.explanation);
    assert!(finding.remedy.iter().all(|remedy| !remedy.text.contains("workers")), "{:?}", finding.remedy);
}

#[test]
fn updates_come_at_most_once_a_second_and_quiet_closes() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 14, 125, 6000);
    let last_drop = play.now;
    // The rest is accepted: no stall follows.
    server.depth = 0;
    play.send(last_drop, server.sample());
    play.ticks_until(20_000);
    let times: Vec<u64> = play.findings.iter().map(|finding| finding.time.nanos() / 1_000_000).collect();
    assert!(times.len() <= 9, "{times:?}");
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= 1000 || pair[1] == *times.last().unwrap(), "{times:?}");
    }
    let closed = play.only();
    assert_eq!(closed.state, State::Closed);
    assert!(closed.time.since(ms(last_drop)) >= Duration::from_secs(9));
    // The quiet time does not dilute the rates.
    assert_eq!(evidence(closed)["accepts_per_s"], json!(8.0));
}

#[test]
fn a_queue_cut_by_somaxconn_is_not_the_application_s_fault() {
    let mut play = Play::new(128);
    let mut server = server(&mut play, 4096, 128);
    server.run(&mut play, 5, 20, 5000);
    play.end();
    let finding = play.only_of("accept-queue-overflow");
    assert_eq!((finding.cause, finding.confidence), ("somaxconn", Confidence::Certain));
    assert!(finding.explanation.contains("listen(fd, 4096) was cut to 128"));
    assert_eq!(finding.remedy[0].command.as_deref(), Some("sysctl -w net.core.somaxconn=4096"));

    // Raised meanwhile, to no effect so far.
    play.knobs(4096);
    let mut play = Play::new(128);
    let mut server = self::server(&mut play, 4096, 128);
    play.knobs(4096);
    server.run(&mut play, 5, 20, 5000);
    let finding = play.only_of("accept-queue-overflow");
    assert_eq!((finding.cause, &finding.remedy[0].command), ("somaxconn", &None));
    assert!(finding.remedy[0].text.contains("is 4096 by now"), "{:?}", finding.remedy);
    assert_eq!(play.codes(), ["accept-queue-overflow", "backlog-truncated"]);
}

#[test]
fn a_limit_that_is_neither_the_argument_nor_somaxconn_comes_from_a_call_that_was_not_seen() {
    // listen(fd, 160), seen; then listen(fd, 10), which was not.
    let mut play = Play::new(4096);
    let mut server = Server::new(100, "0.0.0.0:1080", 160);
    server.listen(&mut play, task(6039, "delegated"), Some(160), 4096);
    server.limit = 10;
    server.run(&mut play, 14, 100, 5000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("backlog-argument", Confidence::Likely));
    assert!(finding.explanation.contains("listen() was not seen"), "{}", finding.explanation);
    assert!(!finding.explanation.contains("cut"), "{}", finding.explanation);
}

#[test]
fn slow_accepts_are_not_helped_by_a_longer_queue() {
    let mut play = Play::new(128);
    let mut server = server(&mut play, 128, 128);
    server.run(&mut play, 5, 250, 5000);
    play.end();
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("accept-slow", Confidence::Certain));
    assert!(finding.explanation.contains("4/s against 200/s"), "{}", finding.explanation);
    assert!(finding.remedy.iter().any(|remedy| remedy.text.contains("net.core.somaxconn (128)")));

    // A long queue of its own, below somaxconn, that takes minutes to drain.
    let mut play = Play::new(4096);
    let mut server = self::server(&mut play, 511, 4096);
    server.run(&mut play, 5, 250, 6000);
    assert_eq!(play.only().cause, "accept-slow");
    // One that drains in a second: bursts would fit in if it were longer.
    let mut play = Play::new(4096);
    let mut server = self::server(&mut play, 200, 4096);
    server.run(&mut play, 1, 4, 3000);
    assert_eq!(play.only().cause, "backlog-argument");
}

#[test]
fn nobody_accepting_is_a_stall_once_it_has_lasted() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 20, 30, 2000);
    server.run(&mut play, 20, 0, 8000);
    play.end();
    let causes: Vec<&str> = play.findings.iter().map(|finding| finding.cause).collect();
    assert_eq!(causes.first(), Some(&"backlog-argument"), "{causes:?}");
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("accept-stalled", Confidence::Certain));
    assert!(evidence(finding)["no_accept_s"].as_f64().unwrap() >= 3.0);
    assert!(finding.remedy.iter().any(|remedy| remedy.text.contains("no queue is long enough")));
}

#[test]
fn a_queue_that_a_stall_had_filled_overflows_for_want_of_accepts() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    // A client every 300 ms, no accept: it is full after 6.3 s.
    server.run(&mut play, 300, 0, 6700);
    let first = play.only_of("accept-queue-overflow");
    assert_eq!((first.cause, first.state), ("accept-stalled", State::Opened));
    assert!(first.explanation.contains("while connections waited, until the queue was full"), "{first:?}");
    // Accepts go on at once: what was dropped before is no matter of the backlog for all that.
    server.run(&mut play, 10_000, 20, 9000);
    play.end();
    let last = play.findings.iter().rfind(|finding| finding.code == "accept-queue-overflow").unwrap();
    assert_eq!(last.cause, "accept-stalled", "{last:?}");
}

#[test]
fn a_server_that_never_accepts_is_a_stall() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 30, 0, 6000);
    play.end();
    assert_eq!(play.only().cause, "accept-stalled");
}

#[test]
fn a_stop_is_seen_at_once_and_a_pause_is_not_a_stall() {
    let stopped = |pid, stopped| {
        Kind::ProcessState(ProcessState {
            pid,
            threads: 4,
            stopped,
            sleeping: 4 - stopped,
            ..Default::default()
        })
    };
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 30, 0, 1500);
    play.send(1500, stopped(6039, 4));
    play.ticks_until(3000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("accept-stalled", Confidence::Certain));
    assert_eq!(finding.remedy[0].command.as_deref(), Some("kill -CONT 6039"));
    assert_eq!(evidence(finding)["threads_stopped"], json!(4));

    let mut play = Play::new(4096);
    let mut server = self::server(&mut play, 20, 4096);
    server.run(&mut play, 10, 50, 2000);
    play.send(2000, stopped(6039, 1));
    server.run(&mut play, 10, 0, 4000);
    server.run(&mut play, 10, 50, 9000);
    play.end();
    assert_eq!(play.only().cause, "backlog-argument");
}

#[test]
fn other_reasons_for_not_accepting_are_named() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 30, 0, 4900);
    let state = ProcessState { pid: 6039, threads: 1, running: 1, ..Default::default() };
    play.send(
        4900,
        Kind::ProcessState(ProcessState { open_files: Some(1024), open_files_limit: Some(1024), ..state }),
    );
    server.run(&mut play, 30, 0, 6000);
    let finding = play.only();
    assert!(finding.explanation.contains("limit of 1024 open files"), "{}", finding.explanation);
    assert_eq!(finding.remedy[0].command.as_deref(), Some("prlimit --pid 6039 --nofile=4096"));

    play.send(6100, Kind::ProcessState(ProcessState { blocked: 1, running: 0, ..state }));
    server.run(&mut play, 30, 0, 8000);
    let finding = play.only();
    assert!(finding.explanation.contains("uninterruptible sleep"), "{}", finding.explanation);
    assert_eq!(finding.remedy[0].command.as_deref(), Some("cat /proc/6039/task/*/stack"));
}

#[test]
fn a_listener_older_than_the_tracer_is_told_with_reserve() {
    let older = |somaxconn: u32, limit: u32, client_every, accept_every| {
        let mut play = Play::new(somaxconn);
        let mut server = Server::new(100, "0.0.0.0:1080", limit);
        let owner = SocketOwner {
            sk: 0,
            inode: server.inode,
            endpoints: place(server.local),
            owners: vec![
                Owner { pid: 6039, comm: "delegated".into() },
                Owner { pid: 1, comm: "systemd".into() },
            ],
            confidence: OwnerConfidence::Bootstrapped,
            port_by_number: false,
        };
        play.send(1, Kind::SocketOwner(Box::new(owner)));
        server.run(&mut play, client_every, accept_every, 5000);
        play.end();
        play.only().clone()
    };
    let finding = older(4096, 20, 14, 125);
    assert_eq!((finding.cause, finding.confidence), ("backlog-argument", Confidence::Likely));
    assert!(finding.explanation.contains("was not seen"), "{}", finding.explanation);
    assert_eq!(evidence(&finding)["backlog"], json!(null));
    let subject = &Play::json(&finding)["subject"];
    assert_eq!((&subject["process"]["pid"], &subject["confidence"]), (&json!(6039), &json!("observed")));
    assert_eq!(
        subject["also"],
        json!([{"pid": 1, "comm": "systemd", "command": null, "exe": null, "container": null}])
    );

    let finding = older(64, 64, 14, 125);
    assert_eq!((finding.cause, finding.confidence), ("somaxconn", Confidence::Possible));
    assert!(finding.explanation.contains("or an equal argument"), "{}", finding.explanation);

    let finding = older(128, 128, 5, 250);
    assert_eq!((finding.cause, finding.confidence), ("accept-slow", Confidence::Likely));

    // somaxconn was lowered after listen().
    let finding = older(100, 120, 5, 25);
    assert_eq!((finding.cause, finding.confidence), ("somaxconn", Confidence::Possible));
    assert!(finding.explanation.contains("of that time"), "{}", finding.explanation);
}

#[test]
fn a_listener_is_named_by_its_own_address_not_the_packet_s() {
    let mut play = Play::new(4096);
    let mut server = Server::new(100, "[::]:1080", 0);
    server.depth = 1;
    server.client();
    let Kind::SynDrop(mut drop) = server.syn_drop() else { unreachable!() };
    drop.endpoints.local = "10.0.0.1:1080".parse().unwrap();
    // An IPv6 listener, older than the tracer, gets a SYN over IPv4; the second listener was read at the start.
    play.send(10, Kind::SynDrop(drop));
    assert_eq!(play.only().subject.address.unwrap().to_string(), "10.0.0.1:1080");
    play.send(1000, server.sample());
    play.ticks_until(2000);
    assert_eq!(play.only().subject.address.unwrap().to_string(), "[::]:1080");

    let mut play = Play::new(4096);
    let owner = SocketOwner {
        sk: 0,
        inode: server.inode,
        endpoints: place("[::]:1080"),
        owners: vec![Owner { pid: 1, comm: "systemd".into() }, Owner { pid: 6039, comm: "delegated".into() }],
        confidence: OwnerConfidence::Bootstrapped,
        port_by_number: false,
    };
    play.send(1, Kind::SocketOwner(Box::new(owner)));
    play.send(10, Kind::SynDrop(drop));
    assert_eq!(play.only().subject.to_string(), "systemd[1] [::]:1080");
    // Who accepts is who to talk to.
    server.accept(500, Acceptor { pid: 6039, tid: 6041 }, 1);
    play.send(1000, server.sample());
    play.ticks_until(2000);
    assert_eq!(play.only().subject.to_string(), "delegated[6039] [::]:1080");
}

#[test]
fn healthy_traffic_is_no_finding() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 20, 10, 30_000);
    play.end();
    assert_eq!(play.findings, []);
    assert_eq!(play.engine.world().reconcile()[0].status.name(), "exact");
}

#[test]
fn each_listener_has_its_own_finding() {
    let mut play = Play::new(4096);
    let mut first = server(&mut play, 20, 4096);
    let mut second = Server::new(200, "0.0.0.0:2080", 20);
    second.listen(&mut play, task(7000, "other"), Some(20), 4096);
    first.run(&mut play, 14, 125, 2000);
    second.client();
    play.ticks_until(5000);
    assert_eq!(play.only().subject.process.as_ref().unwrap().pid, Some(6039));
    second.depth = 21;
    second.client();
    play.send(5100, second.syn_drop());
    let last = play.findings.last().unwrap();
    assert_eq!((last.id, last.subject.process.as_ref().unwrap().pid), (2, Some(7000)));
    assert_eq!(evidence(last)["syn_drops"], json!(1));
}

#[test]
fn a_recycled_address_in_memory_is_another_listener() {
    let mut play = Play::new(4096);
    let mut old = server(&mut play, 20, 4096);
    old.run(&mut play, 14, 125, 3000);
    play.send(3100, old.closed(task(6039, "delegated")));
    let mut new = Server::new(100, "0.0.0.0:1080", 20);
    new.inode = 9999;
    play.now = 3200;
    new.listen(&mut play, task(7000, "delegated"), Some(20), 4096);
    // Closed soon after the listener is gone, not at once: late drops may come.
    play.send(3090, old.syn_drop());
    play.ticks_until(5000);
    let ours = |finding: &&crate::finding::Finding| finding.code == "accept-queue-overflow";
    let closed = play.findings.iter().filter(ours).find(|finding| finding.state == State::Closed).unwrap();
    assert_eq!(evidence(closed)["syn_drops"], json!(old.overflows()));
    assert_eq!(play.codes(), ["accept-queue-overflow", "listener-closed"]);
    for _ in 0..22 {
        new.client();
    }
    play.send(5100, new.syn_drop());
    let last = play.findings.last().unwrap();
    assert_eq!((last.code, last.state), ("accept-queue-overflow", State::Opened));
    assert_eq!(last.subject.process.as_ref().unwrap().pid, Some(7000));
    assert_eq!(evidence(last)["syn_drops"], json!(1));
}

#[test]
fn lost_records_lose_no_count() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    for _ in 0..1021 {
        server.client();
    }
    // Of a thousand drops, two records arrive, in the wrong order.
    let last = server.syn_drop();
    server.totals.syn_drops_accept_queue = Some(400);
    let earlier = server.syn_drop();
    play.send(900, last);
    play.send(850, earlier);
    let lost = Lost {
        what: "syn-drop".into(),
        count: 998,
        place: LossPlace::RingBuffer,
        from: ms(800),
        to: ms(1000),
    };
    play.send(1000, Kind::Lost(Box::new(lost)));
    play.counters(1000);
    play.end();
    let overflow = play.findings.iter().rfind(|finding| finding.code == "accept-queue-overflow").unwrap();
    assert_eq!(evidence(overflow)["syn_drops"], json!(1000));
    let lost = play.findings.iter().rfind(|finding| finding.code == "events-lost").unwrap();
    assert_eq!((lost.cause, lost.subject.kind), ("ring-full", "tracer"));
    assert!(lost.title.contains("998 events"), "{}", lost.title);
    let row = &play.engine.world().reconcile()[0];
    assert_eq!((row.observed, row.status.name()), (Some(1000), "exact"));
}

#[test]
fn drops_that_only_samples_know_of_are_told_as_well() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    for _ in 0..31 {
        server.client();
    }
    play.send(1000, server.sample());
    assert_eq!(evidence(play.only())["syn_drops"], json!(10));
}

#[test]
fn a_storm_is_one_finding_in_bounded_memory() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    // 100,000 dropped SYNs in ten seconds.
    for number in 0..100_021_u64 {
        let at = number / 10;
        if server.client() {
            play.send(at, server.syn_drop());
        }
        if number % 10_000 == 9_999 {
            play.send(at, server.sample());
            play.counters(server.overflows());
            play.tick(at);
        }
    }
    play.counters(server.overflows());
    play.end();
    let finding = play.only();
    assert_eq!(evidence(finding)["syn_drops"], json!(100_000));
    assert_eq!(evidence(finding)["kernel_ListenOverflows"], json!(100_000));
    assert_eq!(
        (&evidence(finding)["peers"], &evidence(finding)["peers_more"]),
        (&json!(PEERS), &json!(true))
    );
    assert!(play.findings.len() <= 12, "{}", play.findings.len());
}

#[test]
fn a_second_overflow_is_a_second_finding_with_its_own_count() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 14, 125, 3000);
    let first = server.overflows();
    server.depth = 0;
    play.send(3001, server.sample());
    play.ticks_until(20_000);
    server.depth = 21;
    server.run(&mut play, 14, 125, 22_000);
    play.end();
    let closed: Vec<_> = play.findings.iter().filter(|finding| finding.state == State::Closed).collect();
    assert_eq!(closed.iter().map(|finding| finding.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(evidence(closed[0])["syn_drops"], json!(first));
    assert_eq!(evidence(closed[1])["syn_drops"], json!(server.overflows() - first));
    assert_eq!(evidence(closed[1])["kernel_ListenOverflows"], json!(server.overflows() - first));
}

#[test]
fn both_stages_are_given_apart() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play, 20, 4096);
    server.run(&mut play, 14, 125, 1000);
    for _ in 0..3 {
        let drop = server.ack_drop();
        play.send(1100, drop);
    }
    play.counters(server.overflows());
    play.end();
    let evidence = evidence(play.only());
    assert_eq!(evidence["ack_drops"], json!(3));
    assert_eq!(
        evidence["syn_drops"].as_u64().unwrap() + 3,
        evidence["kernel_ListenOverflows"].as_u64().unwrap()
    );
    assert!(play.only().numbers[0].contains("3 final ACKs dropped"), "{:?}", play.only().numbers);
}

#[test]
fn the_tracepoint_tier_deduces_syn_drops() {
    let mut play = Play::polled(4096, ObservationStatus::Attached);
    let mut server = server(&mut play, 20, 4096);
    poll(&mut play, &mut [&mut server], 14, 125, 5000, true);
    play.end();
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("backlog-argument", Confidence::Likely));
    assert_eq!(finding.subject.process.as_ref().unwrap().pid, Some(6039));
    let evidence = evidence(finding);
    assert_eq!(evidence["syn_drops"], json!(server.totals.syn_drops_accept_queue));
    assert_eq!(evidence["ack_drops"], json!(5));
    assert_eq!(evidence["drops_polled"], json!(server.totals.syn_drops_accept_queue));
    assert_eq!(evidence["kernel_ListenOverflows"], json!(server.overflows()));
    assert_eq!(evidence["accepts_per_s"], json!(8.0));
    assert_eq!(evidence["queue"], json!(21));
    let row = &play.engine.world().reconcile()[0];
    assert_eq!((row.status.name(), row.observed), ("partial", Some(5)));
}

#[test]
fn syns_that_are_not_counted_yet_are_not_none() {
    let mut play = Play::polled(4096, ObservationStatus::Attached);
    let mut server = server(&mut play, 20, 4096);
    for _ in 0..30 {
        server.client();
    }
    for _ in 0..3 {
        let drop = server.ack_drop();
        play.send(400, drop);
    }
    play.ticks_until(1000);
    let opened = play.findings.iter().find(|finding| finding.state == State::Opened).unwrap();
    let text = &opened.numbers[0];
    assert!(text.contains("1 final ACK dropped") && !text.contains("SYN"), "{text}");
}

#[test]
fn before_6_15_the_tracepoint_tier_cannot_tell_the_stages_apart() {
    let mut play = Play::polled(4096, ObservationStatus::Polled);
    let mut server = server(&mut play, 20, 4096);
    poll(&mut play, &mut [&mut server], 14, 125, 5000, false);
    play.end();
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("backlog-argument", Confidence::Likely));
    let evidence = evidence(finding);
    assert_eq!((&evidence["syn_drops"], &evidence["ack_drops"]), (&json!(null), &json!(null)));
    assert_eq!(evidence["drops"], json!(server.overflows()));
    assert_eq!(play.engine.world().reconcile()[0].status.name(), "unobserved");
}

#[test]
fn two_full_listeners_in_the_tracepoint_tier_are_only_possible() {
    let mut play = Play::polled(4096, ObservationStatus::Polled);
    let mut first = server(&mut play, 20, 4096);
    let mut second = Server::new(200, "0.0.0.0:2080", 30);
    second.listen(&mut play, task(7000, "other"), Some(30), 4096);
    poll(&mut play, &mut [&mut first, &mut second], 14, 125, 5000, false);
    play.end();
    let closed: Vec<_> = play.findings.iter().filter(|finding| finding.state == State::Closed).collect();
    assert_eq!(closed.len(), 2);
    let mut sum = 0;
    for finding in closed {
        assert_eq!(finding.confidence, Confidence::Possible);
        let evidence = evidence(finding);
        assert_eq!(evidence["drops_shared"], json!(true));
        sum += evidence["drops"].as_u64().unwrap();
    }
    assert_eq!(sum, first.overflows() + second.overflows());
}

#[test]
fn in_the_tracepoint_tier_harmless_socket_drops_are_no_finding() {
    let mut play = Play::polled(4096, ObservationStatus::Polled);
    let mut server = server(&mut play, 20, 4096);
    for second in 1..30 {
        // RSTs during handshakes and the like: no ListenOverflows.
        server.socket_drops += 3;
        play.send(second * 1000, server.polled_sample());
        play.counters(0);
        play.tick(second * 1000);
    }
    play.end();
    assert_eq!(play.findings, []);
}

#[test]
fn overflows_that_no_listener_explains_are_not_put_on_one() {
    let mut play = Play::polled(4096, ObservationStatus::Polled);
    let server = server(&mut play, 20, 4096);
    for second in 1..10 {
        play.send(second * 1000, server.polled_sample());
        play.counters(7);
        play.tick(second * 1000);
    }
    play.end();
    assert_eq!(play.findings, []);
}

/// Runs servers as the tracepoint tier sees them: samples of sock_diag and by port, counters, no records of SYN drops.
fn poll(
    play: &mut Play,
    servers: &mut [&mut Server],
    client_every: u64,
    accept_every: u64,
    until: u64,
    acks_seen: bool,
) {
    for at in 1..=until {
        for server in servers.iter_mut() {
            if at % accept_every == 0 {
                server.accept(at, Acceptor { pid: 6039, tid: 6040 }, 100);
            }
            if at % client_every == 0 {
                server.client();
            }
            if at % 1000 == 500 {
                let drop = server.ack_drop();
                if acks_seen {
                    play.send(at, drop);
                }
            }
            if at % 1000 == 0 {
                play.send(at, server.polled_sample());
                play.send(at, server.port_sample());
            }
        }
        if at % 1000 == 0 {
            let overflows = servers.iter().map(|server| server.overflows()).sum();
            play.counters(overflows);
            play.tick(at);
        }
    }
}

#[test]
fn in_another_namespace_commands_go_there() {
    assert_eq!(NETNS, 4_026_531_840, "the plays' namespace stands for the host's");
}
