//! `defer-accept`: a server with `TCP_DEFER_ACCEPT` and clients that connect and send nothing, as browsers and load balancers do.
//!
//! For the clients the handshake is complete. For the server it is not: the final ACK is put aside, and the request keeps its
//! place in the SYN queue until data comes or the option's time is over. A few such clients are how the option is meant to be
//! used; more of them than the backlog fill the SYN queue.

use std::time::Duration;

use serde_json::json;

use super::crowds::{PLACE, await_calm};
use super::{Entry, Family, Incident, Options, Variant, facts, open};
use crate::finding::Confidence;
use crate::rehearse::actor::{Actor, Crowd, CrowdTally, Door, Habit, Manner, Order, Visit, Visits};
use crate::rehearse::counters::{self, Counters, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "defer-accept",
    aliases: &[],
    summary: "TCP_DEFER_ACCEPT and clients that connect and send nothing",
    variants: &[
        Variant {
            name: "full",
            summary: "listen(32), 60 silent clients: they fill the SYN queue, cookies answer the rest",
        },
        Variant { name: "full-drop", summary: "as full, without cookies: SYNs are dropped" },
        Variant {
            name: "idle",
            summary: "24 silent clients under listen(64), others are served: nothing to report",
        },
        Variant {
            name: "distant",
            summary: "the same option, and no client is silent: distant ones fill the SYN queue",
        },
    ],
    make: |variant, options| Ok(Box::new(DeferAccept::new(variant, options)?)),
};

const PORT: u16 = 8081;
const WORKERS: usize = 2;
/// How long the option keeps a request that has no data, seconds.
const DEFER: i32 = 30;
/// Between two silent clients.
const EVERY_US: u64 = 30_000;
/// After this long the first requests' timers have run out twice, and the finding is open.
const LOOK_ON: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    FullDrop,
    Idle,
    Distant,
}

impl Kind {
    fn of(variant: &Variant) -> Self {
        match variant.name {
            "full-drop" => Self::FullDrop,
            "idle" => Self::Idle,
            "distant" => Self::Distant,
            _ => Self::Full,
        }
    }

    fn backlog(self) -> i32 {
        if self == Self::Idle { 64 } else { 32 }
    }

    /// Clients that connect and send nothing.
    fn silent(self) -> usize {
        match self {
            Self::Full | Self::FullDrop => 60,
            Self::Idle => 24,
            Self::Distant => 0,
        }
    }

    fn syncookies(self) -> u8 {
        u8::from(self != Self::FullDrop)
    }

    fn cause(self) -> Option<&'static str> {
        match self {
            Self::Full | Self::FullDrop => Some("deferred"),
            Self::Distant => Some("backlog-argument"),
            Self::Idle => None,
        }
    }
}

struct DeferAccept {
    variant: &'static Variant,
    kind: Kind,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    clients: Vec<Actor>,
    stage: Stage,
}

