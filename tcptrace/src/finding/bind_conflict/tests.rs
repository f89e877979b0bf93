//! Each cause, the holder that is really in the way, and what is said when little is known.

use serde_json::{Value, json};

use crate::event::{
    BindFail, BindStage, Device, Endpoints, Holder, HolderReport, How, Kind as Event, Listen, ListenerRef,
    Owner, OwnerConfidence, ReportedHolder, ReuseState, SocketOptions, SocketOwner, SocketState, Task,
};
use crate::finding::testing::{NETNS, Play, address, bind_fail, holder, ms, place, task};
use crate::finding::{Confidence, Finding, State};

const WANTED: &str = "0.0.0.0:35010";

fn asks() -> Task {
    task(500, "server")
}

/// A client with a connection from the wanted port, which the kernel chose.
fn client() -> Holder {
    let mut holder =
        holder("127.0.0.1:35010", SocketState::Established, How::Connect, Some(task(400, "client")));
    holder.endpoints.remote = Some(address("127.0.0.1:9000"));
    holder
}

fn play(fail: BindFail) -> Play {
    let mut play = Play::new(4096);
    play.process(400, "client", "client --to upstream");
    play.process(500, "server", "server --port 35010");
    play.send(100, Event::BindFail(Box::new(fail)));
    play
}

fn one(fail: BindFail) -> Finding {
    play(fail).only().clone()
}

fn reported(local: &str, state: SocketState, owners: &[(u32, &str)]) -> ReportedHolder {
    ReportedHolder {
        device: 0,
        retransmits: 0,
        local: address(local),
        remote: None,
        state,
        inode: if owners.is_empty() { 0 } else { 4711 },
        uid: Some(1000),
        v6only: None,
        time_wait_left_ms: None,
        owners: owners.iter().map(|(pid, comm)| Owner { pid: *pid, comm: (*comm).to_owned() }).collect(),
    }
}

fn report(holders: Vec<ReportedHolder>) -> Event {
    Event::HolderReport(Box::new(HolderReport {
        netns: NETNS,
        port: 35010,
        requester: 500,
        conflict: ms(100),
        holders,
        incomplete: None,
    }))
}

fn evidence(finding: &Finding) -> Value {
    Play::json(finding)["evidence"].clone()
}

#[test]
fn a_client_that_was_given_the_port() {
    let finding = one(bind_fail(WANTED, asks(), vec![client()]));
    assert_eq!((finding.cause, finding.confidence), ("ephemeral-grab", Confidence::Certain));
    assert_eq!(
        finding.title,
        "server[500] cannot bind 0.0.0.0:35010: client[400] was given the port by connect() \
         (connection to 127.0.0.1:9000)"
    );
    assert_eq!(
        Play::json(&finding)["subject"],
        json!({"kind": "port", "address": "0.0.0.0", "port": 35010, "netns": {"id": NETNS, "name": null}})
    );
    let evidence = evidence(&finding);
    assert_eq!(
        evidence["holders"],
        json!([{
            "kind": "process", "address": "127.0.0.1", "port": 35010,
            "remote": {"address": "127.0.0.1", "port": 9000}, "netns": {"id": NETNS, "name": null},
            "process": {"pid": 400, "comm": "client", "command": "client --to upstream", "exe": null,
                "container": null},
            "confidence": "observed", "state": "established", "how": "connect",
            "since": "2026-11-22T10:40:00.001000000Z", "options": [], "uid": 1000,
        }])
    );
    let requester = &evidence["requester"];
    assert_eq!(
        (&requester["process"]["pid"], &requester["process"]["comm"]),
        (&json!(500), &json!("server"))
    );
    assert_eq!(
        (&requester["address"], &requester["port"], &requester["options"]),
        (&json!("0.0.0.0"), &json!(35010), &json!(["SO_REUSEADDR"]))
    );
    assert_eq!((&evidence["errno"], &evidence["stage"]), (&json!("EADDRINUSE"), &json!("bind")));
    assert!(finding.explanation.contains("SO_REUSEADDR on both sides, which the holder lacks"));
    let commands: Vec<_> = finding.remedy.iter().filter_map(|remedy| remedy.command.as_deref()).collect();
    assert_eq!(
        commands,
        [
            "sh -c 'sysctl -w net.ipv4.ip_local_reserved_ports=\"35010,$(sysctl -n net.ipv4.ip_local_reserved_ports)\"'",
            "sysctl -w net.ipv4.ip_local_port_range=\"35011 60999\""
        ]
    );
}

