//! A switch that ends a staged incident early, from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::{Error, Result};

/// How often a wait looks at its condition and at the switch.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Ends a running [`super::Incident::play`] within a few [`TICK`]s; it then returns [`Error::Cancelled`].
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Pulls the switch. There is no way back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Sleeps, unless cancelled.
    pub(super) fn sleep(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    /// Waits until `condition` holds; `Ok(false)` if it did not within `patience`.
    pub(super) fn wait(
        &self,
        patience: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<bool> {
        let until = Instant::now() + patience;
        loop {
            if condition()? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            self.sleep(TICK)?;
        }
    }
}