impl DeferAccept {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Pair)?;
        let kind = Kind::of(variant);
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        stage.set_sysctl("net.ipv4.tcp_max_syn_backlog", 1024)?;
        // Cookies on or off is what the variants are about: whatever the options say.
        stage.set_sysctl("net.ipv4.tcp_syncookies", kind.syncookies())?;
        Ok(Self { variant, kind, options, server: None, clients: Vec::new(), stage })
    }

    fn open_for_business(&self) -> Result<Actor> {
        let door = Door::at(self.options.family.any(PORT), self.kind.backlog());
        let mut server = open(&self.stage, "tt-web", door)?;
        server.ask::<()>(&Order::DeferAccept { seconds: DEFER })?;
        server.ask::<()>(&Order::Serve { workers: WORKERS })?;
        Ok(server)
    }

    /// The clients come, and what they do is done. Most half-open requests at one time.
    fn come(&mut self) -> Result<usize> {
        let (kind, stage, family) = (self.kind, &self.stage, self.options.family);
        let to = family.call(stage, PORT);
        self.clients = vec![stage.start_client("tt-client")?, stage.start_client("tt-crowd")?];
        let [client, crowd] = self.clients.as_mut_slice() else {
            return Err(Error::NotStaged("there are two clients".into()));
        };
        if kind == Kind::Distant {
            crowd.ask::<()>(&Order::Crowd(Crowd {
                to,
                clients: 300,
                place: PLACE,
                every_us: 10_000,
                again_ms: vec![1000, 3000],
                give_up_ms: 4000,
                rounds: 1,
                manner: Manner::Answer { synack: 1, after_ms: 600 },
            }))?;
            let most = await_calm(stage, crowd, PORT)?;
            let tally: CrowdTally = crowd.ask(&Order::Disperse)?;
            if tally.answered != 300 {
                return Err(Error::NotStaged(format!("not all distant clients were served: {tally:?}")));
            }
            return Ok(most);
        }
        if kind == Kind::Idle {
            let for_ms = u64::try_from(LOOK_ON.as_millis()).unwrap_or(u64::MAX);
            client.tell(&Order::Visit(Visit {
                to,
                clients: 2,
                every_ms: 100,
                for_ms,
                habit: Habit::Short,
            }))?;
        }
        crowd.ask::<()>(&Order::Crowd(Crowd {
            to,
            clients: kind.silent(),
            place: PLACE,
            every_us: EVERY_US,
            again_ms: vec![1000, 3000],
            give_up_ms: 10_000,
            rounds: 1,
            manner: Manner::Silent,
        }))?;
        stage.cancel().sleep(LOOK_ON)?;
        let most = stage.half_open(PORT)?;
        if kind == Kind::Idle {
            let visits: Visits = client.reply()?;
            if let Some(error) = visits.errors.first() {
                return Err(Error::NotStaged(format!("a visitor was turned away: {error}")));
            }
        }
        crowd.ask::<CrowdTally>(&Order::Disperse)?;
        Ok(most)
    }

    /// Whether the kernel counted what was meant to happen.
    fn happened(&self, counters: &Counters, half_open: usize) -> Result<bool> {
        let count = |name| grown(counters, name);
        let (deferred, limit) = (count("TCPDeferAcceptDrop")?, self.kind.backlog().unsigned_abs());
        let (drops, cookies) = (count("TCPReqQFullDrop")?, count("SyncookiesSent")?);
        let full = u32::try_from(half_open).is_ok_and(|half_open| half_open >= limit);
        Ok(count("ListenOverflows")? == 0
            && deferred > 0
            && match self.kind {
                Kind::Full => full && cookies > 0 && drops == 0,
                Kind::FullDrop => full && cookies == 0 && drops > 0,
                Kind::Idle => half_open == self.kind.silent() && cookies == 0 && count("ListenDrops")? == 0,
                Kind::Distant => cookies > 0 && drops == 0,
            })
    }
}

impl Incident for DeferAccept {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let crowd = match self.kind {
            Kind::Distant => {
                "300 distant clients connect within 3 s, each with 600 ms between SYN and ACK.".to_owned()
            }
            _ => format!("{} clients connect and send nothing.", self.kind.silent()),
        };
        format!(
            "tt-web listens on {} with listen({}) and TCP_DEFER_ACCEPT {DEFER}; tcp_syncookies is {}.\n{crowd}",
            self.options.family.any(PORT),
            self.kind.backlog(),
            self.kind.syncookies(),
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
        if self.server.is_none() {
            self.server = Some(self.open_for_business()?);
        }
        let half_open = self.come()?;
        let counters = counters::growth(&before, &self.stage.settled_counters()?);
        if !self.happened(&counters, half_open)? {
            return Err(Error::NotStaged(format!("{half_open} requests were half-open: {counters:?}")));
        }
        let Some(server) = &self.server else { return Err(Error::NotStaged("there is no server".into())) };
        let (kind, family) = (self.kind, self.options.family);
        let subject = Party::of(server.identity(), "listener", family.any(PORT));
        let expect = kind.cause().map(|cause| {
            let expected = Expectation::about("syn-queue-full", cause, subject);
            // That the requests in the queue are those that wait for data is concluded from their number.
            if cause == "deferred" { expected.at_most(Confidence::Likely) } else { expected }
        });
        let actors = self.clients.iter().map(|client| client.identity().clone());
        Ok(GroundTruth {
            actors: std::iter::once(server.identity().clone()).chain(actors).collect(),
            expect: expect.into_iter().collect(),
            facts: facts(json!({
                "backlog": kind.backlog(),
                "queue_limit": kind.backlog(),
                "somaxconn": 4096,
                "tcp_syncookies": kind.syncookies(),
                "silent_clients": kind.silent(),
                "half_open": half_open,
                "syn_drops": grown(&counters, "TCPReqQFullDrop")?,
                "deferred_acks": grown(&counters, "TCPDeferAcceptDrop")?,
                "ipv6": family == Family::V6,
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }
}
