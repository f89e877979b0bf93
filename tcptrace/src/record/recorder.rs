//! Records in a thread of its own: a slow disk must not keep the tracer from emptying its ring buffer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::event::{Event, Kind, LossPlace, Lost, Timestamp};

use super::metadata::Metadata;
use super::parts::{Parts, Plan, Rotation};
use super::writer::SPAN;

/// So many events may wait for the disk; what comes on top of that is lost, and counted.
const WAITING: u64 = 1 << 20;

/// A batch is written after so long, full or not.
const FLUSH: Duration = Duration::from_millis(900);

/// If nothing but the passing of time is in it, after as long as a batch may be.
const FLUSH_TICKS: Duration = SPAN;

/// Looks after the files of a recording, in the thread that writes them: whatever it does to the disk keeps no event waiting for
/// longer than the disk takes.
pub trait Custodian: Send {
    /// Now, and again within a second or so: this part is being written.
    fn look(&mut self, _part: &Path) {}

    /// This part has ended; nothing more is written to it, and it has its last form.
    fn ended(&mut self, _part: &Path) {}

    /// It cannot be written on. After how long to try again, in a new part; `None`: the recording is over.
    fn failed(&mut self, _error: &io::Error) -> Option<Duration> {
        None
    }

    /// It goes on in this new part; so many events are in none.
    fn resumed(&mut self, _part: &Path, _lost: u64) {}

    /// From now on a part is full at this; `None`: as planned.
    fn rotation(&self) -> Option<Rotation> {
        None
    }
}

/// Nobody looks after them: the recording is over when it cannot be written on.
impl Custodian for () {}

/// A recording that is being made.
pub struct Recorder {
    to: Option<Sender<Vec<Event>>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    dropped: u64,
    dropping_since: Timestamp,
    /// So many events may wait.
    most: u64,
}

/// What both sides know.
struct Shared {
    waiting: AtomicU64,
    recorded: AtomicU64,
    bytes: AtomicU64,
    outcome: Mutex<Outcome>,
    /// What was not written while writing failed, as it was recorded afterwards.
    outage: Mutex<Option<Event>>,
}

/// How far a recording came.
#[derive(Debug, Default)]
struct Outcome {
    failure: Option<io::Error>,
    path: PathBuf,
    parts: u32,
    deleted: u64,
}

/// What was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// How many events.
    pub events: u64,
    /// How many bytes, those of deleted parts included.
    pub bytes: u64,
    /// How many files.
    pub parts: u32,
    /// How many of them were deleted again to make room.
    pub deleted: u64,
    /// The last file.
    pub path: PathBuf,
}

impl Recorder {
    /// Makes the first file, and begins.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(plan: Plan, metadata: Metadata) -> io::Result<Self> {
        Self::with_custodian(plan, metadata, (), WAITING)
    }

    /// Makes the first file, and begins. At most `most` events wait for the disk.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn with_custodian(
        plan: Plan,
        metadata: Metadata,
        custodian: impl Custodian + 'static,
        most: u64,
    ) -> io::Result<Self> {
        let parts = Parts::begin(plan, metadata)?;
        let shared = Arc::new(Shared {
            waiting: AtomicU64::new(0),
            recorded: AtomicU64::new(0),
            bytes: AtomicU64::new(parts.bytes()),
            outcome: Mutex::new(Outcome { path: parts.path().to_owned(), parts: 1, ..Outcome::default() }),
            outage: Mutex::new(None),
        });
        let (to, from) = channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || write(parts, &from, &theirs, custodian))?;
        Ok(Self {
            to: Some(to),
            thread: Some(thread),
            shared,
            dropped: 0,
            dropping_since: Timestamp::default(),
            most,
        })
    }

    /// Records `events`. If the disk was too slow, and has caught up: what was lost meanwhile, recorded too.
    ///
    /// # Errors
    /// When the recording has failed: the disk is full. What was recorded before is whole.
    pub fn record(&mut self, events: &[Event]) -> io::Result<Option<Event>> {
        let Some(last) = events.last() else { return Ok(None) };
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        if self.shared.waiting.load(Ordering::Acquire).saturating_add(count) > self.most {
            if self.dropped == 0 {
                self.dropping_since = events.first().map_or(last.time, |first| first.time);
            }
            self.dropped = self.dropped.saturating_add(count);
            return self.check().map(|()| None);
        }
        let mut events = events.to_vec();
        let lost = (self.dropped > 0).then(|| {
            let count = std::mem::take(&mut self.dropped);
            let (what, place) = ("event".to_owned(), LossPlace::Output);
            let lost = Lost { what, count, place, from: self.dropping_since, to: last.time };
            Event { time: last.time, kind: Kind::Lost(Box::new(lost)) }
        });
        events.extend(lost.clone());
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        self.shared.waiting.fetch_add(count, Ordering::AcqRel);
        // Fails when the thread has ended, and why is said by `check`.
        let _sent = self.to.as_ref().map(|to| to.send(events));
        let outage = self.shared.outage.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        self.check().map(|()| lost.or(outage))
    }

    /// Events recorded and bytes written so far.
    pub fn progress(&self) -> (u64, u64) {
        (self.shared.recorded.load(Ordering::Relaxed), self.shared.bytes.load(Ordering::Relaxed))
    }

    /// Writes what waits, and ends the recording in order.
    ///
    /// # Errors
    /// When it has failed, now or before.
    pub fn finish(mut self) -> io::Result<Recorded> {
        self.join();
        self.check()?;
        let (events, bytes) = self.progress();
        let outcome = self.outcome();
        let (path, parts, deleted) = (outcome.path.clone(), outcome.parts, outcome.deleted);
        Ok(Recorded { events, bytes, parts, deleted, path })
    }

    fn join(&mut self) {
        self.to = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.outcome().failure = Some(io::Error::other("the recording thread is gone"));
        }
    }

    fn check(&self) -> io::Result<()> {
        match &self.outcome().failure {
            // The first use takes nothing away: every later one fails as well.
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Ok(()),
        }
    }

    fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.shared.outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Recorder {
    /// A recorder that is dropped in the middle of an error still writes what it has.
    fn drop(&mut self) {
        self.join();
    }
}

