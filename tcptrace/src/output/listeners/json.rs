//! One listener a line (`"type":"listener"`), and what they come to (`"type":"summary"`).

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::event::{Owner, OwnerConfidence, SampleSource, canonical};
use crate::finding::{Party, ProcessName};
use crate::stock::{Gap, Listener, Mark, Stock, Traced};

/// A listener.
#[derive(Debug, Serialize)]
pub struct ListenerLine {
    subject: Party,
    netns_name: Option<String>,
    family: &'static str,
    v6only: Option<bool>,
    /// Name of the device that it is bound to.
    device: Option<String>,
    device_index: Option<u32>,
    inode: Option<u64>,
    uid: u32,
    owners: Vec<OwnerLine>,
    queue: u32,
    queue_limit: u32,
    full: bool,
    limited_by: &'static str,
    limited_by_confidence: Option<&'static str>,
    backlog: Option<u32>,
    somaxconn: Option<u32>,
    /// `sk_drops`.
    socket_drops: Option<u32>,
    syn_queue: Option<SynQueueLine>,
    fast_open_pending: Option<u32>,
    reuseport: Option<GroupLine>,
    ephemeral_port: Option<bool>,
    traced: Option<TracedLine>,
    marks: Vec<Mark>,
}

/// A process that has it.
#[derive(Debug, Serialize)]
struct OwnerLine {
    pid: u32,
    comm: String,
    command: Option<String>,
    container: Option<String>,
    uid: Option<u32>,
    fds: Vec<u32>,
    stopped: Option<bool>,
    threads: u32,
    threads_running: Option<usize>,
    threads_blocked: Option<usize>,
    threads_accepting: Option<usize>,
    threads_polling: Option<usize>,
    open_files: Option<u64>,
    open_files_limit: Option<u64>,
}

#[derive(Debug, Serialize)]
struct SynQueueLine {
    requests: u32,
    retransmitted: u32,
    /// Their final ACK has come, and they wait for data (`TCP_DEFER_ACCEPT`).
    deferred: u32,
    /// These numbers are of the whole reuseport group.
    shared: bool,
    limit: u32,
    limited_by: &'static str,
    cookies: Option<bool>,
}

#[derive(Debug, Serialize)]
struct GroupLine {
    members: u32,
    queued: u64,
}

#[derive(Debug, Serialize)]
struct TracedLine {
    for_s: f64,
    source: Option<SampleSource>,
    arrivals: Option<u64>,
    arrivals_per_s: Option<f64>,
    enqueued: Option<u64>,
    accepts: Option<u64>,
    accepts_per_s: Option<f64>,
    syn_drops_accept_queue: Option<u64>,
    syn_drops_syn_queue: Option<u64>,
    syn_drops_max_syn_backlog: Option<u64>,
    syn_drops_no_route: Option<u64>,
    ack_drops_accept_queue: Option<u64>,
    ack_drops_other: Option<u64>,
    drops_inferred: u64,
    cookies_sent: Option<u64>,
    synack_retransmits: Option<u64>,
    requests_expired: Option<u64>,
    queue_max: Option<u32>,
    wait_p50_ms: Option<f64>,
    wait_p99_ms: Option<f64>,
    wait_max_ms: Option<f64>,
    handshake_p50_ms: Option<f64>,
    handshake_p99_ms: Option<f64>,
    accepting_threads: u64,
    last_acceptor_pid: Option<u32>,
}

/// What the listeners come to.
#[derive(Debug, Serialize)]
pub struct StockSummary<'a> {
    /// Listeners that there are, of those that could be looked at.
    pub listeners: usize,
    /// Of these: shown.
    pub shown: usize,
    /// Network namespaces looked into.
    pub namespaces: usize,
    /// What was asked for and leaves something out, as the user wrote it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub filters: &'a [String],
    /// How long was traced, s; null without `--for`.
    pub traced_s: Option<f64>,
    /// What could not be looked at.
    pub missing: &'a [Gap],
}

impl<'a> StockSummary<'a> {
    /// Of a stock of which `shown` listeners were shown.
    pub fn of(stock: &'a Stock, shown: usize, traced: Option<Duration>) -> Self {
        Self {
            listeners: stock.listeners.len(),
            shown,
            namespaces: stock.namespaces,
            filters: &[],
            traced_s: traced.map(|span| span.as_secs_f64()),
            missing: &stock.missing,
        }
    }
}

impl ListenerLine {
    /// Of a listener.
    pub fn of(listener: &Listener) -> Self {
        let socket = &listener.socket;
        let limited_by = listener.limit.limited_by();
        let syn_queue_limit = listener.syn_queue_limit();
        Self {
            subject: subject(listener),
            netns_name: listener.netns_name.as_deref().map(str::to_owned),
            family: match socket.family {
                crate::event::Family::V4 => "v4",
                crate::event::Family::V6 => "v6",
            },
            v6only: socket.v6only,
            device: listener.device_name(),
            device_index: Some(socket.ifindex).filter(|index| *index != 0),
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
            marks: listener.marks(),
        }
    }
}

