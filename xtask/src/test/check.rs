//! Judges one run's JSON lines. All assertions of the live suite are here.
//!
//! A check says what is wrong in a sentence of its own; no sentence means that all is well. What is right comes from the
//! rehearsal's ground truth (its own books and the kernel's counters), never from what the tracer says of itself.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::cases::{Judge, Tier};
use super::{lines::Lines, schema};

/// What is wrong with a run; nothing if it is as it should be.
pub(crate) fn problems(judge: Judge, tier: Tier, stdout: &[u8]) -> Vec<String> {
    let lines = Lines::parse(stdout);
    let mut problems = Problems::default();
    for line in &lines.broken {
        problems.add(format!("stdout has a line that is no JSON object with a type: {line}"));
    }
    for line in &lines.all {
        for problem in schema::problems(line) {
            problems.add(format!("a line is not what the schema says: {problem}: {line}"));
        }
    }
    match judge {
        Judge::Rehearsal => rehearsal(&lines, tier, &mut problems),
        Judge::SelfTest => self_test(&lines, tier, false, &mut problems),
        Judge::SelfTestWithoutIpv6 => self_test(&lines, tier, true, &mut problems),
        Judge::Lockdown => lockdown(&lines, &mut problems),
    }
    problems.0
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    fn unless(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.0.push(problem());
        }
    }
}

fn rehearsal(lines: &Lines, tier: Tier, problems: &mut Problems) {
    frame(lines, problems);
    coverage(lines, tier, problems);
    nothing_lost(lines, problems);
    let truths: Vec<&Value> = lines.of_type("rehearsal").collect();
    let &[truth] = truths.as_slice() else {
        problems.add(format!("there are {} rehearsal lines, not one", truths.len()));
        return;
    };
    // The program's own verdict, which knows more of each play than this does.
    for problem in array(&truth["problems"]) {
        problems.add(format!("the rehearsal itself says: {problem}"));
    }
    let findings = lines.findings();
    for finding in &findings {
        contract(finding, problems);
        nothing_else(finding, truth, problems);
    }
    let (required, excused): (Vec<&Value>, Vec<&Value>) =
        array(&truth["expect"]).iter().partition(|expected| observes(lines, &expected["needs"]));
    for expected in &required {
        let alike = |other: &&&Value| other["code"] == expected["code"];
        let least = required.iter().filter(alike).count();
        let at_a_port = |allowed: &&Value| allowed["port"].is_u64() && alike(&allowed);
        let allowed = array(&truth["allow"]).iter().filter(at_a_port).count();
        let most = least + excused.iter().filter(alike).count() + allowed;
        expected_finding(expected, least..=most, &findings, truth, tier, problems);
    }
    if tier.is_full() {
        reconciliation(lines, problems);
    }
}

/// Whether an observation that an expectation may need was made.
fn observes(lines: &Lines, needs: &Value) -> bool {
    let Some(needs) = needs.as_str() else { return true };
    let made = |observation: &Value| observation["name"] == needs && observation["status"] == "attached";
    lines.of_type("coverage").any(|coverage| array(&coverage["observations"]).iter().any(made))
}

/// Coverage first, summary last, one of each.
fn frame(lines: &Lines, problems: &mut Problems) {
    // The rehearsal's own line may stand anywhere: it is about the play, not of the trace.
    let trace: Vec<&Value> = lines.all.iter().filter(|line| line["type"] != "rehearsal").collect();
    problems.unless(trace.first().is_some_and(|line| line["type"] == "coverage"), || {
        "the first line is not the coverage".into()
    });
    problems.unless(trace.last().is_some_and(|line| line["type"] == "summary"), || {
        "the last line is not the summary".into()
    });
    for kind in ["coverage", "summary"] {
        let count = lines.of_type(kind).count();
        problems.unless(count == 1, || format!("there are {count} {kind} lines, not one"));
    }
}

