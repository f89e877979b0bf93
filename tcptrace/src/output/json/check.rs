//! A risk as a line of `tcptrace check`.

use schemars::JsonSchema;
use serde::Serialize;

use super::finding::{EvidenceLine, RemedyLine};
use super::identity::{Netns, Subject};
use crate::check::Risk;
use crate::finding::Severity;
use crate::stock::Namespace;

/// A setting or listener that will hurt; `time` is when it was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RiskLine {
    /// What kind of risk; where a finding reports the same thing when it happens, its code.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The network namespace.
    pub netns: Netns,
    /// One sentence.
    pub title: String,
    /// Why it will hurt, and when.
    pub explanation: String,
    /// Listeners concerned.
    pub listeners: Vec<Subject>,
    /// What it rests on.
    pub evidence: EvidenceLine,
    /// What to do.
    pub remedy: Vec<RemedyLine>,
}

impl RiskLine {
    /// Of a risk in a namespace.
    pub fn of(namespace: &Namespace, risk: &Risk) -> Self {
        let netns = Netns::named(namespace.id, namespace.name.as_deref());
        let named = |party| Subject { netns: Some(netns.clone()), ..Subject::from(party) };
        Self {
            code: risk.code,
            severity: risk.severity,
            title: risk.title.clone(),
            explanation: risk.why.clone(),
            listeners: risk.listeners.iter().map(named).collect(),
            evidence: EvidenceLine::of(&risk.evidence),
            remedy: risk.remedy.iter().map(RemedyLine::from).collect(),
            netns,
        }
    }
}
