//! A contender's process: started, waited for until it traces, asked to end.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bpf;
use super::process::Cpu;

/// Verifying programs takes an emulated processor long.
const START: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(60);
/// A tracer traces when it has programs, has had no more of them for so long, and was idle meanwhile.
const QUIET: Duration = Duration::from_millis(1500);
const LOOK_EVERY: Duration = Duration::from_millis(250);
const STDERR: &str = "/tmp/tracer.stderr";
/// The map in which tcptrace's programs count what found no room.
const LOST_MAP: &str = "LOST";

/// A running tracer; killed when dropped.
pub(crate) struct Tracer {
    child: Child,
    name: String,
}

impl Tracer {
    /// Starts it with its output thrown away, and returns when it traces.
    pub(crate) fn start(argv: &[String]) -> Result<Self> {
        let (program, arguments) = argv.split_first().context("a tracer's command is empty")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(STDERR).with_context(|| format!("creating {STDERR}"))?)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let mut tracer = Self { child, name: argv.join(" ") };
        tracer.wait_until_it_traces()?;
        Ok(tracer)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_traces(&mut self) -> Result<()> {
        let start = Instant::now();
        let (mut programs, mut quiet_since, mut cpu_then) = (0, start, Duration::ZERO);
        while start.elapsed() < START {
            self.must_run()?;
            let (now, cpu) = (bpf::program_count()?, Cpu::of(self.pid())?.total());
            let is_busy = cpu.saturating_sub(cpu_then) > quiet_since.elapsed() / 4;
            if now == 0 || now != programs || is_busy {
                (programs, quiet_since, cpu_then) = (now, Instant::now(), cpu);
            } else if quiet_since.elapsed() >= QUIET {
                return Ok(());
            }
            thread::sleep(LOOK_EVERY);
        }
        bail!("`{}` does not trace after {} s:\n{}", self.name, START.as_secs(), said());
    }

    /// A tracer that ended early has measured nothing.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait().context("asking for the tracer")? {
            None => Ok(()),
            Some(status) => bail!("`{}` ended by itself ({status}):\n{}", self.name, said()),
        }
    }

    /// Events that it lost so far: by tcptrace's own books in the kernel, or what libbpf-tools say on stderr.
    pub(crate) fn lost() -> Result<u64> {
        Ok(match bpf::sum_of_map(LOST_MAP)? {
            Some(lost) => lost,
            None => said().lines().filter_map(lost_by_line).sum(),
        })
    }

    /// Asks it to end, as somebody at a terminal would.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()).context("a process id")?);
        kill(pid, Signal::SIGINT).context("stopping the tracer")?;
        let start = Instant::now();
        while start.elapsed() < STOP {
            if let Some(status) = self.child.try_wait().context("waiting for the tracer")? {
                let by_the_signal = status.signal() == Some(Signal::SIGINT as i32);
                if status.success() || by_the_signal {
                    return Ok(());
                }
                bail!("`{}` failed ({status}):\n{}", self.name, said());
            }
            thread::sleep(LOOK_EVERY);
        }
        bail!("`{}` does not end when interrupted", self.name)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn said() -> String {
    fs::read_to_string(STDERR).unwrap_or_default()
}

/// `lost 27 events on CPU #1`
fn lost_by_line(line: &str) -> Option<u64> {
    let (_, rest) =
        line.to_ascii_lowercase().split_once("lost ").map(|(a, b)| (a.to_owned(), b.to_owned()))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_libbpf_tools() {
        assert_eq!(lost_by_line("lost 27 events on CPU #1"), Some(27));
        assert_eq!(lost_by_line("Lost 3 events on CPU #0!"), Some(3));
        assert_eq!(lost_by_line("no losses"), None);
    }
}
