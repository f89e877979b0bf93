//! Against the running kernel, in private network namespaces.

use super::*;
use crate::host::netns::in_netns;
use crate::host::testing::private_netns;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{Backlog, SockaddrIn6, SockaddrLike, listen, setsockopt};
use std::collections::BTreeMap;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

fn inode(socket: &impl AsRawFd) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino()
}

fn bound(family: AddressFamily, address: &dyn SockaddrLike, prepare: impl Fn(&OwnedFd)) -> OwnedFd {
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    prepare(&fd);
    bind(fd.as_raw_fd(), address).unwrap();
    fd
}

fn v4(port: u16) -> SockaddrIn {
    SockaddrIn::new(127, 0, 0, 1, port)
}

#[test]
fn listeners_show_queue_limit_owner_and_family() {
    let Some(netns) = private_netns() else { return };
    let (v4_listener, v6_listener, clients) = in_netns(&netns, || {
        let v4_listener = bound(AddressFamily::Inet, &v4(8080), |_| {});
        listen(&v4_listener, Backlog::new(7).unwrap()).unwrap();
        let any6 = SockaddrIn6::from("[::]:8081".parse::<std::net::SocketAddrV6>().unwrap());
        let v6_listener = bound(AddressFamily::Inet6, &any6, |fd| setsockopt(fd, Ipv6V6Only, &true).unwrap());
        listen(&v6_listener, Backlog::new(9).unwrap()).unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect("127.0.0.1:8080").unwrap()).collect();
        (v4_listener, v6_listener, clients)
    })
    .unwrap();

    let mut diag = SockDiag::open(&netns).unwrap();
    let found = diag.listeners().unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    let first = &found[0];
    assert_eq!(first.local, "127.0.0.1:8080".parse().unwrap());
    assert_eq!((first.depth, first.limit, first.drops), (3, 7, Some(0)));
    assert_eq!((first.family, first.v6only, first.uid), (Family::V4, None, nix::unistd::getuid().as_raw()));
    assert_eq!(first.inode, inode(&v4_listener));
    assert_ne!(first.cookie, 0);
    let second = &found[1];
    assert_eq!(second.local, "[::]:8081".parse().unwrap());
    assert_eq!((second.depth, second.limit, second.v6only), (0, 9, Some(true)));
    assert_eq!(second.inode, inode(&v6_listener));

    drop((v4_listener, v6_listener, clients));
    assert!(diag.listeners().unwrap().is_empty());
}

#[test]
fn an_overflowing_listener_shows_its_drops() {
    let Some(netns) = private_netns() else { return };
    let (_listener, _clients) = in_netns(&netns, || {
        let listener = bound(AddressFamily::Inet, &v4(8080), |_| {});
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let address = "127.0.0.1:8080".parse().unwrap();
        let patience = Duration::from_millis(100);
        let clients: Vec<_> =
            (0..4).filter_map(|_| TcpStream::connect_timeout(&address, patience).ok()).collect();
        (listener, clients)
    })
    .unwrap();
    let found = SockDiag::open(&netns).unwrap().listeners().unwrap();
    assert_eq!((found[0].depth, found[0].limit), (2, 1), "listen(n) holds n + 1");
    assert!(found[0].drops.unwrap() >= 2);
}

