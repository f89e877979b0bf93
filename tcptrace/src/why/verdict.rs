//! What was found at each step, and the one verdict that follows.

use std::net::SocketAddr;

use super::rules;
use crate::finding::{Confidence, Remedy};

/// What a candidate cause has come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It was looked at and is not the cause.
    Fine {
        /// What was seen.
        text: String,
    },
    /// It is a cause.
    Problem(Verdict),
    /// It is known that connections are answered.
    Answers(Verdict),
    /// It could not be looked at, or does not apply.
    Unknown {
        /// Why.
        text: String,
    },
}

impl Found {
    /// Fine, because of `text`.
    pub fn fine(text: impl Into<String>) -> Self {
        Self::Fine { text: text.into() }
    }

    /// Unknown, because of `text`.
    pub fn unknown(text: impl Into<String>) -> Self {
        Self::Unknown { text: text.into() }
    }

    /// A certain problem is likely at most, because of `doubt`.
    pub(super) fn doubt(&mut self, doubt: &str) {
        if let Self::Problem(verdict) = self
            && verdict.confidence == Confidence::Certain
        {
            verdict.confidence = Confidence::Likely;
            verdict.text = format!("{}; not certain, because {doubt}", verdict.text);
        }
    }

    /// What was seen, in words.
    pub fn text(&self) -> &str {
        match self {
            Self::Fine { text } | Self::Unknown { text } => text,
            Self::Problem(verdict) | Self::Answers(verdict) => &verdict.text,
        }
    }
}

/// Why it does not answer, or that it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Code, for example `wrong-address`.
    pub verdict: &'static str,
    /// How sure.
    pub confidence: Confidence,
    /// What was seen, in a sentence.
    pub text: String,
    /// What to do.
    pub remedy: Vec<Remedy>,
}

impl Verdict {
    /// A verdict without remedy.
    pub fn new(verdict: &'static str, confidence: Confidence, text: impl Into<String>) -> Self {
        Self { verdict, confidence, text: text.into(), remedy: Vec::new() }
    }

    /// With one thing more to do.
    #[must_use]
    pub fn advise(mut self, remedy: Remedy) -> Self {
        self.remedy.push(remedy);
        self
    }
}

/// One candidate cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub found: Found,
}

/// All about one address.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The address.
    pub address: SocketAddr,
    /// The candidate causes, in order.
    pub steps: Vec<Step>,
    /// The verdict.
    pub verdict: Verdict,
    /// Whether connections there are answered: `false` after any problem, `None` if nothing was seen either way.
    pub healthy: Option<bool>,
}

impl Answer {
    /// The surest problem decides; of equally sure ones the first that a connection meets. That it was seen to answer is
    /// stronger than what is only possible or likely. A certain problem that an acceptance excludes is a contradiction: then
    /// nothing is decided.
    pub(super) fn of(address: SocketAddr, steps: Vec<Step>) -> Self {
        #[cfg(test)]
        for step in &steps {
            if let Found::Problem(verdict) | Found::Answers(verdict) = &step.found {
                let declared = rules::VERDICTS.iter().find(|rule| rule.code == verdict.verdict);
                let rests = declared.map(|rule| rule.rests_on(verdict.confidence).is_some());
                // Those of the tests of this very function are made up.
                assert!(step.name == "x" || rests == Some(true), "{verdict:?} is not declared");
            }
        }
        let best = |wanted: fn(&Found) -> Option<&Verdict>| {
            let found = steps.iter().filter_map(|step| wanted(&step.found));
            found.fold(None::<&Verdict>, |best, next| match best {
                Some(best) if best.confidence >= next.confidence => Some(best),
                _ => Some(next),
            })
        };
        let problem = best(|found| if let Found::Problem(verdict) = found { Some(verdict) } else { None });
        let answers = best(|found| if let Found::Answers(verdict) = found { Some(verdict) } else { None });
        let (verdict, healthy) = match (problem, answers) {
            (Some(problem), Some(answers)) if answers.confidence > problem.confidence => {
                (answers.clone(), Some(true))
            }
            (Some(problem), Some(answers))
                if answers.confidence == Confidence::Certain
                    && rules::is_excluded_by_acceptance(problem.verdict) =>
            {
                (contradiction(problem, answers), None)
            }
            // That nothing came within the time of a look is so of every server that is idle.
            (Some(problem), None) if problem.verdict == "nothing-arrives" => (problem.clone(), None),
            (Some(problem), _) => (problem.clone(), Some(false)),
            (None, Some(answers)) => (answers.clone(), Some(true)),
            (None, None) => (nothing_found(), None),
        };
        Self { address, steps, verdict, healthy }
    }
}

fn contradiction(problem: &Verdict, answers: &Verdict) -> Verdict {
    let text = format!("two looks contradict each other: {}; and yet {}", problem.text, answers.text);
    Verdict::new("contradiction", Confidence::Certain, text).advise(Remedy::text(
        "run it again: what changed between the looks does not do so twice; if it stays, the connection ends elsewhere than it seems",
    ))
}

fn nothing_found() -> Verdict {
    Verdict::new(
        "no-fault-found",
        Confidence::Possible,
        "nothing is wrong as far as this host can tell, and no connection was seen to be answered or not",
    )
    .advise(Remedy::text(
        "run it again with --probe to open one connection, or with a longer --for while a client tries",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(found: Found) -> Step {
        Step { name: "x", found }
    }

    fn verdict(steps: Vec<Found>) -> (&'static str, Option<bool>) {
        let answer = Answer::of("192.0.2.1:80".parse().unwrap(), steps.into_iter().map(step).collect());
        (answer.verdict.verdict, answer.healthy)
    }

    fn problem(code: &'static str, confidence: Confidence) -> Found {
        Found::Problem(Verdict::new(code, confidence, ""))
    }

    #[test]
    fn the_surest_problem_decides_and_then_the_first() {
        use Confidence::{Certain, Likely, Possible};
        assert_eq!(
            verdict(vec![problem("a", Likely), problem("b", Certain), problem("c", Certain)]),
            ("b", Some(false))
        );
        assert_eq!(verdict(vec![Found::fine(""), problem("a", Possible)]), ("a", Some(false)));
        let answers = || Found::Answers(Verdict::new("answers", Certain, ""));
        assert_eq!(verdict(vec![problem("a", Likely), answers()]), ("answers", Some(true)));
        assert_eq!(verdict(vec![problem("a", Certain), answers()]), ("a", Some(false)));
        // An acceptance that was seen, and no listener that could have taken it.
        assert_eq!(verdict(vec![problem("no-listener", Certain), answers()]), ("contradiction", None));
        assert_eq!(verdict(vec![problem("no-listener", Likely), answers()]), ("answers", Some(true)));
        assert_eq!(verdict(vec![Found::unknown("")]), ("no-fault-found", None));
    }
}
