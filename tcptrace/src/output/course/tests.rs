//! How often, and what.

use super::*;
use crate::finding::testing::{Play, Server, ms, task};

/// An overflow that goes on for so many seconds, and its end.
fn overflow(seconds: u64) -> Play {
    let mut play = Play::new(4096);
    let mut server = Server::new(100, "0.0.0.0:1080", 20);
    server.listen(&mut play, task(6039, "delegated"), Some(20), 4096);
    for second in 0..seconds {
        let from = second * 1000;
        server.run(&mut play, 14, from + 125, from + 900);
        play.counters(server.overflows());
        play.tick(from + 999);
    }
    play.end();
    play
}

fn tales(play: &Play) -> Vec<(Duration, State, Tale<'_>)> {
    let mut course = Course::default();
    let opened = play.findings.first().expect("a finding").time;
    let tell = |finding: &Finding| finding.time.since(opened);
    let of = |finding| (tell(finding), finding.state);
    play.findings.iter().map(|finding| (of(finding).0, of(finding).1, course.next(finding))).collect()
}

#[test]
fn a_finding_is_told_whole_once_and_its_numbers_ever_more_seldom() {
    let play = overflow(45);
    let tales = tales(&play);
    let whole = tales.iter().filter(|(_, _, tale)| matches!(tale, Tale::Whole { .. })).count();
    assert_eq!(whole, 1);
    assert!(matches!(tales[0].2, Tale::Whole { page: true, as_for } if as_for == AsFor::default()));
    let numbers_only = |tale: &Tale<'_>| matches!(tale, Tale::Changed(changes) if !changes.is_urgent());
    let told: Vec<u64> = tales
        .iter()
        .filter(|(_, state, tale)| *state == State::Updated && numbers_only(tale))
        .map(|(life, ..)| life.as_secs())
        .collect();
    assert!(told.len() <= 3, "{told:?}");
    assert!(told.iter().all(|life| [0, 1, 4, 5, 29, 30].contains(life)), "{told:?}");
    let (life, _, Tale::Changed(last)) = tales.last().unwrap() else { panic!("{tales:?}") };
    assert_eq!(last.closed, Some(*life));
    assert!(!last.numbers.is_empty());
}

/// The remedy is told again only if it is another; what is added to it is told alone.
#[test]
fn what_is_added_is_told_alone_with_the_next_numbers() {
    let play = overflow(8);
    let mut finding = play.findings[0].clone();
    let mut course = Course::default();
    assert_eq!(course.next(&finding), Tale::Whole { page: true, as_for: AsFor::default() });
    finding.state = State::Updated;
    finding.time = finding.time.after(Duration::from_millis(1100));
    finding.explanation.push_str(". Accepts are too slow for any backlog");
    finding.remedy.push(Remedy::text("add workers: 1 thread accepts 8/s against 71/s arriving"));
    let Tale::Changed(changes) = course.next(&finding) else { panic!() };
    assert_eq!(changes.cause, Some(Cause::More("Accepts are too slow for any backlog")));
    assert_eq!(changes.remedies, [finding.remedy.last().unwrap()]);
    // Other amounts are no other remedy.
    finding.time = finding.time.after(Duration::from_millis(100));
    finding.remedy.pop();
    finding.remedy.push(Remedy::text("add workers: 1 thread accepts 3.2/s against 158/s arriving"));
    assert_eq!(course.next(&finding), Tale::Nothing);
    // What only goes may come back: it is taken back at the end.
    let gone = finding.remedy.remove(0);
    assert_eq!(course.next(&finding), Tale::Nothing);
    finding.state = State::Closed;
    let Tale::Changed(changes) = course.next(&finding) else { panic!() };
    assert_eq!(changes.remedies.len(), finding.remedy.len());
    assert!(!changes.remedies.contains(&&gone));
}

/// Advice in the same words is given once; another finding of the kind, or of another cause, has its own.
#[test]
fn the_same_advice_is_given_once() {
    let play = overflow(1);
    let first = play.findings[0].clone();
    let mut course = Course::default();
    assert_eq!(course.next(&first), Tale::Whole { page: true, as_for: AsFor::default() });
    let mut second = first.clone();
    second.id = 2;
    second.remedy[0].command = Some("another port".to_owned());
    assert_eq!(
        course.next(&second),
        Tale::Whole { page: false, as_for: AsFor { what: Some(first.id), not: Some(first.id) } }
    );
    second.id = 3;
    second.remedy[0].text.push_str(", or so");
    let what_not_alone = AsFor { what: None, not: Some(first.id) };
    assert_eq!(course.next(&second), Tale::Whole { page: false, as_for: what_not_alone });
    second.id = 4;
    second.cause = "somaxconn";
    assert_eq!(course.next(&second), Tale::Whole { page: false, as_for: AsFor::default() });
}

