//! The judge is judged: a run that is right passes, and each way of being wrong is caught.

#![expect(clippy::needless_pass_by_value, reason = "json! makes values, each for one line")]

use serde_json::{Value, json};

use super::*;

/// A line with what all lines have.
fn line(kind: &str, content: Value) -> Value {
    let mut line = json!({"type": kind, "time": "2026-11-22T10:40:12.031441207Z", "host": "guest", "v": 1});
    let members = content.as_object().unwrap().clone();
    line.as_object_mut().unwrap().extend(members);
    line
}

fn coverage_line(tier: &str, observations: Value) -> Value {
    line(
        "coverage",
        json!({"kernel": "6.12", "architecture": "x86_64", "tier": tier, "observations": observations, "filters": [], "hindrances": [],
            "missing": []}),
    )
}

fn finding_line(
    state: &str,
    code: &str,
    confidence: &str,
    cause: &str,
    subject: Value,
    evidence: Value,
) -> Value {
    line(
        "finding",
        json!({"id": 1, "code": code, "state": state, "severity": "critical", "confidence": confidence, "title": "…",
            "subject": subject, "cause": cause, "explanation": "…", "numbers": [], "evidence": evidence,
            "remedy": [{"text": "…", "command": null, "not": false}], "explained_by": null}),
    )
}

fn rehearsal_line(expect: Value, allow: Value, counters: Value, facts: Value) -> Value {
    line(
        "rehearsal",
        json!({"name": "x", "variant": "y", "netns": {"id": 1, "name": null}, "diagnosed": true, "problems": [],
            "not_observable": [], "false_certains": 0, "actors": [], "expect": [expect], "may_be_unknown": 0,
            "allow": allow, "why": [], "forbid": "any other finding", "counters": counters, "facts": facts}),
    )
}

fn expect_line(code: &str, cause: &str, subject: Value, requester: Value, holder: Value) -> Value {
    json!({"code": code, "cause": cause, "subject": subject, "requester": requester, "holder": holder, "needs": null,
        "at_most": null, "at_least": null})
}

fn summary_line(lost: Value, reconciliation: Value) -> Value {
    line(
        "summary",
        json!({"command": "rehearse", "counts": {}, "filters": [], "missing": [], "duration_s": 1.0,
            "trace": {"events": {}, "findings": {}, "lost": lost, "forgotten": {}, "reconciliation": reconciliation}}),
    )
}

fn record_line(via: &str, seen: bool, wrong: Value) -> Value {
    line(
        "record",
        json!({"observation": "accept", "record": "a connection is accepted", "family": "v4", "via": via, "seen": seen,
            "wrong": wrong}),
    )
}

fn process(pid: u32, comm: &str) -> Value {
    json!({"pid": pid, "comm": comm, "command": null, "exe": null, "container": null})
}

/// An accept-overflow run as it should be.
fn overflow() -> Vec<Value> {
    let at =
        |process: Value| json!({"kind": "listener", "address": "0.0.0.0", "port": 1080, "process": process});
    vec![
        coverage_line(
            "fexit",
            json!([
                {"name": "syn-drop", "status": "attached", "via": "fexit tcp_conn_request, fentry tcp_v4_route_req",
                    "reason": null},
                {"name": "ack-drop", "status": "attached", "via": "kprobe tcp_v4_syn_recv_sock",
                    "reason": "fexit: errno 524"},
            ]),
        ),
        finding_line(
            "opened",
            "accept-queue-overflow",
            "likely",
            "accept-slow",
            json!({"kind": "listener"}),
            json!({}),
        ),
        finding_line(
            "closed",
            "accept-queue-overflow",
            "certain",
            "backlog-argument",
            at(process(70, "tt-proxy")),
            json!({"syn_drops": 312, "ack_drops": 8, "queue_limit": 20, "backlog": 20, "somaxconn": 128}),
        ),
        rehearsal_line(
            expect_line(
                "accept-queue-overflow",
                "backlog-argument",
                at(json!({"pid": 70, "comm": "tt-proxy"})),
                json!(null),
                json!(null),
            ),
            json!([{"code": "slow-accept", "port": null, "because": "it is"}]),
            json!({"ListenOverflows": 320, "ListenDrops": 320}),
            json!({"syn_drops": 312, "ack_drops": 8, "queue_limit": 20, "backlog": 20, "somaxconn": 128}),
        ),
        summary_line(
            json!({}),
            json!([{"netns": {"id": 1, "name": null}, "counter": "ListenOverflows",
                "observations": ["syn-drop", "ack-drop"], "kernel": 320, "observed": 320,
                "status": "exact", "reason": null}]),
        ),
    ]
}

