//! `port-exhaustion`: an ephemeral port is wanted, and there is none.
//!
//! The range is small in the private namespace, so that it takes seconds and not an hour; who takes the ports, and how, is as
//! in the real incidents.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, BindAttempt, Door, Order, Take, Taken, have_own_ranges};
use crate::rehearse::counters::{self, Counters};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "port-exhaustion",
    aliases: &[],
    summary: "an ephemeral port is wanted, and there is none",
    variants: &[
        Variant { name: "leak", summary: "a process takes port after port and closes nothing" },
        Variant { name: "churn", summary: "short connections to one destination: TIME_WAIT has the ports" },
        Variant {
            name: "bind-before-connect",
            summary: "a client binds to port 0 before it connects, to two destinations",
        },
        Variant { name: "small-range", summary: "three clients with a few connections each, and few ports" },
        Variant {
            name: "hot-destination",
            summary: "as small-range, but connects to another destination still succeed",
        },
        Variant {
            name: "own-range",
            summary: "a client gives its sockets a range of their own, which is used up (since 6.3)",
        },
        Variant {
            name: "reuse",
            summary: "no finding: as churn, with more connections than ports, and connect() may take over what is in TIME_WAIT (tcp_tw_reuse=1)",
        },
        Variant {
            name: "reuse-loopback",
            summary: "no finding: the same with the kernel's default, which allows that on the loopback device (tcp_tw_reuse=2)",
        },
        Variant {
            name: "reuse-too-fast",
            summary: "the same, but all ports are used within a second, for which each is kept all the same",
        },
        Variant {
            name: "bind-any",
            summary: "a process binds sockets to port 0; a server's bind() gets none",
        },
    ],
    make: |variant, options| Ok(Box::new(PortExhaustion::new(variant, options)?)),
};

/// Ephemeral ports of the stage.
const PORTS: usize = 40;
const FIRST: usize = 20_000;

/// A socket's own range: so many of the first.
const OWN: u16 = 4;

/// How often a port is wanted in vain.
const ATTEMPTS: usize = 3;

/// Where the clients' servers are: not in the range.
const UPSTREAM: u16 = 7000;
const OTHER: u16 = 7001;

struct PortExhaustion {
    variant: &'static Variant,
    options: Options,
    /// Who has the ports, once they are taken.
    takers: Vec<Actor>,
    upstreams: Vec<Actor>,
    requester: Option<Actor>,
    stage: Stage,
}

