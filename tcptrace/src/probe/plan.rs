//! What is observed, and by which attachments that can be done: the table that [`super::attach`] works through.
//!
//! Only functions called from another file, functions called through a pointer, and tracepoints: compilers inline calls
//! within a file, so a symbol may exist and never fire. The prototypes stand in the eBPF sources beside each program.

/// How a program is attached. In order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackEnd {
    /// BPF trampolines: fentry and fexit.
    Fexit,
    /// kprobe and kretprobe.
    Kprobe,
    /// BTF tracepoints and the tracepoints of system calls.
    Tracepoint,
}

impl BackEnd {
    /// Its name in coverage and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// The type of one attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Entry of a function, by trampoline.
    Fentry,
    /// Return of a function, by trampoline.
    Fexit,
    /// Entry of a function, by breakpoint or ftrace.
    Kprobe,
    /// Return of a function, likewise.
    Kretprobe,
    /// A tracepoint with typed arguments.
    BtfTracepoint,
    /// A tracepoint of the `syscalls` category. While one is attached, every system call of the host takes the slow path.
    SyscallTracepoint,
}

impl Kind {
    /// Its name in coverage.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
            Self::BtfTracepoint => "tp_btf",
            Self::SyscallTracepoint => "tracepoint",
        }
    }
}

/// One attachment: a program of the eBPF object, and what it attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Name of the program in the object.
    pub program: &'static str,
    /// How it attaches.
    pub kind: Kind,
    /// Where to: the first of these that the kernel has.
    pub targets: &'static [&'static str],
    /// For IPv6, which a kernel may be built without (or as a module, whose functions cannot be reached): its absence
    /// leaves the observation standing for IPv4.
    pub ipv6: bool,
}

/// A way to make an observation.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Which tier it belongs to.
    pub back_end: BackEnd,
    /// All of these are needed.
    pub probes: &'static [Probe],
    /// What this way sees less well than the first one; `None` if nothing.
    pub limit: Option<&'static str>,
    /// Bit that tells the `tp_set_state_*` programs to make this observation, which it shares with others; 0 for the other programs.
    pub serves: u32,
    /// Name of a layout entry without which this way sees nothing.
    pub needs: Option<&'static str>,
}

impl Way {
    /// The tier that this way shows to work: one of tracepoints alone works without trampolines and kprobes, whatever tiers it
    /// serves.
    #[must_use]
    pub fn tier(&self) -> BackEnd {
        let tracepoints = |probe: &Probe| matches!(probe.kind, Kind::BtfTracepoint | Kind::SyscallTracepoint);
        if self.probes.iter().all(tracepoints) { BackEnd::Tracepoint } else { self.back_end }
    }
}

/// Something that the tracer wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Its name in coverage.
    pub name: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// The ways, best first.
    pub ways: &'static [Way],
    /// How user space makes up for it when no way works: `Some` is coverage status `polled`.
    pub polled: Option<&'static str>,
    /// Observations of one group take part in one state machine in the kernel and must all come from the full tiers, or
    /// all from the tracepoint tier.
    pub group: u8,
}

