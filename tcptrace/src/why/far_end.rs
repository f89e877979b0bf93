//! The other end of a connection of our own, by the tuples that the kernel knows, and whether a program accepted it there. The
//! kernel completes handshakes without the program: only an acceptance shows that the program serves.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, getpeername, getsockname, recv};

use super::Place;
use crate::event::{SocketState, canonical};
use crate::host::netfilter::conntrack::{self, Tuple};
use crate::host::netfilter::ipvs;
use crate::host::netns::{Netns, NetnsTable};
use crate::host::procfs::Procfs;
use crate::host::route::{Route, route};
use crate::host::sock_diag::{DiagSocket, SockDiag};
use crate::identity::process::Process;
use crate::identity::sockets::SocketOwners;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarEnd {
    /// Its address, behind every translation that is known.
    pub at: SocketAddr,
    /// The namespace of this host that it is in; `None` if it was found in none.
    pub place: Option<Place>,
    /// What became of it.
    pub fate: Fate,
    /// For how long it was watched.
    pub watched: Duration,
    /// What could not be asked on the way, in words.
    pub unread: Vec<String>,
}

/// What became of a connection at its other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// A program took it over with accept(): `nginx[17]`, or `None` where its name may not be looked at.
    Accepted(Option<String>),
    /// A program there sent data: what it has to accept it for.
    Answered,
    /// A program took it over, and closed it without a byte: `nginx[17]`, where it could be seen.
    Closed(Option<String>),
    /// The handshake is complete, and it waits in the accept queue.
    Waiting,
    /// The server's kernel still waits for the last step, or for data (`TCP_DEFER_ACCEPT`).
    HalfOpen,
    /// It was reset.
    Reset,
    /// It is not on this host, or in a namespace that may not be looked into.
    NotSeen,
}

impl FarEnd {
    /// Whether a program was seen to take it over.
    pub fn is_accepted(&self) -> bool {
        matches!(self.fate, Fate::Accepted(_) | Fate::Answered | Fate::Closed(_))
    }
}

/// Between two looks.
const STEP: Duration = Duration::from_millis(20);
/// A program that can serve nobody closes what it accepts at once.
const AFTERWARDS: Duration = Duration::from_millis(250);
/// A far end that is on this host is found at once; the last step of the handshake may take its time.
const APPEARS: Duration = Duration::from_millis(150);

/// Follows `connection` of `client` for at most `patience`, or until a program has accepted it.
pub(super) fn follow(client: &Netns, connection: BorrowedFd<'_>, patience: Duration) -> Option<FarEnd> {
    let start = Instant::now();
    let local = address(getsockname(connection.as_raw_fd()).ok()?)?;
    let called = address(getpeername(connection.as_raw_fd()).ok()?)?;
    let mut table = NetnsTable::new(Procfs::default()).ok()?;
    // What goes wrong with it is a gap of the facts already.
    let _ = table.refresh();
    let own = table.own();
    let mut unread = Vec::new();
    let opened = Tuple { from: local, to: rewritten(client, local).unwrap_or(called) };
    let tuple = translated(client, &table, opened, &mut unread);
    let mut found: Option<(Netns, DiagSocket)> = None;
    let mut accepted: Option<(Instant, u64)> = None;
    let fate = loop {
        if let Some(fate) = heard(connection) {
            break fate;
        }
        if let Some((since, _)) = accepted {
            if since.elapsed() >= AFTERWARDS {
                break Fate::Accepted(None);
            }
            std::thread::sleep(STEP);
            continue;
        }
        let now = match &found {
            Some((netns, _)) => socket_of(netns, tuple).map(|socket| (netns.clone(), socket)),
            None => search(client, &table, tuple),
        };
        match now {
            Some(seen) => {
                let inode = seen.1.inode;
                found = Some(seen);
                if inode != 0 {
                    accepted = Some((Instant::now(), inode));
                }
            }
            // It is gone again: what was sent before comes with the next look.
            None if found.is_some() => {}
            None if start.elapsed() > APPEARS => break Fate::NotSeen,
            None => {}
        }
        if start.elapsed() >= patience {
            break match &found {
                Some((_, socket)) if socket.state == SocketState::SynRecv => Fate::HalfOpen,
                Some(_) => Fate::Waiting,
                None => Fate::NotSeen,
            };
        }
        std::thread::sleep(STEP);
    };
    let fate = match (fate, &found) {
        (Fate::Accepted(_), Some((_, socket))) => Fate::Accepted(owner(socket.inode)),
        (Fate::Closed(_), _) => Fate::Closed(accepted.and_then(|(_, inode)| owner(inode))),
        (fate, _) => fate,
    };
    let place = found.map(|(netns, _)| Place {
        netns: netns.id(),
        name: netns.name().map(str::to_owned),
        own: netns.id() == own,
    });
    Some(FarEnd { at: tuple.to, place, fate, watched: start.elapsed(), unread })
}