/// A port-grab run as it should be, in the tracepoint tier.
fn grab() -> Vec<Value> {
    let party = |address: &str, process: Value, state: Option<&str>| {
        let mut party = json!({"kind": "process", "address": address, "port": 35010, "process": process});
        if let Some(state) = state {
            party["state"] = state.into();
        }
        party
    };
    let subject = json!({"kind": "port", "address": "0.0.0.0", "port": 35010});
    let right = |pid: u32, comm: &str| json!({"pid": pid, "comm": comm});
    vec![
        coverage_line(
            "tracepoint",
            json!([
                {"name": "bind-fail", "status": "attached", "via": "tracepoint sys_exit_bind", "reason": null},
                {"name": "port-taken", "status": "polled", "via": "sock_diag", "reason": "no probes here"},
            ]),
        ),
        finding_line(
            "closed",
            "bind-conflict",
            "certain",
            "ephemeral-grab",
            subject.clone(),
            json!({"requester": party("0.0.0.0", process(80, "tt-server"), None), "holders": [
                party("127.0.0.1", process(82, "tt-other"), Some("established")),
                party("127.0.0.1", process(81, "tt-client"), Some("established"))]}),
        ),
        rehearsal_line(
            expect_line(
                "bind-conflict",
                "ephemeral-grab",
                subject,
                party("0.0.0.0", right(80, "tt-server"), None),
                party("127.0.0.1", right(81, "tt-client"), Some("established")),
            ),
            json!([]),
            json!({}),
            json!({}),
        ),
        summary_line(json!({"bind-fail": 0}), json!([])),
    ]
}

fn judge(lines: &[Value], tier: Tier) -> Vec<String> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    problems(Judge::Rehearsal, tier, text.as_bytes())
}

/// Changes one place of the run and gives what the judge says.
fn spoil(mut lines: Vec<Value>, tier: Tier, line: usize, pointer: &str, value: Value) -> Vec<String> {
    *lines[line].pointer_mut(pointer).unwrap() = value;
    judge(&lines, tier)
}

fn assert_caught(found: &[String], sign: &str) {
    assert!(found.iter().any(|problem| problem.contains(sign)), "no {sign:?} in {found:?}");
}

#[test]
fn right_runs_pass() {
    assert_eq!(judge(&overflow(), Tier::Auto), Vec::<String>::new());
    assert_eq!(judge(&grab(), Tier::Tracepoint), Vec::<String>::new());
}

#[test]
fn a_wrong_owner_is_caught() {
    let caught = |pointer, value| spoil(overflow(), Tier::Auto, 2, pointer, value);
    assert_caught(&caught("/subject/process/pid", json!(71)), "has pid 71, not 70");
    assert_caught(&caught("/subject/process/pid", json!(null)), "has pid null, not 70");
    assert_caught(&caught("/subject/process/comm", json!("swapper/0")), "has comm");
    assert_caught(&caught("/subject/port", json!(1081)), "has port");
}

#[test]
fn a_wrong_cause_is_caught() {
    assert_caught(&spoil(overflow(), Tier::Auto, 2, "/cause", json!("somaxconn")), "the cause of");
}

#[test]
fn a_wrong_requester_or_holder_is_caught() {
    let caught = |pointer, value| spoil(grab(), Tier::Tracepoint, 1, pointer, value);
    assert_caught(&caught("/evidence/requester/process/pid", json!(81)), "the requester has pid 81, not 80");
    assert_caught(&caught("/evidence/holders/1/process/pid", json!(80)), "the holder has pid");
    assert_caught(&caught("/evidence/holders/1/process/comm", json!(null)), "the holder has comm");
    assert_caught(&caught("/evidence/holders", json!([])), "names no holder");
    assert_caught(&caught("/evidence/requester", json!(null)), "the requester has pid null");
}

#[test]
fn a_missing_or_doubled_finding_is_caught() {
    let mut lines = overflow();
    lines.drain(1..3);
    assert_caught(&judge(&lines, Tier::Auto), "was found 0 times");
    let mut lines = overflow();
    let mut again = lines[2].clone();
    again["id"] = json!(2);
    lines.insert(3, again);
    assert_caught(&judge(&lines, Tier::Auto), "was found 2 times");
}

#[test]
fn an_extra_finding_is_caught_unless_it_is_true() {
    let with = |code: &str| {
        let mut lines = overflow();
        let mut extra = lines[2].clone();
        extra["id"] = json!(2);
        extra["code"] = json!(code);
        lines.insert(3, extra);
        judge(&lines, Tier::Auto)
    };
    assert_caught(&with("syn-queue-full"), "nothing like \"syn-queue-full\" happened");
    assert_eq!(with("slow-accept"), Vec::<String>::new());
}

#[test]
fn wrong_counts_are_caught_in_the_full_tiers() {
    let caught = |line, pointer, value| spoil(overflow(), Tier::Auto, line, pointer, value);
    assert_caught(&caught(2, "/evidence/syn_drops", json!(311)), "syn_drops is 311, not 312");
    assert_caught(&caught(2, "/evidence/ack_drops", json!(null)), "ack_drops is null");
    assert_caught(&caught(3, "/counters/ListenOverflows", json!(321)), "the kernel's ListenOverflows");
    assert_caught(&caught(4, "/trace/reconciliation/0/observed", json!(319)), "we observed 319");
    assert_caught(&caught(4, "/trace/reconciliation/0/status", json!("partial")), "partial");
    assert_caught(&caught(4, "/trace/reconciliation", json!([])), "reconciles no counter");
}

