//! One guest's life, seen from the host: boot it, follow its frames, and tell how it ended.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::frame::{self, Ending, Frame, Job, Kind};
use super::qemu::{Machine, Wiring};
use super::{Batch, Guest, GuestFailure, JobReport, Observer, Stream, initramfs};

/// The agent kills a job whose time is over and says so. If even that takes this long, the guest hangs.
const GRACE: Duration = Duration::from_secs(20);
/// A panicked kernel resets the machine within this time after its port fell silent.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often a guest is booted in all, if it dies before any job ran.
const BOOTS: usize = 3;

/// Boots the guest, runs the jobs one after the other, and gives what became of each.
///
/// A guest that dies before it reports is booted again: nothing of ours has run in it yet. QEMU 7.2's emulator now and then lets
/// a kernel trip over an instruction that it patches while it boots (`Oops: int3`, 7.2 guests above all).
pub(crate) fn run_batch(guest: &Guest, jobs: &[Job], observer: &mut dyn Observer) -> Result<Batch> {
    for _ in 1..BOOTS {
        let batch = attempt(guest, jobs, observer)?;
        match &batch.failure {
            Some(failure) if !batch.booted => {
                println!(
                    "     {} died before anything ran in it, booting again: {failure}",
                    guest.kernel.name
                );
            }
            _ => return Ok(batch),
        }
    }
    attempt(guest, jobs, observer)
}

fn attempt(guest: &Guest, jobs: &[Job], observer: &mut dyn Observer) -> Result<Batch> {
    let mut initramfs = in_memory("initramfs")?;
    let image = initramfs::build(guest, jobs)?;
    initramfs.write_all(&image).context("writing the initramfs")?;
    let mut console = in_memory("console")?;
    let (stream, port) = UnixStream::pair().context("making a socket pair")?;
    let wiring = Wiring { initramfs, console: console.try_clone()?, port };
    let start = Instant::now();
    let mut machine = Machine::start(&guest.hardware, &guest.kernel, &wiring)?;
    // Only QEMU has its end of the port now: when it is gone, we shall know.
    drop(wiring);
    let frames = read_in_background(stream);

    let mut follower = Follower::new(jobs, observer, start);
    let end = follower.follow(&frames, guest.boot_timeout);
    let failure = explain(end, follower.booted, &mut machine, &mut console)?;
    drop(machine);
    Ok(Batch {
        booted: follower.booted,
        reports: follower.reports,
        failure,
        console: read_console(&mut console),
        elapsed: start.elapsed(),
    })
}

/// A file that is gone with the last who has it open.
fn in_memory(name: &str) -> Result<File> {
    let descriptor = memfd_create(name, MFdFlags::MFD_CLOEXEC).context("making a file in memory")?;
    Ok(File::from(descriptor))
}

