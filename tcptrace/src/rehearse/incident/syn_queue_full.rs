//! `syn-queue-full`: more handshakes are under way than the SYN queue holds, so that SYNs are dropped or answered by cookies.
//!
//! Except in a flood, nothing is wrong with the clients: they are far away, and while their last step travels, their
//! requests take the places. What a SYN meets first is the queue's length against the queue limit, which is what listen()
//! was told, cut by somaxconn. Only if it passes, and only without cookies, does tcp_max_syn_backlog matter: its last
//! quarter is kept for peers that are known.

use serde_json::json;

use super::crowds::{self, PLACE, await_calm};
use super::{Entry, Family, Incident, Options, Variant, facts, open};
use crate::rehearse::actor::{Actor, Crowd, CrowdTally, Door, Habit, Manner, Order, Place, Visit, Visits};
use crate::rehearse::counters::{self, Counters, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "syn-queue-full",
    aliases: &[],
    summary: "the SYN queue is full: SYNs are dropped, or answered by cookies",
    variants: &[
        Variant { name: "drop", summary: "listen(32), distant clients, no cookies: their SYNs are dropped" },
        Variant {
            name: "cookies",
            summary: "listen(32), distant clients, cookies: all complete all the same",
        },
        Variant { name: "somaxconn", summary: "listen(4096) cut to 32 by somaxconn, no cookies" },
        Variant {
            name: "max-syn-backlog",
            summary: "listen(128), no cookies, tcp_max_syn_backlog 48: its last quarter is kept back",
        },
        Variant {
            name: "flood",
            summary: "listen(64), a flood of SYNs from everywhere: real clients complete by cookie",
        },
    ],
    make: |variant, options| Ok(Box::new(SynQueueFull::new(variant, options)?)),
};

const PORT: u16 = 8080;
const WORKERS: usize = 2;
/// Between a distant client's SYN and its ACK: less than the second after which a SYN-ACK would be sent again.
const DISTANCE_MS: u64 = 600;

/// Not meant to happen, but on a machine that is too slow for all this the accept queue may fill; then it is true.
const OVERFLOW: Allowed =
    Allowed { code: "accept-queue-overflow", because: "the server got no processor for too long" };

/// What a variant differs in.
#[derive(Debug, Clone)]
struct Recipe {
    backlog: i32,
    somaxconn: u32,
    max_syn_backlog: u32,
    syncookies: u8,
    synack_retries: u32,
    clients: usize,
    every_us: u64,
    flood: bool,
    cause: &'static str,
    allow: &'static [Allowed],
}

impl Recipe {
    fn of(variant: &Variant) -> Self {
        let basic = Self {
            // Small, but the accept queue has the same limit: a server that gets no processor for a moment must not fill it.
            backlog: 32,
            somaxconn: 4096,
            max_syn_backlog: 1024,
            syncookies: 0,
            synack_retries: 5,
            clients: 300,
            every_us: 10_000,
            flood: false,
            cause: "backlog-argument",
            allow: &[],
        };
        match variant.name {
            "cookies" => Self { syncookies: 1, ..basic },
            "somaxconn" => Self {
                backlog: 4096,
                somaxconn: 32,
                cause: "somaxconn",
                allow: &[Allowed {
                    code: "backlog-truncated",
                    because: "listen(4096) became 32 without a word",
                }],
                ..basic
            },
            "max-syn-backlog" => {
                Self { backlog: 128, max_syn_backlog: 48, cause: "max-syn-backlog", ..basic }
            }
            "flood" => Self {
                backlog: 64,
                syncookies: 1,
                synack_retries: 1,
                clients: 600,
                every_us: 5000,
                flood: true,
                cause: "syn-flood",
                allow: &[Allowed {
                    code: "half-open-capture",
                    because: "the flood's requests stay half-open until they expire",
                }],
                ..basic
            },
            _ => basic,
        }
    }

