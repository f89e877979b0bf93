//! Golden lines: what scripts rely on.

use serde_json::{Value, json};

use super::*;
use crate::event::{
    Accept, Endpoints, Family, How, ListenerRef, LossPlace, Observation, ObservationStatus, PortReleased,
    ProcessDetails, ProcessInfo, Task, Tier,
};
use crate::finding::testing::{Play, Server, ms, task};
use crate::finding::{Engine, State};

fn lines(write: impl FnOnce(&mut JsonWriter<Vec<u8>>)) -> String {
    let mut writer = JsonWriter::new(Vec::new(), "web1", "watch");
    write(&mut writer);
    let text = String::from_utf8(writer.into_inner()).unwrap();
    for line in text.lines() {
        assert_eq!(schema::problems(&serde_json::from_str(line).unwrap()), Vec::<String>::new(), "{line}");
    }
    text
}

fn parsed(write: impl FnOnce(&mut JsonWriter<Vec<u8>>)) -> Vec<Value> {
    lines(write).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn coverage() {
    let coverage = Coverage {
        kernel: "6.1.0-42".into(),
        architecture: "aarch64".into(),
        tier: Tier::Tracepoint,
        observations: vec![
            Observation {
                name: "listen".into(),
                status: ObservationStatus::Attached,
                via: "tracepoint inet_sock_set_state".into(),
                reason: None,
            },
            Observation {
                name: "syn-drop".into(),
                status: ObservationStatus::Polled,
                via: "sock_diag".into(),
                reason: Some("fexit: EPERM".into()),
            },
        ],
        ..Coverage::default()
    };
    // The first members of every line stand in this order, for people who look at them.
    assert_eq!(
        lines(|to| drop(to.coverage(ms(0), &coverage))),
        concat!(
            r#"{"type":"coverage","time":"2026-11-22T10:40:00.000000000Z","host":"web1","v":1,"#,
            r#""kernel":"6.1.0-42","architecture":"aarch64","tier":"tracepoint","observations":["#,
            r#"{"name":"listen","status":"attached","via":"tracepoint inet_sock_set_state","reason":null},"#,
            r#"{"name":"syn-drop","status":"polled","via":"sock_diag","reason":"fexit: EPERM"}],"#,
            r#""filters":[],"hindrances":[],"missing":[{"what":"syn-drop","why":"polled: fexit: EPERM"}]}"#,
            "\n"
        )
    );
}

#[test]
fn finding() {
    let mut play = Play::new(4096);
    let mut server = Server::new(100, "0.0.0.0:1080", 20);
    server.listen(&mut play, task(6039, "delegated"), Some(20), 4096);
    play.process(6039, "delegated", "delegated -P1080");
    server.run(&mut play, 14, 125, 5000);
    play.end();
    let expected = json!({
        "type": "finding", "time": "2026-11-22T10:40:05.000000000Z", "host": "web1", "v": 1,
        "id": 1, "code": "accept-queue-overflow", "state": "closed", "severity": "critical",
        "confidence": "certain",
        "title": "delegated[6039] 0.0.0.0:1080 drops connections: its accept queue (20) is full",
        "subject": {"kind": "listener", "address": "0.0.0.0", "port": 1080,
            "netns": {"id": 4_026_531_840_u32, "name": null},
            "process": {"pid": 6039, "comm": "delegated", "command": "delegated -P1080", "exe": null,
                "container": null},
            "confidence": "observed"},
        "cause": "backlog-argument",
        "explanation": "the application's backlog: listen(fd, 20); somaxconn is 4096. \
                        Accepts are too slow for any backlog",
        "numbers": play.only().numbers,
        "evidence": {"syn_drops": 297, "ack_drops": 0, "queue": 21, "queue_limit": 20, "backlog": 20,
            "somaxconn": 4096, "somaxconn_at_listen": 4096, "arrivals_per_s": 71.4, "accepts_per_s": 8.0,
            "wait_max_ms": 2625.0, "wait_mean_ms": 2568.8, "kernel_ListenOverflows": 297, "duration_s": 5.0,
            "peers": 297, "accept_threads": 1, "abort_on_overflow": false, "syncookies": 1,
            "max_syn_backlog": 512},
        "remedy": [
            {"text": "raise the listen backlog of DeleGate: `MAXIMA=listen:1024` on its command line or in its \
                      configuration file, then restart it (default: 20); somaxconn (4096) needs no change",
                "command": null, "not": false},
            {"text": "give DeleGate more workers: `MAXIMA=delegated:N` on its command line or in its configuration \
                      file, then restart it (default: 64; N: more than now): 1 thread accepts 8/s against 71/s arriving",
                "command": null, "not": false},
            {"text": "net.ipv4.tcp_max_syn_backlog (512) is not the limit either", "command": null, "not": true}
        ],
        "explained_by": null
    });
    let found = parsed(|to| drop(to.finding(play.only())));
    assert_eq!(found, [expected]);
    assert!(!play.only().numbers.is_empty());
}

#[test]
fn events() {
    let mut engine = Engine::default();
    let endpoints = Endpoints {
        netns: 7,
        family: Family::V4,
        local: "10.0.0.1:80".parse().unwrap(),
        remote: Some("10.0.0.2:40000".parse().unwrap()),
        device: 0,
    };
    let info = ProcessInfo {
        pid: 6039,
        comm: "delegated".into(),
        container: Some("docker:3f2a".into()),
        details: ProcessDetails { exe: Some("/usr/bin/delegated".into()), ..ProcessDetails::default() },
        ..ProcessInfo::default()
    };
    engine.on_event(&Event { time: ms(0), kind: Kind::ProcessInfo(Box::new(info)) }, |_| ());
    let accept = Accept {
        endpoints,
        listener: ListenerRef { sk: 1, inode: 2, depth: 3, limit: 20, syn_queue: 0 },
        task: Task { pid: 6039, tid: 6040, uid: 0, cgroup: 1, comm: "worker".into() },
        wait_ns: Some(1_234_567),
        child: 5,
    };
    let accept = Event { time: ms(1), kind: Kind::Accept(Box::new(accept)) };
    let released = PortReleased {
        endpoints,
        sk: 1,
        held_ns: 9000,
        pid: 12,
        comm: "client".into(),
        how: How::Connect,
        time_wait: true,
    };
    let released = Event { time: ms(2), kind: Kind::PortReleased(Box::new(released)) };
    let tick = Event { time: ms(3), kind: Kind::Tick };
    let ends = json!({"local": {"address": "10.0.0.1", "port": 80}, "remote": {"address": "10.0.0.2", "port": 40000}});
    let expected = [
        json!({"type": "event", "time": "2026-11-22T10:40:00.001000000Z", "host": "web1", "v": 1,
            "event": "accept", "netns": {"id": 7, "name": null},
            "process": {"pid": 6039, "comm": "delegated", "command": null, "exe": "/usr/bin/delegated",
                "container": {"engine": "docker", "id": "3f2a", "pod": null, "namespace": null, "unit": null}},
            "local": ends["local"], "remote": ends["remote"],
            "facts": {"queue": 3, "queue_limit": 20, "syn_queue": 0, "tid": 6040, "wait_ms": 1.235}}),
        json!({"type": "event", "time": "2026-11-22T10:40:00.002000000Z", "host": "web1", "v": 1,
            "event": "port-released", "netns": {"id": 7, "name": null},
            "process": {"pid": 12, "comm": "client", "command": null, "exe": null, "container": null},
            "local": ends["local"], "remote": ends["remote"],
            "facts": {"how": "connect", "held_ms": 0.009, "time_wait": true}}),
    ];
    let seen = parsed(|to| {
        for event in [&accept, &released, &tick] {
            let _ = to.event(event, engine.world());
        }
    });
    assert_eq!(seen, expected);
}

#[test]
fn lost_and_summary() {
    let mut play = Play::new(4096);
    let mut server = Server::new(100, "0.0.0.0:1080", 20);
    server.listen(&mut play, task(6039, "delegated"), Some(20), 4096);
    server.run(&mut play, 14, 125, 2000);
    let lost =
        Lost { what: "syn-drop".into(), count: 3, place: LossPlace::RingBuffer, from: ms(1), to: ms(2000) };
    play.send(2000, Kind::Lost(Box::new(lost.clone())));
    play.end();
    assert_eq!(play.findings.iter().filter(|finding| finding.state == State::Opened).count(), 2);
    let row = |counter: &str, observations: &[&str]| {
        json!({"netns": {"id": 4_026_531_840_u32, "name": null}, "counter": counter, "observations": observations,
            "kernel": 106, "observed": 106, "status": "exact", "reason": null})
    };
    let overflows = row("ListenOverflows", &["syn-drop", "ack-drop"]);
    let drops = row("ListenDrops", &["syn-drop", "no-way-back", "ack-drop", "request-end"]);
    let expected = [
        json!({"type": "lost", "time": "2026-11-22T10:40:02.000000000Z", "host": "web1", "v": 1,
            "what": "syn-drop", "count": 3, "where": "ring-buffer", "from": "2026-11-22T10:40:00.001000000Z",
            "to": "2026-11-22T10:40:02.000000000Z"}),
        json!({"type": "summary", "time": "2026-11-22T10:40:02.000000000Z", "host": "web1", "v": 1,
            "command": "watch", "counts": {"events": 107, "findings": 2, "lost": 3}, "filters": [], "missing": [],
            "duration_s": 2.0,
            "trace": {"events": {"listen": 1, "syn-drop": 106},
                "findings": {"accept-queue-overflow": 1, "events-lost": 1}, "lost": {"syn-drop": 3},
                "forgotten": {}, "reconciliation": [overflows, drops]}}),
    ];
    let seen = parsed(|to| {
        let _ = to.lost(&lost);
        let _ = to.summary(&Summary::of(&play.engine));
    });
    assert_eq!(seen, expected);
}

#[test]
fn hostile_names_stay_themselves_and_harmless() {
    let hostile = "a\u{1b}[2J\u{202e}\u{9b}\u{7f}\"\\\n\u{e0041}é";
    let lost = Lost { what: hostile.into(), count: 1, place: LossPlace::Output, from: ms(0), to: ms(0) };
    let line = lines(|to| drop(to.lost(&lost)));
    assert!(!line.trim_end().chars().any(is_harmful), "{line}");
    assert_eq!(line.lines().count(), 1);
    let parsed: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["what"], hostile);
}

