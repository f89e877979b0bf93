//! From events to output: the part of the way that live traces, rehearsals and recordings share.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use crate::{
    event::{Event, Kind},
    finding::{Engine, Finding, Severity},
    output::{Output, Selection, Summary, Written},
};

/// Correlates events, and prints what was asked for.
pub struct Pipeline<W: Write> {
    engine: Engine,
    output: Output<W>,
    selection: Selection,
    events: bool,
    worst: Option<Severity>,
    muted: bool,
}

impl<W: Write> Pipeline<W> {
    /// Prints to `output` the findings that `selection` wants, and with `events` the kernel's records behind them.
    pub fn new(output: Output<W>, selection: Selection, events: bool) -> Self {
        Self { engine: Engine::default(), output, selection, events, worst: None, muted: false }
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
        self.feed_and_watch(events, |_| {})
    }

    /// Like [`Self::feed`], and shows every finding to `watch`, also those that are not printed.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn feed_and_watch(&mut self, events: &[Event], mut watch: impl FnMut(&Finding)) -> Written {
        let mut findings = Vec::new();
        for event in events {
            match &event.kind {
                Kind::Coverage(coverage) => go_on(self.output.coverage(coverage, event.time)?)?,
                Kind::Lost(lost) if !self.muted => go_on(self.output.lost(lost)?)?,
                _ => {}
            }
            self.engine.on_event(event, |finding| findings.push(finding));
            if self.events
                && !self.muted
                && event.kind.is_kernel_record()
                && self.selection.wants_event(event, self.engine.world())
            {
                go_on(self.output.event(event, self.engine.world())?)?;
            }
            for finding in findings.drain(..) {
                watch(&finding);
                if !self.muted && self.selection.wants(&finding) {
                    self.worst = self.worst.max(Some(finding.severity));
                    go_on(self.output.finding(&finding)?)?;
                }
            }
        }
        self.output.flush()
    }

    /// The last line.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn finish(&mut self) -> Written {
        match self.output.summary(&Summary::of(&self.engine))? {
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
