//! Writes a recording: events become rows, rows become batches, batches become groups.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::Schema;

use crate::correlate::BoundedMap;
use crate::event::{Event, Kind, Timestamp};

use super::frame::{END, Encoder};
use super::metadata::{FORMAT_MAJOR, FORMAT_MINOR, Metadata, Totals};
use super::order::MOST_ROWS;
use super::put::put;
use super::schema::{Builders, schema};

/// How many processes and sockets are remembered, to name them in rows of events that do not.
const NAMES: usize = 16_384;

/// A batch holds events of at most this long: damage costs the batches that it touches.
pub(super) const SPAN: Duration = Duration::from_secs(4);

/// A batch is written when so many bytes are in its columns of texts and lists, which have no size of their own.
const HEAVY: usize = 8 << 20;

/// Writes the events of one file.
pub struct Writer<W: Write> {
    to: W,
    metadata: Metadata,
    file: u32,
    encoder: Encoder,
    /// When the batch is to be written, because its events would be of more than [`SPAN`].
    full: Option<Timestamp>,
    last: Timestamp,
    columns: Builders,
    rows: usize,
    written: u64,
    batches: u64,
    people: People,
}

impl<W: Write> Writer<W> {
    /// Begins a recording. Whatever format `metadata` name, it is written in that of this version.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mut to: W, metadata: &Metadata) -> io::Result<Self> {
        let metadata = Metadata { format: (FORMAT_MAJOR, FORMAT_MINOR), totals: None, ..metadata.clone() };
        let encoder = Encoder::new(&schema()).map_err(io::Error::other)?;
        to.write_all(&header(&encoder, &metadata)?)?;
        to.flush()?;
        Ok(Self {
            to,
            file: metadata.file(),
            metadata,
            encoder,
            full: None,
            last: Timestamp::default(),
            columns: Builders::default(),
            rows: 0,
            written: 0,
            batches: 0,
            people: People::default(),
        })
    }

    /// Adds an event; writes the batch if it is full. `carried`: it repeats what a part before this one has said.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, event: &Event, carried: bool) -> io::Result<()> {
        if !carried {
            if self.full.is_some_and(|full| event.time > full) {
                self.flush()?;
            }
            self.full.get_or_insert(event.time.after(SPAN));
            self.last = self.last.max(event.time);
        }
        put(&mut self.columns, self.rows, event)?;
        self.people.name(&mut self.columns, self.rows, event);
        if carried {
            self.columns.carried.put(self.rows, true);
        }
        self.rows += 1;
        if self.rows >= MOST_ROWS || self.columns.weight() >= HEAVY { self.flush() } else { Ok(()) }
    }

    /// How many events wait for [`Self::flush`].
    pub fn waiting(&self) -> usize {
        self.rows
    }

    /// Writes what waits, in one piece.
    ///
    /// # Errors
    /// When it cannot be written: then the rows that waited are lost, and what was written must be cut off.
    pub fn flush(&mut self) -> io::Result<()> {
        self.full = None;
        if self.rows == 0 {
            return Ok(());
        }
        let batch = self.columns.finish().map_err(io::Error::other)?;
        let group = self.encoder.group(&batch, self.written, self.file).map_err(io::Error::other)?;
        self.written += u64::try_from(self.rows).unwrap_or(u64::MAX);
        self.rows = 0;
        self.batches += 1;
        self.to.write_all(&group)?;
        self.to.flush()
    }

    /// Whether its batches are so small that most of the file is what each batch costs, rows or not.
    pub(super) fn is_scattered(&self) -> bool {
        /// A batch costs about as much as so many rows.
        const SMALL: u64 = 1 << 10;
        self.batches > 4 && self.written / self.batches < SMALL
    }

    /// Ends the recording in order.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<W> {
        self.end().map(|(to, _)| to)
    }

    /// Ends the recording in order; with the header that says how much is in it, to be written over the first one where that
    /// is possible.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn end(mut self) -> io::Result<(W, Vec<u8>)> {
        self.flush()?;
        self.to.write_all(&END)?;
        self.to.flush()?;
        let totals = Some(Totals { rows: self.written, ended: self.last });
        let header = header(&self.encoder, &Metadata { totals, ..self.metadata })?;
        Ok((self.to, header))
    }

    /// Where it is written.
    pub fn get_ref(&self) -> &W {
        &self.to
    }

    /// Where it is written, to be cut after a failure.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.to
    }
}

