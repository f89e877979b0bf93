//! `cargo xtask kernels`: what is observed on which kernel, by what, and how exactly; written as a page of docs.
//!
//! The self-test and a few rehearsals are played on every kernel of both architectures and on this machine, in every tier. What
//! the page says comes out of what they printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use nix::unistd::Uid;
use serde_json::Value;

use super::cases::{CASES, Case, Judge, ROTATION, Tier};
use super::lines::Lines;
use super::live::{PROGRAM, guest};
use super::rotation::arm64_tiers;
use super::{Guests, Programs, Run, native, seconds, text};
use crate::arch::Arch;
use crate::bench::table::Table;
use crate::vm::{JobReport, Observer, Series, run_batch};
use crate::{binary, paths, setup, term};

/// Takes about half an hour on two processors.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Only this kernel; may be given several times. The page is then printed, and not written.
    #[arg(long = "kernel", value_enum)]
    kernels: Vec<Series>,
    /// Only this architecture; likewise.
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Play this static `tcptrace` on x86-64 instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// What is played: between them they move most of the counters that are compared.
const PLAYED: [&str; 8] = [
    "self-test",
    "accept-overflow",
    "syn-queue-full-cookies",
    "port-grab-listener",
    "no-answer-closed-port",
    "port-exhaustion",
    "connection-exists-open",
    "healthy",
];
const PAGE: &str = "docs/kernels.md";

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let asked = |arch: Arch, series: Series| {
        args.arch.is_none_or(|only| only == arch)
            && (args.kernels.is_empty() || args.kernels.contains(&series))
    };
    let of_x86 = Series::ALL.into_iter().chain(Series::REALTIME).map(|series| (Arch::X86_64, series));
    let of_arm64 = Series::ARM64.into_iter().map(|series| (Arch::Arm64, series));
    let places: Vec<_> = of_x86.chain(of_arm64).filter(|&(arch, series)| asked(arch, series)).collect();
    let is_whole = args.kernels.is_empty() && args.arch.is_none();
    if places.iter().any(|(arch, _)| *arch == Arch::Arm64) {
        setup::arm64(false)?;
    }
    let x86_64 = args.program.clone().map_or_else(|| binary::build(Arch::X86_64), Ok)?;
    let arm64 = places.iter().any(|(arch, _)| *arch == Arch::Arm64).then(|| binary::build(Arch::Arm64));
    let programs = Programs { x86_64, arm64: arm64.transpose()? };
    let mut columns = Vec::new();
    for (arch, series) in places {
        columns.extend(in_guest(arch, series, &programs)?);
    }
    if is_whole {
        columns.extend(natively(&programs)?);
    }
    let page = page(&columns);
    if is_whole {
        let file = paths::workspace()?.join(PAGE);
        fs::write(&file, page).with_context(|| format!("writing {}", file.display()))?;
        term::note(format_args!("{} is written", file.display()));
    } else {
        print!("{page}");
    }
    Ok(ExitCode::from(u8::from(columns.iter().any(|column| !column.failed.is_empty()))))
}

/// What is played in these tiers.
fn plays(tiers: &[Tier]) -> Vec<Run> {
    let cases: Vec<&'static Case> = PLAYED
        .iter()
        .filter_map(|name| CASES.iter().chain(ROTATION).find(|case| case.name == *name))
        .collect();
    let runs =
        |&tier: &Tier| cases.iter().map(move |&case| Run { case, tier, may_lack: true }).collect::<Vec<_>>();
    tiers.iter().flat_map(runs).collect()
}

fn in_guest(arch: Arch, series: Series, programs: &Programs) -> Result<Vec<Column>> {
    let tiers = if arch == Arch::Arm64 { arm64_tiers(series) } else { Tier::ALL };
    let runs = plays(&tiers);
    let guests = Guests { arch, series, argument: None, runs };
    let jobs: Vec<_> = guests
        .runs
        .iter()
        .map(|run| crate::vm::Job::new(run.case.command(PROGRAM, run.tier), run.case.timeout))
        .collect();
    let mut teller = Teller { place: guests.name(), runs: &guests.runs };
    let batch = run_batch(&guest(&guests, "1G", programs)?, &jobs, &mut teller)?;
    if let Some(failure) = &batch.failure {
        term::note(format_args!("{}: {failure}", guests.name()));
    }
    Ok(columns(arch, &guests.name(), &guests.runs, &batch.reports))
}

