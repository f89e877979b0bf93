//! `accept-failed`: accept() itself fails. Clients are connected, for the kernel has done that, and are not served.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::finding::Confidence;
use crate::rehearse::actor::{Accepting, Actor, Door, Load, Order};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "accept-failed",
    aliases: &[],
    summary: "accept() fails: the server has no descriptor left",
    variants: &[
        Variant { name: "emfile", summary: "the server tries again and again; connections wait" },
        Variant {
            name: "reserve-descriptor",
            summary: "the server accepts with a descriptor that it keeps in reserve, and closes at once (libuv)",
        },
        Variant {
            name: "eagain",
            summary: "no finding: accept() says again and again that there is nothing to accept",
        },
    ],
    make: |variant, options| Ok(Box::new(AcceptFailed::new(variant, options)?)),
};

const PORT: u16 = 1080;
const BACKLOG: i32 = 511;
/// Connections beyond those that the server can take, and their pace.
const MORE: usize = 25;
const EVERY_MS: u64 = 40;
/// How long the play goes on after the last of them.
const PATIENCE: Duration = Duration::from_secs(4);
/// Descriptors that the server may have for connections.
const SPARE: u64 = 8;

/// What it does about its failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Emfile,
    Reserve,
    Eagain,
}

struct AcceptFailed {
    variant: &'static Variant,
    kind: Kind,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    client: Option<Actor>,
    /// The server's limit of descriptors; 0 if it was not lowered.
    limit: u64,
    stage: Stage,
}

impl AcceptFailed {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        let kind = match variant.name {
            "reserve-descriptor" => Kind::Reserve,
            "eagain" => Kind::Eagain,
            _ => Kind::Emfile,
        };
        Ok(Self { variant, kind, options, server: None, client: None, limit: 0, stage })
    }

    fn open_for_business(&mut self) -> Result<Actor> {
        let mut server = open(&self.stage, "tt-proxy", Door::at(self.options.family.any(PORT), BACKLOG))?;
        self.limit = server.ask(&match self.kind {
            Kind::Emfile => Order::Hoard { spare: SPARE },
            Kind::Reserve => Order::AcceptAs { manner: Accepting::Reserve { spare: SPARE } },
            Kind::Eagain => Order::AcceptAs { manner: Accepting::Impatient },
        })?;
        Ok(server)
    }
}

impl Incident for AcceptFailed {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let server = match self.kind {
            Kind::Emfile => format!("it keeps {SPARE} connections and may not have more descriptors"),
            Kind::Reserve => {
                format!("it keeps {SPARE} connections, and closes all others as soon as it has accepted them")
            }
            Kind::Eagain => "it calls accept() a hundred times a second".to_owned(),
        };
        format!(
            "tt-proxy listens on {} with listen({BACKLOG}); {server}.\ntt-client opens {MORE} connections more.",
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
        let before = self.stage.counters()?;
        let server = match self.server.take() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let (kind, stage, family) = (self.kind, &self.stage, self.options.family);
        let to = family.call(stage, PORT);
        let server = self.server.insert(server);
        let client = self.client.insert(stage.start_client("tt-client")?);
        let spare = usize::try_from(SPARE).unwrap_or_default();
        let begin = Instant::now();
        let load = Load { to, burst: 1, every_ms: EVERY_MS, for_ms: 0, at_least: spare + MORE };
        client.ask::<usize>(&Order::Load(load))?;
        stage.cancel().sleep(PATIENCE)?;
        let seconds = begin.elapsed();
        let waiting = stage.accept_queue(PORT)?.and_then(|waiting| usize::try_from(waiting).ok());
        let accepted: usize = server.ask(&Order::Accepted)?;
        let refused: u64 = server.ask(&Order::Refused)?;
        let counters = counters::growth(&before, &stage.settled_counters()?);
        let (wait, accept) = match kind {
            Kind::Emfile => (MORE, spare),
            Kind::Reserve | Kind::Eagain => (0, spare + MORE),
        };
        if waiting != Some(wait)
            || accepted != accept
            || refused < u64::try_from(MORE).unwrap_or_default()
            || grown(&counters, "ListenOverflows")? > 0
        {
            return Err(Error::NotStaged(format!(
                "{waiting:?} connections wait, {accepted} were accepted, accept() was refused {refused} times"
            )));
        }
        let subject = Party::of(server.identity(), "listener", family.any(PORT));
        let expected = Expectation::about(ENTRY.name, "fd-limit", subject).at_least(Confidence::Certain);
        Ok(GroundTruth {
            actors: vec![server.identity().clone(), client.identity().clone()],
            expect: if kind == Kind::Eagain {
                Vec::new()
            } else {
                vec![Expectation { needs: Some("accept-failed"), ..expected }]
            },
            facts: facts(json!({
                "backlog": BACKLOG,
                "queue_limit": BACKLOG,
                "waiting": waiting,
                "accepted": accepted,
                "refused": refused,
                "fd_limit": self.limit,
                "seconds": (seconds.as_secs_f64() * 10.0).round() / 10.0,
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}