#[test]
fn other_ways_to_be_given_a_port() {
    let mut any = client();
    any.taker.as_mut().unwrap().how = How::BindAny;
    assert_eq!(one(bind_fail(WANTED, asks(), vec![any])).cause, "ephemeral-grab");
    let listens = holder(WANTED, SocketState::Listen, How::ListenAny, Some(task(400, "client")));
    assert_eq!(one(bind_fail(WANTED, asks(), vec![listens])).cause, "ephemeral-grab");
}

#[test]
fn a_client_older_than_the_tracer_is_likely() {
    let mut old = client();
    old.taker = None;
    let mut play = Play::new(4096);
    let owner = SocketOwner {
        sk: 77,
        inode: 4711,
        endpoints: old.endpoints,
        owners: vec![Owner { pid: 400, comm: "client".into() }],
        confidence: OwnerConfidence::Bootstrapped,
        port_by_number: false,
    };
    play.send(1, Event::SocketOwner(Box::new(owner)));
    play.send(100, Event::BindFail(Box::new(bind_fail(WANTED, asks(), vec![old.clone()]))));
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("ephemeral-grab", Confidence::Likely));
    assert_eq!(evidence(finding)["holders"][0]["process"]["pid"], json!(400));
    assert_eq!(evidence(finding)["holders"][0]["confidence"], json!("bootstrapped"));

    // Outside the range the kernel did not choose it.
    old.endpoints.local = address("127.0.0.1:1080");
    let finding = {
        let mut play = Play::new(4096);
        play.send(100, Event::BindFail(Box::new(bind_fail("0.0.0.0:1080", asks(), vec![old]))));
        play.ticks_until(2000);
        play.only().clone()
    };
    assert_eq!(finding.cause, "bound-socket");
}

#[test]
fn the_kernel_s_entry_tells_clients_from_children() {
    let mut old = client();
    old.taker = None;
    let told = |fastreuse| {
        let mut fail = bind_fail(WANTED, asks(), vec![old.clone()]);
        fail.reuse_state = Some(ReuseState { fastreuse, fastreuseport: fastreuse });
        let mut play = Play::new(4096);
        play.send(100, Event::BindFail(Box::new(fail)));
        play.ticks_until(2000);
        play.only().clone()
    };
    let finding = told(-1);
    assert_eq!(finding.cause, "ephemeral-grab");
    assert!(finding.title.contains("was given the port by connect()"), "{}", finding.title);
    // A connection that the former server accepted: its port was bound.
    assert_eq!(told(0).cause, "bound-socket");
}

#[test]
fn another_server() {
    let listens = holder(WANTED, SocketState::Listen, How::Bind, Some(task(300, "other")));
    let mut child = client();
    child.taker = None;
    // Children of the listener are not the reason, and are listed all the same.
    let finding = one(bind_fail(WANTED, asks(), vec![child, listens]));
    assert_eq!((finding.cause, finding.confidence), ("listener", Confidence::Likely));
    assert!(finding.title.ends_with("other[300] listens on 0.0.0.0:35010"), "{}", finding.title);
    assert!(finding.explanation.contains("SO_REUSEPORT on both sides, which both lack"));
    let evidence = evidence(&finding);
    assert_eq!(evidence["holders"][0]["process"]["pid"], json!(300));
    assert_eq!(evidence["holders"].as_array().unwrap().len(), 2);
    assert_eq!(finding.remedy[0].command.as_deref(), Some("kill 300"));
}

/// Until it was looked up who has the socket now, its opener may have left it to another process.
#[test]
fn a_listener_is_certain_once_its_opener_was_found_to_have_it_still() {
    let listens = || holder(WANTED, SocketState::Listen, How::Bind, Some(task(300, "other")));
    let told = |owners: &[(u32, &str)]| {
        let mut play = play(bind_fail(WANTED, asks(), vec![listens()]));
        assert!(play.findings.iter().all(|finding| finding.confidence < Confidence::Certain));
        play.send(150, report(vec![reported(WANTED, SocketState::Listen, owners)]));
        play.ticks_until(2000);
        let finding = play.only();
        (finding.cause, finding.confidence)
    };
    assert_eq!(told(&[(300, "other")]), ("listener", Confidence::Certain));
    assert_eq!(told(&[(301, "child")]), ("inherited-fd", Confidence::Likely));
}

