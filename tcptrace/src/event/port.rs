//! Ports: taken, given back, refused.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Endpoints, Owner, PortRange, SocketOptions, SocketState, Task, Timestamp};

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
    /// Identity of the socket while it lives; 0 if unknown.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindStage {
    /// In bind().
    Bind,
    /// In listen(): both sides had SO_REUSEADDR, which does not hold for listeners.
    Listen,
    /// In bind(), by a security module, before the protocol was asked. Only the full tiers tell it from [`Self::Bind`].
    Security,
}

impl BindStage {
    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Listen => "listen",
            Self::Security => "security",
        }
    }

    /// The system call's name.
    pub fn call(self) -> &'static str {
        match self {
            Self::Bind | Self::Security => "bind",
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

/// bind() or listen() failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindFail {
    /// The requested local end; port 0 asks for any.
    pub endpoints: Endpoints,
    /// Who asked.
    pub task: Task,
    /// Identity of the socket while it lives; see [`AddressKey`](super::AddressKey).
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
    /// Range of ports that the requesting socket has for itself (IP_LOCAL_PORT_RANGE).
    #[serde(default)]
    pub own_range: Option<PortRange>,
    /// The holders.
    pub holders: Vec<Holder>,
    /// Addresses that the namespace has, if the one asked for was not among them and they could be read.
    #[serde(default)]
    pub addresses: Option<Vec<IpAddr>>,
    /// The device that has the requested address, which cannot be bound all the same.
    #[serde(default)]
    pub unusable: Option<UnusableAddress>,
    /// Devices of the namespace on which IPv6 is off, if an IPv6 address was asked for and was not there.
    #[serde(default)]
    pub ipv6_off: Option<Ipv6Off>,
}

/// An IPv6 address that is configured and cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusableAddress {
    /// Name of the device that has it.
    pub device: String,
    /// Length of its prefix.
    pub prefix: u8,
    /// Another node has the address as well (`dadfailed`). Otherwise it is still tested for uniqueness (`tentative`).
    pub duplicate: bool,
}

/// Where IPv6 is off (`net.ipv6.conf.DEVICE.disable_ipv6`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Off {
    /// Names of these devices, the first few.
    pub devices: Vec<String>,
    /// It is off on every device.
    pub everywhere: bool,
}

/// Why bind() or listen() failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindFailure {
    /// EADDRINUSE for a port that was asked for by number: somebody has it.
    Conflict,
    /// EADDRINUSE for port 0: there is none left.
    Exhaustion,
    /// Any other errno: whoever has the port, this socket may not have it.
    Refusal,
}

impl BindFail {
    /// Why it failed.
    pub fn failure(&self) -> BindFailure {
        const EADDRINUSE: u32 = 98;
        match (self.errno, self.endpoints.local.port()) {
            (EADDRINUSE, 0) => BindFailure::Exhaustion,
            (EADDRINUSE, _) => BindFailure::Conflict,
            _ => BindFailure::Refusal,
        }
    }

    /// What its errno means, in a few words (bind(2), listen(2), `__inet_bind()`, `__inet6_bind()`).
    pub fn reason(&self) -> &'static str {
        match (i32::try_from(self.errno).unwrap_or(0), self.stage, self.failure()) {
            (_, _, BindFailure::Conflict) => "the port is in use",
            (_, _, BindFailure::Exhaustion) => "no port is left",
            (libc::EACCES | libc::EPERM, BindStage::Security, _) => "a security module denies it",
            (libc::EACCES, ..) => "the port is privileged, or a security module denies it",
            (libc::EPERM, ..) => "a BPF program of the cgroup, or a security module, denies it",
            (libc::EADDRNOTAVAIL, ..) => "the namespace does not have the address",
            (libc::EINVAL, BindStage::Bind | BindStage::Security, _) => {
                "the socket is bound or connected already, or the address does not fit it"
            }
            (libc::EINVAL, BindStage::Listen, _) => "the socket is connected, or its protocol cannot listen",
            (libc::EAFNOSUPPORT, ..) => "the address is of another family",
            (libc::ENODEV, ..) => "the device of the address's scope is not there",
            (libc::EFAULT, ..) => "the address cannot be read",
            (libc::ENOMEM | libc::ENOBUFS, ..) => "no memory",
            _ => "see bind(2) and listen(2)",
        }
    }
}

/// A port was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTaken {
    /// The socket's ends; remote only for connect.
    pub endpoints: Endpoints,
    /// Who took it.
    pub task: Task,
    /// Identity of the socket while it lives; see [`AddressKey`](super::AddressKey).
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
    /// Identity of the socket while it lives; see [`AddressKey`](super::AddressKey).
    pub sk: u64,
    /// How long it was held, ns.
    pub held_ns: u64,
    /// Process that took it.
    pub pid: u32,
    /// Name of the process that took it.
    pub comm: SmolStr,
    /// How it was taken.
    pub how: How,
    /// A TIME_WAIT remnant goes on holding the port.
    pub time_wait: bool,
}

