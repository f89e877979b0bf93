//! What the owners of a listener do instead of accepting.

use std::time::Duration;

use crate::correlate::{Correlator, Listener};
use crate::event::{ProcessState, Timestamp};
use crate::software::Need;

use super::words::count;
use super::{Evidence, Party, ProcessName, Remedy, own_words};

/// Looks at a process happen about once a second; an older one may be of before the trouble.
const RECENT: Duration = Duration::from_secs(3);

/// What the owners of a listener were doing when they were last looked at, if they were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnerState {
    /// The owner that is named.
    pub(super) process: Option<ProcessState>,
    /// All threads of all owners are stopped: one stopped worker of several leaves the others to accept.
    pub(super) stopped: bool,
}

/// Why nobody accepts, and what to do.
pub(super) struct Reason {
    /// Code of the cause.
    pub(super) code: &'static str,
    /// Ends a sentence that says that nobody accepts; empty if nothing is known.
    pub(super) words: String,
    pub(super) remedy: Remedy,
}

impl OwnerState {
    /// As of `since` or later.
    pub(super) fn of(listener: &Listener, since: Timestamp, world: &Correlator) -> Self {
        let state_of = |pid: u32| {
            let (time, state) = world.processes().get(pid)?.state?;
            (time.after(RECENT) >= since).then_some(state)
        };
        let Some(process) = listener.owners.first().and_then(|first| state_of(first.pid)) else {
            return Self::default();
        };
        let stopped =
            listener.owners.iter().all(|owner| state_of(owner.pid).is_some_and(|state| state.is_stopped()));
        Self { process: Some(process), stopped }
    }

    /// Takes over what is newly known.
    pub(super) fn learn(&mut self, newer: Self) {
        self.process = newer.process.or(self.process);
        self.stopped |= newer.stopped;
    }

    pub(super) fn reason(&self, process: Option<&ProcessName>) -> Reason {
        let pid = process.and_then(|process| process.pid);
        let who = process.map_or_else(|| "the process".to_owned(), ToString::to_string);
        let state = self.process.unwrap_or_default();
        if self.stopped {
            return Reason {
                code: "process-stopped",
                words: format!(": {who} is stopped (by a signal or a debugger)"),
                remedy: match pid {
                    Some(pid) => Remedy::command(format!("continue {who}"), format!("kill -CONT {pid}")),
                    None => Remedy::text("continue the process"),
                },
            };
        }
        if state.is_at_file_limit() {
            let limit = state.open_files_limit.unwrap_or_default();
            return Reason {
                code: "fd-limit",
                words: format!(": {who} is at its limit of {limit} open files, so accept() fails"),
                remedy: match pid {
                    Some(pid) => Remedy::command(
                        "raise the limit on open files, then look for connections that are never closed",
                        format!("prlimit --pid {pid} --nofile={}", limit.saturating_mul(4)),
                    ),
                    None => Remedy::text("raise the limit on open files (RLIMIT_NOFILE)"),
                },
            };
        }
        let threads = |number: u32| count(number.into(), "thread", "threads");
        let words = if state.blocked > 0 {
            let blocked = threads(state.blocked);
            format!(
                ": {blocked} of {who} in uninterruptible sleep (disk, network file system, a kernel lock)"
            )
        } else if state.running > 0 && state.running == state.threads {
            format!(": {who} computes ({} running)", threads(state.running))
        } else {
            String::new()
        };
        Reason {
            code: "not-accepting",
            words,
            remedy: match pid {
                Some(pid) => Remedy::command(
                    format!("find out what {who} does instead of accepting"),
                    format!("cat /proc/{pid}/task/*/stack"),
                ),
                None => Remedy::text("find out what the process does instead of accepting"),
            },
        }
    }

    /// What keeps it from its limit on open files for good, in the program's own words: prlimit ends with the process.
    pub(super) fn lasting_remedy(&self, subject: &Party) -> Vec<Remedy> {
        let limit = self.process.filter(|_| !self.stopped).filter(ProcessState::is_at_file_limit);
        limit
            .and_then(|process| process.open_files_limit)
            .map_or_else(Vec::new, |limit| own_words::of(subject, Need::Descriptors(limit.saturating_mul(4))))
    }

    /// Adds what is known to `evidence`.
    pub(super) fn add_to(&self, evidence: Evidence) -> Evidence {
        let process = self.process;
        evidence
            .with_some("threads", process.map(|process| process.threads))
            .with_some("threads_running", process.map(|process| process.running))
            .with_some("threads_stopped", process.map(|process| process.stopped).filter(|number| *number > 0))
            .with_some("threads_blocked", process.map(|process| process.blocked).filter(|number| *number > 0))
            .with_some("open_files", process.and_then(|process| process.open_files))
            .with_some("open_files_limit", process.and_then(|process| process.open_files_limit))
    }
}
