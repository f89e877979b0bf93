//! Reads a recording, however it ended: what is whole is read, what is damaged is passed over, and how much is missing is said.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampNanosecondType;
use arrow_array::{Array as _, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow_schema::{Schema, SchemaRef};
use arrow_select::take::take_record_batch;

use crate::event::{Event, Kind, LossPlace, Lost, Timestamp};

use super::damage::{Damage, Missing, ReadError};
use super::decode::{Columns, Unpacker, Unsound};
use super::frame::{self, Group, Header, MARKER, Step};
use super::get::Rows;
use super::metadata::{FORMAT_MAJOR, FORMAT_MINOR, Metadata};
use super::put::put;
use super::schema::{Builders, ORDER};

/// How much is read from a file at once.
const CHUNK: usize = 1 << 20;

/// No header is longer.
const LONGEST_HEADER: usize = 64 << 10;

/// So many rows become events at once: they stay in the processor's cache until they are used.
const PIECE: usize = 1 << 10;

/// How many different complaints about rows, and how many damaged places, are kept one by one.
const COMPLAINTS: usize = 256;

/// While a whole batch is searched for behind damage, at most so many bytes are looked at for each that is passed over, and
/// [`PATIENCE`] on top of that: a file can be made in which every place looks like the beginning of a long batch.
const EFFORT: u64 = 16;

/// See [`EFFORT`].
const PATIENCE: u64 = 128 << 20;

/// Reads one file.
pub struct Reader<R> {
    input: R,
    /// What was read and not used yet begins at `used`.
    buffer: Vec<u8>,
    used: usize,
    /// Where in the file `used` is.
    offset: u64,
    eof: bool,
    ended: bool,
    columns: Columns,
    unpacker: Unpacker,
    metadata: Metadata,
    /// By what the groups of this file are known.
    file: Identity,
    next_row: u64,
    /// The time of the last event so far.
    last: Option<Timestamp>,
    damage: Vec<Damage>,
    /// How many bytes have been looked at in search of a whole batch.
    effort: u64,
    batch: Option<Unread>,
    /// Events that are missing, and have not been told of.
    untold: u64,
    /// Events that are missing at the end, to be told of.
    tail: Option<Lost>,
    /// A batch that waits until what is missing before it has been told.
    ready: Option<RecordBatch>,
    /// Whether has been told that the end is missing, and not how much of it.
    told_open: bool,
    /// Rows of batches that have been given.
    read: usize,
}

/// By what the groups of a file are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// The header is damaged: by what the first one says.
    Open,
    /// By nothing, before format 2.1, or by this label.
    Known(Option<u32>),
    /// The beginning of another recording has come, and groups have no labels: whatever follows is not ours.
    Over,
}

/// A batch of which some rows have not been told of.
struct Unread {
    rows: Rows,
    /// How many of them have.
    told: usize,
    /// Events before it that were lost, and not been told of.
    lost: Option<Lost>,
}

