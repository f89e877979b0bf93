//! Exit codes that scripts rely on, and what is left behind.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::{lines, stage};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;
use tcptrace::event::{Event, Kind};
use tcptrace::host::netns::in_netns;
use tcptrace::record::Reader;

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/port-grab.arrows");

fn tcptrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tcptrace"))
}

#[test]
fn a_command_that_cannot_be_run_is_127_or_126_and_leaves_no_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("run.arrows");
    let script = directory.path().join("script");
    std::fs::write(&script, "#!/bin/sh\n")?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o644))?;
    for (program, code) in
        [(Path::new("tt-no-such-command"), 127), (&directory.path().join("no"), 127), (&script, 126)]
    {
        let output = tcptrace().args(["record", "-o"]).arg(&path).arg("--").arg(program).output()?;
        ensure!(output.status.code() == Some(code), "{}: {output:?}", program.display());
        ensure!(!path.exists(), "{}: it leaves a file in the way of the next try", program.display());
    }
    Ok(())
}

#[test]
fn an_output_that_cannot_be_made_is_told_before_anything_is_attached() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let there = directory.path().join("there.arrows");
    std::fs::write(&there, "mine")?;
    for path in [there.as_path(), directory.path(), &directory.path().join("no/such.arrows")] {
        let output = tcptrace().args(["record", "--for", "1h", "-o"]).arg(path).output()?;
        ensure!(output.status.code() == Some(2), "{}: {output:?}", path.display());
    }
    ensure!(std::fs::read_to_string(&there)? == "mine");
    Ok(())
}

#[test]
fn a_full_disk_is_6_and_says_so() -> Result<()> {
    let Some((_stage, netns)) = stage()? else { return Ok(()) };
    let id = netns.id().to_string();
    let directory = tempfile::tempdir()?;
    let full = directory.path().join("full");
    // As /dev/full, which not every container has.
    if mknod(&full, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(1, 7)).is_err() {
        println!("skipped: no device may be made");
        return Ok(());
    }
    for arguments in [
        vec!["check", "--netns", &id],
        vec!["check", "--json", "--netns", &id],
        vec!["ports", "--netns", &id],
        vec!["listeners", "--json", "--netns", &id],
        vec!["who", "80", "--netns", &id],
        vec!["why", "127.0.0.1:80", "--for", "0s", "--netns", &id],
        vec!["rehearse", "list"],
        vec!["watch", "--for", "1s", "--netns", &id],
        vec!["watch", "--for", "1s", "--json", "--netns", &id],
        vec!["probes"],
        vec!["probes", "--json"],
        vec!["config"],
        vec!["schema"],
        vec!["completions", "bash"],
        vec!["man"],
        vec!["export", "--format", "csv", RECORDING],
        vec!["replay", RECORDING],
        vec!["replay", "--json", RECORDING],
        vec!["report", RECORDING],
        vec!["report", "--json", RECORDING],
        vec!["compare", RECORDING, RECORDING],
    ] {
        let full = OpenOptions::new().write(true).open(&full)?;
        let mut command = tcptrace();
        command.args(&arguments).stdout(full).stderr(Stdio::piped());
        let output = in_netns(&netns, || command.output())??;
        let said = String::from_utf8_lossy(&output.stderr);
        // Tracing is not possible everywhere.
        if arguments.contains(&"watch") && matches!(output.status.code(), Some(3 | 4)) {
            println!("skipped: {arguments:?}: {said}");
            continue;
        }
        ensure!(output.status.code() == Some(6), "{arguments:?}: {output:?}");
        ensure!(
            said.contains("cannot be written") && said.contains("the disk is full"),
            "{arguments:?}: {said}"
        );
    }
    Ok(())
}

#[test]
fn a_recording_ends_in_order_when_its_terminal_goes() -> Result<()> {
    let Some((_stage, netns)) = stage()? else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let id = netns.id().to_string();
    for ignored in [false, true] {
        let path = directory.path().join(format!("{ignored}.arrows"));
        let mut command = tcptrace();
        command.args(["record", "--netns", &id, "--for", "4s", "-o"]).arg(&path).stderr(Stdio::null());
        if ignored {
            // As nohup(1) starts it.
            let ignore = || {
                // SAFETY: signal() is async-signal-safe, and no handler is installed.
                unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
                Ok(())
            };
            // SAFETY: what runs between fork() and exec() is the one call above.
            unsafe { command.pre_exec(ignore) };
        }
        let began = std::time::Instant::now();
        let mut recorder = in_netns(&netns, || command.spawn())??;
        let pid = Pid::from_raw(i32::try_from(recorder.id())?);
        while !path.exists() && recorder.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(500));
        let _gone = kill(pid, Signal::SIGHUP);
        let status = recorder.wait()?;
        if matches!(status.code(), Some(3 | 4)) {
            println!("skipped: tracing is not possible here");
            return Ok(());
        }
        ensure!(status.code() == Some(0), "{status:?}");
        ensure!((began.elapsed() > Duration::from_secs(4)) == ignored, "ended after {:?}", began.elapsed());
        let mut reader = Reader::open(&path)?;
        let mut events: Vec<Event> = Vec::new();
        while reader.next_events(&mut events)? {}
        ensure!(reader.damage().is_empty(), "{:?}", reader.damage());
        ensure!(events.last().is_some_and(|event| matches!(event.kind, Kind::End)), "it has no end");
    }
    Ok(())
}

#[test]
fn a_summary_is_json_even_when_nothing_was_found() -> Result<()> {
    let Some((_stage, netns)) = stage()? else { return Ok(()) };
    let output = common::tcptrace(&netns, &["check", "--json", "--netns", &netns.id().to_string()])?;
    let last = lines(&output)?.pop().context("a summary")?;
    ensure!(last["type"] == "summary" && last["counts"]["risks"] == 0, "{last}");
    Ok(())
}
