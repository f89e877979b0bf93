//! `backlog-capture`: half-open requests pile up at a server, as SYN-ACKs to a part of its clients stay unanswered.
//!
//! The part that suffers is a network of its own, played by hand at the far end of a veth pair, since a kernel that
//! receives a SYN-ACK cannot help answering it. Beside it real clients of another network are served all the time.

use serde_json::json;

use super::crowds::{self, PLACE, await_calm};
use super::{Entry, Family, Incident, Options, Variant, facts, open};
use crate::event::observation;
use crate::finding::Confidence;
use crate::rehearse::actor::{Actor, Crowd, CrowdTally, Door, Habit, Manner, Order, Place, Visit, Visits};
use crate::rehearse::counters::{self, Counters, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "half-open-capture",
    aliases: &["backlog-capture"],
    summary: "SYN-ACKs stay unanswered: half-open requests pile up",
    variants: &[
        Variant {
            name: "return-path",
            summary: "SYN-ACKs to one network get lost; its clients give up and call again from new ports",
        },
        Variant {
            name: "stateful-firewall",
            summary: "as return-path, with one more SYN-ACK to each: the requests outlive their clients",
        },
        Variant {
            name: "silent",
            summary: "clients of one network ask once and are never heard of again: nobody can tell why",
        },
        Variant {
            name: "client-gave-up",
            summary: "clients close their sockets before the answer comes, and reset it",
        },
        Variant {
            name: "client-gone",
            summary: "clients are gone when the answer comes: a router says so (ICMP)",
        },
        Variant { name: "syn-flood", summary: "many sources everywhere send one SYN each and nothing more" },
        Variant {
            name: "slow-client",
            summary: "clients' ACKs come after two SYN-ACK retransmissions: nothing to report",
        },
    ],
    make: |variant, options| Ok(Box::new(BacklogCapture::new(variant, options)?)),
};

const PORT: u16 = 8080;
const WORKERS: usize = 2;
/// Clients of the other network, and the time between two connections of each.
const VISITORS: usize = 3;
const EVERY_MS: u64 = 40;

/// What a variant differs in.
#[derive(Debug, Clone)]
struct Recipe {
    /// More than twice as many requests as there ever are: beyond half of it the kernel lets requests expire early.
    backlog: i32,
    synack_retries: u32,
    clients: usize,
    place: Place,
    every_us: u64,
    again_ms: Vec<u64>,
    give_up_ms: u64,
    rounds: u16,
    visit_ms: u64,
    cause: Option<&'static str>,
    /// By RST, by an ICMP error, or for want of retries.
    ends_early: bool,
}

impl Recipe {
    fn of(variant: &Variant) -> Self {
        let basic = Self {
            backlog: 511,
            synack_retries: 2,
            clients: 40,
            place: PLACE,
            every_us: 20_000,
            again_ms: vec![1000, 3000],
            give_up_ms: 4500,
            rounds: 2,
            visit_ms: 12_000,
            cause: Some("return-path"),
            ends_early: false,
        };
        match variant.name {
            "client-gave-up" | "client-gone" => Self {
                synack_retries: 5,
                again_ms: vec![1000],
                give_up_ms: 2000,
                visit_ms: 6000,
                cause: Some("client-gave-up"),
                ends_early: true,
                ..basic
            },
            "stateful-firewall" => Self { synack_retries: 3, visit_ms: 20_000, ..basic },
            "silent" => Self {
                synack_retries: 3,
                again_ms: Vec::new(),
                give_up_ms: 900,
                rounds: 1,
                visit_ms: 10_000,
                cause: Some("unknown"),
                ..basic
            },
            "syn-flood" => Self {
                backlog: 1024,
                synack_retries: 1,
                clients: 400,
                place: Place::Everywhere,
                every_us: 7500,
                again_ms: Vec::new(),
                give_up_ms: 100,
                rounds: 1,
                visit_ms: 5000,
                cause: Some("syn-flood"),
                ends_early: true,
            },
            "slow-client" => Self {
                synack_retries: 5,
                clients: 24,
                again_ms: Vec::new(),
                give_up_ms: 5000,
                rounds: 1,
                visit_ms: 4000,
                cause: None,
                ..basic
            },
            _ => basic,
        }
    }
}

struct BacklogCapture {
    variant: &'static Variant,
    recipe: Recipe,
    options: Options,
    /// Before the stage: actors go first.
    server: Option<Actor>,
    clients: Vec<Actor>,
    stage: Stage,
}

impl BacklogCapture {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        if options.syncookies == Some(2) {
            return Err(Error::Usage(format!(
                "{} needs half-open requests: not with syncookies 2",
                ENTRY.name
            )));
        }
        let stage = options.stage(Layout::Pair)?;
        let recipe = Recipe::of(variant);
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        // Without cookies a quarter of this is kept back, which would be another incident.
        stage.set_sysctl("net.ipv4.tcp_max_syn_backlog", 4096)?;
        stage.set_sysctl("net.ipv4.tcp_synack_retries", recipe.synack_retries)?;
        Ok(Self { variant, recipe, options, server: None, clients: Vec::new(), stage })
    }

    fn open_for_business(&self) -> Result<Actor> {
        let door = Door::at(self.options.family.any(PORT), self.recipe.backlog);
        let mut server = open(&self.stage, "tt-web", door)?;
        server.ask::<()>(&Order::Serve { workers: WORKERS })?;
        Ok(server)
    }

    fn manner(&self) -> Manner {
        match self.variant.name {
            "client-gave-up" => Manner::Reset,
            "client-gone" => {
                Manner::Unreachable { router: self.stage.client_address(self.options.family == Family::V6) }
            }
            "slow-client" => Manner::Answer { synack: 3, after_ms: 30 },
            _ => Manner::Deaf,
        }
    }
}

