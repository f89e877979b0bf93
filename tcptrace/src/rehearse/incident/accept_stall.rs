//! `accept-stall`: connections wait and nobody accepts them, long before the queue is full.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, Door, Load, Order};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "accept-stall",
    summary: "connections wait and nobody accepts them; the queue is far from full",
    variants: &[
        Variant { name: "not-accepting", summary: "the server never calls accept()" },
        Variant { name: "busy", summary: "the server's one worker is busy with its first connection" },
        Variant {
            name: "stopped",
            summary: "the server is stopped (SIGSTOP) after it has served for a while",
        },
        Variant {
            name: "fd-limit",
            summary: "the server has no descriptor left: accept() fails with EMFILE",
        },
    ],
    make: |variant, options| Ok(Box::new(AcceptStall::new(variant, options)?)),
};

const PORT: u16 = 1080;
const BACKLOG: i32 = 511;
/// Connections that come when nothing is accepted any more, and their pace.
const WAITING: usize = 25;
const EVERY_MS: u64 = 40;
/// How long the last of them waits.
const PATIENCE: Duration = Duration::from_secs(4);
/// Descriptors that the server may have for connections.
const SPARE: u64 = 8;

/// Why nobody accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NotAccepting,
    Busy,
    Stopped,
    FdLimit,
}

impl Kind {
    fn of(variant: &Variant) -> Self {
        match variant.name {
            "busy" => Self::Busy,
            "stopped" => Self::Stopped,
            "fd-limit" => Self::FdLimit,
            _ => Self::NotAccepting,
        }
    }

    fn cause(self) -> &'static str {
        match self {
            Self::NotAccepting | Self::Busy => "not-accepting",
            Self::Stopped => "process-stopped",
            Self::FdLimit => "fd-limit",
        }
    }

    /// Connections that are accepted before the stall.
    fn served(self) -> usize {
        match self {
            Self::NotAccepting => 0,
            Self::Busy => 1,
            Self::Stopped => 15,
            Self::FdLimit => usize::try_from(SPARE).unwrap_or_default(),
        }
    }
}

struct AcceptStall {
    variant: &'static Variant,
    kind: Kind,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    client: Option<Actor>,
    /// The server's limit of descriptors, if it was lowered.
    limit: Option<u64>,
    stage: Stage,
}

impl AcceptStall {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        Ok(Self { variant, kind: Kind::of(variant), options, server: None, client: None, limit: None, stage })
    }

    fn open_for_business(&mut self) -> Result<Actor> {
        let mut server = open(&self.stage, "tt-proxy", Door::at(self.options.family.any(PORT), BACKLOG))?;
        match self.kind {
            Kind::NotAccepting => {}
            // Longer than any play.
            Kind::Busy => server.ask::<()>(&Order::Accept { workers: 1, every_ms: 600_000 })?,
            Kind::Stopped => server.ask::<()>(&Order::Accept { workers: 1, every_ms: 10 })?,
            Kind::FdLimit => self.limit = Some(server.ask(&Order::Hoard { spare: SPARE })?),
        }
        Ok(server)
    }
}

impl Incident for AcceptStall {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let server = match self.kind {
            Kind::NotAccepting => "it never accepts".to_owned(),
            Kind::Busy => "its one worker is busy with the first connection for good".to_owned(),
            Kind::Stopped => "it is stopped when it has served some clients".to_owned(),
            Kind::FdLimit => format!("it keeps {SPARE} connections and may not have more descriptors"),
        };
        format!(
            "tt-proxy listens on {} with listen({BACKLOG}); {server}.\n\
             tt-client opens {WAITING} connections that wait for at least {} s.",
            self.options.family.any(PORT),
            PATIENCE.as_secs(),
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
        let before = self.stage.counters()?;
        let server = match self.server.take() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let (kind, stage, family) = (self.kind, &self.stage, self.options.family);
        let to = family.call(stage, PORT);
        let server = self.server.insert(server);
        let client = self.client.insert(stage.start_client("tt-client")?);

        if kind.served() > 0 {
            let first = Load { to, burst: 1, every_ms: 20, for_ms: 0, at_least: kind.served() };
            client.ask::<usize>(&Order::Load(first))?;
            stage.await_that("the server has taken its first clients", || {
                Ok(stage.accept_queue(PORT)? == Some(0))
            })?;
        }
        if kind == Kind::Stopped {
            server.stop()?;
        }
        let begin = Instant::now();
        let rest = Load { to, burst: 1, every_ms: EVERY_MS, for_ms: 0, at_least: WAITING };
        client.ask::<usize>(&Order::Load(rest))?;
        stage.cancel().sleep(PATIENCE)?;
        let longest_wait = begin.elapsed();
        let waiting = stage.accept_queue(PORT)?;
        let counters = counters::growth(&before, &stage.settled_counters()?);

        let (accepted, refused) = match kind {
            Kind::Stopped => (None, None),
            Kind::FdLimit => (Some(server.ask(&Order::Accepted)?), Some(server.ask::<u64>(&Order::Refused)?)),
            Kind::NotAccepting | Kind::Busy => (Some(server.ask::<usize>(&Order::Accepted)?), None),
        };
        if waiting.and_then(|waiting| usize::try_from(waiting).ok()) != Some(WAITING)
            || accepted.is_some_and(|accepted| accepted != kind.served())
            || refused == Some(0)
            || grown(&counters, "ListenOverflows")? > 0
        {
            return Err(Error::NotStaged(format!(
                "{waiting:?} connections wait, {accepted:?} were accepted, accept() was refused {refused:?} times"
            )));
        }
        let subject = Party::of(server.identity(), "listener", family.any(PORT));
        Ok(GroundTruth {
            actors: vec![server.identity().clone(), client.identity().clone()],
            expect: vec![Expectation::about(ENTRY.name, kind.cause(), subject)],
            facts: facts(json!({
                "backlog": BACKLOG,
                "queue_limit": BACKLOG,
                "waiting": waiting,
                "longest_wait_s": (longest_wait.as_secs_f64() * 10.0).round() / 10.0,
                "accepted": kind.served(),
                "fd_limit": self.limit,
                "emfile": refused,
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}
