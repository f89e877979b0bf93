//! `port-grab`: a server cannot bind its port, because somebody has it: by default a client, whose connect() was given it.
//!
//! The kernel itself chooses the client's port, as in the real incident: for the moment of that connect() the ephemeral
//! range is one port wide. The range is the usual one again before the server tries.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Entry, Incident, Options, Variant};
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Order};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "port-grab",
    summary: "a server cannot bind its port: a client's connect() was given it",
    variants: &[
        Variant {
            name: "basic",
            summary: "a client's long connection has the port; the server tries three times",
        },
        Variant { name: "older-holder", summary: "as basic, but the client is older than the tracer" },
    ],
    make: |variant, options| Ok(Box::new(PortGrab::new(variant, options)?)),
};

/// Inside the default ephemeral range: the port that the server is configured to use.
const GRABBED: u16 = 35010;
/// Below the ephemeral range, where servers are safe.
const UPSTREAM: u16 = 7000;

const RANGE: &str = "net.ipv4.ip_local_port_range";

struct PortGrab {
    variant: &'static Variant,
    options: Options,
    holder: Option<Holder>,
    /// Everybody else.
    actors: Vec<Actor>,
    stage: Stage,
}

/// Who has the port, and with what.
struct Holder {
    actor: Actor,
    address: SocketAddr,
    remote: Option<SocketAddr>,
    state: &'static str,
}

impl PortGrab {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        Ok(Self { variant, options, holder: None, actors: Vec::new(), stage })
    }

    /// An upstream server and a client whose connection to it was given the port.
    fn grab(&mut self) -> Result<()> {
        let stage = &self.stage;
        let mut upstream = stage.start_server("tt-upstream")?;
        let family = self.options.family;
        bind(&mut upstream, family.any(UPSTREAM), true, Some(64))?;
        upstream.ask::<()>(&Order::Serve { workers: 1 })?;
        let to = family.call(stage, UPSTREAM);

        let mut client = stage.start_client("tt-client")?;
        let usual = stage.sysctl(RANGE)?;
        stage.set_sysctl(RANGE, format!("{GRABBED} {GRABBED}"))?;
        let given: Vec<SocketAddr> = client.ask(&Order::Connect { to, count: 1 })?;
        stage.set_sysctl(RANGE, usual)?;
        let Some(&address) = given.first().filter(|address| address.port() == GRABBED) else {
            return Err(Error::NotStaged(format!("the client was given {given:?}, not port {GRABBED}")));
        };
        // Others of its kind, so that the holder must be told apart.
        client.ask::<Value>(&Order::Connect { to, count: 3 })?;
        let mut bystander = stage.start_client("tt-bystander")?;
        bystander.ask::<Value>(&Order::Connect { to, count: 3 })?;

        self.holder = Some(Holder { actor: client, address, remote: Some(to), state: "established" });
        self.actors.extend([upstream, bystander]);
        Ok(())
    }
}

fn bind(actor: &mut Actor, address: SocketAddr, reuseaddr: bool, backlog: Option<i32>) -> Result<()> {
    let order = Bind { address, reuseaddr, v6only: false, backlog, attempts: 1, gap_ms: 0, then_kill: None };
    let attempts: Vec<BindAttempt> = actor.ask(&Order::Bind(order))?;
    match attempts.last().and_then(|attempt| attempt.errno) {
        None => Ok(()),
        Some(errno) => {
            let role = &actor.identity().role;
            Err(Error::NotStaged(format!("{role} cannot take {address} (errno {errno})")))
        }
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
        let wanted = self.options.family.any(GRABBED);
        format!(
            "tt-client connects to tt-upstream; the kernel gives it local port {GRABBED}.\n\
             tt-server, configured to listen on {wanted}, tries three times and gets EADDRINUSE."
        )
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older || self.variant.name == "older-holder" { self.grab() } else { Ok(()) }
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        if self.holder.is_none() {
            self.grab()?;
        }
        let Some(holder) = &self.holder else {
            return Err(Error::NotStaged("nobody has the port".into()));
        };
        let wanted = self.options.family.any(GRABBED);
        let mut server = self.stage.start_server("tt-server")?;
        let order = Bind {
            address: wanted,
            reuseaddr: true,
            v6only: false,
            backlog: Some(128),
            attempts: 3,
            gap_ms: 300,
            then_kill: None,
        };
        let attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        if attempts.iter().any(|attempt| attempt.errno != Some(libc::EADDRINUSE)) {
            return Err(Error::NotStaged(format!("binding {wanted} came out as {attempts:?}")));
        }
        let after = self.stage.settled_counters()?;
        let held = Party::of(holder.actor.identity(), "process", holder.address).in_state(holder.state);
        let held = match holder.remote {
            Some(remote) => held.connected_to(remote),
            None => held,
        };
        let expectation = Expectation {
            code: "bind-conflict",
            cause: "ephemeral-grab",
            subject: Party::port(wanted),
            requester: Some(Party::of(server.identity(), "process", wanted)),
            holder: Some(held),
        };
        let mut actors = vec![server.identity().clone(), holder.actor.identity().clone()];
        actors.extend(self.actors.iter().map(|actor| actor.identity().clone()));
        self.actors.push(server);
        let facts = json!({ "attempts": attempts.len(), "errno": "EADDRINUSE", "at": "bind" });
        Ok(GroundTruth {
            kind: "rehearsal",
            name: self.name(),
            variant: self.variant.name,
            netns: self.stage.netns_inode(),
            actors,
            expect: vec![expectation],
            allow: vec![Allowed {
                code: "port-grab-risk",
                because: "a client has just taken a port that a server wants",
            }],
            forbid: "any other finding",
            counters: counters::growth(&before, &after),
            facts: facts.as_object().cloned().unwrap_or_default(),
        })
    }
}
