//! Who listens elsewhere on a port at which connects fail: looked up when they fail again and again, or a packet is dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::event::{self, CalledAddress, Kind, ListenerReport, ReportedListener, Timestamp};

use super::{people::People, places::Places};

/// Not again before this: it takes a look at every namespace.
const AGAIN: Duration = Duration::from_secs(10);
/// Looks in a second, each at all the ports that are asked for.
const PER_SECOND: u32 = 8;
/// For so many times as long as a look took there is none: on a host with many processes, or a slow one, it must not keep the tracer
/// from all else.
const REST: u32 = 4;
/// So many SYNs must have found nobody: a scanner that knocks once is not worth a look.
pub(super) const SYNS: u64 = 3;

/// Addresses that are looked up for one port.
const CALLED: usize = 16;

/// A port of a namespace.
type Place = (u32, u16);

/// A look at a port of a namespace.
struct Look {
    time: Timestamp,
    /// Called addresses whose holders were looked up with it.
    called: BTreeSet<IpAddr>,
}

/// When each port was looked at.
#[derive(Default)]
pub(super) struct Absence {
    looked: HashMap<Place, Look>,
    /// What is still to be looked at, and since when.
    asked: BTreeMap<Place, Timestamp>,
    /// Addresses that were called there in vain.
    called: BTreeMap<Place, BTreeSet<IpAddr>>,
    this_second: u32,
    /// Until then there is no look.
    rests_until: Option<Instant>,
}

impl Absence {
    /// A new second.
    pub(super) fn second(&mut self, now: Timestamp) {
        self.this_second = 0;
        self.looked.retain(|_, looked| now.since(looked.time) < AGAIN);
    }

    /// The trace ends: what is asked for is looked at now or never.
    pub(super) fn hurry(&mut self) {
        (self.rests_until, self.this_second) = (None, 0);
    }

    /// Whether something is to be looked at, and now.
    fn is_time(&self, now: Instant) -> bool {
        !self.asked.is_empty()
            && self.this_second < PER_SECOND
            && self.rests_until.is_none_or(|until| now >= until)
    }

    /// A look took from `begun` to `now`.
    fn rest(&mut self, begun: Instant, now: Instant) {
        self.rests_until = now.checked_add(now.duration_since(begun) * REST);
    }

    /// Somebody calls there and is not answered.
    pub(super) fn ask(&mut self, place: Place, time: Timestamp) {
        if !self.looked.contains_key(&place) {
            self.asked.entry(place).or_insert(time);
        }
    }

    /// A process called this address and port, and is not answered: who has the address is looked up as well.
    pub(super) fn ask_called(&mut self, place: Place, address: IpAddr, time: Timestamp) {
        // A look without the address, for a packet that was dropped on the way, does not tell whether the address is this host's.
        if !self.looked.get(&place).is_some_and(|looked| looked.called.contains(&address)) {
            self.asked.entry(place).or_insert(time);
            let called = self.called.entry(place).or_default();
            if called.len() < CALLED {
                called.insert(address);
            }
        }
    }

    /// What is to be looked at now, and the called addresses; it counts as looked at.
    fn take_asked(&mut self) -> (BTreeMap<Place, Timestamp>, BTreeMap<Place, BTreeSet<IpAddr>>) {
        let (asked, called) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.called));
        for (place, time) in &asked {
            let looked =
                self.looked.entry(*place).or_insert_with(|| Look { time: *time, called: BTreeSet::new() });
            looked.called.extend(called.get(place).into_iter().flatten());
        }
        (asked, called)
    }

    /// Who listens anywhere on the ports that were asked for, unless there were too many looks in this second, or the last took long,
    /// after which a later one will do: introductions, then the reports.
    pub(super) fn look(&mut self, places: &mut Places, people: &mut People) -> Vec<Kind> {
        let begun = Instant::now();
        if !self.is_time(begun) {
            return Vec::new();
        }
        self.this_second += 1;
        let (asked, called) = self.take_asked();
        let ports: BTreeSet<u16> = asked.keys().map(|(_, port)| *port).collect();
        let (found, complete) = places.listeners_on(&ports);
        let inodes: HashSet<u64> = found.iter().map(|(_, l)| l.inode).filter(|inode| *inode != 0).collect();
        let owners = if inodes.is_empty() { HashMap::new() } else { people.find_owners(&inodes) };
        let mut kinds: Vec<Kind> =
            owners.values().flatten().filter_map(|owner| people.introduce(owner.pid)).collect();
        for (netns, listener) in &found {
            kinds.extend(places.introduce_device(*netns, listener.ifindex));
        }
        let reported = |(netns, listener): &(u32, crate::host::sock_diag::Listener)| ReportedListener {
            netns: *netns,
            local: event::canonical(listener.local),
            v6only: listener.v6only,
            device: listener.ifindex,
            inode: listener.inode,
            owners: owners.get(&listener.inode).cloned().unwrap_or_default(),
        };
        let mut report = |((netns, port), asked): (Place, Timestamp)| {
            let with_listener: BTreeSet<u32> =
                found.iter().filter(|(_, l)| l.local.port() == port).map(|(netns, _)| *netns).collect();
            let held = |&address: &IpAddr| CalledAddress {
                address,
                held_by: if address.is_loopback() {
                    vec![netns]
                } else {
                    places.holders_of(address, &with_listener, netns)
                },
            };
            let here = found.iter().filter(|(_, listener)| listener.local.port() == port);
            Kind::ListenerReport(Box::new(ListenerReport {
                netns,
                port,
                asked,
                listeners: here.map(reported).collect(),
                incomplete: (!complete).then(|| "some namespaces cannot be looked at".to_owned()),
                called: called.get(&(netns, port)).into_iter().flatten().map(held).collect(),
            }))
        };
        kinds.extend(asked.into_iter().map(&mut report));
        self.rest(begun, Instant::now());
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = (1, 8000);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_look_that_took_long_is_followed_by_a_longer_rest() {
        let mut absence = Absence::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert!(!absence.is_time(begun), "nothing is asked for");
        absence.ask(PLACE, at(1));
        assert!(absence.is_time(begun));
        absence.rest(begun, after(2));
        assert!(!absence.is_time(after(9)));
        assert!(absence.is_time(after(10)));
        absence.hurry();
        assert!(absence.is_time(after(3)), "it is the last");
    }

    #[test]
    fn a_look_for_a_dropped_packet_does_not_stand_for_one_at_the_called_address() {
        let called: IpAddr = "10.9.43.1".parse().unwrap();
        let mut absence = Absence::default();
        absence.ask(PLACE, at(1));
        assert_eq!(absence.take_asked().0.len(), 1);
        // Not again so soon, but with the address.
        absence.ask(PLACE, at(2));
        assert!(absence.take_asked().0.is_empty());
        absence.ask_called(PLACE, called, at(2));
        let (asked, addresses) = absence.take_asked();
        assert_eq!((asked.len(), addresses[&PLACE].len()), (1, 1));
        absence.ask_called(PLACE, called, at(3));
        assert!(absence.take_asked().0.is_empty());
        absence.ask_called(PLACE, "10.9.43.9".parse().unwrap(), at(3));
        assert_eq!(absence.take_asked().0.len(), 1);
        // The answer may have changed after a while.
        absence.second(at(20));
        absence.ask_called(PLACE, called, at(20));
        assert_eq!(absence.take_asked().0.len(), 1);
    }
}
