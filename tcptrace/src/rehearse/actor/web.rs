//! A small web server that does everything right, and visitors who do all the ordinary things to it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, setsockopt, sockopt};

use super::order::{Habit, Visit, Visits};
use super::sockets;

/// A request that the server answers and then closes the connection; any other byte is answered and kept open.
pub(super) const LAST_REQUEST: u8 = b'c';
const REQUEST: u8 = b'k';

/// How long a visitor waits before it calls the server broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Running workers; dropping this stops them and closes their connections.
#[derive(Debug)]
pub(super) struct Service {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<io::Result<()>>>,
}

impl Service {
    /// Starts `workers` event loops that share one non-blocking listener, so that losers of the race see EAGAIN.
    pub(super) fn start(listener: &TcpListener, workers: usize) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut service = Self { stop, workers: Vec::new() };
        for _ in 0..workers {
            let (listener, stop) = (listener.try_clone()?, Arc::clone(&service.stop));
            service.workers.push(std::thread::Builder::new().spawn(move || work(&listener, &stop))?);
        }
        Ok(service)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            // A worker's error has shown itself to its visitors.
            let _ = worker.join();
        }
    }
}

fn work(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    let mut connections: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut fds = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        fds.extend(connections.iter().map(|connection| PollFd::new(connection.as_fd(), PollFlags::POLLIN)));
        poll(&mut fds, PollTimeout::from(50u8))?;
        let mut ready = fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        let new = ready.next().unwrap_or(false);
        let ready: Vec<bool> = ready.collect();
        let mut ready = ready.into_iter();
        connections.retain_mut(|connection| !ready.next().unwrap_or(false) || serve(connection));
        if new {
            accept_all(listener, &mut connections)?;
        }
    }
    Ok(())
}

/// Accepts until the kernel says EAGAIN, as event loops do.
fn accept_all(listener: &TcpListener, connections: &mut Vec<TcpStream>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((connection, _)) => {
                connection.set_nonblocking(true)?;
                connections.push(connection);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // A connection that was reset while it waited: the next one.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Answers what has come; false when the connection is over.
fn serve(connection: &mut TcpStream) -> bool {
    let mut request = [0];
    match connection.read(&mut request) {
        Ok(1) => connection.write_all(b"!").is_ok() && request != [LAST_REQUEST],
        Err(error) => error.kind() == ErrorKind::WouldBlock,
        Ok(_) => false,
    }
}

/// Plays all visitors until their time is up.
pub(super) fn visit(order: &Visit) -> io::Result<Visits> {
    let mut visitors = Vec::new();
    for _ in 0..order.clients {
        let order = order.clone();
        visitors.push(std::thread::Builder::new().spawn(move || visitor(&order))?);
    }
    let mut all = Visits::default();
    for visitor in visitors {
        let Ok(visits) = visitor.join() else {
            return Err(io::Error::other("a visitor panicked"));
        };
        all.connections += visits.connections;
        all.keep_alive_requests += visits.keep_alive_requests;
        all.errors.extend(visits.errors);
    }
    Ok(all)
}

fn visitor(order: &Visit) -> Visits {
    let mut visits = Visits::default();
    let outcome = stay(order, &mut visits);
    visits.errors.extend(outcome.err().map(|error| error.to_string()));
    visits
}

fn stay(order: &Visit, visits: &mut Visits) -> io::Result<()> {
    let begin = Instant::now();
    let mut faithful = match order.habit {
        Habit::Mixed | Habit::KeepAlive => Some(connect(order)?),
        Habit::Short | Habit::FastOpen | Habit::Mptcp => None,
    };
    visits.connections += u64::from(faithful.is_some());
    for manner in [Manner::Finish, Manner::ServerFinishes, Manner::Reset, Manner::Abort].into_iter().cycle() {
        if begin.elapsed() >= Duration::from_millis(order.for_ms) {
            break;
        }
        if order.habit != Habit::KeepAlive {
            manner.visit(order)?;
            visits.connections += 1;
        }
        if let Some(faithful) = &mut faithful {
            exchange(faithful, REQUEST)?;
            visits.keep_alive_requests += 1;
        }
        std::thread::sleep(Duration::from_millis(order.every_ms));
    }
    Ok(())
}

/// One request on a connection of one's own, which the server closes.
pub(super) fn ask(mut connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    Manner::ServerFinishes.speak(&mut connection)
}

/// How a short connection ends.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// The client closes first and keeps the TIME_WAIT.
    Finish,
    /// The server closes first and keeps the TIME_WAIT, on its own port.
    ServerFinishes,
    /// The client resets when it has its answer.
    Reset,
    /// The client resets without a word, perhaps before it was accepted.
    Abort,
}

impl Manner {
    fn visit(self, order: &Visit) -> io::Result<()> {
        let mut connection = connect(order)?;
        match self {
            // With Fast Open nothing is sent before the first word, so that a client cannot go without one.
            Self::Abort if order.habit == Habit::FastOpen => Self::Reset.speak(&mut connection),
            manner => manner.speak(&mut connection),
        }
    }

    fn speak(self, connection: &mut TcpStream) -> io::Result<()> {
        match self {
            Self::Finish => exchange(connection, REQUEST),
            Self::ServerFinishes => {
                exchange(connection, LAST_REQUEST)?;
                match connection.read(&mut [0])? {
                    0 => Ok(()),
                    _ => Err(io::Error::other("the server said more than it should")),
                }
            }
            Self::Reset => {
                exchange(connection, REQUEST)?;
                Ok(sockets::reset_on_close(connection)?)
            }
            Self::Abort => Ok(sockets::reset_on_close(connection)?),
        }
    }
}

fn connect(order: &Visit) -> io::Result<TcpStream> {
    let to = order.to;
    let connection = match order.habit {
        Habit::Mixed | Habit::Short | Habit::KeepAlive => TcpStream::connect_timeout(&to, PATIENCE)?,
        Habit::FastOpen => {
            let socket = sockets::tcp(to, SockFlag::empty())?;
            setsockopt(&socket, sockopt::TcpFastOpenConnect, &true)?;
            sockets::start_connect(&socket, to)?;
            socket.into()
        }
        Habit::Mptcp => {
            let socket = sockets::mptcp(to, SockFlag::empty())?;
            sockets::start_connect(&socket, to)?;
            socket.into()
        }
    };
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

fn exchange(connection: &mut TcpStream, request: u8) -> io::Result<()> {
    connection.write_all(&[request])?;
    connection.read_exact(&mut [0])
}
