//! Events in, output out.
use std::io::{self, Write};

use crate::event::{Event, Kind};

/// TEMPORARY
pub struct Pipeline<W> { out: W }
impl<W: Write> Pipeline<W> {
    /// new
    pub fn new(out: W) -> Self { Self { out } }
    /// feed
    pub fn feed(&mut self, events: &[Event]) -> io::Result<()> {
        for event in events {
            if matches!(event.kind, Kind::Tick) { continue; }
            serde_json::to_writer(&mut self.out, event)?;
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }
}
