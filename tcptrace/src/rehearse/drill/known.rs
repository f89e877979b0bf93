//! Connections of which everything is known: ports, process, inode, backlog, queue depths, waits. What the probes say of them is
//! compared field by field: a probe that fires may still read the wrong register.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    thread::sleep,
    time::Duration,
};

use nix::sys::{
    socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, accept, bind, connect, listen,
        setsockopt, socket,
    },
    stat::fstat,
};

use super::{MOMENT, TcpDeferAccept};
use crate::event::{Event, Kind, SocketState};

/// Where the known connections go: from here on, two ports.
pub(super) const PORT: u16 = 5_010;
/// Where they come from: from here on.
const CLIENT: u16 = 6_010;
/// A port at which nothing listens.
const CLOSED: u16 = 5_019;
/// How long the known connection waits to be accepted, at least.
const WAIT: Duration = Duration::from_millis(60);
const BACKLOG: u32 = 3;

/// A record that must be there, and what must be in it.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Which observation makes it.
    pub observation: &'static str,
    /// The kind of record.
    pub record: &'static str,
    /// Ports by which it is known: local, and the peer's if it has one.
    ports: (u16, Option<u16>),
    /// Its fields, each with what it must be.
    fields: Vec<(&'static str, u64)>,
    /// Nanoseconds that a duration in it may be.
    between: Option<(&'static str, u64, u64)>,
}

/// A field that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Wrong {
    /// Its name.
    pub field: &'static str,
    /// What was done.
    pub expected: u64,
    /// What the record says; `None`: nothing.
    pub seen: Option<u64>,
}

impl Expected {
    fn of(observation: &'static str, record: &'static str, local: u16, remote: Option<u16>) -> Self {
        Self { observation, record, ports: (local, remote), ..Self::default() }
    }

    fn with(mut self, field: &'static str, value: impl Into<u64>) -> Self {
        self.fields.push((field, value.into()));
        self
    }

    fn with_some(self, field: &'static str, value: Option<u32>) -> Self {
        match value {
            Some(value) => self.with(field, value),
            None => self,
        }
    }

    /// In words: `listen of port 5010`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let from = self.ports.1.map_or_else(String::new, |port| format!(" from {port}"));
        format!("{} at port {}{from}", self.record, self.ports.0)
    }

    /// What is wrong with the record of it among `events`; `None` if there is none. Fields that only the full tiers see are
    /// compared if `full`.
    #[must_use]
    pub fn compare(&self, events: &[Event], full: bool) -> Option<Vec<Wrong>> {
        let record = events.iter().find(|event| {
            let about = event.kind.about();
            event.kind.name() == self.record
                && about.ports[0] == Some(self.ports.0)
                && (self.ports.1.is_none() || about.ports[1] == self.ports.1)
        })?;
        let seen = values(&record.kind);
        let seen_of = |name: &str| seen.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let compared = |name: &str| full || !ONLY_FULL.contains(&(self.record, name));
        let mut wrong: Vec<Wrong> = self
            .fields
            .iter()
            .filter(|(field, expected)| compared(field) && seen_of(field) != Some(*expected))
            .map(|&(field, expected)| Wrong { field, expected, seen: seen_of(field) })
            .collect();
        if let Some((field, least, most)) = self.between
            && seen_of(field).is_none_or(|value| !(least..=most).contains(&value))
        {
            wrong.push(Wrong { field, expected: least, seen: seen_of(field) });
        }
        Some(wrong)
    }
}

/// What the tracepoint tier cannot know: which listener a connection belongs to, and its queue.
const ONLY_FULL: &[(&str, &str)] = &[
    ("enqueue", "depth"),
    ("enqueue", "limit"),
    ("enqueue", "inode"),
    ("accept", "depth"),
    ("accept", "limit"),
    ("accept", "inode"),
    ("ack-drop", "depth"),
    ("ack-drop", "limit"),
    // Of all listeners of that port.
    ("ack-drop", "total"),
    ("listener-closed", "depth"),
    ("bind-fail", "holder_inode"),
    ("bind-fail", "holder_port"),
];

