//! `dropped`: this host itself drops handshakes, for reasons that look alike from outside: queues of netfilter, connection
//! tracking, keys and filters of a socket or a control group, neighbours, XDP. Each with a contrast: the same symptom from another
//! cause.

mod ground;
mod kind;
mod whole_host;

use std::time::Duration;

use serde_json::json;

use super::{Entry, Family, Incident, Options, Variant, facts, open};
use crate::finding::Confidence;
use crate::probe::btf::Btf;
use crate::rehearse::actor::{Actor, Door, Identity, Load, Order, Tally};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Allowed, Expectation, GroundTruth, Party};
use ground::Ground;
use kind::{KINDS, Kind};

pub(super) const ENTRY: Entry = Entry {
    name: "handshake-dropped",
    aliases: &["dropped"],
    summary: "this host drops handshakes: netfilter queue, connection tracking, MD5 key, filter, neighbour, XDP",
    variants: &VARIANTS,
    make: |variant, options| Ok(Box::new(Dropped::new(variant, &options)?)),
};

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which sees every index")]
const VARIANTS: [Variant; KINDS.len()] = {
    let mut variants = [KINDS[0].1; KINDS.len()];
    let mut at = 0;
    while at < KINDS.len() {
        variants[at] = KINDS[at].1;
        at += 1;
    }
    variants
};

const PORT: u16 = 18_177;
const BACKLOG: i32 = 128;

struct Dropped {
    variant: &'static Variant,
    kind: Kind,
    family: Family,
    /// Before the ground and the stage: actors go first.
    server: Option<Actor>,
    client: Option<Actor>,
    ground: Ground,
    stage: Stage,
}

impl Dropped {
    fn new(variant: &'static Variant, options: &Options) -> Result<Self> {
        let kind = Kind::of(variant.name);
        if let Some(word) = kind.needs_word()
            && !has_word(word)
        {
            return Err(Error::NotSupported(format!(
                "this kernel has no word for it ({word}), and does not show such a drop"
            )));
        }
        let stage = options.stage(Layout::Pair)?;
        let ground = Ground::new(kind)?;
        Ok(Self { variant, kind, family: options.family, server: None, client: None, ground, stage })
    }

    fn ipv6(&self) -> bool {
        self.family == Family::V6
    }

    /// What the client calls, one after the other.
    fn called(&self) -> Vec<std::net::SocketAddr> {
        ground::called(self.kind, &self.stage, self.ipv6(), PORT)
    }

    fn call(&self, client: &mut Actor) -> Result<(u64, Tally)> {
        let mut opened = 0_u64;
        let called = self.called();
        if let [to] = called.as_slice() {
            let for_ms = if self.kind == Kind::RejectReset { 3000 } else { 9000 };
            let load = Load { to: *to, burst: 1, every_ms: 500, for_ms, at_least: 6 };
            opened += client.ask::<u64>(&Order::Load(load))?;
        } else {
            for to in called {
                let load = Load { to, burst: 1, every_ms: 20, for_ms: 1, at_least: 1 };
                opened += client.ask::<u64>(&Order::Load(load))?;
            }
            self.stage.cancel().sleep(Duration::from_secs(6))?;
        }
        Ok((opened, client.ask(&Order::HangUp { reset: true })?))
    }

    fn truth(&self, client: &Identity) -> (Vec<Expectation>, Vec<Allowed>) {
        const UNANSWERED: Allowed =
            Allowed { code: "syn-unanswered", because: "that is what the client feels of it" };
        let called = self.called();
        let called = called.first().copied();
        let of_client = |code, cause| {
            let at = called.unwrap_or_else(|| self.family.any(PORT));
            Expectation::about(code, cause, Party::of(client, "destination", at))
        };
        let at_server = |code, cause| {
            let server = self.server.as_ref();
            let subject =
                server.map(|server| Party::of(server.identity(), "listener", self.family.any(PORT)));
            Expectation::about(code, cause, subject.unwrap_or_default())
        };
        let of_process = |code, cause| {
            let subject =
                Party { kind: "host", address: None, ..Party::of(client, "host", self.family.any(PORT)) };
            Expectation::about(code, cause, subject)
        };
        let dropped = |cause| at_server("handshake-dropped", cause);
        let certain = |expected: Expectation| expected.at_least(Confidence::Certain);
        let likely = |expected: Expectation| expected.at_most(Confidence::Likely);
        match self.kind {
            Kind::QueueUnread => (vec![certain(dropped("nfqueue-unread"))], vec![UNANSWERED]),
            Kind::QueueOut => {
                (vec![certain(of_client("handshake-dropped", "nfqueue-unread"))], vec![UNANSWERED])
            }
            Kind::TrackedDrop => (vec![certain(dropped("netfilter"))], vec![UNANSWERED]),
            Kind::ConntrackFull => (vec![certain(dropped("conntrack-full"))], vec![UNANSWERED]),
            Kind::Md5 => (vec![certain(dropped("tcp-md5"))], vec![UNANSWERED]),
            Kind::MinTtl => (vec![certain(dropped("min-ttl"))], vec![UNANSWERED]),
            Kind::SocketFilter => (vec![likely(dropped("socket-filter"))], vec![UNANSWERED]),
            Kind::CgroupIn => (vec![likely(dropped("cgroup-filter"))], vec![UNANSWERED]),
            Kind::CgroupOut => {
                (vec![certain(of_client("handshake-dropped", "cgroup-filter"))], vec![UNANSWERED])
            }
            Kind::RejectReset | Kind::RejectIcmp => {
                (vec![certain(dropped("reject")), certain(of_client("connect-refused", "reject"))], vec![])
            }
            // One cause is one finding: its connects have none of their own.
            Kind::NeighbourSilent => {
                let unresolved = of_process("handshake-dropped", "neighbour-unresolved");
                // Before 5.18 the function that frees the packet tells, and it frees others as well.
                let named = has_word("NEIGH_FAILED");
                (vec![if named { certain(unresolved) } else { likely(unresolved) }], vec![])
            }
            Kind::NeighbourTable => {
                (vec![certain(of_process("handshake-dropped", "neighbour-table"))], vec![])
            }
            Kind::XdpGeneric => (vec![certain(dropped("xdp"))], vec![UNANSWERED]),
            Kind::Qdisc => (vec![certain(of_client("handshake-dropped", "qdisc"))], vec![UNANSWERED]),
            Kind::XdpDriver => (vec![likely(of_client("syn-unanswered", "local-drop"))], vec![]),
        }
    }

