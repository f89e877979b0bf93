//! What a trace says beside its findings: what it observes, its events, what it lost, and what it came to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::finding::{EvidenceLine, of_keys};
use super::identity::{Endpoint, Missing, Netns, Process, Time};
use crate::correlate::{Reconciliation, ReconciliationStatus};
use crate::event::{Coverage, Lost, Observation};
use crate::finding::keys;
use crate::output::event_line::EventLine;
use crate::output::summary::{Counts, Summary};

/// What is observed, and what is not: the first line of a trace. `time` is when that began.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CoverageLine {
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// The processor's architecture, as `uname -m` names it; null in recordings made before it was kept.
    pub architecture: Option<String>,
    /// The highest kind of attachment in use: fexit, kprobe, tracepoint or none.
    pub tier: &'static str,
    /// Every observation that the tracer wants to make.
    pub observations: Vec<ObservationLine>,
    /// Everything that was asked for and leaves something out, as the user wrote it.
    pub filters: Vec<String>,
    /// What stands in the way of observing more.
    pub hindrances: Vec<String>,
    /// What is not observed, or not event by event.
    pub missing: Vec<Missing>,
}

/// How one kind of event is observed.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ObservationLine {
    /// What is observed.
    pub name: String,
    /// attached, polled or missing.
    pub status: &'static str,
    /// By what: the kind of attachment and its kernel function.
    pub via: String,
    /// Why not by anything better; null if it is the best way.
    pub reason: Option<String>,
}

impl From<&Observation> for ObservationLine {
    fn from(of: &Observation) -> Self {
        Self {
            name: of.name.clone(),
            status: of.status.name(),
            via: of.via.clone(),
            reason: of.reason.clone(),
        }
    }
}

impl From<&Coverage> for CoverageLine {
    fn from(of: &Coverage) -> Self {
        let attached = crate::event::ObservationStatus::Attached;
        let missing = of.observations.iter().filter(|observation| observation.status != attached);
        let why = |observation: &Observation| {
            let reason = observation.reason.as_deref().unwrap_or("");
            let status = observation.status.name();
            if reason.is_empty() { status.to_owned() } else { format!("{status}: {reason}") }
        };
        Self {
            kernel: of.kernel.clone(),
            architecture: Some(of.architecture.clone()).filter(|name| !name.is_empty()),
            tier: of.tier.name(),
            observations: of.observations.iter().map(ObservationLine::from).collect(),
            filters: of.scope.iter().chain(&of.filters).cloned().collect(),
            hindrances: of.hindrances.clone(),
            missing: missing.map(|of| Missing { what: of.name.clone(), why: why(of) }).collect(),
        }
    }
}

/// Events that were lost. `time` is the end of the span in which they were.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LostLine {
    /// What was lost: the kind of event.
    pub what: String,
    /// How many.
    pub count: u64,
    /// Where: ring-buffer, kernel-table, probe, preempted, decode, user-table, output or recording.
    #[serde(rename = "where")]
    pub place: &'static str,
    /// Not before this.
    pub from: Time,
    /// Not after this.
    pub to: Time,
}

impl From<&Lost> for LostLine {
    fn from(of: &Lost) -> Self {
        Self {
            what: of.what.clone(),
            count: of.count,
            place: of.place.name(),
            from: of.from.into(),
            to: of.to.into(),
        }
    }
}

/// An event that the kernel side reported (`--events`, `--all`).
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct EventOutput {
    /// What kind of event.
    pub event: &'static str,
    /// Network namespace.
    pub netns: Netns,
    /// The process that acted, or that has the listener; null if neither is known.
    pub process: Option<Process>,
    /// Local end.
    pub local: Endpoint,
    /// Remote end.
    pub remote: Option<Endpoint>,
    /// What the kind of event adds.
    pub facts: FactsLine,
}

/// What a kind of event adds.
#[derive(Clone, Debug, PartialEq)]
pub struct FactsLine(EvidenceLine);

impl Serialize for FactsLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for FactsLine {
    fn schema_name() -> Cow<'static, str> {
        "Facts".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = of_keys(keys::FACTS.iter().map(|(key, _)| key), generator);
        schema.insert(
            "description".into(),
            "What a kind of event adds; which keys depends on the event.".into(),
        );
        schema
    }
}

