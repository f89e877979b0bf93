//! What is observed here and now, and what is not: the outcome of trying every way of the plan.

use super::plan::BackEnd;

/// How an observation is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// By an attached program.
    Attached,
    /// By reading what the kernel shows anyway, now and then.
    Polled,
    /// Not at all.
    Missing,
}

/// One observation of the plan, as it turned out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Name of the observation.
    pub name: &'static str,
    /// Whether and how.
    pub status: Status,
    /// The tier of the way that worked; `None` unless attached.
    pub back_end: Option<BackEnd>,
    /// What it goes by: `fexit inet_csk_accept`, or what is polled; empty when missing.
    pub via: String,
    /// Why not by a better way, and what that costs; `None` when the best way works in full.
    pub reason: Option<String>,
}

/// The outcome for the whole plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// One entry for each observation of the plan, in its order.
    pub observations: Vec<Observed>,
}

impl Coverage {
    /// The highest tier in use; `None` when nothing is attached.
    #[must_use]
    pub fn tier(&self) -> Option<BackEnd> {
        self.observations.iter().filter_map(|o| o.back_end).min()
    }

    /// The tier of one observation, when it is attached.
    #[must_use]
    pub fn back_end(&self, name: &str) -> Option<BackEnd> {
        self.observations.iter().find(|o| o.name == name).and_then(|o| o.back_end)
    }
}
