//! A group of workers that share a port (SO_REUSEPORT), of which one goes under load, with connections in its queue.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{BACKLOG, ENTRY, PORT};
use crate::rehearse::actor::{Actor, Door, Load, Order};
use crate::rehearse::counters::{self, grown};
use crate::rehearse::error::{Error, Result};
use crate::rehearse::incident::{Family, facts, open};
use crate::rehearse::stage::Stage;
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};

const MEMBERS: usize = 4;
/// Connections before a worker goes, while it does not accept any more, and after it has been replaced.
const BEFORE: usize = 120;
const MEANWHILE: usize = 60;
const AFTER: usize = 200;

/// What becomes of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Killed,
    /// It never accepts, and closes its listener.
    Closed,
    /// Killed, and the others take over its queue.
    Migrated,
}

impl Fate {
    /// The one of a variant, if it is about workers.
    pub(super) fn of(variant: &str) -> Option<Self> {
        match variant {
            "worker-killed" => Some(Self::Killed),
            "worker-closed" => Some(Self::Closed),
            "worker-migrated" => Some(Self::Migrated),
            _ => None,
        }
    }

    /// What must be set before.
    pub(super) fn set(self, stage: &Stage) -> Result<()> {
        let migrates = u8::from(self == Self::Migrated);
        match stage.set_sysctl("net.ipv4.tcp_migrate_req", migrates) {
            Err(_) if self == Self::Migrated => {
                Err(Error::NotSupported("this kernel has no tcp_migrate_req (from 5.14)".into()))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn describe(family: Family, fate: Fate) -> String {
    let what = match fate {
        Fate::Killed => "One is killed while connections wait in its queue",
        Fate::Closed => "A fifth one joins them, closes its listener while connections wait there,",
        Fate::Migrated => {
            "One is killed while connections wait in its queue, which the kernel gives to the others (tcp_migrate_req),"
        }
    };
    format!(
        "{MEMBERS} processes tt-worker share {} with SO_REUSEPORT, each with listen({BACKLOG}).\n{what} and another takes its place.",
        family.any(PORT),
    )
}

/// Gives the actors back, which must stay until tracing ends.
pub(super) fn play(
    stage: &Stage,
    family: Family,
    variant: &'static str,
    fate: Fate,
) -> Result<(GroundTruth, Vec<Actor>)> {
    let before = stage.counters()?;
    let door = Door { reuseport: true, ..Door::at(family.any(PORT), BACKLOG) };
    let join = |accepts: bool| -> Result<Actor> {
        let mut worker = open(stage, "tt-worker", door.clone())?;
        if accepts {
            worker.ask::<()>(&Order::Accept { workers: 1, every_ms: 0 })?;
        }
        Ok(worker)
    };
    let mut members = (0..MEMBERS).map(|_| join(true)).collect::<Result<Vec<_>>>()?;
    let mut client = stage.start_client("tt-client")?;
    let to = family.call(stage, PORT);
    let load = |at_least| Order::Load(Load { to, burst: 4, every_ms: 20, for_ms: 0, at_least });
    let waiting = || -> Result<Vec<u32>> {
        Ok(stage.accept_queues(PORT)?.into_iter().filter(|waiting| *waiting > 0).collect())
    };
    client.ask::<usize>(&load(BEFORE))?;
    stage.await_that("all are accepted", || Ok(waiting()?.is_empty()))?;

    let began = Instant::now();
    let mut going = match fate {
        Fate::Closed => join(false)?,
        Fate::Killed | Fate::Migrated => {
            let member = members.remove(0);
            member.stop()?;
            member
        }
    };
    client.ask::<usize>(&load(MEANWHILE))?;
    stage.await_that("only the queue of the one that goes is left", || Ok(waiting()?.len() <= 1))?;
    let queued = waiting()?.first().copied().unwrap_or_default();
    match fate {
        Fate::Closed => going.ask::<()>(&Order::Close)?,
        Fate::Killed | Fate::Migrated => {
            going.signal(Signal::SIGKILL)?;
            going.await_end()?;
        }
    }
    let waited = began.elapsed();
    members.push(join(true)?);
    client.ask::<usize>(&load(AFTER))?;
    stage.await_that("the others have accepted all", || Ok(waiting()?.is_empty()))?;
    // Accept waits are looked at every five seconds.
    stage.cancel().sleep(Duration::from_secs(6))?;

    let counters = counters::growth(&before, &stage.settled_counters()?);
    let (resets, migrated) = (grown(&counters, "EstabResets")?, counters.get("TCPMigrateReqSuccess"));
    let is_staged = match fate {
        // Each side of each connection counts its own end.
        Fate::Killed | Fate::Closed => {
            resets >= 2 * u64::from(queued) && migrated.is_none_or(|moved| *moved == 0)
        }
        Fate::Migrated => migrated == Some(&u64::from(queued)),
    };
    if queued == 0 || !is_staged || grown(&counters, "ListenOverflows")? > 0 {
        return Err(Error::NotStaged(format!("{queued} connections were queued; {counters:?}")));
    }
    let because = "this machine took its time: they waited for long";
    let slow = ["accept-stall", "slow-accept", "reuseport-imbalance"].map(|code| Allowed { code, because });
    let expected = |cause| {
        let subject = Party::of(going.identity(), "listener", family.any(PORT));
        Expectation::about(ENTRY.name, cause, subject)
    };
    let reset = if fate == Fate::Migrated { 0 } else { queued };
    let truth = GroundTruth {
        actors: members.iter().chain([&going, &client]).map(|actor| actor.identity().clone()).collect(),
        expect: match fate {
            Fate::Killed => vec![expected("process-exit")],
            Fate::Closed => vec![expected("close")],
            Fate::Migrated => Vec::new(),
        },
        allow: if waited > Duration::from_secs(1) { slow.to_vec() } else { Vec::new() },
        facts: facts(json!({
            "members": MEMBERS,
            "backlog": BACKLOG,
            "queue_limit": BACKLOG,
            "queued": queued,
            "reset": reset,
        })),
        counters,
        ..GroundTruth::of(ENTRY.name, variant, stage.netns_inode())
    };
    members.extend([going, client]);
    Ok((truth, members))
}
