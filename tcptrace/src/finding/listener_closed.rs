//! listener-closed: a listener was closed while connections were in its accept queue. They are reset: the clients were
//! connected, and nobody ever served them.

use std::time::Duration;

use crate::correlate::{Change, Closing, Correlator, Listener, ListenerId, Owners};
use crate::event::Timestamp;

use super::case::{Concern, Description, Diagnosis};
use super::words::count;
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Remedy, Severity, keys,
};

/// The diagnosis.
#[derive(Default)]
pub(super) struct ListenerClosed;

/// How the listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Its last process exited, or was killed.
    ProcessExit,
    /// A living process closed it.
    Close,
    /// One or the other.
    Unknown,
    /// A thread of the kernel closed it, for its process: as io_uring does when a process exits.
    ByKernel {
        /// All processes that had it have exited.
        exited: bool,
    },
}

/// What would be no loss.
const TAKEN_OVER: Apart = Apart {
    from: "a queue that other workers take over (SO_REUSEPORT)",
    by: "`net.ipv4.tcp_migrate_req` is 0, or no other socket listened at the address when it closed",
};

impl Diagnosis for ListenerClosed {
    const KIND: FindingKind = FindingKind {
        code: "listener-closed",
        opens_when: "a listener was closed while connections waited in its accept queue: they are reset",
        page: include_str!("../../../docs/findings/listener-closed.md"),
        observations: &["listener-closed"],
        tracepoint_tier: "the close is seen; what was still queued is what the last poll saw.",
        causes: &[
            CauseRule {
                code: "process-exit",
                means: "the last process that had the listener exited or was killed",
                certain: Some("the listener was closed by a process that was exiting"),
                likely: Some(
                    "a thread of the kernel closed it (io_uring does that for a process that exits), and the processes that had it are gone",
                ),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "`close`",
                        by: "the closing task had PF_EXITING set, or no process that had it is left",
                    },
                    TAKEN_OVER,
                ],
            },
            CauseRule {
                code: "close",
                means: "a process closed it, and goes on",
                certain: Some("the listener was closed by a process that was not exiting"),
                likely: None,
                possible: Some(
                    "who closed it could not be seen, or was a thread of the kernel: it was this or `process-exit`",
                ),
                told_apart: &[
                    Apart {
                        from: "`process-exit`",
                        by: "the closing task was not exiting, where that was observed",
                    },
                    TAKEN_OVER,
                ],
            },
        ],
        evidence: &[
            keys::number("accepted", "connections that were accepted before it was closed"),
            keys::party("closed_by", "process that closed it"),
            keys::HALF_OPEN,
            keys::QUEUE_LIMIT,
            keys::number("reset", "connections in the accept queue that were reset"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(5);

    type Key = ListenerId;
    type Memory = ();

    fn concern(&self, change: &Change, world: &Correlator) -> Option<Concern<ListenerId>> {
        let Change::ListenerClosed(id) = change else { return None };
        let listener = world.listener(*id)?;
        let queued = listener.closing.as_ref()?.queued;
        (queued > 0 && !is_taken_over(listener, world)).then_some(Concern::Happened(*id))
    }

    fn begin(&mut self, _key: &ListenerId, _world: &Correlator) {}

    fn observe(&mut self, _key: &ListenerId, _memory: &mut (), _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &ListenerId, _memory: &(), world: &Correlator) -> Option<Description> {
        let listener = world.listener(*key)?;
        Some(describe(listener, listener.closing.as_ref()?, world))
    }
}

/// Whether the kernel gives what waited to another listener: with `net.ipv4.tcp_migrate_req` a member of a SO_REUSEPORT group leaves
/// its queue to the others. Two sockets listen at one address only as such a group.
fn is_taken_over(listener: &Listener, world: &Correlator) -> bool {
    let ends = &listener.endpoints;
    let migrates = world.namespace(ends.netns).and_then(|namespace| namespace.knobs.migrate_req);
    migrates == Some(true)
        && world.listeners().at_port(ends.netns, ends.local.port()).any(|other| {
            let at = &other.endpoints;
            other.closed.is_none() && (at.local, at.device) == (ends.local, ends.device)
        })
}

/// Who is alive after the listener's end has not ended with it.
fn how(listener: &Owners, closing: &Closing, closed: Timestamp, world: &Correlator) -> How {
    let processes = world.processes();
    if closing.by_kernel {
        let exited =
            !listener.is_empty() && listener.iter().all(|owner| processes.exited(owner.pid).is_some());
        return How::ByKernel { exited };
    }
    let seen_alive = || {
        let (time, state) = processes.get(closing.task.pid)?.state?;
        Some(time > closed && !state.has_exited())
    };
    match closing.exiting {
        Some(true) => How::ProcessExit,
        Some(false) => How::Close,
        None if seen_alive() == Some(true) => How::Close,
        None => How::Unknown,
    }
}

fn describe(listener: &Listener, closing: &Closing, world: &Correlator) -> Description {
    let how = how(&listener.owners, closing, listener.closed.unwrap_or(world.now()), world);
    let closer = ProcessName::of_task(&closing.task, world.processes());
    let subject = Party::of_listener(listener, world);
    let connections = count(closing.queued.into(), "connection", "connections");
    let they = if closing.queued == 1 { "it was" } else { "they were" };
    let (cause, confidence, explanation) = match how {
        How::ProcessExit => (
            "process-exit",
            Confidence::Certain,
            format!("{closer} exited, and the listener with it: whatever was in its accept queue is reset"),
        ),
        How::Close => (
            "close",
            Confidence::Certain,
            format!("{closer} closed the listener and lives on: whatever was in its accept queue is reset"),
        ),
        How::ByKernel { exited: true } => (
            "process-exit",
            Confidence::Likely,
            format!(
                "its processes have exited, and a thread of the kernel ({closer}) closed the listener for them: whatever was in its \
                 accept queue is reset"
            ),
        ),
        How::ByKernel { exited: false } => (
            "close",
            Confidence::Possible,
            format!(
                "a thread of the kernel ({closer}) closed the listener for its process, at its end or after close() (that cannot be \
                 told here): whatever was in its accept queue is reset"
            ),
        ),
        How::Unknown => (
            "close",
            Confidence::Possible,
            format!(
                "{closer} closed the listener, by close() or by its own end (that cannot be told here): whatever was \
                 in its accept queue is reset"
            ),
        ),
    };
    let limit = listener.limit_seen.then_some(listener.limit);
    let half_open = match closing.half_open {
        0 => String::new(),
        requests => {
            format!("; {} dropped as well", count(requests.into(), "half-open request", "half-open requests"))
        }
    };
    Description {
        severity: Severity::Warning,
        confidence,
        title: format!("{subject} was closed while {connections} waited in its accept queue: {they} reset"),
        subject,
        cause,
        numbers: vec![format!(
            "{connections} established, not accepted, now reset; closed by {closer}{half_open}"
        )],
        evidence: Evidence::new()
            .with("reset", closing.queued)
            .with("half_open", closing.half_open)
            .with("queue_limit", limit)
            .with("closed_by", Party { kind: "process", process: Some(closer), ..Party::default() })
            .with_some("accepted", listener.totals.accepted)
            .with("why", explanation.as_str()),
        remedy: remedy(listener, limit),
        explanation,
    }
}

fn remedy(listener: &Listener, limit: Option<u32>) -> Vec<Remedy> {
    let mut remedy = vec![Remedy::text(
        "stop new arrivals first (take it out of the load balancer), accept what is queued until accept() says EAGAIN, \
         and close the listener after that",
    )];
    let handover = "hand the listening socket to the successor instead of closing it (systemd socket activation, \
                    SCM_RIGHTS, inheritance): the queue then stays";
    remedy.push(Remedy::text(if listener.listen.is_some_and(|call| call.options.reuseport()) {
        format!(
            "{handover}; it has SO_REUSEPORT: net.ipv4.tcp_migrate_req=1 (Linux 5.14 and later) gives queued \
             connections to another listener of the group"
        )
    } else {
        handover.to_owned()
    }));
    let limit = limit.map_or_else(String::new, |limit| format!(" ({limit})"));
    remedy.push(Remedy::not(format!("the queue limit{limit} is not the cause: a longer queue loses more")));
    remedy
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Acceptor, Kind, ProcessState};
    use crate::finding::State;
    use crate::finding::testing::{Play, Server, task};

    fn closed_with(play: &mut Play, waiting: u32) -> Server {
        let mut server = Server::new(100, "0.0.0.0:1080", 128);
        server.listen(play, task(6039, "delegated"), Some(128), 4096);
        play.process(6039, "delegated", "delegated -P1080");
        for _ in 0..waiting + 5 {
            server.client();
        }
        for _ in 0..5 {
            server.accept(100, Acceptor { pid: 6039, tid: 6039 }, 1);
        }
        play.send(1000, server.sample());
        play.tick(1000);
        play.send(1500, server.closed(task(6039, "delegated")));
        server
    }

    #[test]
    fn connections_that_waited_are_counted() {
        let mut play = Play::new(4096);
        closed_with(&mut play, 3);
        play.ticks_until(10_000);
        let finding = play.only();
        assert_eq!(
            (finding.code, finding.state, finding.severity),
            ("listener-closed", State::Closed, Severity::Warning)
        );
        assert_eq!((finding.cause, finding.confidence), ("close", Confidence::Possible));
        assert_eq!(
            finding.title,
            "delegated[6039] 0.0.0.0:1080 was closed while 3 connections waited in its accept queue: they were reset"
        );
        let json = Play::json(finding);
        assert_eq!(json["evidence"]["reset"], json!(3));
        assert_eq!(json["evidence"]["closed_by"]["process"]["pid"], json!(6039));
        assert_eq!(json["subject"]["kind"], json!("listener"));
        assert!(
            finding.remedy.iter().any(|remedy| remedy.text.contains("queue limit (128) is not the cause"))
        );
    }

    #[test]
    fn a_process_that_lives_on_has_closed_it() {
        let mut play = Play::new(4096);
        closed_with(&mut play, 1);
        play.send(
            1600,
            Kind::ProcessState(ProcessState { pid: 6039, threads: 1, sleeping: 1, ..Default::default() }),
        );
        play.ticks_until(4000);
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), ("close", Confidence::Certain));
    }

    #[test]
    fn the_kernel_s_word_decides() {
        let world = Correlator::default();
        let closing =
            |exiting| Closing { task: task(1, "server"), queued: 1, half_open: 0, exiting, by_kernel: false };
        let how = |closing: &Closing| how(&Owners::default(), closing, Timestamp::default(), &world);
        assert_eq!(how(&closing(Some(true))), How::ProcessExit);
        assert_eq!(how(&closing(Some(false))), How::Close);
        assert_eq!(how(&closing(None)), How::Unknown);
    }

    #[test]
    fn a_thread_of_the_kernel_closes_it_for_its_process() {
        for (exits, cause, confidence) in
            [(true, "process-exit", Confidence::Likely), (false, "close", Confidence::Possible)]
        {
            let mut play = Play::new(4096);
            let mut server = Server::new(100, "0.0.0.0:1080", 128);
            server.listen(&mut play, task(6039, "delegated"), Some(128), 4096);
            server.client();
            if exits {
                play.send(1500, Kind::ProcessState(ProcessState { pid: 6039, ..Default::default() }));
            }
            let Kind::ListenerClosed(mut closed) = server.closed(task(77, "kworker/u8:1")) else { panic!() };
            closed.by_kernel = true;
            play.send(1600, Kind::ListenerClosed(closed));
            let finding = play.only();
            assert_eq!((finding.cause, finding.confidence), (cause, confidence));
            assert!(
                finding.title.starts_with("delegated[6039] 0.0.0.0:1080 was closed"),
                "{}",
                finding.title
            );
            assert_eq!(
                Play::json(finding)["evidence"]["closed_by"]["process"]["comm"],
                json!("kworker/u8:1")
            );
        }
    }

    #[test]
    fn a_queue_that_another_worker_takes_over_is_no_loss() {
        for (migrates, other, expected) in
            [(true, "0.0.0.0:1080", 0), (false, "0.0.0.0:1080", 1), (true, "0.0.0.0:1081", 1)]
        {
            let mut play = Play::new(4096);
            play.knobs_but(4096, 1, |knobs| knobs.migrate_req = Some(migrates));
            let sibling = Server::new(200, other, 128);
            sibling.listen(&mut play, task(6040, "delegated"), Some(128), 4096);
            closed_with(&mut play, 3);
            play.ticks_until(10_000);
            let opened = play.findings.iter().filter(|finding| finding.state == State::Opened).count();
            assert_eq!(opened, expected, "{migrates} {other}: {:#?}", play.findings);
        }
        // The last one of the group has nobody to leave it to.
        let mut play = Play::new(4096);
        play.knobs_but(4096, 1, |knobs| knobs.migrate_req = Some(true));
        closed_with(&mut play, 3);
        play.ticks_until(10_000);
        assert_eq!(play.only().code, "listener-closed");
    }

    #[test]
    fn a_restart_that_loses_nothing_is_quiet() {
        let mut play = Play::new(4096);
        closed_with(&mut play, 0);
        let server = Server::new(200, "0.0.0.0:1080", 128);
        server.listen(&mut play, task(6040, "delegated"), Some(128), 4096);
        play.ticks_until(10_000);
        assert!(play.findings.is_empty(), "{:#?}", play.findings);
    }
}
