//! Packets of handshakes that this host drops or turns away.

use super::BackEnd::{Fexit, Kprobe};
use super::{BackEnd, Kind, Observation, Probe, Way, probe, probe6, way};

const DROPPED: &[Probe] = &[
    probe("tp_handshake_drop", Kind::BtfTracepoint, &["kfree_skb"]),
    probe("tp_handshake_drop_stand_in", Kind::BtfTracepoint, &["kfree_skb"]),
];

/// In the order in which coverage shows them.
pub(super) const OBSERVATIONS: &[Observation] = &[
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
];
