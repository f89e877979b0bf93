//! Findings: what is wrong, with whom, why, and what to do.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::event::Timestamp;
use crate::finding::words::span;
use crate::finding::{Confidence, Finding, Party, Value};
use crate::output::{self, Meaning, Row as Line};

use super::super::filter::Filter;
use super::super::format;
use super::super::journal::Story;
use super::{Cell, Column, Cx, Row, RowKey, most};

impl Row for Rc<Story> {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            title: "#",
            width: 4,
            grow: 0,
            right: true,
            rank: 0,
            cell: |row, _| Cell::plain(row.latest.id.to_string()),
            order: None,
        },
        Column {
            title: "opened",
            width: 8,
            grow: 0,
            right: false,
            rank: 3,
            cell: |row, cx| Cell::plain(output::zone::second(&cx.clock.zone, row.opened)),
            order: Some(|one, other| most(&one.opened, &other.opened)),
        },
        Column {
            title: "severity",
            width: 8,
            grow: 0,
            right: false,
            rank: 0,
            cell: |row, _| {
                let severity = row.latest.severity;
                // What is over no longer shouts.
                let meaning = if row.is_open() { Meaning::from(severity) } else { Meaning::Faint };
                Cell::meaning(severity.name().to_uppercase(), meaning)
            },
            order: Some(|one, other| {
                most(&one.is_open(), &other.is_open())
                    .then(most(&one.latest.severity, &other.latest.severity))
                    .then(most(&one.opened, &other.opened))
            }),
        },
        Column {
            title: "for",
            width: 12,
            grow: 0,
            right: false,
            rank: 2,
            cell: |row, cx| match row.closed() {
                None => Cell::plain(format!("open {}", format::age(cx.clock.now.since(row.opened)))),
                Some(closed) => {
                    Cell::meaning(format!("over, {}", span(closed.since(row.opened))), Meaning::Faint)
                }
            },
            order: Some(|one, other| most(&one.is_open(), &other.is_open())),
        },
        Column {
            title: "finding",
            width: 21,
            grow: 1,
            right: false,
            rank: 0,
            cell: |row, _| Cell::plain(row.latest.code),
            order: Some(|one, other| one.latest.code.cmp(other.latest.code)),
        },
        Column {
            title: "with whom",
            width: 25,
            grow: 5,
            right: false,
            rank: 0,
            cell: |row, cx| Cell::plain(whom(&row.latest, cx)),
            order: Some(|one, other| one.latest.headline().cmp(&other.latest.headline())),
        },
        Column {
            title: "cause",
            width: 16,
            grow: 2,
            right: false,
            rank: 1,
            cell: |row, _| match &row.latest.explained_by {
                Some(by) => Cell::meaning(format!("see #{}", by.id), Meaning::Faint),
                None => Cell::plain(row.latest.cause),
            },
            order: Some(|one, other| one.latest.cause.cmp(other.latest.cause)),
        },
        Column {
            title: "sure",
            width: 8,
            grow: 0,
            right: false,
            rank: 4,
            cell: |row, _| Cell::plain(row.latest.confidence.name()),
            order: Some(|one, other| most(&one.latest.confidence, &other.latest.confidence)),
        },
    ];

    fn key(&self) -> RowKey {
        RowKey::Finding(self.latest.id)
    }

    fn is_wanted(&self, filter: &Filter) -> bool {
        filter.wants_finding(&self.latest)
    }

    fn title(&self, _cx: &Cx<'_>) -> String {
        let finding = &self.latest;
        format!("{} {} #{}", finding.severity.name().to_uppercase(), finding.code, finding.id)
    }

    fn detail(&self, cx: &Cx<'_>, width: usize) -> Vec<Line> {
        let mut lines = summary(self, cx, width);
        lines.push(blank());
        lines.extend(timeline(self, cx, width));
        lines.push(blank());
        lines.extend(evidence(&self.latest, width));
        lines
    }

    fn commands(&self) -> Vec<String> {
        self.latest.remedy.iter().filter_map(|remedy| remedy.command.clone()).collect()
    }

    fn moment(&self) -> Option<Timestamp> {
        Some(self.opened)
    }

    /// What goes on now comes before what is over, the newest first; what another finding explains comes last.
    fn natural(&self, other: &Self) -> Ordering {
        let stands_alone = |row: &Self| row.latest.explained_by.is_none();
        most(&stands_alone(self), &stands_alone(other))
            .then(most(&self.is_open(), &other.is_open()))
            .then(most(&self.opened, &other.opened))
            .then(most(&self.latest.id, &other.latest.id))
    }

    fn nothing() -> &'static str {
        "Nothing has been found so far. Findings appear here as soon as connections are dropped, refused, or wait."
    }
}