/// The fields of a record that are compared.
fn values(kind: &Kind) -> Vec<(&'static str, u64)> {
    let mut values: Vec<(&'static str, u64)> = Vec::new();
    if let Some((pid, _)) = kind.about().processes.first() {
        values.push(("pid", u64::from(*pid)));
    }
    let listener = match kind {
        Kind::Listen(of) => Some(&of.listener),
        Kind::SynDrop(of) => Some(&of.listener),
        Kind::AckDrop(of) => Some(&of.listener),
        Kind::Enqueue(of) => Some(&of.listener),
        Kind::Accept(of) => Some(&of.listener),
        Kind::ListenerClosed(of) => Some(&of.listener),
        _ => None,
    };
    if let Some(listener) = listener {
        values.extend([
            ("depth", u64::from(listener.depth)),
            ("limit", u64::from(listener.limit)),
            ("inode", listener.inode),
        ]);
    }
    match kind {
        Kind::Listen(of) => values.extend(of.backlog.map(|backlog| ("backlog", u64::from(backlog)))),
        Kind::SynDrop(of) => values.push(("total", of.total)),
        Kind::AckDrop(of) => values.push(("total", of.total)),
        Kind::Accept(of) => values.extend(of.wait_ns.map(|wait| ("wait_ns", wait))),
        Kind::Connect(of) => {
            values.extend(of.errno.map(|errno| ("errno", u64::from(errno))));
            values.push(("inode", of.inode));
        }
        Kind::BindFail(of) => {
            values.push(("errno", u64::from(of.errno)));
            // The connection that was accepted has the port as well.
            if let Some(holder) = of.holders.iter().find(|holder| holder.state == SocketState::Listen) {
                values.push(("holder_port", u64::from(holder.endpoints.local.port())));
                values.push(("holder_inode", holder.inode));
            }
        }
        _ => {}
    }
    values
}

/// Makes them, over loopback; what the records must say.
pub(super) fn known(ip: IpAddr) -> io::Result<Vec<Expected>> {
    let pid = pid();
    let at = |port| SocketAddr::new(ip, port);
    let mut expected = Vec::new();

    // Listening, and one connection that waits for a known time.
    let listener = bound(at(PORT))?;
    listen(&listener, Backlog::new(i32::try_from(BACKLOG).unwrap_or(0))?)?;
    let inode = inode_of(&listener)?;
    let limit = BACKLOG;
    let of_listener = |observation, record, remote| Expected::of(observation, record, PORT, remote);
    expected.push(
        of_listener("listen", "listen", None)
            .with_some("pid", pid)
            .with("inode", inode)
            .with("depth", 0_u32)
            .with("limit", limit),
    );
    expected.push(of_listener("backlog", "listen", None).with("backlog", BACKLOG));
    let client = bound(at(CLIENT))?;
    connect(client.as_raw_fd(), &SockaddrStorage::from(at(PORT)))?;
    expected.push(
        of_listener("enqueue", "enqueue", Some(CLIENT))
            .with("depth", 1_u32)
            .with("limit", limit)
            .with("inode", inode),
    );
    sleep(WAIT);
    // SAFETY: accept() has just made this descriptor, and nobody else has it.
    let server = unsafe { OwnedFd::from_raw_fd(accept(listener.as_raw_fd())?) };
    let waited = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    expected.push(Expected {
        // Two clocks, of which an emulated one may be a millisecond off.
        between: Some(("wait_ns", waited(WAIT * 3 / 4), waited(WAIT + Duration::from_secs(5)))),
        ..of_listener("accept", "accept", Some(CLIENT))
            .with_some("pid", pid)
            .with("depth", 0_u32)
            .with("limit", limit)
            .with("inode", inode)
    });

    // A conflict.
    if bound(at(PORT)).is_ok() {
        return Err(io::Error::other("two sockets got one port"));
    }
    expected.push(
        of_listener("bind-fail", "bind-fail", None)
            .with_some("pid", pid)
            .with("errno", u64::from(libc::EADDRINUSE.unsigned_abs()))
            .with("holder_port", PORT)
            .with("holder_inode", inode),
    );

    // A refused connect.
    let refused = bound(at(CLIENT + 1))?;
    let refused_inode = inode_of(&refused)?;
    if connect(refused.as_raw_fd(), &SockaddrStorage::from(at(CLOSED))).is_ok() {
        return Err(io::Error::other("a port without a listener answered"));
    }
    expected.push(
        Expected::of("connect-end", "connect", CLIENT + 1, Some(CLOSED))
            .with_some("pid", pid)
            .with("inode", refused_inode)
            .with("errno", u64::from(libc::ECONNREFUSED.unsigned_abs())),
    );

    // One place more than the limit is taken; the next SYN is dropped.
    let mut waiting = Vec::new();
    for number in 0..=u16::try_from(limit).unwrap_or(0) {
        waiting.push(started(at(CLIENT + 2 + number), at(PORT))?);
        sleep(MOMENT);
    }
    let last = CLIENT + 3 + u16::try_from(limit).unwrap_or(0);
    waiting.push(started(at(last), at(PORT))?);
    sleep(MOMENT);
    expected.push(
        of_listener("syn-drop", "syn-drop", Some(last))
            .with("depth", limit + 1)
            .with("limit", limit)
            .with("inode", inode)
            .with("total", 1_u32),
    );
    expected.extend(put_off(at(PORT + 1), at(last + 1), at(last + 2))?);
    drop(listener);
    expected.push(
        of_listener("listener-closed", "listener-closed", None)
            .with_some("pid", pid)
            .with("depth", limit + 1)
            .with("limit", limit)
            .with("inode", inode),
    );
    drop((server, client, refused, waiting));
    Ok(expected)
}

/// A final ACK that comes to a full queue: those of two connections are put off until their data comes, and there is one place.
fn put_off(server: SocketAddr, first: SocketAddr, second: SocketAddr) -> io::Result<Vec<Expected>> {
    let listener = bound(server)?;
    // Room for both requests, or the second is answered by a cookie, of which nothing is put off.
    listen(&listener, Backlog::new(8)?)?;
    let inode = inode_of(&listener)?;
    let listener = TcpListener::from(listener);
    setsockopt(&listener, TcpDeferAccept, &60)?;
    let mut clients = Vec::new();
    for client in [first, second] {
        let socket = bound(client)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(server))?;
        clients.push(TcpStream::from(socket));
    }
    listen(&listener, Backlog::new(0)?)?;
    for client in &mut clients {
        client.write_all(b"1")?;
        sleep(MOMENT);
    }
    Ok(vec![
        Expected::of("ack-drop", "ack-drop", server.port(), Some(second.port()))
            .with("depth", 1_u32)
            .with("limit", 0_u32)
            .with("inode", inode)
            .with("total", 1_u32),
    ])
}

