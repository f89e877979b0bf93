//! The cases on this machine's own kernel, in the tier that works on the most hosts.

use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, Uid};

use super::tally::Tally;
use super::{Run, text};
use crate::vm::{Ending, JobReport};

const PLACE: &str = "native";
/// How long a job may take to end by itself when asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

pub(super) fn run(program: &Path, runs: &[Run], tally: &mut Tally) -> Result<()> {
    for run in runs {
        if Uid::effective().is_root() {
            let report = execute(&run.case.command(&text(program), run.tier), run.case.timeout)?;
            run.judge(PLACE, &report, tally);
        } else {
            tally.skip(&run.name(PLACE), "only root may load BPF programs; run the suite as root");
        }
    }
    Ok(())
}

/// Runs a command to its end, or until its time is over.
pub(crate) fn execute(argv: &[String], timeout: Duration) -> Result<JobReport> {
    let (program, arguments) = argv.split_first().context("an empty command")?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let stdout = child.stdout.take().map(read_in_background);
    let stderr = child.stderr.take().map(read_in_background);
    let ending = end_of(&mut child, timeout)?;
    Ok(JobReport {
        ending: Some(ending),
        started: true,
        stdout: stdout.map(collect).unwrap_or_default(),
        stderr: stderr.map(collect).unwrap_or_default(),
        elapsed: start.elapsed(),
    })
}

fn end_of(child: &mut Child, timeout: Duration) -> Result<Ending> {
    if let Some(ending) = ending_within(child, timeout)? {
        return Ok(ending);
    }
    // First politely: it has namespaces and processes of its own to clean up.
    let group = Pid::from_raw(i32::try_from(child.id()).context("a process id")?);
    let _gone = killpg(group, Signal::SIGTERM);
    if ending_within(child, GRACE)?.is_none() {
        let _gone = killpg(group, Signal::SIGKILL);
        child.wait().context("waiting for a killed command")?;
    }
    Ok(Ending::TimedOut)
}

fn ending_within(child: &mut Child, time: Duration) -> Result<Option<Ending>> {
    let start = Instant::now();
    while start.elapsed() < time {
        if let Some(status) = child.try_wait().context("waiting for a command")? {
            let ending = match status.code() {
                Some(code) => Ending::Exited(code),
                None => Ending::Signaled(status.signal().unwrap_or_default()),
            };
            return Ok(Some(ending));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}

fn read_in_background(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _cut = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn collect(reader: JoinHandle<Vec<u8>>) -> Vec<u8> {
    reader.join().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Duration) -> JobReport {
        execute(&["sh".into(), "-c".into(), script.into()], timeout).unwrap()
    }

    #[test]
    fn endings_are_told_apart() {
        let long = Duration::from_secs(20);
        assert_eq!(shell("exit 3", long).ending, Some(Ending::Exited(3)));
        assert_eq!(shell("kill -KILL $$", long).ending, Some(Ending::Signaled(9)));
        assert_eq!(shell("sleep 30", Duration::from_millis(100)).ending, Some(Ending::TimedOut));
    }

    #[test]
    fn outputs_are_kept_apart() {
        let report = shell("echo out; echo err >&2", Duration::from_secs(20));
        assert_eq!((report.stdout.as_slice(), report.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    }
}
