//! Recordings as they are given on a command line: files, or directories of them; the parts of one recording belong together.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::event::{Event, Kind, Timestamp};

use super::damage::{Damage, ReadError};
use super::metadata::Metadata;
use super::reader::Reader;

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
    last: Timestamp,
    ended: bool,
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
        let parts = recordings.entry(metadata.recording.clone()).or_default();
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
                last: Timestamp::default(),
                ended: false,
            }
        })
        .collect();
    tapes.sort_by_key(|tape| tape.metadata().started);
    Ok(tapes)
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

    /// Part numbers that are missing between the first and the last.
    pub fn missing_parts(&self) -> Vec<u32> {
        let numbers: Vec<u32> = self.parts.iter().map(|(_, metadata)| metadata.part).collect();
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Vec::new() };
        (*first..=*last).filter(|number| !numbers.contains(number)).collect()
    }

    /// What was wrong with its files, as far as they have been read.
    pub fn damage(&self) -> &[(PathBuf, Damage)] {
        &self.damage
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
                self.ended = matches!(event.kind, Kind::End);
            }
            if more {
                return Ok(true);
            }
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
