//! A client's connections: opened whether or not anybody answers, held, counted and closed.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, SockaddrStorage, bind, setsockopt, sockopt};

use super::order::{Load, Stamp, Tally};
use super::sockets;

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;

/// A bound on what one client may open: an incident needs hundreds, a mistake would take thousands.
const AT_MOST: usize = 4000;

/// How long a client of a load waits for its byte to be acknowledged.
const HANG: Duration = Duration::from_millis(400);

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    stage: Stage,
    /// When connect() returned; on loopback the handshake was over then.
    opened: u64,
    /// SYNs sent again before the handshake was over.
    syns_again: u32,
    /// When the byte was sent.
    sent: Option<Instant>,
    /// The byte was acknowledged: the server's side of the connection exists.
    heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Established,
    /// It failed before the handshake was complete, as seen from here.
    Refused,
}

/// All connections of one client.
#[derive(Debug, Default)]
pub(super) struct Connections {
    held: Vec<Connection>,
    /// What became of those that are closed already.
    closed: Tally,
}

impl Connections {
    /// Starts one connection.
    pub(super) fn open(&mut self, to: SocketAddr) -> std::io::Result<()> {
        self.open_from(0, to)
    }

    /// Starts one connection from a local port, 0 being any.
    fn open_from(&mut self, port: u16, to: SocketAddr) -> std::io::Result<()> {
        if self.held.len() >= AT_MOST {
            return Err(std::io::Error::other(format!("more than {AT_MOST} connections")));
        }
        let socket = sockets::tcp(to, SockFlag::SOCK_NONBLOCK)?;
        sockets::reset_on_close(&socket)?;
        if port != 0 {
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            let any: IpAddr =
                if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
        }
        sockets::start_connect(&socket, to)?;
        let opened = sockets::monotonic()?;
        let mut connection = Connection {
            stream: socket.into(),
            stage: Stage::Connecting,
            opened,
            syns_again: 0,
            sent: None,
            heard: false,
        };
        // On loopback the whole handshake has happened inside connect().
        connection.look()?;
        self.held.push(connection);
        Ok(())
    }

    /// Opens connections at a pace; every one sends its byte as soon as it is established.
    pub(super) fn load(&mut self, load: &Load) -> std::io::Result<usize> {
        let (begin, every) = (Instant::now(), Duration::from_millis(load.every_ms));
        // Many slow clients at once must not keep an emulated machine busy by looking around.
        let nap = Duration::from_millis(if load.every_ms >= 200 { 100 } else { 20 });
        let (mut opened, mut next) = (0, begin);
        while begin.elapsed() < Duration::from_millis(load.for_ms) || opened < load.at_least {
            if Instant::now() >= next {
                for _ in 0..load.burst {
                    self.open(load.to)?;
                    self.send_late();
                    opened += 1;
                }
                // A machine that cannot keep the pace must not pay it back in one burst.
                next = (next + every).max(Instant::now());
            }
            self.attend(next.saturating_duration_since(Instant::now()).min(nap))?;
            self.send_late();
            self.give_up()?;
        }
        Ok(opened)
    }

    /// Opens a connection from each of these ports, at a pace; every one sends its byte as soon as it is established.
    pub(super) fn dial(&mut self, to: SocketAddr, ports: &[u16], every: Duration) -> std::io::Result<usize> {
        for &port in ports {
            self.open_from(port, to)?;
            self.send_late();
            if !every.is_zero() {
                self.attend(every)?;
            }
        }
        self.send_late();
        Ok(ports.len())
    }

    /// When which of the connections was established. Right on loopback, where that is inside connect().
    pub(super) fn stamps(&self) -> Vec<Stamp> {
        let established = self.held.iter().filter(|connection| connection.stage == Stage::Established);
        let stamp = |connection: &Connection| {
            let port = connection.stream.local_addr().ok()?.port();
            Some(Stamp { port, nanos: connection.opened })
        };
        established.filter_map(stamp).collect()
    }

    /// Waits until every connection is established or has failed; the number still open then.
    pub(super) fn settle(&mut self, patience: Duration) -> std::io::Result<usize> {
        let until = Instant::now() + patience;
        while self.connecting() > 0 && Instant::now() < until {
            self.attend(Duration::from_millis(20))?;
        }
        Ok(self.connecting())
    }

