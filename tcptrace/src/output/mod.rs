//! Text and JSON.

mod account;
mod course;
mod escape;
mod event_line;
pub mod json;
mod lines;
pub mod listeners;
mod meaning;
mod screen;
mod select;
mod sink;
mod stdout;
mod summary;
mod table;
mod text;
mod units;
pub mod why;
mod wrap;
pub mod zone;

pub(crate) use account::{Row, account, labelled, numbers, remedies};
pub(crate) use course::{Cause, Changes, Course, Tale};
pub use escape::escape;
pub(crate) use escape::is_harmful;
pub(crate) use event_line::event_in_words;
pub use json::{EvidenceLine, JsonWriter, json_text, try_json_text};
pub use lines::Lines;
pub(crate) use meaning::Meaning;
pub use screen::Screen;
pub(crate) use screen::shows_colour;
pub use select::{Network, Selection};
pub use sink::{LineSink, Written};
pub(crate) use stdout::stdout_screen;
pub use stdout::{
    columns, ended, go_on, stdout_export, stdout_json, stdout_lines, stdout_output, terminal_width,
};
pub use summary::{Counted, Counts, Summary};
pub(crate) use text::value_in_words;
pub use text::{Look, TextWriter};
pub use units::bytes_in_words;
pub(crate) use wrap::{cells, fit, wrap};

use std::io::Write;
use std::ops::ControlFlow;

use crate::correlate::Correlator;
use crate::event::{Coverage, Event, Lost, Timestamp};
use crate::finding::Finding;

/// Either form, behind one face. Every method returns `Break` once nobody reads any more.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one in a run")]
pub enum Output<W: Write> {
    /// One JSON object a line.
    Json(JsonWriter<W>),
    /// For people.
    Text(TextWriter<W>),
}

impl<W: Write> Output<W> {
    /// What is about to happen: the first line, for people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn opening(&mut self, text: &str) -> Written {
        match self {
            Self::Json(_) => Ok(ControlFlow::Continue(())),
            Self::Text(to) => to.opening(text),
        }
    }

    /// A line between the others, for people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&mut self, text: &str) -> Written {
        match self {
            Self::Json(_) => Ok(ControlFlow::Continue(())),
            Self::Text(to) => to.note(text),
        }
    }

    /// A verdict, for people: as it should be, or not.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn verdict(&mut self, good: bool, text: &str) -> Written {
        match self {
            Self::Json(_) => Ok(ControlFlow::Continue(())),
            Self::Text(to) => to.verdict(good, text),
        }
    }

    /// What is observed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn coverage(&mut self, time: Timestamp, coverage: &Coverage) -> Written {
        match self {
            Self::Json(to) => to.coverage(time, coverage),
            Self::Text(to) => {
                to.coverage(coverage);
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// From here on, what is said is about this host.
    pub fn of_host(&mut self, host: &str) {
        if let Self::Json(to) = self {
            to.of_host(host);
        }
    }

    /// Everything is about this network namespace, which need not be named with each finding.
    pub fn at_home(&mut self, netns: u32) {
        if let Self::Text(to) = self {
            to.at_home(netns);
        }
    }

    /// For people, once it is known what there is to watch: how much that is, and how. `live`: it goes on until it is interrupted.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn watching(&mut self, world: Option<&Correlator>, live: bool) -> Written {
        match self {
            Self::Json(_) => Ok(ControlFlow::Continue(())),
            Self::Text(to) => to.watching(world, live),
        }
    }

    /// For people at a terminal: that it goes on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn heartbeat(&mut self, world: &Correlator) -> Written {
        match self {
            Self::Json(_) => Ok(ControlFlow::Continue(())),
            Self::Text(to) => to.heartbeat(world),
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
