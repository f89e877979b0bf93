//! Test guests: a kernel in QEMU, commands run in it, their output and status handed back.
//!
//! [`run_batch`] boots once and runs any number of [`Job`]s, each with its own stdout, stderr, status and time limit.
//! A guest that panics, hangs or does not boot is told apart from a command that fails.

pub(crate) mod agent;
mod apt;
pub(crate) mod cli;
mod cpio;
mod frame;
mod initramfs;
pub(crate) mod kernel;
mod libs;
mod modules;
mod qemu;
mod session;
mod unpacked;

use std::fmt;
use std::time::Duration;

pub(crate) use frame::{Ending, Job};
pub(crate) use initramfs::{AGENT, HostCopy, busybox};
pub(crate) use kernel::{Kernel, Series};
pub(crate) use libs::of_program as libraries_of;
pub(crate) use qemu::Hardware;
pub(crate) use session::run_batch;
pub(crate) use unpacked::Unpacked;

/// What to boot.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) kernel: Kernel,
    pub(crate) hardware: Hardware,
    pub(crate) copies: Vec<HostCopy>,
    /// Copied as they are: programs among them bring their own libraries.
    pub(crate) bare_copies: Vec<HostCopy>,
    /// How long a boot may take before it is given up.
    pub(crate) boot_timeout: Duration,
}

impl Guest {
    /// Under emulation, on a loaded machine with few cores, a boot of 5 s can take a minute.
    pub(crate) const BOOT_TIMEOUT: Duration = Duration::from_secs(180);

    pub(crate) fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            hardware: Hardware::default(),
            copies: Vec::new(),
            bare_copies: Vec::new(),
            boot_timeout: Self::BOOT_TIMEOUT,
        }
    }
}

/// Which of a job's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Hears of a batch while it runs. All is optional: the [`Batch`] has everything in the end.
pub(crate) trait Observer {
    /// The guest is up, after this time.
    fn booted(&mut self, _release: &str, _after: Duration) {}
    fn output(&mut self, _job: usize, _stream: Stream, _bytes: &[u8]) {}
    fn ended(&mut self, _job: usize, _report: &JobReport) {}
}

/// What became of one job.
#[derive(Clone, Debug)]
pub(crate) struct JobReport {
    /// `None`: it did not end, or never began, because the guest was gone.
    pub(crate) ending: Option<Ending>,
    pub(crate) started: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) elapsed: Duration,
}

/// What became of a batch: one report per job, and of the guest itself.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Whether the guest ever reported that it is up.
    pub(crate) booted: bool,
    pub(crate) reports: Vec<JobReport>,
    pub(crate) failure: Option<GuestFailure>,
    /// All that the kernel printed.
    pub(crate) console: String,
    /// From QEMU's start to its end.
    pub(crate) elapsed: Duration,
}

impl Batch {
    /// Lines in which the kernel complains about itself, though it went on.
    pub(crate) fn kernel_complaints(&self) -> Vec<&str> {
        const SIGNS: [&str; 5] =
            ["WARNING: ", "BUG: ", "Oops: ", "general protection fault", "detected stall"];
        self.console.lines().filter(|line| SIGNS.iter().any(|sign| line.contains(sign))).collect()
    }

    /// Whether all that the kernel complains of is a breakpoint where no breakpoint is: the emulator's fault (QEMU 7.2), met while
    /// the kernel patches its own code.
    pub(crate) fn tripped_over_patched_code(&self) -> bool {
        let complaints = self.kernel_complaints();
        !complaints.is_empty() && complaints.iter().all(|line| line.contains("Oops: int3"))
    }
}

/// Why a guest did not get to the end of its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestFailure {
    /// The kernel's own line about it.
    Panicked(String),
    /// It never reported; the reason as far as it is known.
    NotBooted(String),
    /// It said nothing for this long after the job's time was over.
    Hung(Duration),
    /// It was there, then gone, without a panic.
    Vanished(String),
    /// The agent in the guest gave up.
    Agent(String),
}

impl GuestFailure {
    /// Whether its kernel gave up.
    pub(crate) fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }
}

impl fmt::Display for GuestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(line) => write!(f, "guest panicked: {line}"),
            Self::NotBooted(reason) => write!(f, "guest did not boot: {reason}"),
            Self::Hung(time) => {
                write!(f, "guest hung: no word from it for {} s after the time was over", time.as_secs())
            }
            Self::Vanished(reason) => write!(f, "guest vanished: {reason}"),
            Self::Agent(reason) => write!(f, "guest agent failed: {reason}"),
        }
    }
}
