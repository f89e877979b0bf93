//! A report to paste: into a chat, an issue, a wiki.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use crate::finding::Confidence;
use crate::output::escape;

use super::across::{clock_line, stall_lines, told_elsewhere};
use super::limits;
use super::sentence::Sentence;
use super::tables::{self, Detail, Table, is_number};
use super::when::{When, span};
use super::{Across, Report, Section, Verdict};

/// Findings that are told in full; of the others, one line each.
const IN_FULL: usize = 10;
/// So many lines of what is wrong with the files.
const MARKS: usize = 10;

/// The report as Markdown, with one section for each recording.
pub fn markdown(sections: &[Section<'_>], across: &Across, zone: &TimeZone) -> String {
    let mut page = Page { out: String::new(), when: When { zone } };
    page.across(across);
    for section in sections {
        page.section(section);
    }
    page.out
}

struct Page<'a> {
    out: String,
    when: When<'a>,
}

impl Page<'_> {
    /// A paragraph, heading or item; `text` is Markdown.
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn block(&mut self, text: &str) {
        self.line(text);
        self.line("");
    }

    fn across(&mut self, across: &Across) {
        let clocks: Vec<String> = across.clocks.iter().filter_map(clock_line).collect();
        if !clocks.is_empty() {
            self.block("## Clocks");
            clocks.iter().for_each(|line| self.line(&format!("- {}", inert(line))));
            self.line("");
        }
        if across.stalls.is_empty() {
            return;
        }
        self.block("## From client to server");
        for stall in &across.stalls {
            let (headline, lines) = stall_lines(stall);
            self.block(&format!("### {}", inert(&headline)));
            lines.iter().for_each(|line| self.line(&format!("- {}", inert(line))));
            for step in &stall.course {
                let text = format!("{} {}: {}", self.when.clock(step.time), step.by(), step.what);
                self.line(&format!("  - {}", inert(&text)));
            }
            self.line("");
        }
    }

    fn section(&mut self, (metadata, condition, report): &Section<'_>) {
        self.block(&format!("## {}", inert(&Sentence::of(condition, report).with_severity())));
        let mut facts = format!(
            "{}, kernel {}: {} to {} ({}), {} events",
            metadata.host,
            metadata.kernel,
            self.when.moment(report.from),
            self.when.moment_and_zone(report.to),
            span(report.from, report.to),
            report.events
        );
        if !metadata.version.is_empty() {
            let _ = write!(facts, "; tcptrace {}", metadata.version);
        }
        self.block(&inert(&facts));
        if let Some(command) = &metadata.command {
            self.block(&format!("While this ran: {}", code(&command.join(" "))));
        }
        if let Some(shortage) = condition.shortage() {
            self.block(&format!("**This recording is not complete: {}**", inert(&shortage)));
        }
        for mark in condition.marks.iter().take(MARKS) {
            self.line(&format!("- {}", inert(&mark.to_string())));
        }
        let (full, rest) = report.verdicts.split_at(report.verdicts.len().min(IN_FULL));
        full.iter().enumerate().for_each(|(number, verdict)| self.verdict(number + 1, report, verdict));
        if !rest.is_empty() {
            self.block("### More findings");
            rest.iter().for_each(|verdict| {
                let text = format!("{} {}", verdict.worst.name(), report.headline(&verdict.finding));
                self.line(&format!("- {}", inert(&text)));
            });
            self.line("");
        }
        self.table(&tables::listeners(report, Detail::Brief));
        self.table(&tables::ports(report, self.when, Detail::Brief));
        self.table(&tables::destinations(report, Detail::Brief));
        self.table(&tables::networks(report, Detail::Brief));
        self.block(&format!("Coverage: {}", inert(&limits::coverage(metadata, report))));
        let losses = limits::losses(report, self.when);
        if !losses.is_empty() {
            losses.iter().for_each(|line| self.line(&format!("- {}", inert(line))));
            self.line("");
        }
    }

    fn verdict(&mut self, number: usize, report: &Report, verdict: &Verdict) {
        let finding = &verdict.finding;
        let severity = verdict.worst.name().to_uppercase();
        self.block(&format!(
            "### {number}. {severity} {}: {}",
            finding.code,
            inert(&report.headline(finding))
        ));
        let (from, to) = (self.when.clock(verdict.opened), self.when.clock(verdict.until));
        self.line(&format!("- {from} to {to} ({})", span(verdict.opened, verdict.until)));
        finding.numbers.iter().for_each(|line| self.line(&format!("- {}", inert(line))));
        self.line("");
        let sure = match finding.confidence {
            Confidence::Certain => String::new(),
            confidence => format!(", {}", confidence.name()),
        };
        let cause = format!("**Cause** ({}{sure}): {}", finding.cause, inert(&finding.explanation));
        self.block(&cause);
        for elsewhere in &verdict.elsewhere {
            self.block(&format!("**There**: {}", inert(&told_elsewhere(elsewhere))));
        }
        if let Some(by) = &finding.explained_by {
            self.block(&format!("It is a consequence of {}: {}", by.code, inert(&by.headline)));
        }
        for (label, not) in [("Do", false), ("Not", true)] {
            let of: Vec<_> = finding.remedy.iter().filter(|remedy| remedy.not == not).collect();
            if of.is_empty() {
                continue;
            }
            self.block(&format!("**{label}**"));
            for remedy in of {
                self.line(&format!("- {}", inert(&remedy.text)));
                if let Some(command) = &remedy.command {
                    self.line("");
                    self.line(&fenced(command));
                }
            }
            self.line("");
        }
        if verdict.course.len() > 2 {
            self.block("**Timeline**");
            for moment in &verdict.course {
                let (time, state) = (self.when.clock(moment.time), moment.state.name());
                let text = format!(
                    "{time} {state}, {} ({}): {}",
                    moment.severity.name(),
                    moment.cause,
                    moment.numbers
                );
                self.line(&format!("- {}", inert(&text)));
            }
            self.line("");
        }
    }

    fn table(&mut self, table: &Table) {
        if table.rows.is_empty() && table.notes.is_empty() {
            return;
        }
        self.block(&format!("### {}", table.title));
        if !table.rows.is_empty() {
            let row = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
            self.line(&row(table.head.iter().map(|name| inert(name)).collect()));
            let numeric = |column: usize| {
                table.rows.iter().filter_map(|row| row.get(column)).all(|cell| is_number(cell))
            };
            let rule = |column: usize| if numeric(column) { "---:" } else { "---" }.to_owned();
            self.line(&row((0..table.head.len()).map(rule).collect()));
            for cells in &table.rows {
                self.line(&row(cells.iter().map(|cell| inert(cell)).collect()));
            }
            self.line("");
        }
        for note in &table.notes {
            self.block(&inert(note));
        }
    }
}

