//! The life of findings, the same for all: opened once, updated at most once a second, closed when quiet.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::correlate::{Change, Correlator};
use crate::event::Timestamp;

use super::cause;
use super::{Confidence, Evidence, Finding, FindingKind, Party, Remedy, Severity, State};

/// Time between two updates of a finding: one second, less what ticks of a second may come early. Updates go with ticks
/// because samples and counters of a second come right before its tick: then all numbers are of the same moment.
const UPDATE_INTERVAL: Duration = Duration::from_millis(950);

/// After so long an update does not wait for a tick.
const TICK_OVERDUE: Duration = Duration::from_secs(2);

/// How long a case whose subject is gone waits for late events of other CPUs.
const LATE_EVENTS: Duration = Duration::from_secs(1);

/// Open cases of one diagnosis. What does not fit is counted, not told.
const OPEN_CASES: usize = 1024;

/// Cases of one diagnosis and severity that are told in one go; after these, one more a second. Where hundreds have the same trouble at
/// once (containers that come and go, each with the same server), nobody reads the next ones: they are counted.
const TOLD_IN_ONE_GO: u64 = 256;

/// Cases that are remembered as counted and not told, each of which counts once.
const HELD: usize = 8192;

/// How long a case that was not told waits before it is looked at again.
const HELD_FOR: Duration = Duration::from_secs(1);

/// After how long without news of it a case that was not told is forgotten.
const HELD_QUIET: Duration = Duration::from_secs(60);

/// One kind of finding: what it looks at, and what it says. To add a finding, copy a file that implements this, and name it
/// in `finding/mod.rs`.
pub(crate) trait Diagnosis {
    /// What there is to say of it wherever findings are listed.
    const KIND: FindingKind;

    /// After how long without news of it a case is closed.
    const QUIET: Duration;

    /// What tells one case from another: a listener, a port…
    type Key: Clone + Ord;

    /// What is remembered of a case while it is open.
    type Memory;

    /// Which case a change is about, and what it means for it. Cheap: called for every change.
    fn concern(&self, change: &Change, world: &Correlator) -> Option<Concern<Self::Key>>;

    /// A case begins, with a change for which [`Self::concern`] said [`Concern::Happened`].
    fn begin(&mut self, key: &Self::Key, world: &Correlator) -> Self::Memory;

    /// Takes in a change that concerns an open case, the first included.
    fn observe(&mut self, key: &Self::Key, memory: &mut Self::Memory, change: &Change, world: &Correlator);

    /// What is to be said of a case now. `None` if its subject is no longer known: then what was said last stands.
    fn describe(&self, key: &Self::Key, memory: &Self::Memory, world: &Correlator) -> Option<Description>;

    /// A case was closed.
    fn end(&mut self, _key: &Self::Key, _memory: &Self::Memory, _world: &Correlator) {}
}

/// What a change means for a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Concern<K> {
    /// What the finding is about happened (again): opens a case, or keeps it open.
    Happened(K),
    /// There is something to add to the case, if it is open.
    Known(K),
    /// Another finding tells of it from now on: the case closes at once, if it is open.
    Over(K),
    /// The subject is gone: the case closes soon, if it is open.
    Gone(K),
}

/// What a finding says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Description {
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// One sentence.
    pub title: String,
    /// What it is about.
    pub subject: Party,
    /// The cause's code.
    pub cause: &'static str,
    /// The cause in words, for people.
    pub explanation: String,
    /// The numbers in words, for people: a few lines.
    pub numbers: Vec<String>,
    /// The numbers.
    pub evidence: Evidence,
    /// What to do.
    pub remedy: Vec<Remedy>,
}

/// A case that is open.
struct Case<M> {
    id: u64,
    memory: M,
    said: Description,
    said_at: Timestamp,
    last_happened: Timestamp,
    gone: Option<Timestamp>,
    news: bool,
}

/// How many more cases may be told now.
struct Budget {
    left: u64,
    refilled: Timestamp,
}

impl Budget {
    fn new(now: Timestamp) -> Self {
        Self { left: TOLD_IN_ONE_GO, refilled: now }
    }

    /// Takes one; false if there is none.
    fn take(&mut self, now: Timestamp) -> bool {
        let seconds = now.since(self.refilled).as_secs();
        if seconds > 0 {
            self.left = self.left.saturating_add(seconds).min(TOLD_IN_ONE_GO);
            self.refilled = now;
        }
        let is_there = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_there
    }
}

/// All open cases of a diagnosis.
pub(super) struct Cases<D: Diagnosis> {
    diagnosis: D,
    open: BTreeMap<D::Key, Case<D::Memory>>,
    budgets: BTreeMap<Severity, Budget>,
    /// What was counted and not told, and when it was looked at last.
    held: BTreeMap<D::Key, Timestamp>,
    untold: u64,
}

/// Where findings go, and where their numbers come from.
pub(super) struct Reporter<'a> {
    pub(super) last_id: &'a mut u64,
    pub(super) report: &'a mut dyn FnMut(Finding),
}

