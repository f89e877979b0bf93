//! Programs of which the kernel skips a run now and then, and what that means.

use tcptrace_common::stand_in::{DROP, RESET, STATE_CHILD, STATE_PORT};

use super::observations;

/// What is lost when the kernel skips a run of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skip {
    /// What the program would have seen: a drop, a queue, a listener.
    #[default]
    Lost,
    /// One accept or one port of one process, no drop. The program runs in process context: a preemptible kernel skips a run
    /// when another task has been preempted in the middle of the same program on the same CPU (some in a million).
    OneCall,
    /// Nothing worth reporting: only process context has work for the program, and a packet interrupted it; or it frees a
    /// port's entry, which the next taker overwrites.
    Harmless,
}

/// What is lost when the kernel skips a run of `program`.
#[must_use]
pub fn skip_of(program: &str) -> Skip {
    let mut probes = observations().flat_map(|o| o.ways).flat_map(|way| way.probes);
    probes.find(|probe| probe.program == program).map_or(Skip::Lost, |probe| probe.skip)
}

/// Programs with a second one that does what the kernel made them miss (the eBPF side's `stand_in.rs`), and the index that
/// tells how often it did. Lost is only what both missed.
pub const STAND_INS: &[(&str, u32)] = &[
    ("tp_handshake_drop", DROP),
    ("tp_set_state_port", STATE_PORT),
    ("tp_set_state_child", STATE_CHILD),
    ("tp_receive_reset", RESET),
];