#[test]
fn what_is_left_of_a_connection() {
    let mut remnant = client();
    remnant.state = SocketState::TimeWait;
    remnant.inode = 0;
    remnant.uid = None;
    let mut fail = bind_fail(WANTED, asks(), vec![remnant.clone()]);
    fail.options = SocketOptions::NONE;
    let mut play = play(fail);
    assert!(play.findings.is_empty(), "FIN-WAIT-2 looks alike until sock_diag has named it");
    let mut seen = reported("127.0.0.1:35010", SocketState::TimeWait, &[]);
    seen.remote = remnant.endpoints.remote;
    seen.time_wait_left_ms = Some(41_200);
    play.send(150, report(vec![seen]));
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("time-wait", Confidence::Certain));
    assert!(finding.title.contains("an old connection of client[400] to 127.0.0.1:9000 is in TIME_WAIT"));
    let held = &evidence(finding)["holders"][0];
    assert_eq!((&held["time_wait_left_s"], &held["process"]["pid"]), (&json!(41.2), &json!(400)));
    assert!(finding.remedy[0].text.contains("SO_REUSEADDR"), "{:?}", finding.remedy);
    assert!(finding.remedy[1].text.contains("42 s"), "{:?}", finding.remedy);
}

#[test]
fn a_socket_that_is_bound_and_idle() {
    let idle = holder(WANTED, SocketState::Bound, How::Bind, Some(task(300, "idler")));
    let finding = one(bind_fail(WANTED, asks(), vec![idle]));
    assert_eq!((finding.cause, finding.confidence), ("bound-socket", Confidence::Likely));
    assert!(finding.title.contains("idler[300] is bound to 0.0.0.0:35010"), "{}", finding.title);
}

#[test]
fn an_inherited_descriptor() {
    let listens = holder(WANTED, SocketState::Listen, How::Bind, Some(task(300, "parent")));
    let mut play = play(bind_fail(WANTED, asks(), vec![listens]));
    assert_eq!(play.only().cause, "listener");
    play.send(150, report(vec![reported(WANTED, SocketState::Listen, &[(301, "child")])]));
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("inherited-fd", Confidence::Likely));
    assert!(
        finding.title.contains("child[301] holds the socket on 0.0.0.0:35010, inherited from parent[300]")
    );
    let held = &evidence(finding)["holders"][0];
    assert_eq!(
        (&held["process"]["pid"], &held["taken_by"]),
        (
            &json!(301),
            &json!({"pid": 300, "comm": "parent", "command": null, "exe": null, "container": null})
        )
    );
}

#[test]
fn whoever_still_has_its_own_socket_has_not_inherited_it() {
    let listens = holder(WANTED, SocketState::Listen, How::Bind, Some(task(300, "parent")));
    let mut both = play(bind_fail(WANTED, asks(), vec![listens.clone()]));
    both.send(150, report(vec![reported(WANTED, SocketState::Listen, &[(301, "child"), (300, "parent")])]));
    both.ticks_until(2000);
    assert_eq!(both.only().cause, "listener");
    // Bound by one, passed on, and listened on by the other: that is the other's listener.
    let mut play = Play::new(4096);
    let listen = Listen {
        endpoints: place(WANTED),
        listener: ListenerRef { sk: 77, inode: 4711, ..ListenerRef::default() },
        task: task(301, "child"),
        backlog: Some(128),
        somaxconn: Some(4096),
        options: SocketOptions::NONE,
        again: false,
    };
    play.send(50, Event::Listen(Box::new(listen)));
    play.send(100, Event::BindFail(Box::new(bind_fail(WANTED, asks(), vec![listens]))));
    play.send(150, report(vec![reported(WANTED, SocketState::Listen, &[(301, "child")])]));
    play.ticks_until(2000);
    assert_eq!(play.only().cause, "listener");
}

