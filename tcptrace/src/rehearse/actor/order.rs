//! What the stage tells an actor to do, and what the actor answers: one JSON line each way, strictly in turn.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// One instruction. Every order gets exactly one [`Reply`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(in crate::rehearse) enum Order {
    /// Take a port as a server does; answers `Vec<BindAttempt>`, the last being the one that counted.
    Bind(Bind),
    /// Open a listening socket as servers do, with SO_REUSEADDR.
    Open(Door),
    /// Call listen() on the socket bound last; answers a [`BindAttempt`].
    Listen { backlog: i32 },
    /// Set TCP_DEFER_ACCEPT on the listener (0: off).
    DeferAccept { seconds: i32 },
    /// Have the listening socket discard what its clients send.
    Guard(Guard),
    /// Have the listening socket accept connections to this port as well, by a BPF program (sk_lookup).
    Steer { from: u16 },
    /// Have an io_uring keep the listening socket as well.
    Entrust,
    /// Accept in the background: each worker takes a connection, works on it for `every_ms`, answers and closes it.
    Accept { workers: usize, every_ms: u64 },
    /// Change the time that workers spend on a connection.
    Pace { every_ms: u64 },
    /// Accept in the background and keep what was accepted, until the process may have only `spare` more descriptors;
    /// answers that limit. From then on accept() is tried again and again in vain.
    Hoard { spare: u64 },
    /// Accept in the background in a manner of its own; answers the limit on descriptors, 0 if it was not changed.
    AcceptAs { manner: Accepting },
    /// Start processes of this name that inherit the listening socket, accept, and take `every_ms` for a connection; each exits
    /// after so many `customers` (0: never). Answers their pids.
    Hire { name: String, workers: usize, every_ms: u64, customers: usize },
    /// How many connections the workers have accepted; answers `u64`.
    Accepted,
    /// How often accept() has failed for lack of descriptors; answers `u64`.
    Refused,
    /// When accept() returned which client's connection; answers `Vec<Stamp>`.
    Acceptances,
    /// Accept one connection, and keep it until the end.
    AcceptOne,
    /// Serve in the background as a small web server with non-blocking accepts.
    Serve { workers: usize },
    /// Stop serving and close every listening and bound socket; a ring that keeps one, last.
    Close,
    /// Leave the sockets to a child of this name and exit; the child answers with its [`Hello`].
    Bequeath { heir: String },
    /// Take the listening socket that is sent to this abstract address of a Unix socket (SCM_RIGHTS).
    Receive { at: String },
    /// Send the listening socket there, and keep it as well.
    Pass { to: String },
    /// The number of the listening socket's descriptor; answers `i32`.
    Descriptor,
    /// Take the socket that another process has by this descriptor (pidfd_getfd).
    Fetch { pid: u32, descriptor: i32 },
    /// Open connections and wait until all are established; answers their local addresses.
    Connect { to: SocketAddr, count: usize },
    /// Open connections from these local ports, 0 being any, one after the other; answers how many were opened.
    Dial { to: SocketAddr, ports: Vec<u16>, every_ms: u64 },
    /// When which connection was complete for the client; answers `Vec<Stamp>`.
    Connections,
    /// Send one byte on every established connection that has sent none; answers how many did.
    Send,
    /// Open connections at a pace, whatever becomes of them, and hold them; answers how many were opened.
    Load(Load),
    /// Close all connections and say what became of them; answers a [`Tally`].
    HangUp { reset: bool },
    /// Use a server as well-behaved clients do; answers a [`Visits`].
    Visit(Visit),
    /// Connect as browsers do, to two addresses in a race; answers a [`Visits`].
    Race(Race),
    /// Try to connect and close at once; answers the errno for each address, 0 for a connection.
    Knock { at: Vec<SocketAddr> },
    /// Look whether a server listens, as load balancers do: connect, and reset as soon as it answers, without completing the handshake.
    Check(Check),
    /// Connect from a port of its own, to the same destination again and again; answers the errno of each time, 0 for a
    /// connection.
    Redial(Redial),
    /// Take ephemeral ports, one after the other, until there are none or as many as wanted; answers a [`Taken`].
    Take(Take),
    /// Play many clients in the background, in the clients' namespace of a pair.
    Crowd(Crowd),
    /// Whether anybody in the crowd has something left to do of his own accord; answers `bool`.
    CrowdBusy,
    /// Send the crowd home; answers a [`CrowdTally`].
    Disperse,
    /// Send SYNs as fast as they go; answers how many.
    Storm(Storm),
    /// Send SYNs with a wrong checksum, from the clients' namespace of a pair; answers how many.
    Damaged(Damaged),
}

