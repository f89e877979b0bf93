//! What can be wrong with a recording.

use std::{fmt, io};

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

/// What is wrong with a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The header is damaged: host, kernel and the like may be wrong.
    Header,
    /// Bytes in the middle were damaged; their rows are lost.
    Skipped {
        /// Where they begin.
        offset: u64,
        /// How many bytes.
        bytes: u64,
        /// How many rows.
        rows: u64,
    },
    /// It ends in the middle of a batch: the recorder was killed, the disk was full, the file was cut, or it is still being
    /// written.
    Cut {
        /// Where the last, incomplete batch begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
    },
    /// It was not ended in order, but no batch is cut.
    NotEnded,
    /// Something follows its end.
    Trailing {
        /// How many bytes.
        bytes: u64,
    },
    /// Rows that are not understood.
    Rows {
        /// Why.
        why: String,
        /// How many.
        rows: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the header is damaged: what it says of host and kernel may be wrong"),
            Self::Skipped { offset, bytes, rows } => {
                write!(f, "{bytes} bytes at {offset} are damaged: {rows} events in them are lost")
            }
            Self::Cut { offset, bytes } => write!(
                f,
                "it ends in the middle of a batch ({bytes} bytes at {offset}): everything before is whole, at most the last \
                 second is lost"
            ),
            Self::NotEnded => f.write_str(
                "it was not ended in order (still being written, or the recorder was killed): at most its last second is lost",
            ),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes after its end are passed over"),
            Self::Rows { why, rows } => write!(f, "{rows} events are not understood: {why}"),
        }
    }
}
