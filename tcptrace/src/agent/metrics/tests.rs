use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::Status;
use super::listeners::Buckets;
use super::*;
use crate::event::{Acceptor, ListenerTotals};
use crate::finding::testing::{Play, Server, task};

/// Every series that there can be, with a hostile name.
fn full() -> Snapshot {
    let totals = ListenerTotals {
        retransmits_unknown: Some(3),
        wait_total_ns: Some(5_000_000_000),
        ..ListenerTotals::ZERO
    };
    let hostile = "x\"\\\n} 1\n# EOF\u{202e}".to_owned();
    let labels = ListenerLabels {
        address: "0.0.0.0".into(),
        port: "80".into(),
        process: hostile.clone(),
        container: "pod".into(),
        netns: "7".into(),
    };
    let mut row = ListenerRow::default();
    (row.totals, row.inferred, row.waits) = (totals, 2, Some([1; 11]));
    (row.sockets, row.limit, row.half_open) = (1, Some(5), Some(1));
    let user = UserLabels { process: hostile, container: String::new(), netns: "7".into() };
    let range =
        RangeRow { capacity: Some(100), in_use: Some(3), seconds_left: Some(1.5), ..RangeRow::default() };
    Snapshot {
        listeners: [(labels, row)].into(),
        users: [(user, PortRow::default())].into(),
        ranges: [(NetnsLabel("7".into()), range)].into(),
        connects: [(NetnsLabel("7".into()), ConnectRow::default())].into(),
        overflow: vec![("listener", 0)],
        findings: vec![("port-leak", 1)],
        findings_open: [(("port-leak", "warning"), 1)].into(),
        untold: vec![("port-leak", 1)],
        events: vec![("accept", 4)],
        lost: vec![("syn-drop".into(), "ring", 9)],
        forgotten: vec![("listeners", 1)],
        observations: vec![("accept".into(), "attached")],
        kernel: "6.18".into(),
        tier: "fexit",
        reconciliation: vec![("exact", 1)],
        cost: Cost {
            processor: std::time::Duration::from_millis(1500),
            memory: Some(4096),
            programs: Some((std::time::Duration::from_micros(7), 3)),
        },
    }
}

fn page() -> String {
    open_metrics(full(), &Arc::new(Status::default()))
}

#[test]
fn a_hostile_name_stays_inside_its_label() {
    let page = page();
    let hostile = r#"process="x\"\\\\n} 1\\n# EOF\\u{202e}""#;
    assert!(page.lines().any(|line| line.contains(hostile) && line.ends_with(" 1")), "{page}");
    assert_eq!(page.matches("# EOF\n").count(), 1);
    assert!(page.ends_with("# EOF\n"));
    assert!(!page.chars().any(|of| crate::output::is_harmful(of) && of != '\n'));
}

#[test]
fn the_older_format_names_families_as_their_samples() {
    let classic = classic(&page());
    for line in
        ["# HELP tcptrace_findings_total Findings that were opened", "# TYPE tcptrace_findings_total counter"]
    {
        assert!(classic.contains(line), "{line}: {classic}");
    }
    assert!(!classic.contains("EOF\n"));
    let families: BTreeSet<&str> = classic
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    for sample in classic.lines().filter(|line| !line.starts_with('#')) {
        let name = sample.split(['{', ' ']).next().unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(families.contains(name) || of_histogram.is_some_and(|of| families.contains(of)), "{sample}");
    }
}

