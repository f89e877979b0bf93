//! Times that are asked for: as long as they were said, and within what was recorded.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/port-grab.arrows");

fn tcptrace(arguments: &[&str], zone: &str) -> Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(arguments).env("TZ", zone).output()?)
}

fn report(more: &[&str], zone: &str) -> Result<Output> {
    tcptrace(&[&["report", RECORDING], more].concat(), zone)
}

/// When the recording began, `2026-11-22T06:02:51…Z`, to the minute and to the second.
fn began() -> Result<(String, String)> {
    let output = tcptrace(&["export", "--format", "jsonl", RECORDING], "UTC")?;
    let first = String::from_utf8(output.stdout)?.lines().next().context("a row")?.to_owned();
    let row: Value = serde_json::from_str(&first)?;
    let time = row.get("time").and_then(Value::as_str).context("a time")?;
    Ok((time.chars().take(16).collect(), time.chars().take(19).collect()))
}

#[test]
fn a_minute_is_all_of_it() -> Result<()> {
    let (minute, second) = began()?;
    ensure!(!second.ends_with(":00"), "a recording that begins with a minute shows nothing");
    let (_, clock) = minute.split_once('T').context("a date and a time")?;
    // The recording begins in the middle of that minute.
    for at in
        [clock.to_owned(), format!("{minute}Z"), format!("{minute} ").replace('T', " ").trim().to_owned()]
    {
        let output = report(&["--port", "35010", "--at", &at], "UTC")?;
        let said = String::from_utf8(output.stdout.clone())?;
        ensure!(output.status.success() && said.contains("PORT 35010 between"), "{at}: {output:?}");
        ensure!(said.contains("35010") && !said.contains("nobody is known to have had it"), "{at}: {said}");
    }
    Ok(())
}

#[test]
fn a_time_outside_the_recording_is_an_error_that_names_what_was_recorded() -> Result<()> {
    let (minute, _) = began()?;
    for more in [
        ["--from", "2031-01-01T00:00:00Z"].as_slice(),
        &["--to", "2001-01-01T00:00:00Z"],
        &["--port", "35010", "--at", "2001-01-01 03:00"],
    ] {
        let output = report(more, "UTC")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2), "{more:?}: {output:?}");
        ensure!(said.contains(&minute.replace('T', " ")) && said.contains("(UTC)"), "{more:?}: {said}");
        ensure!(!said.contains("1970") && output.stdout.is_empty(), "{more:?}: {output:?}");
    }
    let replay = tcptrace(&["replay", RECORDING, "--from", "2031-01-01T00:00:00Z"], "UTC")?;
    ensure!(replay.status.code() == Some(2), "{replay:?}");
    Ok(())
}

#[test]
fn text_names_its_zone_and_an_unknown_one_is_said() -> Result<()> {
    // The first thing that is said, which may be wrapped.
    let first = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout);
        let said = text.split("\nwatched").next().unwrap_or_default();
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let known = tcptrace(&["replay", RECORDING], "<+0900>-9")?;
    ensure!(first(&known).ends_with(" UTC+09:00"), "{}", first(&known));
    if std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        let named = tcptrace(&["replay", RECORDING], "Asia/Tokyo")?;
        ensure!(first(&named).ends_with(" UTC+09:00 (Asia/Tokyo)"), "{}", first(&named));
        let of_report = report(&[], "Asia/Tokyo")?;
        ensure!(
            String::from_utf8_lossy(&of_report.stdout).contains("UTC+09:00 (Asia/Tokyo)"),
            "{of_report:?}"
        );
    }
    let unknown = tcptrace(&["replay", RECORDING], "No/Such")?;
    ensure!(first(&unknown).ends_with(" UTC"), "{}", first(&unknown));
    ensure!(String::from_utf8_lossy(&unknown.stderr).contains("TZ=No/Such"), "{unknown:?}");
    Ok(())
}
