//! The shortest run through everything that a probe can see, for the self-test: a handshake, an overflow at both stages, a
//! conflict, a close.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, connect, listen, setsockopt, socket,
};

use super::{
    actor::TcpDeferAccept,
    error::{During, Result},
    namespace::Namespace,
};

/// Where the drill listens: outside the ephemeral range, inside a private namespace.
const PORT: u16 = 5_000;

/// Runs the drill in `namespace`, over loopback. Takes about a tenth of a second.
///
/// # Errors
/// When the namespace cannot be entered, or its sockets do not do what sockets do.
pub fn drill(namespace: &Namespace, ipv6: bool) -> Result<()> {
    let outcome = namespace.run(move || run(ipv6))?;
    outcome.during("the drill")
}

fn run(ipv6: bool) -> io::Result<()> {
    let ip: IpAddr = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let address = SocketAddr::new(ip, PORT);

    // A whole life: listen, handshake, accept; a conflict while it lives.
    let listener = TcpListener::bind(address)?;
    let client = TcpStream::connect(address)?;
    let (server, _) = listener.accept()?;
    match TcpListener::bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => return Err(error),
        Ok(_) => return Err(io::Error::other("two listeners got one port")),
    }

    // A backlog of 0 holds one connection: two whose final ACKs are put off (they come with data) overflow it at the last
    // step, and the next SYN at the first.
    listen(&listener, Backlog::new(0)?)?;
    setsockopt(&listener, TcpDeferAccept, &60)?;
    let mut first = TcpStream::connect(address)?;
    let mut second = TcpStream::connect(address)?;
    first.write_all(b"1")?;
    std::thread::sleep(Duration::from_millis(20));
    second.write_all(b"2")?;
    std::thread::sleep(Duration::from_millis(20));
    let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let third = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match connect(third.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    std::thread::sleep(Duration::from_millis(20));
    drop((client, server, third, first, second, listener));
    Ok(())
}
