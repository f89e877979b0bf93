//! What only grows is a leak; pools, turnover and little ones are not.

use crate::event::{Kind, PortUse, Timestamp};
use crate::finding::testing::{NETNS, Play, START};
use crate::finding::{Confidence, State};

/// Every second `taken` and `released` more, for so many seconds.
fn play(per_second: &[(u64, u64)]) -> Play {
    let mut play = Play::new(128);
    let mut latest = PortUse {
        netns: NETNS,
        pid: 8,
        comm: "leaker".into(),
        since: Timestamp::from_nanos(START),
        ..PortUse::default()
    };
    for (second, (taken, released)) in (1..).zip(per_second) {
        latest.by_connect += taken;
        latest.released += released;
        play.send(second * 1000, Kind::PortUse(Box::new(latest.clone())));
        play.tick(second * 1000);
    }
    play
}

#[test]
fn what_only_grows_is_told_before_the_end() {
    // A quarter of 28232 ports is reached in the eighth second.
    let play = play(&[(1000, 0); 9]);
    let finding = play.only();
    assert_eq!((finding.state, finding.cause), (State::Updated, "not-closing"));
    assert_eq!(finding.confidence, Confidence::Likely);
    assert_eq!(finding.subject.process.as_ref().unwrap().pid, Some(8));
    let json = Play::json(finding);
    assert_eq!(
        (&json["evidence"]["ports"], &json["evidence"]["growth_per_min"]),
        (&9000.into(), &60_000.0.into())
    );
    // 28232 less 9000 at 1000 a second.
    assert_eq!(json["evidence"]["left_s"], 19.2);
}

#[test]
fn the_forecast_has_an_error() {
    let play = play(&[(1000, 0), (3000, 0), (200, 0), (2500, 0), (100, 0), (2200, 0), (900, 0)]);
    let json = Play::json(play.only());
    let seconds = |name: &str| json["evidence"][name].as_f64().unwrap();
    assert!(seconds("left_min_s") < seconds("left_s"), "{json}");
    assert!(seconds("left_max_s") > seconds("left_s"), "{json}");
}

#[test]
fn a_pool_that_is_full_and_turnover_are_none() {
    assert!(play(&[(9000, 0), (50, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]).findings.is_empty());
    assert!(play(&[(3000, 1500); 12]).findings.is_empty());
    // Little enough to be anything, yet.
    assert!(play(&[(10, 0); 60]).findings.is_empty());
}

#[test]
fn a_slow_one_is_told_after_ten_minutes() {
    let play = play(&[(3, 0); 620]);
    let json = Play::json(play.only());
    let per_minute = json["evidence"]["growth_per_min"].as_f64().unwrap();
    assert!((per_minute - 180.0).abs() < 1.0, "{per_minute}");
}
