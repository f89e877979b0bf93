//! accept-failed: accept() itself fails, for want of descriptors or memory, or because it is forbidden. The kernel has completed
//! the handshakes: clients are connected, and not served.
//!
//! "node[4711] 0.0.0.0:3000 cannot accept: EMFILE, its limit of 40 open files is reached"

use std::time::Duration;

use crate::correlate::{AcceptFailure, Change, Correlator, Listener, ListenerId};
use crate::event::{Timestamp, observation};
use crate::software::Need;

use super::case::{Concern, Description, Diagnosis};
use super::owner_state::{EMFILE, more_files};
use super::words::{count, errno_name, span};
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Remedy, Severity, keys,
    own_words,
};

/// errno values that are told apart.
const EPERM: u32 = 1;
const ENFILE: u32 = 23;

/// Failures, or time over which there were any, from which clients are hurt. A program that waits a moment and then finds a free
/// descriptor has fewer.
const HURTS: u64 = 10;
const HURTS_AFTER: Duration = Duration::from_secs(1);

/// The diagnosis.
#[derive(Default)]
pub(super) struct AcceptFailed;

/// Failures in progress.
pub(super) struct Failing {
    first: Timestamp,
    last: Timestamp,
    /// Failures that an earlier finding of this listener has counted.
    before: u64,
    deepest: u32,
    /// Connections that had been accepted when it began, where that is counted.
    accepted_before: Option<u64>,
}

