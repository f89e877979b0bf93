//! What a recording comes to: verdicts, listeners, ports, destinations, losses, in the order in which an engineer needs them.
//!
//! A [`Digest`] takes in events one by one, beside the same engine as live, and keeps what a report shows: bounded, however
//! long the recording. [`Digest::finish`] makes the [`Report`], which `text.rs`, `markdown.rs`, `json.rs` and `html` write. Several of them,
//! from several hosts, are put together by [`join`].

mod across;
mod compare;
mod digest;
mod holders;
mod html;
mod limits;
mod listeners;
mod markdown;
mod networks;
mod port_use;
mod ports;
mod sentence;
mod series;
mod sheet;
mod tables;
#[cfg(test)]
mod tests;
mod text;
mod verdicts;
mod when;

pub use across::{Across, Clock, Elsewhere, Handshakes, Stall, Step, join};
pub use compare::{Comparison, ListenerChange, Pair, Present, TimesChange, Told, compare_times};
pub use digest::{Digest, Gap, LostEvents, Report};
pub use holders::{Holding, PortQuestion};
pub use html::{Section, html};
pub use listeners::ListenerReport;
pub use markdown::markdown;
pub use networks::NetworkReport;
pub use port_use::PortSpace;
pub use ports::{Destination, PortUser};
pub use series::{Bin, Series, WAIT_BUCKETS, wait_bucket_start_ns};
pub use sheet::Sheet;
pub use text::{across_text, text};
pub use verdicts::{Moment, Verdict};
