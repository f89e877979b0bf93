//! A report as one self-contained page: no network, no fonts, light or dark as the reader's system is, and on paper.
//!
//! The templates escape markup by type ([`maud`]); what could deceive a reader without being markup (control characters,
//! characters that turn the direction) is made harmless in the whole page at once, in [`html`].

mod chart;

use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, PreEscaped, html as markup};

use crate::event::Timestamp;
use crate::finding::{Confidence, Severity};
use crate::output::json::EvidenceValue;
use crate::output::{escape, json_text};
use crate::record::{Condition, Metadata};

use super::across::{clock_line, stall_lines, told_elsewhere};
use super::limits;
use super::sentence::Sentence;
use super::tables::{self, Detail, Table, is_number};
use super::when::{When, span};
use super::{Across, ListenerReport, Report, Verdict};

use self::chart::{Line, Marks};

/// So many listeners have pictures; the tables have all.
const PICTURES: usize = 12;
/// So many curves are in one picture.
const LINES: usize = 6;
/// So many findings are in the contents of a page of several hosts.
const RANKED: usize = 50;

/// A recording and its report.
pub type Section<'a> = (&'a Metadata, &'a Condition, &'a Report);

/// The page. `made` is when.
pub fn html(sections: &[Section<'_>], across: &Across, zone: &TimeZone, made: Timestamp) -> String {
    let page = Page { when: When { zone } };
    let hosts: Vec<&str> = sections.iter().map(|(metadata, ..)| metadata.host.as_str()).collect();
    let title = match sections {
        [(metadata, condition, report)] => {
            format!("{}: {}", metadata.host, Sentence::of(condition, report).text)
        }
        _ => format!("{} recordings: {}", sections.len(), hosts.join(", ")),
    };
    let written = markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                meta name="generator" content={ "tcptrace " (env!("CARGO_PKG_VERSION")) };
                title { (title) " – tcptrace" }
                style { (PreEscaped(concat!("\n", include_str!("style.css")))) }
            }
            body {
                main {
                    @if sections.len() > 1 { (page.contents(sections)) }
                    (page.across(across))
                    @for (number, section) in sections.iter().enumerate() { (page.section(number + 1, section)) }
                }
                footer { p { "Made by tcptrace " (env!("CARGO_PKG_VERSION")) ", " (page.when.moment_and_zone(made)) } }
                script { (PreEscaped(concat!("\n", include_str!("script.js")))) }
            }
        }
    };
    let mut harmless = String::new();
    for line in written.into_string().lines() {
        harmless.push_str(&escape(line));
        harmless.push('\n');
    }
    harmless
}

struct Page<'a> {
    when: When<'a>,
}

