//! A listener as a line of `tcptrace listeners`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::identity::{Netns, Process, Subject};
use crate::event::{Family, OwnerConfidence, SampleSource, canonical};
use crate::stock::{Listener, MarkKind, Traced};

/// A listener as it is now; `time` is when it was looked at.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ListenerLine {
    /// The listener and the process that has it, as findings name them.
    pub subject: Subject,
    /// Family of the socket: an IPv6 one may take IPv4 connections as well.
    pub family: Family,
    /// IPV6_V6ONLY; null where it cannot be told.
    pub v6only: Option<bool>,
    /// Inode number of the socket.
    pub inode: Option<u64>,
    /// User id of the socket.
    pub uid: u32,
    /// Every process that has it open.
    pub owners: Vec<OwnerLine>,
    /// Connections in the accept queue.
    pub queue: u32,
    /// Limit of the accept queue.
    pub queue_limit: u32,
    /// Whether the accept queue is full.
    pub full: bool,
    /// What sets the limit: backlog-argument, somaxconn…
    pub limited_by: &'static str,
    /// How sure that is.
    pub limited_by_confidence: Option<&'static str>,
    /// The argument of listen(), where it was seen.
    pub backlog: Option<u32>,
    /// `net.core.somaxconn` of its namespace.
    pub somaxconn: Option<u32>,
    /// The socket's own count of drops since it was made (`sk_drops`), whatever their reason.
    pub socket_drops: Option<u32>,
    /// Its half-open requests.
    pub syn_queue: Option<SynQueueLine>,
    /// TCP Fast Open requests that wait.
    pub fast_open_pending: Option<u32>,
    /// The SO_REUSEPORT group that it belongs to; null if it belongs to none.
    pub reuseport: Option<GroupLine>,
    /// Whether its port lies in the ephemeral range, unreserved.
    pub ephemeral_port: Option<bool>,
    /// What a trace saw of it (`--for`).
    pub traced: Option<TracedLine>,
    /// What is wrong with it, or may become so; the worst first.
    pub marks: Vec<MarkLine>,
}

/// Something that is wrong with a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MarkLine {
    /// What kind of thing.
    pub kind: MarkKind,
    /// One sentence.
    pub title: String,
}

/// A process that has a listener open, and what it is doing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OwnerLine {
    /// The process.
    pub process: Process,
    /// Its user id.
    pub uid: Option<u32>,
    /// Its descriptors for the listener.
    pub fds: Vec<u32>,
    /// Whether it is stopped by a signal or a debugger.
    pub stopped: Option<bool>,
    /// Its threads.
    pub threads: u32,
    /// Of these: running or runnable.
    pub threads_running: Option<usize>,
    /// In uninterruptible sleep.
    pub threads_blocked: Option<usize>,
    /// Asleep in accept() on this listener.
    pub threads_accepting: Option<usize>,
    /// Waiting for events (epoll, poll, select, io_uring).
    pub threads_polling: Option<usize>,
    /// Open descriptors.
    pub open_files: Option<u64>,
    /// Limit on them (`RLIMIT_NOFILE`, soft).
    pub open_files_limit: Option<u64>,
}

/// Half-open requests of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SynQueueLine {
    /// How many.
    pub requests: u32,
    /// Of these: those whose SYN-ACK was sent again.
    pub retransmitted: u32,
    /// Of these: their final ACK has come, and they wait for data (`TCP_DEFER_ACCEPT`).
    pub deferred: u32,
    /// Whether these numbers are of the whole reuseport group.
    pub shared: bool,
    /// How many there may be.
    pub limit: u32,
    /// What sets that limit.
    pub limited_by: &'static str,
    /// Whether SYN cookies are sent when it is full.
    pub cookies: Option<bool>,
}

/// A SO_REUSEPORT group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GroupLine {
    /// Its listeners.
    pub members: u32,
    /// Connections in all of their accept queues.
    pub queued: u64,
}

