//! What the processes of a listener do instead of accepting.

use std::time::Duration;

use crate::correlate::{AcceptFailure, Correlator, Listener};
use crate::event::{ProcessState, Timestamp, Watch};
use crate::software::Need;

use super::party::serving;
use super::words::{count, errno_name};
use super::{Evidence, Party, ProcessName, Remedy, own_words};

/// Looks at a process happen about once a second; an older one may be of before the trouble.
const RECENT: Duration = Duration::from_secs(3);

/// A program that tries again has done so within this time.
pub(super) const TRIES_AGAIN: Duration = Duration::from_secs(3);

/// errno: the process has as many files open as it may.
pub(super) const EMFILE: u32 = 24;

/// What the processes of a listener were doing when they were last looked at, if they were.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnerState {
    /// The process that is named.
    pub(super) process: Option<ProcessState>,
    /// All threads of all processes that accept are stopped: one stopped worker of several leaves the others to accept.
    pub(super) stopped: bool,
    why: Why,
}

/// Why no process accepts.
#[derive(Clone, Debug, Default)]
enum Why {
    /// Nothing that was observed says so.
    #[default]
    Unknown,
    /// All of them are stopped.
    Stopped,
    /// accept() fails, again and again.
    Fails(AcceptFailure),
    /// accept() has failed, and was not called since.
    GaveUp(AcceptFailure),
    /// The processes that accepted have exited; others have the socket open.
    Exited {
        /// The last of them to accept, and when that was.
        last: (String, Timestamp),
        /// A process that has the socket and was not seen accepting.
        holder: Option<String>,
    },
    /// They sleep in their event loops, which do not watch the listener.
    NotInterested {
        /// They were seen accepting, so that it is known that these are the ones.
        seen: bool,
    },
    /// They accept in an ordinary way, and all are at work on something else.
    Busy {
        /// How many processes.
        processes: usize,
        /// How many of their threads run.
        running: u32,
        /// Those of them that are stopped, by name and pid: the rest is at work.
        stopped: Vec<(String, u32)>,
    },
    /// It is a socket of the kernel itself.
    Kernel {
        /// The process that had it made.
        made_by: String,
    },
}

/// Why no process accepts, and what to do.
pub(super) struct Reason {
    /// Code of the cause.
    pub(super) code: &'static str,
    /// Ends a sentence that says that no process accepts; empty if nothing is known.
    pub(super) words: String,
    pub(super) remedy: Remedy,
    /// The reason itself was observed, with nothing inferred.
    pub(super) observed: bool,
}

