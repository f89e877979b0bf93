//! What each tier sees of a finding: the observations that it rests on, as the plan has them, and what holds where the tracepoint
//! tier sees less. Written into the page of each finding.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::finding::Engine;
use crate::probe::BackEnd;
use crate::probe::plan::{Observation, observations};

/// Code, observations, and what holds in the tracepoint tier.
type Row = (&'static str, &'static [&'static str], &'static str);

const ROWS: &[Row] = &[
    (
        "accept-failed",
        &["accept-failed"],
        "failed calls are seen as they return; those of 32-bit programs are not.",
    ),
    (
        "accept-queue-overflow",
        &["syn-drop", "ack-drop", "enqueue", "accept", "listen", "backlog"],
        "SYN drops are deduced from the namespace's ListenOverflows and put to the listener that was full: `likely`, or `possible` if \
         several listeners were full at once or share the port. Final ACKs are seen since 6.15, before that both stages are \
         counted together.",
    ),
    (
        "accept-stall",
        &["accept", "syn-drop"],
        "queue depths are polled and accepts counted by port: `likely`. Where several listeners share a port it is not known which \
         of them accepts, and there is no finding.",
    ),
    ("backlog-truncated", &["listen", "backlog"], "the same holds."),
    (
        "bind-conflict",
        &["bind-fail", "listen-fail", "port-taken", "port-released"],
        "a conflict at bind() is seen at the return of the system call, and the holders are looked up a moment later: one that is gone by \
         then is not found. A conflict at listen() is not seen.",
    ),
    (
        "bind-refused",
        &["bind-error"],
        "the error of the system call is all that is seen: what refused it is concluded, at most `likely` where more than one thing can.",
    ),
    ("connect-refused", &["connect-end"], "the same holds."),
    ("events-lost", &[], "the same holds; what the kernel skips is counted since 5.12."),
    (
        "half-open-capture",
        &["synack-retransmit", "request-end", "syn-drop"],
        "a SYN-ACK that the timer sent is told from one that answers a repeated SYN by its time. How requests end is not seen: no \
         `client-gave-up` and no `syn-flood`, and where no peer tries again the cause is `unknown`. Requests that end before their \
         third SYN-ACK was due are no finding. Other networks' connections are not counted: `return-path` is `possible`.",
    ),
    (
        "handshake-dropped",
        &["handshake-drop", "no-way-back"],
        "packets dropped on their way are seen with the kernel's reason; SYNs for whose answer there is no route are not.",
    ),
    (
        "listener-closed",
        &["listener-closed"],
        "the close is seen; what was still queued is what the last poll saw.",
    ),
    ("no-listener", &["no-listener"], "the same holds since 5.17; before, it is not seen."),
    ("connection-exists", &["connection-exists"], "it is not seen."),
    (
        "port-exhaustion",
        &["no-port", "bind-fail", "port-taken"],
        "the same holds, but for a connect from a port that bind() gave, which fails unseen.",
    ),
    ("port-grab-risk", &["port-taken", "listen"], "the same holds."),
    (
        "port-leak",
        &["port-taken", "port-released"],
        "ports are followed from connect() to close; one that closes while a packet closes another may be missed.",
    ),
    (
        "reuseport-imbalance",
        &["accept", "enqueue", "syn-drop"],
        "accepts are counted by port, which does not tell the members apart: no finding.",
    ),
    (
        "slow-accept",
        &["accept", "enqueue"],
        "waits end when the system call returns, and are counted by port: where several listeners share a port there is no finding.",
    ),
    (
        "syn-queue-full",
        &["syn-drop", "cookie", "synack-retransmit", "request-end"],
        "SYNs and cookies are known from the namespace's counters (TCPReqQFullDrop, TCPReqQFullDoCookies; ListenDrops for the last \
         quarter of tcp_max_syn_backlog), and put to the listener whose queue was full when it was polled: `likely`, or `possible` if \
         several were. Requests that TCP_DEFER_ACCEPT keeps are told from handshakes in flight by their timers. A flood is at most \
         `possible`: how its requests end is not seen.",
    ),
    (
        "syn-unanswered",
        &["syn-retransmit", "connect-end", "connect-error"],
        "that this host itself drops the SYNs is concluded from a listener that overflows at the called address.",
    ),
];

fn planned(name: &str) -> &'static Observation {
    observations()
        .find(|observation| observation.name == name)
        .unwrap_or_else(|| panic!("{name} is not in the plan"))
}

/// What a tier sees of an observation.
fn seen(observation: &Observation, back_end: BackEnd) -> String {
    let way = observation.ways.iter().filter(|way| way.back_end == back_end).collect::<Vec<_>>();
    match (way.as_slice(), observation.polled) {
        ([], Some(how)) if back_end == BackEnd::Tracepoint => format!("polled: {how}"),
        ([], _) => "not seen".to_owned(),
        (ways, _) => match ways.iter().find_map(|way| way.limit) {
            Some(limit) => format!("seen: {limit}"),
            None => "seen".to_owned(),
        },
    }
}

/// The section of a page.
pub(super) fn section(code: &str) -> String {
    let (_, names, holds) =
        ROWS.iter().find(|(known, ..)| *known == code).unwrap_or_else(|| panic!("no tiers of {code}"));
    let mut text = "## What each tier sees\n\n".to_owned();
    if !names.is_empty() {
        text.push_str("| observation | fexit tier | kprobe tier | tracepoint tier |\n|---|---|---|---|\n");
    }
    for name in *names {
        let observation = planned(name);
        let tiers =
            [BackEnd::Fexit, BackEnd::Kprobe, BackEnd::Tracepoint].map(|tier| seen(observation, tier));
        let _ = writeln!(text, "| `{name}`: {} | {} |", observation.what, tiers.join(" | "));
    }
    if !names.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(text, "In the tracepoint tier: {holds}");
    text
}

#[test]
fn every_finding_says_what_each_tier_sees() {
    let said: BTreeSet<&str> = ROWS.iter().map(|(code, ..)| *code).collect();
    assert_eq!(said, Engine::default().codes().collect::<BTreeSet<_>>());
    assert_eq!(said.len(), ROWS.len());
}

/// Where the plan has no way for the tracepoint tier, the page may not say that the same holds there.
#[test]
fn what_is_not_seen_is_not_told_as_the_same() {
    for (code, names, holds) in ROWS {
        let blind = names
            .iter()
            .any(|name| !planned(name).ways.iter().any(|way| way.back_end == BackEnd::Tracepoint));
        assert!(!blind || !holds.starts_with("the same holds"), "{code}");
    }
}
