//! Several recordings in one report: clocks compared by the handshakes that two hosts saw, connections put together from
//! their two ends, so that a client's stall names what the server did.
//!
//! Pure: it works on what each [`Digest`](super::Digest) kept of handshakes (`handshakes.rs`). `clocks.rs` compares two
//! clocks, `hosts.rs` all of them, `cause.rs` says what a server did with one connection, `stalls.rs` sums it up.

mod cause;
mod clocks;
mod handshakes;
mod hosts;
mod stalls;
#[cfg(test)]
mod tests;
mod words;

use crate::record::Metadata;

use super::Report;

pub use handshakes::Handshakes;
pub use hosts::Clock;
pub use stalls::{Elsewhere, Stall, Step};
pub(super) use words::{clock_line, stall_lines, told_elsewhere};

/// What several recordings say together.
#[derive(Clone, Debug, Default)]
pub struct Across {
    /// Each recording's clock, in the order of the recordings.
    pub clocks: Vec<Clock>,
    /// What stalled at a client, and what a server did with it.
    pub stalls: Vec<Stall>,
    /// Handshakes that were too many to be kept for this.
    pub left_out: u64,
}

/// Puts recordings together; each client's verdicts learn what was found [`Elsewhere`].
pub fn join(recordings: &mut [(&Metadata, &mut Report)]) -> Across {
    if recordings.len() < 2 {
        return Across::default();
    }
    let names = hosts::names(recordings.iter().map(|(metadata, _)| *metadata));
    let table = hosts::Table::new(recordings);
    let (stalls, told) = stalls::find(recordings, &names, &table);
    for (recording, verdict, elsewhere) in told {
        if let Some(verdict) =
            recordings.get_mut(recording).and_then(|(_, report)| report.verdicts.get_mut(verdict))
        {
            verdict.elsewhere.push(elsewhere);
        }
    }
    let left_out = recordings.iter().map(|(_, report)| report.handshakes.left_out()).sum();
    Across { clocks: table.clocks(&names), stalls, left_out }
}
