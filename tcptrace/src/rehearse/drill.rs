//! The shortest run through everything that a probe can see, for the self-test: a handshake, an overflow at both stages, a
//! conflict, a handshake without a way back, half-open requests, a cookie, a close.

mod known;

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    thread::sleep,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect,
    listen, sendto, setsockopt, socket, sockopt,
};

use known::HalfOpen;
pub use known::{Expected, Value, Wrong};

use super::{
    actor::{TcpDeferAccept, checksum, mptcp},
    error::{During, Result},
    netlink,
    stage::Stage,
};

/// Where the drill listens: outside the ephemeral range, inside a private namespace.
const PORT: u16 = 5_000;
/// For what a softirq does a moment later.
const MOMENT: Duration = Duration::from_millis(20);

/// Runs the drill on `stage`, over loopback, and says what some of its records must say. Takes about two seconds.
///
/// # Errors
/// When the namespace cannot be entered, or its sockets do not do what sockets do.
pub fn drill(stage: &Stage, ipv6: bool) -> Result<Vec<Expected>> {
    let ip: IpAddr = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    stage.set_sysctl("net.ipv4.tcp_syncookies", 1)?;
    let mut known = stage.server().run(move || known::known(ip))?.during("the drill with known values")?;
    stage.server().run(move || overflow_and_conflict(SocketAddr::new(ip, PORT)))?.during("the drill")?;
    // A cookie connection enters the accept queue by another function than the rest.
    if !ipv6 {
        // Where there is none, nobody waits for it.
        let _ = stage.set_sysctl("net.mptcp.enabled", 1);
        stage.server().run(move || multipath_bind(SocketAddr::new(ip, PORT + 5)))?;
        stage.server().run(no_way_back)?.during("the drill without a way back")?;
    }
    // The last quarter of tcp_max_syn_backlog is for known peers, when there are no cookies.
    stage.set_sysctl("net.ipv4.tcp_syncookies", 0)?;
    stage.set_sysctl("net.ipv4.tcp_max_syn_backlog", 4)?;
    known.extend(stage.server().run(move || half_open(ip))?.during("the half-open drill")?);
    stage
        .server()
        .run(move || ended_requests(SocketAddr::new(ip, PORT + 4)))?
        .during("the resetting drill")?;
    stage.server().run(move || icmp_error(ip))?.during("the drill with an ICMP error")?;
    stage.set_sysctl("net.ipv4.tcp_syncookies", 2)?;
    known.extend(stage.server().run(move || known::cookie(ip))?.during("the drill with a cookie")?);
    Ok(known)
}

/// Why nothing can be drilled over IPv6 on `stage`, if nothing can.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn ipv6_is_off(stage: &Stage) -> Result<Option<String>> {
    let tried = stage.server().run(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).map(drop))?;
    Ok(tried.err().map(|error| format!("IPv6 is off ({error})")))
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

/// A bind() that passes by TCP's own.
fn multipath_bind(address: SocketAddr) {
    if let Ok(socket) = mptcp(address, SockFlag::empty()) {
        let _ = bind(socket.as_raw_fd(), &SockaddrStorage::from(address));
    }
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
fn half_open(ip: IpAddr) -> io::Result<Vec<Expected>> {
    let listener = TcpListener::bind((ip, HalfOpen::port()))?;
    let inode = known::inode_of(&listener)?;
    // With one second to defer, the SYN-ACK is sent again when the first timer runs out, after a second.
    setsockopt(&listener, TcpDeferAccept, &1)?;
    let first = HalfOpen::start(&listener)?;
    let clients: Vec<OwnedFd> =
        std::iter::repeat_with(|| start_connect_to(first.server)).take(5).collect::<io::Result<_>>()?;
    sleep(Duration::from_millis(1_300));
    // Closed before the listener: their timers run out once more, and find nobody.
    let expected = first.expected(inode);
    drop((first, clients, listener));
    Ok(expected)
}

/// A request that its peer resets, and one whose listener has gone when its data comes.
fn ended_requests(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    setsockopt(&listener, TcpDeferAccept, &60)?;
    let impatient = TcpStream::connect(address)?;
    let mut late = TcpStream::connect(address)?;
    setsockopt(&impatient, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    drop(impatient);
    sleep(MOMENT);
    drop(listener);
    // It may be told of the reset at once.
    let _ = late.write_all(b"1");
    sleep(MOMENT);
    Ok(())
}

/// An ICMP error about a TCP segment that nobody sent.
fn icmp_error(ip: IpAddr) -> io::Result<()> {
    /// Destination unreachable: host (RFC 792), address (RFC 4443).
    const V4: u8 = 3;
    const V4_CODE: u8 = 1;
    const V6: [u8; 8] = [1, 3, 0, 0, 0, 0, 0, 0];
    /// The ports and the sequence number of the segment.
    const SEGMENT: [u8; 8] = [0, 1, 0, 1, 0, 0, 0, 1];
    let (family, protocol, message) = match ip {
        IpAddr::V4(ip) => {
            let mut header = [0_u8; 20];
            header[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]);
            header[12..16].copy_from_slice(&ip.octets());
            header[16..].copy_from_slice(&ip.octets());
            let message = |sum: u16| {
                let [high, low] = sum.to_be_bytes();
                [[V4, V4_CODE, high, low, 0, 0, 0, 0].as_slice(), &header, &SEGMENT].concat()
            };
            (AddressFamily::Inet, SockProtocol::Icmp, message(checksum(&message(0))))
        }
        IpAddr::V6(ip) => {
            let mut header = [0_u8; 40];
            header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, 6, 64]);
            header[8..24].copy_from_slice(&ip.octets());
            header[24..].copy_from_slice(&ip.octets());
            // The kernel fills in the checksum.
            (AddressFamily::Inet6, SockProtocol::IcmpV6, [V6.as_slice(), &header, &SEGMENT].concat())
        }
    };
    let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    sendto(raw.as_raw_fd(), &message, &SockaddrStorage::from(SocketAddr::new(ip, 0)), MsgFlags::empty())?;
    sleep(MOMENT);
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