impl PortExhaustion {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        if variant.name == "own-range" && !have_own_ranges() {
            return Err(Error::NotSupported("IP_LOCAL_PORT_RANGE needs Linux 6.3".into()));
        }
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.ipv4.ip_local_port_range", format!("{FIRST} {}", FIRST + PORTS - 1))?;
        // The default lets connect() take over TIME_WAIT on loopback, as it does not elsewhere.
        let reuse = match variant.name {
            "reuse" | "reuse-too-fast" => 1,
            "reuse-loopback" => 2,
            _ => 0,
        };
        stage.set_sysctl("net.ipv4.tcp_tw_reuse", reuse)?;
        Ok(Self { variant, options, takers: Vec::new(), upstreams: Vec::new(), requester: None, stage })
    }

    fn to(&self, port: u16) -> SocketAddr {
        self.options.family.call(&self.stage, port)
    }

    fn take(&self, to: Vec<SocketAddr>, count: usize, every_ms: u64) -> Take {
        Take { to, bind: None, late: false, own_range: None, count, every_ms, close: false, abandon: false }
    }

    /// One connection, by a socket that is bound to an address, and chooses its port from a range of its own when it connects.
    fn take_from_own_range(&self) -> Take {
        let to = self.to(UPSTREAM);
        let own_range = u16::try_from(FIRST).ok().map(|first| (first, first + OWN - 1));
        Take { bind: Some(to.ip()), late: true, own_range, ..self.take(vec![to], 1, 20) }
    }

    /// Starts a process that takes ports and does not fail.
    fn taker(&mut self, role: &str, orders: &[Take]) -> Result<()> {
        let mut taker = self.stage.start_client(role)?;
        for order in orders {
            let taken: Taken = taker.ask(&Order::Take(order.clone()))?;
            if taken.failed.is_some() {
                return Err(Error::NotStaged(format!("{role} got {} ports of {}", taken.ports, order.count)));
            }
        }
        self.takers.push(taker);
        Ok(())
    }

    /// Whether each connection gets a port, though there are more of them than ports.
    fn is_enough(&self) -> bool {
        matches!(self.variant.name, "reuse" | "reuse-loopback")
    }

    /// More connections than ports were made, and none failed.
    fn none_was_wanting(&self, before: &Counters) -> Result<GroundTruth> {
        let after = self.stage.settled_counters()?;
        // Counted where connect() takes over a port in TIME_WAIT.
        let taken_over = |counters: &Counters| counters.get("TWRecycled").copied().unwrap_or_default();
        let reused = taken_over(&after).saturating_sub(taken_over(before));
        if reused < PORTS as u64 {
            return Err(Error::NotStaged(format!("{reused} ports in TIME_WAIT were taken over")));
        }
        Ok(GroundTruth {
            actors: self.takers.iter().chain(&self.upstreams).map(|actor| actor.identity().clone()).collect(),
            facts: facts(json!({ "capacity": PORTS, "connections": PORTS * 3, "reused": reused })),
            counters: counters::growth(before, &after),
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }

    /// All ports are taken.
    fn use_up(&mut self) -> Result<()> {
        for port in [UPSTREAM, OTHER] {
            let mut upstream =
                open(&self.stage, "tt-upstream", Door::at(self.options.family.any(port), 128))?;
            upstream.ask::<()>(&Order::Serve { workers: 1 })?;
            self.upstreams.push(upstream);
        }
        let (to, other) = (self.to(UPSTREAM), self.to(OTHER));
        match self.variant.name {
            // Slowly enough to be seen growing.
            "leak" => self.taker("tt-leaker", &[self.take(vec![to], PORTS, 150)]),
            "churn" => {
                let order = Take { close: true, ..self.take(vec![to], PORTS, 20) };
                self.taker("tt-client", &[order])
            }
            // A port is free for the next connection when it has been in TIME_WAIT for a second: each is wanted after two.
            "reuse" | "reuse-loopback" => {
                let order = Take { close: true, ..self.take(vec![to], PORTS * 3, 50) };
                self.taker("tt-client", &[order])
            }
            "reuse-too-fast" => {
                let order = Take { close: true, ..self.take(vec![to], PORTS, 0) };
                self.taker("tt-client", &[order])
            }
            "bind-before-connect" => {
                let order = Take { bind: Some(to.ip()), ..self.take(vec![to, other], PORTS, 20) };
                self.taker("tt-client", &[order])
            }
            "own-range" => {
                self.taker("tt-client", &[Take { count: OWN.into(), ..self.take_from_own_range() }])
            }
            "bind-any" => {
                let order = Take { bind: Some(to.ip()), ..self.take(Vec::new(), PORTS, 150) };
                self.taker("tt-leaker", &[order])
            }
            _ => {
                for (role, count) in [("tt-one", 16), ("tt-two", 12), ("tt-three", 12)] {
                    let mut orders = vec![self.take(vec![to], count, 20)];
                    if self.variant.name == "hot-destination" {
                        orders.push(self.take(vec![other], 2, 20));
                    }
                    self.taker(role, &orders)?;
                }
                Ok(())
            }
        }
    }

    /// One more port is wanted.
    fn want_one_more(&mut self) -> Result<BindAttempt> {
        let to = self.to(UPSTREAM);
        let mut order = self.take(vec![to], 1, 0);
        match self.variant.name {
            "bind-before-connect" => order.bind = Some(to.ip()),
            "own-range" => order = self.take_from_own_range(),
            "bind-any" => order = Take { to: Vec::new(), bind: Some(to.ip()), ..order },
            _ => {}
        }
        // The client that left TIME_WAIT behind is the one that goes on; elsewhere it is an innocent.
        let mut requester = match self.variant.name {
            "churn" | "reuse-too-fast" | "bind-before-connect" | "own-range" => self.takers.remove(0),
            _ => self.stage.start_client("tt-victim")?,
        };
        // Within the second in which there is none.
        let pause_ms = if self.variant.name == "reuse-too-fast" { 10 } else { 400 };
        let mut failed = None;
        for _ in 0..ATTEMPTS {
            let taken: Taken = requester.ask(&Order::Take(order.clone()))?;
            failed = taken.failed;
            self.stage.cancel().sleep(Duration::from_millis(pause_ms))?;
        }
        if self.variant.name == "hot-destination" {
            let order = self.take(vec![self.to(OTHER)], 1, 0);
            let taken: Taken = requester.ask(&Order::Take(order))?;
            if taken.failed.is_some() {
                return Err(Error::NotStaged("toward the other destination there is no port either".into()));
            }
        }
        self.requester = Some(requester);
        failed.ok_or_else(|| Error::NotStaged(format!("all {PORTS} ports are taken, and there was one more")))
    }
}

impl Incident for PortExhaustion {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let (to, other) = (self.to(UPSTREAM), self.to(OTHER));
        let last = FIRST + PORTS - 1;
        let taken = match self.variant.name {
            "leak" => format!("tt-leaker opens a connection to {to} now and then, and closes none."),
            "churn" | "reuse" | "reuse-loopback" | "reuse-too-fast" => {
                format!("tt-client opens connections to {to} and closes them: TIME_WAIT stays behind.")
            }
            "bind-before-connect" => format!("tt-client binds to port 0, then connects to {to} or {other}."),
            "own-range" => format!("tt-client's sockets take ports from the first {OWN} of them alone."),
            "bind-any" => "tt-leaker binds socket after socket to port 0.".to_owned(),
            "hot-destination" => format!("Three clients have connections to {to}, and a few to {other}."),
            _ => format!("Three clients have connections to {to}."),
        };
        let then = if self.is_enough() { "There is one for each." } else { "Then one more port is wanted." };
        format!("Ports {FIRST} to {last} are ephemeral. {taken}\n{then}")
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older { self.use_up() } else { Ok(()) }
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        if self.takers.is_empty() {
            self.use_up()?;
        }
        if self.is_enough() {
            return self.none_was_wanting(&before);
        }
        let failed = self.want_one_more()?;
        let name = self.variant.name;
        let face = if name.starts_with("bind-") { "bind" } else { "connect" };
        if failed.at != face {
            return Err(Error::NotStaged(format!("{} failed instead of {face}", failed.at)));
        }
        let growth = counters::growth(&before, &self.stage.settled_counters()?);
        let Some(requester) = &self.requester else {
            return Err(Error::NotStaged("nobody wanted a port".into()));
        };
        let to = self.to(UPSTREAM);
        let person = |actor: &Actor| Party {
            kind: "process",
            pid: Some(actor.identity().pid),
            comm: Some(actor.identity().comm.clone()),
            ..Party::default()
        };
        let hot = name == "hot-destination";
        let expectation = Expectation {
            code: ENTRY.name,
            cause: match name {
                "bind-any" => "leak",
                "own-range" => "small-range",
                "reuse-too-fast" => "churn",
                name => name,
            },
            subject: Party {
                kind: if hot { "destination" } else { "host" },
                remote: hot.then_some(to),
                ..Party::default()
            },
            requester: Some(Party { remote: (face == "connect").then_some(to), ..person(requester) }),
            // Nobody has what is in TIME_WAIT.
            holder: match name {
                "churn" | "reuse-too-fast" => None,
                "bind-before-connect" | "own-range" => Some(person(requester)),
                _ => self.takers.first().map(person),
            },
            needs: None,
            without: None,
            at_most: None,
            at_least: None,
        };
        let leak = Allowed { code: "port-leak", because: "it is one, before it has used up the ports" };
        let actors = self.takers.iter().chain(&self.upstreams).chain([requester]);
        Ok(GroundTruth {
            actors: actors.map(|actor| actor.identity().clone()).collect(),
            expect: vec![expectation],
            allow: if matches!(name, "leak" | "bind-any") { vec![leak] } else { Vec::new() },
            facts: facts(json!({
                "errno": if face == "bind" { "EADDRINUSE" } else { "EADDRNOTAVAIL" },
                "call": face,
                "capacity": PORTS,
                "attempts": ATTEMPTS,
            })),
            counters: growth,
            ..GroundTruth::of(ENTRY.name, name, self.stage.netns_inode())
        })
    }
}
