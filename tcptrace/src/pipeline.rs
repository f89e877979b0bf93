//! From events to output: the part of the way that live traces, rehearsals and recordings share.

use std::{
    borrow::Cow,
    io::{self, Write},
    ops::ControlFlow,
    time::Duration,
};

use crate::{
    config,
    correlate::Correlator,
    event::{Coverage, Event, Kind, Timestamp},
    finding::{Engine, Finding, Severity},
    output::{Counted, Output, Selection, Summary, Written},
};

/// Correlates events, and prints what was asked for.
pub struct Pipeline<W: Write> {
    engine: Engine,
    output: Output<W>,
    selection: Selection,
    events: bool,
    counted: Counted,
    /// What else was asked for that leaves something out, as the user wrote it.
    also: Vec<String>,
    worst: Option<Severity>,
    muted: bool,
    /// Whether it is of now, so that a person may wait for what comes.
    live: bool,
    /// When what is observed was last said: what is known at that time is what is watched.
    covered: Option<Timestamp>,
    /// How many findings were counted and not told, as last said, and when that was.
    untold: (u64, Timestamp),
}

/// Time between two lines that say how many findings are not told one by one.
const UNTOLD_EVERY: Duration = Duration::from_secs(10);

impl<W: Write> Pipeline<W> {
    /// Prints to `output` the findings that `selection` wants, and with `events` the kernel's records behind them.
    pub fn new(output: Output<W>, selection: Selection, events: bool) -> Self {
        Self {
            engine: Engine::with(config::thresholds()),
            output,
            selection,
            events,
            counted: Counted::default(),
            also: Vec::new(),
            worst: None,
            muted: false,
            live: false,
            covered: None,
            untold: (0, Timestamp::default()),
        }
    }

    /// It is of now, and goes on until it is interrupted.
    pub fn live(&mut self) {
        self.live = true;
    }

    /// Names what else leaves something out, as the user wrote it: a time.
    pub fn only(&mut self, words: Vec<String>) {
        self.also = words;
    }

    fn leaves_something_out(&self) -> bool {
        !self.also.is_empty() || !self.selection.is_everything()
    }

    fn words(&self) -> impl Iterator<Item = String> {
        self.selection.words().into_iter().chain(self.also.iter().cloned())
    }

    /// Whether what is found goes on unsaid: what happened before the time that one asks for.
    pub fn mute(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// Takes in events, in order. `Break` once nobody reads the output any more.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn feed(&mut self, events: &[Event]) -> Written {
        self.feed_and_watch(events, |_, _| {})
    }

    /// Like [`Self::feed`], and shows every finding to `watch`, also those that are not printed.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn feed_and_watch(
        &mut self,
        events: &[Event],
        mut watch: impl FnMut(&Finding, &Correlator),
    ) -> Written {
        let mut findings = Vec::new();
        for event in events {
            if self.covered.is_some_and(|covered| event.time > covered) {
                self.covered = None;
                go_on(self.output.watching(Some(self.engine.world()), self.live)?)?;
            }
            match &event.kind {
                Kind::Coverage(coverage) => {
                    go_on(self.output.coverage(event.time, &self.asked_for(coverage))?)?;
                    self.covered = Some(event.time);
                }
                Kind::Lost(lost) if !self.muted => go_on(self.output.lost(lost)?)?,
                Kind::Tick if self.live => go_on(self.output.heartbeat(self.engine.world())?)?,
                _ => {}
            }
            self.engine.on_event(event, |finding| findings.push(finding));
            if matches!(event.kind, Kind::Tick) && !self.muted && !self.leaves_something_out() {
                go_on(self.say_untold(event.time)?)?;
            }
            let shows_or_counts = self.events || self.leaves_something_out();
            if shows_or_counts
                && !self.muted
                && event.kind.is_kernel_record()
                && self.selection.wants_event(event, self.engine.world())
            {
                self.counted.event(event);
                if self.events {
                    go_on(self.output.event(event, self.engine.world())?)?;
                }
            }
            for finding in findings.drain(..) {
                watch(&finding, self.engine.world());
                if !self.muted && self.selection.wants(&finding) {
                    self.worst = self.worst.max(Some(finding.severity));
                    self.counted.finding(&finding);
                    go_on(self.output.finding(&finding)?)?;
                }
            }
        }
        self.output.flush()
    }

    /// That findings are only counted because there are so many, if there are more of them than when it was last said.
    fn say_untold(&mut self, now: Timestamp) -> Written {
        let (said, at) = self.untold;
        let all: u64 = self.engine.untold().map(|(_, count)| count).sum();
        if all <= said || (said > 0 && now.since(at) < UNTOLD_EVERY) {
            return Ok(ControlFlow::Continue(()));
        }
        self.untold = (all, now);
        let counts: Vec<_> = self.engine.untold().map(|(code, count)| format!("{count} {code}")).collect();
        self.output.note(&format!(
            "too many findings to tell one by one; so far these are only counted: {}",
            counts.join(", ")
        ))
    }

    /// All that is there has been fed: now is what is watched.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn begun(&mut self) -> Written {
        self.covered = None;
        match self.output.watching(Some(self.engine.world()), self.live)? {
            ControlFlow::Continue(()) => self.output.flush(),
            gone => Ok(gone),
        }
    }

    /// The coverage, with what was asked for here beside what was asked for when it was traced.
    fn asked_for<'a>(&self, coverage: &'a Coverage) -> Cow<'a, Coverage> {
        if !self.leaves_something_out() {
            return Cow::Borrowed(coverage);
        }
        let known = |word: &String| coverage.scope.contains(word) || coverage.filters.contains(word);
        let new = self.words().filter(|word| !known(word));
        let scope = coverage.scope.iter().cloned().chain(new).collect();
        Cow::Owned(Coverage { scope, ..coverage.clone() })
    }

    /// The last line.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn finish(&mut self) -> Written {
        if self.covered.take().is_some() {
            go_on(self.output.watching(Some(self.engine.world()), self.live)?)?;
        }
        let summary = if self.leaves_something_out() {
            Summary::of_selected(&self.engine, &self.selection, &self.counted, self.words())
        } else {
            Summary::of(&self.engine)
        };
        match self.output.summary(&summary)? {
            ControlFlow::Continue(()) => self.output.flush(),
            gone => Ok(gone),
        }
    }

    /// The worst severity of a finding that was printed.
    pub fn worst(&self) -> Option<Severity> {
        self.worst
    }

    /// Where it prints.
    pub fn output(&mut self) -> &mut Output<W> {
        &mut self.output
    }

    /// What it has made of the events.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// A reader that is gone, as an error: `?` leaves the loop, and whoever drives us takes it for the normal end that it is.
fn go_on(written: ControlFlow<()>) -> io::Result<()> {
    match written {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(io::ErrorKind::BrokenPipe.into()),
    }
}
