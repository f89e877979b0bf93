//! Whether the findings of a trace say what the rehearsal made: every expected finding, with its cause and its people, and
//! nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::truth::{Expectation, GroundTruth, Party};
use crate::finding::Confidence;

/// What was claimed while tracing.
#[derive(Debug, Default)]
pub struct Claims {
    /// The last word of each finding.
    last: BTreeMap<u64, Value>,
    /// Whatever was claimed as certain, by finding, cause, and whom it is about: not even for a moment may it be false.
    certain: BTreeMap<(u64, String), Value>,
}

impl Claims {
    /// Takes in a finding as JSON output has it; a later state of the same finding replaces an earlier one.
    pub fn note(&mut self, finding: Value) {
        let Some(id) = finding.get("id").and_then(Value::as_u64) else { return };
        let text = |key| finding.get(key).and_then(Value::as_str);
        if text("confidence") == Some(Confidence::Certain.name()) {
            let about = ["/cause", "/subject", "/evidence/requester", "/evidence/holders/0"];
            let about: Vec<String> =
                about.iter().filter_map(|part| finding.pointer(part)).map(Value::to_string).collect();
            self.certain.insert((id, about.join(" ")), finding.clone());
        }
        self.last.insert(id, finding);
    }

    /// The first command of the remedies of the findings with this code.
    pub fn remedy(&self, code: &str) -> Option<&str> {
        let about =
            self.last.values().filter(|claim| claim.get("code").and_then(Value::as_str) == Some(code));
        let remedies = about.filter_map(|claim| claim.get("remedy").and_then(Value::as_array)).flatten();
        remedies.filter_map(|remedy| remedy.get("command").and_then(Value::as_str)).next()
    }

    /// What is wrong with them, one sentence each; empty when the incident was diagnosed. `observes` says which observations
    /// were made.
    pub fn judge(&self, truth: &GroundTruth, observes: impl Fn(&str) -> bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut answered: BTreeSet<u64> = BTreeSet::new();
        let mut may_be_unknown = truth.may_be_unknown;
        // Those that are right first: what is wrong about one expectation must not use up the answer to another.
        let mut unanswered = Vec::new();
        for expected in &truth.expect {
            let right = |(_, claim): &(u64, &Value)| mismatch(expected, claim).is_none();
            let right = self.of_code(expected, &answered).into_iter().find(right).map(|(id, _)| id);
            match right {
                Some(id) => {
                    answered.insert(id);
                }
                None => unanswered.push(expected),
            }
        }
        for expected in unanswered {
            // Of several, the one about the same thing is the one to be compared.
            let about = |(_, claim): &(u64, &Value)| {
                party("subject", &expected.subject, claim.get("subject")).is_none()
            };
            let same_code = self.of_code(expected, &answered);
            let nearest = same_code.iter().find(|claim| about(claim)).or(same_code.first());
            // What is claimed instead must be allowed, as anything else.
            if expected.needs.is_some_and(|needs| !observes(needs)) {
                continue;
            }
            let Some((id, claim)) = nearest.copied() else {
                problems.push(format!("{} ({}) was not found", expected.code, expected.cause));
                continue;
            };
            answered.insert(id);
            if may_be_unknown > 0 && is_unknown(expected, claim) {
                may_be_unknown -= 1;
            } else {
                let what = mismatch(expected, claim).unwrap_or_default();
                problems.push(format!("{}: {what}", expected.code));
            }
        }
        for (id, claim) in &self.last {
            let code = claim.get("code").and_then(Value::as_str).unwrap_or("?");
            if !answered.contains(id) && !is_allowed(claim, truth) && !is_other_end(claim, truth) {
                let title = claim.get("title").and_then(Value::as_str).unwrap_or("");
                problems.push(format!("{code} was claimed, and is not so: {title}"));
            }
        }
        problems
    }

    /// What was expected and is neither claimed nor observable here, one sentence each: the finding, and the observation that it
    /// needs.
    pub fn not_observable(&self, truth: &GroundTruth, observes: impl Fn(&str) -> bool) -> Vec<String> {
        let mut answered = BTreeSet::new();
        let mut left = Vec::new();
        for expected in &truth.expect {
            let claims = self.of_code(expected, &answered);
            match claims.into_iter().find(|(_, claim)| mismatch(expected, claim).is_none()) {
                Some((id, _)) => {
                    answered.insert(id);
                }
                None => left.push(expected),
            }
        }
        left.into_iter()
            .filter_map(|expected| {
                let needs = expected.needs.filter(|needs| !observes(needs))?;
                Some(format!("{} ({}) needs the observation {needs}", expected.code, expected.cause))
            })
            .collect()
    }

