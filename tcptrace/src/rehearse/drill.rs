//! The shortest run through everything that a probe can see, for the self-test: a handshake, an overflow at both stages, a
//! conflict, a handshake without a way back, half-open requests, a cookie, a close.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    thread::sleep,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, accept, bind, connect, listen, setsockopt,
    socket,
};

use super::{
    actor::TcpDeferAccept,
    error::{During, Result},
    netlink,
    stage::Stage,
};

/// Where the drill listens: outside the ephemeral range, inside a private namespace.
const PORT: u16 = 5_000;
/// For what a softirq does a moment later.
const MOMENT: Duration = Duration::from_millis(20);

/// Runs the drill on `stage`, over loopback. Takes about two seconds.
///
/// # Errors
/// When the namespace cannot be entered, or its sockets do not do what sockets do.
pub fn drill(stage: &Stage, ipv6: bool) -> Result<()> {
    let ip: IpAddr = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    stage.set_sysctl("net.ipv4.tcp_syncookies", 1)?;
    stage.server().run(move || overflow_and_conflict(SocketAddr::new(ip, PORT)))?.during("the drill")?;
    // A cookie connection enters the accept queue by another function than the rest.
    if !ipv6 {
        stage.server().run(no_way_back)?.during("the drill without a way back")?;
    }
    // The last quarter of tcp_max_syn_backlog is for known peers, when there are no cookies.
    stage.set_sysctl("net.ipv4.tcp_syncookies", 0)?;
    stage.set_sysctl("net.ipv4.tcp_max_syn_backlog", 4)?;
    stage.server().run(move || half_open(SocketAddr::new(ip, PORT + 3)))?.during("the half-open drill")?;
    stage.set_sysctl("net.ipv4.tcp_syncookies", 2)?;
    stage
        .server()
        .run(move || one_connection(SocketAddr::new(ip, PORT + 1)))?
        .during("the drill with a cookie")
}

fn overflow_and_conflict(address: SocketAddr) -> io::Result<()> {
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
    sleep(MOMENT);
    second.write_all(b"2")?;
    sleep(MOMENT);
    let third = start_connect_to(address)?;
    sleep(MOMENT);
    drop((client, server, third, first, second, listener));
    Ok(())
}

/// A handshake whose last step finds no route back: the child that was made for it is given up.
fn no_way_back() -> io::Result<()> {
    let lost = Ipv4Addr::new(10, 255, 255, 1);
    netlink::add_address("lo", lost.into(), 32)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT + 2))?;
    setsockopt(&listener, TcpDeferAccept, &60)?;
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(client.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((lost, 0))))?;
    connect(client.as_raw_fd(), &SockaddrStorage::from(listener.local_addr()?))?;
    netlink::make_unreachable(lost)?;
    TcpStream::from(client).write_all(b"1")?;
    sleep(MOMENT);
    Ok(())
}

/// Requests that stay half-open, more than there are places for, until their timers run out.
fn half_open(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    // With one second to defer, the SYN-ACK is sent again when the first timer runs out, after a second.
    setsockopt(&listener, TcpDeferAccept, &1)?;
    let clients: Vec<OwnedFd> =
        std::iter::repeat_with(|| start_connect_to(address)).take(6).collect::<io::Result<_>>()?;
    sleep(Duration::from_millis(1_300));
    // Closed before the listener: their timers run out once more, and find nobody.
    drop((clients, listener));
    Ok(())
}

/// A socket that connects without waiting.
fn start_connect_to(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let client = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match connect(client.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(client),
        Err(error) => Err(error.into()),
    }
}

fn one_connection(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let client = TcpStream::connect(address)?;
    // accept(2), where the standard library uses accept4(2).
    let server = accept(listener.as_raw_fd())?;
    nix::unistd::close(server)?;
    drop((client, listener));
    Ok(())
}