fn read_in_background(mut stream: UnixStream) -> Receiver<Result<Frame, String>> {
    // Bounded: a job that prints without end is slowed down rather than kept in memory twice.
    let (sender, receiver) = mpsc::sync_channel(64);
    thread::spawn(move || {
        loop {
            let message = match frame::read(&mut stream) {
                Ok(Some(frame)) => Ok(frame),
                Ok(None) => return,
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return,
                Err(error) => Err(error.to_string()),
            };
            let is_last = message.is_err();
            if sender.send(message).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// How following the frames came to an end.
enum End {
    Done,
    Failed(GuestFailure),
    /// Nothing came within this time.
    Silent(Duration),
    /// The port was closed: a panic, a reset, a power-off before the end, or QEMU's own trouble.
    Gone,
}

/// Sorts frames into the reports of their jobs.
struct Follower<'a> {
    jobs: &'a [Job],
    observer: &'a mut dyn Observer,
    start: Instant,
    booted: bool,
    job_start: Instant,
    reports: Vec<JobReport>,
}

impl<'a> Follower<'a> {
    fn new(jobs: &'a [Job], observer: &'a mut dyn Observer, start: Instant) -> Self {
        let blank = JobReport {
            ending: None,
            started: false,
            stdout: Vec::new(),
            stderr: Vec::new(),
            elapsed: Duration::ZERO,
        };
        Self { jobs, observer, start, booted: false, job_start: start, reports: vec![blank; jobs.len()] }
    }

    fn follow(&mut self, frames: &Receiver<Result<Frame, String>>, boot_timeout: Duration) -> End {
        let mut patience = boot_timeout;
        let mut deadline = Instant::now() + patience;
        loop {
            let message = match frames.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => return End::Silent(patience),
                Err(RecvTimeoutError::Disconnected) => return End::Gone,
            };
            let frame = match message {
                Ok(frame) => frame,
                Err(error) => return End::Failed(GuestFailure::Agent(format!("a broken report: {error}"))),
            };
            let number = usize::try_from(frame.job).unwrap_or(usize::MAX);
            match frame.kind {
                Kind::Ready => {
                    self.booted = true;
                    self.observer.booted(&String::from_utf8_lossy(&frame.payload), self.start.elapsed());
                    (patience, deadline) = (GRACE, Instant::now() + GRACE);
                }
                Kind::Started => {
                    self.job_start = Instant::now();
                    if let Some(report) = self.reports.get_mut(number) {
                        report.started = true;
                    }
                    let timeout = self.jobs.get(number).map_or(Duration::ZERO, Job::timeout);
                    (patience, deadline) = (GRACE, Instant::now() + timeout + GRACE);
                }
                Kind::Stdout => self.output(number, Stream::Stdout, &frame.payload),
                Kind::Stderr => self.output(number, Stream::Stderr, &frame.payload),
                Kind::Ended => {
                    if let Err(error) = self.ended(number, &frame.payload) {
                        return End::Failed(GuestFailure::Agent(format!("a broken report: {error:#}")));
                    }
                    (patience, deadline) = (GRACE, Instant::now() + GRACE);
                }
                Kind::Done => return End::Done,
                Kind::Failed => {
                    return End::Failed(GuestFailure::Agent(
                        String::from_utf8_lossy(&frame.payload).into_owned(),
                    ));
                }
            }
        }
    }

    fn output(&mut self, number: usize, stream: Stream, bytes: &[u8]) {
        let Some(report) = self.reports.get_mut(number) else { return };
        match stream {
            Stream::Stdout => report.stdout.extend(bytes),
            Stream::Stderr => report.stderr.extend(bytes),
        }
        self.observer.output(number, stream, bytes);
    }

    fn ended(&mut self, number: usize, payload: &[u8]) -> Result<()> {
        let ending: Ending = serde_json::from_slice(payload)?;
        let report = self.reports.get_mut(number).with_context(|| format!("there is no job {number}"))?;
        report.ending = Some(ending);
        report.elapsed = self.job_start.elapsed();
        self.observer.ended(number, report);
        Ok(())
    }
}

/// What became of the guest, from the way its frames came to an end and from its console.
fn explain(
    end: End,
    booted: bool,
    machine: &mut Machine,
    console: &mut File,
) -> Result<Option<GuestFailure>> {
    let silence = match end {
        End::Done => return Ok(None),
        End::Failed(failure) => return Ok(Some(failure)),
        End::Silent(time) => Some(time),
        End::Gone => None,
    };
    if silence.is_some() && booted {
        machine.interrupt_for_good();
        machine.ended_within(LAST_WORDS)?;
    }
    let has_ended = silence.is_none() && machine.ended_within(LAST_WORDS)?.is_some();
    let console = read_console(console);
    // First of all: a panic may be why a guest fell silent, if it could not even reset the machine. But not one we asked for.
    if let Some(line) = panic_line(&console).filter(|line| !line.contains("NMI")) {
        return Ok(Some(GuestFailure::Panicked(line)));
    }
    if let Some(time) = silence {
        return Ok(Some(if booted {
            GuestFailure::Hung(time)
        } else {
            GuestFailure::NotBooted(format!("no sign of life in {} s", time.as_secs()))
        }));
    }
    let complaint = if has_ended { machine.complaint() } else { String::new() };
    let last_line = console.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing").trim();
    let reason = match complaint.as_str() {
        "" => format!("the machine stopped; last on its console: {last_line}"),
        complaint => format!("QEMU stopped: {complaint}"),
    };
    Ok(Some(if booted { GuestFailure::Vanished(reason) } else { GuestFailure::NotBooted(reason) }))
}

fn panic_line(console: &str) -> Option<String> {
    const SIGN: &str = "Kernel panic - not syncing";
    let line = console.lines().find(|line| line.contains(SIGN))?;
    let at = line.find(SIGN)?;
    Some(line.get(at..)?.trim().to_owned())
}

fn read_console(console: &mut File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is missing from a message, nothing more.
    let _unreadable = console.rewind().and_then(|()| console.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;
    impl Observer for Nobody {}

    fn job(timeout_ms: u64) -> Job {
        Job::new(vec!["true".into()], Duration::from_millis(timeout_ms))
    }

    fn follow(jobs: &[Job], frames: Vec<(Kind, u32, Vec<u8>)>, open: bool) -> (End, Vec<JobReport>) {
        let (sender, receiver) = mpsc::sync_channel(64);
        for (kind, job, payload) in frames {
            sender.send(Ok(Frame { kind, job, payload })).unwrap();
        }
        let kept = open.then_some(sender);
        let mut nobody = Nobody;
        let mut follower = Follower::new(jobs, &mut nobody, Instant::now());
        let end = follower.follow(&receiver, Duration::from_millis(50));
        drop(kept);
        (end, follower.reports)
    }

    #[test]
    fn each_job_gets_its_own() {
        let ending = |ending| serde_json::to_vec(&ending).unwrap();
        let frames = vec![
            (Kind::Ready, 0, b"6.1".to_vec()),
            (Kind::Started, 0, vec![]),
            (Kind::Stdout, 0, b"a".to_vec()),
            (Kind::Stderr, 0, b"b".to_vec()),
            (Kind::Stdout, 0, b"\0c".to_vec()),
            (Kind::Ended, 0, ending(Ending::Exited(3))),
            (Kind::Started, 1, vec![]),
            (Kind::Ended, 1, ending(Ending::TimedOut)),
            (Kind::Done, 0, vec![]),
        ];
        let (end, reports) = follow(&[job(1), job(1)], frames, true);
        assert!(matches!(end, End::Done));
        assert_eq!((reports[0].stdout.as_slice(), reports[0].stderr.as_slice()), (&b"a\0c"[..], &b"b"[..]));
        assert_eq!(reports[0].ending, Some(Ending::Exited(3)));
        assert_eq!(reports[1].ending, Some(Ending::TimedOut));
    }

    #[test]
    fn silence_and_absence_differ() {
        assert!(matches!(follow(&[job(1)], vec![], true).0, End::Silent(_)));
        let (end, reports) =
            follow(&[job(1)], vec![(Kind::Ready, 0, vec![]), (Kind::Started, 0, vec![])], false);
        assert!(matches!(end, End::Gone));
        assert_eq!(reports[0].ending, None);
    }

    #[test]
    fn a_report_about_no_job_is_refused() {
        let frames = vec![(Kind::Ended, 7, serde_json::to_vec(&Ending::Exited(0)).unwrap())];
        assert!(matches!(follow(&[job(1)], frames, true).0, End::Failed(GuestFailure::Agent(_))));
    }

    #[test]
    fn the_panic_is_found_in_the_console() {
        let console =
            "[    1.0] x\n[    2.1] Kernel panic - not syncing: sysrq triggered crash\n[    2.2] CPU: 0\n";
        assert_eq!(panic_line(console).unwrap(), "Kernel panic - not syncing: sysrq triggered crash");
        assert_eq!(panic_line("all is well"), None);
    }
}
