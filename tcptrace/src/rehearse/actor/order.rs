//! What the stage tells an actor to do, and what the actor answers: one JSON line each way, strictly in turn.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One instruction. Every order gets exactly one [`Reply`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(in crate::rehearse) enum Order {
    /// Take a port as a server does; answers `Vec<BindAttempt>`, the last being the one that counted.
    Bind(Bind),
    /// Call listen() on the socket bound last; answers a [`BindAttempt`].
    Listen { backlog: i32 },
    /// Set TCP_DEFER_ACCEPT on the listener (0: off).
    DeferAccept { seconds: i32 },
    /// Accept in the background: each worker takes a connection, works on it for `every_ms`, answers and closes it.
    Accept { workers: usize, every_ms: u64 },
    /// How many connections the workers have accepted; answers `u64`.
    Accepted,
    /// Serve in the background as a small web server with non-blocking accepts.
    Serve { workers: usize },
    /// Stop serving and close every listening and bound socket.
    Close,
    /// Leave the sockets to a child of this name and exit; the child answers with its [`Hello`].
    Bequeath { heir: String },
    /// Open connections and wait until all are established; answers their local addresses.
    Connect { to: SocketAddr, count: usize },
    /// Send one byte on every established connection that has sent none; answers how many did.
    Send,
    /// Open connections at a pace, whatever becomes of them, and hold them; answers how many were opened.
    Load(Load),
    /// Close all connections and say what became of them; answers a [`Tally`].
    HangUp { reset: bool },
    /// Use a server as well-behaved clients do; answers a [`Visits`].
    Visit(Visit),
}

/// How to take a port.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Bind {
    pub(in crate::rehearse) address: SocketAddr,
    pub(in crate::rehearse) reuseaddr: bool,
    /// IPV6_V6ONLY, for an IPv6 address.
    pub(in crate::rehearse) v6only: bool,
    /// Call listen() as well, with this backlog.
    pub(in crate::rehearse) backlog: Option<i32>,
    pub(in crate::rehearse) attempts: u32,
    pub(in crate::rehearse) gap_ms: u64,
    /// Kill this actor (SIGKILL) in the instant in which the bind has failed.
    pub(in crate::rehearse) then_kill: Option<i32>,
}

/// What came of one try to take a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::rehearse) struct BindAttempt {
    /// The system call that ended it: `bind` or `listen`.
    pub(in crate::rehearse) at: String,
    /// None: it succeeded.
    pub(in crate::rehearse) errno: Option<i32>,
}

/// A load of connections: `burst` of them every `every_ms`, for at least `for_ms` and at least `at_least` of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Load {
    pub(in crate::rehearse) to: SocketAddr,
    pub(in crate::rehearse) burst: usize,
    pub(in crate::rehearse) every_ms: u64,
    pub(in crate::rehearse) for_ms: u64,
    pub(in crate::rehearse) at_least: usize,
}

/// What became of an actor's connections, by its own account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::rehearse) struct Tally {
    /// connect() calls that were not refused locally.
    pub(in crate::rehearse) connects: u64,
    /// Handshakes that completed, as seen from here.
    pub(in crate::rehearse) established: u64,
    /// SYNs sent, first ones and retransmissions.
    pub(in crate::rehearse) syns: u64,
    /// Connections that ended in an error.
    pub(in crate::rehearse) failed: u64,
    /// Connections that the client gave up: established for it, but the server did not acknowledge anything.
    pub(in crate::rehearse) gave_up: u64,
    /// Connections that got the server's answer.
    pub(in crate::rehearse) answered: u64,
}

/// Polite clients: each does short connections of every kind, one at a time, beside a keep-alive one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Visit {
    pub(in crate::rehearse) to: SocketAddr,
    pub(in crate::rehearse) clients: usize,
    /// Pause of a client between two connections.
    pub(in crate::rehearse) every_ms: u64,
    pub(in crate::rehearse) for_ms: u64,
}

/// What polite clients did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::rehearse) struct Visits {
    pub(in crate::rehearse) connections: u64,
    pub(in crate::rehearse) keep_alive_requests: u64,
    /// What went wrong; empty in a healthy run.
    pub(in crate::rehearse) errors: Vec<String>,
}

/// The first line an actor writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Hello {
    pub(in crate::rehearse) pid: u32,
}

/// An answer: the order's result, or why it could not be carried out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::rehearse) enum Reply {
    Done(serde_json::Value),
    Failed(String),
}
