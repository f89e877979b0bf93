//! `reuseport-imbalance`: several processes share a port with SO_REUSEPORT, and one of them suffers while the others idle.
//!
//! Each of them has a queue of its own, and the kernel chooses one by a hash of the addresses and ports, however long it is.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use super::{Entry, Incident, Options, Variant, facts, open};
use crate::event::observation;
use crate::rehearse::actor::{Actor, Door, Load, Order, Stamp, Tally};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "reuseport-imbalance",
    aliases: &[],
    summary: "one member of a reuseport group overflows or waits, the others idle",
    variants: &[
        Variant { name: "stuck-member", summary: "one of four processes is stuck: its queue overflows" },
        Variant {
            name: "uneven-hash",
            summary: "all clients are given to one of four processes: they wait there",
        },
    ],
    make: |variant, options| Ok(Box::new(Imbalance::new(variant, options)?)),
};

const PORT: u16 = 8080;
const MEMBERS: usize = 4;
/// Ports to call from are looked for from here on, below the ephemeral range.
const FIRST_PORT: u16 = 20_000;
/// Calls of the uneven variant, all to one member: that it waits for long must be seen for some seconds.
const CALLS: usize = 100;
const EVERY_MS: u64 = 66;
/// After so long without an accept, what was accepted before does not count among the recent waits.
const QUIET: Duration = Duration::from_millis(3500);
/// Time that a member spends on a connection then: six times what it has.
const BUSY_MS: u64 = 400;

/// What a variant differs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    StuckMember,
    UnevenHash,
}

impl Kind {
    fn backlog(self) -> i32 {
        match self {
            Self::StuckMember => 16,
            Self::UnevenHash => 511,
        }
    }

    fn busy_ms(self, member: usize) -> u64 {
        match (self, member) {
            // Longer than any play.
            (Self::StuckMember, 0) => 600_000,
            (Self::StuckMember, _) => 5,
            (Self::UnevenHash, _) => 0,
        }
    }
}

struct Imbalance {
    variant: &'static Variant,
    kind: Kind,
    options: Options,
    /// Before the stage: actors go first. The first one is the one that suffers.
    members: Vec<Actor>,
    client: Option<Actor>,
    stage: Stage,
}

impl Imbalance {
    fn new(variant: &'static Variant, options: Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        stage.set_sysctl("net.core.somaxconn", 4096)?;
        let kind = if variant.name == "uneven-hash" { Kind::UnevenHash } else { Kind::StuckMember };
        Ok(Self { variant, kind, options, members: Vec::new(), client: None, stage })
    }

    fn open_for_business(&mut self) -> Result<()> {
        let door = Door { reuseport: true, ..Door::at(self.options.family.any(PORT), self.kind.backlog()) };
        for member in 0..MEMBERS {
            let mut worker = open(&self.stage, "tt-worker", door.clone())?;
            worker.ask::<()>(&Order::Accept { workers: 1, every_ms: self.kind.busy_ms(member) })?;
            self.members.push(worker);
        }
        Ok(())
    }

    /// What the members have accepted.
    fn accepted(members: &mut [Actor]) -> Result<Vec<u64>> {
        members.iter_mut().map(|member| member.ask(&Order::Accepted)).collect()
    }
}

