//! A report says what the events say.

use crate::output::json::report_lines;
use jiff::tz::TimeZone;

use crate::event::{
    Endpoints, Event, Family, How, Kind, ListenerRef, ListenerSample, ListenerTotals, PortRange,
    PortReleased, PortSurvey, PortTaken, PortUse, ProcessInfo, SampleSource, SocketOptions, Task, Timestamp,
};
use crate::record::{Condition, Mark, Metadata};

use super::{Across, Digest, PortQuestion, Report, html, markdown, text};

const HOSTILE: &str = "<script>\u{1b}[2J&\"'";

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + second * 1_000_000_000)
}

fn task(pid: u32, comm: &str) -> Task {
    Task { pid, tid: pid, comm: comm.into(), ..Task::default() }
}

fn ends(local: &str, remote: Option<&str>) -> Endpoints {
    Endpoints {
        netns: 1,
        family: Family::V4,
        local: local.parse().unwrap(),
        remote: remote.map(|remote| remote.parse().unwrap()),
        device: 0,
    }
}

fn sample(second: u64, depth: u32, drops: u64) -> Event {
    let totals = ListenerTotals {
        syn_drops_accept_queue: Some(drops),
        accepted: Some(second * 10),
        depth_max: Some(depth),
        ..ListenerTotals::ZERO
    };
    let sample = ListenerSample {
        endpoints: ends("10.0.0.1:80", None),
        listener: ListenerRef { sk: 9, inode: 7, depth, limit: 20, syn_queue: 0 },
        source: SampleSource::Observed,
        totals,
        waits: None,
        handshakes: None,
    };
    Event { time: at(second), kind: Kind::ListenerSample(Box::new(sample)) }
}

fn taken(second: u64, pid: u32, comm: &str, sk: u64) -> Event {
    let taken = PortTaken {
        endpoints: ends("10.0.0.1:35010", Some("10.0.0.9:443")),
        task: task(pid, comm),
        sk,
        how: How::Connect,
        options: SocketOptions::NONE,
    };
    Event { time: at(second), kind: Kind::PortTaken(Box::new(taken)) }
}

fn released(second: u64, pid: u32, sk: u64) -> Event {
    let released = PortReleased {
        endpoints: ends("10.0.0.1:35010", Some("10.0.0.9:443")),
        sk,
        held_ns: 1,
        pid,
        comm: "".into(),
        how: How::Connect,
        time_wait: false,
    };
    Event { time: at(second), kind: Kind::PortReleased(Box::new(released)) }
}

fn report(events: &[Event], from: Option<u64>, to: Option<u64>, question: Option<(u16, u64)>) -> Report {
    let question = question.map(|(port, second)| PortQuestion { port, at: Some((at(second), at(second))) });
    let mut digest = Digest::new(from.map(at), to.map(at), question);
    for event in events {
        if !digest.note(event) {
            break;
        }
    }
    digest.finish()
}

#[test]
fn counts_are_those_of_the_time_asked_for() {
    let events: Vec<Event> = (0..20).map(|second| sample(second, 3, second * 5)).collect();
    let all = report(&events, None, None, None);
    assert_eq!(all.listeners[0].syn_drops, Some(95));
    assert_eq!(all.listeners[0].accepted, Some(190));
    let part = report(&events, Some(5), Some(9), None);
    assert_eq!(part.listeners[0].syn_drops, Some(25));
    assert_eq!(part.listeners[0].accepted, Some(50));
    assert_eq!(part.listeners[0].series.bins.iter().map(|bin| bin.drops).sum::<u64>(), 25);
}

