//! The tests that need no kernel of their own, by cargo's own means.

use std::process::Command;
use std::time::Instant;

use super::tally::Tally;
use crate::{paths, tool, tour};

/// Runs them all; the runner's own report goes to the terminal.
pub(crate) fn run(tally: &mut Tally) {
    if paths::find_program("cargo-nextest").is_some() {
        step(
            tally,
            "unit tests",
            paths::cargo().args([
                "nextest",
                "run",
                "--workspace",
                "--no-fail-fast",
                "--status-level",
                "retry",
            ]),
        );
        // nextest leaves these out.
        step(tally, "documentation tests", paths::cargo().args(["test", "--quiet", "--workspace", "--doc"]));
    } else {
        step(tally, "unit tests", paths::cargo().args(["test", "--quiet", "--workspace"]));
    }
}

/// Whether the pictures of docs/tour.md are of today's screens.
pub(crate) fn pictures(tally: &mut Tally) {
    let start = Instant::now();
    let problems = tour::problems().unwrap_or_else(|error| vec![format!("{error:#}")]);
    tally.verdict("pictures of the tour", start.elapsed(), &problems);
}

fn step(tally: &mut Tally, name: &str, command: &mut Command) {
    let start = Instant::now();
    let outcome = paths::workspace().and_then(|workspace| tool::run(command.current_dir(workspace)));
    let problems: Vec<String> = outcome.err().map(|error| format!("{error:#}")).into_iter().collect();
    tally.verdict(name, start.elapsed(), &problems);
}
