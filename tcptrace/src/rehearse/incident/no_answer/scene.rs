//! One server that does not answer, and the client that calls it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::event::observation;

use super::ground;
use super::kind::Kind;
use crate::rehearse::actor::{
    Actor, Bind, BindAttempt, Crowd, Damaged, Door, Identity, Load, Manner, Order, Place, Tally,
};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::incident::{Family, open};
use crate::rehearse::stage::{SERVER_LINK, Stage};
use crate::rehearse::truth::{Allowed, AllowedAt, Expectation, Party, Question};

const BACKLOG: i32 = 128;
/// Of a server whose queue is to be full.
const SMALL_BACKLOG: i32 = 4;
/// Addresses that fill a SYN queue of that size, and more.
const CROWD: usize = 24;

/// A reason that is played.
pub(super) struct Scene {
    pub(super) kind: Kind,
    family: Family,
    server: Option<Actor>,
    client: Option<Actor>,
    crowd: Option<Actor>,
}

/// What came of it.
pub(super) struct Played {
    pub(super) actors: Vec<Identity>,
    pub(super) expect: Vec<Expectation>,
    pub(super) allow: Vec<AllowedAt>,
    pub(super) question: Question,
    /// Connects, or SYNs made by hand.
    pub(super) opened: u64,
    pub(super) tally: Tally,
}

impl Scene {
    pub(super) fn new(kind: Kind, family: Family) -> Self {
        Self { kind, family, server: None, client: None, crowd: None }
    }

    fn ipv6(&self) -> bool {
        self.family == Family::V6
    }

    /// What the client calls.
    pub(super) fn called(&self, stage: &Stage) -> SocketAddr {
        ground::called(self.kind, stage, self.ipv6())
    }

    /// Where the server listens, if there is one.
    pub(super) fn door(&self) -> Option<SocketAddr> {
        let port = self.kind.port();
        let loopback: IpAddr =
            if self.ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let other: IpAddr =
            if self.ipv6() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        match self.kind {
            Kind::ClosedPort
            | Kind::Upstream
            | Kind::FarClosedPort
            | Kind::Blackhole
            | Kind::RoutedToLoopback => None,
            Kind::WrongAddress => Some(SocketAddr::new(loopback, port)),
            Kind::OtherFamily => Some(SocketAddr::new(other, port)),
            kind if kind.is_translated() => Some(self.family.any(port + ground::PUBLISHED)),
            _ => Some(self.family.any(port)),
        }
    }