impl From<&EventLine> for EventOutput {
    fn from(of: &EventLine) -> Self {
        Self {
            event: of.event,
            netns: Netns::named(of.netns, of.netns_name.as_deref()),
            process: of.process.as_ref().map(Process::of),
            local: of.local.into(),
            remote: of.remote.map(Endpoint::from),
            facts: FactsLine(EvidenceLine::of(&of.facts)),
        }
    }
}

/// The last line of a command: what it came to. Every command's has `command`, `counts`, `filters` and `missing`; the other
/// members are there where they apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct SummaryLine {
    /// Which command: watch, replay, rehearse, report, listeners, ports, who, check, why or probes.
    pub command: &'static str,
    /// How many of what, by name.
    pub counts: BTreeMap<String, u64>,
    /// Everything that was asked for and leaves something out, as the user wrote it: what is counted is that and nothing else.
    pub filters: Vec<String>,
    /// What could not be looked at or was not observed, and why.
    pub missing: Vec<Missing>,
    /// How long was traced, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// Traces: what was seen, found and lost, and whether it adds up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceSummary>,
    /// `why`: the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<super::why::AnswerSummary>,
    /// `who`: by what the owners of sockets were found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owners_via: Option<String>,
    /// Recordings: whether nothing of it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
}

/// What a trace came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct TraceSummary {
    /// Events that the kernel side reported, by kind.
    pub events: BTreeMap<String, u64>,
    /// Findings that were opened, by code.
    pub findings: BTreeMap<String, u64>,
    /// Events that were lost, by kind.
    pub lost: BTreeMap<String, u64>,
    /// What was forgotten because there was too much to remember; findings that were not reported because there were too many.
    pub forgotten: BTreeMap<String, u64>,
    /// Our counts beside the kernel's.
    pub reconciliation: Vec<ReconciliationLine>,
}

/// Whether our count of something equals the kernel's.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ReconciliationLine {
    /// Network namespace.
    pub netns: Netns,
    /// The kernel's name of the counter (`/proc/net/netstat`, `/proc/net/snmp`).
    pub counter: &'static str,
    /// What the kernel counted meanwhile.
    pub kernel: u64,
    /// What was seen; null where it cannot be seen.
    pub observed: Option<u64>,
    /// How they compare.
    pub status: ReconciliationStatus,
    /// Why they differ, or may differ.
    pub reason: Option<String>,
    /// The observations that our count rests on.
    pub observations: Vec<&'static str>,
}

impl From<&Reconciliation> for ReconciliationLine {
    fn from(of: &Reconciliation) -> Self {
        Self {
            netns: Netns::named(of.netns, of.netns_name.as_deref()),
            counter: of.counter,
            kernel: of.kernel,
            observed: of.observed,
            status: of.status,
            reason: of.reason.clone(),
            observations: of.observations.clone(),
        }
    }
}

impl SummaryLine {
    /// Of a trace.
    pub fn of_trace(command: &'static str, of: &Summary) -> Self {
        let map = |counts: &Counts| counts.0.iter().cloned().collect::<BTreeMap<String, u64>>();
        let total = |counts: &Counts| counts.0.iter().map(|(_, count)| count).sum::<u64>();
        let counts =
            [("events", total(&of.events)), ("findings", total(&of.findings)), ("lost", total(&of.lost))];
        Self {
            command,
            counts: Self::counts(counts),
            filters: of.filters.clone(),
            missing: of.missing.clone(),
            duration_s: Some((of.duration.as_secs_f64() * 1000.0).round() / 1000.0),
            trace: Some(TraceSummary {
                events: map(&of.events),
                findings: map(&of.findings),
                lost: map(&of.lost),
                forgotten: map(&of.forgotten),
                reconciliation: of.reconciliation.iter().map(ReconciliationLine::from).collect(),
            }),
            ..Self::default()
        }
    }

    /// Names and numbers.
    pub fn counts(of: impl IntoIterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
        of.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }
}
