//! Taking stock of listeners: every TCP listener of every network namespace now, with owners, queues, the knob that limits
//! it, and what is wrong with it, from sock_diag and procfs alone. A trace of some seconds can be laid beside it
//! ([`Tracing`]).
//!
//! What could not be looked at is part of the answer ([`Gap`]): a listener without an owner and an owner who may not be
//! seen are different things.

mod half_open;
mod limit;
mod listener;
mod mark;
mod owner;
mod select;
mod take;
mod traced;

pub use half_open::HalfOpen;
pub use limit::{Limit, LimitedBy, SynQueueLimit};
pub use listener::{Group, Listener};
pub use mark::{Mark, MarkKind};
pub use owner::{Owner, OwnerProcess};
pub use select::{Filter, SortBy};
pub use take::{Scope, take};
pub use traced::{Traced, Tracing};

/// All listeners, at one moment (as nearly as several looks at the kernel make one).
#[derive(Debug, Clone, Default)]
pub struct Stock {
    /// The listeners, in no particular order.
    pub listeners: Vec<Listener>,
    /// Network namespaces that were looked into.
    pub namespaces: usize,
    /// What could not be looked at, and what that means for the answer.
    pub missing: Vec<Gap>,
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// What is missing: `owners`, `namespaces`, `listeners`, `syn-queue`, `knobs`, `traced`.
    pub what: &'static str,
    /// Why, what that means, and what helps.
    pub why: String,
}

impl Gap {
    /// `what` is missing because of `why`.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

#[cfg(test)]
pub(crate) mod testing;