const fn probe(program: &'static str, kind: Kind, targets: &'static [&'static str]) -> Probe {
    Probe { program, kind, targets, ipv6: false }
}

const fn probe6(program: &'static str, kind: Kind, targets: &'static [&'static str]) -> Probe {
    Probe { program, kind, targets, ipv6: true }
}

const fn way(back_end: BackEnd, probes: &'static [Probe]) -> Way {
    Way { back_end, probes, limit: None, serves: 0, needs: None }
}

const fn tracepoint_way(probes: &'static [Probe], limit: &'static str, serves: u32) -> Way {
    Way { back_end: BackEnd::Tracepoint, probes, limit: Some(limit), serves, needs: None }
}

use BackEnd::{Fexit, Kprobe};
use tcptrace_common::config::{SERVE_CONNECT, SERVE_ENQUEUE, SERVE_LISTEN};
use tcptrace_common::stand_in::{DROP, STATE_CHILD, STATE_PORT};

const SYS_LISTEN: &[&str] = &["__x64_sys_listen", "__arm64_sys_listen"];
const ROUTE_V4: &[&str] = &["tcp_v4_init_req", "tcp_v4_route_req"];
const ROUTE_V6: &[&str] = &["tcp_v6_init_req", "tcp_v6_route_req"];
const QUEUE_DROP: &[&str] = &["inet_csk_reqsk_queue_drop"];
const QUEUE_DROP_AND_PUT: &[&str] = &["inet_csk_reqsk_queue_drop_and_put"];
const STATE: &[&str] = &["inet_sock_set_state"];
const STATE_OF_TASK: &[Probe] = &[probe("tp_set_state_task", Kind::BtfTracepoint, STATE)];
const STATE_OF_CHILD: &[Probe] = &[
    probe("tp_set_state_child", Kind::BtfTracepoint, STATE),
    probe("tp_set_state_child_stand_in", Kind::BtfTracepoint, STATE),
];
const STATE_OF_PORT: &[Probe] = &[
    probe("tp_set_state_task", Kind::BtfTracepoint, STATE),
    probe("tp_set_state_port", Kind::BtfTracepoint, STATE),
    probe("tp_set_state_port_stand_in", Kind::BtfTracepoint, STATE),
];
const SYNACK_AGAIN: &[Probe] =
    &[probe("tp_retransmit_synack", Kind::BtfTracepoint, &["tcp_retransmit_synack"])];

const SYN_AGAIN: &[Probe] = &[probe("tp_retransmit_skb", Kind::BtfTracepoint, &["tcp_retransmit_skb"])];
const DROPPED: &[Probe] = &[
    probe("tp_handshake_drop", Kind::BtfTracepoint, &["kfree_skb"]),
    probe("tp_handshake_drop_stand_in", Kind::BtfTracepoint, &["kfree_skb"]),
];
const BIND_CALLS: &[Probe] = &[
    probe("tp_enter_bind", Kind::SyscallTracepoint, &["sys_enter_bind"]),
    probe("tp_exit_bind", Kind::SyscallTracepoint, &["sys_exit_bind"]),
];
const RESET: Probe = probe("tp_receive_reset", Kind::BtfTracepoint, &["tcp_receive_reset"]);
const END_BY_STATE: Way = Way {
    back_end: BackEnd::Tracepoint,
    probes: &[
        RESET,
        probe("tp_set_state_task", Kind::BtfTracepoint, STATE),
        probe("tp_set_state_port", Kind::BtfTracepoint, STATE),
        probe("tp_set_state_port_stand_in", Kind::BtfTracepoint, STATE),
    ],
    limit: None,
    serves: SERVE_CONNECT,
    needs: None,
};

/// In the kprobe tier, too: a kprobe on what every connect does would make others be skipped (see the eBPF side's
/// `attach/kprobe.rs`).
const PORT_BY_STATE: Way =
    tracepoint_way(STATE_OF_PORT, "a port is known once the connect is answered", SERVE_CONNECT);
const RELEASE_BY_STATE: Way = tracepoint_way(
    STATE_OF_PORT,
    "of connected sockets only; one that closes while a packet closes another may be missed",
    SERVE_CONNECT,
);

const NO_PORT_BY_STATE: Way = tracepoint_way(
    STATE_OF_PORT,
    "that a bound socket's connection exists already is not seen",
    SERVE_CONNECT,
);

/// Programs that the kernel may skip now and then without a loss worth telling: those that only process context has work
/// for, when a packet interrupts them; and those that free a port's entry, which the next taker overwrites.
pub const SKIPPED_IN_GOOD_FAITH: &[&str] = &["tp_set_state_task", "fentry_put_port", "tp_receive_reset"];

/// Programs with a second one that does what the kernel made them miss (the eBPF side's `stand_in.rs`), and the index that
/// tells how often it did. Lost is only what both missed.
pub const STAND_INS: &[(&str, u32)] =
    &[("tp_handshake_drop", DROP), ("tp_set_state_port", STATE_PORT), ("tp_set_state_child", STATE_CHILD)];

/// Programs of process context. On preemptible kernels the kernel skips a run when another task has been preempted in the
/// middle of the same program on the same CPU (some in a million). What is then missed is one accept or one port of one
/// process, no drop.
pub const PROCESS_CONTEXT: &[&str] = &[
    "fexit_accept",
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

/// Every observation, in the order in which coverage shows them.
pub const OBSERVATIONS: &[Observation] = &[
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
            way(Fexit, &[probe("fentry_sys_listen", Kind::Fentry, SYS_LISTEN)]),
            way(Kprobe, &[probe("kprobe_sys_listen", Kind::Kprobe, SYS_LISTEN)]),
            tracepoint_way(
                &[probe("tp_enter_listen", Kind::SyscallTracepoint, &["sys_enter_listen"])],
                "slows every system call of the host a little",
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
    Observation {
        name: "syn-drop",
        what: "SYNs dropped at a full queue",
        ways: &[
            way(
                Fexit,
                &[
                    // What says that a SYN passed stands before what takes every other for dropped: attaching one program
                    // takes long enough for SYNs to come between the two.
                    probe("fentry_route_req_v4", Kind::Fentry, ROUTE_V4),
                    probe6("fentry_route_req_v6", Kind::Fentry, ROUTE_V6),
                    probe("fexit_peer_is_proven", Kind::Fexit, &["tcp_peer_is_proven"]),
                    probe("fexit_conn_request", Kind::Fexit, &["tcp_conn_request"]),
                ],
            ),
            way(
                Kprobe,
                &[
                    probe("kprobe_route_req", Kind::Kprobe, ROUTE_V4),
                    probe6("kprobe_route_req", Kind::Kprobe, ROUTE_V6),
                    probe("kretprobe_peer_is_proven", Kind::Kretprobe, &["tcp_peer_is_proven"]),
                    probe("kprobe_conn_request", Kind::Kprobe, &["tcp_conn_request"]),
                    probe("kretprobe_conn_request", Kind::Kretprobe, &["tcp_conn_request"]),
                ],
            ),
        ],
        polled: Some(
            "no tracepoint shows it (the SYN is freed by consume_skb): listeners' drop counts are read from sock_diag",
        ),
        group: 0,
    },
    Observation {
        name: "no-way-back",
        what: "SYNs dropped because there is no route for the answer",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fexit_route_req_v4", Kind::Fexit, &["tcp_v4_route_req"]),
                    probe6("fexit_route_req_v6", Kind::Fexit, &["tcp_v6_route_req"]),
                ],
            ),
            way(
                Kprobe,
                &[
                    probe("kretprobe_route_req", Kind::Kretprobe, &["tcp_v4_route_req"]),
                    probe6("kretprobe_route_req", Kind::Kretprobe, &["tcp_v6_route_req"]),
                ],
            ),
        ],
        polled: None,
        group: 0,
    },
    Observation {
        name: "cookie",
        what: "SYNs answered with a cookie, and cookies that came back",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fentry_cookie_v4", Kind::Fentry, &["cookie_v4_init_sequence"]),
                    probe6("fentry_cookie_v6", Kind::Fentry, &["cookie_v6_init_sequence"]),
                    probe("fexit_cookie_check_v4", Kind::Fexit, &["cookie_v4_check"]),
                    probe6("fexit_cookie_check_v6", Kind::Fexit, &["cookie_v6_check"]),
                ],
            ),
            way(
                Kprobe,
                &[
                    probe("kprobe_cookie", Kind::Kprobe, &["cookie_v4_init_sequence"]),
                    probe6("kprobe_cookie", Kind::Kprobe, &["cookie_v6_init_sequence"]),
                    probe("kprobe_cookie_check", Kind::Kprobe, &["cookie_v4_check"]),
                    probe("kretprobe_cookie_check", Kind::Kretprobe, &["cookie_v4_check"]),
                    probe6("kprobe_cookie_check", Kind::Kprobe, &["cookie_v6_check"]),
                    probe6("kretprobe_cookie_check", Kind::Kretprobe, &["cookie_v6_check"]),
                ],
            ),
        ],
        polled: Some("the namespace's SyncookiesSent is read; which listener sent them is not seen"),
        group: 0,
    },
    Observation {
        name: "synack-retransmit",
        what: "SYN-ACKs sent again",
        // One tracepoint for all tiers: it fires only when something is wrong.
        ways: &[
            way(Fexit, SYNACK_AGAIN),
            way(Kprobe, SYNACK_AGAIN),
            tracepoint_way(SYNACK_AGAIN, "a timer and a repeated SYN are not told apart", 0),
        ],
        polled: None,
        group: 0,
    },
    Observation {
        name: "request-end",
        what: "half-open requests given up, reset, refused, or ended by an ICMP error",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fentry_reqsk_timer", Kind::Fentry, &["reqsk_timer_handler"]),
                    probe("fexit_reqsk_timer", Kind::Fexit, &["reqsk_timer_handler"]),
                    probe("fentry_queue_drop", Kind::Fentry, QUEUE_DROP),
                    probe("fentry_queue_drop_and_put", Kind::Fentry, QUEUE_DROP_AND_PUT),
                    probe("fentry_icmp_v4", Kind::Fentry, &["tcp_v4_err"]),
                    probe("fexit_icmp_v4", Kind::Fexit, &["tcp_v4_err"]),
                    probe6("fentry_icmp_v6", Kind::Fentry, &["tcp_v6_err"]),
                    probe6("fexit_icmp_v6", Kind::Fexit, &["tcp_v6_err"]),
                ],
            ),
            way(
                Kprobe,
                &[
                    probe("kprobe_reqsk_timer", Kind::Kprobe, &["reqsk_timer_handler"]),
                    probe("kretprobe_reqsk_timer", Kind::Kretprobe, &["reqsk_timer_handler"]),
                    probe("kprobe_queue_drop", Kind::Kprobe, QUEUE_DROP),
                    probe("kprobe_queue_drop_and_put", Kind::Kprobe, QUEUE_DROP_AND_PUT),
                    probe("kprobe_icmp_v4", Kind::Kprobe, &["tcp_v4_err"]),
                    probe("kretprobe_icmp", Kind::Kretprobe, &["tcp_v4_err"]),
                    probe6("kprobe_icmp_v6", Kind::Kprobe, &["tcp_v6_err"]),
                    probe6("kretprobe_icmp", Kind::Kretprobe, &["tcp_v6_err"]),
                ],
            ),
        ],
        polled: None,
        group: 0,
    },
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
            way(Fexit, &[probe("fexit_accept", Kind::Fexit, &["inet_csk_accept"])]),
            way(Kprobe, &[probe("kprobe_sock_graft", Kind::Kprobe, &["security_sock_graft"])]),
            tracepoint_way(
                &[
                    probe("tp_exit_accept", Kind::SyscallTracepoint, &["sys_exit_accept4"]),
                    probe("tp_exit_accept", Kind::SyscallTracepoint, &["sys_exit_accept"]),
                ],
                "accept wait is measured at accept4's return; io_uring accepts are not seen; slows every system call a little",
                0,
            ),
        ],
        polled: None,
        group: 2,
    },
    Observation {
        name: "bind-fail",
        what: "binds and their conflicts, with the requested address and the holder",
        ways: &[
            way(Fexit, &[probe("fexit_get_port", Kind::Fexit, &["inet_csk_get_port"])]),
            way(
                Kprobe,
                &[
                    probe("kprobe_get_port", Kind::Kprobe, &["inet_csk_get_port"]),
                    probe("kretprobe_get_port", Kind::Kretprobe, &["inet_csk_get_port"]),
                ],
            ),
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
        name: "bind-error",
        what: "binds that fail for other reasons: no such address, a privileged port",
        ways: &[
            way(
                Fexit,
                &[
                    probe("fexit_bind_v4", Kind::Fexit, &["inet_bind"]),
                    probe6("fexit_bind_v6", Kind::Fexit, &["inet6_bind"]),
                ],
            ),
            way(
                Kprobe,
                &[
                    probe("kprobe_bind", Kind::Kprobe, &["inet_bind"]),
                    probe("kretprobe_bind", Kind::Kretprobe, &["inet_bind"]),
                    probe6("kprobe_bind", Kind::Kprobe, &["inet6_bind"]),
                    probe6("kretprobe_bind", Kind::Kretprobe, &["inet6_bind"]),
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
                    probe("fexit_hash_connect_v4", Kind::Fexit, &["inet_hash_connect"]),
                    probe6("fexit_hash_connect_v6", Kind::Fexit, &["inet6_hash_connect"]),
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
                    probe("fexit_hash_connect_v4", Kind::Fexit, &["inet_hash_connect"]),
                    probe6("fexit_hash_connect_v6", Kind::Fexit, &["inet6_hash_connect"]),
                ],
            ),
            Way { back_end: Kprobe, ..NO_PORT_BY_STATE },
            NO_PORT_BY_STATE,
        ],
        polled: None,
        group: 3,
    },
    Observation {
        name: "port-released",
        what: "ports given back",
        ways: &[
            way(Fexit, &[probe("fentry_put_port", Kind::Fentry, &["inet_put_port"])]),
            Way { back_end: Kprobe, ..RELEASE_BY_STATE },
            RELEASE_BY_STATE,
        ],
        polled: None,
        group: 3,
    },
    Observation {
        name: "syn-retransmit",
        what: "SYNs of our own connects sent again",
        // One tracepoint for all tiers: it fires only when something is wrong.
        ways: &[way(Fexit, SYN_AGAIN), way(Kprobe, SYN_AGAIN), way(BackEnd::Tracepoint, SYN_AGAIN)],
        polled: None,
        group: 0,
    },
    Observation {
        name: "connect-end",
        what: "connects that are refused, time out or are called off",
        ways: &[
            Way {
                limit: Some("of connects from a port that bind() gave, only those refused by RST"),
                ..way(Fexit, &[RESET, probe("fentry_put_port", Kind::Fentry, &["inet_put_port"])])
            },
            Way { back_end: Kprobe, ..END_BY_STATE },
            END_BY_STATE,
        ],
        polled: None,
        group: 3,
    },
    Observation {
        name: "connect-error",
        what: "connects that fail before a SYN is sent",
        // No kprobes on what every connect does; and no tracepoint tells of it.
        ways: &[way(
            Fexit,
            &[
                probe("fexit_connect_v4", Kind::Fexit, &["tcp_v4_connect"]),
                probe6("fexit_connect_v6", Kind::Fexit, &["tcp_v6_connect"]),
            ],
        )],
        polled: None,
        group: 0,
    },
    Observation {
        name: "handshake-drop",
        what: "packets of handshakes dropped on their way by this host",
        // One tracepoint for all tiers.
        ways: &[way(Fexit, DROPPED), way(Kprobe, DROPPED), way(BackEnd::Tracepoint, DROPPED)],
        polled: None,
        group: 0,
    },
    Observation {
        name: "no-listener",
        what: "SYNs for ports that nobody listens on",
        ways: &[
            Way { needs: Some("drop_no_socket"), ..way(Fexit, DROPPED) },
            way(
                Fexit,
                &[
                    probe("fentry_send_reset_v4", Kind::Fentry, &["tcp_v4_send_reset"]),
                    probe6("fentry_send_reset_v6", Kind::Fentry, &["tcp_v6_send_reset"]),
                ],
            ),
            Way { needs: Some("drop_no_socket"), ..way(Kprobe, DROPPED) },
            way(
                Kprobe,
                &[
                    probe("kprobe_send_reset", Kind::Kprobe, &["tcp_v4_send_reset"]),
                    probe6("kprobe_send_reset", Kind::Kprobe, &["tcp_v6_send_reset"]),
                ],
            ),
            Way { needs: Some("drop_no_socket"), ..way(BackEnd::Tracepoint, DROPPED) },
        ],
        polled: None,
        group: 0,
    },
    Observation {
        name: "connect-established",
        what: "connects that are answered",
        ways: &[
            way(
                Fexit,
                &[probe("fentry_conn_established", Kind::Fentry, &["security_inet_conn_established"])],
            ),
            Way { back_end: Kprobe, limit: None, ..PORT_BY_STATE },
            Way { limit: None, ..PORT_BY_STATE },
        ],
        polled: None,
        group: 3,
    },
];

