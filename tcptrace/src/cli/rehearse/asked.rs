//! `tcptrace why`, asked after a rehearsal about what does not answer in it, with what the rehearsal's own trace has seen.

use std::time::Duration;

use crate::{
    event::{CounterSample, Event},
    host::{counters, netns::Netns},
    rehearse::{GroundTruth, Question, Stage},
    stock::Tracing,
    why::{ProbeOutcome, Scope, Target, answers, decisive, look_after, try_one},
};

/// How long a connection of its own may take, and then a program to accept it: emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has been seen so far.
pub(super) struct Asked {
    tracing: Tracing,
    /// Counters of the traced namespace before the play.
    counters: Vec<(Netns, CounterSample)>,
}

impl Asked {
    /// Before the play in `netns`.
    pub(super) fn begin(netns: &Netns, first: &[Event]) -> Self {
        let mut tracing = Tracing::of_one_server();
        tracing.feed(first);
        let counters = counters::read(netns).ok().map(|counters| (netns.clone(), counters));
        Self { tracing, counters: counters.into_iter().collect() }
    }

    /// What the trace brings.
    pub(super) fn feed(&mut self, events: &[Event]) {
        self.tracing.feed(events);
    }

    /// Asks everything that the truth has an answer to, while the servers still stand; what is answered wrong.
    pub(super) fn judge(&self, stage: &Stage, truth: &GroundTruth) -> Vec<String> {
        truth.why.iter().filter_map(|question| self.ask(stage, question)).collect()
    }

    fn ask(&self, stage: &Stage, question: &Question) -> Option<String> {
        let place = [stage.server(), stage.client()].into_iter().find(|at| at.inode() == question.from)?;
        let wrong = |what: String| Some(format!("why {}: {what}", question.target));
        let client = match Netns::from_path(&place.path()) {
            Ok(client) => client,
            Err(error) => return wrong(error.to_string()),
        };
        let target = Target { host: question.target.ip().to_string(), port: question.target.port() };
        let probe = question.probe.then(|| try_one(&client, question.target, PATIENCE, PATIENCE));
        let joined = match &probe {
            Some(ProbeOutcome::Connected { end: Some(end), .. }) => vec![(question.target, end.at)],
            _ => Vec::new(),
        };
        let mut facts = match look_after(&Scope { target, client, joined }, &self.tracing, &self.counters) {
            Ok(facts) => facts,
            Err(error) => return wrong(error.to_string()),
        };
        if let Some(address) = facts.addresses.iter_mut().flatten().next() {
            address.probe = probe;
        }
        let healthy = Some(question.verdict == "answers");
        let answers = answers(&facts);
        match decisive(&answers) {
            Some(answer) if answer.verdict.verdict == question.verdict && answer.healthy == healthy => None,
            Some(answer) => wrong(format!(
                "the verdict is {}, and {} was said: {}",
                question.verdict, answer.verdict.verdict, answer.verdict.text
            )),
            None => wrong("no answer was given".to_owned()),
        }
    }
}
