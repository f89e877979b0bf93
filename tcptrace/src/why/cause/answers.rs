//! What became of connections to it: our own, and those of others.

use std::time::Duration;

use super::{as_explained, as_found, firewall, name};
use crate::event::RuleDeed;
use crate::finding::{Confidence, Remedy, Value};
use crate::why::facts::is_same;
use crate::why::far_end::{FarEnd, Fate};
use crate::why::{AddressFacts, Facts, Found, ProbeOutcome, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    match &address.probe {
        Some(probe) => of_probe(facts, address, probe),
        None => of_others(facts, address),
    }
}

fn of_probe(facts: &Facts, address: &AddressFacts, probe: &ProbeOutcome) -> Found {
    // Translated to an address on a link of this host: what that means is said where the translation is.
    let is_neighbour = address.steered.known.as_ref().is_some_and(|known| known.is_neighbour);
    let here = address.server.is_some() || is_neighbour;
    let is_dropped_here = facts.finding(address, &["handshake-dropped"]).is_some();
    match probe {
        ProbeOutcome::Connected { after, end } => of_handshake(facts, address, *after, end.as_ref()),
        ProbeOutcome::NotMade(why) => {
            Found::unknown(format!("no connection of our own could be tried: {why}"))
        }
        // A drop on this host that was seen, its own firewall's as a rule, is said where drops are.
        ProbeOutcome::NoAnswer(after) if here || is_dropped_here => Found::fine(format!(
            "a connection of our own got no answer in {:.1} s: why is said above",
            after.as_secs_f64()
        )),
        ProbeOutcome::NoAnswer(after) => {
            let after = after.as_secs_f64();
            // Where the probes show drops on this host, there was none.
            let watched = facts.seen.as_ref().is_some_and(|seen| seen.sees_drops);
            let (confidence, where_) = if watched && address.steered.rewriting.is_empty() {
                (Confidence::Certain, "outside this host, or dropped without a word by a firewall there")
            } else {
                (
                    Confidence::Likely,
                    "on the way, or dropped without a word by a firewall, of this host or outside",
                )
            };
            let text = format!(
                "a connection of our own got no answer in {after:.1} s: its SYN or the answer is lost {where_}"
            );
            Found::Problem(Verdict::new("no-answer", confidence, text).advise(look_there(facts)))
        }
        ProbeOutcome::Failed { errno, .. } if *errno == libc::ECONNREFUSED => {
            let text = "a connection of our own was refused";
            if address.server.is_some() {
                return Found::fine(format!("{text}: why is said above"));
            }
            let text = format!(
                "{text}: no process listens there, or a firewall rejects it (there, on the way, or of this host)"
            );
            Found::Problem(Verdict::new("refused", Confidence::Certain, text).advise(look_there(facts)))
        }
        ProbeOutcome::Failed { errno, .. }
            if is_neighbour || here && facts.listeners_at(address).next().is_some() =>
        {
            let name = nix::errno::Errno::from_raw(*errno).desc();
            Found::fine(format!("a connection of our own failed ({name}): why is said above"))
        }
        ProbeOutcome::Failed { errno, .. } => {
            let name = nix::errno::Errno::from_raw(*errno);
            let text = format!("a connection of our own failed: {} ({name:?})", name.desc());
            let verdict = Verdict::new("unreachable", Confidence::Certain, text);
            Found::Problem(
                verdict
                    .advise(Remedy::text("look at the route and at the last hop that answers (traceroute)")),
            )
        }
    }
}