    fn check(&self, opened: u64, tally: &Tally) -> Result<()> {
        let as_meant = match self.kind {
            Kind::ConntrackFull | Kind::NeighbourTable => tally.established > 0 && tally.established < opened,
            Kind::RejectReset => tally.failed == opened,
            _ => tally.established == 0,
        };
        if as_meant { Ok(()) } else { Err(Error::NotStaged(format!("of {opened} connects came: {tally:?}"))) }
    }
}

fn has_word(word: &str) -> bool {
    let words = Btf::load().map(|btf| btf.enum_names("skb_drop_reason", "SKB_DROP_REASON_"));
    words.is_ok_and(|words| words.values().any(|known| known == word))
}

impl Incident for Dropped {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        format!("tt-client calls port {PORT}.\nWhat goes wrong: {}.", self.variant.summary)
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn play(&mut self) -> Result<GroundTruth> {
        if self.kind.has_server() {
            let door = Door::at(self.family.any(PORT), BACKLOG);
            let mut server = if self.kind.server_is_far() {
                let mut server = self.stage.start_client("tt-server")?;
                server.ask::<()>(&Order::Open(door))?;
                server
            } else if self.kind == Kind::CgroupIn {
                let mut server = self.stage.start_server("tt-server")?;
                self.ground.admit(&server)?;
                server.ask::<()>(&Order::Open(door))?;
                server
            } else {
                open(&self.stage, "tt-server", door)?
            };
            if let Some(guard) = self.kind.guard(self.stage.client_address(self.ipv6())) {
                server.ask::<()>(&Order::Guard(guard)).map_err(|error| match error {
                    Error::Actor { problem, .. } => {
                        Error::NotSupported(format!("the socket takes no such option: {problem}"))
                    }
                    other => other,
                })?;
            }
            server.ask::<()>(&Order::Accept { workers: 1, every_ms: 0 })?;
            self.server = Some(server);
        }
        let mut client = if self.kind.client_is_traced() {
            self.stage.start_server("tt-client")?
        } else {
            self.stage.start_client("tt-client")?
        };
        if self.kind == Kind::CgroupOut {
            self.ground.admit(&client)?;
        }
        if self.kind == Kind::Qdisc
            && let [to] = self.called().as_slice()
        {
            // The neighbour is known from then on; asking for it would be dropped as well.
            let once = Load { to: *to, burst: 1, every_ms: 20, for_ms: 1, at_least: 1 };
            client.ask::<u64>(&Order::Load(once))?;
            client.ask::<Tally>(&Order::HangUp { reset: false })?;
        }
        self.ground.obstruct(self.kind, &self.stage, self.ipv6(), PORT)?;
        let before = self.stage.counters()?;
        let (opened, tally) = self.call(&mut client)?;
        // Long enough for what was called off to be seen.
        self.stage.cancel().sleep(Duration::from_millis(500))?;
        self.check(opened, &tally)?;
        let (expect, allow) = self.truth(client.identity());
        let mut actors = vec![client.identity().clone()];
        actors.extend(self.server.iter().map(|server| server.identity().clone()));
        self.client = Some(client);
        Ok(GroundTruth {
            actors,
            expect,
            allow,
            counters: counters::growth(&before, &self.stage.counters()?),
            facts: facts(json!({
                "connects": opened,
                "established": tally.established,
                "failed": tally.failed,
            })),
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }
}