    /// Local addresses of the established connections.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let established = self.held.iter().filter(|connection| connection.stage == Stage::Established);
        established.filter_map(|connection| connection.stream.local_addr().ok()).collect()
    }

    /// Sends one byte on every established connection that has not sent any.
    pub(super) fn send_late(&mut self) -> usize {
        self.held.iter_mut().filter_map(Connection::send).count()
    }

    /// Closes everything and tells what became of it.
    pub(super) fn hang_up(&mut self, reset: bool) -> std::io::Result<Tally> {
        let mut tally = std::mem::take(&mut self.closed);
        for mut connection in self.held.drain(..) {
            connection.account(&mut tally)?;
            if !reset {
                sockets::finish_on_close(&connection.stream)?;
            }
        }
        Ok(tally)
    }

    /// Resets connections to a server that seems to hang.
    ///
    /// Their handshakes stick in the server's SYN queue: without this they would in the end fill it.
    fn give_up(&mut self) -> std::io::Result<()> {
        let mut error = None;
        self.held.retain_mut(|connection| match connection.seems_to_hang() {
            Ok(false) => true,
            Ok(true) => {
                self.closed.gave_up += 1;
                error = connection.account(&mut self.closed).err().or(error.take());
                false
            }
            Err(failed) => {
                error = Some(failed);
                true
            }
        });
        error.map_or(Ok(()), Err)
    }

    fn connecting(&self) -> usize {
        self.held.iter().filter(|connection| connection.stage == Stage::Connecting).count()
    }

    /// Waits up to `time` for handshakes to end, and notes those that have.
    fn attend(&mut self, time: Duration) -> std::io::Result<()> {
        let mut pending: Vec<&mut Connection> =
            self.held.iter_mut().filter(|connection| connection.stage == Stage::Connecting).collect();
        if pending.is_empty() {
            std::thread::sleep(time);
            return Ok(());
        }
        let ready: Vec<bool> = {
            let mut fds: Vec<PollFd<'_>> = pending
                .iter()
                .map(|connection| PollFd::new(connection.stream.as_fd(), PollFlags::POLLOUT))
                .collect();
            poll(&mut fds, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX))?;
            fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect()
        };
        for (connection, ready) in pending.iter_mut().zip(ready) {
            if ready {
                connection.look()?;
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Brings the record up to date with the kernel.
    fn look(&mut self) -> std::io::Result<()> {
        if self.stage == Stage::Connecting {
            let progress = sockets::progress(&self.stream)?;
            // Nothing but SYNs can have been retransmitted: no data is sent before this says "established".
            self.syns_again = progress.retransmitted;
            self.stage = match progress.state {
                SYN_SENT => Stage::Connecting,
                ESTABLISHED => Stage::Established,
                // Reset since (tcp_abort_on_overflow), or closed by the server: the handshake was complete. A refused
                // SYN leaves its error; ETIMEDOUT and ECONNREFUSED are what connect() itself can end with.
                _ => match self.stream.take_error()?.and_then(|error| error.raw_os_error()) {
                    Some(libc::ECONNREFUSED | libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) => {
                        Stage::Refused
                    }
                    _ => Stage::Established,
                },
            };
        }
        Ok(())
    }

    fn send(&mut self) -> Option<()> {
        if self.stage != Stage::Established || self.sent.is_some() {
            return None;
        }
        self.sent = Some(Instant::now());
        // A reset in between is part of the incident, not of this function's business.
        self.stream.write(b"?").ok().map(drop)
    }

    /// Whether the byte has been on its way for too long.
    fn seems_to_hang(&mut self) -> std::io::Result<bool> {
        match self.sent {
            Some(sent) if !self.heard && sent.elapsed() > HANG => {
                let progress = sockets::progress(&self.stream)?;
                self.heard = progress.unacknowledged == 0;
                Ok(!self.heard)
            }
            _ => Ok(false),
        }
    }

    /// Adds what became of this connection, which is to be closed next, to the books.
    fn account(&mut self, tally: &mut Tally) -> std::io::Result<()> {
        // As late as possible: a SYN retransmitted between this and the close would go uncounted.
        self.look()?;
        tally.connects += 1;
        tally.syns += 1 + u64::from(self.syns_again);
        tally.established += u64::from(self.stage == Stage::Established);
        tally.failed += u64::from(self.stage == Stage::Refused);
        tally.answered += u64::from(matches!(self.stream.read(&mut [0]), Ok(1)));
        Ok(())
    }
}
