//! What really happened in an incident, and what a tracer must therefore say: the JSON line that findings are judged by.

use std::net::SocketAddr;

use serde_json::{Map, Value};

use super::actor::Identity;
use super::counters::Counters;
use crate::finding::Confidence;

/// What an incident's play amounted to.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundTruth {
    /// The incident.
    pub name: &'static str,
    /// Its variant.
    pub variant: &'static str,
    /// The namespace it happened in.
    pub netns: u32,
    /// The processes that played.
    pub actors: Vec<Identity>,
    /// Findings that must be reported, each exactly once.
    pub expect: Vec<Expectation>,
    /// For how many of these it may be unknown who has the port; to name a wrong one is never right.
    pub may_be_unknown: usize,
    /// Findings that are true as well, and may be reported.
    pub allow: Vec<Allowed>,
    /// Findings about one port that are true as well.
    pub allow_at: Vec<AllowedAt>,
    /// What `tcptrace why` must answer when it is asked after the play.
    pub why: Vec<Question>,
    /// What must not be reported.
    pub forbid: &'static str,
    /// What the kernel's counters of that namespace grew by.
    pub counters: Counters,
    /// Numbers and settings of this play.
    pub facts: Map<String, Value>,
}

impl GroundTruth {
    /// A play of this incident of which nothing has been said yet.
    pub(super) fn of(name: &'static str, variant: &'static str, netns: u32) -> Self {
        Self {
            name,
            variant,
            netns,
            actors: Vec::new(),
            expect: Vec::new(),
            may_be_unknown: 0,
            allow: Vec::new(),
            allow_at: Vec::new(),
            why: Vec::new(),
            forbid: "any other finding",
            counters: Counters::new(),
            facts: Map::new(),
        }
    }

    /// What is right with the observations that are made here: causes that cannot be told without another one are replaced.
    pub fn settle(&mut self, observes: impl Fn(&str) -> bool) {
        for expected in &mut self.expect {
            if let Some(without) = expected.without.filter(|without| !observes(without.observation)) {
                expected.cause = without.cause;
            }
        }
    }

    /// The truth as one line of JSON, without the line's end.
    pub fn to_json(&self) -> String {
        crate::output::json_text(&crate::output::json::RehearsalLine::from(self))
    }
}

/// A finding that must be reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// Its code.
    pub code: &'static str,
    /// Its cause.
    pub cause: &'static str,
    /// What it is about.
    pub subject: Party,
    /// Whose bind() or listen() failed.
    pub requester: Option<Party>,
    /// Who has the port.
    pub holder: Option<Party>,
    /// The observation without which nobody can know: where it is not made, the finding may be missing.
    pub needs: Option<&'static str>,
    /// What is right instead where an observation is not made.
    pub without: Option<Without>,
    /// The highest confidence that is right: more would leave out an explanation that fits as well. None: certain.
    pub at_most: Option<Confidence>,
    /// The least confidence that is right where everything is observed (the full tiers). None: any.
    pub at_least: Option<Confidence>,
}

impl Expectation {
    /// A finding about a listening socket.
    pub(super) fn about(code: &'static str, cause: &'static str, subject: Party) -> Self {
        Self {
            code,
            cause,
            subject,
            requester: None,
            holder: None,
            needs: None,
            without: None,
            at_most: None,
            at_least: None,
        }
    }

    /// Where `observation` is not made, the finding cannot be there; it may be missing.
    pub(super) fn needing(self, observation: &'static str) -> Self {
        Self { needs: Some(observation), ..self }
    }

    /// Where `observation` is not made, `cause` is right: this one cannot be told from others there.
    pub(super) fn or_without(self, observation: &'static str, cause: &'static str) -> Self {
        Self { without: Some(Without { observation, cause }), ..self }
    }

    /// Claiming more than this is false.
    pub(super) fn at_most(self, confidence: Confidence) -> Self {
        Self { at_most: Some(confidence), ..self }
    }

    /// Where everything is observed, less than this is too little.
    pub(super) fn at_least(self, confidence: Confidence) -> Self {
        Self { at_least: Some(confidence), ..self }
    }
}

/// What is right where a cause cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Without {
    /// The observation that is not made.
    pub observation: &'static str,
    /// The right cause then.
    pub cause: &'static str,
}

/// A finding that is true beside the expected ones, depending on where the tracer puts its thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Its code.
    pub code: &'static str,
    /// Why it is true here.
    pub because: &'static str,
}

/// An [`Allowed`] about one port, where several incidents are played at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedAt {
    /// The server's port.
    pub port: u16,
    /// The finding.
    pub allowed: Allowed,
}

/// A question to `tcptrace why`, and the right answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The network namespace that it is asked from.
    pub from: u32,
    /// What does not answer.
    pub target: SocketAddr,
    /// The verdict.
    pub verdict: &'static str,
    /// Whether it is asked with a connection of its own (`--probe`).
    pub probe: bool,
}

/// A socket, a port or a process that a finding must name; what is absent does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Party {
    /// As in a finding's subject: listener, port, process…
    pub kind: &'static str,
    /// Local address.
    pub address: Option<SocketAddr>,
    /// Remote address of a holder's connection.
    pub remote: Option<SocketAddr>,
    /// Process id, in our own pid namespace.
    pub pid: Option<u32>,
    /// Command name.
    pub comm: Option<String>,
    /// Command line.
    pub command: Option<String>,
    /// Container that it runs in.
    pub container: Option<String>,
    /// Name of the device that its socket is bound to.
    pub device: Option<&'static str>,
    /// Socket state of a holder: established, listen, bound, time-wait.
    pub state: Option<&'static str>,
}

impl Party {
    /// A socket of an actor.
    pub(super) fn of(actor: &Identity, kind: &'static str, address: SocketAddr) -> Self {
        Self {
            kind,
            address: Some(address),
            pid: Some(actor.pid),
            comm: Some(actor.comm.clone()),
            command: Some(actor.command.clone()),
            ..Self::default()
        }
    }

    /// A port, whoever has it.
    pub(super) fn port(address: SocketAddr) -> Self {
        Self { kind: "port", address: Some(address), ..Self::default() }
    }

    pub(super) fn connected_to(mut self, remote: SocketAddr) -> Self {
        self.remote = Some(remote);
        self
    }

    pub(super) fn on_device(mut self, device: Option<&'static str>) -> Self {
        self.device = device;
        self
    }

    pub(super) fn in_state(mut self, state: &'static str) -> Self {
        self.state = Some(state);
        self
    }
}
