//! Looks after the agent's directory, in the thread that writes the recording.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::event::Timestamp;
use crate::record::{Custodian, Metadata, Plan, Recorder, Rotation, write_failure};

use super::incidents::Incidents;
use super::place::{Place, sync_directory};
use super::ring::{Ring, run_path};
use super::status::{Status, add, put};
use super::trigger::Trigger;
use super::{Retention, give_memory_back, privilege};

/// Events that may wait for the disk: some seconds of a busy host.
const WAITING: u64 = 1 << 16;

/// How soon writing is tried again after it failed, and at most how late.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(30);

/// How often the directory is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Keeps ring and incidents within their bounds, and does what triggers ask for.
pub struct Keeper {
    ring: Ring,
    incidents: Incidents,
    retention: Retention,
    /// What is to be kept from now on: the configuration may be read again.
    wanted: Arc<Mutex<Retention>>,
    triggers: Receiver<Trigger>,
    status: Arc<Status>,
    /// What people are to know.
    notes: Sender<String>,
    /// Its thread has given up what it does not need.
    bare: bool,
    /// Where the next run records.
    path: PathBuf,
    /// The part that is being written.
    current: Option<PathBuf>,
    looked: Option<Instant>,
    /// How long it waits for the disk, while it does.
    pause: Option<Duration>,
}

impl Keeper {
    /// Takes over what is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn adopt(
        place: &Place,
        wanted: Arc<Mutex<Retention>>,
        triggers: Receiver<Trigger>,
        status: Arc<Status>,
        notes: Sender<String>,
    ) -> io::Result<Self> {
        let retention = read(&wanted);
        let ring = Ring::adopt(place.ring())?;
        let incidents = Incidents::adopt(place.incidents(), &retention, Timestamp::now(), &ring)?;
        let run = ring.last_run().max(incidents.last_run()) + 1;
        let path = run_path(&place.ring(), run);
        let mut keeper = Self {
            ring,
            incidents,
            retention,
            wanted,
            triggers,
            status,
            notes,
            bare: false,
            path,
            current: None,
            looked: None,
            pause: None,
        };
        keeper.make_room(0);
        Ok(keeper)
    }

    /// Begins to record.
    ///
    /// # Errors
    /// When the first part cannot be made.
    pub fn record(self, metadata: Metadata) -> io::Result<Recorder> {
        let plan = Plan {
            path: self.path.clone(),
            force: false,
            rotation: Some(self.retention.rotation()),
            keep: None,
        };
        Recorder::with_custodian(plan, metadata, self, WAITING)
    }

    fn make_room(&mut self, current: u64) {
        let Retention { ring_bytes, ring_age, incident_bytes, .. } = self.retention;
        add(&self.status.ring_deleted, self.ring.make_room(ring_bytes, ring_age, current));
        add(&self.status.incidents_deleted, self.incidents.make_room(incident_bytes));
        let parts = u64::try_from(self.ring.len()).unwrap_or(u64::MAX);
        put(&self.status.ring_bytes, self.ring.bytes().saturating_add(current));
        put(&self.status.ring_parts, parts.saturating_add(u64::from(current > 0)));
        put(&self.status.ring_seconds, self.ring.oldest().unwrap_or_default().as_secs());
        put(&self.status.incidents, u64::try_from(self.incidents.len()).unwrap_or(u64::MAX));
        put(&self.status.incidents_open, u64::from(self.incidents.is_open()));
        put(&self.status.incident_bytes, self.incidents.bytes());
    }

    fn note(&self, text: String) {
        // Fails when the agent is ending.
        let _unread = self.notes.send(text);
    }

    pub(super) fn look_at(&mut self, part: &Path) {
        self.retention = read(&self.wanted);
        let triggers: Vec<Trigger> = self.triggers.try_iter().collect();
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if triggers.is_empty() && !due {
            return;
        }
        for trigger in triggers {
            self.heed(trigger, Some(part));
        }
        if self.current.as_deref() != Some(part) {
            self.current = Some(part.to_owned());
            // Its name, too, must outlast a power cut.
            said(self.path.parent().map_or(Ok(()), sync_directory));
        }
        said(self.incidents.writing(part));
        if self.incidents.is_open() {
            self.incidents.measure();
        }
        self.looked = Some(Instant::now());
        let current = std::fs::symlink_metadata(part).map_or(0, |found| found.len());
        self.make_room(current);
    }

    fn heed(&mut self, trigger: Trigger, current: Option<&Path>) {
        let Trigger { time, why, answer } = trigger;
        let word = why.word().to_owned();
        // A part that ended within this time has something of the minutes before; so has the one that is being written.
        // A trigger waits for a second at most until it is heeded.
        let span = self.retention.before.saturating_add(Duration::from_secs(2));
        let before = self.ring.ended_within(span).chain(current);
        let kept = self.incidents.keep(time, why, &self.retention, before);
        match &kept {
            Ok(kept) if !kept.joined => {
                add(&self.status.incidents_kept, 1);
                self.note(format!("{word}: the minutes around it are kept in {}", kept.directory));
            }
            Ok(_) => {}
            Err(error) => {
                log::warn!("{word}: the minutes around it cannot be kept: {}", write_failure(error));
            }
        }
        if let Some(answer) = answer {
            // The client may have gone.
            let _gone = answer.send(kept.map_err(|error| write_failure(&error)));
        }
    }
}

fn read(wanted: &Mutex<Retention>) -> Retention {
    *wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn said(result: io::Result<()>) {
    if let Err(error) = result {
        log::warn!("a part could not be kept for the incident that goes on: {}", write_failure(&error));
    }
}

impl Custodian for Keeper {
    fn look(&mut self, part: &Path) {
        if !std::mem::replace(&mut self.bare, true) {
            // Its files are its own.
            privilege::give_up_all();
        }
        self.look_at(part);
    }

    fn ended(&mut self, part: &Path) {
        self.ring.add(part);
        said(self.incidents.ended(part));
        self.make_room(0);
        // A part that has ended was read and written anew.
        give_memory_back();
    }

    fn rotation(&self) -> Option<Rotation> {
        Some(self.retention.rotation())
    }

    fn failed(&mut self, error: &io::Error) -> Option<Duration> {
        let pause = self.pause.map_or(SOON, |pause| pause.saturating_mul(2).min(LATE));
        if self.pause.is_none() {
            add(&self.status.record_failures, 1);
            log::warn!(
                "recording pauses: {}; it is tried again, the oldest parts of the ring give way, and kept incidents stay",
                write_failure(error)
            );
        }
        self.status.set_failing(true);
        self.pause = Some(pause);
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            add(&self.status.ring_deleted, self.ring.give_way());
        }
        let triggers: Vec<Trigger> = self.triggers.try_iter().collect();
        for trigger in triggers {
            self.heed(trigger, None);
        }
        self.make_room(0);
        Some(pause)
    }

    fn resumed(&mut self, part: &Path, lost: u64) {
        self.pause = None;
        self.status.set_failing(false);
        add(&self.status.unrecorded, lost);
        log::warn!("recording goes on; {lost} events are missing in it, and it says so");
        if let Err(error) = self.ring.read_again(Some(part)) {
            log::warn!("the ring cannot be read: {error}");
        }
    }
}
