//! The one sentence that a report begins with.

use crate::finding::words::count;
use crate::finding::{Confidence, Severity};
use crate::record::Condition;

use super::{Report, Verdict};

/// What was found, in one sentence, and how bad it is; `None` of a report without a finding.
pub(super) struct Sentence {
    pub(super) severity: Option<Severity>,
    pub(super) text: String,
}

impl Sentence {
    /// The worst finding that no other one explains, with its cause; and how many more there are.
    pub(super) fn of(condition: &Condition, report: &Report) -> Self {
        let Some(first) = root(&report.verdicts) else {
            return Self { severity: None, text: nothing(condition, report).to_owned() };
        };
        let finding = &first.finding;
        let sure = match finding.confidence {
            Confidence::Certain => "",
            Confidence::Likely => "likely ",
            Confidence::Possible => "possible ",
        };
        let mut text = format!("{} ({sure}cause: {})", report.headline(finding), finding.cause);
        let is_explained =
            |verdict: &&Verdict| verdict.finding.explained_by.as_ref().is_some_and(|by| by.id == finding.id);
        let explained = report.verdicts.iter().filter(is_explained).count();
        let others = report.verdicts.len().saturating_sub(explained + 1);
        let number = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
        if explained > 0 {
            let findings = count(number(explained), "more finding is", "more findings are");
            text.push_str(&format!("; {findings} a consequence of it"));
        }
        if others > 0 {
            text.push_str(&format!("; {}", count(number(others), "other finding", "other findings")));
        }
        Self { severity: Some(first.worst), text }
    }

    /// `CRITICAL: …`
    pub(super) fn with_severity(&self) -> String {
        match self.severity {
            Some(severity) => format!("{}: {}", severity.name().to_uppercase(), self.text),
            None => self.text.clone(),
        }
    }
}

/// The worst finding that no other one explains. They come in that order.
fn root(verdicts: &[Verdict]) -> Option<&Verdict> {
    verdicts.iter().find(|verdict| verdict.finding.explained_by.is_none()).or(verdicts.first())
}

/// That there is no finding, and of how much that is said.
fn nothing(condition: &Condition, report: &Report) -> &'static str {
    match (condition.is_complete(), report.events) {
        (true, 0) => "Nothing was recorded",
        (true, _) => "Nothing was found",
        (false, 0) => "Nothing could be read",
        (false, _) => "Nothing was found in what could be read: part of the recording is missing",
    }
}
