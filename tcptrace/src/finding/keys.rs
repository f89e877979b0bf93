//! Keys of evidence: each has a form and a meaning. A finding or a risk lists the keys that it has beside its causes
//! ([`FindingKind`](super::FindingKind)), those that several have from here. The JSON Schema and docs/json.md are made from that, and a
//! key that is shown without being listed fails the tests that look at all findings.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name, with the unit where it has one.
    pub name: &'static str,
    /// What its value looks like.
    pub form: Form,
    /// What it means.
    pub means: &'static str,
}

macro_rules! constructors {
    ($($name:ident: $form:ident,)*) => {
        $(pub(crate) const fn $name(name: &'static str, means: &'static str) -> Key {
            Key { name, form: Form::$form, means }
        })*
    };
}
constructors! {
    number: Number,
    measure: Measure,
    flag: Flag,
    text: Text,
    time: Time,
    texts: Texts,
    range: Range,
    ranges: Ranges,
    endpoint: Endpoint,
    party: Party,
    parties: Parties,
}

/// Declares keys that several findings or risks have, each as a constant of its name in capitals.
macro_rules! shared {
    ($($constant:ident = $key:expr;)*) => {
        $(pub(crate) const $constant: Key = $key;)*
    };
}

#[rustfmt::skip]
shared! {
    ABORT_ON_OVERFLOW = flag("abort_on_overflow", "`net.ipv4.tcp_abort_on_overflow`");
    ACCEPT_ERRNO = text("accept_errno", "errno with which accept() failed last");
    ACCEPT_FAILED_AT = time("accept_failed_at", "when accept() failed last");
    ACCEPT_THREADS = number("accept_threads", "threads that were seen accepting");
    ACCEPTS_PER_S = measure("accepts_per_s", "accepts a second");
    ARRIVALS_PER_S = measure("arrivals_per_s", "SYNs that reach the listener a second");
    AT_LEAST = flag("at_least", "the count is a lower bound");
    ATTEMPTS = number("attempts", "calls that failed so");
    BACKLOG = number("backlog", "argument of listen()");
    CALL = text("call", "system call that failed: connect or bind");
    CAPACITY = number("capacity", "ports that the kernel may choose");
    CLIENTS = parties("clients", "other processes that call the destination");
    COOKIES_SENT = number("cookies_sent", "SYN cookies sent");
    DESTINATION = endpoint("destination", "where the connections lead");
    DEVICE = text("device", "device that the socket is bound to, or that the packet was to leave by");
    DROPS = number("drops", "drops of either kind, where they cannot be told apart");
    DURATION_S = measure("duration_s", "how long it has lasted");
    ERRNO = text("errno", "errno of the call that failed");
    EXPIRED = number("expired", "requests that expired unanswered");
    HALF_OPEN = number("half_open", "half-open requests, most at a time");
    HOLDERS = parties("holders", "sockets that have the port, the one in the way first");
    IN_USE = number("in_use", "ports in use");
    INCOMPLETE = text("incomplete", "why not every socket could be looked at");
    LEFT_S = measure("left_s", "until the port is free, or none is left");
    MAX_SYN_BACKLOG = number("max_syn_backlog", "`net.ipv4.tcp_max_syn_backlog`");
    NO_ACCEPT_S = measure("no_accept_s", "longest that nothing was accepted while connections waited");
    OPEN_FILES = number("open_files", "descriptors that the process has open");
    OPEN_FILES_LIMIT = number("open_files_limit", "how many it may have (RLIMIT_NOFILE, soft)");
    OPTIONS = texts("options", "socket options that are set, as in setsockopt(2)");
    PEERS = number("peers", "remote addresses");
    PORT = number("port", "the port");
    QUEUE = number("queue", "connections in the accept queue, most at a time");
    QUEUE_LIMIT = number("queue_limit", "limit of the queue");
    RANGE = range("range", "`net.ipv4.ip_local_port_range`");
    RATES_OVER_S = measure("rates_over_s", "the span that the rates are of");
    REQUESTED = endpoint("requested", "address and port that were asked for");
    REQUESTER = party("requester", "process whose call failed");
    SOMAXCONN = number("somaxconn", "`net.core.somaxconn` now");
    SOMAXCONN_AT_LISTEN = number("somaxconn_at_listen", "`net.core.somaxconn` when listen() was called");
    STAGE = text("stage", "bind or listen");
    SYN_DROPS = number("syn_drops", "SYNs dropped at the full queue");
    SYNCOOKIES = number("syncookies", "`net.ipv4.tcp_syncookies`");
    THREADS = number("threads", "threads of the process");
    THREADS_BLOCKED = number("threads_blocked", "of these: in uninterruptible sleep");
    THREADS_IN_EPOLL = number("threads_in_epoll", "of these: asleep in epoll_wait()");
    THREADS_RUNNING = number("threads_running", "of these: running or runnable");
    THREADS_STOPPED = number("threads_stopped", "of these: stopped by a signal or a debugger");
    TIME_WAIT = number("time_wait", "ports that nothing but TIME_WAIT has");
    WAIT_MAX_MS = measure("wait_max_ms", "longest accept wait");
    WATCHES_LISTENER = text("watches_listener", "whether an epoll instance of the process watches the listener: yes, no, for changes (edge-triggered), or no epoll");
}