/// The tier that was asked for is in use, each observation says by what, and every gap says why.
fn coverage(lines: &Lines, tier: Tier, problems: &mut Problems) {
    let Some(coverage) = lines.of_type("coverage").next() else { return };
    let covered = &coverage["tier"];
    problems
        .unless(covered == tier.covered_as(), || format!("the tier is {covered}, not {}", tier.covered_as()));
    problems.unless(coverage["kernel"].is_string(), || "the coverage names no kernel".into());
    problems.unless(coverage["architecture"].is_string(), || "the coverage names no architecture".into());
    let observations = array(&coverage["observations"]);
    problems.unless(!observations.is_empty(), || "the coverage has no observations".into());
    for observation in observations {
        let name = &observation["name"];
        let has_reason = observation["reason"].as_str().is_some_and(|reason| !reason.is_empty());
        let via = observation["via"].as_str().unwrap_or_default();
        match observation["status"].as_str() {
            Some("attached") => {
                // One observation may need several programs: `fexit tcp_conn_request, fentry tcp_v4_route_req`.
                for way in via.split(", ").map(|part| part.split_whitespace().next().unwrap_or_default()) {
                    problems.unless(tier.allowed_ways().contains(&way), || {
                        format!("{name} goes by {via:?}, which is not of the tier {}", tier.attach())
                    });
                    let is_second_choice = tier.attach() == "auto" && way.starts_with('k');
                    problems.unless(!is_second_choice || has_reason, || {
                        format!("{name} goes by {via:?} and does not say why not by fexit")
                    });
                }
            }
            Some("polled" | "missing") => {
                problems.unless(has_reason, || format!("{name} is not attached and does not say why"));
                // What the fexit tier alone sees, as the plan says.
                let excused = tier.covered_as() == "kprobe"
                    && (*name == "connect-error" || *name == "connection-exists");
                problems.unless(!tier.is_full() || excused, || {
                    format!("{name} is not attached in a full tier: {}", observation["reason"])
                });
            }
            _ => problems.add(format!("{name} has the status {}", observation["status"])),
        }
    }
}

fn nothing_lost(lines: &Lines, problems: &mut Problems) {
    // A program of process context that is preempted in an emulated guest, where it takes fifty times as long as elsewhere,
    // costs an accept or a port. Drops are exact all the same, which the reconciliation shows.
    let matters = |lost: &&Value| lost["where"].as_str() != Some("preempted");
    let mut excused = 0;
    for lost in lines.of_type("lost") {
        if matters(&lost) {
            problems.add(format!("events were lost: {lost}"));
        } else {
            excused += lost["count"].as_u64().unwrap_or(0);
        }
    }
    let Some(summary) = lines.of_type("summary").next() else { return };
    let lost = summary.pointer("/trace/lost").unwrap_or(&Value::Null);
    problems.unless(total(lost) == Some(excused), || format!("the summary's lost is {lost}, not {excused}"));
}

/// A number, or an object or array of numbers, added up.
fn total(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::Object(map) => map.values().map(total).sum(),
        Value::Array(list) => list.iter().map(total).sum(),
        _ => None,
    }
}

/// What every finding has to have.
fn contract(finding: &Value, problems: &mut Problems) {
    let code = &finding["code"];
    for key in ["state", "severity", "confidence", "time", "title", "cause"] {
        problems.unless(finding[key].as_str().is_some_and(|text| !text.is_empty()), || {
            format!("the finding {code} has no {key}")
        });
    }
    let (subject, evidence) = (&finding["subject"], &finding["evidence"]);
    problems.unless(subject["kind"].is_string(), || format!("the finding {code} has no subject"));
    problems.unless(evidence.is_object(), || format!("the finding {code} has no evidence"));
    // What to change is said once, by the finding that knows the cause.
    let (advises, explained) = (!array(&finding["remedy"]).is_empty(), finding["explained_by"].is_object());
    problems.unless(advises || explained, || format!("the finding {code} has no remedy"));
    problems.unless(!(advises && explained), || {
        format!("the finding {code} has a remedy of its own beside the finding that explains it")
    });
}

/// A finding is expected, or true for a reason that the truth gives.
fn nothing_else(finding: &Value, truth: &Value, problems: &mut Problems) {
    let code = &finding["code"];
    let known =
        ["expect", "allow"].iter().flat_map(|key| array(&truth[*key])).any(|entry| entry["code"] == *code);
    // The other end of the same trouble, which names whom the truth expects: the rehearsal has looked at that.
    let evidence = &finding["evidence"];
    let other_end = evidence["server"].is_object() && array(&truth["problems"]).is_empty();
    problems.unless(known || other_end, || {
        format!("nothing like {code} happened, and it was claimed: {}", finding["title"])
    });
}

