//! Settings and listeners that will hurt one day, found without probes: one file a risk.
//!
//! A risk is a [`Rule`]: it looks at one namespace and says at most one thing about it. To add one: copy a file, and name it
//! in [`RULES`]. Applying the printed remedies must leave nothing to say; a test over all rules sees to that.

mod abort_on_overflow;
mod backlog_truncated;
mod range_overlap;
mod small_range;
mod syn_backlog;
mod syncookies;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::event::PortSet;
use crate::finding::{Evidence, Key, Party, ProcessName, Remedy, Severity};
use crate::stock::{Namespace, Socket};

/// Something that will hurt.
#[derive(Clone, Debug, PartialEq)]
pub struct Risk {
    /// What kind of risk; where a finding tells of the same thing when it happens, its code.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub title: String,
    /// Why it will hurt, and when.
    pub why: String,
    /// Listeners concerned.
    pub listeners: Vec<Party>,
    /// What it rests on.
    pub evidence: Evidence,
    /// What to do.
    pub remedy: Vec<Remedy>,
}

/// What the caller knows beyond what the host shows.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Ports of servers that are not running now.
    pub servers: PortSet,
}

/// Looks for one kind of risk.
pub trait Rule: Sync {
    /// The code of its risks.
    fn code(&self) -> &'static str;
    /// The keys that its evidence has. Where a finding tells of the same thing when it happens, the finding's have them.
    fn evidence(&self) -> &'static [Key] {
        &[]
    }
    /// The risk that a namespace has; `None` if it has none, or if what it depends on could not be read.
    fn judge(&self, namespace: &Namespace, plan: &Plan) -> Option<Risk>;
}

/// All rules. Where two remedies set the same knob, the later one includes the earlier.
pub const RULES: [&dyn Rule; 6] = [
    &range_overlap::RangeOverlap,
    &small_range::SmallRange,
    &backlog_truncated::BacklogTruncated,
    &syncookies::Syncookies,
    &syn_backlog::SynBacklog,
    &abort_on_overflow::AbortOnOverflow,
];

/// Every risk of a namespace.
pub fn risks(namespace: &Namespace, plan: &Plan) -> Vec<Risk> {
    RULES.iter().filter_map(|rule| rule.judge(namespace, plan)).collect()
}

/// Listeners as parties of a risk: those of one address and process (a reuseport group) once.
fn parties<'a>(netns: u32, listeners: impl Iterator<Item = &'a Socket>) -> Vec<Party> {
    let mut places: BTreeMap<(SocketAddr, Option<u32>), ProcessName> = BTreeMap::new();
    for socket in listeners {
        let process = socket.process();
        places.entry((crate::event::canonical(socket.diag.local), process.pid)).or_insert(process);
    }
    let party = |((address, _), process)| Party {
        kind: "listener",
        address: Some(address),
        netns: Some(netns),
        process: Some(process),
        ..Party::default()
    };
    places.into_iter().map(party).collect()
}

/// `nginx[7] 0.0.0.0:35010, x[8] …`, the first three.
fn names(parties: &[Party]) -> String {
    const NAMED: usize = 3;
    let mut text: Vec<String> = parties.iter().take(NAMED).map(ToString::to_string).collect();
    if parties.len() > NAMED {
        text.push(format!("{} more", parties.len() - NAMED));
    }
    text.join(", ")
}
