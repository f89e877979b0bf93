//! The answer of `tcptrace why` as lines.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::SummaryLine;
use super::finding::RemedyLine;
use super::identity::{Missing, Netns};
use crate::finding::Confidence;
use crate::why::{Answer, Facts, Found, Place, Step};

/// What was asked about, as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TargetLine {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// The answer for one address of the target.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct WhyLine {
    /// What was asked about.
    pub target: TargetLine,
    /// The address that this is about.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Namespace that it is asked for from.
    pub netns: Netns,
    /// Namespace of this host that has the address; null if none has.
    pub server_netns: Option<Netns>,
    /// Everything that was looked at, in the order in which a connection meets it.
    pub steps: Vec<StepLine>,
    /// Whether connections there are answered; null if nothing was seen either way.
    pub healthy: Option<bool>,
    /// The verdict's code: docs/why.md explains each.
    pub verdict: &'static str,
    /// How sure it is.
    pub confidence: Confidence,
    /// One sentence.
    pub title: String,
    /// What to do.
    pub remedy: Vec<RemedyLine>,
}

/// One candidate cause.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StepLine {
    /// What was looked at.
    pub name: &'static str,
    /// fine: it is not the cause. problem: it is a cause. answers: connections are known to be answered. unknown: it could not be
    /// looked at, or does not apply.
    pub found: &'static str,
    /// What was seen, in a sentence.
    pub title: String,
    /// The verdict that follows from this step alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// How sure that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remedy: Vec<RemedyLine>,
}

/// The answer all in all: of several addresses the decisive one's.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AnswerSummary {
    /// What was asked about.
    pub target: TargetLine,
    /// Whether connections there are answered; null if nothing was seen either way.
    pub healthy: Option<bool>,
    /// The verdict's code; no-address if the name stands for none.
    pub verdict: &'static str,
    /// How sure it is.
    pub confidence: Confidence,
    /// One sentence.
    pub title: String,
}

impl From<&Step> for StepLine {
    fn from(step: &Step) -> Self {
        let (found, verdict) = match &step.found {
            Found::Fine { .. } => ("fine", None),
            Found::Problem(verdict) => ("problem", Some(verdict)),
            Found::Answers(verdict) => ("answers", Some(verdict)),
            Found::Unknown { .. } => ("unknown", None),
        };
        Self {
            name: step.name,
            found,
            title: step.found.text().to_owned(),
            verdict: verdict.map(|verdict| verdict.verdict),
            confidence: verdict.map(|verdict| verdict.confidence),
            remedy: verdict.iter().flat_map(|verdict| &verdict.remedy).map(RemedyLine::from).collect(),
        }
    }
}

fn netns(of: &Place) -> Netns {
    Netns::named(of.netns, of.name.as_deref())
}

impl WhyLine {
    /// Of one address of `facts`.
    pub fn of(facts: &Facts, answer: &Answer) -> Self {
        let addresses = facts.addresses.as_deref().unwrap_or_default();
        let server =
            addresses.iter().find(|address| address.to == answer.address).and_then(|a| a.server.as_ref());
        Self {
            target: target(facts),
            address: answer.address.ip(),
            port: answer.address.port(),
            netns: netns(&facts.client),
            server_netns: server.map(netns),
            steps: answer.steps.iter().map(StepLine::from).collect(),
            healthy: answer.healthy,
            verdict: answer.verdict.verdict,
            confidence: answer.verdict.confidence,
            title: answer.verdict.text.clone(),
            remedy: answer.verdict.remedy.iter().map(RemedyLine::from).collect(),
        }
    }
}

fn target(facts: &Facts) -> TargetLine {
    TargetLine { host: facts.target.host.clone(), port: facts.target.port }
}

/// Of all answers; `decisive` is the one that counts, `None` if the name stands for no address.
pub fn summary(facts: &Facts, answers: &[Answer], decisive: Option<&Answer>) -> SummaryLine {
    let unresolved = facts.addresses.as_ref().err().map_or("", String::as_str);
    // The client's processes may have other files to resolve names by.
    let without = if facts.client.own { Confidence::Certain } else { Confidence::Likely };
    SummaryLine {
        command: "why",
        counts: SummaryLine::counts([("addresses", u64::try_from(answers.len()).unwrap_or(u64::MAX))]),
        missing: facts.gaps.iter().map(Missing::from).collect(),
        duration_s: facts.seen.as_ref().map(|seen| seen.span.as_secs_f64()),
        answer: Some(AnswerSummary {
            target: target(facts),
            healthy: decisive.map_or(Some(false), |answer| answer.healthy),
            verdict: decisive.map_or("no-address", |answer| answer.verdict.verdict),
            confidence: decisive.map_or(without, |answer| answer.verdict.confidence),
            title: decisive.map_or(unresolved, |answer| &answer.verdict.text).to_owned(),
        }),
        ..SummaryLine::default()
    }
}
