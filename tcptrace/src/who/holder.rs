//! A socket that has a port, put together from what sock_diag and the iterator say about it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::event::{
    Family, OpenSocket, Owner, OwnerConfidence, ProcessDetails, SocketOptions, SocketState, Timestamp,
    canonical,
};
use crate::finding::ProcessName;
use crate::host::sock_diag::DiagSocket;

/// Length of TIME_WAIT (`TCP_TIMEWAIT_LEN`, all versions).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// A socket that has a port.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Network namespace.
    pub netns: u32,
    /// Family of the socket: an IPv6 one may have an IPv4 address.
    pub family: Family,
    /// Local end, mapped addresses as IPv4.
    pub local: SocketAddr,
    /// Remote end, if it is connected.
    pub remote: Option<SocketAddr>,
    /// Its state.
    pub state: SocketState,
    /// Whose it is.
    pub belongs: Belonging,
    /// How it came by the port.
    pub taken: Option<Taken>,
    /// Its processes, by ascending pid.
    pub processes: Vec<Process>,
    /// User id; `None` where it has none (TIME_WAIT).
    pub uid: Option<u32>,
    /// Inode number of its file; 0 if it has none.
    pub inode: u64,
    /// Device that it is bound to; 0 for none.
    pub device: u32,
    /// Its options, where they could be read.
    pub options: Option<SocketOptions>,
    /// IPV6_V6ONLY, from either source.
    pub v6only: bool,
    /// A listener's accept queue: depth and limit.
    pub queue: Option<(u32, u32)>,
    /// What is left of TIME_WAIT.
    pub time_wait_left: Option<Duration>,
    /// An MPTCP socket.
    pub mptcp: bool,
}

/// Whose a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belonging {
    /// Of the processes named.
    Processes,
    /// Of processes that could not be seen.
    Hidden,
    /// Of nobody: the remains of a closed connection.
    Nobody,
    /// Of nobody yet: it waits to be accepted, or is half open.
    NotAccepted,
    /// No process has a descriptor for it. The kernel itself may have it (NFS), or io_uring (a registered file), or it is on its
    /// way from one process to another: what of these cannot be seen from here.
    NoProcess,
}

impl Belonging {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processes => "process",
            Self::Hidden => "hidden",
            Self::Nobody => "orphan",
            Self::NotAccepted => "not-accepted",
            Self::NoProcess => "no-process",
        }
    }
}

/// How a socket came by its port, as far as its state tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// bind() asked for it by number.
    Bind,
    /// bind() or listen() without a number: the kernel chose it.
    BindAny,
    /// connect(): the kernel chose it. Or bind() to port 0 before connect(), which looks the same.
    Connect,
    /// It is the port of the listener that accepted the connection.
    Accepted,
}

impl Taken {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::BindAny => "bind-any",
            Self::Connect => "connect",
            Self::Accepted => "accepted",
        }
    }
}

/// A process that has a socket open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Descriptors by which it has the socket.
    pub descriptors: Vec<u32>,
    /// Command name; empty if the process was gone when it was looked up.
    pub comm: String,
    /// Command line.
    pub command: Option<String>,
    /// Container, pod or unit.
    pub container: Option<String>,
    /// What else is known of it.
    pub details: ProcessDetails,
    /// When it was started: it has had the port no longer than that, unless it inherited the socket.
    pub started: Option<Timestamp>,
}

impl Holder {
    /// What sock_diag lists. Owners come later.
    pub(super) fn of_diag(netns: u32, socket: &DiagSocket) -> Self {
        let state = socket.state;
        Self {
            netns,
            family: socket.family,
            local: canonical(socket.local),
            remote: (socket.remote.port() != 0).then(|| canonical(socket.remote)),
            state,
            belongs: belonging(state, socket.inode),
            taken: None,
            processes: Vec::new(),
            uid: (socket.inode != 0).then_some(socket.uid),
            inode: socket.inode,
            device: socket.ifindex,
            options: None,
            v6only: socket.v6only.unwrap_or(false),
            queue: (state == SocketState::Listen).then_some((socket.rqueue, socket.wqueue)),
            time_wait_left: socket.time_wait_left(),
            mptcp: false,
        }
    }

