//! A report for people: what can be pasted into an incident channel.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use crate::finding::State;
use crate::output::{account, escape};
use crate::record::{Condition, Metadata};

use super::across::{clock_line, stall_lines, told_elsewhere};
use super::when::{When, span};
use super::{Across, PortSpace, Report, Verdict};

/// So many lines of each table are shown; the rest is in JSON and HTML.
const LINES: usize = 20;

/// The text for one recording, ends with a line end, with what is wrong with its files.
pub fn text(metadata: &Metadata, condition: &Condition, report: &Report, zone: &TimeZone) -> String {
    let page = Page { when: When { zone } };
    let mut out = page.heading(metadata, condition, report);
    if let Some((question, holdings)) = &report.holdings {
        let at =
            question.at.map_or_else(|| "at any time".to_owned(), |at| format!("at {}", page.when.moment(at)));
        let _ = writeln!(out, "\nPORT {} {at}", question.port);
        if holdings.is_empty() {
            out.push_str(
                "  nobody is known to have had it. Ports of connections are recorded one by one with record --all only.\n",
            );
        }
        for of in holdings {
            let who = match (&of.comm, of.pid) {
                (Some(comm), Some(pid)) => format!("{}[{pid}]", escape(comm)),
                _ => "unknown process".to_owned(),
            };
            let remote = of.remote.map_or_else(String::new, |remote| format!(" <-> {remote}"));
            let since = if of.since_seen { "since" } else { "seen at" };
            let until = match of.until {
                Some(until) if of.time_wait => format!(" until {}, then TIME_WAIT", page.when.moment(until)),
                Some(until) => format!(" until {}", page.when.moment(until)),
                None => String::new(),
            };
            let _ = writeln!(
                out,
                "  {who} {}{remote} ({}) {since} {}{until}",
                of.local,
                of.how,
                page.when.moment(of.since)
            );
            if let Some(command) = &of.command {
                let _ = writeln!(out, "      {}", escape(command));
            }
        }
    }
    page.verdicts(&mut out, condition, report);
    page.tables(&mut out, report);
    page.limits(&mut out, report);
    out
}

/// What several recordings say together, ends with a line end; empty if there is nothing to say.
pub fn across_text(across: &Across, zone: &TimeZone) -> String {
    let when = When { zone };
    let mut out = String::new();
    if !across.clocks.is_empty() {
        out.push_str("CLOCKS\n");
        for line in across.clocks.iter().filter_map(clock_line) {
            let _ = writeln!(out, "  {}", escape(&line));
        }
    }
    if !across.stalls.is_empty() {
        let _ = writeln!(out, "\nFROM CLIENT TO SERVER: {}", across.stalls.len());
    }
    for (number, stall) in across.stalls.iter().take(LINES).enumerate() {
        let (headline, lines) = stall_lines(stall);
        let _ = writeln!(out, "{}. {}", number + 1, escape(&headline));
        for line in lines {
            let _ = writeln!(out, "    {}", escape(&line));
        }
        for step in &stall.course {
            let _ = writeln!(
                out,
                "      {} {}: {}",
                when.clock(step.time),
                escape(&step.by()),
                escape(&step.what)
            );
        }
    }
    if across.left_out > 0 {
        let _ = writeln!(out, "  left out, because there were too many: {} handshakes", across.left_out);
    }
    out
}

struct Page<'a> {
    when: When<'a>,
}

