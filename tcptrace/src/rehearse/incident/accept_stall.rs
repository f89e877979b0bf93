//! `accept-stall`: connections wait and nobody accepts them, long before the queue is full.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Accepting, Actor, Door, Identity, Load, Order, Passage};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "accept-stall",
    aliases: &[],
    summary: "connections wait and nobody accepts them; the queue is far from full",
    variants: &[
        Variant { name: "not-accepting", summary: "the server never calls accept()" },
        Variant { name: "busy", summary: "the server's one worker is busy with its first connection" },
        Variant {
            name: "stopped",
            summary: "the server is stopped (SIGSTOP) after it has served for a while",
        },
        Variant {
            name: "workers",
            summary: "both processes that accept are busy with their first connections; their parent never accepts",
        },
        Variant {
            name: "not-interested",
            summary: "an event loop that has as many connections as it wants takes the listener out",
        },
        Variant {
            name: "gave-up",
            summary: "accept() fails once with EMFILE, and the server never calls it again; its descriptors are free by then",
        },
        Variant {
            name: "acceptor-exited",
            summary: "the service that accepted has exited; its parent, which never accepts, keeps the socket",
        },
        Variant {
            name: "inherited",
            summary: "the process that opened the socket has left it to another one and exited; that one does not accept",
        },
        Variant {
            name: "fetched",
            summary: "as inherited, but the other process has fetched the socket (pidfd_getfd) and is no child",
        },
        Variant {
            name: "worker-stopped",
            summary: "as workers, with three; one of them is stopped (SIGSTOP), the others are busy",
        },
        Variant {
            name: "smc",
            summary: "no finding: an SMC server does not accept, but its TCP listener is the kernel's, which takes them all from it",
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
/// Connections that it wants, where that is its own choice.
const CUSTOMERS: usize = 10;
/// Processes that accept, where there are several.
const WORKERS: usize = 2;

/// Why nobody accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NotAccepting,
    Busy,
    Workers,
    Stopped,
    NotInterested,
    GaveUp,
    AcceptorExited,
    Inherited,
    Fetched,
    WorkerStopped,
    Smc,
}

impl Kind {
    fn of(variant: &Variant) -> Self {
        match variant.name {
            "busy" => Self::Busy,
            "workers" => Self::Workers,
            "stopped" => Self::Stopped,
            "not-interested" => Self::NotInterested,
            "gave-up" => Self::GaveUp,
            "acceptor-exited" => Self::AcceptorExited,
            "inherited" => Self::Inherited,
            "fetched" => Self::Fetched,
            "worker-stopped" => Self::WorkerStopped,
            "smc" => Self::Smc,
            _ => Self::NotAccepting,
        }
    }

    fn cause(self) -> &'static str {
        match self {
            Self::NotAccepting | Self::Inherited | Self::Fetched | Self::Smc => "not-accepting",
            Self::Busy | Self::Workers | Self::WorkerStopped => "busy",
            Self::Stopped => "process-stopped",
            Self::NotInterested => "not-interested",
            Self::GaveUp => "gave-up",
            Self::AcceptorExited => "acceptor-exited",
        }
    }

    /// Connections that are accepted before the stall.
    fn served(self) -> usize {
        match self {
            Self::NotAccepting | Self::Inherited | Self::Fetched | Self::Smc => 0,
            Self::Busy => 1,
            Self::Workers => WORKERS,
            Self::WorkerStopped => WORKERS + 1,
            Self::Stopped => 15,
            Self::NotInterested | Self::AcceptorExited => CUSTOMERS,
            Self::GaveUp => usize::try_from(SPARE).unwrap_or_default(),
        }
    }

    /// Whether the server itself keeps the books of what it accepts.
    fn keeps_books(self) -> bool {
        matches!(self, Self::NotAccepting | Self::Busy | Self::NotInterested | Self::GaveUp)
    }
}

struct AcceptStall {
    variant: &'static Variant,
    kind: Kind,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    client: Option<Actor>,
    /// The processes that accept in its place.
    hired: Vec<Identity>,
    /// The server's limit of descriptors, if it was lowered.
    limit: Option<u64>,
    stage: Stage,
}

