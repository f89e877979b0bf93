//! Text and JSON.

mod escape;
mod event_line;
mod json;
mod lines;
pub mod listeners;
mod select;
mod sink;
mod stdout;
mod summary;
mod table;
mod text;
mod units;
pub mod why;
pub mod zone;

pub use escape::escape;
pub use json::{JsonWriter, json_text, try_json_text};
pub use lines::Lines;
pub use select::{Network, Selection};
pub use sink::{LineSink, Written};
pub use stdout::{ended, go_on, stdout_export, stdout_json, stdout_lines, stdout_output, terminal_width};
pub use summary::{Counted, Counts, Summary};
pub use text::{TextWriter, account};
pub use units::bytes_in_words;

use std::io::Write;

use crate::correlate::Correlator;
use crate::event::{Coverage, Event, Lost, Timestamp};
use crate::finding::Finding;

/// Either form, behind one face. Every method returns `Break` once nobody reads any more.
#[derive(Debug)]
pub enum Output<W: Write> {
    /// One JSON object a line.
    Json(JsonWriter<W>),
    /// For people.
    Text(TextWriter<W>),
}

impl<W: Write> Output<W> {
    /// What is observed, from `time` on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn coverage(&mut self, coverage: &Coverage, time: Timestamp) -> Written {
        match self {
            Self::Json(to) => to.coverage(coverage),
            Self::Text(to) => to.coverage(coverage, time),
        }
    }

    /// A finding.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finding(&mut self, finding: &Finding) -> Written {
        match self {
            Self::Json(to) => to.finding(finding),
            Self::Text(to) => to.finding(finding),
        }
    }

    /// An event. Only kernel records (and losses) are lines of output; nothing is written for the others. `world` names
    /// containers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&mut self, event: &Event, world: &Correlator) -> Written {
        match self {
            Self::Json(to) => to.event(event, world),
            Self::Text(to) => to.event(event, world),
        }
    }

    /// Events that were lost.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn lost(&mut self, lost: &Lost) -> Written {
        match self {
            Self::Json(to) => to.lost(lost),
            Self::Text(to) => to.lost(lost),
        }
    }

    /// Passes on what was written so far: after each batch of events, not after each line, of which there can be many.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> Written {
        match self {
            Self::Json(to) => to.flush(),
            Self::Text(to) => to.flush(),
        }
    }

    /// The last words.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn summary(&mut self, summary: &Summary) -> Written {
        match self {
            Self::Json(to) => to.summary(summary),
            Self::Text(to) => to.summary(summary),
        }
    }
}
