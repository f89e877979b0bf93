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
