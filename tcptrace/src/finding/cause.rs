//! What each cause of a finding rests on: what must have been observed before it is claimed, and with which confidence.
//!
//! Every finding declares its causes as data. A finding's page in `docs/findings/` has the same table, and a test compares
//! them; [`Confidence`] that a cause does not declare is never reported.

use super::Confidence;

/// A cause that a finding can name.
#[derive(Clone, Copy, Debug)]
pub struct CauseRule {
    /// Its code in output.
    pub code: &'static str,
    /// What it means, in one line.
    pub means: &'static str,
    /// What was observed when it is claimed as certain: the mechanism itself, with no other explanation left open. `None`: it
    /// is never certain.
    pub certain: Option<&'static str>,
    /// What was observed when it is claimed as likely. `None`: it never is.
    pub likely: Option<&'static str>,
    /// What was observed when it is claimed as possible. `None`: it never is.
    pub possible: Option<&'static str>,
    /// Other explanations that fit the same symptoms, and how each is excluded.
    pub told_apart: &'static [Apart],
}

/// Another explanation of the same symptoms.
#[derive(Clone, Copy, Debug)]
pub struct Apart {
    /// The other explanation.
    pub from: &'static str,
    /// What excludes it; or that nothing does, and what would tell.
    pub by: &'static str,
}

impl CauseRule {
    /// What it rests on at this confidence, if it may be claimed so at all.
    pub fn rests_on(&self, confidence: Confidence) -> Option<&'static str> {
        match confidence {
            Confidence::Certain => self.certain,
            Confidence::Likely => self.likely,
            Confidence::Possible => self.possible,
        }
    }
}

/// The highest confidence, `claimed` or below, that `causes` declare for `code`.
pub(super) fn declared(causes: &[CauseRule], code: &str, claimed: Confidence) -> Confidence {
    let cause = causes.iter().find(|cause| cause.code == code);
    let may = |confidence: &Confidence| cause.is_some_and(|cause| cause.rests_on(*confidence).is_some());
    #[cfg(test)]
    assert!(may(&claimed), "{code} is claimed as {claimed:?}, which its finding does not declare");
    let lower = [Confidence::Certain, Confidence::Likely, Confidence::Possible];
    lower.into_iter().filter(|confidence| *confidence <= claimed).find(may).unwrap_or(Confidence::Possible)
}

#[cfg(test)]
mod tests;
