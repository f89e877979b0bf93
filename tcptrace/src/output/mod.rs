//! Text and JSON.

mod escape;
mod event_line;
mod json;
pub mod listeners;
mod select;
mod sink;
mod summary;
mod table;
mod text;
mod units;
pub mod why;

pub use escape::escape;
pub use json::{JsonWriter, json_text};
pub use select::{Network, Selection};
pub use sink::{LineSink, Written};
pub use summary::{Counts, Summary};
pub use text::{TextWriter, account};
pub use units::bytes_in_words;

use std::io::Write;

use crate::correlate::Correlator;
use crate::event::{Coverage, Event, Lost};
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
    /// What is observed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn coverage(&mut self, coverage: &Coverage) -> Written {
        match self {
            Self::Json(to) => to.coverage(coverage),
            Self::Text(to) => to.coverage(coverage),
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
