//! A report for people: what can be pasted into an incident channel.

use jiff::tz::TimeZone;

use crate::finding::State;
use crate::output::{Meaning, Row, account, escape, wrap};
use crate::record::{Condition, Metadata};

use super::across::{clock_line, stall_lines, told_elsewhere};
use super::limits;
use super::sentence::Sentence;
use super::sheet::Sheet;
use super::tables::{self, Detail};
use super::when::{When, span};
use super::{Across, Report, Verdict};

/// So many lines of a kind are shown; the rest is in JSON and HTML.
const LINES: usize = 20;

/// The text for one recording, with what is wrong with its files. Findings are `width` columns wide.
pub fn text(
    metadata: &Metadata,
    condition: &Condition,
    report: &Report,
    zone: &TimeZone,
    width: usize,
) -> Sheet {
    let page = Page { when: When { zone }, width };
    let mut out = Sheet::default();
    page.heading(&mut out, metadata, condition, report);
    if let Some((question, holdings)) = &report.holdings {
        let at = question
            .at
            .map_or_else(|| "at any time".to_owned(), |(first, last)| page.when.within(first, last));
        out.gap();
        out.marked(Meaning::Label, format_args!("PORT {} {at}", question.port));
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
    page.verdicts(&mut out, report);
    page.tables(&mut out, report);
    page.limits(&mut out, metadata, report);
    out
}

/// What several recordings say together; empty if there is nothing to say.
pub fn across_text(across: &Across, zone: &TimeZone) -> Sheet {
    let when = When { zone };
    let mut out = Sheet::default();
    if !across.clocks.is_empty() {
        out.marked(Meaning::Label, format_args!("CLOCKS"));
        for line in across.clocks.iter().filter_map(clock_line) {
            out.line(format_args!("  {line}"));
        }
    }
    if !across.stalls.is_empty() {
        out.gap();
        out.marked(Meaning::Label, format_args!("FROM CLIENT TO SERVER: {}", across.stalls.len()));
    }
    for (number, stall) in across.stalls.iter().take(LINES).enumerate() {
        let (headline, lines) = stall_lines(stall);
        out.marked(Meaning::Warning, format_args!("{}. {}", number + 1, headline));
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
    out
}

struct Page<'a> {
    when: When<'a>,
    width: usize,
}

impl Page<'_> {
    /// What was found, in a sentence; then where and when.
    fn heading(&self, out: &mut Sheet, metadata: &Metadata, condition: &Condition, report: &Report) {
        let sentence = Sentence::of(condition, report);
        let text = match sentence.severity {
            Some(_) => sentence.with_severity(),
            None => sentence.text.to_uppercase(),
        };
        let meaning = match sentence.severity {
            Some(severity) => Meaning::from(severity),
            None if condition.is_complete() && report.events > 0 => Meaning::Good,
            None => Meaning::Warning,
        };
        self.paragraph(out, Some(meaning), "", "  ", &text);
        let (from, to) = (self.when.moment(report.from), self.when.moment_and_zone(report.to));
        let lasting = span(report.from, report.to);
        out.line(format_args!(
            "{}, kernel {}: {from} to {to} ({lasting}), {} events",
            metadata.host, metadata.kernel, report.events
        ));
        if let Some(command) = &metadata.command {
            out.line(format_args!("while this ran: {}", command.join(" ")));
        }
        if let Some(shortage) = condition.shortage() {
            out.marked(Meaning::Warning, format_args!("! THIS RECORDING IS NOT COMPLETE: {shortage}"));
        }
        for mark in condition.marks.iter().take(LINES) {
            out.marked(Meaning::Warning, format_args!("! {mark}"));
        }
        if condition.marks.len() > LINES {
            out.line(format_args!("! and {} more of this kind", condition.marks.len() - LINES));
        }
    }

    fn verdicts(&self, out: &mut Sheet, report: &Report) {
        if report.verdicts.is_empty() {
            return;
        }
        out.gap();
        out.marked(Meaning::Label, format_args!("FOUND: {}", report.verdicts.len()));
        for (number, verdict) in report.verdicts.iter().enumerate() {
            self.verdict(out, number + 1, report, verdict);
        }
    }

    fn verdict(&self, out: &mut Sheet, number: usize, report: &Report, verdict: &Verdict) {
        let (severity, finding) = (verdict.worst.name().to_uppercase(), &verdict.finding);
        let headline = format!("{number}. {severity} {}  {}", finding.code, report.headline(finding));
        self.paragraph(out, Some(Meaning::from(verdict.worst)), "", "    ", &headline);
        out.line(format_args!(
            "    {} to {} ({})",
            self.when.clock(verdict.opened),
            self.when.clock(verdict.until),
            span(verdict.opened, verdict.until)
        ));
        account(finding, self.width).into_iter().for_each(|row| out.row(&row));
        for elsewhere in &verdict.elsewhere {
            self.paragraph(out, None, "  there  ", "         ", &told_elsewhere(elsewhere));
        }
        if verdict.course.len() > 2 {
            for moment in &verdict.course {
                let state = if moment.state == State::Updated { "" } else { moment.state.name() };
                let (time, severity) = (self.when.clock(moment.time), moment.severity.name());
                let text = format!("{time} {severity} {}: {}", moment.cause, moment.numbers);
                self.paragraph(out, None, &format!("  {state:6} "), "         ", &text);
            }
        }
    }

    fn tables(&self, out: &mut Sheet, report: &Report) {
        for table in [
            tables::listeners(report, Detail::Brief),
            tables::ports(report, self.when, Detail::Brief),
            tables::destinations(report, Detail::Brief),
            tables::networks(report, Detail::Brief),
        ] {
            if table.rows.is_empty() && table.notes.is_empty() {
                continue;
            }
            out.gap();
            out.marked(Meaning::Label, format_args!("{}", table.title.to_uppercase()));
            if !table.rows.is_empty() {
                out.table(&table.head, &table.rows);
            }
            table.notes.iter().for_each(|note| out.line(format_args!("  {note}")));
        }
    }

    fn limits(&self, out: &mut Sheet, metadata: &Metadata, report: &Report) {
        out.gap();
        self.paragraph(out, None, "coverage: ", "  ", &limits::coverage(metadata, report));
        for line in limits::losses(report, self.when) {
            self.paragraph(out, Some(Meaning::Warning), "  ", "    ", &line);
        }
    }

    /// A text in lines that fit.
    fn paragraph(&self, out: &mut Sheet, meaning: Option<Meaning>, first: &str, rest: &str, text: &str) {
        for line in wrap(&escape(text), first, rest, self.width) {
            out.row(&Row::of(meaning, line));
        }
    }
}
