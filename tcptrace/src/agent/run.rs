//! The agent's main thread: from events to findings, recorder and meter.

use std::io;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::event::{Event, Kind, Timestamp};
use crate::finding::{Engine, Finding};
use crate::live::drive::drive_service;
use crate::live::{self, Live};
use crate::output::{Output, Summary, Written};
use crate::record::{Metadata, Recorder};

use super::http::{Desk, Wanted, serve};
use super::metrics::Meter;
use super::notify::Notify;
use super::status::add;
use super::{
    Keeper, Place, Retention, Status, Trigger, Triggers, Tuning, Why, give_memory_back, keep_needed,
};

/// How often the meter takes in what has grown, at least: what is closed is remembered for 30 s.
const FOLD: Duration = Duration::from_secs(5);

/// How often memory that nobody uses is given back.
const TRIM: Duration = Duration::from_secs(10);

/// How an agent is to run.
#[derive(Debug)]
pub struct Options {
    /// How to trace.
    pub live: live::Options,
    /// What can be changed while it runs.
    pub tuning: Tuning,
    /// End after this long.
    pub limit: Option<Duration>,
}

/// What came of reading the configuration again.
#[derive(Debug)]
pub struct Reloaded {
    /// What holds from now on.
    pub tuning: Tuning,
    /// What has changed, in words.
    pub words: String,
}

/// Why an agent cannot run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing can be traced.
    #[error(transparent)]
    Live(#[from] live::Error),
    /// Its directory cannot be written to.
    #[error("{path}: {}", crate::record::write_failure(.error))]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Something that the process needs of the kernel.
    #[error("{0}")]
    Process(String),
}

/// An agent that is about to run.
pub struct Agent<W: io::Write> {
    place: Place,
    status: Arc<Status>,
    triggers: (Sender<Trigger>, Receiver<Trigger>),
    output: Output<W>,
    listener: Option<TcpListener>,
}

impl<W: io::Write> Agent<W> {
    /// Of this directory; prints to `output`, and answers requests that come to `listener`.
    pub fn new(place: Place, output: Output<W>, listener: Option<TcpListener>) -> Self {
        Self { place, status: Arc::new(Status::default()), triggers: channel(), output, listener }
    }