#[test]
fn holders_are_found_in_every_state_and_only_on_their_port() {
    let Some(netns) = private_netns() else { return };
    let kept = in_netns(&netns, || {
        // Port 7000 and its neighbours: a listener, a connection, TIME_WAIT, a half-open connect.
        let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
        let near =
            (TcpListener::bind("127.0.0.1:6999").unwrap(), TcpListener::bind("127.0.0.1:7001").unwrap());
        let open = TcpStream::connect("127.0.0.1:7000").unwrap();
        let accepted = listener.accept().unwrap().0;
        // The server closes first, so that TIME_WAIT is on its port.
        let closing = TcpStream::connect("127.0.0.1:7000").unwrap();
        drop(listener.accept().unwrap());
        closing.shutdown(Shutdown::Both).unwrap();
        (listener, near, open, accepted)
    })
    .unwrap();
    let mut diag = SockDiag::open(&netns).unwrap();
    let mut time_wait = None;
    assert!(crate::host::testing::wait_for(|| {
        let found = diag.holders(7000).unwrap();
        assert!(found.sockets.iter().all(|socket| socket.local.port() == 7000));
        time_wait = found.sockets.iter().find_map(DiagSocket::time_wait_left);
        let mut states = BTreeMap::new();
        for socket in &found.sockets {
            *states.entry(socket.state).or_insert(0) += 1;
        }
        states
            == BTreeMap::from([
                (SocketState::Listen, 1),
                (SocketState::Established, 1),
                (SocketState::TimeWait, 1),
            ])
    }));
    let left = time_wait.unwrap();
    assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(61), "{left:?}");
    assert!(diag.holders(7002).unwrap().sockets.is_empty());
    let range = Query { states: States::LISTEN, ports: Some(7000..=7001) };
    assert_eq!(diag.sockets(&range).unwrap().sockets.len(), 2);
    let all = Query { states: States::ALL, ports: None };
    assert_eq!(diag.sockets(&all).unwrap().sockets.len(), 6);
    drop(kept);
}

#[test]
fn bound_only_sockets_are_listed_where_the_kernel_can() {
    let Some(netns) = private_netns() else { return };
    let idle = in_netns(&netns, || {
        bound(AddressFamily::Inet, &v4(7100), |fd| setsockopt(fd, ReuseAddr, &true).unwrap())
    })
    .unwrap();
    let found = SockDiag::open(&netns).unwrap().holders(7100).unwrap().sockets;
    println!("this kernel lists bound-only sockets: {:?}", lists_bound_only());
    if lists_bound_only() == Some(true) {
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].state, found[0].inode), (SocketState::Bound, inode(&idle)));
    } else {
        assert!(found.is_empty());
    }
}

#[test]
fn a_syn_without_an_answer_is_listed_with_its_retransmissions() {
    let Some(netns) = private_netns() else { return };
    let _kept = in_netns(&netns, || {
        let listener = bound(AddressFamily::Inet, &v4(7200), |_| {});
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let connect = || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            let _ = nix::sys::socket::connect(fd.as_raw_fd(), &v4(7200));
            fd
        };
        (listener, [connect(), connect(), connect()])
    })
    .unwrap();
    let query = Query { states: States::of(&[SocketState::SynSent]), ports: None };
    let found = SockDiag::open(&netns).unwrap().sockets(&query).unwrap().sockets;
    assert!(!found.is_empty());
    assert!(found.iter().all(|socket| socket.remote.port() == 7200));
    assert!(found.iter().all(|socket| socket.timer.unwrap().kind == TimerKind::Retransmit));
}

#[test]
fn half_open_requests_are_listed_as_nobody_s() {
    let Some(netns) = private_netns() else { return };
    let _kept = in_netns(&netns, || {
        let listener = TcpListener::bind("127.0.0.1:7500").unwrap();
        // With it, the final ACK alone does not complete the handshake.
        let seconds: libc::c_int = 30;
        // SAFETY: the option's value is one int, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                4,
            )
        };
        assert_eq!(result, 0);
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect("127.0.0.1:7500").unwrap()).collect();
        (listener, clients)
    })
    .unwrap();
    let query = Query { states: States::of(&[SocketState::SynRecv]), ports: Some(7500..=7500) };
    let found = SockDiag::open(&netns).unwrap().sockets(&query).unwrap().sockets;
    assert_eq!(found.len(), 3, "{found:?}");
    for request in &found {
        assert_eq!((request.state, request.inode, request.uid), (SocketState::SynRecv, 0, 0));
        assert_eq!(request.timer.unwrap().kind, TimerKind::Retransmit);
        assert_ne!(request.remote.port(), 0);
    }
}

