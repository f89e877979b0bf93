//! All cases on one kernel, in one guest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::cases::{Case, Tier};
use super::tally::Tally;
use super::{Run, runs, seconds};
use crate::vm::{Guest, Hardware, HostCopy, Job, JobReport, Kernel, Observer, Series, run_batch};

/// Where the guest has the tracer; on its PATH.
const PROGRAM: &str = "/usr/local/bin/tcptrace";

/// Tells of each case as soon as it is over.
struct Reporter<'a> {
    place: &'a str,
    runs: &'a [Run],
    tally: &'a mut Tally,
}

impl Observer for Reporter<'_> {
    fn booted(&mut self, release: &str, after: Duration) {
        println!("     {} is {release}, booted in {} s", self.place, seconds(after));
    }

    fn ended(&mut self, job: usize, report: &JobReport) {
        if let Some(run) = self.runs.get(job) {
            run.judge(self.place, report, self.tally);
        }
    }
}

pub(crate) fn run(
    series: Series,
    memory: &str,
    program: &Path,
    cases: &[&'static Case],
    tally: &mut Tally,
) -> Result<()> {
    let guest = Guest {
        hardware: Hardware { memory: memory.to_owned(), ..Hardware::default() },
        copies: vec![HostCopy { host: program.to_path_buf(), guest: PathBuf::from(PROGRAM) }],
        ..Guest::new(Kernel::of_series(series)?)
    };
    let place = series.name();
    let runs = runs(cases, &Tier::ALL);
    let jobs = runs
        .iter()
        .map(|run| Job::new(run.case.command(PROGRAM, run.tier), run.case.timeout))
        .collect::<Vec<_>>();
    let batch = run_batch(&guest, &jobs, &mut Reporter { place, runs: &runs, tally: &mut *tally })?;
    // The observer has heard of those that ended; the rest must not be forgotten.
    for (run, report) in runs.iter().zip(&batch.reports).filter(|(_, report)| report.ending.is_none()) {
        run.judge(place, report, tally);
    }
    let mut problems: Vec<String> = batch.failure.iter().map(ToString::to_string).collect();
    problems.extend(
        batch.kernel_complaints().iter().map(|line| format!("the kernel complained: {}", line.trim())),
    );
    tally.verdict(&format!("{place} guest"), batch.elapsed, &problems);
    if !problems.is_empty() {
        tally.show(&format!("{place}.console"), &batch.console);
    }
    Ok(())
}
