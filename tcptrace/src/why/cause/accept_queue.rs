//! Whether the accept queue is full.

use super::{accepting, as_found, name};
use crate::finding::words::count;
use crate::finding::{Confidence, Remedy};
use crate::stock::{LimitedBy, Listener};
use crate::why::{AddressFacts, Facts, Found, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    let listeners: Vec<_> = facts.listeners_at(address).collect();
    let Some(fullest) = listeners.iter().copied().max_by(|a, b| a.fill().total_cmp(&b.fill())) else {
        return Found::unknown("there is no listener whose queue could be looked at");
    };
    let numbers = format!("{} waiting, limit {}", fullest.socket.depth, fullest.socket.limit);
    if fullest.is_full() {
        if fullest.is_stopped()
            || fullest.owners.iter().any(|owner| owner.process.is_at_file_limit())
            || accepting::is_stalled(facts, address, &listeners)
        {
            return Found::fine(format!("full ({numbers}), because no process accepts: see below"));
        }
        let all = listeners.iter().all(|listener| listener.is_full());
        let confidence = if all { Confidence::Certain } else { Confidence::Likely };
        let text = format!(
            "the accept queue of {} is full ({numbers}): SYNs and final ACKs are dropped; {}",
            name(fullest),
            fullest.limit_in_words()
        );
        let remedy = match fullest.limit.limited_by() {
            LimitedBy::Argument { .. } => {
                "accept faster (more workers); for bursts raise the program's own listen backlog"
            }
            LimitedBy::Somaxconn | LimitedBy::ProbablySomaxconn => {
                "accept faster (more workers); for bursts raise net.core.somaxconn and restart the server"
            }
            LimitedBy::Unknown => {
                "accept faster (more workers); for bursts raise the listen backlog and net.core.somaxconn"
            }
        };
        return Found::Problem(
            Verdict::new("accept-queue-full", confidence, text).advise(Remedy::text(remedy)),
        );
    }
    if let Some(finding) = facts.finding(address, &["accept-queue-overflow"]) {
        if accepting::is_by_stall(finding) {
            return Found::fine(format!("{numbers}; it was full, because no process accepted: see below"));
        }
        return as_found("accept-queue-overflow", finding);
    }
    if let Some(found) = was_full(facts, &listeners) {
        return found;
    }
    let drops = fullest.socket.drops.filter(|drops| *drops > 0);
    let since =
        drops.map_or_else(String::new, |drops| format!("; {drops} drops counted since the socket was made"));
    Found::fine(format!("{numbers}{since}"))
}

/// By how much the socket's own count of drops has grown since the look before the watch; `None` if that is not known.
fn dropped_meanwhile(facts: &Facts, listener: &Listener) -> Option<u32> {
    let before = facts.seen.as_ref()?.before.as_ref()?;
    let then = before
        .iter()
        .find(|then| (then.netns, then.socket.cookie) == (listener.netns, listener.socket.cookie))?;
    listener.socket.drops?.checked_sub(then.socket.drops?)
}

/// A queue that was full for some of the time, and is not any more.
fn was_full(facts: &Facts, listeners: &[&Listener]) -> Option<Found> {
    let samples = &facts.seen.as_ref()?.samples;
    let (listener, seen) = listeners
        .iter()
        .filter_map(|listener| Some((listener, samples.of(listener.netns, listener.socket.inode)?)))
        .find(|(_, seen)| seen.full > 0)?;
    let numbers = format!(
        "the accept queue of {} was full in {} of {} looks (at most {} waiting, limit {}), and is not now ({})",
        name(listener),
        seen.full,
        seen.looks,
        seen.deepest,
        listener.socket.limit,
        listener.socket.depth
    );
    // The probes count every drop from when they are attached; the looks begin before that, and so does the socket's own count.
    let dropped = dropped_meanwhile(facts, listener).filter(|dropped| *dropped > 0);
    if dropped.is_none() && listener.traced.as_ref().and_then(crate::stock::Traced::drops) == Some(0) {
        return Some(Found::fine(format!("{numbers}; nothing was dropped at it")));
    }
    let lost = match dropped {
        Some(dropped) => {
            format!("its socket counted {} in that time", count(dropped.into(), "drop", "drops"))
        }
        None => "SYNs and final ACKs that came meanwhile were dropped".to_owned(),
    };
    let verdict = Verdict::new("accept-queue-full", Confidence::Likely, format!("{numbers}: {lost}"));
    let remedy = "accept faster (more workers); for bursts raise the listen backlog and net.core.somaxconn";
    Some(Found::Problem(verdict.advise(Remedy::text(remedy))))
}