    /// What only the iterator lists.
    pub(super) fn of_open(socket: &OpenSocket) -> Self {
        let mut holder = Self {
            netns: socket.endpoints.netns,
            family: socket.endpoints.family,
            local: socket.endpoints.local,
            remote: socket.endpoints.remote,
            state: socket.state,
            belongs: Belonging::Processes,
            taken: None,
            processes: Vec::new(),
            uid: Some(socket.uid),
            inode: socket.inode,
            device: socket.endpoints.device,
            options: None,
            v6only: false,
            queue: (socket.state == SocketState::Listen).then_some((socket.depth, socket.limit)),
            time_wait_left: None,
            mptcp: socket.mptcp,
        };
        holder.supplement(socket);
        holder
    }

    /// Adds what the iterator knows about the same socket.
    pub(super) fn supplement(&mut self, socket: &OpenSocket) {
        self.options = Some(socket.options);
        self.v6only |= socket.options.v6only();
        self.mptcp |= socket.mptcp;
        if socket.port_by_number {
            self.taken = Some(Taken::Bind);
        } else if matches!(self.state, SocketState::Bound | SocketState::Listen) {
            self.taken = Some(Taken::BindAny);
        }
        self.add_owner(socket.pid, socket.fd);
    }

    /// `pid` has it open as `descriptor`.
    pub(super) fn add_owner(&mut self, pid: u32, descriptor: u32) {
        self.belongs = Belonging::Processes;
        if let Some(known) = self.processes.iter_mut().find(|process| process.pid == pid) {
            known.descriptors.push(descriptor);
            return;
        }
        self.processes.push(Process {
            pid,
            descriptors: vec![descriptor],
            comm: String::new(),
            command: None,
            container: None,
            details: ProcessDetails::default(),
            started: None,
        });
    }

    /// Since when it has had the port, as far as that can be known without having seen it: exact for the remains of a
    /// connection, for whatever process has it not before that was started.
    pub fn since(&self, now: Timestamp) -> Since {
        if let Some(left) = self.time_wait_left.filter(|_| self.state == SocketState::TimeWait) {
            return Since::At(now.before(TIME_WAIT.saturating_sub(left)));
        }
        match self.processes.iter().filter_map(|process| process.started).min() {
            Some(started) => Since::NotBefore(started),
            None => Since::Unknown,
        }
    }

    /// The process to name, and the others.
    pub fn name(&self) -> ProcessName {
        let Some(first) = self.processes.first() else { return ProcessName::default() };
        let owner = |process: &Process| Owner { pid: process.pid, comm: process.comm.clone() };
        ProcessName {
            pid: Some(first.pid),
            comm: (!first.comm.is_empty()).then(|| first.comm.clone()),
            command: first.command.clone(),
            container: first.container.clone(),
            details: first.details.clone(),
            confidence: OwnerConfidence::Bootstrapped,
            also: self.processes.iter().skip(1).map(owner).collect(),
        }
    }

    /// Order of telling: by port, then those that stay before those that pass.
    pub(super) fn rank(&self) -> (u16, u8, SocketAddr, Option<SocketAddr>) {
        let kind = match self.state {
            SocketState::Listen => 0,
            SocketState::Bound => 1,
            SocketState::TimeWait => 4,
            SocketState::SynRecv => 3,
            _ => 2,
        };
        (self.local.port(), kind, self.local, self.remote)
    }
}

/// Since when a socket has had its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Since then.
    At(Timestamp),
    /// Not before then.
    NotBefore(Timestamp),
    /// Nothing is known.
    Unknown,
}

/// Whose a socket is, before its processes are looked up.
fn belonging(state: SocketState, inode: u64) -> Belonging {
    if inode != 0 {
        return Belonging::Hidden;
    }
    match state {
        SocketState::Listen | SocketState::Bound | SocketState::SynSent => Belonging::NoProcess,
        // A connection of the kernel's own looks like one that waits to be accepted.
        SocketState::Established | SocketState::SynRecv | SocketState::CloseWait => Belonging::NotAccepted,
        _ => Belonging::Nobody,
    }
}