    /// Runs until it is ended by a signal, or its time is up. `reload` reads the configuration again, when SIGHUP asks for it;
    /// its error says what is wrong there, and everything stays as it is.
    ///
    /// # Errors
    /// When it cannot begin. A disk that is full later does not end it.
    pub async fn run(
        self,
        options: &Options,
        mut reload: impl FnMut() -> Result<Reloaded, String>,
    ) -> Result<(), Error> {
        let Self { place, status, triggers: (trigger, triggered), output, listener } = self;
        let process = |error: io::Error| Error::Process(error.to_string());
        // Before anything can send it: the default is to end the process.
        let mut kept_by_signal = signal(SignalKind::user_defined1()).map_err(process)?;
        let mut reloads = signal(SignalKind::hangup()).map_err(process)?;
        let notify = Notify::from_environment();
        notify.say("STATUS=attaching");
        let (live, first) = Live::start(&options.live)?;
        keep_needed().map_err(Error::Process)?;
        // To attach takes more than to trace.
        give_memory_back();
        let (note, notes) = channel();
        let failed = |error| Error::Directory { path: place.path().display().to_string(), error };
        let tuning = options.tuning;
        let retention = Arc::new(Mutex::new(tuning.retention));
        let keeper =
            Keeper::adopt(&place, Arc::clone(&retention), triggered, Arc::clone(&status), note.clone())
                .map_err(failed)?;
        let coverage = first.iter().find_map(|event| match &event.kind {
            Kind::Coverage(coverage) => Some((**coverage).clone()),
            _ => None,
        });
        let began = first.first().map_or(Timestamp::default(), |event| event.time);
        let recorder =
            keeper.record(Metadata::of_this_host(live.clock(), began, coverage)).map_err(failed)?;
        // One at a time: whoever else asks meanwhile gets the same copy.
        let (want, wanted) = mpsc::channel(1);
        let (tune, tuned) = channel();
        let mut turn = Turn {
            meter: Meter::new(tuning.bounds, live.tracer().costs()),
            folded: None,
            trimmed: Instant::now(),
            wanted,
            engine: Engine::with(tuning.thresholds),
            recorder,
            triggers: Triggers::on(tuning.keep_on),
            trigger: trigger.clone(),
            status: Arc::clone(&status),
            notify,
            alive: Instant::now(),
            retention,
            tuned,
            output: Some(output),
            notes,
            findings: Vec::new(),
        };
        turn.take(&first);
        turn.status.turn(turn.engine.world().now());
        if let Some(listener) = listener {
            let (trigger, status) = (trigger.clone(), Arc::clone(&status));
            serve(listener, Desk { wanted: want, trigger, status }).map_err(process)?;
        }
        turn.begun();
        let over = async {
            let limit = async {
                match options.limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            let signals = async {
                while kept_by_signal.recv().await.is_some() {
                    // Fails when the recorder is gone: then there is nothing to keep.
                    let _gone = trigger.send(Trigger { time: status.now(), why: Why::Signal, answer: None });
                }
                std::future::pending::<()>().await;
            };
            let reloads = async {
                while reloads.recv().await.is_some() {
                    match reload() {
                        Ok(Reloaded { tuning, words }) => {
                            add(&status.reloads, 1);
                            // Fails when the agent is ending.
                            if tune.send(tuning).is_ok() {
                                let _gone = note.send(words);
                            }
                        }
                        Err(why) => {
                            add(&status.reloads_refused, 1);
                            log::warn!("the configuration stays as it was: {why}");
                        }
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = limit => {}
                () = signals => {}
                () = reloads => {}
            }
        };
        let ending = drive_service(live, over, |events| {
            turn.take(events);
            Ok(ControlFlow::Continue(()))
        })
        .await;
        turn.end().map_err(failed)?;
        ending.map(|_| ()).map_err(process)
    }
}

/// What is done with events as they come.
struct Turn<W: io::Write> {
    meter: Meter,
    /// When the meter last took in what had grown.
    folded: Option<Instant>,
    /// When memory was last given back.
    trimmed: Instant,
    wanted: mpsc::Receiver<Wanted>,
    engine: Engine,
    recorder: Recorder,
    triggers: Triggers,
    trigger: Sender<Trigger>,
    status: Arc<Status>,
    notify: Notify,
    /// When the service manager last heard that we are alive.
    alive: Instant,
    /// What the keeper goes by.
    retention: Arc<Mutex<Retention>>,
    /// The configuration, when it was read again.
    tuned: Receiver<Tuning>,
    /// `None` once nobody reads it: the agent goes on without.
    output: Option<Output<W>>,
    notes: Receiver<String>,
    findings: Vec<Finding>,
}

impl<W: io::Write> Turn<W> {
    fn take(&mut self, events: &[Event]) {
        for event in events {
            self.take_one(event);
        }
        match self.recorder.record(events) {
            // What could not be recorded is lost for what reads the recording, and is told here as there.
            Ok(Some(lost)) => self.take_one(&lost),
            Ok(None) => {}
            // Only if its thread is gone: the keeper goes on after every failure of the disk.
            Err(error) => {
                if !self.status.is_failing() {
                    log::error!("nothing is recorded any more: {error}");
                }
                self.status.set_failing(true);
            }
        }
        if events.iter().any(|event| matches!(event.kind, Kind::Tick)) {
            self.status.turn(self.engine.world().now());
            if self.notify.watchdog().is_some_and(|period| self.alive.elapsed() >= period) {
                self.alive = Instant::now();
                self.notify.say("WATCHDOG=1");
            }
        }
        if let Some(tuning) = self.tuned.try_iter().last() {
            self.tune(tuning);
        }
        while let Ok(note) = self.notes.try_recv() {
            self.print(|output| output.note(&note));
        }
        if let Ok(wanted) = self.wanted.try_recv() {
            // Fails when the client has gone.
            let _gone = wanted.send(self.meter.snapshot(&self.engine));
        }
        if self.trimmed.elapsed() >= TRIM {
            self.trimmed = Instant::now();
            give_memory_back();
        }
        if !self.wanted.is_closed() && self.folded.is_none_or(|folded| folded.elapsed() >= FOLD) {
            self.folded = Some(Instant::now());
            self.meter.fold(&self.engine);
        }
        self.print(Output::flush);
    }

    fn take_one(&mut self, event: &Event) {
        match &event.kind {
            Kind::Coverage(coverage) => self.print(|output| output.coverage(event.time, coverage)),
            Kind::Lost(lost) => self.print(|output| output.lost(lost)),
            _ => {}
        }
        let mut findings = std::mem::take(&mut self.findings);
        self.engine.on_event(event, |finding| findings.push(finding));
        for finding in findings.drain(..) {
            if let Some(trigger) = self.triggers.note(&finding) {
                // Fails when the recorder is gone: then there is nothing to keep.
                let _gone = self.trigger.send(trigger);
            }
            self.meter.note(&finding);
            self.print(|output| output.finding(&finding));
        }
        self.findings = findings;
    }

    /// The configuration was read again.
    fn tune(&mut self, tuning: Tuning) {
        *self.retention.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = tuning.retention;
        self.engine.set_thresholds(tuning.thresholds);
        self.triggers.change(tuning.keep_on);
        self.meter.bound(tuning.bounds);
    }

    /// All that is there has been taken in.
    fn begun(&mut self) {
        let Self { engine, output, .. } = self;
        if let Some(to) = output
            && to.watching(Some(engine.world()), true).is_err()
        {
            self.output = None;
        }
        self.print(Output::flush);
        self.notify.say("READY=1\nSTATUS=tracing");
    }

    /// The last words.
    fn end(mut self) -> io::Result<()> {
        self.notify.say("STOPPING=1");
        let recorded = self.recorder.finish();
        while let Ok(note) = self.notes.try_recv() {
            if let Some(output) = &mut self.output {
                let _unread = output.note(&note);
            }
        }
        if let Some(output) = &mut self.output {
            let _unread = output.summary(&Summary::of(&self.engine)).and_then(|_| output.flush());
        }
        recorded.map(|_| ())
    }

    /// Prints; whoever does not read any more, or a full disk, does not end the agent.
    fn print(&mut self, print: impl FnOnce(&mut Output<W>) -> Written) {
        let Some(output) = &mut self.output else { return };
        match print(output) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => self.output = None,
            Err(error) => {
                log::warn!("standard output cannot be written, and is not written any more: {error}");
                self.output = None;
            }
        }
    }
}