/// What a trace saw of a listener.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TracedLine {
    /// How long was traced, seconds.
    pub for_s: f64,
    /// Whether this was observed event by event, or polled.
    pub source: Option<SampleSource>,
    /// SYNs that reached it.
    pub arrivals: Option<u64>,
    /// These a second.
    pub arrivals_per_s: Option<f64>,
    /// Connections put into the accept queue.
    pub enqueued: Option<u64>,
    /// Connections accepted.
    pub accepts: Option<u64>,
    /// These a second.
    pub accepts_per_s: Option<f64>,
    /// SYNs dropped at the full accept queue.
    pub syn_drops_accept_queue: Option<u64>,
    /// SYNs dropped at the full SYN queue.
    pub syn_drops_syn_queue: Option<u64>,
    /// SYNs dropped because the last quarter of tcp_max_syn_backlog is reserved.
    pub syn_drops_max_syn_backlog: Option<u64>,
    /// SYNs dropped for want of a route for the answer.
    pub syn_drops_no_route: Option<u64>,
    /// Final ACKs dropped at the full accept queue.
    pub ack_drops_accept_queue: Option<u64>,
    /// Final ACKs dropped for another reason.
    pub ack_drops_other: Option<u64>,
    /// Drops that were deduced from polled counters.
    pub drops_inferred: u64,
    /// SYN cookies sent.
    pub cookies_sent: Option<u64>,
    /// SYN-ACKs sent again.
    pub synack_retransmits: Option<u64>,
    /// Half-open requests that expired.
    pub requests_expired: Option<u64>,
    /// Deepest accept queue.
    pub queue_max: Option<u32>,
    /// Accept wait that half of the connections were not over.
    pub wait_p50_ms: Option<f64>,
    /// The same of 99 %.
    pub wait_p99_ms: Option<f64>,
    /// Longest accept wait.
    pub wait_max_ms: Option<f64>,
    /// Handshake time that half of the connections were not over.
    pub handshake_p50_ms: Option<f64>,
    /// The same of 99 %.
    pub handshake_p99_ms: Option<f64>,
    /// Threads that accepted.
    pub accepting_threads: u64,
    /// The process that accepted last.
    pub last_acceptor: Option<Process>,
}

impl ListenerLine {
    /// Of a listener.
    pub fn of(listener: &Listener) -> Self {
        let socket = &listener.socket;
        let limited_by = listener.limit.limited_by();
        let syn_queue_limit = listener.syn_queue_limit();
        Self {
            subject: subject(listener),
            family: socket.family,
            v6only: socket.v6only,
            inode: Some(socket.inode).filter(|inode| *inode != 0),
            uid: socket.uid,
            owners: listener.owners.iter().map(OwnerLine::of).collect(),
            queue: socket.depth,
            queue_limit: socket.limit,
            full: listener.is_full(),
            limited_by: limited_by.name(),
            limited_by_confidence: limited_by.confidence(),
            backlog: listener.limit.backlog,
            somaxconn: listener.limit.somaxconn,
            socket_drops: socket.drops,
            syn_queue: listener.half_open.map(|found| SynQueueLine {
                requests: found.requests,
                retransmitted: found.retransmitted,
                deferred: found.deferred,
                shared: found.shared,
                limit: syn_queue_limit.limit,
                limited_by: syn_queue_limit.set_by,
                cookies: syn_queue_limit.cookies,
            }),
            fast_open_pending: listener.half_open.map(|found| found.fast_open),
            reuseport: listener.group.map(|group| GroupLine { members: group.members, queued: group.queued }),
            ephemeral_port: listener.knobs.is_ephemeral(socket.local.port()),
            traced: listener.traced.as_ref().map(TracedLine::of),
            marks: listener
                .marks()
                .into_iter()
                .map(|mark| MarkLine { kind: mark.kind, title: mark.text })
                .collect(),
        }
    }
}

/// As findings name it.
fn subject(listener: &Listener) -> Subject {
    let address = canonical(listener.socket.local);
    let first = listener.owner();
    Subject {
        kind: "listener",
        address: Some(address.ip()),
        port: Some(address.port()),
        device: listener.device_name(),
        netns: Some(Netns::named(listener.netns, listener.netns_name.as_deref())),
        process: Some(first.map(|first| Process::read(&first.process.who)).unwrap_or_default()),
        confidence: Some(first.map_or(OwnerConfidence::Unknown, |_| OwnerConfidence::Bootstrapped)),
        also: listener.owners.iter().skip(1).map(|owner| Process::read(&owner.process.who)).collect(),
        ..Subject::default()
    }
}

impl OwnerLine {
    fn of(owner: &crate::stock::Owner) -> Self {
        let (who, state) = (&owner.process.who, owner.process.state.as_ref());
        Self {
            process: Process::read(who),
            uid: who.uid,
            fds: owner.fds.clone(),
            stopped: state.map(|_| owner.process.is_stopped()),
            threads: who.threads,
            threads_running: state.map(crate::identity::state::ProcessState::running),
            threads_blocked: state.map(|state| state.uninterruptible().count()),
            threads_accepting: owner.accepting(),
            threads_polling: owner.polling(),
            open_files: state.and_then(|state| state.open_files),
            open_files_limit: state.and_then(|state| state.open_files_limit),
        }
    }
}

