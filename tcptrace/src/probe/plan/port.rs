//! Ports that are taken, given back and refused.

use tcptrace_common::config::SERVE_CONNECT;

use super::BackEnd::{Fexit, Kprobe};
use super::shared::{PORT_BY_STATE, STATE_OF_PORT};
use super::{Kind, Observation, Probe, Spare, Way, probe, probe6, tracepoint_way, way};

const GET_PORT: &[Probe] = &[probe("fexit_get_port", Kind::Fexit, &["inet_csk_get_port"]).one_call()];
const GET_PORT_ENTRY_AND_EXIT: &[Probe] = &[
    probe("kprobe_get_port", Kind::Kprobe, &["inet_csk_get_port"]).one_call(),
    probe("kretprobe_get_port", Kind::Kretprobe, &["inet_csk_get_port"]).one_call(),
];
const BIND_CALLS: &[Probe] = &[
    probe("tp_enter_bind", Kind::SyscallTracepoint, &["sys_enter_bind"]).one_call(),
    probe("tp_exit_bind", Kind::SyscallTracepoint, &["sys_exit_bind"]).one_call(),
];
/// Since 6.6 its bind() calls `inet_bind_sk`; before, that of TCP, and is seen there.
const MPTCP: Spare = Spare { gap: "multipath TCP not seen", only_with: &["inet_bind_sk", "mptcp_bind"] };
/// What it refuses does not reach the protocol.
const SECURITY: Spare =
    Spare { gap: "what a security module denies is not seen", only_with: &["security_socket_bind"] };
const RELEASE_BY_STATE: Way = tracepoint_way(
    STATE_OF_PORT,
    "of connected sockets only; one that closes while a packet closes another may be missed",
    SERVE_CONNECT,
);
const NO_PORT_BY_STATE: Way = tracepoint_way(
    STATE_OF_PORT,
    "that a bound socket's connection exists already is not seen: see connection-exists",
    SERVE_CONNECT,
);

/// Made by the programs of `no-port`, and only where they stand for it: see [`super::DEPENDENT`].
pub(super) const CONNECTION_EXISTS: &str = "connection-exists";

/// In the order in which coverage shows them.
pub(super) const OBSERVATIONS: &[Observation] = &[
    Observation {
        name: "bind-fail",
        what: "binds and their conflicts, with the requested address and the holder",
        ways: &[
            way(Fexit, GET_PORT),
            way(Kprobe, GET_PORT_ENTRY_AND_EXIT),
            tracepoint_way(
                BIND_CALLS,
                "a conflict at listen() and io_uring binds are not seen; slows every system call of the host a little",
                0,
            ),
        ],
        polled: None,
        group: 0,
    },
    Observation {
        name: "listen-fail",
        what: "listen() calls that fail because another socket listens on the port",
        // The tracepoint of listen() is not worth its cost: nearly all conflicts are seen at bind().
        ways: &[way(Fexit, GET_PORT), way(Kprobe, GET_PORT_ENTRY_AND_EXIT)],
        polled: None,
        group: 0,
    },
    Observation {
        name: "bind-error",
        what: "binds that fail for other reasons: no such address, a privileged port, a security module",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fexit_bind_v4", Kind::Fexit, &["inet_bind"]).one_call(),
                    probe6("fexit_bind_v6", Kind::Fexit, &["inet6_bind"]).one_call(),
                    probe("fexit_bind_mptcp", Kind::Fexit, &["mptcp_bind"]).one_call().spare(MPTCP),
                    probe("fexit_security_bind", Kind::Fexit, &["security_socket_bind"])
                        .one_call()
                        .spare(SECURITY),
                ],
            ),
            way(
                Kprobe,
                &[
                    probe("kprobe_bind", Kind::Kprobe, &["inet_bind"]).one_call(),
                    probe("kretprobe_bind", Kind::Kretprobe, &["inet_bind"]).one_call(),
                    probe6("kprobe_bind", Kind::Kprobe, &["inet6_bind"]).one_call(),
                    probe6("kretprobe_bind", Kind::Kretprobe, &["inet6_bind"]).one_call(),
                    probe("kprobe_bind", Kind::Kprobe, &["mptcp_bind"]).one_call().spare(MPTCP),
                    probe("kretprobe_bind", Kind::Kretprobe, &["mptcp_bind"]).one_call().spare(MPTCP),
                    probe("kprobe_bind", Kind::Kprobe, &["security_socket_bind"]).one_call().spare(SECURITY),
                    probe("kretprobe_security_bind", Kind::Kretprobe, &["security_socket_bind"])
                        .one_call()
                        .spare(SECURITY),
                ],
            ),
            tracepoint_way(
                BIND_CALLS,
                "a failed listen() and io_uring binds are not seen; slows every system call of the host a little",
                0,
            ),
        ],
        polled: None,
        group: 0,
    },
    Observation {
        name: "port-taken",
        what: "ports taken by connect()",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fexit_hash_connect_v4", Kind::Fexit, &["inet_hash_connect"]).one_call(),
                    probe6("fexit_hash_connect_v6", Kind::Fexit, &["inet6_hash_connect"]).one_call(),
                ],
            ),
            Way { back_end: Kprobe, ..PORT_BY_STATE },
            PORT_BY_STATE,
        ],
        polled: None,
        group: 3,
    },
    Observation {
        name: "no-port",
        what: "connects that find no port",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fexit_hash_connect_v4", Kind::Fexit, &["inet_hash_connect"]).one_call(),
                    probe6("fexit_hash_connect_v6", Kind::Fexit, &["inet6_hash_connect"]).one_call(),
                ],
            ),
            Way { back_end: Kprobe, ..NO_PORT_BY_STATE },
            NO_PORT_BY_STATE,
        ],
        polled: None,
        group: 3,
    },
    Observation {
        name: CONNECTION_EXISTS,
        what: "connects from a port of their own to what they are connected to already",
        ways: &[way(
            Fexit,
            &[
                probe("fexit_hash_connect_v4", Kind::Fexit, &["inet_hash_connect"]).one_call(),
                probe6("fexit_hash_connect_v6", Kind::Fexit, &["inet6_hash_connect"]).one_call(),
            ],
        )],
        polled: None,
        group: 0,
    },
    Observation {
        name: "port-released",
        what: "ports given back",
        ways: &[
            way(Fexit, &[probe("fentry_put_port", Kind::Fentry, &["inet_put_port"]).harmless()]),
            Way { back_end: Kprobe, ..RELEASE_BY_STATE },
            RELEASE_BY_STATE,
        ],
        polled: None,
        group: 3,
    },
];
