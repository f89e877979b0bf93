//! Whether something inside this host drops or rejects the handshake before it reaches the listener.

use super::as_found;
use crate::finding::{Confidence, Remedy};
use crate::why::{AddressFacts, Facts, Found, ProbeOutcome, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    if let Some(finding) = facts.finding(address, &["handshake-dropped"]) {
        return match (as_found("handshake-dropped", finding), &address.probe) {
            // Somebody is kept out, as a firewall may well mean to; not us.
            (Found::Problem(verdict), Some(ProbeOutcome::Connected(_))) => {
                Found::Problem(Verdict { confidence: Confidence::Possible, ..verdict })
            }
            (found, _) => found,
        };
    }
    let Some(server) = &address.server else {
        return Found::unknown("what is dropped on the way and at the other host cannot be seen from here");
    };
    let grown = facts.seen.iter().flat_map(|seen| &seen.counters).find(|(netns, _)| *netns == server.netns);
    let by_rp_filter = grown.and_then(|(_, counters)| counters.rp_filter_drops).unwrap_or(0);
    let unanswered = match &address.probe {
        Some(ProbeOutcome::NoAnswer(_)) => true,
        Some(_) => false,
        None => address.pending.syn_again > 0 && address.pending.established == 0,
    };
    let rejected = matches!(&address.probe, Some(ProbeOutcome::Failed { .. }));
    if by_rp_filter > 0 {
        let text = format!(
            "rp_filter dropped {by_rp_filter} packets in {server} meanwhile: their source is not where the route to it leads"
        );
        let confidence = if unanswered { Confidence::Certain } else { Confidence::Possible };
        let verdict = Verdict::new("rp-filter", confidence, text).advise(Remedy::command(
            "mend the route back to the client, or check the source loosely on the device that it comes in by",
            server.command("sysctl -w net.ipv4.conf.DEVICE.rp_filter=2 net.ipv4.conf.all.rp_filter=2"),
        ));
        return Found::Problem(verdict);
    }
    let mut listeners = facts.listeners_at(address).peekable();
    if listeners.peek().is_none() {
        return Found::unknown("nobody listens: nothing is there to be kept away from");
    }
    // A queue that drops explains silence by itself.
    let queues_drop = listeners.any(|listener| {
        let without_cookies = listener.syn_queue_limit().cookies != Some(true);
        listener.is_full()
            || (without_cookies
                && listener.half_open.is_some_and(|found| {
                    found.requests >= listener.socket.limit.min(listener.syn_queue_limit().limit)
                }))
    });
    if unanswered && !queues_drop {
        let text = "a SYN to it is not answered, though it listens and has room: the SYN or its answer is dropped on this host, by a firewall as a rule";
        return Found::Problem(
            Verdict::new("dropped-on-this-host", Confidence::Likely, text).advise(rules(server)),
        );
    }
    if rejected {
        let text = "a SYN to it is refused, though it listens: a firewall on this host rejects it (or the listener has just come or gone)";
        return Found::Problem(Verdict::new("rejected", Confidence::Likely, text).advise(rules(server)));
    }
    match &facts.seen {
        Some(seen) if seen.sees_drops => Found::fine(format!(
            "nothing of it was dropped before the listener in {:.1} s",
            seen.span.as_secs_f64()
        )),
        Some(_) => Found::unknown(
            "rp_filter dropped nothing; the probes of this host do not show what a firewall drops",
        ),
        None => Found::unknown("what is dropped before the listener is only seen while watching (--for)"),
    }
}

fn rules(server: &crate::why::Place) -> Remedy {
    Remedy::command(
        "look for rules that drop or reject it, with their counters",
        server.command("nft list ruleset"),
    )
}
