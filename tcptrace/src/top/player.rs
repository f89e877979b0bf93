//! A recording that is wound and played: the model as it was at one moment of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::event::{Event, Timestamp};
#[cfg(test)]
use crate::finding::State;
use crate::record::{Condition, Tape, TapeError};

use super::model::Model;

/// Opens the recording anew: to go back is to begin again.
pub(crate) type Open = Box<dyn Fn() -> Result<Tape, TapeError>>;

/// Events that are taken in between two looks at the clock.
const CHUNK: usize = 512;

/// A recording, and how far it has been played.
pub struct Player {
    open: Open,
    tape: Tape,
    /// Read, and not yet played.
    waiting: VecDeque<Event>,
    read_to_end: bool,
    model: Model,
    /// Where it is.
    at: Timestamp,
    /// Where it is to be; `None`: at its end.
    target: Option<Timestamp>,
    from: Timestamp,
    to: Timestamp,
    /// When findings were opened, in all of it, as far as it was played.
    marks: Vec<Timestamp>,
    /// Whether it was played to its end once: then its length is known.
    measured: bool,
}

impl Player {
    /// At its beginning, to be wound to its end.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(open: Open) -> Result<Self, TapeError> {
        let tape = open()?;
        let from = tape.metadata().started;
        let to = tape.metadata().totals.map_or(from, |totals| totals.ended).max(from);
        Ok(Self {
            open,
            tape,
            waiting: VecDeque::new(),
            read_to_end: false,
            model: Model::default(),
            at: from,
            target: None,
            from,
            to,
            marks: Vec::new(),
            measured: false,
        })
    }

    /// What is known at the moment where it is.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Where it is.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Where it is, or where it is being wound to.
    #[must_use]
    pub fn goal(&self) -> Timestamp {
        self.target.unwrap_or(if self.is_there() { self.at } else { self.to })
    }

    /// From where to where it goes.
    #[must_use]
    pub fn span(&self) -> (Timestamp, Timestamp) {
        (self.from, self.to)
    }

    /// When findings were opened.
    #[must_use]
    pub fn marks(&self) -> &[Timestamp] {
        &self.marks
    }

    /// Whether it is where it is to be.
    #[must_use]
    pub fn is_there(&self) -> bool {
        match self.target {
            Some(target) => self.at >= target,
            None => self.read_to_end && self.waiting.is_empty(),
        }
    }

    /// Whether there is nothing after where it is.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.read_to_end && self.waiting.is_empty()
    }

    /// What is wrong with it, as far as it was read.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.tape.condition()
    }

    /// Its recorder's words about it.
    #[must_use]
    pub fn metadata(&self) -> &crate::record::Metadata {
        self.tape.metadata()
    }

    /// It is to be at `target`, or at the end if that is later.
    ///
    /// # Errors
    /// When it cannot be opened again.
    pub fn wind(&mut self, target: Timestamp) -> Result<(), TapeError> {
        let target = target.max(self.from);
        if target < self.at {
            self.tape = (self.open)()?;
            self.waiting.clear();
            self.read_to_end = false;
            self.model = Model::default();
            self.at = self.from;
        }
        self.target = (!self.measured || target < self.to).then_some(target);
        Ok(())
    }

    /// It is to be at its end.
    pub fn wind_to_end(&mut self) {
        self.target = None;
    }

    /// Plays on for about as long as `budget`; whether it is where it is to be.
    ///
    /// # Errors
    /// When it cannot be read on.
    pub fn advance(&mut self, budget: Duration) -> Result<bool, TapeError> {
        let begun = Instant::now();
        let mut read = Vec::new();
        while !self.is_there() {
            if self.waiting.is_empty() && !self.read_to_end {
                self.read_to_end = !self.tape.next_events(&mut read)?;
                self.waiting.extend(read.drain(..));
            }
            if self.waiting.is_empty() && self.read_to_end {
                self.measured = true;
                self.at = self.to;
                self.target = None;
                break;
            }
            for _ in 0..CHUNK {
                let next = self.waiting.front().map(|event| event.time);
                // What comes after the target waits for it.
                let (Some(time), target) = (next, self.target) else { break };
                if let Some(target) = target
                    && time > target
                {
                    self.at = target;
                    break;
                }
                let Some(event) = self.waiting.pop_front() else { break };
                if self.model.events() == 0 && !self.measured {
                    // The file is a little older than what is in it.
                    self.from = self.from.max(time);
                }
                self.at = self.at.max(time);
                self.to = self.to.max(time);
                self.model.note(&event);
            }
            if begun.elapsed() >= budget {
                break;
            }
        }
        if !self.measured || self.marks.is_empty() {
            self.marks = self.model.journal.stories().map(|story| story.opened).collect();
        }
        Ok(self.is_there())
    }
}

/// Whether anything is open at the moment where it is.
impl Player {
    #[cfg(test)]
    pub(crate) fn open_findings(&self) -> usize {
        self.model.journal.stories().filter(|story| story.latest.state != State::Closed).count()
    }
}
