//! Where an incident happens: one private namespace with loopback, or two joined by a veth pair.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::actor::Actor;
use super::cancel::Cancel;
use super::counters::{self, Counters};
use super::error::{During, Error, Result};
use super::namespace::Namespace;
use super::netlink::{self, End, Via};

/// How long something may take that happens at once on an idle machine. Generous: emulators are slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What a stage consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// One namespace: clients and servers meet on loopback.
    #[default]
    Loopback,
    /// A namespace for servers and one for clients, joined by a veth pair with private addresses. Addresses that nobody
    /// has are routed to the clients' side, where they are the players' ([`ABROAD_V4`], [`ABROAD_V6`]).
    Pair,
}

/// The servers' end of a pair. Its Ethernet address is locally administered, and known to whoever makes frames by hand.
pub(super) const SERVER_LINK: End = End { name: "tt-server", mac: [0x02, b't', b't', 0, 0, 1] };
/// The clients' end.
pub(super) const CLIENT_LINK: End = End { name: "tt-client", mac: [0x02, b't', b't', 0, 0, 2] };
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;

/// Addresses beyond the clients' namespace (a /16): it takes packets for them and drops them without a word.
pub(super) const ABROAD_V4: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 0);
/// The same for IPv6 (a /32).
pub(super) const ABROAD_V6: Ipv6Addr = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 0);
const ABROAD: [(IpAddr, u8); 2] = [(IpAddr::V4(ABROAD_V4), 16), (IpAddr::V6(ABROAD_V6), 32)];

/// Private namespaces and the way to put actors into them. Drop ends the namespaces; actors must be dropped before.
#[derive(Debug)]
pub struct Stage {
    server: Namespace,
    client: Option<Namespace>,
    executable: PathBuf,
    cancel: Cancel,
}

impl Stage {
    /// One namespace with loopback up; the caller's process stays where it is.
    pub fn new() -> Result<Self> {
        Self::with(Layout::Loopback)
    }

    /// A stage of the given layout.
    pub fn with(layout: Layout) -> Result<Self> {
        let server = namespace()?;
        let client = match layout {
            Layout::Loopback => None,
            Layout::Pair => Some(joined_to(&server)?),
        };
        Ok(Self { server, client, executable: PathBuf::from("/proc/self/exe"), cancel: Cancel::default() })
    }

    /// Starts actors from this executable instead of our own; it must hand `__actor …` to [`super::actor_main`].
    #[must_use]
    pub fn with_actor_executable(mut self, executable: PathBuf) -> Self {
        self.executable = executable;
        self
    }

    /// The number of the (servers') namespace, to filter a tracer by.
    pub fn netns_inode(&self) -> u32 {
        self.server.inode()
    }

    /// The namespace of servers: of everybody, on loopback.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// The namespace of clients: on loopback the same as [`Stage::server`].
    pub fn client(&self) -> &Namespace {
        self.client.as_ref().unwrap_or(&self.server)
    }

    /// The address at which clients reach servers.
    pub fn server_address(&self, ipv6: bool) -> IpAddr {
        match (&self.client, ipv6) {
            (None, false) => Ipv4Addr::LOCALHOST.into(),
            (None, true) => Ipv6Addr::LOCALHOST.into(),
            (Some(_), _) => pair_address(ipv6, 1),
        }
    }

    /// The address from which clients come.
    pub fn client_address(&self, ipv6: bool) -> IpAddr {
        if self.client.is_some() { pair_address(ipv6, 2) } else { self.server_address(ipv6) }
    }

    /// Reads a setting of the servers' namespace, e.g. `net.core.somaxconn`.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        self.server.sysctl(name)
    }

    /// Changes a setting of the servers' namespace.
    pub fn set_sysctl(&self, name: &str, value: impl Display) -> Result<()> {
        self.server.set_sysctl(name, &format!("{value}"))
    }

    /// All TcpExt and Tcp counters of the servers' namespace, by column name.
    pub fn counters(&self) -> Result<Counters> {
        counters::read(&self.server)
    }

    /// The switch that ends whatever is being played here.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    pub(super) fn start_server(&self, role: &str) -> Result<Actor> {
        Actor::start(self.server(), &self.executable, role, &self.cancel)
    }

    pub(super) fn start_client(&self, role: &str) -> Result<Actor> {
        Actor::start(self.client(), &self.executable, role, &self.cancel)
    }

    /// Waits until `condition` holds; it did not come about if that takes too long.
    pub(super) fn await_that(&self, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        if self.cancel.wait(PATIENCE, &mut condition)? {
            return Ok(());
        }
        Err(Error::NotStaged(format!("waited {} s in vain until {what}", PATIENCE.as_secs())))
    }

    /// Connections in the accept queue of the listener on `port`; None without a listener.
    pub(super) fn accept_queue(&self, port: u16) -> Result<Option<u32>> {
        let sockets = counters::sockets_on(&self.server, port)?;
        Ok(sockets.iter().find(|socket| socket.state == counters::LISTEN).map(|socket| socket.queue))
    }

    /// The accept queues of all listeners on `port`.
    pub(super) fn accept_queues(&self, port: u16) -> Result<Vec<u32>> {
        let sockets = counters::sockets_on(&self.server, port)?;
        let listeners = sockets.iter().filter(|socket| socket.state == counters::LISTEN);
        Ok(listeners.map(|socket| socket.queue).collect())
    }

    /// Half-open requests for local `port`.
    pub(super) fn half_open(&self, port: u16) -> Result<usize> {
        let sockets = counters::sockets_on(&self.server, port)?;
        Ok(sockets.iter().filter(|socket| socket.state == counters::SYN_RECV).count())
    }

    /// Whether a connection with local `port` is in TIME_WAIT.
    pub(super) fn in_time_wait(&self, port: u16) -> Result<bool> {
        Ok(counters::sockets_on(&self.server, port)?.iter().any(|socket| socket.state == counters::TIME_WAIT))
    }

    /// Whether a socket with local `port` is in this state (a number of [`counters`]).
    pub(super) fn is_in_state(&self, port: u16, state: u8) -> Result<bool> {
        Ok(counters::sockets_on(&self.server, port)?.iter().any(|socket| socket.state == state))
    }

    /// Whether any socket that procfs shows has local `port` (bound-only ones it does not show).
    pub(super) fn is_on(&self, port: u16) -> Result<bool> {
        Ok(!counters::sockets_on(&self.server, port)?.is_empty())
    }

    /// The counters once they have stopped moving: SYNs and ACKs in flight are counted late.
    pub(super) fn settled_counters(&self) -> Result<Counters> {
        const STILL: Duration = Duration::from_millis(200);
        let mut last = self.counters()?;
        // A bound, not a need: it comes to rest at the first or second look once the clients have closed.
        for _ in 0..50 {
            self.cancel.sleep(STILL)?;
            let now = self.counters()?;
            let quiet = ["ListenOverflows", "ListenDrops", "PassiveOpens", "TCPSynRetrans", "TCPTimeouts"]
                .iter()
                .all(|&name| now.get(name) == last.get(name));
            last = now;
            if quiet {
                return Ok(last);
            }
        }
        Err(Error::NotStaged("the kernel's counters do not come to rest".into()))
    }
}

