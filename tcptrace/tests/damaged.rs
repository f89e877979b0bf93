//! What commands say of recordings that are damaged, and of outputs that cannot be written: never less than is missing, and with
//! which exit code.

#[path = "common/checked.rs"]
mod checked;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tcptrace::record::{Reader, Writer};

/// A recording of an incident that is critical, as it was while it was recorded: a batch every now and then.
fn recording(to: &Path) -> Result<()> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/accept-overflow-format-2.arrows");
    let mut reader = Reader::open(&from)?;
    let mut events = Vec::new();
    while reader.next_events(&mut events)? {}
    let mut writer = Writer::new(fs::File::create(to)?, reader.metadata())?;
    for batch in events.chunks(40) {
        batch.iter().try_for_each(|event| writer.push(event, false))?;
        writer.flush()?;
    }
    writer.finish()?;
    Ok(())
}

/// The recording, one with a hole, one without its end, and one of which nothing is left but the header.
struct Files {
    _directory: tempfile::TempDir,
    whole: PathBuf,
    hole: PathBuf,
    cut: PathBuf,
    empty: PathBuf,
}

fn files() -> Result<Files> {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    let [whole, hole, cut, empty] = ["whole.arrows", "hole.arrows", "cut.arrows", "empty.arrows"].map(at);
    recording(&whole)?;
    let bytes = fs::read(&whole)?;
    let header = bytes.windows(4).skip(4).position(|four| four == [0xff; 4]).context("a batch")? + 4;
    let mut damaged = bytes.clone();
    let middle = header + (bytes.len() - header) / 2;
    damaged.get_mut(middle..middle + 4).context("it is longer")?.iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&hole, damaged)?;
    fs::write(&cut, bytes.get(..bytes.len() - bytes.len() / 14).context("it is longer")?)?;
    let mut nothing = bytes.clone();
    nothing.get_mut(header + 16..).context("it is longer")?.fill(0);
    fs::write(&empty, nothing)?;
    Ok(Files { _directory: directory, whole, hole, cut, empty })
}

fn tcptrace(arguments: &[&str], files: &[&Path]) -> Result<(i32, String, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(arguments)
        .args(files)
        .stdin(Stdio::null())
        .output()?;
    told(&output)
}

fn told(output: &Output) -> Result<(i32, String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().with_context(|| format!("signal {:?}", output.status.signal()))?;
    Ok((code, text(&output.stdout), text(&output.stderr)))
}

fn lines(text: &str, kind: &str) -> Result<Vec<Value>> {
    let lines = checked::lines(text)?.into_iter();
    Ok(lines.filter(|line| line.get("type") == Some(&kind.into())).collect())
}

#[test]
fn every_output_has_the_mark() -> Result<()> {
    let files = files()?;
    for (file, exact) in [(&files.hole, true), (&files.cut, false)] {
        let (code, text, _) = tcptrace(&["report"], &[file])?;
        ensure!(code == 0 && text.contains("! THIS RECORDING IS NOT COMPLETE"), "{code}: {text}");
        let (_, shortage) = text.split_once("NOT COMPLETE: ").context("how much")?;
        ensure!(exact == shortage.starts_with(|first: char| first.is_ascii_digit()), "{text}");
        let (code, out, _) = tcptrace(&["report", "--json"], &[file])?;
        let said = lines(&out, "recording")?.pop().context("a line on the recording")?;
        ensure!(code == 0 && said.get("complete") == Some(&false.into()), "{said}");
        let damage = said.get("damage").and_then(Value::as_array).context("damage")?;
        let first = damage.first().context("what is wrong")?;
        ensure!(first.get("events").is_some_and(Value::is_u64) == exact, "{first}");
        ensure!(first.get("from").is_some_and(Value::is_string), "{first}");
        ensure!(first.get("duration_s").is_some_and(Value::is_f64) == exact, "{first}");
        let summary = lines(&out, "summary")?.pop().context("a summary")?;
        ensure!(summary.get("complete") == Some(&false.into()), "{summary}");
        let page = file.with_extension("html");
        let (code, _, err) = tcptrace(&["report", "--html", &page.to_string_lossy()], &[file])?;
        ensure!(code == 0 && fs::read_to_string(&page)?.contains("This recording is not complete"), "{err}");
        let (code, text, _) = tcptrace(&["replay"], &[file])?;
        ensure!(code == 0 && text.contains("! THIS RECORDING IS NOT COMPLETE"), "{text}");
        let (code, out, _) = tcptrace(&["replay", "--json"], &[file])?;
        ensure!(code == 0 && !lines(&out, "damage")?.is_empty(), "{out}");
        let (code, out, err) = tcptrace(&["export", "--format", "jsonl"], &[file])?;
        let gap = |line: &str| line.contains("\"event\":\"lost\"") && line.contains("\"how\":\"recording\"");
        ensure!(code == 0 && out.lines().filter(|line| gap(line)).count() == 1, "{err}");
        let (code, out, _) = tcptrace(&["compare", "--partial"], &[&files.whole, file])?;
        ensure!(code <= 1 && out.contains("! THE RECORDING AFTER IS NOT COMPLETE"), "{code}: {out}");
        let (code, out, _) = tcptrace(&["compare", "--partial", "--json"], &[file, &files.whole])?;
        let line = lines(&out, "comparison")?.pop().context("a comparison")?;
        ensure!(code <= 1 && line.get("complete") == Some(&false.into()), "{line}");
    }
    Ok(())
}

