use crate::event::{
    ConnectResult, ConnectTotals, Device, Endpoints, Kind, Listen, ListenerClosed, ListenerRef,
    ListenerReport, NoListener, Owner, ReportedListener, SocketOptions,
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
            called: Vec::new(),
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
    let evidence = Play::json(finding)["evidence"].clone();
    assert_eq!(evidence["holders"][0]["process"]["pid"], 33);
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
    let evidence = Play::json(finding)["evidence"].clone();
    assert_eq!((&evidence["requester"]["process"]["pid"], &evidence["syns"]), (&77.into(), &5.into()));
}

#[test]
fn a_connect_that_is_translated_to_a_closed_port_is_reported_once_with_its_client() {
    let mut port = Port::new();
    for nth in 1..=5_u64 {
        // It calls port 80, and its SYN ends here.
        port.syn(nth * 100, "10.0.0.1:8080");
        let totals = ConnectTotals { since: ms(0), refused: nth, ..ConnectTotals::default() };
        let connect = connect(ConnectResult::Refused, Some(111), totals);
        port.play.send(nth * 100 + 1, Kind::Connect(Box::new(connect)));
    }
    port.report(600, 8080, &[]);
    let finding = port.play.only();
    assert_eq!((finding.code, finding.cause), ("no-listener", "never-listened"));
    assert_eq!(Play::json(finding)["evidence"]["requester"]["process"]["pid"], 77);
}

/// Three SYNs that came by device 3 to `called`, while a listener there is bound to `device`.
fn by_device_3(called: &str, local: &str, device: u32, vrf: bool) -> Play {
    let mut port = Port::new();
    port.play.knobs(4096);
    for (index, name) in [(2, "mgmt0"), (3, "srv0")] {
        let kind = (vrf && index == 3).then(|| "vrf".to_owned());
        let device = Device { netns: NETNS, index, name: name.to_owned(), kind, master: None };
        port.play.send(900, Kind::Device(Box::new(device)));
    }
    for nth in 0..3 {
        let endpoints = Endpoints { device: 3, ..port.ends(called) };
        port.play.send(1000 + nth, Kind::NoListener(NoListener { endpoints, total: nth + 1 }));
    }
    let listener = ReportedListener {
        netns: NETNS,
        local: address(local),
        v6only: None,
        device,
        inode: 7,
        owners: vec![Owner { pid: 42, comm: "sshd".to_owned() }],
    };
    let report = ListenerReport {
        called: Vec::new(),
        netns: NETNS,
        port: 80,
        asked: ms(1003),
        listeners: vec![listener],
        incomplete: None,
    };
    port.play.send(1003, Kind::ListenerReport(Box::new(report)));
    port.play
}

#[test]
fn a_listener_of_another_device_is_not_at_a_wrong_address() {
    let play = by_device_3("10.0.0.1:80", "0.0.0.0:80", 2, false);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("other-device", Confidence::Certain));
    assert!(
        finding.explanation.contains("sshd[42] listens on 0.0.0.0:80, bound to device mgmt0"),
        "{}",
        finding.explanation
    );
    assert!(finding.explanation.contains("the SYNs came by device srv0"), "{}", finding.explanation);
    let evidence = Play::json(finding)["evidence"].clone();
    assert_eq!((&evidence["device"], &evidence["holders"][0]["device"]), (&"srv0".into(), &"mgmt0".into()));
    assert!(
        !finding.remedy.iter().any(|remedy| remedy.text.contains("call 0.0.0.0")),
        "{:?}",
        finding.remedy
    );
}

#[test]
fn a_listener_outside_of_the_vrf_needs_the_knob() {
    let play = by_device_3("10.0.0.1:80", "0.0.0.0:80", 0, true);
    let finding = play.only();
    assert_eq!(finding.cause, "other-device");
    assert!(finding.explanation.contains("tcp_l3mdev_accept=1 (it is 0)"), "{}", finding.explanation);
    let command = finding.remedy[0].command.as_deref().unwrap();
    assert!(command.ends_with("net.ipv4.tcp_l3mdev_accept=1"), "{command}");
}

#[test]
fn to_let_in_what_comes_by_a_vrf_makes_no_listener_that_was_started_since() {
    let mut play = by_device_3("10.0.0.1:80", "0.0.0.0:80", 0, true);
    play.knobs_but(4096, 1, |knobs| knobs.l3mdev_accept = Some(true));
    play.ticks_until(3000);
    let finding = play.only();
    assert_eq!(finding.cause, "other-device");
    assert!(finding.explanation.contains("tcp_l3mdev_accept=1 (it is 1 by now)"), "{}", finding.explanation);
}

#[test]
fn a_listener_that_takes_the_syns_was_started_since() {
    let play = by_device_3("10.0.0.1:80", "0.0.0.0:80", 3, false);
    assert_eq!((play.only().cause, play.only().confidence), ("listener-started", Confidence::Likely));
}

#[test]
fn a_loopback_address_is_no_remedy_for_callers_from_outside() {
    let play = by_device_3("10.0.0.1:80", "127.0.0.1:80", 0, false);
    let finding = play.only();
    assert_eq!(finding.cause, "wrong-address");
    assert!(!finding.remedy.iter().any(|remedy| remedy.text.contains("call 127")), "{:?}", finding.remedy);
}

#[test]
fn what_a_host_sends_to_its_own_address_counts_as_come_by_that_address_s_device() {
    let mut port = Port::new();
    port.play.knobs(4096);
    for nth in 0..3 {
        let endpoints = Endpoints { device: 1, ..port.ends("10.0.0.1:80") };
        port.play.send(1000 + nth, Kind::NoListener(NoListener { endpoints, total: nth + 1 }));
    }
    let listener = ReportedListener {
        netns: NETNS,
        local: address("0.0.0.0:80"),
        v6only: None,
        device: 1,
        inode: 7,
        owners: vec![Owner { pid: 42, comm: "resolved".to_owned() }],
    };
    let report = ListenerReport {
        called: Vec::new(),
        netns: NETNS,
        port: 80,
        asked: ms(1003),
        listeners: vec![listener],
        incomplete: None,
    };
    port.play.send(1003, Kind::ListenerReport(Box::new(report)));
    let finding = port.play.only();
    assert_eq!(finding.cause, "other-device");
    assert!(finding.explanation.contains("the device that has 10.0.0.1"), "{}", finding.explanation);
}
