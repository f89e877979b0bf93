//! Every cause, and both faces.

use crate::event::{
    BindFail, BindStage, DestinationUse, Endpoints, Kind, NoPort, Owner, PortHolders, PortRange, PortSurvey,
    PortUse, SocketOptions, Timestamp,
};
use crate::finding::testing::{NETNS, Play, START, address, place, task};
use crate::finding::{Confidence, Finding};

const DB: &str = "10.0.0.1:5432";
const WEB: &str = "10.0.0.2:80";

fn refused(total: u64) -> Kind {
    Kind::NoPort(Box::new(NoPort {
        endpoints: Endpoints { remote: Some(address(DB)), ..place("0.0.0.0:0") },
        task: task(7, "app"),
        sk: 1,
        total,
        options: SocketOptions::NONE,
        own_range: None,
    }))
}

fn bind_refused() -> Kind {
    Kind::BindFail(Box::new(BindFail {
        endpoints: place("0.0.0.0:0"),
        task: task(7, "app"),
        sk: 1,
        errno: 98,
        stage: BindStage::Bind,
        options: SocketOptions::NONE,
        holders_met: 0,
        reuse_state: None,
        own_range: None,
        holders: Vec::new(),
        addresses: None,
        unusable: None,
        ipv6_off: None,
    }))
}

fn counts(pid: u32, by_connect: u64, by_bind: u64, bound_connects: u64, released: u64) -> Kind {
    Kind::PortUse(Box::new(PortUse {
        netns: NETNS,
        pid,
        comm: format!("p{pid}"),
        since: Timestamp::from_nanos(START),
        by_connect,
        by_bind,
        bound_connects,
        released,
        ..PortUse::default()
    }))
}

fn holders(pid: u32, ports: u32) -> PortHolders {
    let owner = (pid != 0).then(|| Owner { pid, comm: format!("p{pid}") });
    PortHolders { owner, ports, established: ports, ..PortHolders::default() }
}

fn lane(remote: &str, ports: u32, time_wait: u32) -> DestinationUse {
    DestinationUse { source: [10, 0, 0, 9].into(), remote: address(remote), ports, time_wait, owner: None }
}

fn survey(time_wait: u32, processes: Vec<PortHolders>, destinations: Vec<DestinationUse>) -> PortSurvey {
    PortSurvey {
        netns: NETNS,
        range: PortRange { first: 20000, last: 20099 },
        capacity: 100,
        in_use: 100,
        time_wait,
        processes_total: u32::try_from(processes.len()).unwrap(),
        destinations_total: u32::try_from(destinations.len()).unwrap(),
        processes,
        destinations,
        ..PortSurvey::default()
    }
}

/// What is said when `failure` is followed by that look, all these counts known.
fn told(failure: Kind, counted: Vec<Kind>, survey: PortSurvey) -> Finding {
    let mut play = Play::new(128);
    for kind in counted {
        play.send(100, kind);
    }
    play.send(200, failure);
    assert!(play.findings.is_empty(), "nothing is said before it is known who has the ports");
    play.send(210, Kind::PortSurvey(Box::new(survey)));
    play.only().clone()
}

fn cause(finding: &Finding) -> (&'static str, Confidence) {
    (finding.cause, finding.confidence)
}

#[test]
fn a_process_that_gives_nothing_back_is_a_leak() {
    let seen = || survey(0, vec![holders(8, 90), holders(9, 10)], vec![lane(DB, 100, 0)]);
    let finding = told(refused(1), vec![counts(8, 90, 0, 0, 2)], seen());
    assert_eq!(cause(&finding), ("leak", Confidence::Likely));
    let json = Play::json(&finding);
    assert_eq!(json["evidence"]["requester"]["process"]["pid"], 7);
    assert_eq!(json["evidence"]["holders"][0]["process"]["pid"], 8);
    assert_eq!(json["evidence"]["holders"][0]["ports"], 90);
    assert_eq!(json["evidence"]["errno"], "EADDRNOTAVAIL");
    assert!(finding.remedy.iter().any(|remedy| remedy.command.as_deref() == Some("kill 8")));
    assert!(
        finding.title.starts_with("app[7] cannot connect to 10.0.0.1:5432: all 100 "),
        "{}",
        finding.title
    );

    // What the peer has closed, it should have closed, too.
    let mut closed = seen();
    closed.processes[0].close_wait = 80;
    assert_eq!(cause(&told(refused(1), Vec::new(), closed)), ("leak", Confidence::Certain));
    // It had them before it was traced.
    assert_eq!(cause(&told(refused(1), Vec::new(), seen())), ("leak", Confidence::Possible));
    // It takes and gives: a busy process, and one busy destination.
    let busy = told(refused(1), vec![counts(8, 900, 0, 0, 810)], seen());
    assert_eq!(busy.cause, "small-range");
}

