//! Numbers that agree: what must hold between the numbers of one finding, whichever it is.
//!
//! A count is never larger than what it is part of. A rate is over an interval that the finding states, and what was counted in
//! that interval is not more than the rate allows. The kernel's own count is over the same time as ours, so it is not smaller.
//! What is not observed is unknown, and not zero. Everything that a finding shows is among its evidence: a new key that is not
//! fails the tests that look at all findings.

use crate::correlate::Correlator;
use crate::event::observation;

use super::keys::Form;
use super::{Finding, Value};

/// What must hold between numbers of the same evidence. It says nothing where one of them is unknown or not shown.
enum Relation {
    /// All the parts together are no more than the whole.
    Part { whole: &'static str, parts: &'static [&'static str] },
    /// What was counted in the interval (seconds) is no more than the rate (per second) allows.
    Rate { rate: &'static str, over: &'static str, counts: &'static [&'static str] },
    /// What the kernel counted is no less than what we did.
    Kernel { kernel: &'static str, ours: &'static [&'static str] },
    /// A share of a hundred.
    Percent(&'static str),
}

use Relation::{Kernel, Part, Percent, Rate};

const RELATIONS: &[Relation] = &[
    Part { whole: "syn_drops", parts: &["syn_drops_max_syn_backlog"] },
    Part { whole: "drops", parts: &["drops_polled"] },
    Part { whole: "requests", parts: &["expired", "ended_by_icmp", "reset_by_peer"] },
    Part { whole: "requests", parts: &["sources"] },
    Part { whole: "sources", parts: &["retried_from_new_port"] },
    Part { whole: "sources", parts: &["repeated_syn"] },
    Part { whole: "sources", parts: &["networks"] },
    Part { whole: "unanswered", parts: &["established", "cancelled", "timed_out"] },
    Part { whole: "syns_again", parts: &["most_syns_again"] },
    Part { whole: "refused", parts: &["by_rst", "by_icmp"] },
    Part { whole: "syns", parts: &["peers"] },
    Part { whole: "dropped", parts: &["peers"] },
    Part {
        whole: "threads",
        parts: &["threads_stopped", "threads_blocked", "threads_running", "threads_in_epoll"],
    },
    Part { whole: "capacity", parts: &["in_use"] },
    Part { whole: "capacity", parts: &["free"] },
    Part { whole: "in_use", parts: &["ports"] },
    Part { whole: "in_use", parts: &["time_wait"] },
    Part { whole: "in_use", parts: &["toward_destination"] },
    Part { whole: "toward_destination", parts: &["toward_destination_time_wait"] },
    Part { whole: "ports", parts: &["close_wait"] },
    Part { whole: "wait_max_ms", parts: &["wait_p99_ms"] },
    Part { whole: "wait_p99_ms", parts: &["wait_p50_ms"] },
    Part { whole: "wait_max_ms", parts: &["wait_mean_ms"] },
    Part { whole: "left_max_s", parts: &["left_s"] },
    Part { whole: "left_s", parts: &["left_min_s"] },
    Rate { rate: "arrivals_per_s", over: "duration_s", counts: &["syn_drops"] },
    Rate { rate: "arrivals_per_s", over: "rates_over_s", counts: &[] },
    Rate { rate: "accepts_per_s", over: "duration_s", counts: &[] },
    Rate { rate: "accepts_per_s", over: "rates_over_s", counts: &[] },
    Rate { rate: "others_arrivals_per_s", over: "rates_over_s", counts: &[] },
    Kernel { kernel: "kernel_ListenOverflows", ours: &["syn_drops", "ack_drops"] },
    Kernel { kernel: "kernel_ListenOverflows", ours: &["drops"] },
    Percent("completed_elsewhere_percent"),
    Percent("time_wait_percent"),
];

/// Numbers that come from one observation alone: where it is not made, they are unknown.
const OBSERVED_BY: &[(&str, &str)] = &[
    ("expired", observation::REQUEST_END),
    ("retransmits_timer", observation::REQUEST_END),
    ("completed_elsewhere", observation::SYN_DROP),
    ("accept_threads", observation::ACCEPT),
    ("accepts_per_s", observation::ACCEPT),
];

/// Words that print an unknown time as none.
const NO_TIME: [&str; 3] = ["up to 0 ms", "longest wait 0 ms", "mean wait 0 ms"];

/// What in a finding's numbers cannot be, one sentence each; nothing if they agree.
pub fn contradictions(finding: &Finding, world: &Correlator) -> Vec<String> {
    let said = |name: &str| match finding.evidence.get(name) {
        #[expect(clippy::cast_precision_loss, reason = "for comparisons of small numbers")]
        Some(Value::Number(number)) => Some(*number as f64),
        Some(Value::Measure(measure)) => Some(*measure),
        _ => None,
    };
    let mut wrong: Vec<String> = RELATIONS.iter().filter_map(|relation| relation.broken(said)).collect();
    for (name, value) in finding.evidence.iter() {
        let is_number = matches!(value, Value::Number(_) | Value::Measure(_));
        if name != "why" {
            wrong.extend(undeclared(finding.code, name, value));
        }
        let rate_without_time = name.ends_with("_per_s")
            && is_number
            && !RELATIONS.iter().any(|relation| relation.is_rate_of(name, said));
        if rate_without_time {
            wrong.push(format!("{name} is over an interval that is not stated"));
        }
        let observed_by = OBSERVED_BY.iter().find(|(known, _)| *known == name).map(|(_, by)| *by);
        if let Some(by) = observed_by.filter(|by| !world.observes(by))
            && said(name) == Some(0.0)
        {
            wrong.push(format!("{name} is 0, and {by} is not observed: it is unknown"));
        }
    }
    let texts = finding.numbers.iter().chain([&finding.title, &finding.explanation]);
    for text in texts.filter(|text| NO_TIME.iter().any(|words| text.contains(words))) {
        wrong.push(format!("an unknown time is told as none: {text}"));
    }
    wrong
}

/// What is wrong with a key, if anything: its finding lists it, with its form.
pub(super) fn undeclared(code: &str, name: &str, value: &Value) -> Option<String> {
    let Some(key) = super::kind(code).and_then(|kind| kind.evidence.iter().find(|key| key.name == name))
    else {
        return Some(format!("{name} is not among the evidence of {code}"));
    };
    let fits = match value {
        Value::Unknown(()) => true,
        Value::Number(_) => key.form == Form::Number,
        Value::Measure(_) => key.form == Form::Measure,
        Value::Flag(_) => key.form == Form::Flag,
        Value::Text(_) => matches!(key.form, Form::Text | Form::Time),
        Value::Texts(_) | Value::Options(_) => key.form == Form::Texts,
        Value::Range(_) => key.form == Form::Range,
        Value::Ports(_) => key.form == Form::Ranges,
        Value::Endpoint(_) => key.form == Form::Endpoint,
        Value::Party(_) => key.form == Form::Party,
        Value::Parties(_) => key.form == Form::Parties,
    };
    (!fits).then(|| format!("{name} is {value:?}, and declared as {:?}", key.form))
}

impl Relation {
    /// Whether it relates the rate `name` to an interval that is stated.
    fn is_rate_of(&self, name: &str, said: impl Fn(&str) -> Option<f64>) -> bool {
        matches!(self, Rate { rate, over, .. } if *rate == name && said(over).is_some())
    }

    /// In words, if it does not hold.
    fn broken(&self, said: impl Fn(&str) -> Option<f64>) -> Option<String> {
        /// Rates and intervals are rounded to one decimal: at most this much is lost of either.
        const ROUNDED: f64 = 0.05;
        let sum = |names: &[&str]| names.iter().filter_map(|name| said(name)).sum::<f64>();
        match self {
            Part { whole, parts } => {
                let (all, sum) = (said(whole)?, sum(parts));
                // Measures are rounded one by one.
                (sum > all + 2.0 * ROUNDED)
                    .then(|| format!("{} is {sum}, and {whole} only {all}", parts.join(" + ")))
            }
            Rate { rate, over, counts } => {
                let (per_second, seconds, counted) = (said(rate)?, said(over)?, sum(counts));
                let most = (per_second + ROUNDED) * (seconds + ROUNDED) + 1.0;
                (counted > most).then(|| {
                    format!(
                        "{} is {counted} in {over} {seconds}, and {rate} only {per_second}",
                        counts.join(" + ")
                    )
                })
            }
            Kernel { kernel, ours } => {
                let (counted, sum) = (said(kernel)?, sum(ours));
                (sum > counted).then(|| format!("{} is {sum}, and {kernel} only {counted}", ours.join(" + ")))
            }
            Percent(percent) => {
                let share = said(percent)?;
                (share > 100.0).then(|| format!("{percent} is {share}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::testing::{Play, Server, task};
    use crate::finding::{Evidence, State};

    /// A finding with this evidence, which is otherwise sound.
    fn with(evidence: Evidence) -> (Finding, Play) {
        let mut play = Play::new(4096);
        let mut server = Server::new(100, "0.0.0.0:1080", 20);
        server.listen(&mut play, task(6039, "delegated"), Some(20), 4096);
        server.run(&mut play, 10, 250, 4000);
        let finding =
            Finding { evidence, state: State::Updated, ..play.only_of("accept-queue-overflow").clone() };
        (finding, play)
    }

    fn wrong(evidence: Evidence) -> Vec<String> {
        let (finding, play) = with(evidence);
        contradictions(&finding, play.engine.world())
    }

    #[test]
    fn what_a_real_overflow_says_agrees() {
        let (_, play) = with(Evidence::new());
        for finding in &play.findings {
            assert_eq!(contradictions(finding, play.engine.world()), Vec::<String>::new(), "{finding:#?}");
        }
    }

    #[test]
    fn each_kind_of_contradiction_is_found() {
        let spoiled = [
            Evidence::new().with("wait_max_ms", 3.0).with("wait_mean_ms", 4.0),
            Evidence::new()
                .with("syn_drops", 54_u64)
                .with("ack_drops", 0_u64)
                .with("kernel_ListenOverflows", 0_u64),
            Evidence::new().with("syn_drops", 886_u64).with("arrivals_per_s", 157.0).with("duration_s", 4.7),
            Evidence::new().with("arrivals_per_s", 157.0),
            Evidence::new().with("syn_drops", 1.5),
            Evidence::new().with("time_wait", 1_u64),
            Evidence::new().with("a_number_of_a_new_finding", 1_u64),
        ];
        for evidence in spoiled {
            assert_eq!(wrong(evidence.clone()).len(), 1, "{evidence:?}");
        }
        // Unknown is no number.
        let unknown = Evidence::new().with("syn_drops", None::<u64>).with("kernel_ListenOverflows", 0_u64);
        assert_eq!(wrong(unknown), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_observed_is_not_zero_and_no_time_is_told_for_an_unknown_one() {
        let (mut finding, _) = with(Evidence::new().with("expired", 0_u64));
        finding.code = "syn-queue-full";
        let blind = Play::polled(4096, crate::event::ObservationStatus::Attached);
        assert_eq!(contradictions(&finding, blind.engine.world()).len(), 1);
        finding.evidence = Evidence::new();
        finding.numbers = vec!["1 connect not answered; waited up to 0 ms".to_owned()];
        assert_eq!(contradictions(&finding, blind.engine.world()).len(), 1);
    }
}