/// A socket with that port.
fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

/// A connect from that port that is not waited for.
fn started(from: SocketAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = bound(from)?;
    TcpStream::from(socket.try_clone()?).set_nonblocking(true)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// This process, as the kernel side numbers it; `None` in a pid namespace of its own, where it has another number.
fn pid() -> Option<u32> {
    /// Inode number of the initial pid namespace (PID_NS_INIT_INO, uapi/linux/nsfs.h).
    const INITIAL: u64 = 0xeffffffc;
    let own = std::fs::metadata("/proc/self/ns/pid").ok()?;
    (std::os::unix::fs::MetadataExt::ino(&own) == INITIAL).then(std::process::id)
}

fn inode_of(socket: impl AsFd) -> io::Result<u64> {
    Ok(fstat(socket)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Endpoints, Event, Family, ListenerRef, SynDrop, SynDropCause, Timestamp};

    fn drop_at(port: u16, depth: u32) -> Event {
        let ends = Endpoints {
            netns: 1,
            family: Family::V4,
            local: SocketAddr::from(([127, 0, 0, 1], 5_010)),
            remote: Some(SocketAddr::from(([127, 0, 0, 1], port))),
            device: 0,
        };
        let listener = ListenerRef { sk: 1, inode: 77, depth, limit: 3, syn_queue: 0 };
        let cause = SynDropCause::AcceptQueue;
        let kind = Kind::SynDrop(SynDrop { endpoints: ends, listener, cause, syncookies: 1, total: 1 });
        Event { time: Timestamp::from_nanos(1), kind }
    }

    #[test]
    fn a_record_is_right_wrong_or_not_there() {
        let expected = Expected::of("syn-drop", "syn-drop", 5_010, Some(6_016))
            .with("depth", 4_u32)
            .with("inode", 77_u32)
            .with("total", 1_u32);
        assert_eq!(expected.compare(&[drop_at(6_016, 4)], true), Some(Vec::new()));
        let wrong = Wrong { field: "depth", expected: 4, seen: Some(9) };
        assert_eq!(expected.compare(&[drop_at(6_015, 4), drop_at(6_016, 9)], true), Some(vec![wrong]));
        assert_eq!(expected.compare(&[drop_at(6_015, 4)], true), None);
    }

    #[test]
    fn a_field_that_is_not_there_is_wrong_but_for_what_a_tier_cannot_see() {
        let missing = Expected::of("syn-drop", "syn-drop", 5_010, Some(6_016)).with("wait_ns", 5_u32);
        let seen = missing.compare(&[drop_at(6_016, 4)], true).unwrap();
        assert_eq!(seen, [Wrong { field: "wait_ns", expected: 5, seen: None }]);
        assert!(ONLY_FULL.iter().all(|(record, _)| *record != "syn-drop" && *record != "listen"));
    }
}
