//! What findings about a destination share: who calls it, and what errno means there.

use std::time::Duration;

use crate::correlate::{Change, Client, Correlator, Destination, DestinationKey};
use crate::event::ConnectTotals;

use super::case::{Concern, Description, Diagnosis};
use super::{FindingKind, Party, ProcessName};

/// A diagnosis about a destination, of which all is known that the correlator has counted.
pub(super) trait Trouble {
    /// What there is to say of it wherever findings are listed.
    const KIND: FindingKind;
    /// When it is over.
    const QUIET: Duration;

    /// The destination that has it.
    fn happened(change: &Change) -> Option<DestinationKey>;

    /// In words.
    fn describe(account: &Account<'_>) -> Description;
}

/// What there is to tell of.
pub(super) struct Account<'a> {
    pub(super) key: &'a DestinationKey,
    pub(super) destination: &'a Destination,
    pub(super) totals: ConnectTotals,
    pub(super) world: &'a Correlator,
}

impl<T: Trouble> Diagnosis for T {
    const KIND: FindingKind = T::KIND;
    const QUIET: Duration = T::QUIET;

    type Key = DestinationKey;
    type Memory = ();

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<DestinationKey>> {
        T::happened(change).map(Concern::Happened)
    }

    fn begin(&mut self, _key: &DestinationKey, _world: &Correlator) {}

    fn observe(&mut self, _key: &DestinationKey, _memory: &mut (), _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &DestinationKey, _memory: &(), world: &Correlator) -> Option<Description> {
        let destination = world.destination(key)?;
        Some(T::describe(&Account { key, destination, totals: destination.totals(), world }))
    }
}

/// Clients named in the evidence beside the first.
const NAMED: usize = 7;

/// A destination, and the process that fails most to reach it.
pub(super) fn subject(key: &DestinationKey, destination: &Destination, world: &Correlator) -> Party {
    let clients = destination.clients();
    let (known, unknown): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(_, c)| c.task.is_some());
    let first = known.first().or(unknown.first());
    Party {
        kind: "destination",
        address: Some(key.remote),
        netns: Some(key.netns),
        process: Some(first.map_or_else(ProcessName::default, |(_, client)| name(client, world))),
        ..Party::default()
    }
}

fn name(client: &Client, world: &Correlator) -> ProcessName {
    match &client.task {
        Some(task) => ProcessName::of_task(task, world.processes()),
        None => ProcessName::default(),
    }
}

/// The other processes that call it.
pub(super) fn others(destination: &Destination, world: &Correlator) -> Vec<Party> {
    let clients = destination.clients();
    let known = clients.into_iter().filter(|(_, client)| client.task.is_some());
    known
        .skip(1)
        .take(NAMED)
        .map(|(_, client)| Party { kind: "process", process: Some(name(client, world)), ..Party::default() })
        .collect()
}

/// What says so that a connect ends with this errno (`icmp_err_convert`, `icmpv6_err_convert`, `arp_error_report`).
pub(super) fn who_says(errno: u32, ipv6: bool) -> &'static str {
    let errno = i32::try_from(errno).unwrap_or(0);
    match (errno, ipv6) {
        (libc::ECONNREFUSED, _) => "an ICMP message said that the port cannot be reached",
        (libc::EHOSTUNREACH, false) => {
            "an ICMP message said that the host cannot be reached or may not be, or nobody answered to its address on the link"
        }
        (libc::EHOSTUNREACH, true) => {
            "an ICMPv6 message said that the address cannot be reached, or nobody answered to it on the link"
        }
        (libc::ENETUNREACH, _) => "an ICMP message said that there is no route to that network",
        (libc::EACCES, true) => "an ICMPv6 message said that it is forbidden to go there",
        (libc::EHOSTDOWN | libc::ENONET, false) => "an ICMP message said that the host is not there",
        (libc::ENOPROTOOPT, _) => "an ICMP message said that TCP is not spoken there",
        _ => "the network said so",
    }
}
