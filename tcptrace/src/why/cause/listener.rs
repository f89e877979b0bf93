//! Whether anybody listens: at this address, of this family, in this namespace.

use super::{as_found, name};
use crate::finding::{Confidence, Remedy};
use crate::stock::Listener;
use crate::why::facts::Fit;
use crate::why::{AddressFacts, Facts, Found, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    let Some(server) = &address.server else {
        return Found::unknown(format!(
            "{} is no address of this host, or of a namespace that may not be looked into: who listens there cannot be seen",
            address.to.ip()
        ));
    };
    let covering: Vec<String> = facts.listeners_at(address).map(name).collect();
    if let Some(first) = covering.first() {
        let more = covering.len() - 1;
        let more = if more > 0 { format!(", and {more} more (SO_REUSEPORT)") } else { String::new() };
        return Found::fine(format!("{first} listens{more}"));
    }
    let port = address.to.port();
    // What may not be looked at could be the listener.
    let blind = facts.gaps.iter().any(|gap| gap.what == "listeners");
    let sure = if blind { Confidence::Likely } else { Confidence::Certain };
    let with = |fit: Fit| facts.listeners.iter().filter(move |listener| address.fit(listener) == fit);

    let closed = facts.seen.iter().flat_map(|seen| &seen.closed).find(|closed| closed.netns == server.netns);
    if let Some(closed) = closed {
        let who = closed.who.clone().unwrap_or_else(|| "a process".to_owned());
        let how = if closed.exiting == Some(true) { "exited" } else { "closed it" };
        let text = format!("nobody listens any more: {who} {how} at {} ({})", closed.when, closed.local);
        let verdict = Verdict::new("listener-exited", sure, text);
        return Found::Problem(
            verdict.advise(Remedy::text(format!("start {who} again, and look at why it ended"))),
        );
    }
    // Closed longer ago, while it was traced.
    if let Some(finding) = facts.finding(address, &["no-listener"]).filter(|f| f.cause == "listener-exited") {
        return as_found("listener-exited", finding);
    }
    if let Some(other) = with(Fit::OtherAddress).next() {
        let text = format!(
            "nobody listens on {}: {} takes connections to its own address only",
            address.to,
            name(other)
        );
        let verdict = Verdict::new("wrong-address", sure, text);
        return Found::Problem(verdict.advise(Remedy::text(format!(
            "let {} listen on {} or on all addresses (its configuration), or connect to {}",
            program(other),
            address.to.ip(),
            other.socket.local
        ))));
    }
    if let Some(other) = with(Fit::OtherFamily).next() {
        let (wanted, has) = if address.to.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        let only = if other.socket.v6only == Some(true) { " (IPV6_V6ONLY)" } else { "" };
        let text = format!("nobody listens for {wanted}: {} takes {has} only{only}", name(other));
        let verdict = Verdict::new("other-family", sure, text);
        return Found::Problem(verdict.advise(Remedy::text(format!(
            "let {} listen for {wanted}, too, or connect by {has}",
            program(other)
        ))));
    }
    // Of another namespace only those that would take the connection if they were here.
    let elsewhere = with(Fit::OtherNamespace).find(|listener| {
        let at = listener.socket.local.ip().to_canonical();
        at.is_unspecified() || at.is_loopback() || at == address.to.ip().to_canonical()
    });
    if let Some(other) = elsewhere {
        let text = format!(
            "nobody listens on port {port} in {server}: {} does, in network namespace {}",
            name(other),
            other
                .netns_name
                .as_deref()
                .map_or_else(|| other.netns.to_string(), |name| format!("{name} ({})", other.netns))
        );
        let verdict = Verdict::new("other-netns", Confidence::Likely.min(sure), text);
        return Found::Problem(verdict.advise(Remedy::text(
            "connect to an address of that namespace, or publish the port (port mapping of the container)",
        )));
    }
    // In the ephemeral range they may as well be clients' own.
    let servers_port = address.knobs.is_ephemeral(port) == Some(false);
    if address.left_over.connected > 0 && servers_port {
        let text = format!(
            "nobody listens on port {port} any more: {} of its connections are left, so something did until lately",
            address.left_over.connected
        );
        return Found::Problem(Verdict::new("listener-exited", Confidence::Likely, text).advise(start(port)));
    }
    if address.left_over.bound > 0 {
        let text = format!(
            "a socket is bound to port {port} and does not listen: listen() was not called, or failed"
        );
        return Found::Problem(
            Verdict::new("bound-not-listening", sure, text)
                .advise(Remedy::command("see who has it", format!("tcptrace who {port}"))),
        );
    }
    let text =
        format!("nobody listens on port {port} in {server}, nor in any other namespace that was looked into");
    Found::Problem(Verdict::new("no-listener", sure, text).advise(start(port)))
}

fn start(port: u16) -> Remedy {
    Remedy::text(format!(
        "start the server, or look at why it does not listen on port {port} (its log; bind errors: tcptrace --port {port})"
    ))
}

fn program(listener: &Listener) -> String {
    listener.owner().map_or_else(|| "it".to_owned(), |owner| owner.process.who.comm.clone())
}