#[test]
fn lost_events_are_caught() {
    assert_caught(&spoil(overflow(), Tier::Auto, 4, "/trace/lost", json!({"syn-drop": 3})), "lost is");
    assert_caught(&spoil(grab(), Tier::Tracepoint, 3, "/trace/lost/bind-fail", json!(1)), "lost is");
    let mut lines = overflow();
    let time = "2026-11-22T10:40:12.031441207Z";
    let lost = json!({"what": "syn-drop", "count": 2, "where": "ring-buffer", "from": time, "to": time});
    lines.insert(1, line("lost", lost));
    assert_caught(&judge(&lines, Tier::Auto), "events were lost");
}

#[test]
fn poor_coverage_is_caught() {
    let caught = |pointer, value| spoil(overflow(), Tier::Auto, 0, pointer, value);
    assert_caught(&caught("/tier", json!("kprobe")), "the tier is \"kprobe\", not fexit");
    assert_caught(&caught("/observations/0/status", json!("missing")), "not attached in a full tier");
    assert_caught(&caught("/observations/1/reason", json!("")), "does not say why not by fexit");
    assert_caught(
        &caught("/observations/0/via", json!("fexit a, kprobe b")),
        "does not say why not by fexit",
    );
    assert_caught(&caught("/observations/0/via", json!("")), "which is not of the tier auto");
    assert_caught(&caught("/observations", json!([])), "no observations");
    assert_caught(&judge(&overflow(), Tier::Kprobe), "which is not of the tier kprobe");
    let gap = spoil(grab(), Tier::Tracepoint, 0, "/observations/1/reason", json!(null));
    assert_caught(&gap, "is not attached and does not say why");
    let mut lines = overflow();
    lines.remove(0);
    assert_caught(&judge(&lines, Tier::Auto), "the first line is not the coverage");
}

#[test]
fn broken_output_is_caught() {
    assert_caught(&problems(Judge::Rehearsal, Tier::Auto, b"thread 'main' panicked\n"), "no JSON object");
    assert_caught(&problems(Judge::Rehearsal, Tier::Auto, b""), "there are 0 rehearsal lines");
    let mut lines = overflow();
    lines.pop();
    assert_caught(&judge(&lines, Tier::Auto), "the last line is not the summary");
    assert_caught(&spoil(overflow(), Tier::Auto, 2, "/remedy", json!([])), "has no remedy");
}

#[test]
fn a_line_that_the_schema_does_not_allow_is_caught() {
    let caught = |pointer, value| spoil(overflow(), Tier::Auto, 2, pointer, value);
    assert_caught(&caught("/host", json!(null)), "/host is null");
    assert_caught(&caught("/evidence/syn_drops", json!("312")), "/evidence/syn_drops is");
    assert_caught(
        &caught("/evidence", json!({"unheard_of": 1})),
        "/evidence/unheard_of is not in the schema",
    );
}

#[test]
fn a_silent_probe_is_caught() {
    let run = |probe: Value| {
        let observations = json!([
            {"name": "accept", "status": "attached", "via": "fexit inet_csk_accept", "reason": null}]);
        let coverage = coverage_line("fexit", observations);
        let record = record_line("fexit inet_csk_accept", true, json!([]));
        problems(Judge::SelfTest, Tier::Auto, format!("{coverage}\n{probe}\n{record}\n").as_bytes())
    };
    let probe = |fired: bool| {
        line(
            "probe",
            json!({"name": "fexit inet_csk_accept", "program": "accept", "observations": ["accept"],
                "attached": true, "fired": fired, "not_tried": null, "runs": 1, "verified_instructions": 1454}),
        )
    };
    assert_eq!(run(probe(true)), Vec::<String>::new());
    assert_caught(&run(probe(false)), "did not fire");
    let mut detached = probe(false);
    detached["attached"] = false.into();
    assert_caught(&run(detached), "does not say why");
    assert_caught(&run(summary_line(json!({}), json!([]))), "names no probe");
}

#[test]
fn a_record_that_is_wrong_or_does_not_come_is_caught() {
    let via = "kprobe security_sock_graft";
    let run = |records: &str| {
        let observations =
            json!([{"name": "accept", "status": "attached", "via": via, "reason": "no trampolines"}]);
        let coverage = coverage_line("kprobe", observations);
        let probe = line(
            "probe",
            json!({"name": via, "program": "accept", "observations": ["accept"], "attached": true, "fired": true,
                "not_tried": null, "runs": 1, "verified_instructions": 1454}),
        );
        let text = format!("{coverage}\n{probe}\n{records}\n");
        problems(Judge::SelfTest, Tier::AutoByKprobe, text.as_bytes())
    };
    let record = |seen: bool, wrong: Value| record_line(via, seen, wrong).to_string();
    assert_eq!(run(&record(true, json!([]))), Vec::<String>::new());
    assert_caught(&run(&record(false, json!([]))), "kprobe security_sock_graft");
    assert_caught(
        &run(&record(true, json!([{"field":"pid","expected":1,"seen":0}]))),
        "is not what was done",
    );
    assert_caught(&run(""), "compares no record");
}