    /// What the kernel makes of the backlog argument.
    fn limit(&self) -> u32 {
        self.backlog.unsigned_abs().min(self.somaxconn)
    }

    fn crowd(&self, to: std::net::SocketAddr) -> Crowd {
        let (place, again_ms, give_up_ms, manner) = if self.flood {
            (Place::Everywhere, Vec::new(), 100, Manner::Deaf)
        } else {
            (PLACE, vec![1000, 3000], 4000, Manner::Answer { synack: 1, after_ms: DISTANCE_MS })
        };
        Crowd {
            to,
            clients: self.clients,
            place,
            every_us: self.every_us,
            again_ms,
            give_up_ms,
            rounds: 1,
            manner,
        }
    }
}

struct SynQueueFull {
    variant: &'static Variant,
    recipe: Recipe,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    clients: Vec<Actor>,
    stage: Stage,
}

impl SynQueueFull {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Pair)?;
        let recipe = Recipe::of(variant);
        stage.set_sysctl("net.core.somaxconn", recipe.somaxconn)?;
        stage.set_sysctl("net.ipv4.tcp_max_syn_backlog", recipe.max_syn_backlog)?;
        // Cookies on or off is what the variants are about: whatever the options say.
        stage.set_sysctl("net.ipv4.tcp_syncookies", recipe.syncookies)?;
        stage.set_sysctl("net.ipv4.tcp_synack_retries", recipe.synack_retries)?;
        // A client that was here before would be let into the last quarter.
        stage.set_sysctl("net.ipv4.tcp_no_metrics_save", 1)?;
        Ok(Self { variant, recipe, options, server: None, clients: Vec::new(), stage })
    }

    fn open_for_business(&self) -> Result<Actor> {
        let door = Door::at(self.options.family.any(PORT), self.recipe.backlog);
        let mut server = open(&self.stage, "tt-web", door)?;
        server.ask::<()>(&Order::Serve { workers: WORKERS })?;
        Ok(server)
    }
}

