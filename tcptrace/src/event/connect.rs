//! Connects of this host's processes: those that are not answered at once, and how they end.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Endpoints, Task, Timestamp};

/// What became of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectResult {
    /// Nothing yet: its SYN was sent again.
    SynAgain,
    /// The handshake was completed.
    Established,
    /// Answered by an RST.
    Refused,
    /// Ended by an error that came another way than by RST, as an ICMP message does.
    Unreachable,
    /// The SYN was sent as often as allowed, and nothing answered.
    TimedOut,
    /// The process closed the socket, or ended, before there was an answer.
    Cancelled,
    /// connect() itself failed, before a SYN was sent.
    Error,
}

impl ConnectResult {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::SynAgain => "syn-again",
            Self::Established => "established",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed-out",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
        }
    }
}

/// A connect was not answered, failed, or was slow; with `--all` any end of any connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The client's ends. Local port 0 where connect() failed before it had one.
    pub endpoints: Endpoints,
    /// Who called connect(); `None` if that was before the tracer started.
    pub task: Option<Task>,
    /// Identity of the socket while it lives; see [`AddressKey`](super::AddressKey).
    pub sk: u64,
    /// Inode number of the socket's file; 0 where it has none any more.
    pub inode: u64,
    /// Time since connect() was called, ns; `None` if that was not seen.
    pub age_ns: Option<u64>,
    /// What became of it.
    pub result: ConnectResult,
    /// errno of a failure; while the connect goes on, of what an ICMP message has said.
    pub errno: Option<u32>,
    /// How often its SYN was sent again.
    pub syns_again: u32,
    /// The kernel side's counts for this process and destination.
    pub totals: ConnectTotals,
}

impl Connect {
    /// When connect() took the port, by the clock that says `now` at this event; `None` if bind() had taken it before, if it
    /// was not seen, or if there was none.
    pub fn port_taken(&self, now: Timestamp) -> Option<Timestamp> {
        let age = self.age_ns.filter(|_| self.result != ConnectResult::Error)?;
        Some(now.before(Duration::from_nanos(age)))
    }
}

/// What the kernel side counted of one process's connects to one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectTotals {
    /// Since when: another time means that counting began anew.
    pub since: Timestamp,
    /// SYNs sent again.
    pub syns_again: u64,
    /// Connects whose SYN was sent again, once or more.
    pub unanswered: u64,
    /// Of these: established in the end, where that is observed.
    pub established: u64,
    /// Connects answered by RST.
    pub refused: u64,
    /// Connects ended by another error.
    pub unreachable: u64,
    /// Connects that nothing answered.
    pub timed_out: u64,
    /// Connects called off after their SYN was sent again.
    pub cancelled: u64,
    /// connect() calls that failed at once.
    pub errors: u64,
}

/// The counts of one process's connects to one destination, once a second if they grew faster than they could be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectSample {
    /// Network namespace of the client.
    pub netns: u32,
    /// Process; 0 if unknown.
    pub pid: u32,
    /// Destination.
    pub remote: SocketAddr,
    /// The counts.
    pub totals: ConnectTotals,
}

impl ConnectTotals {
    /// Adds the counts of `more`.
    pub fn add(&mut self, more: &Self) {
        *self = self.each(more, u64::saturating_add);
    }

    /// Each count combined with that of `other`; of the times, the later.
    #[must_use]
    pub fn each(&self, other: &Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            since: self.since.max(other.since),
            syns_again: with(self.syns_again, other.syns_again),
            unanswered: with(self.unanswered, other.unanswered),
            established: with(self.established, other.established),
            refused: with(self.refused, other.refused),
            unreachable: with(self.unreachable, other.unreachable),
            timed_out: with(self.timed_out, other.timed_out),
            cancelled: with(self.cancelled, other.cancelled),
            errors: with(self.errors, other.errors),
        }
    }
}
