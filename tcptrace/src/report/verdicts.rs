//! Every finding once, with its course.

use std::collections::BTreeMap;

use crate::event::Timestamp;
use crate::finding::{Finding, Severity, State};

use super::across::Elsewhere;

/// So many findings are told in full; the rest is counted.
const VERDICTS: usize = 2_000;

/// So many moments of a finding's course are kept.
const MOMENTS: usize = 12;

/// A finding from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// When it was first said.
    pub opened: Timestamp,
    /// When it was last said.
    pub until: Timestamp,
    /// Its worst severity.
    pub worst: Severity,
    /// How it went on: its first moment, and each that says something new of cause or severity, and its last.
    pub course: Vec<Moment>,
    /// What other recordings say about it.
    pub elsewhere: Vec<Elsewhere>,
    /// As it was said last.
    pub finding: Finding,
}

/// A moment in a finding's course.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub time: Timestamp,
    /// What state the finding was in.
    pub state: State,
    /// How bad it was.
    pub severity: Severity,
    /// The cause that was named.
    pub cause: &'static str,
    /// The first line of its numbers.
    pub numbers: String,
}

/// Findings as they come.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    by_id: BTreeMap<u64, Verdict>,
    untold: u64,
}

impl Verdicts {
    pub(super) fn note(&mut self, finding: Finding) {
        let moment = Moment {
            time: finding.time,
            state: finding.state,
            severity: finding.severity,
            cause: finding.cause,
            numbers: finding.numbers.first().cloned().unwrap_or_default(),
        };
        if let Some(verdict) = self.by_id.get_mut(&finding.id) {
            verdict.until = finding.time;
            verdict.worst = verdict.worst.max(finding.severity);
            let news = verdict
                .course
                .last()
                .is_none_or(|last| last.cause != moment.cause || last.severity != moment.severity);
            if (news && verdict.course.len() < MOMENTS) || finding.state == State::Closed {
                verdict.course.push(moment);
            }
            verdict.finding = finding;
        } else if self.by_id.len() < VERDICTS {
            let (opened, until, worst) = (finding.time, finding.time, finding.severity);
            let verdict =
                Verdict { opened, until, worst, course: vec![moment], elsewhere: Vec::new(), finding };
            self.by_id.insert(verdict.finding.id, verdict);
        } else if finding.state == State::Opened {
            self.untold += 1;
        }
    }

    /// Those that touch the time from `from` to `to`, the worst first; and how many were too many to tell.
    pub(super) fn finish(self, from: Timestamp, to: Timestamp) -> (Vec<Verdict>, u64) {
        let mut verdicts: Vec<Verdict> = self
            .by_id
            .into_values()
            .filter(|verdict| verdict.until >= from && verdict.opened <= to)
            .collect();
        verdicts.sort_by(|a, b| {
            b.worst
                .cmp(&a.worst)
                .then(b.finding.confidence.cmp(&a.finding.confidence))
                .then(a.opened.cmp(&b.opened))
                .then(a.finding.id.cmp(&b.finding.id))
        });
        (verdicts, self.untold)
    }
}
