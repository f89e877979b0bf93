//! `backlog-truncated`: a server asks for a long queue and is given a short one, without a word. Nothing is dropped yet.

use serde_json::json;

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, Door, Habit, Order, Visit, Visits};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "backlog-truncated",
    aliases: &[],
    summary: "a listen() argument is cut by somaxconn, without a word",
    variants: &[
        Variant { name: "basic", summary: "listen(4096) under somaxconn 128; clients are served well" },
        Variant {
            name: "negative",
            summary: "listen(-1), which means all that somaxconn allows: no finding",
        },
    ],
    make: |variant, options| Ok(Box::new(BacklogTruncated::new(variant, options)?)),
};

const PORT: u16 = 8080;
const SOMAXCONN: i32 = 128;

struct BacklogTruncated {
    variant: &'static Variant,
    backlog: i32,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    client: Option<Actor>,
    stage: Stage,
}

impl BacklogTruncated {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.core.somaxconn", SOMAXCONN)?;
        let backlog = if variant.name == "negative" { -1 } else { 4096 };
        Ok(Self { variant, backlog, options, server: None, client: None, stage })
    }

    fn open_for_business(&self) -> Result<Actor> {
        let mut server = open(&self.stage, "tt-web", Door::at(self.options.family.any(PORT), self.backlog))?;
        server.ask::<()>(&Order::Serve { workers: 2 })?;
        Ok(server)
    }
}

impl Incident for BacklogTruncated {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        format!(
            "tt-web listens on {} with listen({}) under somaxconn {SOMAXCONN}, and serves its clients well.",
            self.options.family.any(PORT),
            self.backlog,
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
        let (stage, family) = (&self.stage, self.options.family);
        let before = stage.counters()?;
        let server = match self.server.take() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let server = self.server.insert(server);
        let client = self.client.insert(stage.start_client("tt-client")?);
        let to = family.call(stage, PORT);
        let visits: Visits = client.ask(&Order::Visit(Visit {
            to,
            clients: 3,
            every_ms: 30,
            for_ms: 2000,
            habit: Habit::Mixed,
        }))?;
        let counters = counters::growth(&before, &stage.settled_counters()?);
        if !visits.errors.is_empty() || grown(&counters, "ListenDrops")? > 0 {
            return Err(Error::NotStaged(format!("clients were turned away: {:?}", visits.errors)));
        }
        let truncated = Expectation::about(
            ENTRY.name,
            "somaxconn",
            Party::of(server.identity(), "listener", family.any(PORT)),
        );
        let unseen = Allowed {
            code: ENTRY.name,
            because: "the queue limit is somaxconn; what listen() was told, nobody saw",
        };
        // Nobody can tell afterwards what the argument was.
        let (expect, allow) = match (self.variant.name, self.options.older) {
            ("negative", _) => (Vec::new(), Vec::new()),
            (_, true) => (Vec::new(), vec![unseen]),
            (_, false) => (vec![truncated], Vec::new()),
        };
        Ok(GroundTruth {
            actors: vec![server.identity().clone(), client.identity().clone()],
            expect,
            allow,
            facts: facts(json!({
                "backlog": self.backlog,
                "queue_limit": SOMAXCONN,
                "somaxconn": SOMAXCONN,
                "connections": visits.connections,
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}