fn natively(programs: &Programs) -> Result<Vec<Column>> {
    if !Uid::effective().is_root() {
        term::note(format_args!("left out: this machine, as only root may load BPF programs"));
        return Ok(Vec::new());
    }
    let runs = plays(&[Tier::Tracepoint]);
    let program = text(&programs.x86_64);
    let reports: Vec<_> = runs
        .iter()
        .map(|run| native::execute(&run.case.command(&program, run.tier), run.case.timeout))
        .collect::<Result<_>>()?;
    Ok(columns(Arch::X86_64, "this machine", &runs, &reports))
}

/// Says how far it is.
struct Teller<'a> {
    place: String,
    runs: &'a [Run],
}

impl Observer for Teller<'_> {
    fn booted(&mut self, release: &str, after: Duration) {
        println!("{} is {release}, booted in {} s", self.place, seconds(after));
    }

    fn ended(&mut self, job: usize, report: &JobReport) {
        let Some(run) = self.runs.get(job) else { return };
        let word = match (run.lacking(report), run.problems(report).as_slice()) {
            (Some(_), _) => "skip",
            (None, []) => "ok  ",
            (None, _) => "FAIL",
        };
        println!("{word} {} ({} s)", run.name(&self.place), seconds(report.elapsed));
    }
}

/// One kernel, in one tier.
#[derive(Debug)]
struct Column {
    arch: Arch,
    /// The series, for people.
    place: String,
    /// As `--attach` has it.
    attach: &'static str,
    /// `uname -r`.
    release: String,
    /// The highest kind of attachment in use.
    tier: String,
    /// By the observation's name.
    cells: Vec<(String, Cell)>,
    passed: usize,
    /// What cannot be played there.
    lacking: usize,
    /// What went wrong, a sentence each.
    failed: Vec<String>,
}

/// One observation there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cell {
    /// Kinds of attachment; `polled` or nothing.
    by: Vec<String>,
    /// Whether each record that the self-test made was right, field by field; `None` where it makes none of this kind.
    proven: Option<bool>,
    /// Whether all counters of the kernel that rest on it were equal to our count; `None` where none was compared.
    exact: Option<bool>,
}

/// One column for each tier.
fn columns(arch: Arch, place: &str, runs: &[Run], reports: &[JobReport]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for (run, report) in runs.iter().zip(reports) {
        let attach = run.tier.attach();
        let known = columns.iter().position(|column| column.attach == attach);
        let at = known.unwrap_or_else(|| {
            columns.push(Column::new(arch, place, attach));
            columns.len() - 1
        });
        if let Some(column) = columns.get_mut(at) {
            column.add(run, report);
        }
    }
    columns
}

impl Column {
    fn new(arch: Arch, place: &str, attach: &'static str) -> Self {
        Self {
            arch,
            place: place.strip_prefix(arch.prefix()).unwrap_or(place).to_owned(),
            attach,
            release: String::new(),
            tier: String::new(),
            cells: Vec::new(),
            passed: 0,
            lacking: 0,
            failed: Vec::new(),
        }
    }

    fn add(&mut self, run: &Run, report: &JobReport) {
        if run.lacking(report).is_some() {
            self.lacking += 1;
            return;
        }
        match run.problems(report).as_slice() {
            [] => self.passed += 1,
            problems => self.failed.push(format!("{}: {}", run.case.name, problems.join("; "))),
        }
        let lines = Lines::parse(&report.stdout);
        if let Some(coverage) = lines.of_type("coverage").next() {
            self.cover(coverage);
        }
        if run.case.judge == Judge::SelfTest {
            for record in lines.of_type("record") {
                let right = record["seen"] == true && record["wrong"].as_array().is_some_and(Vec::is_empty);
                self.mark(&record["observation"], |cell| all(&mut cell.proven, right));
            }
        }
        let compared = lines
            .of_type("summary")
            .filter_map(|summary| summary.pointer("/trace/reconciliation").and_then(Value::as_array));
        for row in compared.flatten() {
            let exact = row["status"] == "exact";
            for observation in row["observations"].as_array().into_iter().flatten() {
                self.mark(observation, |cell| all(&mut cell.exact, exact));
            }
        }
    }