/// What is expected was found: as many findings of that code as there are expectations `alike`, with what is allowed as well
/// or cannot be observed, and one of them says just that.
fn expected_finding(
    expected: &Value,
    alike: RangeInclusive<usize>,
    findings: &[&Value],
    truth: &Value,
    tier: Tier,
    problems: &mut Problems,
) {
    let code = &expected["code"];
    let same_code: Vec<&Value> =
        findings.iter().copied().filter(|finding| finding["code"] == *code).collect();
    problems.unless(alike.contains(&same_code.len()), || {
        format!("{code} was found {} times, not {alike:?}", same_code.len())
    });
    let judged = same_code.into_iter().map(|finding| {
        let mut found = Problems::default();
        one_finding(expected, finding, truth, tier, &mut found);
        found.0
    });
    // Of several wrong ones the least wrong tells most.
    problems.0.extend(judged.min_by_key(Vec::len).unwrap_or_default());
}

fn one_finding(expected: &Value, finding: &Value, truth: &Value, tier: Tier, problems: &mut Problems) {
    let code = &expected["code"];
    let (cause, right) = (&finding["cause"], &expected["cause"]);
    problems.unless(cause == right, || format!("the cause of {code} is {cause}, not {right}"));
    party(&format!("{code}: the subject"), &finding["subject"], &expected["subject"], problems);
    let evidence = &finding["evidence"];
    if expected["requester"].is_object() {
        let who = format!("{code}: the requester");
        party(&who, &evidence["requester"], &expected["requester"], problems);
    }
    if expected["holder"].is_object() {
        holder(code, array(&evidence["holders"]), &expected["holder"], problems);
    }
    if tier.is_full() {
        counts(finding, truth, problems);
        let rank = |confidence: &Value| {
            ["possible", "likely", "certain"].iter().position(|known| confidence == *known)
        };
        let (sure, least) = (&finding["confidence"], &expected["at_least"]);
        problems.unless(rank(sure) >= rank(least), || {
            format!("{code} is claimed as {sure}, where {least} is right: everything is observed")
        });
    }
}

/// A party is named rightly: what the truth knows of it, the finding says.
fn party(who: &str, named: &Value, right: &Value, problems: &mut Problems) {
    let Some(fields) = right.as_object() else {
        problems.add(format!("{who}: the truth has none"));
        return;
    };
    for (key, value) in fields {
        let said = &named[key];
        match value {
            // What the truth does not know.
            Value::Null => {}
            // The command line of a process that is gone cannot be read any more.
            _ if key == "command" && said.is_null() => {}
            Value::Object(_) => party(who, said, value, problems),
            _ => problems.unless(said == value, || format!("{who} has {key} {said}, not {value}")),
        }
    }
}

/// Among the holders is the right one.
fn holder(code: &Value, holders: &[Value], right: &Value, problems: &mut Problems) {
    let mut fewest: Option<Vec<String>> = None;
    for named in holders {
        let mut found = Problems::default();
        party(&format!("{code}: the holder"), named, right, &mut found);
        if fewest.as_ref().is_none_or(|fewest| found.0.len() < fewest.len()) {
            fewest = Some(found.0);
        }
    }
    match fewest {
        // Of several wrong ones the least wrong tells most.
        Some(found) => problems.0.extend(found),
        None => problems.add(format!("{code} names no holder")),
    }
}

/// Numbers that the truth knows and the finding gives are equal, to the last drop.
fn counts(finding: &Value, truth: &Value, problems: &mut Problems) {
    let (code, evidence) = (&finding["code"], &finding["evidence"]);
    let number = |value: &Value, key: &str| value[key].as_u64();
    for key in ["syn_drops", "ack_drops", "queue_limit", "backlog", "somaxconn"] {
        if let Some(right) = number(&truth["facts"], key) {
            let said = &evidence[key];
            // Not every finding tells all of them; one about an overflow does.
            if said.is_null() && *code != "accept-queue-overflow" {
                continue;
            }
            problems.unless(said.as_u64() == Some(right), || format!("{code}: {key} is {said}, not {right}"));
        }
    }
    if *code == "accept-queue-overflow" {
        let ours =
            number(evidence, "syn_drops").zip(number(evidence, "ack_drops")).map(|(syn, ack)| syn + ack);
        let kernels = number(&truth["counters"], "ListenOverflows");
        problems.unless(ours.is_some() && ours == kernels, || {
            format!(
                "{code}: drops of both stages are {ours:?} in all, the kernel's ListenOverflows {kernels:?}"
            )
        });
    }
}

