//! One file per finding: when it opens, updates and closes, its sentence, its evidence, its remedy.
//!
//! A finding implements `Diagnosis` (`case.rs`), which gives it its life: opened once, updated at most once a second,
//! closed when quiet or at the end. To add one: copy a file, and name it in [`Engine::default`].

mod accept_failed;
mod accept_queue_overflow;
mod accept_stall;
mod agree;
mod backlog_truncated;
mod bind_conflict;
mod bind_refused;
mod case;
mod cause;
mod commands;
mod connect_refused;
mod connection_exists;
mod destination;
mod events_lost;
mod evidence;
mod explained;
mod half_open_capture;
mod handshake_dropped;
pub mod keys;
mod listener_closed;
mod no_listener;
pub(crate) mod own_words;
mod owner_state;
mod page;
mod party;
mod port_exhaustion;
mod port_grab_risk;
mod port_leak;
mod queue_limit;
mod reuseport_imbalance;
mod slow_accept;
mod syn_queue_full;
mod syn_unanswered;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod words;

pub use agree::contradictions;
pub use cause::{Apart, CauseRule};
pub use evidence::{Evidence, Value};
pub use explained::ExplainedBy;
pub use keys::Key;
pub use page::{explained, page};
pub use party::{NetworkFacts, Party, ProcessName, SocketFacts};
pub(crate) use party::{at_device, serving};
pub(crate) use queue_limit::{QueueLimit, SetBy};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::command::{Inside, Standpoint};
use crate::correlate::{Change, Correlator, Thresholds};
use crate::event::{Event, Timestamp};

use case::{Cases, Detector, Reporter};
use commands::{CommandLine, CommandPlace};
use explained::Explanations;

/// A diagnosis: what is wrong, with whom, why, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its number, from 1; the same in all reports of one finding.
    pub id: u64,
    /// What kind of finding.
    pub code: &'static str,
    /// Whether it is new.
    pub state: State,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// The finding that explains this one, which then has no remedy of its own.
    pub explained_by: Option<ExplainedBy>,
    /// When this was said.
    pub time: Timestamp,
    /// One sentence.
    pub title: String,
    /// What it is about.
    pub subject: Party,
    /// The cause's code.
    pub cause: &'static str,
    /// What it rests on.
    pub evidence: Evidence,
    /// What to do.
    pub remedy: Vec<Remedy>,
    /// The numbers in words, for people.
    pub numbers: Vec<String>,
    /// The cause in words, for people.
    pub explanation: String,
}

impl Finding {
    /// Adds the names of the namespaces that it is about.
    fn name_namespaces(&mut self, world: &Correlator) {
        for party in std::iter::once(&mut self.subject).chain(self.evidence.parties_mut()) {
            party.netns_name = party.netns.and_then(|netns| world.netns_name(netns)).map(str::to_owned);
        }
    }

    /// Its subject for a headline: `delegated[6039] 0.0.0.0:1080`; for a port the sentence itself, which names everybody.
    pub fn headline(&self) -> String {
        match self.subject.process {
            Some(_) => self.subject.to_string(),
            None => self.title.clone(),
        }
    }
}

/// Where in its life a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// New.
    Opened,
    /// Still so, with new numbers.
    Updated,
    /// Over; these are its final numbers.
    Closed,
}

impl State {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Closed => "closed",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// It may hurt.
    Warning,
    /// Connections fail, or a service does not start.
    Critical,
}

impl Severity {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// How sure a finding is of its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// One of several explanations that cannot be told apart here.
    Possible,
    /// Something that it rests on was not observed.
    Likely,
    /// Everything that it rests on was observed.
    Certain,
}

impl Confidence {
    /// From the least to the most.
    pub const ALL: [Self; 3] = [Self::Possible, Self::Likely, Self::Certain];

    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// Something to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// What, in words.
    pub text: String,
    /// The command that does it, where there is one.
    pub command: Option<String>,
    /// Whether it names what is not to be changed: a setting that people try, and that is not the limit.
    pub not: bool,
    /// Where the command is to run, until the way there is part of it.
    place: Option<CommandPlace>,
}

impl Remedy {
    /// In words only.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), command: None, not: false, place: None }
    }

    /// What is not to be changed, since it is not the limit.
    pub(crate) fn not(text: impl Into<String>) -> Self {
        Self { not: true, ..Self::text(text) }
    }

    /// With the command that does it.
    pub(crate) fn command(text: impl Into<String>, command: impl Into<CommandLine>) -> Self {
        let CommandLine { line, place } = command.into();
        Self { text: text.into(), command: Some(line), not: false, place }
    }

    /// Adds the way to where the command is to run.
    fn settle(&mut self, standpoint: Standpoint) {
        if let (Some(command), Some(place)) = (&mut self.command, self.place.take()) {
            let inside = Inside { netns: place.netns, pid: place.pid, name: None };
            *command = standpoint.inside(inside, command);
        }
    }
}

