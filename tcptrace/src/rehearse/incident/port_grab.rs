//! `port-grab`: a server cannot bind its port, because somebody has it: by default a client, whose connect() was given it.
//!
//! The kernel itself chooses the client's port, as in the real incident: for the moment of that connect() the ephemeral
//! range is one port wide. The range is the usual one again before the server tries.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Entry, Family, Incident, Options, Variant};
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Identity, Order, Tally};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage, has_ipv6};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "port-grab",
    summary: "a server cannot bind its port: a client's connect() was given it",
    variants: &[
        Variant {
            name: "basic",
            summary: "a client's long connection has the port; the server tries three times",
        },
        Variant { name: "listener", summary: "another server listens on the port" },
        Variant {
            name: "bound-socket",
            summary: "another process has bound the port and does nothing with it",
        },
        Variant {
            name: "time-wait",
            summary: "the client has closed its connection: TIME_WAIT has the port",
        },
        Variant { name: "time-wait-restart", summary: "the server's own old connections are in TIME_WAIT" },
        Variant {
            name: "inherited-fd",
            summary: "a child inherited the listening socket of a server that is gone",
        },
        Variant {
            name: "wildcard",
            summary: "a listener on the wildcard address of the other family has the port",
        },
        Variant { name: "older-holder", summary: "as basic, but the client is older than the tracer" },
        Variant {
            name: "vanishing",
            summary: "as basic, but the client is gone right after the one failed bind",
        },
        Variant {
            name: "at-listen",
            summary: "two servers bind the port with SO_REUSEADDR; the second listen() fails",
        },
        Variant {
            name: "other-namespace",
            summary: "the port is taken in another namespace: no conflict at all",
        },
    ],
    make: |variant, options| Ok(Box::new(PortGrab::new(variant, options)?)),
};

/// Inside the default ephemeral range: the port that the server is configured to use.
const GRABBED: u16 = 35010;
/// Below the ephemeral range, where no connect() is given anything: for conflicts between servers.
const SAFE: u16 = 8090;
/// Where the clients' own server is.
const UPSTREAM: u16 = 7000;

const RANGE: &str = "net.ipv4.ip_local_port_range";

/// Who has the port, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Basic,
    Listener,
    BoundSocket,
    TimeWait,
    TimeWaitRestart,
    InheritedFd,
    Wildcard,
    Vanishing,
    AtListen,
    OtherNamespace,
}

impl Kind {
    fn of(variant: &Variant) -> Self {
        match variant.name {
            "listener" => Self::Listener,
            "bound-socket" => Self::BoundSocket,
            "time-wait" => Self::TimeWait,
            "time-wait-restart" => Self::TimeWaitRestart,
            "inherited-fd" => Self::InheritedFd,
            "wildcard" => Self::Wildcard,
            "vanishing" => Self::Vanishing,
            "at-listen" => Self::AtListen,
            "other-namespace" => Self::OtherNamespace,
            _ => Self::Basic,
        }
    }

    /// Whether it is a client's connect() that was given the port.
    fn is_grab(self) -> bool {
        matches!(self, Self::Basic | Self::TimeWait | Self::Vanishing | Self::OtherNamespace)
    }

    fn port(self) -> u16 {
        if self.is_grab() { GRABBED } else { SAFE }
    }

    fn cause(self) -> &'static str {
        match self {
            Self::Basic | Self::Vanishing | Self::OtherNamespace => "ephemeral-grab",
            Self::Listener | Self::AtListen => "listener",
            Self::BoundSocket => "bound-socket",
            Self::TimeWait | Self::TimeWaitRestart => "time-wait",
            Self::InheritedFd => "inherited-fd",
            Self::Wildcard => "wildcard",
        }
    }

    /// Whether the server sets SO_REUSEADDR, as most do; without it, TIME_WAIT alone is in its way.
    fn server_reuses(self) -> bool {
        !matches!(self, Self::TimeWait | Self::TimeWaitRestart)
    }

    /// A restarting service tries again; but what happens once must be seen at once.
    fn attempts(self) -> u32 {
        if matches!(self, Self::Vanishing | Self::AtListen | Self::OtherNamespace) { 1 } else { 3 }
    }
}

