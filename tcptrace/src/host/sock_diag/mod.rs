//! TCP sockets of a network namespace as the kernel lists them (`NETLINK_SOCK_DIAG`), without probes: listeners with
//! their accept queues, and whoever holds a port, in every state.
//!
//! A [`SockDiag`] keeps one netlink socket open in its namespace, so that a poll enters no namespace and starts no thread.

mod netlink;
pub mod wire;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use std::os::fd::AsRawFd;
use std::path::Path;

use super::netns::{Netns, NetnsError, in_netns};
use super::numbers::NumberSet;
use super::sockstat::SockStat;
use crate::event::{Family, SocketState};
use netlink::Dump as NetlinkDump;
use wire::Ports;

/// A running timer of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// What it will do.
    pub kind: TimerKind,
    /// Time until it runs out, in the kernel's millisecond rounding.
    pub left: Duration,
    /// Retransmissions (or probes) made so far.
    pub retransmits: u8,
}

/// What a socket's timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerKind {
    /// Retransmission: of data, of a SYN, or, for a half-open request, of the SYN-ACK.
    Retransmit,
    /// Keep-alive probe.
    KeepAlive,
    /// End of TIME_WAIT (or of an orphan's FIN_WAIT2): the port is free afterwards.
    TimeWait,
    /// Zero window probe.
    ZeroWindowProbe,
}

/// Socket options that bear on binding (`INET_DIAG_SOCKOPT`, kernels from 5.10). sock_diag does not tell `SO_REUSEADDR`
/// and `SO_REUSEPORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// `IP_FREEBIND`.
    pub freebind: bool,
    /// `IP_TRANSPARENT`.
    pub transparent: bool,
    /// `IP_BIND_ADDRESS_NO_PORT`.
    pub bind_address_no_port: bool,
}

/// A socket as `struct inet_diag_msg` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiagSocket {
    /// Family of the socket, not of its traffic.
    pub family: Family,
    /// State. `Bound` is a socket that holds a port and neither listens nor is connected (kernels from 6.8 list those).
    pub state: SocketState,
    /// Local address and port, v4-mapped addresses as they are.
    pub local: SocketAddr,
    /// Remote address and port; unspecified for listeners and bound-only sockets.
    pub remote: SocketAddr,
    /// Interface that the socket is bound to (`SO_BINDTODEVICE`); 0 for any.
    pub ifindex: u32,
    /// The socket's cookie, the same number as in events and for `SO_COOKIE`.
    pub cookie: u64,
    /// Timer, if one runs.
    pub timer: Option<Timer>,
    /// Listeners: accept queue depth (`sk_ack_backlog`). Others: bytes not yet read.
    pub rqueue: u32,
    /// Listeners: accept queue limit (`sk_max_ack_backlog`). Others: bytes not yet acknowledged.
    pub wqueue: u32,
    /// Owner's user id. 0 for TIME_WAIT sockets and half-open requests, which belong to nobody.
    pub uid: u32,
    /// Inode of the socket's file, to find owners by; 0 without one (TIME_WAIT, half-open, not accepted yet, orphaned,
    /// made by the kernel).
    pub inode: u64,
    /// `sk_drops`. A listener's final-ACK overflows count twice in it.
    pub drops: Option<u32>,
    /// IPv6 listeners and bound-only sockets: `IPV6_V6ONLY`.
    pub v6only: Option<bool>,
    /// Control group id (v2) that the socket was made in (kernels from 5.8 with CONFIG_SOCK_CGROUP_DATA).
    pub cgroup: Option<u64>,
    /// Options, where the kernel tells them.
    pub options: Option<SocketOptions>,
    /// How long its peer has sent nothing, not even an acknowledgement, where that was asked for
    /// ([`SockDiag::about`]).
    pub silent_for: Option<Duration>,
}

impl DiagSocket {
    /// Time until the port of a TIME_WAIT socket (or an orphan in FIN_WAIT2) is free; `None` for other sockets.
    pub fn time_wait_left(&self) -> Option<Duration> {
        self.timer.filter(|timer| timer.kind == TimerKind::TimeWait).map(|timer| timer.left)
    }
}

/// A listening socket and its accept queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Family. An IPv6 listener that is not `v6only` takes IPv4 connections, too.
    pub family: Family,
    /// Address and port listened on.
    pub local: SocketAddr,
    /// `IPV6_V6ONLY`; `None` for IPv4.
    pub v6only: Option<bool>,
    /// Interface bound to; 0 for any.
    pub ifindex: u32,
    /// Inode of the socket's file; 0 for a listener of the kernel itself.
    pub inode: u64,
    /// The socket's cookie.
    pub cookie: u64,
    /// User id of the one who made it.
    pub uid: u32,
    /// Connections waiting for accept().
    pub depth: u32,
    /// Queue limit: min(backlog argument, somaxconn at listen() time). The queue is full when depth > limit.
    pub limit: u32,
    /// `sk_drops`: SYNs and ACKs dropped at this listener since it was made; final-ACK overflows count twice.
    pub drops: Option<u32>,
    /// Control group id (v2) that the socket was made in.
    pub cgroup: Option<u64>,
}

