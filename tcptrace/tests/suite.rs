//! Every variant of every rehearsal is played by the live suite (`cargo xtask test`): by each run, or in the rotation.

use std::collections::BTreeSet;

use tcptrace::rehearse::{catalogue, entry};

#[path = "../../xtask/src/test/cases.rs"]
#[expect(dead_code, reason = "only the lists are compared; the suite itself is in xtask")]
mod cases;

#[test]
fn every_variant_of_every_rehearsal_is_in_the_suite_or_in_its_rotation() {
    let known: BTreeSet<(&str, &str)> = catalogue()
        .iter()
        .flat_map(|entry| entry.variants.iter().map(|variant| (entry.name, variant.name)))
        .collect();
    let default = |name: &str| {
        entry(name)
            .and_then(|entry| entry.variants.first())
            .map_or("(no such rehearsal)", |variant| variant.name)
    };
    let played: BTreeSet<(&str, &str)> = cases::CASES
        .iter()
        .chain(cases::ROTATION)
        .filter_map(cases::Case::rehearsal)
        // Some by a former name.
        .map(|(incident, variant)| {
            (
                entry(incident).map_or(incident, |entry| entry.name),
                variant.unwrap_or_else(|| default(incident)),
            )
        })
        .collect();
    let missing: Vec<_> = known.difference(&played).collect();
    assert!(missing.is_empty(), "add them to CASES or ROTATION in xtask/src/test/cases.rs: {missing:?}");
    let unknown: Vec<_> = played.difference(&known).collect();
    assert!(unknown.is_empty(), "xtask/src/test/cases.rs plays what is not in the catalogue: {unknown:?}");
}
