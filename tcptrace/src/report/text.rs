//! A report for people: what can be pasted into an incident channel.

use jiff::tz::TimeZone;

use crate::finding::State;
use crate::output::account;
use crate::record::{Condition, Metadata};

use super::across::{clock_line, stall_lines, told_elsewhere};
use super::sheet::Sheet;
use super::when::{When, span};
use super::{Across, PortSpace, Report, Verdict};

/// So many lines of each table are shown; the rest is in JSON and HTML.
const LINES: usize = 20;

/// The text for one recording, ends with a line end, with what is wrong with its files. Findings are `width` columns wide.
pub fn text(
    metadata: &Metadata,
    condition: &Condition,
    report: &Report,
    zone: &TimeZone,
    width: usize,
) -> String {
    let page = Page { when: When { zone }, width };
    let mut out = Sheet::default();
    page.heading(&mut out, metadata, condition, report);
    if let Some((question, holdings)) = &report.holdings {
        let at = question
            .at
            .map_or_else(|| "at any time".to_owned(), |(first, last)| page.when.within(first, last));
        out.gap();
        out.line(format_args!("PORT {} {at}", question.port));
        if holdings.is_empty() {
            out.line(format_args!("  nobody is known to have had it. Ports of connections are recorded one by one with record --all only."));
        }
        for of in holdings {
            let who = match (&of.comm, of.pid) {
                (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
                _ => "unknown process".to_owned(),
            };
            let remote = of.remote.map_or_else(String::new, |remote| format!(" <-> {remote}"));
            let since = if of.since_seen { "since" } else { "seen at" };
            let until = match of.until {
                Some(until) if of.time_wait => format!(" until {}, then TIME_WAIT", page.when.moment(until)),
                Some(until) => format!(" until {}", page.when.moment(until)),
                None => String::new(),
            };
            out.line(format_args!(
                "  {who} {}{remote} ({}) {since} {}{until}",
                of.local,
                of.how,
                page.when.moment(of.since)
            ));
            if let Some(command) = &of.command {
                out.line(format_args!("      {command}"));
            }
        }
    }
    page.verdicts(&mut out, condition, report);
    page.tables(&mut out, report);
    page.limits(&mut out, report);
    out.into_text()
}

/// What several recordings say together, ends with a line end; empty if there is nothing to say.
pub fn across_text(across: &Across, zone: &TimeZone) -> String {
    let when = When { zone };
    let mut out = Sheet::default();
    if !across.clocks.is_empty() {
        out.line(format_args!("CLOCKS"));
        for line in across.clocks.iter().filter_map(clock_line) {
            out.line(format_args!("  {line}"));
        }
    }
    if !across.stalls.is_empty() {
        out.gap();
        out.line(format_args!("FROM CLIENT TO SERVER: {}", across.stalls.len()));
    }
    for (number, stall) in across.stalls.iter().take(LINES).enumerate() {
        let (headline, lines) = stall_lines(stall);
        out.line(format_args!("{}. {}", number + 1, headline));
        for line in lines {
            out.line(format_args!("    {line}"));
        }
        for step in &stall.course {
            out.line(format_args!("      {} {}: {}", when.clock(step.time), step.by(), step.what));
        }
    }
    if across.left_out > 0 {
        out.line(format_args!("  left out, because there were too many: {} handshakes", across.left_out));
    }
    out.into_text()
}

struct Page<'a> {
    when: When<'a>,
    width: usize,
}

