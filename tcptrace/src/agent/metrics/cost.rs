//! What the agent itself costs.

use std::time::Duration;

use crate::probe::ProgramCosts;

/// What it has cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Processor time of all its threads.
    pub(crate) processor: Duration,
    /// Resident memory, bytes.
    pub(crate) memory: Option<u64>,
    /// How long its BPF programs ran and how often, where the kernel measures that.
    pub(crate) programs: Option<(Duration, u64)>,
}

impl Cost {
    pub(super) fn read(costs: &ProgramCosts) -> Self {
        let (time, runs) = costs.spent();
        Self {
            processor: crate::top::own_time().unwrap_or_default(),
            memory: crate::top::own_memory(),
            programs: (runs > 0).then_some((time, runs)),
        }
    }
}
