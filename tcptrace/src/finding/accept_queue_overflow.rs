//! accept-queue-overflow: a SYN or final ACK was dropped because the listener's accept queue was full.
//!
//! Its cause is the one thing to change: nobody accepts (accept-stalled), somaxconn cut the queue (somaxconn), the program
//! asked for a short one (backlog-argument), or accepting is too slow for any queue (accept-slow).

mod account;
mod cause;
mod stall;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::correlate::{Change, Correlator, DistinctCount, Listener, ListenerId, Overflows, Reading};
use crate::event::{Timestamp, observation};

use super::case::{Concern, Description, Diagnosis};
use super::{Apart, CauseRule, FindingKind, keys};
use account::Account;
use stall::Stall;

/// Peers that are told apart.
const PEERS: usize = 1024;

/// So long after a drop its finding may still be open.
pub(super) const QUIET_AFTER_OVERFLOW: Duration = Duration::from_secs(12);

/// The diagnosis.
#[derive(Default)]
pub(super) struct AcceptQueueOverflow {
    /// Drops that earlier findings of a listener have told of.
    told: HashMap<ListenerId, Overflows>,
}

/// An overflow in progress.
pub(super) struct Overflow {
    /// Drops of the listener that are not this finding's.
    before: Overflows,
    /// First and last drop.
    first: Timestamp,
    last: Timestamp,
    /// Counters of the listener before the first drop, and by the first reading after the last one.
    start: Reading,
    end: Option<Reading>,
    deepest: u32,
    peers: DistinctCount<IpAddr>,
    /// Growth of the namespace's ListenOverflows before the first drop.
    kernel_before: Option<u64>,
    stall: Stall,
}

