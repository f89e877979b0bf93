//! half-open-capture: SYN-ACKs of a listener stay unanswered, and its half-open requests pile up. They go on taking places
//! after their clients have given up.

mod account;

use std::time::Duration;

use crate::correlate::{Change, Correlator, ListenerId, Unanswered};
use crate::event::ListenerTotals;

use super::case::{Concern, Description, Diagnosis};
use super::{Apart, CauseRule, FindingKind, keys};
use account::Account;

/// The diagnosis.
#[derive(Default)]
pub(super) struct HalfOpenCapture;

/// A pile of unanswered requests.
pub(super) struct Pile {
    /// As it was last seen to be one.
    unanswered: Unanswered,
    /// Counts of the listener when it began.
    before: ListenerTotals,
    /// Most requests seen in the SYN queue; `None` if it was not looked at.
    deepest: Option<u32>,
}

impl Diagnosis for HalfOpenCapture {
    const KIND: FindingKind = FindingKind {
        code: "half-open-capture",
        opens_when: "SYN-ACKs stay unanswered, and half-open requests pile up",
        page: include_str!("../../../docs/findings/half-open-capture.md"),
        observations: &["synack-retransmit", "request-end", "syn-drop"],
        tracepoint_tier: "a SYN-ACK that the timer sent is told from one that answers a repeated SYN by its time. How requests end is not seen: no \
         `client-gave-up` and no `syn-flood`, and where no peer tries again the cause is `unknown`. Requests that end before their \
         third SYN-ACK was due are no finding. Other networks' connections are not counted: `return-path` is `possible`.",
        causes: &[
            CauseRule {
                code: "return-path",
                means: "SYN-ACKs do not reach the peers, or their ACKs do not come back",
                certain: None,
                likely: Some(
                    "the peers repeat their SYNs or come back from new ports, and other networks complete connections meanwhile",
                ),
                possible: Some(
                    "the peers insist, but no other network was seen to complete: it may be this host's own network",
                ),
                told_apart: &[
                    Apart { from: "`syn-flood`", by: "the same addresses come back: forged ones do not" },
                    Apart { from: "`client-gave-up`", by: "they try again" },
                    Apart {
                        from: "a lost SYN-ACK from a lost ACK",
                        by: "nothing on one host: a capture at the peer would tell",
                    },
                ],
            },
            CauseRule {
                code: "client-gave-up",
                means: "the peers answer late SYN-ACKs by RST or ICMP: they are gone by then",
                certain: None,
                likely: Some("most late SYN-ACKs are answered by RSTs or ICMP errors"),
                possible: None,
                told_apart: &[Apart { from: "`return-path`", by: "the SYN-ACKs arrive: they are answered" }],
            },
            CauseRule {
                code: "syn-flood",
                means: "many addresses, each once, never again",
                certain: None,
                likely: Some(
                    "16 or more addresses in 8 or more networks asked once each, and nothing answers for them (full tiers)",
                ),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "`return-path`",
                        by: "no peer repeated its SYN or came back from another port",
                    },
                    Apart { from: "`client-gave-up`", by: "no RST and no ICMP error comes" },
                ],
            },
            CauseRule {
                code: "unknown",
                means: "no peer was seen to try again, and nothing answers for them",
                certain: None,
                likely: None,
                possible: Some(
                    "SYN-ACKs stay unanswered; the peers are too few for a flood, or the tier does not see how requests end",
                ),
                told_apart: &[
                    Apart {
                        from: "`return-path`",
                        by: "nothing: clients that do not wait for long repeat no SYN; a capture at the peer would tell",
                    },
                    Apart {
                        from: "`client-gave-up`",
                        by: "nothing, if they are silent; in the tracepoint tier a capture of RSTs and ICMP errors would tell",
                    },
                    Apart {
                        from: "`syn-flood`",
                        by: "nothing: a capture shows whether the addresses ever send anything else",
                    },
                ],
            },
        ],
        evidence: &[
            keys::number("completed_elsewhere", "handshakes that other networks completed meanwhile"),
            keys::number("completed_elsewhere_percent", "share of these among all of theirs"),
            keys::COOKIES_SENT,
            keys::number("ended_by_icmp", "requests that an ICMP message ended"),
            keys::EXPIRED,
            keys::HALF_OPEN,
            keys::number("limit", "half-open requests that there may be"),
            keys::number("networks", "remote networks"),
            keys::measure("oldest_ms", "age of the oldest request"),
            keys::parties("prefixes", "the remote networks that answer least"),
            keys::number("repeated_syn", "remote addresses that repeated their SYN"),
            keys::number("requests", "requests whose SYN-ACK was sent again"),
            keys::number("requests_forgotten", "requests that were too many to be followed"),
            keys::number("reset_by_peer", "requests that the peer reset"),
            keys::number("retransmissions", "SYN-ACKs sent again"),
            keys::number("retried_from_new_port", "remote addresses that tried again from another port"),
            keys::number("sources", "remote addresses"),
            keys::SYN_DROPS,
            keys::number("synack_retries", "`net.ipv4.tcp_synack_retries`"),
            keys::number("timeout_s", "how long a request lives unanswered"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ListenerId;
    type Memory = Pile;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<ListenerId>> {
        match change {
            Change::Captured(id) => Some(Concern::Happened(*id)),
            Change::SynQueueFull(id) => Some(Concern::Over(*id)),
            Change::ListenerRead(id) => Some(Concern::Known(*id)),
            Change::ListenerClosed(id) => Some(Concern::Gone(*id)),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ListenerId, world: &Correlator) -> Pile {
        let listener = world.listener(*key);
        let full = listener.and_then(|listener| listener.syn_queue_full.as_ref());
        let before = full.map(|full| full.before).or(listener.map(|listener| listener.totals));
        Pile { unanswered: Unanswered::default(), before: before.unwrap_or_default(), deepest: None }
    }

    fn observe(&mut self, key: &ListenerId, memory: &mut Pile, change: &Change, world: &Correlator) {
        if let Some(listener) = world.listener(*key) {
            memory.deepest = memory.deepest.max(listener.syn_queue).max(listener.totals.syn_queue_max);
        }
        if let Change::Captured(_) = change {
            memory.unanswered = world.unanswered(*key);
        }
    }

    fn describe(&self, key: &ListenerId, memory: &Pile, world: &Correlator) -> Option<Description> {
        Some(Account::of(world.listener(*key)?, memory, world).describe())
    }
}

#[cfg(test)]
mod tests;
