//! One JSON object a line: the contract that scripts rely on.

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

/// Writes JSON lines.
#[derive(Debug)]
pub struct JsonWriter<W: Write> {
    to: LineSink<W>,
    line: Vec<u8>,
}

/// A line, its type in front.
#[derive(Serialize)]
struct Typed<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    content: &'a T,
}

/// Coverage without what is no part of the contract.
#[derive(Serialize)]
struct CoverageLine<'a> {
    kernel: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    architecture: &'a str,
    tier: &'static str,
    observations: Vec<ObservationLine<'a>>,
    /// Everything that was asked for and leaves something out, as the user wrote it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    hindrances: &'a [String],
}

#[derive(Serialize)]
struct ObservationLine<'a> {
    name: &'a str,
    status: &'static str,
    via: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct LostLine<'a> {
    what: &'a str,
    count: u64,
    #[serde(rename = "where")]
    place: &'static str,
    #[serde(serialize_with = "as_text")]
    from: Timestamp,
    #[serde(serialize_with = "as_text")]
    to: Timestamp,
}

fn as_text<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

impl<W: Write> JsonWriter<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> Self {
        Self { to: LineSink::new(to), line: Vec::new() }
    }

    /// What is observed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn coverage(&mut self, coverage: &Coverage) -> Written {
        let observations = coverage
            .observations
            .iter()
            .map(|observation| ObservationLine {
                name: &observation.name,
                status: observation.status.name(),
                via: &observation.via,
                reason: observation.reason.as_deref(),
            })
            .collect();
        self.write(
            "coverage",
            &CoverageLine {
                kernel: &coverage.kernel,
                architecture: &coverage.architecture,
                tier: coverage.tier.name(),
                observations,
                filters: coverage.scope.iter().chain(&coverage.filters).map(String::as_str).collect(),
                hindrances: &coverage.hindrances,
            },
        )
    }

    /// A finding.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finding(&mut self, finding: &Finding) -> Written {
        self.write("finding", finding)
    }

    /// An event that the kernel side reported; others are no lines of output. `world` names containers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, event: &Event, world: &Correlator) -> Written {
        if let Kind::Lost(lost) = &event.kind {
            return self.lost(lost);
        }
        match EventLine::of(event, world) {
            Some(line) => self.write("event", &line),
            None => Ok(std::ops::ControlFlow::Continue(())),
        }
    }

    /// Events that were lost.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn lost(&mut self, lost: &Lost) -> Written {
        let line = LostLine {
            what: &lost.what,
            count: lost.count,
            place: lost.place.name(),
            from: lost.from,
            to: lost.to,
        };
        self.write("lost", &line)
    }

    /// The last line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn summary(&mut self, summary: &Summary) -> Written {
        self.write("summary", summary)
    }

    /// A line that [`json_text`] made.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn made(&mut self, line: &str) -> Written {
        self.line.clear();
        self.line.extend_from_slice(line.as_bytes());
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

    /// A line of another type: `content` is an object, before whose fields `"type"` is put.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write<T: Serialize>(&mut self, kind: &'static str, content: &T) -> Written {
        self.line.clear();
        let mut serializer = serde_json::Serializer::with_formatter(&mut self.line, Plain);
        Typed { kind, content }.serialize(&mut serializer)?;
        self.line.push(b'\n');
        self.to.write(&self.line)
    }
}

/// `value` as one line of the same JSON as all output.
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
mod tests;