/// As findings name it.
fn subject(listener: &Listener) -> Party {
    let process = match listener.owner() {
        Some(first) => ProcessName {
            pid: Some(first.process.who.pid),
            comm: Some(first.process.who.comm.clone()),
            command: first.process.who.command.clone(),
            container: first.process.container(),
            confidence: OwnerConfidence::Bootstrapped,
            also: listener
                .owners
                .iter()
                .skip(1)
                .map(|owner| Owner { pid: owner.process.who.pid, comm: owner.process.who.comm.clone() })
                .collect(),
        },
        None => ProcessName::default(),
    };
    let address: SocketAddr = canonical(listener.socket.local);
    Party {
        kind: "listener",
        address: Some(address),
        port: Some(address.port()),
        netns: Some(listener.netns),
        process: Some(process),
        ..Party::default()
    }
}

impl OwnerLine {
    fn of(owner: &crate::stock::Owner) -> Self {
        let (who, state) = (&owner.process.who, owner.process.state.as_ref());
        Self {
            pid: who.pid,
            comm: who.comm.clone(),
            command: who.command.clone(),
            container: owner.process.container(),
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
            last_acceptor_pid: traced.last_acceptor.map(|acceptor| acceptor.pid),
        }
    }
}

/// Without digits that mean nothing.
fn round(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::JsonWriter;
    use crate::stock::testing::{blocked_in, listener, owner};
    use crate::stock::{Group, HalfOpen};

    fn line(listener: &Listener) -> String {
        let mut writer = JsonWriter::new(Vec::new());
        let _ = writer.write("listener", &ListenerLine::of(listener));
        String::from_utf8(writer.into_inner()).unwrap()
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
        let expected = concat!(
            r#"{"type":"listener","subject":{"kind":"listener","address":"0.0.0.0:80","port":80,"netns":4026531840,"#,
            r#""pid":100,"comm":"master","command":"/usr/sbin/master --serve","container":null,"confidence":"bootstrapped","#,
            r#""also":[{"pid":101,"comm":"worker"}]},"netns_name":null,"family":"v4","v6only":null,"device":null,"device_index":null,"#,
            r#""inode":1000,"uid":0,"owners":[{"pid":100,"comm":"master","command":"/usr/sbin/master --serve","#,
            r#""container":null,"uid":0,"fds":[6],"stopped":false,"threads":0,"threads_running":0,"threads_blocked":0,"#,
            r#""threads_accepting":0,"threads_polling":0,"open_files":10,"open_files_limit":1024},{"pid":101,"#,
            r#""comm":"worker","command":"/usr/sbin/worker --serve","container":null,"uid":0,"fds":[6,9],"stopped":false,"#,
            r#""threads":1,"threads_running":0,"threads_blocked":0,"threads_accepting":1,"threads_polling":0,"#,
            r#""open_files":10,"open_files_limit":1024}],"queue":3,"queue_limit":511,"full":false,"#,
            r#""limited_by":"backlog-argument","limited_by_confidence":"likely","backlog":null,"somaxconn":4096,"#,
            r#""socket_drops":0,"syn_queue":{"requests":2,"retransmitted":1,"deferred":0,"shared":false,"limit":511,"#,
            r#""limited_by":"accept-queue-limit","cookies":true},"fast_open_pending":0,"reuseport":{"members":2,"queued":5},"#,
            r#""ephemeral_port":null,"traced":null,"marks":[]}"#,
            "\n"
        );
        assert_eq!(line(&server), expected);
    }

    #[test]
    fn a_listener_that_nobody_can_be_named_for() {
        let mut orphan = listener("[::]:80");
        (orphan.owners, orphan.owners_complete, orphan.half_open) = (vec![], false, None);
        let line: serde_json::Value = serde_json::from_str(&line(&orphan)).unwrap();
        assert_eq!(line["subject"]["pid"], serde_json::Value::Null);
        assert_eq!(line["subject"]["confidence"], "unknown");
        assert_eq!(line["syn_queue"], serde_json::Value::Null);
    }

    #[test]
    fn hostile_names_are_escaped() {
        let mut evil = listener("0.0.0.0:80");
        evil.owners = vec![owner(1, "a\u{1b}[2J\u{202e}", &[3], vec![])];
        let line = line(&evil);
        assert!(line.is_ascii() && !line.contains('\u{1b}'), "{line}");
        assert!(line.contains(r"a\u001b[2J\u202e"), "{line}");
    }
}
