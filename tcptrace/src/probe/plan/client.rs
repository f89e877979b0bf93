//! What becomes of connects.

use tcptrace_common::config::SERVE_CONNECT;

use super::BackEnd::{Fexit, Kprobe};
use super::shared::{PORT_BY_STATE, STATE};
use super::{BackEnd, Kind, Observation, Probe, Way, probe, probe6, way};

const SYN_AGAIN: &[Probe] = &[probe("tp_retransmit_skb", Kind::BtfTracepoint, &["tcp_retransmit_skb"])];
const RESET: Probe = probe("tp_receive_reset", Kind::BtfTracepoint, &["tcp_receive_reset"]).harmless();
const RESET_STAND_IN: Probe = probe("tp_receive_reset_stand_in", Kind::BtfTracepoint, &["tcp_receive_reset"]);
const END_BY_STATE: Way = Way {
    back_end: BackEnd::Tracepoint,
    probes: &[
        RESET,
        RESET_STAND_IN,
        probe("tp_set_state_task", Kind::BtfTracepoint, STATE).harmless(),
        probe("tp_set_state_port", Kind::BtfTracepoint, STATE).harmless(),
        probe("tp_set_state_port_stand_in", Kind::BtfTracepoint, STATE),
    ],
    limit: None,
    serves: SERVE_CONNECT,
    needs: None,
};

/// In the order in which coverage shows them.
pub(super) const OBSERVATIONS: &[Observation] = &[
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
                ..way(
                    Fexit,
                    &[
                        RESET,
                        RESET_STAND_IN,
                        probe("fentry_put_port", Kind::Fentry, &["inet_put_port"]).harmless(),
                    ],
                )
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
                probe("fexit_connect_v4", Kind::Fexit, &["tcp_v4_connect"]).one_call(),
                probe6("fexit_connect_v6", Kind::Fexit, &["tcp_v6_connect"]).one_call(),
            ],
        )],
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
