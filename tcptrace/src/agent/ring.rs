//! The ring: parts of recordings, of this run and of those before it, oldest first, within a size and an age.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A finished part.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    bytes: u64,
    /// How old it was when we first knew it, and since when that is. From then on it ages by the monotonic clock: a step of the wall
    /// clock must neither delete a day nor keep it for ever.
    age: Duration,
    known: Instant,
}

impl Part {
    fn age(&self, now: Instant) -> Duration {
        self.age.saturating_add(now.saturating_duration_since(self.known))
    }
}

/// Parts of recordings in a directory.
#[derive(Debug)]
pub(super) struct Ring {
    directory: PathBuf,
    parts: VecDeque<Part>,
}

/// `run-000017.000003.arrows`: run 17, part 3. Their order is that of time, whatever the clock said.
fn numbers(path: &Path) -> Option<(u64, u64)> {
    let (run, part) =
        path.file_name()?.to_str()?.strip_prefix("run-")?.strip_suffix(".arrows")?.split_once('.')?;
    Some((run.parse().ok()?, part.parse().ok()?))
}

/// The number of the run whose part has this name.
pub(super) fn run_of(path: &Path) -> Option<u64> {
    numbers(path).map(|(run, _)| run)
}

/// The file that the recorder makes the names of a run's parts from.
pub(super) fn run_path(directory: &Path, run: u64) -> PathBuf {
    directory.join(format!("run-{run:06}.arrows"))
}

impl Ring {
    /// Takes over what earlier runs have left: also of one that was killed, whose last part ends in the middle.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn adopt(directory: PathBuf) -> io::Result<Self> {
        let mut ring = Self { directory, parts: VecDeque::new() };
        ring.read_again(None)?;
        Ok(ring)
    }

    /// Looks at what is there, but for the part that is being written.
    pub(super) fn read_again(&mut self, current: Option<&Path>) -> io::Result<()> {
        let known = std::mem::take(&mut self.parts);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(".run-") && name.ends_with(".gathering") {
                // Its original is there.
                fs::remove_file(&path)?;
                continue;
            }
            let Some(numbers) = numbers(&path).filter(|_| Some(path.as_path()) != current) else { continue };
            let metadata = fs::symlink_metadata(&path)?;
            if !metadata.is_file() {
                continue;
            }
            if metadata.len() == 0 {
                // Made, and not begun.
                fs::remove_file(&path)?;
                continue;
            }
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            // A time to come is that of a clock that was wrong.
            let age = SystemTime::now().duration_since(modified).unwrap_or_default();
            found.push((numbers, Part { path, bytes: metadata.len(), age, known: Instant::now() }));
        }
        found.sort_by_key(|(numbers, _)| *numbers);
        self.parts = found.into_iter().map(|(_, part)| part).collect();
        for old in known {
            if let Some(part) = self.parts.iter_mut().find(|part| part.path == old.path) {
                (part.age, part.known) = (old.age, old.known);
            }
        }
        Ok(())
    }

    /// The number of the latest run.
    pub(super) fn last_run(&self) -> u64 {
        self.parts.iter().filter_map(|part| run_of(&part.path)).max().unwrap_or(0)
    }

    /// A part has ended.
    pub(super) fn add(&mut self, path: &Path) {
        let Ok(metadata) = fs::symlink_metadata(path) else { return };
        self.parts.retain(|part| part.path != path);
        self.parts.push_back(Part {
            path: path.to_owned(),
            bytes: metadata.len(),
            age: Duration::ZERO,
            known: Instant::now(),
        });
    }

    /// All finished parts, oldest first.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.path.as_path())
    }

    /// The parts that ended within the last `span`, oldest first.
    pub(super) fn ended_within(&self, span: Duration) -> impl Iterator<Item = &Path> {
        let now = Instant::now();
        self.parts.iter().filter(move |part| part.age(now) <= span).map(|part| part.path.as_path())
    }

    /// Deletes the oldest parts, until what is left is within the bounds, `current` bytes that are being written included.
    /// Returns how many were deleted.
    pub(super) fn make_room(&mut self, most: u64, oldest: Duration, current: u64) -> u64 {
        let now = Instant::now();
        let mut deleted = 0;
        while let Some(first) = self.parts.front() {
            if self.bytes().saturating_add(current) <= most && first.age(now) <= oldest {
                break;
            }
            self.drop_oldest();
            deleted += 1;
        }
        deleted
    }

    /// The disk is full: the oldest quarter goes. Returns how many parts that was.
    pub(super) fn give_way(&mut self) -> u64 {
        let count = self.parts.len().div_ceil(4);
        (0..count).for_each(|_| self.drop_oldest());
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    fn drop_oldest(&mut self) {
        let Some(part) = self.parts.pop_front() else { return };
        match fs::remove_file(&part.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("{}: cannot be deleted to make room: {error}", part.path.display());
            }
            _ => {}
        }
    }

    /// Bytes of all finished parts.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    /// How many finished parts there are.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// How old the oldest part is.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.parts.front().map(|part| part.age(Instant::now()))
    }
}
