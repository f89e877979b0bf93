//! `storm`: tens of thousands of SYNs at a full accept queue, each from an address of its own, as fast as they go.
//!
//! Not one of them is lost on the way, so that the kernel's counters, and whoever counts beside it, must say their number.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, Door, Order, Storm};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "storm",
    aliases: &[],
    summary: "a storm of SYNs at a full accept queue, every one of them dropped",
    variants: &[
        Variant { name: "basic", summary: "100,000 SYNs" },
        Variant { name: "small", summary: "5,000 SYNs" },
    ],
    make: |variant, options| Ok(Box::new(SynStorm::new(variant, options)?)),
};

const PORT: u16 = 1080;
const BACKLOG: u32 = 16;
/// How long the queue is full before the storm.
const CALM: Duration = Duration::from_secs(2);
/// SYNs between two looks at whether the play is cancelled.
const SQUALL: u64 = 5000;

struct SynStorm {
    variant: &'static Variant,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    clients: Vec<Actor>,
    stage: Stage,
}

/// After so long without an accept nobody doubts that the server is stalled.
const STALLED: Duration = Duration::from_secs(4);

impl SynStorm {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Pair)?;
        stage.set_sysctl("net.core.somaxconn", 128)?;
        Ok(Self { variant, options, server: None, clients: Vec::new(), stage })
    }

    fn open_for_business(&self) -> Result<Actor> {
        open(&self.stage, "tt-proxy", Door::at(self.options.family.any(PORT), BACKLOG.cast_signed()))
    }

    fn syns(&self) -> u64 {
        if self.variant.name == "small" { 5000 } else { 100_000 }
    }
}

impl Incident for SynStorm {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        format!(
            "tt-proxy listens on {} with listen({BACKLOG}) and never accepts; tt-client has filled its queue.\n\
             tt-storm sends {} SYNs from as many addresses.",
            self.options.family.any(PORT),
            self.syns(),
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
        let (stage, family, syns) = (&self.stage, self.options.family, self.syns());
        let before = stage.counters()?;
        let server = match self.server.take() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let server = self.server.insert(server);
        self.clients = vec![stage.start_client("tt-client")?, stage.start_client("tt-storm")?];
        let [client, storm] = self.clients.as_mut_slice() else {
            return Err(Error::NotStaged("there are two clients".into()));
        };

        let to = family.call(stage, PORT);
        // A queue holds one more than its limit.
        let waiting = BACKLOG + 1;
        client.ask::<Value>(&Order::Connect { to, count: usize::try_from(waiting).unwrap_or_default() })?;
        stage.await_that("the accept queue is full", || Ok(stage.accept_queue(PORT)? == Some(waiting)))?;
        // That nobody accepts must be plain before the storm, which may be over within a second.
        stage.cancel().sleep(CALM)?;
        let begin = Instant::now();
        let mut sent = 0;
        while sent < syns {
            let order = Storm {
                to,
                first: sent,
                syns: SQUALL.min(syns - sent),
                server: server.identity().pid,
                counter: "ListenDrops".into(),
            };
            sent += storm.ask::<u64>(&Order::Storm(order))?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        // A fast host is done in a second, which is too short to call a server stalled.
        stage.cancel().sleep(STALLED.saturating_sub(begin.elapsed()))?;
        let counters = counters::growth(&before, &stage.settled_counters()?);
        if grown(&counters, "ListenOverflows")? != sent || grown(&counters, "ListenDrops")? != sent {
            return Err(Error::NotStaged(format!("{sent} SYNs were sent; {counters:?}")));
        }
        let stall = Allowed { code: "accept-stall", because: "nothing is accepted while connections wait" };
        let subject = Party::of(server.identity(), "listener", family.any(PORT));
        Ok(GroundTruth {
            actors: [&*server, client, storm].map(|actor| actor.identity().clone()).to_vec(),
            expect: vec![Expectation::about("accept-queue-overflow", "accept-stalled", subject)],
            allow: vec![stall],
            facts: facts(json!({
                "backlog": BACKLOG,
                "queue_limit": BACKLOG,
                "syns_sent": sent,
                "syn_drops": sent,
                "ack_drops": 0,
                "seconds": (seconds * 100.0).round() / 100.0,
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}
