//! What netfilter shows of a network namespace that can be behind a drop: what connection tracking counts, queues that are
//! read, rules that drop. (What translates connections is in `netfilter`.)

mod queues;
mod rules;
mod tracking;

pub use queues::queues;
pub use rules::{FirewallPacket, FirewallRules, RulesError};
pub(super) use tracking::column;
pub use tracking::{Conntrack, ConntrackReader};