#[test]
fn the_wildcard_of_the_other_family() {
    let wildcard = holder("[::]:35010", SocketState::Listen, How::Bind, Some(task(300, "dual")));
    let finding = one(bind_fail(WANTED, asks(), vec![wildcard.clone()]));
    assert_eq!(finding.cause, "wildcard");
    assert!(finding.explanation.contains("[::]:35010 covers 0.0.0.0:35010 too, without IPV6_V6ONLY"));
    let finding = one(bind_fail("10.0.0.1:35010", asks(), vec![wildcard.clone()]));
    assert_eq!(finding.cause, "wildcard");
    // One with IPV6_V6ONLY is innocent: the IPv4 listener behind it is the one.
    let v6only = Holder { options: Some(SocketOptions::from_bits(4)), ..wildcard };
    let v4 = holder(WANTED, SocketState::Listen, How::Bind, Some(task(301, "plain")));
    let finding = one(bind_fail(WANTED, asks(), vec![v6only, v4]));
    assert_eq!(
        (finding.cause, &evidence(&finding)["holders"][0]["process"]["pid"]),
        ("listener", &json!(301))
    );
    // The other way round.
    let v4 = holder("0.0.0.0:35010", SocketState::Listen, How::Bind, Some(task(301, "plain")));
    let mut fail = bind_fail("[::]:35010", asks(), vec![v4]);
    fail.endpoints = Endpoints { family: crate::event::Family::V6, ..fail.endpoints };
    let finding = one(fail);
    assert_eq!(finding.cause, "wildcard");
    assert!(finding.remedy[0].text.contains("(server[500])"), "{:?}", finding.remedy);
}

#[test]
fn a_socket_of_the_kernel() {
    let mut kernel = holder(WANTED, SocketState::Listen, How::Unknown, None);
    kernel.inode = 0;
    kernel.uid = Some(0);
    let mut play = play(bind_fail(WANTED, asks(), vec![kernel]));
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("kernel-socket", Confidence::Certain));
    assert!(finding.title.contains("a socket of the kernel itself"));
}

#[test]
fn a_socket_of_the_kernel_has_an_inode_and_no_process() {
    let mut kernel = holder(WANTED, SocketState::Listen, How::Unknown, None);
    kernel.inode = 0;
    kernel.uid = Some(0);
    let in_diag = ReportedHolder { inode: 815, uid: Some(0), ..reported(WANTED, SocketState::Listen, &[]) };
    // Read in the kernel, and then by sock_diag too; or by sock_diag alone.
    for holders in [vec![kernel], Vec::new()] {
        let mut play = play(bind_fail(WANTED, asks(), holders));
        play.send(120, report(vec![in_diag.clone()]));
        play.ticks_until(2000);
        assert_eq!(play.only().cause, "kernel-socket");
    }
}

/// Accepted connections' ports are their listener's: nobody was seen taking them.
#[test]
fn what_a_closed_listener_s_connection_left_was_left_by_its_process() {
    let mut remnant = holder("127.0.0.1:35010", SocketState::TimeWait, How::Unknown, None);
    remnant.endpoints.remote = Some(address("127.0.0.1:50000"));
    let mut play = Play::new(4096);
    play.process(500, "server", "server --port 35010");
    let listen = |listener| Listen {
        endpoints: place(WANTED),
        listener,
        task: task(300, "old"),
        backlog: None,
        somaxconn: None,
        options: SocketOptions::NONE,
        again: false,
    };
    let listener = ListenerRef { sk: 5, inode: 6, ..ListenerRef::default() };
    play.send(10, Event::Listen(Box::new(listen(listener))));
    let mut fail = bind_fail(WANTED, asks(), vec![remnant]);
    fail.options = SocketOptions::NONE;
    play.send(100, Event::BindFail(Box::new(fail)));
    play.ticks_until(2000);
    let finding = play.only();
    let holder = &evidence(finding)["holders"][0];
    assert_eq!(
        (finding.cause, &holder["process"]["pid"], &holder["process"]["comm"]),
        ("time-wait", &json!(300), &json!("old"))
    );
    assert_eq!(holder["confidence"], json!("likely"));
}

