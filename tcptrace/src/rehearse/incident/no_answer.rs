//! `no-answer`: "the server does not answer", for every reason that is not a queue.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Entry, Family, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Door, Load, Order, Tally};
use crate::rehearse::counters;
use crate::rehearse::error::{During, Error, Result};
use crate::rehearse::netlink;
use crate::rehearse::nft::{self, Hook, Match, Verdict};
use crate::rehearse::stage::{ABROAD_V4, ABROAD_V6, CLIENT_LINK, Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "no-answer",
    summary: "connects fail: nobody listens there, or a packet does not get through",
    variants: &[
        Variant { name: "closed-port", summary: "nobody has ever listened on the port" },
        Variant { name: "listener-exited", summary: "the server was ended a moment ago" },
        Variant { name: "wrong-address", summary: "the server listens on the loopback address only" },
        Variant { name: "other-family", summary: "the server listens for the other address family" },
        Variant { name: "other-netns", summary: "the server listens in another network namespace" },
        Variant { name: "input-drop", summary: "a firewall rule drops the SYNs as they come in" },
        Variant { name: "output-drop", summary: "a firewall rule drops the client's SYNs as they go out" },
        Variant { name: "synack-drop", summary: "a firewall rule drops the server's SYN-ACKs" },
        Variant { name: "ack-drop", summary: "a firewall rule drops the handshakes' last ACKs" },
        Variant { name: "reject", summary: "a firewall on the far side rejects by ICMP" },
        Variant { name: "rp-filter", summary: "the reverse-path filter drops the SYNs (IPv4)" },
        Variant { name: "upstream", summary: "the SYNs are lost outside this host" },
        Variant { name: "far-closed-port", summary: "nobody listens on the far side" },
    ],
    make: |variant, options| Ok(Box::new(NoAnswer::new(variant, options)?)),
};

/// Where hardly anybody else on the host listens, in whatever namespace: that would be worth a word.
const PORT: u16 = 18_077;
const BACKLOG: i32 = 128;
/// Addresses of the reverse-path variant: the server has no route to the client's network.
const DETOUR_SERVER: Ipv4Addr = Ipv4Addr::new(10, 76, 0, 1);
const DETOUR_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 76, 0, 2);

struct NoAnswer {
    variant: &'static Variant,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    client: Option<Actor>,
    stage: Stage,
}

