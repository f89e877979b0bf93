//! Whether a process listens: at this address, of this family, in this namespace.

use super::{as_found, name};
use crate::finding::{Confidence, Remedy, State};
use crate::stock::Listener;
use crate::why::facts::{ClosedListener, Fit};
use crate::why::far_end::Fate;
use crate::why::{AddressFacts, Facts, Found, Place, ProbeOutcome, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    let end = address.at();
    let Some(server) = &address.server else {
        return Found::unknown(format!(
            "{} is no address of this host, or of a namespace that may not be looked into: which process listens there cannot be seen",
            end.ip()
        ));
    };
    let covering: Vec<&Listener> = facts.listeners_at(address).collect();
    // The kernel's answer outweighs what the listener's address and the routes suggest: of a VRF they show nothing.
    let connected = matches!(address.probe, Some(ProbeOutcome::Connected { .. }));
    let other_device = facts
        .finding(address, &["no-listener"])
        .filter(|finding| finding.cause == "other-device" && finding.state != State::Closed && !connected);
    if let Some(finding) = other_device {
        return as_found("other-device", finding);
    }
    if let Some((first, others)) = covering.split_first() {
        let more = if others.is_empty() {
            String::new()
        } else {
            format!(", and {} more (SO_REUSEPORT)", others.len())
        };
        let before = facts.before(address);
        let since = match &before {
            Some(before) if before.is_empty() => "; it began to listen while this was watched",
            Some(before) if before.iter().all(|then| covering.iter().all(|now| !is_same(then, now))) => {
                "; it has taken the place of another one while this was watched"
            }
            _ => "",
        };
        let place = if server.netns == facts.client.netns { String::new() } else { format!(" in {server}") };
        return Found::fine(format!("{} listens{place}{more}{since}", name(first)));
    }
    // A connection that was seen to end here needs no listener that is seen.
    if let Some(end) = address.far_end().filter(|end| end.place.is_some()) {
        let by = match &end.fate {
            Fate::Accepted(Some(by)) => format!("is {by}"),
            _ => "is a socket".to_owned(),
        };
        return Found::fine(format!(
            "no listener has this address and port, and yet the other end of our own connection {by} at {} in {}: a BPF sk_lookup program or a TPROXY rule chose it, or its listener has gone since",
            end.at,
            end.place.as_ref().unwrap_or(server)
        ));
    }
    let port = end.port();
    let sure = certainty(facts, address);
    let but = match (&address.probe, address.steered.doubts()) {
        (Some(ProbeOutcome::Connected { .. }), _) => {
            "; yet a connection was set up, so something leads it elsewhere that could not be looked into"
                .to_owned()
        }
        (_, Some(doubts)) => format!("; not certain, because {doubts}"),
        (_, None) => String::new(),
    };
    let to_here = match &address.steered.known {
        Some(known) => format!(", and {} still leads connections to {} there", known.by, address.to),
        None => String::new(),
    };
    match missing(facts, address, server, port, sure) {
        Found::Problem(mut verdict) => {
            verdict.text = format!("{}{to_here}{but}", verdict.text);
            Found::Problem(verdict)
        }
        other => other,
    }
}

/// How sure the absence of a listener can be the cause.
fn certainty(facts: &Facts, address: &AddressFacts) -> Confidence {
    let steered = &address.steered;
    // An answer outweighs what could not be seen.
    if matches!(address.probe, Some(ProbeOutcome::Connected { .. })) || !steered.may.is_empty() {
        return Confidence::Possible;
    }
    // What may not be looked at could be the listener, or lead to it; a rule that was read may have been passed by.
    let blind = facts.gaps.iter().any(|gap| gap.what == "listeners");
    let by_rule = steered.known.as_ref().is_some_and(|known| !known.seen);
    let open = blind || by_rule || !steered.unread.is_empty() || !steered.rewriting.is_empty();
    if open { Confidence::Likely } else { Confidence::Certain }
}

fn is_same(one: &Listener, other: &Listener) -> bool {
    (one.netns, one.socket.cookie) == (other.netns, other.socket.cookie)
}