/// Found to have it when the tracer started; by now it is gone and nothing more can be looked up.
#[test]
fn an_older_holder_is_named_from_what_the_kernel_remembers() {
    let mut older = client();
    if let Some(taker) = &mut older.taker {
        taker.bootstrapped = true;
        taker.how = How::Unknown;
    }
    let mut fail = bind_fail(WANTED, asks(), vec![older.clone()]);
    fail.reuse_state = Some(ReuseState { fastreuse: -1, fastreuseport: -1 });
    let finding = one(fail);
    let holder = &evidence(&finding)["holders"][0];
    assert_eq!(finding.cause, "ephemeral-grab");
    assert_eq!((&holder["process"]["pid"], &holder["process"]["comm"]), (&json!(400), &json!("client")));
    assert_eq!((&holder["confidence"], &holder["since"]), (&json!("bootstrapped"), &Value::Null));
    assert_ne!(finding.confidence, Confidence::Certain);

    // What is left of its connection is said to have been left by it, no better known than that.
    older.state = SocketState::TimeWait;
    older.inode = 0;
    let mut play = play(bind_fail(WANTED, asks(), vec![older]));
    play.ticks_until(2000);
    let finding = play.only();
    let holder = &evidence(finding)["holders"][0];
    assert_eq!((finding.cause, &holder["process"]["pid"]), ("time-wait", &json!(400)));
    assert_eq!(holder["confidence"], json!("bootstrapped"));
    assert_eq!(finding.confidence, Confidence::Likely, "sock_diag did not name its state");
}

#[test]
fn at_listen_both_had_reuseaddr() {
    let mut listens = holder(WANTED, SocketState::Listen, How::Bind, Some(task(300, "other")));
    listens.options = Some(SocketOptions::from_bits(1));
    let mut fail = bind_fail(WANTED, asks(), vec![listens]);
    fail.stage = BindStage::Listen;
    fail.reuse_state = Some(ReuseState { fastreuse: 0, fastreuseport: 0 });
    let finding = one(fail);
    assert_eq!(finding.cause, "listener");
    assert!(finding.title.starts_with("server[500] cannot listen 0.0.0.0:35010"), "{}", finding.title);
    assert!(finding.explanation.contains("SO_REUSEADDR does not help against a listener"));
    assert!(finding.explanation.contains("fastreuse 0"), "{}", finding.explanation);
    assert_eq!(evidence(&finding)["stage"], json!("listen"));
}

#[test]
fn reuseport_of_another_user() {
    let mut listens = holder(WANTED, SocketState::Listen, How::Bind, Some(task(300, "other")));
    listens.options = Some(SocketOptions::from_bits(2));
    listens.uid = Some(33);
    let mut fail = bind_fail(WANTED, asks(), vec![listens]);
    fail.options = SocketOptions::from_bits(2);
    assert!(one(fail).explanation.contains("belong to different users"));
}

#[test]
fn without_kernel_holders_the_report_is_waited_for() {
    let mut play = play(bind_fail(WANTED, asks(), Vec::new()));
    assert_eq!(play.findings, []);
    let mut seen = reported("127.0.0.1:35010", SocketState::Established, &[(400, "client")]);
    seen.remote = Some(address("127.0.0.1:9000"));
    play.send(160, report(vec![seen]));
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("ephemeral-grab", Confidence::Likely));
    assert_eq!(evidence(finding)["holders"][0]["process"]["pid"], json!(400));
    assert!(finding.explanation.contains("options could not be read"), "{}", finding.explanation);
}

#[test]
fn the_requester_s_own_socket_is_not_its_holder() {
    let mut fail = bind_fail(WANTED, asks(), Vec::new());
    fail.stage = BindStage::Listen;
    let mut play = play(fail);
    let mut own = reported(WANTED, SocketState::Bound, &[(500, "server")]);
    own.inode = 1;
    play.send(160, report(vec![own, reported(WANTED, SocketState::Listen, &[(300, "other")])]));
    let finding = play.only();
    assert_eq!(finding.cause, "listener");
    assert_eq!(evidence(finding)["holders"].as_array().unwrap().len(), 1);
}

#[test]
fn nothing_known_is_said_to_be_nothing() {
    let mut play = play(bind_fail(WANTED, asks(), Vec::new()));
    play.tick(1000);
    assert_eq!(play.findings, []);
    play.tick(1100);
    let finding = play.only();
    assert_eq!((finding.state, finding.confidence), (State::Opened, Confidence::Possible));
    assert!(finding.title.contains("by whom is not known"), "{}", finding.title);
    assert_eq!(evidence(finding)["holders"], json!([]));
}