#[test]
fn ports_in_time_wait_are_churn() {
    let finding = told(refused(1), Vec::new(), survey(95, vec![holders(0, 95)], vec![lane(DB, 100, 95)]));
    assert_eq!(cause(&finding), ("churn", Confidence::Certain));
    let commands: Vec<_> = finding.remedy.iter().filter_map(|remedy| remedy.command.clone()).collect();
    assert_eq!(commands, ["sysctl -w net.ipv4.tcp_tw_reuse=1"]);
    assert_eq!(Play::json(&finding)["evidence"]["time_wait_percent"], 95.0);
}

#[test]
fn where_time_wait_is_taken_over_ports_are_used_up_within_the_second_that_takes() {
    let churn = |reuse: u32, stamps: u32| {
        let mut play = Play::new(4096);
        play.knobs_but(4096, 1, |knobs| {
            knobs.tw_reuse = Some(reuse);
            knobs.timestamps = Some(stamps);
        });
        play.send(200, refused(1));
        let seen = survey(95, vec![holders(0, 95)], vec![lane(DB, 100, 95)]);
        play.send(210, Kind::PortSurvey(Box::new(seen)));
        let finding = play.only().clone();
        let commands: Vec<_> = finding.remedy.iter().filter_map(|remedy| remedy.command.clone()).collect();
        (finding.explanation, commands)
    };
    let (text, commands) = churn(1, 1);
    assert!(text.contains("tcp_tw_reuse is 1") && text.contains("used up faster"), "{text}");
    assert_eq!(commands, [""; 0]);
    let (text, commands) = churn(1, 0);
    assert!(text.contains("tcp_timestamps is 0"), "{text}");
    assert_eq!(commands, ["sysctl -w net.ipv4.tcp_timestamps=1"]);
    // 2 is for the loopback device alone.
    let (text, commands) = churn(2, 1);
    assert!(text.ends_with("keeps its port for 60 s"), "{text}");
    assert_eq!(commands, ["sysctl -w net.ipv4.tcp_tw_reuse=1"]);
}

#[test]
fn a_port_bound_first_serves_one_destination_alone() {
    let seen = survey(0, vec![holders(8, 100)], vec![lane(DB, 50, 0), lane(WEB, 50, 0)]);
    let finding = told(bind_refused(), vec![counts(8, 0, 100, 100, 0)], seen);
    assert_eq!(cause(&finding), ("bind-before-connect", Confidence::Certain));
    assert!(finding.remedy[0].text.contains("IP_BIND_ADDRESS_NO_PORT"));
    assert_eq!(Play::json(&finding)["evidence"]["errno"], "EADDRINUSE");
    assert!(finding.title.starts_with("app[7] gets no port from bind() to port 0"), "{}", finding.title);
    // It is older than the tracer: then that its own bind() fails tells of it.
    let seen = survey(0, vec![holders(7, 100)], vec![lane(DB, 50, 0), lane(WEB, 50, 0)]);
    assert_eq!(cause(&told(bind_refused(), Vec::new(), seen)), ("bind-before-connect", Confidence::Likely));
    // Toward one destination it makes no difference.
    let seen = survey(0, vec![holders(8, 100)], vec![lane(DB, 100, 0)]);
    assert_eq!(told(bind_refused(), vec![counts(8, 0, 100, 100, 0)], seen).cause, "leak");
}

