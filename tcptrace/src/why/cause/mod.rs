//! Candidate causes, one file each, in the order in which a connection meets them. Each judges facts and nothing else.

pub(super) mod accept_queue;
pub(super) mod accepting;
pub(super) mod answers;
pub(super) mod arrivals;
pub(super) mod firewall;
pub(super) mod listener;
pub(super) mod route;
pub(super) mod steered;
pub(super) mod syn_queue;
pub(super) mod way_back;

use crate::finding::Finding;
use crate::stock::Listener;

use super::verdict::{Found, Verdict};
use super::{AddressFacts, Facts};

/// `nginx[17] 0.0.0.0:80`, or the address alone.
fn name(listener: &Listener) -> String {
    let at = listener.socket.local;
    match listener.owner() {
        Some(owner) => format!("{}[{}] {at}", owner.process.who.comm, owner.process.who.pid),
        None if listener.is_kernel_s() => format!("the kernel's own listener {at}"),
        None => format!("the listener {at} (its process is not known)"),
    }
}

/// What a finding says, as a verdict.
fn as_found(verdict: &'static str, finding: &Finding) -> Found {
    let text = format!("{} ({}: {})", finding.title, finding.cause, finding.explanation);
    let mut said = Verdict::new(verdict, finding.confidence, text);
    said.remedy.clone_from(&finding.remedy);
    Found::Problem(said)
}

/// What a finding says that another one explains: the remedy is the other's, and so is the verdict, where a step reports it.
fn as_explained(facts: &Facts, address: &AddressFacts, finding: &Finding) -> Option<Found> {
    let by = finding.explained_by.as_ref()?;
    facts.finding(address, &[by.code])?;
    Some(Found::fine(format!("{}: see {} above", finding.title, by.code)))
}

/// Two looks that cannot both be right. It is said; which of them is wrong is not known.
pub(super) fn contradiction(facts: &Facts, address: &AddressFacts) -> Option<Found> {
    let listeners: Vec<&Listener> = facts.listeners_at(address).collect();
    let accepted: u64 = listeners
        .iter()
        .map(|listener| listener.traced.as_ref().and_then(|traced| traced.accepted_then))
        .sum::<Option<u64>>()?;
    // Each that is accepted was completed while it was counted, or waited when counting began: then no more than its queue holds. (How
    // many did wait is known of a moment before, while the probes were not attached yet.)
    let waited: u64 = listeners.iter().map(|listener| u64::from(listener.socket.limit) + 1).sum();
    let completed: u64 = listeners
        .iter()
        .map(|listener| listener.traced.as_ref().and_then(|traced| traced.totals.enqueued))
        .sum::<Option<u64>>()?;
    (accepted > completed.saturating_add(waited)).then(|| {
        Found::unknown(format!(
            "{accepted} connections were accepted, more than were completed in that time ({completed}) and can have waited when it began ({waited}): these counts are not all complete"
        ))
    })
}