/// How a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::rehearse) enum Accepting {
    /// In an event loop (epoll), until it has as many customers as it wants: then it takes the listener out of the loop.
    Limited { customers: usize },
    /// As libuv does: keeps connections until it may have only `spare` more descriptors; from then on it gives up a descriptor that
    /// it keeps in reserve, accepts with it, and closes the connection at once.
    Reserve { spare: u64 },
    /// Likewise, but at the first failure it closes what it has and never accepts again.
    GivesUp { spare: u64 },
    /// Without ever waiting: it tries again every 10 ms whether there is a connection.
    Impatient,
}

/// Why a listening socket discards what its clients send.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub(in crate::rehearse) enum Guard {
    /// TCP_MD5SIG: a key for this peer, which signs nothing.
    Md5 { peer: IpAddr },
    /// IP_MINTTL, IPV6_MINHOPCOUNT: only neighbours that send with the highest TTL.
    MinTtl,
    /// SO_ATTACH_FILTER: a filter that takes nothing.
    Filter,
}

/// How a server opens its listening socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Door {
    pub(in crate::rehearse) address: SocketAddr,
    pub(in crate::rehearse) backlog: i32,
    /// SO_REUSEPORT.
    pub(in crate::rehearse) reuseport: bool,
    /// TCP_FASTOPEN with this queue; 0: without.
    pub(in crate::rehearse) fastopen: i32,
    /// A multipath TCP socket.
    pub(in crate::rehearse) mptcp: bool,
    /// An SMC socket: the TCP listener below it is the kernel's own.
    pub(in crate::rehearse) smc: bool,
    /// IP_TRANSPARENT, IPV6_TRANSPARENT: a proxy that takes connections to other addresses.
    pub(in crate::rehearse) transparent: bool,
}

impl Door {
    pub(in crate::rehearse) fn at(address: SocketAddr, backlog: i32) -> Self {
        Self { address, backlog, reuseport: false, fastopen: 0, mptcp: false, smc: false, transparent: false }
    }
}

/// Connections from one port to one destination, one after the other. With SO_REUSEADDR.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Redial {
    pub(in crate::rehearse) from: SocketAddr,
    pub(in crate::rehearse) to: SocketAddr,
    pub(in crate::rehearse) times: u32,
    /// Pause after each.
    pub(in crate::rehearse) gap_ms: u64,
    /// Keep the connections; otherwise each is closed at once.
    pub(in crate::rehearse) keep: bool,
}

/// How to take ephemeral ports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Take {
    /// Where to connect to, in turn; with none, ports are only bound.
    pub(in crate::rehearse) to: Vec<SocketAddr>,
    /// Call bind() with port 0 and this address first.
    pub(in crate::rehearse) bind: Option<IpAddr>,
    /// IP_BIND_ADDRESS_NO_PORT: that bind() leaves the port to connect().
    pub(in crate::rehearse) late: bool,
    /// IP_LOCAL_PORT_RANGE: first and last port.
    pub(in crate::rehearse) own_range: Option<(u16, u16)>,
    pub(in crate::rehearse) count: usize,
    pub(in crate::rehearse) every_ms: u64,
    /// Close each at once, so that it is left in TIME_WAIT; otherwise they are kept.
    pub(in crate::rehearse) close: bool,
    /// Ask the server to close, and do not close this side.
    pub(in crate::rehearse) abandon: bool,
}

/// What came of taking ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::rehearse) struct Taken {
    /// How many were taken.
    pub(in crate::rehearse) ports: usize,
    /// How the next one failed, if it did.
    pub(in crate::rehearse) failed: Option<BindAttempt>,
}

/// When something happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::rehearse) struct Stamp {
    /// The client's port.
    pub(in crate::rehearse) port: u16,
    /// CLOCK_MONOTONIC.
    pub(in crate::rehearse) nanos: u64,
}

/// How to take a port.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Bind {
    pub(in crate::rehearse) address: SocketAddr,
    pub(in crate::rehearse) reuseaddr: bool,
    /// SO_REUSEPORT.
    pub(in crate::rehearse) reuseport: bool,
    /// IPV6_V6ONLY, for an IPv6 address.
    pub(in crate::rehearse) v6only: bool,
    /// SO_BINDTODEVICE: only what comes by this device.
    pub(in crate::rehearse) device: Option<String>,
    /// As this user, without root's capabilities.
    pub(in crate::rehearse) user: Option<u32>,
    /// A multipath TCP socket.
    pub(in crate::rehearse) mptcp: bool,
    /// After it has forbidden itself to bind any TCP port (Landlock).
    pub(in crate::rehearse) confined: bool,
    /// IP_TRANSPARENT, IPV6_TRANSPARENT.
    pub(in crate::rehearse) transparent: bool,
    /// Call listen() as well, with this backlog.
    pub(in crate::rehearse) backlog: Option<i32>,
    pub(in crate::rehearse) attempts: u32,
    pub(in crate::rehearse) gap_ms: u64,
    /// Kill this actor (SIGKILL) in the instant in which the bind has failed.
    pub(in crate::rehearse) then_kill: Option<i32>,
}