impl Diagnosis for AcceptQueueOverflow {
    const KIND: FindingKind = FindingKind {
        code: "accept-queue-overflow",
        opens_when: "a SYN or a final ACK was dropped at a full accept queue",
        page: include_str!("../../../docs/findings/accept-queue-overflow.md"),
        observations: &["syn-drop", "ack-drop", "enqueue", "accept", "listen", "backlog"],
        tracepoint_tier: "SYN drops are deduced from the namespace's ListenOverflows and put to the listener that was full: `likely`, or `possible` if \
         several listeners were full at once or share the port. Final ACKs are seen since 6.15, before that both stages are \
         counted together.",
        causes: &[
            CauseRule {
                code: "backlog-argument",
                means: "the application asked listen() for a shorter queue than somaxconn allows",
                certain: Some(
                    "every drop at the full queue, and the argument of listen() below somaxconn at that moment",
                ),
                likely: Some(
                    "the drops, but not listen() itself: the limit is below today's somaxconn; or the drops are known from the listener's own count, which the tracepoint tier polls",
                ),
                possible: Some(
                    "several full listeners share the drops that were counted, or accepts could not be observed",
                ),
                told_apart: &[
                    Apart {
                        from: "`somaxconn`: the kernel cut the argument",
                        by: "the argument was below somaxconn when listen() was called",
                    },
                    Apart {
                        from: "`accept-stalled`: no process accepts",
                        by: "accepts went on while the queue was full",
                    },
                    Apart {
                        from: "a full SYN queue",
                        by: "the drop was at the accept queue: its depth was over its limit",
                    },
                ],
            },
            CauseRule {
                code: "somaxconn",
                means: "the application asked for more than `net.core.somaxconn` allowed, and the kernel cut it",
                certain: Some(
                    "every drop at the full queue, and the argument of listen() above somaxconn at that moment",
                ),
                likely: Some("the drops as the tracepoint tier polls them, and the argument of listen()"),
                possible: Some(
                    "the limit equals somaxconn, and listen() was not seen: an equal argument looks the same",
                ),
                told_apart: &[
                    Apart {
                        from: "`backlog-argument`",
                        by: "the argument of listen() was higher than the limit in force",
                    },
                    Apart {
                        from: "`accept-stalled`: no process accepts",
                        by: "accepts went on while the queue was full",
                    },
                ],
            },
            CauseRule {
                code: "accept-stalled",
                means: "no process accepted for 3 s while the queue was full, or while connections waited until it was; or all threads of its \
                    owners are stopped",
                certain: Some("accepts are observed, and there was none; every drop at the full queue"),
                likely: Some("accepts are polled or counted by port, or some could not be observed"),
                possible: Some(
                    "several full listeners share the drops that were counted, or accepts could not be observed",
                ),
                told_apart: &[
                    Apart {
                        from: "`accept-slow`: it accepts, but too slowly",
                        by: "no accept() returned a connection of this listener during the stall",
                    },
                    Apart {
                        from: "accepts that the tracer did not see",
                        by: "the depth of the queue, which the kernel counts, did not fall",
                    },
                ],
            },
            CauseRule {
                code: "accept-slow",
                means: "the queue is as long as it can usefully be, and accepts are slower than arrivals",
                certain: Some("accepts and arrivals are both observed, and fewer are accepted than arrive"),
                likely: Some("accepts are counted by port, or the drops are polled"),
                possible: Some("accepts of this listener could not be told from others"),
                told_apart: &[
                    Apart {
                        from: "a backlog that is too short",
                        by: "the queue would need more than a few seconds to drain at the rate of accepts",
                    },
                    Apart { from: "`accept-stalled`", by: "accepts went on" },
                ],
            },
        ],
        evidence: &[
            keys::ABORT_ON_OVERFLOW,
            keys::ACCEPT_ERRNO,
            keys::ACCEPT_FAILED_AT,
            keys::ACCEPT_THREADS,
            keys::ACCEPTS_PER_S,
            keys::number("ack_drops", "final ACKs dropped at the full accept queue"),
            keys::ARRIVALS_PER_S,
            keys::BACKLOG,
            keys::DROPS,
            keys::number("drops_polled", "of these: deduced from polled counters"),
            keys::flag("drops_shared", "the drops are counted for all listeners of the namespace together"),
            keys::DURATION_S,
            keys::number("kernel_ListenOverflows", "what the kernel's `ListenOverflows` grew by"),
            keys::MAX_SYN_BACKLOG,
            keys::NO_ACCEPT_S,
            keys::OPEN_FILES,
            keys::OPEN_FILES_LIMIT,
            keys::PEERS,
            keys::flag("peers_more", "there are more remote addresses than that"),
            keys::QUEUE,
            keys::QUEUE_LIMIT,
            keys::RATES_OVER_S,
            keys::SOMAXCONN,
            keys::SOMAXCONN_AT_LISTEN,
            keys::endpoint(
                "steered_from",
                "what the clients call, where a program or rule chose this listener for it",
            ),
            keys::SYN_DROPS,
            keys::SYNCOOKIES,
            keys::THREADS,
            keys::THREADS_BLOCKED,
            keys::THREADS_IN_EPOLL,
            keys::THREADS_RUNNING,
            keys::THREADS_STOPPED,
            keys::WAIT_MAX_MS,
            keys::measure("wait_mean_ms", "mean accept wait"),
            keys::WATCHES_LISTENER,
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ListenerId;
    type Memory = Overflow;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<ListenerId>> {
        match change {
            Change::Overflowed { listener, .. } => Some(Concern::Happened(*listener)),
            Change::ListenerRead(listener) => Some(Concern::Known(*listener)),
            Change::ListenerClosed(listener) => Some(Concern::Gone(*listener)),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ListenerId, world: &Correlator) -> Overflow {
        let now = world.now();
        let listener = world.listener(*key);
        // Listeners that are forgotten have no findings to come.
        self.told.retain(|listener, _| world.listener(*listener).is_some());
        let before = self.told.get(key).copied().unwrap_or_default();
        let start = listener.map_or_else(Reading::default, |listener| {
            // What a counter tells once a second may have happened in all of that second.
            let polled = !world.observes(observation::SYN_DROP);
            start_reading(listener, now, if polled { now.before(A_SECOND) } else { now })
        });
        Overflow {
            before,
            first: now,
            last: now,
            start,
            end: None,
            deepest: 0,
            peers: DistinctCount::new(PEERS),
            // Over the same time as ours: a drop that is known from the counter alone is in its latest reading.
            kernel_before: listener
                .and_then(|listener| world.namespace(listener.endpoints.netns))
                .and_then(|namespace| namespace.overflows_until(start.time)),
            stall: Stall::after(before.total(), listener.and_then(Listener::stalled_since), now),
        }
    }

    fn observe(&mut self, key: &ListenerId, memory: &mut Overflow, change: &Change, world: &Correlator) {
        let Some(listener) = world.listener(*key) else { return };
        match change {
            Change::Overflowed { peer, .. } => {
                memory.last = world.now();
                memory.deepest = memory.deepest.max(listener.depth);
                memory.stall.note_drop(listener, memory.last);
                if let Some(peer) = peer {
                    memory.peers.note(peer.ip());
                }
            }
            Change::ListenerRead(_) | Change::ListenerClosed(_) => {
                memory.deepest = memory.deepest.max(listener.depth);
                memory.note_reading(listener);
            }
            _ => {}
        }
        memory.stall.note_process(listener, memory.first, world);
    }

    fn describe(&self, key: &ListenerId, memory: &Overflow, world: &Correlator) -> Option<Description> {
        let listener = world.listener(*key)?;
        Some(Account::of(listener, memory, world).describe())
    }

    fn end(&mut self, key: &ListenerId, _memory: &Overflow, world: &Correlator) {
        if let Some(listener) = world.listener(*key) {
            self.told.insert(*key, listener.overflows());
        }
    }
}

/// Listeners and counters are read this often.
const A_SECOND: Duration = Duration::from_secs(1);

/// What the counters said before the `first` drop. Listeners are read once a second if they changed, so an older reading was
/// still true a second ago; and what was never read began within that second.
fn start_reading(listener: &Listener, now: Timestamp, first: Timestamp) -> Reading {
    let a_second_ago = now.before(A_SECOND);
    let nothing = Reading {
        time: a_second_ago,
        syns: Some(0),
        enqueued: Some(0),
        accepted: Some(0),
        waits: Some((0, 0)),
        ..Reading::default()
    };
    let read = listener.readings.at(first).filter(|reading| reading.time < now).copied().unwrap_or(nothing);
    Reading { time: read.time.max(a_second_ago), ..read }
}

fn kernel_overflows(listener: &Listener, world: &Correlator) -> Option<(Timestamp, u64)> {
    world.namespace(listener.endpoints.netns)?.grown(|counters| counters.listen_overflows)
}

impl Overflow {
    fn note_reading(&mut self, listener: &Listener) {
        let Some(reading) = listener.readings.latest() else { return };
        if reading.time <= self.start.time {
            return;
        }
        // Rates are those of the time with drops: readings of the quiet time before closing are left out. One of the same
        // time is the same, completed.
        if self.end.is_none_or(|end| end.time < self.last || end.time == reading.time) {
            self.end = Some(*reading);
        }
        self.stall.note_reading(reading, self.first);
    }
}

#[cfg(test)]
mod tests;
