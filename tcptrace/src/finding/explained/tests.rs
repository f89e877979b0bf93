use super::*;
use crate::finding::{Confidence, Evidence, Party, Remedy};

const SERVER: &str = "10.0.0.1:80";

fn finding(id: u64, code: &'static str, kind: &'static str, at: &str, netns: u32) -> Finding {
    Finding {
        id,
        code,
        state: State::Opened,
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        explained_by: None,
        time: Timestamp::from_nanos(id),
        title: format!("{code} {at}"),
        subject: Party { kind, address: Some(at.parse().unwrap()), netns: Some(netns), ..Party::default() },
        cause: "netfilter",
        evidence: Evidence::new(),
        remedy: vec![Remedy::text("do something")],
        numbers: Vec::new(),
        explanation: String::new(),
    }
}

fn dropped(id: u64, netns: u32) -> Finding {
    finding(id, "handshake-dropped", "listener", SERVER, netns)
}

fn unanswered(id: u64, to: &str) -> Finding {
    finding(id, "syn-unanswered", "destination", to, 7)
}

fn report(explanations: &mut Explanations, finding: Finding) -> Vec<Finding> {
    let mut reported = Vec::new();
    explanations.report(finding, |finding| reported.push(finding));
    reported
}

#[test]
fn what_another_finding_explains_refers_to_it_and_advises_nothing() {
    let mut all = Explanations::default();
    let cause = Finding { severity: Severity::Warning, ..dropped(1, 8) };
    assert_eq!(report(&mut all, cause)[0].remedy.len(), 1);
    let felt = report(&mut all, unanswered(2, SERVER));
    assert_eq!(felt.len(), 1);
    assert_eq!(felt[0].explained_by.as_ref().map(|by| (by.id, by.code)), Some((1, "handshake-dropped")));
    assert!(felt[0].remedy.is_empty());
    assert_eq!(felt[0].severity, Severity::Warning, "it is no worse than what explains it");
    assert_eq!(crate::finding::testing::Play::json(&felt[0])["explained_by"]["id"], 1);
}

#[test]
fn what_was_reported_before_its_explanation_is_reported_again() {
    let mut all = Explanations::default();
    assert!(report(&mut all, unanswered(1, SERVER))[0].explained_by.is_none());
    let reported = report(&mut all, dropped(2, 8));
    assert_eq!(
        reported.iter().map(|f| (f.id, f.state)).collect::<Vec<_>>(),
        [(2, State::Opened), (1, State::Updated)]
    );
    assert_eq!(reported[1].explained_by.as_ref().map(|by| by.id), Some(2));
    // It stays explained, though the explanation is over.
    report(&mut all, Finding { state: State::Closed, ..dropped(2, 8) });
    let closed = report(&mut all, Finding { state: State::Closed, ..unanswered(1, SERVER) });
    assert!(closed[0].remedy.is_empty() && closed[0].explained_by.is_some());
    assert!(all.open.is_empty());
}

#[test]
fn what_is_about_another_server_explains_nothing() {
    let mut all = Explanations::default();
    report(&mut all, dropped(1, 8));
    for other in ["10.0.0.1:81", "10.0.0.2:80"] {
        assert!(report(&mut all, unanswered(2, other))[0].explained_by.is_none(), "{other}");
    }
    // The wildcard of a listener here may cover the address, and so may that of another host.
    let overflow = finding(3, "accept-queue-overflow", "listener", "0.0.0.0:443", 8);
    report(&mut all, overflow);
    assert!(report(&mut all, unanswered(4, "203.0.113.1:443"))[0].explained_by.is_none());
}

#[test]
fn a_loopback_address_is_another_one_in_each_namespace() {
    let mut all = Explanations::default();
    report(&mut all, finding(1, "handshake-dropped", "listener", "127.0.0.1:80", 8));
    assert!(report(&mut all, unanswered(2, "127.0.0.1:80"))[0].explained_by.is_none());
    report(&mut all, finding(3, "handshake-dropped", "listener", "127.0.0.1:80", 7));
    assert_eq!(
        report(&mut all, unanswered(2, "127.0.0.1:80"))[0].explained_by.as_ref().map(|by| by.id),
        Some(3)
    );
}

#[test]
fn an_overflow_explains_connects_to_the_port_that_is_steered_to_it() {
    let overflow = |called: Option<&str>| {
        let mut found = finding(1, "accept-queue-overflow", "listener", "127.0.0.1:20161", 7);
        found.evidence =
            Evidence::new().with_some("steered_from", called.map(|at| at.parse::<SocketAddr>().unwrap()));
        let mut all = Explanations::default();
        report(&mut all, found);
        report(&mut all, unanswered(2, "127.0.0.1:20160"))[0].explained_by.is_some()
    };
    assert!(overflow(Some("127.0.0.1:20160")));
    assert!(!overflow(Some("127.0.0.1:20159")) && !overflow(None));
}
