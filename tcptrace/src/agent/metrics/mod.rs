//! Metrics: what the engine knows, as series of bounded number that only grow where they are counters.
//!
//! The tracer's thread folds the engine's state into [`Meter`] now and then, and hands out copies ([`Snapshot`]); `text.rs` makes
//! of those what is scraped, in another thread.

mod connects;
mod cost;
mod listeners;
mod ports;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::collections::{BTreeMap, HashMap};

use crate::correlate::ReconciliationStatus;
use crate::event::ObservationStatus;
use crate::finding::{Engine, Finding, Severity, State};
use crate::probe::ProgramCosts;

use connects::{ConnectMeter, ConnectRow};
use cost::Cost;
use listeners::{ListenerLabels, ListenerMeter, ListenerRow};
use ports::{PortMeter, PortRow, RangeRow, UserLabels};
use table::NetnsLabel;

pub(super) use text::{classic, open_metrics};

/// How many series of each kind are told apart; what comes on top is one, called [`OTHER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Listeners.
    pub listeners: usize,
    /// Processes with ephemeral ports.
    pub processes: usize,
    /// Network namespaces.
    pub namespaces: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { listeners: 500, processes: 200, namespaces: 100 }
    }
}

/// What the label of a series says that stands for all that were too many.
pub(super) const OTHER: &str = "(other)";

/// What the engine knows, as series.
pub(super) struct Meter {
    listeners: ListenerMeter,
    ports: PortMeter,
    connects: ConnectMeter,
    open: HashMap<u64, (&'static str, Severity)>,
    costs: ProgramCosts,
}

/// A copy of all series at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    listeners: BTreeMap<ListenerLabels, ListenerRow>,
    users: BTreeMap<UserLabels, PortRow>,
    ranges: BTreeMap<NetnsLabel, RangeRow>,
    connects: BTreeMap<NetnsLabel, ConnectRow>,
    /// How many things are in the series of those that were too many.
    overflow: Vec<(&'static str, u64)>,
    findings: Vec<(&'static str, u64)>,
    findings_open: BTreeMap<(&'static str, &'static str), u64>,
    untold: Vec<(&'static str, u64)>,
    events: Vec<(&'static str, u64)>,
    lost: Vec<(String, &'static str, u64)>,
    forgotten: Vec<(&'static str, u64)>,
    observations: Vec<(String, &'static str)>,
    kernel: String,
    tier: &'static str,
    reconciliation: Vec<(&'static str, u64)>,
    cost: Cost,
}

impl Meter {
    pub(super) fn new(bounds: Bounds, costs: ProgramCosts) -> Self {
        Self {
            listeners: ListenerMeter::new(bounds.listeners),
            ports: PortMeter::new(bounds.processes, bounds.namespaces),
            connects: ConnectMeter::new(bounds.namespaces),
            open: HashMap::new(),
            costs,
        }
    }

    /// From now on there may be this many listeners; those that have a series keep it.
    pub(super) fn bound(&mut self, bounds: Bounds) {
        self.listeners.bound(bounds.listeners);
    }

    /// A report of a finding.
    pub(super) fn note(&mut self, finding: &Finding) {
        match finding.state {
            State::Closed => {
                self.open.remove(&finding.id);
            }
            State::Opened | State::Updated => {
                self.open.insert(finding.id, (finding.code, finding.severity));
            }
        }
    }

    /// Takes in what has grown: often enough that nothing comes and is forgotten in between (a closed listener is remembered for
    /// 30 s).
    pub(super) fn fold(&mut self, engine: &Engine) {
        let world = engine.world();
        self.listeners.fold(world);
        self.ports.fold(world);
        self.connects.fold(world);
    }

    /// A copy of everything, as it is now.
    pub(super) fn snapshot(&mut self, engine: &Engine) -> Snapshot {
        self.fold(engine);
        let world = engine.world();
        let mut findings_open: BTreeMap<(&'static str, &'static str), u64> = BTreeMap::new();
        for (code, severity) in self.open.values() {
            *findings_open.entry((code, severity.name())).or_default() += 1;
        }
        // Every code there is: a rate of what has not happened yet is zero, and not unknown.
        let opened = engine.opened();
        let mut findings: Vec<(&'static str, u64)> =
            engine.codes().map(|code| (code, opened.get(code).copied().unwrap_or(0))).collect();
        findings.sort_unstable();
        let coverage = world.coverage();
        let status = |status| match status {
            ObservationStatus::Attached => "attached",
            ObservationStatus::Polled => "polled",
            ObservationStatus::Missing => "missing",
        };
        let rows = world.reconcile();
        let count = |status| {
            u64::try_from(rows.iter().filter(|row| row.status == status).count()).unwrap_or(u64::MAX)
        };
        Snapshot {
            listeners: self.listeners.rows(),
            users: self.ports.users(),
            ranges: self.ports.ranges(),
            connects: self.connects.rows(),
            overflow: vec![
                ("listener", self.listeners.overflow()),
                ("process", self.ports.overflow()),
                ("namespace", self.connects.overflow()),
            ],
            findings,
            findings_open,
            untold: engine.untold().collect(),
            events: world.events().collect(),
            lost: world
                .losses()
                .iter()
                .map(|(what, loss)| (what.to_owned(), loss.place.name(), loss.count))
                .collect(),
            forgotten: world.forgotten(),
            observations: coverage
                .into_iter()
                .flat_map(|of| &of.observations)
                .map(|of| (of.name.clone(), status(of.status)))
                .collect(),
            kernel: coverage.map(|of| of.kernel.clone()).unwrap_or_default(),
            tier: coverage.map_or("none", |of| of.tier.name()),
            reconciliation: [
                ReconciliationStatus::Exact,
                ReconciliationStatus::Partial,
                ReconciliationStatus::Mismatch,
                ReconciliationStatus::Unobserved,
            ]
            .into_iter()
            .map(|status| (status.name(), count(status)))
            .collect(),
            cost: Cost::read(&self.costs),
        }
    }
}