/// The kernel answers for the program: what counts is whether one accepted.
fn of_handshake(facts: &Facts, address: &AddressFacts, after: Duration, end: Option<&FarEnd>) -> Found {
    let set_up = format!("a connection of our own was set up in {:.1} ms", after.as_secs_f64() * 1000.0);
    let Some(end) = end else {
        return Found::unknown(format!("{set_up}; what became of it is not known"));
    };
    let place = end.place.as_ref().map_or_else(String::new, |place| format!(" in {place}"));
    let led = if is_same(end.at, address.to) {
        String::new()
    } else {
        let by = address.steered.known.as_ref().map_or("a translation", |known| known.by.as_str());
        format!("; its other end is {}{place}, where {by} leads it", end.at)
    };
    let seconds = end.watched.as_secs_f64();
    match &end.fate {
        Fate::Accepted(by) => {
            let by = by.as_deref().unwrap_or("a program whose name may not be looked at");
            let text = format!("{set_up} and accepted by {by}{led}");
            Found::Answers(Verdict::new("answers", Confidence::Certain, text))
        }
        Fate::Answered => {
            let listener = facts.listeners_at(address).next().map(name);
            let whose = listener.map_or_else(String::new, |name| format!(" of {name}"));
            let text = format!("{set_up}, and the program at the other end{whose} sent data{led}");
            Found::Answers(Verdict::new("answers", Confidence::Certain, text))
        }
        Fate::Closed(by) => {
            let by = by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
            let text = format!(
                "{set_up}, accepted and closed again{by} within {:.0} ms, without a byte{led}: a program that serves waits for what the client asks",
                seconds * 1000.0
            );
            let remedy = "look into its log: it may be at its limit of files or connections, refuse this client, or be a proxy whose own server does not answer";
            Found::Problem(
                Verdict::new("closed-at-once", Confidence::Likely, text).advise(Remedy::text(remedy)),
            )
        }
        // A program or rule chose its listener, which is not known: that no process accepts is known all the same.
        Fate::Waiting if facts.listeners_at(address).next().is_none() && seconds >= 1.0 => {
            let text = format!(
                "{set_up} by the kernel alone, and no process accepted it in {seconds:.1} s{led}; at which listener it waits is not known"
            );
            let remedy = "see which listener the rule or program leads to (tcptrace listeners), and whether its process runs";
            Found::Problem(
                Verdict::new("not-accepting", Confidence::Likely, text).advise(Remedy::text(remedy)),
            )
        }
        Fate::Waiting => Found::unknown(format!(
            "{set_up} by the kernel alone: no process accepted it in {seconds:.1} s{led}"
        )),
        Fate::HalfOpen => Found::unknown(format!(
            "{set_up} as far as the client can tell; for {seconds:.1} s the server's kernel has held it back from the program: the listener waits for data first (TCP_DEFER_ACCEPT), or the final ACK is dropped{led}"
        )),
        Fate::Reset => {
            let text = format!(
                "{set_up}, and then reset by its other end: the listener was closed, the program aborted it, or a middlebox did{led}"
            );
            let remedy =
                Remedy::text("look into the server's log: it may refuse this client, or be restarting");
            Found::Problem(Verdict::new("reset", Confidence::Likely, text).advise(remedy))
        }
        Fate::NotSeen => {
            let text = format!(
                "{set_up}; its other end is on no namespace of this host that may be looked into, so whether a program accepted it cannot be seen{led}"
            );
            Found::Answers(Verdict::new("answers", Confidence::Likely, text))
        }
    }
}

fn of_others(facts: &Facts, address: &AddressFacts) -> Found {
    if let Some(finding) = facts.finding(address, &["connect-refused"]) {
        return as_explained(facts, address, finding)
            .unwrap_or_else(|| with_rule(as_found("refused", finding), address));
    }
    if let Some(finding) = facts.finding(address, &["syn-unanswered"]) {
        if let Some(explained) = as_explained(facts, address, finding) {
            return explained;
        }
        // A host on the way said so, or there was no word at all.
        let errno = finding.evidence.get("errno");
        let said = matches!(errno, Some(Value::Text(errno)) if errno != "ETIMEDOUT");
        let found = as_found(if said { "unreachable" } else { "no-answer" }, finding);
        return if said { with_rule(found, address) } else { found };
    }
    let pending = &address.pending;
    let again = facts.syn_again(address);
    if again > 0 && pending.established == 0 {
        let text = format!(
            "{again} connections that are being set up from {} have had their SYN sent again: nothing answers",
            facts.client
        );
        if address.server.is_some() {
            return Found::fine(text);
        }
        return Found::Problem(Verdict::new("no-answer", Confidence::Likely, text).advise(look_there(facts)));
    }
    let listeners: Vec<_> = facts.listeners_at(address).collect();
    let accepted = super::accepting::accepted(&listeners).unwrap_or(0);
    if accepted > 0 {
        let text = format!("{accepted} connections were accepted while this was watched");
        return Found::Answers(Verdict::new("answers", Confidence::Likely, text));
    }
    // Those that wait to be accepted are established as well, and show nothing.
    let established = pending.established.saturating_sub(address.waiting.count);
    if established > 0 {
        let text = format!("{established} connections to it are established from {}", facts.client);
        return Found::Answers(Verdict::new("answers", Confidence::Possible, text));
    }
    if facts.finding(address, &["handshake-dropped"]).is_some() {
        return Found::fine("this host drops what would set connections up: see above");
    }
    Found::unknown("no connection to it was seen; --probe opens one")
}

/// A refusal, with the rule of this host that rejects every such SYN, if there is one.
fn with_rule(found: Found, address: &AddressFacts) -> Found {
    let ruled = address.ruled.as_ref().filter(|ruled| ruled.rule.deed == RuleDeed::Reject);
    match (found, ruled) {
        (Found::Problem(verdict), Some(ruled)) => Found::Problem(firewall::with_rule(verdict, ruled)),
        (found, _) => found,
    }
}

fn look_there(facts: &Facts) -> Remedy {
    Remedy::command("ask there", format!("tcptrace why {} --for 30s", facts.target))
}
