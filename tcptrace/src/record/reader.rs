//! Reads a recording, however it ended: what is whole is read, what is damaged is passed over, and both are said.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{RecordBatch, UInt32Array};
use arrow_schema::{Schema, SchemaRef};
use arrow_select::take::take_record_batch;

use crate::event::{Event, Kind, LossPlace, Lost, Timestamp};

use super::damage::{Damage, ReadError};
use super::frame::{self, Group, Header, LONGEST_GROUP, MARKER, Step};
use super::get::Rows;
use super::metadata::{FORMAT_MAJOR, FORMAT_MINOR, Metadata};
use super::schema::{ORDER, schema};

/// How much is read from a file at once.
const CHUNK: usize = 1 << 20;

/// No header is longer.
const LONGEST_HEADER: usize = 64 << 10;

/// So many rows become events at once: they stay in the processor's cache until they are used.
const PIECE: usize = 1 << 10;

/// How many different complaints about rows are kept.
const COMPLAINTS: usize = 16;

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
    schema: SchemaRef,
    metadata: Metadata,
    next_row: u64,
    last: Timestamp,
    damage: Vec<Damage>,
    batch: Option<Unread>,
}

/// A batch of which some rows have not been told of.
struct Unread {
    rows: Rows,
    /// How many of them have.
    told: usize,
    /// Rows before it that were lost, and not been told of.
    lost: u64,
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
        let mut reader = Self {
            input,
            buffer: Vec::new(),
            used: 0,
            offset: 0,
            eof: false,
            ended: false,
            schema: schema(),
            metadata: Metadata::default(),
            next_row: 0,
            last: Timestamp::default(),
            damage: Vec::new(),
            batch: None,
        };
        reader.read_header()?;
        reader.last = reader.metadata.started;
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

    fn read_header(&mut self) -> Result<(), ReadError> {
        self.fill(8)?;
        loop {
            match frame::header(self.rest()) {
                Header::Need(length) if !self.eof && length <= LONGEST_GROUP => self.fill(length)?,
                Header::Whole(schema, length, sealed) => {
                    let Some(metadata) = Metadata::from_map(schema.metadata()) else {
                        return Err(ReadError::Foreign("an Arrow stream of another program"));
                    };
                    let (major, minor) = metadata.format;
                    if major > FORMAT_MAJOR {
                        return Err(ReadError::TooNew(major, minor));
                    }
                    if minor > FORMAT_MINOR && major == FORMAT_MAJOR {
                        log::debug!("the recording's format, {major}.{minor}, is newer than this tcptrace");
                    }
                    if !sealed {
                        self.damage.push(Damage::Header);
                    }
                    self.metadata = metadata;
                    self.schema = Arc::new(*schema);
                    self.advance(length);
                    return Ok(());
                }
                Header::Need(_) | Header::Broken => return self.do_without_header(),
            }
        }
    }

    /// The header cannot be read: is there anything that can?
    fn do_without_header(&mut self) -> Result<(), ReadError> {
        let rest = self.rest();
        // The header itself begins with a marker, and is not longer than this.
        if !rest.windows(MARKER.len()).take(LONGEST_HEADER).any(|bytes| bytes == MARKER) {
            return Err(ReadError::Foreign(guess(rest)));
        }
        let guess = if rest.starts_with(&MARKER) { None } else { Some(guess(rest)) };
        if self.find_group()?.is_none() {
            return Err(ReadError::Foreign(
                guess.unwrap_or("the beginning is cut or damaged, and nothing whole follows"),
            ));
        }
        // The names of columns are lost with the header: those of this version are the best guess, if there are as many.
        self.schema = frame::known_schema();
        if let Step::Group(group) = frame::group(self.rest())
            && !group.fits(self.rest(), &self.schema)
        {
            return Err(ReadError::Foreign(
                "its beginning is damaged, and its columns are not those of this version: use the tcptrace that made it",
            ));
        }
        self.damage.push(Damage::Header);
        Ok(())
    }

    /// The next batch with its events, or `None` at the end. `all`: with the columns that are empty throughout, too.
    pub(super) fn next_group(&mut self, all: bool) -> Result<Option<(RecordBatch, u64)>, ReadError> {
        while !self.ended {
            match frame::group(self.rest()) {
                Step::Need(length) if !self.eof => self.fill(length)?,
                Step::Group(group) => {
                    let lost = group.first_row.saturating_sub(self.next_row);
                    if let Some(batch) = self.take(&group, all) {
                        return Ok(Some((batch, lost)));
                    }
                }
                Step::End => {
                    self.advance(frame::END.len());
                    self.fill(1)?;
                    self.read_to_end()?;
                    if !self.rest().is_empty() {
                        let bytes = u64::try_from(self.rest().len()).unwrap_or(u64::MAX);
                        self.damage.push(Damage::Trailing { bytes });
                    }
                    self.ended = true;
                }
                Step::Need(_) | Step::Broken => self.pass_over_damage()?,
            }
        }
        Ok(None)
    }

