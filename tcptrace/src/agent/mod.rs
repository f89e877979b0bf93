//! The agent: one a host, always on. It keeps the last hours of recording on disk, sets the minutes around an incident apart, and
//! tells metrics.
//!
//! Three threads. The tracer's (`run.rs`) takes events to the findings, to the recorder and to the meter, and never waits for a
//! disk or for a client. The recorder's writes parts, and between them looks after the directory (`keeper.rs`, over `ring.rs` and
//! `incidents.rs`). The third (`http.rs`) answers requests, from copies that the tracer's makes at most once a second.

mod http;
mod incidents;
mod keeper;
mod metrics;
mod notify;
mod place;
mod privilege;
mod ring;
mod run;
mod status;
#[cfg(test)]
mod tests;
mod trigger;

pub use http::bind;
pub use incidents::Incident;
pub use keeper::Keeper;
pub use metrics::Bounds;
pub use place::{Place, PlaceError};
pub use privilege::{NEEDED, keep_needed};
pub use run::{Agent, Error as AgentError, Options, Reloaded};
pub use status::Status;
pub use trigger::{Kept, Trigger, Triggers, Why};

use std::time::Duration;

use crate::correlate::Thresholds;
use crate::finding::Severity;
use crate::record::Rotation;

/// What is kept, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of the ring.
    pub ring_bytes: u64,
    /// How long a part stays in it.
    pub ring_age: Duration,
    /// Bytes of incidents.
    pub incident_bytes: u64,
    /// What is kept of the time before an incident.
    pub before: Duration,
    /// And after it.
    pub after: Duration,
    /// How long a part is.
    pub part: Duration,
}

/// What can be changed while the agent runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// What to keep.
    pub retention: Retention,
    /// Findings of this severity, or a worse one, are kept.
    pub keep_on: Severity,
    /// How many series of each kind there may be.
    pub bounds: Bounds,
    /// From when on something is reported.
    pub thresholds: Thresholds,
}

impl Retention {
    /// When a part is full: what is being written is a small part of the ring, however much happens in a minute.
    fn rotation(&self) -> Rotation {
        Rotation::Either(self.ring_bytes / 8, self.part)
    }

    /// How long an incident can become by what comes in the meantime: what comes later begins one of its own.
    fn longest(&self) -> Duration {
        self.after.saturating_mul(10).max(Duration::from_secs(60))
    }
}

/// Has the allocator take little and give back much: to be called before any thread is started. By default, each thread has a
/// heap of its own, and what is large is taken from the heap once as much was freed: heaps that grow by what was needed for a
/// moment, and are held by what is needed for long.
pub fn keep_memory_small() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 128 << 10), (libc::M_TRIM_THRESHOLD, 128 << 10)]
    {
        // SAFETY: mallopt(3) takes two numbers; only this thread is there.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            log::debug!("the allocator does not know its parameter {parameter}");
        }
    }
}

/// Gives the kernel back what the allocator holds and nobody uses: a process that stays for months must not stay as large as it was
/// at its busiest moment.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number, and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
