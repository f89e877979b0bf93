use crate::event::{
    CalledAddress, ConnectResult, ConnectTotals, Kind, ListenerReport, Owner, Packet, ReportedListener,
};
use crate::finding::Confidence;
use crate::finding::testing::{NETNS, Play, connect, handshake_drop, ms};

fn refuse(play: &mut Play, at: u64, nth: u64, icmp: bool) {
    let counts = |mine: bool| if mine { nth } else { 0 };
    let result = if icmp { ConnectResult::Unreachable } else { ConnectResult::Refused };
    let totals = ConnectTotals {
        since: ms(0),
        refused: counts(!icmp),
        unreachable: counts(icmp),
        ..ConnectTotals::default()
    };
    let connect = connect(result, Some(111), totals);
    play.send(at, Kind::Connect(Box::new(connect)));
}

#[test]
fn many_refusals_are_one_finding_with_counts() {
    let mut play = Play::new(4096);
    for nth in 1..=100 {
        refuse(&mut play, nth * 20, nth, false);
    }
    play.ticks_until(4000);
    let finding = play.only();
    assert_eq!((finding.code, finding.cause), ("connect-refused", "no-listener"));
    assert_eq!(finding.title, "curl[77] is refused by 10.0.0.1:80");
    assert_eq!(finding.numbers, ["100 connects refused: 100 by RST, 0 by ICMP"]);
}

#[test]
fn icmp_is_a_firewall_and_no_time_out() {
    let mut play = Play::new(4096);
    for nth in 1..=3 {
        refuse(&mut play, nth * 1000, nth, true);
    }
    assert_eq!((play.only().code, play.only().cause), ("connect-refused", "reject"));
}

#[test]
fn an_rst_that_was_not_seen_makes_no_firewall() {
    let mut play = Play::new(4096);
    // The totals of the kernel side, which are of both kinds.
    let refuse = |play: &mut Play, at: u64, by: [u64; 2], icmp: bool| {
        let result = if icmp { ConnectResult::Unreachable } else { ConnectResult::Refused };
        let [refused, unreachable] = by;
        let totals = ConnectTotals { since: ms(0), refused, unreachable, ..ConnectTotals::default() };
        play.send(at, Kind::Connect(Box::new(connect(result, Some(111), totals))));
    };
    refuse(&mut play, 1000, [0, 1], true);
    refuse(&mut play, 2000, [1, 1], false);
    refuse(&mut play, 3000, [2, 1], false);
    assert_eq!((play.only().cause, play.only().confidence), ("no-listener", Confidence::Likely));
    assert_eq!(play.only().numbers, ["3 connects refused: 2 by RST, 1 by ICMP"]);
    let mut play = Play::new(4096);
    refuse(&mut play, 1000, [0, 1], true);
    refuse(&mut play, 2000, [0, 2], true);
    refuse(&mut play, 3000, [1, 2], false);
    assert_eq!((play.only().cause, play.only().confidence), ("reject", Confidence::Likely));
}

#[test]
fn one_refusal_now_and_then_is_no_finding() {
    let mut play = Play::new(4096);
    for nth in 1..=10 {
        refuse(&mut play, nth * 31_000, nth, false);
    }
    play.ticks_until(320_000);
    assert!(play.findings.is_empty());
}

/// The SYN of curl's connect was dropped by netfilter on this host.
fn rejected(play: &mut Play, at: u64) {
    let mut drop = handshake_drop(Packet::Syn, false);
    drop.reason_name = Some("NETFILTER_DROP".to_owned());
    drop.function = Some("nf_hook_slow".to_owned());
    drop.input = 2;
    play.send(at, Kind::HandshakeDrop(Box::new(drop)));
}

#[test]
fn a_refusal_by_this_host_s_own_firewall_is_no_missing_listener() {
    let mut play = Play::new(4096);
    for nth in 1..=3 {
        rejected(&mut play, nth * 1000);
        refuse(&mut play, nth * 1000 + 1, nth, false);
    }
    let finding = play.only_of("connect-refused");
    assert_eq!((finding.cause, finding.confidence), ("reject", Confidence::Certain));
    assert!(!finding.explanation.contains("no process listens"), "{}", finding.explanation);
}

#[test]
fn an_rst_from_an_address_where_a_listener_waits_is_a_rejection() {
    let mut play = Play::new(4096);
    let listener = ReportedListener {
        netns: NETNS,
        local: "0.0.0.0:80".parse().unwrap(),
        v6only: None,
        inode: 7,
        device: 0,
        owners: vec![Owner { pid: 42, comm: "nginx".to_owned() }],
    };
    for nth in 1..=3 {
        refuse(&mut play, nth * 1000, nth, false);
        let report = ListenerReport {
            netns: NETNS,
            port: 80,
            asked: ms(nth * 1000),
            listeners: vec![listener.clone()],
            incomplete: None,
            called: vec![CalledAddress { address: [10, 0, 0, 1].into(), held_by: vec![NETNS] }],
        };
        play.send(nth * 1000 + 1, Kind::ListenerReport(Box::new(report)));
    }
    play.ticks_until(6000);
    refuse(&mut play, 7000, 4, false);
    play.ticks_until(9000);
    assert_eq!((play.only().cause, play.only().confidence), ("reject", Confidence::Likely));
}
