//! The tables of a report: said once, for each form that prints them. Text and Markdown take the brief form.

use std::collections::BTreeMap;

use crate::finding::words::netns;

use super::when::When;
use super::{PortSpace, PortUser, Report};

/// So many rows of each table are in the brief form; all of them are in JSON and HTML.
const ROWS: usize = 20;
/// More processes of one name than this are one row of the brief form.
const ALIKE: usize = 3;

/// How much of a table is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    Brief,
    Full,
}

/// A table.
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
    /// What is said below it.
    pub(super) notes: Vec<String>,
}

/// A column: its name, and whether it is in the brief form.
type Column = (&'static str, bool);

impl Table {
    fn new(title: &'static str, columns: &[Column], rows: Vec<Vec<String>>, detail: Detail) -> Self {
        let brief = detail == Detail::Brief;
        let is_wanted = |column: usize| !brief || columns.get(column).is_some_and(|(_, in_brief)| *in_brief);
        let cut = |row: Vec<String>| {
            let cells = row.into_iter().enumerate().filter(|(column, _)| is_wanted(*column));
            cells.map(|(_, cell)| cell).collect()
        };
        let left_out = if brief { rows.len().saturating_sub(ROWS) } else { 0 };
        let shown = rows.len() - left_out;
        let notes = match left_out {
            0 => Vec::new(),
            1 => vec!["1 more row is in --json and --html".to_owned()],
            more => vec![format!("{more} more rows are in --json and --html")],
        };
        let head = columns.iter().filter(|(_, in_brief)| !brief || *in_brief).map(|(name, _)| *name);
        Self { title, head: head.collect(), rows: rows.into_iter().take(shown).map(cut).collect(), notes }
    }
}

/// Whether a cell is a number, or says that there is none.
pub(super) fn is_number(cell: &str) -> bool {
    cell == "-" || cell.parse::<f64>().is_ok()
}

/// Listeners that had anything to do; in full, the others as well.
pub(super) fn listeners(report: &Report, detail: Detail) -> Table {
    const COLUMNS: [Column; 16] = [
        ("address", true),
        ("owner", true),
        ("container", false),
        ("netns", false),
        ("queue", true),
        ("limit", true),
        ("SYNs", false),
        ("SYN drops", true),
        ("ACK drops", true),
        ("sk_drops", true),
        ("SYN queue drops", false),
        ("SYN-ACKs again", false),
        ("accepted", true),
        ("wait p50 ms", true),
        ("p99", true),
        ("max", true),
    ];
    let time = |of: Option<f64>| milliseconds(of, if detail == Detail::Brief { 1 } else { 2 });
    let wanted = |quiet: bool| detail == Detail::Full || !quiet;
    let rows = report
        .listeners
        .iter()
        .filter(|of| wanted(of.series.is_quiet()))
        .map(|of| {
            vec![
                of.address.to_string(),
                of.owner(),
                of.container.clone().unwrap_or_default(),
                of.netns.to_string(),
                of.queue_max.to_string(),
                of.queue_limit.to_string(),
                number(of.syns),
                number(of.syn_drops),
                number(of.ack_drops),
                number(of.socket_drops),
                number(of.syn_queue_drops),
                number(of.synack_retransmits),
                number(of.accepted),
                time(of.wait_p50_ms),
                time(of.wait_p99_ms),
                time(of.wait_max_ms),
            ]
        })
        .collect();
    let mut table = Table::new("Listeners", &COLUMNS, rows, detail);
    let quiet = report.listeners.iter().filter(|of| of.series.is_quiet()).count();
    if quiet > 0 && detail == Detail::Brief {
        table.notes.push(format!("{quiet} more listeners had nothing to do"));
    }
    table
}

/// Who took ports. In brief, many short-lived processes of one name are one row.
pub(super) fn ports(report: &Report, when: When<'_>, detail: Detail) -> Table {
    const COLUMNS: [Column; 8] = [
        ("process", true),
        ("pid", false),
        ("taken", true),
        ("ephemeral", true),
        ("given back", true),
        ("TIME_WAIT", true),
        ("refused", true),
        ("held at most", true),
    ];
    let rows = match detail {
        Detail::Full => report.users.iter().map(|of| user(of.comm.clone(), of)).collect(),
        Detail::Brief => by_name(&report.users),
    };
    let mut table = Table::new("Ports", &COLUMNS, rows, detail);
    table.notes.extend(report.port_spaces.iter().map(|of| port_space(report, of, when)));
    table
}

fn user(process: String, of: &PortUser) -> Vec<String> {
    let counts = [of.taken, of.ephemeral, of.released, of.time_wait, of.refused, of.held_max];
    [process, of.pid.to_string()].into_iter().chain(counts.map(|count| count.to_string())).collect()
}

fn by_name(users: &[PortUser]) -> Vec<Vec<String>> {
    let mut named: BTreeMap<&str, Vec<&PortUser>> = BTreeMap::new();
    for of in users {
        named.entry(&of.comm).or_default().push(of);
    }
    // A name's place is that of its first process, which took the most.
    let mut rows = Vec::new();
    for of in users {
        match named.get(of.comm.as_str()) {
            Some(all) if all.len() <= ALIKE => rows.push(user(format!("{}[{}]", of.comm, of.pid), of)),
            Some(_) => rows.extend(named.remove(of.comm.as_str()).map(|all| together(&all))),
            None => {}
        }
    }
    rows
}

/// `curl (143 processes)`. How much all of them held at the same time is not known.
fn together(all: &[&PortUser]) -> Vec<String> {
    let sum =
        |of: fn(&PortUser) -> u64| all.iter().map(|user| of(user)).fold(0, u64::saturating_add).to_string();
    let comm = all.first().map(|of| of.comm.as_str()).unwrap_or_default();
    vec![
        format!("{comm} ({} processes)", all.len()),
        "-".to_owned(),
        sum(|of| of.taken),
        sum(|of| of.ephemeral),
        sum(|of| of.released),
        sum(|of| of.time_wait),
        sum(|of| of.refused),
        "-".to_owned(),
    ]
}

/// What a namespace had of ephemeral ports, in words.
fn port_space(report: &Report, of: &PortSpace, when: When<'_>) -> String {
    format!(
        "{}: {} of the {} ephemeral ports ({}-{}) in use at {}, {} in TIME_WAIT at most",
        netns(of.netns, report.netns_names.get(&of.netns).map(String::as_str)),
        of.in_use_max,
        of.capacity,
        of.first,
        of.last,
        when.second(of.in_use_max_at),
        of.time_wait_max
    )
}

/// Where connections were made to.
pub(super) fn destinations(report: &Report, detail: Detail) -> Table {
    const COLUMNS: [Column; 9] = [
        ("remote", true),
        ("connects", true),
        ("retried", true),
        ("refused", true),
        ("failed", true),
        ("longest ms", true),
        ("first process", true),
        ("pid", false),
        ("processes", true),
    ];
    let row = |of: &super::Destination| {
        let process = match detail {
            Detail::Brief => format!("{}[{}]", of.comm, of.pid),
            Detail::Full => of.comm.clone(),
        };
        vec![
            of.remote.to_string(),
            of.connects.to_string(),
            of.unanswered.to_string(),
            of.refused.to_string(),
            of.failed.to_string(),
            milliseconds(of.longest_ms, 1),
            process,
            of.pid.to_string(),
            of.processes.to_string(),
        ]
    };
    Table::new("Destinations", &COLUMNS, report.destinations.iter().map(row).collect(), detail)
}

/// Whose SYN-ACKs stayed unanswered.
pub(super) fn networks(report: &Report, detail: Detail) -> Table {
    const COLUMNS: [Column; 3] = [("network", true), ("sent again", true), ("expired", true)];
    let rows = report
        .networks
        .iter()
        .map(|of| vec![of.network.clone(), of.retransmits.to_string(), number(of.expired)])
        .collect();
    Table::new("Unanswered SYN-ACKs by network", &COLUMNS, rows, detail)
}

fn number(of: Option<u64>) -> String {
    of.map_or_else(|| "-".to_owned(), |of| of.to_string())
}

fn milliseconds(of: Option<f64>, digits: usize) -> String {
    of.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.digits$}"))
}
