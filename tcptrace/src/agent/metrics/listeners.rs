//! Listeners: their queues, what arrives, what is dropped, how long connections wait.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::correlate::{Correlator, Listener, ListenerId};
use crate::event::{Distribution, ListenerTotals, Timestamp};
use crate::finding::{at_device, serving};

use super::OTHER;
use super::table::{Labels, Table};

/// A row whose listeners have all gone stays for this long: a server that is restarted goes on in it.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A listener whose owner is not known yet waits for this long.
const PATIENCE: Duration = Duration::from_secs(3);

/// Upper bounds of the classic histogram, as powers of two of a nanosecond: 66 µs to 17 s, each four times the one before. The
/// kernel side counts in finer buckets that have these bounds as well, so the counts are exact.
pub(crate) const BOUNDS: [u32; 10] = [16, 18, 20, 22, 24, 26, 28, 30, 32, 34];

/// How many waits were in each bucket; the last is that of all longer ones.
pub(crate) type Buckets = [u64; BOUNDS.len() + 1];

/// What a listener is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListenerLabels {
    /// Its address and device: `0.0.0.0%mgmt0`.
    pub(crate) address: String,
    pub(crate) port: String,
    pub(crate) process: String,
    pub(crate) container: String,
    pub(crate) netns: String,
}

impl Labels for ListenerLabels {
    fn other() -> Self {
        let other = || OTHER.to_owned();
        Self { address: other(), port: other(), process: other(), container: other(), netns: other() }
    }
}

/// All listeners of the same labels: the sockets of a reuseport group, a server before and after its restart.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListenerRow {
    /// What was counted; `None` where that is not observed.
    pub(crate) totals: ListenerTotals,
    /// Drops at the full accept queue that are deduced from the namespace's counter.
    pub(crate) inferred: u64,
    /// SYNs at the full SYN queue, likewise: dropped, dropped for the rest of `tcp_max_syn_backlog`, answered by cookies.
    pub(crate) inferred_syns: (u64, u64, u64),
    /// Accept waits, where they are observed.
    pub(crate) waits: Option<Buckets>,
    /// Sockets that listen now.
    pub(crate) sockets: u64,
    pub(crate) depth: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) depth_max: u64,
    pub(crate) half_open: Option<u64>,
    /// When there was one last.
    last: Timestamp,
}

/// What was counted of a listener when it was last looked at.
#[derive(Debug)]
struct Seen {
    labels: ListenerLabels,
    owned: bool,
    totals: ListenerTotals,
    inferred: u64,
    inferred_syns: (u64, u64, u64),
    waits: Buckets,
    pass: u64,
}

/// From listeners to rows.
#[derive(Debug)]
pub(super) struct ListenerMeter {
    table: Table<ListenerLabels, ListenerRow>,
    seen: HashMap<ListenerId, Seen>,
    pass: u64,
    /// When it was looked last.
    looked: Timestamp,
}

impl ListenerMeter {
    pub(super) fn new(most: usize) -> Self {
        Self { table: Table::new(most), seen: HashMap::new(), pass: 0, looked: Timestamp::default() }
    }

    pub(super) fn fold(&mut self, world: &Correlator) {
        self.pass += 1;
        let now = world.now();
        for row in self.table.rows_mut() {
            (row.sockets, row.depth, row.limit, row.half_open) = (0, 0, None, None);
        }
        for listener in world.listeners().iter() {
            self.take(listener, world, now);
        }
        let pass = self.pass;
        self.seen.retain(|_, seen| seen.pass == pass);
        self.table.retain(|row| now.since(row.last) < REMEMBERED);
        self.looked = now;
    }