fn address(from: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    // Without the zone, which sock_diag's addresses do not have.
    v4.or_else(|| from.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port())))).map(canonical)
}

/// What the peer did, if anything.
fn heard(connection: BorrowedFd<'_>) -> Option<Fate> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(connection.as_fd().as_raw_fd(), &mut [0], flags) {
        Ok(0) => Some(Fate::Closed(None)),
        Ok(_) => Some(Fate::Answered),
        Err(Errno::EAGAIN | Errno::EINTR) => None,
        Err(_) => Some(Fate::Reset),
    }
}

/// The destination that our own socket really has: BPF programs may change it at connect(), and still show the one that was asked
/// for.
fn rewritten(client: &Netns, local: SocketAddr) -> Option<SocketAddr> {
    let sockets = SockDiag::open(client).ok()?.about(local.port()).ok()?;
    let own = sockets.into_iter().find(|socket| canonical(socket.local) == local && socket.inode != 0)?;
    Some(canonical(own.remote))
}

/// The tuple behind the translations of all namespaces on the way, each of which may translate once.
fn translated(client: &Netns, table: &NetnsTable, opened: Tuple, unread: &mut Vec<String>) -> Tuple {
    let mut tuple = opened;
    let mut done: HashSet<u32> = HashSet::new();
    let places = || std::iter::once(client).chain(table.iter().filter(|netns| netns.id() != client.id()));
    // Without connection tracking in it, a namespace translates nothing, but by IPVS.
    let places: Vec<(&Netns, bool)> = places().map(|netns| (netns, conntrack::is_loaded(netns))).collect();
    loop {
        let mut left = places.iter().filter(|(netns, _)| !done.contains(&netns.id()));
        let next = left.find_map(|(netns, tracks)| {
            let server = ipvs::destination(netns, tuple).filter(|server| *server != tuple.to);
            if let Some(to) = server {
                return Some((netns.id(), Tuple { to, ..tuple }));
            }
            if !tracks {
                return None;
            }
            match conntrack::lookup(netns, tuple) {
                Ok(found) => {
                    let behind = found?.translated();
                    (behind != tuple).then_some((netns.id(), behind))
                }
                Err(error) => {
                    let what = error.to_string();
                    if !unread.contains(&what) {
                        unread.push(what);
                    }
                    None
                }
            }
        });
        let Some((netns, behind)) = next else { return tuple };
        done.insert(netns);
        tuple = behind;
    }
}

/// The socket that has this tuple, seen from its own side, in whichever namespace.
fn search(client: &Netns, table: &NetnsTable, tuple: Tuple) -> Option<(Netns, DiagSocket)> {
    let has = |netns: &&Netns| route(netns, tuple.to.ip()).is_ok_and(|found| found == Route::Local);
    let all = || std::iter::once(client).chain(table.iter().filter(|netns| netns.id() != client.id()));
    // Those that have the address first; a transparent proxy has sockets with others' addresses.
    let (first, then): (Vec<&Netns>, Vec<&Netns>) = all().partition(has);
    let mut places = first.into_iter().chain(then);
    places.find_map(|netns| Some((netns.clone(), socket_of(netns, tuple)?)))
}

fn socket_of(netns: &Netns, tuple: Tuple) -> Option<DiagSocket> {
    let sockets = SockDiag::open(netns).ok()?.about(tuple.to.port()).ok()?;
    let is_it =
        |socket: &DiagSocket| canonical(socket.local) == tuple.to && canonical(socket.remote) == tuple.from;
    sockets.into_iter().find(is_it)
}

/// `nginx[17]`.
fn owner(inode: u64) -> Option<String> {
    let procfs = Procfs::default();
    let found = SocketOwners::find(&procfs, &HashSet::from([inode])).ok()?;
    let first = found.of(inode).first()?;
    let process = Process::read(&procfs, first.pid).ok()?;
    Some(format!("{}[{}]", process.comm, process.pid))
}
