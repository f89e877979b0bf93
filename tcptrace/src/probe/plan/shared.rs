//! Attachments that several kinds of observations share.

use tcptrace_common::config::SERVE_CONNECT;

use super::{Kind, Probe, Way, probe, tracepoint_way};

pub(super) const STATE: &[&str] = &["inet_sock_set_state"];
pub(super) const STATE_OF_PORT: &[Probe] = &[
    probe("tp_set_state_task", Kind::BtfTracepoint, STATE).harmless(),
    probe("tp_set_state_port", Kind::BtfTracepoint, STATE).harmless(),
    probe("tp_set_state_port_stand_in", Kind::BtfTracepoint, STATE),
];
/// In the kprobe tier, too: a kprobe on what every connect does would make others be skipped (see the eBPF side's
/// `attach/kprobe.rs`).
pub(super) const PORT_BY_STATE: Way =
    tracepoint_way(STATE_OF_PORT, "a port is known once the connect is answered", SERVE_CONNECT);
