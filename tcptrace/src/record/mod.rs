//! Recordings: events on disk, from which the same findings come as live.
//!
//! A recording is an Arrow IPC stream that other programs read as it is; `docs/recording.md`, which is made from this code,
//! says what is in it. Rows are described in `schema.rs`, made in `put.rs` and read back in `get.rs`; `frame.rs` makes
//! of them what survives damage.

mod carry;
mod column;
mod create;
mod damage;
mod decode;
pub mod document;
pub mod export;
mod frame;
mod get;
mod metadata;
mod names;
mod order;
mod parts;
mod put;
mod reader;
mod recorder;
mod schema;
mod tape;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub use create::{create, write_failure};
pub use damage::{Condition, Damage, Mark, Missing, ReadError};
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use frame::forge;
pub use metadata::{FORMAT_MAJOR, FORMAT_MINOR, Metadata, Totals};
pub use parts::{Plan, Rotation, part_path};
pub use reader::Reader;
pub use recorder::{Recorded, Recorder};
pub(crate) use schema::columns;
pub use tape::{Tape, TapeError, open, open_one};
pub use writer::Writer;
