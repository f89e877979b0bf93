//! Connections from a port of one's own, to the same destination again and again.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{SockFlag, SockaddrStorage, bind, connect, setsockopt, sockopt};

use super::order::Redial;
use super::sockets;

/// Connects as often as ordered; what connect() said each time, 0 being success, and the connections that are to be kept.
pub(super) fn redial(order: &Redial) -> io::Result<(Vec<i32>, Vec<TcpStream>)> {
    let (mut answers, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..order.times {
        let socket = sockets::tcp(order.to, SockFlag::empty())?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(order.from))?;
        let answer = match connect(socket.as_raw_fd(), &SockaddrStorage::from(order.to)) {
            Ok(()) => 0,
            Err(errno) => errno as i32,
        };
        answers.push(answer);
        if answer == 0 && order.keep {
            kept.push(socket.into());
        }
        std::thread::sleep(Duration::from_millis(order.gap_ms));
    }
    Ok((answers, kept))
}