impl Reader<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be opened, or is no recording.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(File::open(path)?)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is no recording.
    pub fn new(input: R) -> Result<Self, ReadError> {
        let columns =
            frame::known_columns().ok_or(ReadError::Foreign("this version's columns are unknown"))?;
        let mut reader = Self {
            input,
            buffer: Vec::new(),
            used: 0,
            offset: 0,
            eof: false,
            ended: false,
            columns,
            unpacker: Unpacker::new()?,
            metadata: Metadata::default(),
            file: Identity::Open,
            next_row: 0,
            last: None,
            damage: Vec::new(),
            effort: 0,
            batch: None,
            untold: 0,
            tail: None,
            ready: None,
            told_open: false,
            read: 0,
        };
        reader.read_header()?;
        Ok(reader)
    }

    /// What the recording says about itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What was wrong with it, as far as it has been read.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// When the part of it that has been read ends.
    pub fn last(&self) -> Option<Timestamp> {
        self.last
    }

    fn read_header(&mut self) -> Result<(), ReadError> {
        self.fill(8)?;
        loop {
            match frame::header(self.rest()) {
                Header::Need(length) if !self.eof => self.fill(length)?,
                Header::Whole(columns, length, sealed) => {
                    return self.take_header(columns, length, sealed);
                }
                Header::Need(_) | Header::Broken => return self.do_without_header(),
            }
        }
    }

    fn take_header(&mut self, columns: Columns, length: usize, sealed: bool) -> Result<(), ReadError> {
        let metadata = Metadata::from_map(columns.schema.metadata());
        if !sealed {
            // What it says may be wrong, down to the names of columns and whose it is. Batches show that it is ours.
            self.advance(1);
            if self.find_group()?.is_none() {
                return match metadata {
                    Some(_) => Err(ReadError::Foreign("its beginning is damaged, and nothing whole follows")),
                    None => Err(ReadError::Foreign("an Arrow stream of another program")),
                };
            }
            self.damage.push(Damage::Header);
            let old = metadata.as_ref().is_some_and(|of| of.format.0 < FORMAT_MAJOR);
            if columns.nodes() != self.columns.nodes() || old {
                // Of another version: its own names, even if some of them are damaged, are all there is.
                self.columns = columns;
            }
            let doubtful = metadata.unwrap_or_default();
            self.metadata = Metadata { started: Timestamp::default(), totals: None, ..doubtful };
            return Ok(());
        }
        let Some(metadata) = metadata else {
            return Err(ReadError::Foreign("an Arrow stream of another program"));
        };
        let (major, minor) = metadata.format;
        if major > FORMAT_MAJOR {
            return Err(ReadError::TooNew(major, minor));
        }
        if minor > FORMAT_MINOR && major == FORMAT_MAJOR {
            log::debug!("the recording's format, {major}.{minor}, is newer than this tcptrace");
        }
        let labelled = metadata.format >= (2, 1);
        self.file = Identity::Known(labelled.then(|| metadata.file()));
        self.last = (metadata.started != Timestamp::default()).then_some(metadata.started);
        self.metadata = metadata;
        self.columns = columns;
        self.advance(length);
        Ok(())
    }

    /// The header cannot be read: is there anything that can?
    fn do_without_header(&mut self) -> Result<(), ReadError> {
        let rest = self.rest();
        // The header itself begins with a marker, and is not longer than this.
        if !rest.windows(MARKER.len()).take(LONGEST_HEADER).any(|bytes| bytes == MARKER) {
            return Err(ReadError::Foreign(guess(rest)));
        }
        let guess = if rest.starts_with(&MARKER) { None } else { Some(guess(rest)) };
        self.advance(1);
        let Some(group) = self.find_group()? else {
            return Err(ReadError::Foreign(
                guess.unwrap_or("the beginning is cut or damaged, and nothing whole follows"),
            ));
        };
        // The names of columns are lost with the header: those of this version are the best guess, if there are as many.
        if !group.fits(self.rest(), &self.columns) {
            return Err(ReadError::Foreign(
                "its beginning is damaged, and its columns are not those of this version: use the tcptrace that made it",
            ));
        }
        self.damage.push(Damage::Header);
        Ok(())
    }

    /// The next batch with its events, or `None` at the end. `all`: with the columns that are empty throughout, too.
    pub(super) fn next_group(&mut self, all: bool) -> Result<Option<(RecordBatch, Option<Lost>)>, ReadError> {
        while !self.ended {
            match frame::group(self.rest(), &mut 0) {
                Step::Need(length) if !self.eof => self.fill(length)?,
                Step::Group(group) if self.is_ours(&group) => {
                    if let Some(found) = self.take(&group, all) {
                        return Ok(Some(found));
                    }
                }
                Step::End if self.totals_met() => {
                    self.advance(frame::END.len());
                    self.read_what_follows()?;
                }
                _ => self.pass_over_damage()?,
            }
        }
        Ok(None)
    }

    /// Whether the end may come here: not before everything that the header speaks of.
    fn totals_met(&self) -> bool {
        self.metadata.totals.is_none_or(|totals| totals.rows <= self.next_row)
    }

    /// Whether a group is the next of this file, or a later one.
    fn is_ours(&self, group: &Group) -> bool {
        let known = match self.file {
            Identity::Open => true,
            Identity::Known(label) => label == group.file,
            Identity::Over => false,
        };
        known && group.first_row >= self.next_row && group.count > 0
    }

    /// The rows of a group that was found at the place, and what is missing before them.
    fn take(&mut self, group: &Group, all: bool) -> Option<(RecordBatch, Option<Lost>)> {
        if self.file == Identity::Open {
            self.file = Identity::Known(group.file);
        }
        let decoded = {
            let rest = self.buffer.get(self.used..).unwrap_or_default();
            group.decode(rest, &self.columns, all, &mut self.unpacker)
        };
        let gap = group.first_row.saturating_sub(self.next_row);
        let offset = self.offset;
        self.next_row = group.first_row.saturating_add(group.count);
        self.advance(group.length);
        let batch = match decoded {
            Ok(batch) => batch,
            Err(Unsound::Type(of)) => {
                self.complain(Unsound::Type(of).to_string(), group.count);
                self.untold = self.untold.saturating_add(gap).saturating_add(group.count);
                return None;
            }
            Err(error) => {
                log::debug!("the batch at {offset} is not read: {error}");
                let rows = Some(gap.saturating_add(group.count));
                let bytes = u64::try_from(group.length).unwrap_or(u64::MAX);
                self.push(Damage::Skipped {
                    offset,
                    bytes,
                    missing: Missing { rows, from: self.last, to: None },
                });
                self.untold = self.untold.saturating_add(gap).saturating_add(group.count);
                return None;
            }
        };
        let times = times(&batch);
        let lost = self.settle(gap, offset, times.map(|(first, _)| first));
        if let Some((_, last)) = times {
            self.last = Some(self.last.map_or(last, |before| before.max(last)));
        }
        Some((batch, lost))
    }

    /// Completes what is known of the damage before a group: how many rows are missing, and until when.
    fn settle(&mut self, gap: u64, offset: u64, to: Option<Timestamp>) -> Option<Lost> {
        let from = self.last;
        // Events of several CPUs come a little out of order.
        let to = to.map(|to| from.map_or(to, |from| from.max(to)));
        match self.damage.last_mut() {
            Some(Damage::Skipped { missing: open, .. }) if open.rows.is_none() => {
                *open = Missing { rows: Some(gap), from, to };
            }
            _ if gap > 0 => {
                self.push(Damage::Skipped {
                    offset,
                    bytes: 0,
                    missing: Missing { rows: Some(gap), from, to },
                });
            }
            _ => {}
        }
        for damage in self.damage.iter_mut().rev() {
            let Damage::Skipped { missing, .. } = damage else { break };
            if missing.to.is_some() {
                break;
            }
            missing.to = to;
        }
        let untold = std::mem::take(&mut self.untold);
        lost(gap.saturating_add(untold), from, to)
    }

    /// Notes damage; more places than anybody reads are put together.
    fn push(&mut self, damage: Damage) {
        if self.damage.len() >= COMPLAINTS
            && let Damage::Skipped { bytes, missing, .. } = &damage
            && let Some(Damage::Skipped { bytes: before, missing: known, .. }) = self.damage.last_mut()
        {
            *before = before.saturating_add(*bytes);
            known.rows = known.rows.zip(missing.rows).map(|(known, more)| known.saturating_add(more));
            known.to = missing.to;
            return;
        }
        self.damage.push(damage);
    }

    /// Goes on behind what is damaged or cut.
    fn pass_over_damage(&mut self) -> Result<(), ReadError> {
        let offset = self.offset;
        if self.rest().is_empty() && self.eof {
            return self.end_early(offset, offset);
        }
        let before = self.passed();
        let found = self.find_group()?.is_some();
        // What belongs to another recording is said apart.
        let bytes = (self.offset - offset).saturating_sub(self.passed() - before);
        if !found {
            return self.end_early(offset, offset + bytes);
        }
        if bytes > 0 {
            self.push(Damage::Skipped { offset, bytes, missing: Missing::default() });
        }
        Ok(())
    }

    /// Bytes that belong to another recording, or that came before.
    fn passed(&self) -> u64 {
        let of = |damage: &Damage| match damage {
            Damage::Another { bytes, .. } | Damage::Repeated { bytes, .. } => *bytes,
            _ => 0,
        };
        self.damage.iter().map(of).sum()
    }

    /// The file has ended without its end.
    fn end_early(&mut self, offset: u64, until: u64) -> Result<(), ReadError> {
        self.ended = true;
        let totals = self.metadata.totals;
        let rows = totals.map(|totals| totals.rows.saturating_sub(self.next_row));
        let to = totals.map(|totals| self.last.map_or(totals.ended, |last| last.max(totals.ended)));
        let missing = Missing { rows, from: self.last, to };
        let untold = std::mem::take(&mut self.untold);
        self.tail = lost(rows.unwrap_or(0).saturating_add(untold), missing.from, missing.to);
        self.push(Damage::Cut { offset, bytes: until.saturating_sub(offset), missing });
        Ok(())
    }

    /// The end was there. What follows it is no part of the recording, but may be another.
    fn read_what_follows(&mut self) -> Result<(), ReadError> {
        self.ended = true;
        let untold = std::mem::take(&mut self.untold);
        self.tail = lost(untold, self.last, self.last);
        let begin = self.offset;
        let before = self.passed();
        self.fill(1)?;
        if self.find_group()?.is_some() {
            // One of ours, behind our end, that we have not read: then the end was not the end.
            self.ended = false;
            self.untold = self.tail.take().map_or(0, |lost| lost.count);
            return Ok(());
        }
        if self.offset > begin && self.passed() == before {
            let bytes = self.offset - begin;
            self.damage.push(Damage::Trailing { bytes });
        }
        Ok(())
    }

    /// Moves to the next whole group of this file at this place or behind it; to the end of the file, if there is none.
    fn find_group(&mut self) -> Result<Option<Group>, ReadError> {
        loop {
            let found = self.rest().windows(MARKER.len()).position(|bytes| bytes == MARKER);
            let Some(at) = found else {
                self.advance(self.rest().len().saturating_sub(MARKER.len() - 1));
                if self.eof {
                    self.advance(self.rest().len());
                    return Ok(None);
                }
                self.fill(self.rest().len() + 1)?;
                continue;
            };
            self.advance(at);
            if self.effort > PATIENCE.saturating_add(self.offset.saturating_mul(EFFORT)) {
                // A file that was made for this. What follows is passed over, and said to be.
                return self.give_up();
            }
            let mut effort = 0;
            let step = frame::group(self.buffer.get(self.used..).unwrap_or_default(), &mut effort);
            self.effort = self.effort.saturating_add(effort);
            match step {
                Step::Group(group) if self.is_ours(&group) => return Ok(Some(group)),
                Step::Group(group) => self.pass_over(&group),
                Step::Need(length) if !self.eof => self.fill(length)?,
                // The end counts only where it is the end.
                Step::End if self.rest() == frame::END && self.eof => {
                    self.advance(self.rest().len());
                    return Ok(None);
                }
                Step::End if self.rest() == frame::END => self.fill(self.rest().len() + 1)?,
                Step::Need(_) | Step::End | Step::Broken => {
                    self.look_for_header()?;
                    self.advance(1);
                }
            }
        }
    }

    /// Whether another recording begins here, whose groups could be taken for ours because they have no labels.
    fn look_for_header(&mut self) -> Result<(), ReadError> {
        if self.file != Identity::Known(None) {
            return Ok(());
        }
        loop {
            match frame::header(self.rest()) {
                Header::Need(length) if !self.eof => self.fill(length)?,
                Header::Whole(_, _, true) => {
                    self.file = Identity::Over;
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    /// Passes over a group that is whole, and not the next of this file.
    fn pass_over(&mut self, group: &Group) {
        let (offset, length) = (self.offset, u64::try_from(group.length).unwrap_or(u64::MAX));
        let ours = self.file == Identity::Known(group.file);
        let known = self.damage.iter_mut().find_map(|damage| match damage {
            Damage::Repeated { bytes, .. } if ours => Some((bytes, None)),
            Damage::Another { bytes, rows, .. } if !ours => Some((bytes, Some(rows))),
            _ => None,
        });
        match known {
            Some((bytes, rows)) => {
                *bytes += length;
                if let Some(rows) = rows {
                    *rows = rows.saturating_add(group.count);
                }
            }
            None if ours => self.damage.push(Damage::Repeated { offset, bytes: length }),
            None => self.damage.push(Damage::Another { offset, bytes: length, rows: group.count }),
        }
        self.advance(group.length);
    }

    fn give_up(&mut self) -> Result<Option<Group>, ReadError> {
        loop {
            self.advance(self.rest().len());
            if self.eof {
                return Ok(None);
            }
            self.fill(1)?;
        }
    }

    fn complain(&mut self, why: String, count: u64) {
        let (from, to) = (self.last, None);
        let complaints = self.damage.iter_mut().filter_map(|damage| match damage {
            Damage::Rows { why, missing } => Some((why, missing)),
            _ => None,
        });
        let mut several = 0;
        for (known, missing) in complaints {
            several += 1;
            if *known == why || several == COMPLAINTS / 16 {
                missing.rows = Some(missing.rows.unwrap_or(0).saturating_add(count));
                return;
            }
        }
        self.damage.push(Damage::Rows { why, missing: Missing { rows: Some(count), from, to } });
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    fn advance(&mut self, by: usize) {
        self.used += by;
        self.offset += u64::try_from(by).unwrap_or(u64::MAX);
    }

    /// Reads until `length` bytes are there, or the file ends.
    fn fill(&mut self, length: usize) -> io::Result<()> {
        if self.used > 0 {
            self.buffer.drain(..self.used.min(self.buffer.len()));
            self.used = 0;
        }
        while self.buffer.len() < length && !self.eof {
            let want = (length - self.buffer.len()).max(CHUNK);
            let before = self.buffer.len();
            // Grows with what really comes, whatever a damaged length says.
            let limit = u64::try_from(want.min(16 * CHUNK)).unwrap_or(u64::MAX);
            if self.input.by_ref().take(limit).read_to_end(&mut self.buffer)? == 0 {
                self.eof = true;
            }
            debug_assert!(self.buffer.len() >= before);
        }
        Ok(())
    }

    /// The next events, in order, added to `into`; `false` at the end. What was lost to damage comes as an event of its own,
    /// so that whoever counts knows.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub fn next_events(&mut self, into: &mut Vec<Event>) -> Result<bool, ReadError> {
        self.next_rows(|_, event| into.push(event))
    }

    /// Like [`Self::next_events`], with whether each event only repeats what another part of a rotated recording says.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub fn next_rows(&mut self, mut each: impl FnMut(bool, Event)) -> Result<bool, ReadError> {
        let unread = match self.batch.take() {
            Some(unread) => unread,
            None => match self.next_rows_of_group()? {
                Some(unread) => unread,
                None => {
                    // Said once, after everything else.
                    let Some(lost) = self.tail.take() else { return Ok(false) };
                    each(false, Event { time: lost.to, kind: Kind::Lost(Box::new(lost)) });
                    return Ok(true);
                }
            },
        };
        let Unread { rows, mut told, mut lost } = unread;
        for row in rows.arrived().iter().skip(told).take(PIECE) {
            told += 1;
            let row = usize::try_from(*row).unwrap_or(usize::MAX);
            match rows.get(row) {
                Ok(event) => {
                    if let Some(lost) = lost.take() {
                        each(false, Event { time: lost.to, kind: Kind::Lost(Box::new(lost)) });
                    }
                    each(rows.is_carried(row), event);
                }
                Err(error) => self.complain(error.to_string(), 1),
            }
        }
        if told < rows.arrived().len() {
            self.batch = Some(Unread { rows, told, lost });
        }
        Ok(true)
    }

    /// The rows of the next group, or `None` at the end.
    fn next_rows_of_group(&mut self) -> Result<Option<Unread>, ReadError> {
        while let Some((batch, lost)) = self.next_group(false)? {
            match Rows::new(&batch) {
                Ok(rows) => return Ok(Some(Unread { rows, told: 0, lost })),
                Err(error) => {
                    let count = batch.num_rows().try_into().unwrap_or(u64::MAX);
                    self.complain(error.to_string(), count);
                    let before = lost.map_or(0, |lost| lost.count);
                    self.untold = self.untold.saturating_add(before).saturating_add(count);
                }
            }
        }
        Ok(None)
    }

    /// The next batch with all columns of [`Self::schema`], its rows in the order in which they came, or `None` at the end. Where
    /// events are missing there is a row of a `lost` event; its `total` is empty if it is not known how many.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        if let Some(batch) = self.ready.take() {
            return Ok(Some(batch));
        }
        while let Some((batch, lost)) = self.next_group(true)? {
            let ordered = Rows::new(&batch).map_err(|error| error.to_string()).and_then(|rows| {
                let arrived = UInt32Array::from(rows.arrived().to_vec());
                let batch = batch.project(&self.lasting_columns()).map_err(|error| error.to_string())?;
                take_record_batch(&batch, &arrived).map_err(|error| error.to_string())
            });
            match ordered {
                Ok(batch) => {
                    self.read += batch.num_rows();
                    let Some(gap) = lost.and_then(|lost| self.gap(lost.to, Some(&lost))) else {
                        return Ok(Some(batch));
                    };
                    self.ready = Some(batch);
                    return Ok(Some(gap));
                }
                Err(why) => {
                    let count = batch.num_rows().try_into().unwrap_or(u64::MAX);
                    self.complain(why, count);
                    let before = lost.map_or(0, |lost| lost.count);
                    self.untold = self.untold.saturating_add(before).saturating_add(count);
                }
            }
        }
        if let Some(lost) = self.tail.take() {
            return Ok(self.gap(lost.to, Some(&lost)));
        }
        let open = |damage: &Damage| match damage {
            Damage::Cut { missing: Missing { rows: None, from, .. }, .. } => *from,
            _ => None,
        };
        let from =
            self.damage.iter().find_map(open).filter(|_| !std::mem::replace(&mut self.told_open, true));
        Ok(from.and_then(|from| self.gap(from, None)))
    }

    /// How many rows [`Self::next_batch`] has given, those of [`Self::gap`] left out.
    pub(super) fn rows_read(&self) -> usize {
        self.read
    }

    /// A batch of one row, which says that events are missing.
    fn gap(&self, at: Timestamp, lost: Option<&Lost>) -> Option<RecordBatch> {
        let mut columns = Builders::default();
        match lost {
            Some(lost) => {
                let event = Event { time: at, kind: Kind::Lost(Box::new(lost.clone())) };
                put(&mut columns, 0, &event).ok()?;
            }
            None => {
                columns.time.put(0, at.nanos());
                columns.event.put(0, "lost");
                columns.how.put(0, LossPlace::Recording.name());
            }
        }
        let row = columns.finish().ok()?;
        let schema = SchemaRef::new(self.schema());
        let arrays = schema.fields().iter().map(|field| {
            let ours = row.column_by_name(field.name()).filter(|ours| ours.data_type() == field.data_type());
            ours.cloned().unwrap_or_else(|| new_null_array(field.data_type(), 1))
        });
        let arrays: Vec<ArrayRef> = arrays.collect();
        RecordBatch::try_new(schema, arrays).ok()
    }

    /// The schema of the batches of [`Self::next_batch`].
    pub fn schema(&self) -> Schema {
        // Its columns are there.
        self.columns.schema.project(&self.lasting_columns()).unwrap_or_else(|_| Schema::empty())
    }

    /// The columns that mean something wherever their rows stand.
    fn lasting_columns(&self) -> Vec<usize> {
        let fields = self.columns.schema.fields().iter().enumerate();
        fields.filter(|(_, field)| field.name() != ORDER).map(|(index, _)| index).collect()
    }
}

