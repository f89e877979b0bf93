//! One conflict: somebody has a port, and a server that wants it fails to start.

use std::net::{Ipv6Addr, SocketAddr};

use serde_json::Value;

use super::kind::Kind;
use crate::event::observation;
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Identity, Order, Tally};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::incident::Family;
use crate::rehearse::mptcp;
use crate::rehearse::nft::{self, Chain, Hook, Match, Verdict};
use crate::rehearse::stage::Stage;
use crate::rehearse::truth::{Expectation, Party};

/// Where the clients' own server is.
const UPSTREAM: u16 = 7000;
const RANGE: &str = "net.ipv4.ip_local_port_range";
/// A user that is not root.
const USER: u32 = 65534;
/// Ports that no scene uses, within the usual range.
const ELSEWHERE: &str = "50000 60999";

/// A conflict to be made.
pub(super) struct Scene {
    pub(super) kind: Kind,
    /// The port that the server is configured to use.
    pub(super) port: u16,
    pub(super) family: Family,
    /// The holder came before the tracer.
    pub(super) older: bool,
    pub(super) holder: Option<Holder>,
    /// Whose bind() or listen() failed; kept, because it may still have the port.
    pub(super) server: Option<Actor>,
    pub(super) attempts: Vec<BindAttempt>,
}

/// Who has the port, and with what.
pub(super) struct Holder {
    /// None: the kernel itself.
    pub(super) identity: Option<Identity>,
    /// None: the process has gone and only its sockets are left.
    pub(super) actor: Option<Actor>,
    /// The other end of its connection.
    peer: Option<Actor>,
    address: SocketAddr,
    remote: Option<SocketAddr>,
    device: Option<&'static str>,
    state: &'static str,
}

impl Holder {
    fn alive(actor: Actor, address: SocketAddr, state: &'static str) -> Self {
        Self {
            identity: Some(actor.identity().clone()),
            actor: Some(actor),
            peer: None,
            address,
            remote: None,
            device: None,
            state,
        }
    }

    fn party(&self) -> Party {
        let party = match &self.identity {
            Some(identity) => Party::of(identity, "process", self.address),
            None => Party { kind: "process", address: Some(self.address), ..Party::default() },
        };
        let party = party.in_state(self.state).on_device(self.device);
        match self.remote {
            Some(remote) => party.connected_to(remote),
            None => party,
        }
    }

    pub(super) fn actor(&mut self) -> Result<&mut Actor> {
        self.actor.as_mut().ok_or_else(|| Error::NotStaged("the holder has gone".into()))
    }
}

impl Scene {
    pub(super) fn new(kind: Kind, port: u16, family: Family) -> Self {
        Self { kind, port, family, older: false, holder: None, server: None, attempts: Vec::new() }
    }

    /// The address that the server is configured to listen on.
    pub(super) fn wanted(&self) -> SocketAddr {
        self.family.any(self.port)
    }

    /// Puts somebody onto the port.
    pub(super) fn occupy(&mut self, stage: &Stage) -> Result<()> {
        let wanted = self.wanted();
        let holder = match self.kind {
            Kind::Basic | Kind::Vanishing | Kind::OtherNamespace => self.grab(stage)?,
            Kind::TimeWait => {
                let mut holder = self.grab(stage)?;
                holder.actor()?.ask::<Tally>(&Order::HangUp { reset: false })?;
                self.await_time_wait(stage)?;
                Holder { state: "time-wait", ..holder }
            }
            Kind::TimeWaitRestart => self.restart(stage)?,
            Kind::Listener | Kind::Device => self.take(stage, "tt-other", wanted, Some(64))?,
            Kind::BoundSocket => self.take(stage, "tt-other", wanted, None)?,
            // It becomes a listener when both have bound.
            Kind::AtListen => Holder { state: "listen", ..self.take(stage, "tt-other", wanted, None)? },
            Kind::InheritedFd => {
                let mut holder = self.take(stage, "tt-master", wanted, Some(64))?;
                let actor = holder.actor()?;
                actor.bequeath("tt-child")?;
                Holder { identity: Some(actor.identity().clone()), ..holder }
            }
            Kind::Wildcard => {
                let other = if self.family == Family::V4 { Family::V6 } else { Family::V4 };
                self.take(stage, "tt-other", other.any(self.port), Some(64))?
            }
            Kind::OtherUser => {
                let mut actor = stage.start_server("tt-other")?;
                let order = Bind { reuseport: true, user: Some(USER), backlog: Some(64), ..Bind::to(wanted) };
                take_port(&mut actor, order)?;
                Holder::alive(actor, wanted, "listen")
            }
            Kind::AcceptedChild => self.accept(stage)?,
            Kind::SelfConnect => self.meet_itself(stage)?,
            Kind::FinWait | Kind::FinWait1 | Kind::LastAck | Kind::FinWaitReuse => self.leave(stage)?,
            Kind::CloseWait => {
                let mut holder = self.accept(stage)?;
                if let Some(peer) = &mut holder.peer {
                    peer.ask::<Tally>(&Order::HangUp { reset: false })?;
                }
                self.await_state(stage, counters::CLOSE_WAIT, "close-wait")?;
                Holder { state: "close-wait", ..holder }
            }
            Kind::DeviceWildcard | Kind::OtherDevices => {
                let mut actor = stage.start_server("tt-other")?;
                let device = self.kind.holder_device();
                let own = match (self.kind, self.family) {
                    (Kind::OtherDevices, _) => wanted,
                    (_, Family::V4) => SocketAddr::from(([127, 0, 0, 53], self.port)),
                    _ => SocketAddr::from((Ipv6Addr::LOCALHOST, self.port)),
                };
                let order = Bind {
                    device: device.map(str::to_owned),
                    reuseaddr: true,
                    backlog: Some(64),
                    ..Bind::to(own)
                };
                take_port(&mut actor, order)?;
                Holder { device, ..Holder::alive(actor, own, "listen") }
            }
            Kind::KernelSocket => self.open_in_kernel(stage)?,
        };
        self.holder = Some(holder);
        Ok(())
    }

