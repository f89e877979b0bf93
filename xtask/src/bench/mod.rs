//! `cargo xtask bench`: what tracing costs, side by side with the nearest tools of other projects, in one guest.

mod budget;
mod contender;
mod document;
pub(crate) mod guest;
mod measurement;
mod peers;
pub(crate) mod recording;
mod results;
pub(crate) mod table;
pub(crate) mod who;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, ValueEnum};

use self::contender::{Contender, FEW, ROUND, Turn};
use self::guest::server::Close;
use self::measurement::Measurement;
use self::results::Results;
use crate::arch::Arch;
use crate::vm::{
    AGENT, Ending, Guest, Hardware, HostCopy, Job, JobReport, Kernel, Observer, Series, run_batch,
};
use crate::{binary, paths, term};

/// Where the guest has the tracer.
const PROGRAM: &str = "/usr/local/bin/tcptrace";
/// A turn without its loads: the tracer's start under emulation, and 10,000 listeners' closing.
const AROUND: Duration = Duration::from_secs(600);
/// One connection of each load, on a machine that has much else to do.
const SLOWEST_CONNECTION: Duration = Duration::from_millis(50);

/// The guest's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clock {
    /// One emulated instruction. The same on every machine, whatever else it does. The guest has one processor, for which
    /// all there is to do adds up: the tracer's user space, too.
    Instructions,
    /// The host's time. The guest has two processors, and the tracer one of them for itself.
    Host,
}

impl Clock {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Host => "host",
        }
    }

    fn hardware(self) -> Hardware {
        match self {
            Self::Instructions => Hardware { cpus: 1, counts_instructions: true, ..Hardware::default() },
            Self::Host => Hardware { cpus: 2, ..Hardware::default() },
        }
    }
}

/// All contenders in turn, several rounds of them. The exit status is 1 if a budget is missed.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Which Debian kernel.
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Series,
    /// How often each contender has its turn.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// How many connections a load makes; a turn has two loads.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..))]
    connections: u64,
    /// What a nanosecond is.
    #[arg(long, value_enum, default_value = "instructions")]
    clock: Clock,
    /// How connections end. `rst` is the harder one for our budgets: the others have less to see.
    #[arg(long, value_enum, default_value = "rst")]
    close: Close,
    /// tcptrace's `--attach`.
    #[arg(long, value_name = "TIER", default_value = "auto")]
    attach: String,
    /// Only turns whose name contains this (and those without a tracer); nothing is written, no budget judged.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Measure this static `tcptrace` instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where the tables go; the section of this kernel and setting is replaced.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print only.
    #[arg(long, conflicts_with = "output")]
    dry_run: bool,
}

/// Takes the measurements in, and tells of each.
struct Collector<'a> {
    turns: &'a [Turn],
    results: Results,
    problem: Option<String>,
}

impl Observer for Collector<'_> {
    fn booted(&mut self, release: &str, after: Duration) {
        term::note(format_args!("the guest is {release}, booted in {:.1} s", after.as_secs_f64()));
    }

    fn ended(&mut self, job: usize, report: &JobReport) {
        let Some(turn) = self.turns.get(job) else { return };
        match read(report) {
            Ok(measurement) => {
                term::note(format_args!(
                    "{}/{} {}: {:.0} connections/s, {:.0} ns of BPF and {:.2} runs a connection ({:.0} s)",
                    job + 1,
                    self.turns.len(),
                    turn.name(),
                    measurement.connections_per_s,
                    measurement.bpf_ns(),
                    measurement.bpf_runs(),
                    report.elapsed.as_secs_f64(),
                ));
                self.results.add(*turn, measurement);
            }
            Err(error) => {
                let problem = format!("{}: {error:#}", turn.name());
                term::note(&problem);
                self.problem.get_or_insert(problem);
            }
        }
    }
}

fn read(report: &JobReport) -> Result<Measurement> {
    match &report.ending {
        Some(Ending::Exited(0)) => serde_json::from_slice(&report.stdout).context("an odd measurement"),
        Some(Ending::Exited(_)) => bail!("{}", String::from_utf8_lossy(&report.stderr).trim()),
        other => bail!("{other:?}\n{}", String::from_utf8_lossy(&report.stderr).trim()),
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => binary::build(Arch::X86_64)?,
    };
    let kernel = Kernel::of_series(args.kernel)?;
    let release = kernel.release.clone();
    let guest = Guest {
        hardware: args.clock.hardware(),
        copies: vec![HostCopy { host: program, guest: PROGRAM.into() }],
        bare_copies: peers::copies()?,
        ..Guest::new(kernel)
    };
    let round: Vec<Turn> = ROUND
        .into_iter()
        .filter(|turn| {
            args.only.as_ref().is_none_or(|part| {
                turn.contender == Contender::Base && turn.listeners == FEW || turn.name().contains(part)
            })
        })
        .collect();
    let turns: Vec<Turn> = (0..args.rounds).flat_map(|_| round.iter().copied()).collect();
    let jobs: Vec<Job> = turns.iter().map(|turn| job(*turn, args)).collect();
    let mut collector = Collector { turns: &turns, results: Results::default(), problem: None };
    let batch = run_batch(&guest, &jobs, &mut collector)?;
    if let Some(failure) = batch.failure {
        term::raw(batch.console.as_bytes());
        bail!("{failure}");
    }
    if let Some(problem) = collector.problem {
        bail!("not all was measured: {problem}");
    }
    let results = collector.results;
    let is_whole = args.only.is_none();
    let verdicts = if is_whole { budget::judge(&results) } else { Vec::new() };
    let section = document::section(args, &release, &results, &verdicts);
    println!("{section}");
    if is_whole && !args.dry_run {
        let file = match &args.output {
            Some(file) => file.clone(),
            None => paths::workspace()?.join("docs/measurements.md"),
        };
        document::write(&file, args, &section)?;
        term::note(format_args!("written to {}", file.display()));
    }
    Ok(ExitCode::from(u8::from(verdicts.iter().any(|verdict| !verdict.is_met()))))
}

fn job(turn: Turn, args: &Args) -> Job {
    let mut argv: Vec<String> = [AGENT, "guest-load", "--close", args.close.name()].map(str::to_owned).into();
    argv.extend(["--listeners".into(), turn.listeners.to_string()]);
    argv.extend(["--connections".into(), args.connections.to_string()]);
    let tracer = turn.contender.command(PROGRAM, &args.attach);
    if !tracer.is_empty() {
        argv.extend(["--idle".into(), "--".into()]);
        argv.extend(tracer);
    }
    Job::new(argv, AROUND + SLOWEST_CONNECTION * u32::try_from(args.connections).unwrap_or(u32::MAX))
}
