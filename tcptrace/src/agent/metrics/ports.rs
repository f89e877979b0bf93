//! Ephemeral ports: by process, and how much of each namespace's range is left.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::correlate::{Correlator, Growth, PortUser};
use crate::event::{KnobSample, Timestamp};

use super::OTHER;
use super::table::{Labels, NetnsLabel, Table};

/// A look at who has the ports, older than this, is not told any more.
const FRESH: Duration = Duration::from_secs(60);

/// A process that has no ports any more is remembered for this long.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What takes longer than a day is no forecast.
const HORIZON: f64 = 86_400.0;

/// What a process with ports is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UserLabels {
    pub(crate) process: String,
    pub(crate) container: String,
    pub(crate) netns: String,
}

impl Labels for UserLabels {
    fn other() -> Self {
        Self { process: OTHER.to_owned(), container: OTHER.to_owned(), netns: OTHER.to_owned() }
    }
}

/// All processes of the same labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortRow {
    /// Ports that they took since the trace began, and have not given back.
    pub(crate) held: u64,
    pub(crate) taken: u64,
    pub(crate) refused: u64,
    last: Timestamp,
}

/// The range of a namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeRow {
    /// Ports that the kernel may choose from.
    pub(crate) capacity: Option<u64>,
    /// Of these: in use, at the last look.
    pub(crate) in_use: Option<u64>,
    /// Of these: taken since the trace began and not given back.
    pub(crate) held: u64,
    /// Until there is none left, if it goes on like this.
    pub(crate) seconds_left: Option<f64>,
    /// Whether no port was found for a socket, and that goes on.
    pub(crate) exhausted: bool,
}

#[derive(Debug)]
struct Seen {
    labels: UserLabels,
    since: Timestamp,
    taken: u64,
    refused: u64,
    pass: u64,
}

#[derive(Debug)]
pub(super) struct PortMeter {
    users: Table<UserLabels, PortRow>,
    seen: HashMap<PortUser, Seen>,
    most_ranges: usize,
    ranges: BTreeMap<NetnsLabel, RangeRow>,
    pass: u64,
    looked: Timestamp,
}

impl PortMeter {
    pub(super) fn new(processes: usize, namespaces: usize) -> Self {
        Self {
            users: Table::new(processes),
            seen: HashMap::new(),
            most_ranges: namespaces,
            ranges: BTreeMap::new(),
            pass: 0,
            looked: Timestamp::default(),
        }
    }

    pub(super) fn fold(&mut self, world: &Correlator) {
        self.pass += 1;
        let now = world.now();
        self.users.rows_mut().for_each(|row| row.held = 0);
        let mut growth: HashMap<u32, (u64, Option<Growth>)> = HashMap::new();
        for (user, ports) in world.ports().all_users() {
            let (netns, pid) = *user;
            let latest = &ports.latest;
            let (held, grows) = growth.entry(netns).or_default();
            *held += latest.held();
            *grows = match (*grows, ports.growth()) {
                (Some(all), Some(growth)) => Some(all.and(&growth)),
                (all, growth) => all.or(growth),
            };
            if !self.seen.contains_key(user) {
                let info = world.processes().info(pid);
                let labels = UserLabels {
                    process: info.map_or_else(|| latest.comm.clone(), |info| info.comm.clone()),
                    container: info.and_then(|info| info.container.clone()).unwrap_or_default(),
                    netns: netns.to_string(),
                };
                let looked = self.looked;
                let gone = |row: &PortRow| (row.last < looked).then_some(row.last);
                let labels = self.users.place(labels, latest.refused > 0, gone);
                let seen = Seen { labels, since: latest.since, taken: 0, refused: 0, pass: 0 };
                self.seen.insert(*user, seen);
            }
            let Some(seen) = self.seen.get_mut(user) else { continue };
            if seen.since != latest.since {
                // Another process with the same number, or counted anew.
                (seen.since, seen.taken, seen.refused) = (latest.since, 0, 0);
            }
            seen.pass = self.pass;
            let Some(row) = self.users.row(&seen.labels) else { continue };
            row.held += latest.held();
            row.taken += latest.taken().saturating_sub(seen.taken);
            row.refused += latest.refused.saturating_sub(seen.refused);
            row.last = now;
            (seen.taken, seen.refused) = (latest.taken(), latest.refused);
        }
        let pass = self.pass;
        self.seen.retain(|_, seen| seen.pass == pass);
        self.users.retain(|row| now.since(row.last) < REMEMBERED);
        self.looked = now;
        self.ranges = ranges(world, now, &growth, self.most_ranges);
    }

    pub(super) fn users(&self) -> BTreeMap<UserLabels, PortRow> {
        self.users.copy()
    }

    pub(super) fn ranges(&self) -> BTreeMap<NetnsLabel, RangeRow> {
        self.ranges.clone()
    }

    pub(super) fn overflow(&self) -> u64 {
        self.users.overflow()
    }
}

fn ranges(
    world: &Correlator,
    now: Timestamp,
    growth: &HashMap<u32, (u64, Option<Growth>)>,
    most: usize,
) -> BTreeMap<NetnsLabel, RangeRow> {
    let mut all: Vec<(u32, RangeRow)> = Vec::new();
    for (netns, namespace) in world.namespaces() {
        let space = world.ports().space(netns);
        let survey = space.and_then(|space| space.survey.as_ref());
        let (held, grows) = growth.get(&netns).copied().unwrap_or_default();
        let capacity = survey
            .map(|(_, survey)| u64::from(survey.capacity))
            .or_else(|| KnobSample::ephemeral_ports(&namespace.knobs).map(u64::from));
        let in_use = survey.filter(|(time, _)| now.since(*time) < FRESH);
        let in_use = in_use.map(|(_, survey)| u64::from(survey.in_use));
        let free = capacity.map(|capacity| capacity.saturating_sub(in_use.unwrap_or(held)));
        let left = grows.zip(free).and_then(|(grows, free)| grows.forecast(free));
        let exhausted = space.is_some_and(|space| space.exhaustion.is_some());
        all.push((
            netns,
            RangeRow {
                capacity,
                in_use,
                held,
                seconds_left: if exhausted {
                    Some(0.0)
                } else {
                    left.map(|(_, likely, _)| likely.as_secs_f64()).filter(|left| *left < HORIZON)
                },
                exhausted,
            },
        ));
    }
    // Where ports are short, and where most are used, first: of too many it is those that are worth a series of their own.
    all.sort_by_key(|(netns, row)| {
        (!row.exhausted, row.seconds_left.is_none(), std::cmp::Reverse(row.held), *netns)
    });
    all.into_iter().take(most).map(|(netns, row)| (NetnsLabel(netns.to_string()), row)).collect()
}
