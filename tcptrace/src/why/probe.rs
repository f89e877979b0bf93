//! One connection of our own, opened and closed again without a byte sent.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket, sockopt,
};

use super::ProbeOutcome;
use crate::host::netns::{Netns, in_netns};

/// Tries to connect from `netns`, for at most `patience`.
pub fn try_one(netns: &Netns, to: SocketAddr, patience: Duration) -> ProbeOutcome {
    match in_netns(netns, || attempt(to, patience)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(errno)) => ProbeOutcome::NotMade(errno.desc().to_owned()),
        Err(error) => ProbeOutcome::NotMade(error.to_string()),
    }
}

fn attempt(to: SocketAddr, patience: Duration) -> nix::Result<ProbeOutcome> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    let start = Instant::now();
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) => return Ok(ProbeOutcome::Connected(start.elapsed())),
        Err(Errno::EINPROGRESS) => {}
        Err(Errno::EADDRNOTAVAIL) => {
            return Ok(ProbeOutcome::NotMade("no local port is free for it (tcptrace ports)".to_owned()));
        }
        Err(errno) => return Ok(ProbeOutcome::Failed { errno: errno as i32, after: start.elapsed() }),
    }
    loop {
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(ProbeOutcome::NoAnswer(start.elapsed()));
        }
        let timeout = PollTimeout::try_from(left.min(Duration::from_secs(60)) + Duration::from_millis(1))
            .unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                let after = start.elapsed();
                return Ok(match getsockopt(&socket, sockopt::SocketError)? {
                    0 => ProbeOutcome::Connected(after),
                    errno => ProbeOutcome::Failed { errno, after },
                });
            }
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;

    #[test]
    fn answered_refused_and_unreachable() {
        let Some(netns) = private_netns() else { return };
        let listener = in_netns(&netns, || std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let patience = Duration::from_secs(2);
        assert!(matches!(try_one(&netns, to, patience), ProbeOutcome::Connected(_)));
        drop(listener);
        let refused = try_one(&netns, to, patience);
        assert!(matches!(refused, ProbeOutcome::Failed { errno: libc::ECONNREFUSED, .. }), "{refused:?}");
        let nowhere = try_one(&netns, "192.0.2.1:80".parse().unwrap(), patience);
        assert!(matches!(nowhere, ProbeOutcome::Failed { errno: libc::ENETUNREACH, .. }), "{nowhere:?}");
    }
}