/// From events to findings: correlation, and every finding there is.
pub struct Engine {
    world: Correlator,
    detectors: Vec<Box<dyn Detector>>,
    explanations: Explanations,
    last_id: u64,
    opened: BTreeMap<&'static str, u64>,
    /// Of the event in work; kept for its memory.
    changes: Vec<Change>,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            world: Correlator::default(),
            // What an overflow tells of as well comes before it: it closes when that opens.
            detectors: vec![
                Box::new(Cases::new(accept_failed::AcceptFailed)),
                Box::new(Cases::new(accept_stall::AcceptStall)),
                Box::new(Cases::new(slow_accept::SlowAccept)),
                Box::new(Cases::new(accept_queue_overflow::AcceptQueueOverflow::default())),
                Box::new(Cases::new(backlog_truncated::BacklogTruncated::default())),
                Box::new(Cases::new(bind_conflict::BindConflict::default())),
                Box::new(Cases::new(events_lost::EventsLost)),
                Box::new(Cases::new(half_open_capture::HalfOpenCapture)),
                Box::new(Cases::new(listener_closed::ListenerClosed)),
                Box::new(Cases::new(port_exhaustion::PortExhaustion)),
                Box::new(Cases::new(port_grab_risk::PortGrabRisk::default())),
                Box::new(Cases::new(port_leak::PortLeak)),
                Box::new(Cases::new(reuseport_imbalance::ReuseportImbalance)),
                Box::new(Cases::new(syn_queue_full::SynQueueFull)),
                Box::new(Cases::new(syn_unanswered::SynUnanswered)),
                Box::new(Cases::new(connect_refused::ConnectRefused)),
                Box::new(Cases::new(no_listener::NoListener)),
                Box::new(Cases::new(handshake_dropped::HandshakeDropped)),
                Box::new(Cases::new(bind_refused::BindRefused::default())),
                Box::new(Cases::new(connection_exists::ConnectionExists::default())),
            ],
            explanations: Explanations::default(),
            last_id: 0,
            opened: BTreeMap::new(),
            changes: Vec::new(),
        }
    }
}

impl Engine {
    /// Reports from these thresholds on.
    pub fn with(thresholds: Thresholds) -> Self {
        Self { world: Correlator::with(thresholds), ..Self::default() }
    }

    /// For a question about one server: a single packet that is dropped, or connect that is refused, is an answer to it.
    pub fn of_one_server() -> Self {
        let mut engine = Self::default();
        engine.world.report_each();
        engine
    }

    /// Takes in an event; hands every finding that was opened, updated or closed by it to `report`.
    pub fn on_event(&mut self, event: &Event, mut report: impl FnMut(Finding)) {
        self.changes.clear();
        self.world.on_event(event, &mut self.changes);
        let (opened, explanations, world) = (&mut self.opened, &mut self.explanations, &self.world);
        let standpoint = world.standpoint();
        let mut count_and_report = |mut finding: Finding| {
            for remedy in &mut finding.remedy {
                remedy.settle(standpoint);
            }
            finding.name_namespaces(world);
            if finding.state == State::Opened {
                *opened.entry(finding.code).or_default() += 1;
            }
            explanations.report(finding, &mut report);
        };
        let mut reporter = Reporter { last_id: &mut self.last_id, report: &mut count_and_report };
        for change in &self.changes {
            for detector in &mut self.detectors {
                detector.on_change(change, world, &mut reporter);
            }
        }
    }

    /// What is known from the events so far.
    pub fn world(&self) -> &Correlator {
        &self.world
    }

    /// How many findings of each code were opened.
    pub fn opened(&self) -> &BTreeMap<&'static str, u64> {
        &self.opened
    }

    /// The codes of all findings that it can make.
    pub fn codes(&self) -> impl Iterator<Item = &'static str> {
        self.detectors.iter().map(|detector| detector.code())
    }

    /// The causes that each finding can name, with what each rests on.
    pub fn causes(&self) -> impl Iterator<Item = (&'static str, &'static [CauseRule])> {
        self.detectors.iter().map(|detector| (detector.code(), detector.causes()))
    }

    /// How many findings of each code were not told because too many were open.
    pub fn untold(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.detectors.iter().map(|detector| (detector.code(), detector.untold()));
        counts.filter(|(_, untold)| *untold > 0)
    }
}

#[cfg(test)]
mod tests;
