//! An actor takes a port, the way servers do at start: socket, options, bind, listen; tried again if it fails.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, SockFlag, SockaddrStorage, bind, listen, setsockopt, sockopt};
use nix::unistd::{Pid, Uid, seteuid};

use super::order::{Bind, BindAttempt, Door};
use super::sockets;

/// Carries out the order; the socket is handed back if the port was taken in the end.
pub(super) fn take_port(order: &Bind) -> nix::Result<(Vec<BindAttempt>, Option<OwnedFd>)> {
    let mut attempts = Vec::new();
    loop {
        let (attempt, socket) = attempt(order)?;
        let failed = attempt.errno.is_some();
        attempts.push(attempt);
        if !failed {
            return Ok((attempts, Some(socket)));
        }
        if attempts.len() >= usize::try_from(order.attempts).unwrap_or(usize::MAX) {
            return Ok((attempts, None));
        }
        drop(socket);
        std::thread::sleep(Duration::from_millis(order.gap_ms));
    }
}

fn attempt(order: &Bind) -> nix::Result<(BindAttempt, OwnedFd)> {
    let user = order.user.map(AsUser::new).transpose()?;
    let socket = sockets::tcp(order.address, SockFlag::empty())?;
    setsockopt(&socket, sockopt::ReuseAddr, &order.reuseaddr)?;
    setsockopt(&socket, sockopt::ReusePort, &order.reuseport)?;
    if order.address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &order.v6only)?;
    }
    let bound = bind(socket.as_raw_fd(), &SockaddrStorage::from(order.address));
    drop(user);
    if let (Err(_), Some(pid)) = (bound, order.then_kill) {
        // The very next system call: the holder is gone before any observer in user space has woken up.
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    let attempt = match (bound, order.backlog) {
        (Err(errno), _) => outcome("bind", Some(errno)),
        (Ok(()), None) => outcome("bind", None),
        (Ok(()), Some(backlog)) => listen_on(&socket, backlog)?,
    };
    Ok((attempt, socket))
}

/// The calling process is another user, without root's capabilities, until this is dropped.
struct AsUser;

impl AsUser {
    fn new(user: u32) -> nix::Result<Self> {
        seteuid(Uid::from_raw(user))?;
        Ok(Self)
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        // The saved user id is still root's: this does not fail.
        let _ = seteuid(Uid::from_raw(0));
    }
}

/// Opens a listening socket.
pub(super) fn open(door: &Door) -> nix::Result<OwnedFd> {
    let socket = if door.mptcp {
        sockets::mptcp(door.address, SockFlag::empty())?
    } else {
        sockets::tcp(door.address, SockFlag::empty())?
    };
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if door.reuseport {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    if door.address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(door.address))?;
    if door.fastopen > 0 {
        setsockopt(&socket, sockets::TcpFastOpen, &door.fastopen)?;
    }
    listen(&socket, Backlog::new(door.backlog)?)?;
    Ok(socket)
}

/// Calls listen() on a bound socket.
pub(super) fn listen_on(socket: &OwnedFd, backlog: i32) -> nix::Result<BindAttempt> {
    Ok(outcome("listen", listen(socket, Backlog::new(backlog)?).err()))
}

fn outcome(at: &str, errno: Option<Errno>) -> BindAttempt {
    BindAttempt { at: at.to_owned(), errno: errno.map(|errno| errno as i32) }
}
