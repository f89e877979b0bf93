use crate::event::{HandshakeDrop, Kind, ListenerReport, Owner, Packet, ReportedListener};
use crate::finding::testing::{NETNS, Play, address, handshake_drop, ms, task};

fn by_netfilter(packet: Packet, outgoing: bool) -> HandshakeDrop {
    HandshakeDrop {
        reason_name: Some("NETFILTER_DROP".to_owned()),
        function: Some("nf_hook_slow".to_owned()),
        input: 2,
        ..handshake_drop(packet, outgoing)
    }
}

fn send(play: &mut Play, at: u64, drop: &HandshakeDrop) {
    play.send(at, Kind::HandshakeDrop(Box::new(drop.clone())));
}

fn report(play: &mut Play, at: u64, listeners: &[&str]) {
    let listeners = listeners.iter().map(|local| ReportedListener {
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