    /// A process binds, and listens if there is a backlog.
    fn take(&self, stage: &Stage, role: &str, address: SocketAddr, backlog: Option<i32>) -> Result<Holder> {
        let mut actor = stage.start_server(role)?;
        // With SO_REUSEADDR on both sides a socket that does not listen is in nobody's way.
        bind_with(&mut actor, address, backlog, self.kind != Kind::BoundSocket)?;
        Ok(Holder::alive(actor, address, if backlog.is_some() { "listen" } else { "bound" }))
    }

    /// A server that listens no more, and still has a connection that it accepted.
    fn accept(&self, stage: &Stage) -> Result<Holder> {
        let mut old = stage.start_server("tt-other")?;
        bind_with(&mut old, self.wanted(), Some(64), true)?;
        let mut client = stage.start_client("tt-client")?;
        let to = self.family.call(stage, self.port);
        let from: Vec<SocketAddr> = client.ask(&Order::Connect { to, count: 1 })?;
        old.ask::<()>(&Order::AcceptOne)?;
        old.ask::<()>(&Order::Close)?;
        let remote = from.first().copied();
        Ok(Holder { remote, peer: Some(client), ..Holder::alive(old, to, "established") })
    }

    /// A socket that the kernel opens for itself: multipath TCP listens where it announces an address with a port.
    fn open_in_kernel(&self, stage: &Stage) -> Result<Holder> {
        let address = self.family.call(stage, self.port);
        stage.server().run(move || mptcp::announce(address))?.map_err(|error| {
            Error::NotSupported(format!("multipath TCP does not listen for itself here: {error}"))
        })?;
        Ok(Holder {
            identity: None,
            actor: None,
            peer: None,
            address,
            remote: None,
            device: None,
            state: "listen",
        })
    }

    /// A client whose connection to the upstream server was given the port.
    fn grab(&self, stage: &Stage) -> Result<Holder> {
        let to = self.family.call(stage, UPSTREAM);
        let mut client = stage.start_client("tt-client")?;
        let address = connect_from(stage, &mut client, to, &format!("{0} {0}", self.port))?;
        if address.port() != self.port {
            return Err(Error::NotStaged(format!("the client was given {address}, not port {}", self.port)));
        }
        if self.kind != Kind::Vanishing {
            // Others of its kind, so that the holder must be told apart.
            connect_from(stage, &mut client, to, ELSEWHERE)?;
        }
        Ok(Holder { remote: Some(to), ..Holder::alive(client, address, "established") })
    }

    /// A server that closes its connections first, and goes: they stay in TIME_WAIT on its port.
    fn restart(&self, stage: &Stage) -> Result<Holder> {
        let mut old = stage.start_server("tt-server")?;
        bind_with(&mut old, self.wanted(), Some(64), true)?;
        old.ask::<()>(&Order::Serve { workers: 1 })?;
        let mut client = stage.start_client("tt-client")?;
        let to = self.family.call(stage, self.port);
        let from: Vec<SocketAddr> = client.ask(&Order::Connect { to, count: 1 })?;
        // Closing a listener resets what it has not accepted; and when the client is told that it is connected, its last ACK may
        // not have arrived yet, so that an empty queue alone says nothing.
        let accepted = || {
            let has_arrived = stage.is_in_state(self.port, counters::ESTABLISHED)?;
            Ok(has_arrived && stage.accept_queue(self.port)? == Some(0))
        };
        stage.await_that("the old server has accepted", accepted)?;
        old.ask::<()>(&Order::Close)?;
        client.ask::<Tally>(&Order::HangUp { reset: false })?;
        self.await_time_wait(stage)?;
        let identity = old.identity().clone();
        Ok(Holder {
            identity: Some(identity),
            actor: None,
            peer: None,
            address: to,
            remote: from.first().copied(),
            device: None,
            state: "time-wait",
        })
    }

