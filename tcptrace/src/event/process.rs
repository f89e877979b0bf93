//! Processes: who acted, who owns what, what they are doing.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::Endpoints;

/// The task that a process-context hook ran in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Process id (thread group id) in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Real user id.
    pub uid: u32,
    /// Control group id (v2): inode number of its directory; 0 if unknown.
    pub cgroup: u64,
    /// Command name. Hostile until escaped: whatever the process set, with bytes that are not UTF-8 as `\xNN`. Kept in place: with
    /// `--all`, a million of them come a second.
    pub comm: SmolStr,
}

/// Who a process is, as `/proc` shows it. Later information about the same pid replaces earlier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Command name.
    pub comm: String,
    /// Command line with blanks between arguments; `None` for kernel threads and where it may not be read.
    pub command: Option<String>,
    /// Real user id, if known.
    pub uid: Option<u32>,
    /// Container (`docker:3f2a…`), pod or systemd unit that it runs in, as one text.
    pub container: Option<String>,
    /// Its network namespace, if known.
    pub netns: Option<u32>,
    /// What else was read of it.
    #[serde(default, skip_serializing_if = "ProcessDetails::is_nothing")]
    pub details: ProcessDetails,
}

/// What is known of a process beyond its name: not needed to tell it from others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessDetails {
    /// Path of its executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Pod of its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Kubernetes namespace of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its innermost systemd unit, beside a container as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

impl ProcessDetails {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What the threads of a process were doing at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Number of threads.
    pub threads: u32,
    /// Of these: running or runnable (R).
    pub running: u32,
    /// Sleeping, woken by any event or signal (S, I).
    pub sleeping: u32,
    /// In uninterruptible sleep (D): waiting for a disk, a network file system, a lock in the kernel.
    pub blocked: u32,
    /// Stopped by a signal or a debugger (T, t).
    pub stopped: u32,
    /// Open file descriptors, if they could be counted.
    pub open_files: Option<u64>,
    /// Limit on them (`RLIMIT_NOFILE`, soft), if it could be read.
    pub open_files_limit: Option<u64>,
    /// Threads blocked in accept().
    #[serde(default)]
    pub accepting: u32,
    /// Threads asleep in epoll_wait().
    #[serde(default)]
    pub in_epoll: u32,
    /// Threads asleep in poll(), select() or io_uring_enter(): what they wait for is not shown.
    #[serde(default)]
    pub in_poll: u32,
    /// Threads that wait for another thread of their process, or for work from one (futex).
    #[serde(default)]
    pub in_futex: u32,
    /// Whether the state of all threads and the system calls that they are in could be read.
    #[serde(default)]
    pub calls_known: bool,
    /// Of the threads that were seen accepting from the listener below: how many live.
    #[serde(default)]
    pub acceptors: u32,
    /// Of these: asleep in epoll_wait().
    #[serde(default)]
    pub acceptors_in_epoll: u32,
    /// Of these: waiting in accept(), epoll_wait(), poll() or the like, so for something to do.
    #[serde(default)]
    pub acceptors_waiting: u32,
    /// The process has a listener with this inode; the members after this are about it. 0 if it was not looked at for one.
    #[serde(default)]
    pub listener: u64,
    /// Whether an epoll instance of the process watches that listener; `None` if that could not be read.
    #[serde(default)]
    pub watches: Option<Watch>,
}

/// How an epoll instance of a process watches a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watch {
    /// There are epoll instances, and none watches it for connections.
    No,
    /// One does, and says so as long as connections wait.
    Level,
    /// One does, and says so only when another connection comes, or only once.
    Edge,
    /// The process has no epoll instance.
    NoEpoll,
}

impl ProcessState {
    /// Whether the process has exited: it has no thread any more.
    pub fn has_exited(&self) -> bool {
        self.threads == 0
    }

    /// Whether no thread of the process can run before somebody continues it.
    pub fn is_stopped(&self) -> bool {
        self.threads > 0 && self.stopped == self.threads
    }

    /// Whether accept() must fail with EMFILE.
    pub fn is_at_file_limit(&self) -> bool {
        matches!((self.open_files, self.open_files_limit), (Some(open), Some(limit)) if open >= limit)
    }
}

/// How well an owner is known.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum OwnerConfidence {
    /// Nothing is known.
    #[default]
    Unknown,
    /// Deduced: a later or a rough look (the inode was found in that process a moment after).
    Likely,
    /// Read once, when the tracer started: true then.
    Bootstrapped,
    /// The process was seen doing it.
    Observed,
}

impl OwnerConfidence {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Likely => "likely",
            Self::Bootstrapped => "bootstrapped",
            Self::Observed => "observed",
        }
    }
}

/// Processes that have a socket open, found by looking rather than by seeing the socket being made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOwner {
    /// Identity of the socket while it lives; 0 if unknown (found by inode).
    pub sk: u64,
    /// Inode number of its file; 0 if unknown.
    pub inode: u64,
    /// Its ends.
    pub endpoints: Endpoints,
    /// Every process that has it open.
    pub owners: Vec<Owner>,
    /// How well they are known: bootstrapped or likely.
    pub confidence: OwnerConfidence,
    /// bind() asked for its port by number, as is known of some sockets that are older than the tracer.
    #[serde(default)]
    pub port_by_number: bool,
}

/// A process that has a socket open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Command name.
    pub comm: String,
}
