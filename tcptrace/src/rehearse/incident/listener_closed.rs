//! `listener-closed`: a server closes its listening socket while connections wait in its queue; they are reset.

mod workers;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::finding::Confidence;
use crate::rehearse::actor::{Actor, Door, Load, Order};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};
use workers::Fate;

pub(super) const ENTRY: Entry = Entry {
    name: "listener-closed",
    aliases: &[],
    summary: "a listener closes with connections still queued: they are reset",
    variants: &[
        Variant { name: "process-exit", summary: "the server's process is ended (SIGTERM)" },
        Variant { name: "close", summary: "the server closes the socket and lives on" },
        Variant {
            name: "restart",
            summary: "its successor accepts at once; its connections come to lie in memory where lost ones had waited",
        },
        Variant {
            name: "io-uring",
            summary: "the server is ended, and its io_uring keeps the socket: a thread of the kernel closes it",
        },
        Variant {
            name: "worker-killed",
            summary: "one of four workers that share the port (SO_REUSEPORT) is killed under load, and replaced",
        },
        Variant {
            name: "worker-closed",
            summary: "a worker joins such a group under load, closes its listener again, and lives on",
        },
        Variant {
            name: "worker-migrated",
            summary: "no finding: as worker-killed, but the others take over its queue (tcp_migrate_req=1, since 5.14)",
        },
        Variant { name: "io-uring-close", summary: "the same thread closes it, for a server that lives on" },
    ],
    make: |variant, options| Ok(Box::new(ListenerClosed::new(variant, options)?)),
};

const PORT: u16 = 1080;
const BACKLOG: i32 = 64;
/// Connections in the queue in the end.
const QUEUED: usize = 12;
/// The same, where the server is restarted under load; how long they have waited by then, and how many the successor gets.
const QUEUED_AT_RESTART: usize = 60;
const WAITED: Duration = Duration::from_millis(1800);
const LATER: usize = 400;
/// Where another listener closes, with nobody in its queue: not worth a word.
const OTHER_PORT: u16 = 1081;

struct ListenerClosed {
    variant: &'static Variant,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    others: Vec<Actor>,
    stage: Stage,
}

impl ListenerClosed {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        if let Some(fate) = Fate::of(variant.name) {
            fate.set(&stage)?;
        }
        Ok(Self { variant, options, server: None, others: Vec::new(), stage })
    }

    fn open_for_business(&self) -> Result<Actor> {
        let mut server = open(&self.stage, "tt-server", Door::at(self.options.family.any(PORT), BACKLOG))?;
        if self.by_ring() {
            server.ask::<()>(&Order::Entrust).map_err(|error| {
                Error::NotSupported(format!("there is no io_uring, or it is switched off: {error}"))
            })?;
        }
        Ok(server)
    }

    /// Whether it is a thread of the kernel that closes it.
    fn by_ring(&self) -> bool {
        matches!(self.variant.name, "io-uring" | "io-uring-close")
    }

    /// Whether the server lives on.
    fn lives_on(&self) -> bool {
        matches!(self.variant.name, "close" | "restart" | "io-uring-close")
    }
}

