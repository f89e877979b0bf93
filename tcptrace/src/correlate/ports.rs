//! Ephemeral ports: who takes and gives back how many, how long that can go on, and when a port was wanted and there was none.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::event::{
    BindFail, Endpoints, NoPort, PortRange, PortSurvey, PortUse, SocketOptions, Task, Timestamp,
};

use super::bounded::BoundedMap;

/// How many processes with ports are remembered.
const PROCESSES: usize = 16_384;

/// How many namespaces.
const NAMESPACES: usize = 1024;

/// How many requesters and destinations of an exhaustion are told apart.
const PARTIES: usize = 256;

/// Readings kept of a process, and the shortest time between two. When there are too many, every other one is forgotten, so
/// that they reach back as far as the process is known.
const READINGS: usize = 64;
const SPACING: Duration = Duration::from_millis(900);

/// A survey is as good as new for so long.
const FRESH: Duration = Duration::from_secs(15);

/// A process that leaks was seen growing for so long, in so many readings.
const GROWN_FOR: Duration = Duration::from_secs(4);
const GROWN_READINGS: usize = 4;

/// From this share of the ports on (one in so many) growth alone is worth a word.
const SHARE: u64 = 4;

/// Growth that goes on for this long is worth one before, from this share on.
const LONG: Duration = Duration::from_secs(600);
const SHARE_LONG: u64 = 20;

/// After so long without a failure, an exhaustion is over.
const QUIET: Duration = Duration::from_secs(10);

/// So long a failure waits for a look at who has the ports.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A process in a namespace.
pub type PortUser = (u32, u32);

/// What is known of ports.
#[derive(Debug)]
pub struct Ports {
    users: BoundedMap<PortUser, ProcessPorts>,
    spaces: BoundedMap<u32, PortSpace>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { users: BoundedMap::new(PROCESSES), spaces: BoundedMap::new(NAMESPACES) }
    }
}

/// What one process does with ephemeral ports.
#[derive(Clone, Debug, Default)]
pub struct ProcessPorts {
    /// The latest counts.
    pub latest: PortUse,
    /// Earlier ones, and these.
    readings: VecDeque<(Timestamp, PortUse)>,
    /// Changed since the last tick.
    news: bool,
}

/// The ports of one namespace.
#[derive(Clone, Debug, Default)]
pub struct PortSpace {
    /// The last look at who has them, and when that was.
    pub survey: Option<(Timestamp, PortSurvey)>,
    /// Ports that were wanted, while that goes on.
    pub exhaustion: Option<Exhaustion>,
}

/// Ports were wanted, and there was none.
#[derive(Clone, Debug)]
pub struct Exhaustion {
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// How often connect() failed for that, by process: the count before, and the latest.
    connects: BTreeMap<u32, (u64, u64)>,
    /// How often bind() to port 0 failed.
    pub binds: u64,
    /// How often it failed, by process.
    binds_of: BTreeMap<u32, u64>,
    /// The processes that failed, as they were first seen.
    tasks: BTreeMap<u32, Task>,
    /// How often connect() failed, by destination, of those that were told one by one.
    pub destinations: BTreeMap<SocketAddr, u64>,
    /// Who failed first.
    pub requester: Task,
    /// With which local address, and where to, if it was connect().
    pub endpoints: Endpoints,
    /// Options of its socket.
    pub options: SocketOptions,
    /// Range of ports that its socket has for itself (IP_LOCAL_PORT_RANGE).
    pub own_range: Option<PortRange>,
    /// It was told.
    told: bool,
}

/// How a process's ports grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Ports that it took and has not given back.
    pub held: u64,
    /// More each second.
    pub per_s: f64,
    /// Standard error of that.
    pub error_per_s: f64,
    /// Over this time.
    pub span: Duration,
    /// Taken in this time.
    pub taken: u64,
    /// Given back in this time.
    pub released: u64,
}

