//! Incidents: the parts of the ring around a moment, set apart in a directory of their own that `tcptrace report` reads as it is.
//!
//! They are hard links, so that keeping costs no copying and no second place on the disk, and is done within the second. While an
//! incident goes on, the part that is being written is linked as well: kill -9 takes nothing from it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::event::Timestamp;
use crate::output::json_text;
use crate::record::write_failure;

use super::Retention;
use super::place::sync_directory;
use super::ring::{Ring, run_of};
use super::trigger::{Kept, Why};

/// What is told of an incident beside its parts.
const ABOUT: &str = "incident.json";

/// More reasons of one incident are counted and not told.
const REASONS: usize = 100;

/// What is told of an incident, in its directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Number; later ones have higher ones.
    pub number: u64,
    /// Whether the time after it is over.
    pub closed: bool,
    /// The moment.
    #[serde(with = "moment")]
    pub time: Timestamp,
    /// Until when its parts are kept.
    #[serde(with = "moment")]
    pub until: Timestamp,
    /// Why it is kept: first what began it, then what came while it went on.
    pub reasons: Vec<Reason>,
    /// How many came that are not told.
    #[serde(default)]
    pub more_reasons: u64,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// When.
    #[serde(with = "moment")]
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub why: Why,
}

/// Times as people write them: `2026-11-30T20:14:05.915683554Z`.
mod moment {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::event::Timestamp;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let time: jiff::Timestamp = String::deserialize(from)?.parse().map_err(D::Error::custom)?;
        let nanos = u64::try_from(time.as_nanosecond()).map_err(D::Error::custom)?;
        Ok(Timestamp::from_nanos(nanos))
    }
}

/// An incident that goes on.
#[derive(Debug)]
struct Open {
    directory: PathBuf,
    about: Incident,
    began: Instant,
    until: Instant,
}

/// All incidents of a directory.
#[derive(Debug)]
pub(super) struct Incidents {
    directory: PathBuf,
    /// By number, those that are over and the open one.
    all: BTreeMap<u64, PathBuf>,
    open: Option<Open>,
    bytes: u64,
    last_run: u64,
    last_number: u64,
}

