//! A browser's connects: to two addresses in a race of which one is called off; a scanner's, which knock and go; and a load balancer's,
//! which only look whether there is an answer.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, getsockopt, setsockopt, sockopt};

use super::order::{Check, Race, Visits};
use super::{sockets, web};

/// How long a browser waits before it calls both addresses broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the races, one after the other.
pub(super) fn race(order: &Race) -> io::Result<Visits> {
    let mut visits = Visits::default();
    for _ in 0..order.times {
        match run(order) {
            Ok(connects) => visits.connections += connects,
            Err(error) => visits.errors.push(error.to_string()),
        }
        std::thread::sleep(Duration::from_millis(order.every_ms));
    }
    Ok(visits)
}

/// One race; the number of connects it took.
fn run(order: &Race) -> io::Result<u64> {
    let first = begin(order.first)?;
    let mut runners = vec![first];
    let head_start = Duration::from_millis(order.head_start_ms);
    if head_start.is_zero() || winner(&runners, head_start)?.is_none() {
        runners.push(begin(order.second)?);
    }
    let connects = runners.len() as u64;
    let Some(index) = winner(&runners, PATIENCE)? else {
        return Err(io::Error::other("neither address answers"));
    };
    let winner = TcpStream::from(runners.swap_remove(index));
    // The loser is called off before the winner is even used.
    drop(runners);
    winner.set_nonblocking(false)?;
    web::ask(winner)?;
    Ok(connects)
}

fn begin(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = sockets::tcp(to, SockFlag::SOCK_NONBLOCK)?;
    sockets::start_connect(&socket, to)?;
    Ok(socket)
}

/// The first of them that is connected.
fn winner(runners: &[OwnedFd], patience: Duration) -> io::Result<Option<usize>> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds: Vec<_> =
            runners.iter().map(|runner| PollFd::new(runner.as_fd(), PollFlags::POLLOUT)).collect();
        poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
        for (index, (runner, fd)) in runners.iter().zip(&fds).enumerate() {
            let ready = fd.revents().is_some_and(|events| events.contains(PollFlags::POLLOUT));
            if ready && getsockopt(runner, sockopt::SocketError)? == 0 {
                return Ok(Some(index));
            }
        }
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// Connects to each address and closes at once; what connect() said, 0 being success.
pub(super) fn knock(at: &[SocketAddr]) -> io::Result<Vec<i32>> {
    let mut answers = Vec::new();
    for to in at {
        answers.push(match TcpStream::connect_timeout(to, PATIENCE) {
            Ok(connection) => {
                sockets::reset_on_close(&connection)?;
                0
            }
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        });
    }
    Ok(answers)
}

/// Health checks as HAProxy makes them: without quick ACKs the answer is not acknowledged at once, and the reset comes before that.
pub(super) fn check(order: &Check) -> io::Result<()> {
    for _ in 0..order.times {
        let socket = sockets::tcp(order.to, SockFlag::SOCK_NONBLOCK)?;
        setsockopt(&socket, sockets::QuickAck, &false)?;
        sockets::reset_on_close(&socket)?;
        sockets::start_connect(&socket, order.to)?;
        let answered = [socket];
        if winner(&answered, PATIENCE)?.is_none() {
            return Err(io::Error::other("a health check is not answered"));
        }
        drop(answered);
        std::thread::sleep(Duration::from_millis(order.every_ms));
    }
    Ok(())
}