#[test]
fn at_the_end_nothing_is_waited_for() {
    let mut play = play(bind_fail(WANTED, asks(), Vec::new()));
    play.end();
    assert_eq!(
        play.findings.iter().map(|finding| finding.state).collect::<Vec<_>>(),
        [State::Opened, State::Closed]
    );
}

#[test]
fn a_service_that_restarts_and_fails_again_is_one_finding() {
    let mut play = Play::new(4096);
    for attempt in 0..5_u32 {
        let fail = bind_fail(WANTED, task(500 + attempt, "server"), vec![client()]);
        play.send(u64::from(attempt) * 2000, Event::BindFail(Box::new(fail)));
    }
    play.ticks_until(30_000);
    let finding = play.only();
    assert_eq!(finding.state, State::Closed);
    assert_eq!(evidence(finding)["attempts"], json!(5));
    assert_eq!(evidence(finding)["requester"]["process"]["pid"], json!(504));
    assert_eq!(play.findings.iter().filter(|finding| finding.state == State::Opened).count(), 1);
    // A minute later, a new finding counts anew.
    let fail = bind_fail(WANTED, asks(), vec![client()]);
    play.send(90_000, Event::BindFail(Box::new(fail)));
    let last = play.findings.last().unwrap();
    assert_eq!((last.id, &evidence(last)["attempts"]), (2, &json!(1)));
}

#[test]
fn a_storm_of_attempts_is_one_finding() {
    let mut play = Play::new(4096);
    for attempt in 0..100_000_u64 {
        let fail = bind_fail(WANTED, asks(), vec![client()]);
        play.send(attempt / 20, Event::BindFail(Box::new(fail)));
    }
    play.end();
    assert_eq!(evidence(play.only())["attempts"], json!(100_000));
    assert!(play.findings.len() <= 7, "{}", play.findings.len());
}

#[test]
fn other_failures_are_no_conflicts() {
    let mut play = Play::new(4096);
    let mut refused = bind_fail("0.0.0.0:80", asks(), Vec::new());
    refused.errno = 13;
    play.send(100, Event::BindFail(Box::new(refused)));
    let exhausted = bind_fail("0.0.0.0:0", asks(), Vec::new());
    play.send(200, Event::BindFail(Box::new(exhausted)));
    play.ticks_until(5000);
    play.end();
    let mut codes = play.codes();
    codes.sort_unstable();
    assert_eq!(codes, ["bind-refused", "port-exhaustion"]);
}

#[test]
fn a_holder_that_the_rule_acquits_is_only_possible() {
    let mut compatible = client();
    compatible.options = Some(SocketOptions::from_bits(1));
    let mut play = play(bind_fail(WANTED, asks(), vec![compatible]));
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!(finding.confidence, Confidence::Possible);
    assert!(finding.explanation.contains("may be gone"), "{}", finding.explanation);
}

#[test]
fn reserved_by_now() {
    let mut play = Play::new(4096);
    let mut fail = bind_fail("0.0.0.0:8080", asks(), vec![client()]);
    fail.holders[0].endpoints.local = address("127.0.0.1:8080");
    play.send(100, Event::BindFail(Box::new(fail)));
    assert!(play.only().remedy[0].text.contains("is reserved by now"), "{:?}", play.only().remedy);
}

#[test]
fn what_sock_diag_names_fin_wait_is_not_called_time_wait() {
    let mut remnant = holder("127.0.0.1:35010", SocketState::TimeWait, How::Unknown, None);
    remnant.endpoints.remote = Some(address("127.0.0.1:40000"));
    remnant.inode = 0;
    remnant.uid = None;
    remnant.options = Some(SocketOptions::NONE);
    let mut fail = bind_fail(WANTED, asks(), vec![remnant]);
    fail.options = SocketOptions::NONE;
    let mut play = play(fail);
    assert!(play.findings.is_empty(), "the kernel's table shows both alike");
    let mut seen = reported("127.0.0.1:35010", SocketState::FinWait2, &[]);
    seen.remote = Some(address("127.0.0.1:40000"));
    seen.time_wait_left_ms = Some(41_200);
    play.send(150, report(vec![seen]));
    play.knobs(4096);
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("fin-wait", Confidence::Certain));
    assert!(finding.title.contains("is in FIN-WAIT-2: this side has closed it"), "{}", finding.title);
    let commands: Vec<_> = finding.remedy.iter().filter_map(|remedy| remedy.command.as_deref()).collect();
    assert!(commands[0].ends_with("net.ipv4.tcp_fin_timeout=10"), "{commands:?}");
    assert!(finding.numbers[0].contains("42 s of FIN-WAIT-2 left"), "{:?}", finding.numbers);
}