/// Each counter that the summary compares is explained to the last event.
fn reconciliation(lines: &Lines, problems: &mut Problems) {
    let Some(summary) = lines.of_type("summary").next() else { return };
    let entries = summary.pointer("/trace/reconciliation").map(array).unwrap_or_default();
    problems.unless(!entries.is_empty(), || "the summary reconciles no counter".into());
    for entry in entries {
        let (kernel, ours) = (&entry["kernel"], &entry["observed"]);
        let drops = matches!(entry["counter"].as_str(), Some("ListenOverflows" | "ListenDrops"));
        // What is only sampled, or went on at the moment of the last look, may be told as that; of drops only what a kprobe was
        // kept from on a kernel that does not count it.
        let skipped = entry["reason"].as_str().is_some_and(|reason| reason.contains("no kprobe while"));
        let excused = entry["status"] == "partial" && (!drops || skipped);
        let exact = kernel.is_u64() && kernel == ours && entry["status"] == "exact";
        problems.unless(exact || excused, || {
            format!("the kernel counted {kernel} {}, we observed {ours}: {entry}", entry["counter"])
        });
    }
}

/// `probes`, where the kernel is locked down to confidentiality: BPF programs may not read its memory.
fn lockdown(lines: &Lines, problems: &mut Problems) {
    let Some(coverage) = lines.of_type("coverage").next() else {
        problems.add("there is no coverage");
        return;
    };
    let named = |value: &Value| value.as_str().is_some_and(|text| text.contains("lockdown"));
    problems.unless(array(&coverage["hindrances"]).iter().any(named), || {
        format!("the coverage does not name the lockdown: {}", coverage["hindrances"])
    });
    let missing: Vec<&Value> = array(&coverage["observations"])
        .iter()
        .filter(|observation| observation["status"] == "missing")
        .collect();
    problems.unless(!missing.is_empty(), || "nothing is missing, though the kernel is locked down".into());
    for observation in missing {
        problems.unless(named(&observation["reason"]), || {
            format!("{} is missing for another reason: {}", observation["name"], observation["reason"])
        });
    }
}

/// `probes --self-test`: one line a probe, and one a record that is known beforehand.
fn self_test(lines: &Lines, tier: Tier, without_ipv6: bool, problems: &mut Problems) {
    coverage(lines, tier, problems);
    let probes: Vec<&Value> = lines.of_type("probe").collect();
    problems.unless(!probes.is_empty(), || "the self-test names no probe".into());
    let is_off =
        |probe: &Value| probe["not_tried"].as_str().is_some_and(|why| why.starts_with("IPv6 is off"));
    problems.unless(probes.iter().any(|probe| is_off(probe)) == without_ipv6, || {
        format!("IPv6 is {}, and the self-test says otherwise", if without_ipv6 { "off" } else { "on" })
    });
    problems.0.extend(super::verified::jumps(&probes));
    for probe in probes {
        let name = &probe["name"];
        match (probe["attached"].as_bool(), probe["fired"].as_bool()) {
            (Some(true), Some(true)) => {}
            (Some(true), None) if without_ipv6 && is_off(probe) => {}
            (Some(true), _) => problems.add(format!("the probe {name} is attached and did not fire")),
            (Some(false), _) => {
                let has_reason = probe["reason"].as_str().is_some_and(|reason| !reason.is_empty());
                problems
                    .unless(has_reason, || format!("the probe {name} is not attached and does not say why"));
            }
            (None, _) => problems.add(format!("the probe {name} does not say whether it is attached")),
        }
    }
    problems.unless(lines.of_type("record").next().is_some(), || "the self-test compares no record".into());
    for record in lines.of_type("record") {
        let right = record["seen"] == true && array(&record["wrong"]).is_empty();
        problems.unless(right, || format!("what {} says is not what was done: {record}", record["via"]));
    }
}

/// What the kernel's verifier had to do, of a self-test's output.
pub(crate) fn verified(stdout: &[u8]) -> Option<String> {
    let lines = Lines::parse(stdout);
    super::verified::told(&lines.of_type("probe").collect::<Vec<_>>())
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests;