impl Page<'_> {
    fn heading(&self, metadata: &Metadata, condition: &Condition, report: &Report) -> String {
        let mut out = format!(
            "{}, kernel {}: {} to {} ({}), {} events\n",
            escape(&metadata.host),
            escape(&metadata.kernel),
            self.when.moment(report.from),
            self.when.moment(report.to),
            span(report.from, report.to),
            report.events
        );
        if let Some(command) = &metadata.command {
            let _ = writeln!(out, "while this ran: {}", escape(&command.join(" ")));
        }
        if let Some(shortage) = condition.shortage() {
            let _ = writeln!(out, "! THIS RECORDING IS NOT COMPLETE: {shortage}");
        }
        for mark in condition.marks.iter().take(LINES) {
            let _ = writeln!(out, "! {}", escape(&mark.to_string()));
        }
        if condition.marks.len() > LINES {
            let _ = writeln!(out, "! and {} more of this kind", condition.marks.len() - LINES);
        }
        out
    }

    fn verdicts(&self, out: &mut String, condition: &Condition, report: &Report) {
        if report.verdicts.is_empty() {
            let _ = writeln!(out, "\n{}", nothing(condition, report).to_uppercase());
            return;
        }
        let _ = writeln!(out, "\nFOUND: {}", report.verdicts.len());
        for (number, verdict) in report.verdicts.iter().enumerate() {
            self.verdict(out, number + 1, verdict);
        }
    }

    fn verdict(&self, out: &mut String, number: usize, verdict: &Verdict) {
        let _ = writeln!(
            out,
            "{number}. {} {}  {}\n    {} to {} ({})",
            verdict.worst.name().to_uppercase(),
            verdict.finding.code,
            escape(&verdict.finding.title),
            self.when.clock(verdict.opened),
            self.when.clock(verdict.until),
            span(verdict.opened, verdict.until),
        );
        for line in account(&verdict.finding) {
            let _ = writeln!(out, "{line}");
        }
        for elsewhere in &verdict.elsewhere {
            let _ = writeln!(out, "  there  {}", escape(&told_elsewhere(elsewhere)));
        }
        if verdict.course.len() > 2 {
            for moment in &verdict.course {
                let state = if moment.state == State::Updated { "" } else { moment.state.name() };
                let _ = writeln!(
                    out,
                    "  {:6} {} {} {}: {}",
                    state,
                    self.when.clock(moment.time),
                    moment.severity.name(),
                    moment.cause,
                    escape(&moment.numbers)
                );
            }
        }
    }

    fn tables(&self, out: &mut String, report: &Report) {
        let number = |of: Option<u64>| of.map_or_else(|| "-".to_owned(), |of| of.to_string());
        let time = |of: Option<f64>| of.map_or_else(|| "-".to_owned(), |of| format!("{of:.1}"));
        let mut busy: Vec<_> = report.listeners.iter().filter(|of| !of.series.is_quiet()).collect();
        let quiet = report.listeners.len() - busy.len();
        busy.truncate(LINES);
        if !busy.is_empty() {
            out.push_str("\nLISTENERS\n");
            let head = [
                "address",
                "owner",
                "queue",
                "limit",
                "SYN drops",
                "ACK drops",
                "sk_drops",
                "accepted",
                "wait p50 ms",
                "p99",
                "max",
            ];
            let rows: Vec<Vec<String>> = busy
                .iter()
                .map(|of| {
                    vec![
                        of.address.to_string(),
                        escape(&of.owner()).into_owned(),
                        of.queue_max.to_string(),
                        of.queue_limit.to_string(),
                        number(of.syn_drops),
                        number(of.ack_drops),
                        number(of.socket_drops),
                        number(of.accepted),
                        time(of.wait_p50_ms),
                        time(of.wait_p99_ms),
                        time(of.wait_max_ms),
                    ]
                })
                .collect();
            table(out, &head, &rows);
        }
        if quiet > 0 {
            let _ = writeln!(out, "  {quiet} more listeners had nothing to do");
        }
        if !report.users.is_empty() {
            out.push_str("\nPORTS\n");
            let head =
                ["process", "taken", "ephemeral", "given back", "TIME_WAIT", "refused", "held at most"];
            let rows: Vec<Vec<String>> = report
                .users
                .iter()
                .take(LINES)
                .map(|of| {
                    let mut row = vec![format!("{}[{}]", escape(&of.comm), of.pid)];
                    row.extend(
                        [of.taken, of.ephemeral, of.released, of.time_wait, of.refused, of.held_max]
                            .map(|n| n.to_string()),
                    );
                    row
                })
                .collect();
            table(out, &head, &rows);
        }
        for of in &report.port_spaces {
            let _ = writeln!(out, "  {}", port_space(of, &self.when.clock(of.in_use_max_at)));
        }
        if !report.destinations.is_empty() {
            out.push_str("\nDESTINATIONS\n");
            let head = [
                "remote",
                "connects",
                "retried",
                "refused",
                "failed",
                "longest ms",
                "first process",
                "processes",
            ];
            let rows: Vec<Vec<String>> = report
                .destinations
                .iter()
                .take(LINES)
                .map(|of| {
                    vec![
                        of.remote.to_string(),
                        of.connects.to_string(),
                        of.unanswered.to_string(),
                        of.refused.to_string(),
                        of.failed.to_string(),
                        time(of.longest_ms),
                        format!("{}[{}]", escape(&of.comm), of.pid),
                        of.processes.to_string(),
                    ]
                })
                .collect();
            table(out, &head, &rows);
        }
        if !report.networks.is_empty() {
            out.push_str("\nUNANSWERED SYN-ACKS BY NETWORK\n");
            let rows: Vec<Vec<String>> = report
                .networks
                .iter()
                .take(LINES)
                .map(|of| vec![of.network.clone(), of.retransmits.to_string(), of.expired.to_string()])
                .collect();
            table(out, &["network", "sent again", "expired"], &rows);
        }
    }

    fn limits(&self, out: &mut String, report: &Report) {
        out.push_str("\nLOST AND NOT OBSERVED\n");
        let before = out.len();
        for of in report.losses.iter().take(LINES) {
            let _ = writeln!(
                out,
                "  {} {} lost at the {}, {} to {}",
                of.count,
                escape(&of.what),
                of.place,
                self.when.clock(of.from),
                self.when.clock(of.to)
            );
        }
        for of in &report.gaps {
            let why = of.reason.as_ref().map_or_else(String::new, |why| format!(": {}", escape(why)));
            let _ = writeln!(out, "  {} {}{why}", escape(&of.name), of.status);
        }
        for (name, count) in &report.left_out {
            let _ = writeln!(out, "  left out, because there were too many: {count} {name}");
        }
        for row in
            report.summary.reconciliation.iter().filter(|row| row.kernel > 0 || row.observed.unwrap_or(0) > 0)
        {
            let seen =
                row.observed.map_or_else(|| "not observable".to_owned(), |seen| format!("observed {seen}"));
            let _ = writeln!(
                out,
                "  kernel {} +{} in netns {}, {seen}: {}",
                row.counter,
                row.kernel,
                row.netns,
                row.status.name()
            );
        }
        if out.len() == before {
            out.push_str("  nothing\n");
        }
    }
}