impl Growth {
    /// Of two processes together; their errors have nothing to do with each other.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            held: self.held + other.held,
            per_s: self.per_s + other.per_s,
            error_per_s: self.error_per_s.hypot(other.error_per_s),
            span: self.span.max(other.span),
            taken: self.taken + other.taken,
            released: self.released + other.released,
        }
    }

    /// Time until `free` ports are gone: the least, the likely, and the most (two standard errors). `None` for never.
    pub fn forecast(&self, free: u64) -> Option<(Duration, Duration, Option<Duration>)> {
        // Counts of ports are small: nothing is lost.
        #[expect(clippy::cast_precision_loss, reason = "at most 65536")]
        let free = free as f64;
        let after = |rate: f64| {
            (rate > 0.0).then(|| Duration::try_from_secs_f64(free / rate).unwrap_or(Duration::MAX))
        };
        let likely = after(self.per_s)?;
        let least = after(self.per_s + 2.0 * self.error_per_s).unwrap_or(likely);
        Some((least, likely, after(self.per_s - 2.0 * self.error_per_s)))
    }
}

impl Exhaustion {
    /// How often connect() failed.
    pub fn connects(&self) -> u64 {
        self.connects.values().map(|(before, latest)| latest.saturating_sub(*before)).sum()
    }

    /// The processes that found no port, and how often, most failures first.
    pub fn requesters(&self) -> Vec<(&Task, u64)> {
        let connects =
            |pid: &u32| self.connects.get(pid).map_or(0, |(before, latest)| latest.saturating_sub(*before));
        let failures = |pid: &u32| connects(pid) + self.binds_of.get(pid).copied().unwrap_or(0);
        let mut all: Vec<(&Task, u64)> = self.tasks.iter().map(|(pid, task)| (task, failures(pid))).collect();
        all.sort_by_key(|(task, failures)| (std::cmp::Reverse(*failures), task.pid));
        all
    }

    fn note_task(&mut self, task: &Task) {
        if self.tasks.len() < PARTIES {
            self.tasks.entry(task.pid).or_insert_with(|| task.clone());
        }
    }

    /// The destination of most failures.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.destinations.iter().max_by_key(|(remote, count)| (**count, **remote)).map(|(remote, _)| *remote)
    }
}

impl ProcessPorts {
    /// How its ports grow; `None` while that cannot be said, or if they do not only grow.
    pub fn growth(&self) -> Option<Growth> {
        let (first, last) = (self.readings.front()?, self.readings.back()?);
        let span = last.0.since(first.0);
        if self.readings.len() < GROWN_READINGS || span < GROWN_FOR {
            return None;
        }
        let taken = last.1.taken() - first.1.taken();
        let released = last.1.released - first.1.released;
        // In every third of the time more must be held than before.
        let third = self.readings.len() / 3;
        let held = |index: usize| self.readings.get(index).map(|(_, reading)| reading.held());
        let marks = [held(0)?, held(third)?, held(2 * third)?, last.1.held()];
        if !marks.is_sorted_by(|a, b| a < b) || released * 10 > taken {
            return None;
        }
        let (per_s, error_per_s) = self.slope()?;
        Some(Growth { held: last.1.held(), per_s, error_per_s, span, taken, released })
    }

    /// Growth of what is held a second by least squares, and its standard error.
    #[expect(clippy::cast_precision_loss, reason = "counts of ports and readings are small")]
    fn slope(&self) -> Option<(f64, f64)> {
        let begin = self.readings.front()?.0;
        let points: Vec<(f64, f64)> = self
            .readings
            .iter()
            .map(|(time, reading)| (time.since(begin).as_secs_f64(), reading.held() as f64))
            .collect();
        let n = points.len() as f64;
        let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / n;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if spread <= 0.0 || n < 3.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let residual: f64 = points.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
        Some((slope, (residual / (n - 2.0) / spread).sqrt()))
    }

