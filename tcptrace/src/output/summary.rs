//! The last words of a run: what was seen, what was found, what was lost, and whether it all adds up.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::correlate::{Reconciliation, ReconciliationStatus};
use crate::event::{Event, PlaceFilter, Timestamp};
use crate::finding::{
    Engine, Finding,
    words::{count, netns},
};

use super::Selection;
use super::json::{CoverageLine, Missing};
use super::meaning::Meaning;

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// When it ended.
    pub time: Timestamp,
    /// How long it was, from the first event to the last.
    pub duration: Duration,
    /// Events that the kernel side reported, by kind.
    pub events: Counts,
    /// Findings that were opened, by code.
    pub findings: Counts,
    /// Events that were lost, by kind.
    pub lost: Counts,
    /// What was forgotten because there was too much to remember; findings that were not told because there were too many.
    pub forgotten: Counts,
    /// What was asked for, as the user wrote it: what is counted above is that and nothing else.
    pub filters: Vec<String>,
    /// What was not observed, or not event by event.
    pub missing: Vec<Missing>,
    /// Our counts beside the kernel's.
    pub reconciliation: Vec<Reconciliation>,
}

/// What a selection has let pass.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Records of the kernel side, by kind.
    events: BTreeMap<&'static str, u64>,
    /// Findings, by code.
    findings: BTreeMap<&'static str, u64>,
    told: HashSet<u64>,
}

impl Counted {
    /// A record that is wanted.
    pub fn event(&mut self, event: &Event) {
        *self.events.entry(event.kind.name()).or_default() += 1;
    }

    /// A report of a finding that is wanted.
    pub fn finding(&mut self, finding: &Finding) {
        if self.told.insert(finding.id) {
            *self.findings.entry(finding.code).or_default() += 1;
        }
    }
}

/// Names and numbers, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub Vec<(String, u64)>);

impl Counts {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In words: `2 accept-queue-overflow, 1 bind-conflict`.
    pub fn in_words(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(name, count)| format!("{count} {name}")).collect();
        words.join(", ")
    }
}

fn row_in_words(row: &Reconciliation) -> String {
    let observed =
        row.observed.map_or_else(|| "not observable".to_owned(), |count| format!("observed {count}"));
    let reason = row.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let (counter, kernel) = (row.counter, row.kernel);
    let netns = netns(row.netns, row.netns_name.as_deref());
    format!("  {counter} +{kernel} in {netns}, {observed}: {}{reason}", row.status.name())
}

impl Summary {
    /// What in its numbers cannot be, one sentence each; nothing if they agree.
    pub fn contradictions(&self) -> Vec<String> {
        let wrong = |row: &Reconciliation| {
            let (kernel, ours) = (row.kernel, row.observed);
            match row.status {
                ReconciliationStatus::Exact => ours != Some(kernel),
                ReconciliationStatus::Mismatch => ours.is_none() || ours == Some(kernel),
                ReconciliationStatus::Partial => ours.is_none() || row.reason.is_none(),
                ReconciliationStatus::Unobserved => ours.is_some(),
            }
        };
        let rows = self.reconciliation.iter().filter(|row| wrong(row));
        rows.map(|row| format!("the summary contradicts itself: {} is {row:?}", row.counter)).collect()
    }

    /// For people: how long and what was found; how our counts compare with the kernel's; what was lost. With `counters`, every
    /// count is listed.
    pub(super) fn in_words(&self, counters: bool) -> Vec<(Option<Meaning>, String)> {
        let only = if self.filters.is_empty() {
            String::new()
        } else {
            format!("; only {}", self.filters.join(" "))
        };
        let found: u64 = self.findings.0.iter().map(|(_, count)| count).sum();
        let colon = if found == 0 { "" } else { ": " };
        let mut lines = vec![(
            Some(Meaning::Label),
            format!(
                "{:.1} s traced; {}{colon}{}{only}",
                self.duration.as_secs_f64(),
                count(found, "finding", "findings"),
                self.findings.in_words()
            ),
        )];
        if counters && !self.events.is_empty() {
            lines.push((None, format!("events: {}", self.events.in_words())));
        }
        lines.extend(self.counters_in_words(counters));
        lines.push(self.losses_in_words());
        lines
    }