/// The times of the first and the last event of a batch; what a part repeats from those before it is older.
fn times(batch: &RecordBatch) -> Option<(Timestamp, Timestamp)> {
    let times = batch.column_by_name("time")?.as_primitive_opt::<TimestampNanosecondType>()?;
    let carried = batch.column_by_name("carried").and_then(|carried| carried.as_boolean_opt());
    let nanos = |row: usize, time: Option<i64>| {
        let repeats = carried.is_some_and(|of| of.is_valid(row) && of.value(row));
        Some(time?.cast_unsigned()).filter(|_| !repeats)
    };
    let all = times.iter().enumerate().filter_map(|(row, time)| nanos(row, time));
    let (first, last) = all.fold((u64::MAX, 0), |(first, last), time| (first.min(time), last.max(time)));
    (first <= last).then(|| (Timestamp::from_nanos(first), Timestamp::from_nanos(last)))
}

fn lost(count: u64, from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Lost> {
    let to = to.or(from)?;
    let from = from.unwrap_or(to);
    (count > 0).then(|| Lost { what: "event".to_owned(), count, place: LossPlace::Recording, from, to })
}

/// What a file that is no recording looks like.
fn guess(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "the file is empty",
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => "an Arrow file, not a stream",
        [b'P', b'A', b'R', b'1', ..] => "a Parquet file: an export, which cannot be read back",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "packed with zstd: unpack it first",
        [0x1f, 0x8b, ..] => "packed with gzip: unpack it first",
        [b'{', ..] => "JSON: an export or an output, which cannot be read back",
        _ => "it begins differently",
    }
}