#[test]
fn an_unacknowledged_close_is_an_orphan_of_no_process() {
    let mut remnant = holder("127.0.0.1:35010", SocketState::LastAck, How::Unknown, None);
    remnant.endpoints.remote = Some(address("127.0.0.1:40000"));
    remnant.inode = 0;
    let mut fail = bind_fail(WANTED, asks(), vec![remnant]);
    fail.options = SocketOptions::NONE;
    let mut play = play(fail);
    play.send(150, report(Vec::new()));
    play.ticks_until(2000);
    let finding = play.only();
    assert_eq!(finding.cause, "last-ack");
    assert!(finding.title.contains("LAST-ACK"), "{}", finding.title);
}

#[test]
fn devices_are_named_where_they_decide() {
    let listens = holder(WANTED, SocketState::Listen, How::Bind, Some(task(300, "bfdd")));
    let mut fail = bind_fail(WANTED, asks(), vec![listens]);
    fail.endpoints.device = 7;
    let device = Device { netns: NETNS, index: 7, name: "mgmt0".to_owned(), kind: None, master: None };
    let mut play = Play::new(4096);
    play.send(99, Event::Device(Box::new(device)));
    play.send(100, Event::BindFail(Box::new(fail)));
    play.ticks_until(2000);
    let finding = play.only();
    assert!(finding.title.contains("cannot bind 0.0.0.0%mgmt0:35010"), "{}", finding.title);
    assert!(
        finding
            .explanation
            .contains("the holder is bound to no device and covers all of them, mgmt0 as well"),
        "{}",
        finding.explanation
    );
}

#[test]
fn a_client_of_its_own_port_is_connected_to_itself() {
    let mut client = holder("127.0.0.1:35010", SocketState::Established, How::Connect, Some(task(300, "ds")));
    client.endpoints.remote = Some(address("127.0.0.1:35010"));
    let finding = one(bind_fail(WANTED, asks(), vec![client]));
    assert_eq!(finding.cause, "ephemeral-grab");
    assert!(finding.title.contains("ds[300] is connected to itself"), "{}", finding.title);
}

#[test]
fn a_wildcard_that_meets_one_address_may_bind_another() {
    let listens = holder("127.0.0.53:35010", SocketState::Listen, How::Bind, Some(task(300, "resolved")));
    let finding = one(bind_fail(WANTED, asks(), vec![listens]));
    assert!(
        finding.remedy.iter().any(|remedy| remedy.text.contains("bind one address instead of 0.0.0.0:35010")),
        "{:?}",
        finding.remedy
    );
}

#[test]
fn a_holder_that_is_known_says_how_it_gives_the_port_up_and_the_requester_how_it_takes_another() {
    let holder = holder(WANTED, SocketState::Listen, How::Bind, Some(task(400, "systemd-resolve")));
    let mut play = Play::new(4096);
    play.process(400, "systemd-resolve", "/lib/systemd/systemd-resolved");
    play.process(500, "haproxy", "/usr/sbin/haproxy -Ws -f /etc/haproxy/haproxy.cfg");
    play.send(100, Event::BindFail(Box::new(bind_fail(WANTED, task(500, "haproxy"), vec![holder]))));
    let finding = play.only();
    assert_eq!(finding.cause, "listener");
    let texts: Vec<&str> = finding.remedy.iter().map(|remedy| remedy.text.as_str()).collect();
    assert!(
        texts[0]
            .starts_with("let systemd-resolved give it up: `DNSStubListener=no` in the [Resolve] section"),
        "{texts:?}"
    );
    assert!(texts[3].starts_with("or let HAProxy listen elsewhere: `bind 0.0.0.0:PORT` "), "{texts:?}");
}
