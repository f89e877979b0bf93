//! What tracing costs: this process's own time and memory, and that of its BPF programs.

use std::time::{Duration, Instant};

use crate::probe::ProgramCosts;

use super::scene::OwnCost;

/// Shares of a CPU are of this time at least.
const WINDOW: Duration = Duration::from_secs(3);

/// Reads it now and then.
pub(super) struct Meter {
    last: (Instant, Duration),
    cpu: f64,
    programs: Option<ProgramCosts>,
    bpf: (Instant, Duration, u64),
    bpf_rates: (Option<Duration>, Option<f64>),
}

impl Meter {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            last: (now, own_time().unwrap_or_default()),
            cpu: 0.0,
            programs: None,
            bpf: (now, Duration::ZERO, 0),
            bpf_rates: (None, None),
        }
    }

    /// The programs have been attached.
    pub(super) fn attached(&mut self, programs: ProgramCosts) {
        let (spent, runs) = programs.spent();
        self.bpf = (Instant::now(), spent, runs);
        self.programs = Some(programs);
    }

    /// What it costs at the moment.
    pub(super) fn read(&mut self) -> Option<OwnCost> {
        let now = Instant::now();
        let elapsed = now.duration_since(self.last.0);
        if elapsed >= WINDOW {
            let used = own_time()?;
            self.cpu = used.saturating_sub(self.last.1).as_secs_f64() / elapsed.as_secs_f64();
            self.last = (now, used);
        }
        let elapsed = now.duration_since(self.bpf.0);
        if let Some(programs) = self.programs.as_ref().filter(|_| elapsed >= WINDOW) {
            let (spent, runs) = programs.spent();
            let grown = runs.saturating_sub(self.bpf.2);
            // Nothing is measured unless BPF statistics are switched on.
            if grown > 0 {
                let each = spent.saturating_sub(self.bpf.1).as_nanos() / u128::from(grown);
                #[expect(clippy::cast_precision_loss, reason = "a rate has few significant digits")]
                let rate = grown as f64 / elapsed.as_secs_f64();
                self.bpf_rates =
                    (Some(Duration::from_nanos(u64::try_from(each).unwrap_or(u64::MAX))), Some(rate));
            }
            self.bpf = (now, spent, runs);
        }
        Some(OwnCost {
            cpu: self.cpu,
            memory: own_memory()?,
            bpf_run: self.bpf_rates.0,
            bpf_runs: self.bpf_rates.1,
        })
    }
}

/// Processor time of all threads of this process.
pub(crate) fn own_time() -> Option<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).ok()?;
    Some(time.into())
}

/// Resident memory of this process, bytes.
pub(crate) fn own_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = status.split_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(u64::try_from(page).ok()?)
}
