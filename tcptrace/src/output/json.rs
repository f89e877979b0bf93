//! One JSON object a line: the contract that programs rely on (docs/json.md). What can be a line is [`Line`], and nothing else is
//! written; each line's type is a struct, from which the schema is made, so that the schema says what is printed.

mod check;
pub(crate) mod conforms;
mod finding;
mod identity;
mod line;
mod listeners;
mod ports;
mod probes;
mod rehearsal;
mod report;
mod row;
pub mod schema;
mod trace;
pub(crate) mod who;
mod why;

use std::io::Write;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

use crate::correlate::Correlator;
use crate::event::{Coverage, Event, Kind, Lost, Timestamp};
use crate::finding::Finding;

use super::escape::is_harmful;
use super::event_line::EventLine;
use super::sink::{LineSink, Written};
use super::summary::Summary;

pub use check::RiskLine;
pub use finding::{EvidenceLine, EvidenceValue, FindingLine, RemedyLine};
pub use identity::{Container, Endpoint, Missing, Netns, Process, Range, Subject, Time};
pub use line::Line;
pub use listeners::ListenerLine;
pub use ports::{ContainerPortsLine, LaneLine, PortRiskLine, ProcessPortsLine, SpaceLine, TrendLine};
pub use probes::{ProbeLine, RecordLine, WrongLine};
pub use rehearsal::RehearsalLine;
pub use report::{ComparisonLine, DamageLine, across as across_lines, lines as report_lines};
pub use row::RowLine;
pub use trace::{CoverageLine, EventOutput, LostLine, SummaryLine};
pub use why::{WhyLine, summary as why_summary};

/// Version of the contract: raised when a field goes or changes its meaning. Fields may be added without.
pub const VERSION: u32 = 1;

/// Writes JSON lines.
#[derive(Debug)]
pub struct JsonWriter<W: Write> {
    to: LineSink<W>,
    line: Vec<u8>,
    host: String,
    command: &'static str,
}

/// A line: what all lines have in front, then what its type adds.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    time: Time,
    host: &'a str,
    v: u32,
    #[serde(flatten)]
    line: &'a Line,
}

impl<W: Write> JsonWriter<W> {
    /// Writes to `to` what `command` has to say of `host`.
    pub fn new(to: W, host: impl Into<String>, command: &'static str) -> Self {
        Self { to: LineSink::new(to), line: Vec::new(), host: host.into(), command }
    }

    /// From here on, lines are about this host.
    pub fn of_host(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    /// What is observed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn coverage(&mut self, time: Timestamp, coverage: &Coverage) -> Written {
        self.write(time, &CoverageLine::from(coverage).into())
    }

    /// A finding.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finding(&mut self, finding: &Finding) -> Written {
        self.write(finding.time, &FindingLine::from(finding).into())
    }

    /// An event that the kernel side reported; others are no lines of output. `world` names processes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, event: &Event, world: &Correlator) -> Written {
        if let Kind::Lost(lost) = &event.kind {
            return self.lost(lost);
        }
        match EventLine::of(event, world) {
            Some(line) => self.write(event.time, &EventOutput::from(&line).into()),
            None => Ok(std::ops::ControlFlow::Continue(())),
        }
    }

    /// Events that were lost.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn lost(&mut self, lost: &Lost) -> Written {
        self.write(lost.to, &LostLine::from(lost).into())
    }

    /// The last line of a trace.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn summary(&mut self, summary: &Summary) -> Written {
        self.write(summary.time, &SummaryLine::of_trace(self.command, summary).into())
    }

    /// A line, and the moment that it is about.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, time: Timestamp, line: &Line) -> Written {
        self.line.clear();
        let mut serializer = serde_json::Serializer::with_formatter(&mut self.line, Plain);
        let whole = Whole { kind: line.kind(), time: time.into(), host: &self.host, v: VERSION, line };
        whole.serialize(&mut serializer)?;
        self.line.push(b'\n');
        self.to.write(&self.line)
    }

    /// Passes on what was written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> Written {
        self.to.flush()
    }

    /// The writer.
    pub fn into_inner(self) -> W {
        self.to.into_inner()
    }
}

/// `value` as one line of the same JSON as all output: for what is stored, or shown in a page.
pub fn json_text<T: Serialize>(value: &T) -> String {
    // Only maps whose keys are no strings fail: none of ours.
    try_json_text(value).unwrap_or_default()
}

/// The same, for values that may hold anything.
///
/// # Errors
/// When a map's keys are no strings.
pub fn try_json_text<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let mut line = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut line, Plain))?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Compact JSON in which characters that could deceive a terminal or a reader are written as `\uNNNN`: the same string to a
/// parser, harmless to `cat`.
struct Plain;

impl Formatter for Plain {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        let mut rest = fragment;
        while let Some((at, harmful)) = rest.char_indices().find(|(_, character)| is_harmful(*character)) {
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut units = [0; 2];
            for unit in harmful.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = from.strip_prefix(harmful).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> std::io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

#[cfg(test)]
mod document;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