impl Incident for ListenerClosed {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        if let Some(fate) = Fate::of(self.variant.name) {
            return workers::describe(self.options.family, fate);
        }
        let how = match self.variant.name {
            "close" | "restart" => "closes the socket",
            "io-uring-close" => "closes the socket and the io_uring that keeps it",
            "io-uring" => "is ended by SIGTERM, with an io_uring that keeps the socket,",
            _ => "is ended by SIGTERM",
        };
        format!(
            "tt-server listens on {} and {how} while {QUEUED} connections of tt-client wait to be accepted.\n\
             tt-other, on port {OTHER_PORT}, closes with an empty queue.",
            self.options.family.any(PORT),
        )
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older && Fate::of(self.variant.name).is_none() {
            self.server = Some(self.open_for_business()?);
        }
        Ok(())
    }

    fn play(&mut self) -> Result<GroundTruth> {
        if let Some(fate) = Fate::of(self.variant.name) {
            let (truth, actors) = workers::play(&self.stage, self.options.family, self.variant.name, fate)?;
            self.others = actors;
            return Ok(truth);
        }
        let (by_ring, lives_on) = (self.by_ring(), self.lives_on());
        let (stage, family) = (&self.stage, self.options.family);
        let before = stage.counters()?;
        let server = match self.server.take() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let server = self.server.insert(server);
        let mut other = open(stage, "tt-other", Door::at(family.any(OTHER_PORT), BACKLOG))?;
        let mut client = stage.start_client("tt-client")?;

        let begin = Instant::now();
        let to = family.call(stage, PORT);
        let restart = self.variant.name == "restart";
        let count = if restart { QUEUED_AT_RESTART } else { QUEUED };
        client.ask::<Value>(&Order::Connect { to, count })?;
        if restart {
            stage.cancel().sleep(WAITED)?;
        }
        let queued = stage.accept_queue(PORT)?;
        if lives_on {
            server.ask::<()>(&Order::Close)?;
        } else {
            server.signal(Signal::SIGTERM)?;
            server.await_end()?;
        }
        let waited = begin.elapsed();
        other.ask::<()>(&Order::Close)?;
        let mut successors = Vec::new();
        if restart {
            let mut successor = open(stage, "tt-next", Door::at(family.any(PORT), BACKLOG))?;
            successor.ask::<()>(&Order::Accept { workers: 4, every_ms: 0 })?;
            let mut later = stage.start_client("tt-later")?;
            let load = Load { to, burst: 10, every_ms: 20, for_ms: 0, at_least: LATER };
            later.ask::<usize>(&Order::Load(load))?;
            stage.await_that("the successor has accepted", || {
                Ok(successor.ask::<usize>(&Order::Accepted)? >= LATER)
            })?;
            // Accept waits are looked at every five seconds.
            stage.cancel().sleep(Duration::from_secs(5))?;
            successors = vec![successor, later];
        }
        // Long enough for a tracer to see that nothing more comes of it.
        stage.cancel().sleep(Duration::from_secs(1))?;
        let counters = counters::growth(&before, &stage.settled_counters()?);
        // Each side of each connection counts its own end.
        let resets = grown(&counters, "EstabResets")?;
        if queued.and_then(|queued| usize::try_from(queued).ok()) != Some(count)
            || (if restart {
                resets < 2 * count as u64
            } else {
                resets != 2 * count as u64 || stage.is_on(PORT)?
            })
        {
            return Err(Error::NotStaged(format!("{queued:?} connections were queued; {counters:?}")));
        }
        let subject = Party::of(server.identity(), "listener", family.any(PORT));
        let cause = if lives_on { "close" } else { "process-exit" };
        let expected = Expectation::about(ENTRY.name, cause, subject);
        // A thread of the kernel says nothing of how the process fares: whether it is gone tells, and is no proof.
        let expected = match (by_ring, lives_on) {
            (false, _) => expected,
            (true, false) => expected.at_most(Confidence::Likely),
            (true, true) => expected.at_most(Confidence::Possible),
        };
        let stall =
            Allowed { code: "accept-stall", because: "this machine took its time: they waited for long" };
        let actors = [&*server, &other, &client].into_iter().chain(&successors);
        let actors = actors.map(|actor| actor.identity().clone()).collect();
        self.others = vec![other, client];
        self.others.extend(successors);
        Ok(GroundTruth {
            actors,
            expect: vec![expected],
            allow: if waited > Duration::from_millis(500) + if restart { WAITED } else { Duration::ZERO } {
                vec![stall]
            } else {
                Vec::new()
            },
            facts: facts(
                json!({ "backlog": BACKLOG, "queue_limit": BACKLOG, "queued": count, "reset": count }),
            ),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}
