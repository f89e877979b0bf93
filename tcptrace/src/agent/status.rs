//! What the threads of the agent tell each other of how it goes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::event::Timestamp;

macro_rules! status {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How it goes. Numbers only, each of which stands for itself.
        #[derive(Debug)]
        pub struct Status {
            began: Instant,
            turned: AtomicU64,
            now: AtomicU64,
            failing: AtomicBool,
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl Default for Status {
            fn default() -> Self {
                Self {
                    began: Instant::now(),
                    turned: AtomicU64::new(0),
                    now: AtomicU64::new(Timestamp::now().nanos()),
                    failing: AtomicBool::new(false),
                    $($name: AtomicU64::new(0),)*
                }
            }
        }
    };
}
status! {
    /// Bytes in the ring, the part that is being written included.
    ring_bytes,
    /// Parts in the ring, likewise.
    ring_parts,
    /// How far the ring reaches back, seconds.
    ring_seconds,
    /// Parts that the bounds of the ring have deleted.
    ring_deleted,
    /// Incidents that are kept.
    incidents,
    /// Whether one of them still goes on: 0 or 1.
    incidents_open,
    /// Bytes that they have.
    incident_bytes,
    /// Incidents that were begun by this run.
    incidents_kept,
    /// Incidents that were deleted for their bound.
    incidents_deleted,
    /// How often recording could not go on.
    record_failures,
    /// Events that were not recorded for that.
    unrecorded,
    /// Clients that were turned away because there were too many.
    clients_refused,
    /// How often the configuration was read again and taken over.
    reloads,
    /// How often it was not, because something in it was wrong.
    reloads_refused,
}

impl Status {
    /// The tracer has turned, and it is `now` as events tell time: it is alive.
    pub fn turn(&self, now: Timestamp) {
        self.turned.store(self.seconds(), Ordering::Relaxed);
        self.now.store(now.nanos(), Ordering::Relaxed);
    }

    /// Now, as events tell time, when the tracer last turned.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now.load(Ordering::Relaxed))
    }

    /// How many seconds ago it last turned.
    pub fn since_turn(&self) -> u64 {
        self.seconds().saturating_sub(self.turned.load(Ordering::Relaxed))
    }

    /// Recording fails, or goes on.
    pub fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    /// Whether nothing can be recorded at the moment.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }
}

/// Writes one number.
pub(super) fn put(to: &AtomicU64, value: u64) {
    to.store(value, Ordering::Relaxed);
}

/// Adds to one.
pub(super) fn add(to: &AtomicU64, more: u64) {
    to.fetch_add(more, Ordering::Relaxed);
}
