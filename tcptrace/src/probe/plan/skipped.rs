//! Programs of which the kernel skips a run now and then, and what that means.

use tcptrace_common::stand_in::{DROP, STATE_CHILD, STATE_PORT};

/// Programs that the kernel may skip now and then without a loss worth telling: those that only process context has work
/// for, when a packet interrupts them; and those that free a port's entry, which the next taker overwrites.
pub const SKIPPED_IN_GOOD_FAITH: &[&str] =
    &["tp_set_state_task", "tp_set_state_port", "fentry_put_port", "tp_receive_reset"];

/// Programs with a second one that does what the kernel made them miss (the eBPF side's `stand_in.rs`), and the index that
/// tells how often it did. Lost is only what both missed.
pub const STAND_INS: &[(&str, u32)] =
    &[("tp_handshake_drop", DROP), ("tp_set_state_port", STATE_PORT), ("tp_set_state_child", STATE_CHILD)];

/// Programs of process context. On preemptible kernels the kernel skips a run when another task has been preempted in the
/// middle of the same program on the same CPU (some in a million). What is then missed is one accept or one port of one
/// process, no drop.
pub const PROCESS_CONTEXT: &[&str] = &[
    "fexit_accept",
    "fexit_sys_accept",
    "kretprobe_alloc_fd",
    "fexit_get_port",
    "fexit_hash_connect_v4",
    "fexit_hash_connect_v6",
    "fexit_connect_v4",
    "fexit_connect_v6",
    "kprobe_sock_graft",
    "kprobe_get_port",
    "kretprobe_get_port",
    "fexit_bind_v4",
    "fexit_bind_v6",
    "kprobe_bind",
    "kretprobe_bind",
    "tp_enter_bind",
    "tp_exit_bind",
    "tp_exit_accept",
];