impl Bind {
    /// One try at an address, without options.
    pub(in crate::rehearse) fn to(address: SocketAddr) -> Self {
        Self {
            address,
            reuseaddr: false,
            reuseport: false,
            v6only: false,
            device: None,
            user: None,
            mptcp: false,
            confined: false,
            transparent: false,
            backlog: None,
            attempts: 1,
            gap_ms: 0,
            then_kill: None,
        }
    }
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
    pub(in crate::rehearse) habit: Habit,
}

/// What polite clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::rehearse) enum Habit {
    /// Short connections and a keep-alive one.
    Mixed,
    /// Short connections only.
    Short,
    /// Requests on one connection only.
    KeepAlive,
    /// Short connections with TCP Fast Open.
    FastOpen,
    /// Short connections with multipath TCP.
    Mptcp,
}

/// A browser's connects: the second address is called when the first has not answered after the head start, and the loser
/// of the race is closed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Race {
    pub(in crate::rehearse) first: SocketAddr,
    pub(in crate::rehearse) second: SocketAddr,
    /// 0: both are called at once.
    pub(in crate::rehearse) head_start_ms: u64,
    pub(in crate::rehearse) times: usize,
    pub(in crate::rehearse) every_ms: u64,
}

/// Health checks of a load balancer, one after the other.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in crate::rehearse) struct Check {
    pub(in crate::rehearse) to: SocketAddr,
    pub(in crate::rehearse) times: usize,
    pub(in crate::rehearse) every_ms: u64,
}

/// What polite clients did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::rehearse) struct Visits {
    pub(in crate::rehearse) connections: u64,
    pub(in crate::rehearse) keep_alive_requests: u64,
    /// What went wrong; empty in a healthy run.
    pub(in crate::rehearse) errors: Vec<String>,
}

/// Many clients of a server, played by hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Crowd {
    pub(in crate::rehearse) to: SocketAddr,
    pub(in crate::rehearse) clients: usize,
    pub(in crate::rehearse) place: Place,
    /// Time between the first SYNs of one client and the next.
    pub(in crate::rehearse) every_us: u64,
    /// When a client sends its SYN again, after the first one.
    pub(in crate::rehearse) again_ms: Vec<u64>,
    /// When it gives up, after the first SYN.
    pub(in crate::rehearse) give_up_ms: u64,
    /// How often a client calls, each time from a new port, before it gives up for good.
    pub(in crate::rehearse) rounds: u16,
    pub(in crate::rehearse) manner: Manner,
}

/// Where a crowd's clients are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::rehearse) enum Place {
    /// In one network: 10.78.N.0/24, or fd78:0:N::/64.
    Prefix(u8),
    /// All over 10.78.0.0/16 or fd78::/32.
    Everywhere,
}

/// What a crowd's clients do about a SYN-ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::rehearse) enum Manner {
    /// Nothing: it does not reach them.
    Deaf,
    /// The last step of the handshake and a request, some time after this many SYN-ACKs.
    Answer { synack: u32, after_ms: u64 },
    /// The last step of the handshake at once, and then nothing.
    Silent,
    /// Nothing until they give up; then an RST, as the socket is gone.
    Reset,
    /// Nothing until they give up; then this router says that they cannot be reached.
    Unreachable { router: IpAddr },
}

/// What a crowd did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::rehearse) struct CrowdTally {
    pub(in crate::rehearse) clients: u64,
    /// Calls, each from a port of its own.
    pub(in crate::rehearse) calls: u64,
    /// Clients that called again from a new port.
    pub(in crate::rehearse) retried: u64,
    /// SYNs sent, first ones and repetitions.
    pub(in crate::rehearse) syns: u64,
    /// SYN-ACKs received.
    pub(in crate::rehearse) synacks: u64,
    /// Calls that got any SYN-ACK.
    pub(in crate::rehearse) heard: u64,
    /// Calls whose handshake the client completed.
    pub(in crate::rehearse) completed: u64,
    /// Calls that got the server's answer.
    pub(in crate::rehearse) answered: u64,
    /// RSTs sent in answer to a SYN-ACK.
    pub(in crate::rehearse) resets: u64,
    /// ICMP messages sent in answer to a SYN-ACK.
    pub(in crate::rehearse) unreachables: u64,
    /// RSTs received.
    pub(in crate::rehearse) was_reset: u64,
}

/// SYNs at a server that drops them all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Storm {
    pub(in crate::rehearse) to: SocketAddr,
    /// The number of the first one, from which its address comes.
    pub(in crate::rehearse) first: u64,
    pub(in crate::rehearse) syns: u64,
    /// A process in the server's namespace.
    pub(in crate::rehearse) server: u32,
    /// The counter of that namespace by which each of them is counted.
    pub(in crate::rehearse) counter: String,
}

/// SYNs with a wrong checksum.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::rehearse) struct Damaged {
    pub(in crate::rehearse) to: SocketAddr,
    pub(in crate::rehearse) syns: u64,
    pub(in crate::rehearse) every_ms: u64,
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