impl Page<'_> {
    fn heading(&self, out: &mut Sheet, metadata: &Metadata, condition: &Condition, report: &Report) {
        out.line(format_args!(
            "{}, kernel {}: {} to {} ({}), {} events",
            metadata.host,
            metadata.kernel,
            self.when.moment(report.from),
            self.when.moment_and_zone(report.to),
            span(report.from, report.to),
            report.events
        ));
        if let Some(command) = &metadata.command {
            out.line(format_args!("while this ran: {}", command.join(" ")));
        }
        if let Some(shortage) = condition.shortage() {
            out.line(format_args!("! THIS RECORDING IS NOT COMPLETE: {shortage}"));
        }
        for mark in condition.marks.iter().take(LINES) {
            out.line(format_args!("! {mark}"));
        }
        if condition.marks.len() > LINES {
            out.line(format_args!("! and {} more of this kind", condition.marks.len() - LINES));
        }
    }

    fn verdicts(&self, out: &mut Sheet, condition: &Condition, report: &Report) {
        if report.verdicts.is_empty() {
            out.gap();
            out.line(format_args!("{}", nothing(condition, report).to_uppercase()));
            return;
        }
        out.gap();
        out.line(format_args!("FOUND: {}", report.verdicts.len()));
        for (number, verdict) in report.verdicts.iter().enumerate() {
            self.verdict(out, number + 1, verdict);
        }
    }

    fn verdict(&self, out: &mut Sheet, number: usize, verdict: &Verdict) {
        out.line(format_args!(
            "{number}. {} {}  {}",
            verdict.worst.name().to_uppercase(),
            verdict.finding.code,
            verdict.finding.title,
        ));
        out.line(format_args!(
            "    {} to {} ({})",
            self.when.clock(verdict.opened),
            self.when.clock(verdict.until),
            span(verdict.opened, verdict.until)
        ));
        for line in account(&verdict.finding, self.width) {
            out.line(format_args!("{line}"));
        }
        for elsewhere in &verdict.elsewhere {
            out.line(format_args!("  there  {}", told_elsewhere(elsewhere)));
        }
        if verdict.course.len() > 2 {
            for moment in &verdict.course {
                let state = if moment.state == State::Updated { "" } else { moment.state.name() };
                out.line(format_args!(
                    "  {:6} {} {} {}: {}",
                    state,
                    self.when.clock(moment.time),
                    moment.severity.name(),
                    moment.cause,
                    moment.numbers
                ));
            }
        }
    }

    fn tables(&self, out: &mut Sheet, report: &Report) {
        let number = |of: Option<u64>| of.map_or_else(|| "-".to_owned(), |of| of.to_string());
        let time = |of: Option<f64>| of.map_or_else(|| "-".to_owned(), |of| format!("{of:.1}"));
        let mut busy: Vec<_> = report.listeners.iter().filter(|of| !of.series.is_quiet()).collect();
        let quiet = report.listeners.len() - busy.len();
        busy.truncate(LINES);
        if !busy.is_empty() {
            out.gap();
            out.line(format_args!("LISTENERS"));
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
                        of.owner(),
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
            out.table(&head, &rows);
        }
        if quiet > 0 {
            out.line(format_args!("  {quiet} more listeners had nothing to do"));
        }
        if !report.users.is_empty() {
            out.gap();
            out.line(format_args!("PORTS"));
            let head =
                ["process", "taken", "ephemeral", "given back", "TIME_WAIT", "refused", "held at most"];
            let rows: Vec<Vec<String>> = report
                .users
                .iter()
                .take(LINES)
                .map(|of| {
                    let mut row = vec![format!("{}[{}]", of.comm, of.pid)];
                    row.extend(
                        [of.taken, of.ephemeral, of.released, of.time_wait, of.refused, of.held_max]
                            .map(|n| n.to_string()),
                    );
                    row
                })
                .collect();
            out.table(&head, &rows);
        }
        for of in &report.port_spaces {
            out.line(format_args!("  {}", port_space(of, &self.when.clock(of.in_use_max_at))));
        }
        if !report.destinations.is_empty() {
            out.gap();
            out.line(format_args!("DESTINATIONS"));
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
                        format!("{}[{}]", of.comm, of.pid),
                        of.processes.to_string(),
                    ]
                })
                .collect();
            out.table(&head, &rows);
        }
        if !report.networks.is_empty() {
            out.gap();
            out.line(format_args!("UNANSWERED SYN-ACKS BY NETWORK"));
            let rows: Vec<Vec<String>> = report
                .networks
                .iter()
                .take(LINES)
                .map(|of| vec![of.network.clone(), of.retransmits.to_string(), of.expired.to_string()])
                .collect();
            out.table(&["network", "sent again", "expired"], &rows);
        }
    }

    fn limits(&self, out: &mut Sheet, report: &Report) {
        out.gap();
        out.line(format_args!("LOST AND NOT OBSERVED"));
        let before = out.len();
        for of in report.losses.iter().take(LINES) {
            out.line(format_args!(
                "  {} {} lost at the {}, {} to {}",
                of.count,
                of.what,
                of.place,
                self.when.clock(of.from),
                self.when.clock(of.to)
            ));
        }
        for of in &report.gaps {
            let why = of.reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            out.line(format_args!("  {} {}{why}", of.name, of.status));
        }
        for (name, count) in &report.left_out {
            out.line(format_args!("  left out, because there were too many: {count} {name}"));
        }
        for row in
            report.summary.reconciliation.iter().filter(|row| row.kernel > 0 || row.observed.unwrap_or(0) > 0)
        {
            let seen =
                row.observed.map_or_else(|| "not observable".to_owned(), |seen| format!("observed {seen}"));
            out.line(format_args!(
                "  kernel {} +{} in netns {}, {seen}: {}",
                row.counter,
                row.kernel,
                row.netns,
                row.status.name()
            ));
        }
        if out.len() == before {
            out.line(format_args!("  nothing"));
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
