//! What one turn in the guest gives, as it travels to the host.

use serde::{Deserialize, Serialize};

/// One contender, once.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Measurement {
    /// While `kernel.bpf_stats_enabled` was 0, as on any other host.
    pub(crate) connections_per_s: f64,
    /// How many connections the BPF programs were measured over.
    pub(crate) connections: u64,
    /// What each program cost over these connections; those that never ran are left out.
    pub(crate) programs: Vec<Program>,
    /// Interrupts by which BPF programs (or what they called) woke somebody, over these connections. On hardware each costs
    /// far more than its instructions.
    pub(crate) interrupts: u64,
    /// `None` without a tracer.
    pub(crate) tracer: Option<Tracer>,
}

/// One BPF program's cost.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) runs: u64,
    pub(crate) ns: u64,
}

/// What a tracer's process cost.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Tracer {
    /// All listeners open, no connection made.
    pub(crate) idle: Option<Idle>,
    /// User and system time of the tracer, per connection.
    pub(crate) cpu_us_per_connection: f64,
    /// After the load.
    pub(crate) memory: Memory,
    /// Kernel memory of its maps, as the kernel accounts for it.
    pub(crate) maps_kib: u64,
    /// What it says it has lost: a tracer that loses events has less work to do.
    pub(crate) lost: u64,
}

/// A tracer with nothing to see.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Idle {
    pub(crate) memory: Memory,
    /// Per second.
    pub(crate) user_ms: f64,
    /// Per second.
    pub(crate) system_ms: f64,
}

/// A process's memory.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Memory {
    /// `VmRSS`
    pub(crate) rss_kib: u64,
    /// `RssAnon`
    pub(crate) anonymous_kib: u64,
    /// `VmHWM`: the largest that it ever was.
    pub(crate) peak_kib: u64,
    /// `Pss`
    pub(crate) proportional_kib: u64,
}

impl Measurement {
    /// Time in BPF programs.
    pub(crate) fn bpf_ns(&self) -> f64 {
        self.per_connection(self.programs.iter().map(|program| program.ns).sum())
    }

    /// Runs of BPF programs.
    pub(crate) fn bpf_runs(&self) -> f64 {
        self.per_connection(self.programs.iter().map(|program| program.runs).sum())
    }

    /// Wake-ups by interrupt.
    pub(crate) fn bpf_interrupts(&self) -> f64 {
        self.per_connection(self.interrupts)
    }

    /// A sum over the measured connections, for one of them.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52, and a ratio in the end")]
    pub(crate) fn per_connection(&self, sum: u64) -> f64 {
        sum as f64 / self.connections.max(1) as f64
    }
}