    /// What was claimed as certain and is not so, one sentence each: the worst that the tracer can do.
    pub fn false_certains(&self, truth: &GroundTruth) -> Vec<String> {
        let is_false = |claim: &Value| {
            let right = truth.expect.iter().any(|expected| {
                claim.get("code") == Some(&expected.code.into())
                    && contradiction(expected, claim, Unknown::IsFine).is_none()
            });
            !right && !is_allowed(claim, truth) && !is_other_end(claim, truth)
        };
        let claims = self.certain.iter().filter(|(_, claim)| is_false(claim));
        let mut said = BTreeSet::new();
        // Once, however often its subject was told with more of what is known.
        let claims = claims.filter(|((id, _), claim)| {
            let cause = claim.get("cause").and_then(Value::as_str).unwrap_or_default();
            said.insert((*id, cause.to_owned()))
        });
        claims
            .map(|(_, claim)| {
                let text = |key| claim.get(key).and_then(Value::as_str).unwrap_or_default();
                format!("false certain: {} ({}): {}", text("code"), text("cause"), text("title"))
            })
            .collect()
    }

    /// The claims with the code of `expected` that have not answered another expectation.
    fn of_code(&self, expected: &Expectation, answered: &BTreeSet<u64>) -> Vec<(u64, &Value)> {
        self.last
            .iter()
            .filter(|(id, claim)| !answered.contains(id) && claim.get("code") == Some(&expected.code.into()))
            .map(|(id, claim)| (*id, claim))
            .collect()
    }
}

/// Whether the truth allows a finding of this code, about this port.
fn is_allowed(claim: &Value, truth: &GroundTruth) -> bool {
    let code = claim.get("code").and_then(Value::as_str).unwrap_or_default();
    truth.allow.iter().any(|allowed| allowed.code == code)
        || truth.allow_at.iter().any(|at| at.allowed.code == code && Some(at.port) == port_of(claim))
}

/// The port that a claim is about.
fn port_of(claim: &Value) -> Option<u16> {
    u16::try_from(claim.pointer("/subject/port")?.as_u64()?).ok()
}

/// Whether a claim is right but for not knowing who has the port.
fn is_unknown(expected: &Expectation, claim: &Value) -> bool {
    let holders = claim.pointer("/evidence/holders").and_then(Value::as_array);
    let asked = expected.requester.as_ref();
    holders.is_some_and(|holders| {
        holders.iter().all(|holder| holder.pointer("/process/pid").is_none_or(Value::is_null))
    }) && party("subject", &expected.subject, claim.get("subject")).is_none()
        && asked.is_none_or(|asked| party("requester", asked, claim.pointer("/evidence/requester")).is_none())
}

/// Whether it tells of a client whose SYNs a listener drops that an expected finding is about: the same incident, seen from
/// its other end.
fn is_other_end(claim: &Value, truth: &GroundTruth) -> bool {
    let text = |pointer| claim.pointer(pointer).and_then(Value::as_str);
    let address: Option<IpAddr> = text("/evidence/server/address").and_then(|address| address.parse().ok());
    let port = claim.pointer("/evidence/server/port").and_then(Value::as_u64);
    let server = address.zip(port.and_then(|port| u16::try_from(port).ok())).map(SocketAddr::from);
    text("/code") == Some("syn-unanswered")
        && text("/cause") == Some("local-drop")
        && truth
            .expect
            .iter()
            .any(|expected| expected.subject.kind == "listener" && expected.subject.address == server)
}

/// What is made of what a claim leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// It is to be known in the end.
    IsWrong,
    /// It is not known yet: nothing false has been said.
    IsFine,
}

/// What a claim gets wrong in the end; `None` if it is right.
fn mismatch(expected: &Expectation, claim: &Value) -> Option<String> {
    contradiction(expected, claim, Unknown::IsWrong)
}

