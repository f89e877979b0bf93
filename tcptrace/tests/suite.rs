//! Every variant of every rehearsal is played by the live suite (`cargo xtask test`): by each run, or in the rotation.

use std::collections::BTreeSet;

use anyhow::Context as _;
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
    let missing: Vec<_> = known.difference(&played).copied().collect();
    if std::env::var_os("TCPTRACE_BLESS").is_some() {
        add(&missing).unwrap();
    }
    assert!(missing.is_empty(), "not in xtask/src/test/turns.rs, which TCPTRACE_BLESS=1 writes: {missing:?}");
    let unknown: Vec<_> = played.difference(&known).collect();
    assert!(unknown.is_empty(), "xtask/src/test/cases.rs plays what is not in the catalogue: {unknown:?}");
}

/// Adds turns to the rotation, each behind the others of its rehearsal.
fn add(missing: &[(&str, &str)]) -> anyhow::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../xtask/src/test/turns.rs");
    let text = std::fs::read_to_string(path)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (incident, variant) in missing {
        let entry = entry(incident).context("it is in the catalogue")?;
        let is_of_it = |line: &String| {
            let name = line.split('"').nth(1).unwrap_or_default();
            name == entry.name || entry.aliases.contains(&name)
        };
        let end = lines.len() - 1;
        let place = lines.iter().rposition(is_of_it).map_or(end, |last| last + 1);
        lines.insert(place, format!("    turn!(\"{incident}\", \"{variant}\"),"));
    }
    std::fs::write(path, lines.join("\n") + "\n")?;
    Ok(())
}