impl TryFrom<DiagSocket> for Listener {
    type Error = DiagSocket;

    /// Gives the socket back if it does not listen.
    fn try_from(socket: DiagSocket) -> Result<Self, DiagSocket> {
        if socket.state != SocketState::Listen {
            return Err(socket);
        }
        Ok(Self {
            family: socket.family,
            local: socket.local,
            v6only: socket.v6only,
            ifindex: socket.ifindex,
            inode: socket.inode,
            cookie: socket.cookie,
            uid: socket.uid,
            depth: socket.rqueue,
            limit: socket.wqueue,
            drops: socket.drops,
            cgroup: socket.cgroup,
        })
    }
}

/// A set of socket states to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// Pseudo-state of sock_diag: bound, neither listening nor connected. Older kernels than 6.8 ignore it.
    const BOUND_INACTIVE: u32 = 1 << 13;
    /// Every state, TIME_WAIT, half-open requests and bound-only sockets included.
    pub const ALL: Self = Self(0x1fff_u32 & !1 | Self::BOUND_INACTIVE);
    /// Listening sockets.
    pub const LISTEN: Self = Self(1 << SocketState::Listen as u32);

    /// The states named.
    pub const fn of(states: &[SocketState]) -> Self {
        let (mut mask, mut left) = (0, states);
        while let [state, rest @ ..] = left {
            if let Some(bit) = 1_u32.checked_shl(*state as u32) {
                mask |= bit;
            }
            left = rest;
        }
        Self(mask)
    }

    /// Of these states, the one of sockets that are bound and nothing else.
    fn bound_only(self) -> Self {
        Self(self.0 & Self::BOUND_INACTIVE)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which sockets to list. The kernel does the choosing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// In these states.
    pub states: States,
    /// With a local port in this range; all if `None`.
    pub ports: Option<RangeInclusive<u16>>,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sockets {
    /// The sockets, IPv4 first, each family in no particular order.
    pub sockets: Vec<DiagSocket>,
    /// The kernel's tables changed while it listed them, at every try: sockets may be missing.
    pub interrupted: bool,
}

/// Why sockets could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No netlink socket could be made.
    #[error("cannot open a sock_diag socket in network namespace {netns}: {source}")]
    Open {
        /// The namespace.
        netns: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel has no sock_diag for TCP.
    #[error(
        "the kernel cannot list TCP sockets: sock_diag for TCP is missing; load it with `modprobe tcp_diag` \
         (CONFIG_INET_TCP_DIAG)"
    )]
    NotSupported,
    /// Sending the request or receiving the answer failed.
    #[error("sock_diag in network namespace {netns}: cannot {what}: {source}")]
    Transfer {
        /// The namespace.
        netns: u32,
        /// `send the request` or `receive the answer`.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel refused the request, or broke the answer off.
    #[error("sock_diag in network namespace {netns}: the kernel refused to list sockets: {source}")]
    Refused {
        /// The namespace.
        netns: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The answer makes no sense.
    #[error("sock_diag in network namespace {netns}: {source}; please report this with your kernel version")]
    Malformed {
        /// The namespace.
        netns: u32,
        /// What is wrong.
        source: wire::Malformed,
    },
}

/// Lists the TCP sockets of one network namespace. Keeps a netlink socket open in it, which keeps the namespace alive.
#[derive(Debug)]
pub struct SockDiag {
    dump: NetlinkDump,
}

impl SockDiag {
    /// Opens sock_diag in a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered or no netlink socket can be made.
    pub fn open(netns: &Netns) -> Result<Self, SockDiagError> {
        Ok(Self { dump: NetlinkDump::open(netns)? })
    }

    /// Id of the namespace listed.
    pub fn netns(&self) -> u32 {
        self.dump.netns().id()
    }

    /// All listeners. Costs about 1 µs a listener in the kernel and does not walk connected sockets.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn listeners(&mut self) -> Result<Vec<Listener>, SockDiagError> {
        let query = Query { states: States::LISTEN, ports: None };
        let sockets = self.sockets(&query)?.sockets;
        Ok(sockets.into_iter().filter_map(|socket| Listener::try_from(socket).ok()).collect())
    }

    /// Every socket that holds `port`, in every state. Bound-only sockets are listed by kernels from 6.8 on, see
    /// [`lists_bound_only`].
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn holders(&mut self, port: u16) -> Result<Sockets, SockDiagError> {
        self.sockets(&Query { states: States::ALL, ports: Some(port..=port) })
    }

    /// Every socket with `port` on either side, in one walk, with the time for which each peer has been silent. Those that
    /// no program has accepted have no inode.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn about(&mut self, port: u16) -> Result<Vec<DiagSocket>, SockDiagError> {
        let (mut found, mut seen) = (Vec::new(), NumberSet::default());
        for (family, states) in self.walks(States::ALL) {
            self.dump.run(
                family,
                states.0,
                Some(&Ports::Either(port)),
                true,
                &mut |socket: DiagSocket| {
                    if seen.insert(socket.cookie) {
                        found.push(socket);
                    }
                },
            )?;
        }
        Ok(found)
    }

    /// Sockets in these states that are connected, or are being connected, to `port`.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn connected_to(&mut self, port: u16, states: States) -> Result<Vec<DiagSocket>, SockDiagError> {
        let (mut found, mut seen) = (Vec::new(), NumberSet::default());
        for (family, states) in self.walks(states) {
            let ports = Ports::Remote(port..=port);
            self.dump.run(family, states.0, Some(&ports), false, &mut |socket: DiagSocket| {
                if seen.insert(socket.cookie) {
                    found.push(socket);
                }
            })?;
        }
        Ok(found)
    }

    /// What to walk through for sockets in these states: of a family that has none that listens or is connected, only those
    /// that are bound and nothing else can be there. Each family is a walk through the kernel's tables.
    fn walks(&self, states: States) -> Vec<(Family, States)> {
        let in_use = in_netns(self.dump.netns(), || SockStat::read(Path::new("/proc"))).ok().flatten();
        let in_use = in_use.map_or_else(|| vec![Family::V4, Family::V6], SockStat::families);
        let of = |family| if in_use.contains(&family) { states } else { states.bound_only() };
        let walks = [Family::V4, Family::V6].map(|family| (family, of(family)));
        walks.into_iter().filter(|(_, states)| !states.is_empty()).collect()
    }

    /// The sockets that `query` asks for, each once. A listing during which the kernel says that its tables changed is
    /// tried again, three times in all.
    ///
    /// The kernel lists table by table and bucket by bucket, and (up to 6.19 at least) does not say when a bucket that
    /// spans two datagrams changed in between: on a busy host, a listing of many sockets is not a snapshot.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn sockets(&mut self, query: &Query) -> Result<Sockets, SockDiagError> {
        let walks = self.walks(query.states);
        self.walk(&walks, query.ports.clone().map(Ports::Local).as_ref())
    }

    /// The same for some families only.
    ///
    /// # Errors
    /// See [`SockDiagError`].
    pub fn sockets_of(&mut self, families: &[Family], query: &Query) -> Result<Sockets, SockDiagError> {
        let walks: Vec<_> = families.iter().map(|family| (*family, query.states)).collect();
        self.walk(&walks, query.ports.clone().map(Ports::Local).as_ref())
    }

    fn walk(&mut self, walks: &[(Family, States)], ports: Option<&Ports>) -> Result<Sockets, SockDiagError> {
        const TRIES: u32 = 3;
        let mut answer = Sockets::default();
        let mut seen = NumberSet::default();
        for _ in 0..TRIES {
            answer.sockets.clear();
            seen.clear();
            answer.interrupted = false;
            for (family, states) in walks {
                let mut take = |socket: DiagSocket| {
                    // Listed again when it moved along in its bucket, or from one table to the next.
                    if seen.insert(socket.cookie) {
                        answer.sockets.push(socket);
                    }
                };
                answer.interrupted |= self.dump.run(*family, states.0, ports, false, &mut take)?;
            }
            if !answer.interrupted {
                break;
            }
        }
        Ok(answer)
    }
}

/// Whether this kernel lists bound-only sockets (6.8 and later do), found out by binding one in a network namespace made
/// for that. `None` where such a namespace may not be made (not root). Tried once a process.
pub fn lists_bound_only() -> Option<bool> {
    static ANSWER: OnceLock<Option<bool>> = OnceLock::new();
    *ANSWER.get_or_init(|| std::thread::spawn(try_bound_only).join().ok().flatten())
}

/// Changes its thread's network namespace.
fn try_bound_only() -> Option<bool> {
    unshare(CloneFlags::CLONE_NEWNET).ok()?;
    let holder = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).ok()?;
    bind(holder.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 0)).ok()?;
    let port = getsockname::<SockaddrIn>(holder.as_raw_fd()).ok()?.port();
    let found = SockDiag::open(&Netns::current().ok()?).ok()?.holders(port).ok()?;
    Some(!found.sockets.is_empty())
}

#[cfg(test)]
mod tests;
