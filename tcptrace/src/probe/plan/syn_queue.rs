//! From a SYN to its request's end.

use super::BackEnd::{Fexit, Kprobe};
use super::{Kind, Observation, Probe, probe, probe6, tracepoint_way, way};

const ROUTE_V4: &[&str] = &["tcp_v4_init_req", "tcp_v4_route_req"];
const ROUTE_V6: &[&str] = &["tcp_v6_init_req", "tcp_v6_route_req"];
const QUEUE_DROP: &[&str] = &["inet_csk_reqsk_queue_drop"];
const QUEUE_DROP_AND_PUT: &[&str] = &["inet_csk_reqsk_queue_drop_and_put"];
const SYNACK_AGAIN: &[Probe] =
    &[probe("tp_retransmit_synack", Kind::BtfTracepoint, &["tcp_retransmit_synack"])];

/// In the order in which coverage shows them.
pub(super) const OBSERVATIONS: &[Observation] = &[
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
];