impl Incidents {
    /// Takes over what earlier runs have left; an incident whose time is not over goes on.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn adopt(
        directory: PathBuf,
        retention: &Retention,
        now: Timestamp,
        ring: &Ring,
    ) -> io::Result<Self> {
        let mut incidents =
            Self { directory, all: BTreeMap::new(), open: None, bytes: 0, last_run: 0, last_number: 0 };
        for entry in fs::read_dir(&incidents.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(".deleting-") {
                // Its deletion was interrupted.
                remove(&path);
                continue;
            }
            let Some(number) = name.split('-').next().and_then(|number| number.parse().ok()) else {
                continue;
            };
            if fs::symlink_metadata(&path)?.is_dir() {
                incidents.all.insert(number, path);
            }
        }
        incidents.last_number = incidents.all.keys().last().copied().unwrap_or(0);
        for path in incidents.all.values() {
            let runs = parts_of(path).filter_map(|part| run_of(&part)).max();
            incidents.last_run = incidents.last_run.max(runs.unwrap_or(0));
        }
        for (number, path) in incidents.all.iter().rev() {
            let Some(about) = read_about(path).filter(|about| !about.closed) else { continue };
            // What was being written when its agent was killed may have a later form in the ring.
            for part in ring.paths() {
                if path.join(part.file_name().unwrap_or_default()).exists() {
                    link(part, path)?;
                }
            }
            let left = about.until.since(now);
            if incidents.open.is_none() && *number == incidents.last_number && !left.is_zero() {
                let (began, left) = (Instant::now(), left.min(retention.longest()));
                let until = began + left;
                incidents.open = Some(Open { directory: path.clone(), about, began, until });
            } else {
                // Its agent was ended before its time was over.
                let _said = write_about(path, &Incident { closed: true, ..about });
            }
        }
        incidents.measure();
        Ok(incidents)
    }

    /// The latest run that a part here is of.
    pub(super) fn last_run(&self) -> u64 {
        self.last_run
    }

    /// Keeps the minutes around `time`: links `parts`, which are those of the time before and the one that is being written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn keep<'a>(
        &mut self,
        time: Timestamp,
        why: Why,
        retention: &Retention,
        parts: impl Iterator<Item = &'a Path>,
    ) -> io::Result<Kept> {
        let now = Instant::now();
        let reason = Reason { time, why };
        if let Some(open) = &mut self.open
            && now < open.began + retention.longest()
        {
            open.until = open.until.max(now + retention.after).min(open.began + retention.longest());
            open.about.until = open.about.until.max(time.after(retention.after));
            if open.about.reasons.len() < REASONS {
                open.about.reasons.push(reason);
            } else {
                open.about.more_reasons += 1;
            }
            // It is kept, whether that can be told or not.
            if let Err(error) = write_about(&open.directory, &open.about) {
                log::warn!("{}: {}", open.directory.join(ABOUT).display(), write_failure(&error));
            }
            return Ok(Kept { directory: open.directory.display().to_string(), joined: true });
        }
        self.close();
        self.last_number += 1;
        let moment: String = time.to_string().chars().filter(char::is_ascii_alphanumeric).take(15).collect();
        let name = format!("{:06}-{moment}-{}", self.last_number, reason.why.word());
        let directory = self.directory.join(name);
        DirBuilder::new().mode(0o700).create(&directory)?;
        let about = Incident {
            number: self.last_number,
            closed: false,
            time,
            until: time.after(retention.after),
            reasons: vec![reason],
            more_reasons: 0,
        };
        self.all.insert(self.last_number, directory.clone());
        // A full disk has room for links.
        let mut failure = write_about(&directory, &about).err();
        let until = now + retention.after;
        self.open = Some(Open { directory: directory.clone(), about, began: now, until });
        for part in parts {
            // What has gone meanwhile does not keep the others from being kept.
            if let Err(error) = link(part, &directory)
                && error.kind() != io::ErrorKind::NotFound
            {
                failure = Some(error);
            }
        }
        sync_directory(&directory)?;
        sync_directory(&self.directory)?;
        self.measure();
        match failure {
            Some(error) => Err(error),
            None => Ok(Kept { directory: directory.display().to_string(), joined: false }),
        }
    }

    /// A part is being written: it belongs to the incident that goes on.
    pub(super) fn writing(&mut self, part: &Path) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let there = open.directory.join(part.file_name().unwrap_or_default());
        if there.exists() {
            return Ok(());
        }
        match link(part, &open.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_directory(&open.directory),
        }
    }

    /// A part has ended, and has its last form. If it is the last that the incident waited for, that is over.
    pub(super) fn ended(&mut self, part: &Path) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let over = Instant::now() >= open.until;
        let linked = link(part, &open.directory).and_then(|()| sync_directory(&open.directory));
        if over {
            self.close();
        } else {
            self.measure();
        }
        linked
    }

    fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        open.about.closed = true;
        if let Err(error) = write_about(&open.directory, &open.about) {
            log::warn!("{}: {error}", open.directory.display());
        }
        self.measure();
    }

    /// Deletes the oldest, until what is left is within the bound. The open one stays, and the latest: if that alone is too large,
    /// it is closed, and gets no more parts. Returns how many were deleted.
    pub(super) fn make_room(&mut self, most: u64) -> u64 {
        let mut deleted = 0;
        while self.bytes > most && self.all.len() > 1 {
            let Some((number, path)) = self.all.pop_first() else { break };
            log::warn!(
                "incident {number} is deleted: all incidents together are larger than {} (--keep-incidents)",
                crate::output::bytes_in_words(most)
            );
            delete(&path);
            deleted += 1;
            self.measure();
        }
        if self.bytes > most
            && let Some(open) = &self.open
        {
            log::warn!(
                "{} is larger than all incidents together may be ({}, --keep-incidents): it is closed early",
                open.directory.display(),
                crate::output::bytes_in_words(most)
            );
            self.close();
        }
        deleted
    }

    /// Bytes of all of them. What is in several is there once.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether one goes on.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn measure(&mut self) {
        let mut files: HashMap<(u64, u64), u64> = HashMap::new();
        for part in self.all.values().flat_map(|directory| parts_of(directory)) {
            if let Ok(found) = fs::symlink_metadata(&part) {
                files.insert((found.dev(), found.ino()), found.len());
            }
        }
        self.bytes = files.values().fold(0, |sum, bytes| sum.saturating_add(*bytes));
    }
}

fn parts_of(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "arrows"))
}

fn read_about(directory: &Path) -> Option<Incident> {
    serde_json::from_slice(&fs::read(directory.join(ABOUT)).ok()?).ok()
}

/// Writes it anew in one piece: whoever reads it meanwhile reads the old one.
fn write_about(directory: &Path, about: &Incident) -> io::Result<()> {
    let beside = directory.join(".incident.json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(json_text(about).as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, directory.join(ABOUT))
}

/// Links a part into an incident; over an earlier form of it, if there is one.
fn link(part: &Path, directory: &Path) -> io::Result<()> {
    let name = part.file_name().unwrap_or_default();
    let there = directory.join(name);
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let beside = directory.join(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::hard_link(part, &beside) {
        // A file system without hard links, or without another one for this file.
        Err(error)
            if matches!(
                error.raw_os_error().map(Errno::from_raw),
                Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK | Errno::ENOSYS | Errno::EXDEV)
            ) =>
        {
            fs::copy(part, &beside)?;
            fs::File::open(&beside)?.sync_all()?;
        }
        other => other?,
    }
    fs::rename(&beside, there)?;
    // Two names of one file: rename(2) then does nothing, and leaves the first.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Under another name first: half an incident must not be taken for one.
fn delete(path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let doomed = path.with_file_name(format!(".deleting-{name}"));
    match fs::rename(path, &doomed) {
        Ok(()) => remove(&doomed),
        Err(error) => log::warn!("{}: cannot be deleted to make room: {error}", path.display()),
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        log::warn!("{}: cannot be deleted: {error}", path.display());
    }
}
