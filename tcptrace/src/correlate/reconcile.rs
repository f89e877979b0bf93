//! Whether what we saw adds up to what the kernel's own counters say.

mod rows;

use serde::Serialize;

use crate::event::{Coverage, ObservationStatus};

use rows::{ROWS, Row};

use super::{Losses, Namespace};

/// Whether our count of something equals the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciliation {
    /// Network namespace.
    pub netns: u32,
    /// Its name, if it has one.
    pub netns_name: Option<String>,
    /// The kernel's name of the counter.
    pub counter: &'static str,
    /// What the kernel counted while we traced.
    pub kernel: u64,
    /// What we saw; `None` where we cannot see it.
    pub observed: Option<u64>,
    /// How they compare.
    pub status: ReconciliationStatus,
    /// Why they differ, or may differ.
    pub reason: Option<String>,
    /// The observations that our count rests on.
    pub observations: Vec<&'static str>,
}

/// How our count compares with the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReconciliationStatus {
    /// They are equal.
    Exact,
    /// They differ, and should not.
    Mismatch,
    /// They differ, as they must: a part of it cannot be seen here, or was filtered out.
    Partial,
    /// We cannot see it here.
    Unobserved,
}

impl ReconciliationStatus {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Mismatch => "mismatch",
            Self::Partial => "partial",
            Self::Unobserved => "unobserved",
        }
    }
}

/// Compares what we saw in `namespace` with what its kernel counted. Counters that did not move, as we saw too, are left
/// out, but for the first.
pub(super) fn reconcile(
    netns: u32,
    namespace: &Namespace,
    coverage: Option<&Coverage>,
    losses: &Losses,
) -> Vec<Reconciliation> {
    let mut compared = Vec::new();
    for row in &ROWS {
        // What was lost of other observations is missing from other counts.
        let lost = losses.of(row.needs);
        let lost = lost.as_deref();
        let Some((_, kernel)) = namespace.grown(row.read) else { continue };
        let (least, most) = (row.ours)(&namespace.observed);
        // Namespaces in which nothing ever happened are no news, and there can be many.
        if kernel == 0 && most == 0 && row.counter != "ListenOverflows" {
            continue;
        }
        let observed = kernel.clamp(least, most);
        let mut result = compare(netns, row, kernel, observed, coverage, lost);
        if result.status == ReconciliationStatus::Exact && least != most {
            result.status = ReconciliationStatus::Partial;
            result.reason = Some(format!("it is between {least} and {most}: {}", row.doubt));
        }
        if result.status == ReconciliationStatus::Mismatch {
            let more = observed.checked_sub(kernel);
            let within = |seen| more.is_some_and(|more| more <= (row.ours)(seen).1);
            let besides = row.besides.as_ref().filter(|besides| {
                kernel.checked_sub(observed).is_some_and(|missing| missing <= (besides.at_most)(namespace))
            });
            if within(&namespace.in_flight) {
                result.status = ReconciliationStatus::Partial;
                result.reason = Some("it went on after the counter was last read".to_owned());
            } else if row.sampled && within(&namespace.first_second) {
                result.status = ReconciliationStatus::Partial;
                result.reason = Some("it had begun before the counter was first read".to_owned());
            } else if let Some(besides) =
                besides.filter(|besides| lost.is_none() || (besides.at_most)(namespace) == u64::MAX)
            {
                result.status = ReconciliationStatus::Partial;
                result.reason = Some(besides.what.to_owned());
            } else if lost.is_none()
                && goes_by_uncounted_kprobes(row, coverage)
                && kernel.checked_sub(observed).is_some_and(|missing| missing <= (kernel / 100).max(1))
            {
                result.status = ReconciliationStatus::Partial;
                result.reason = Some(UNCOUNTED_SKIPS.to_owned());
            } else if namespace.is_late() && lost.is_none() {
                result.reason =
                    Some("the namespace was met after the start: it may be older than it seemed".to_owned());
            }
        }
        result.netns_name.clone_from(&namespace.knobs.name);
        compared.push(result);
    }
    compared
}

/// Why a kprobe may see less than happened, and no one can say how much.
const UNCOUNTED_SKIPS: &str = "the kernel runs no kprobe while another one runs on the same processor, and before 6.7 it does not count these";

/// Whether something of `row` is seen by a kprobe on a kernel that does not count the kprobes it skips: `trace_call_bpf` counts
/// them since 6.7.
fn goes_by_uncounted_kprobes(row: &Row, coverage: Option<&Coverage>) -> bool {
    coverage.is_some_and(|coverage| {
        let mut ways = coverage.observations.iter().filter(|o| row.needs.contains(&o.name.as_str()));
        !counts_skipped_kprobes(&coverage.kernel) && ways.any(|o| o.via.contains("kprobe"))
    })
}

fn counts_skipped_kprobes(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (6, 7),
        _ => false,
    }
}

fn compare(
    netns: u32,
    row: &Row,
    kernel: u64,
    observed: u64,
    coverage: Option<&Coverage>,
    lost: Option<&str>,
) -> Reconciliation {
    let (counter, needs) = (row.counter, row.needs);
    let all = needs.iter().chain(row.exact_with);
    let status_of = |name: &&str| match coverage {
        // Without a coverage event nothing is known to be missing.
        None => ObservationStatus::Attached,
        Some(coverage) => coverage.status(name).unwrap_or(ObservationStatus::Missing),
    };
    let blind: Vec<&str> =
        all.copied().filter(|name| status_of(name) != ObservationStatus::Attached).collect();
    let filters = coverage.map(|coverage| coverage.filters.join(" ")).filter(|filters| !filters.is_empty());
    let (observed, status, reason) = if needs.iter().all(|name| blind.contains(name)) {
        (None, ReconciliationStatus::Unobserved, Some(format!("{} not observable here", blind.join(", "))))
    } else if kernel == observed {
        (Some(observed), ReconciliationStatus::Exact, None)
    } else if !blind.is_empty() {
        let reason = format!("{} not observable here", blind.join(", "));
        (Some(observed), ReconciliationStatus::Partial, Some(reason))
    } else if let Some(filters) = filters.filter(|_| observed < kernel) {
        (Some(observed), ReconciliationStatus::Partial, Some(format!("filtered: {filters}")))
    } else {
        (
            Some(observed),
            ReconciliationStatus::Mismatch,
            Some(mismatch_reason(counter, kernel, observed, lost)),
        )
    };
    let observations = row.needs.to_vec();
    Reconciliation { netns, netns_name: None, counter, kernel, observed, status, reason, observations }
}

fn mismatch_reason(counter: &str, kernel: u64, observed: u64, lost: Option<&str>) -> String {
    match lost {
        Some(lost) if observed < kernel => format!("events were lost: {lost}"),
        _ if counter == "TCPReqQFullDrop" && observed > kernel => {
            "SYNs dropped for want of memory are counted with those of a full SYN queue".to_owned()
        }
        _ if counter == "ListenDrops" && observed < kernel => {
            "the kernel also counts SYNs to broadcast addresses".to_owned()
        }
        _ => "our probes and the kernel's counter disagree".to_owned(),
    }
}

#[cfg(test)]
mod tests;
