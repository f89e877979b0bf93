//! A server with blocking workers, each busy with one connection at a time: the slow proxy of the incident.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::order::{Accepting, Stamp};
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

/// Lowers the limit on descriptors so that the process may have `spare` more than it has now; that limit.
fn leave_spare(listener: &TcpListener, spare: u64) -> io::Result<u64> {
    // Where the free numbers lie is not for us to guess: whoever started us may have left descriptors in between.
    let reserved = (0..spare).map(|_| listener.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let highest = reserved.iter().map(AsRawFd::as_raw_fd).max().unwrap_or_default();
    let limit = u64::try_from(highest).map_err(io::Error::other)? + 1;
    drop(reserved);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    Ok(limit)
}

/// Starts a thread that accepts in this manner; the limit on descriptors, 0 if it was not changed.
pub(super) fn accept_as(listener: TcpListener, manner: Accepting) -> io::Result<(Arc<Books>, u64)> {
    let books = Arc::new(Books::default());
    let ledger = Arc::clone(&books);
    let (limit, thread): (u64, Box<dyn FnOnce() + Send>) = match manner {
        Accepting::Limited { customers } => {
            listener.set_nonblocking(true)?;
            (
                0,
                Box::new(move || {
                    let _ = serve_so_many(&listener, customers, &ledger);
                }),
            )
        }
        Accepting::Impatient => {
            listener.set_nonblocking(true)?;
            (0, Box::new(move || try_again(&listener, &ledger)))
        }
        Accepting::Reserve { spare } => {
            let reserve = File::open("/dev/null")?;
            let limit = leave_spare(&listener, spare)?;
            (
                limit,
                Box::new(move || {
                    let _ = cut_off(&listener, reserve, &ledger);
                }),
            )
        }
        Accepting::GivesUp { spare } => {
            let limit = leave_spare(&listener, spare)?;
            (limit, Box::new(move || give_up(&listener, &ledger)))
        }
    };
    std::thread::Builder::new().spawn(thread)?;
    Ok((books, limit))
}

/// An event loop that takes the listener out when it has its customers, and sleeps on.
fn serve_so_many(listener: &TcpListener, customers: usize, books: &Books) -> nix::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let mut served = Vec::new();
    loop {
        let mut events = [EpollEvent::empty()];
        match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        while served.len() < customers {
            let Ok((connection, peer)) = listener.accept() else { break };
            books.note(peer);
            served.push(connection);
        }
        if served.len() == customers {
            epoll.delete(listener)?;
        }
    }
}

fn try_again(listener: &TcpListener, books: &Books) {
    let mut served = Vec::new();
    loop {
        match listener.accept() {
            Ok((connection, peer)) => {
                books.note(peer);
                served.push(connection);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                books.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(_) => return,
        }
    }
}

fn cut_off(listener: &TcpListener, mut reserve: File, books: &Books) -> io::Result<()> {
    let mut served = Vec::new();
    loop {
        match listener.accept() {
            Ok((connection, peer)) => {
                books.note(peer);
                served.push(connection);
            }
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                books.refused.fetch_add(1, Ordering::Relaxed);
                drop(reserve);
                let (connection, peer) = listener.accept()?;
                books.note(peer);
                drop(connection);
                reserve = File::open("/dev/null")?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn give_up(listener: &TcpListener, books: &Books) {
    let mut served = Vec::new();
    while let Ok((connection, peer)) = listener.accept() {
        books.note(peer);
        served.push(connection);
    }
    books.refused.fetch_add(1, Ordering::Relaxed);
}

/// Starts a thread that accepts and never closes, in a process that may have `spare` descriptors more than it has now;
/// that limit.
pub(super) fn hoard(listener: TcpListener, spare: u64) -> io::Result<(Arc<Books>, u64)> {
    /// A server that is refused tries again soon, or it would not notice that it may go on.
    const AGAIN: Duration = Duration::from_millis(50);
    let books = Arc::new(Books::default());
    let limit = leave_spare(&listener, spare)?;
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
