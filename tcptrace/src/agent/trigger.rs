//! What sets an incident apart: a finding that is bad enough, a signal, a request.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::event::Timestamp;
use crate::finding::{Finding, Severity, State};

/// Why it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "lowercase")]
pub enum Why {
    /// A finding.
    Finding {
        /// Its number in this run.
        id: u64,
        /// Its code.
        code: String,
        /// Its severity.
        severity: String,
        /// What it says, in one sentence.
        title: String,
    },
    /// SIGUSR1.
    Signal,
    /// `POST /snapshot`.
    Request,
}

impl Why {
    /// For the name of a directory.
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Finding { code, .. } => code,
            Self::Signal => "signal",
            Self::Request => "snapshot",
        }
    }
}

/// That the minutes around a moment are to be kept.
#[derive(Debug)]
pub struct Trigger {
    /// The moment, as events tell time.
    pub time: Timestamp,
    /// Why.
    pub why: Why,
    /// Who is to be told what became of it.
    pub answer: Option<oneshot::Sender<Result<Kept, String>>>,
}

/// What became of a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The incident's directory.
    pub directory: String,
    /// Whether it had begun before.
    pub joined: bool,
}

/// Finds out which findings are to be kept: each once, when it opens or becomes bad enough.
#[derive(Debug)]
pub struct Triggers {
    on: Severity,
    /// Findings that are open and have triggered.
    done: HashSet<u64>,
}

impl Triggers {
    /// By findings of this severity, or a worse one.
    pub fn on(severity: Severity) -> Self {
        Self { on: severity, done: HashSet::new() }
    }

    /// From now on by findings of this severity, or a worse one; those that are open are judged by their next report.
    pub fn change(&mut self, severity: Severity) {
        self.on = severity;
    }

    /// Whether this report is one to keep the minutes around.
    pub fn note(&mut self, finding: &Finding) -> Option<Trigger> {
        let new = finding.severity >= self.on && !self.done.contains(&finding.id);
        if finding.state == State::Closed {
            self.done.remove(&finding.id);
        } else if new {
            self.done.insert(finding.id);
        }
        new.then(|| Trigger {
            time: finding.time,
            why: Why::Finding {
                id: finding.id,
                code: finding.code.to_owned(),
                severity: finding.severity.name().to_owned(),
                title: finding.title.clone(),
            },
            answer: None,
        })
    }
}