impl OwnerState {
    /// As of `since` or later.
    pub(super) fn of(listener: &Listener, since: Timestamp, world: &Correlator) -> Self {
        // It ended with its processes, or they closed it: what they do now says nothing about why they did not accept.
        if listener.closed.is_some() {
            return Self::default();
        }
        let processes = world.processes();
        let state_of = |pid: u32| {
            let (time, state) = processes.get(pid)?.state?;
            (time.after(RECENT) >= since && !state.has_exited()).then_some(state)
        };
        let accepted = listener.acceptors.processes();
        let living: Vec<u32> =
            accepted.iter().map(|(pid, _)| *pid).filter(|pid| processes.exited(*pid).is_none()).collect();
        let seen = !accepted.is_empty();
        let candidates: Vec<u32> = if seen {
            living
        } else {
            let owners = listener.owners.iter().map(|owner| owner.pid);
            owners.filter(|pid| processes.exited(*pid).is_none()).collect()
        };
        let named = serving(listener, processes).and_then(|process| process.pid);
        let process = named.and_then(state_of);
        let states: Vec<(u32, ProcessState)> =
            candidates.iter().filter_map(|pid| Some((*pid, state_of(*pid)?))).collect();
        let known = !states.is_empty() && states.len() == candidates.len();
        let all = |test: &dyn Fn(&(u32, ProcessState)) -> bool| known && states.iter().all(test);
        let watch_of = |pid: u32| {
            let earliest = since.before(RECENT);
            processes.get(pid).and_then(|process| process.watch(listener.inode, earliest))
        };
        let stopped = all(&|(_, state)| state.is_stopped());
        let failing = listener.failing_accept();
        let why = if let Some(made_by) = listener.made_by.as_ref().filter(|_| listener.owners.is_empty()) {
            Why::Kernel { made_by: ProcessName::of_task(made_by, processes).to_string() }
        } else if stopped {
            Why::Stopped
        } else if let Some(failure) = failing {
            if world.now().since(failure.last) < TRIES_AGAIN {
                Why::Fails(failure.clone())
            } else {
                Why::GaveUp(failure.clone())
            }
        } else if seen && candidates.is_empty() {
            exited(listener, &accepted, world)
        } else if all(&|(pid, state)| watch_of(*pid) == Some(Watch::No) && (loops(state) || is_asleep(state)))
        {
            Why::NotInterested { seen: seen && states.iter().all(|(_, state)| loops(state)) }
        } else if seen && all(&|(_, state)| is_at_work(state) || state.is_stopped()) {
            let running = states.iter().map(|(_, state)| state.running).sum();
            let stopped = states.iter().filter(|(_, state)| state.is_stopped());
            let stopped = stopped.map(|(pid, _)| (name_of(listener, *pid, world), *pid)).collect();
            Why::Busy { processes: states.len(), running, stopped }
        } else {
            Why::Unknown
        };
        Self { process, stopped, why }
    }

    /// Takes over what is newly known.
    pub(super) fn learn(&mut self, newer: Self) {
        self.process = newer.process.or(self.process);
        self.stopped |= newer.stopped;
        if !matches!(newer.why, Why::Unknown) {
            self.why = newer.why;
        }
    }

    pub(super) fn reason(&self, process: Option<&ProcessName>) -> Reason {
        let pid = process.and_then(|process| process.pid);
        let who = process.map_or_else(|| "the process".to_owned(), ToString::to_string);
        let state = self.process.unwrap_or_default();
        match &self.why {
            _ if self.stopped => Reason::stopped(&who, pid),
            Why::Stopped => Reason::stopped(&who, pid),
            Why::Fails(failure) => Reason::fails(&who, pid, failure),
            Why::GaveUp(failure) => Reason::gave_up(&who, failure),
            Why::Exited { last, holder } => Reason::exited(last, holder.as_deref()),
            Why::NotInterested { seen } => Reason::not_interested(&who, *seen),
            Why::Kernel { made_by } => Reason::of_kernel(made_by),
            Why::Unknown | Why::Busy { .. } if state.is_at_file_limit() => {
                Reason::at_file_limit(&who, pid, state.open_files_limit)
            }
            Why::Busy { processes, running, stopped } if !stopped.is_empty() => {
                Reason::partly_stopped(stopped, *processes, *running, &state)
            }
            Why::Busy { processes, running, .. } => Reason::busy(&who, pid, *processes, *running, &state),
            Why::Unknown => Reason::unknown(&who, pid, &state),
        }
    }

    /// What keeps it from coming back, in the program's own words: prlimit, for one, ends with the process.
    pub(super) fn lasting_remedy(&self, subject: &Party) -> Vec<Remedy> {
        let limit =
            self.process.filter(ProcessState::is_at_file_limit).and_then(|state| state.open_files_limit);
        let need = match &self.why {
            _ if self.stopped => return Vec::new(),
            Why::Fails(failure) | Why::GaveUp(failure) if failure.errno == EMFILE => {
                failure.open_files_limit.map(|limit| Need::Descriptors(limit.saturating_mul(4)))
            }
            Why::NotInterested { .. } => Some(Need::Connections(None)),
            Why::Unknown | Why::Busy { .. } if limit.is_some() => {
                limit.map(|limit| Need::Descriptors(limit.saturating_mul(4)))
            }
            Why::Busy { .. } => Some(Need::Workers(None)),
            _ => None,
        };
        need.map_or_else(Vec::new, |need| own_words::of(subject, need))
    }