    fn cover(&mut self, coverage: &Value) {
        let named = |key: &str| coverage[key].as_str().unwrap_or_default().to_owned();
        self.release = named("kernel");
        self.tier = named("tier");
        for observation in coverage["observations"].as_array().into_iter().flatten() {
            let by = match observation["status"].as_str() {
                Some("attached") => kinds(observation["via"].as_str().unwrap_or_default()),
                Some("polled") => vec!["polled".to_owned()],
                _ => Vec::new(),
            };
            self.mark(&observation["name"], |cell| cell.by = by);
        }
    }

    fn mark(&mut self, observation: &Value, how: impl FnOnce(&mut Cell)) {
        let Some(name) = observation.as_str() else { return };
        let at = self.cells.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.cells.push((name.to_owned(), Cell::default()));
            self.cells.len() - 1
        });
        if let Some((_, cell)) = self.cells.get_mut(at) {
            how(cell);
        }
    }
}

/// Stays true as long as all are.
fn all(so_far: &mut Option<bool>, one: bool) {
    *so_far = Some(so_far.unwrap_or(true) && one);
}

/// `fexit tcp_conn_request, fentry tcp_v4_route_req` goes by fexit and fentry.
fn kinds(via: &str) -> Vec<String> {
    let mut kinds = Vec::new();
    for part in via.split(", ") {
        let kind = part.split_whitespace().next().unwrap_or_default().to_owned();
        if !kind.is_empty() && !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

impl Cell {
    fn text(&self) -> String {
        if self.by.is_empty() {
            return "–".to_owned();
        }
        let mut text = self.by.join(" ");
        text.push_str(match self.proven {
            Some(true) => " ✓",
            Some(false) => " **wrong**",
            None => "",
        });
        text.push_str(match self.exact {
            Some(true) => " =",
            Some(false) => " ≈",
            None => "",
        });
        text
    }
}

const HEAD: &str = "# Kernels

What is observed on which kernel, by what, and how exactly. Written by `cargo xtask kernels`, which plays the self-test and some
rehearsals in guests of each kernel and on this machine, in every tier; what is here is what they printed. What is attached on a
host of yours says `tcptrace probes`, and `tcptrace probes --self-test` proves it there.

| sign | means |
|---|---|
| `fexit`, `kprobe`, `tp_btf`… | the kinds of attachment that it goes by |
| polled | counted from sock_diag and the kernel's counters, once a second; not event by event |
| – | not observed there |
| ✓ | the self-test made what must be seen, with known ports, process, queue and time, and each field of each record was right |
| = | every counter of the kernel that rests on it was equal to our count in every rehearsal |
| ≈ | one was not, or could not be told to the last one; the summary said so, and why (`--counters`) |
";

/// The whole page.
fn page(columns: &[Column]) -> String {
    let mut text = HEAD.to_owned();
    let mut part = |body: &str| {
        let _infallible = write!(text, "\n{body}");
    };
    part(&overview(columns).to_string());
    let mut tiers: Vec<(&str, Arch)> = Vec::new();
    for column in columns {
        if !tiers.contains(&(column.attach, column.arch)) {
            tiers.push((column.attach, column.arch));
        }
    }
    tiers.sort_by_key(|(attach, arch)| {
        (Tier::ALL.iter().position(|tier| tier.attach() == *attach), *arch == Arch::Arm64)
    });
    for (attach, arch) in tiers {
        let here: Vec<_> =
            columns.iter().filter(|column| (column.attach, column.arch) == (attach, arch)).collect();
        part(&format!("## {}, `--attach {attach}`\n\n{}", arch.name(), observations(&here)));
    }
    let failed: Vec<String> = columns
        .iter()
        .flat_map(|column| column.failed.iter().map(|what| format!("* {}: {what}\n", column.name())))
        .collect();
    if !failed.is_empty() {
        part(&format!("## What failed\n\n{}", failed.concat()));
    }
    text
}

impl Column {
    fn name(&self) -> String {
        format!("{}{}, {}", self.arch.prefix(), self.place, self.attach)
    }
}

/// One row a kernel and tier.
fn overview(columns: &[Column]) -> Table {
    let mut table = Table::new(&[
        "kernel",
        "release",
        "`--attach`",
        "highest tier",
        "passed",
        "cannot be played",
        "failed",
    ]);
    for column in columns {
        table.row(vec![
            format!("{} {}", column.arch.name(), column.place),
            column.release.clone(),
            column.attach.to_owned(),
            column.tier.clone(),
            column.passed.to_string(),
            column.lacking.to_string(),
            column.failed.len().to_string(),
        ]);
    }
    table
}

/// One row an observation, one column a kernel.
fn observations(columns: &[&Column]) -> Table {
    let head: Vec<String> = std::iter::once("observation".to_owned())
        .chain(columns.iter().map(|column| column.place.clone()))
        .collect();
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flat_map(|column| &column.cells) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    for name in names {
        let cells = columns.iter().map(|column| {
            let cells: BTreeMap<&str, &Cell> =
                column.cells.iter().map(|(name, cell)| (name.as_str(), cell)).collect();
            cells.get(name).map_or_else(|| "–".to_owned(), |cell| cell.text())
        });
        table.row(std::iter::once(name.to_owned()).chain(cells).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::cases::SELF_TEST;
    use super::*;
    use crate::vm::Ending;

    #[test]
    fn what_is_played_is_in_the_suite() {
        assert_eq!(plays(&[Tier::Auto]).len(), PLAYED.len());
    }

    fn report(stdout: &str) -> JobReport {
        JobReport {
            ending: Some(Ending::Exited(0)),
            started: true,
            stdout: stdout.as_bytes().to_vec(),
            stderr: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn a_cell_says_by_what_whether_it_is_right_and_whether_it_is_exact() {
        let stdout = r#"{"type":"coverage","kernel":"6.12.1","tier":"fexit","observations":[
            {"name":"syn-drop","status":"attached","via":"fexit tcp_conn_request, fentry tcp_v4_route_req"},
            {"name":"accept","status":"attached","via":"fexit inet_csk_accept"},
            {"name":"cookie","status":"polled","via":""},{"name":"connect-error","status":"missing","via":""}]}
{"type":"record","observation":"syn-drop","seen":true,"wrong":[]}
{"type":"record","observation":"accept","seen":true,"wrong":[]}
{"type":"record","observation":"accept","seen":true,"wrong":[{}]}
{"type":"summary","trace":{"reconciliation":[
            {"counter":"ListenOverflows","status":"exact","observations":["syn-drop"]},
            {"counter":"SyncookiesSent","status":"partial","observations":["cookie"]}]}}"#
            .replace("\n            ", "");
        let run = Run { case: &SELF_TEST, tier: Tier::Auto, may_lack: true };
        let columns = columns(Arch::X86_64, "6.12", &[run], &[report(&stdout)]);
        let told: Vec<String> =
            columns[0].cells.iter().map(|(name, cell)| format!("{name}: {}", cell.text())).collect();
        assert_eq!(
            told,
            ["syn-drop: fexit fentry ✓ =", "accept: fexit **wrong**", "cookie: polled ≈", "connect-error: –"]
        );
        let page = page(&columns);
        assert!(page.contains("| syn-drop      | fexit fentry ✓ = |"), "{page}");
        // These lines are no whole self-test, and the page hides nothing.
        assert!(page.contains("## What failed"), "{page}");
    }
}