fn namespace() -> Result<Namespace> {
    let namespace = Namespace::new()?;
    namespace.run(|| netlink::set_up("lo"))?.during("setting loopback up")?;
    Ok(namespace)
}

/// A second namespace, joined to `server` by a veth pair.
fn joined_to(server: &Namespace) -> Result<Namespace> {
    let client = namespace()?;
    let entrance = client.fd().try_clone_to_owned().during("duplicating a namespace's descriptor")?;
    let added = server.run(move || {
        use std::os::fd::AsFd;
        netlink::add_veth(SERVER_LINK, CLIENT_LINK, entrance.as_fd())
    })?;
    added.map_err(|source| match source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => Error::NotSupported("this kernel has no veth links (module veth)".into()),
        _ => Error::Io { what: "making a veth pair".into(), source },
    })?;
    furnish(server, SERVER_LINK.name, 1)?;
    furnish(&client, CLIENT_LINK.name, 2)?;
    open_borders(server, &client)?;
    acquaint(server, &client)?;
    Ok(client)
}

/// Makes one connection across in each address family. A link is up a moment later than it says, and what is sent in that
/// moment gets lost: here the kernel sends it again, and nobody minds.
fn acquaint(server: &Namespace, client: &Namespace) -> Result<()> {
    let families = if has_ipv6(server)? { 2 } else { 1 };
    for ipv6 in [false, true].into_iter().take(families) {
        let address = SocketAddr::new(pair_address(ipv6, 1), 0);
        let listener = server.run(move || TcpListener::bind(address))?.during("listening across the pair")?;
        let address = listener.local_addr().during("listening across the pair")?;
        let connection = client.run(move || TcpStream::connect_timeout(&address, PATIENCE))?;
        let connection = connection.during("connecting across the pair")?;
        // Reset, so that no TIME_WAIT has a port that an incident may want.
        setsockopt(&connection, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })
            .during("connecting across the pair")?;
        let accepted = listener.accept().during("accepting across the pair")?;
        drop((connection, accepted));
    }
    Ok(())
}

/// Routes what is abroad to the clients' namespace, which swallows it.
fn open_borders(server: &Namespace, client: &Namespace) -> Result<()> {
    // IPv4 settings of a new namespace are the host's, which may well be a router.
    client.set_sysctl("net.ipv4.ip_forward", "0")?;
    let ipv6 = has_ipv6(server)?;
    for (range, prefix) in ABROAD.into_iter().filter(|(range, _)| range.is_ipv4() || ipv6) {
        let out = Via::Gateway(pair_address(range.is_ipv6(), 2));
        let routed = server.run(move || netlink::add_route(range, prefix, out))?;
        routed.during(format!("routing {range}/{prefix} to the clients' namespace"))?;
        let swallowed = client.run(move || netlink::add_route(range, prefix, Via::Nowhere))?;
        swallowed.during(format!("swallowing {range}/{prefix} in the clients' namespace"))?;
    }
    Ok(())
}

fn furnish(namespace: &Namespace, link: &'static str, host: u8) -> Result<()> {
    let ipv6 = has_ipv6(namespace)?;
    let furnished = namespace.run(move || {
        netlink::set_up(link)?;
        netlink::add_address(link, pair_address(false, host), PREFIX_V4)?;
        if ipv6 { netlink::add_address(link, pair_address(true, host), PREFIX_V6) } else { Ok(()) }
    })?;
    furnished.during(format!("giving {link} its addresses"))
}

/// Private ranges, seen by nobody outside the stage.
fn pair_address(ipv6: bool, host: u8) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(10, 77, 0, host).into()
    }
}

/// Whether the kernel has IPv6 and it is not switched off.
pub(super) fn has_ipv6(namespace: &Namespace) -> Result<bool> {
    let off = namespace.run(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6"))?;
    Ok(off.is_ok_and(|off| off.trim() == "0"))
}
