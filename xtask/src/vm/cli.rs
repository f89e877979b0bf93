//! `cargo xtask vm`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{Ending, Guest, Hardware, HostCopy, Job, JobReport, Kernel, Observer, Series, Stream, run_batch};
use crate::arch::Arch;
use crate::{binary, term};

/// The command's time was over, as with `timeout`.
pub(crate) const EXIT_TIMEOUT: u8 = 124;
/// The guest or the harness failed, not the command.
pub(crate) const EXIT_HARNESS: u8 = 125;
/// The command could not be run in the guest.
const EXIT_NOT_STARTED: u8 = 127;
/// A shell's way to tell of a signal.
const EXIT_SIGNAL_BASE: i32 = 128;

/// The exit status is the command's own; 124 if its time was over, 125 if the guest or the harness failed, 127 if the
/// command cannot be run in the guest.
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Which processor. `tcptrace` is built for it and copied in if the command names it.
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,
    /// Which Debian kernel.
    #[arg(long, value_enum, default_value = "newest")]
    kernel: Series,
    /// A file or directory for the guest; HOST alone goes to /usr/local/bin. A program's libraries come along. (In
    /// `sh -c` busybox takes its own applets first: give such a program's whole path.)
    #[arg(long, value_name = "HOST[:GUEST]")]
    copy: Vec<HostCopy>,
    /// The guest's memory.
    #[arg(long = "mem", value_name = "SIZE", default_value = "1G")]
    memory: String,
    /// The guest's processors.
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// How long the command may take.
    #[arg(long, value_name = "SECS", default_value_t = 300)]
    timeout: u64,
    /// A kernel of your own instead, for a machine without apt.
    #[arg(long, value_name = "FILE", requires = "modules", conflicts_with = "kernel")]
    vmlinuz: Option<PathBuf>,
    /// Its modules: /lib/modules/RELEASE, or a tree that has one.
    #[arg(long, value_name = "DIR", requires = "vmlinuz")]
    modules: Option<PathBuf>,
    /// More for the kernel's command line, e.g. `ipv6.disable=1`; may be given several times.
    #[arg(long = "kernel-argument", value_name = "ARG")]
    kernel_arguments: Vec<String>,
    /// Print the kernel's messages in the end even if all went well.
    #[arg(long)]
    console: bool,
    /// The command and its arguments. No shell is in between; `sh -c '…'` gives one.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

const TCPTRACE: &str = "tcptrace";

/// Hands a job's output through as it comes.
struct Passthrough {
    stdout_closed: bool,
}

impl Observer for Passthrough {
    fn output(&mut self, _job: usize, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stderr => term::raw(bytes),
            Stream::Stdout if self.stdout_closed => {}
            Stream::Stdout => {
                let mut stdout = std::io::stdout().lock();
                // `… | head` may stop reading; the command goes on, as its exit status still counts.
                self.stdout_closed = stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err();
            }
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kernel = match (&args.vmlinuz, &args.modules) {
        (Some(image), Some(modules)) => Kernel::of_files(args.arch, image, modules)?,
        _ => Kernel::of(args.arch, args.kernel)?,
    };
    let mut copies = args.copy.clone();
    if names_tcptrace(&args.command) && !copies.iter().any(|copy| copy.guest.ends_with(TCPTRACE)) {
        let guest = Path::new("/usr/local/bin").join(TCPTRACE);
        copies.push(HostCopy { host: binary::build(args.arch)?, guest });
    }
    let guest = Guest {
        hardware: Hardware {
            memory: args.memory.clone(),
            cpus: args.cpus,
            kernel_arguments: args.kernel_arguments.clone(),
            ..Hardware::default()
        },
        copies,
        ..Guest::new(kernel)
    };
    run_one(&guest, args.command.clone(), Duration::from_secs(args.timeout), args.console)
}

/// Whether a command, or a shell's script in it, names `tcptrace` without saying where it lies.
fn names_tcptrace(command: &[String]) -> bool {
    let no_word = |letter: char| !(letter.is_alphanumeric() || "/._-".contains(letter));
    command.iter().flat_map(|argument| argument.split(no_word)).any(|word| word == TCPTRACE)
}

/// Runs one command in a guest, its output handed through, and gives its exit status.
pub(crate) fn run_one(
    guest: &Guest,
    command: Vec<String>,
    timeout: Duration,
    console: bool,
) -> Result<ExitCode> {
    let job = Job::new(command, timeout);
    let batch = run_batch(guest, &[job], &mut Passthrough { stdout_closed: false })?;
    if console || batch.failure.is_some() {
        term::note(format_args!("console of {} ({}):", guest.kernel.name, guest.kernel.release));
        term::raw(batch.console.as_bytes());
    }
    for complaint in batch.kernel_complaints() {
        term::note(format_args!("the guest's kernel complained: {}", complaint.trim()));
    }
    if let Some(failure) = &batch.failure {
        term::note(format_args!("error: {failure}"));
        return Ok(ExitCode::from(EXIT_HARNESS));
    }
    Ok(ExitCode::from(batch.reports.first().map_or(EXIT_HARNESS, |report| status(report, timeout))))
}

/// The exit status that stands for how the command ended.
fn status(report: &JobReport, timeout: Duration) -> u8 {
    match &report.ending {
        Some(Ending::Exited(code)) => u8::try_from(*code).unwrap_or(EXIT_HARNESS),
        Some(Ending::Signaled(signal)) => {
            term::note(format_args!("the command was killed by signal {signal}"));
            u8::try_from(EXIT_SIGNAL_BASE + signal).unwrap_or(EXIT_HARNESS)
        }
        Some(Ending::TimedOut) => {
            term::note(format_args!("error: the command was still running after {} s", timeout.as_secs()));
            EXIT_TIMEOUT
        }
        Some(Ending::NotStarted(reason)) => {
            term::note(format_args!("error: the command cannot be run in the guest: {reason}"));
            EXIT_NOT_STARTED
        }
        None => EXIT_HARNESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_names_the_tracer_gets_it() {
        let names = |command: &[&str]| {
            names_tcptrace(&command.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
        };
        assert!(names(&["tcptrace", "probes"]));
        assert!(names(&["sh", "-c", "cd /tmp;tcptrace --for 1s && echo done"]));
        assert!(!names(&["/tmp/tcptrace", "probes"]));
        assert!(!names(&["ls", "/sys/fs/bpf", "tcptrace.log"]));
    }
}