impl Incident for BacklogCapture {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let Recipe { clients, synack_retries, rounds, .. } = self.recipe;
        let crowd = match self.manner() {
            Manner::Deaf if rounds == 1 => format!("{clients} addresses everywhere send one SYN each."),
            Manner::Deaf => format!("SYN-ACKs to {clients} clients get lost; each calls {rounds} times."),
            Manner::Answer { .. } => format!("{clients} clients answer only the third SYN-ACK."),
            Manner::Silent => format!("{clients} clients complete the handshake and send nothing."),
            Manner::Reset => format!("{clients} clients give up after 2 s and reset what comes then."),
            Manner::Unreachable { .. } => {
                format!("{clients} clients give up after 2 s; a router says that they are gone.")
            }
        };
        format!(
            "tt-web listens on {} and serves {VISITORS} clients of another network well; tcp_synack_retries is \
             {synack_retries}.\n{crowd}",
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
        let (to, ipv6) = (family.call(stage, PORT), family == Family::V6);
        let before = stage.counters()?;
        let server = match self.server.take() {
            Some(server) => server,
            None => self.open_for_business()?,
        };
        let manner = self.manner();
        let server = self.server.insert(server);
        self.clients = vec![stage.start_client("tt-client")?, stage.start_client("tt-crowd")?];
        let [client, crowd] = self.clients.as_mut_slice() else {
            return Err(Error::NotStaged("there are two clients".into()));
        };

        client.tell(&Order::Visit(Visit {
            to,
            clients: VISITORS,
            every_ms: EVERY_MS,
            for_ms: recipe.visit_ms,
            habit: Habit::Mixed,
        }))?;
        crowd.ask::<()>(&Order::Crowd(Crowd {
            to,
            clients: recipe.clients,
            place: recipe.place,
            every_us: recipe.every_us,
            again_ms: recipe.again_ms.clone(),
            give_up_ms: recipe.give_up_ms,
            rounds: recipe.rounds,
            manner,
        }))?;
        let half_open_max = await_calm(stage, crowd, PORT)?;
        let visits: Visits = client.reply()?;
        let tally: CrowdTally = crowd.ask(&Order::Disperse)?;
        let counters = counters::growth(&before, &stage.settled_counters()?);
        let account = Account::of(&tally, &visits, &counters)?;

        let subject = Party::of(server.identity(), "listener", family.any(PORT));
        let limit = recipe.backlog;
        Ok(GroundTruth {
            actors: vec![server.identity().clone(), client.identity().clone(), crowd.identity().clone()],
            expect: recipe
                .cause
                // Whether the SYN-ACK or the ACK is lost, or the peer is silent, one host cannot see.
                .map(|cause| {
                    let expected =
                        Expectation::about("half-open-capture", cause, subject).at_most(Confidence::Likely);
                    // These requests end before it is known that their peers are silent; how, tells what happened.
                    if recipe.ends_early {
                        expected
                            .or_without(observation::REQUEST_END, "unknown")
                            .needing(observation::REQUEST_END)
                    } else {
                        expected
                    }
                })
                .into_iter()
                .collect(),
            facts: facts(json!({
                "backlog": limit,
                "queue_limit": limit,
                // A visitor's may have been in the table too, for a moment.
                "half_open_max": (half_open_max as u64).min(tally.calls),
                "prefix": if recipe.place == PLACE { Some(crowds::prefix(ipv6)) } else { None },
                "peers": tally.clients,
                "requests": tally.calls,
                "syns": tally.syns,
                "duplicate_syns": tally.syns - tally.calls,
                "retried_from_new_port": tally.retried,
                "synack_retransmits": account.retransmits,
                "synack_retransmits_by_timer": account.by_timer,
                "completed": tally.completed,
                "expired": account.expired,
                "reset_by_client": tally.resets,
                "unreachable": tally.unreachables,
                "tcp_synack_retries": recipe.synack_retries,
                "timeout_s": crowds::timeout_seconds(recipe.synack_retries),
                "others_requests": visits.connections,
                "others_completed_share": 1.0,
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}

/// What the crowd saw and what the kernel counted, put together.
struct Account {
    retransmits: u64,
    by_timer: u64,
    expired: u64,
}

impl Account {
    /// Adds it up; it must come out even, or packets were lost that should not be.
    fn of(tally: &CrowdTally, visits: &Visits, counters: &Counters) -> Result<Self> {
        if let Some(error) = visits.errors.first() {
            return Err(Error::NotStaged(format!("a visitor was turned away: {error}")));
        }
        let retransmits = grown(counters, "TCPSynRetrans")?;
        // There are no requests left: those that neither completed nor were ended by the client have expired.
        let ended = tally.completed + tally.resets + tally.unreachables;
        let expired = tally.calls.checked_sub(ended);
        // Each run of a request's timer sends the SYN-ACK again, except the last one.
        let by_timer = expired.and_then(|expired| grown(counters, "TCPTimeouts").ok()?.checked_sub(expired));
        let even = tally.heard == tally.calls
            && tally.synacks == tally.calls + retransmits
            && tally.answered == tally.completed
            && grown(counters, "ListenOverflows")? == 0
            && grown(counters, "ListenDrops")? == tally.unreachables;
        match (expired, by_timer) {
            (Some(expired), Some(by_timer)) if even && by_timer <= retransmits => {
                Ok(Self { retransmits, by_timer, expired })
            }
            _ => Err(Error::NotStaged(format!("the books do not balance: {tally:?}, {counters:?}"))),
        }
    }
}