impl Incident for SynQueueFull {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let Recipe { backlog, somaxconn, max_syn_backlog, syncookies, clients, flood, .. } = self.recipe;
        let crowd = if flood {
            format!("{clients} addresses everywhere send one SYN each; tt-client is served all the same.")
        } else {
            format!(
                "{clients} distant clients connect within 3 s, each with {DISTANCE_MS} ms between SYN and ACK."
            )
        };
        format!(
            "tt-web listens on {} with listen({backlog}) under somaxconn {somaxconn}, tcp_max_syn_backlog \
             {max_syn_backlog}, tcp_syncookies {syncookies}.\n{crowd}",
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
        let (recipe, stage, family) = (&self.recipe, &self.stage, self.options.family);
        let to = family.call(stage, PORT);
        let before = stage.counters()?;
        let server = match self.server.take() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let server = self.server.insert(server);
        self.clients = vec![stage.start_client("tt-client")?, stage.start_client("tt-crowd")?];
        let [client, crowd] = self.clients.as_mut_slice() else {
            return Err(Error::NotStaged("there are two clients".into()));
        };

        if recipe.flood {
            let visit = Visit { to, clients: 3, every_ms: 40, for_ms: 5000, habit: Habit::Mixed };
            client.tell(&Order::Visit(visit))?;
        }
        crowd.ask::<()>(&Order::Crowd(recipe.crowd(to)))?;
        let half_open_max = await_calm(stage, crowd, PORT)?;
        let visits = if recipe.flood { client.reply()? } else { Visits::default() };
        let tally: CrowdTally = crowd.ask(&Order::Disperse)?;
        let counters = counters::growth(&before, &stage.settled_counters()?);
        let account = Account::of(recipe, &tally, &visits, &counters)?;

        let mut allow = recipe.allow.to_vec();
        if account.overflows > 0 {
            allow.push(OVERFLOW);
        }
        let subject = Party::of(server.identity(), "listener", family.any(PORT));
        Ok(GroundTruth {
            actors: vec![server.identity().clone(), client.identity().clone(), crowd.identity().clone()],
            expect: vec![Expectation::about("syn-queue-full", recipe.cause, subject)],
            allow,
            facts: facts(json!({
                "backlog": recipe.backlog,
                "queue_limit": recipe.limit(),
                "somaxconn": recipe.somaxconn,
                "tcp_max_syn_backlog": recipe.max_syn_backlog,
                "tcp_syncookies": recipe.syncookies,
                "half_open_max": half_open_max,
                "prefix": if recipe.flood { None } else { Some(crowds::prefix(family == Family::V6)) },
                "peers": tally.clients,
                "syns": tally.syns,
                "syn_drops": account.drops,
                "cookies_sent": account.cookies,
                "completed": tally.completed,
                "completed_by_cookie": grown(&counters, "SyncookiesRecv")?,
                "expired": account.expired,
                "others_requests": visits.connections,
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}

/// What the crowd saw and what the kernel counted, put together.
struct Account {
    /// SYNs that were dropped for the SYN queue's sake.
    drops: u64,
    /// SYNs and final ACKs that were dropped for the accept queue's sake.
    overflows: u64,
    cookies: u64,
    /// Requests that nobody completed.
    expired: u64,
}

impl Account {
    /// Adds it up: a SYN is answered or dropped, and each kind of drop has the counter that it should have.
    fn of(recipe: &Recipe, tally: &CrowdTally, visits: &Visits, counters: &Counters) -> Result<Self> {
        if let Some(error) = visits.errors.first() {
            return Err(Error::NotStaged(format!("a visitor was turned away: {error}")));
        }
        let account = Self::balanced(recipe, tally, visits, counters)?;
        account.ok_or_else(|| {
            Error::NotStaged(format!("the books do not balance: {tally:?}, {visits:?}, {counters:?}"))
        })
    }

    /// None: the books do not balance.
    fn balanced(
        recipe: &Recipe,
        tally: &CrowdTally,
        visits: &Visits,
        counters: &Counters,
    ) -> Result<Option<Self>> {
        let count = |name| grown(counters, name);
        let (retransmits, overflows) = (count("TCPSynRetrans")?, count("ListenOverflows")?);
        let (cookies, by_cookie) = (count("SyncookiesSent")?, count("SyncookiesRecv")?);
        let Some(drops) = count("ListenDrops")?.checked_sub(overflows) else { return Ok(None) };
        // Those of the last quarter have no counter of their own.
        let last_quarter = recipe.cause == "max-syn-backlog";
        let booked = if last_quarter { 0 } else { drops } == count("TCPReqQFullDrop")?;
        let happened = if recipe.syncookies == 0 { drops > 0 } else { drops == 0 && by_cookie > 0 };
        if !booked || !happened || count("SyncookiesFailed")? > 0 {
            return Ok(None);
        }
        // A flood's requests are answered once more each, and then expire.
        let expired = if recipe.flood { retransmits } else { 0 };
        let account = Self { drops, overflows, cookies, expired };
        if overflows > 0 {
            // Final ACKs among them were lost, SYNs of visitors too: what follows does not hold then.
            return Ok(Some(account));
        }
        // An ACK and the data behind it may be at two processors at once: then both make a connection, and one is lost.
        let twice = count("PassiveOpens")?.checked_sub(tally.completed + visits.connections);
        // Every visitor's cookie comes back; of the crowd's all do, or in a flood none.
        let unused = twice.and_then(|twice| cookies.checked_sub(by_cookie.saturating_sub(twice)));
        let even = tally.syns + retransmits == tally.synacks + drops
            && cookies == count("TCPReqQFullDoCookies")?
            && tally.answered == tally.completed
            && unused == Some(if recipe.flood { tally.calls.saturating_sub(expired) } else { 0 });
        Ok(even.then_some(account))
    }
}
