//! `port-risk`: a server's port lies in the ephemeral range; nothing has failed yet.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, Door, Order};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "port-grab-risk",
    aliases: &["port-risk"],
    summary: "a server's port lies in the ephemeral range; nothing has failed yet",
    variants: &[
        Variant { name: "near-miss", summary: "the server is down, and a client is given its port" },
        Variant { name: "range-overlap", summary: "the server listens" },
        Variant { name: "reserved", summary: "as near-miss, but the port is reserved: no risk" },
    ],
    make: |variant, options| Ok(Box::new(PortRisk::new(variant, options)?)),
};

const PORT: u16 = 35010;
const UPSTREAM: u16 = 7000;
const RANGE: &str = "net.ipv4.ip_local_port_range";

struct PortRisk {
    variant: &'static Variant,
    options: Options,
    server: Option<Actor>,
    actors: Vec<Actor>,
    stage: Stage,
}

impl PortRisk {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        if variant.name == "reserved" {
            stage.set_sysctl("net.ipv4.ip_local_reserved_ports", PORT)?;
        }
        Ok(Self { variant, options, server: None, actors: Vec::new(), stage })
    }

    fn start(&self) -> Result<Actor> {
        open(&self.stage, "tt-server", Door::at(self.options.family.any(PORT), 128))
    }

    /// The server closes, and a client connects; the kernel has little choice for its port. On one processor, without another
    /// socket in between: the client's is likely to stand where the server's did in the kernel's memory.
    fn replace(&mut self, server: &mut Actor, ports: &str) -> Result<(Actor, SocketAddr, SocketAddr)> {
        let (stage, family) = (&self.stage, self.options.family);
        let mut upstream = open(stage, "tt-upstream", Door::at(family.any(UPSTREAM), 128))?;
        upstream.ask::<()>(&Order::Serve { workers: 1 })?;
        let to = family.call(stage, UPSTREAM);
        let mut client = stage.start_client("tt-client")?;
        let usual = stage.sysctl(RANGE)?;
        stage.set_sysctl(RANGE, ports)?;
        server.pin()?;
        client.pin()?;
        server.ask::<()>(&Order::Close)?;
        // A listener's memory is given back after a grace period of RCU.
        stage.cancel().sleep(Duration::from_millis(100))?;
        let given: Vec<SocketAddr> = client.ask(&Order::Connect { to, count: 1 })?;
        stage.set_sysctl(RANGE, usual)?;
        self.actors.push(upstream);
        let address = given.first().ok_or_else(|| Error::NotStaged("the client was given no port".into()))?;
        Ok((client, *address, to))
    }
}

impl Incident for PortRisk {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let server =
            format!("tt-server listens on {}, in the ephemeral range.", self.options.family.any(PORT));
        match self.variant.name {
            "near-miss" => format!("{server} It closes; then tt-client's connect() is given the port."),
            "reserved" => format!("{server} The port is reserved: tt-client's connect() is given another."),
            _ => server,
        }
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older {
            self.server = Some(self.start()?);
        }
        Ok(())
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        let mut server = match self.server.take() {
            Some(server) => server,
            None => self.start()?,
        };
        // So long it takes at most until everybody knows that it listens.
        self.stage.cancel().sleep(Duration::from_millis(1500))?;
        let wanted = self.options.family.any(PORT);
        let mut expect = Vec::new();
        let overlap = Party { kind: "host", ..Party::default() };
        if self.variant.name != "reserved" {
            expect.push(Expectation::about("port-grab-risk", "range-overlap", overlap));
        }
        if self.variant.name != "range-overlap" {
            let reserved = self.variant.name == "reserved";
            let ports = if reserved { format!("{PORT} {}", PORT + 1) } else { format!("{PORT} {PORT}") };
            let (client, address, to) = self.replace(&mut server, &ports)?;
            if (address.port() == PORT) == reserved {
                return Err(Error::NotStaged(format!("the client was given {address}")));
            }
            if !reserved {
                expect.push(Expectation {
                    code: "port-grab-risk",
                    cause: "near-miss",
                    subject: Party::port(wanted),
                    requester: Some(Party::of(server.identity(), "process", wanted)),
                    holder: Some(Party::of(client.identity(), "process", address).connected_to(to)),
                    needs: None,
                    without: None,
                    at_most: None,
                    at_least: None,
                });
            }
            self.actors.push(client);
        }
        let counters = counters::growth(&before, &self.stage.settled_counters()?);
        self.actors.push(server);
        Ok(GroundTruth {
            actors: self.actors.iter().map(|actor| actor.identity().clone()).collect(),
            expect,
            facts: facts(json!({ "port": PORT })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }
}