impl Diagnosis for AcceptFailed {
    const KIND: FindingKind = FindingKind {
        code: "accept-failed",
        opens_when: "accept() fails for want of descriptors or memory, or is forbidden",
        page: include_str!("../../../docs/findings/accept-failed.md"),
        observations: &["accept-failed"],
        tracepoint_tier: "failed calls are seen as they return; those of 32-bit programs are not.",
        causes: &[
            CauseRule {
                code: "fd-limit",
                means: "accept() failed with EMFILE: the process has as many files open as it may (`RLIMIT_NOFILE`)",
                certain: Some("accept() of this process on this listener returned EMFILE"),
                likely: None,
                possible: None,
                told_apart: &[
                    Apart { from: "`file-max`: the host's limit", by: "that is another error, ENFILE" },
                    Apart {
                        from: "a program that is not ready to accept",
                        by: "it called accept(), and the call failed",
                    },
                ],
            },
            CauseRule {
                code: "file-max",
                means: "accept() failed with ENFILE: the host has as many files open as it may (`fs.file-max`)",
                certain: Some("accept() returned ENFILE, and the host's open files are at `fs.file-max`"),
                likely: Some(
                    "accept() returned ENFILE; the host's open files were read a moment later, and were fewer",
                ),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "`fd-limit`: the process's own limit",
                        by: "that is another error, EMFILE",
                    },
                    Apart {
                        from: "no memory for another socket, which gives ENFILE as well",
                        by: "`fs.file-nr`: the number of open files is at the limit",
                    },
                ],
            },
            CauseRule {
                code: "no-memory",
                means: "accept() failed with ENOBUFS or ENOMEM: the kernel had no memory for it",
                certain: Some("accept() returned ENOBUFS or ENOMEM"),
                likely: None,
                possible: None,
                told_apart: &[Apart {
                    from: "a limit on descriptors",
                    by: "those are other errors, EMFILE and ENFILE",
                }],
            },
            CauseRule {
                code: "denied",
                means: "accept() failed with EPERM: a security module or a filter of system calls forbids it",
                certain: Some("accept() returned EPERM"),
                likely: None,
                possible: None,
                told_apart: &[Apart {
                    from: "a firewall that drops connections",
                    by: "the handshake was completed: the connection waited in the accept queue",
                }],
            },
        ],
        evidence: &[
            keys::number("accepted_meanwhile", "connections accepted since accept() failed first"),
            keys::DURATION_S,
            keys::ERRNO,
            keys::number("failures", "accept() calls that failed"),
            keys::number("file_max", "`fs.file-max`"),
            keys::number("files_of_host", "open files of the whole host"),
            keys::OPEN_FILES_LIMIT,
            keys::number("processes", "processes whose accept() fails"),
            keys::QUEUE,
            keys::QUEUE_LIMIT,
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ListenerId;
    type Memory = Failing;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<ListenerId>> {
        match change {
            Change::AcceptFailed(id) => Some(Concern::Happened(*id)),
            Change::ListenerRead(id) => Some(Concern::Known(*id)),
            Change::ListenerClosed(id) => Some(Concern::Gone(*id)),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ListenerId, world: &Correlator) -> Failing {
        let listener = world.listener(*key);
        let failures = || listener.into_iter().flat_map(|listener| &listener.accept_failures);
        let newest = failures().max_by_key(|failure| failure.last);
        // The time is the failure's: other processors' later events may have come before it.
        let first = newest.map_or(world.now(), |failure| failure.last);
        let all: u64 = failures().map(|failure| failure.total).sum();
        // What begins with this very event is new, whatever number it has: not each failure is reported.
        let new = newest.map_or(1, |failure| if failure.first == failure.last { failure.total } else { 1 });
        Failing {
            first,
            last: first,
            before: all.saturating_sub(new),
            deepest: 0,
            accepted_before: newest.and_then(|failure| failure.accepted),
        }
    }

    fn observe(&mut self, key: &ListenerId, memory: &mut Failing, change: &Change, world: &Correlator) {
        let Some(listener) = world.listener(*key) else { return };
        memory.deepest = memory.deepest.max(listener.depth);
        if let Change::AcceptFailed(_) = change {
            let last = listener.accept_failures.iter().map(|failure| failure.last).max();
            memory.last = memory.last.max(last.unwrap_or_default());
        }
    }

    fn describe(&self, key: &ListenerId, memory: &Failing, world: &Correlator) -> Option<Description> {
        describe(world.listener(*key)?, memory, world)
    }
}

fn describe(listener: &Listener, memory: &Failing, world: &Correlator) -> Option<Description> {
    let ours = || listener.accept_failures.iter().filter(|failure| failure.last >= memory.first);
    let failure = ours().max_by_key(|failure| failure.last)?;
    let all: u64 = listener.accept_failures.iter().map(|failure| failure.total).sum();
    let failures = all.saturating_sub(memory.before).max(1);
    let processes = {
        let mut pids: Vec<u32> = ours().map(|failure| failure.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        pids.len()
    };
    let subject = Party {
        process: Some(ProcessName::observed(failure.pid, &failure.comm, world.processes())),
        ..Party::of_listener(listener, world)
    };
    let errno = errno_name(failure.errno);
    let lasting = memory.last.since(memory.first);
    let over = if lasting.is_zero() { String::new() } else { format!(" in {}", span(lasting)) };
    let meanwhile = accepted_meanwhile(listener, memory, world);
    let waiting = listener.depth;
    let reason = reason(failure, &subject, listener, world);
    let explanation = format!("{}{}", reason.words, in_reserve(meanwhile, failures));
    let by = if processes > 1 { format!(" of {processes} processes") } else { String::new() };
    let mut numbers = vec![format!(
        "accept(){by} failed {}{over} ({errno}); {} waiting",
        count(failures, "time", "times"),
        count(waiting.into(), "connection", "connections"),
    )];
    numbers.extend(meanwhile.filter(|meanwhile| *meanwhile > 0).map(|meanwhile| {
        format!("{} accepted meanwhile", count(meanwhile, "connection was", "connections were"))
    }));
    let knobs = world.namespace(listener.endpoints.netns).map(|namespace| &namespace.knobs);
    let value = |value: Option<u32>| value.map_or_else(String::new, |value| format!(" ({value})"));
    let mut remedy = reason.remedy;
    remedy.push(Remedy::not(format!(
        "neither the backlog{} nor net.core.somaxconn{} is the cause: a longer queue only lets more wait",
        value(listener.limit_seen.then_some(listener.limit)),
        value(knobs.and_then(|knobs| knobs.somaxconn)),
    )));
    Some(Description {
        severity: if failures >= HURTS || lasting >= HURTS_AFTER {
            Severity::Critical
        } else {
            Severity::Warning
        },
        confidence: reason.confidence,
        title: format!("{subject} cannot accept: {}", reason.title),
        subject,
        cause: reason.code,
        numbers,
        evidence: Evidence::new()
            .with("errno", errno)
            .with("failures", failures)
            .with("duration_s", lasting.as_secs_f64())
            .with("open_files_limit", failure.open_files_limit)
            .with_some("file_max", failure.host_files_limit)
            .with_some("files_of_host", failure.host_files)
            .with("processes", u64::try_from(processes).unwrap_or(u64::MAX))
            .with("queue", memory.deepest)
            .with("queue_limit", listener.limit_seen.then_some(listener.limit))
            .with("accepted_meanwhile", meanwhile)
            .with("why", explanation.as_str()),
        remedy,
        explanation,
    })
}

/// Connections accepted since the first failure; `None` where that is not counted for this listener.
fn accepted_meanwhile(listener: &Listener, memory: &Failing, world: &Correlator) -> Option<u64> {
    if !world.observes(observation::ACCEPT) {
        return None;
    }
    let at_failures = listener.accept_failures.iter().filter_map(|failure| failure.accepted).max();
    Some(listener.totals.accepted.max(at_failures)?.saturating_sub(memory.accepted_before?))
}

/// Accepts between the failures, one for each as a rule: descriptors that became free, or one that is kept in reserve.
fn in_reserve(meanwhile: Option<u64>, failures: u64) -> &'static str {
    if meanwhile.is_some_and(|meanwhile| failures >= 3 && meanwhile.saturating_mul(2) >= failures) {
        ". Between the failures it accepts: if it keeps a descriptor in reserve for this (libuv does, so Node.js), it closes those \
         connections at once, and their clients are cut off"
    } else {
        ""
    }
}

/// Why it fails.
struct Reason {
    code: &'static str,
    confidence: Confidence,
    title: String,
    words: String,
    remedy: Vec<Remedy>,
}

fn reason(failure: &AcceptFailure, subject: &Party, listener: &Listener, world: &Correlator) -> Reason {
    let who = subject.process.as_ref().map_or_else(|| "the process".to_owned(), ToString::to_string);
    match failure.errno {
        EMFILE => {
            let limit = failure.open_files_limit;
            let value = limit.map_or_else(String::new, |limit| format!(" of {limit} open files"));
            let as_knob = limit.map_or_else(String::new, |limit| format!(", {limit}"));
            // A process that is gone is restarted with another limit.
            let pid = Some(failure.pid).filter(|pid| world.processes().exited(*pid).is_none());
            Reason {
                code: "fd-limit",
                confidence: Confidence::Certain,
                title: format!("EMFILE, its limit{value} is reached"),
                words: format!(
                    "{who} has as many files open as it may (RLIMIT_NOFILE{as_knob}), so accept() gives EMFILE"
                ),
                remedy: [more_files(pid, limit)]
                    .into_iter()
                    .chain(limit.map_or_else(Vec::new, |limit| {
                        own_words::of(subject, Need::Descriptors(limit.saturating_mul(4)))
                    }))
                    .collect(),
            }
        }
        ENFILE => {
            let limit = failure.host_files_limit;
            let full = failure.host_files.zip(limit).is_some_and(|(open, limit)| open >= limit);
            let value = limit.map_or_else(String::new, |limit| format!(" ({limit})"));
            Reason {
                code: "file-max",
                confidence: if full { Confidence::Certain } else { Confidence::Likely },
                title: format!("ENFILE, the host's limit on open files{value} is reached"),
                words: format!(
                    "the host has as many files open as it may: fs.file-max{value}, so accept() gives ENFILE"
                ),
                remedy: vec![match limit {
                    Some(limit) => Remedy::command(
                        "raise fs.file-max, then look for the process that opens so many files",
                        format!("sysctl -w fs.file-max={}", limit.saturating_mul(4)),
                    ),
                    None => Remedy::text("raise fs.file-max"),
                }],
            }
        }
        EPERM => Reason {
            code: "denied",
            confidence: Confidence::Certain,
            title: "EPERM, it is forbidden".to_owned(),
            words: format!(
                "accept() of {who} gives EPERM: a security module or a filter of system calls (seccomp, SystemCallFilter=) forbids it"
            ),
            remedy: vec![Remedy::text(
                "look at the audit log for what forbids accept() (ausearch -m AVC,SECCOMP; dmesg), and at the unit's SystemCallFilter=",
            )],
        },
        errno => Reason {
            code: "no-memory",
            confidence: Confidence::Certain,
            title: format!("{}, there is no memory for it", errno_name(errno)),
            words: format!(
                "accept() of {who} gives {}: the kernel has no memory for another connection at {}",
                errno_name(errno),
                listener.endpoints.local
            ),
            remedy: vec![Remedy::text(
                "look at the memory limit of its control group (memory.max, memory.events) and at the kernel's memory (dmesg)",
            )],
        },
    }
}

#[cfg(test)]
mod tests;
