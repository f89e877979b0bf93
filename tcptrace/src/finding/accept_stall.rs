//! accept-stall: connections wait in the accept queue and nobody accepts, though nothing is dropped yet. Once something is,
//! accept-queue-overflow tells of it, and this one says no more.

use std::time::Duration;

use crate::correlate::{Change, Correlator, Listener, ListenerId};
use crate::event::{Timestamp, observation};

use super::accept_queue_overflow::QUIET_AFTER_OVERFLOW;
use super::case::{Concern, Description, Diagnosis};
use super::owner_state::{OwnerState, TRIES_AGAIN, who_accepts};
use super::words::{count, span};
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Remedy, Severity, keys,
};

/// The diagnosis.
#[derive(Default)]
pub(super) struct AcceptStall;

/// A stall in progress.
pub(super) struct Stall {
    since: Timestamp,
    longest: Duration,
    deepest: u32,
    owner: OwnerState,
}

impl Diagnosis for AcceptStall {
    const KIND: FindingKind = FindingKind {
        code: "accept-stall",
        opens_when: "connections wait, and nobody has accepted for 3 s",
        page: include_str!("../../../docs/findings/accept-stall.md"),
        observations: &["accept", "syn-drop"],
        tracepoint_tier: "queue depths are polled and accepts counted by port: `likely`. Where several listeners share a port it is not known which \
         of them accepts, and there is no finding.",
        causes: &[
            CauseRule {
                code: "process-stopped",
                means: "all threads of all processes that accept (of all owners, if none was seen accepting) are stopped, by a signal or a debugger",
                certain: Some(
                    "accepts are observed and there was none for 3 s, connections wait, and the state of every thread was read",
                ),
                likely: Some("accepts are polled, or counted by port"),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "a program that is busy or blocked",
                        by: "the state of every thread is `T` or `t`",
                    },
                    Apart {
                        from: "another process that accepts from the same socket",
                        by: "every process that was seen accepting is stopped, or every owner if none was",
                    },
                ],
            },
            CauseRule {
                code: "fd-limit",
                means: "an owner has as many files open as it may, so accept() fails with EMFILE",
                certain: Some(
                    "accepts are observed and there was none for 3 s, and the owner's open files equal its limit",
                ),
                likely: Some("accepts are polled, or counted by port"),
                possible: None,
                told_apart: &[
                    Apart { from: "a program that is stopped", by: "its threads are not stopped" },
                    Apart {
                        from: "a program that does not call accept()",
                        by: "its number of open files is at RLIMIT_NOFILE: accept() cannot succeed. Where failing accepts are seen, accept-failed reports them",
                    },
                ],
            },
            CauseRule {
                code: "gave-up",
                means: "accept() failed (EMFILE for example), and the program has not called it again: descriptors may be free by now",
                certain: Some(
                    "the failure was seen, no accept() of this listener has succeeded or failed for 3 s since, and connections wait",
                ),
                likely: Some("accepts are polled, or counted by port"),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "a program that goes on trying",
                        by: "each failure is seen: the last was more than 3 s ago. While it tries, accept-failed reports it",
                    },
                    Apart {
                        from: "`process-stopped`",
                        by: "not all threads of the processes that accept are stopped",
                    },
                ],
            },
            CauseRule {
                code: "acceptor-exited",
                means: "the processes that accepted have exited, and another one keeps the socket open (socket activation, a supervisor)",
                certain: Some(
                    "every process that was seen accepting is gone from /proc, and connections wait",
                ),
                likely: Some("accepts are polled, or counted by port"),
                possible: None,
                told_apart: &[
                    Apart { from: "a program that is busy", by: "none of those that accepted is left" },
                    Apart {
                        from: "a successor that is about to accept",
                        by: "nothing excludes it: the process that has the socket now is named, and an accept() of its ends the finding",
                    },
                ],
            },
            CauseRule {
                code: "not-interested",
                means: "the program sleeps in its event loop, which does not watch the listener: it chooses not to accept, as at its own limit of connections",
                certain: Some(
                    "accepts are observed and there was none for 3 s; every thread that was seen accepting sleeps in epoll_wait(), and no epoll instance of theirs watches the listener",
                ),
                likely: Some(
                    "the same, but the processes were not seen accepting before; or accepts are polled, or counted by port",
                ),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "`busy` or a program that is blocked",
                        by: "the threads that accept are in their event loops",
                    },
                    Apart {
                        from: "a program that waits by poll(), select() or io_uring, whose interest is not shown",
                        by: "the threads that accept are not in one of those; where none was seen accepting, no thread is",
                    },
                    Apart {
                        from: "why it chooses so: its own limit (maxconn, worker_connections), a pause, or an accept() that failed before the tracer started",
                        by: "nothing; its own log and status would tell",
                    },
                ],
            },
            CauseRule {
                code: "busy",
                means: "every process that accepts is at work on something else, or stopped: none waits in accept() or for events",
                certain: Some(
                    "accepts are observed and there was none for 3 s; the threads that were seen accepting were looked at, and none waits in accept(), epoll, poll or select. Those that are stopped are named",
                ),
                likely: Some("accepts are polled, or counted by port"),
                possible: None,
                told_apart: &[
                    Apart { from: "`not-interested`", by: "no thread that accepts sleeps in an event loop" },
                    Apart { from: "`process-stopped`", by: "one process at least is not stopped" },
                    Apart { from: "`fd-limit`", by: "the open files are below the limit" },
                ],
            },
            CauseRule {
                code: "not-accepting",
                means: "no process calls accept(), and none of the reasons above was observed: the evidence says what its threads do",
                certain: Some("accepts are observed and there was none for 3 s while connections waited"),
                likely: Some(
                    "accepts are polled, or counted by port; or it is a socket of the kernel itself, which no process has open",
                ),
                possible: None,
                told_apart: &[
                    Apart { from: "`process-stopped`", by: "not all threads of its owners are stopped" },
                    Apart { from: "`fd-limit`", by: "its open files are below the limit" },
                    Apart {
                        from: "`not-interested` and `busy`",
                        by: "nothing, where its threads wait for several things, or may not be looked at: their kernel stacks would tell",
                    },
                    Apart {
                        from: "a listener with no connection to accept",
                        by: "connections wait in its queue: the kernel counts them",
                    },
                ],
            },
        ],
        evidence: &[
            keys::ACCEPT_ERRNO,
            keys::ACCEPT_FAILED_AT,
            keys::ACCEPT_THREADS,
            keys::time("last_accept", "when a connection was accepted last"),
            keys::party("made_by", "process that made the listener and has it no more"),
            keys::NO_ACCEPT_S,
            keys::measure("oldest_wait_ms", "how long the oldest connection has waited"),
            keys::OPEN_FILES,
            keys::OPEN_FILES_LIMIT,
            keys::QUEUE,
            keys::QUEUE_LIMIT,
            keys::SOMAXCONN,
            keys::THREADS,
            keys::THREADS_BLOCKED,
            keys::THREADS_IN_EPOLL,
            keys::THREADS_RUNNING,
            keys::THREADS_STOPPED,
            keys::WATCHES_LISTENER,
        ],
    };
    const QUIET: Duration = Duration::from_secs(5);

    type Key = ListenerId;
    type Memory = Stall;

    fn concern(&self, change: &Change, world: &Correlator) -> Option<Concern<ListenerId>> {
        match change {
            Change::AcceptStalled(id) => {
                let listener = world.listener(*id)?;
                (!is_told_otherwise(listener, world.now())).then_some(Concern::Happened(*id))
            }
            Change::ListenerRead(id) => Some(Concern::Known(*id)),
            Change::Overflowed { listener, .. }
            | Change::Imbalanced(listener)
            | Change::AcceptFailed(listener) => Some(Concern::Over(*listener)),
            Change::ListenerClosed(id) => Some(Concern::Gone(*id)),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ListenerId, world: &Correlator) -> Stall {
        let since = world.listener(*key).and_then(Listener::stalled_since).unwrap_or(world.now());
        Stall { since, longest: Duration::ZERO, deepest: 0, owner: OwnerState::default() }
    }

    fn observe(&mut self, key: &ListenerId, memory: &mut Stall, change: &Change, world: &Correlator) {
        let Some(listener) = world.listener(*key) else { return };
        memory.deepest = memory.deepest.max(listener.depth);
        if let Change::AcceptStalled(_) = change
            && let Some(since) = listener.stalled_since()
        {
            memory.longest = memory.longest.max(world.now().since(since));
        }
        // Once somebody accepts, what the owners do says nothing about the stall any more.
        if listener.stalled_since().is_some_and(|since| since <= memory.since) {
            memory.owner.learn(OwnerState::of(listener, memory.since, world));
        }
    }

    fn describe(&self, key: &ListenerId, memory: &Stall, world: &Correlator) -> Option<Description> {
        Some(describe(world.listener(*key)?, memory, world))
    }
}

