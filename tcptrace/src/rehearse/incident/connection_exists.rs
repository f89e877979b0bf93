//! `connection-exists`: a client connects from a port of its own, and the same connection exists already.

use std::net::SocketAddr;

use serde_json::json;

use super::{Entry, Family, Incident, Options, Variant, facts};
use crate::event::observation;
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Order, Redial};
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "connection-exists",
    aliases: &[],
    summary: "a client connects from a port of its own, and the same connection exists already",
    variants: &[
        Variant { name: "time-wait", summary: "it has closed it a moment ago, without TCP timestamps" },
        Variant { name: "closing", summary: "it has closed it, and its peer has not" },
        Variant { name: "open", summary: "another process has it" },
        Variant { name: "every", summary: "all of these, in one run" },
        Variant { name: "timestamps", summary: "as time-wait, but with TCP timestamps: no trouble" },
        Variant { name: "other-port", summary: "as open, but from another port: no trouble" },
    ],
    make: |variant, options| Ok(Box::new(ConnectionExists::new(variant, &options)?)),
};

const TRIES: u32 = 3;
/// Below the ephemeral range: the n-th kind's server, and its client's own port.
const SERVER: u16 = 8100;
const CLIENT: u16 = 2020;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TimeWait,
    Closing,
    Open,
    /// No trouble.
    Timestamps,
    /// No trouble.
    OtherPort,
}

const KINDS: [Kind; 5] = [Kind::TimeWait, Kind::Closing, Kind::Open, Kind::Timestamps, Kind::OtherPort];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::TimeWait => "time-wait",
            Self::Closing => "closing",
            Self::Open => "open",
            Self::Timestamps => "timestamps",
            Self::OtherPort => "other-port",
        }
    }

    fn is_trouble(self) -> bool {
        matches!(self, Self::TimeWait | Self::Closing | Self::Open)
    }

    /// What the connection that exists is in.
    fn state(self) -> &'static str {
        match self {
            Self::TimeWait | Self::Timestamps => "time-wait",
            Self::Closing => "fin-wait-2",
            Self::Open | Self::OtherPort => "established",
        }
    }

    fn offset(self) -> u16 {
        KINDS.into_iter().zip(0..).find(|(kind, _)| *kind == self).map_or(0, |(_, offset)| offset)
    }
}

struct ConnectionExists {
    variant: &'static Variant,
    family: Family,
    kinds: Vec<Kind>,
    /// Before the stage: actors go first.
    actors: Vec<Actor>,
    stage: Stage,
}

impl ConnectionExists {
    fn new(variant: &'static Variant, options: &Options) -> Result<Self> {
        let stage = options.stage(Layout::Loopback)?;
        let kinds: Vec<Kind> = match variant.name {
            "every" => KINDS.into_iter().filter(|kind| kind.is_trouble()).collect(),
            name => KINDS.into_iter().filter(|kind| kind.name() == name).collect(),
        };
        let timestamps = kinds.contains(&Kind::Timestamps);
        stage.set_sysctl("net.ipv4.tcp_timestamps", u8::from(timestamps))?;
        Ok(Self { variant, family: options.family, kinds, actors: Vec::new(), stage })
    }

    /// A connection, and attempts to make it again; what must be said of them.
    fn fail(&mut self, kind: Kind) -> Result<Option<Expectation>> {
        let stage = &self.stage;
        let (server_port, port) = (SERVER + kind.offset(), CLIENT + kind.offset());
        let to = self.family.call(stage, server_port);
        let from = SocketAddr::new(to.ip(), port);
        let redial = |times, keep| Order::Redial(Redial { from, to, times, gap_ms: 100, keep });
        let mut server = stage.start_server("tt-server")?;
        let order = Bind { reuseaddr: true, backlog: Some(16), ..Bind::to(self.family.any(server_port)) };
        let bound: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        if bound.iter().any(|attempt| attempt.errno.is_some()) {
            return Err(Error::NotStaged(format!("the server's bind came out as {bound:?}")));
        }
        let keeps = matches!(kind, Kind::Open | Kind::OtherPort);
        let mut first = stage.start_client(if keeps { "tt-holder" } else { "tt-client" })?;
        if !keeps && kind != Kind::Closing {
            server.ask::<()>(&Order::Serve { workers: 1 })?;
        }
        let made: Vec<i32> = first.ask(&redial(1, keeps))?;
        if made != [0] {
            return Err(Error::NotStaged(format!("the first connection came out as {made:?}")));
        }
        if keeps || kind == Kind::Closing {
            server.ask::<()>(&Order::AcceptOne)?;
        } else {
            stage.await_that("the first connection is in TIME_WAIT", || stage.in_time_wait(port))?;
        }
        if kind == Kind::Closing {
            stage.await_that("its peer has acknowledged the close", || {
                stage.is_in_state(port, counters::FIN_WAIT2)
            })?;
        }
        // Who has the connection: another process, or none any more.
        let (holder, mut client) =
            if keeps { (Some(first), stage.start_client("tt-client")?) } else { (None, first) };
        let again = match kind {
            Kind::OtherPort => {
                let from = SocketAddr::new(to.ip(), port + 100);
                Order::Redial(Redial { from, to, times: 1, gap_ms: 0, keep: true })
            }
            // It takes over what is in TIME_WAIT, and is kept.
            Kind::Timestamps => redial(1, true),
            _ => redial(TRIES, false),
        };
        let answers: Vec<i32> = client.ask(&again)?;
        let expected = if kind.is_trouble() { libc::EADDRNOTAVAIL } else { 0 };
        if answers.iter().any(|errno| *errno != expected) {
            return Err(Error::NotStaged(format!("connecting again came out as {answers:?}")));
        }
        let held = match &holder {
            Some(holder) => Party::of(holder.identity(), "process", from),
            None => Party { kind: "process", address: Some(from), ..Party::default() },
        };
        let expectation = kind.is_trouble().then(|| Expectation {
            requester: Some(Party::of(client.identity(), "process", from).connected_to(to)),
            holder: Some(held.connected_to(to).in_state(kind.state())),
            ..Expectation::about(ENTRY.name, kind.name(), Party::port(from).connected_to(to))
                .needing(observation::CONNECTION_EXISTS)
        });
        self.actors.extend([server, client].into_iter().chain(holder));
        Ok(expectation)
    }
}

impl Incident for ConnectionExists {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let names: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
        format!(
            "tt-client connects from a port of its own to where such a connection leads already: {}.",
            names.join(", ")
        )
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        let mut expect = Vec::new();
        for kind in self.kinds.clone() {
            expect.extend(self.fail(kind)?);
        }
        Ok(GroundTruth {
            actors: self.actors.iter().map(|actor| actor.identity().clone()).collect(),
            expect,
            facts: facts(json!({ "attempts": TRIES, "errno": "EADDRNOTAVAIL" })),
            counters: counters::growth(&before, &self.stage.settled_counters()?),
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }
}
