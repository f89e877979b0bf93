//! Golden lines: what scripts rely on.

use super::*;
use crate::event::{
    Accept, Endpoints, Family, How, ListenerRef, LossPlace, Observation, ObservationStatus, PortReleased,
    ProcessInfo, Task, Tier,
};
use crate::finding::testing::{Play, Server, ms, task};
use crate::finding::{Engine, State};

fn lines(write: impl FnOnce(&mut JsonWriter<Vec<u8>>)) -> String {
    let mut writer = JsonWriter::new(Vec::new());
    write(&mut writer);
    String::from_utf8(writer.into_inner()).unwrap()
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
    assert_eq!(
        lines(|to| drop(to.coverage(&coverage))),
        concat!(
            r#"{"type":"coverage","kernel":"6.1.0-42","architecture":"aarch64","tier":"tracepoint","observations":["#,
            r#"{"name":"listen","status":"attached","via":"tracepoint inet_sock_set_state"},"#,
            r#"{"name":"syn-drop","status":"polled","via":"sock_diag","reason":"fexit: EPERM"}]}"#,
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
    assert_eq!(
        lines(|to| drop(to.finding(play.only()))),
        concat!(
            r#"{"type":"finding","id":1,"code":"accept-queue-overflow","state":"closed","severity":"critical","#,
            r#""confidence":"certain","time":"2026-11-22T10:40:05.000000000Z","#,
            r#""title":"delegated[6039] 0.0.0.0:1080 drops connections: its accept queue (20) is full","#,
            r#""subject":{"kind":"listener","address":"0.0.0.0:1080","netns":4026531840,"pid":6039,"#,
            r#""comm":"delegated","command":"delegated -P1080","container":null,"confidence":"observed","also":[]},"#,
            r#""cause":"backlog-argument","#,
            r#""evidence":{"syn_drops":297,"ack_drops":0,"queue":21,"queue_limit":20,"backlog":20,"somaxconn":4096,"#,
            r#""somaxconn_at_listen":4096,"arrivals_per_s":71.4,"accepts_per_s":8.0,"wait_max_ms":2625.0,"#,
            r#""wait_mean_ms":2568.8,"kernel_ListenOverflows":297,"duration_s":5.0,"peers":297,"accept_threads":1,"#,
            r#""abort_on_overflow":false,"syncookies":1,"max_syn_backlog":512,"#,
            r#""why":"the application's backlog: listen(fd, 20); somaxconn is 4096. "#,
            r#"Accepts are too slow for any backlog"},"#,
            r#""remedy":[{"text":"raise the listen backlog of DeleGate: `MAXIMA=listen:1024` on its command line "#,
            r#"or in its configuration file, then restart it (default: 20); somaxconn (4096) needs no change"},"#,
            r#"{"text":"give DeleGate more workers: `MAXIMA=delegated:N` on its command line or in its configuration "#,
            r#"file, then restart it (default: 64; N: more than now): 1 thread accepts 8/s against 71/s arriving"},"#,
            r#"{"text":"net.ipv4.tcp_max_syn_backlog (512) is not the limit either"}]}"#,
            "\n"
        )
    );
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
        ..ProcessInfo::default()
    };
    engine.on_event(&Event { time: ms(0), kind: Kind::ProcessInfo(Box::new(info)) }, |_| ());
    let accept = Accept {
        endpoints,
        listener: ListenerRef { sk: 1, inode: 2, depth: 3, limit: 20, syn_queue: 0 },
        task: Task { pid: 6039, tid: 6040, uid: 0, cgroup: 1, comm: "worker".into() },
        wait_ns: None,
        child: 5,
    };
    let accept = Event { time: ms(1), kind: Kind::Accept(Box::new(accept)) };
    let released = PortReleased {
        endpoints,
        sk: 1,
        held_ns: 9,
        pid: 12,
        comm: "client".into(),
        how: How::Connect,
        time_wait: true,
    };
    let released = Event { time: ms(2), kind: Kind::PortReleased(Box::new(released)) };
    let tick = Event { time: ms(3), kind: Kind::Tick };
    assert_eq!(
        lines(|to| {
            for event in [&accept, &released, &tick] {
                let _ = to.event(event, engine.world());
            }
        }),
        concat!(
            r#"{"type":"event","time":"2026-11-22T10:40:00.001000000Z","event":"accept","netns":7,"pid":6039,"#,
            r#""comm":"delegated","container":"docker:3f2a","local":"10.0.0.1:80","remote":"10.0.0.2:40000","#,
            r#""queue":3,"queue_limit":20,"syn_queue":0,"tid":6040,"wait_ns":null}"#,
            "\n",
            r#"{"type":"event","time":"2026-11-22T10:40:00.002000000Z","event":"port-released","netns":7,"pid":12,"#,
            r#""comm":"client","container":null,"local":"10.0.0.1:80","remote":"10.0.0.2:40000","#,
            r#""how":"connect","held_ns":9,"time_wait":true}"#,
            "\n"
        )
    );
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
    assert_eq!(
        lines(|to| {
            let _ = to.lost(&lost);
            let _ = to.summary(&Summary::of(&play.engine));
        }),
        concat!(
            r#"{"type":"lost","what":"syn-drop","count":3,"where":"ring-buffer","#,
            r#""from":"2026-11-22T10:40:00.001000000Z","to":"2026-11-22T10:40:02.000000000Z"}"#,
            "\n",
            r#"{"type":"summary","time":"2026-11-22T10:40:02.000000000Z","duration_s":2.0,"#,
            r#""events":{"listen":1,"syn-drop":106},"findings":{"accept-queue-overflow":1,"events-lost":1},"#,
            r#""lost":{"syn-drop":3},"reconciliation":["#,
            r#"{"netns":4026531840,"counter":"ListenOverflows","kernel":106,"observed":106,"status":"exact"},"#,
            r#"{"netns":4026531840,"counter":"ListenDrops","kernel":106,"observed":106,"status":"exact"}]}"#,
            "\n"
        )
    );
}

#[test]
fn hostile_names_stay_themselves_and_harmless() {
    let hostile = "a\u{1b}[2J\u{202e}\u{9b}\u{7f}\"\\\n\u{e0041}é";
    let lost = Lost { what: hostile.into(), count: 1, place: LossPlace::Output, from: ms(0), to: ms(0) };
    let line = lines(|to| drop(to.lost(&lost)));
    assert!(!line.trim_end().chars().any(is_harmful), "{line}");
    assert_eq!(line.lines().count(), 1);
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["what"], hostile);
}