struct PortGrab {
    variant: &'static Variant,
    kind: Kind,
    options: Options,
    holder: Option<Holder>,
    /// Everybody else.
    actors: Vec<Actor>,
    stage: Stage,
}

/// Who has the port, and with what.
struct Holder {
    identity: Identity,
    /// None: the process has gone and only its sockets are left.
    actor: Option<Actor>,
    address: SocketAddr,
    remote: Option<SocketAddr>,
    state: &'static str,
}

impl Holder {
    fn alive(actor: Actor, address: SocketAddr, state: &'static str) -> Self {
        Self { identity: actor.identity().clone(), actor: Some(actor), address, remote: None, state }
    }

    fn party(&self) -> Party {
        let party = Party::of(&self.identity, "process", self.address).in_state(self.state);
        match self.remote {
            Some(remote) => party.connected_to(remote),
            None => party,
        }
    }

    fn actor(&mut self) -> Result<&mut Actor> {
        self.actor.as_mut().ok_or_else(|| Error::NotStaged("the holder has gone".into()))
    }
}

impl PortGrab {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let kind = Kind::of(variant);
        let layout = if kind == Kind::OtherNamespace { Layout::Pair } else { Layout::Loopback };
        let stage = options.stage(layout)?;
        if kind == Kind::Wildcard && !has_ipv6(stage.server())? {
            return Err(Error::NotSupported("the wildcard variant needs IPv6".into()));
        }
        Ok(Self { variant, kind, options, holder: None, actors: Vec::new(), stage })
    }

    /// The address that the server is configured to listen on.
    fn wanted(&self) -> SocketAddr {
        self.options.family.any(self.kind.port())
    }

    /// Puts somebody onto the port.
    fn occupy(&mut self) -> Result<()> {
        let wanted = self.wanted();
        let holder = match self.kind {
            Kind::Basic | Kind::Vanishing | Kind::OtherNamespace => self.grab()?,
            Kind::TimeWait => {
                let mut holder = self.grab()?;
                holder.actor()?.ask::<Tally>(&Order::HangUp { reset: false })?;
                self.await_time_wait()?;
                Holder { state: "time-wait", ..holder }
            }
            Kind::TimeWaitRestart => self.restart()?,
            Kind::Listener => self.take("tt-other", wanted, Some(64))?,
            Kind::BoundSocket => self.take("tt-other", wanted, None)?,
            // It becomes a listener when both have bound.
            Kind::AtListen => Holder { state: "listen", ..self.take("tt-other", wanted, None)? },
            Kind::InheritedFd => {
                let mut holder = self.take("tt-master", wanted, Some(64))?;
                let actor = holder.actor()?;
                actor.bequeath("tt-child")?;
                Holder { identity: actor.identity().clone(), ..holder }
            }
            Kind::Wildcard => {
                let other = if self.options.family == Family::V4 { Family::V6 } else { Family::V4 };
                self.take("tt-other", other.any(SAFE), Some(64))?
            }
        };
        self.holder = Some(holder);
        Ok(())
    }

    /// A process binds, and listens if there is a backlog.
    fn take(&self, role: &str, address: SocketAddr, backlog: Option<i32>) -> Result<Holder> {
        let mut actor = self.stage.start_server(role)?;
        // With SO_REUSEADDR on both sides a socket that does not listen is in nobody's way.
        bind_with(&mut actor, address, backlog, self.kind != Kind::BoundSocket)?;
        Ok(Holder::alive(actor, address, if backlog.is_some() { "listen" } else { "bound" }))
    }

    /// An upstream server and a client whose connection to it was given the port.
    fn grab(&mut self) -> Result<Holder> {
        let stage = &self.stage;
        let mut upstream = stage.start_server("tt-upstream")?;
        let family = self.options.family;
        bind(&mut upstream, family.any(UPSTREAM), Some(64))?;
        upstream.ask::<()>(&Order::Serve { workers: 1 })?;
        let to = family.call(stage, UPSTREAM);

        let mut client = stage.start_client("tt-client")?;
        let usual = stage.client().sysctl(RANGE)?;
        stage.client().set_sysctl(RANGE, &format!("{GRABBED} {GRABBED}"))?;
        let given: Vec<SocketAddr> = client.ask(&Order::Connect { to, count: 1 })?;
        stage.client().set_sysctl(RANGE, &usual)?;
        let Some(&address) = given.first().filter(|address| address.port() == GRABBED) else {
            return Err(Error::NotStaged(format!("the client was given {given:?}, not port {GRABBED}")));
        };
        // Others of its kind, so that the holder must be told apart.
        client.ask::<Value>(&Order::Connect { to, count: 3 })?;
        let mut bystander = stage.start_client("tt-bystander")?;
        bystander.ask::<Value>(&Order::Connect { to, count: 3 })?;

        self.actors.extend([upstream, bystander]);
        Ok(Holder { remote: Some(to), ..Holder::alive(client, address, "established") })
    }

    /// A server that closes its connections first, and goes: they stay in TIME_WAIT on its port.
    fn restart(&self) -> Result<Holder> {
        let (stage, family) = (&self.stage, self.options.family);
        let mut old = stage.start_server("tt-server")?;
        bind(&mut old, family.any(SAFE), Some(64))?;
        old.ask::<()>(&Order::Serve { workers: 1 })?;
        let mut client = stage.start_client("tt-client")?;
        let to = family.call(stage, SAFE);
        let from: Vec<SocketAddr> = client.ask(&Order::Connect { to, count: 1 })?;
        // Closing a listener resets what it has not accepted.
        stage.await_that("the old server has accepted", || Ok(stage.accept_queue(SAFE)? == Some(0)))?;
        old.ask::<()>(&Order::Close)?;
        client.ask::<Tally>(&Order::HangUp { reset: false })?;
        self.await_time_wait()?;
        let identity = old.identity().clone();
        Ok(Holder { identity, actor: None, address: to, remote: from.first().copied(), state: "time-wait" })
    }

    fn await_time_wait(&self) -> Result<()> {
        let port = self.kind.port();
        self.stage.await_that("the closed connection is in TIME_WAIT", || self.stage.in_time_wait(port))
    }

    /// The server tries to start.
    fn start(&mut self, server: &mut Actor) -> Result<Vec<BindAttempt>> {
        let kind = self.kind;
        let holder = self.holder.as_mut().ok_or_else(|| Error::NotStaged("nobody has the port".into()))?;
        let then_kill = match kind {
            Kind::Vanishing => Some(holder.actor()?.pid().as_raw()),
            _ => None,
        };
        let order = Bind {
            address: self.options.family.any(kind.port()),
            reuseaddr: kind.server_reuses(),
            v6only: false,
            backlog: if kind == Kind::AtListen { None } else { Some(128) },
            attempts: kind.attempts(),
            gap_ms: 300,
            then_kill,
        };
        let attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        match kind {
            Kind::AtListen => {
                expect_success(&attempts, "the second server's bind")?;
                let first: BindAttempt = holder.actor()?.ask(&Order::Listen { backlog: 64 })?;
                expect_success(&[first], "the first server's listen")?;
                Ok(vec![server.ask(&Order::Listen { backlog: 128 })?])
            }
            Kind::Vanishing => {
                holder.actor()?.await_end()?;
                if self.stage.is_on(GRABBED)? {
                    return Err(Error::NotStaged("the holder's port is still taken".into()));
                }
                Ok(attempts)
            }
            _ => Ok(attempts),
        }
    }
}

