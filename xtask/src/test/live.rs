//! What is played on the kernels of the matrix, in a guest for each.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::tally::Tally;
use super::{Guests, Programs, Run, seconds};
use crate::vm::{Guest, Hardware, HostCopy, Job, JobReport, Kernel, Observer, run_batch};

/// Where the guest has the tracer; on its PATH.
pub(super) const PROGRAM: &str = "/usr/local/bin/tcptrace";

/// So many guests at a time: a case mostly waits, and a guest keeps about one processor busy.
const GUESTS: usize = 2;

/// Tells of each case as soon as it is over.
struct Reporter<'a, 't> {
    place: &'a str,
    runs: &'a [Run],
    tally: &'a Mutex<&'t mut Tally>,
    /// Cases that get a second try, in another boot; `None` if this is it.
    again: Option<Vec<Run>>,
}

impl Observer for Reporter<'_, '_> {
    fn booted(&mut self, release: &str, after: Duration) {
        println!("     {} is {release}, booted in {} s", self.place, seconds(after));
    }

    fn ended(&mut self, job: usize, report: &JobReport) {
        let Some(run) = self.runs.get(job) else { return };
        let problems = if run.lacking(report).is_some() { Vec::new() } else { run.problems(report) };
        match &mut self.again {
            Some(again) if !problems.is_empty() && report.ending.is_some() => {
                println!("again {}: {}", run.name(self.place), problems.join("; "));
                again.push(*run);
            }
            _ => run.judge(self.place, report, &mut lock(self.tally)),
        }
    }
}

/// Each kernel's cases: one boot for each kernel, several at a time. Cases that fail get one more try in another boot, when
/// nothing else runs: emulation stretches microseconds to milliseconds, and a kprobe skipped while another one is preempted is
/// a count that is off by one there. What is broken is broken twice.
pub(super) fn run(plan: &[Guests], memory: &str, programs: &Programs, tally: &mut Tally) -> Result<()> {
    let tally = Mutex::new(tally);
    let waiting = Mutex::new(plan.iter().filter(|guests| !guests.runs.is_empty()));
    let worker = || -> Result<Vec<(&Guests, Vec<Run>)>> {
        let mut again = Vec::new();
        loop {
            // A statement of its own: the lock is given back before the guest boots.
            let next = lock(&waiting).next();
            let Some(next) = next else { return Ok(again) };
            let failed = boot(&guest(next, memory, programs)?, &next.name(), &next.runs, true, &tally)?;
            again.push((next, failed));
        }
    };
    let workers = thread::scope(|scope| {
        let workers: Vec<_> = (0..GUESTS).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>>>()
    })?;
    for (guests, runs) in workers.into_iter().flatten().filter(|(_, runs)| !runs.is_empty()) {
        let place = format!("{} (second try)", guests.name());
        boot(&guest(guests, memory, programs)?, &place, &runs, false, &tally)?;
    }
    Ok(())
}

/// The machine on which these are played.
pub(super) fn guest(guests: &Guests, memory: &str, programs: &Programs) -> Result<Guest> {
    Ok(Guest {
        hardware: Hardware {
            memory: memory.to_owned(),
            kernel_arguments: guests.argument.map(str::to_owned).into_iter().collect(),
            ..Hardware::default()
        },
        copies: vec![HostCopy {
            host: programs.of(guests.arch).to_path_buf(),
            guest: PathBuf::from(PROGRAM),
        }],
        ..Guest::new(Kernel::of(guests.arch, guests.series)?)
    })
}

/// A panic elsewhere ends the suite by itself.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One boot. Which of `runs` failed and were not judged, if there is to be another try.
fn boot(
    guest: &Guest,
    place: &str,
    runs: &[Run],
    retry: bool,
    tally: &Mutex<&mut Tally>,
) -> Result<Vec<Run>> {
    let jobs = runs
        .iter()
        .map(|run| Job::new(run.case.command(PROGRAM, run.tier), run.case.timeout))
        .collect::<Vec<_>>();
    let mut reporter = Reporter { place, runs, tally, again: retry.then(Vec::new) };
    let batch = run_batch(guest, &jobs, &mut reporter)?;
    let mut again = reporter.again.take().unwrap_or_default();
    let mut tally = lock(tally);
    // A kernel that panics or complains has been brought to it; a machine that hangs or goes may be the emulator's fault, and
    // then a kernel finds that it got no time.
    let no_time = |line: &&str| line.contains("detected stall") || line.contains("soft lockup");
    let is_sound = batch.kernel_complaints().iter().all(no_time);
    let is_emulators = batch.tripped_over_patched_code();
    let spared =
        batch.failure.as_ref().filter(|failure| retry && (is_emulators || is_sound && !failure.is_panic()));
    // The observer has heard of those that ended; the rest must not be forgotten.
    for (run, report) in runs.iter().zip(&batch.reports).filter(|(_, report)| report.ending.is_none()) {
        if spared.is_some() {
            again.push(*run);
        } else {
            run.judge(place, report, &mut tally);
        }
    }
    if let Some(failure) = spared {
        println!("again {place}: {failure}; {} cases are left", again.len());
        tally.show(&format!("{place}.console"), &batch.console);
        return Ok(again);
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
