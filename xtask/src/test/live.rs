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
    /// Cases that get a second try, in another boot; `None` if this is it.
    again: Option<Vec<usize>>,
}

impl Observer for Reporter<'_> {
    fn booted(&mut self, release: &str, after: Duration) {
        println!("     {} is {release}, booted in {} s", self.place, seconds(after));
    }

    fn ended(&mut self, job: usize, report: &JobReport) {
        let Some(run) = self.runs.get(job) else { return };
        let problems = run.problems(report);
        match &mut self.again {
            Some(again) if !problems.is_empty() && report.ending.is_some() => {
                println!("again {}: {}", run.name(self.place), problems.join("; "));
                again.push(job);
            }
            _ => run.judge(self.place, report, self.tally),
        }
    }
}

/// Every case, in one boot; those that fail get one more try in another. Emulation stretches microseconds to milliseconds and
/// two processors are shared with whatever else runs: a kprobe skipped while another one is preempted is a count that is
/// off by one there. What is broken is broken twice.
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
    let runs = runs(cases, &Tier::ALL);
    let again = boot(&guest, series.name(), &runs, true, tally)?;
    if !again.is_empty() {
        let runs: Vec<Run> = again.into_iter().filter_map(|job| runs.get(job).copied()).collect();
        boot(&guest, &format!("{} (second try)", series.name()), &runs, false, tally)?;
    }
    Ok(())
}

/// One boot. Which of `runs` failed and were not judged, if there is to be another try.
fn boot(guest: &Guest, place: &str, runs: &[Run], retry: bool, tally: &mut Tally) -> Result<Vec<usize>> {
    let jobs = runs
        .iter()
        .map(|run| Job::new(run.case.command(PROGRAM, run.tier), run.case.timeout))
        .collect::<Vec<_>>();
    let mut reporter = Reporter { place, runs, tally: &mut *tally, again: retry.then(Vec::new) };
    let batch = run_batch(guest, &jobs, &mut reporter)?;
    let again = reporter.again.take().unwrap_or_default();
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
    Ok(again)
}
