//! Every key that evidence can have: its form, in which findings and risks it stands, and what it means. The JSON Schema and
//! docs/json.md are made from it; a key that a finding shows and that does not stand here fails the tests that look at all
//! findings.

/// What a value looks like; any of them may be null instead, where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A count or a setting.
    Number,
    /// A measure, with one decimal.
    Measure,
    /// Yes or no.
    Flag,
    /// Words.
    Text,
    /// A point in time.
    Time,
    /// Several words.
    Texts,
    /// Ports from one to another.
    Range,
    /// Several of these.
    Ranges,
    /// An address and a port.
    Endpoint,
    /// A process, or a socket and its process.
    Party,
    /// Several of these.
    Parties,
}

impl Form {
    /// In words, for the page.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Measure => "measure",
            Self::Flag => "true or false",
            Self::Text => "text",
            Self::Time => "time",
            Self::Texts => "list of texts",
            Self::Range => "range `{from, to}`",
            Self::Ranges => "list of ranges",
            Self::Endpoint => "`{address, port}`",
            Self::Party => "subject",
            Self::Parties => "list of subjects",
        }
    }
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, with the unit where it has one.
    pub name: &'static str,
    /// What its value looks like.
    pub form: Form,
    /// The findings and risks that have it (of facts: the events).
    pub of: &'static [&'static str],
    /// What it means.
    pub means: &'static str,
}

