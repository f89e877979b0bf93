//! What brings a server into its incident: connections of ordinary clients.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};

use super::server::PORT;

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";

/// The upstream of [`Load::Proxied`] and [`Load::Idle`].
pub(super) const UPSTREAM: u16 = 9000;

/// The ports that connections to it, and those of [`Load::Churn`], may take.
pub(super) const UPSTREAM_RANGE: &str = "20000 20199";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Many connects at once, again and again, each closed after a moment: a queue that has room for one burst loses none.
    Bursts { size: usize, number: u32, hold: Duration },
    /// Requests at an even rate.
    Steady { per_s: u32, seconds: u32 },
    /// Requests over one connection, to a proxy that passes them on to an upstream which leaves closing to the proxy.
    Proxied { requests: u32 },
    /// Short connections to Redis, more of them than there are ports, which the client closes first.
    Churn { connections: u32 },
    /// No client: what goes on between a proxy and its upstream by itself.
    Idle { seconds: u64 },
}

impl Load {
    pub(super) const BURSTS: Self = Self::Bursts { size: 64, number: 15, hold: Duration::from_millis(60) };

    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Bursts { size, number, hold } => bursts(size, number, hold),
            Self::Steady { per_s, seconds } => steady(per_s, seconds),
            Self::Proxied { requests } => proxied(requests),
            Self::Churn { connections } => churn(connections),
            Self::Idle { seconds } => {
                thread::sleep(Duration::from_secs(seconds));
                Ok(())
            }
        }
    }
}

/// Begins a connection, and does not wait for it.
fn begin() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).context("a client's socket")?;
    match connect(client.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT))) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(client),
        Err(error) => Err(error).context("a client's connect"),
    }
}

fn bursts(size: usize, number: u32, hold: Duration) -> Result<()> {
    for _ in 0..number {
        let clients = (0..size).map(|_| begin()).collect::<Result<Vec<_>>>()?;
        thread::sleep(hold);
        drop(clients);
        thread::sleep(hold);
    }
    Ok(())
}

fn steady(per_s: u32, seconds: u32) -> Result<()> {
    let begun = Instant::now();
    let mut clients: Vec<(TcpStream, bool)> = Vec::new();
    for number in 0..per_s * seconds {
        let due = begun + Duration::from_secs(1) * number / per_s;
        while Instant::now() < due {
            attend(&mut clients);
            thread::sleep(Duration::from_millis(5));
        }
        clients.push((TcpStream::from(begin()?), false));
    }
    Ok(())
}

/// Sends what connections that are established have to ask, and closes those that were answered.
fn attend(clients: &mut Vec<(TcpStream, bool)>) {
    clients.retain_mut(|(client, asked)| {
        if !*asked {
            *asked = client.write(REQUEST).is_ok();
            return true;
        }
        let mut answer = [0; 1024];
        match client.read(&mut answer) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    });
}

fn proxied(requests: u32) -> Result<()> {
    let mut proxy = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).context("connecting to the proxy")?;
    proxy.set_read_timeout(Some(Duration::from_secs(5))).context("a timeout")?;
    for _ in 0..requests {
        proxy.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").context("asking the proxy")?;
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            let mut part = [0; 4096];
            match proxy.read(&mut part).context("hearing from the proxy")? {
                0 => bail!("the proxy closed the connection"),
                length => answer.extend_from_slice(part.get(..length).unwrap_or_default()),
            }
        }
    }
    Ok(())
}

/// At a pace at which each port has been in TIME_WAIT for more than a second when it is wanted again.
fn churn(connections: u32) -> Result<()> {
    const EVERY: Duration = Duration::from_millis(10);
    for _ in 0..connections {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).context("a short connection")?;
        client.write_all(b"PING\r\n").context("asking Redis")?;
        client.read_exact(&mut [0; 7]).context("hearing from Redis")?;
        drop(client);
        thread::sleep(EVERY);
    }
    Ok(())
}

/// Whether an answer has its head and as much as that says.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Answers every request, and closes no connection before its client does.
pub(super) fn serve_upstream() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, UPSTREAM)).context("the upstream's port")?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || answer_all(client));
        }
    });
    Ok(())
}

fn answer_all(mut client: TcpStream) {
    let mut asked = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = client.read(&mut part) {
        asked.extend_from_slice(part.get(..length).unwrap_or_default());
        while let Some(end) = asked.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            asked.drain(..end + 4);
            if client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_err() {
                return;
            }
        }
    }
}
