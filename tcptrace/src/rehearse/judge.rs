//! Whether the findings of a trace say what the rehearsal made: every expected finding, with its cause and its people, and
//! nothing else.

use std::collections::BTreeMap;

use serde_json::Value;

use super::truth::{Expectation, GroundTruth, Party};

/// The last word of each finding, collected while tracing.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<u64, Value>);

impl Claims {
    /// Takes in a finding as JSON output has it; a later state of the same finding replaces an earlier one.
    pub fn note(&mut self, finding: Value) {
        if let Some(id) = finding.get("id").and_then(Value::as_u64) {
            self.0.insert(id, finding);
        }
    }

    /// What is wrong with them, one sentence each; empty when the incident was diagnosed.
    pub fn judge(&self, truth: &GroundTruth) -> Vec<String> {
        let mut problems = Vec::new();
        let mut answered: Vec<u64> = Vec::new();
        for expected in &truth.expect {
            let same_code: Vec<(&u64, &Value)> =
                self.0.iter().filter(|(_, claim)| claim.get("code") == Some(&expected.code.into())).collect();
            let right = same_code.iter().find(|(_, claim)| mismatch(expected, claim).is_none());
            match (right, same_code.first()) {
                (Some((id, _)), _) => answered.push(**id),
                (None, Some((id, claim))) => {
                    answered.push(**id);
                    let what = mismatch(expected, claim).unwrap_or_default();
                    problems.push(format!("{}: {what}", expected.code));
                }
                (None, None) => {
                    problems.push(format!("{} ({}) was not found", expected.code, expected.cause));
                }
            }
        }
        for (id, claim) in &self.0 {
            let code = claim.get("code").and_then(Value::as_str).unwrap_or("?");
            let allowed = truth.allow.iter().any(|allowed| allowed.code == code);
            if !answered.contains(id) && !allowed && !is_other_end(claim, truth) {
                let title = claim.get("title").and_then(Value::as_str).unwrap_or("");
                problems.push(format!("{code} was claimed, and is not so: {title}"));
            }
        }
        problems
    }
}

/// Whether it tells of a client whose SYNs a listener drops that an expected finding is about: the same incident, seen from
/// its other end.
fn is_other_end(claim: &Value, truth: &GroundTruth) -> bool {
    let text = |pointer| claim.pointer(pointer).and_then(Value::as_str);
    let server = text("/evidence/server/address");
    text("/code") == Some("syn-unanswered")
        && text("/cause") == Some("local-drop")
        && truth.expect.iter().any(|expected| {
            expected.subject.kind == "listener"
                && expected.subject.address.map(|address| address.to_string()).as_deref() == server
        })
}

/// What a claim gets wrong; `None` if it is right.
fn mismatch(expected: &Expectation, claim: &Value) -> Option<String> {
    let cause = claim.get("cause").and_then(Value::as_str).unwrap_or("none");
    if cause != expected.cause {
        return Some(format!("the cause is {}, and {cause} was claimed", expected.cause));
    }
    if let Some(problem) = party("subject", &expected.subject, claim.get("subject")) {
        return Some(problem);
    }
    let evidence = claim.get("evidence");
    if let Some(requester) = &expected.requester {
        let said = evidence.and_then(|e| e.get("requester"));
        if let Some(problem) = party("requester", requester, said) {
            return Some(problem);
        }
    }
    if let Some(holder) = &expected.holder {
        // The one that conflicts comes first.
        let said = evidence.and_then(|e| e.get("holders")).and_then(|holders| holders.get(0));
        if let Some(problem) = party("holder", holder, said) {
            return Some(problem);
        }
    }
    None
}

