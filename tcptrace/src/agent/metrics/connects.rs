//! Connects by what became of them, by namespace.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::correlate::Correlator;
use crate::event::{ConnectTotals, Timestamp};

use super::table::{NetnsLabel, Table};

/// What a namespace that has gone had counted stays for this long.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Connects from a namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectRow {
    pub(crate) totals: ConnectTotals,
    /// Those whose port the kernel chose.
    pub(crate) dialled: u64,
    last: Timestamp,
}

#[derive(Debug)]
pub(super) struct ConnectMeter {
    table: Table<NetnsLabel, ConnectRow>,
    seen: HashMap<u32, (NetnsLabel, ConnectTotals, u64, u64)>,
    pass: u64,
    looked: Timestamp,
}

impl ConnectMeter {
    pub(super) fn new(most: usize) -> Self {
        Self { table: Table::new(most), seen: HashMap::new(), pass: 0, looked: Timestamp::default() }
    }

    pub(super) fn fold(&mut self, world: &Correlator) {
        self.pass += 1;
        let now = world.now();
        for (netns, namespace) in world.namespaces() {
            let (connects, dialled) = namespace.connects();
            if !self.seen.contains_key(&netns) {
                let label = {
                    let looked = self.looked;
                    let gone = |row: &ConnectRow| (row.last < looked).then_some(row.last);
                    self.table.place(NetnsLabel(netns.to_string()), false, gone)
                };
                self.seen.insert(netns, (label, ConnectTotals::default(), 0, 0));
            }
            let Some((label, then, dialled_then, pass)) = self.seen.get_mut(&netns) else { continue };
            *pass = self.pass;
            if dialled < *dialled_then || connects.syns_again < then.syns_again {
                // Another namespace that got the same number.
                (*then, *dialled_then) = (ConnectTotals::default(), 0);
            }
            let Some(row) = self.table.row(label) else { continue };
            row.totals.add(&connects.each(then, u64::saturating_sub));
            row.dialled += dialled.saturating_sub(*dialled_then);
            row.last = now;
            (*then, *dialled_then) = (connects, dialled);
        }
        let pass = self.pass;
        self.seen.retain(|_, (_, _, _, seen)| *seen == pass);
        self.table.retain(|row| now.since(row.last) < REMEMBERED);
        self.looked = now;
    }

    pub(super) fn rows(&self) -> BTreeMap<NetnsLabel, ConnectRow> {
        self.table.copy()
    }

    pub(super) fn overflow(&self) -> u64 {
        self.table.overflow()
    }
}
