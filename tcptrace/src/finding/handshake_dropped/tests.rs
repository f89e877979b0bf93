use crate::event::{
    Connect, ConnectResult, ConnectTotals, Endpoints, Family, HandshakeDrop, Kind, ListenerReport, Owner,
    Packet, ReportedListener, SynDrop, SynDropCause,
};
use crate::finding::testing::{NETNS, Play, Server, address, handshake_drop, ms, task};

fn by_netfilter(packet: Packet, outgoing: bool) -> HandshakeDrop {
    HandshakeDrop {
        reason_name: Some("NETFILTER_DROP".to_owned()),
        function: Some("nf_hook_slow".to_owned()),
        input: 2,
        ..handshake_drop(packet, outgoing)
    }
}

/// The kernel side has counted `total` by now.
fn send_total(play: &mut Play, at: u64, total: u64, drop: &HandshakeDrop) {
    play.send(at, Kind::HandshakeDrop(Box::new(HandshakeDrop { total, ..drop.clone() })));
}

fn send(play: &mut Play, at: u64, drop: &HandshakeDrop) {
    send_total(play, at, at / 100, drop);
}

fn report(play: &mut Play, at: u64, listeners: &[&str]) {
    let listeners = listeners.iter().map(|local| ReportedListener {
        device: 0,
        netns: NETNS,
        local: address(local),
        v6only: None,
        inode: 7,
        owners: vec![Owner { pid: 42, comm: "nginx".to_owned() }],
    });
    let report = ListenerReport {
        netns: NETNS,
        port: 80,
        asked: ms(at),
        listeners: listeners.collect(),
        incomplete: None,
    };
    play.send(at, Kind::ListenerReport(Box::new(report)));
}

#[test]
fn a_firewall_in_front_of_a_listener_is_told_with_its_hook() {
    let mut play = Play::new(4096);
    let drop = by_netfilter(Packet::Syn, false);
    send(&mut play, 1000, &drop);
    report(&mut play, 1001, &["0.0.0.0:80"]);
    assert!(play.findings.is_empty(), "one packet");
    send(&mut play, 2000, &drop);
    let finding = play.only();
    assert_eq!((finding.code, finding.cause), ("handshake-dropped", "netfilter"));
    assert_eq!(finding.title, "this host drops SYNs to nginx[42] 0.0.0.0:80: netfilter");
    assert!(finding.explanation.contains("INPUT hook"), "{}", finding.explanation);
}

#[test]
fn a_firewall_that_keeps_out_what_nobody_waits_for_is_none_of_our_business() {
    let mut play = Play::new(4096);
    for nth in 0..50 {
        send(&mut play, nth * 100, &by_netfilter(Packet::Syn, false));
    }
    report(&mut play, 5000, &["127.0.0.1:80"]);
    play.ticks_until(8000);
    assert!(play.findings.is_empty());
}

#[test]
fn packets_that_go_out_need_no_listener_and_name_who_connects() {
    let mut play = Play::new(4096);
    let drop = HandshakeDrop { task: Some(task(77, "curl")), ..by_netfilter(Packet::Syn, true) };
    send(&mut play, 1000, &drop);
    send(&mut play, 2000, &drop);
    let finding = play.only();
    assert_eq!(finding.subject.to_string(), "curl[77] 10.0.0.1:80");
    assert_eq!(serde_json::to_value(&finding.evidence).unwrap()["hook"], "OUTPUT");
}

#[test]
fn an_ack_counts_only_if_it_is_a_handshake_s() {
    let mut play = Play::new(4096);
    report(&mut play, 0, &["0.0.0.0:80"]);
    let stray = HandshakeDrop { handshake: false, ..by_netfilter(Packet::Ack, false) };
    for nth in 0..10 {
        send(&mut play, nth * 100, &stray);
    }
    assert!(play.findings.is_empty());
    let last = by_netfilter(Packet::Ack, false);
    for nth in 10..12 {
        send(&mut play, nth * 100, &last);
    }
    report(&mut play, 1200, &["0.0.0.0:80"]);
    assert_eq!(serde_json::to_value(&play.only().evidence).unwrap()["packet"], "ACK");
}

#[test]
fn what_the_kernel_side_held_back_is_in_the_number() {
    let mut play = Play::new(4096);
    let drop = by_netfilter(Packet::Syn, false);
    send_total(&mut play, 1000, 1, &drop);
    report(&mut play, 1001, &["0.0.0.0:80"]);
    for nth in 2..65 {
        send_total(&mut play, 1000 + nth, nth, &drop);
    }
    play.ticks_until(2900);
    let finding = play.findings.last().unwrap();
    assert!(finding.numbers[0].starts_with("at least 64 SYNs"), "{:?}", finding.numbers);
    // 435 more were counted and not told.
    send_total(&mut play, 3000, 500, &drop);
    play.ticks_until(5000);
    let finding = play.findings.last().unwrap();
    assert!(finding.numbers[0].starts_with("500 SYNs"), "{:?}", finding.numbers);
    let evidence = serde_json::to_value(&finding.evidence).unwrap();
    assert_eq!((evidence["dropped"].as_u64(), evidence.get("at_least")), (Some(500), None));
}

fn unroutable(errno: u32) -> Kind {
    let (local, remote) = (address("10.0.0.9:40000"), Some(address("192.0.2.1:80")));
    Kind::Connect(Box::new(Connect {
        endpoints: Endpoints { netns: NETNS, family: Family::V4, local, remote, device: 0 },
        task: Some(task(77, "curl")),
        sk: 1,
        inode: 1,
        age_ns: Some(0),
        result: ConnectResult::Error,
        errno: Some(errno),
        syns_again: 0,
        totals: ConnectTotals::default(),
    }))
}

#[test]
fn a_route_that_somebody_made_to_lead_nowhere_is_told_and_no_route_is_not() {
    for (errno, word) in [(22, "blackhole"), (13, "prohibit"), (113, "unreachable")] {
        let mut play = Play::new(4096);
        play.send(1000, unroutable(errno));
        play.send(2000, unroutable(errno));
        let finding = play.only();
        assert_eq!((finding.code, finding.cause), ("handshake-dropped", "no-route"));
        assert_eq!(finding.subject.to_string(), "curl[77] 192.0.2.1:80");
        assert!(finding.explanation.contains(word), "{}", finding.explanation);
    }
    let mut play = Play::new(4096);
    for nth in 0..9 {
        // ENETUNREACH: a host without IPv6.
        play.send(1000 * nth, unroutable(101));
    }
    assert!(play.findings.is_empty());
}

#[test]
fn a_listener_without_a_way_back_is_named() {
    let mut play = Play::new(4096);
    let server = Server::new(100, "10.0.0.1:80", 128);
    server.listen(&mut play, task(42, "nginx"), Some(128), 4096);
    for total in 1..3 {
        let (local, remote) = (address("10.0.0.1:80"), Some(address("10.9.0.9:40000")));
        play.send(
            1000 * total,
            Kind::SynDrop(SynDrop {
                endpoints: Endpoints { netns: NETNS, family: Family::V4, local, remote, device: 2 },
                listener: server.listener(),
                cause: SynDropCause::NoRoute,
                syncookies: 1,
                total,
            }),
        );
    }
    let finding = play.only();
    assert_eq!((finding.code, finding.cause), ("handshake-dropped", "no-route"));
    assert_eq!(finding.subject.to_string(), "nginx[42] 10.0.0.1:80");
    assert!(finding.explanation.contains("no route back"), "{}", finding.explanation);
}
