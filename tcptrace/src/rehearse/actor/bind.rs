//! An actor takes a port, the way servers do at start: socket, options, bind, listen; tried again if it fails.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use landlock::{AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, SockFlag, SockaddrStorage, bind, listen, setsockopt, sockopt};
use nix::unistd::{Pid, Uid, setresuid};

use super::order::{Bind, BindAttempt, Door};
use super::sockets;

/// Carries out the order; the socket is handed back if the port was taken in the end.
pub(super) fn take_port(order: &Bind) -> nix::Result<(Vec<BindAttempt>, Option<OwnedFd>)> {
    if !order.confined {
        return try_to_take(order);
    }
    // A thread that has confined itself stays so.
    let confined = || {
        let confine = || ruleset()?.create()?.restrict_self();
        confine().map_err(|_: RulesetError| Errno::EOPNOTSUPP)?;
        try_to_take(order)
    };
    std::thread::scope(|scope| scope.spawn(confined).join()).unwrap_or(Err(Errno::ECHILD))
}

/// Rules of Landlock under which no TCP port may be bound. An error where the kernel cannot see to that.
fn ruleset() -> Result<Ruleset, RulesetError> {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessNet::BindTcp)
}

/// Whether this kernel can forbid a thread to bind TCP ports.
pub(in crate::rehearse) fn can_confine() -> bool {
    ruleset().is_ok()
}

fn try_to_take(order: &Bind) -> nix::Result<(Vec<BindAttempt>, Option<OwnedFd>)> {
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
    let make = if order.mptcp { sockets::mptcp } else { sockets::tcp };
    let socket = make(order.address, SockFlag::empty())?;
    setsockopt(&socket, sockopt::ReuseAddr, &order.reuseaddr)?;
    setsockopt(&socket, sockopt::ReusePort, &order.reuseport)?;
    if order.address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &order.v6only)?;
    }
    if order.transparent {
        sockets::set_transparent(&socket, order.address)?;
    }
    if let Some(device) = &order.device {
        setsockopt(&socket, sockopt::BindToDevice, &device.into())?;
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
        let user = Uid::from_raw(user);
        setresuid(user, user, Uid::from_raw(0))?;
        Ok(Self)
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        // The saved user id is still root's: this does not fail.
        let root = Uid::from_raw(0);
        let _ = setresuid(root, root, root);
    }
}

/// Opens a listening socket.
pub(super) fn open(door: &Door) -> nix::Result<OwnedFd> {
    let socket = if door.mptcp {
        sockets::mptcp(door.address, SockFlag::empty())?
    } else if door.smc {
        sockets::smc(door.address)?
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
    if door.transparent {
        sockets::set_transparent(&socket, door.address)?;
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