/// The subject, and where it is if that is not the host's own place.
fn whom(finding: &Finding, cx: &Cx<'_>) -> String {
    let container = finding.subject.process.as_ref().and_then(|process| process.container.as_deref());
    let netns = finding.subject.netns.map(|netns| cx.elsewhere(netns)).unwrap_or_default();
    let container = container.map(|name| format!(" {name}")).unwrap_or_default();
    format!("{}{container}{netns}", finding.headline())
}

/// What an engineer needs first: who, the numbers, the cause, what to change.
pub(crate) fn summary(story: &Story, cx: &Cx<'_>, width: usize) -> Vec<Line> {
    let finding = &story.latest;
    let mut lines: Vec<Line> = output::wrap(&output::escape(&whom(finding, cx)), "  ", "  ", width)
        .into_iter()
        .map(|text| Line { lead: String::new(), text, meaning: Some(Meaning::Label) })
        .collect();
    lines.extend(output::numbers(finding, width));
    match &finding.explained_by {
        Some(by) => {
            let text = format!(
                "#{} {} explains it ({}, {}): what to change is said there",
                by.id,
                by.code,
                finding.cause,
                finding.confidence.name()
            );
            lines.extend(output::labelled("see", [text], width));
        }
        None => {
            let sure = match finding.confidence {
                Confidence::Certain => "certain",
                Confidence::Likely => "likely",
                Confidence::Possible => "possible",
            };
            let cause = format!("{} ({sure}): {}", finding.cause, finding.explanation);
            lines.extend(output::labelled("cause", [cause], width));
            let mut remedies = output::remedies(&finding.remedy.iter().collect::<Vec<_>>(), width);
            // A command that is wider than the screen goes on below: it is copied with `y`, not with the mouse.
            remedies = remedies.into_iter().flat_map(|line| broken(line, width)).collect();
            lines.extend(remedies);
        }
    }
    lines
}

/// A line that is too wide in several, every character kept.
fn broken(line: Line, width: usize) -> Vec<Line> {
    let room = width.saturating_sub(output::cells(&line.lead)).max(20);
    if output::cells(&line.text) <= room {
        return vec![line];
    }
    let mut lines = Vec::new();
    let mut text = String::new();
    for character in line.text.chars() {
        text.push(character);
        if output::cells(&text) >= room {
            lines.push(Line { text: std::mem::take(&mut text), ..line.clone() });
        }
    }
    if !text.is_empty() {
        lines.push(Line { text, ..line });
    }
    lines
}

fn timeline(story: &Story, cx: &Cx<'_>, width: usize) -> Vec<Line> {
    let mut lines = vec![heading("Timeline")];
    let indent = " ".repeat(13);
    for (number, step) in story.steps.iter().enumerate() {
        if number == story.steps.len().min(20) && story.left_out > 0 {
            lines.push(plain(format!("{indent}({} steps are not kept)", story.left_out)));
        }
        let lead = format!("{} ", output::zone::clock(&cx.clock.zone, step.time));
        let wrapped = output::wrap(&output::escape(&step.text), &lead, &indent, width);
        lines.extend(wrapped.into_iter().map(plain));
    }
    lines
}

fn evidence(finding: &Finding, width: usize) -> Vec<Line> {
    let mut lines = vec![heading("Evidence")];
    for (name, value) in finding.evidence.iter() {
        let text = match value {
            Value::Flag(flag) => (if *flag { "yes" } else { "no" }).to_owned(),
            Value::Party(party) => in_words(party),
            Value::Parties(parties) => parties.iter().map(in_words).collect::<Vec<_>>().join("; "),
            other => output::value_in_words(other).unwrap_or_else(|| "not known".to_owned()),
        };
        let lead = format!("  {:26} ", name.replace('_', " "));
        let text = format!("{text} ");
        let wrapped = output::wrap(output::escape(&text).trim_end(), &lead, &" ".repeat(29), width);
        lines.extend(wrapped.into_iter().map(plain));
    }
    lines
}

fn in_words(party: &Party) -> String {
    let network = party.network.as_ref().map(|of| format!("{}: {} requests", of.network, of.requests));
    let state = party.socket.as_ref().and_then(|socket| socket.state).map(|state| format!(", {state}"));
    let remote = party.remote.map(|remote| format!(", peer {remote}"));
    let what = network.unwrap_or_else(|| party.to_string());
    format!("{what}{}{}", state.unwrap_or_default(), remote.unwrap_or_default())
}

pub(super) fn blank() -> Line {
    plain(String::new())
}

pub(super) fn plain(text: String) -> Line {
    Line { lead: String::new(), text, meaning: None }
}

pub(super) fn heading(text: &str) -> Line {
    Line { lead: String::new(), text: text.to_owned(), meaning: Some(Meaning::Label) }
}