    /// The rows of a group that was found at the place.
    fn take(&mut self, group: &Group, all: bool) -> Option<RecordBatch> {
        let decoded = group.decode(self.rest(), &self.schema, all);
        self.next_row = group.first_row.saturating_add(group.count);
        self.advance(group.length);
        match decoded {
            Ok(batch) => Some(batch),
            Err(error) => {
                self.complain(error.to_string(), group.count);
                None
            }
        }
    }

    /// Goes on behind what is damaged or cut.
    fn pass_over_damage(&mut self) -> Result<(), ReadError> {
        let offset = self.offset;
        if self.rest().is_empty() && self.eof {
            self.damage.push(Damage::NotEnded);
            self.ended = true;
            return Ok(());
        }
        match self.find_group()? {
            Some(first_row) => {
                let rows = first_row.saturating_sub(self.next_row);
                self.damage.push(Damage::Skipped { offset, bytes: self.offset - offset, rows });
            }
            None => {
                self.damage.push(Damage::Cut { offset, bytes: self.offset - offset });
                self.ended = true;
            }
        }
        Ok(())
    }

    /// Moves to the next whole group behind this place, and gives the number of its first row; to the end, if there is none.
    fn find_group(&mut self) -> Result<Option<u64>, ReadError> {
        self.advance(1);
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
            match frame::group(self.rest()) {
                Step::Group(group) => return Ok(Some(group.first_row)),
                Step::Need(length) if !self.eof => self.fill(length)?,
                // The end counts only where it is the end.
                Step::End if self.rest() == frame::END && self.eof => {
                    self.advance(self.rest().len());
                    return Ok(None);
                }
                Step::End if self.rest() == frame::END => self.fill(self.rest().len() + 1)?,
                Step::Need(_) | Step::End | Step::Broken => self.advance(1),
            }
        }
    }

    fn complain(&mut self, why: String, count: u64) {
        let complaints = self.damage.iter_mut().filter_map(|damage| match damage {
            Damage::Rows { why, rows } => Some((why, rows)),
            _ => None,
        });
        let mut several = 0;
        for (known, rows) in complaints {
            several += 1;
            if *known == why || several == COMPLAINTS {
                *rows = rows.saturating_add(count);
                return;
            }
        }
        self.damage.push(Damage::Rows { why, rows: count });
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

    fn read_to_end(&mut self) -> io::Result<()> {
        // Only whether there is something matters, and about how much.
        self.fill(CHUNK)
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
                None => return Ok(false),
            },
        };
        let Unread { rows, mut told, mut lost } = unread;
        for row in rows.arrived().iter().skip(told).take(PIECE) {
            told += 1;
            let row = usize::try_from(*row).unwrap_or(usize::MAX);
            match rows.get(row) {
                Ok(event) => {
                    if lost > 0 {
                        let (from, to) = (self.last, event.time.max(self.last));
                        let what = "event".to_owned();
                        let lost = Lost {
                            what,
                            count: std::mem::take(&mut lost),
                            place: LossPlace::Recording,
                            from,
                            to,
                        };
                        each(false, Event { time: to, kind: Kind::Lost(Box::new(lost)) });
                    }
                    self.last = self.last.max(event.time);
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
                    self.complain(error.to_string(), batch.num_rows().try_into().unwrap_or(u64::MAX));
                }
            }
        }
        Ok(None)
    }

    /// The next batch with all columns of [`Self::schema`], its rows in the order in which they came, or `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        while let Some((batch, _)) = self.next_group(true)? {
            let ordered = Rows::new(&batch).map_err(|error| error.to_string()).and_then(|rows| {
                let arrived = UInt32Array::from(rows.arrived().to_vec());
                let batch = batch.project(&self.lasting_columns()).map_err(|error| error.to_string())?;
                take_record_batch(&batch, &arrived).map_err(|error| error.to_string())
            });
            match ordered {
                Ok(batch) => return Ok(Some(batch)),
                Err(why) => self.complain(why, batch.num_rows().try_into().unwrap_or(u64::MAX)),
            }
        }
        Ok(None)
    }

    /// The schema of the batches of [`Self::next_batch`].
    pub fn schema(&self) -> Schema {
        // Its columns are there.
        self.schema.project(&self.lasting_columns()).unwrap_or_else(|_| Schema::empty())
    }

    /// The columns that mean something wherever their rows stand.
    fn lasting_columns(&self) -> Vec<usize> {
        let fields = self.schema.fields().iter().enumerate();
        fields.filter(|(_, field)| field.name() != ORDER).map(|(index, _)| index).collect()
    }
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