/// What a claim gets wrong; `None` if it is right.
fn contradiction(expected: &Expectation, claim: &Value, unknown: Unknown) -> Option<String> {
    let cause = claim.get("cause").and_then(Value::as_str).unwrap_or("none");
    if cause != expected.cause {
        return Some(format!("the cause is {}, and {cause} was claimed", expected.cause));
    }
    let sure = claim.get("confidence").and_then(Value::as_str);
    if let Some(most) = expected.at_most
        && let Some(claimed) = Confidence::ALL.into_iter().find(|known| Some(known.name()) == sure)
        && claimed > most
    {
        return Some(format!("it is claimed as {}, and is no more than {}", claimed.name(), most.name()));
    }
    if let Some(problem) = told_wrong("subject", &expected.subject, claim.get("subject"), unknown) {
        return Some(problem);
    }
    let evidence = claim.get("evidence");
    if let Some(requester) = &expected.requester {
        let said = evidence.and_then(|e| e.get("requester"));
        if let Some(problem) = told_wrong("requester", requester, said, unknown) {
            return Some(problem);
        }
    }
    if let Some(holder) = &expected.holder {
        // The one that conflicts comes first.
        let said = evidence.and_then(|e| e.get("holders")).and_then(|holders| holders.get(0));
        if let Some(problem) = told_wrong("holder", holder, said, unknown) {
            return Some(problem);
        }
    }
    None
}

/// What is said wrong about one party in the end. What the truth does not name does not matter.
fn party(role: &str, truth: &Party, said: Option<&Value>) -> Option<String> {
    told_wrong(role, truth, said, Unknown::IsWrong)
}

fn told_wrong(role: &str, truth: &Party, said: Option<&Value>, unknown: Unknown) -> Option<String> {
    let Some(said) = said else {
        return (unknown == Unknown::IsWrong).then(|| format!("no {role} was named"));
    };
    let container =
        truth.container.as_deref().map(|container| container.split_once(':').unwrap_or(("", container)));
    let address = truth.address.filter(|_| said.get("address").is_some());
    // Who listens on any address may not be known yet, where one of its addresses is: the number is the same.
    let is_one_of_them = unknown == Unknown::IsFine
        && said.get("kind").and_then(Value::as_str).is_some_and(|kind| kind != truth.kind);
    let ip = address.map(|at| at.ip()).filter(|ip| !(is_one_of_them && ip.is_unspecified()));
    let facts = [
        ("pid", "/process/pid", truth.pid.map(Value::from)),
        ("comm", "/process/comm", truth.comm.as_deref().map(Value::from)),
        ("address", "/address", ip.map(|ip| ip.to_string().into())),
        ("port", "/port", address.map(|at| at.port().into())),
        ("remote address", "/remote/address", truth.remote.map(|at| at.ip().to_string().into())),
        ("remote port", "/remote/port", truth.remote.map(|at| at.port().into())),
        ("container engine", "/process/container/engine", container.map(|(engine, _)| engine.into())),
        ("container id", "/process/container/id", container.map(|(_, id)| id.into())),
        ("device", "/device", truth.device.map(Value::from)),
        ("state", "/state", truth.state.map(Value::from)),
    ];
    for (name, pointer, fact) in facts {
        let Some(fact) = fact else { continue };
        let claimed = said.pointer(pointer).cloned().unwrap_or(Value::Null);
        if claimed.is_null() && unknown == Unknown::IsFine {
            continue;
        }
        if claimed != fact {
            return Some(format!("the {role}'s {name} is {fact}, and {claimed} was claimed"));
        }
    }
    None
}

/// By how much an accept wait may differ from what the programs measured themselves: half a bucket of the histogram is 3.2 %.
const WAIT_TOLERANCE: f64 = 0.05;

