//! `cargo xtask test`: unit tests, then the tracer itself, live: in guests on every kernel, and on this machine.

mod cases;
mod check;
pub(crate) mod kernels;
mod lines;
mod live;
pub(crate) mod native;
mod rotation;
mod schema;
pub(crate) mod tally;
mod units;
mod verified;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;

use self::cases::{ARM64, BOOTS, Boot, CASES, Case, Judge, ROTATION, SELF_TEST, Tier};
use self::rotation::{Place, Turn};
use self::tally::Tally;
use crate::arch::Arch;
use crate::vm::{Ending, JobReport, Series};
use crate::{binary, setup, software};

/// All kernels, all tiers, all cases that are not in the rotation, and one turn of that, unless told otherwise.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Only this kernel; may be given several times.
    #[arg(long = "kernel", value_enum)]
    kernels: Vec<Series>,
    /// Only guests of this processor, or (x86-64) those and this machine; of arm64 then all cases that it has, in every tier.
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Unit tests, this machine, and one kernel: to know soon that nothing is badly broken.
    #[arg(long, conflicts_with = "kernels")]
    fast: bool,
    /// Only the live case of this name or, if there is none, those whose names contain this, wherever they can be played; no
    /// unit tests.
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Play this turn of the rotation, instead of the one that belongs to the commit.
    #[arg(long, value_name = "N", conflicts_with_all = ["case", "full"])]
    turn: Option<u64>,
    /// Play the whole rotation as well, on every kernel and in every tier: this takes hours.
    #[arg(long, conflicts_with = "case")]
    full: bool,
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
    /// The kernel need not have what the case takes: then it is skipped.
    may_lack: bool,
}

/// Exit status of a rehearsal that this kernel cannot play.
const NOT_SUPPORTED: i32 = 4;

impl Run {
    /// Judges what came out, and tells.
    fn judge(&self, place: &str, report: &JobReport, tally: &mut Tally) {
        if let Some(lacking) = self.lacking(report) {
            tally.skip(&self.name(place), &lacking);
            return;
        }
        tally.case(&self.name(place), report, &self.problems(report));
        if let Some(told) = check::verified(&report.stdout).filter(|_| self.case.judge == Judge::SelfTest) {
            println!("     {told}");
        }
    }