/// Observations that are made only if every connection is to be shown: they cost a run of a program for each.
pub const WITH_ALL: &[&str] = &["connect-established"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_in_order_of_preference() {
        for observation in OBSERVATIONS {
            assert!(observation.ways.is_sorted_by(|a, b| a.back_end <= b.back_end), "{}", observation.name);
        }
    }

    /// Attaching follows the list. The other way round every SYN that came meanwhile was called a drop.
    #[test]
    fn what_clears_a_syn_is_attached_before_what_accuses_it() {
        let observation = OBSERVATIONS.iter().find(|o| o.name == "syn-drop").unwrap();
        for way in observation.ways {
            let last = way.probes.last().unwrap();
            assert_eq!(last.targets, ["tcp_conn_request"]);
            assert!(matches!(last.kind, Kind::Fexit | Kind::Kretprobe), "{}", last.program);
        }
    }

    #[test]
    fn the_page_about_probes_has_every_observation() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/probes.md");
        let page = std::fs::read_to_string(page).unwrap();
        for observation in OBSERVATIONS {
            let row = format!("\n| {} ", observation.name);
            assert!(page.contains(&row), "docs/probes.md has no row for {}", observation.name);
        }
    }

    #[test]
    fn every_needed_layout_entry_exists() {
        for way in OBSERVATIONS.iter().flat_map(|o| o.ways) {
            if let Some(needed) = way.needs {
                assert!(
                    tcptrace_common::KernelLayout::ENTRIES.iter().any(|(name, _)| *name == needed),
                    "{needed}"
                );
            }
        }
    }
}
