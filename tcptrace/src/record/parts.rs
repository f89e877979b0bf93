//! The files of a recording: made for their owner alone, never over one that exists, in parts if asked for.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, access};

use crate::event::{Event, Timestamp};

use super::carry::Carry;
use super::create::{create, is_there, refuse_foreign_links};
use super::metadata::Metadata;
use super::reader::Reader;
use super::writer::Writer;

/// When a part is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// After so many bytes.
    Size(u64),
    /// After so long.
    Time(Duration),
    /// After so many bytes or so long, whichever comes first.
    Either(u64, Duration),
}

/// Where and how to record.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The file. With a rotation: `run.arrows` becomes `run.000001.arrows`, `run.000002.arrows`…
    pub path: PathBuf,
    /// Overwrite it if it is there.
    pub force: bool,
    /// Begin a new part now and then.
    pub rotation: Option<Rotation>,
    /// Delete the oldest parts, so that all together are not larger than so many bytes.
    pub keep: Option<u64>,
}

impl Plan {
    /// Whether the first file can be made, as far as that shows without making it: it is not there (or may be overwritten), and
    /// its directory may be written to.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self) -> io::Result<()> {
        let path = match self.rotation {
            Some(_) => part_path(&self.path, 1),
            None => self.path.clone(),
        };
        refuse_foreign_links(&path)?;
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if found.is_file() && !self.force => return Err(is_there()),
            // A pipe or a device.
            Ok(found) if !found.is_file() => return Ok(access(&path, AccessFlags::W_OK)?),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let directory = path.parent().filter(|of| !of.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
    }
}

/// The parts of a recording, the last of which is being written.
pub(super) struct Parts {
    plan: Plan,
    metadata: Metadata,
    carry: Carry,
    writer: Option<Writer<Counted>>,
    /// What was written before, and is kept.
    old: VecDeque<(PathBuf, u64)>,
    began: Instant,
    path: PathBuf,
    /// Bytes in parts that are finished, those that were deleted included.
    finished: u64,
    /// Parts that were deleted.
    deleted: u64,
}

impl Parts {
    /// Makes the first file.
    pub(super) fn begin(plan: Plan, metadata: Metadata) -> io::Result<Self> {
        let mut parts = Self {
            path: plan.path.clone(),
            plan,
            metadata,
            carry: Carry::default(),
            writer: None,
            old: VecDeque::new(),
            began: Instant::now(),
            finished: 0,
            deleted: 0,
        };
        parts.open()?;
        Ok(parts)
    }

    /// Takes in an event.
    pub(super) fn push(&mut self, event: &Event) -> io::Result<()> {
        self.write(|writer| writer.push(event, false))?;
        self.note(event);
        Ok(())
    }

    /// Remembers what later parts begin with.
    pub(super) fn note(&mut self, event: &Event) {
        if self.plan.rotation.is_some() {
            self.carry.note(event);
        }
    }

    /// From now on a part is full at this. Whether there are parts at all was decided in the beginning.
    pub(super) fn rotate_by(&mut self, rotation: Rotation) {
        if let Some(planned) = &mut self.plan.rotation {
            *planned = rotation;
        }
    }