impl TracedLine {
    fn of(traced: &Traced) -> Self {
        let totals = &traced.totals;
        let rate = |count: Option<u64>| count.map(|count| round(traced.per_second(count), 10.0));
        let ms = |time: Duration| round(time.as_secs_f64() * 1000.0, 1000.0);
        let quantile =
            |of: &Option<crate::event::Distribution>, q| of.as_ref().and_then(|d| d.quantile(q)).map(ms);
        Self {
            for_s: round(traced.span.as_secs_f64(), 1000.0),
            source: traced.source,
            arrivals: totals.syns,
            arrivals_per_s: rate(totals.syns),
            enqueued: totals.enqueued,
            accepts: totals.accepted,
            accepts_per_s: rate(totals.accepted),
            syn_drops_accept_queue: totals.syn_drops_accept_queue,
            syn_drops_syn_queue: totals.syn_drops_syn_queue,
            syn_drops_max_syn_backlog: totals.syn_drops_max_syn_backlog,
            syn_drops_no_route: totals.syn_drops_no_route,
            ack_drops_accept_queue: totals.ack_drops_accept_queue,
            ack_drops_other: totals.ack_drops_other,
            drops_inferred: traced.inferred_drops,
            cookies_sent: totals.cookies_sent,
            synack_retransmits: totals
                .retransmits_timer
                .zip(totals.retransmits_duplicate_syn)
                .map(|(timer, again)| timer + again),
            requests_expired: totals.expired,
            queue_max: totals.depth_max,
            wait_p50_ms: quantile(&traced.waits, 0.5),
            wait_p99_ms: quantile(&traced.waits, 0.99),
            wait_max_ms: totals.wait_max_ns.filter(|max| *max > 0).map(|max| ms(Duration::from_nanos(max))),
            handshake_p50_ms: quantile(&traced.handshakes, 0.5),
            handshake_p99_ms: quantile(&traced.handshakes, 0.99),
            accepting_threads: traced.acceptors,
            last_acceptor: traced.last_acceptor.map(|acceptor| Process::named(Some(acceptor.pid), None)),
        }
    }
}

/// Without digits that mean nothing.
fn round(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stock::testing::{blocked_in, listener, owner};
    use crate::stock::{Group, HalfOpen};

    fn line(listener: &Listener) -> serde_json::Value {
        super::super::testing::value(ListenerLine::of(listener).into())
    }

    /// What scripts rely on.
    #[test]
    fn a_listener_line() {
        let mut server = listener("0.0.0.0:80");
        server.owners = vec![
            owner(100, "master", &[6], vec![]),
            owner(101, "worker", &[6, 9], vec![blocked_in(libc::SYS_accept4, 9)]),
        ];
        (server.socket.depth, server.socket.limit, server.limit.limit) = (3, 511, 511);
        server.half_open = Some(HalfOpen { requests: 2, retransmitted: 1, ..HalfOpen::default() });
        server.group = Some(Group { members: 2, queued: 5 });
        let process = |pid: u32, comm: &str| {
            json!({"pid": pid, "comm": comm, "command": format!("/usr/sbin/{comm} --serve"),
                "exe": null, "container": null})
        };
        let owner = |pid: u32, comm: &str, fds: &[u32], threads: u32, accepting: u32| {
            json!({"process": process(pid, comm), "uid": 0, "fds": fds, "stopped": false, "threads": threads,
                "threads_running": 0, "threads_blocked": 0, "threads_accepting": accepting, "threads_polling": 0,
                "open_files": 10, "open_files_limit": 1024})
        };
        let expected = json!({
            "type": "listener",
            "subject": {"kind": "listener", "address": "0.0.0.0", "port": 80,
                "netns": {"id": 4_026_531_840_u32, "name": null}, "process": process(100, "master"),
                "confidence": "bootstrapped", "also": [process(101, "worker")]},
            "family": "v4", "v6only": null, "inode": 1000, "uid": 0,
            "owners": [owner(100, "master", &[6], 0, 0), owner(101, "worker", &[6, 9], 1, 1)],
            "queue": 3, "queue_limit": 511, "full": false, "limited_by": "backlog-argument",
            "limited_by_confidence": "likely", "backlog": null, "somaxconn": 4096, "socket_drops": 0,
            "syn_queue": {"requests": 2, "retransmitted": 1, "deferred": 0, "shared": false, "limit": 511,
                "limited_by": "accept-queue-limit", "cookies": true},
            "fast_open_pending": 0, "reuseport": {"members": 2, "queued": 5}, "ephemeral_port": null,
            "traced": null, "marks": []
        });
        assert_eq!(line(&server), expected);
    }

    #[test]
    fn a_listener_for_which_no_process_can_be_named() {
        let mut orphan = listener("[::]:80");
        (orphan.owners, orphan.owners_complete, orphan.half_open) = (vec![], false, None);
        let line = line(&orphan);
        assert_eq!(line["subject"]["process"]["pid"], serde_json::Value::Null);
        assert_eq!(line["subject"]["confidence"], "unknown");
        assert_eq!(line["syn_queue"], serde_json::Value::Null);
    }

    #[test]
    fn hostile_names_are_escaped() {
        let mut evil = listener("0.0.0.0:80");
        evil.owners = vec![owner(1, "a\u{1b}[2J\u{202e}", &[3], vec![])];
        let line = super::super::testing::text(ListenerLine::of(&evil).into());
        assert!(line.is_ascii() && !line.contains('\u{1b}'), "{line}");
        assert!(line.contains(r"a\u001b[2J\u202e"), "{line}");
    }
}
