//! SYNs at a full SYN queue that no probe sees: which listener do they belong to?
//!
//! In the tracepoint tier a SYN that meets a full SYN queue leaves a trace only in the namespace's counters: `TCPReqQFullDrop`,
//! `TCPReqQFullDoCookies`, and `ListenDrops` for what the last quarter of `tcp_max_syn_backlog` turns away. Their growth belongs
//! to the listener whose queue, polled from sock_diag, was full around that time; if there were several, it cannot be told how
//! much belongs to which.

use std::time::Duration;

use crate::event::{CounterSample, Timestamp};

use super::inference::{PATIENCE, SKEW, dropped_since};
use super::listener::{InferredSyns, Listener, ListenerId};
use super::listeners::Listeners;
use super::namespace::{Inference, Namespace};

/// Listeners, each with how much it dropped by its own count.
type Shares = Vec<(ListenerId, u64)>;

/// How long growth waits for a listener whose queue is seen full, before one that only dropped something is taken for it.
const LATE: Duration = Duration::from_secs(1);

/// What becomes of a SYN at a full SYN queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Dropped,
    /// Dropped for the last quarter of `tcp_max_syn_backlog`.
    Reserved,
    Cookie,
}

/// Puts what the counters of a namespace grew by to the listeners with a full SYN queue. Returns those.
pub(super) fn attribute(
    netns: u32,
    namespace: &mut Namespace,
    listeners: &mut Listeners,
    now: Timestamp,
) -> Vec<ListenerId> {
    let mut found = Vec::new();
    for fate in [Fate::Dropped, Fate::Reserved, Fate::Cookie] {
        found.extend(attribute_one(fate, netns, namespace, listeners, now));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn attribute_one(
    fate: Fate,
    netns: u32,
    namespace: &mut Namespace,
    listeners: &mut Listeners,
    now: Timestamp,
) -> Vec<ListenerId> {
    let Some((read, grown)) = namespace.grown(|counters| fate.counted(counters)) else { return Vec::new() };
    let unexplained = grown.saturating_sub(*fate.explained(&mut namespace.inference));
    if unexplained == 0 {
        *fate.waiting(&mut namespace.inference) = None;
        return Vec::new();
    }
    let since = *fate.waiting(&mut namespace.inference).get_or_insert(now);
    let (full, dropping) = fate.candidates(netns, namespace, listeners, since.min(read));
    let candidates = match now.since(since) {
        _ if !full.is_empty() => full,
        // Its queue was looked at a moment too late; what the counter counts is certain all the same. A listener that drops for
        // another reason must not be taken for one whose queue is just about to be looked at.
        waited if waited >= LATE && !dropping.is_empty() => dropping,
        waited if waited >= PATIENCE => {
            *fate.waiting(&mut namespace.inference) = None;
            *fate.explained(&mut namespace.inference) = grown;
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    *fate.waiting(&mut namespace.inference) = None;
    *fate.explained(&mut namespace.inference) = grown;
    let shared = candidates.len() > 1;
    let weights: u64 = candidates.iter().map(|(_, weight)| *weight).fold(0, u64::saturating_add);
    let mut left = unexplained;
    let mut hit = Vec::new();
    for (position, (id, weight)) in candidates.iter().enumerate() {
        let is_last = position + 1 == candidates.len();
        let share = u128::from(unexplained) * u128::from(*weight) / u128::from(weights.max(1));
        let share = if is_last { left } else { u64::try_from(share).unwrap_or(left).min(left) };
        left -= share;
        // By its own count it dropped so little of it that it is not known to have dropped any: that is no finding.
        if share == 0 {
            continue;
        }
        hit.push(*id);
        if let Some(listener) = listeners.get_mut(*id) {
            let before = listener.totals;
            listener.note_syn_queue_full(read, &before);
            *fate.count(&mut listener.inferred_syns) += share;
            listener.inferred_syns.shared |= shared;
        }
    }
    hit
}

impl Fate {
    fn counted(self, counters: &CounterSample) -> Option<u64> {
        match self {
            Self::Dropped => counters.req_queue_full_drop,
            Self::Cookie => counters.req_queue_full_do_cookies.or(counters.syncookies_sent),
            Self::Reserved => {
                let others = counters.listen_overflows?.saturating_add(counters.req_queue_full_drop?);
                Some(counters.listen_drops?.saturating_sub(others))
            }
        }
    }

    fn explained(self, inference: &mut Inference) -> &mut u64 {
        match self {
            Self::Dropped => &mut inference.syn_queue_drops,
            Self::Reserved => &mut inference.syn_queue_reserved,
            Self::Cookie => &mut inference.syn_queue_cookies,
        }
    }

    fn waiting(self, inference: &mut Inference) -> &mut Option<Timestamp> {
        match self {
            Self::Dropped => &mut inference.drops_waiting_since,
            Self::Reserved => &mut inference.reserved_waiting_since,
            Self::Cookie => &mut inference.cookies_waiting_since,
        }
    }

    fn count(self, syns: &mut InferredSyns) -> &mut u64 {
        match self {
            Self::Dropped => &mut syns.drops,
            Self::Reserved => &mut syns.reserved,
            Self::Cookie => &mut syns.cookies,
        }
    }

    /// The listeners that it may have happened to since then, and how much by their own count: those whose queue was seen full, and
    /// others that dropped something.
    fn candidates(
        self,
        netns: u32,
        namespace: &Namespace,
        listeners: &Listeners,
        since: Timestamp,
    ) -> (Shares, Shares) {
        let knobs = &namespace.knobs;
        // With 2, cookies are always sent. Without cookies only, the last quarter is kept for known peers.
        let may_be = match self {
            Self::Dropped => knobs.syncookies.is_none_or(|value| value == 0),
            Self::Cookie => knobs.syncookies.is_none_or(|value| value == 1),
            Self::Reserved => knobs.syncookies == Some(0),
        };
        if !may_be {
            return Default::default();
        }
        let before = since.before(SKEW);
        let mine = listeners.iter().filter(|listener| {
            listener.endpoints.netns == netns
                && listener.readings.latest().is_some_and(|latest| latest.time >= before)
        });
        let (mut full, mut dropping) = (Vec::new(), Vec::new());
        for listener in mine {
            let dropped = dropped_since(listener, before);
            // A cookie is no drop.
            if self != Self::Cookie && dropped == Some(0) {
                continue;
            }
            let candidate = (listener.id, dropped.unwrap_or(1).max(1));
            if self.fills(listener, before, knobs.max_syn_backlog) {
                full.push(candidate);
            } else if self == Self::Dropped && dropped.is_some() {
                dropping.push(candidate);
            }
        }
        full.sort_unstable();
        dropping.sort_unstable();
        (full, dropping)
    }

    /// Whether so many requests were seen since `before` that this is what becomes of a SYN. Whether a queue exactly at its
    /// limit is full depends on the release.
    fn fills(self, listener: &Listener, before: Timestamp, max_syn_backlog: Option<u32>) -> bool {
        let least = match self {
            Self::Dropped | Self::Cookie => listener.limit_seen.then_some(listener.limit.max(1)),
            // As the kernel has it: what is left is less than a quarter. Requests come and go between two looks.
            Self::Reserved => max_syn_backlog.map(|most| most - most / 4),
        };
        least.is_some_and(|least| {
            listener.readings.any_since(before, |reading| reading.syn_queue.is_some_and(|seen| seen >= least))
        })
    }
}
