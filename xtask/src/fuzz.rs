//! `cargo xtask fuzz`: hostile input, long and optimised.
//!
//! On stable Rust: libFuzzer's instrumentation needs a nightly compiler, and the project is built by stable alone. What is tried and
//! how inputs are changed is in `tcptrace/src/fuzz`; `examples/fuzz.rs` runs it, a process for each piece, so that one that dies of
//! too much memory is seen as well.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;

use crate::{paths, term};

/// How many executions one process makes: after that, another one begins with memory of its own.
const PIECE: u64 = 100_000;

/// The exit status is 1 if an input did harm: it is then in `target/fuzz`.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Only these targets; without, all of them.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How many executions of each target.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    runs: u64,
    /// Go on for so long instead, with other inputs every time.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// Which inputs. Without it the first ones, or with --minutes any.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Begin with this execution: to repeat one that did harm.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = paths::workspace()?;
    let built = paths::cargo()
        .args(["build", "--release", "-q", "-p", "tcptrace", "--features", "fuzz", "--example", "fuzz"])
        .current_dir(&root)
        .status()?;
    ensure!(built.success(), "the harness cannot be built");
    let program = paths::target()?.join("release/examples/fuzz");
    let listed = Command::new(&program).arg("list").output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let known: Vec<&str> = listed.lines().filter_map(|line| line.split('\t').next()).collect();
    let wanted: Vec<&str> = match args.targets.as_slice() {
        [] => known.clone(),
        some => some.iter().map(String::as_str).collect(),
    };
    for name in &wanted {
        ensure!(known.contains(name), "{name} is no target; there are {}", known.join(", "));
    }
    let directory = paths::target()?.join("fuzz");
    std::fs::create_dir_all(&directory)?;
    let until = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let any = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = args.seed.unwrap_or(if until.is_some() { any } else { 1 });
    let mut from = args.from;
    let mut harmed = false;
    loop {
        let to = if until.is_some() { from + PIECE / 10 } else { (from + PIECE).min(args.from + args.runs) };
        for name in &wanted {
            let output = Command::new(&program)
                .args([name, seed.to_string().as_str(), &from.to_string(), &to.to_string()])
                .current_dir(&directory)
                .output()
                .context("the harness")?;
            print!("{}", String::from_utf8_lossy(&output.stdout));
            if !output.status.success() {
                harmed = true;
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                term::note(format_args!(
                    "{name}, seed {seed}, executions {from} to {to}: {}; {last}",
                    output.status
                ));
            }
        }
        from = to;
        let over = match until {
            Some(until) => Instant::now() >= until,
            None => from >= args.from + args.runs,
        };
        if over || harmed {
            return Ok(if harmed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    }
}