/// Keys of an event's facts, and the events that have them.
#[rustfmt::skip]
pub const FACTS: &[(Key, &[&str])] = &[
    (flag("acked", "the final ACK has come"), &["synack-retransmit", "request-end"]),
    (flag("again", "the socket listened already"), &["listen"]),
    (measure("age_ms", "age of the request or connect"), &["synack-retransmit", "request-end", "connect"]),
    (text("answer", "what the SYN was answered with"), &["syn"]),
    (number("backlog", "argument of listen()"), &["listen"]),
    (text("cause", "why"), &["syn-drop", "ack-drop", "synack-retransmit"]),
    (flag("deferred", "it waits for data (TCP_DEFER_ACCEPT)"), &["synack-retransmit", "request-end"]),
    (text("direction", "in or out"), &["handshake-drop"]),
    (text("errno", "errno of the call"), &["bind-fail", "connect", "no-port", "accept-fail"]),
    (time("first_synack", "when the request was first answered, so when its SYN came"), &["synack-retransmit", "request-end"]),
    (text("function", "kernel function that dropped it"), &["handshake-drop"]),
    (measure("handshake_ms", "from the SYN to the final ACK"), &["enqueue"]),
    (measure("held_ms", "how long the port was held"), &["port-released"]),
    (number("holders", "sockets that the kernel met on the port"), &["bind-fail"]),
    (number("host_files_limit", "`fs.file-max`"), &["accept-fail"]),
    (text("how", "how"), &["enqueue", "request-end", "port-taken", "port-released"]),
    (text("icmp", "type and code of the ICMP message that ended it"), &["request-end"]),
    (number("lost_connections", "connections in its accept queue, which are reset"), &["listener-closed"]),
    (number("open_files_limit", "RLIMIT_NOFILE, soft"), &["accept-fail"]),
    (texts("options", "socket options that are set"), &["listen", "bind-fail", "port-taken", "no-port"]),
    (text("packet", "SYN, SYN-ACK or ACK"), &["handshake-drop"]),
    (number("queue", "connections in the accept queue"), &["syn", "syn-drop", "ack-drop", "enqueue", "synack-retransmit", "request-end", "accept", "accept-fail"]),
    (number("queue_limit", "its limit"), &["listen", "syn", "syn-drop", "ack-drop", "enqueue", "synack-retransmit", "request-end", "accept"]),
    (text("reason", "the kernel's drop reason"), &["handshake-drop"]),
    (text("result", "how the connect ended, or that it goes on"), &["connect"]),
    (number("somaxconn", "`net.core.somaxconn`"), &["listen"]),
    (text("stage", "bind or listen"), &["bind-fail"]),
    (number("syn_queue", "half-open requests"), &["syn", "syn-drop", "ack-drop", "enqueue", "synack-retransmit", "request-end", "accept"]),
    (number("syncookies", "`net.ipv4.tcp_syncookies`"), &["syn-drop"]),
    (number("syns_again", "SYNs sent again"), &["connect"]),
    (number("tid", "thread that accepted"), &["accept"]),
    (flag("time_wait", "a TIME_WAIT remnant still has the port"), &["port-released"]),
    (number("timeouts", "how often the SYN-ACK timer ran out"), &["synack-retransmit", "request-end"]),
    (number("total", "how many of these there have been so far, at this listener or of this kind"), &["syn-drop", "ack-drop", "handshake-drop", "no-listener", "no-port", "accept-fail"]),
    (number("uid", "user id"), &["bind-fail"]),
    (measure("wait_ms", "how long the connection waited in the accept queue"), &["accept"]),
    (text("why", "why, in one word"), &["bind-fail", "no-port"]),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;
    use crate::check::RULES;
    use crate::finding::KINDS;

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
        let declared: BTreeSet<String> = listed().map(|(_, key)| key.name.to_owned()).collect();
        assert_eq!(all, declared);
    }

    /// All keys that are listed, with their codes.
    fn listed() -> impl Iterator<Item = (&'static str, &'static Key)> {
        let of_findings = KINDS.iter().map(|kind| (kind.code, kind.evidence));
        let of_risks = RULES.iter().map(|rule| (rule.code(), rule.evidence()));
        of_findings.chain(of_risks).flat_map(|(code, keys)| keys.iter().map(move |key| (code, key)))
    }

    #[test]
    fn a_name_means_one_thing_and_is_listed_once() {
        let mut known: BTreeMap<&str, &Key> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (code, key) in listed() {
            assert!(seen.insert((code, key.name)), "{code} lists {} twice", key.name);
            assert_eq!(*known.entry(key.name).or_insert(key), key, "{code}");
        }
        assert!(FACTS.windows(2).all(|two| two[0].0.name < two[1].0.name));
    }

    /// Units stand in names, and a quantity has one unit.
    #[test]
    fn times_have_their_unit_in_their_name() {
        for key in listed().map(|(_, key)| key).chain(FACTS.iter().map(|(key, _)| key)) {
            let is_time =
                ["_ms", "_s", "_per_s", "_per_min", "_percent"].iter().any(|unit| key.name.ends_with(unit));
            assert!(key.form != Form::Measure || is_time, "{} has no unit", key.name);
            assert!(!key.name.ends_with("_ns") && !key.name.ends_with("_us"), "{}", key.name);
        }
    }
}