    /// Adds what is known to `evidence`.
    pub(super) fn add_to(&self, evidence: Evidence) -> Evidence {
        let process = self.process;
        let some =
            |number: fn(&ProcessState) -> u32| process.as_ref().map(number).filter(|number| *number > 0);
        let failure = match &self.why {
            Why::Fails(failure) | Why::GaveUp(failure) => Some(failure),
            _ => None,
        };
        evidence
            .with_some("threads", process.map(|process| process.threads))
            .with_some("threads_running", process.map(|process| process.running))
            .with_some("threads_stopped", some(|process| process.stopped))
            .with_some("threads_blocked", some(|process| process.blocked))
            .with_some("threads_in_epoll", some(|process| process.in_epoll))
            .with_some(
                "watches_listener",
                process.and_then(|process| process.watches).map(|watch| match watch {
                    Watch::No => "no",
                    Watch::Level => "yes",
                    Watch::Edge => "for changes",
                    Watch::NoEpoll => "no epoll",
                }),
            )
            .with_some("accept_errno", failure.map(|failure| errno_name(failure.errno)))
            .with_some("accept_failed_at", failure.map(|failure| failure.last.to_string()))
            .with_some("open_files", process.and_then(|process| process.open_files))
            .with_some("open_files_limit", process.and_then(|process| process.open_files_limit))
    }
}

/// Every thread that was seen accepting sleeps in its event loop.
fn loops(state: &ProcessState) -> bool {
    state.calls_known && state.acceptors > 0 && state.acceptors == state.acceptors_in_epoll
}

/// Every thread sleeps, one in an event loop at least, and none waits for something that cannot be looked into.
fn is_asleep(state: &ProcessState) -> bool {
    state.calls_known && state.in_epoll > 0 && state.threads == state.in_epoll + state.in_futex
}

/// No thread that accepts waits in accept() or for events, and the process is not stopped: each runs, or waits for something else.
fn is_at_work(state: &ProcessState) -> bool {
    state.calls_known && state.stopped == 0 && state.acceptors > 0 && state.acceptors_waiting == 0
}

fn exited(listener: &Listener, accepted: &[(u32, Timestamp)], world: &Correlator) -> Why {
    let processes = world.processes();
    let name = |pid: u32| name_of(listener, pid, world);
    let Some((pid, time)) = accepted.first() else { return Why::Unknown };
    let holder = listener.owners.iter().map(|owner| owner.pid).find(|pid| processes.exited(*pid).is_none());
    // A process's end is seen before its listener's. Who is not known to keep it open must have kept it for a while.
    let kept = || {
        let read = listener.readings.latest().map(|reading| reading.time);
        let gone = processes.exited(*pid);
        read.zip(gone).is_some_and(|(read, gone)| read >= gone.after(RECENT))
    };
    if listener.closed.is_some() || (holder.is_none() && !kept()) {
        return Why::Unknown;
    }
    Why::Exited { last: (name(*pid), *time), holder: holder.map(name) }
}

fn name_of(listener: &Listener, pid: u32, world: &Correlator) -> String {
    let comm = listener.owners.iter().find(|owner| owner.pid == pid).map_or("", |owner| &owner.comm);
    ProcessName::observed(pid, comm, world.processes()).to_string()
}

/// What processes that are at work do, as far as it shows.
fn doing(running: u32, state: &ProcessState) -> String {
    if running > 0 {
        format!("{} running", count(running.into(), "thread", "threads"))
    } else if state.blocked > 0 {
        "in uninterruptible sleep: disk, network file system, a kernel lock".to_owned()
    } else {
        "waiting for something else".to_owned()
    }
}

