//! `cargo xtask test`: unit tests, then the tracer itself, live: in guests on every kernel, and on this machine.

mod cases;
mod check;
mod lines;
mod live;
pub(crate) mod native;
pub(crate) mod tally;
mod units;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;

use self::cases::{CASES, Case, Tier};
use self::tally::Tally;
use crate::vm::{Ending, JobReport, Series};
use crate::{binary, software};

/// All kernels, all tiers, all cases, unless told otherwise.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Only this kernel; may be given several times.
    #[arg(long = "kernel", value_enum)]
    kernels: Vec<Series>,
    /// Unit tests, this machine, and one kernel: to know soon that nothing is badly broken.
    #[arg(long, conflicts_with = "kernels")]
    fast: bool,
    /// Only live cases whose name contains this; no unit tests.
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Test this static `tcptrace` instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// A guest's memory.
    #[arg(long = "mem", value_name = "SIZE", default_value = "1G")]
    memory: String,
}

/// One case in one tier, on whatever machine.
#[derive(Clone, Copy)]
struct Run {
    case: &'static Case,
    tier: Tier,
}

impl Run {
    /// Judges what came out, and tells.
    fn judge(&self, place: &str, report: &JobReport, tally: &mut Tally) {
        tally.case(&self.name(place), report, &self.problems(report));
    }

    /// What is wrong with what came out.
    fn problems(&self, report: &JobReport) -> Vec<String> {
        let mut problems = match &report.ending {
            Some(Ending::Exited(0)) => Vec::new(),
            Some(Ending::Exited(code)) => vec![format!("exit status {code}")],
            Some(Ending::Signaled(signal)) => vec![format!("killed by signal {signal}")],
            Some(Ending::TimedOut) => vec![format!("still running after {} s", self.case.timeout.as_secs())],
            Some(Ending::NotStarted(reason)) => vec![format!("cannot be run: {reason}")],
            None if report.started => vec!["the guest was gone before it ended".to_owned()],
            None => vec!["not run: the guest was gone".to_owned()],
        };
        if String::from_utf8_lossy(&report.stderr).contains("panicked at") {
            problems.push("it panicked; see its stderr".to_owned());
        }
        // Without an ending the output is cut, and what is missing in it means nothing.
        if report.ending.is_some() {
            problems.extend(check::problems(self.case.judge, self.tier, &report.stdout));
        }
        problems
    }

    fn name(&self, place: &str) -> String {
        format!("{place} {} {}", self.tier.attach(), self.case.name)
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kernels = match (args.fast, args.kernels.as_slice()) {
        // The one that most hosts of today are nearest to.
        (true, _) => vec![Series::V6_12],
        (false, []) => Series::ALL.to_vec(),
        (false, some) => some.to_vec(),
    };
    let cases: Vec<&'static Case> =
        CASES.iter().filter(|case| args.case.as_ref().is_none_or(|part| case.name.contains(part))).collect();
    let mut tally = Tally::new()?;
    if args.case.is_none() {
        units::run(&mut tally);
    }
    let program = match &args.program {
        Some(program) => program.clone(),
        None => binary::build()?,
    };
    native::run(&program, &cases, &mut tally)?;
    software::suite(&program, args.case.as_deref(), &mut tally)?;
    live::run(&kernels, &args.memory, &program, &cases, &mut tally)?;
    Ok(tally.close())
}

/// All of a place's runs, the better tiers first.
fn runs(cases: &[&'static Case], tiers: &[Tier]) -> Vec<Run> {
    let asked = |tier: Tier| cases.iter().filter(move |case| case.tiers.contains(&tier));
    tiers.iter().flat_map(|&tier| asked(tier).map(move |case| Run { case, tier })).collect()
}

/// The path of a program as an argument.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// `12.3`, for people.
fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
