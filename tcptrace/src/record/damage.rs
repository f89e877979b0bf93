//! What can be wrong with a recording, and how much of it is missing.

use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use crate::event::Timestamp;
use crate::output::escape;

use super::metadata::FORMAT_MAJOR;

/// Why a file is not read at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("not a tcptrace recording ({0})")]
    Foreign(&'static str),
    /// It comes from a later major version.
    #[error("its format is {0}.{1}, and this tcptrace reads up to {FORMAT_MAJOR}.x: use a newer tcptrace")]
    TooNew(u32, u32),
}

/// Events that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// How many, if that is known.
    pub rows: Option<u64>,
    /// When they happened: not before this, if that is known.
    pub from: Option<Timestamp>,
    /// Not after this, if that is known.
    pub to: Option<Timestamp>,
}

impl Missing {
    /// Over how long, if that is known.
    pub fn span(&self) -> Option<Duration> {
        Some(self.to?.since(self.from?))
    }
}

/// `20 events are missing, from … to … (2.1 s)`.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows {
            Some(1) => f.write_str("1 event is missing")?,
            Some(rows) => write!(f, "{rows} events are missing")?,
            None => f.write_str("it is not known how many events are missing")?,
        }
        match (self.from, self.to) {
            (Some(from), Some(to)) => {
                write!(f, ", from {from} to {to} ({:.1} s)", to.since(from).as_secs_f64())
            }
            (Some(from), None) => write!(f, ", from {from} on"),
            (None, Some(to)) => write!(f, ", until {to}"),
            (None, None) => Ok(()),
        }
    }
}

/// What is wrong with a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The header is damaged: host, kernel and the like may be wrong.
    Header,
    /// Bytes in the middle are damaged.
    Skipped {
        /// Where they begin.
        offset: u64,
        /// How many bytes.
        bytes: u64,
        /// The events in them; none, if these bytes were put between whole batches.
        missing: Missing,
    },
    /// Its end is missing: the recorder was killed, the disk was full, the file was cut, or it is still being written.
    Cut {
        /// Where the last batch that is not whole begins.
        offset: u64,
        /// How long that is; 0 if it ends with a whole batch.
        bytes: u64,
        /// The events behind it.
        missing: Missing,
    },
    /// Something follows its end.
    Trailing {
        /// How many bytes.
        bytes: u64,
    },
    /// Batches of another recording are in it: files were put together.
    Another {
        /// Where the first of them begins.
        offset: u64,
        /// How many bytes.
        bytes: u64,
        /// How many events.
        rows: u64,
    },
    /// Batches that were read before come again.
    Repeated {
        /// Where the first of them begins.
        offset: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Rows that are not understood.
    Rows {
        /// Why.
        why: String,
        /// The events that they were.
        missing: Missing,
    },
    /// A part of a rotated recording is not there.
    Part {
        /// Its number.
        number: u32,
        /// The events in it.
        missing: Missing,
    },
}

