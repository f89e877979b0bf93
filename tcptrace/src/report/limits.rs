//! What a report cannot tell: in one line what was not observed, and whether the counts agree with the kernel's.

use crate::output::Summary;
use crate::record::Metadata;

use super::when::When;
use super::{LostEvents, Report};

/// So many losses are told one by one.
const LOSSES: usize = 20;

/// `tier fexit, 22 of 25 observed; polled: cookie; missing: …; kernel counters: 31 equal, 5 not comparable here; lost: none`.
pub(super) fn coverage(metadata: &Metadata, report: &Report) -> String {
    let mut parts = Vec::new();
    if let Some(coverage) = &metadata.coverage {
        let all = coverage.observations.len();
        parts.push(format!(
            "tier {}, {} of {all}",
            coverage.tier.name(),
            all.saturating_sub(report.gaps.len())
        ));
    }
    for status in ["polled", "missing"] {
        let names: Vec<&str> =
            report.gaps.iter().filter(|gap| gap.status == status).map(|gap| gap.name.as_str()).collect();
        if !names.is_empty() {
            parts.push(format!("{status}: {}", names.join(", ")));
        }
    }
    parts.push(counters(&report.summary));
    parts.push(if report.losses.is_empty() { "lost: nothing" } else { "LOST: see below" }.to_owned());
    parts.join("; ")
}

fn counters(summary: &Summary) -> String {
    format!("kernel counters: {}", summary.counters_agree())
}

/// What was lost, what was left out, and counts that do not agree, a line each.
pub(super) fn losses(report: &Report, when: When<'_>) -> Vec<String> {
    let lost = |of: &LostEvents| {
        let (from, to) = (when.clock(of.from), when.clock(of.to));
        format!("{} {} lost at the {}, {from} to {to}", of.count, of.what, of.place)
    };
    let mut lines: Vec<String> = report.losses.iter().take(LOSSES).map(lost).collect();
    let more = report.losses.len().saturating_sub(LOSSES);
    if more > 0 {
        lines.push(format!("and {more} more losses"));
    }
    for (name, count) in &report.left_out {
        lines.push(format!("left out, because there were too many: {count} {name}"));
    }
    lines.extend(report.summary.disagreements());
    lines
}
