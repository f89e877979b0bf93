//! Every line that is printed of the committed recordings is what the schema says, and what a finding says keeps its form
//! through its life.

#[path = "common/checked.rs"]
mod checked;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

fn recordings() -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files = Vec::new();
    for directory in [directory.clone(), directory.join("across")] {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "arrows") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn lines(arguments: &[&str], files: &[&Path]) -> Result<Vec<Value>> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(arguments).args(files).output()?;
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "{arguments:?} {files:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    checked::lines(&String::from_utf8(output.stdout)?).with_context(|| format!("{arguments:?} {files:?}"))
}

/// The form of a value, as far as it must not change.
fn form(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "flag",
        Value::Number(number) if number.is_f64() => "measure",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// What of its evidence changes its form, or is known and then null.
fn keeps_its_form(findings: &[&Value]) -> Result<()> {
    let mut known: BTreeMap<(u64, String), &'static str> = BTreeMap::new();
    for finding in findings {
        let id = finding["id"].as_u64().context("an id")?;
        for (name, value) in finding["evidence"].as_object().context("evidence")? {
            let (key, now) = ((id, name.clone()), form(value));
            match known.get(&key) {
                Some(before) if *before != "null" => {
                    ensure!(*before == now, "{name} was a {before}, and is {value}: {finding}");
                }
                _ => {
                    known.insert(key, now);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_line_of_every_recording_is_what_the_schema_says() -> Result<()> {
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    let files = recordings()?;
    ensure!(files.len() > 20, "{files:?}");
    for file in &files {
        let replayed = lines(&["replay", "--json", "--events"], &[file])?;
        let live: Vec<&Value> = replayed.iter().filter(|line| line["type"] == "finding").collect();
        keeps_its_form(&live)?;
        let reported = lines(&["report", "--json"], &[file])?;
        // The last word on each finding is the same in a report, but for its history.
        for mut finding in reported.iter().filter(|line| line["type"] == "finding").cloned() {
            finding.as_object_mut().context("an object")?.remove("history").context("a history")?;
            let last = live.iter().rev().find(|line| line["id"] == finding["id"]);
            ensure!(last.is_some_and(|last| **last == finding), "{finding} is not {last:?}");
        }
        for line in replayed.iter().chain(&reported) {
            *types.entry(line["type"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let two: Vec<&Path> = files
        .iter()
        .filter(|file| file.parent().is_some_and(|p| p.ends_with("across")))
        .map(PathBuf::as_path)
        .collect();
    for line in lines(&["report", "--json"], &two)?.iter().chain(&lines(&["compare", "--json"], &two)?) {
        *types.entry(line["type"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    for line in
        lines(&["report", "--json", "--port", "35010"], &[&files[0].with_file_name("port-grab.arrows")])?
    {
        *types.entry(line["type"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    println!("{types:?}");
    for name in [
        "coverage",
        "finding",
        "event",
        "summary",
        "recording",
        "listener-report",
        "destination",
        "gap",
        "clock",
        "stall",
        "comparison",
        "port-holder",
    ] {
        ensure!(types.contains_key(name), "no recording has a line of type {name}: {types:?}");
    }
    Ok(())
}

/// Numbers and texts in `value` that look like an address in the kernel's half of memory.
fn addresses(value: &Value) -> Vec<String> {
    /// Where the kernel's half begins with page tables of five levels; what is left above it is for counts that are none (`u64::MAX`).
    const KERNEL: std::ops::Range<u64> = 0xff00_0000_0000_0000..u64::MAX - 4096;
    match value {
        Value::Number(number) => number
            .as_u64()
            .filter(|number| KERNEL.contains(number))
            .map(|of| format!("{of:#x}"))
            .into_iter()
            .collect(),
        Value::String(text) => {
            let words = text.split(|character: char| !character.is_ascii_hexdigit());
            words.filter(|word| word.len() == 16 && word.starts_with("ffff")).map(str::to_owned).collect()
        }
        Value::Array(elements) => elements.iter().flat_map(addresses).collect(),
        Value::Object(members) => members.values().flat_map(addresses).collect(),
        Value::Null | Value::Bool(_) => Vec::new(),
    }
}

/// People attach recordings and lines to public issues.
#[test]
fn no_address_of_the_kernel_s_memory_leaves_the_host() -> Result<()> {
    let kernel = serde_json::json!([{"sk": 0xffff_8881_0000_1000_u64}, "at ffffffff81000000", [u64::MAX]]);
    ensure!(addresses(&kernel) == ["0xffff888100001000", "ffffffff81000000"], "{:?}", addresses(&kernel));
    let directory = tempfile::tempdir()?;
    let (mut known, mut dropped) = (0, 0);
    let plays: [&[&str]; 3] =
        [&["port-grab"], &["accept-overflow"], &["dropped", "--variant", "socket-filter"]];
    for play in plays {
        let name = play[0];
        let file = directory.path().join(format!("{name}.arrows"));
        let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
            .args(["rehearse", "--json", "--events", "--all", "--record"])
            .arg(&file)
            .args(play)
            .output()?;
        if output.status.code() == Some(3) {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return Ok(());
        }
        let printed = checked::lines(&String::from_utf8(output.stdout)?)?;
        let rows = lines(&["export", "--format", "jsonl"], &[&file])?;
        ensure!(
            rows.len() > 20 && printed.len() > 20,
            "{name}: {} rows, {} lines",
            rows.len(),
            printed.len()
        );
        for line in printed.iter().chain(&rows) {
            ensure!(addresses(line).is_empty(), "{:?} in {line}", addresses(line));
        }
        known += rows.iter().filter(|row| row["sk"].as_u64().is_some_and(|sk| sk >> 52 == 1)).count();
        dropped += rows
            .iter()
            .filter(|row| {
                row["detail"]["handshake-drop"]["location"].as_u64().is_some_and(|at| at >> 52 == 1)
            })
            .count();
    }
    ensure!(known > 20, "only {known} sockets have an identity: nothing was tested");
    ensure!(dropped > 0, "no place in the kernel's code has an identity: nothing was tested");
    Ok(())
}
