//! The listeners of a host, as `tcptrace listeners` prints them.

mod json;
mod text;

pub use json::{ListenerLine, StockSummary};
pub use text::lines;
