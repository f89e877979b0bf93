//! What became of connections to it: our own, and those of others.

use super::as_found;
use crate::finding::{Confidence, Remedy, Value};
use crate::why::{AddressFacts, Facts, Found, ProbeOutcome, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    match &address.probe {
        Some(probe) => of_probe(facts, address, probe),
        None => of_others(facts, address),
    }
}

fn of_probe(facts: &Facts, address: &AddressFacts, probe: &ProbeOutcome) -> Found {
    let here = address.server.is_some();
    match probe {
        ProbeOutcome::Connected(after) => Found::Answers(Verdict::new(
            "answers",
            Confidence::Certain,
            format!("a connection of our own was set up in {:.1} ms", after.as_secs_f64() * 1000.0),
        )),
        ProbeOutcome::NotMade(why) => {
            Found::unknown(format!("no connection of our own could be tried: {why}"))
        }
        ProbeOutcome::NoAnswer(after) if here => Found::fine(format!(
            "a connection of our own got no answer in {:.1} s: why is said above",
            after.as_secs_f64()
        )),
        ProbeOutcome::NoAnswer(after) => {
            let text = format!(
                "a connection of our own got no answer in {:.1} s: its SYN or the answer is lost outside this host, or dropped without a word by a firewall there",
                after.as_secs_f64()
            );
            Found::Problem(Verdict::new("no-answer", Confidence::Certain, text).advise(look_there(facts)))
        }
        ProbeOutcome::Failed { errno, .. } if *errno == libc::ECONNREFUSED => {
            let text = "a connection of our own was refused (RST)";
            if here {
                return Found::fine(format!("{text}: why is said above"));
            }
            let text = format!("{text}: that host is up, and nobody listens there, or a firewall rejects it");
            Found::Problem(Verdict::new("refused", Confidence::Certain, text).advise(look_there(facts)))
        }
        ProbeOutcome::Failed { errno, .. } if here && facts.listeners_at(address).next().is_some() => {
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

fn of_others(facts: &Facts, address: &AddressFacts) -> Found {
    if let Some(finding) = facts.finding(address, &["connect-refused"]) {
        return as_found("refused", finding);
    }
    if let Some(finding) = facts.finding(address, &["syn-unanswered"]) {
        // Somebody on the way said so, or nobody said anything.
        let errno = finding.evidence.get("errno");
        let said = matches!(errno, Some(Value::Text(errno)) if errno != "ETIMEDOUT");
        return as_found(if said { "unreachable" } else { "no-answer" }, finding);
    }
    let pending = &address.pending;
    if pending.syn_again > 0 && pending.established == 0 {
        let text = format!(
            "{} of {} connections that are being set up from {} have had their SYN sent again: nothing answers",
            pending.syn_again, pending.syn_sent, facts.client
        );
        if address.server.is_some() {
            return Found::fine(text);
        }
        return Found::Problem(Verdict::new("no-answer", Confidence::Likely, text).advise(look_there(facts)));
    }
    let accepted: u64 = facts
        .listeners_at(address)
        .filter_map(|listener| listener.traced.as_ref().and_then(|traced| traced.totals.accepted))
        .sum();
    if accepted > 0 {
        let text = format!("{accepted} connections were accepted while watching");
        return Found::Answers(Verdict::new("answers", Confidence::Likely, text));
    }
    if pending.established > 0 {
        let text = format!("{} connections to it are established from {}", pending.established, facts.client);
        return Found::Answers(Verdict::new("answers", Confidence::Possible, text));
    }
    Found::unknown("nobody was seen to connect to it; --probe opens one connection")
}

fn look_there(facts: &Facts) -> Remedy {
    Remedy::command("ask there", format!("tcptrace why {} --for 30s", facts.target))
}