/// Why no listener takes the connection.
fn missing(facts: &Facts, address: &AddressFacts, server: &Place, port: u16, sure: Confidence) -> Found {
    let to = address.at();
    let with = |fit: Fit| facts.listeners.iter().filter(move |listener| address.fit(listener) == fit);

    // Where one listens again, nobody's end is the cause.
    let has_successor = |closed: &ClosedListener| {
        let at =
            |listener: &&Listener| (listener.netns, listener.socket.local) == (closed.netns, closed.local);
        facts.listeners.iter().any(|listener| at(&listener))
    };
    let closed =
        facts.seen.iter().flat_map(|seen| &seen.closed).find(|closed| {
            closed.netns == server.netns && closed.local.port() == port && !has_successor(closed)
        });
    if let Some(closed) = closed {
        let who = closed.who.clone().unwrap_or_else(|| "a process".to_owned());
        let how = if closed.exiting == Some(true) { "exited" } else { "closed it" };
        let text = format!("no process listens any more: {who} {how} at {} ({})", closed.when, closed.local);
        let verdict = Verdict::new("listener-exited", sure, text);
        return Found::Problem(
            verdict.advise(Remedy::text(format!("start {who} again, and look at why it ended"))),
        );
    }
    // Without probes, the listeners of before and after are compared.
    if let Some(gone) = facts.before(address).and_then(|before| before.first().copied()) {
        let text = format!("no process listens any more: {} did when this was begun", name(gone));
        let verdict = Verdict::new("listener-exited", sure, text);
        return Found::Problem(
            verdict.advise(Remedy::text(format!("start {} again, and look at why it ended", program(gone)))),
        );
    }
    // Closed longer ago, while it was traced.
    if let Some(finding) = facts.finding(address, &["no-listener"]).filter(|f| f.cause == "listener-exited") {
        return as_found("listener-exited", finding);
    }
    if let Some(finding) = facts.finding(address, &["no-listener"]).filter(|f| f.cause == "other-device") {
        return as_found("other-device", finding);
    }
    let outside = with(Fit::OtherDevice).find(|other| other.socket.ifindex == 0);
    if let Some((other, vrf)) = outside.zip(address.vrf.as_ref()) {
        let text = format!(
            "{} listens outside of the VRF {} that {} is in: without net.ipv4.tcp_l3mdev_accept it takes no connections of it",
            name(other),
            vrf.name,
            to.ip()
        );
        let verdict = Verdict::new("other-device", Confidence::Likely.min(sure), text);
        let accept = server.command("sysctl -w net.ipv4.tcp_l3mdev_accept=1");
        return Found::Problem(
            verdict
                .advise(Remedy::command(
                    "let listeners without a device take the connections of every VRF",
                    accept,
                ))
                .advise(Remedy::text(format!(
                    "or start {} in the VRF: ip vrf exec {} COMMAND",
                    program(other),
                    vrf.name
                ))),
        );
    }
    if let Some(other) = with(Fit::OtherDevice).next() {
        let device = facts.device_name(other);
        let by = address.arrival.as_ref().map_or("another", |device| device.name.as_str());
        let text = format!(
            "{} takes connections by device {device} only (SO_BINDTODEVICE), and those from {} come by {by}",
            name(other),
            facts.client
        );
        // From another namespace, the device is that of the route back: SYNs may come by another one.
        let by_loopback = server.netns == facts.client.netns;
        let confidence = if by_loopback { sure } else { Confidence::Likely.min(sure) };
        let verdict = Verdict::new("other-device", confidence, text);
        return Found::Problem(verdict.advise(Remedy::text(format!(
            "let {} listen without a device, or on {by} as well (its configuration; of a systemd socket BindToDevice=), or come by {device}",
            program(other)
        ))));
    }
    if let Some(other) = with(Fit::OtherAddress).next() {
        // What is on a loopback address can be called from its own namespace alone.
        let inside =
            other.socket.local.ip().to_canonical().is_loopback() && server.netns != facts.client.netns;
        let (only, or) = if inside {
            ("an address that only processes of its own network namespace can call", String::new())
        } else {
            ("its own address only", format!(", or connect to {}", other.socket.local))
        };
        let text = format!("no process listens on {to}: {} takes connections to {only}", name(other));
        let verdict = Verdict::new("wrong-address", sure, text);
        return Found::Problem(verdict.advise(Remedy::text(format!(
            "let {} listen on {} or on all addresses (its configuration){or}",
            program(other),
            to.ip()
        ))));
    }
    if let Some(other) = with(Fit::OtherFamily).next() {
        let (wanted, has) = if to.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        let only = if other.socket.v6only == Some(true) { " (IPV6_V6ONLY)" } else { "" };
        let text = format!("no process listens for {wanted}: {} takes {has} only{only}", name(other));
        let verdict = Verdict::new("other-family", sure, text);
        return Found::Problem(verdict.advise(Remedy::text(format!(
            "let {} also listen for {wanted}, or connect by {has}",
            program(other)
        ))));
    }
    // Of another namespace only those that would take the connection if they were here.
    // Where connections are led elsewhere, that very namespace counts: many containers have a listener of the same port.
    let elsewhere = with(Fit::OtherNamespace).filter(|_| address.steered.known.is_none()).find(|listener| {
        let at = listener.socket.local.ip().to_canonical();
        at.is_unspecified() || at.is_loopback() || at == to.ip().to_canonical()
    });
    if let Some(other) = elsewhere {
        let text = format!(
            "no process listens on port {port} in {server}: {} does, in network namespace {}",
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
    // Where a program or rule may choose another listener, the port has connections without one of its own.
    if address.left_over.connected > 0 && servers_port && address.steered.may.is_empty() {
        let text = format!(
            "no process listens on port {port} any more: {} of its connections are left, so something did until lately",
            address.left_over.connected
        );
        return Found::Problem(
            Verdict::new("listener-exited", Confidence::Likely.min(sure), text).advise(start(port)),
        );
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
    let text = format!(
        "no process listens on port {port} in {server}, nor in any other namespace that was looked into"
    );
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