#[test]
fn the_histogram_is_cumulative_and_ends_with_all() {
    let page = page();
    let bucket = |le: &str| {
        let line = page
            .lines()
            .find(|line| line.contains("_bucket") && line.contains(&format!("le=\"{le}\"")))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((bucket("0.000065536"), bucket("17.179869184"), bucket("+Inf")), (1, 10, 11));
    assert!(page.contains("accept_wait_seconds_sum") && page.contains(" 5.0\n"));
}

#[test]
fn what_is_not_observed_has_no_number() {
    let mut snapshot = full();
    for row in snapshot.listeners.values_mut() {
        row.totals = ListenerTotals { accepted: Some(4), ..ListenerTotals::default() };
        (row.waits, row.inferred, row.limit) = (None, 0, None);
    }
    let page = open_metrics(snapshot, &Arc::new(Status::default()));
    assert!(page.contains("tcptrace_listener_accepts_total{"));
    for absent in ["tcptrace_listener_drops", "tcptrace_listener_arrivals", "accept_wait", "queue_limit"] {
        assert!(!page.contains(absent), "{absent}");
    }
}

const PLACES: [&str; 6] =
    ["0.0.0.0:8000", "0.0.0.0:8001", "0.0.0.0:8002", "0.0.0.0:8003", "0.0.0.0:8004", "[::]:8005"];

/// So many listeners, the first of which has accepted one connection, the next two, and so on.
fn world_of(listeners: usize) -> Play {
    let mut play = Play::new(4096);
    for (number, place) in PLACES.iter().take(listeners).enumerate() {
        let number = u32::try_from(number).unwrap();
        let mut server = Server::new(0x1000 + u64::from(number), place, 16);
        server.listen(&mut play, task(100 + number, "server"), Some(16), 4096);
        for _ in 0..=number {
            server.client();
            server.accept(10, Acceptor { pid: 100 + number, tid: 100 + number }, 5);
        }
        play.send(20, server.sample());
    }
    play.tick(1000);
    play
}

#[test]
fn listeners_that_are_too_many_share_one_row_and_nothing_is_counted_twice() {
    let play = world_of(6);
    let mut meter = ListenerMeter::new(4);
    meter.fold(play.engine.world());
    meter.fold(play.engine.world());
    let rows = meter.rows();
    assert_eq!((rows.len(), meter.overflow()), (5, 2), "{rows:?}");
    let accepted: u64 = rows.values().filter_map(|row| row.totals.accepted).sum();
    assert_eq!(accepted, 1 + 2 + 3 + 4 + 5 + 6);
    assert!(rows.keys().any(|labels| labels.process == OTHER));
    assert_eq!(rows.values().map(|row| row.sockets).sum::<u64>(), 6);
    let waited: u64 = rows.values().filter_map(|row| row.waits).flatten().sum();
    assert_eq!(waited, accepted);
}

#[test]
fn a_listener_in_trouble_gets_a_name_when_all_rows_are_taken() {
    let mut play = world_of(5);
    let mut meter = ListenerMeter::new(4);
    meter.fold(play.engine.world());
    assert!(meter.rows().keys().all(|labels| labels.port != "9000"));
    let mut server = Server::new(0x9000, "0.0.0.0:9000", 1);
    server.listen(&mut play, task(900, "late"), Some(1), 4096);
    for _ in 0..4 {
        if server.client() {
            play.send(1500, server.syn_drop());
        }
    }
    play.send(1600, server.sample());
    play.ticks_until(4000);
    meter.fold(play.engine.world());
    let rows = meter.rows();
    let (_, row) = rows.iter().find(|(labels, _)| labels.port == "9000").expect("it is in trouble");
    assert_eq!(row.totals.syn_drops_accept_queue, Some(2));
    assert_eq!(rows.len(), 6, "four, the troubled one, and that of the others");
}

#[test]
fn a_row_of_nothing_makes_room() {
    let mut play = world_of(4);
    let mut meter = ListenerMeter::new(4);
    meter.fold(play.engine.world());
    let gone = Server::new(0x1000, PLACES[0], 16);
    play.send(2000, gone.closed(task(100, "server")));
    play.ticks_until(3000);
    meter.fold(play.engine.world());
    play.ticks_until(9000);
    meter.fold(play.engine.world());
    let new = Server::new(0x7000, "0.0.0.0:7000", 16);
    new.listen(&mut play, task(700, "new"), Some(16), 4096);
    play.ticks_until(10_000);
    meter.fold(play.engine.world());
    let rows = meter.rows();
    assert!(rows.keys().any(|labels| labels.port == "7000"), "{rows:?}");
    assert!(rows.keys().all(|labels| labels.port != "8000"), "{rows:?}");
    assert_eq!((rows.len(), meter.overflow()), (4, 0));
}

#[test]
fn a_counter_does_not_fall_when_its_listener_has_gone() {
    let play = world_of(1);
    let mut meter = ListenerMeter::new(4);
    meter.fold(play.engine.world());
    let gone = Play::new(4096);
    meter.fold(gone.engine.world());
    let rows = meter.rows();
    let (labels, row) = rows.iter().next().unwrap();
    assert_eq!((row.totals.accepted, row.sockets, row.depth), (Some(1), 0, 0));
    assert_eq!((labels.address.as_str(), labels.port.as_str()), ("0.0.0.0", "8000"));
    assert_eq!((labels.process.as_str(), labels.netns.as_str()), ("server", "4026531840"));
}

#[test]
fn the_numbers_are_those_of_the_summary() {
    let play = world_of(3);
    let costs = ProgramCosts::none();
    let snapshot = Meter::new(Bounds::default(), costs).snapshot(&play.engine);
    let summary = crate::output::Summary::of(&play.engine);
    let events: Vec<(String, u64)> =
        snapshot.events.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    assert_eq!(events, summary.events.0);
    let opened = snapshot.findings.iter().filter(|(_, count)| *count > 0);
    let opened: Vec<(String, u64)> = opened.map(|(code, count)| ((*code).to_owned(), *count)).collect();
    assert_eq!(opened, summary.findings.0);
    assert!(snapshot.findings.len() > 15, "every code has its number: {:?}", snapshot.findings);
}

#[test]
fn buckets_have_the_bounds_of_the_kernels() {
    let waits = crate::event::Distribution::from_buckets([(1, 1), (1 << 16, 2), ((1 << 34) + 5, 4)]);
    let mut expected = Buckets::default();
    (expected[0], expected[1], expected[10]) = (1, 2, 4);
    assert_eq!(listeners::buckets_of(&waits), expected);
}

/// What is shipped for Prometheus and Grafana asks for series that there are.
#[test]
fn rules_and_dashboard_ask_for_series_that_there_are() {
    let classic = classic(&page());
    let mut names: BTreeSet<&str> = classic
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    names.extend(["up"]);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent");
    for file in ["alerts.yaml", "dashboard.json"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let words = text.split(|of: char| !(of.is_ascii_alphanumeric() || of == '_'));
        let asked: BTreeSet<&str> =
            words.filter(|word| word.starts_with("tcptrace_") || word.starts_with("process_")).collect();
        assert!(asked.len() >= 8, "{file}: {asked:?}");
        for name in asked {
            assert!(names.contains(name), "{file} asks for {name}, and there is none");
        }
    }
    let dashboard = std::fs::read_to_string(root.join("dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().iter().all(|panel| panel["title"].is_string()));
}

/// The page names every family, and the page is not of another release.
#[test]
fn the_page_lists_every_metric() {
    let page = page();
    let written =
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent.md"))
            .unwrap();
    for line in classic(&page).lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(written.contains(&format!("`{name}`")), "docs/agent.md does not name {name}");
    }
}
