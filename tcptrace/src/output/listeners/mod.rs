//! The listeners of a host, as `tcptrace listeners` prints them.

mod text;

pub use text::lines;