    /// How many events wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.writer.as_ref().map_or(0, Writer::waiting)
    }

    /// Writes what waits, to the disk, and begins a new part if this one is full. An error tells how many events are lost by it:
    /// none, if it was the new part that could not be begun.
    pub(super) fn flush(&mut self, now: Timestamp) -> Result<(), (io::Error, usize)> {
        let waiting = self.waiting();
        self.write(Writer::flush).map_err(|error| (error, waiting))?;
        self.after_flush(now).map_err(|error| (error, 0))
    }

    fn after_flush(&mut self, now: Timestamp) -> io::Result<()> {
        if let Some(writer) = &self.writer {
            // Beyond the page cache: a power cut, too, shall cost a second only.
            writer.get_ref().file.sync_data()?;
        }
        let full = match self.plan.rotation {
            Some(Rotation::Size(size)) => self.size() >= size,
            Some(Rotation::Time(time)) => self.began.elapsed() >= time,
            Some(Rotation::Either(size, time)) => self.size() >= size || self.began.elapsed() >= time,
            None => false,
        };
        if full {
            self.end_part()?;
            self.metadata.part += 1;
            self.begin_part(now)?;
        }
        self.make_room();
        Ok(())
    }

    /// Goes on in a new part after one that could not be written on, with `first` before anything else. The part that failed ends
    /// with its last whole batch.
    pub(super) fn resume(&mut self, now: Timestamp, first: &Event) -> io::Result<()> {
        if let Some(writer) = self.writer.take() {
            let written = writer.get_ref().written;
            self.finished += written;
            self.old.push_back((self.path.clone(), written));
        }
        // Whether it failed at the part's end or at an earlier try: its file is there.
        while self.plan.rotation.is_some() && part_path(&self.plan.path, self.metadata.part).exists() {
            self.metadata.part += 1;
        }
        self.begin_part(now)?;
        self.push(first)?;
        self.write(Writer::flush)
    }

    fn begin_part(&mut self, now: Timestamp) -> io::Result<()> {
        self.metadata.started = now;
        self.open()?;
        let Self { carry, writer, .. } = self;
        if let Some(writer) = writer {
            for event in carry.events() {
                writer.push(event, true)?;
            }
        }
        Ok(())
    }

    /// Ends the recording in order.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.write(Writer::flush)?;
        self.end_part()?;
        self.make_room();
        Ok(())
    }

    /// Bytes written in all.
    pub(super) fn bytes(&self) -> u64 {
        self.finished + self.size()
    }

    /// How many parts there were, and how many of them were deleted again.
    pub(super) fn count(&self) -> (u32, u64) {
        (self.metadata.part, self.deleted)
    }

    /// The file that is being written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.get_ref().written)
    }

    /// Writes; what was written in part only is cut off again, so that the file ends with a whole batch.
    fn write(&mut self, work: impl FnOnce(&mut Writer<Counted>) -> io::Result<()>) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Err(io::Error::other("the recording has ended")) };
        let before = writer.get_ref().written;
        work(writer).inspect_err(|_| {
            let to = writer.get_mut();
            if to.file.set_len(before).is_ok() && to.file.seek(SeekFrom::Start(before)).is_ok() {
                to.written = before;
            }
        })
    }

    fn open(&mut self) -> io::Result<()> {
        let path = match self.plan.rotation {
            Some(_) => part_path(&self.plan.path, self.metadata.part),
            None => self.plan.path.clone(),
        };
        let file = create(&path, self.plan.force)?;
        let is_file = file.metadata()?.is_file();
        self.path = path;
        self.began = Instant::now();
        match Writer::new(Counted { file, written: 0 }, &self.metadata) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => {
                // A file without a header is of no use. A device or a pipe stays.
                if is_file {
                    let _gone = fs::remove_file(&self.path);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn end_part(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let scattered = writer.is_scattered();
        let to = end(writer)?;
        let mut size = to.written;
        if scattered && to.file.metadata()?.is_file() {
            match gather(&to.file, &self.path) {
                Ok(smaller) => size = smaller,
                // It is whole as it is.
                Err(error) => log::debug!("{}: its batches stay small: {error}", self.path.display()),
            }
        }
        self.finished += size;
        self.old.push_back((self.path.clone(), size));
        Ok(())
    }

    fn make_room(&mut self) {
        let Some(keep) = self.plan.keep else { return };
        loop {
            let kept = self.old.iter().map(|(_, size)| size).sum::<u64>() + self.size();
            // The part that is being written stays, whatever its size.
            if kept <= keep || (self.writer.is_none() && self.old.len() <= 1) {
                return;
            }
            let Some((path, _)) = self.old.pop_front() else { return };
            match fs::remove_file(&path) {
                Ok(()) => self.deleted += 1,
                Err(error) => log::warn!("{}: cannot be deleted to make room: {error}", path.display()),
            }
        }
    }
}

/// `run.arrows`, part 3: `run.000003.arrows`.
pub fn part_path(path: &Path, part: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{part:06}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Ends a file in order, and says in its header how much is in it.
fn end(writer: Writer<Counted>) -> io::Result<Counted> {
    let (to, header) = writer.end()?;
    // As long as the one that is there. A pipe has no place to go back to, and does without.
    if to.file.metadata()?.is_file() {
        to.file.write_all_at(&header, 0)?;
        to.file.sync_all()?;
    }
    Ok(to)
}

/// Writes a finished file anew with larger batches, in its place; its new size. A batch a second is what a crash asks for, but
/// on a quiet host most of such a file is what each batch costs. They do not become so large that damage costs more than
/// [`SPAN`](super::writer::SPAN).
fn gather(file: &File, path: &Path) -> io::Result<u64> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".gathering");
    let beside = path.with_file_name(name);
    let gathered = gather_into(file, &beside).and_then(|size| {
        // What has this name may be another file meanwhile.
        let (ours, there) = (file.metadata()?, fs::symlink_metadata(path)?);
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Err(io::Error::other("another file has its name"));
        }
        fs::rename(&beside, path).map(|()| size)
    });
    if gathered.is_err() {
        let _not_there = fs::remove_file(&beside);
    }
    gathered
}

fn gather_into(mut from: &File, beside: &Path) -> io::Result<u64> {
    from.seek(SeekFrom::Start(0))?;
    let mut reader = Reader::new(from).map_err(io::Error::other)?;
    let file = create(beside, true)?;
    let mut writer = Writer::new(Counted { file, written: 0 }, reader.metadata())?;
    let mut failure = None;
    let mut each = |carried: bool, event: Event| {
        if failure.is_none() {
            failure = writer.push(&event, carried).err();
        }
    };
    while reader.next_rows(&mut each).map_err(io::Error::other)? {}
    if let Some(error) = failure {
        return Err(error);
    }
    if !reader.damage().is_empty() {
        return Err(io::Error::other("it is damaged already"));
    }
    Ok(end(writer)?.written)
}

/// A file, and how much has been written.
pub(super) struct Counted {
    file: File,
    written: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written += u64::try_from(count).unwrap_or(u64::MAX);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_before_the_extension() {
        assert_eq!(part_path(Path::new("/a/run.arrows"), 3), Path::new("/a/run.000003.arrows"));
        assert_eq!(part_path(Path::new("run"), 1), Path::new("run.000001"));
    }
}