impl Page<'_> {
    /// Of several hosts: what was found where, the worst first.
    fn contents(&self, sections: &[Section<'_>]) -> Markup {
        let mut ranked: Vec<(usize, &str, usize, String, &Verdict)> = Vec::new();
        for (number, (metadata, _, report)) in sections.iter().enumerate() {
            let verdicts = report.verdicts.iter().enumerate();
            ranked.extend(verdicts.map(|(at, of)| {
                (number + 1, metadata.host.as_str(), at + 1, report.headline(&of.finding), of)
            }));
        }
        let explained = |verdict: &Verdict| verdict.finding.explained_by.is_some();
        ranked.sort_by(|(.., a), (.., b)| {
            b.worst.cmp(&a.worst).then(explained(a).cmp(&explained(b))).then(a.opened.cmp(&b.opened))
        });
        let found = |report: &Report, severity: Severity| {
            let count = report.verdicts.iter().filter(|verdict| verdict.worst == severity).count();
            if count == 0 { "-".to_owned() } else { count.to_string() }
        };
        markup! {
            header { h1 { (sections.len()) " recordings" } }
            nav {
                h2 { "Hosts" }
                div.wide { table.sortable {
                    (heads(&["host", "from", "critical", "warning", "info", "what was found"]))
                    tbody { @for (number, (metadata, condition, report)) in sections.iter().enumerate() {
                        tr {
                            td { a href={ "#host-" (number + 1) } { (metadata.host) } }
                            td { (self.when.moment(report.from)) }
                            @for severity in [Severity::Critical, Severity::Warning, Severity::Info] {
                                td.n { (found(report, severity)) }
                            }
                            td { (Sentence::of(condition, report).text) }
                        }
                    } }
                } }
                @if !ranked.is_empty() {
                    h2 { "Findings of all hosts, the worst first" }
                    ol { @for (host, name, at, headline, verdict) in ranked.iter().take(RANKED) {
                        li {
                            b class=(verdict.worst.name()) { (verdict.worst.name()) } " "
                            a href={ "#finding-" (host) "-" (at) } { (name) ": " (headline) }
                        }
                    } }
                    @if ranked.len() > RANKED { p { "and " (ranked.len() - RANKED) " more, in the sections of the hosts" } }
                }
            }
        }
    }

    fn across(&self, across: &Across) -> Markup {
        let clocks: Vec<String> = across.clocks.iter().filter_map(clock_line).collect();
        markup! {
            @if !clocks.is_empty() {
                section {
                    h2 { "Clocks" }
                    ul { @for line in &clocks { li { (line) } } }
                    @if across.left_out > 0 { p { (across.left_out) " handshakes were too many to be put together." } }
                }
            }
            @if !across.stalls.is_empty() {
                section {
                    h2 { "From client to server" }
                    @for stall in &across.stalls {
                        @let (headline, lines) = stall_lines(stall);
                        article.verdict.warning {
                            h3 { (headline) }
                            ul { @for line in &lines { li { (line) } } }
                            div.wide { table { tbody { @for step in &stall.course {
                                tr { td { (self.when.clock(step.time)) } td { (step.by()) } td { (step.what) } }
                            } } } }
                        }
                    }
                }
            }
        }
    }

    fn section(&self, number: usize, (metadata, condition, report): &Section<'_>) -> Markup {
        let sentence = Sentence::of(condition, report);
        markup! {
            section.host id={ "host-" (number) } {
                header {
                    h1 {
                        @if let Some(severity) = sentence.severity {
                            b class=(severity.name()) { (severity.name()) } " "
                        }
                        (sentence.text)
                    }
                    p {
                        (metadata.host) ", kernel " (metadata.kernel) ": " (self.when.moment(report.from)) " to "
                        (self.when.moment_and_zone(report.to)) " (" (span(report.from, report.to)) "), "
                        (report.events) " events"
                        @if !metadata.version.is_empty() { "; recorded by tcptrace " (metadata.version) }
                    }
                    @if let Some(command) = &metadata.command {
                        p { "while this ran: " code { (command.join(" ")) } }
                    }
                    @if let Some(shortage) = condition.shortage() {
                        p.damage { b { "This recording is not complete: " (shortage) } }
                    }
                    @for mark in &condition.marks { p.damage { (mark) } }
                }
                @if !report.verdicts.is_empty() {
                    h2 { "Found" }
                    @for (at, verdict) in report.verdicts.iter().enumerate() {
                        (self.verdict(number, at + 1, report, verdict))
                    }
                }
                (self.listeners(report))
                (self.ports(report))
                (self.table(&tables::destinations(report, Detail::Full), None))
                (self.networks(report))
                (self.limits(metadata, report))
            }
        }
    }

    fn verdict(&self, host: usize, at: usize, report: &Report, verdict: &Verdict) -> Markup {
        let (finding, worst) = (&verdict.finding, verdict.worst.name());
        let sure = match finding.confidence {
            Confidence::Certain => String::new(),
            confidence => format!(", {}", confidence.name()),
        };
        let remedies = |not: bool| finding.remedy.iter().filter(move |remedy| remedy.not == not);
        markup! {
            article class={ "verdict " (worst) } id={ "finding-" (host) "-" (at) } {
                h3 { (at) ". " b class=(worst) { (worst) } " " (finding.code) }
                p { (report.headline(finding)) }
                p.when {
                    (self.when.moment_and_zone(verdict.opened)) " to " (self.when.second(verdict.until))
                    " (" (span(verdict.opened, verdict.until)) ")"
                }
                ul { @for line in &finding.numbers { li { (line) } } }
                dl {
                    dt { "cause" } dd { (finding.cause) (sure) ": " (finding.explanation) }
                    @for elsewhere in &verdict.elsewhere { dt { "there" } dd { (told_elsewhere(elsewhere)) } }
                    @for (label, not) in [("do", false), ("not", true)] {
                        @for (place, remedy) in remedies(not).enumerate() {
                            @if place == 0 { dt { (label) } }
                            dd {
                                (remedy.text)
                                @if let Some(command) = &remedy.command { pre.command { code { (command) } } }
                            }
                        }
                    }
                    dt { "see" }
                    dd {
                        @if let Some(by) = &finding.explained_by { (by.code) ": " (by.headline) br; }
                        code { "tcptrace explain " (finding.code) }
                    }
                }
                details {
                    summary { "timeline and evidence" }
                    div.wide { table { tbody { @for moment in &verdict.course {
                        tr {
                            td { (self.when.second(moment.time)) } td { (moment.state.name()) }
                            td { (moment.severity.name()) } td { (moment.cause) } td { (moment.numbers) }
                        }
                    } } } }
                    div.wide { table { tbody { @for (name, value) in finding.evidence.iter() {
                        tr { td { (name) } td { code { (json_text(&EvidenceValue::from(value))) } } }
                    } } } }
                }
            }
        }
    }

    fn listeners(&self, report: &Report) -> Markup {
        if report.listeners.is_empty() {
            return Markup::default();
        }
        let marks = self.marks(report);
        let drawn: Vec<&ListenerReport> =
            report.listeners.iter().filter(|of| !of.series.is_quiet()).take(PICTURES).collect();
        let pictures = markup! {
            @for of in drawn {
                figure {
                    figcaption { (of.address) " " (of.owner()) }
                    (chart::listener(&of.series, of.queue_limit, self.when, &marks))
                }
            }
        };
        self.table(&tables::listeners(report, Detail::Full), Some(&pictures))
    }

    fn ports(&self, report: &Report) -> Markup {
        let names: Vec<String> = report.users.iter().map(|of| format!("{}[{}]", of.comm, of.pid)).collect();
        let curves: Vec<Line<'_>> = report
            .users
            .iter()
            .zip(&names)
            .take(LINES)
            .map(|(of, name)| Line { name, series: &of.series, holds: true })
            .collect();
        let picture = chart::lines("ports in use", "ports", &curves, self.when, &self.marks(report));
        self.table(&tables::ports(report, self.when, Detail::Full), Some(&picture))
    }

    fn networks(&self, report: &Report) -> Markup {
        let curves: Vec<Line<'_>> = report
            .networks
            .iter()
            .take(LINES)
            .map(|of| Line { name: &of.network, series: &of.series, holds: false })
            .collect();
        let picture =
            chart::lines("SYN-ACKs sent again", "SYN-ACKs", &curves, self.when, &self.marks(report));
        self.table(&tables::networks(report, Detail::Full), Some(&picture))
    }

    /// Where on the time axis the findings are.
    fn marks(&self, report: &Report) -> Marks {
        let mark = |(at, verdict): (usize, &Verdict)| chart::Mark {
            time: verdict.opened,
            severity: verdict.worst,
            text: format!("{}. {} {}", at + 1, verdict.finding.code, self.when.second(verdict.opened)),
        };
        Marks::new(report.to, report.verdicts.iter().enumerate().map(mark))
    }

    fn limits(&self, metadata: &Metadata, report: &Report) -> Markup {
        let gaps = report.gaps.iter().map(|of| {
            let why = of.reason.clone().unwrap_or_default();
            vec![of.name.clone(), of.status.to_owned(), self.when.second(of.since), why]
        });
        let counters = report.summary.reconciliation.iter().map(|of| {
            vec![
                of.counter.to_owned(),
                of.netns.to_string(),
                of.kernel.to_string(),
                of.observed.map_or_else(|| "-".to_owned(), |seen| seen.to_string()),
                of.status.name().to_owned(),
                of.reason.clone().unwrap_or_default(),
            ]
        });
        let counters: Vec<_> = counters.collect();
        markup! {
            section {
                h2 { "Coverage" }
                p { (limits::coverage(metadata, report)) }
                ul { @for line in limits::losses(report, self.when) { li { (line) } } }
                @if !report.gaps.is_empty() {
                    h3 { "Not observed, or not every time" }
                    (rows(&["what", "how", "since", "why"], gaps))
                }
                @if !counters.is_empty() {
                    h3 { "Our counts beside the kernel's" }
                    (rows(&["counter", "netns", "kernel", "observed", "they agree", "why not"], counters.into_iter()))
                }
            }
        }
    }

    /// A table in a section of its own, below its pictures.
    fn table(&self, table: &Table, pictures: Option<&Markup>) -> Markup {
        if table.rows.is_empty() && table.notes.is_empty() {
            return Markup::default();
        }
        markup! {
            section {
                h2 { (table.title) }
                @if let Some(pictures) = pictures { (pictures) }
                @if !table.rows.is_empty() { (rows(&table.head, table.rows.iter().cloned())) }
                @for note in &table.notes { p { (note) } }
            }
        }
    }
}

fn heads(head: &[&str]) -> Markup {
    markup! { thead { tr { @for name in head { th scope="col" { button { (name) } } } } } }
}

fn rows(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Markup {
    markup! {
        div.wide tabindex="0" { table.sortable {
            (heads(head))
            tbody { @for row in rows {
                tr { @for cell in &row { td.n[is_number(cell)] { (cell) } } }
                "\n"
            } }
        } }
    }
}