#[test]
fn what_is_whole_has_no_mark() -> Result<()> {
    let files = files()?;
    for arguments in [&["report"][..], &["report", "--json"], &["replay"], &["export", "--format", "csv"]] {
        let (code, out, err) = tcptrace(arguments, &[&files.whole])?;
        ensure!(code == 0 && err.is_empty(), "{arguments:?}: {err}");
        ensure!(!out.contains("NOT COMPLETE") && !out.contains("\"complete\":false"), "{arguments:?}");
    }
    let (code, ..) = tcptrace(&["compare"], &[&files.whole, &files.whole])?;
    ensure!(code == 0, "{code}");
    Ok(())
}

#[test]
fn nothing_is_claimed_of_what_could_not_be_read() -> Result<()> {
    let files = files()?;
    for arguments in [&["report"][..], &["report", "--json"], &["replay"], &["export", "--format", "csv"]] {
        let (code, out, err) = tcptrace(arguments, &[&files.empty])?;
        ensure!(code == 5 && !out.contains("NOTHING WAS FOUND"), "{arguments:?} ends with {code}: {out}");
        ensure!(err.contains("nothing could be read"), "{arguments:?}: {err}");
    }
    let (code, _, err) = tcptrace(&["compare", "--partial"], &[&files.empty, &files.whole])?;
    ensure!(code == 5 && err.contains("nothing could be read"), "{code}: {err}");
    // Without a finding in what is left, nobody knows; with one, everybody does.
    let quiet = files.whole.with_file_name("quiet.arrows");
    let bytes = fs::read(&files.whole)?;
    let header = bytes.windows(4).skip(4).position(|four| four == [0xff; 4]).context("a batch")? + 4;
    let second = bytes.windows(64).enumerate().skip(header + 64);
    let marker = |window: &[u8]| window.starts_with(&[0xff; 4]);
    let cut = second.filter(|(_, window)| marker(window)).map(|(at, _)| at);
    for cut in cut {
        fs::write(&quiet, bytes.get(..cut + 8).unwrap_or_default())?;
        let (code, out, err) = tcptrace(&["report", "--fail-on", "critical"], &[&quiet])?;
        if code == 5 && !err.contains("nothing could be read") {
            ensure!(err.contains("--fail-on cannot be decided"), "{err}");
            ensure!(
                out.contains("NOTHING WAS FOUND IN WHAT COULD BE READ") || out.contains("FOUND:"),
                "{out}"
            );
            let (code, ..) = tcptrace(&["replay", "--fail-on", "critical"], &[&quiet])?;
            ensure!(code == 5, "replay ends with {code}");
            let (code, ..) = tcptrace(&["report", "--fail-on", "critical"], &[&files.hole])?;
            ensure!(code == 1, "a finding is a finding: {code}");
            let (code, _, err) = tcptrace(&["compare"], &[&quiet, &files.whole])?;
            ensure!(code == 5 && err.contains("--partial"), "{code}: {err}");
            return Ok(());
        }
    }
    anyhow::bail!("no cut leaves something and no finding")
}

/// Devices that refuse, readers that go away, disks that are full: a sentence and a code each, and no half file that looks whole.
#[test]
fn outputs_that_cannot_be_written_are_reported() -> Result<()> {
    let files = files()?;
    if Path::new("/dev/full").exists() {
        for arguments in [
            &["export", "--format", "csv", "-o", "/dev/full"][..],
            &["export", "--format", "jsonl", "-o", "/dev/full"],
            &["export", "--format", "parquet", "-o", "/dev/full"],
            &["report", "--html", "/dev/full"],
        ] {
            let (code, _, err) = tcptrace(arguments, &[&files.whole])?;
            ensure!(code == 6, "{arguments:?} ends with {code}");
            ensure!(err.contains("/dev/full") && err.contains("the disk is full"), "{arguments:?}: {err}");
            ensure!(Path::new("/dev/full").exists(), "{arguments:?} has deleted the device");
        }
    }
    // A disk of 16 KB, in a mount namespace of its own.
    let script = "mount -t tmpfs -o size=16k none \"$1\" || exit 77; \"$2\" $3 \"$1/out\" \"$4\"; code=$?; ls -A \"$1\" >&2; exit $code";
    for arguments in ["export --format csv -o", "export --format parquet -o", "report --html"] {
        let place = tempfile::tempdir()?;
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(place.path())
            .args([env!("CARGO_BIN_EXE_tcptrace"), arguments])
            .arg(&files.whole)
            .output();
        let Ok(output) = output else { break };
        let (code, _, err) = told(&output)?;
        if matches!(code, 1 | 77 | 127) {
            println!("skipped: no mount namespace here: {err}");
            break;
        }
        ensure!(code == 6 && err.contains("the disk is full"), "{arguments} ends with {code}: {err}");
        ensure!(!err.lines().any(|line| line == "out"), "{arguments} leaves half a file");
    }
    // A reader that goes away is no error.
    for arguments in ["export --format csv", "replay --events", "report --json", "report"] {
        let script = format!("exec 3>&1; {{ \"$1\" {arguments} \"$2\"; echo $? >&3; }} | true");
        let output = Command::new("sh")
            .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_tcptrace")])
            .arg(&files.whole)
            .output()?;
        let (_, out, err) = told(&output)?;
        ensure!(out.trim() == "0" && err.is_empty(), "{arguments} ends with {out}: {err}");
    }
    Ok(())
}