/// That there is no finding, and of how much that is said.
pub(super) fn nothing(condition: &Condition, report: &Report) -> &'static str {
    match (condition.is_complete(), report.events) {
        (true, 0) => "Nothing was recorded",
        (true, _) => "Nothing was found",
        (false, 0) => "Nothing could be read",
        (false, _) => "Nothing was found in what could be read: part of the recording is missing",
    }
}

/// What a namespace had of ephemeral ports, in words.
pub(super) fn port_space(of: &PortSpace, at: &str) -> String {
    format!(
        "netns {}: {} of the {} ephemeral ports ({}-{}) in use at {at}, {} in TIME_WAIT at most",
        of.netns, of.in_use_max, of.capacity, of.first, of.last, of.time_wait_max
    )
}

/// Columns as wide as what is in them; the first two to the left, numbers to the right.
fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let numeric = |column: usize| {
        let number = |cell: &String| cell == "-" || cell.parse::<f64>().is_ok();
        rows.iter().filter_map(|row| row.get(column)).all(number)
    };
    let numeric: Vec<bool> = (0..head.len()).map(numeric).collect();
    let mut line = |cells: &[String]| {
        let mut text = String::from(" ");
        for ((cell, width), right) in cells.iter().zip(&widths).zip(&numeric) {
            if *right {
                let _ = write!(text, " {cell:>width$}");
            } else {
                let _ = write!(text, " {cell:<width$}");
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&head.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}
