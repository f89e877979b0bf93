//! From the final ACK to accept().

use tcptrace_common::config::SERVE_ENQUEUE;

use super::BackEnd::{Fexit, Kprobe};
use super::shared::STATE;
use super::{BackEnd, Kind, Observation, Probe, Way, probe, probe6, tracepoint_way, way};

const STATE_OF_CHILD: &[Probe] = &[
    probe("tp_set_state_child", Kind::BtfTracepoint, STATE),
    probe("tp_set_state_child_stand_in", Kind::BtfTracepoint, STATE),
];

/// In the order in which coverage shows them.
pub(super) const OBSERVATIONS: &[Observation] = &[
    Observation {
        name: "ack-drop",
        what: "final ACKs dropped at a full accept queue",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fexit_syn_recv_v4", Kind::Fexit, &["tcp_v4_syn_recv_sock"]),
                    probe6("fexit_syn_recv_v6", Kind::Fexit, &["tcp_v6_syn_recv_sock"]),
                    probe("fentry_forced_close", Kind::Fentry, &["inet_csk_prepare_forced_close"]),
                ],
            ),
            way(
                Kprobe,
                &[
                    probe("kprobe_syn_recv_v4", Kind::Kprobe, &["tcp_v4_syn_recv_sock"]),
                    probe("kretprobe_syn_recv_v4", Kind::Kretprobe, &["tcp_v4_syn_recv_sock"]),
                    probe6("kprobe_syn_recv_v6", Kind::Kprobe, &["tcp_v6_syn_recv_sock"]),
                    probe6("kretprobe_syn_recv_v6", Kind::Kretprobe, &["tcp_v6_syn_recv_sock"]),
                    probe("kprobe_forced_close", Kind::Kprobe, &["inet_csk_prepare_forced_close"]),
                ],
            ),
            Way {
                back_end: BackEnd::Tracepoint,
                probes: &[probe("tp_kfree_skb", Kind::BtfTracepoint, &["kfree_skb"])],
                limit: Some("runs for every packet that the host drops"),
                serves: 0,
                needs: Some("drop_tcp_listen_overflow"),
            },
        ],
        polled: Some(
            "before 6.15 no tracepoint names it: listeners' drop counts are read from sock_diag, both stages together",
        ),
        group: 2,
    },
    Observation {
        name: "enqueue",
        what: "connections entering the accept queue",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fexit_hashdance", Kind::Fexit, &["inet_csk_complete_hashdance"]),
                    probe("fexit_queue_add", Kind::Fexit, &["inet_csk_reqsk_queue_add"]),
                ],
            ),
            way(
                Kprobe,
                &[
                    probe("kprobe_hashdance", Kind::Kprobe, &["inet_csk_complete_hashdance"]),
                    probe("kprobe_queue_add", Kind::Kprobe, &["inet_csk_reqsk_queue_add"]),
                ],
            ),
            tracepoint_way(
                STATE_OF_CHILD,
                "by port: listeners that share a port are not told apart; Fast Open children are seen at their final ACK",
                SERVE_ENQUEUE,
            ),
        ],
        polled: None,
        group: 2,
    },
    Observation {
        name: "accept",
        what: "accept() and the wait before it",
        ways: &[
            way(Fexit, &[probe("fexit_accept", Kind::Fexit, &["inet_csk_accept"]).one_call()]),
            way(Kprobe, &[probe("kprobe_sock_graft", Kind::Kprobe, &["security_sock_graft"]).one_call()]),
            tracepoint_way(
                &[
                    probe("tp_exit_accept", Kind::SyscallTracepoint, &["sys_exit_accept4"]).one_call(),
                    probe("tp_exit_accept", Kind::SyscallTracepoint, &["sys_exit_accept"]).one_call(),
                ],
                "accept wait is measured at accept4's return; accepts by io_uring, of MPTCP connections and by 32-bit programs are not seen; slows every system call a little",
                0,
            ),
        ],
        polled: None,
        group: 2,
    },
    Observation {
        name: "accept-failed",
        what: "accept() that fails for want of descriptors or memory, or is forbidden",
        ways: &[
            Way {
                limit: Some("accepts by io_uring are not seen"),
                ..way(Fexit, &[probe("fexit_sys_accept", Kind::Fexit, &["__sys_accept4"]).one_call()])
            },
            Way {
                limit: Some(
                    "EMFILE alone, of accept() and accept4(); runs for every descriptor that a process is given",
                ),
                ..way(
                    Kprobe,
                    &[probe("kretprobe_alloc_fd", Kind::Kretprobe, &["alloc_fd", "__alloc_fd"]).one_call()],
                )
            },
            tracepoint_way(
                &[
                    probe("tp_exit_accept", Kind::SyscallTracepoint, &["sys_exit_accept4"]).one_call(),
                    probe("tp_exit_accept", Kind::SyscallTracepoint, &["sys_exit_accept"]).one_call(),
                ],
                "accepts by io_uring and by 32-bit programs are not seen; slows every system call a little",
                0,
            ),
        ],
        polled: None,
        group: 0,
    },
];