    /// What this kernel lacks for the case, if it is one that it need not be able to play.
    fn lacking(&self, report: &JobReport) -> Option<String> {
        let lacks = self.may_lack && report.ending == Some(Ending::Exited(NOT_SUPPORTED));
        lacks.then(|| String::from_utf8_lossy(&report.stderr).lines().last().unwrap_or_default().to_owned())
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
    let mut plan = Plan::of(args);
    let mut tally = Tally::new()?;
    let of_arm64 = |guests: &Guests| guests.arch == Arch::Arm64;
    // Asked for, they must be there; in a turn of the rotation, they are said to be left out.
    if args.arch.is_none()
        && plan.guests.iter().any(of_arm64)
        && let Err(error) = setup::arm64(false)
    {
        tally.skip("arm64", &format!("{error:#}"));
        plan.guests.retain(|guests| !of_arm64(guests));
    }
    if args.case.is_none() {
        units::run(&mut tally);
        units::pictures(&mut tally);
    }
    let own = args.program.clone();
    let programs = if args.arch == Some(Arch::Arm64) {
        Programs { x86_64: PathBuf::new(), arm64: Some(own.map_or_else(|| binary::build(Arch::Arm64), Ok)?) }
    } else {
        let x86_64 = own.map_or_else(|| binary::build(Arch::X86_64), Ok)?;
        // What is played on this machine mostly waits.
        let arm64 =
            plan.guests.iter().any(of_arm64).then(|| thread::spawn(|| binary::build_beside(Arch::Arm64)));
        native::run(&x86_64, &plan.native, &mut tally)?;
        software::suite(&x86_64, args.case.as_deref(), &mut tally)?;
        let built = |arm64: thread::JoinHandle<_>| {
            arm64.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        Programs { x86_64, arm64: arm64.map(built).transpose()? }
    };
    live::run(&plan.guests, &args.memory, &programs, &mut tally)?;
    if let Some(turn) = plan.turn {
        println!(
            "rotation: this was turn {} (again: cargo xtask test --turn {0}; one case: --case REHEARSAL-VARIANT; all: --full): {}, each in one \
             tier; the other tiers come in later turns. On arm64, which has turns of its own: --arch arm64. It left out: {}",
            turn.0,
            turn.played(),
            turn.left_out()
        );
    }
    Ok(tally.close())
}

/// The static `tcptrace`s under test.
struct Programs {
    x86_64: PathBuf,
    /// Built only where something is played on it.
    arm64: Option<PathBuf>,
}

impl Programs {
    fn of(&self, arch: Arch) -> &Path {
        match (arch, &self.arm64) {
            (Arch::Arm64, Some(program)) => program,
            _ => &self.x86_64,
        }
    }
}

/// What is played where.
struct Plan {
    native: Vec<Run>,
    guests: Vec<Guests>,
    /// Which part of the rotation is in it, if a part is.
    turn: Option<Turn>,
}

/// What is played in one boot.
struct Guests {
    arch: Arch,
    series: Series,
    /// What is switched off there, for the kernel's command line.
    argument: Option<&'static str>,
    runs: Vec<Run>,
}

impl Guests {
    fn of(series: Series, runs: Vec<Run>) -> Self {
        Self { arch: Arch::X86_64, series, argument: None, runs }
    }

    fn arm64(series: Series, plays: impl IntoIterator<Item = (&'static Case, Tier)>) -> Self {
        let runs = plays.into_iter().map(|(case, tier)| Run { case, tier, may_lack: false }).collect();
        Self { arch: Arch::Arm64, ..Self::of(series, runs) }
    }

    fn with(boot: &'static Boot) -> Self {
        let run = |tier: &Tier| Run { case: &boot.case, tier: *tier, may_lack: false };
        Self {
            arch: Arch::X86_64,
            series: if boot.realtime { Series::Realtime } else { Series::V6_12 },
            argument: boot.argument,
            runs: boot.case.tiers.iter().map(run).collect(),
        }
    }

    /// For people.
    fn name(&self) -> String {
        let name = format!("{}{}", self.arch.prefix(), self.series.name());
        match self.argument {
            Some(argument) => format!("{name} ({argument})"),
            None => name,
        }
    }
}

impl Plan {
    fn of(args: &Args) -> Self {
        if args.arch == Some(Arch::Arm64) {
            return Self { native: Vec::new(), guests: all_of_arm64(args), turn: None };
        }
        let kernels = match (args.fast, args.kernels.as_slice()) {
            // The one that most hosts of today are nearest to.
            (true, _) => vec![Series::V6_12],
            (false, []) => Series::ALL.to_vec(),
            (false, some) => some.to_vec(),
        };
        let cases: Vec<&'static Case> = match &args.case {
            Some(part) => named(part),
            None if args.full => CASES.iter().chain(ROTATION).collect(),
            None => CASES.iter().collect(),
        };
        let native = runs(&cases, &[Tier::Tracepoint], Place::Native);
        let guests: Vec<_> = kernels
            .into_iter()
            .map(|kernel| Guests::of(kernel, runs(&cases, &Tier::ALL, Place::Guest(Arch::X86_64, kernel))))
            .collect();
        let mut plan = Self { native, guests, turn: None };
        let asked =
            |boot: &&Boot| args.full || args.case.as_ref().is_some_and(|part| boot.case.name.contains(part));
        plan.guests.extend(BOOTS.iter().filter(asked).map(Guests::with));
        if args.full && args.arch.is_none() {
            plan.guests.extend(all_of_arm64(args));
        }
        if args.case.is_none() && !args.full {
            let turn = args.turn.map_or_else(Turn::of_this_commit, Turn);
            plan.add(turn);
            if args.arch.is_none() && !args.fast && args.kernels.is_empty() {
                plan.guests
                    .extend(turn.arm64().into_iter().map(|(series, plays)| Guests::arm64(series, plays)));
            }
        }
        plan
    }

    /// Adds a part of the rotation, as far as it is on kernels that are asked for.
    fn add(&mut self, turn: Turn) {
        for (place, run) in turn.cases() {
            match place {
                Place::Native => self.native.push(run),
                Place::Guest(arch, series) => {
                    let here = |guests: &&mut Guests| (guests.arch, guests.series) == (arch, series);
                    let asked = self.guests.iter_mut().filter(here);
                    asked.for_each(|guests| guests.runs.push(run));
                }
            }
        }
        if self.guests.iter().any(|guests| guests.series == Series::V6_12) {
            self.guests.extend(turn.boot().map(Guests::with));
        }
        self.turn = Some(turn);
    }
}

/// Everything that arm64 has, on the kernels that are asked for.
fn all_of_arm64(args: &Args) -> Vec<Guests> {
    let is_asked = |series: &Series| args.kernels.is_empty() || args.kernels.contains(series);
    let case_is_asked =
        |case: &&'static Case| args.case.as_ref().is_none_or(|part| case.name.contains(part.as_str()));
    let cases: Vec<&'static Case> = ARM64.iter().chain([&SELF_TEST]).filter(case_is_asked).collect();
    let plays = |series: Series| {
        let cases = &cases;
        rotation::arm64_tiers(series)
            .into_iter()
            .flat_map(move |tier| cases.iter().map(move |&case| (case, tier)))
    };
    Series::ARM64.into_iter().filter(is_asked).map(|series| Guests::arm64(series, plays(series))).collect()
}

/// The case of this name or, without one, those whose names contain it.
fn named(part: &str) -> Vec<&'static Case> {
    let all = || CASES.iter().chain(ROTATION);
    let exactly: Vec<_> = all().filter(|case| case.name == part).collect();
    if exactly.is_empty() { all().filter(|case| case.name.contains(part)).collect() } else { exactly }
}

/// All of a place's runs, the better tiers first.
fn runs(cases: &[&'static Case], tiers: &[Tier], place: Place) -> Vec<Run> {
    let run = |case: &'static Case, tier| {
        let in_rotation = !CASES.iter().any(|fixed| fixed.name == case.name);
        Run { case, tier, may_lack: in_rotation && place.may_lack() }
    };
    let asked = |tier: Tier| cases.iter().filter(move |case| case.tiers.contains(&tier));
    tiers.iter().flat_map(|&tier| asked(tier).map(move |case| run(case, tier))).collect()
}

/// The path of a program as an argument.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// `12.3`, for people.
fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