/// Foreign text that is neither markup nor a link, and calls no one: what a site would take for a name, an issue or an address
/// becomes code, which all of them leave alone; every other sign of Markdown is escaped.
fn inert(text: &str) -> String {
    let harmless = escape(text);
    let words: Vec<String> = harmless.split(' ').map(word).collect();
    words.join(" ")
}

fn word(word: &str) -> String {
    let is_reference = word.contains('#') && word.contains(|c: char| c.is_ascii_digit());
    let is_address = word.contains("://") || word.to_ascii_lowercase().contains("www.");
    if word.contains('@') || is_reference || is_address {
        // A bar would end a table's cell, even in code.
        return code(word).replace('|', "\\|");
    }
    let mut out = String::with_capacity(word.len());
    let mut before = ' ';
    let mut rest = word.chars().peekable();
    while let Some(character) = rest.next() {
        let next = rest.peek().copied().unwrap_or(' ');
        let is_markup = match character {
            // Within a word it is a part of it.
            '_' => !(before.is_alphanumeric() && next.is_alphanumeric()),
            // `nginx[70]` is no link until something follows.
            ']' => matches!(next, '(' | '[' | ':'),
            _ => matches!(
                character,
                '\\' | '`' | '*' | '<' | '>' | '|' | '~' | '#' | '&' | '!' | '$' | '{' | '}'
            ),
        };
        if is_markup {
            out.push('\\');
        }
        out.push(character);
        before = character;
    }
    out
}

/// In backticks, more of them than there are within.
fn code(text: &str) -> String {
    let text = escape(text);
    let fence = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') || text.is_empty() { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// A command to copy, below an item.
fn fenced(command: &str) -> String {
    let command = escape(command);
    let fence = "`".repeat(longest_run(&command).max(2) + 1);
    format!("  {fence}sh\n  {command}\n  {fence}\n")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in ["nginx[70] 0.0.0.0:80 drops: its queue (20) is full", "wait p50 ms", "-", "max_conn"] {
            assert_eq!(inert(text), text);
        }
        assert_eq!(inert("_x_ [a](b) [c][d]"), "\\_x\\_ [a\\](b) [c\\][d]");
    }

    #[test]
    fn nobody_is_called_and_nothing_is_linked() {
        assert_eq!(inert("by @all at http://x.example see #12"), "by `@all` at `http://x.example` see `#12`");
        assert_eq!(inert("a|b@c"), "`a\\|b@c`");
        assert_eq!(inert("<b>*x*</b>"), "\\<b\\>\\*x\\*\\</b\\>");
        assert_eq!(inert("a\nb\u{1b}[2J"), "a\\\\nb\\\\x1b[2J");
    }

    #[test]
    fn code_cannot_be_ended_from_within() {
        assert_eq!(code("a``b"), "```a``b```");
        assert_eq!(code("`@x`"), "`` `@x` ``");
        assert!(fenced("a\n```\nb").starts_with("  ````sh\n  a\\n```\\nb\n"));
    }
}