impl Reason {
    fn stopped(who: &str, pid: Option<u32>) -> Self {
        Self {
            code: "process-stopped",
            words: format!(": {who} is stopped (by a signal or a debugger)"),
            remedy: match pid {
                Some(pid) => Remedy::command(format!("continue {who}"), format!("kill -CONT {pid}")),
                None => Remedy::text("continue the process"),
            },
            observed: true,
        }
    }

    fn fails(who: &str, pid: Option<u32>, failure: &AcceptFailure) -> Self {
        let errno = errno_name(failure.errno);
        if failure.errno == EMFILE {
            let limit = failure.open_files_limit;
            let words = limit.map_or_else(String::new, |limit| format!(" ({limit} open files)"));
            return Self {
                code: "fd-limit",
                words: format!(": accept() of {who} fails with {errno}, at its limit of descriptors{words}"),
                remedy: more_files(pid, limit),
                observed: true,
            };
        }
        Self {
            code: "accept-fails",
            words: format!(": accept() of {who} fails with {errno}"),
            remedy: Remedy::text(format!("see what {who} may not have: {errno}")),
            observed: true,
        }
    }

    fn gave_up(who: &str, failure: &AcceptFailure) -> Self {
        let errno = errno_name(failure.errno);
        let limit = failure.open_files_limit.filter(|_| failure.errno == EMFILE);
        let at = limit.map_or_else(String::new, |limit| format!(" (its limit was {limit} open files)"));
        let time = failure.last;
        Self {
            code: "gave-up",
            words: format!(
                ": accept() of {who} failed with {errno} at {time}{at}, and it has not called accept() again"
            ),
            remedy: Remedy::text(format!(
                "restart {who}, which has given up accepting{}; a program should go on after {errno}",
                if failure.errno == EMFILE {
                    ", with a higher limit of open files (LimitNOFILE=, ulimit -n)"
                } else {
                    ""
                },
            )),
            observed: true,
        }
    }

    fn exited((last, time): &(String, Timestamp), holder: Option<&str>) -> Self {
        let keeps = holder.map_or_else(
            || "another process keeps the socket open".to_owned(),
            |holder| format!("{holder} keeps the socket open and was not seen accepting"),
        );
        Self {
            code: "acceptor-exited",
            words: format!(": {last} accepted until {time} and has exited; {keeps}"),
            remedy: Remedy::text(format!(
                "find out why {last} exited, and start it again (systemctl status of its unit, its log)"
            )),
            observed: true,
        }
    }

    fn not_interested(who: &str, seen: bool) -> Self {
        Self {
            code: "not-interested",
            words: format!(
                ": {who} sleeps in its event loop, and has taken the listener out of it. It chooses not to accept, as programs do \
                 at their own limit of connections"
            ),
            remedy: Remedy::text(format!(
                "look at the connection limit of {who} itself (maxconn, worker_connections, max_connections or the like), and at \
                 connections that it keeps open; its log may say that the limit is reached"
            )),
            observed: seen,
        }
    }

    fn of_kernel(made_by: &str) -> Self {
        Self {
            code: "not-accepting",
            words: format!(
                ": no process has this socket open. It belongs to the kernel itself (a server such as nfsd, or SMC); {made_by} had \
                 it made"
            ),
            remedy: Remedy::text(
                "look at the kernel's server that listens there (nfsd: /proc/fs/nfsd/threads)",
            ),
            observed: false,
        }
    }

    fn at_file_limit(who: &str, pid: Option<u32>, limit: Option<u64>) -> Self {
        let value = limit.unwrap_or_default();
        Self {
            code: "fd-limit",
            words: format!(": {who} is at its limit of {value} open files, so accept() fails"),
            remedy: more_files(pid, limit),
            observed: true,
        }
    }

