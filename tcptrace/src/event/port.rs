//! Ports: taken, given back, refused.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Endpoints, Owner, SocketOptions, SocketState, Task, Timestamp};

/// How a port was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Not seen: held since before the tracer attached, or an accepted connection's, which has its listener's port.
    #[default]
    Unknown,
    /// bind() to a port that the application asked for.
    Bind,
    /// bind() to port 0: the kernel chose it.
    BindAny,
    /// connect(): the kernel chose it.
    Connect,
    /// listen() on an unbound socket: the kernel chose it.
    ListenAny,
}

impl How {
    /// Whether the kernel chose the port, from the ephemeral range.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::BindAny | Self::Connect | Self::ListenAny)
    }

    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Bind => "bind",
            Self::BindAny => "bind-any",
            Self::Connect => "connect",
            Self::ListenAny => "listen-any",
        }
    }
}

/// The process that took a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taker {
    /// Who.
    pub task: Task,
    /// When.
    pub since: Timestamp,
    /// When the socket gave the port back (it may live on in TIME_WAIT); `None` while held.
    pub released: Option<Timestamp>,
    /// How.
    pub how: How,
    /// Not seen taking it, but found to have it when the tracer started; then `since` means nothing.
    #[serde(default)]
    pub bootstrapped: bool,
}

/// How a holder was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// In the kernel's table of bound ports, at the moment of the conflict: a fact.
    BindHash,
    /// By our own records: the last one that took the port.
    History,
    /// In sock_diag's list, a moment after the conflict.
    SockDiag,
}

/// A socket that has a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its ends.
    pub endpoints: Endpoints,
    /// Who took the port, if that was seen.
    pub taker: Option<Taker>,
    /// Address of the socket in kernel memory; 0 if unknown.
    pub sk: u64,
    /// Inode number of its file; 0 for TIME_WAIT, orphans, kernel sockets, and if unknown.
    pub inode: u64,
    /// User id of the socket; `None` where it has none (TIME_WAIT).
    pub uid: Option<u32>,
    /// Its state.
    pub state: SocketState,
    /// Its options, as far as they can be read (`None`: sock_diag does not tell).
    pub options: Option<SocketOptions>,
    /// How it was found.
    pub found: Found,
}

/// Where a port was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindStage {
    /// In bind().
    Bind,
    /// In listen(): both sides had SO_REUSEADDR, which does not hold for listeners.
    Listen,
}

impl BindStage {
    /// The system call's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Listen => "listen",
        }
    }
}

/// What the kernel keeps about all holders of a port together, to decide quickly whether one more may share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReuseState {
    /// Positive: every holder has SO_REUSEADDR and none listens.
    pub fastreuse: i8,
    /// Not zero: every holder has SO_REUSEPORT and the same user.
    pub fastreuseport: i8,
}

/// bind() or listen() failed for its port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindFail {
    /// The requested local end; port 0 asks for any.
    pub endpoints: Endpoints,
    /// Who asked.
    pub task: Task,
    /// Address of the socket in kernel memory.
    pub sk: u64,
    /// errno (positive).
    pub errno: u32,
    /// In which call.
    pub stage: BindStage,
    /// Options of the requesting socket.
    pub options: SocketOptions,
    /// How many holders were met in the kernel's table; may exceed `holders`. 0 can mean that the table could not be read.
    pub holders_met: u32,
    /// State of the port's bind bucket, if it was read.
    pub reuse_state: Option<ReuseState>,
    /// The holders.
    pub holders: Vec<Holder>,
}

/// A port was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTaken {
    /// The socket's ends; remote only for connect.
    pub endpoints: Endpoints,
    /// Who took it.
    pub task: Task,
    /// Address of the socket in kernel memory.
    pub sk: u64,
    /// How.
    pub how: How,
    /// Its options.
    pub options: SocketOptions,
}

/// A port was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReleased {
    /// The socket's ends.
    pub endpoints: Endpoints,
    /// Address of the socket in kernel memory.
    pub sk: u64,
    /// How long it was held, ns.
    pub held_ns: u64,
    /// Process that took it.
    pub pid: u32,
    /// Name of the process that took it.
    pub comm: String,
    /// How it was taken.
    pub how: How,
    /// A TIME_WAIT remnant goes on holding the port.
    pub time_wait: bool,
}

/// Who has a port, as sock_diag and procfs showed it right after a conflict.
///
/// Supplements [`BindFail`]: owners of sockets that nobody saw being taken, what is left of a TIME_WAIT, and all there is in
/// tiers that cannot read the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderReport {
    /// Network namespace.
    pub netns: u32,
    /// The port.
    pub port: u16,
    /// Process whose bind() failed, and for whom this was looked up.
    pub requester: u32,
    /// When the conflict happened.
    pub conflict: Timestamp,
    /// Every socket that has the port.
    pub holders: Vec<ReportedHolder>,
    /// Why something may be missing (no permission, a kernel that does not list bound-only sockets); `None` if complete.
    pub incomplete: Option<String>,
}

/// One holder in a [`HolderReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedHolder {
    /// Its local end.
    pub local: SocketAddr,
    /// Its remote end, if it is connected.
    pub remote: Option<SocketAddr>,
    /// Its state.
    pub state: SocketState,
    /// Inode number of its file; 0 if it has none.
    pub inode: u64,
    /// User id; `None` where it has none (TIME_WAIT).
    pub uid: Option<u32>,
    /// IPV6_V6ONLY, where sock_diag tells.
    pub v6only: Option<bool>,
    /// What is left of TIME_WAIT, milliseconds.
    pub time_wait_left_ms: Option<u64>,
    /// Processes that have it open.
    pub owners: Vec<Owner>,
}
