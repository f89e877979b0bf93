//! What holds the connection, and what is not this finding.

use crate::event::{HolderReport, Kind, NoPort, Owner, ReportedHolder, SocketOptions, SocketState};
use crate::finding::testing::{NETNS, Play, address, ms, place, task};
use crate::finding::{Confidence, Finding};

const OWN: &str = "10.9.10.1:20";
const PEER: &str = "10.9.10.2:50100";

fn refused(local: &str) -> Kind {
    let mut endpoints = place(local);
    endpoints.remote = Some(address(PEER));
    Kind::NoPort(Box::new(NoPort {
        endpoints,
        task: task(77, "ftpd"),
        sk: 9,
        total: 0,
        options: SocketOptions::from_bits(1),
        own_range: None,
    }))
}

fn holder(remote: &str, state: SocketState, left: Option<u64>, owner: Option<&str>) -> ReportedHolder {
    ReportedHolder {
        local: address(OWN),
        remote: Some(address(remote)),
        state,
        inode: owner.map_or(0, |_| 4711),
        uid: owner.map(|_| 1000),
        v6only: None,
        device: 0,
        time_wait_left_ms: left,
        retransmits: 0,
        owners: owner.map(|comm| Owner { pid: 500, comm: comm.to_owned() }).into_iter().collect(),
    }
}

fn report(holders: Vec<ReportedHolder>) -> Kind {
    Kind::HolderReport(Box::new(HolderReport {
        netns: NETNS,
        port: 20,
        requester: 77,
        conflict: ms(100),
        holders,
        incomplete: None,
    }))
}

fn told(holders: Vec<ReportedHolder>) -> Play {
    let mut play = Play::new(4096);
    play.knobs(4096);
    play.send(100, refused(OWN));
    assert!(play.findings.is_empty(), "sock_diag has not been asked yet");
    play.send(101, report(holders));
    play
}

fn texts(finding: &Finding) -> String {
    finding.remedy.iter().map(|remedy| remedy.text.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_same_connection_in_time_wait_with_the_time_that_is_left() {
    let play = told(vec![
        holder("10.9.10.2:50101", SocketState::Established, None, Some("other")),
        holder(PEER, SocketState::TimeWait, Some(57_200), None),
    ]);
    let finding = play.only();
    assert_eq!((finding.code, finding.cause), ("connection-exists", "time-wait"));
    assert_eq!(finding.confidence, Confidence::Certain);
    assert_eq!(
        finding.title,
        "ftpd[77] cannot connect from 10.9.10.1:20 to 10.9.10.2:50100: the same connection is in TIME_WAIT for 58 s more \
         (EADDRNOTAVAIL)"
    );
    let texts = texts(finding);
    assert!(texts.contains("10.9.10.2 use TCP timestamps"), "{texts}");
    assert!(texts.contains("not by SO_LINGER"), "{texts}");
}

#[test]
fn an_orphan_that_its_peer_has_not_closed_is_no_time_wait() {
    let play = told(vec![holder(PEER, SocketState::FinWait2, Some(30_000), None)]);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("closing", Confidence::Certain));
    assert!(finding.title.contains("(fin-wait-2) for 30 s more"), "{}", finding.title);
    assert!(finding.explanation.contains("tcp_fin_timeout (60 s)"), "{}", finding.explanation);
    assert!(!texts(finding).contains("timestamps"), "{}", texts(finding));
}

#[test]
fn an_open_connection_is_named_with_its_process() {
    let play = told(vec![holder(PEER, SocketState::Established, None, Some("proxy"))]);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("open", Confidence::Certain));
    assert!(finding.title.contains("proxy[500] has the same connection (established)"), "{}", finding.title);
}

#[test]
fn a_connection_that_is_gone_is_unknown_and_only_possible() {
    let play = told(vec![holder("10.9.10.2:50101", SocketState::Established, None, Some("other"))]);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("unknown", Confidence::Possible));
}

#[test]
fn without_a_report_it_is_told_within_seconds() {
    let mut play = Play::new(4096);
    play.send(100, refused(OWN));
    play.ticks_until(3000);
    assert_eq!(play.only().cause, "unknown");
}

#[test]
fn a_port_that_the_kernel_was_to_choose_is_another_finding() {
    let mut play = Play::new(4096);
    play.knobs(4096);
    play.send(100, refused("10.9.10.1:0"));
    play.ticks_until(4000);
    assert!(play.findings.iter().all(|finding| finding.code == "port-exhaustion"), "{:?}", play.findings);
}