impl Damage {
    /// The events that are missing because of it; `None` if all are there.
    pub fn missing(&self) -> Option<Missing> {
        match self {
            Self::Skipped { missing, .. }
            | Self::Cut { missing, .. }
            | Self::Rows { missing, .. }
            | Self::Part { missing, .. } => Some(*missing).filter(|missing| missing.rows != Some(0)),
            // They belong to another recording, but whoever gave this file to us wanted them to be read.
            Self::Another { rows, .. } => Some(Missing { rows: Some(*rows), from: None, to: None }),
            Self::Header | Self::Trailing { .. } | Self::Repeated { .. } => None,
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => {
                f.write_str("the header is damaged: what it says of host and kernel may be wrong")
            }
            Self::Skipped { offset, bytes, missing } => {
                write!(f, "{bytes} bytes at {offset} are damaged: ")?;
                if missing.rows == Some(0) { f.write_str("no event is missing") } else { missing.fmt(f) }
            }
            Self::Cut { offset, bytes, missing } => {
                match bytes {
                    0 => write!(f, "its end is missing (at byte {offset}): {missing}"),
                    _ => write!(f, "it ends in the middle of a batch ({bytes} bytes at {offset}): {missing}"),
                }?;
                match missing.rows {
                    Some(_) => Ok(()),
                    None => f.write_str(
                        "; at most the last second, if it is still being written or its recorder was killed, and more if \
                         the file was cut",
                    ),
                }
            }
            Self::Trailing { bytes } => write!(f, "{bytes} bytes after its end are passed over"),
            Self::Another { offset, bytes, rows } => write!(
                f,
                "{bytes} bytes at {offset} belong to another recording: the {rows} events in them are passed over; give each \
                 recording a file of its own"
            ),
            Self::Repeated { offset, bytes } => {
                write!(f, "{bytes} bytes at {offset} repeat what was read before, and are passed over")
            }
            Self::Rows { why, missing } => {
                write!(f, "{} events are not understood: {}", missing.rows.unwrap_or(0), escape(why))
            }
            Self::Part { number, missing } => {
                write!(f, "part {number} of this recording is missing: {missing}")
            }
        }
    }
}

/// What is wrong with a recording's files, as it is shown to people and programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// One each.
    pub marks: Vec<Mark>,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Which file, made harmless.
    pub file: Option<String>,
    /// What, in words.
    pub what: String,
    /// Whether events are missing.
    pub missing: bool,
    /// How many, if that is known.
    pub events: Option<u64>,
    /// Over how long, if that is known.
    pub seconds: Option<f64>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Not after this.
    pub to: Option<Timestamp>,
}

impl Mark {
    /// What is wrong with a file, or with the recording as a whole.
    pub fn new(file: Option<&Path>, damage: &Damage) -> Self {
        let missing = damage.missing();
        let of = missing.unwrap_or_default();
        Self {
            file: file.map(|path| escape(&path.to_string_lossy()).into_owned()),
            what: damage.to_string(),
            missing: missing.is_some(),
            events: of.rows,
            seconds: of.span().map(|span| span.as_secs_f64()),
            from: of.from,
            to: of.to,
        }
    }
}

/// `run.arrows: its end is missing…`.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl Condition {
    /// Whether nothing is wrong with it.
    pub fn is_whole(&self) -> bool {
        self.marks.is_empty()
    }

    /// Whether every event of it can be read, as far as is known.
    pub fn is_complete(&self) -> bool {
        !self.marks.iter().any(|mark| mark.missing)
    }

    /// How much is missing, in one sentence; `None` if nothing is.
    pub fn shortage(&self) -> Option<String> {
        let missing: Vec<&Mark> = self.marks.iter().filter(|mark| mark.missing).collect();
        if missing.is_empty() {
            return None;
        }
        let known = missing.iter().filter_map(|mark| mark.events).fold(0_u64, u64::saturating_add);
        let unknown = missing.iter().any(|mark| mark.events.is_none());
        let events = match (known, unknown) {
            (0, true) => "events are missing, and it is not known how many".to_owned(),
            (_, true) => format!("more than {known} events are missing"),
            (1, false) => "1 event is missing".to_owned(),
            (_, false) => format!("{known} events are missing"),
        };
        let seconds: f64 = missing.iter().filter_map(|mark| mark.seconds).sum();
        let from = missing.iter().filter_map(|mark| mark.from).min();
        let to = missing.iter().filter_map(|mark| mark.to).max();
        let open = missing.iter().any(|mark| mark.to.is_none());
        Some(match (from, to) {
            (Some(from), Some(to)) if !open => format!("{events}: {seconds:.1} s between {from} and {to}"),
            (Some(from), _) => format!("{events}, from {from} on"),
            (None, Some(to)) => format!("{events}, until {to}"),
            (None, None) => events,
        })
    }
}
