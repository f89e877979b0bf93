//! Writes a recording: events become rows, rows become batches, batches become groups.

use std::io::{self, Write};
use std::sync::Arc;

use arrow_schema::Schema;

use crate::correlate::BoundedMap;
use crate::event::{Event, Kind};

use super::frame::{END, Encoder};
use super::metadata::{FORMAT_MAJOR, FORMAT_MINOR, Metadata};
use super::order::MOST_ROWS;
use super::put::put;
use super::schema::{Builders, schema};

/// How many processes and sockets are remembered, to name them in rows of events that do not.
const NAMES: usize = 16_384;

/// Writes the events of one file.
pub struct Writer<W: Write> {
    to: W,
    encoder: Encoder,
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
        let metadata = Metadata { format: (FORMAT_MAJOR, FORMAT_MINOR), ..metadata.clone() };
        let whole = Schema::new(schema().fields().clone()).with_metadata(metadata.to_map());
        let encoder = Encoder::new(&whole).map_err(io::Error::other)?;
        to.write_all(&encoder.header(&whole).map_err(io::Error::other)?)?;
        to.flush()?;
        Ok(Self {
            to,
            encoder,
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
        put(&mut self.columns, self.rows, event)?;
        self.people.name(&mut self.columns, self.rows, event);
        if carried {
            self.columns.carried.put(self.rows, true);
        }
        self.rows += 1;
        if self.rows >= MOST_ROWS { self.flush() } else { Ok(()) }
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
        if self.rows == 0 {
            return Ok(());
        }
        let batch = self.columns.finish().map_err(io::Error::other)?;
        let group = self.encoder.group(&batch, self.written).map_err(io::Error::other)?;
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
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        self.to.write_all(&END)?;
        self.to.flush()?;
        Ok(self.to)
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
