//! The judge is judged: a run that is right passes, and each way of being wrong is caught.

use serde_json::{Value, json};

use super::*;

/// An accept-overflow run as it should be.
fn overflow() -> Vec<Value> {
    vec![
        json!({"type":"coverage","kernel":"6.12","architecture":"x86_64","tier":"fexit","observations":[
            {"name":"syn-drop","status":"attached","via":"fexit tcp_conn_request, fentry tcp_v4_route_req"},
            {"name":"ack-drop","status":"attached","via":"kprobe tcp_v4_syn_recv_sock","reason":"fexit: errno 524"},
        ]}),
        json!({"type":"finding","id":1,"code":"accept-queue-overflow","state":"opened","severity":"critical",
            "confidence":"likely","time":"2026-11-22T10:40:12.031441207Z","title":"…","cause":"accept-slow",
            "subject":{"kind":"listener"},"evidence":{},"remedy":[{"text":"…"}]}),
        json!({"type":"finding","id":1,"code":"accept-queue-overflow","state":"closed","severity":"critical",
            "confidence":"certain","time":"2026-11-22T10:40:12.031441207Z","title":"tt-proxy[70] …",
            "cause":"backlog-argument",
            "subject":{"kind":"listener","address":"0.0.0.0:1080","netns":1,"pid":70,"comm":"tt-proxy"},
            "evidence":{"syn_drops":312,"ack_drops":8,"queue_limit":20,"backlog":20,"somaxconn":128},
            "remedy":[{"text":"raise it"}]}),
        json!({"type":"rehearsal","name":"accept-overflow","expect":[{"code":"accept-queue-overflow",
            "cause":"backlog-argument",
            "subject":{"kind":"listener","address":"0.0.0.0:1080","pid":70,"comm":"tt-proxy"}}],
            "allow":[{"code":"slow-accept","because":"it is"}],
            "counters":{"ListenOverflows":320,"ListenDrops":320},
            "facts":{"syn_drops":312,"ack_drops":8,"queue_limit":20,"backlog":20,"somaxconn":128}}),
        json!({"type":"summary","lost":0,"reconciliation":[
            {"counter":"ListenOverflows","kernel":320,"observed":320,"status":"exact"}]}),
    ]
}