impl AcceptStall {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        Ok(Self {
            variant,
            kind: Kind::of(variant),
            options,
            server: None,
            client: None,
            hired: Vec::new(),
            limit: None,
            stage,
        })
    }

    fn open_for_business(&mut self) -> Result<Actor> {
        let door = Door { smc: self.kind == Kind::Smc, ..Door::at(self.options.family.any(PORT), BACKLOG) };
        let mut server = open(&self.stage, "tt-proxy", door).map_err(|error| match self.kind {
            Kind::Smc => Error::NotSupported(format!("this kernel has no SMC (module smc): {error}")),
            _ => error,
        })?;
        match self.kind {
            // An inherited listener is left to another process when that one is known.
            Kind::NotAccepting | Kind::Inherited | Kind::Fetched | Kind::Smc => {}
            // Longer than any play.
            Kind::Busy => server.ask::<()>(&Order::Accept { workers: 1, every_ms: 600_000 })?,
            Kind::Stopped => server.ask::<()>(&Order::Accept { workers: 1, every_ms: 10 })?,
            Kind::Workers => self.hired = server.hire("tt-worker", WORKERS, 600_000, 0)?,
            Kind::WorkerStopped => self.hired = server.hire("tt-worker", WORKERS + 1, 600_000, 0)?,
            Kind::AcceptorExited => self.hired = server.hire("tt-service", 1, 10, CUSTOMERS)?,
            Kind::NotInterested => {
                let manner = Accepting::Limited { customers: CUSTOMERS };
                server.ask::<u64>(&Order::AcceptAs { manner })?;
            }
            Kind::GaveUp => {
                let manner = Accepting::GivesUp { spare: SPARE };
                self.limit = Some(server.ask(&Order::AcceptAs { manner })?);
            }
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
            Kind::Workers => {
                format!("its {WORKERS} worker processes are busy with their first connections for good")
            }
            Kind::NotInterested => format!("it wants {CUSTOMERS} connections, and no more"),
            Kind::GaveUp => {
                format!("after {SPARE} connections accept() fails with EMFILE, and it never accepts again")
            }
            Kind::AcceptorExited => format!("its service accepts {CUSTOMERS} connections and exits"),
            Kind::WorkerStopped => {
                format!("of its {} worker processes one is stopped, and the others are busy", WORKERS + 1)
            }
            Kind::Smc => "it is an SMC server that never accepts".to_owned(),
            Kind::Fetched => "tt-heir fetches the socket, and never accepts; tt-proxy exits".to_owned(),
            Kind::Inherited => "it leaves the socket to tt-heir, which never accepts".to_owned(),
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
        if kind == Kind::Inherited {
            server.bequeath("tt-heir")?;
        }
        if kind == Kind::Fetched {
            let mut heir = stage.start_server("tt-heir")?;
            server.hand_over(&mut heir, Passage::Fetched)?;
            *server = heir;
        }
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
        // Not the one that is named, which is the one with the lowest pid.
        if kind == Kind::WorkerStopped
            && let Some(worker) = self.hired.iter().max_by_key(|worker| worker.pid)
        {
            server.stop_hired(worker)?;
        }
        if kind == Kind::GaveUp {
            // One more, for which there is no descriptor.
            client.ask::<usize>(&Order::Load(Load { to, burst: 1, every_ms: 20, for_ms: 0, at_least: 1 }))?;
            stage.await_that("accept() has failed", || Ok(server.ask::<u64>(&Order::Refused)? > 0))?;
        }
        if kind == Kind::AcceptorExited {
            let pid = self.hired.first().map_or(0, |service| service.pid);
            stage
                .await_that("the service has exited", || Ok(!Path::new(&format!("/proc/{pid}")).exists()))?;
        }
        let begin = Instant::now();
        let rest = Load { to, burst: 1, every_ms: EVERY_MS, for_ms: 0, at_least: WAITING };
        client.ask::<usize>(&Order::Load(rest))?;
        stage.cancel().sleep(PATIENCE)?;
        let longest_wait = begin.elapsed();
        let waiting = stage.accept_queue(PORT)?;
        let counters = counters::growth(&before, &stage.settled_counters()?);

        let accepted = if kind.keeps_books() { Some(server.ask::<usize>(&Order::Accepted)?) } else { None };
        let all = match kind {
            Kind::Smc => 0,
            Kind::GaveUp => WAITING + 1,
            _ => WAITING,
        };
        if waiting.and_then(|waiting| usize::try_from(waiting).ok()) != Some(all)
            || accepted.is_some_and(|accepted| accepted != kind.served())
            || grown(&counters, "ListenOverflows")? > 0
        {
            return Err(Error::NotStaged(format!(
                "{waiting:?} connections wait, {accepted:?} were accepted"
            )));
        }
        let mut actors = vec![server.identity().clone(), client.identity().clone()];
        actors.extend(self.hired.iter().cloned());
        // Of several that accept, the one with the lowest pid is named.
        let named = self.hired.iter().min_by_key(|worker| worker.pid).unwrap_or(server.identity());
        let subject = Party::of(named, "listener", family.any(PORT));
        let expected = Expectation::about(ENTRY.name, kind.cause(), subject);
        // A thread of the kernel has accepted them all, and they wait where TCP knows nothing of them.
        let (expect, backlog) =
            if kind == Kind::Smc { (Vec::new(), None) } else { (vec![expected], Some(BACKLOG)) };
        // The one failure that made it give up is true, and a finding of its own.
        let failed = Allowed { code: "accept-failed", because: "accept() did fail, once" };
        let allow = if kind == Kind::GaveUp { vec![failed] } else { Vec::new() };
        Ok(GroundTruth {
            actors,
            allow,
            expect,
            facts: facts(json!({
                "backlog": backlog,
                "queue_limit": backlog,
                "waiting": waiting,
                "longest_wait_s": (longest_wait.as_secs_f64() * 10.0).round() / 10.0,
                "accepted": kind.served(),
                "fd_limit": self.limit,
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}