fn header(encoder: &Encoder, metadata: &Metadata) -> io::Result<Vec<u8>> {
    let schema = Schema::new(schema().fields().clone()).with_metadata(metadata.to_map());
    encoder.header(&schema).map_err(io::Error::other)
}

/// Who is known to have which listener, and where processes run: for queries over rows that do not say so themselves.
struct People {
    containers: BoundedMap<u32, Arc<str>>,
    listeners: BoundedMap<u64, (u32, Arc<str>)>,
}

impl Default for People {
    fn default() -> Self {
        Self { containers: BoundedMap::new(NAMES), listeners: BoundedMap::new(NAMES) }
    }
}

impl People {
    /// Learns from `event`, and fills in what its row leaves open.
    fn name(&mut self, columns: &mut Builders, row: usize, event: &Event) {
        let pid = match &event.kind {
            Kind::ProcessInfo(info) => {
                self.containers.remove(&info.pid);
                if let Some(container) = &info.container {
                    self.containers.get_or_insert_with(info.pid, || container.as_str().into());
                }
                Some(info.pid)
            }
            Kind::Listen(listen) => {
                self.has(listen.listener.inode, listen.task.pid, &listen.task.comm);
                Some(listen.task.pid)
            }
            Kind::SocketOwner(found) => found.owners.first().map(|owner| {
                self.has(found.inode, owner.pid, &owner.comm);
                owner.pid
            }),
            Kind::ListenerClosed(closed) => {
                self.listeners.remove(&closed.listener.inode);
                Some(closed.task.pid)
            }
            Kind::Accept(accept) => Some(accept.task.pid),
            Kind::BindFail(fail) => Some(fail.task.pid),
            Kind::Connect(connect) => connect.task.as_ref().map(|task| task.pid),
            Kind::ConnectSample(sample) => Some(sample.pid),
            Kind::HandshakeDrop(drop) => drop.task.as_ref().map(|task| task.pid),
            Kind::NoPort(none) => Some(none.task.pid),
            Kind::PortUse(usage) => Some(usage.pid),
            Kind::PortTaken(taken) => Some(taken.task.pid),
            Kind::PortReleased(released) => Some(released.pid),
            Kind::Syn(syn) => self.owner(columns, row, syn.listener.inode),
            Kind::SynDrop(drop) => self.owner(columns, row, drop.listener.inode),
            Kind::AckDrop(drop) => self.owner(columns, row, drop.listener.inode),
            Kind::Enqueue(enqueue) => self.owner(columns, row, enqueue.listener.inode),
            Kind::SynAckRetransmit(again) => self.owner(columns, row, again.listener.inode),
            Kind::RequestEnd(end) => self.owner(columns, row, end.listener.inode),
            Kind::ListenerSample(sample) => self.owner(columns, row, sample.listener.inode),
            _ => None,
        };
        if let Some(container) = pid.and_then(|pid| self.containers.get(&pid)) {
            columns.container.put(row, &**container);
        }
    }

    fn has(&mut self, inode: u64, pid: u32, comm: &str) {
        if inode != 0 {
            self.listeners.remove(&inode);
            self.listeners.get_or_insert_with(inode, || (pid, comm.into()));
        }
    }

    fn owner(&self, columns: &mut Builders, row: usize, inode: u64) -> Option<u32> {
        let (pid, comm) = self.listeners.get(&inode)?;
        columns.pid.put(row, *pid);
        columns.comm.put(row, &**comm);
        Some(*pid)
    }
}
