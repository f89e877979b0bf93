use crate::event::{
    ConnectResult, ConnectTotals, Endpoints, Kind, Listen, ListenerClosed, ListenerRef, ListenerReport,
    NoListener, Owner, ReportedListener, SocketOptions,
};
use crate::finding::testing::{NETNS, Play, address, connect, ms, place, task};
use crate::finding::{Confidence, Severity};

struct Port {
    play: Play,
    syns: u64,
}

impl Port {
    fn new() -> Self {
        Self { play: Play::new(4096), syns: 0 }
    }

    fn ends(&self, called: &str) -> Endpoints {
        let peer = if called.starts_with('[') { "[fd00::9]:40000" } else { "10.0.0.9:40000" };
        Endpoints { remote: Some(address(peer)), ..place(called) }
    }

    fn syn(&mut self, at: u64, called: &str) {
        self.syns += 1;
        let absent = NoListener { endpoints: self.ends(called), total: self.syns };
        self.play.send(at, Kind::NoListener(absent));
    }

    fn report(&mut self, at: u64, port: u16, listeners: &[(u32, &str, Option<bool>)]) {
        let listeners = listeners.iter().map(|&(netns, local, v6only)| ReportedListener {
            device: 0,
            netns,
            local: address(local),
            v6only,
            inode: 7,
            owners: vec![Owner { pid: 42, comm: "nginx".to_owned() }],
        });
        let report = ListenerReport {
            netns: NETNS,
            port,
            asked: ms(at),
            listeners: listeners.collect(),
            incomplete: None,
        };
        self.play.send(at, Kind::ListenerReport(Box::new(report)));
    }

    /// Three SYNs to `called`, while these listen.
    fn cause_of(
        called: &str,
        listeners: &[(u32, &str, Option<bool>)],
    ) -> (&'static str, Severity, Confidence) {
        let mut port = Self::new();
        for nth in 0..3 {
            port.syn(1000 + nth * 300, called);
        }
        assert!(port.play.findings.is_empty(), "nobody has looked yet");
        port.report(1700, 80, listeners);
        let finding = port.play.only();
        assert_eq!(finding.code, "no-listener");
        (finding.cause, finding.severity, finding.confidence)
    }
}

#[test]
fn who_listens_elsewhere_decides_about_the_cause() {
    let warning = |cause, confidence| (cause, Severity::Warning, confidence);
    let cause = Port::cause_of;
    assert_eq!(cause("10.0.0.1:80", &[]), ("never-listened", Severity::Info, Confidence::Certain));
    let loopback = (NETNS, "127.0.0.1:80", None);
    let v6only = (NETNS, "[::]:80", Some(true));
    let elsewhere = (7, "0.0.0.0:80", None);
    assert_eq!(cause("10.0.0.1:80", &[elsewhere, loopback]), warning("wrong-address", Confidence::Certain));
    assert_eq!(cause("10.0.0.1:80", &[elsewhere, v6only]), warning("other-family", Confidence::Certain));
    assert_eq!(cause("[fd00::1]:80", &[loopback]), warning("other-family", Confidence::Certain));
    assert_eq!(cause("10.0.0.1:80", &[elsewhere]), warning("other-netns", Confidence::Possible));
    // localhost, by both families: the other one serves.
    assert_eq!(cause("[::1]:80", &[loopback]), ("other-family", Severity::Info, Confidence::Certain));
}

#[test]
fn a_knock_is_no_finding() {
    let mut port = Port::new();
    for nth in 0..100_u16 {
        port.syn(u64::from(nth), &format!("10.0.0.1:{}", 1000 + nth));
    }
    port.play.ticks_until(5000);
    assert!(port.play.findings.is_empty());
}

#[test]
fn the_listener_that_was_there_is_named_with_its_end() {
    let mut port = Port::new();
    let listener = ListenerRef { sk: 9, inode: 9, depth: 0, limit: 5, syn_queue: 0 };
    let listen = Listen {
        endpoints: place("0.0.0.0:80"),
        listener,
        task: task(33, "webserver"),
        backlog: Some(5),
        somaxconn: None,
        options: SocketOptions::NONE,
        again: false,
    };
    port.play.send(0, Kind::Listen(Box::new(listen)));
    let closed = ListenerClosed {
        endpoints: place("0.0.0.0:80"),
        listener,
        task: task(33, "webserver"),
        exiting: Some(true),
        by_kernel: false,
        last: None,
    };
    port.play.send(1000, Kind::ListenerClosed(Box::new(closed)));
    port.play.ticks_until(90_000);
    for nth in 0..3 {
        port.syn(91_000 + nth, "10.0.0.1:80");
    }
    port.report(91_003, 80, &[]);
    let finding = port.play.only_of("no-listener");
    assert_eq!(finding.cause, "listener-exited");
    assert!(finding.explanation.contains("webserver[33] listened on 0.0.0.0:80 until it ended 90.0 s ago"));
    let evidence = serde_json::to_value(&finding.evidence).unwrap();
    assert_eq!(evidence["holders"][0]["pid"], 33);
}

#[test]
fn a_client_of_this_host_is_named_here_and_not_told_of_again() {
    let mut port = Port::new();
    for nth in 1..=5_u64 {
        port.syn(nth * 100, "10.0.0.1:80");
        let totals = ConnectTotals { since: ms(0), refused: nth, ..ConnectTotals::default() };
        let connect = connect(ConnectResult::Refused, Some(111), totals);
        port.play.send(nth * 100 + 1, Kind::Connect(Box::new(connect)));
    }
    port.report(600, 80, &[]);
    let finding = port.play.only();
    assert_eq!(
        (finding.code, finding.cause, finding.severity),
        ("no-listener", "never-listened", Severity::Warning)
    );
    let evidence = serde_json::to_value(&finding.evidence).unwrap();
    assert_eq!((&evidence["requester"]["pid"], &evidence["syns"]), (&77.into(), &5.into()));
}
