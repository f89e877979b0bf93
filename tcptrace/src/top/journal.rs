//! Findings as they went on: what was reported of each, newest first.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::event::Timestamp;
use crate::finding::words::span;
use crate::finding::{Finding, State};
use crate::output::{Cause, Changes, Course, Tale};

/// How many findings are kept. Beyond that the oldest goes, closed ones first.
const STORIES: usize = 2_000;

/// Steps that are kept of one finding: these first ones, and as many of the latest.
const FIRST_STEPS: usize = 20;
const LATEST_STEPS: usize = 60;

/// A finding, and how it went on.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    /// When it was opened.
    pub(crate) opened: Timestamp,
    /// As it was last reported.
    pub(crate) latest: Finding,
    /// What was said of it, oldest first.
    pub(crate) steps: VecDeque<Step>,
    /// Steps between the first ones and the latest that are not kept.
    pub(crate) left_out: u64,
}

/// Something that was said of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// When.
    pub(crate) time: Timestamp,
    /// What.
    pub(crate) text: String,
}

impl Story {
    /// Whether it is still so.
    pub(crate) fn is_open(&self) -> bool {
        self.latest.state != State::Closed
    }

    /// When it was over, if it is.
    pub(crate) fn closed(&self) -> Option<Timestamp> {
        (!self.is_open()).then_some(self.latest.time)
    }

    fn add(&mut self, step: Step) {
        if self.steps.len() >= FIRST_STEPS + LATEST_STEPS {
            self.steps.remove(FIRST_STEPS);
            self.left_out += 1;
        }
        self.steps.push_back(step);
    }
}

/// All findings. What is said of each, and how often, is what live text says.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// By number, so oldest first.
    stories: VecDeque<Rc<Story>>,
    course: Course,
    forgotten: u64,
}

impl Journal {
    /// Takes in what was reported.
    pub(crate) fn note(&mut self, finding: &Finding) {
        let tale = self.course.next(finding);
        let text = match &tale {
            Tale::Nothing => None,
            Tale::Whole { .. } => Some(whole(finding)),
            Tale::Changed(changes) => Some(changed(finding, changes)),
        };
        let step = text.map(|text| Step { time: finding.time, text });
        let known = self.stories.iter_mut().rev().find(|story| story.latest.id == finding.id);
        if let Some(story) = known {
            let story = Rc::make_mut(story);
            story.latest = finding.clone();
            step.into_iter().for_each(|step| story.add(step));
            return;
        }
        if self.stories.len() >= STORIES {
            let oldest = self.stories.iter().position(|story| !story.is_open()).unwrap_or(0);
            self.stories.remove(oldest);
            self.forgotten += 1;
        }
        let story = Story {
            opened: finding.time,
            latest: finding.clone(),
            steps: step.into_iter().collect(),
            left_out: 0,
        };
        self.stories.push_back(Rc::new(story));
    }

    /// Newest first.
    pub(crate) fn stories(&self) -> impl Iterator<Item = &Rc<Story>> {
        self.stories.iter().rev()
    }

    /// How many are no longer kept.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

fn whole(finding: &Finding) -> String {
    let mut parts = vec![format!("opened, {}, {}", finding.severity.name(), finding.confidence.name())];
    parts.extend(finding.explained_by.as_ref().map(|by| format!("explained by #{} {}", by.id, by.code)));
    parts.extend(finding.numbers.iter().cloned());
    parts.join("; ")
}

fn changed(finding: &Finding, changes: &Changes<'_>) -> String {
    let mut parts = Vec::new();
    parts.extend(changes.closed.map(|life| format!("closed after {}", span(life))));
    parts.extend(changes.severity.map(|severity| format!("now {}", severity.name())));
    parts.extend(changes.confidence.map(|confidence| format!("now {}", confidence.name())));
    match &changes.cause {
        Some(Cause::Other) => parts.push(format!(
            "cause {}, {}: {}",
            finding.cause,
            finding.confidence.name(),
            finding.explanation
        )),
        Some(Cause::More(more)) => parts.push(format!("cause, also: {more}")),
        None => {}
    }
    if let Some(by) = finding.explained_by.as_ref().filter(|_| changes.explained) {
        parts.push(format!("explained by #{} {}", by.id, by.code));
    }
    parts.extend(changes.numbers.iter().map(|&number| number.to_owned()));
    let remedy = |not| if not { "not" } else { "do" };
    parts.extend(changes.remedies.iter().map(|of| format!("{}: {}", remedy(of.not), of.text)));
    parts.join("; ")
}
