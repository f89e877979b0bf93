//! Who listens.

use tcptrace_common::config::SERVE_LISTEN;

use super::BackEnd::{Fexit, Kprobe};
use super::shared::STATE;
use super::{BackEnd, Kind, Observation, Probe, Way, probe, tracepoint_way, way};

const SYS_LISTEN: &[&str] = &["__x64_sys_listen", "__arm64_sys_listen"];
/// What a hook on the system call itself does not see.
const UNSEEN: &str = "that of io_uring and of 32-bit programs is not seen";
const STATE_OF_TASK: &[Probe] = &[probe("tp_set_state_task", Kind::BtfTracepoint, STATE).harmless()];

/// In the order in which coverage shows them.
pub(super) const OBSERVATIONS: &[Observation] = &[
    Observation {
        name: "listen",
        what: "who listens where, with which queue limit",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fexit_listen_start", Kind::Fexit, &["inet_csk_listen_start"]),
                    probe("fexit_inet_listen", Kind::Fexit, &["inet_listen"]),
                ],
            ),
            way(
                Kprobe,
                &[
                    probe("kprobe_listen_start", Kind::Kprobe, &["inet_csk_listen_start"]),
                    probe("kretprobe_listen_start", Kind::Kretprobe, &["inet_csk_listen_start"]),
                    probe("kprobe_inet_listen", Kind::Kprobe, &["inet_listen"]),
                    probe("kretprobe_inet_listen", Kind::Kretprobe, &["inet_listen"]),
                ],
            ),
            tracepoint_way(
                STATE_OF_TASK,
                "a second listen() with another backlog is seen when polled",
                SERVE_LISTEN,
            ),
        ],
        polled: Some("listeners are read from sock_diag"),
        group: 1,
    },
    Observation {
        name: "backlog",
        what: "the argument of listen() before somaxconn cuts it",
        ways: &[
            Way {
                limit: Some(UNSEEN),
                ..way(Fexit, &[probe("fentry_sys_listen", Kind::Fentry, SYS_LISTEN)])
            },
            Way {
                limit: Some(UNSEEN),
                ..way(Kprobe, &[probe("kprobe_sys_listen", Kind::Kprobe, SYS_LISTEN)])
            },
            tracepoint_way(
                &[probe("tp_enter_listen", Kind::SyscallTracepoint, &["sys_enter_listen"])],
                "that of io_uring and of 32-bit programs is not seen; slows every system call of the host a little",
                0,
            ),
        ],
        polled: None,
        group: 0,
    },
    Observation {
        name: "listener-closed",
        what: "who closed a listener, and what was still queued",
        ways: &[
            way(Fexit, &[probe("fentry_listen_stop", Kind::Fentry, &["inet_csk_listen_stop"])]),
            way(Kprobe, &[probe("kprobe_listen_stop", Kind::Kprobe, &["inet_csk_listen_stop"])]),
            Way {
                back_end: BackEnd::Tracepoint,
                probes: STATE_OF_TASK,
                limit: None,
                serves: SERVE_LISTEN,
                needs: None,
            },
        ],
        polled: Some("a closed listener is missed from sock_diag"),
        group: 1,
    },
];
