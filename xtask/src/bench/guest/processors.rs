//! Who runs where: client and server share one processor, so that no wake-up crosses over; the tracer has the others, as
//! on a host that is not overloaded.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The guest's processors, split. What a process spawns inherits its side.
pub(crate) struct Processors {
    load: CpuSet,
    rest: CpuSet,
}

impl Processors {
    pub(crate) fn split() -> Result<Self> {
        let all = sched_getaffinity(this()).context("asking for the processors")?;
        let numbers: Vec<usize> =
            (0..CpuSet::count()).filter(|number| all.is_set(*number).unwrap_or(false)).collect();
        let (first, others) = numbers.split_first().context("there is a processor")?;
        let mut load = CpuSet::new();
        load.set(*first)?;
        let mut rest = CpuSet::new();
        for number in if others.is_empty() { numbers.as_slice() } else { others } {
            rest.set(*number)?;
        }
        Ok(Self { load, rest })
    }

    pub(crate) fn use_load(&self) -> Result<()> {
        sched_setaffinity(this(), &self.load).context("going to the load's processor")
    }

    pub(crate) fn use_rest(&self) -> Result<()> {
        sched_setaffinity(this(), &self.rest).context("leaving the load's processor")
    }
}

fn this() -> Pid {
    Pid::from_raw(0)
}
