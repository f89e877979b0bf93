//! Whether something inside this host drops or rejects the handshake before it reaches the listener.

use super::{arrivals, as_found, name};
use crate::event::{FoundRule, NetfilterQueue, RuleDeed};
use crate::finding::{Confidence, Finding, Remedy, Value};
use crate::why::{AddressFacts, Facts, Found, Place, ProbeOutcome, Ruled, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    if let Some(finding) = facts.finding(address, &["handshake-dropped"]) {
        return match (as_found("handshake-dropped", finding), &address.probe) {
            // Somebody is kept out, as a firewall may well mean to; not us.
            (Found::Problem(verdict), Some(ProbeOutcome::Connected { .. })) => {
                Found::Problem(Verdict { confidence: Confidence::Possible, ..verdict })
            }
            // One packet of many may be lost without harm: it is sent again.
            (Found::Problem(verdict), None) if is_one(finding) && others_are_accepted(facts, address) => {
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
    let again = facts.syn_again(address);
    let unanswered = match &address.probe {
        Some(ProbeOutcome::NoAnswer(_)) => true,
        Some(_) => false,
        // An ICMP error is an answer, which the step of answers reports.
        None if is_told_by_icmp(facts, address) => false,
        None => again > 0 || facts.finding(address, &["syn-unanswered"]).is_some(),
    };
    let rejected = matches!(&address.probe, Some(ProbeOutcome::Failed { .. }));
    let mut listeners = facts.listeners_at(address).peekable();
    if listeners.peek().is_none() && by_rp_filter == 0 {
        return Found::unknown("no process listens: nothing is there to be kept away from");
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
    let full = queues_drop || was_full(facts, address);
    if by_rp_filter > 0 {
        let text = format!(
            "rp_filter dropped {by_rp_filter} packets in {server} meanwhile: their source is not where the route to it leads"
        );
        // The counter is of the whole namespace: what it counted may have been for another server. Certain is only the drop of
        // a packet for this one, which a finding reports.
        let confidence = if unanswered && !full { Confidence::Likely } else { Confidence::Possible };
        let verdict = Verdict::new("rp-filter", confidence, text).advise(Remedy::command(
            "mend the route back to the client, or check the source loosely on the device that it comes in by",
            server.command("sysctl -w net.ipv4.conf.DEVICE.rp_filter=2 net.ipv4.conf.all.rp_filter=2"),
        ));
        return Found::Problem(verdict);
    }
    if unanswered
        && !full
        && let Some((place, queue)) = address.holding.first()
    {
        return held(facts, address, place, queue);
    }
    if unanswered && !full {
        // Other clients get through: what is dropped is dropped for some only.
        let others = address.pending.established;
        let confidence = if others > 0 { Confidence::Possible } else { Confidence::Likely };
        let some = if others > 0 {
            format!(", while {others} other connections are established")
        } else {
            String::new()
        };
        let what = match &address.ruled {
            Some(ruled) => format!("a rule that every such SYN meets {} ({})", does(&ruled.rule), place_of(ruled)),
            None => "both ends are on this host, so this host drops the SYN or its answer, whether or not the probes show where. It may be a firewall rule, a queue of NFQUEUE that no program reads, a filter of the control group, a TCP MD5 key or socket filter of the listener, tc or XDP".to_owned(),
        };
        let text = format!(
            "SYNs to it are sent again without an answer{some}, though it listens and has room: {what}"
        );
        let verdict = Verdict::new("dropped-on-this-host", confidence, text);
        return Found::Problem(match &address.ruled {
            Some(ruled) => mended(verdict, ruled),
            None => verdict.advise(rules(server)),
        });
    }
    if rejected && facts.before(address).is_some_and(|before| before.is_empty()) {
        return Found::unknown("a SYN to it was refused; the listener came only while this was watched");
    }
    if rejected {
        let what = match &address.ruled {
            Some(ruled) => {
                format!("a rule that every such SYN meets {} ({})", does(&ruled.rule), place_of(ruled))
            }
            None => {
                "a firewall on this host rejects it, or the listener was not there at that moment".to_owned()
            }
        };
        let verdict = Verdict::new(
            "rejected",
            Confidence::Likely,
            format!("a SYN to it is refused, though it listens: {what}"),
        );
        return Found::Problem(match &address.ruled {
            Some(ruled) => mended(verdict, ruled),
            None => verdict.advise(rules(server)),
        });
    }
    let came = arrivals::seen(facts, address);
    // No client tried, or what one sent is not seen: the rules still tell what would become of it, if it ends here.
    let ends_here = address.doubt_of_server().is_none() && address.steered.may.is_empty();
    // What became of a client that tried is said with its answer.
    let tried = facts.finding(address, &["connect-refused", "syn-unanswered"]).is_some();
    let meets = ends_here && came.unwrap_or(0) == 0 && !tried && !is_served(facts, address);
    if let Some(ruled) = address.ruled.as_ref().filter(|_| meets) {
        let text = format!(
            "a rule that every SYN to it from here meets {} ({})",
            does(&ruled.rule),
            place_of(ruled)
        );
        return Found::Problem(mended(Verdict::new("firewall-rule", Confidence::Likely, text), ruled));
    }
    match &facts.seen {
        Some(seen) if seen.sees_drops && came == Some(0) && address.probe.is_none() => {
            Found::unknown(format!(
                "no SYN came in {:.1} s, so none could be dropped before the listener",
                seen.span.as_secs_f64()
            ))
        }
        Some(seen) if seen.sees_drops => {
            // A full queue has SYNs sent again as well, which a later step says.
            let again = if facts.syn_again(address) == 0 { ", and no SYN was sent again" } else { "" };
            let span = seen.span.as_secs_f64();
            Found::fine(format!("no drop before the listener was seen in {span:.1} s{again}"))
        }
        Some(_) => Found::unknown(
            "rp_filter dropped nothing; the probes of this host do not show what else drops packets",
        ),
        None => Found::unknown("what is dropped before the listener is only seen while watching (--for)"),
    }
}

/// What a rule does with a SYN, as the end of a sentence that begins with the rule.
fn does(rule: &FoundRule) -> String {
    match (rule.deed, rule.queue) {
        (RuleDeed::Policy, _) => "drops it, which is the chain's policy for what no rule accepts".to_owned(),
        (RuleDeed::Reject, _) => "rejects it by RST or an ICMP message".to_owned(),
        (RuleDeed::Queue, Some(number)) => format!(
            "hands it to netfilter queue {number}, which no program reads: the kernel drops what it cannot queue, unless the rule says bypass"
        ),
        _ => "drops it".to_owned(),
    }
}

/// `table inet filter, chain input, handle 7, in network namespace web (4026532146)`.
fn place_of(ruled: &Ruled) -> String {
    format!("{}, in {}", ruled.rule.place, ruled.at)
}

/// A verdict with what to do about the rule.
fn mended(verdict: Verdict, ruled: &Ruled) -> Verdict {
    let verdict = match ruled.rule.deed {
        RuleDeed::Queue => verdict
            .advise(Remedy::text("start the program that reads the queue (an IPS such as Suricata, a filter such as OpenSnitch)"))
            .advise(Remedy::command(
                "or let packets pass while it does not run: `bypass` in the rule; queues that are read",
                ruled.at.command("cat /proc/net/netfilter/nfnetlink_queue"),
            )),
        _ => verdict,
    };
    verdict.advise(Remedy::command(
        "if it is not meant so, accept these packets before this rule, or delete it",
        ruled.at.command("nft -a list ruleset"),
    ))
}

/// A verdict about what became of SYNs, and the rule that does it.
pub(super) fn with_rule(verdict: Verdict, ruled: &Ruled) -> Verdict {
    let text = format!(
        "{}; a rule that every such SYN meets {} ({})",
        verdict.text,
        does(&ruled.rule),
        place_of(ruled)
    );
    mended(Verdict { text, ..verdict }, ruled)
}

/// Whether a connection to it was accepted while this was watched, or one of ours was completed.
fn is_served(facts: &Facts, address: &AddressFacts) -> bool {
    matches!(address.probe, Some(ProbeOutcome::Connected { .. })) || others_are_accepted(facts, address)
}

fn is_one(finding: &Finding) -> bool {
    finding.evidence.get("dropped") == Some(&Value::Number(1))
}

fn others_are_accepted(facts: &Facts, address: &AddressFacts) -> bool {
    let listeners: Vec<_> = facts.listeners_at(address).collect();
    super::accepting::accepted(&listeners).is_some_and(|accepted| accepted > 0)
}

/// What waits in a queue is neither dropped nor delivered: no probe shows it.
fn held(facts: &Facts, address: &AddressFacts, place: &Place, queue: &NetfilterQueue) -> Found {
    let to = facts.listeners_at(address).next().map_or_else(|| address.to.to_string(), name);
    let text = format!(
        "SYNs to {to} are sent again without an answer, though it has room; {} packets wait in netfilter queue {} of {place}, whose reader (netlink port {}) does not answer for them",
        queue.waiting, queue.number, queue.reader
    );
    let remedy = Remedy::command(
        "find the program that reads the queue (as a rule its pid is the netlink port), and restart it or see why it does not go on",
        place.command(&format!("grep . /proc/net/netfilter/nfnetlink_queue; ps -fp {}", queue.reader)),
    );
    let bypass = Remedy::text(
        "the queue is filled by a rule with `queue` (iptables: -j NFQUEUE); its bypass helps only while no program reads it",
    );
    Found::Problem(Verdict::new("nfqueue-held", Confidence::Likely, text).advise(remedy).advise(bypass))
}

/// Whether a queue of its listeners was full at any look while this was watched: that explains silence by itself.
fn was_full(facts: &Facts, address: &AddressFacts) -> bool {
    let Some(seen) = &facts.seen else { return false };
    facts
        .listeners_at(address)
        .filter_map(|listener| seen.samples.of(listener.netns, listener.socket.inode))
        .any(|sampled| sampled.full > 0)
        || facts.finding(address, &["accept-queue-overflow", "syn-queue-full"]).is_some()
}

/// Whether connects to it end by an ICMP error.
fn is_told_by_icmp(facts: &Facts, address: &AddressFacts) -> bool {
    let finding = facts.finding(address, &["syn-unanswered"]);
    let errno = finding.and_then(|finding| finding.evidence.get("errno"));
    matches!(errno, Some(Value::Text(errno)) if errno != "ETIMEDOUT")
}

fn rules(server: &Place) -> Remedy {
    Remedy::command(
        "look for rules that drop or reject it, with their counters",
        server.command("nft list ruleset"),
    )
}