#[test]
fn a_port_s_holder_is_found_by_time() {
    let events = [
        taken(1, 11, "first", 1),
        released(5, 11, 1),
        taken(7, 22, "second", 2),
        released(8, 22, 2),
        taken(9, 33, "third", 3),
    ];
    let who = |second| {
        let (_, holdings) = report(&events, None, None, Some((35010, second))).holdings.unwrap();
        holdings.into_iter().map(|of| of.comm.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(who(0), [""; 0]);
    assert_eq!(who(3), ["first"]);
    assert_eq!(who(6), [""; 0]);
    assert_eq!(who(7), ["second"]);
    assert_eq!(who(20), ["third"]);
    let (_, nobody) = report(&events, None, None, Some((35011, 3))).holdings.unwrap();
    assert!(nobody.is_empty());
}

#[test]
fn ports_in_use_are_counted_by_process() {
    let events = [taken(1, 11, "client", 1), taken(2, 11, "client", 2), released(3, 11, 1)];
    let report = report(&events, None, None, None);
    let user = &report.users[0];
    assert_eq!((user.taken, user.released, user.held_max), (2, 1, 2));
    assert_eq!((report.destinations[0].connects, report.destinations[0].processes), (2, 1));
}

/// Without `--all` no port is recorded one by one: what the tracer sums up every second says how many there are.
#[test]
fn ports_in_use_are_known_from_sums_too() {
    let using = |second: u64, by_connect: u64, released: u64| {
        let usage = PortUse {
            netns: 1,
            pid: 11,
            comm: "client".to_owned(),
            since: at(1),
            by_connect,
            released,
            refused: second / 9,
            ..PortUse::default()
        };
        Event { time: at(second), kind: Kind::PortUse(Box::new(usage)) }
    };
    let survey = PortSurvey {
        netns: 1,
        range: PortRange { first: 32_768, last: 60_999 },
        capacity: 28_232,
        in_use: 40,
        ..PortSurvey::default()
    };
    let events = [
        using(1, 10, 0),
        using(2, 50, 10),
        Event { time: at(3), kind: Kind::PortSurvey(Box::new(survey)) },
        using(9, 60, 55),
    ];
    let all = report(&events, None, None, None);
    let user = &all.users[0];
    assert_eq!((user.taken, user.ephemeral, user.released, user.refused), (60, 60, 55, 1));
    assert_eq!(user.held_max, 40);
    let levels: Vec<_> = user.series.bins.iter().filter_map(|bin| bin.level).collect();
    assert_eq!(levels, [10, 40, 5]);
    assert_eq!((all.port_spaces[0].in_use_max, all.port_spaces[0].in_use_max_at), (40, at(3)));
    let part = report(&events, Some(2), None, None);
    assert_eq!((part.users[0].taken, part.users[0].released), (50, 55));
    let page = text(&Metadata::default(), &Condition::default(), &all, &TimeZone::UTC, 100).to_string();
    assert!(page.contains("40 of the 28232 ephemeral ports (32768-60999) in use"), "{page}");
}

/// Names that want to be markup, move a terminal or break a line stay text in every form.
#[test]
fn hostile_names_are_harmless_everywhere() {
    let info = ProcessInfo {
        pid: 11,
        comm: HOSTILE.to_owned(),
        command: Some(HOSTILE.to_owned()),
        container: Some(HOSTILE.to_owned()),
        ..ProcessInfo::default()
    };
    let events = [
        Event { time: at(0), kind: Kind::ProcessInfo(Box::new(info)) },
        taken(1, 11, HOSTILE, 1),
        sample(2, 21, 5),
        sample(3, 21, 9),
    ];
    let report = report(&events, None, None, Some((35010, 2)));
    let metadata =
        Metadata { host: HOSTILE.to_owned(), command: Some(vec![HOSTILE.to_owned()]), ..Metadata::default() };
    let what = HOSTILE.to_owned();
    let mark = Mark { file: None, what, missing: true, events: None, seconds: None, from: None, to: None };
    let damage = Condition { marks: vec![mark] };
    let sections = [(&metadata, &damage, &report)];
    let page = html(&sections, &Across::default(), &TimeZone::UTC, at(99));
    assert_eq!(page.matches("<script>").count(), 1, "only our own");
    let pasted = markdown(&sections, &Across::default(), &TimeZone::UTC);
    assert!(!pasted.contains('\u{1b}'));
    // In code, as the recorded command is, it is no markup.
    assert!(pasted.contains("While this ran: `<script>"), "{pasted}");
    assert_eq!(pasted.matches("<script>").count(), 1, "{pasted}");
    assert!(!page.contains('\u{1b}'));
    assert!(!text(&metadata, &damage, &report, &TimeZone::UTC, 100).to_string().contains('\u{1b}'));
    for (_, line) in report_lines(&metadata, &damage, &report) {
        let line = crate::output::json::testing::text(line);
        assert!(!line.contains('\u{1b}') && !line.contains('\n'));
    }
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    let events: Vec<Event> = (0..20).map(|second| sample(second, 3, second * 5)).collect();
    let page = html(
        &[(&Metadata::default(), &Condition::default(), &report(&events, None, None, None))],
        &Across::default(),
        &TimeZone::UTC,
        at(99),
    );
    for outside in ["src=", "href=", "http", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("<svg"));
}