#[test]
fn options_that_bear_on_binding_are_told() {
    let Some(netns) = private_netns() else { return };
    let _listener = in_netns(&netns, || {
        let fd = bound(AddressFamily::Inet, &SockaddrIn::new(192, 0, 2, 1, 7600), |fd| {
            setsockopt(fd, nix::sys::socket::sockopt::IpFreebind, &true).unwrap();
        });
        listen(&fd, Backlog::new(1).unwrap()).unwrap();
        fd
    })
    .unwrap();
    let found = SockDiag::open(&netns).unwrap().holders(7600).unwrap().sockets;
    let expected = SocketOptions { freebind: true, transparent: false, bind_address_no_port: false };
    assert_eq!(found[0].options, Some(expected));
}

#[test]
fn works_where_no_port_is_free() {
    let Some(netns) = private_netns() else { return };
    let _last = in_netns(&netns, || {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20001 20001").unwrap();
        let last = TcpListener::bind("127.0.0.1:20001").unwrap();
        assert!(TcpListener::bind("127.0.0.1:0").is_err());
        last
    })
    .unwrap();
    let mut diag = SockDiag::open(&netns).unwrap();
    assert_eq!(diag.listeners().unwrap().len(), 1);
    assert_eq!(diag.holders(20001).unwrap().sockets.len(), 1);
    assert_eq!(crate::host::knobs::Knobs::of(&netns).unwrap().ephemeral_ports(), Some(1));
}

#[test]
fn sockets_that_come_and_go_during_a_listing_are_listed_once() {
    let Some(netns) = private_netns() else { return };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut diag = SockDiag::open(&netns).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            in_netns(&netns, || {
                let listener = TcpListener::bind("127.0.0.1:7700").unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let client = TcpStream::connect("127.0.0.1:7700").unwrap();
                    drop((listener.accept().unwrap(), client));
                }
            })
            .unwrap();
        });
        for _ in 0..100 {
            let found = diag.sockets(&Query { states: States::ALL, ports: None }).unwrap().sockets;
            let cookies: NumberSet = found.iter().map(|socket| socket.cookie).collect();
            assert_eq!(cookies.len(), found.len());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn thousands_of_sockets_arrive_whole_and_polls_stay_cheap() {
    let Some(netns) = private_netns() else { return };
    let listeners: Vec<_> = in_netns(&netns, || {
        (0..400).map_while(|index| TcpListener::bind(("127.0.0.1", 10_000 + index)).ok()).collect()
    })
    .unwrap();
    let mut diag = SockDiag::open(&netns).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(diag.listeners().unwrap().len(), listeners.len());
    }
    println!("{} listeners: {:?} a poll", listeners.len(), start.elapsed() / 50);
}

#[test]
fn a_failure_in_the_middle_of_a_dump_does_not_poison_the_next() {
    let Some(netns) = private_netns() else { return };
    let _listener = in_netns(&netns, || TcpListener::bind("127.0.0.1:7300").unwrap()).unwrap();
    let mut diag = SockDiag::open(&netns).unwrap();
    diag.dump.break_buffer(8);
    assert!(matches!(diag.listeners(), Err(SockDiagError::Transfer { .. })));
    diag.dump.break_buffer(32 * 1024);
    assert_eq!(diag.listeners().unwrap().len(), 1);
}

#[test]
fn only_the_namespace_asked_for_is_listed() {
    let (Some(one), Some(other)) = (private_netns(), private_netns()) else { return };
    let _listener = in_netns(&one, || TcpListener::bind("127.0.0.1:7400").unwrap()).unwrap();
    assert_eq!(SockDiag::open(&one).unwrap().listeners().unwrap().len(), 1);
    assert!(SockDiag::open(&other).unwrap().listeners().unwrap().is_empty());
}
