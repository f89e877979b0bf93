//! Drops that no probe sees: which listener do they belong to?
//!
//! In the tracepoint tier a dropped SYN leaves no trace but the namespace's ListenOverflows. Polled once a second beside
//! the listeners' own `sk_drops` and queues, its growth belongs to the listener that dropped in those seconds; if two did,
//! it cannot be told how much belongs to which.

use std::time::Duration;

use crate::event::Timestamp;

use super::listener::{Listener, ListenerId};
use super::listeners::Listeners;
use super::namespace::Namespace;

/// Counters and listeners are not read at the same moment: so far back a listener's drops may lie.
pub(super) const SKEW: Duration = Duration::from_millis(2500);

/// How long growth waits for a listener to show that it dropped.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Puts what `ListenOverflows` of a namespace grew by, less what probes saw, to the listeners that dropped. Returns those.
pub(super) fn attribute(
    netns: u32,
    namespace: &mut Namespace,
    listeners: &mut Listeners,
    now: Timestamp,
) -> Vec<ListenerId> {
    let Some((read, grown)) = namespace.grown(|counters| counters.listen_overflows) else {
        return Vec::new();
    };
    let known = namespace.observed.listeners.overflows() + namespace.inference.explained;
    let unexplained = grown.saturating_sub(known);
    if unexplained == 0 {
        namespace.inference.waiting_since = None;
        return Vec::new();
    }
    let candidates = candidates(netns, listeners, read);
    if candidates.is_empty() {
        let since = *namespace.inference.waiting_since.get_or_insert(now);
        if now.since(since) >= PATIENCE {
            namespace.inference.explained += unexplained;
            namespace.inference.unexplained += unexplained;
            namespace.inference.waiting_since = None;
        }
        return Vec::new();
    }
    namespace.inference.waiting_since = None;
    namespace.inference.explained += unexplained;
    let shared = candidates.len() > 1;
    let weights: u64 = candidates.iter().map(|(_, weight)| *weight).sum();
    let mut left = unexplained;
    let last = candidates.len() - 1;
    for (index, (id, weight)) in candidates.iter().enumerate() {
        let share = if index == last {
            left
        } else {
            let share = u128::from(unexplained) * u128::from(*weight) / u128::from(weights.max(1));
            u64::try_from(share).unwrap_or(left).min(left)
        };
        left -= share;
        if let Some(listener) = listeners.get_mut(*id) {
            listener.inferred.count += share;
            listener.inferred.shared |= shared;
        }
    }
    candidates.into_iter().map(|(id, _)| id).collect()
}

/// Listeners of the namespace that dropped around the time of the reading, and how much, by their own count. Those that
/// were full, if any; `sk_drops` also counts harmless things.
fn candidates(netns: u32, listeners: &Listeners, read: Timestamp) -> Vec<(ListenerId, u64)> {
    let mut full = Vec::new();
    let mut dropping = Vec::new();
    for listener in listeners.iter().filter(|listener| listener.endpoints.netns == netns) {
        let Some(latest) = listener.readings.latest() else { continue };
        let before = read.before(SKEW);
        if latest.time < before {
            continue;
        }
        let dropped = dropped_since(listener, before);
        if listener.was_full_since(before) {
            full.push((listener.id, dropped.unwrap_or(1).max(1)));
        } else if let Some(dropped @ 1..) = dropped {
            dropping.push((listener.id, dropped));
        }
    }
    let mut chosen = if full.is_empty() { dropping } else { full };
    // One that was full but did not drop has nothing to do with it, if another one did.
    let dropped = |id: ListenerId| {
        listeners
            .get(id)
            .and_then(|listener| dropped_since(listener, read.before(SKEW)))
            .is_some_and(|drops| drops > 0)
    };
    if chosen.iter().any(|(id, _)| dropped(*id)) {
        chosen.retain(|(id, _)| dropped(*id));
    }
    chosen.sort_unstable();
    chosen
}

/// Growth of a listener's `sk_drops` since `before`, or since its birth if that was later; `None` if not polled.
pub(super) fn dropped_since(listener: &Listener, before: Timestamp) -> Option<u64> {
    let now = listener.readings.latest()?.socket_drops?;
    let began = listener.listen.filter(|call| !call.again).map(|call| call.time);
    let read = listener.readings.at(before)?;
    let then = match read.socket_drops {
        _ if began.is_some_and(|began| began >= before) => 0,
        Some(drops) => drops,
        // It had just begun, and had not been polled yet.
        None if began.is_some() => 0,
        None => return None,
    };
    now.checked_sub(then)
}