/// What the registry needs of any kind of finding.
pub(super) trait Detector {
    /// Takes in a change and reports what it leads to.
    fn on_change(&mut self, change: &Change, world: &Correlator, to: &mut Reporter<'_>);
    /// The code of its findings.
    fn code(&self) -> &'static str;
    /// How many findings were not told because too many were open.
    fn untold(&self) -> u64;
}

impl<D: Diagnosis + Default> Default for Cases<D> {
    fn default() -> Self {
        Self {
            diagnosis: D::default(),
            open: BTreeMap::new(),
            budgets: BTreeMap::new(),
            held: BTreeMap::new(),
            untold: 0,
        }
    }
}

impl<D: Diagnosis> Cases<D> {
    fn happened(&mut self, key: D::Key, change: &Change, world: &Correlator, to: &mut Reporter<'_>) {
        let now = world.now();
        if let Some(case) = self.open.get_mut(&key) {
            case.last_happened = now;
            case.news = true;
            self.diagnosis.observe(&key, &mut case.memory, change, world);
            Self::update(&self.diagnosis, &key, case, TICK_OVERDUE, world, to);
            return;
        }
        if self.held.get(&key).is_some_and(|looked| now.since(*looked) < HELD_FOR) {
            return;
        }
        if self.open.len() >= OPEN_CASES {
            return self.hold(key, now);
        }
        let mut memory = self.diagnosis.begin(&key, world);
        self.diagnosis.observe(&key, &mut memory, change, world);
        let Some(said) = self.diagnosis.describe(&key, &memory, world) else { return };
        if !self.budgets.entry(said.severity).or_insert_with(|| Budget::new(now)).take(now) {
            return self.hold(key, now);
        }
        if self.held.remove(&key).is_some() {
            self.untold = self.untold.saturating_sub(1);
        }
        *to.last_id += 1;
        let id = *to.last_id;
        (to.report)(finding::<D>(id, State::Opened, now, &said));
        let case = Case { id, memory, said, said_at: now, last_happened: now, gone: None, news: false };
        self.open.insert(key, case);
    }

    /// Counts a case, once, instead of telling it.
    fn hold(&mut self, key: D::Key, now: Timestamp) {
        if let Some(looked) = self.held.get_mut(&key) {
            *looked = now;
            return;
        }
        self.untold += 1;
        if self.held.len() < HELD {
            self.held.insert(key, now);
        }
    }

    fn update(
        diagnosis: &D,
        key: &D::Key,
        case: &mut Case<D::Memory>,
        after: Duration,
        world: &Correlator,
        to: &mut Reporter<'_>,
    ) {
        let now = world.now();
        if !case.news || now.since(case.said_at) < after {
            return;
        }
        case.news = false;
        let Some(description) = diagnosis.describe(key, &case.memory, world) else { return };
        if description != case.said {
            case.said = description;
            case.said_at = now;
            (to.report)(finding::<D>(case.id, State::Updated, now, &case.said));
        }
    }

    /// Updates what has news, closes what is quiet (or everything, at the end).
    fn sweep(&mut self, end: bool, world: &Correlator, to: &mut Reporter<'_>) {
        let now = world.now();
        self.held.retain(|_, looked| now.since(*looked) < HELD_QUIET);
        let mut over = Vec::new();
        for (key, case) in &mut self.open {
            let quiet = now.since(case.last_happened) >= D::QUIET;
            let gone = case.gone.is_some_and(|gone| now.since(gone) >= LATE_EVENTS);
            if end || quiet || gone {
                over.push(key.clone());
            } else {
                Self::update(&self.diagnosis, key, case, UPDATE_INTERVAL, world, to);
            }
        }
        for key in over {
            self.close(&key, world, to);
        }
    }

    fn close(&mut self, key: &D::Key, world: &Correlator, to: &mut Reporter<'_>) {
        let Some(mut case) = self.open.remove(key) else { return };
        if let Some(description) = self.diagnosis.describe(key, &case.memory, world) {
            case.said = description;
        }
        (to.report)(finding::<D>(case.id, State::Closed, world.now(), &case.said));
        self.diagnosis.end(key, &case.memory, world);
    }
}

impl<D: Diagnosis> Detector for Cases<D> {
    fn on_change(&mut self, change: &Change, world: &Correlator, to: &mut Reporter<'_>) {
        match change {
            Change::Learnt => {
                for case in self.open.values_mut() {
                    case.news = true;
                }
            }
            Change::Tick | Change::End => {
                for (key, case) in &mut self.open {
                    self.diagnosis.observe(key, &mut case.memory, change, world);
                }
                self.sweep(*change == Change::End, world, to);
            }
            _ => match self.diagnosis.concern(change, world) {
                None => {}
                Some(Concern::Happened(key)) => self.happened(key, change, world, to),
                Some(Concern::Known(key)) => {
                    if let Some(case) = self.open.get_mut(&key) {
                        case.news = true;
                        self.diagnosis.observe(&key, &mut case.memory, change, world);
                        Self::update(&self.diagnosis, &key, case, TICK_OVERDUE, world, to);
                    }
                }
                Some(Concern::Over(key)) => self.close(&key, world, to),
                Some(Concern::Gone(key)) => {
                    if let Some(case) = self.open.get_mut(&key) {
                        case.news = true;
                        case.gone.get_or_insert(world.now());
                        self.diagnosis.observe(&key, &mut case.memory, change, world);
                    }
                }
            },
        }
    }

    fn code(&self) -> &'static str {
        D::KIND.code
    }

    fn untold(&self) -> u64 {
        self.untold
    }
}

fn finding<D: Diagnosis>(id: u64, state: State, time: Timestamp, said: &Description) -> Finding {
    Finding {
        id,
        code: D::KIND.code,
        state,
        severity: said.severity,
        confidence: cause::declared(D::KIND.causes, said.cause, said.confidence),
        explained_by: None,
        time,
        title: said.title.clone(),
        subject: said.subject.clone(),
        cause: said.cause,
        evidence: said.evidence.clone(),
        remedy: said.remedy.clone(),
        numbers: said.numbers.clone(),
        explanation: said.explanation.clone(),
    }
}
