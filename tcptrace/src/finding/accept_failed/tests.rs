use serde_json::json;

use super::*;
use crate::event::{AcceptFail, Acceptor, Kind};
use crate::finding::State;
use crate::finding::testing::{Play, Server, place, task};

fn server(play: &mut Play) -> Server {
    let server = Server::new(100, "0.0.0.0:3000", 511);
    server.listen(play, task(6039, "node"), Some(511), 4096);
    play.process(6039, "node", "node server.js");
    server
}

fn fail(server: &Server, errno: u32, total: u64) -> AcceptFail {
    AcceptFail {
        endpoints: place(server.local),
        listener: server.listener(),
        task: task(6039, "node"),
        errno,
        open_files_limit: Some(40),
        total,
        accepted: server.totals.accepted.unwrap(),
        host_files_limit: None,
        host_files: None,
    }
}

#[test]
fn a_process_at_its_limit_is_told_with_its_value_and_the_command() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play);
    for total in 1..=20 {
        server.client();
        play.send(1000 + 50 * total, Kind::AcceptFail(Box::new(fail(&server, EMFILE, total))));
    }
    server.run(&mut play, 10_000, 0, 3000);
    let finding = play.only();
    assert_eq!((finding.code, finding.cause), ("accept-failed", "fd-limit"));
    assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::Certain));
    assert_eq!(
        finding.title,
        "node[6039] 0.0.0.0:3000 cannot accept: EMFILE, its limit of 40 open files is reached"
    );
    assert_eq!(finding.remedy[0].command.as_deref(), Some("prlimit --pid 6039 --nofile=160"));
    assert!(!finding.explanation.contains("reserve"), "{}", finding.explanation);
    let evidence = &Play::json(finding)["evidence"];
    assert_eq!((&evidence["failures"], &evidence["open_files_limit"]), (&json!(20), &json!(40)));
    assert_eq!((&evidence["errno"], &evidence["queue"]), (&json!("EMFILE"), &json!(20)));
    play.ticks_until(20_000);
    assert_eq!(play.only_of("accept-failed").state, State::Closed);
}

#[test]
fn one_that_accepts_between_the_failures_may_close_what_it_accepts() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play);
    for total in 1..=20 {
        server.client();
        play.send(1000 + 50 * total, Kind::AcceptFail(Box::new(fail(&server, EMFILE, total))));
        server.accept(1001 + 50 * total, Acceptor { pid: 6039, tid: 6039 }, 1);
    }
    server.run(&mut play, 10_000, 0, 3000);
    let finding = play.only();
    assert!(finding.explanation.contains("keeps a descriptor in reserve"), "{}", finding.explanation);
    assert_eq!(Play::json(finding)["evidence"]["accepted_meanwhile"], json!(20));
}

#[test]
fn later_events_of_other_processors_may_come_first() {
    let mut play = Play::new(4096);
    let server = server(&mut play);
    play.send(2000, Kind::Tick);
    play.send(1900, Kind::AcceptFail(Box::new(fail(&server, EMFILE, 1))));
    assert_eq!(play.only().cause, "fd-limit");
}

#[test]
fn a_second_time_counts_from_one_again() {
    let mut play = Play::new(4096);
    let server = server(&mut play);
    play.send(1000, Kind::AcceptFail(Box::new(fail(&server, EMFILE, 1))));
    play.ticks_until(20_000);
    play.send(21_000, Kind::AcceptFail(Box::new(fail(&server, EMFILE, 2))));
    let finding = play.findings.last().unwrap();
    assert_eq!((finding.id, finding.state, finding.severity), (2, State::Opened, Severity::Warning));
    assert_eq!(Play::json(finding)["evidence"]["failures"], json!(1));
}

#[test]
fn the_error_decides_the_cause() {
    for (errno, host, cause, confidence) in [
        (ENFILE, Some((1000, 1000)), "file-max", Confidence::Certain),
        (ENFILE, Some((10, 1000)), "file-max", Confidence::Likely),
        (ENFILE, None, "file-max", Confidence::Likely),
        (105, None, "no-memory", Confidence::Certain),
        (12, None, "no-memory", Confidence::Certain),
        (EPERM, None, "denied", Confidence::Certain),
    ] {
        let mut play = Play::new(4096);
        let server = server(&mut play);
        let failed = AcceptFail {
            host_files: host.map(|(open, _)| open),
            host_files_limit: host.map(|(_, limit)| limit),
            ..fail(&server, errno, 1)
        };
        play.send(1000, Kind::AcceptFail(Box::new(failed)));
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), (cause, confidence), "{errno}");
    }
}

#[test]
fn while_it_tries_no_stall_is_told_and_when_it_gives_up_there_is_one() {
    let mut play = Play::new(4096);
    let mut server = server(&mut play);
    server.run(&mut play, 100, 50, 3000);
    for total in 1..=8 {
        server.run(&mut play, 200, 0, 3000 + 1000 * total);
        play.send(play.now, Kind::AcceptFail(Box::new(fail(&server, EMFILE, total))));
    }
    assert_eq!(play.codes(), ["accept-failed"]);
    server.run(&mut play, 200, 0, 16_000);
    let stall = play.only_of("accept-stall");
    assert_eq!((stall.cause, stall.confidence), ("gave-up", Confidence::Certain));
    assert!(stall.explanation.contains("failed with EMFILE at 2026-11-22T10:40:11"), "{}", stall.explanation);
    assert!(stall.remedy[0].text.starts_with("restart node[6039]"));
}
