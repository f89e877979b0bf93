//! One connection of our own, opened, followed to its other end, and closed again without a byte sent.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getpeername, getsockname, getsockopt,
    socket, sockopt,
};

use super::{ProbeOutcome, far_end};
use crate::host::netns::{Netns, in_netns};

/// Tries to connect from `netns`, for at most `patience`; then waits for at most `acceptance` until a program accepts it.
pub fn try_one(netns: &Netns, to: SocketAddr, patience: Duration, acceptance: Duration) -> ProbeOutcome {
    let (outcome, connection) = match in_netns(netns, || attempt(to, patience)) {
        Ok(Ok(attempt)) => attempt,
        Ok(Err(errno)) => return ProbeOutcome::NotMade(errno.desc().to_owned()),
        Err(error) => return ProbeOutcome::NotMade(error.to_string()),
    };
    let (ProbeOutcome::Connected { after, .. }, Some(connection)) = (&outcome, connection) else {
        return outcome;
    };
    // Between an ephemeral port and itself: TCP allows it, and no server is there.
    let is_itself = getsockname::<SockaddrStorage>(connection.as_raw_fd()).ok()
        == getpeername::<SockaddrStorage>(connection.as_raw_fd()).ok();
    if is_itself {
        return ProbeOutcome::NotMade(format!(
            "the kernel chose port {} for it, and connected it to itself",
            to.port()
        ));
    }
    ProbeOutcome::Connected { after: *after, end: far_end::follow(netns, connection.as_fd(), acceptance) }
}

type Attempt = (ProbeOutcome, Option<OwnedFd>);

fn attempt(to: SocketAddr, patience: Duration) -> nix::Result<Attempt> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    let start = Instant::now();
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) => return Ok((ProbeOutcome::Connected { after: start.elapsed(), end: None }, Some(socket))),
        Err(Errno::EINPROGRESS) => {}
        Err(Errno::EADDRNOTAVAIL) => {
            let why = "no local port is free for it (tcptrace ports)".to_owned();
            return Ok((ProbeOutcome::NotMade(why), None));
        }
        Err(errno) if is_answer(errno) => {
            return Ok((ProbeOutcome::Failed { errno: errno as i32, after: start.elapsed() }, None));
        }
        Err(errno) => {
            let who = match errno {
                Errno::EPERM => ": a BPF program of the control group, or a security module, forbids it",
                _ => "",
            };
            let why = format!("connect() fails at once, {} ({errno:?}){who}", errno.desc());
            return Ok((ProbeOutcome::NotMade(why), None));
        }
    }
    loop {
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok((ProbeOutcome::NoAnswer(start.elapsed()), None));
        }
        let timeout = PollTimeout::try_from(left.min(Duration::from_secs(60)) + Duration::from_millis(1))
            .unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                let after = start.elapsed();
                return Ok(match getsockopt(&socket, sockopt::SocketError)? {
                    0 => (ProbeOutcome::Connected { after, end: None }, Some(socket)),
                    errno => (ProbeOutcome::Failed { errno, after }, None),
                });
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether an error of connect() is said by a route, a host or a firewall; others are about the call itself.
fn is_answer(errno: Errno) -> bool {
    matches!(errno, Errno::ECONNREFUSED | Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;
    use crate::why::far_end::{FarEnd, Fate};

    const PATIENCE: Duration = Duration::from_secs(2);

    fn fate(outcome: ProbeOutcome) -> (SocketAddr, Fate) {
        match outcome {
            ProbeOutcome::Connected { end: Some(FarEnd { at, fate, .. }), .. } => (at, fate),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refused_and_unreachable() {
        let Some(netns) = private_netns() else { return };
        let listener = in_netns(&netns, || std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        drop(listener);
        let refused = try_one(&netns, to, PATIENCE, PATIENCE);
        assert!(matches!(refused, ProbeOutcome::Failed { errno: libc::ECONNREFUSED, .. }), "{refused:?}");
        let nowhere = try_one(&netns, "192.0.2.1:80".parse().unwrap(), PATIENCE, PATIENCE);
        assert!(matches!(nowhere, ProbeOutcome::Failed { errno: libc::ENETUNREACH, .. }), "{nowhere:?}");
    }

    #[test]
    fn only_an_acceptance_is_called_so() {
        let Some(netns) = private_netns() else { return };
        let listener = in_netns(&netns, || std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let nobody = try_one(&netns, to, PATIENCE, Duration::from_millis(200));
        assert_eq!(fate(nobody), (to, Fate::Waiting));
        listener.accept().unwrap();
        let accepting = std::thread::spawn(move || listener.accept().map(|accepted| (accepted, listener)));
        let accepted = fate(try_one(&netns, to, PATIENCE, PATIENCE));
        let ((), by) = ((), accepted.1);
        let Fate::Accepted(Some(by)) = by else { panic!("{by:?}") };
        assert!(by.ends_with(&format!("[{}]", std::process::id())), "{by}");
        let (accepted, listener) = accepting.join().unwrap().unwrap();
        drop(accepted);
        // Accepted and closed before anybody could look.
        let closing = std::thread::spawn(move || drop(listener.accept()));
        let closed = fate(try_one(&netns, to, PATIENCE, PATIENCE)).1;
        assert!(matches!(closed, Fate::Closed(_)), "{closed:?}");
        closing.join().unwrap();
    }
}
