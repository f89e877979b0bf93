//! What is said above all views: what is watched, how well, what was lost, what it costs.

use std::time::Duration;

use crate::event::{ObservationStatus, Timestamp};

use super::super::model::Model;

/// Above all views.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// Live, or of a recording.
    pub mode: Mode,
    /// The host that it is of.
    pub host: String,
    /// Its kernel.
    pub kernel: String,
    /// The recording's file, if it is one.
    pub file: String,
    /// The moment, if it is not that of the last event.
    pub now: Option<Timestamp>,
    /// When it began.
    pub begun: Timestamp,
    /// Kind of attachment; `None` while nothing is attached yet.
    pub tier: Option<&'static str>,
    /// Observations that see every case, of how many.
    pub attached: (usize, usize),
    /// What is polled or missing, and why.
    pub gaps: Vec<Gap>,
    /// What narrows the trace itself.
    pub scope: Vec<String>,
    /// Events that were lost.
    pub lost: u64,
    /// What was lost, in words.
    pub losses: Vec<String>,
    /// What had to be forgotten, or was not told, in words.
    pub forgotten: Vec<String>,
    /// What tracing costs, if that is known.
    pub own: Option<OwnCost>,
    /// Warnings of this program.
    pub warnings: Vec<String>,
}

/// What is observed poorly, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What.
    pub name: String,
    /// Not at all; else it is polled.
    pub missing: bool,
    /// Why.
    pub reason: Option<String>,
}

/// Where the events come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mode {
    /// This host; probes are being attached.
    #[default]
    Attaching,
    /// This host.
    Live,
    /// This host, until then: the trace has ended.
    Over,
    /// A recording.
    Recording {
        /// Its file.
        name: String,
        /// From when to when it goes.
        span: (Timestamp, Timestamp),
        /// When findings were opened, in all of it.
        marks: Vec<Timestamp>,
        /// Whether it is being played.
        playing: bool,
        /// Where it is being wound to, while that goes on.
        winding: bool,
        /// What is wrong with it.
        shortage: Option<String>,
    },
}

/// What tracing costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnCost {
    /// Share of one CPU that this process used in the last seconds.
    pub cpu: f64,
    /// Bytes of memory that it has.
    pub memory: u64,
    /// Mean time of a run of a BPF program of ours, where the kernel measures it.
    pub bpf_run: Option<Duration>,
    /// Runs of our BPF programs a second, likewise.
    pub bpf_runs: Option<f64>,
}

impl Header {
    /// Takes over what the model knows of coverage and losses.
    pub fn fill(&mut self, model: &Model) {
        let world = model.world();
        if let Some(coverage) = world.coverage() {
            self.tier = Some(coverage.tier.name());
            let attached = |status| status == ObservationStatus::Attached;
            let all = &coverage.observations;
            self.attached = (all.iter().filter(|of| attached(of.status)).count(), all.len());
            self.gaps = all
                .iter()
                .filter(|of| !attached(of.status))
                .map(|of| Gap {
                    name: of.name.clone(),
                    missing: of.status == ObservationStatus::Missing,
                    reason: of.reason.clone(),
                })
                .collect();
            self.scope = coverage.scope.iter().chain(&coverage.filters).cloned().collect();
            if self.kernel.is_empty() {
                self.kernel.clone_from(&coverage.kernel);
            }
        }
        self.begun = world.start();
        let losses = world.losses();
        self.lost = losses.total();
        self.losses = losses
            .iter()
            .map(|(what, loss)| format!("{} {what} at the {}", loss.count, loss.place.name()))
            .collect();
        let untold =
            model.engine().untold().map(|(code, count)| format!("{count} {code} findings not reported"));
        let mut forgotten: Vec<String> =
            world.forgotten().into_iter().map(|(what, count)| format!("{count} {what}")).collect();
        forgotten.extend(untold);
        let of_screen = [("findings", model.journal.forgotten()), ("timelines", model.timelines.forgotten())];
        let of_screen = of_screen.into_iter().filter(|(_, count)| *count > 0);
        forgotten.extend(of_screen.map(|(what, count)| format!("{count} {what} of this screen")));
        self.forgotten = forgotten;
    }
}
