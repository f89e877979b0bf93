//! half-open-capture: SYN-ACKs of a listener stay unanswered, and its half-open requests pile up. They go on taking places
//! after their clients have given up.

mod account;

use std::time::Duration;

use crate::correlate::{Change, Correlator, ListenerId, Unanswered};
use crate::event::ListenerTotals;

use super::case::{Concern, Description, Diagnosis};
use super::{Apart, CauseRule};
use account::Account;

/// The diagnosis.
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
    const CODE: &'static str = "half-open-capture";
    const CAUSES: &'static [CauseRule] = &[
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
    ];
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
