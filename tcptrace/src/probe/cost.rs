//! What the attached programs have cost so far, where the kernel measures it (`kernel.bpf_stats_enabled`, or
//! [`aya::sys::enable_stats`]).

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use super::misses;

/// Programs, by descriptors of their own: their costs can be read also where the tracer is in other hands.
#[derive(Debug)]
pub struct ProgramCosts(pub(super) Vec<OwnedFd>);

impl ProgramCosts {
    /// Of no program.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// How long all of them ran, and how often; both are zero where nothing is measured.
    #[must_use]
    pub fn spent(&self) -> (Duration, u64) {
        let each = self.0.iter().map(|program| misses::cost_of_program(program.as_fd()));
        each.fold((Duration::ZERO, 0), |(time, runs), (more, times)| (time + more, runs + times))
    }
}