    fn note(&mut self, time: Timestamp, latest: &PortUse) {
        if self.latest.since != latest.since || latest.taken() < self.latest.taken() {
            self.readings.clear();
        }
        self.latest = latest.clone();
        self.news = true;
        if self.readings.back().is_some_and(|(last, _)| time.since(*last) < SPACING) {
            self.readings.pop_back();
        }
        self.readings.push_back((time, latest.clone()));
        if self.readings.len() > READINGS {
            let mut keep = false;
            self.readings.retain(|_| {
                keep = !keep;
                keep
            });
            // The latest is always there.
            if self.readings.back().is_none_or(|(last, _)| *last != time) {
                self.readings.push_back((time, latest.clone()));
            }
        }
    }
}

impl PortSpace {
    /// The last look, if it is not too old.
    pub fn fresh_survey(&self, now: Timestamp) -> Option<&PortSurvey> {
        self.survey.as_ref().filter(|(time, _)| now.since(*time) < FRESH).map(|(_, survey)| survey)
    }
}

impl Ports {
    /// Nothing is known any more of this namespace.
    pub(super) fn forget(&mut self, netns: u32) {
        self.users.retain(|(of, _), _| *of != netns);
        self.spaces.remove(&netns);
    }

    /// What a process does with ports.
    pub fn user(&self, user: PortUser) -> Option<&ProcessPorts> {
        self.users.get(&user)
    }

    /// The processes of a namespace.
    pub fn users(&self, netns: u32) -> impl Iterator<Item = (u32, &ProcessPorts)> {
        self.users
            .iter()
            .filter(move |((there, _), _)| *there == netns)
            .map(|((_, pid), ports)| (*pid, ports))
    }

    /// The processes of all namespaces, in no order.
    pub fn all_users(&self) -> impl Iterator<Item = (&PortUser, &ProcessPorts)> {
        self.users.iter()
    }

    /// The ports of a namespace.
    pub fn space(&self, netns: u32) -> Option<&PortSpace> {
        self.spaces.get(&netns)
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.users.forgotten() + self.spaces.forgotten()
    }

    /// Takes in what a process has done; how many connects that had a port of the kernel's choice came since the last time.
    pub(super) fn note_use(&mut self, time: Timestamp, latest: &PortUse) -> u64 {
        let user = (latest.netns, latest.pid);
        let known = self.users.get_or_insert_with(user, ProcessPorts::default);
        let before = if known.latest.since == latest.since { known.latest.connects() } else { 0 };
        known.note(time, latest);
        if let Some(exhaustion) =
            self.spaces.get_mut(&latest.netns).and_then(|space| space.exhaustion.as_mut())
            && let Some((_, refused)) = exhaustion.connects.get_mut(&latest.pid)
        {
            if latest.refused > *refused {
                exhaustion.last = exhaustion.last.max(time);
            }
            *refused = latest.refused.max(*refused);
        }
        latest.connects().saturating_sub(before)
    }

    /// Takes in a look. Whether somebody waited for it.
    pub(super) fn note_survey(&mut self, time: Timestamp, survey: &PortSurvey) -> bool {
        let space = self.spaces.get_or_insert_with(survey.netns, PortSpace::default);
        space.survey = Some((time, survey.clone()));
        let Some(exhaustion) = &mut space.exhaustion else { return false };
        !std::mem::replace(&mut exhaustion.told, true)
    }

    /// connect() found no port. Whether it is known who has them.
    pub(super) fn note_no_port(&mut self, time: Timestamp, refused: &NoPort) -> bool {
        let exhaustion =
            self.exhaustion(time, refused.endpoints, &refused.task, refused.options, refused.own_range);
        exhaustion.note_task(&refused.task);
        if exhaustion.connects.len() < PARTIES || exhaustion.connects.contains_key(&refused.task.pid) {
            let (_, latest) = exhaustion
                .connects
                .entry(refused.task.pid)
                .or_insert((refused.total.saturating_sub(1), refused.total));
            *latest = refused.total.max(*latest);
        }
        if let Some(remote) = refused.endpoints.remote
            && (exhaustion.destinations.len() < PARTIES || exhaustion.destinations.contains_key(&remote))
        {
            *exhaustion.destinations.entry(remote).or_default() += 1;
        }
        exhaustion.told
    }

