//! What each tier sees of a finding: the observations that it rests on, as the plan has them, and what holds where the tracepoint
//! tier sees less. Written into the page of each finding.

use std::fmt::Write as _;

use crate::finding::{FindingKind, KINDS};
use crate::probe::BackEnd;
use crate::probe::plan::{Observation, observations};

fn planned(name: &str) -> &'static Observation {
    observations()
        .find(|observation| observation.name == name)
        .unwrap_or_else(|| panic!("{name} is not in the plan"))
}

/// What a tier sees of an observation.
fn seen(observation: &Observation, back_end: BackEnd) -> String {
    let way = observation.ways.iter().filter(|way| way.back_end == back_end).collect::<Vec<_>>();
    match (way.as_slice(), observation.polled) {
        ([], Some(how)) if back_end == BackEnd::Tracepoint => format!("polled: {how}"),
        ([], _) => "not seen".to_owned(),
        (ways, _) => match ways.iter().find_map(|way| way.limit) {
            Some(limit) => format!("seen: {limit}"),
            None => "seen".to_owned(),
        },
    }
}

/// The section of a page.
pub(super) fn section(kind: &FindingKind) -> String {
    let mut text = "## What each tier sees\n\n".to_owned();
    if !kind.observations.is_empty() {
        text.push_str("| observation | fexit tier | kprobe tier | tracepoint tier |\n|---|---|---|---|\n");
    }
    for name in kind.observations {
        let observation = planned(name);
        let tiers =
            [BackEnd::Fexit, BackEnd::Kprobe, BackEnd::Tracepoint].map(|tier| seen(observation, tier));
        let _ = writeln!(text, "| `{name}`: {} | {} |", observation.what, tiers.join(" | "));
    }
    if !kind.observations.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(text, "In the tracepoint tier: {}", kind.tracepoint_tier);
    text
}

/// Where the plan has no way for the tracepoint tier, the page may not say that the same holds there.
#[test]
fn what_is_not_seen_is_not_told_as_the_same() {
    for kind in KINDS {
        let blind = kind
            .observations
            .iter()
            .any(|name| !planned(name).ways.iter().any(|way| way.back_end == BackEnd::Tracepoint));
        assert!(!blind || !kind.tracepoint_tier.starts_with("the same holds"), "{}", kind.code);
    }
}