impl NoAnswer {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        if variant.name == "rp-filter" && options.family == Family::V6 {
            return Err(Error::NotSupported("IPv6 has no reverse-path filter".into()));
        }
        let stage = options.stage(Layout::Pair)?;
        Ok(Self { variant, options, server: None, client: None, stage })
    }

    fn ipv6(&self) -> bool {
        self.options.family == Family::V6
    }

    /// Whether the client, and not the server, is in the namespace that is traced.
    fn client_is_traced(&self) -> bool {
        matches!(
            self.variant.name,
            "output-drop"
                | "reject"
                | "upstream"
                | "far-closed-port"
                | "closed-port"
                | "listener-exited"
                | "other-netns"
        )
    }

    /// What the client calls.
    fn called(&self) -> SocketAddr {
        let ip = match self.variant.name {
            "upstream" if self.ipv6() => Ipv6Addr::from_bits(ABROAD_V6.to_bits() + 7).into(),
            "upstream" => Ipv4Addr::from_bits(ABROAD_V4.to_bits() + 7).into(),
            // The far side of the pair.
            "output-drop" | "reject" | "far-closed-port" => self.stage.client_address(self.ipv6()),
            "rp-filter" => DETOUR_SERVER.into(),
            _ => self.stage.server_address(self.ipv6()),
        };
        SocketAddr::new(ip, PORT)
    }

    /// Where the server listens, if there is one.
    fn door(&self) -> Option<SocketAddr> {
        let loopback: IpAddr =
            if self.ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let other: IpAddr =
            if self.ipv6() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        match self.variant.name {
            "closed-port" | "upstream" | "far-closed-port" => None,
            "wrong-address" => Some(SocketAddr::new(loopback, PORT)),
            "other-family" => Some(SocketAddr::new(other, PORT)),
            _ => Some(self.options.family.any(PORT)),
        }
    }

    fn open_for_business(&self) -> Result<Option<Actor>> {
        let Some(address) = self.door() else { return Ok(None) };
        let elsewhere = matches!(self.variant.name, "other-netns" | "output-drop" | "reject");
        if elsewhere {
            let mut server = self.stage.start_client("tt-server")?;
            server.ask::<()>(&Order::Open(Door::at(address, BACKLOG)))?;
            return Ok(Some(server));
        }
        if self.variant.name != "other-family" {
            return Ok(Some(open(&self.stage, "tt-server", Door::at(address, BACKLOG))?));
        }
        let mut server = self.stage.start_server("tt-server")?;
        let order = Bind { reuseaddr: true, v6only: true, backlog: Some(BACKLOG), ..Bind::to(address) };
        let attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        match attempts.last() {
            Some(BindAttempt { errno: None, .. }) => Ok(Some(server)),
            other => Err(Error::NotStaged(format!("the server does not listen: {other:?}"))),
        }
    }

    /// What makes the connects fail, once everything stands.
    fn obstruct(&mut self) -> Result<()> {
        let stage = &self.stage;
        let rule = |far: bool, hook, packets, verdict| {
            let namespace = if far { stage.client() } else { stage.server() };
            namespace.run(move || nft::rule(hook, packets, verdict))?.map_err(no_firewall)
        };
        match self.variant.name {
            "input-drop" => rule(false, Hook::Input, Match::To(PORT), Verdict::Drop),
            "output-drop" => rule(false, Hook::Output, Match::To(PORT), Verdict::Drop),
            "synack-drop" => rule(false, Hook::Output, Match::From(PORT), Verdict::Drop),
            "ack-drop" => rule(false, Hook::Input, Match::BareAckTo(PORT), Verdict::Drop),
            "reject" => rule(true, Hook::Input, Match::To(PORT), Verdict::Unreachable),
            "rp-filter" => self.detour(),
            "listener-exited" => {
                if let Some(server) = &mut self.server {
                    server.signal(Signal::SIGTERM)?;
                    server.await_end()?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The server has an address in a network that its routes do not know.
    fn detour(&self) -> Result<()> {
        let stage = &self.stage;
        stage
            .server()
            .run(|| netlink::add_address("lo", DETOUR_SERVER.into(), 32))?
            .during("the server's address")?;
        let address = || netlink::add_address(CLIENT_LINK.name, DETOUR_CLIENT.into(), 24);
        stage.client().run(address)?.during("the client's address")?;
        // Off at first: the filter would also keep the server from answering who has that address.
        stage.set_sysctl("net.ipv4.conf.all.rp_filter", 0)?;
        stage.set_sysctl("net.ipv4.conf.tt-server.rp_filter", 0)?;
        let to = SocketAddr::new(DETOUR_SERVER.into(), PORT + 1);
        let acquainted = stage
            .client()
            .run(move || std::net::TcpStream::connect_timeout(&to, Duration::from_millis(200)))?;
        drop(acquainted);
        stage.set_sysctl("net.ipv4.conf.all.rp_filter", 1)
    }

    /// What must be said of it.
    fn truth(&self, client: &Actor) -> (Vec<Expectation>, Vec<Allowed>) {
        const UNANSWERED: Allowed =
            Allowed { code: "syn-unanswered", because: "that is what the client feels of it" };
        const HALF_OPEN: Allowed =
            Allowed { code: "half-open-capture", because: "requests are left half-open by it" };
        const QUEUE: Allowed = Allowed { code: "accept-stall", because: "this machine took its time" };
        let called = self.called();
        let me = client.identity();
        let asking =
            Party { kind: "process", pid: Some(me.pid), comm: Some(me.comm.clone()), ..Party::default() };
        let server = |address| self.server.as_ref().map(|s| Party::of(s.identity(), "listener", address));
        let absent = |cause| Expectation {
            requester: self.client_is_traced().then(|| asking.clone()),
            holder: self.door().and_then(server),
            ..Expectation::about("no-listener", cause, Party::port(called))
        };
        let of_client = |code, cause| {
            Expectation::about(
                code,
                cause,
                Party { address: Some(called), ..Party::of(me, "destination", called) },
            )
        };
        let at_server = |cause| {
            let subject = self.door().and_then(server).unwrap_or_default();
            Expectation::about("handshake-dropped", cause, subject)
        };
        match self.variant.name {
            "closed-port" => (vec![absent("never-listened")], vec![]),
            "listener-exited" => (vec![absent("listener-exited")], vec![]),
            "wrong-address" => (vec![absent("wrong-address")], vec![]),
            "other-family" => (vec![absent("other-family")], vec![]),
            "other-netns" => (vec![absent("other-netns")], vec![]),
            "input-drop" => (vec![at_server("netfilter")], vec![UNANSWERED]),
            "output-drop" => (vec![of_client("handshake-dropped", "netfilter")], vec![UNANSWERED]),
            "synack-drop" | "ack-drop" => (vec![at_server("netfilter")], vec![UNANSWERED, HALF_OPEN, QUEUE]),
            "rp-filter" => (vec![at_server("rp-filter")], vec![UNANSWERED]),
            "reject" => (vec![of_client("connect-refused", "reject")], vec![]),
            "far-closed-port" => (vec![of_client("connect-refused", "no-listener")], vec![]),
            _ => (vec![of_client("syn-unanswered", "no-answer")], vec![]),
        }
    }
}

fn no_firewall(source: std::io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOENT) => {
            Error::NotSupported("this kernel has no nf_tables".into())
        }
        _ => Error::Io { what: "making a firewall rule in the private namespace".into(), source },
    }
}

impl Incident for NoAnswer {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let door = self
            .door()
            .map_or_else(|| "nobody listens".to_owned(), |at| format!("tt-server listens on {at}"));
        format!("tt-client calls {}; {door}.\nWhat goes wrong: {}.", self.called(), self.variant.summary)
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older {
            self.server = self.open_for_business()?;
        }
        Ok(())
    }

    fn play(&mut self) -> Result<GroundTruth> {
        if self.server.is_none() {
            self.server = self.open_for_business()?;
        }
        self.obstruct()?;
        let before = self.stage.counters()?;
        let mut client = if self.client_is_traced() {
            self.stage.start_server("tt-client")?
        } else {
            self.stage.start_client("tt-client")?
        };
        let refused = ["no-listener", "connect-refused"];
        let (expect, allow) = self.truth(&client);
        // By ICMP, the kernel believes it only when the SYN was sent again.
        let short =
            self.variant.name != "reject" && expect.iter().all(|expected| refused.contains(&expected.code));
        let load = if short {
            Load { to: self.called(), burst: 1, every_ms: 250, for_ms: 2500, at_least: 6 }
        } else {
            Load { to: self.called(), burst: 1, every_ms: 400, for_ms: 8000, at_least: 6 }
        };
        let opened: u64 = client.ask(&Order::Load(load))?;
        let tally: Tally = client.ask(&Order::HangUp { reset: true })?;
        // Long enough for what was called off to be seen.
        self.stage.cancel().sleep(Duration::from_millis(500))?;
        let counters = counters::growth(&before, &self.stage.counters()?);
        let answered = if self.variant.name == "ack-drop" { tally.answered } else { tally.established };
        if answered > 0 || (short && tally.failed != opened) {
            return Err(Error::NotStaged(format!("of {opened} connects came: {tally:?}")));
        }
        let mut actors = vec![client.identity().clone()];
        actors.extend(self.server.iter().map(|server| server.identity().clone()));
        self.client = Some(client);
        Ok(GroundTruth {
            actors,
            expect,
            allow,
            facts: facts(json!({ "connects": opened, "refused": tally.failed, "called_off": tally.gave_up })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }
}