#[test]
fn another_cause_or_confidence_or_severity_is_told_at_once() {
    let play = overflow(2);
    let first = play.findings[0].clone();
    let told = |change: &dyn Fn(&mut Finding)| {
        let mut course = Course::default();
        course.next(&first);
        let mut next = first.clone();
        next.state = State::Updated;
        next.time = ms(0).after(Duration::from_millis(600));
        change(&mut next);
        match course.next(&next) {
            Tale::Changed(changes) => {
                (changes.cause.is_some() || changes.confidence.is_some(), changes.severity)
            }
            _ => (false, None),
        }
    };
    assert_eq!(told(&|_| {}), (false, None));
    assert_eq!(told(&|finding| finding.cause = "somaxconn"), (true, None));
    assert_eq!(told(&|finding| finding.confidence = Confidence::Possible), (true, None));
    let milder = told(&|finding| finding.severity = Severity::Info);
    assert_eq!(milder, (false, Some(Severity::Info)));
}

#[test]
fn amounts_are_not_told_apart_and_names_are() {
    for (one, other) in [
        ("no process has accepted for 6.5 s while", "no process has accepted for 900 ms while"),
        ("1 thread accepts 3.2/s", "2 threads accepts 17/s"),
    ] {
        assert!(alike(one, other), "{one} | {other}");
    }
    for (one, other) in [
        ("kill 7; nginx[12] stops", "kill 7; nginx[13] stops"),
        ("held by 10.0.0.1:80", "held by 10.0.0.1:81"),
        ("no process accepts", "every process accepts"),
    ] {
        assert!(!alike(one, other), "{one} | {other}");
    }
}

#[test]
fn a_clause_ends_at_a_semicolon_outside_of_parentheses() {
    let split = |line: &'static str| clauses(line).collect::<Vec<_>>();
    assert_eq!(split("a; b (c; d) e; f"), ["a", "b (c; d) e", "f"]);
    assert_eq!(split("a;b"), ["a;b"]);
    assert_eq!(split(""), [""]);
}

/// With many findings open, numbers that only go on changing are told at the same moments, and each of them is told.
#[test]
fn in_a_crowd_numbers_are_told_together() {
    let first = overflow(1).findings[0].clone();
    let mut course = Course::default();
    let at = |id: u64, half_seconds: u64, state: State| {
        let time = first.time.after(Duration::from_millis(500 * half_seconds));
        Finding { id, time, state, numbers: vec![format!("{half_seconds} waiting")], ..first.clone() }
    };
    // Five findings, each half a second after the one before, and updates of all of them for ten seconds.
    let mut told: Vec<(u64, u64)> = Vec::new();
    for now in 0..20 {
        for id in 0..5.min(now + 1) {
            let finding = at(id, now, if now == id { State::Opened } else { State::Updated });
            if let Tale::Changed(_) = course.next(&finding) {
                told.push((now, id));
            }
        }
    }
    let mut moments: Vec<u64> = told.iter().map(|(now, _)| *now).collect();
    moments.dedup();
    assert!(moments.len() <= 4, "{told:?}");
    for id in 0..5 {
        assert!(told.iter().any(|(_, of)| *of == id), "{id}: {told:?}");
    }
    // What is over is told at once, in a crowd as well.
    assert!(matches!(course.next(&at(3, 20, State::Closed)), Tale::Changed(_)));
}

/// A burst of kinds names one page, and a later one its own.
#[test]
fn a_page_is_named_once_in_a_burst() {
    let first = overflow(1).findings[0].clone();
    let mut course = Course::default();
    let page = |course: &mut Course, id: u64, code: &'static str, seconds: u64| {
        let time = first.time.after(Duration::from_secs(seconds));
        matches!(course.next(&Finding { id, code, time, ..first.clone() }), Tale::Whole { page: true, .. })
    };
    assert!(page(&mut course, 1, "accept-queue-overflow", 0));
    assert!(!page(&mut course, 2, "accept-stall", 5));
    assert!(page(&mut course, 3, "accept-stall", 70));
    assert!(!page(&mut course, 4, "accept-stall", 140));
}

/// Advice that is far up is given in full again.
#[test]
fn advice_is_given_again_when_the_first_is_far_up() {
    let first = overflow(1).findings[0].clone();
    let mut course = Course::default();
    let as_for = |course: &mut Course, id: u64, seconds: u64| {
        let time = first.time.after(Duration::from_secs(seconds));
        match course.next(&Finding { id, time, ..first.clone() }) {
            Tale::Whole { as_for, .. } => as_for.what,
            _ => panic!(),
        }
    };
    assert_eq!(as_for(&mut course, 10, 0), None);
    assert_eq!(as_for(&mut course, 11, 599), Some(10));
    assert_eq!(as_for(&mut course, 12, 600), None);
    assert_eq!(as_for(&mut course, 13, 601), Some(12));
}