#[test]
fn one_destination_or_all_of_them() {
    let three = || vec![holders(8, 40), holders(9, 30), holders(10, 30)];
    let hot = told(refused(1), Vec::new(), survey(0, three(), vec![lane(DB, 100, 0), lane(WEB, 10, 0)]));
    assert_eq!(cause(&hot), ("hot-destination", Confidence::Certain));
    assert_eq!((hot.subject.kind, hot.subject.remote), ("destination", Some(address(DB))));
    let small = told(refused(1), Vec::new(), survey(0, three(), vec![lane(DB, 100, 0)]));
    assert_eq!(cause(&small), ("small-range", Confidence::Certain));
    assert_eq!(small.subject.kind, "host");
    let big = PortSurvey { capacity: 28_232, ..survey(0, three(), vec![lane(DB, 28_232, 0)]) };
    assert_eq!(told(refused(1), Vec::new(), big).cause, "hot-destination");
}

#[test]
fn sockets_that_sock_diag_does_not_list_are_counted_all_the_same() {
    let blind = PortSurvey { in_use: 0, incomplete: Some("before 6.8".into()), ..survey(0, vec![], vec![]) };
    let finding = told(bind_refused(), vec![counts(8, 0, 100, 0, 0)], blind);
    assert_eq!(cause(&finding), ("leak", Confidence::Likely));
    assert_eq!(Play::json(&finding)["evidence"]["holders"][0]["ports"], 100);
}

#[test]
fn without_a_look_it_is_told_late_and_as_a_guess() {
    let mut play = Play::new(128);
    play.send(200, refused(1));
    play.ticks_until(1000);
    assert!(play.findings.is_empty());
    play.ticks_until(2000);
    assert_eq!(play.only().confidence, Confidence::Possible);
    assert!(play.only().numbers[0].contains("could not be looked up"));
}

#[test]
fn a_look_from_before_says_nothing_of_now() {
    let mut play = Play::new(128);
    let half = PortSurvey { in_use: 50, ..survey(0, vec![holders(8, 50)], vec![lane(DB, 50, 0)]) };
    play.send(100, Kind::PortSurvey(Box::new(half)));
    play.send(2100, refused(1));
    play.ticks_until(4000);
    assert!(play.only().numbers[0].contains("could not be looked up"), "{:?}", play.only());
    // It comes late, and is taken in all the same.
    play.send(4100, Kind::PortSurvey(Box::new(survey(0, vec![holders(8, 100)], vec![lane(DB, 100, 0)]))));
    play.send(4200, refused(2));
    play.ticks_until(6000);
    assert!(play.only().numbers[0].starts_with("100 of 100"), "{:?}", play.only());
}

#[test]
fn failures_are_counted_beyond_those_that_are_told_one_by_one() {
    let mut play = Play::new(128);
    play.send(200, refused(5));
    play.send(210, Kind::PortSurvey(Box::new(survey(0, vec![holders(8, 100)], vec![lane(DB, 100, 0)]))));
    play.send(300, refused(40));
    play.send(310, bind_refused());
    play.ticks_until(3000);
    let json = Play::json(play.only());
    assert_eq!(
        (&json["evidence"]["failed_connects"], &json["evidence"]["failed_binds"]),
        (&36.into(), &1.into())
    );
    // It is over when nobody has failed for a while.
    play.ticks_until(20_000);
    assert_eq!(play.only().state, crate::finding::State::Closed);
}

#[test]
fn a_connection_that_exists_already_is_no_exhaustion() {
    let mut play = Play::new(128);
    let Kind::NoPort(mut refused) = refused(0) else { panic!() };
    refused.endpoints.local = address("10.0.0.9:20000");
    play.send(200, Kind::NoPort(refused));
    play.ticks_until(5000);
    play.end();
    assert!(play.findings.iter().all(|finding| finding.code == "connection-exists"), "{:?}", play.findings);
}

