//! How each finding looks at 60, 80 and 120 columns: real findings, from the recordings that the reports are tested with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use jiff::tz::TimeZone;
use tcptrace::finding::{Engine, Finding};
use tcptrace::output::{Look, Screen, TextWriter};
use tcptrace::record::Reader;
use unicode_width::UnicodeWidthStr as _;

const WIDTHS: [usize; 3] = [60, 80, 120];

/// Everything that was reported of the first finding of each kind, in the first recording that has one.
fn findings() -> Result<BTreeMap<&'static str, Vec<Finding>>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|of| of == "arrows"));
    files.sort();
    let mut found: BTreeMap<&'static str, Vec<Finding>> = BTreeMap::new();
    for path in files {
        let mut reader = Reader::open(&path)?;
        let (mut engine, mut events, mut told) = (Engine::default(), Vec::new(), Vec::new());
        while reader.next_events(&mut events)? {
            for event in events.drain(..) {
                engine.on_event(&event, |finding| told.push(finding));
            }
        }
        let mut here: BTreeMap<&'static str, Vec<Finding>> = BTreeMap::new();
        for finding in told {
            let of = here.entry(finding.code).or_default();
            if of.first().is_none_or(|first| first.id == finding.id) {
                of.push(finding);
            }
        }
        for (code, reports) in here {
            found.entry(code).or_insert(reports);
        }
    }
    Ok(found)
}

fn look(width: usize) -> Look {
    Look { zone: TimeZone::UTC, screen: Screen::plain(width), counters: false }
}

fn printed(findings: &[&Finding], width: usize) -> Result<String> {
    let mut to = TextWriter::new(Vec::new(), look(width));
    for finding in findings {
        let _gone = to.finding(finding)?;
    }
    Ok(String::from_utf8(to.into_inner())?)
}

/// No line is wider than asked for, but for commands, which are to be copied and stand alone on their lines. `TCPTRACE_BLESS=1 cargo test
/// -p tcptrace --test face` takes over what is printed now: look at the difference.
#[test]
fn every_finding_fits_and_looks_as_before() -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/face");
    let bless = std::env::var_os("TCPTRACE_BLESS").is_some();
    let mut changed = Vec::new();
    for (code, reports) in findings()? {
        let last = reports.last().context("a report")?;
        let commands: Vec<&str> = last.remedy.iter().filter_map(|remedy| remedy.command.as_deref()).collect();
        let mut all = String::new();
        for width in WIDTHS {
            let text = printed(&[last], width)?;
            for line in text.lines() {
                let command = commands.contains(&line.trim_start());
                ensure!(command || line.width() <= width, "{code} at {width}: {line}");
            }
            for command in &commands {
                ensure!(text.lines().any(|line| line.trim_start() == *command), "{code} breaks {command}");
            }
            all.push_str(&format!("--- {width} columns\n{text}"));
        }
        let golden = directory.join(format!("{code}.txt"));
        if bless {
            fs::create_dir_all(&directory)?;
            fs::write(&golden, &all)?;
        }
        if fs::read_to_string(&golden).unwrap_or_default() != all {
            changed.push(code);
        }
    }
    ensure!(
        changed.is_empty(),
        "they look otherwise: {changed:?}. If that is meant: TCPTRACE_BLESS=1 cargo test -p tcptrace --test face"
    );
    Ok(())
}

/// A new kind of finding needs a recording that has one, and with it its looks.
#[test]
fn every_kind_of_finding_has_its_looks() -> Result<()> {
    let found = findings()?;
    let engine = Engine::default();
    let missing: Vec<&str> = engine.codes().filter(|code| !found.contains_key(code)).collect();
    ensure!(missing.is_empty(), "no recording in tests/recordings has {missing:?}");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/face");
    let mut looks: Vec<String> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        looks.extend(name.strip_suffix(".txt").map(str::to_owned));
    }
    looks.sort();
    let mut codes: Vec<&str> = engine.codes().collect();
    codes.sort_unstable();
    ensure!(looks == codes, "looks of {looks:?}, and there are {codes:?}");
    Ok(())
}

/// However long a finding is reported, it is printed whole once; each update and its end are one line.
#[test]
fn a_finding_is_printed_whole_once() -> Result<()> {
    for (code, reports) in findings()? {
        let text = printed(&reports.iter().collect::<Vec<_>>(), 80)?;
        let headlines = text.lines().filter(|line| line.contains(&format!(" {code} #"))).count();
        ensure!(headlines == 1, "{code}: {text}");
        let ends = text.lines().filter(|line| line.contains(" closed #")).count();
        ensure!(ends == 1, "{code}: {text}");
    }
    Ok(())
}