/// What is wrong with the accept waits that were counted, where the actors measured them, too.
pub fn judge_waits(truth: &GroundTruth, counted: impl Fn(f64) -> Option<Duration>) -> Vec<String> {
    let measured = |fact: &str| truth.facts.get(fact).and_then(Value::as_f64);
    let quantiles = [("wait_p50_ms", 0.5), ("wait_p90_ms", 0.9), ("wait_p99_ms", 0.99)];
    let wrong = |(fact, quantile): (&str, f64)| {
        let own = measured(fact)?;
        let ours = counted(quantile).map(|wait| wait.as_secs_f64() * 1e3);
        match ours {
            Some(ours) if (ours - own).abs() <= own * WAIT_TOLERANCE => None,
            Some(ours) => Some(format!("{fact}: the programs measured {own:.1}, and {ours:.1} was counted")),
            None => Some(format!("{fact}: the programs measured {own:.1}, and nothing was counted")),
        }
    };
    quantiles.into_iter().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::rehearse::Allowed;

    #[test]
    fn waits_are_judged_by_what_the_programs_measured() {
        let mut truth = truth();
        assert!(judge_waits(&truth, |_| None).is_empty());
        truth.facts.insert("wait_p50_ms".into(), json!(1000.0));
        assert!(judge_waits(&truth, |_| Some(Duration::from_millis(1049))).is_empty());
        assert_eq!(judge_waits(&truth, |_| Some(Duration::from_millis(1051))).len(), 1);
        assert_eq!(judge_waits(&truth, |_| Some(Duration::from_millis(949))).len(), 1);
        assert_eq!(judge_waits(&truth, |_| None).len(), 1);
    }

    fn truth() -> GroundTruth {
        let who = |pid, comm: &str| Party {
            kind: "process",
            pid: Some(pid),
            comm: Some(comm.to_owned()),
            ..Party::default()
        };
        GroundTruth {
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
                needs: None,
                without: None,
                at_most: None,
                at_least: None,
            }],
            may_be_unknown: 0,
            allow: vec![Allowed { code: "port-grab-risk", because: "it is one" }],
            allow_at: Vec::new(),
            why: Vec::new(),
            forbid: "any other finding",
            counters: BTreeMap::new(),
            facts: Map::new(),
        }
    }

    fn claim() -> Value {
        json!({"id": 1, "code": "bind-conflict", "cause": "ephemeral-grab", "title": "t",
            "subject": {"kind": "port", "address": "0.0.0.0", "port": 35010},
            "evidence": {"requester": {"process": {"pid": 7, "comm": "tt-server"}},
                "holders": [{"process": {"pid": 8, "comm": "tt-client"}}]}})
    }

    fn judged(claims: &[Value]) -> Vec<String> {
        let mut all = Claims::default();
        for claim in claims {
            all.note(claim.clone());
        }
        all.judge(&truth(), |_| true)
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
            ("/subject/address", json!("0.0.0.1")),
            ("/subject/port", json!(35011)),
            ("/evidence/requester/process/pid", json!(9)),
            ("/evidence/holders/0/process/pid", json!(null)),
            ("/evidence/holders/0/process/comm", json!("tt-server")),
        ] {
            let mut claim = claim();
            *claim.pointer_mut(pointer).unwrap() = wrong;
            assert_eq!(judged(&[claim]).len(), 1, "{pointer}");
        }
    }

    #[test]
    fn what_cannot_be_observed_need_not_be_claimed() {
        let mut truth = truth();
        truth.expect[0].needs = Some("bind-fail");
        assert_eq!(Claims::default().judge(&truth, |_| true).len(), 1);
        assert!(Claims::default().judge(&truth, |needed| needed != "bind-fail").is_empty());
        let missing = |claims: &Claims, seen| claims.not_observable(&truth, |_| seen).len();
        assert_eq!((missing(&Claims::default(), false), missing(&Claims::default(), true)), (1, 0));
        let mut found = Claims::default();
        found.note(claim());
        assert_eq!(missing(&found, false), 0);
        let mut wrong = Claims::default();
        let mut claim = claim();
        claim["cause"] = "listener".into();
        wrong.note(claim);
        assert_eq!(wrong.judge(&truth, |_| false).len(), 1);
    }

    #[test]
    fn where_a_cause_cannot_be_told_another_word_is_right() {
        let mut truth = truth();
        truth.expect[0] = truth.expect[0].clone().or_without("request-end", "unknown");
        let with = |cause: &str| {
            let mut all = Claims::default();
            let mut claim = claim();
            claim["cause"] = cause.into();
            all.note(claim);
            all
        };
        let right = |claims: &Claims, seen: bool| {
            let mut truth = truth.clone();
            truth.settle(|_| seen);
            claims.judge(&truth, |_| seen).is_empty()
        };
        let (told, unknown) = (with("ephemeral-grab"), with("unknown"));
        assert_eq!((right(&told, true), right(&told, false)), (true, false));
        assert_eq!((right(&unknown, true), right(&unknown, false)), (false, true));
    }

    #[test]
    fn an_unknown_holder_passes_where_that_is_allowed_and_a_wrong_one_never() {
        let mut unknown = claim();
        unknown["cause"] = "bound-socket".into();
        unknown["evidence"]["holders"] = json!([]);
        let mut wrong = claim();
        wrong["evidence"]["holders"][0]["process"]["pid"] = 9.into();
        for (claim, may_be_unknown, problems) in [(&unknown, 0, 1), (&unknown, 1, 0), (&wrong, 1, 1)] {
            let mut claims = Claims::default();
            claims.note(claim.clone());
            let truth = GroundTruth { may_be_unknown, ..truth() };
            assert_eq!(claims.judge(&truth, |_| true).len(), problems, "{claim}");
        }
    }

    #[test]
    fn a_false_certain_is_counted_though_it_was_withdrawn() {
        let with = |cause: &str, confidence: &str| {
            let mut claim = claim();
            claim["cause"] = cause.into();
            claim["confidence"] = confidence.into();
            claim
        };
        let counted = |claims: &[Value]| {
            let mut all = Claims::default();
            claims.iter().for_each(|claim| all.note(claim.clone()));
            all.false_certains(&truth()).len()
        };
        assert_eq!(counted(&[with("listener", "certain"), with("ephemeral-grab", "certain")]), 1);
        assert_eq!(counted(&[with("listener", "likely"), with("ephemeral-grab", "certain")]), 0);
        // The wrong process for a moment, with the right cause, and one that is not known yet.
        let held_by = |pid: Value| {
            let mut claim = with("ephemeral-grab", "certain");
            claim["evidence"]["holders"][0]["process"]["pid"] = pid;
            claim
        };
        assert_eq!(counted(&[held_by(9.into()), held_by(8.into())]), 1);
        assert_eq!(counted(&[held_by(Value::Null), held_by(8.into())]), 0);
        assert_eq!(counted(&[held_by(9.into()), held_by(10.into())]), 1);
        // One of the addresses that the port is taken at, while it is not known who took it.
        let at = |kind: &str, address: &str, port: u16| {
            let mut claim = with("ephemeral-grab", "certain");
            claim["subject"] = json!({"kind": kind, "address": address, "port": port});
            claim
        };
        assert_eq!(counted(&[at("destination", "10.77.0.1", 35010)]), 0);
        assert_eq!(counted(&[at("destination", "10.77.0.1", 35011)]), 1);
        assert_eq!(counted(&[at("port", "10.77.0.1", 35010)]), 1);
        let allowed = json!({"id": 2, "code": "port-grab-risk", "cause": "x", "confidence": "certain"});
        let unheard = json!({"id": 2, "code": "slow-accept", "cause": "x", "confidence": "certain"});
        assert_eq!((counted(&[allowed]), counted(&[unheard])), (0, 1));
    }

    #[test]
    fn more_confidence_than_is_right_is_wrong() {
        let mut truth = truth();
        truth.expect[0].at_most = Some(Confidence::Likely);
        for (confidence, problems) in [("certain", 1), ("likely", 0), ("possible", 0)] {
            let mut claims = Claims::default();
            let mut claim = claim();
            claim["confidence"] = confidence.into();
            claims.note(claim);
            assert_eq!(claims.judge(&truth, |_| true).len(), problems, "{confidence}");
            assert_eq!(claims.false_certains(&truth).len(), problems, "{confidence}");
        }
    }

    #[test]
    fn the_remedy_is_the_first_command() {
        let mut claims = Claims::default();
        let mut claim = claim();
        claim["remedy"] =
            json!([{"text": "think"}, {"text": "do", "command": "true"}, {"text": "or", "command": "false"}]);
        claims.note(claim);
        assert_eq!((claims.remedy("bind-conflict"), claims.remedy("other")), (Some("true"), None));
    }

    #[test]
    fn a_client_s_stall_must_name_the_server() {
        let mut truth = truth();
        truth.expect[0].subject.kind = "listener";
        let stall = |port: u16| {
            json!({"id": 2, "code": "syn-unanswered", "cause": "local-drop", "title": "t",
                "evidence": {"server": {"address": "0.0.0.0", "port": port}}})
        };
        let problems = |stall| {
            let mut all = Claims::default();
            all.note(claim());
            all.note(stall);
            all.judge(&truth, |_| true).len()
        };
        assert_eq!(problems(stall(35010)), 0);
        assert_eq!(problems(stall(35011)), 1);
        let mut blind = stall(35010);
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