    /// How many of the kernel's counters agree with ours: `31 equal, 5 not comparable here`.
    pub(crate) fn counters_agree(&self) -> String {
        let of = |status| self.reconciliation.iter().filter(move |row| row.status == status).count();
        let (equal, wrong) = (of(ReconciliationStatus::Exact), of(ReconciliationStatus::Mismatch));
        let others = self.reconciliation.len().saturating_sub(equal + wrong);
        if self.reconciliation.is_empty() {
            return "none was read".to_owned();
        }
        let mut words = vec![format!("{equal} equal")];
        if wrong > 0 {
            words.push(format!("{wrong} NOT EQUAL"));
        }
        if others > 0 {
            words.push(format!("{others} not comparable here"));
        }
        words.join(", ")
    }

    /// The counters that do not agree with ours, in words.
    pub(crate) fn disagreements(&self) -> impl Iterator<Item = String> {
        let wrong = |row: &&Reconciliation| row.status == ReconciliationStatus::Mismatch;
        self.reconciliation
            .iter()
            .filter(wrong)
            .map(|row| format!("kernel counter {}", row_in_words(row).trim_start()))
    }

    /// Mismatches are always listed.
    fn counters_in_words(&self, all: bool) -> Vec<(Option<Meaning>, String)> {
        let wrong = ReconciliationStatus::Mismatch;
        let listed = |row: &Reconciliation| {
            matches!(row.status, ReconciliationStatus::Exact | ReconciliationStatus::Mismatch)
        };
        let hint =
            if all || self.reconciliation.iter().all(listed) { "" } else { " (--counters lists them)" };
        let words = self.counters_agree();
        let mut lines = vec![(None, format!("kernel counters: {words}{hint}"))];
        for row in &self.reconciliation {
            let mismatch = row.status == wrong;
            // Namespaces where nothing happened, and we agree, are no news.
            let quiet = row.kernel == 0 && row.observed.unwrap_or(0) == 0;
            if mismatch || all && !quiet {
                lines.push((mismatch.then_some(Meaning::Critical), row_in_words(row)));
            }
        }
        lines
    }

    fn losses_in_words(&self) -> (Option<Meaning>, String) {
        let mut words = vec![];
        if !self.lost.is_empty() {
            words.push(format!("lost: {}", self.lost.in_words()));
        }
        if !self.forgotten.is_empty() {
            words.push(format!("forgotten (too many): {}", self.forgotten.in_words()));
        }
        if words.is_empty() {
            return (None, "lost: none".to_owned());
        }
        (Some(Meaning::Warning), words.join("; "))
    }

    /// Of everything that `engine` has taken in.
    pub fn of(engine: &Engine) -> Self {
        let world = engine.world();
        let filters = world.coverage().into_iter().flat_map(|of| of.scope.iter().chain(&of.filters));
        let owned = |(name, count): (&str, u64)| (name.to_owned(), count);
        let mut lost: Vec<(String, u64)> = Vec::new();
        for (what, loss) in world.losses().iter() {
            match lost.last_mut() {
                // The same kind, lost at another place.
                Some((last, count)) if last == what => *count = count.saturating_add(loss.count),
                _ => lost.push((what.to_owned(), loss.count)),
            }
        }
        let untold = engine.untold().map(|(code, count)| (format!("finding-{code}"), count));
        Self {
            time: world.now(),
            duration: world.now().since(world.start()),
            events: Counts(world.events().map(owned).collect()),
            findings: Counts(engine.opened().iter().map(|(code, count)| owned((code, *count))).collect()),
            lost: Counts(lost),
            forgotten: Counts(world.forgotten().into_iter().map(owned).chain(untold).collect()),
            filters: filters.cloned().collect(),
            missing: world.coverage().map(|of| CoverageLine::from(of).missing).unwrap_or_default(),
            reconciliation: world.reconcile(),
        }
    }

    /// Of what `counted` has let pass, where something was left out.
    pub fn of_selected(
        engine: &Engine,
        selection: &Selection,
        counted: &Counted,
        words: impl Iterator<Item = String>,
    ) -> Self {
        let mut summary = Self::of(engine);
        let counts = |of: &BTreeMap<&'static str, u64>| {
            Counts(of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
        };
        summary.events = counts(&counted.events);
        summary.findings = counts(&counted.findings);
        summary.reconciliation.retain(|row| selection.place.wants_netns(row.netns));
        // The kernel counts for all of a namespace, and so do we beside it.
        let narrower = Selection {
            place: PlaceFilter { netns: Vec::new(), ..selection.place.clone() },
            ..selection.clone()
        };
        if !narrower.is_everybody() {
            for row in &mut summary.reconciliation {
                row.reason
                    .get_or_insert_with(|| "of the whole network namespace, whatever is shown".to_owned());
            }
        }
        let new: Vec<String> = words.filter(|word| !summary.filters.contains(word)).collect();
        summary.filters.extend(new);
        summary
    }
}
