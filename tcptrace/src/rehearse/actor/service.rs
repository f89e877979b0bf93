//! A server with blocking workers, each busy with one connection at a time: the slow proxy of the incident.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::order::Stamp;
use super::sockets;

/// What the workers of a server do and have done.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Milliseconds that a connection takes.
    busy: AtomicU64,
    /// accept() calls that failed for lack of descriptors.
    refused: AtomicU64,
    accepted: Mutex<Vec<Stamp>>,
}

impl Books {
    /// Changes the time that a connection takes, from the next one on.
    pub(super) fn set_pace(&self, busy: Duration) {
        self.busy.store(u64::try_from(busy.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many connections were accepted.
    pub(super) fn accepted(&self) -> usize {
        self.stamps().len()
    }

    /// How often accept() was refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// When which client's connection was accepted.
    pub(super) fn acceptances(&self) -> Vec<Stamp> {
        self.stamps().clone()
    }

    fn note(&self, peer: SocketAddr) {
        // Before anything else: the time must be that of accept()'s return.
        let nanos = sockets::monotonic().unwrap_or_default();
        self.stamps().push(Stamp { port: peer.port(), nanos });
    }

    fn stamps(&self) -> std::sync::MutexGuard<'_, Vec<Stamp>> {
        // A worker that panicked in between leaves a whole list all the same.
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts `workers` threads that accept for ever.
pub(super) fn start(listener: &TcpListener, workers: usize, busy: Duration) -> io::Result<Arc<Books>> {
    let books = Arc::new(Books::default());
    books.set_pace(busy);
    for _ in 0..workers {
        let (listener, books) = (listener.try_clone()?, Arc::clone(&books));
        // Unnamed on purpose: a thread without a name of its own carries the actor's.
        std::thread::Builder::new().spawn(move || {
            while let Ok((mut connection, peer)) = listener.accept() {
                books.note(peer);
                std::thread::sleep(Duration::from_millis(books.busy.load(Ordering::Relaxed)));
                // The client may have gone meanwhile; the worker does not care. It never waits for a request that has
                // not come: its pace must be the one that was asked for.
                let _ = connection.set_nonblocking(true);
                let _ = connection.read(&mut [0; 16]);
                let _ = connection.write(b"!");
            }
        })?;
    }
    Ok(books)
}

/// Starts a thread that accepts and never closes, in a process that may have `spare` descriptors more than it has now;
/// that limit.
pub(super) fn hoard(listener: TcpListener, spare: u64) -> io::Result<(Arc<Books>, u64)> {
    /// A server that is refused tries again soon, or it would not notice that it may go on.
    const AGAIN: Duration = Duration::from_millis(50);
    let books = Arc::new(Books::default());
    // Where the free numbers lie is not for us to guess: whoever started us may have left descriptors in between.
    let reserved = (0..spare).map(|_| listener.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let highest = reserved.iter().map(AsRawFd::as_raw_fd).max().unwrap_or_default();
    let limit = u64::try_from(highest).map_err(io::Error::other)? + 1;
    drop(reserved);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    let ledger = Arc::clone(&books);
    std::thread::Builder::new().spawn(move || {
        let mut hoard = Vec::new();
        loop {
            match listener.accept() {
                Ok((connection, peer)) => {
                    ledger.note(peer);
                    hoard.push(connection);
                }
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                    ledger.refused.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(AGAIN);
                }
                Err(_) => return,
            }
        }
    })?;
    Ok((books, limit))
}