/// The schema that is printed, the one in docs/ that `xtask` judges guests by, and the types are one.
#[test]
fn the_committed_schema_is_the_one_that_is_printed() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema.json");
    let text = schema::text(&schema::schema(None).unwrap());
    if std::env::var_os("TCPTRACE_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "docs/schema.json differs: run this test with TCPTRACE_BLESS=1");
}

/// docs/json.md is made from the types.
#[test]
fn the_page_is_the_one_that_the_types_make() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.md");
    let page = document::page();
    if std::env::var_os("TCPTRACE_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/json.md differs: run this test with TCPTRACE_BLESS=1");
}

#[test]
fn each_type_has_a_schema_of_its_own() {
    for name in schema::types() {
        let one = schema::schema(Some(name)).unwrap();
        assert_eq!(one["properties"]["type"]["const"], name);
        let required: Vec<&str> =
            one["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(required[..4], ["host", "time", "type", "v"], "{name}");
        assert!(one["description"].is_string(), "{name} says what it is");
    }
    assert!(schema::schema(Some("no-such-type")).is_none());
}

/// What a line lacks, or has beyond the schema, or has in another form, is found.
#[test]
fn a_line_that_is_not_as_the_schema_says_is_caught() {
    let good = json!({"type": "lost", "time": "2026-11-22T10:40:02.000000000Z", "host": "web1", "v": 1,
        "what": "syn-drop", "count": 3, "where": "ring-buffer", "from": "2026-11-22T10:40:00.001000000Z",
        "to": "2026-11-22T10:40:02.000000000Z"});
    assert_eq!(schema::problems(&good), Vec::<String>::new());
    for (member, wrong) in [
        ("type", json!("no-such-type")),
        ("time", json!("2026-11-22T10:40:02+01:00")),
        ("v", json!(2)),
        ("host", json!(null)),
        ("count", json!("3")),
        ("count", json!(-3)),
        ("where", json!(null)),
        ("unheard_of", json!(1)),
    ] {
        let mut line = good.clone();
        line[member] = wrong;
        assert!(!schema::problems(&line).is_empty(), "{line}");
    }
    for member in good.as_object().unwrap().keys() {
        let mut line = good.clone();
        line.as_object_mut().unwrap().remove(member);
        assert!(!schema::problems(&line).is_empty(), "{line}");
    }
}

/// JSON is printed in one place: what stands elsewhere would escape the writer, the schema, or both.
#[test]
fn nothing_but_the_one_writer_prints_json() {
    /// Where JSON is made that is stored, embedded or answered, and not printed as a line.
    const STORED: &[&str] = &[
        "agent/http.rs",
        "agent/incidents.rs",
        "record/metadata.rs",
        "record/put.rs",
        "report/html/mod.rs",
        "rehearse/truth.rs",
    ];
    /// The writer, and the printer of the schema.
    const WRITERS: &[&str] = &["output/json.rs", "output/json/schema.rs"];
    /// Where standard output is opened.
    const OUTPUTS: &[&str] = &["output/stdout.rs"];
    /// Where a rehearsal gives orders to its actors, and they answer it, over pipes.
    const ACTORS: &[&str] = &["rehearse/actor/mod.rs", "rehearse/actor/puppet.rs"];
    fn files(directory: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&root, &mut all);
    assert!(all.len() > 300, "{}", all.len());
    let mut wrong = Vec::new();
    for path in all {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        if ["tests.rs", "testing.rs"].iter().any(|end| name.ends_with(end)) || name.contains("/tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let signs: [(&[&str], &[&[&str]]); 3] = [
            (
                &[
                    "serde_json::to_string",
                    "serde_json::to_writer",
                    "serde_json::to_vec",
                    "serde_json::Serializer",
                ],
                &[WRITERS, ACTORS],
            ),
            (&["json_text(", ".to_json("], &[WRITERS, STORED]),
            (&["println!(", "print!(", "io::stdout()"], &[OUTPUTS, ACTORS]),
        ];
        for (signs, allowed) in signs {
            for sign in signs.iter().filter(|sign| text.contains(*sign)) {
                if !allowed.iter().any(|files| files.contains(&name.as_str())) {
                    wrong.push(format!("{name} has {sign}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