/// connect() found no port, or its addresses in use: it fails with EADDRNOTAVAIL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoPort {
    /// Both ends. Local port 0: the kernel was to choose one, and there is none left for this destination. Otherwise the
    /// socket was bound to it before, and the same connection exists already.
    pub endpoints: Endpoints,
    /// Who asked.
    pub task: Task,
    /// Identity of the socket while it lives; see [`AddressKey`](super::AddressKey).
    pub sk: u64,
    /// How often this process found no port, this time included.
    pub total: u64,
    /// Options of the socket.
    pub options: SocketOptions,
    /// Range of ports that the socket has for itself (IP_LOCAL_PORT_RANGE).
    #[serde(default)]
    pub own_range: Option<PortRange>,
}

/// What one process did with ephemeral ports since the tracer knows it. Said once a second, if it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUse {
    /// Network namespace.
    pub netns: u32,
    /// Process id.
    pub pid: u32,
    /// Name of its thread that took the first port.
    pub comm: String,
    /// Since when.
    pub since: Timestamp,
    /// Ports taken by connect().
    pub by_connect: u64,
    /// Ports taken by bind() to port 0, or by listen() without one.
    pub by_bind: u64,
    /// Of those taken by bind(): how many were then connected.
    pub bound_connects: u64,
    /// Ports given back.
    pub released: u64,
    /// Of these: how many live on in TIME_WAIT.
    pub time_wait: u64,
    /// connect() calls that found no port.
    pub refused: u64,
    /// Of those taken by connect(): after a bind() that left the port to it (IP_BIND_ADDRESS_NO_PORT).
    #[serde(default)]
    pub late: u64,
    /// Of all taken: from a range that the socket has for itself (IP_LOCAL_PORT_RANGE).
    #[serde(default)]
    pub own_range: u64,
}

impl PortUse {
    /// Ports taken.
    pub fn taken(&self) -> u64 {
        self.by_connect + self.by_bind
    }

    /// Connects that had a port of the kernel's choice.
    pub fn connects(&self) -> u64 {
        self.by_connect + self.bound_connects
    }

    /// Ports taken and not given back.
    pub fn held(&self) -> u64 {
        self.taken().saturating_sub(self.released)
    }
}

/// Who has the ephemeral ports of a namespace, as sock_diag and procfs show it. Made when it matters: looking costs about
/// 1 µs a socket, and a pass over all processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSurvey {
    /// Network namespace.
    pub netns: u32,
    /// `net.ipv4.ip_local_port_range`.
    pub range: PortRange,
    /// Ports in it that are not reserved.
    pub capacity: u32,
    /// Of these: ports that some socket has.
    pub in_use: u32,
    /// Of these: ports that nothing but TIME_WAIT has.
    pub time_wait: u32,
    /// Of these: ports that a listening or bound-only socket has, which no connect() is given.
    pub blocked: u32,
    /// Ports in use of the parity that connect() prefers (that of the range's first port).
    pub in_use_connect_half: u32,
    /// Who has how many, most first; the first few. TIME_WAIT and other sockets that nobody has open are one entry.
    pub processes: Vec<PortHolders>,
    /// How many entries there would be.
    pub processes_total: u32,
    /// Where connections from these ports lead, most ports first; the first few.
    pub destinations: Vec<DestinationUse>,
    /// How many there would be.
    pub destinations_total: u32,
    /// Why something may be missing; `None` if complete.
    pub incomplete: Option<String>,
}

impl PortSurvey {
    /// Ports that a bind() to port 0 could still be given.
    pub fn free(&self) -> u32 {
        self.capacity.saturating_sub(self.in_use)
    }

    /// Connections to `remote`, from the source address that has the most of them.
    pub fn toward(&self, remote: SocketAddr) -> Option<&DestinationUse> {
        self.destinations.iter().find(|destination| destination.remote == remote)
    }

    /// Ports that a connect() toward a destination of which `used` ports are in use could still be given, at most.
    pub fn free_toward(&self, used: u32) -> u32 {
        self.capacity.saturating_sub(self.blocked).saturating_sub(used)
    }
}

/// A process and its ephemeral ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolders {
    /// The process; `None` for sockets that nobody has open: TIME_WAIT, and connections that are being closed.
    pub owner: Option<Owner>,
    /// Ports.
    pub ports: u32,
    /// Of its sockets: connected.
    pub established: u32,
    /// Of its sockets: closed by the peer, not by the process.
    pub close_wait: u32,
    /// Of its sockets: bound, and neither listening nor connected.
    pub bound: u32,
    /// In TIME_WAIT.
    pub time_wait: u32,
    /// The destination of most of its connections, and how many they are.
    pub most_to: Option<(SocketAddr, u32)>,
}

/// A destination and the ephemeral ports from which it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationUse {
    /// Local address.
    pub source: IpAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Ports in use between these two.
    pub ports: u32,
    /// Of these: in TIME_WAIT.
    pub time_wait: u32,
    /// The process that has most of them.
    pub owner: Option<Owner>,
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
    /// Index of the device that it is bound to; 0 for none.
    #[serde(default)]
    pub device: u32,
    /// What is left of the time that the kernel keeps it in this state, milliseconds: of TIME_WAIT, and of FIN-WAIT-2 once its
    /// process has closed it.
    pub time_wait_left_ms: Option<u64>,
    /// How often its last segment was sent again without an answer.
    #[serde(default)]
    pub retransmits: u32,
    /// Processes that have it open.
    pub owners: Vec<Owner>,
}