    /// Some are stopped, and the others are busy: the stopped ones could accept at once.
    fn partly_stopped(
        stopped: &[(String, u32)],
        processes: usize,
        running: u32,
        state: &ProcessState,
    ) -> Self {
        let names: Vec<&str> = stopped.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(" and ");
        let (is, it, others) = match (stopped.len(), processes - stopped.len()) {
            (1, 1) => ("is", "it", "the other is".to_owned()),
            (1, many) => ("is", "it", format!("the other {many} are")),
            (_, 1) => ("are", "they", "the other is".to_owned()),
            (_, many) => ("are", "they", format!("the other {many} are")),
        };
        let doing = doing(running, state);
        let pids: Vec<String> = stopped.iter().map(|(_, pid)| pid.to_string()).collect();
        Self {
            code: "busy",
            words: format!(
                ": of {processes} processes that accept, {names} {is} stopped (by a signal or a debugger), and {others} at work on \
                 something else ({doing})"
            ),
            remedy: Remedy::command(
                format!("continue {names}: {it} could accept, and {others} busy"),
                format!("kill -CONT {}", pids.join(" ")),
            ),
            observed: true,
        }
    }

    fn busy(who: &str, pid: Option<u32>, processes: usize, running: u32, state: &ProcessState) -> Self {
        let doing = doing(running, state);
        let words = match processes {
            1 => format!(": {who}, which accepts, is at work on something else ({doing})"),
            many => format!(": all {many} processes that accept are at work on something else ({doing})"),
        };
        let text = match processes {
            1 => format!("add workers, or let {who} do less between two accepts"),
            many => format!("add workers: all {many} are busy, {who} is one of them"),
        };
        Self {
            code: "busy",
            words,
            remedy: match pid {
                Some(pid) => Remedy::command(
                    format!("{text}; what it does now shows in its kernel stacks"),
                    format!("cat /proc/{pid}/task/*/stack"),
                ),
                None => Remedy::text(text),
            },
            observed: true,
        }
    }

    fn unknown(who: &str, pid: Option<u32>, state: &ProcessState) -> Self {
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
        Self {
            code: "not-accepting",
            words,
            remedy: match pid {
                Some(pid) => Remedy::command(
                    format!("find out what {who} does instead of accepting"),
                    format!("cat /proc/{pid}/task/*/stack"),
                ),
                None => Remedy::text("find out what the process does instead of accepting"),
            },
            observed: true,
        }
    }
}

/// To raise a process's limit on open files.
pub(super) fn more_files(pid: Option<u32>, limit: Option<u64>) -> Remedy {
    match pid.zip(limit) {
        Some((pid, limit)) => Remedy::command(
            "raise the limit on open files (for good: LimitNOFILE= of its unit, or ulimit -n), then look for connections that are \
             never closed",
            format!("prlimit --pid {pid} --nofile={}", limit.saturating_mul(4)),
        ),
        // It is gone, or its number is not known: its next run needs the higher limit.
        None => {
            let value = limit.map_or_else(String::new, |limit| {
                format!(", {limit}, to {} for example", limit.saturating_mul(4))
            });
            Remedy::text(format!(
                "raise the limit on open files (RLIMIT_NOFILE{value}; LimitNOFILE= of its unit, or ulimit -n), then look for \
                 connections that are never closed"
            ))
        }
    }
}

/// `1 thread accepts`, `2 processes accept`, `8 threads of 2 processes accept`: as far as they were seen doing it, those that have
/// exited left out.
pub(super) fn who_accepts(listener: &Listener, world: &Correlator) -> String {
    let living = |pid: &u32| world.processes().exited(*pid).is_none();
    let processes = listener.acceptors.processes().into_iter().filter(|(pid, _)| living(pid)).count();
    let threads = listener.acceptors.count();
    match (threads, processes) {
        (0, _) => "no process was seen accepting".to_owned(),
        (_, 0) => "the process that accepted has exited".to_owned(),
        (1, _) => "1 thread accepts".to_owned(),
        (_, 1) => format!("{threads} threads accept"),
        (_, many) => format!("{many} processes accept"),
    }
}
