use crate::event::{ConnectResult, ConnectTotals, Kind};
use crate::finding::testing::{Play, connect, ms};

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
fn one_refusal_now_and_then_is_no_finding() {
    let mut play = Play::new(4096);
    for nth in 1..=10 {
        refuse(&mut play, nth * 31_000, nth, false);
    }
    play.ticks_until(320_000);
    assert!(play.findings.is_empty());
}