#[test]
fn the_process_that_leaked_is_named_though_it_was_killed_since() {
    let mut play = Play::new(128);
    let leak = |processes, time_wait| survey(time_wait, processes, vec![lane(DB, 100, 0)]);
    for second in 0..8 {
        play.send(1000 * second, counts(8, 40 + 8 * second, 0, 0, 0));
    }
    play.send(7100, refused(1));
    play.send(7110, Kind::PortSurvey(Box::new(leak(vec![holders(8, 96), holders(9, 4)], 0))));
    let Kind::NoPort(mut other) = refused(1) else { panic!() };
    other.task = task(11, "cron");
    play.send(7200, Kind::NoPort(other));
    assert_eq!(play.only().cause, "leak");
    // It is killed: it has given all back, and no process has what is left.
    play.send(8000, counts(8, 96, 0, 0, 96));
    play.send(8010, Kind::PortSurvey(Box::new(leak(vec![holders(0, 100)], 30))));
    play.ticks_until(30_000);
    play.end();
    let finding = play.only();
    assert_eq!((finding.state, finding.cause), (crate::finding::State::Closed, "leak"));
    assert!(finding.explanation.starts_with("p8[8] has 96 ports"), "{}", finding.explanation);
    let victims = finding.numbers.iter().find(|line| line.starts_with("found no port")).unwrap();
    assert!(victims.contains("app[7]") && victims.contains("cron[11]"), "{victims}");
    let json = Play::json(finding);
    assert_eq!(json["evidence"]["found_no_port"][1]["process"]["pid"], 11);
}

#[test]
fn ports_that_are_free_are_not_called_used_up() {
    let mut seen = survey(0, vec![holders(8, 20)], vec![lane(DB, 20, 0)]);
    seen.in_use = 20;
    let finding = told(refused(1), Vec::new(), seen);
    assert_eq!(cause(&finding), ("small-range", Confidence::Possible));
    assert!(!finding.title.contains("all 100"), "{}", finding.title);
    assert!(finding.explanation.contains("given back in between"), "{}", finding.explanation);
}

#[test]
fn a_socket_s_own_range_is_what_is_used_up_and_no_sysctl_helps() {
    let mut seen = survey(0, vec![holders(8, 4)], vec![lane(DB, 4, 0)]);
    seen.in_use = 4;
    let Kind::NoPort(mut none) = refused(1) else { unreachable!() };
    none.own_range = Some(PortRange { first: 40000, last: 40003 });
    let finding = told(Kind::NoPort(none), Vec::new(), seen);
    assert_eq!(cause(&finding), ("small-range", Confidence::Certain));
    assert!(finding.title.contains("its socket's own range 40000-40003"), "{}", finding.title);
    assert!(finding.explanation.contains("(4 ports, by IP_LOCAL_PORT_RANGE)"), "{}", finding.explanation);
    assert_eq!(finding.remedy.len(), 1, "{:?}", finding.remedy);
    assert!(finding.remedy.iter().all(|remedy| remedy.command.is_none()), "{:?}", finding.remedy);
}

#[test]
fn a_socket_s_own_range_is_told_where_bound_sockets_cannot_be_listed() {
    let mut seen = survey(0, vec![holders(7, 4)], vec![lane(DB, 4, 0)]);
    seen.in_use = 4;
    seen.incomplete = Some("before 6.8".to_owned());
    let Kind::NoPort(mut none) = refused(1) else { unreachable!() };
    none.own_range = Some(PortRange { first: 40000, last: 40003 });
    let finding = told(Kind::NoPort(none), vec![counts(7, 4, 0, 0, 0)], seen);
    assert_eq!(cause(&finding), ("small-range", Confidence::Likely));
    assert!(finding.title.contains("its socket's own range 40000-40003"), "{}", finding.title);
}

#[test]
fn a_client_that_is_known_says_how_it_uses_connections_again() {
    let mut play = Play::new(128);
    play.process(7, "nginx", "nginx: worker process");
    play.send(200, refused(1));
    let seen = survey(95, vec![holders(0, 95)], vec![lane(DB, 100, 95)]);
    play.send(210, Kind::PortSurvey(Box::new(seen)));
    let remedy = &play.only().remedy;
    assert!(
        remedy[0].text.starts_with("let nginx use connections again: `keepalive 64;` in the upstream block"),
        "{remedy:?}"
    );
}