    fn take(&mut self, listener: &Listener, world: &Correlator, now: Timestamp) {
        let troubled = is_troubled(listener);
        let seen = self.seen.get(&listener.id);
        // Once its owner is known, a listener stays in its row; unless it shares one, and has got into trouble.
        let settled =
            seen.is_some_and(|seen| seen.owned && !(troubled && seen.labels == ListenerLabels::other()));
        if !settled {
            let process = serving(listener, world.processes());
            let owned = process.as_ref().is_some_and(|process| process.comm.is_some());
            let patient = now.since(listener.first_seen) < PATIENCE && listener.closed.is_none();
            if seen.is_none() && !owned && patient {
                return;
            }
            if seen.is_none() || owned {
                let device = world.device_name(listener.endpoints.netns, listener.endpoints.device);
                let place = at_device(listener.endpoints.local, device.as_deref());
                let (address, port) = place.rsplit_once(':').unwrap_or((&place, ""));
                let process = process.unwrap_or_default();
                let labels = ListenerLabels {
                    address: address.replace(['[', ']'], ""),
                    port: port.to_owned(),
                    process: process.comm.unwrap_or_default(),
                    container: process.container.unwrap_or_default(),
                    netns: listener.endpoints.netns.to_string(),
                };
                let looked = self.looked;
                let gone = |row: &ListenerRow| (row.last < looked).then_some(row.last);
                let labels = self.table.place(labels, troubled, gone);
                let seen = self.seen.entry(listener.id).or_insert_with(|| Seen {
                    labels: labels.clone(),
                    owned,
                    totals: ListenerTotals::default(),
                    inferred: 0,
                    inferred_syns: (0, 0, 0),
                    waits: Buckets::default(),
                    pass: 0,
                });
                // What was counted so far stays where it was: a counter never falls.
                (seen.labels, seen.owned) = (labels, owned);
            }
        }
        let Some(seen) = self.seen.get_mut(&listener.id) else { return };
        seen.pass = self.pass;
        // A closed one's may have made room.
        let Some(row) = self.table.row(&seen.labels) else { return };
        row.totals.add(&listener.totals.less(&seen.totals));
        row.inferred += listener.inferred.count.saturating_sub(seen.inferred);
        let syns = listener.inferred_syns;
        row.inferred_syns.0 += syns.drops.saturating_sub(seen.inferred_syns.0);
        row.inferred_syns.1 += syns.reserved.saturating_sub(seen.inferred_syns.1);
        row.inferred_syns.2 += syns.cookies.saturating_sub(seen.inferred_syns.2);
        if let Some(waits) = listener.waits.all() {
            let buckets = buckets_of(waits);
            let all = row.waits.get_or_insert_default();
            for (all, (now, then)) in all.iter_mut().zip(buckets.iter().zip(&seen.waits)) {
                *all += now.saturating_sub(*then);
            }
            seen.waits = buckets;
        } else if listener.totals.waits.is_some() {
            row.waits.get_or_insert_default();
        }
        seen.totals = listener.totals;
        seen.inferred = listener.inferred.count;
        seen.inferred_syns = (syns.drops, syns.reserved, syns.cookies);
        row.depth_max = row.depth_max.max(listener.totals.depth_max.unwrap_or(0).into());
        row.last = row.last.max(listener.closed.unwrap_or(now));
        if listener.closed.is_none() {
            row.sockets += 1;
            row.depth += u64::from(listener.depth);
            if listener.limit_seen {
                row.limit = Some(row.limit.unwrap_or(0) + u64::from(listener.limit));
            }
            if let Some(half_open) = listener.syn_queue {
                row.half_open = Some(row.half_open.unwrap_or(0) + u64::from(half_open));
            }
        }
    }

    pub(super) fn bound(&mut self, most: usize) {
        self.table.bound(most);
    }

    pub(super) fn rows(&self) -> BTreeMap<ListenerLabels, ListenerRow> {
        self.table.copy()
    }

    pub(super) fn overflow(&self) -> u64 {
        self.table.overflow()
    }
}

/// Whether it is one that somebody will look for by name.
fn is_troubled(listener: &Listener) -> bool {
    let dropped = |count: Option<u64>| count.is_some_and(|count| count > 0);
    listener.overflows().total() > 0
        || listener.inferred_syns.drops + listener.inferred_syns.reserved > 0
        || dropped(listener.totals.syn_drops_syn_queue)
        || dropped(listener.totals.syn_drops_max_syn_backlog)
        || (listener.limit_seen && listener.depth > 0 && listener.depth >= listener.limit / 2)
}

pub(super) fn buckets_of(waits: &Distribution) -> Buckets {
    let mut buckets = Buckets::default();
    for (start, count) in waits.buckets() {
        let index = BOUNDS.iter().position(|bits| start < 1 << bits).unwrap_or(BOUNDS.len());
        if let Some(bucket) = buckets.get_mut(index) {
            *bucket += count;
        }
    }
    buckets
}
