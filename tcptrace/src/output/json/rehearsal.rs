//! What a rehearsal made, and whether the findings said so, as a line.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::identity::{Container, Endpoint, Netns, Process};
use crate::event::ProcessDetails;
use crate::finding::Confidence;
use crate::rehearse::{GroundTruth, Party};

/// What really happened in a rehearsal, what a tracer must therefore report, and whether it did.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RehearsalLine {
    /// The incident.
    pub name: &'static str,
    /// Its variant.
    pub variant: &'static str,
    /// The network namespace it happened in.
    pub netns: Netns,
    /// Whether the findings said what was made, and nothing else; null where no tracer was asked.
    pub diagnosed: Option<bool>,
    /// What they got wrong.
    pub problems: Vec<String>,
    /// What was made and cannot be observed here, with the observation that it needs: no problem, and no diagnosis.
    pub not_observable: Vec<String>,
    /// How many findings were claimed as certain, be it for a moment, and are not so.
    pub false_certains: usize,
    /// The processes that played.
    pub actors: Vec<ActorLine>,
    /// Findings that must be reported, each exactly once.
    pub expect: Vec<ExpectLine>,
    /// For how many of these it may be unknown which process has the port.
    pub may_be_unknown: usize,
    /// Findings that are true as well, and may be reported.
    pub allow: Vec<AllowLine>,
    /// What `tcptrace why` must answer when it is asked after the play.
    pub why: Vec<QuestionLine>,
    /// What must not be reported.
    pub forbid: &'static str,
    /// What the kernel's counters of that namespace grew by.
    pub counters: BTreeMap<String, u64>,
    /// Numbers and settings of this play.
    pub facts: Map<String, Value>,
}

/// A process that played.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ActorLine {
    /// Its part in the incident.
    pub role: String,
    /// The process.
    pub process: Process,
}

/// A finding that must be reported.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ExpectLine {
    /// Its code.
    pub code: &'static str,
    /// Its cause.
    pub cause: &'static str,
    /// What it is about.
    pub subject: TruthLine,
    /// Whose bind() or listen() failed.
    pub requester: Option<TruthLine>,
    /// The socket that has the port.
    pub holder: Option<TruthLine>,
    /// The observation without which nothing can know: where it is not made, the finding may be missing.
    pub needs: Option<&'static str>,
    /// The highest confidence that is right; null: certain.
    pub at_most: Option<Confidence>,
    /// The least confidence that is right where everything is observed; null: any.
    pub at_least: Option<Confidence>,
}

/// A socket, a port or a process that a finding must name. Members that do not matter are left out; the others are those of a
/// finding's subject.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TruthLine {
    /// As in a finding's subject.
    pub kind: &'static str,
    /// Local address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Name of the device that its socket is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<&'static str>,
    /// Remote end of a holder's connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Endpoint>,
    /// State of a holder's socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<TruthProcess>,
}

/// A process that a finding must name, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TruthProcess {
    /// Process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Command name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Container that it runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// A finding that is true beside the expected ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AllowLine {
    /// Its code.
    pub code: &'static str,
    /// The server's port, where it is about that one only; null: whatever it is about.
    pub port: Option<u16>,
    /// Why it is true here.
    pub because: &'static str,
}

/// A question to `tcptrace why`, and the right answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct QuestionLine {
    /// The network namespace that it is asked from.
    pub from: Netns,
    /// What does not answer.
    pub target: Endpoint,
    /// The verdict.
    pub verdict: &'static str,
    /// Whether it is asked with a connection of its own (`--probe`).
    pub probe: bool,
}

impl From<&Party> for TruthLine {
    fn from(of: &Party) -> Self {
        let process = TruthProcess {
            pid: of.pid,
            comm: of.comm.clone(),
            command: of.command.clone(),
            container: Container::of(of.container.as_deref(), &ProcessDetails::default()),
        };
        let none = TruthProcess { pid: None, comm: None, command: None, container: None };
        Self {
            kind: of.kind,
            address: of.address.map(|address| address.ip()),
            port: of.address.map(|address| address.port()),
            device: of.device,
            remote: of.remote.map(Endpoint::from),
            state: of.state,
            process: (process != none).then_some(process),
        }
    }
}

impl From<&GroundTruth> for RehearsalLine {
    fn from(truth: &GroundTruth) -> Self {
        let allowed = truth.allow.iter().map(|of| (None, of));
        let at = truth.allow_at.iter().map(|of| (Some(of.port), &of.allowed));
        Self {
            name: truth.name,
            variant: truth.variant,
            netns: truth.netns.into(),
            diagnosed: None,
            problems: Vec::new(),
            not_observable: Vec::new(),
            false_certains: 0,
            actors: truth
                .actors
                .iter()
                .map(|actor| ActorLine {
                    role: actor.role.clone(),
                    process: Process {
                        command: Some(actor.command.clone()),
                        ..Process::named(Some(actor.pid), Some(&actor.comm))
                    },
                })
                .collect(),
            expect: truth
                .expect
                .iter()
                .map(|of| ExpectLine {
                    code: of.code,
                    cause: of.cause,
                    subject: TruthLine::from(&of.subject),
                    requester: of.requester.as_ref().map(TruthLine::from),
                    holder: of.holder.as_ref().map(TruthLine::from),
                    needs: of.needs,
                    at_most: of.at_most,
                    at_least: of.at_least,
                })
                .collect(),
            may_be_unknown: truth.may_be_unknown,
            allow: allowed
                .chain(at)
                .map(|(port, of)| AllowLine { code: of.code, port, because: of.because })
                .collect(),
            why: truth
                .why
                .iter()
                .map(|of| QuestionLine {
                    from: of.from.into(),
                    target: of.target.into(),
                    verdict: of.verdict,
                    probe: of.probe,
                })
                .collect(),
            forbid: truth.forbid,
            counters: truth.counters.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            facts: truth.facts.clone(),
        }
    }
}
