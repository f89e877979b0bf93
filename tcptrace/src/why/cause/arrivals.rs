//! Whether anything arrives at the listener at all.

use crate::finding::{Confidence, Remedy};
use crate::why::{AddressFacts, Facts, Found, Verdict};

/// SYNs that were seen to arrive at the listeners of an address; `None` where they are not seen.
pub(super) fn seen(facts: &Facts, address: &AddressFacts) -> Option<u64> {
    facts.seen.as_ref().filter(|seen| seen.untraced.is_none())?;
    let mut listeners = facts.listeners_at(address).peekable();
    listeners.peek()?;
    listeners.map(|listener| listener.traced.as_ref()?.totals.syns).sum()
}

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    let Some(seen) = &facts.seen else {
        return Found::unknown("arrivals are only seen while watching (--for)");
    };
    if let Some(why) = &seen.untraced {
        return Found::unknown(format!("arrivals could not be watched: {why}"));
    }
    let listeners: Vec<_> = facts.listeners_at(address).collect();
    if listeners.is_empty() {
        return Found::unknown("there is no listener on this host at which anything could arrive");
    }
    // SYNs where they are seen; in the tracepoint tier only what entered the accept queue.
    let counted: Vec<u64> = listeners
        .iter()
        .filter_map(|listener| listener.traced.as_ref())
        .filter_map(|traced| traced.totals.syns.or(traced.totals.enqueued))
        .collect();
    let sees_syns =
        listeners.iter().filter_map(|l| l.traced.as_ref()).any(|traced| traced.totals.syns.is_some());
    if counted.len() < listeners.len() {
        return Found::unknown("what arrives cannot be seen with the probes of this host");
    }
    let (arrived, span) = (counted.iter().sum::<u64>(), seen.span.as_secs_f64());
    let what = if sees_syns { "SYNs arrived" } else { "connections were completed" };
    if arrived > 0 {
        return Found::fine(format!("{arrived} {what} in {span:.1} s"));
    }
    let queued = listeners.iter().any(|listener| {
        listener.socket.depth > 0 || listener.half_open.is_some_and(|found| found.requests > 0)
    });
    if queued || !sees_syns {
        return Found::unknown(format!("no {what} in {span:.1} s"));
    }
    // A client did try.
    let tried = address.probe.is_some()
        || facts.syn_again(address) > 0
        || facts.finding(address, &["handshake-dropped", "connect-refused", "syn-unanswered"]).is_some();
    if tried {
        return Found::unknown(format!("no SYN has reached the listener in {span:.1} s: see above"));
    }
    let text = format!(
        "it listens, and no SYN has arrived in {span:.1} s: no client tried, or it is lost before it reaches this host"
    );
    let verdict = Verdict::new("nothing-arrives", Confidence::Possible, text);
    Found::Problem(verdict.advise(Remedy::text(
        "if a client tries meanwhile: look upstream (load balancer, firewall, route, DNS); if not: run it with --probe",
    )))
}
