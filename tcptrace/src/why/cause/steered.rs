//! Whether connections end where they are sent: translation, redirection, socket lookup programs.

use crate::finding::{Confidence, Remedy};
use crate::why::{AddressFacts, Facts, Found, ProbeOutcome, Verdict};

pub(in crate::why) fn judge(_facts: &Facts, address: &AddressFacts) -> Found {
    let steered = &address.steered;
    let doubts = steered.doubts();
    let Some(known) = &steered.known else {
        return match doubts {
            Some(doubts) => Found::unknown(doubts),
            None => Found::fine("no rule or program of this host leads connections to it elsewhere"),
        };
    };
    let how = if known.seen { "a connection was seen to end there" } else { "the rule says so" };
    let doubts = doubts.map_or_else(String::new, |doubts| format!("; {doubts}"));
    let text = format!("connections end at {}: {} ({how}){doubts}", known.to, known.by);
    // An address on a link of this host that no namespace has: it had one, as a rule, that is gone.
    let fails = match &address.probe {
        // By RST something at that address has answered.
        Some(ProbeOutcome::Failed { errno, .. }) => *errno != libc::ECONNREFUSED,
        Some(ProbeOutcome::Connected { .. } | ProbeOutcome::NotMade(_)) => false,
        Some(_) => true,
        None => address.pending.syn_again > 0,
    };
    if address.server.is_none() && known.is_neighbour && fails {
        let text = format!(
            "{} leads connections to {}, and no network namespace of this host has that address: what had it is gone as a rule (a container that was removed), or it is another host on that link, which does not answer",
            known.by, known.to
        );
        let verdict = Verdict::new("translation-target-gone", Confidence::Likely, text);
        return Found::Problem(verdict.advise(Remedy::command(
            "start what had the address, or remove the translation; see what answers on that link",
            known.at.command(&format!("ip neigh show {}", known.to.ip())),
        )));
    }
    Found::fine(text)
}