/// Whether accept-queue-overflow tells of this stall, or has (connections were dropped in it), or reuseport-imbalance does, or
/// accept-failed while the program goes on trying.
fn is_told_otherwise(listener: &Listener, now: Timestamp) -> bool {
    listener.failing_accept().is_some_and(|failure| now.since(failure.last) < TRIES_AGAIN)
        || listener.last_imbalance.is_some_and(|last| now.since(last) < QUIET_AFTER_OVERFLOW)
        || listener.overflowed_within(QUIET_AFTER_OVERFLOW, now)
        || listener.last_overflow.zip(listener.stalled_since()).is_some_and(|(last, since)| last >= since)
}

fn describe(listener: &Listener, memory: &Stall, world: &Correlator) -> Description {
    let subject = Party::of_listener(listener, world);
    let reason = memory.owner.reason(subject.process.as_ref());
    let full = listener.is_full();
    let waiting = count(memory.deepest.into(), "connection", "connections");
    let longest = span(memory.longest);
    let limit = listener.limit_seen.then_some(listener.limit);
    let explanation = format!("no process has accepted for {longest} while connections wait{}", reason.words);
    let knobs = world.namespace(listener.endpoints.netns).map(|namespace| &namespace.knobs);
    let places = limit.map_or_else(String::new, |limit| format!(" of {}", u64::from(limit) + 1));
    let not_the_limit = format!(
        "nothing is dropped yet; neither the backlog{} nor net.core.somaxconn{} is the cause: a longer queue only lets more wait",
        limit.map_or_else(String::new, |limit| format!(" ({limit})")),
        knobs.and_then(|knobs| knobs.somaxconn).map_or_else(String::new, |value| format!(" ({value})")),
    );
    let observed =
        reason.observed && world.observes(observation::ACCEPT) && world.observes(observation::SYN_DROP);
    let threads = world.observes(observation::ACCEPT).then(|| listener.acceptors.count());
    let made_by = listener.made_by.as_ref().map(|task| Party {
        kind: "process",
        process: Some(ProcessName::of_task(task, world.processes())),
        ..Party::default()
    });
    Description {
        severity: if full || memory.longest >= world.thresholds().accept_stall.critical {
            Severity::Critical
        } else {
            Severity::Warning
        },
        confidence: if observed { Confidence::Certain } else { Confidence::Likely },
        title: format!("{subject} does not accept: connections have waited for {longest}"),
        cause: reason.code,
        numbers: vec![
            format!("{waiting} waiting{places}; the oldest for at least {longest}"),
            match threads {
                Some(0) => "no accept() was seen so far".to_owned(),
                Some(_) => format!("last accept {longest} ago or earlier; {}", who_accepts(listener, world)),
                None => format!("last accept {longest} ago or earlier"),
            },
        ],
        evidence: memory
            .owner
            .add_to(
                Evidence::new()
                    .with("queue", memory.deepest)
                    .with("queue_limit", limit)
                    .with("oldest_wait_ms", memory.longest.as_secs_f64() * 1e3)
                    .with("no_accept_s", memory.longest.as_secs_f64())
                    .with_some("last_accept", listener.last_accept().map(|time| time.to_string()))
                    .with("accept_threads", threads),
            )
            .with_some("made_by", made_by)
            .with_some("somaxconn", knobs.and_then(|knobs| knobs.somaxconn))
            .with("why", explanation.as_str()),
        remedy: [reason.remedy]
            .into_iter()
            .chain(memory.owner.lasting_remedy(&subject))
            .chain([Remedy::not(not_the_limit)])
            .collect(),
        subject,
        explanation,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{Kind, ObservationStatus, ProcessState, Watch};
    use crate::finding::State;
    use crate::finding::testing::{Play, Server, task};

    fn server(play: &mut Play) -> Server {
        let server = Server::new(100, "0.0.0.0:1080", 128);
        server.listen(play, task(6039, "delegated"), Some(128), 4096);
        play.process(6039, "delegated", "delegated -P1080");
        server
    }

    fn state(stopped: u32, open: u64) -> Kind {
        Kind::ProcessState(ProcessState {
            pid: 6039,
            threads: 2,
            stopped,
            sleeping: 2 - stopped,
            open_files: Some(open),
            open_files_limit: Some(1024),
            ..ProcessState::default()
        })
    }

    #[test]
    fn a_server_that_stops_accepting_is_told_before_it_drops() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play);
        server.run(&mut play, 100, 50, 3000);
        server.run(&mut play, 500, 0, 5900);
        assert!(play.findings.is_empty(), "{:#?}", play.findings);
        server.run(&mut play, 500, 0, 9000);
        let finding = play.only();
        assert_eq!((finding.code, finding.cause), ("accept-stall", "not-accepting"));
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Certain));
        assert!(finding.remedy[1].text.contains("neither the backlog (128) nor net.core.somaxconn (4096)"));
        server.run(&mut play, 500, 0, 15_000);
        assert_eq!(play.only().severity, Severity::Critical);
        let evidence = &Play::json(play.only())["evidence"];
        assert!(evidence["no_accept_s"].as_f64().unwrap() >= 10.0, "{evidence}");
        assert_eq!(evidence["queue_limit"], json!(128));
        // Somebody accepts again.
        server.run(&mut play, 500, 10, 25_000);
        assert_eq!(play.only_of("accept-stall").state, State::Closed);
    }

    #[test]
    fn no_more_arrivals_and_so_no_more_samples() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play);
        server.run(&mut play, 300, 0, 1000);
        play.ticks_until(8000);
        assert_eq!(play.only().cause, "not-accepting");
    }

    #[test]
    fn the_process_says_why() {
        for (kind, cause, command) in [
            (state(2, 10), "process-stopped", "kill -CONT 6039"),
            (state(0, 1024), "fd-limit", "prlimit --pid 6039 --nofile=4096"),
            (state(1, 10), "not-accepting", "cat /proc/6039/task/*/stack"),
        ] {
            let mut play = Play::new(4096);
            let mut server = server(&mut play);
            server.run(&mut play, 500, 0, 2000);
            play.send(2500, kind);
            server.run(&mut play, 500, 0, 7000);
            let finding = play.only();
            assert_eq!((finding.cause, finding.remedy[0].command.as_deref()), (cause, Some(command)));
        }
    }

    #[test]
    fn a_server_at_its_limit_on_open_files_says_how_it_is_raised_for_good() {
        let mut play = Play::new(4096);
        let mut server = Server::new(100, "0.0.0.0:80", 128);
        server.listen(&mut play, task(6039, "nginx"), Some(128), 4096);
        play.process(6039, "nginx", "nginx: worker process");
        server.run(&mut play, 500, 0, 2000);
        play.send(2500, state(0, 1024));
        server.run(&mut play, 500, 0, 7000);
        let remedy = &play.only().remedy;
        assert!(
            remedy[0].command.as_deref().is_some_and(|command| command.starts_with("prlimit")),
            "{remedy:?}"
        );
        assert!(remedy[1].text.contains("`worker_rlimit_nofile 4096;` in the main context"), "{remedy:?}");
    }

    /// What its process does while clients wait.
    fn stalled_with(play: &mut Play, server: &mut Server, states: &[ProcessState]) {
        server.run(play, 100, 50, 3000);
        for _ in 0..6 {
            server.run(play, 300, 0, play.now + 1000);
            for state in states {
                play.send(play.now, Kind::ProcessState(*state));
            }
        }
    }

    fn asleep() -> ProcessState {
        ProcessState {
            pid: 6039,
            threads: 2,
            sleeping: 2,
            open_files: Some(10),
            open_files_limit: Some(1024),
            in_epoll: 1,
            calls_known: true,
            acceptors: 1,
            acceptors_in_epoll: 1,
            acceptors_waiting: 1,
            listener: 1100,
            watches: Some(Watch::No),
            ..ProcessState::default()
        }
    }

    #[test]
    fn a_loop_that_does_not_watch_the_listener_has_chosen_so() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play);
        stalled_with(&mut play, &mut server, &[asleep()]);
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), ("not-interested", Confidence::Certain));
        assert!(finding.explanation.contains("has taken the listener out of it"), "{}", finding.explanation);
    }

    #[test]
    fn a_loop_that_watches_it_or_may_do_so_has_not() {
        let watching = ProcessState { watches: Some(Watch::Level), ..asleep() };
        let polling = ProcessState { acceptors_in_epoll: 0, in_epoll: 0, in_poll: 1, ..asleep() };
        let other_listener = ProcessState { listener: 7, ..asleep() };
        let hidden = ProcessState { calls_known: false, ..asleep() };
        for state in [watching, polling, other_listener, hidden] {
            let mut play = Play::new(4096);
            let mut server = server(&mut play);
            stalled_with(&mut play, &mut server, &[state]);
            assert_eq!(play.only().cause, "not-accepting", "{state:?}");
        }
    }

    /// gunicorn[5000] listened, and each of these workers has accepted before the load came. 6039 is one of them.
    fn pre_forked(others: &[u32]) -> (Play, Server) {
        let mut play = Play::new(4096);
        let mut server = Server::new(100, "0.0.0.0:1080", 128);
        server.listen(&mut play, task(5000, "gunicorn"), Some(128), 4096);
        for pid in [6039].iter().chain(others) {
            play.process(*pid, "worker", "gunicorn: worker");
        }
        server.run(&mut play, 100, 50, 2000);
        for pid in others.iter().copied() {
            server.client();
            server.accept(2100, crate::event::Acceptor { pid, tid: pid }, 1);
            play.send(2100, server.sample());
        }
        (play, server)
    }

    /// A worker that is busy with what it accepted.
    fn at_work(pid: u32) -> ProcessState {
        ProcessState {
            pid,
            acceptors_in_epoll: 0,
            acceptors_waiting: 0,
            in_epoll: 0,
            watches: Some(Watch::NoEpoll),
            ..asleep()
        }
    }

    /// Connections come for six seconds and are not accepted; the workers are seen like this.
    fn overwhelmed(play: &mut Play, server: &mut Server, states: &[ProcessState]) {
        for second in 3..=8 {
            server.run(play, 300, 0, second * 1000);
            for state in states {
                play.send(play.now, Kind::ProcessState(*state));
            }
        }
    }

    #[test]
    fn workers_that_accept_are_busy_and_not_the_one_that_listened() {
        let (mut play, mut server) = pre_forked(&[6041]);
        overwhelmed(&mut play, &mut server, &[at_work(6039), at_work(6041)]);
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), ("busy", Confidence::Certain));
        assert!(finding.title.starts_with("worker[6039] 0.0.0.0:1080"), "{}", finding.title);
        assert!(finding.explanation.contains("all 2 processes that accept"), "{}", finding.explanation);
        assert!(finding.numbers[1].contains("2 processes accept"), "{:?}", finding.numbers);
        // One of them idles: then that is no reason.
        let idle = ProcessState { acceptors_waiting: 1, ..at_work(6041) };
        play.send(play.now, Kind::ProcessState(idle));
        assert_eq!(Play::json(play.only())["subject"]["also"][0]["pid"], json!(6041));
    }

    #[test]
    fn a_stopped_worker_among_busy_ones_is_named_and_to_be_continued() {
        let (mut play, mut server) = pre_forked(&[6041, 6042]);
        let paused = ProcessState { stopped: asleep().threads, ..at_work(6042) };
        overwhelmed(&mut play, &mut server, &[at_work(6039), at_work(6041), paused]);
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), ("busy", Confidence::Certain));
        let explanation = &finding.explanation;
        assert!(explanation.contains("of 3 processes that accept, worker[6042] is stopped"), "{explanation}");
        assert!(explanation.contains("the other 2 are at work on something else"), "{explanation}");
        assert_eq!(finding.remedy[0].command.as_deref(), Some("kill -CONT 6042"));
        assert!(
            finding.remedy.iter().any(|remedy| remedy.text.contains("--workers")),
            "{:?}",
            finding.remedy
        );
    }

    #[test]
    fn a_service_that_has_exited_is_told_and_not_who_keeps_its_socket() {
        let mut play = Play::new(4096);
        let mut server = Server::new(100, "0.0.0.0:1080", 128);
        server.listen(&mut play, task(1, "systemd"), Some(128), 4096);
        play.process(6039, "service", "/usr/bin/service");
        let gone = ProcessState { pid: 6039, ..ProcessState::default() };
        stalled_with(&mut play, &mut server, &[gone]);
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), ("acceptor-exited", Confidence::Certain));
        assert!(finding.title.starts_with("service[6039] 0.0.0.0:1080"), "{}", finding.title);
        assert!(finding.explanation.contains("systemd[1] keeps the socket open"), "{}", finding.explanation);
        assert!(finding.remedy.iter().all(|remedy| remedy.command.is_none()), "{:?}", finding.remedy);
    }

    #[test]
    fn a_listener_that_goes_with_its_only_process_is_kept_open_by_no_other() {
        let mut play = Play::new(4096);
        let mut server = Server::new(100, "0.0.0.0:1080", 128);
        server.listen(&mut play, task(6039, "evapp"), Some(128), 4096);
        stalled_with(&mut play, &mut server, &[]);
        let before = play.only().cause;
        play.send(play.now, Kind::ProcessState(ProcessState { pid: 6039, ..ProcessState::default() }));
        play.ticks_until(play.now + 2000);
        assert_eq!(play.only().cause, before, "{:?}", play.only());
        assert_ne!(before, "acceptor-exited");
    }

    #[test]
    fn a_listener_that_was_handed_on_is_its_living_owner_s() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play);
        let found = crate::event::SocketOwner {
            sk: 0,
            inode: 1100,
            endpoints: crate::finding::testing::place("0.0.0.0:1080"),
            owners: vec![crate::event::Owner { pid: 7000, comm: "heir".into() }],
            confidence: crate::event::OwnerConfidence::Likely,
            port_by_number: false,
        };
        play.send(1000, Kind::SocketOwner(Box::new(found)));
        play.send(1000, Kind::ProcessState(ProcessState { pid: 6039, ..ProcessState::default() }));
        server.run(&mut play, 500, 0, 8000);
        let finding = play.only();
        assert!(finding.title.starts_with("heir[7000] 0.0.0.0:1080"), "{}", finding.title);
        assert_eq!(finding.remedy[0].command.as_deref(), Some("cat /proc/7000/task/*/stack"));
    }

    #[test]
    fn a_socket_of_the_kernel_has_no_owner() {
        let mut play = Play::new(4096);
        let mut server = Server::new(100, "0.0.0.0:2049", 128);
        server.inode = 0;
        server.listen(&mut play, task(77, "rpc.nfsd"), Some(128), 4096);
        server.run(&mut play, 500, 0, 8000);
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), ("not-accepting", Confidence::Likely));
        assert!(finding.title.starts_with("0.0.0.0:2049 does not accept"), "{}", finding.title);
        let json = Play::json(finding);
        assert_eq!(json["subject"].get("pid"), None);
        assert_eq!(json["evidence"]["made_by"]["process"]["comm"], json!("rpc.nfsd"));
    }

    #[test]
    fn a_queue_that_falls_is_accepted_from_though_no_accept_is_seen() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play);
        for at in (500..12_000).step_by(500) {
            server.depth = if at % 1000 == 0 { 3 } else { 7 };
            play.send(at, server.sample());
            if at % 1000 == 0 {
                play.tick(at);
            }
        }
        assert!(play.findings.is_empty(), "{:#?}", play.findings);
    }

    #[test]
    fn an_overflow_takes_over() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play);
        server.run(&mut play, 40, 0, 30_000);
        let stall = play.only_of("accept-stall").clone();
        let overflow = play.only_of("accept-queue-overflow").clone();
        assert_eq!((stall.state, overflow.cause), (State::Closed, "accept-stalled"));
        let opened =
            play.findings.iter().position(|finding| finding.code == "accept-queue-overflow").unwrap();
        let closed = play.findings.iter().position(|finding| finding.state == State::Closed).unwrap();
        assert!(closed < opened);
        // The overflow is over for want of arrivals, the stall goes on: it has been told.
        play.ticks_until(60_000);
        assert_eq!(play.only_of("accept-stall").id, stall.id);
    }

    #[test]
    fn idle_servers_and_servers_at_work_are_quiet() {
        let mut play = Play::new(4096);
        let mut server = server(&mut play);
        server.run(&mut play, 100, 90, 10_000);
        // One connection for a while, then none for long.
        for _ in 0..200 {
            server.accept(10_000, crate::event::Acceptor { pid: 6039, tid: 6040 }, 10);
        }
        play.send(10_500, server.sample());
        play.ticks_until(60_000);
        assert!(play.findings.is_empty(), "{:#?}", play.findings);
    }

    #[test]
    fn where_accepts_are_counted_by_port_members_of_a_group_are_not_told_apart() {
        let mut play = Play::polled(4096, ObservationStatus::Attached);
        let mut members = [1, 2].map(|sk| Server::new(sk, "0.0.0.0:80", 128));
        for member in &members {
            member.listen(&mut play, task(6039, "worker"), Some(128), 4096);
        }
        for second in 1..=8 {
            for member in &mut members {
                member.client();
                play.send(second * 1000 - 10, member.polled_sample());
            }
            play.tick(second * 1000);
        }
        assert!(play.findings.is_empty(), "{:#?}", play.findings);
    }

    #[test]
    fn where_queues_are_polled_it_is_likely() {
        let mut play = Play::polled(4096, ObservationStatus::Attached);
        let mut server = server(&mut play);
        for second in 1..=8 {
            if second < 4 {
                server.client();
            }
            play.send(second * 1000 - 10, server.polled_sample());
            play.send(second * 1000 - 5, server.port_sample());
            play.tick(second * 1000);
        }
        let finding = play.only();
        assert_eq!((finding.code, finding.confidence), ("accept-stall", Confidence::Likely));
    }
}