    /// bind() to port 0 found none. Whether it is known who has them.
    pub(super) fn note_bind(&mut self, time: Timestamp, fail: &BindFail) -> bool {
        let exhaustion = self.exhaustion(time, fail.endpoints, &fail.task, fail.options, fail.own_range);
        exhaustion.binds += 1;
        exhaustion.note_task(&fail.task);
        if exhaustion.tasks.contains_key(&fail.task.pid) {
            *exhaustion.binds_of.entry(fail.task.pid).or_default() += 1;
        }
        exhaustion.told
    }

    fn exhaustion(
        &mut self,
        time: Timestamp,
        endpoints: Endpoints,
        task: &Task,
        options: SocketOptions,
        own_range: Option<PortRange>,
    ) -> &mut Exhaustion {
        let space = self.spaces.get_or_insert_with(endpoints.netns, PortSpace::default);
        let exhaustion = space.exhaustion.get_or_insert_with(|| Exhaustion {
            first: time,
            last: time,
            connects: BTreeMap::new(),
            binds: 0,
            binds_of: BTreeMap::new(),
            tasks: BTreeMap::new(),
            destinations: BTreeMap::new(),
            requester: task.clone(),
            endpoints,
            options,
            own_range,
            told: false,
        });
        exhaustion.last = exhaustion.last.max(time);
        exhaustion
    }

    /// A second has passed: exhaustions that nobody looked at in time or that go on, and those that are over.
    pub(super) fn tick(&mut self, now: Timestamp, end: bool) -> Vec<u32> {
        let mut waiting = Vec::new();
        let mut over = Vec::new();
        for (netns, space) in self.spaces.iter() {
            let Some(exhaustion) = &space.exhaustion else { continue };
            if now.since(exhaustion.last) >= QUIET {
                over.push(*netns);
            } else if !exhaustion.told && (end || now.since(exhaustion.first) >= PATIENCE) {
                waiting.push(*netns);
            }
        }
        for netns in &waiting {
            if let Some(exhaustion) = self.spaces.get_mut(netns).and_then(|space| space.exhaustion.as_mut()) {
                exhaustion.told = true;
            }
        }
        for netns in over {
            if let Some(space) = self.spaces.get_mut(&netns) {
                space.exhaustion = None;
            }
        }
        waiting.sort_unstable();
        waiting
    }

    /// Processes that take ports and do not give them back, so that it is worth a word; `capacity` says how many ports a
    /// namespace has.
    pub(super) fn leaks(&mut self, now: Timestamp, capacity: impl Fn(u32) -> Option<u32>) -> Vec<PortUser> {
        let mut leaks = Vec::new();
        for ((netns, pid), ports) in self.users.iter() {
            if !ports.news {
                continue;
            }
            let Some(growth) = ports.growth() else { continue };
            let space = self.spaces.get(netns);
            let seen = space.and_then(|space| space.fresh_survey(now)).and_then(|survey| {
                let mut processes = survey.processes.iter();
                processes.find(|holders| holders.owner.as_ref().is_some_and(|owner| owner.pid == *pid))
            });
            let held = growth.held.max(seen.map_or(0, |holders| holders.ports.into()));
            let capacity = capacity(*netns).map_or(u64::MAX / 1024, u64::from);
            let share = if growth.span >= LONG { SHARE_LONG } else { SHARE };
            if held * share >= capacity {
                leaks.push((*netns, *pid));
            }
        }
        for ports in self.users.values_mut() {
            ports.news = false;
        }
        leaks.sort_unstable();
        leaks
    }
}
