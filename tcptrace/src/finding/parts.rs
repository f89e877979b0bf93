//! What a finding is made of: the types that every finding, and whoever prints one, shares.

use schemars::JsonSchema;
use serde::Serialize;

use super::commands::{CommandLine, CommandPlace};
use super::{Evidence, ExplainedBy, Party, words};
use crate::command::{Inside, Standpoint};
use crate::correlate::Correlator;
use crate::event::Timestamp;

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
    pub(super) fn name_namespaces(&mut self, world: &Correlator) {
        for party in std::iter::once(&mut self.subject).chain(self.evidence.parties_mut()) {
            party.netns_name = party.netns.and_then(|netns| world.netns_name(netns)).map(str::to_owned);
        }
    }

    /// Where it is, if that is not the host's own place, whose network namespace is `home`: `docker:4c01db0b339c, netns blue (4026532943)`.
    pub(crate) fn place(&self, home: Option<u32>) -> Option<String> {
        let subject = &self.subject;
        let container = subject.process.as_ref().and_then(|process| process.container.clone());
        let elsewhere = subject.netns.filter(|netns| home.is_some_and(|home| home != *netns));
        let netns = elsewhere.map(|number| words::netns(number, subject.netns_name.as_deref()));
        let places: Vec<String> = container.into_iter().chain(netns).collect();
        (!places.is_empty()).then(|| places.join(", "))
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
    pub(super) place: Option<CommandPlace>,
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
    pub(super) fn settle(&mut self, standpoint: Standpoint) {
        if let (Some(command), Some(place)) = (&mut self.command, self.place.take()) {
            let inside = Inside { netns: place.netns, pid: place.pid, name: None };
            *command = standpoint.inside(inside, command);
        }
    }
}
