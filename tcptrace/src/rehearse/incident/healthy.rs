//! `healthy`: a small web server under its capacity and clients of every ordinary kind. Nothing may be reported.

use serde_json::json;

use super::{Entry, Incident, Options, Variant};
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Habit, Order, Visit, Visits};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::GroundTruth;

pub(super) const ENTRY: Entry = Entry {
    name: "healthy",
    summary: "a web server under its capacity: nothing to report",
    variants: &[Variant {
        name: "basic",
        summary: "short and keep-alive connections, FIN and RST, EAGAIN, one restart with SO_REUSEADDR",
    }],
    make: |variant, options| Ok(Box::new(Healthy::new(variant, options)?)),
};

const PORT: u16 = 8080;
const BACKLOG: i32 = 511;
const WORKERS: usize = 3;
const CLIENTS: usize = 6;
/// The play has two halves, before and after the restart.
const HALF_MS: u64 = 2500;
const EVERY_MS: u64 = 18;

struct Healthy {
    variant: &'static Variant,
    options: Options,
    actors: Vec<Actor>,
    stage: Stage,
}

impl Healthy {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        Ok(Self { variant, options, actors: Vec::new(), stage })
    }

    fn open_for_business(&self) -> Result<Actor> {
        let mut server = self.stage.start_server("tt-web")?;
        let order = Bind {
            address: self.options.family.any(PORT),
            reuseaddr: true,
            v6only: false,
            backlog: Some(BACKLOG),
            attempts: 1,
            gap_ms: 0,
            then_kill: None,
        };
        let attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        if let Some(errno) = attempts.last().and_then(|attempt| attempt.errno) {
            return Err(Error::NotStaged(format!("the server cannot listen (errno {errno})")));
        }
        server.ask::<()>(&Order::Serve { workers: WORKERS })?;
        Ok(server)
    }

    /// Ends a server in good order: nobody waits in its queue, so nobody is reset.
    fn close(&self, mut server: Actor) -> Result<()> {
        let stage = &self.stage;
        stage.await_that("everybody has been accepted", || Ok(stage.accept_queue(PORT)? == Some(0)))?;
        server.ask::<()>(&Order::Close)
    }
}

impl Incident for Healthy {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        format!(
            "tt-web listens on {} with listen({BACKLOG}) and {WORKERS} event loops; it is restarted once.\n\
             {CLIENTS} clients in tt-client open some hundred connections a second, close them in every way, and keep others.",
            self.options.family.any(PORT),
        )
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older {
            self.actors.push(self.open_for_business()?);
        }
        Ok(())
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        let first = match self.actors.pop() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let mut client = self.stage.start_client("tt-client")?;
        let visit = Order::Visit(Visit {
            to: self.options.family.call(&self.stage, PORT),
            clients: CLIENTS,
            every_ms: EVERY_MS,
            for_ms: HALF_MS,
            habit: Habit::Mixed,
        });
        let before_restart: Visits = client.ask(&visit)?;
        let mut actors = vec![first.identity().clone()];
        self.close(first)?;
        let second = self.open_for_business()?;
        let after_restart: Visits = client.ask(&visit)?;
        let after = self.stage.settled_counters()?;

        let halves = [before_restart, after_restart];
        if let Some(error) = halves.iter().flat_map(|half| &half.errors).next() {
            return Err(Error::NotStaged(format!("a visitor was turned away: {error}")));
        }
        actors.extend([second.identity().clone(), client.identity().clone()]);
        self.actors.extend([second, client]);
        let counters = counters::growth(&before, &after);
        if ["ListenOverflows", "ListenDrops"]
            .iter()
            .any(|&name| counters.get(name).is_some_and(|&drops| drops > 0))
        {
            return Err(Error::NotStaged("the healthy server has dropped connections".into()));
        }
        let facts = json!({
            "connections": halves.iter().map(|half| half.connections).sum::<u64>(),
            "keep_alive_requests": halves.iter().map(|half| half.keep_alive_requests).sum::<u64>(),
            "restarts": 1,
        });
        Ok(GroundTruth {
            kind: "rehearsal",
            name: self.name(),
            variant: self.variant.name,
            netns: self.stage.netns_inode(),
            actors,
            expect: Vec::new(),
            allow: Vec::new(),
            forbid: "any other finding",
            counters,
            facts: facts.as_object().cloned().unwrap_or_default(),
        })
    }
}