/// A port-grab run as it should be, in the tracepoint tier.
fn grab() -> Vec<Value> {
    let holder = json!({"kind":"process","address":"127.0.0.1:35010","pid":81,"comm":"tt-client","state":"established"});
    let other = json!({"kind":"process","address":"127.0.0.1:35010","pid":82,"comm":"tt-other","state":"established"});
    let requester = json!({"kind":"process","address":"0.0.0.0:35010","pid":80,"comm":"tt-server"});
    vec![
        json!({"type":"coverage","kernel":"6.12","architecture":"x86_64","tier":"tracepoint","observations":[
            {"name":"bind-fail","status":"attached","via":"tracepoint sys_exit_bind"},
            {"name":"port-taken","status":"polled","via":"sock_diag","reason":"no probes here"},
        ]}),
        json!({"type":"finding","id":1,"code":"bind-conflict","state":"closed","severity":"critical",
            "confidence":"certain","time":"2026-11-22T10:40:12.031441207Z","title":"…","cause":"ephemeral-grab",
            "subject":{"kind":"port","address":"0.0.0.0:35010"},
            "evidence":{"requester":requester,"holders":[other, holder]},
            "remedy":[{"text":"reserve it"}]}),
        json!({"type":"rehearsal","name":"port-grab","expect":[{"code":"bind-conflict","cause":"ephemeral-grab",
            "subject":{"kind":"port","address":"0.0.0.0:35010"},"requester":requester,"holder":holder}],
            "allow":[],"counters":{},"facts":{}}),
        json!({"type":"summary","lost":{"bind-fail":0},"reconciliation":[]}),
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
    assert_caught(&caught("/subject/pid", json!(71)), "has pid 71, not 70");
    assert_caught(&caught("/subject/pid", json!(null)), "has pid null, not 70");
    assert_caught(&caught("/subject/comm", json!("swapper/0")), "has comm");
    assert_caught(&caught("/subject/address", json!("0.0.0.0:1081")), "has address");
}

#[test]
fn a_wrong_cause_is_caught() {
    assert_caught(&spoil(overflow(), Tier::Auto, 2, "/cause", json!("somaxconn")), "the cause of");
}

#[test]
fn a_wrong_requester_or_holder_is_caught() {
    let caught = |pointer, value| spoil(grab(), Tier::Tracepoint, 1, pointer, value);
    assert_caught(&caught("/evidence/requester/pid", json!(81)), "the requester has pid 81, not 80");
    assert_caught(&caught("/evidence/holders/1/pid", json!(80)), "the holder has pid");
    assert_caught(&caught("/evidence/holders/1/comm", json!(null)), "the holder has comm");
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
    assert_caught(&caught(4, "/reconciliation/0/observed", json!(319)), "we observed 319");
    assert_caught(&caught(4, "/reconciliation/0/status", json!("partial")), "partial");
    assert_caught(&caught(4, "/reconciliation", json!([])), "reconciles no counter");
}

#[test]
fn lost_events_are_caught() {
    assert_caught(&spoil(overflow(), Tier::Auto, 4, "/lost", json!(3)), "lost is 3");
    assert_caught(&spoil(grab(), Tier::Tracepoint, 3, "/lost/bind-fail", json!(1)), "lost is");
    let mut lines = overflow();
    lines.insert(1, json!({"type":"lost","kind":"syn-drop","count":2}));
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
fn a_silent_probe_is_caught() {
    let run = |probe: Value| {
        let coverage = json!({"type":"coverage","kernel":"6.1","architecture":"x86_64","tier":"fexit","observations":[
            {"name":"accept","status":"attached","via":"fexit inet_csk_accept"}]});
        let record = json!({"type":"record","via":"fexit inet_csk_accept","seen":true,"wrong":[]});
        problems(Judge::SelfTest, Tier::Auto, format!("{coverage}\n{probe}\n{record}\n").as_bytes())
    };
    let probe = |attached, fired, reason: Value| json!({"type":"probe","name":"fexit/inet_csk_accept","attached":attached,"fired":fired,"reason":reason});
    assert_eq!(run(probe(true, true, json!(null))), Vec::<String>::new());
    assert_eq!(run(probe(false, false, json!("not in this kernel"))), Vec::<String>::new());
    assert_caught(&run(probe(true, false, json!(null))), "did not fire");
    assert_caught(&run(probe(false, false, json!(null))), "does not say why");
    assert_caught(&run(json!({"type":"other"})), "names no probe");
}

#[test]
fn a_record_that_is_wrong_or_does_not_come_is_caught() {
    let run = |records: &str| {
        let coverage = json!({"type":"coverage","kernel":"6.1","architecture":"aarch64","tier":"kprobe","observations":[
            {"name":"accept","status":"attached","via":"kprobe security_sock_graft","reason":"no trampolines"}]});
        let probe = json!({"type":"probe","name":"kprobe security_sock_graft","attached":true,"fired":true});
        let text = format!("{coverage}\n{probe}\n{records}\n");
        problems(Judge::SelfTest, Tier::AutoByKprobe, text.as_bytes())
    };
    let record = |seen: bool, wrong: Value| {
        json!({"type":"record","via":"kprobe security_sock_graft","seen":seen,"wrong":wrong}).to_string()
    };
    assert_eq!(run(&record(true, json!([]))), Vec::<String>::new());
    assert_caught(&run(&record(false, json!([]))), "kprobe security_sock_graft");
    assert_caught(
        &run(&record(true, json!([{"field":"pid","expected":1,"seen":0}]))),
        "is not what was done",
    );
    assert_caught(&run(""), "compares no record");
}
