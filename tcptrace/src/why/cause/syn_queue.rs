//! Whether the SYN queue is full, or fills with requests that nobody completes.

use super::{as_found, name};
use crate::finding::{Confidence, Remedy};
use crate::why::{AddressFacts, Facts, Found, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    let Some(listener) = facts.listeners_at(address).max_by_key(|l| l.half_open.map(|found| found.requests))
    else {
        return Found::unknown("there is no listener whose queue could be looked at");
    };
    if let Some(finding) = facts.finding(address, &["half-open-capture"]) {
        return as_found("half-open-capture", finding);
    }
    let Some(found) = listener.half_open else {
        return Found::unknown("half-open connections could not be listed");
    };
    let limit = listener.syn_queue_limit();
    let full = found.requests > 0 && found.requests >= limit.limit && !found.shared;
    let numbers = format!("{} half-open, limit {} ({})", found.requests, limit.limit, limit.set_by);
    if full && limit.cookies != Some(true) {
        let confidence = if limit.cookies == Some(false) { Confidence::Certain } else { Confidence::Likely };
        let text = format!(
            "the SYN queue of {} is full: {numbers}; with tcp_syncookies=0 further SYNs are dropped",
            name(listener)
        );
        let knob = if limit.set_by == "accept-queue-limit" {
            Remedy::text(format!(
                "raise the backlog of listen() (and somaxconn, {})",
                shown(listener.limit.somaxconn)
            ))
        } else {
            Remedy::text(format!(
                "raise net.ipv4.tcp_max_syn_backlog ({})",
                shown(listener.knobs.tcp_max_syn_backlog)
            ))
        };
        let cookies = Remedy::command(
            "answer SYNs by cookies while it is full",
            listener.command("sysctl -w net.ipv4.tcp_syncookies=1"),
        );
        return Found::Problem(Verdict::new("syn-queue-full", confidence, text).advise(cookies).advise(knob));
    }
    if let Some(finding) = facts.finding(address, &["syn-queue-full"])
        && limit.cookies == Some(false)
    {
        return as_found("syn-queue-full", finding);
    }
    // At a full accept queue the server itself lets final ACKs lie.
    if found.retransmitted >= 3 && found.retransmitted * 2 >= found.requests && !listener.is_full() {
        let text = format!(
            "{} of {} half-open connections have had their SYN-ACK sent again: SYN-ACKs or final ACKs are lost on the way",
            found.retransmitted, found.requests
        );
        let verdict = Verdict::new("return-path", Confidence::Possible, text);
        return Found::Problem(verdict.advise(Remedy::text(
            "look at firewalls and routes between the server and those clients, in both directions",
        )));
    }
    if full {
        return Found::fine(format!("full ({numbers}), but SYNs are answered by cookies"));
    }
    Found::fine(numbers)
}

fn shown(value: Option<u32>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}
