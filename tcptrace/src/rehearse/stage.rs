//! Where an incident happens: one private namespace with loopback, or two joined by a veth pair.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::actor::Actor;
use super::cancel::Cancel;
use super::counters::{self, Counters};
use super::error::{During, Error, Result};
use super::namespace::Namespace;
use super::netlink;

/// How long something may take that happens at once on an idle machine. Generous: emulators are slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What a stage consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// One namespace: clients and servers meet on loopback.
    #[default]
    Loopback,
    /// A namespace for servers and one for clients, joined by a veth pair with private addresses.
    Pair,
}

const SERVER_LINK: &str = "tt-server";
const CLIENT_LINK: &str = "tt-client";
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;

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

    /// Whether a connection with local `port` is in TIME_WAIT.
    pub(super) fn in_time_wait(&self, port: u16) -> Result<bool> {
        Ok(counters::sockets_on(&self.server, port)?.iter().any(|socket| socket.state == counters::TIME_WAIT))
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
            let quiet = ["ListenOverflows", "ListenDrops", "PassiveOpens"]
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
    furnish(server, SERVER_LINK, 1)?;
    furnish(&client, CLIENT_LINK, 2)?;
    Ok(client)
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