fn bind(actor: &mut Actor, address: SocketAddr, backlog: Option<i32>) -> Result<()> {
    bind_with(actor, address, backlog, true)
}

fn bind_with(actor: &mut Actor, address: SocketAddr, backlog: Option<i32>, reuseaddr: bool) -> Result<()> {
    let order = Bind { address, reuseaddr, v6only: false, backlog, attempts: 1, gap_ms: 0, then_kill: None };
    let attempts: Vec<BindAttempt> = actor.ask(&Order::Bind(order))?;
    expect_success(&attempts, &format!("{} on {address}", actor.identity().role))
}

fn expect_success(attempts: &[BindAttempt], what: &str) -> Result<()> {
    match attempts.last().and_then(|attempt| attempt.errno) {
        None => Ok(()),
        Some(errno) => Err(Error::NotStaged(format!("{what} fails (errno {errno})"))),
    }
}

impl Incident for PortGrab {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let (wanted, port) = (self.wanted(), self.kind.port());
        let holder = match self.kind {
            Kind::Basic => {
                format!("tt-client connects to tt-upstream; the kernel gives it local port {port}.")
            }
            Kind::Vanishing => {
                format!("tt-client's connection has local port {port}, until just after the conflict.")
            }
            Kind::OtherNamespace => {
                format!("tt-client has local port {port}, but in a namespace of its own.")
            }
            Kind::TimeWait => {
                format!("tt-client's connection from local port {port} is closed: TIME_WAIT keeps it.")
            }
            Kind::TimeWaitRestart => {
                format!("An earlier tt-server's connection on port {port} is in TIME_WAIT.")
            }
            Kind::Listener => format!("tt-other listens on port {port}."),
            Kind::BoundSocket => format!("tt-other has bound port {port} and does not listen."),
            Kind::AtListen => {
                format!("tt-other has bound port {port} too, both with SO_REUSEADDR, and listens first.")
            }
            Kind::InheritedFd => {
                format!("tt-master listens on port {port} and exits; its tt-child still has the socket.")
            }
            Kind::Wildcard => {
                format!("tt-other listens on port {port} of the other address family's wildcard.")
            }
        };
        let server = match self.kind {
            Kind::OtherNamespace => format!("tt-server listens on {wanted} and nothing is wrong."),
            Kind::AtListen => format!("tt-server's listen() on {wanted} gets EADDRINUSE."),
            Kind::Vanishing => {
                format!("tt-server, configured to listen on {wanted}, tries once and gets EADDRINUSE.")
            }
            _ => {
                format!("tt-server, configured to listen on {wanted}, tries three times and gets EADDRINUSE.")
            }
        };
        format!("{holder}\n{server}")
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older || self.variant.name == "older-holder" { self.occupy() } else { Ok(()) }
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        if self.holder.is_none() {
            self.occupy()?;
        }
        let mut server = self.stage.start_server("tt-server")?;
        let attempts = self.start(&mut server)?;
        let conflict = self.kind != Kind::OtherNamespace;
        let expected = conflict.then_some(libc::EADDRINUSE);
        let (wanted, kind) = (self.wanted(), self.kind);
        if attempts.iter().any(|attempt| attempt.errno != expected) {
            return Err(Error::NotStaged(format!("taking {wanted} came out as {attempts:?}")));
        }
        let after = self.stage.settled_counters()?;

