//! Ports that SYNs arrive for, and that nobody listens on: who did before, and who does elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::event::{ListenerReport, NoListener, ReportedListener, Task, Timestamp};

use super::bounded::{BoundedMap, DistinctCount};
use super::limiter::Limiter;
use super::owner::Owners;

/// How many ports are remembered that nobody listens on.
const PORTS: usize = 1024;
/// How many listeners are remembered that were closed.
const FORMER: usize = 4096;
/// So many SYNs within this time are no accident, and no scanner's knock.
const SYNS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// How many clients and called addresses are told apart.
const NAMED: usize = 16;

/// A port that nobody listens on, in a namespace.
pub type AbsentKey = (u32, u16);

/// SYNs for a port that nobody listens on.
#[derive(Debug)]
pub struct Absent {
    /// When the last SYNs came.
    syns: VecDeque<Timestamp>,
    /// First one.
    pub first: Timestamp,
    /// How many came, by the kernel side's count, since this began.
    pub total: u64,
    /// There may be more by now: the kernel side tells of only so many in a second.
    pub at_least: bool,
    /// Addresses that were called, and how often that was seen.
    pub called: BTreeMap<SocketAddr, u64>,
    /// Devices that they came by, by index, and how often that was seen.
    pub devices: BTreeMap<u32, u64>,
    /// Where they came from.
    pub peers: DistinctCount<std::net::IpAddr>,
    /// Processes on this host that called.
    pub clients: Vec<Task>,
    /// Who listens on that port elsewhere.
    pub report: Option<ListenerReport>,
}

/// A listener that was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Where it listened.
    pub local: SocketAddr,
    /// Whose it was.
    pub owners: Owners,
    /// When it was closed.
    pub closed: Timestamp,
    /// Its process ended, if that was seen.
    pub exiting: Option<bool>,
}

impl Absent {
    fn new(time: Timestamp) -> Self {
        Self {
            syns: VecDeque::new(),
            first: time,
            total: 0,
            at_least: false,
            called: BTreeMap::new(),
            devices: BTreeMap::new(),
            peers: DistinctCount::new(4096),
            clients: Vec::new(),
            report: None,
        }
    }

    /// The address that was called most.
    pub fn address(&self) -> Option<SocketAddr> {
        self.called.iter().max_by_key(|(_, count)| **count).map(|(address, _)| *address)
    }

    /// The device that most SYNs came by; `None` if that is not known.
    pub fn device(&self) -> Option<u32> {
        let most = self.devices.iter().max_by_key(|(_, count)| **count);
        most.map(|(device, _)| *device).filter(|device| *device != 0)
    }

    /// Whether all SYNs came by the loopback device: they were sent in the same namespace.
    pub fn is_called_from_here(&self) -> bool {
        // The loopback device is the first of every namespace.
        !self.devices.is_empty() && self.devices.keys().all(|device| *device == 1)
    }

    /// Listeners elsewhere, those that say most first: of the same namespace, of the same address family.
    pub fn elsewhere(&self, netns: u32) -> Vec<&ReportedListener> {
        let called = self.address();
        let mut found: Vec<&ReportedListener> =
            self.report.iter().flat_map(|report| &report.listeners).collect();
        // One that would take the connection but for its device says more than one at another address.
        let takes = |l: &ReportedListener| called.is_some_and(|called| l.takes(called));
        let speaks = |l: &ReportedListener| called.is_none_or(|called| l.speaks(called));
        found.sort_by_key(|l| (l.netns != netns, !takes(l), !speaks(l), l.inode));
        found
    }

    fn is_no_accident(&self, now: Timestamp) -> bool {
        self.syns.iter().filter(|&&time| now.since(time) < WINDOW).count() >= SYNS
    }
}

/// All of them, and the listeners that were.
#[derive(Debug)]
pub(super) struct Absences {
    ports: BoundedMap<AbsentKey, Absent>,
    former: BoundedMap<AbsentKey, Former>,
    /// How many SYNs the kernel side has counted at each port.
    counts: BoundedMap<AbsentKey, Limiter>,
}

impl Default for Absences {
    fn default() -> Self {
        Self {
            ports: BoundedMap::new(PORTS),
            former: BoundedMap::new(FORMER),
            counts: BoundedMap::new(FORMER),
        }
    }
}

impl Absences {
    /// Nothing is known any more of this namespace.
    pub(super) fn forget(&mut self, netns: u32) {
        self.ports.retain(|(of, _), _| *of != netns);
        self.former.retain(|(of, _), _| *of != netns);
    }

    /// How many were forgotten because the table was full.
    pub(super) fn forgotten(&self) -> u64 {
        self.ports.forgotten() + self.former.forgotten()
    }

    pub(super) fn get(&self, key: AbsentKey) -> Option<&Absent> {
        self.ports.get(&key)
    }

    pub(super) fn former(&self, key: AbsentKey) -> Option<&Former> {
        self.former.get(&key)
    }

    pub(super) fn note_closed(&mut self, key: AbsentKey, former: Former) {
        self.former.remove(&key);
        self.former.get_or_insert_with(key, || former);
    }

    /// Somebody listens there now.
    pub(super) fn note_listening(&mut self, key: AbsentKey) {
        self.ports.remove(&key);
    }

    /// A SYN found nobody: how many more these are, by the kernel side's count, and whether there is something to tell.
    pub(super) fn note(&mut self, time: Timestamp, absent: &NoListener) -> (u64, Option<AbsentKey>) {
        let key = (absent.endpoints.netns, absent.endpoints.local.port());
        let limiter = self.counts.get_or_insert_with(key, Limiter::default);
        let more = limiter.note(time, absent.total);
        let at_least = limiter.holds_back();
        let fresh = || Absent::new(time);
        let known = self.ports.get_or_insert_with(key, fresh);
        if known.syns.back().is_some_and(|&last| time.since(last) >= WINDOW) {
            *known = fresh();
        }
        known.total += more;
        known.at_least = at_least;
        if known.syns.len() >= 2 * SYNS {
            known.syns.pop_front();
        }
        known.syns.push_back(time);
        if known.called.len() < NAMED || known.called.contains_key(&absent.endpoints.local) {
            *known.called.entry(absent.endpoints.local).or_default() += 1;
        }
        let device = absent.endpoints.device;
        if known.devices.len() < NAMED || known.devices.contains_key(&device) {
            *known.devices.entry(device).or_default() += 1;
        }
        if let Some(peer) = absent.endpoints.remote {
            known.peers.note(peer.ip());
        }
        (more, (known.report.is_some() && known.is_no_accident(time)).then_some(key))
    }

    /// A process of this host is among those who called.
    pub(super) fn note_client(&mut self, key: AbsentKey, task: &Task) {
        if let Some(known) = self.ports.get_mut(&key)
            && known.clients.len() < NAMED
            && !known.clients.iter().any(|client| client.pid == task.pid)
        {
            known.clients.push(task.clone());
        }
    }

    /// Who listens elsewhere was looked up; whether there is something to tell now.
    pub(super) fn note_report(&mut self, now: Timestamp, report: &ListenerReport) -> Option<AbsentKey> {
        let key = (report.netns, report.port);
        let known = self.ports.get_mut(&key)?;
        known.report = Some(report.clone());
        known.is_no_accident(now).then_some(key)
    }
}
