//! One file per finding: when it opens, updates and closes, its sentence, its evidence, its remedy.
//!
//! A finding implements `Diagnosis` (`case.rs`), which gives it its life: opened once, updated at most once a second,
//! closed when quiet or at the end. To add one: copy a file, and name it here twice.

mod accept_failed;
mod accept_queue_overflow;
mod accept_stall;
mod agree;
mod backlog_truncated;
mod bind_conflict;
mod bind_refused;
mod case;
mod cause;
mod commands;
mod connect_refused;
mod connection_exists;
mod destination;
mod events_lost;
mod evidence;
mod explained;
mod half_open_capture;
mod handshake_dropped;
pub mod keys;
mod kind;
mod listener_closed;
mod no_listener;
pub(crate) mod own_words;
mod owner_state;
mod parts;
mod party;
mod port_exhaustion;
mod port_grab_risk;
mod port_leak;
mod queue_limit;
mod reuseport_imbalance;
mod slow_accept;
mod syn_queue_full;
mod syn_unanswered;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod words;

pub use agree::contradictions;
pub use cause::{Apart, CauseRule};
pub use evidence::{Evidence, Value};
pub use explained::ExplainedBy;
pub use keys::Key;
pub use kind::{FindingKind, explained, page};
pub use parts::{Confidence, Finding, Remedy, Severity, State};
pub use party::{NetworkFacts, Party, ProcessName, SocketFacts};
pub(crate) use party::{at_device, serving};
pub(crate) use queue_limit::{QueueLimit, SetBy};

use std::collections::BTreeMap;

use crate::correlate::{Change, Correlator, Thresholds};
use crate::event::Event;

use case::{Cases, Detector, Reporter};
use explained::Explanations;

/// Makes the lists of all findings.
macro_rules! findings {
    ($($module:ident::$diagnosis:ident,)*) => {
        /// Every kind of finding.
        pub const KINDS: &[FindingKind] = &[$(FindingKind::of::<$module::$diagnosis>()),*];

        fn detectors() -> Vec<Box<dyn Detector>> {
            vec![$(Box::new(Cases::<$module::$diagnosis>::default())),*]
        }
    };
}

// What an overflow tells of as well comes before it: it closes when that opens.
findings! {
    accept_failed::AcceptFailed,
    accept_stall::AcceptStall,
    slow_accept::SlowAccept,
    accept_queue_overflow::AcceptQueueOverflow,
    backlog_truncated::BacklogTruncated,
    bind_conflict::BindConflict,
    events_lost::EventsLost,
    half_open_capture::HalfOpenCapture,
    listener_closed::ListenerClosed,
    port_exhaustion::PortExhaustion,
    port_grab_risk::PortGrabRisk,
    port_leak::PortLeak,
    reuseport_imbalance::ReuseportImbalance,
    syn_queue_full::SynQueueFull,
    syn_unanswered::SynUnanswered,
    connect_refused::ConnectRefused,
    no_listener::NoListener,
    handshake_dropped::HandshakeDropped,
    bind_refused::BindRefused,
    connection_exists::ConnectionExists,
}

/// The kind of finding of this code.
pub fn kind(code: &str) -> Option<&'static FindingKind> {
    KINDS.iter().find(|kind| kind.code == code)
}

/// From events to findings: correlation, and every finding there is.
pub struct Engine {
    world: Correlator,
    detectors: Vec<Box<dyn Detector>>,
    explanations: Explanations,
    last_id: u64,
    opened: BTreeMap<&'static str, u64>,
    /// Of the event in work; kept for its memory.
    changes: Vec<Change>,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            world: Correlator::default(),
            detectors: detectors(),
            explanations: Explanations::default(),
            last_id: 0,
            opened: BTreeMap::new(),
            changes: Vec::new(),
        }
    }
}

impl Engine {
    /// Reports from these thresholds on.
    pub fn with(thresholds: Thresholds) -> Self {
        Self { world: Correlator::with(thresholds), ..Self::default() }
    }

    /// Reports from these thresholds on from now on; what is open goes by them as well.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.world.set_thresholds(thresholds);
    }

    /// For a question about one server: a single packet that is dropped, or connect that is refused, is an answer to it.
    pub fn of_one_server() -> Self {
        let mut engine = Self::default();
        engine.world.report_each();
        engine
    }

    /// Takes in an event; hands every finding that was opened, updated or closed by it to `report`.
    pub fn on_event(&mut self, event: &Event, mut report: impl FnMut(Finding)) {
        self.changes.clear();
        self.world.on_event(event, &mut self.changes);
        let (opened, explanations, world) = (&mut self.opened, &mut self.explanations, &self.world);
        let standpoint = world.standpoint();
        let mut count_and_report = |mut finding: Finding| {
            for remedy in &mut finding.remedy {
                remedy.settle(standpoint);
            }
            finding.name_namespaces(world);
            if finding.state == State::Opened {
                *opened.entry(finding.code).or_default() += 1;
            }
            explanations.report(finding, &mut report);
        };
        let mut reporter = Reporter { last_id: &mut self.last_id, report: &mut count_and_report };
        for change in &self.changes {
            for detector in &mut self.detectors {
                detector.on_change(change, world, &mut reporter);
            }
        }
    }

    /// What is known from the events so far.
    pub fn world(&self) -> &Correlator {
        &self.world
    }

    /// How many findings of each code were opened.
    pub fn opened(&self) -> &BTreeMap<&'static str, u64> {
        &self.opened
    }

    /// The codes of all findings that it can make.
    pub fn codes(&self) -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|kind| kind.code)
    }

    /// How many findings of each code were not told because too many were open.
    pub fn untold(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.detectors.iter().map(|detector| (detector.code(), detector.untold()));
        counts.filter(|(_, untold)| *untold > 0)
    }
}

#[cfg(test)]
mod tests;