/// The thread.
fn write(mut parts: Parts, from: &Receiver<Vec<Event>>, shared: &Shared, mut custodian: impl Custodian) {
    custodian.look(parts.path());
    let outcome = work(&mut parts, from, shared, &mut custodian);
    if outcome.is_ok() {
        custodian.ended(parts.path());
    }
    let (count, deleted) = parts.count();
    let mut said = shared.outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.bytes.store(parts.bytes(), Ordering::Relaxed);
    said.failure = outcome.err();
    said.path = parts.path().to_owned();
    said.parts = count;
    said.deleted = deleted;
}

fn work(
    parts: &mut Parts,
    from: &Receiver<Vec<Event>>,
    shared: &Shared,
    custodian: &mut impl Custodian,
) -> io::Result<()> {
    // When what waits must be written.
    let mut due: Option<Instant> = None;
    let mut now = Timestamp::default();
    loop {
        let patience = due.map_or(FLUSH_TICKS, |due| due.saturating_duration_since(Instant::now()));
        let mut failure = None;
        match from.recv_timeout(patience) {
            Ok(events) => {
                let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
                for (index, event) in events.iter().enumerate() {
                    now = now.max(event.time);
                    let waiting = parts.waiting();
                    if let Err(error) = parts.push(event) {
                        let rest = events.get(index..).unwrap_or_default();
                        rest.iter().for_each(|event| parts.note(event));
                        failure = Some((error, waiting + rest.len()));
                        break;
                    }
                }
                let ticks = events.iter().all(|event| matches!(event.kind, Kind::Tick));
                let latest = Instant::now() + if ticks { FLUSH_TICKS } else { FLUSH };
                due = Some(due.map_or(latest, |due| due.min(latest)));
                shared.waiting.fetch_sub(count, Ordering::AcqRel);
                shared.recorded.fetch_add(count, Ordering::Relaxed);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return parts.finish().or_else(|error| match custodian.failed(&error) {
                    // It would be tried again, and is over.
                    Some(_) => Ok(()),
                    None => Err(error),
                });
            }
        }
        if failure.is_none() {
            if parts.waiting() == 0 {
                due = None;
            } else if due.is_some_and(|due| due <= Instant::now()) {
                let part = parts.path().to_owned();
                failure = parts.flush(now).err();
                due = None;
                shared.bytes.store(parts.bytes(), Ordering::Relaxed);
                if parts.path() != part {
                    custodian.ended(&part);
                }
            }
        }
        if let Some((error, lost)) = failure {
            let lost = u64::try_from(lost).unwrap_or(u64::MAX);
            due = None;
            if !wait_and_resume(parts, from, shared, custodian, error, (lost, now))? {
                return Ok(());
            }
        }
        custodian.look(parts.path());
        if let Some(rotation) = custodian.rotation() {
            parts.rotate_by(rotation);
        }
    }
}

/// Counts what comes while nothing can be written, until a new part can be begun; `false` if the recording ends before that.
fn wait_and_resume(
    parts: &mut Parts,
    from: &Receiver<Vec<Event>>,
    shared: &Shared,
    custodian: &mut impl Custodian,
    mut error: io::Error,
    (mut lost, since): (u64, Timestamp),
) -> io::Result<bool> {
    let part = parts.path().to_owned();
    let mut now = since;
    loop {
        let Some(pause) = custodian.failed(&error) else { return Err(error) };
        let again = Instant::now() + pause;
        while let Some(patience) = again.checked_duration_since(Instant::now()).filter(|of| !of.is_zero()) {
            match from.recv_timeout(patience) {
                Ok(events) => {
                    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
                    for event in &events {
                        now = now.max(event.time);
                        parts.note(event);
                    }
                    lost = lost.saturating_add(count);
                    shared.waiting.fetch_sub(count, Ordering::AcqRel);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
        let kind = Kind::Lost(Box::new(Lost {
            what: "event".to_owned(),
            count: lost,
            place: LossPlace::Output,
            from: since,
            to: now,
        }));
        let event = Event { time: now, kind };
        match parts.resume(now, &event) {
            Ok(()) => {
                custodian.ended(&part);
                custodian.resumed(parts.path(), lost);
                *shared.outage.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(event);
                return Ok(true);
            }
            Err(again) => error = again,
        }
    }
}
