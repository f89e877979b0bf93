//! A finding that another one explains refers to it and gives no remedy of its own: what to change is said once, where the
//! cause is. Two remedies for one trouble would send the reader to the wrong place.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::event::Timestamp;

use super::evidence::Value;
use super::{Finding, Severity, State};

/// The finding that explains another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedBy {
    /// Its number.
    pub id: u64,
    /// What kind of finding it is.
    pub code: &'static str,
    /// Its subject, for people.
    pub headline: String,
    /// How bad it is.
    pub severity: Severity,
}

/// What is seen of a trouble at one end, and the findings that say why, if they are about the same server.
const EXPLAINED: &[(&str, &[&str])] = &[
    (
        "syn-unanswered",
        &["accept-queue-overflow", "syn-queue-full", "half-open-capture", "handshake-dropped"],
    ),
    ("connect-refused", &["handshake-dropped", "no-listener"]),
    // A final ACK or a SYN-ACK that this host drops leaves requests half-open.
    ("half-open-capture", &["handshake-dropped"]),
];

fn explaining(code: &str) -> &'static [&'static str] {
    EXPLAINED.iter().find(|(explained, _)| *explained == code).map_or(&[], |(_, by)| *by)
}

/// The open findings that explain others, or may be explained.
#[derive(Debug, Default)]
pub(super) struct Explanations {
    open: BTreeMap<u64, Finding>,
}

impl Explanations {
    /// Takes in a finding that is about to be reported: it refers to what explains it; and what it explains itself is reported
    /// once more, as updated.
    pub(super) fn report(&mut self, mut finding: Finding, mut report: impl FnMut(Finding)) {
        let by = explaining(finding.code);
        let explains = EXPLAINED.iter().any(|(_, by)| by.contains(&finding.code));
        if by.is_empty() && !explains {
            return report(finding);
        }
        // Once explained, it stays so: its explanation may be over first.
        let before = self.open.get(&finding.id).and_then(|known| known.explained_by.clone());
        let found = || {
            let mut others = self.open.values().filter(|other| by.contains(&other.code));
            others.find(|other| are_about_the_same_server(&finding, other)).map(explanation)
        };
        if let Some(by) = before.or_else(found) {
            refer(&mut finding, by);
        }
        if finding.state == State::Closed {
            self.open.remove(&finding.id);
        } else {
            self.open.insert(finding.id, finding.clone());
        }
        report(finding.clone());
        // A finding may come to be about its server only later, when it learns more.
        if explains && finding.state != State::Closed {
            self.refer_to(&finding, finding.time, report);
        }
    }

    /// Those that `finding` explains, and that nothing did yet, refer to it from now on.
    fn refer_to(&mut self, finding: &Finding, now: Timestamp, mut report: impl FnMut(Finding)) {
        for other in self.open.values_mut() {
            let explained = other.explained_by.is_none()
                && explaining(other.code).contains(&finding.code)
                && are_about_the_same_server(other, finding);
            if explained {
                refer(other, explanation(finding));
                other.state = State::Updated;
                other.time = now;
                report(other.clone());
            }
        }
    }
}

fn explanation(by: &Finding) -> ExplainedBy {
    ExplainedBy { id: by.id, code: by.code, headline: by.headline(), severity: by.severity }
}

/// No worse than what explains it, which says how bad it is.
fn refer(finding: &mut Finding, by: ExplainedBy) {
    finding.remedy.clear();
    finding.severity = finding.severity.min(by.severity);
    finding.explained_by = Some(by);
}

/// Whether two findings are about one server: they name the same address and port of it. A wildcard is no match for an address
/// that it may cover, which may as well be another host's; nor is an address of another network namespace where both are known.
fn are_about_the_same_server(one: &Finding, other: &Finding) -> bool {
    let known: Vec<Server> = servers_of(other).collect();
    servers_of(one).any(|server| known.iter().any(|other| server.is(other)))
}

/// Where clients call a server.
#[derive(Clone, Copy)]
struct Server {
    address: SocketAddr,
    /// The namespace that has the address; `None` if the finding has seen the calling side only.
    netns: Option<u32>,
}

impl Server {
    fn is(&self, other: &Self) -> bool {
        let (here, there) = (self.address, other.address);
        let same_place = match (self.netns, other.netns) {
            (Some(here), Some(there)) => here == there,
            _ => !here.ip().is_unspecified() && !here.ip().to_canonical().is_loopback(),
        };
        here.port() == there.port() && here.ip().to_canonical() == there.ip().to_canonical() && same_place
    }
}

/// The servers that a finding is about: its subject, and `server` or `servers` in its evidence.
fn servers_of(finding: &Finding) -> impl Iterator<Item = Server> {
    let subject = &finding.subject;
    // A destination is called from the subject's namespace; on a loopback address that is the server's as well.
    let of_subject = subject.address.map(|address| {
        let elsewhere = subject.kind == "destination" && !address.ip().to_canonical().is_loopback();
        Server { address, netns: subject.netns.filter(|_| !elsewhere) }
    });
    let named = match finding.evidence.get("server").or(finding.evidence.get("server_address")) {
        Some(Value::Endpoint(address)) => {
            Some(Server { address: *address, netns: of_subject.and_then(|subject| subject.netns) })
        }
        Some(Value::Party(party)) => party.address.map(|address| Server { address, netns: party.netns }),
        _ => None,
    };
    // The port that is called, where a program or rule chose the listener for it.
    let called = match finding.evidence.get("steered_from") {
        Some(Value::Endpoint(address)) => Some(*address),
        _ => None,
    };
    let called = called.map(|address| Server { address, netns: subject.netns });
    // What hits many servers alike names them in a list.
    let several = match finding.evidence.get("servers") {
        Some(Value::Parties(parties)) => parties.as_slice(),
        _ => &[],
    };
    let several = several.iter().filter_map(|p| Some(Server { address: p.address?, netns: p.netns }));
    of_subject.into_iter().chain(named).chain(called).chain(several)
}

#[cfg(test)]
mod tests;
