//! The tracer about itself: what it observes, what it lost.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What is observed and what is not, here and now. Sent first, and again if it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// The processor's architecture, as `uname -m` names it: `x86_64` or `aarch64`. Empty in recordings older than this field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// The highest kind of attachment in use.
    pub tier: Tier,
    /// Every observation that the tracer wants to make.
    pub observations: Vec<Observation>,
    /// Filters that keep events away from the tracer, as the user wrote them (`--port 1080`); empty for none. With a filter,
    /// our counts are smaller than the kernel's.
    #[serde(default)]
    pub filters: Vec<String>,
    /// What else was asked for, as the user wrote it (`--netns blue`): what is left out by it is not among the kernel's counts that
    /// ours are compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<String>,
    /// What stands in the way of observing more, a few words each: kernel lockdown, a file system that may not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hindrances: Vec<String>,
    /// The network namespace that the tracer runs in: its commands need no way there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_netns: Option<u32>,
    /// The network namespace of pid 1, the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_netns: Option<u32>,
}

impl Coverage {
    /// How the observation of that name (one of [`observation`]) is made; `None` if it is not mentioned.
    pub fn status(&self, name: &str) -> Option<ObservationStatus> {
        self.observations
            .iter()
            .find(|observation| observation.name == name)
            .map(|observation| observation.status)
    }
}

/// Names of observations that correlation asks about; coverage may mention more.
pub mod observation {
    /// A SYN dropped at a full queue.
    pub const SYN_DROP: &str = "syn-drop";
    /// SYNs dropped for want of a route for the answer.
    pub const NO_WAY_BACK: &str = "no-way-back";
    /// SYNs for ports that nobody listens on.
    pub const NO_LISTENER: &str = "no-listener";
    /// connect() calls that fail before a SYN is sent.
    pub const CONNECT_ERROR: &str = "connect-error";
    /// A SYN answered with a cookie, and a cookie that comes back.
    pub const COOKIE: &str = "cookie";
    /// A SYN-ACK sent again.
    pub const SYNACK_RETRANSMIT: &str = "synack-retransmit";
    /// A half-open request that ends without a connection.
    pub const REQUEST_END: &str = "request-end";
    /// A final ACK dropped at a full accept queue.
    pub const ACK_DROP: &str = "ack-drop";
    /// A listener begins to listen.
    pub const LISTEN: &str = "listen";
    /// The argument of listen().
    pub const BACKLOG: &str = "backlog";
    /// A listener is closed.
    pub const LISTENER_CLOSED: &str = "listener-closed";
    /// A connection enters the accept queue.
    pub const ENQUEUE: &str = "enqueue";
    /// accept() returns a connection.
    pub const ACCEPT: &str = "accept";
    /// bind() or listen() fails for its port.
    pub const BIND_FAIL: &str = "bind-fail";
    /// listen() fails for its port.
    pub const LISTEN_FAIL: &str = "listen-fail";
    /// Holders of a port, read in the kernel at the moment of the conflict.
    pub const HOLDERS: &str = "holders";
    /// A port is taken.
    pub const PORT_TAKEN: &str = "port-taken";
    /// A SYN of our own is sent again.
    pub const SYN_RETRANSMIT: &str = "syn-retransmit";
    /// A connect is refused, times out or is called off.
    pub const CONNECT_END: &str = "connect-end";
    /// Who has the sockets that are older than the tracer.
    pub const SOCKET_OWNERS: &str = "socket-owners";
    /// A port is given back.
    pub const PORT_RELEASED: &str = "port-released";
    /// connect() finds no port.
    pub const NO_PORT: &str = "no-port";
    /// connect() from a port of its own finds its connection there already.
    pub const CONNECTION_EXISTS: &str = "connection-exists";
}

/// The kinds of attachment, lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Nothing is attached.
    #[default]
    None,
    /// Tracepoints, with sock_diag polled for what they do not show.
    Tracepoint,
    /// kprobes and kretprobes.
    Kprobe,
    /// fentry and fexit.
    Fexit,
}

impl Tier {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tracepoint => "tracepoint",
            Self::Kprobe => "kprobe",
            Self::Fexit => "fexit",
        }
    }
}

/// One thing that the tracer wants to see, and whether it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// What, for example [`observation::SYN_DROP`].
    pub name: String,
    /// Whether it is seen.
    pub status: ObservationStatus,
    /// By which hook (`fexit:tcp_conn_request`, `sock_diag`); empty if missing.
    pub via: String,
    /// If it is not attached: why not.
    pub reason: Option<String>,
}

/// Whether something is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObservationStatus {
    /// Every single time.
    Attached,
    /// By looking now and then.
    Polled,
    /// Not at all.
    Missing,
}

impl ObservationStatus {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Polled => "polled",
            Self::Missing => "missing",
        }
    }
}

/// Events that the tracer lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// What was lost: the kind of event as output names it (`syn-drop`), or a word for the rest (`listener-state`).
    pub what: String,
    /// How many.
    pub count: u64,
    /// Where they were lost.
    pub place: LossPlace,
    /// Not before this.
    pub from: Timestamp,
    /// Not after this.
    pub to: Timestamp,
}

/// Where events can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossPlace {
    /// The ring buffer between kernel and user space was full.
    RingBuffer,
    /// A table in the kernel was full.
    KernelTable,
    /// A probe was skipped by the kernel (recursion, no free return-probe slot).
    Probe,
    /// A probe of process context was skipped because another task's run of it had been preempted: one accept or port of
    /// one process was not counted.
    Preempted,
    /// A record could not be decoded.
    Decode,
    /// A table in user space was full, and something old was forgotten.
    UserTable,
    /// The output or recording was too slow.
    Output,
    /// A recording was damaged.
    Recording,
}

impl LossPlace {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::RingBuffer => "ring-buffer",
            Self::KernelTable => "kernel-table",
            Self::Probe => "probe",
            Self::Preempted => "preempted",
            Self::Decode => "decode",
            Self::UserTable => "user-table",
            Self::Output => "output",
            Self::Recording => "recording",
        }
    }

    /// Why it was lost, as a sentence.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::RingBuffer => "the ring buffer was full",
            Self::KernelTable => "a table in the kernel was full",
            Self::Probe => "the kernel skipped a probe",
            Self::Preempted => "the kernel skipped a probe, as another task was preempted in it",
            Self::Decode => "a record could not be decoded",
            Self::UserTable => "a table of tcptrace was full",
            Self::Output => "the output was too slow",
            Self::Recording => "the recording is damaged",
        }
    }
}
