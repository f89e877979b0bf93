//! `port-leak`: a process takes port after port and gives none back; there are still some.

use std::time::Duration;

use serde_json::json;

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, Door, Order, Take, Taken};
use crate::rehearse::cgroup::Cgroup;
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "port-leak",
    aliases: &[],
    summary: "a process takes port after port and gives none back; there are still some",
    variants: &[
        Variant { name: "basic", summary: "connections that are kept for nothing" },
        Variant {
            name: "close-wait",
            summary: "connections that the server has closed, and the client has not",
        },
        Variant { name: "bound", summary: "sockets that are bound to port 0, and nothing more" },
        Variant { name: "container", summary: "as basic, in a container" },
        Variant { name: "pool", summary: "a pool fills up and stays as it is: no finding" },
        Variant { name: "turnover", summary: "as many are closed as opened: no finding" },
    ],
    make: |variant, options| Ok(Box::new(PortLeak::new(variant, options)?)),
};

/// Ephemeral ports of the stage, and how many are taken.
const PORTS: usize = 100;
const TAKEN: usize = 45;
const FIRST: usize = 20_000;
const UPSTREAM: u16 = 7000;
/// As Docker names one.
const CONTAINER: &str = "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01";

struct PortLeak {
    variant: &'static Variant,
    options: Options,
    actors: Vec<Actor>,
    /// After the actors, one of which may be in it.
    cgroup: Option<Cgroup>,
    stage: Stage,
}

impl PortLeak {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.ipv4.ip_local_port_range", format!("{FIRST} {}", FIRST + PORTS - 1))?;
        let container = variant.name == "container";
        let cgroup = container.then(|| Cgroup::new(&format!("docker-{CONTAINER}.scope"))).transpose()?;
        Ok(Self { variant, options, actors: Vec::new(), cgroup, stage })
    }
}

impl Incident for PortLeak {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let what = match self.variant.name {
            "close-wait" => "opens connections, which the server closes, and closes none itself",
            "bound" => "binds sockets to port 0",
            "pool" => "fills a pool of connections within a second, and keeps it",
            "turnover" => "opens connections and closes them",
            _ => "opens connections and closes none",
        };
        format!("tt-client {what}: {TAKEN} of {PORTS} ephemeral ports.")
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let (stage, family) = (&self.stage, self.options.family);
        let before = stage.counters()?;
        let mut upstream = open(stage, "tt-upstream", Door::at(family.any(UPSTREAM), 128))?;
        upstream.ask::<()>(&Order::Serve { workers: 1 })?;
        let to = family.call(stage, UPSTREAM);
        let mut client = stage.start_client("tt-client")?;
        if let Some(cgroup) = &self.cgroup {
            cgroup.admit(&client)?;
        }
        let order = Take {
            late: false,
            own_range: None,
            to: if self.variant.name == "bound" { Vec::new() } else { vec![to] },
            bind: (self.variant.name == "bound").then(|| to.ip()),
            count: TAKEN,
            every_ms: if self.variant.name == "pool" { 10 } else { 180 },
            close: self.variant.name == "turnover",
            abandon: self.variant.name == "close-wait",
        };
        let taken: Taken = client.ask(&Order::Take(order))?;
        if taken.failed.is_some() {
            return Err(Error::NotStaged(format!("there were {} ports, not {TAKEN}", taken.ports)));
        }
        let healthy = matches!(self.variant.name, "pool" | "turnover");
        if healthy {
            // Long enough for a leak to be seen.
            stage.cancel().sleep(Duration::from_secs(6))?;
        }
        let counters = counters::growth(&before, &stage.settled_counters()?);
        let leak = Expectation::about(
            ENTRY.name,
            "not-closing",
            Party {
                kind: "process",
                pid: Some(client.identity().pid),
                comm: Some(client.identity().comm.clone()),
                container: self.cgroup.as_ref().map(|_| format!("docker:{}", &CONTAINER[..12])),
                ..Party::default()
            },
        );
        self.actors.extend([client, upstream]);
        Ok(GroundTruth {
            actors: self.actors.iter().map(|actor| actor.identity().clone()).collect(),
            expect: if healthy { Vec::new() } else { vec![leak] },
            facts: facts(json!({ "taken": TAKEN, "capacity": PORTS })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}
