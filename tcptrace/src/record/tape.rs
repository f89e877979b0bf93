//! Recordings as they are given on a command line: files, or directories of them; the parts of one recording belong together.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::event::{Event, Kind, LossPlace, Timestamp};

use super::damage::{Condition, Damage, Mark, Missing, ReadError};
use super::metadata::Metadata;
use super::reader::Reader;

/// So many things that are wrong with a recording are told one by one.
const MARKS: usize = 1_000;

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}", path = .path.display())]
pub struct TapeError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: ReadError,
}

/// One recording: its parts, one after the other.
pub struct Tape {
    parts: Vec<(PathBuf, Metadata)>,
    next: usize,
    reader: Option<Reader<File>>,
    damage: Vec<(PathBuf, Damage)>,
    /// Until when each part has been read.
    lasts: Vec<Option<Timestamp>>,
    last: Timestamp,
    ended: bool,
    events: u64,
}

/// Every recording in `paths`, oldest first. A directory stands for the `*.arrows` in it.
///
/// # Errors
/// When a file cannot be opened, or is no recording.
pub fn open(paths: &[PathBuf]) -> Result<Vec<Tape>, TapeError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(recordings_in(path).map_err(|error| fail(path, error.into()))?);
        } else {
            files.push(path.clone());
        }
    }
    let mut recordings: BTreeMap<String, Vec<(PathBuf, Metadata)>> = BTreeMap::new();
    for path in files {
        let metadata = Reader::open(&path).map_err(|error| fail(&path, error))?.metadata().clone();
        // A file whose header is lost belongs to no other.
        let recording = match metadata.recording.as_str() {
            "" => path.to_string_lossy().into_owned(),
            named => named.to_owned(),
        };
        let parts = recordings.entry(recording).or_default();
        // The same file, named twice, would be counted twice.
        let same =
            |(_, known): &(PathBuf, Metadata)| known.part == metadata.part && !metadata.recording.is_empty();
        if !parts.iter().any(same) {
            parts.push((path, metadata));
        }
    }
    let mut tapes: Vec<Tape> = recordings
        .into_values()
        .map(|mut parts| {
            parts.sort_by_key(|(_, metadata)| metadata.part);
            Tape {
                parts,
                next: 0,
                reader: None,
                damage: Vec::new(),
                lasts: Vec::new(),
                events: 0,
                last: Timestamp::default(),
                ended: false,
            }
        })
        .collect();
    tapes.sort_by_key(|tape| tape.metadata().started);
    Ok(tapes)
}

/// The first recording in `paths`, for whoever knows that there is only one, and begins it again and again.
///
/// # Errors
/// When a file cannot be opened, or is no recording.
pub fn open_one(paths: &[PathBuf]) -> Result<Tape, TapeError> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "there is no recording");
    let first = open(paths)?.into_iter().next();
    first.ok_or_else(|| fail(paths.first().map_or(Path::new(""), PathBuf::as_path), none().into()))
}

fn recordings_in(directory: &Path) -> Result<Vec<PathBuf>, io::Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "arrows") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no *.arrows in this directory"));
    }
    Ok(files)
}

fn fail(path: &Path, error: ReadError) -> TapeError {
    TapeError { path: path.to_owned(), error }
}

impl Tape {
    /// What its first part says about itself.
    pub fn metadata(&self) -> &Metadata {
        static NONE: std::sync::LazyLock<Metadata> = std::sync::LazyLock::new(Metadata::default);
        self.parts.first().map_or(&NONE, |(_, metadata)| metadata)
    }

    /// Its files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|(path, _)| path.as_path())
    }

    /// What is wrong with its files, as far as they have been read: what is damaged, and parts that are missing between the first
    /// and the last.
    pub fn condition(&self) -> Condition {
        let mut marks = Vec::new();
        for (index, (path, metadata)) in self.parts.iter().enumerate() {
            let next = self.parts.get(index + 1).map(|(_, next)| next);
            let found = self.damage.iter().filter(|(of, _)| of == path).map(|(_, damage)| damage);
            // The part that is being read.
            let reading = self.reader.iter().filter(|_| index + 1 == self.next);
            for damage in found.chain(reading.flat_map(Reader::damage)) {
                let mut damage = damage.clone();
                // What is missing at its end happened before the next part began.
                if let Damage::Cut { missing: Missing { to: to @ None, .. }, .. } = &mut damage {
                    *to = next.map(|next| next.started);
                }
                marks.push(Mark::new(Some(path), &damage));
            }
            let Some(next) = next else { continue };
            for number in metadata.part.saturating_add(1)..next.part {
                let from = self.lasts.get(index).copied().flatten();
                let missing = Missing { rows: None, from, to: Some(next.started) };
                marks.push(Mark::new(None, &Damage::Part { number, missing }));
                if marks.len() >= MARKS {
                    break;
                }
            }
        }
        Condition { marks }
    }

    /// How many events have been read from its files.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The next events, added to `into`; `false` at the end. A recording that was cut ends with an [`Kind::End`] of our own,
    /// so that everything that is open is told to its end.
    ///
    /// # Errors
    /// When a file cannot be read on.
    pub fn next_events(&mut self, into: &mut Vec<Event>) -> Result<bool, TapeError> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some((path, _)) = self.parts.get(self.next) else { return Ok(self.end(into)) };
                self.reader = Some(Reader::open(path).map_err(|error| fail(path, error))?);
                self.next += 1;
                continue;
            };
            // What a part repeats is known already, if the part before it was read.
            let part = |index: usize| self.parts.get(index).map(|(_, metadata)| metadata.part);
            let index = self.next.saturating_sub(1);
            let known =
                index.checked_sub(1).and_then(part).is_some_and(|before| Some(before + 1) == part(index));
            let before = into.len();
            let more = reader.next_rows(|carried, event| {
                if !(carried && known) {
                    into.push(event);
                }
            });
            let path = self.parts.get(index).map(|(path, _)| path.clone()).unwrap_or_default();
            let more = more.map_err(|error| fail(&path, error))?;
            for event in into.iter().skip(before) {
                self.last = self.last.max(event.time);
                // What is missing behind the end of the file may have been the end, too.
                self.ended = matches!(event.kind, Kind::End);
                let said_to_be_missing =
                    matches!(&event.kind, Kind::Lost(lost) if lost.place == LossPlace::Recording);
                self.events += u64::from(!said_to_be_missing);
            }
            if more {
                return Ok(true);
            }
            self.lasts.push(reader.last());
            self.damage.extend(reader.damage().iter().map(|damage| (path.clone(), damage.clone())));
            self.reader = None;
        }
    }

    fn end(&mut self, into: &mut Vec<Event>) -> bool {
        if self.ended || self.last == Timestamp::default() {
            return false;
        }
        self.ended = true;
        into.push(Event { time: self.last, kind: Kind::End });
        true
    }
}
