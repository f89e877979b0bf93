//! A report as one page that needs nothing else: no network, no scripts of others, its pictures inline.

mod chart;

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use crate::finding::Severity;
use crate::output::json::EvidenceValue;
use crate::output::{escape, json_text};
use crate::record::{Condition, Metadata};

use super::across::{clock_line, stall_lines, told_elsewhere};
use super::text::{nothing, port_space};
use super::when::{When, span};
use super::{Across, ListenerReport, Report, Verdict};
use chart::{Line, heat_map, lines, queue_and_drops};

/// So many listeners get pictures; all are in the table.
const PICTURES: usize = 12;

/// So many processes or networks share one picture.
const LINES: usize = 6;

/// One recording in the page: what it says of itself, what was wrong with its files, its report.
pub type Section<'a> = (&'a Metadata, &'a Condition, &'a Report);

/// The page.
pub fn html(sections: &[Section<'_>], across: &Across, zone: &TimeZone) -> String {
    let hosts: Vec<String> = sections.iter().map(|(metadata, _, _)| safe(&metadata.host)).collect();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>tcptrace: {}</title>\n<style>\n{}</style></head>\n\
         <body>\n",
        hosts.join(", "),
        include_str!("style.css")
    );
    Page { out: &mut out, when: When { zone } }.across(across);
    for (metadata, condition, report) in sections {
        Page { out: &mut out, when: When { zone } }.section(metadata, condition, report);
    }
    let _ = write!(out, "<script>\n{}</script>\n</body></html>\n", include_str!("script.js"));
    out
}

struct Page<'a> {
    out: &'a mut String,
    when: When<'a>,
}