impl Incident for Imbalance {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let what = match self.kind {
            Kind::StuckMember => "One is stuck in its first connection; every fourth client is given to it.",
            Kind::UnevenHash => "tt-client's ports happen to be such that all connections are given to one.",
        };
        format!(
            "{MEMBERS} processes tt-worker share {} with SO_REUSEPORT, each with listen({}).\n{what}",
            self.options.family.any(PORT),
            self.kind.backlog(),
        )
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn prepare(&mut self) -> Result<()> {
        if self.options.older { self.open_for_business() } else { Ok(()) }
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        if self.members.is_empty() {
            self.open_for_business()?;
        }
        let (kind, stage, family) = (self.kind, &self.stage, self.options.family);
        let to = family.call(stage, PORT);
        let client = self.client.insert(stage.start_client("tt-client")?);
        let members = self.members.as_mut_slice();

        let before_load = match kind {
            Kind::StuckMember => {
                client.ask::<usize>(&Order::Load(Load {
                    to,
                    burst: 1,
                    every_ms: 20,
                    for_ms: 4500,
                    at_least: 180,
                }))?;
                vec![0; MEMBERS]
            }
            Kind::UnevenHash => {
                let ports = ports_to_first(stage, client, members, to)?;
                let before_load = Self::accepted(members)?;
                for member in &mut *members {
                    member.ask::<()>(&Order::Pace { every_ms: BUSY_MS })?;
                }
                client.ask::<usize>(&Order::Dial { to, ports, every_ms: EVERY_MS })?;
                before_load
            }
        };
        let accepted: Vec<u64> =
            Self::accepted(members)?.iter().zip(&before_load).map(|(now, then)| now - then).collect();
        let queues = stage.accept_queues(PORT)?;
        client.ask::<Tally>(&Order::HangUp { reset: true })?;
        let counters = counters::growth(&before, &stage.settled_counters()?);

        let overflows = grown(&counters, "ListenOverflows")?;
        let (first, others) = accepted.split_first().map_or((0, &[][..]), |(first, others)| (*first, others));
        let waiting = queues.iter().max().copied().unwrap_or_default();
        let (cause, happened) = match kind {
            Kind::StuckMember => {
                ("stuck-member", overflows > 0 && first == 1 && others.iter().all(|&accepted| accepted > 10))
            }
            Kind::UnevenHash => (
                "uneven-hash",
                overflows == 0 && waiting > 10 && others.iter().all(|&accepted| accepted == 0),
            ),
        };
        if !happened || queues.len() != MEMBERS {
            return Err(Error::NotStaged(format!(
                "the members accepted {accepted:?} connections, {queues:?} wait, {overflows} were dropped"
            )));
        }
        let Some(suffering) = members.first().map(|member| member.identity().clone()) else {
            return Err(Error::NotStaged("there are no members".into()));
        };
        let mut actors: Vec<_> = members.iter().map(|member| member.identity().clone()).collect();
        actors.push(client.identity().clone());
        Ok(GroundTruth {
            actors,
            expect: vec![
                Expectation::about(ENTRY.name, cause, Party::of(&suffering, "listener", family.any(PORT)))
                    // Where accepts are counted by port, nobody knows which member accepts.
                    .needing(observation::SYN_DROP),
            ],
            allow: match kind {
                Kind::StuckMember => vec![
                    Allowed { code: "accept-queue-overflow", because: "the stuck member's queue overflows" },
                    Allowed { code: "accept-stall", because: "the stuck member accepts nothing" },
                ],
                Kind::UnevenHash => {
                    vec![Allowed {
                        code: "slow-accept",
                        because: "one member's connections wait for seconds",
                    }]
                }
            },
            facts: facts(json!({
                "members": MEMBERS,
                "backlog": kind.backlog(),
                "queue_limit": kind.backlog(),
                "accepted": accepted,
                "waiting_max": waiting,
                "syn_drops": overflows,
            })),
            counters,
            ..GroundTruth::of(ENTRY.name, self.variant.name, stage.netns_inode())
        })
    }
}

/// Local ports from which a connection is given to the first member: found by trying, as the hash has a secret in it.
fn ports_to_first(
    stage: &Stage,
    client: &mut Actor,
    members: &mut [Actor],
    to: std::net::SocketAddr,
) -> Result<Vec<u16>> {
    /// So many are tried at a time that no queue grows long.
    const TRIED: u16 = 40;
    let mut found = HashSet::new();
    let mut next = FIRST_PORT;
    let mut tried = 0;
    while found.len() < CALLS && next < FIRST_PORT + 4000 {
        let ports: Vec<u16> = (next..next + TRIED).collect();
        next += TRIED;
        tried += u64::from(TRIED);
        client.ask::<usize>(&Order::Dial { to, ports, every_ms: 0 })?;
        stage.await_that("every trial has been accepted", || {
            Ok(Imbalance::accepted(members)?.iter().sum::<u64>() >= tried)
        })?;
        // Reset, so that the ports can be used again.
        client.ask::<Tally>(&Order::HangUp { reset: true })?;
        if let Some(first) = members.first_mut() {
            let accepted: Vec<Stamp> = first.ask(&Order::Acceptances)?;
            found.extend(accepted.iter().map(|stamp| stamp.port));
        }
    }
    stage.cancel().sleep(QUIET)?;
    let mut ports: Vec<u16> = found.into_iter().take(CALLS).collect();
    ports.sort_unstable();
    if ports.len() < CALLS {
        return Err(Error::NotStaged(format!("only {} ports lead to the first member", ports.len())));
    }
    Ok(ports)
}
