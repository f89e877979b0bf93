//! The guest's end: runs the jobs one after the other and reports them in frames.
//!
//! It runs as a child of `init.sh` (process 1), which powers the guest off when the agent is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::frame::{self, Ending, Job, Kind};

/// The port's name in QEMU's command line and in the guest's sysfs.
pub(crate) const PORT_NAME: &str = "tcptrace.xtask";
/// Where the initramfs has the job list.
pub(crate) const JOBS_FILE: &str = "/xtask/jobs.json";

/// Runs everything. An error ends up on the console, through init.
pub(crate) fn main() -> Result<()> {
    let port = Port::open()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    port.send(Kind::Ready, 0, release.trim().as_bytes())?;
    let outcome = run_all(&port);
    if let Err(error) = &outcome {
        port.send(Kind::Failed, 0, format!("{error:#}").as_bytes())?;
    }
    outcome
}

fn run_all(port: &Port) -> Result<()> {
    let text = fs::read(JOBS_FILE).with_context(|| format!("reading {JOBS_FILE}"))?;
    let jobs: Vec<Job> = serde_json::from_slice(&text).with_context(|| format!("reading {JOBS_FILE}"))?;
    for (number, job) in (0..).zip(&jobs) {
        port.send(Kind::Started, number, &[])?;
        let ending = run_one(port, number, job)?;
        port.send(Kind::Ended, number, &serde_json::to_vec(&ending)?)?;
    }
    port.send(Kind::Done, 0, &[])
}

fn run_one(port: &Port, number: u32, job: &Job) -> Result<Ending> {
    let Some((program, arguments)) = job.argv.split_first() else {
        return Ok(Ending::NotStarted("an empty command".into()));
    };
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(Ending::NotStarted(format!("{program}: {error}"))),
    };
    let pumps = [
        child.stdout.take().map(|pipe| port.pump(Kind::Stdout, number, pipe)),
        child.stderr.take().map(|pipe| port.pump(Kind::Stderr, number, pipe)),
    ];
    let status = wait(child, job.timeout())?;
    // Whatever the job left behind would hold its pipes open and disturb the next job.
    kill_everything_else();
    for pump in pumps.into_iter().flatten() {
        let _panicked = pump.join();
    }
    Ok(match status {
        None => Ending::TimedOut,
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, signal) => Ending::Signaled(signal.unwrap_or_default()),
        },
    })
}

/// Waits for the child; kills everything and returns `None` when its time is over first.
fn wait(mut child: Child, timeout: Duration) -> Result<Option<ExitStatus>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    match receiver.recv_timeout(timeout) {
        Ok(status) => Ok(Some(status.context("waiting for a job")?)),
        Err(_) => {
            tell_what_hangs();
            kill_everything_else();
            Ok(None)
        }
    }
}

/// Has the kernel print the stacks of its processors and of tasks that sleep uninterruptibly: a job that takes too long may be
/// one that cannot be killed either.
fn tell_what_hangs() {
    for wanted in ["l", "w"] {
        // Without sysrq the console says less, nothing more.
        let _unavailable = fs::write("/proc/sysrq-trigger", wanted);
    }
}

/// All processes but this one and process 1: the guest is ours alone.
fn kill_everything_else() {
    // "No such process" is the usual and right answer.
    let _nobody_left = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

/// The way to the host, shared by the pumps of one job.
#[derive(Clone)]
struct Port(Arc<Mutex<File>>);

impl Port {
    fn open() -> Result<Self> {
        let device = find_port()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&device)
            .with_context(|| format!("opening {}", device.display()))?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    fn send(&self, kind: Kind, job: u32, payload: &[u8]) -> Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frame::write(&mut *file, kind, job, payload).context("writing to the host")?;
        file.flush().context("writing to the host")
    }

    /// Sends on what a pipe gives, as it comes, until its end.
    fn pump(&self, kind: Kind, job: u32, mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<()> {
        let port = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let Some(bytes) = buffer.get(..length) else { return };
                if port.send(kind, job, bytes).is_err() {
                    return;
                }
            }
        })
    }
}

/// The device of our port; the numbers in its name depend on what else QEMU was given.
fn find_port() -> Result<PathBuf> {
    let class = Path::new("/sys/class/virtio-ports");
    let entries = fs::read_dir(class).context("this guest has no virtio serial port")?;
    for entry in entries.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    anyhow::bail!("no virtio serial port is named {PORT_NAME}")
}
