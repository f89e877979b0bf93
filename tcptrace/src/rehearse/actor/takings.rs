//! A client's ephemeral ports: taken one after the other, and kept or left behind.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{SockFlag, SockaddrStorage, bind, connect, setsockopt};

use super::order::{BindAttempt, Take, Taken};
use super::{sockets, web};

/// Sockets that keep their ports.
#[derive(Debug, Default)]
pub(super) struct Takings {
    kept: Vec<OwnedFd>,
}

impl Takings {
    /// Carries out the order. Only a want of ports is an answer; anything else that fails is an error.
    pub(super) fn take(&mut self, order: &Take) -> io::Result<Taken> {
        let mut to = order.to.iter().copied().cycle();
        for ports in 0..order.count {
            match self.take_one(to.next(), order)? {
                None => {}
                failed => return Ok(Taken { ports, failed }),
            }
            std::thread::sleep(Duration::from_millis(order.every_ms));
        }
        Ok(Taken { ports: order.count, failed: None })
    }

    fn take_one(&mut self, to: Option<SocketAddr>, order: &Take) -> io::Result<Option<BindAttempt>> {
        let any = order.bind.map(|address| SocketAddr::new(address, 0));
        let Some(of) = to.or(any) else { return Err(io::Error::other("neither to bind nor to connect")) };
        let socket = sockets::tcp(of, SockFlag::empty())?;
        if order.late {
            setsockopt(&socket, sockets::LatePort, &true)?;
        }
        if let Some((first, last)) = order.own_range {
            sockets::set_own_range(&socket, first, last)?;
        }
        if let Some(any) = any {
            match bind(socket.as_raw_fd(), &SockaddrStorage::from(any)) {
                Err(Errno::EADDRINUSE) => return Ok(Some(refused("bind", Errno::EADDRINUSE))),
                bound => bound?,
            }
        }
        if let Some(to) = to {
            match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
                Err(Errno::EADDRNOTAVAIL) => return Ok(Some(refused("connect", Errno::EADDRNOTAVAIL))),
                connected => connected?,
            }
        }
        if order.close {
            leave_behind(socket)?;
        } else {
            if order.abandon {
                nix::unistd::write(&socket, &[web::LAST_REQUEST])?;
            }
            // When the actor goes, nothing must be left of them.
            sockets::reset_on_close(&socket)?;
            self.kept.push(socket);
        }
        Ok(None)
    }
}

/// Closes this side first, and waits until the other has closed, too: TIME_WAIT is all that is left then.
fn leave_behind(socket: OwnedFd) -> io::Result<()> {
    let mut stream = TcpStream::from(socket);
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn refused(at: &str, errno: Errno) -> BindAttempt {
    BindAttempt { at: at.to_owned(), errno: Some(errno as i32) }
}