impl Page<'_> {
    fn add(&mut self, text: impl AsRef<str>) {
        self.out.push_str(text.as_ref());
    }

    fn across(&mut self, across: &Across) {
        if across.clocks.is_empty() {
            return;
        }
        self.add("<header><h1>Several recordings</h1></header>\n<section><h2>Clocks</h2><ul>");
        for line in across.clocks.iter().filter_map(clock_line) {
            self.add(format!("<li>{}</li>", safe(&line)));
        }
        self.add("</ul>");
        if across.left_out > 0 {
            self.add(format!("<p>{} handshakes were too many to be put together.</p>", across.left_out));
        }
        self.add("</section>\n");
        if across.stalls.is_empty() {
            return;
        }
        self.add("<section><h2>From client to server</h2>");
        for stall in &across.stalls {
            let when = self.when;
            let (headline, lines) = stall_lines(stall);
            self.add(format!("<article class=\"verdict warning\"><h3>{}</h3><ul>", safe(&headline)));
            for line in lines {
                self.add(format!("<li>{}</li>", safe(&line)));
            }
            self.add("</ul><table><tbody>");
            for step in &stall.course {
                self.add(format!(
                    "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                    when.clock(step.time),
                    safe(&step.by()),
                    safe(&step.what)
                ));
            }
            self.add("</tbody></table></article>\n");
        }
        self.add("</section>\n");
    }

    fn section(&mut self, metadata: &Metadata, condition: &Condition, report: &Report) {
        self.add(format!(
            "<header><h1>{}</h1><p>kernel {} · {} to {} ({}) · {} events</p>",
            safe(&metadata.host),
            safe(&metadata.kernel),
            self.when.moment(report.from),
            self.when.moment_and_zone(report.to),
            span(report.from, report.to),
            report.events
        ));
        if let Some(command) = &metadata.command {
            self.add(format!("<p>while this ran: <code>{}</code></p>", safe(&command.join(" "))));
        }
        if let Some(shortage) = condition.shortage() {
            let line = format!("This recording is not complete: {shortage}");
            self.add(format!("<p class=\"damage\"><b>{}</b></p>", safe(&line)));
        }
        for mark in &condition.marks {
            self.add(format!("<p class=\"damage\">{}</p>", safe(&mark.to_string())));
        }
        self.add("</header>\n<section><h2>Found</h2>");
        if report.verdicts.is_empty() {
            self.add(format!("<p>{}.</p>", nothing(condition, report)));
        }
        report.verdicts.iter().for_each(|verdict| self.verdict(verdict));
        self.add("</section>\n");
        self.listeners(report);
        self.ports(report);
        self.destinations(report);
        self.networks(report);
        self.limits(report);
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let finding = &verdict.finding;
        let class = match verdict.worst {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        self.add(format!(
            "<article class=\"verdict {class}\"><h3><b>{}</b> {}</h3><p>{}</p><p class=\"when\">{} to {} ({})</p><ul>",
            verdict.worst.name(),
            finding.code,
            safe(&finding.title),
            self.when.moment_and_zone(verdict.opened),
            self.when.second(verdict.until),
            span(verdict.opened, verdict.until)
        ));
        for line in &finding.numbers {
            self.add(format!("<li>{}</li>", safe(line)));
        }
        self.add(format!(
            "</ul><p><b>cause</b> {} ({}): {}</p>",
            finding.cause,
            finding.confidence.name(),
            safe(&finding.explanation)
        ));
        for elsewhere in &verdict.elsewhere {
            self.add(format!("<p><b>there</b> {}</p>", safe(&told_elsewhere(elsewhere))));
        }
        if let Some(by) = &finding.explained_by {
            self.add(format!("<p><b>see</b> {}: {}</p>", by.code, safe(&by.headline)));
        }
        for remedy in &finding.remedy {
            self.add(format!("<p><b>do</b> {}", safe(&remedy.text)));
            if let Some(command) = &remedy.command {
                self.add(format!("<br><code>{}</code>", safe(command)));
            }
            self.add("</p>");
        }
        self.add("<details><summary>course and evidence</summary><table><tbody>");
        for moment in &verdict.course {
            self.add(format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                self.when.second(moment.time),
                moment.state.name(),
                moment.severity.name(),
                moment.cause,
                safe(&moment.numbers)
            ));
        }
        self.add("</tbody></table><table><tbody>");
        for (name, value) in finding.evidence.iter() {
            let value = json_text(&EvidenceValue::from(value));
            self.add(format!("<tr><td>{name}</td><td><code>{}</code></td></tr>", safe(&value)));
        }
        self.add("</tbody></table></details></article>\n");
    }

    fn listeners(&mut self, report: &Report) {
        if report.listeners.is_empty() {
            return;
        }
        self.add("<section><h2>Listeners</h2>");
        for of in report.listeners.iter().filter(|of| !of.series.is_quiet()).take(PICTURES) {
            self.add(format!("<figure><figcaption>{} {}</figcaption>", of.address, safe(&of.owner())));
            let picture = queue_and_drops(&of.series, of.queue_limit, |time| self.when.second(time));
            self.add(picture);
            if let Some(map) = heat_map(&of.series, |time| self.when.second(time)) {
                self.add(map);
            }
            self.add("</figure>\n");
        }
        let head = [
            "address",
            "owner",
            "container",
            "netns",
            "deepest queue",
            "limit",
            "SYNs",
            "SYN drops",
            "ACK drops",
            "sk_drops",
            "SYN queue drops",
            "SYN-ACKs again",
            "accepted",
            "wait p50 ms",
            "p99",
            "max",
        ];
        self.table(&head, report.listeners.iter().map(row));
        self.add("</section>\n");
    }

    fn ports(&mut self, report: &Report) {
        if report.users.is_empty() {
            return;
        }
        self.add("<section><h2>Ports by process</h2><figure><figcaption>ports in use (taken while recording)</figcaption>");
        let names: Vec<String> = report.users.iter().map(|of| format!("{}[{}]", of.comm, of.pid)).collect();
        let curves: Vec<Line<'_>> = report
            .users
            .iter()
            .zip(&names)
            .take(LINES)
            .map(|(of, name)| Line { name, series: &of.series, holds: true })
            .collect();
        let picture = lines(&curves, |time| self.when.second(time));
        self.add(picture);
        self.add("</figure>");
        self.table(
            &["process", "pid", "taken", "ephemeral", "given back", "TIME_WAIT", "refused", "held at most"],
            report.users.iter().map(|of| {
                let mut cells = vec![of.comm.clone(), of.pid.to_string()];
                cells.extend(
                    [of.taken, of.ephemeral, of.released, of.time_wait, of.refused, of.held_max]
                        .map(|n| n.to_string()),
                );
                cells
            }),
        );
        for of in &report.port_spaces {
            let line = port_space(of, &self.when.second(of.in_use_max_at));
            self.add(format!("<p>{}</p>", safe(&line)));
        }
        self.add("</section>\n");
    }

    fn destinations(&mut self, report: &Report) {
        if report.destinations.is_empty() {
            return;
        }
        self.add("<section><h2>Destinations</h2>");
        self.table(
            &[
                "remote",
                "connects",
                "retried",
                "refused",
                "failed",
                "longest ms",
                "first process",
                "pid",
                "processes",
            ],
            report.destinations.iter().map(|of| {
                vec![
                    of.remote.to_string(),
                    of.connects.to_string(),
                    of.unanswered.to_string(),
                    of.refused.to_string(),
                    of.failed.to_string(),
                    of.longest_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")),
                    of.comm.clone(),
                    of.pid.to_string(),
                    of.processes.to_string(),
                ]
            }),
        );
        self.add("</section>\n");
    }

    fn networks(&mut self, report: &Report) {
        if report.networks.is_empty() {
            return;
        }
        self.add("<section><h2>Unanswered SYN-ACKs by network</h2><figure><figcaption>SYN-ACKs sent again</figcaption>");
        let curves: Vec<Line<'_>> = report
            .networks
            .iter()
            .take(LINES)
            .map(|of| Line { name: &of.network, series: &of.series, holds: false })
            .collect();
        let picture = lines(&curves, |time| self.when.second(time));
        self.add(picture);
        self.add("</figure>");
        self.table(
            &["network", "SYN-ACKs again", "requests expired"],
            report
                .networks
                .iter()
                .map(|of| vec![of.network.clone(), of.retransmits.to_string(), of.expired.to_string()]),
        );
        self.add("</section>\n");
    }

    fn limits(&mut self, report: &Report) {
        self.add("<section><h2>Lost and not observed</h2>");
        if report.losses.is_empty() && report.gaps.is_empty() && report.left_out.is_empty() {
            self.add("<p>Nothing.</p>");
        }
        self.table(
            &["what", "how many", "where or how", "from", "to", "why"],
            report
                .losses
                .iter()
                .map(|of| {
                    let (from, to) = (self.when.second(of.from), self.when.second(of.to));
                    vec![of.what.clone(), of.count.to_string(), of.place.to_owned(), from, to, String::new()]
                })
                .chain(report.gaps.iter().map(|of| {
                    let since = self.when.second(of.since);
                    let why = of.reason.clone().unwrap_or_default();
                    vec![of.name.clone(), String::new(), of.status.to_owned(), since, String::new(), why]
                }))
                .chain(report.left_out.iter().map(|(name, count)| {
                    let why = "too many for this report".to_owned();
                    vec![
                        (*name).to_owned(),
                        count.to_string(),
                        "left out".to_owned(),
                        String::new(),
                        String::new(),
                        why,
                    ]
                }))
                .collect::<Vec<_>>(),
        );
        self.add("<h3>Our counts beside the kernel's</h3>");
        self.table(
            &["counter", "netns", "kernel", "observed", "they agree", "why not"],
            report.summary.reconciliation.iter().map(|of| {
                vec![
                    of.counter.to_owned(),
                    of.netns.to_string(),
                    of.kernel.to_string(),
                    of.observed.map_or_else(|| "-".to_owned(), |seen| seen.to_string()),
                    of.status.name().to_owned(),
                    of.reason.clone().unwrap_or_default(),
                ]
            }),
        );
        self.add("</section>\n");
    }

    fn table(&mut self, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        self.add("<table class=\"sortable\"><thead><tr>");
        for name in head {
            self.add(format!("<th><button>{name}</button></th>"));
        }
        self.add("</tr></thead><tbody>\n");
        for row in rows {
            self.add("<tr>");
            for cell in row {
                let class = if cell == "-" || cell.parse::<f64>().is_ok() { " class=\"n\"" } else { "" };
                self.add(format!("<td{class}>{}</td>", safe(&cell)));
            }
            self.add("</tr>\n");
        }
        self.add("</tbody></table>");
    }
}

fn row(of: &ListenerReport) -> Vec<String> {
    let number = |of: Option<u64>| of.map_or_else(|| "-".to_owned(), |of| of.to_string());
    let time = |of: Option<f64>| of.map_or_else(|| "-".to_owned(), |of| format!("{of:.2}"));
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
}

/// Text that is no markup and moves nothing.
fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in escape(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
