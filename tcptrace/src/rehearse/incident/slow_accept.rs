//! `slow-accept`: workers are too few, so that connections wait for seconds in a queue that has room for all of them.
//!
//! Both ends look at the same clock: the client when its connect() returned, which on loopback is when the connection was
//! put into the queue, the server when accept() returned it. What lies between is the true accept wait.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, Door, Load, Order, Stamp};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "slow-accept",
    aliases: &[],
    summary: "too few workers: connections wait for seconds, but none is dropped",
    variants: &[
        Variant { name: "basic", summary: "two workers accept 20 connections a second, 30 arrive" },
        Variant { name: "burst", summary: "one fair worker, 150 connections at once" },
    ],
    make: |variant, options| Ok(Box::new(SlowAccept::new(variant, options)?)),
};

const PORT: u16 = 1080;
const BACKLOG: i32 = 511;

/// What a variant differs in.
#[derive(Debug, Clone, Copy)]
struct Recipe {
    workers: usize,
    busy_ms: u64,
    burst: usize,
    every_ms: u64,
    connections: usize,
}

impl Recipe {
    fn of(variant: &Variant) -> Self {
        match variant.name {
            "burst" => Self { workers: 1, busy_ms: 30, burst: 150, every_ms: 1000, connections: 150 },
            _ => Self { workers: 2, busy_ms: 100, burst: 1, every_ms: 33, connections: 150 },
        }
    }
}

struct SlowAccept {
    variant: &'static Variant,
    recipe: Recipe,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    client: Option<Actor>,
    stage: Stage,
}

impl SlowAccept {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        Ok(Self { variant, recipe: Recipe::of(variant), options, server: None, client: None, stage })
    }

    fn open_for_business(&self) -> Result<Actor> {
        let mut server = open(&self.stage, "tt-proxy", Door::at(self.options.family.any(PORT), BACKLOG))?;
        let Recipe { workers, busy_ms, .. } = self.recipe;
        server.ask::<()>(&Order::Accept { workers, every_ms: busy_ms })?;
        Ok(server)
    }
}

impl Incident for SlowAccept {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let Recipe { workers, busy_ms, burst, every_ms, connections } = self.recipe;
        format!(
            "tt-proxy listens on {} with listen({BACKLOG}); each of its workers ({workers}) takes {busy_ms} ms for a \
             connection.\ntt-client opens {connections} connections, {burst} every {every_ms} ms.",
            self.options.family.any(PORT),
        )
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older {
            self.server = Some(self.open_for_business()?);
        }
        Ok(())
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let (recipe, stage, family) = (self.recipe, &self.stage, self.options.family);
        let before = stage.counters()?;
        let server = match self.server.take() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let server = self.server.insert(server);
        let client = self.client.insert(stage.start_client("tt-client")?);

        let Recipe { burst, every_ms, connections, .. } = recipe;
        let to = family.call(stage, PORT);
        client.ask::<usize>(&Order::Load(Load { to, burst, every_ms, for_ms: 0, at_least: connections }))?;
        stage.await_that("everybody has been accepted", || {
            Ok(server.ask::<usize>(&Order::Accepted)? >= connections)
        })?;
        let entered: Vec<Stamp> = client.ask(&Order::Connections)?;
        let accepted: Vec<Stamp> = server.ask(&Order::Acceptances)?;
        let counters = counters::growth(&before, &stage.settled_counters()?);
        let waits = Waits::between(&entered, &accepted);
        if waits.0.len() != connections || grown(&counters, "ListenDrops")? > 0 {
            return Err(Error::NotStaged(format!(
                "of {connections} connections {} were accepted; {counters:?}",
                waits.0.len()
            )));
        }
        if waits.quantile(99) < Duration::from_secs(1) {
            return Err(Error::NotStaged("the queue was too short".into()));
        }
        let subject = Party::of(server.identity(), "listener", family.any(PORT));
        let ms = |wait: Duration| (wait.as_secs_f64() * 1e6).round() / 1e3;
        Ok(GroundTruth {
            actors: vec![server.identity().clone(), client.identity().clone()],
            expect: vec![Expectation::about(ENTRY.name, "accept-slow", subject)],
            facts: facts(json!({
                "backlog": BACKLOG,
                "queue_limit": BACKLOG,
                "workers": recipe.workers,
                "accepted": connections,
                "wait_p50_ms": ms(waits.quantile(50)),
                "wait_p90_ms": ms(waits.quantile(90)),
                "wait_p99_ms": ms(waits.quantile(99)),
                "wait_max_ms": ms(waits.quantile(100)),
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}

/// How long each connection waited, shortest first.
struct Waits(Vec<Duration>);

impl Waits {
    fn between(entered: &[Stamp], accepted: &[Stamp]) -> Self {
        let entered: HashMap<u16, u64> = entered.iter().map(|stamp| (stamp.port, stamp.nanos)).collect();
        let wait = |stamp: &Stamp| {
            // A worker that waits for connections may have one before connect() has returned.
            let since = entered.get(&stamp.port)?;
            Some(Duration::from_nanos(stamp.nanos.saturating_sub(*since)))
        };
        let mut waits: Vec<Duration> = accepted.iter().filter_map(wait).collect();
        waits.sort_unstable();
        Self(waits)
    }

    /// The smallest wait that is not exceeded by this share of all.
    fn quantile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_nearest_ranks() {
        let waits = Waits((1..=150).map(Duration::from_millis).collect());
        let ranks = [50, 99, 100].map(|percent| waits.quantile(percent).as_millis());
        assert_eq!(ranks, [75, 149, 150]);
        assert_eq!(Waits(Vec::new()).quantile(50), Duration::ZERO);
    }

    #[test]
    fn ends_are_joined_by_port() {
        let entered =
            [Stamp { port: 5, nanos: 100 }, Stamp { port: 6, nanos: 200 }, Stamp { port: 7, nanos: 9 }];
        let accepted =
            [Stamp { port: 6, nanos: 260 }, Stamp { port: 5, nanos: 90 }, Stamp { port: 8, nanos: 1 }];
        let waits = Waits::between(&entered, &accepted);
        assert_eq!(waits.0, [Duration::ZERO, Duration::from_nanos(60)]);
    }
}
