//! What is known, kept for a screen: the engine, and what it does not keep because findings do not need it.

use std::collections::{BTreeSet, VecDeque};

use ahash::AHashMap;

use crate::config;
use crate::correlate::{Correlator, Listener, ListenerId};
use crate::event::{Event, Kind, Timestamp};
use crate::finding::Engine;

use super::journal::Journal;
use super::timeline::Timelines;

/// Seconds of which the depth of a queue is kept.
const SECONDS: usize = 120;

/// How often tracks of listeners that are gone are thrown away, seconds.
const CLEANING: u64 = 30;

/// Everything that has been made of the events so far.
pub struct Model {
    engine: Engine,
    pub(crate) journal: Journal,
    pub(crate) timelines: Timelines,
    tracks: AHashMap<ListenerId, Track>,
    /// Namespaces of which something is known about ephemeral ports.
    pub(crate) port_spaces: BTreeSet<u32>,
    ticks: u64,
    ended: bool,
    events: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            engine: Engine::with(config::thresholds()),
            journal: Journal::default(),
            timelines: Timelines::default(),
            tracks: AHashMap::new(),
            port_spaces: BTreeSet::new(),
            ticks: 0,
            ended: false,
            events: 0,
        }
    }
}

/// What the queue of a listener did in the last seconds.
#[derive(Debug, Default)]
struct Track {
    /// Greatest depth of each second, the latest at the back.
    depths: VecDeque<u32>,
    /// Its drops at the last tick.
    dropped: u64,
}

impl Model {
    /// Takes in an event.
    pub fn note(&mut self, event: &Event) {
        self.events += 1;
        let journal = &mut self.journal;
        self.engine.on_event(event, |finding| journal.note(&finding));
        self.timelines.note(event);
        match &event.kind {
            Kind::PortUse(of) => drop(self.port_spaces.insert(of.netns)),
            Kind::PortSurvey(of) => drop(self.port_spaces.insert(of.netns)),
            Kind::Tick => self.tick(),
            Kind::End => self.ended = true,
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        for listener in self.engine.world().listeners().iter().filter(|listener| listener.closed.is_none()) {
            let dropped = listener.overflows().total();
            let depth = listener.depth;
            // Most listeners have nothing in their queues, ever.
            if depth == 0 && dropped == 0 && !self.tracks.contains_key(&listener.id) {
                continue;
            }
            let track = self.tracks.entry(listener.id).or_default();
            // What drops is full, however soon after that somebody looks.
            let full = if dropped > track.dropped { listener.limit.saturating_add(1) } else { 0 };
            track.dropped = dropped;
            if track.depths.len() >= SECONDS {
                track.depths.pop_front();
            }
            track.depths.push_back(depth.max(full));
        }
        if self.ticks.is_multiple_of(CLEANING) {
            let listeners = self.engine.world().listeners();
            self.tracks.retain(|id, _| listeners.get(*id).is_some());
        }
    }

    /// Depths of the last seconds, oldest first.
    pub(crate) fn depths(&self, listener: &Listener) -> Vec<u32> {
        self.tracks.get(&listener.id).map(|track| track.depths.iter().copied().collect()).unwrap_or_default()
    }

    /// What the events so far say.
    pub fn world(&self) -> &Correlator {
        self.engine.world()
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The latest time that an event named.
    pub fn now(&self) -> Timestamp {
        self.world().now()
    }

    /// Whether the last event has come.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// How many events were taken in.
    pub fn events(&self) -> u64 {
        self.events
    }
}