    /// The device that the server is bound to.
    fn device(&self) -> Option<&'static str> {
        match self.kind {
            Kind::OtherDevice => Some("lo"),
            Kind::OtherDeviceHere => Some(SERVER_LINK.name),
            _ => None,
        }
    }

    /// Opens the server, unless it is open already.
    pub(super) fn open_for_business(&mut self, stage: &Stage) -> Result<()> {
        if self.kind == Kind::FarClosedPort && self.crowd.is_none() {
            // A namespace without a process is not found, and then that host can only be asked from outside.
            self.crowd = Some(stage.start_client("tt-neighbour")?);
        }
        let Some(address) = self.door().filter(|_| self.server.is_none()) else { return Ok(()) };
        let backlog = match self.kind {
            Kind::SynQueue | Kind::AcceptQueue => SMALL_BACKLOG,
            _ => BACKLOG,
        };
        let transparent = matches!(self.kind, Kind::Transparent | Kind::TransparentGone);
        let door = Door { transparent, ..Door::at(address, backlog) };
        let mut server = if self.kind.server_is_far() {
            let mut server = stage.start_client("tt-server")?;
            server.ask::<()>(&Order::Open(door))?;
            server
        } else if self.kind == Kind::OtherFamily {
            bind_and_listen(stage, Bind { v6only: true, ..Bind::to(address) })?
        } else if let Some(device) = self.device() {
            bind_and_listen(stage, Bind { device: Some(device.to_owned()), ..Bind::to(address) })?
        } else {
            open(stage, "tt-server", door)?
        };
        if self.kind.works() {
            server.ask::<()>(&Order::Accept { workers: 2, every_ms: 0 })?;
        }
        self.server = Some(server);
        Ok(())
    }

    /// What makes the connects fail, once everything stands.
    pub(super) fn obstruct(&mut self, stage: &Stage) -> Result<()> {
        if matches!(self.kind, Kind::PublishedGone | Kind::BalancedGone | Kind::FarClosedPort) {
            // A namespace in which no process is left is found by no one.
            self.crowd = Some(stage.start_client("tt-neighbour")?);
        }
        if self.kind == Kind::TransparentGone {
            // Likewise: the rule is in the namespace that the client is not in.
            self.crowd = Some(stage.start_server("tt-neighbour")?);
            // No SYN ever names its port: where listeners are only polled, one of a moment is not seen at all.
            stage.cancel().sleep(Duration::from_millis(2500))?;
        }
        if let (true, Some(server)) = (self.kind.loses_its_server(), &mut self.server) {
            server.signal(Signal::SIGTERM)?;
            server.await_end()?;
        }
        if let (Kind::Stopped, Some(server)) = (self.kind, &self.server) {
            server.stop()?;
        }
        ground::obstruct(self.kind, stage, self.ipv6())
    }

    /// The client calls, for some seconds.
    pub(super) fn play(&mut self, stage: &Stage) -> Result<Played> {
        if self.kind == Kind::SynQueue {
            self.crowd = Some(self.fill_syn_queue(stage)?);
        }
        let traced = self.kind.client_is_traced();
        let mut client =
            if traced { stage.start_server("tt-client")? } else { stage.start_client("tt-client")? };
        let (opened, tally) = self.call(&mut client, stage)?;
        self.check(opened, &tally)?;
        let (expect, allow) = self.truth(stage, client.identity());
        let mut actors = vec![client.identity().clone()];
        actors.extend(self.server.iter().map(|server| server.identity().clone()));
        self.client = Some(client);
        let port = self.kind.port();
        Ok(Played {
            actors,
            expect,
            allow: allow.iter().map(|allowed| AllowedAt { port, allowed: *allowed }).collect(),
            question: Question {
                from: if traced { stage.server().inode() } else { stage.client().inode() },
                target: self.called(stage),
                verdict: self.kind.verdict(),
                probe: self.kind.is_translated(),
            },
            opened,
            tally,
        })
    }

    fn call(&self, client: &mut Actor, stage: &Stage) -> Result<(u64, Tally)> {
        let to = self.called(stage);
        match self.kind {
            Kind::Checksum => {
                let sent = client.ask(&Order::Damaged(Damaged { to, syns: 20, every_ms: 500 }))?;
                return Ok((sent, Tally::default()));
            }
            Kind::Blackhole => {
                // The kernel says at once that there is no way.
                let refused: Vec<i32> = client.ask(&Order::Knock { at: vec![to; 6] })?;
                let failed = refused.iter().filter(|errno| **errno == libc::EINVAL).count();
                let tally = Tally { failed: u64::try_from(failed).unwrap_or_default(), ..Tally::default() };
                return Ok((6, tally));
            }
            _ => {}
        }
        let load = if self.kind.is_refused() {
            Load { to, burst: 1, every_ms: 250, for_ms: 2500, at_least: 6 }
        } else if self.kind == Kind::SynQueue {
            // After 7 s the first requests expire: of a queue that is more than half full, each is answered twice more at most
            // (`reqsk_timer_handler`).
            Load { to, burst: 1, every_ms: 250, for_ms: 5000, at_least: 6 }
        } else {
            // By ICMP, the kernel believes it only when the SYN was sent again. An emulated machine that plays everything at once
            // needs all this time.
            Load { to, burst: 1, every_ms: 600, for_ms: 12_000, at_least: 6 }
        };
        let opened: u64 = client.ask(&Order::Load(load))?;
        Ok((opened, client.ask(&Order::HangUp { reset: true })?))
    }

    /// Distant hosts send a SYN each and never the last step.
    fn fill_syn_queue(&self, stage: &Stage) -> Result<Actor> {
        let before = stage.counters()?;
        let mut crowd = stage.start_client("tt-crowd")?;
        crowd.ask::<()>(&Order::Crowd(Crowd {
            to: self.called(stage),
            clients: CROWD,
            place: Place::Prefix(8),
            every_us: 10_000,
            again_ms: vec![1000, 3000],
            give_up_ms: 60_000,
            rounds: 1,
            manner: Manner::Deaf,
        }))?;
        // Whether a queue of exactly its limit is full depends on the release.
        stage.await_that("the SYN queue is full", || {
            Ok(counters::grown(&counters::growth(&before, &stage.counters()?), "TCPReqQFullDrop")? > 0)
        })?;
        Ok(crowd)
    }

    /// Whether it went as it was meant to.
    fn check(&self, opened: u64, tally: &Tally) -> Result<()> {
        let as_meant = match self.kind {
            // The handshake is complete for the client: what counts is that nobody answers.
            Kind::AckDrop | Kind::AcceptQueue | Kind::Stopped => tally.answered == 0,
            kind if kind.works() => tally.established == opened,
            kind if kind.is_refused() || kind == Kind::Blackhole => tally.failed == opened,
            _ => tally.established == 0,
        };
        if as_meant {
            return Ok(());
        }
        let name = self.kind.variant().name;
        Err(Error::NotStaged(format!("{name}: of {opened} connects came: {tally:?}")))
    }

    /// What must be said of it, and what may be said as well.
    fn truth(&self, stage: &Stage, me: &Identity) -> (Vec<Expectation>, Vec<Allowed>) {
        const UNANSWERED: Allowed =
            Allowed { code: "syn-unanswered", because: "that is what the client feels of it" };
        const HALF_OPEN: Allowed =
            Allowed { code: "half-open-capture", because: "requests are left half-open by it" };
        const QUEUE: Allowed = Allowed { code: "accept-stall", because: "this machine took its time" };
        let called = self.called(stage);
        let asking =
            Party { kind: "process", pid: Some(me.pid), comm: Some(me.comm.clone()), ..Party::default() };
        let server = |address| self.server.as_ref().map(|s| Party::of(s.identity(), "listener", address));
        let absent = |cause| Expectation {
            requester: self.kind.client_is_traced().then(|| asking.clone()),
            holder: self.door().and_then(server),
            ..Expectation::about("no-listener", cause, Party::port(called))
        };
        let of_client = |code, cause| Expectation::about(code, cause, Party::of(me, "destination", called));
        let at_server =
            |code, cause| Expectation::about(code, cause, self.door().and_then(server).unwrap_or_default());
        let dropped = |cause| at_server("handshake-dropped", cause);
        match self.kind {
            Kind::ClosedPort => (vec![absent("never-listened")], vec![]),
            Kind::ListenerExited => (vec![absent("listener-exited")], vec![]),
            Kind::WrongAddress => (vec![absent("wrong-address")], vec![]),
            Kind::OtherFamily => (vec![absent("other-family")], vec![]),
            Kind::OtherDevice | Kind::OtherDeviceHere | Kind::OtherVrf => {
                (vec![absent("other-device")], vec![])
            }
            Kind::OtherNetns => (vec![absent("other-netns")], vec![]),
            Kind::InputDrop | Kind::IptablesInput => (vec![dropped("netfilter")], vec![UNANSWERED]),
            Kind::OutputDrop | Kind::IptablesOutput => {
                (vec![of_client("handshake-dropped", "netfilter")], vec![UNANSWERED])
            }
            Kind::SynAckDrop | Kind::AckDrop => {
                (vec![dropped("netfilter")], vec![UNANSWERED, HALF_OPEN, QUEUE])
            }
            Kind::RpFilter => (vec![dropped("rp-filter")], vec![UNANSWERED]),
            Kind::Checksum => (vec![dropped("checksum")], vec![]),
            Kind::NoWayBack => {
                let needs = Some(observation::NO_WAY_BACK);
                (vec![Expectation { needs, ..dropped("no-route") }], vec![])
            }
            Kind::Published | Kind::Redirected | Kind::Balanced | Kind::Transparent => (vec![], vec![]),
            // Without a socket to lead to, the rule does nothing.
            Kind::TransparentGone => (vec![Expectation { holder: None, ..absent("never-listened") }], vec![]),
            // The SYNs arrive where they are led to.
            Kind::RedirectedGone => {
                let end = SocketAddr::new(called.ip(), called.port() + ground::PUBLISHED);
                let subject = Party::port(end);
                (vec![Expectation { subject, ..absent("listener-exited") }], vec![])
            }
            Kind::Reject => (vec![of_client("connect-refused", "reject")], vec![]),
            // The RST comes from another namespace.
            Kind::FarClosedPort | Kind::PublishedGone | Kind::BalancedGone => {
                (vec![of_client("connect-refused", "no-listener")], vec![])
            }
            Kind::Blackhole => {
                let needs = Some(observation::CONNECT_ERROR);
                (vec![Expectation { needs, ..of_client("handshake-dropped", "no-route") }], vec![])
            }
            Kind::SynQueue => {
                let needs = Some(observation::SYN_DROP);
                let full = at_server("syn-queue-full", "backlog-argument");
                let stall = of_client("syn-unanswered", "local-drop");
                (
                    vec![Expectation { needs, ..full }, Expectation { needs, ..stall }],
                    vec![HALF_OPEN, UNANSWERED],
                )
            }
            Kind::AcceptQueue => (
                vec![
                    at_server("accept-queue-overflow", "accept-stalled"),
                    of_client("syn-unanswered", "local-drop"),
                ],
                vec![QUEUE],
            ),
            Kind::Stopped => (vec![at_server("accept-stall", "process-stopped")], vec![]),
            // Those that are routed to the loopback device come as far as TCP, which has no socket for them and sends no RST, as their
            // route is not a local one.
            Kind::Unreachable | Kind::Upstream | Kind::RoutedToLoopback => {
                (vec![of_client("syn-unanswered", "no-answer")], vec![])
            }
        }
    }
}

/// A server that binds in its own way.
fn bind_and_listen(stage: &Stage, order: Bind) -> Result<Actor> {
    let mut server = stage.start_server("tt-server")?;
    let order = Bind { reuseaddr: true, backlog: Some(BACKLOG), ..order };
    let attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
    match attempts.last() {
        Some(BindAttempt { errno: None, .. }) => Ok(server),
        other => Err(Error::NotStaged(format!("the server does not listen: {other:?}"))),
    }
}