/// What is said wrong about one party. What the truth does not name does not matter.
fn party(role: &str, truth: &Party, said: Option<&Value>) -> Option<String> {
    let Some(said) = said else { return Some(format!("no {role} was named")) };
    let text = |address: std::net::SocketAddr| Value::from(address.to_string());
    let facts = [
        ("pid", truth.pid.map(Value::from)),
        ("comm", truth.comm.as_deref().map(Value::from)),
        ("address", truth.address.map(text).filter(|_| said.get("address").is_some())),
        ("local", truth.address.map(text).filter(|_| said.get("local").is_some())),
        ("remote", truth.remote.map(text)),
        ("state", truth.state.map(Value::from)),
    ];
    for (name, fact) in facts {
        let Some(fact) = fact else { continue };
        let claimed = said.get(name).cloned().unwrap_or(Value::Null);
        if claimed != fact {
            return Some(format!("the {role}'s {name} is {fact}, and {claimed} was claimed"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::rehearse::Allowed;

    fn truth() -> GroundTruth {
        let who = |pid, comm: &str| Party {
            kind: "process",
            pid: Some(pid),
            comm: Some(comm.to_owned()),
            ..Party::default()
        };
        GroundTruth {
            kind: "rehearsal",
            name: "port-grab",
            variant: "basic",
            netns: 1,
            actors: Vec::new(),
            expect: vec![Expectation {
                code: "bind-conflict",
                cause: "ephemeral-grab",
                subject: Party {
                    kind: "port",
                    address: Some(([0, 0, 0, 0], 35010).into()),
                    ..Party::default()
                },
                requester: Some(who(7, "tt-server")),
                holder: Some(who(8, "tt-client")),
            }],
            allow: vec![Allowed { code: "port-grab-risk", because: "it is one" }],
            forbid: "any other finding",
            counters: BTreeMap::new(),
            facts: Map::new(),
        }
    }

    fn claim() -> Value {
        json!({"id": 1, "code": "bind-conflict", "cause": "ephemeral-grab", "title": "t",
            "subject": {"kind": "port", "address": "0.0.0.0:35010"},
            "evidence": {"requester": {"pid": 7, "comm": "tt-server"}, "holders": [{"pid": 8, "comm": "tt-client"}]}})
    }

    fn judged(claims: &[Value]) -> Vec<String> {
        let mut all = Claims::default();
        for claim in claims {
            all.note(claim.clone());
        }
        all.judge(&truth())
    }

    #[test]
    fn the_right_claim_passes_and_its_last_state_counts() {
        assert_eq!(judged(&[claim()]), Vec::<String>::new());
        let mut early = claim();
        early["cause"] = "listener".into();
        assert_eq!(judged(&[early, claim()]), Vec::<String>::new());
    }

    #[test]
    fn every_wrong_claim_is_caught() {
        assert_eq!(judged(&[]).len(), 1);
        for (pointer, wrong) in [
            ("/cause", json!("listener")),
            ("/subject/address", json!("0.0.0.0:35011")),
            ("/evidence/requester/pid", json!(9)),
            ("/evidence/holders/0/pid", json!(null)),
            ("/evidence/holders/0/comm", json!("tt-server")),
        ] {
            let mut claim = claim();
            *claim.pointer_mut(pointer).unwrap() = wrong;
            assert_eq!(judged(&[claim]).len(), 1, "{pointer}");
        }
    }

    #[test]
    fn a_client_s_stall_must_name_the_server() {
        let mut truth = truth();
        truth.expect[0].subject.kind = "listener";
        let stall = |address: &str| {
            json!({"id": 2, "code": "syn-unanswered", "cause": "local-drop", "title": "t",
                "evidence": {"server": {"address": address}}})
        };
        let problems = |stall| {
            let mut all = Claims::default();
            all.note(claim());
            all.note(stall);
            all.judge(&truth).len()
        };
        assert_eq!(problems(stall("0.0.0.0:35010")), 0);
        assert_eq!(problems(stall("0.0.0.0:35011")), 1);
        let mut blind = stall("0.0.0.0:35010");
        blind["cause"] = "no-answer".into();
        assert_eq!(problems(blind), 1);
    }

    #[test]
    fn a_second_claim_is_one_too_many_unless_it_is_true() {
        let other = json!({"id": 2, "code": "accept-queue-overflow", "title": "no"});
        assert_eq!(judged(&[claim(), other]).len(), 1);
        let allowed = json!({"id": 2, "code": "port-grab-risk", "title": "yes"});
        assert_eq!(judged(&[claim(), allowed]), Vec::<String>::new());
        let twice = json!({"id": 3, "code": "bind-conflict", "cause": "ephemeral-grab", "title": "again"});
        assert_eq!(judged(&[claim(), twice]).len(), 1);
    }
}
