//! Who listens elsewhere on a port at which connects fail: looked up when they fail again and again, or a packet is dropped.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::event::{self, Kind, ListenerReport, ReportedListener, Timestamp};

use super::{people::People, places::Places};

/// Not again before this: it takes a look at every namespace.
const AGAIN: Duration = Duration::from_secs(10);
/// Looks in a second, whatever the ports.
const PER_SECOND: u32 = 8;
/// So many SYNs must have found nobody: a scanner that knocks once is not worth a look.
pub(super) const SYNS: u64 = 3;

/// When was looked for whom.
#[derive(Default)]
pub(super) struct Absence {
    looked: HashMap<(u32, u16), Timestamp>,
    this_second: u32,
}

impl Absence {
    /// A new second.
    pub(super) fn second(&mut self, now: Timestamp) {
        self.this_second = 0;
        self.looked.retain(|_, looked| now.since(*looked) < AGAIN);
    }

    /// Who listens on `port` anywhere, if that was not said just now: introductions, then the report.
    pub(super) fn look(
        &mut self,
        (netns, port): (u32, u16),
        asked: Timestamp,
        places: &mut Places,
        people: &mut People,
    ) -> Vec<Kind> {
        if self.this_second >= PER_SECOND || self.looked.contains_key(&(netns, port)) {
            return Vec::new();
        }
        self.this_second += 1;
        self.looked.insert((netns, port), asked);
        let (found, complete) = places.listeners_on(port);
        let inodes: HashSet<u64> = found.iter().map(|(_, l)| l.inode).filter(|inode| *inode != 0).collect();
        let owners = if inodes.is_empty() { HashMap::new() } else { people.find_owners(&inodes) };
        let mut kinds: Vec<Kind> =
            owners.values().flatten().filter_map(|owner| people.introduce(owner.pid)).collect();
        let listeners = found
            .into_iter()
            .map(|(netns, listener)| ReportedListener {
                netns,
                local: event::canonical(listener.local),
                v6only: listener.v6only,
                inode: listener.inode,
                owners: owners.get(&listener.inode).cloned().unwrap_or_default(),
            })
            .collect();
        let incomplete = (!complete).then(|| "some namespaces cannot be looked at".to_owned());
        kinds.push(Kind::ListenerReport(Box::new(ListenerReport {
            netns,
            port,
            asked,
            listeners,
            incomplete,
        })));
        kinds
    }
}