    /// A client whose connect() to the vacated port is given that very port.
    fn meet_itself(&self, stage: &Stage) -> Result<Holder> {
        let to = self.family.call(stage, self.port);
        let mut client = stage.start_client("tt-client")?;
        let address = connect_from(stage, &mut client, to, &format!("{0} {0}", self.port))?;
        if address != to {
            return Err(Error::NotStaged(format!("the client of {to} was given {address}")));
        }
        Ok(Holder { remote: Some(to), ..Holder::alive(client, address, "established") })
    }

    /// A server that goes, and whose connection its client does not close, or does not let be closed.
    fn leave(&self, stage: &Stage) -> Result<Holder> {
        let mut old = stage.start_server("tt-server")?;
        bind_with(&mut old, self.wanted(), Some(64), self.kind.server_reuses())?;
        let mut client = stage.start_client("tt-client")?;
        let to = self.family.call(stage, self.port);
        let from: Vec<SocketAddr> = client.ask(&Order::Connect { to, count: 1 })?;
        old.ask::<()>(&Order::AcceptOne)?;
        if self.kind == Kind::LastAck {
            client.ask::<Tally>(&Order::HangUp { reset: false })?;
            self.await_state(stage, counters::CLOSE_WAIT, "close-wait")?;
        }
        if matches!(self.kind, Kind::FinWait1 | Kind::LastAck) {
            // What the client acknowledges does not arrive.
            let port = self.port;
            let rule = move || nft::rule(Chain::nft(Hook::Input), Match::To(port), Verdict::Drop);
            stage.server().run(rule)?.map_err(|error| {
                Error::NotSupported(format!("this kernel's firewall cannot be used: {error}"))
            })?;
        }
        let identity = old.identity().clone();
        // It is killed, and its sockets are closed.
        drop(old);
        let (number, state) = match self.kind {
            Kind::FinWait1 => (counters::FIN_WAIT1, "fin-wait-1"),
            Kind::LastAck => (counters::LAST_ACK, "last-ack"),
            _ => (counters::FIN_WAIT2, "fin-wait-2"),
        };
        self.await_state(stage, number, state)?;
        Ok(Holder {
            identity: Some(identity),
            actor: None,
            peer: Some(client),
            address: to,
            remote: from.first().copied(),
            device: None,
            state,
        })
    }

    fn await_state(&self, stage: &Stage, number: u8, name: &str) -> Result<()> {
        stage.await_that(&format!("the connection is in {name}"), || stage.is_in_state(self.port, number))
    }

    fn await_time_wait(&self, stage: &Stage) -> Result<()> {
        stage.await_that("the closed connection is in TIME_WAIT", || stage.in_time_wait(self.port))
    }

    /// The server tries to start, and fails unless the port is taken elsewhere.
    pub(super) fn start(&mut self, stage: &Stage, mut server: Actor) -> Result<()> {
        let kind = self.kind;
        let wanted = self.wanted();
        let holder = self.holder.as_mut().ok_or_else(|| Error::NotStaged("nobody has the port".into()))?;
        let then_kill = match kind {
            Kind::Vanishing => Some(holder.actor()?.pid().as_raw()),
            _ => None,
        };
        let order = Bind {
            reuseaddr: kind.server_reuses(),
            reuseport: kind == Kind::OtherUser,
            device: kind.server_device().map(str::to_owned),
            backlog: if kind == Kind::AtListen { None } else { Some(128) },
            attempts: kind.attempts(),
            gap_ms: 300,
            then_kill,
            ..Bind::to(wanted)
        };
        let mut attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        match kind {
            Kind::AtListen => {
                expect_success(&attempts, "the second server's bind")?;
                let first: BindAttempt = holder.actor()?.ask(&Order::Listen { backlog: 64 })?;
                expect_success(&[first], "the first server's listen")?;
                attempts = vec![server.ask(&Order::Listen { backlog: 128 })?];
            }
            Kind::Vanishing => {
                holder.actor()?.await_end()?;
                if stage.is_on(self.port)? {
                    return Err(Error::NotStaged("the holder's port is still taken".into()));
                }
            }
            _ => {}
        }
        let expected = kind.conflicts().then_some(libc::EADDRINUSE);
        if attempts.iter().any(|attempt| attempt.errno != expected) {
            return Err(Error::NotStaged(format!("taking {wanted} came out as {attempts:?}")));
        }
        self.attempts = attempts;
        self.server = Some(server);
        Ok(())
    }