const fn key(name: &'static str, form: Form, of: &'static [&'static str], means: &'static str) -> Key {
    Key { name, form, of, means }
}

use Form::{Endpoint, Flag, Measure, Number, Parties, Party, Range, Ranges, Text, Texts, Time};

const ACCEPT_FAILED: &str = "accept-failed";
const OVERFLOW: &str = "accept-queue-overflow";
const STALL: &str = "accept-stall";
const TRUNCATED: &str = "backlog-truncated";
const CONFLICT: &str = "bind-conflict";
const BIND_REFUSED: &str = "bind-refused";
const REFUSED: &str = "connect-refused";
const EXISTS: &str = "connection-exists";
const LOST: &str = "events-lost";
const CAPTURE: &str = "half-open-capture";
const DROPPED: &str = "handshake-dropped";
const CLOSED: &str = "listener-closed";
const NO_LISTENER: &str = "no-listener";
const EXHAUSTION: &str = "port-exhaustion";
const RISK: &str = "port-grab-risk";
const LEAK: &str = "port-leak";
const IMBALANCE: &str = "reuseport-imbalance";
const SLOW: &str = "slow-accept";
const SYN_QUEUE: &str = "syn-queue-full";
const UNANSWERED: &str = "syn-unanswered";

/// Keys of evidence.
#[rustfmt::skip]
pub const EVIDENCE: &[Key] = &[
    key("abort_on_overflow", Flag, &[OVERFLOW, "abort-on-overflow"], "`net.ipv4.tcp_abort_on_overflow`"),
    key("accept_errno", Text, &[OVERFLOW, STALL, IMBALANCE], "errno with which accept() failed last"),
    key("accept_failed_at", Time, &[OVERFLOW, STALL, IMBALANCE], "when accept() failed last"),
    key("accept_threads", Number, &[OVERFLOW, STALL, SLOW], "threads that were seen accepting"),
    key("accepted", Number, &[CLOSED], "connections that were accepted before it was closed"),
    key("accepted_meanwhile", Number, &[ACCEPT_FAILED], "connections accepted since accept() failed first"),
    key("accepts", Number, &[SLOW], "accepts that the waits are of"),
    key("accepts_over_s", Measure, &[SLOW], "the span that the waits are of"),
    key("accepts_per_s", Measure, &[OVERFLOW, SLOW], "accepts a second"),
    key("ack_drops", Number, &[OVERFLOW], "final ACKs dropped at the full accept queue"),
    key("address_device", Text, &[BIND_REFUSED], "device that has the address, which cannot be used yet"),
    key("addresses", Texts, &[BIND_REFUSED], "addresses that this network namespace has"),
    key("arrivals_per_s", Measure, &[OVERFLOW, SLOW, IMBALANCE], "SYNs that reach the listener a second"),
    key("at_least", Flag, &[DROPPED, NO_LISTENER], "the count is a lower bound"),
    key("attempts", Number, &[CONFLICT, BIND_REFUSED, EXISTS], "calls that failed so"),
    key("backlog", Number, &[OVERFLOW, TRUNCATED, SYN_QUEUE], "argument of listen()"),
    key("blocked_by_bound", Number, &[EXHAUSTION], "ports that connect() is not given because listening or bound-only sockets have them"),
    key("by_icmp", Number, &[REFUSED], "connects refused by an ICMP message"),
    key("by_rst", Number, &[REFUSED], "connects refused by RST"),
    key("call", Text, &[EXISTS, EXHAUSTION], "system call that failed: connect or bind"),
    key("cancelled", Number, &[UNANSWERED], "connects that the program gave up"),
    key("capacity", Number, &[EXHAUSTION, LEAK], "ports that the kernel may choose"),
    key("cgroup", Text, &[DROPPED], "control group whose filter dropped it"),
    key("cgroup_programs", Texts, &[DROPPED], "BPF programs that are attached there"),
    key("clients", Parties, &[REFUSED, UNANSWERED], "other processes that call the destination"),
    key("close_wait", Number, &[LEAK], "ports of connections that the peer has closed and the process has not"),
    key("closed_by", Party, &[CLOSED], "process that closed it"),
    key("completed", Number, &[SYN_QUEUE], "handshakes completed meanwhile"),
    key("completed_elsewhere", Number, &[CAPTURE], "handshakes that other networks completed meanwhile"),
    key("completed_elsewhere_percent", Number, &[CAPTURE], "share of these among all of theirs"),
    key("conntrack_count", Number, &[DROPPED], "entries in the connection tracking table"),
    key("conntrack_drops", Number, &[DROPPED], "packets that it dropped because it was full"),
    key("conntrack_max", Number, &[DROPPED], "`net.netfilter.nf_conntrack_max`"),
    key("cookies_sent", Number, &[SYN_QUEUE, CAPTURE], "SYN cookies sent"),
    key("deferred", Number, &[SYN_QUEUE], "requests whose handshake is complete and that wait for data (TCP_DEFER_ACCEPT)"),
    key("destination", Endpoint, &[EXISTS, EXHAUSTION, LEAK], "where the connections lead"),
    key("destinations", Number, &[EXHAUSTION], "destinations that ports are in use toward"),
    key("device", Text, &[CONFLICT, BIND_REFUSED, DROPPED, NO_LISTENER], "device that the socket is bound to, or that the packet was to leave by"),
    key("direction", Text, &[DROPPED], "in or out"),
    key("disable_ipv6", Texts, &[BIND_REFUSED], "devices on which IPv6 is off"),
    key("dropped", Number, &[DROPPED], "packets dropped"),
    key("drops", Number, &[OVERFLOW, IMBALANCE], "drops of either kind, where they cannot be told apart"),
    key("drops_polled", Number, &[OVERFLOW], "of these: deduced from polled counters"),
    key("drops_shared", Flag, &[OVERFLOW], "the drops are counted for all listeners of the namespace together"),
    key("duration_s", Measure, &[OVERFLOW, ACCEPT_FAILED], "how long it has lasted"),
    key("ended_by_icmp", Number, &[CAPTURE], "requests that an ICMP message ended"),
    key("ephemeral_ports", Number, &["small-range"], "ports that the kernel may choose"),
    key("errno", Text, &[ACCEPT_FAILED, CONFLICT, BIND_REFUSED, EXISTS, DROPPED, EXHAUSTION, UNANSWERED], "errno of the call that failed"),
    key("established", Number, &[UNANSWERED], "connects that were answered in the end"),
    key("expired", Number, &[SYN_QUEUE, CAPTURE], "requests that expired unanswered"),
    key("failed_binds", Number, &[EXHAUSTION], "bind() calls that found no port"),
    key("failed_connects", Number, &[EXHAUSTION], "connect() calls that found no port"),
    key("failures", Number, &[ACCEPT_FAILED], "accept() calls that failed"),
    key("fastreuse", Text, &[CONFLICT], "the port's `fastreuse` in the kernel"),
    key("fastreuseport", Text, &[CONFLICT], "the port's `fastreuseport` in the kernel"),
    key("file_max", Number, &[ACCEPT_FAILED], "`fs.file-max`"),
    key("files_of_host", Number, &[ACCEPT_FAILED], "open files of the whole host"),
    key("found_no_port", Parties, &[EXHAUSTION], "processes that found no port"),
    key("free", Number, &[LEAK], "ports that are left"),
    key("from", Time, &[LOST], "not before this"),
    key("function", Text, &[DROPPED], "kernel function that dropped it"),
    key("gc_thresh3", Number, &[DROPPED], "`net.ipv4.neigh.default.gc_thresh3`, or the one of IPv6"),
    key("growth_error_per_min", Measure, &[LEAK], "that may be so much more or less"),
    key("growth_per_min", Measure, &[LEAK], "ports more a minute"),
    key("half_open", Number, &[CAPTURE, CLOSED, SYN_QUEUE], "half-open requests, most at a time"),
    key("holders", Parties, &[CONFLICT, EXISTS, NO_LISTENER, EXHAUSTION, RISK], "sockets that have the port, the one in the way first"),
    key("holders_met", Number, &[CONFLICT], "sockets that the kernel met on the port"),
    key("hook", Text, &[DROPPED], "netfilter hook: PREROUTING, INPUT, OUTPUT…"),
    key("in_use", Number, &[EXHAUSTION, LEAK], "ports in use"),
    key("incomplete", Text, &[CONFLICT, EXISTS, NO_LISTENER, EXHAUSTION], "why not every socket could be looked at"),
    key("ip_local_port_range", Range, &[CONFLICT], "`net.ipv4.ip_local_port_range`"),
    key("ip_local_reserved_ports", Ranges, &[CONFLICT], "`net.ipv4.ip_local_reserved_ports`"),
    key("ip_nonlocal_bind", Flag, &[BIND_REFUSED], "`net.ipv4.ip_nonlocal_bind`, or the one of IPv6"),
    key("ip_unprivileged_port_start", Number, &[BIND_REFUSED], "`net.ipv4.ip_unprivileged_port_start`"),
    key("kernel_ListenOverflows", Number, &[OVERFLOW], "what the kernel's `ListenOverflows` grew by"),
    key("kinds", Texts, &[LOST], "what was lost, with its number"),
    key("last_accept", Time, &[STALL], "when a connection was accepted last"),
    key("left_max_s", Measure, &[LEAK], "at most"),
    key("left_min_s", Measure, &[LEAK], "at least"),
    key("left_s", Measure, &[EXISTS, LEAK], "until the port is free, or none is left"),
    key("limit", Number, &[CAPTURE], "half-open requests that there may be"),
    key("listeners", Number, &[TRUNCATED], "listeners that it happened to"),
    key("longest_ms", Measure, &[UNANSWERED], "longest that a connect waited"),
    key("longest_queue", Number, &["syn-backlog"], "longest accept queue limit of a listener"),
    key("lost", Number, &[LOST], "events lost"),
    key("made_by", Party, &[STALL], "process that made the listener and has it no more"),
    key("max_syn_backlog", Number, &[OVERFLOW, TRUNCATED, SYN_QUEUE, "syn-backlog"], "`net.ipv4.tcp_max_syn_backlog`"),
    key("members", Number, &[IMBALANCE], "listeners of the SO_REUSEPORT group"),
    key("most_syns_again", Number, &[UNANSWERED], "most SYNs that one connect sent again"),
    key("neighbours", Number, &[DROPPED], "entries in the neighbour table"),
    key("networks", Number, &[CAPTURE], "remote networks"),
    key("next_hops", Texts, &[DROPPED], "addresses on the link that did not answer ARP or ND"),
    key("no_accept_s", Measure, &[OVERFLOW, STALL, IMBALANCE], "longest that nothing was accepted while connections waited"),
    key("oldest_ms", Measure, &[CAPTURE], "age of the oldest request"),
    key("oldest_wait_ms", Measure, &[STALL], "how long the oldest connection has waited"),
    key("open_files", Number, &[OVERFLOW, STALL, IMBALANCE], "descriptors that the process has open"),
    key("open_files_limit", Number, &[ACCEPT_FAILED, OVERFLOW, STALL, IMBALANCE], "how many it may have (RLIMIT_NOFILE, soft)"),
    key("options", Texts, &[CONFLICT, BIND_REFUSED, EXISTS], "socket options that are set, as in setsockopt(2)"),
    key("others_arrivals_per_s", Measure, &[IMBALANCE], "SYNs that reach each of the other members a second"),
    key("others_queue", Number, &[IMBALANCE], "connections that wait at the other members"),
    key("own_range", Range, &[EXHAUSTION], "the socket's own range (IP_LOCAL_PORT_RANGE)"),
    key("packet", Text, &[DROPPED], "SYN, SYN-ACK or ACK"),
    key("peers", Number, &[OVERFLOW, DROPPED, NO_LISTENER], "remote addresses"),
    key("peers_more", Flag, &[OVERFLOW], "there are more remote addresses than that"),
    key("place", Text, &[LOST], "where events were lost"),
    key("polled", Flag, &[SYN_QUEUE], "the numbers are polled, not observed event by event"),
    key("port", Number, &[CONFLICT, BIND_REFUSED, EXISTS, RISK], "the port"),
    key("ports", Number, &[LEAK], "ports that the process has"),
    key("ports_at_risk", Ranges, &[RISK], "ports of servers that lie in the ephemeral range, unreserved"),
    key("prefixes", Parties, &[CAPTURE], "the remote networks that answer least"),
    key("processes", Number, &[ACCEPT_FAILED], "processes whose accept() fails"),
    key("queue", Number, &[OVERFLOW, STALL, SLOW, IMBALANCE, ACCEPT_FAILED], "connections in the accept queue, most at a time"),
    key("queue_limit", Number, &[OVERFLOW, STALL, SLOW, IMBALANCE, ACCEPT_FAILED, TRUNCATED, CLOSED, SYN_QUEUE], "limit of the queue"),
    key("range", Range, &[RISK, EXHAUSTION, "small-range"], "`net.ipv4.ip_local_port_range`"),
    key("rates_over_s", Measure, &[OVERFLOW, SLOW, IMBALANCE], "the span that the rates are of"),
    key("reason", Text, &[DROPPED], "the kernel's drop reason"),
    key("refused", Number, &[REFUSED], "connects refused"),
    key("released", Number, &[LEAK], "ports given back meanwhile"),
    key("repeated_syn", Number, &[CAPTURE], "remote addresses that repeated their SYN"),
    key("requested", Endpoint, &[CONFLICT, BIND_REFUSED], "address and port that were asked for"),
    key("requester", Party, &[CONFLICT, BIND_REFUSED, EXISTS, DROPPED, NO_LISTENER, EXHAUSTION, RISK], "process whose call failed"),
    key("requesters", Number, &[EXHAUSTION], "processes that found no port"),
    key("requests", Number, &[CAPTURE], "requests whose SYN-ACK was sent again"),
    key("requests_forgotten", Number, &[CAPTURE], "requests that were too many to be followed"),
    key("reserved", Ranges, &[RISK], "`net.ipv4.ip_local_reserved_ports`"),
    key("reserved_in_range", Number, &["small-range"], "reserved ports in the ephemeral range"),
    key("reset", Number, &[CLOSED], "connections in the accept queue that were reset"),
    key("reset_by_peer", Number, &[CAPTURE], "requests that the peer reset"),
    key("retransmissions", Number, &[CAPTURE], "SYN-ACKs sent again"),
    key("retransmits_timer", Number, &[SYN_QUEUE], "SYN-ACKs sent again by the timer"),
    key("retried_from_new_port", Number, &[CAPTURE], "remote addresses that tried again from another port"),
    key("rule", Text, &[DROPPED], "the netfilter rule: table, chain, and its place"),
    key("server", Party, &[UNANSWERED], "the listener at the other end, on this host"),
    key("server_address", Endpoint, &[DROPPED], "the server that the packets are for, or come from"),
    key("server_count", Number, &[DROPPED], "servers that it happens to alike"),
    key("servers", Parties, &[DROPPED], "some of these"),
    key("servers_at_risk", Parties, &[RISK], "listeners that lie in the ephemeral range"),
    key("shared", Flag, &[SYN_QUEUE], "the numbers are of the whole reuseport group"),
    key("somaxconn", Number, &[OVERFLOW, STALL, SLOW, TRUNCATED, SYN_QUEUE, "syn-backlog"], "`net.core.somaxconn` now"),
    key("somaxconn_at_listen", Number, &[OVERFLOW, TRUNCATED], "`net.core.somaxconn` when listen() was called"),
    key("sources", Number, &[CAPTURE], "remote addresses"),
    key("stage", Text, &[CONFLICT, BIND_REFUSED], "bind or listen"),
    key("steered_from", Endpoint, &[OVERFLOW], "what the clients call, where a program or rule chose this listener for it"),
    key("syn_drops", Number, &[OVERFLOW, SYN_QUEUE, CAPTURE], "SYNs dropped at the full queue"),
    key("syn_drops_max_syn_backlog", Number, &[SYN_QUEUE], "of these: because the last quarter of tcp_max_syn_backlog is reserved"),
    key("synack_retries", Number, &[CAPTURE], "`net.ipv4.tcp_synack_retries`"),
    key("syncookies", Number, &[OVERFLOW, SYN_QUEUE, "syncookies"], "`net.ipv4.tcp_syncookies`"),
    key("syns", Number, &[NO_LISTENER], "SYNs that arrived"),
    key("syns_again", Number, &[UNANSWERED], "SYNs sent again"),
    key("taken", Number, &[LEAK], "ports taken meanwhile"),
    key("taken_from_own_range", Number, &[EXHAUSTION], "ports taken from sockets' own ranges"),
    key("taken_late", Number, &[EXHAUSTION], "ports chosen by connect() after a bind() with IP_BIND_ADDRESS_NO_PORT"),
    key("tcp_timestamps", Number, &[EXISTS], "`net.ipv4.tcp_timestamps`"),
    key("tcp_tw_reuse", Number, &["small-range"], "`net.ipv4.tcp_tw_reuse`"),
    key("threads", Number, &[OVERFLOW, STALL, IMBALANCE], "threads of the process"),
    key("threads_blocked", Number, &[OVERFLOW, STALL, IMBALANCE], "of these: in uninterruptible sleep"),
    key("threads_in_epoll", Number, &[OVERFLOW, STALL, IMBALANCE], "of these: asleep in epoll_wait()"),
    key("threads_running", Number, &[OVERFLOW, STALL, IMBALANCE], "of these: running or runnable"),
    key("threads_stopped", Number, &[OVERFLOW, STALL, IMBALANCE], "of these: stopped by a signal or a debugger"),
    key("time_wait", Number, &[EXHAUSTION, LEAK], "ports that nothing but TIME_WAIT has"),
    key("time_wait_percent", Measure, &[EXHAUSTION], "share of these among the ports in use"),
    key("timed_out", Number, &[UNANSWERED], "connects that ended with ETIMEDOUT"),
    key("timeout_s", Number, &[CAPTURE], "how long a request lives unanswered"),
    key("to", Time, &[LOST], "not after this"),
    key("toward_destination", Number, &[EXHAUSTION], "ports in use toward the destination"),
    key("toward_destination_time_wait", Number, &[EXHAUSTION], "of these: in TIME_WAIT"),
    key("unanswered", Number, &[UNANSWERED], "connects whose SYN was sent again"),
    key("unanswered_sources", Number, &[SYN_QUEUE], "remote addresses whose requests stay unanswered"),
    key("unreachable", Number, &[UNANSWERED], "connects that ended with another error of the network"),
    key("usable", Number, &["syn-backlog"], "half-open requests that may be of unproven peers"),
    key("usual", Number, &[TRUNCATED], "what kernels since 5.4 have as net.core.somaxconn"),
    key("wait_max_ms", Measure, &[OVERFLOW, SLOW], "longest accept wait"),
    key("wait_mean_ms", Measure, &[OVERFLOW], "mean accept wait"),
    key("wait_p50_ms", Measure, &[SLOW], "accept wait that half of the connections were not over"),
    key("wait_p99_ms", Measure, &[SLOW], "the same of 99 %"),
    key("watches_listener", Text, &[OVERFLOW, STALL, IMBALANCE], "whether an epoll instance of the process watches the listener: yes, no, for changes (edge-triggered), or no epoll"),
    key("window_s", Measure, &[LEAK], "the span that the growth is of"),
];

/// Keys of an event's facts.
#[rustfmt::skip]
pub const FACTS: &[Key] = &[
    key("acked", Flag, &["synack-retransmit", "request-end"], "the final ACK has come"),
    key("again", Flag, &["listen"], "the socket listened already"),
    key("age_ms", Measure, &["synack-retransmit", "request-end", "connect"], "age of the request or connect"),
    key("answer", Text, &["syn"], "what the SYN was answered with"),
    key("backlog", Number, &["listen"], "argument of listen()"),
    key("cause", Text, &["syn-drop", "ack-drop", "synack-retransmit"], "why"),
    key("deferred", Flag, &["synack-retransmit", "request-end"], "it waits for data (TCP_DEFER_ACCEPT)"),
    key("direction", Text, &["handshake-drop"], "in or out"),
    key("errno", Text, &["bind-fail", "connect", "no-port", "accept-fail"], "errno of the call"),
    key("first_synack", Time, &["synack-retransmit", "request-end"], "when the request was first answered, so when its SYN came"),
    key("function", Text, &["handshake-drop"], "kernel function that dropped it"),
    key("handshake_ms", Measure, &["enqueue"], "from the SYN to the final ACK"),
    key("held_ms", Measure, &["port-released"], "how long the port was held"),
    key("holders", Number, &["bind-fail"], "sockets that the kernel met on the port"),
    key("host_files_limit", Number, &["accept-fail"], "`fs.file-max`"),
    key("how", Text, &["enqueue", "request-end", "port-taken", "port-released"], "how"),
    key("icmp", Text, &["request-end"], "type and code of the ICMP message that ended it"),
    key("lost_connections", Number, &["listener-closed"], "connections in its accept queue, which are reset"),
    key("open_files_limit", Number, &["accept-fail"], "RLIMIT_NOFILE, soft"),
    key("options", Texts, &["listen", "bind-fail", "port-taken", "no-port"], "socket options that are set"),
    key("packet", Text, &["handshake-drop"], "SYN, SYN-ACK or ACK"),
    key("queue", Number, &["syn", "syn-drop", "ack-drop", "enqueue", "synack-retransmit", "request-end", "accept", "accept-fail"], "connections in the accept queue"),
    key("queue_limit", Number, &["listen", "syn", "syn-drop", "ack-drop", "enqueue", "synack-retransmit", "request-end", "accept"], "its limit"),
    key("reason", Text, &["handshake-drop"], "the kernel's drop reason"),
    key("result", Text, &["connect"], "how the connect ended, or that it goes on"),
    key("somaxconn", Number, &["listen"], "`net.core.somaxconn`"),
    key("stage", Text, &["bind-fail"], "bind or listen"),
    key("syn_queue", Number, &["syn", "syn-drop", "ack-drop", "enqueue", "synack-retransmit", "request-end", "accept"], "half-open requests"),
    key("syncookies", Number, &["syn-drop"], "`net.ipv4.tcp_syncookies`"),
    key("syns_again", Number, &["connect"], "SYNs sent again"),
    key("tid", Number, &["accept"], "thread that accepted"),
    key("time_wait", Flag, &["port-released"], "a TIME_WAIT remnant still has the port"),
    key("timeouts", Number, &["synack-retransmit", "request-end"], "how often the SYN-ACK timer ran out"),
    key("total", Number, &["syn-drop", "ack-drop", "handshake-drop", "no-listener", "no-port", "accept-fail"], "how many of these there have been so far, at this listener or of this kind"),
    key("uid", Number, &["bind-fail"], "user id"),
    key("wait_ms", Measure, &["accept"], "how long the connection waited in the accept queue"),
    key("why", Text, &["bind-fail", "no-port"], "why, in one word"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Names that are given to `.with("…")` and `.with_some("…")` in a file, outside of its tests.
    fn shown(path: &Path) -> BTreeSet<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let calls = [".with(", ".with_some("].into_iter().flat_map(|call| text.split(call).skip(1));
        calls
            .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split_once('"'))
            .map(|(name, _)| name.to_owned())
            .filter(|name| name != "why")
            .collect()
    }

    fn files(directory: &str) -> Vec<std::path::PathBuf> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(directory);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                files.extend(self::files(name.strip_prefix("src/").unwrap()));
            } else if !["tests.rs", "agree.rs", "evidence.rs", "keys.rs"]
                .iter()
                .any(|end| name.ends_with(end))
            {
                files.push(path);
            }
        }
        files
    }

    /// Also those that no test happens to show.
    #[test]
    fn whatever_is_shown_is_declared_and_nothing_else() {
        let all: BTreeSet<String> =
            ["finding", "check"].into_iter().flat_map(files).flat_map(|path| shown(&path)).collect();
        let declared: BTreeSet<String> = EVIDENCE.iter().map(|key| key.name.to_owned()).collect();
        assert_eq!(all, declared);
    }

    #[test]
    fn keys_stand_once_and_in_order_with_codes_that_there_are() {
        let engine = crate::finding::Engine::default();
        let codes: BTreeSet<&str> =
            engine.codes().chain(crate::check::RULES.iter().map(|rule| rule.code())).collect();
        for keys in [EVIDENCE, FACTS] {
            assert!(keys.windows(2).all(|two| two[0].name < two[1].name));
        }
        for key in EVIDENCE {
            assert!(!key.of.is_empty() && key.of.iter().all(|code| codes.contains(code)), "{key:?}");
        }
    }

    /// Units stand in names, and a quantity has one unit.
    #[test]
    fn times_have_their_unit_in_their_name() {
        for key in EVIDENCE.iter().chain(FACTS) {
            let is_time =
                ["_ms", "_s", "_per_s", "_per_min", "_percent"].iter().any(|unit| key.name.ends_with(unit));
            assert!(key.form != Measure || is_time, "{} has no unit", key.name);
            assert!(!key.name.ends_with("_ns") && !key.name.ends_with("_us"), "{}", key.name);
        }
    }
}