        let Some(holder) = &self.holder else {
            return Err(Error::NotStaged("nobody has the port".into()));
        };
        let expectation = Expectation {
            code: "bind-conflict",
            cause: kind.cause(),
            subject: Party::port(wanted),
            requester: Some(Party::of(server.identity(), "process", wanted)),
            holder: Some(holder.party()),
        };
        let mut actors = vec![server.identity().clone(), holder.identity.clone()];
        actors.extend(self.actors.iter().map(|actor| actor.identity().clone()));
        let facts = json!({
            "attempts": attempts.len(),
            "errno": if conflict { Some("EADDRINUSE") } else { None },
            "at": attempts.last().map(|attempt| attempt.at.clone()),
            "reuseaddr": kind.server_reuses(),
            "holder_alive": holder.actor.is_some() && kind != Kind::Vanishing,
        });
        self.actors.push(server);
        let risk =
            Allowed { code: "port-grab-risk", because: "a client was given a port that a server wants" };
        Ok(GroundTruth {
            kind: "rehearsal",
            name: ENTRY.name,
            variant: self.variant.name,
            netns: self.stage.netns_inode(),
            actors,
            expect: if conflict { vec![expectation] } else { Vec::new() },
            allow: if kind.is_grab() { vec![risk] } else { Vec::new() },
            forbid: "any other finding",
            counters: counters::growth(&before, &after),
            facts: facts.as_object().cloned().unwrap_or_default(),
        })
    }
}
