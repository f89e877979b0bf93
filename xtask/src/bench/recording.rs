//! `cargo xtask bench-recording`: what recordings cost, on this machine.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;

use crate::{paths, term};

/// Where the table stands in `docs/measurements.md`.
const BEGIN: &str = "<!-- begin bench recording -->";
const END: &str = "<!-- end bench recording -->";

/// The exit status is 1 if a budget is missed.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// How many events.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    events: u64,
    /// How often each is measured; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Print only.
    #[arg(long)]
    dry_run: bool,
}

/// What the example says.
struct Said {
    events: f64,
    seconds: f64,
    bytes: f64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = paths::workspace()?;
    let busy = load();
    let cargo = |arguments: &[&str]| -> Result<()> {
        let status = paths::cargo().args(arguments).current_dir(&root).status()?;
        ensure!(status.success(), "cargo {} failed", arguments.join(" "));
        Ok(())
    };
    cargo(&["build", "--release", "-q", "-p", "tcptrace", "--example", "recording", "--bin", "tcptrace"])?;
    let built = paths::target()?.join("release");
    let (example, program) = (built.join("examples/recording"), built.join("tcptrace"));
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("bench.arrows").to_string_lossy().into_owned();
    let events = args.events.to_string();
    let mut written = Vec::new();
    let (mut read, mut digested) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds.max(1) {
        written.push(ask(&example, &["write", &file, &events])?);
        read.push(ask(&example, &["read", &file])?);
        digested.push(ask(&example, &["digest", &file])?);
    }
    let per_event = median(written.iter().map(|said| said.bytes / said.events));
    let rate = |of: &[Said]| median(of.iter().map(|said| said.events / said.seconds));
    let report =
        Command::new(&program).args(["report", "--json", &file]).output().context("tcptrace report")?;
    ensure!(report.status.success(), "report: {}", String::from_utf8_lossy(&report.stderr));
    let memory = peak_of(&program, &file)?;
    let rows = [
        ("written, events/s of one core", rate(&written), 300_000.0, true),
        ("size of `--all`, bytes an event", per_event, 16.0, false),
        ("read back to events, events/s of one core", rate(&read), 5_000_000.0, true),
        ("reported (correlated and summed up), events/s of one core", rate(&digested), 0.0, true),
        ("`report` of them all: most memory, MB", memory, 512.0, false),
    ];
    let mut table = String::from("| what | budget | measured | |\n|---|---:|---:|---|\n");
    let mut missed = false;
    for (name, measured, budget, at_least) in rows {
        let met = if at_least { measured >= budget } else { measured <= budget };
        missed |= !met;
        let verdict = match (budget > 0.0, met) {
            (false, _) => "",
            (true, true) => "met",
            (true, false) => "**MISSED**",
        };
        let sign = if at_least { "≥" } else { "≤" };
        let budget = if budget > 0.0 { format!("{sign} {budget}") } else { "–".to_owned() };
        let measured = if measured >= 1000.0 { format!("{measured:.0}") } else { format!("{measured:.1}") };
        table.push_str(&format!("| {name} | {budget} | {measured} | {verdict} |\n"));
    }
    let section = format!(
        "{BEGIN}\n## Recordings\n\n`cargo xtask bench-recording`: {events} synthetic events of `--all` (enqueues, accepts with \
         random clients of 262,144 addresses, ports taken and given back; sockets from 4,096 places in memory), median of {} rounds, {}. Times are \
         the CPU time of the one thread that works: waiting for a processor or the disk is not in them, but what else the machine does \
         takes its share of caches and memory.\n\n{table}{END}",
        args.rounds,
        surroundings(busy)
    );
    println!("{table}");
    if !args.dry_run {
        write(&root.join("docs/measurements.md"), &section)?;
        term::note(format_args!("written into docs/measurements.md"));
    }
    Ok(ExitCode::from(u8::from(missed)))
}

fn ask(example: &Path, arguments: &[&str]) -> Result<Said> {
    let output = Command::new(example).args(arguments).output().context("the example `recording`")?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let number =
        |name: &str| said.get(name).and_then(serde_json::Value::as_f64).with_context(|| format!("no {name}"));
    Ok(Said { events: number("events")?, seconds: number("seconds")?, bytes: number("bytes")? })
}

/// Most resident memory of `tcptrace report`, MB.
fn peak_of(program: &Path, file: &str) -> Result<f64> {
    let script = "\"$1\" report --json \"$2\" >/dev/null & while kill -0 $! 2>/dev/null; do \
                  grep -h VmHWM /proc/$!/status 2>/dev/null; sleep 0.05; done";
    let output = Command::new("sh").args(["-c", script, "sh", &program.to_string_lossy(), file]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let most = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .fold(0.0, f64::max);
    ensure!(most > 0.0, "the report was over before its memory could be read");
    Ok(most / 1e3)
}

/// How many processes wanted a processor in the last minute, on average.
fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Where this was measured, and how busy the machine was before.
fn surroundings(busy: Option<f64>) -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let busy = busy.map_or_else(String::new, |busy| format!(", load average {busy:.1} before"));
    format!("{processors} processors, Linux {}{busy}", release.trim())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Puts the section into its place, or behind everything.
fn write(path: &Path, section: &str) -> Result<()> {
    let page = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let whole = match (page.split_once(BEGIN), page.split_once(END)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{section}{after}"),
        _ => format!("{}\n\n{section}\n", page.trim_end()),
    };
    fs::write(path, whole).with_context(|| path.display().to_string())
}
