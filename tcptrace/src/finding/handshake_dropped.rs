//! handshake-dropped: a SYN, SYN-ACK or final ACK is dropped on its way, or at a socket's own filter, by this host itself.
//!
//! The kernel frees the packet and names a reason (from 5.17) and a function. "this host drops SYNs to nginx[42] 0.0.0.0:80: a
//! firewall rule drops them in INPUT". Reported from the second packet within a minute on; what hits many servers alike is
//! reported once.

mod account;
mod causes;
mod remedy;
mod words;

use std::time::Duration;

use crate::correlate::{Change, Correlator, PathKey};
use crate::event::Timestamp;

use super::case::{Concern, Description, Diagnosis};
use super::no_listener::of_reported;
use super::{FindingKind, Party, ProcessName, keys};

use account::Account;

/// The diagnosis.
#[derive(Default)]
pub(super) struct HandshakeDropped;

/// What was so when the case began.
pub(super) struct Baseline {
    at: Timestamp,
    /// Handshakes that the server had completed.
    completed: Option<u64>,
}

impl Diagnosis for HandshakeDropped {
    const KIND: FindingKind = FindingKind {
        code: "handshake-dropped",
        opens_when: "this host itself drops a SYN, SYN-ACK or final ACK on its way",
        page: include_str!("../../../docs/findings/handshake-dropped.md"),
        observations: &["handshake-drop", "no-way-back"],
        tracepoint_tier: "packets dropped on their way are seen with the kernel's reason; SYNs for whose answer there is no route are not.",
        causes: causes::CAUSES,
        evidence: &[
            keys::AT_LEAST,
            keys::text("cgroup", "control group whose filter dropped it"),
            keys::texts("cgroup_programs", "BPF programs that are attached there"),
            keys::number("conntrack_count", "entries in the connection tracking table"),
            keys::number("conntrack_drops", "packets that it dropped because it was full"),
            keys::number("conntrack_max", "`net.netfilter.nf_conntrack_max`"),
            keys::DEVICE,
            keys::text("direction", "in or out"),
            keys::number("dropped", "packets dropped"),
            keys::ERRNO,
            keys::text("function", "kernel function that dropped it"),
            keys::number("gc_thresh3", "`net.ipv4.neigh.default.gc_thresh3`, or the one of IPv6"),
            keys::text("hook", "netfilter hook: PREROUTING, INPUT, OUTPUT…"),
            keys::number("neighbours", "entries in the neighbour table"),
            keys::texts("next_hops", "addresses on the link that did not answer ARP or ND"),
            keys::text("packet", "SYN, SYN-ACK or ACK"),
            keys::PEERS,
            keys::text("reason", "the kernel's drop reason"),
            keys::REQUESTER,
            keys::text("rule", "the netfilter rule: table, chain, and its place"),
            keys::endpoint("server_address", "the server that the packets are for, or come from"),
            keys::number("server_count", "servers that it happens to alike"),
            keys::parties("servers", "some of these"),
        ],
    };
    /// Longer than the pause before the fifth repetition of a SYN.
    const QUIET: Duration = Duration::from_secs(20);

    type Key = PathKey;
    type Memory = Baseline;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<PathKey>> {
        match change {
            Change::HandshakeDropped(key) => Some(Concern::Happened(*key)),
            _ => None,
        }
    }

    fn begin(&mut self, key: &PathKey, world: &Correlator) -> Baseline {
        Baseline { at: world.now(), completed: completed(key, world) }
    }

    fn observe(&mut self, _key: &PathKey, _memory: &mut Baseline, _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &PathKey, memory: &Baseline, world: &Correlator) -> Option<Description> {
        let drops = world.path_drops(key)?;
        let subject = subject(key, world);
        let serves = serves(key, memory, world);
        Some(Account { key, drops, world, subject, serves }.describe())
    }
}

/// Handshakes that the listeners on the server's port have completed; `None` if that is not counted or not known.
fn completed(key: &PathKey, world: &Correlator) -> Option<u64> {
    let port = key.server.or_else(|| world.path_drops(key)?.only_server())?.port();
    let counts = world.listeners().at_port(key.netns, port).map(|l| l.totals.enqueued.or(l.totals.accepted));
    counts.flatten().reduce(u64::saturating_add)
}

/// Whether the server completes other handshakes meanwhile, or did a moment before; `None` if that cannot be told.
fn serves(key: &PathKey, since: &Baseline, world: &Correlator) -> Option<bool> {
    /// For how long what came before counts: a server with few clients completes one now and then.
    const LATELY: Duration = Duration::from_secs(60);
    let now = completed(key, world)?;
    let before = since.completed.unwrap_or(0);
    Some(now > before || (now > 0 && world.now().since(since.at) < LATELY))
}

/// The server that the packets are for or from, if it is here; else the destination, and the process that calls it.
pub(super) fn subject(key: &PathKey, world: &Correlator) -> Party {
    let drops = world.path_drops(key);
    if let Some(listener) = drops.and_then(|drops| world.listener(drops.answering?)) {
        return Party::of_listener(listener, world);
    }
    if let Some(listener) = drops.and_then(|drops| drops.listener(key)) {
        return of_reported(listener, world);
    }
    let client = drops.and_then(|drops| drops.clients.values().next());
    let address = key.server.or_else(|| drops?.only_server());
    Party {
        kind: if address.is_some() { "destination" } else { "host" },
        address,
        netns: Some(key.netns),
        process: client.map(|task| ProcessName::of_task(task, world.processes())),
        ..Party::default()
    }
}

#[cfg(test)]
mod tests;
