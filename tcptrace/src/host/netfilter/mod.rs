//! What netfilter shows of a network namespace: connection tracking, queues, rules.

mod conntrack;
mod queues;
mod rules;

pub(super) use conntrack::column;
pub use conntrack::{Conntrack, ConntrackReader};
pub use queues::queues;
pub use rules::{FirewallPacket, FirewallRules, RulesError};
