//! A finding in full: its numbers, its cause, and three labels: `do` (what to change), `not` (what not to change) and `see` (what
//! else to read). The report and the live text print it alike.

use crate::finding::{Confidence, Finding, Remedy};

use super::course::{AsFor, clauses};
use super::escape::escape;
use super::meaning::Meaning;
use super::wrap::{cells, wrap};

/// A line: its lead (a label, or the indent below one), and its text. Both are harmless to a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) lead: String,
    pub(crate) text: String,
    pub(crate) meaning: Option<Meaning>,
}

impl Row {
    /// A whole line that means this.
    pub(crate) fn of(meaning: Option<Meaning>, text: String) -> Self {
        Self { lead: String::new(), text, meaning }
    }
}

/// How far texts with a label stand in, and their commands.
const INDENT: &str = "         ";
const COMMAND: &str = "           ";

/// A finding in words for a report: `width` columns wide but for commands, which are to be copied and stay whole.
pub(crate) fn account(finding: &Finding, width: usize) -> Vec<Row> {
    let mut rows = numbers(finding, width);
    rows.extend(cause(finding, width));
    rows.extend(remedies(&finding.remedy.iter().collect::<Vec<_>>(), width));
    let related = finding.explained_by.as_ref().map(|by| format!("{}: {}", by.code, by.headline));
    rows.extend(labelled("see", related.into_iter().chain([page(finding)]), width));
    rows
}

/// How to read on about a kind of finding.
pub(crate) fn page(finding: &Finding) -> String {
    format!("tcptrace explain {}", finding.code)
}

/// The numbers, as few lines as they need.
pub(crate) fn numbers(finding: &Finding, width: usize) -> Vec<Row> {
    let mut lines: Vec<String> = Vec::new();
    let room = width.saturating_sub(4);
    for line in finding.numbers.iter().map(|line| escape(line)) {
        // Short ones share a line.
        match lines.last_mut() {
            Some(last) if cells(last) + 2 + cells(&line) <= room => last.extend(["; ", &*line]),
            _ => lines.extend(wrap(&line, "", "  ", room)),
        }
    }
    lines.into_iter().map(|text| Row { lead: "    ".to_owned(), text, meaning: None }).collect()
}

/// Those of the numbers that one line has room for: the first, and what comes after it as far as it fits.
pub(crate) fn numbers_in_a_line(finding: &Finding, width: usize) -> Vec<Row> {
    let room = width.saturating_sub(4);
    let mut line = String::new();
    for clause in finding.numbers.iter().flat_map(|line| clauses(line)).map(escape) {
        let gap = if line.is_empty() { "" } else { "; " };
        if !line.is_empty() && cells(&line) + gap.len() + cells(&clause) > room {
            break;
        }
        line.extend([gap, &*clause]);
    }
    let lines = if line.is_empty() { Vec::new() } else { wrap(&line, "", "  ", room) };
    lines.into_iter().map(|text| Row { lead: "    ".to_owned(), text, meaning: None }).collect()
}

/// The cause, and how sure it is.
pub(crate) fn cause(finding: &Finding, width: usize) -> Vec<Row> {
    labelled("cause", [format!("{}{}", why(finding), finding.explanation)], width)
}

/// The cause's code, and how sure it is if it is not certain: `no-answer: likely: `.
pub(crate) fn why(finding: &Finding) -> String {
    match finding.confidence {
        Confidence::Certain => format!("{}: ", finding.cause),
        confidence => format!("{}: {}: ", finding.cause, confidence.name()),
    }
}

/// What to do, and after it what not to.
pub(crate) fn remedies(remedies: &[&Remedy], width: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for (label, not) in [("do", false), ("not", true)] {
        rows.extend(remedies_of(label, remedies.iter().filter(|remedy| remedy.not == not), width));
    }
    rows
}

fn remedies_of<'a>(label: &str, remedies: impl Iterator<Item = &'a &'a Remedy>, width: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut label = label;
    for remedy in remedies {
        rows.extend(labelled(label, [remedy.text.clone()], width));
        label = "";
        rows.extend(remedy.command.as_deref().map(command));
    }
    rows
}

/// What to do and what not to, in as few lines as it takes: what was said in the same words with another finding is not said
/// again, but its commands are, which name other things.
pub(crate) fn advice(finding: &Finding, as_for: AsFor, width: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for (label, not, other) in [("do", false, as_for.what), ("not", true, as_for.not)] {
        let of: Vec<&Remedy> = finding.remedy.iter().filter(|remedy| remedy.not == not).collect();
        let full = remedies_of(label, of.iter(), width);
        let short = other.map(|other| remedies_as_for(label, other, &of, width));
        rows.extend(short.filter(|short| short.len() < full.len()).unwrap_or(full));
    }
    rows
}

/// The same as was said with another finding. A single command stands behind that, if it fits there.
fn remedies_as_for(label: &str, other: u64, remedies: &[&Remedy], width: usize) -> Vec<Row> {
    let commands = || remedies.iter().filter_map(|remedy| remedy.command.as_deref());
    let words = format!("as for #{other}");
    if let Some(only) = commands().next().filter(|_| commands().count() == 1) {
        let line = format!("{words}: {}", escape(only));
        if cells(&line) + INDENT.len() <= width {
            let lead = format!("  {label:<7}{words}: ");
            return vec![Row { lead, ..command(only) }];
        }
    }
    let mut rows = labelled(label, [words], width);
    rows.extend(commands().map(command));
    rows
}

/// Not broken, so that it can be copied.
fn command(line: &str) -> Row {
    Row { lead: COMMAND.to_owned(), text: escape(line).into_owned(), meaning: Some(Meaning::Command) }
}

/// Paragraphs below one label.
pub(crate) fn labelled(label: &str, texts: impl IntoIterator<Item = String>, width: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for text in texts {
        for text in wrap(&escape(&text), "", "", width.saturating_sub(INDENT.len())) {
            let lead = if rows.is_empty() { format!("  {label:<7}") } else { INDENT.to_owned() };
            rows.push(Row { lead, text, meaning: None });
        }
    }
    rows
}
