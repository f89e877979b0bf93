//! Taking stock, from sock_diag and procfs alone: every network namespace now with its settings, its TCP sockets and who has
//! them ([`Survey`]).
//!
//! Two things are made of that: all listeners ([`take`]), with queues, the knob that limits them, and what is wrong with
//! them, beside which a trace of some seconds can be laid ([`Tracing`]); and who has the ephemeral ports ([`ports`]).
//!
//! What could not be looked at is part of the answer ([`Gap`]): a listener without an owner and an owner who may not be
//! seen are different things.

mod half_open;
mod limit;
mod listener;
mod mark;
mod openers;
mod owner;
pub mod ports;
mod select;
mod survey;
mod take;
mod traced;

pub(crate) use half_open::Doors;
pub use half_open::HalfOpen;
pub use limit::{Limit, LimitedBy, SynQueueLimit};
pub use listener::{Group, Listener};
pub use mark::{Mark, MarkKind};
pub(crate) use openers::{iterator, listener_iterator};
pub use owner::{Owner, OwnerProcess};
pub use select::{Filter, SortBy};
pub use survey::{Namespace, Opener, Scope, Socket, Survey, Wanted};
pub use take::take;
pub(crate) use take::take_with;
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// What is missing: `owners`, `namespaces`, `sockets`, `listeners`, `syn-queue`, `knobs`, `traced`.
    pub what: &'static str,
    /// Why, what that means, and what helps.
    pub why: String,
}

impl Gap {
    /// `what` is missing because of `why`.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }

    /// Why each is missing.
    pub fn reasons(gaps: &[Self]) -> Vec<&str> {
        gaps.iter().map(|gap| gap.why.as_str()).collect()
    }
}

#[cfg(test)]
pub(crate) mod testing;