    /// What must be said about it.
    pub(super) fn expectation(&self) -> Option<Expectation> {
        let (holder, server) = (self.holder.as_ref()?, self.server.as_ref()?);
        let wanted = self.wanted();
        let (cause, holder) = match self.kind {
            // Nobody can tell any more who left it, or that its opener was another.
            kind if self.older && (kind == Kind::TimeWait || kind.is_left()) => {
                (self.kind.cause(), Party { pid: None, comm: None, command: None, ..holder.party() })
            }
            Kind::InheritedFd if self.older => (Kind::Listener.cause(), holder.party()),
            _ => (self.kind.cause(), holder.party()),
        };
        self.kind.conflicts().then(|| Expectation {
            code: "bind-conflict",
            cause,
            subject: Party::port(wanted),
            requester: Some(
                Party::of(server.identity(), "process", wanted).on_device(self.kind.server_device()),
            ),
            holder: Some(holder),
            needs: (self.kind == Kind::AtListen).then_some(observation::LISTEN_FAIL),
            without: None,
            at_most: None,
            at_least: None,
        })
    }

    /// The client closes its connection, another one connects when the server is still down, and then the server tries again.
    /// Whether it fails again.
    pub(super) fn again(&mut self, stage: &Stage) -> Result<bool> {
        let wanted = self.wanted();
        let to = self.family.call(stage, UPSTREAM);
        let port = self.port;
        if let Some(holder) = self.holder.as_mut().filter(|_| self.kind.is_grab()) {
            let client = holder.actor()?;
            client.ask::<Tally>(&Order::HangUp { reset: true })?;
            // The kernel prefers ports at even distances from the first: without the remedy it gives this one.
            connect_from(stage, client, to, &format!("{port} {}", port.saturating_add(1)))?;
        }
        if let Some(holder) = self.holder.as_mut().filter(|_| self.kind == Kind::Listener) {
            // A signal ends nobody at once.
            holder.actor()?.await_end()?;
        }
        let server = self.server.as_mut().ok_or_else(|| Error::NotStaged("nobody has tried".into()))?;
        let order = Bind { reuseaddr: self.kind.server_reuses(), backlog: Some(128), ..Bind::to(wanted) };
        let attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        Ok(attempts.iter().any(|attempt| attempt.errno.is_some()))
    }
}

/// One connection, its port chosen by the kernel from `range`; its local address.
fn connect_from(stage: &Stage, client: &mut Actor, to: SocketAddr, range: &str) -> Result<SocketAddr> {
    let usual = stage.client().sysctl(RANGE)?;
    stage.client().set_sysctl(RANGE, range)?;
    let given = client.ask::<Vec<SocketAddr>>(&Order::Connect { to, count: 1 });
    stage.client().set_sysctl(RANGE, &usual)?;
    let given = given?;
    given.last().copied().ok_or_else(|| Error::NotStaged("the client has no connection".into()))
}

/// The server that clients connect to, and a client that has nothing to do with the conflicts.
pub(super) fn surroundings(stage: &Stage, family: Family) -> Result<Vec<Actor>> {
    let mut upstream = stage.start_server("tt-upstream")?;
    bind_with(&mut upstream, family.any(UPSTREAM), Some(64), true)?;
    upstream.ask::<()>(&Order::Serve { workers: 1 })?;
    let mut bystander = stage.start_client("tt-bystander")?;
    stage.client().set_sysctl(RANGE, ELSEWHERE)?;
    let to = family.call(stage, UPSTREAM);
    bystander.ask::<Value>(&Order::Connect { to, count: 3 })?;
    stage.client().set_sysctl(RANGE, "32768 60999")?;
    Ok(vec![upstream, bystander])
}

fn bind_with(actor: &mut Actor, address: SocketAddr, backlog: Option<i32>, reuseaddr: bool) -> Result<()> {
    take_port(actor, Bind { reuseaddr, backlog, ..Bind::to(address) })
}

fn take_port(actor: &mut Actor, order: Bind) -> Result<()> {
    let address = order.address;
    let attempts: Vec<BindAttempt> = actor.ask(&Order::Bind(order))?;
    expect_success(&attempts, &format!("{} on {address}", actor.identity().role))
}

fn expect_success(attempts: &[BindAttempt], what: &str) -> Result<()> {
    match attempts.last().and_then(|attempt| attempt.errno) {
        None => Ok(()),
        Some(errno) => Err(Error::NotStaged(format!("{what} fails (errno {errno})"))),
    }
}
