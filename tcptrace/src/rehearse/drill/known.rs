//! Connections of which everything is known: ports, process, inode, backlog, queue depths, waits. What the probes say of them is
//! compared field by field: a probe that fires may still read the wrong register.

use std::{
    fmt,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    thread::sleep,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, accept, bind, connect, listen,
            setsockopt, socket, sockopt,
        },
        stat::fstat,
    },
};

use super::{MOMENT, TcpDeferAccept};
use crate::event::{EnqueuedBy, Event, Kind, RequestEnding, RetransmitCause, SocketState};

/// Where the known connections go: from here on.
const PORT: u16 = 5_010;
/// Where they come from: from here on.
const CLIENT: u16 = 6_010;
/// A port at which nothing listens.
const CLOSED: u16 = 5_019;
/// How long the known connection waits to be accepted, at least.
const WAIT: Duration = Duration::from_millis(60);
const BACKLOG: u32 = 3;
/// In the order in which the drills come to them.
const ENDED: u16 = PORT + 2;
const FULL: u16 = PORT + 3;
const ABSENT: u16 = PORT + 4;
const SHARED: u16 = PORT + 5;
const COOKIE: u16 = PORT + 6;
const HALF_OPEN: u16 = PORT + 7;

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
    fields: Vec<(&'static str, Value)>,
    /// Nanoseconds that a duration in it may be.
    between: Option<(&'static str, u64, u64)>,
}

/// What a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(u64),
    /// One of the words that output has for it.
    Word(&'static str),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => word.fmt(f),
        }
    }
}

/// A field that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Wrong {
    /// Its name.
    pub field: &'static str,
    /// What was done.
    pub expected: Value,
    /// What the record says; `None`: nothing.
    pub seen: Option<Value>,
}

impl Expected {
    fn of(observation: &'static str, record: &'static str, local: u16, remote: Option<u16>) -> Self {
        Self { observation, record, ports: (local, remote), ..Self::default() }
    }

    fn with(mut self, field: &'static str, value: impl Into<Value>) -> Self {
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
        if let Some((field, least, most)) = self.between {
            let seen = seen_of(field);
            if !matches!(seen, Some(Value::Number(value)) if (least..=most).contains(&value)) {
                wrong.push(Wrong { field, expected: least.into(), seen });
            }
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
    ("accept-fail", "depth"),
    ("accept-fail", "limit"),
];

/// The fields of a record that are compared.
fn values(kind: &Kind) -> Vec<(&'static str, Value)> {
    let mut values: Vec<(&'static str, Value)> = Vec::new();
    let mut add = |field, value: Value| values.push((field, value));
    if let Some((pid, _)) = kind.about().processes.first() {
        add("pid", (*pid).into());
    }
    let listener = match kind {
        Kind::Listen(of) => Some(&of.listener),
        Kind::SynDrop(of) => Some(&of.listener),
        Kind::AckDrop(of) => Some(&of.listener),
        Kind::Enqueue(of) => Some(&of.listener),
        Kind::Accept(of) => Some(&of.listener),
        Kind::AcceptFail(of) => Some(&of.listener),
        Kind::ListenerClosed(of) => Some(&of.listener),
        Kind::RequestEnd(of) => Some(&of.listener),
        Kind::SynAckRetransmit(of) => Some(&of.listener),
        _ => None,
    };
    if let Some(listener) = listener {
        add("depth", listener.depth.into());
        add("limit", listener.limit.into());
        add("inode", listener.inode.into());
    }
    let optional = |add: &mut dyn FnMut(&'static str, Value), field, value: Option<u64>| {
        if let Some(value) = value {
            add(field, value.into());
        }
    };
    match kind {
        Kind::Listen(of) => optional(&mut add, "backlog", of.backlog.map(u64::from)),
        Kind::SynDrop(of) => add("total", of.total.into()),
        Kind::AckDrop(of) => add("total", of.total.into()),
        Kind::Enqueue(of) => add("how", of.how.name().into()),
        Kind::Accept(of) => optional(&mut add, "wait_ns", of.wait_ns),
        Kind::AcceptFail(of) => {
            add("errno", of.errno.into());
            add("total", of.total.into());
            optional(&mut add, "open_files_limit", of.open_files_limit);
        }
        Kind::RequestEnd(of) => {
            add("how", of.how.name().into());
            add("timeouts", of.timeouts.into());
            add("acked", u32::from(of.acked).into());
        }
        Kind::SynAckRetransmit(of) => add("cause", of.cause.name().into()),
        Kind::Connect(of) => {
            optional(&mut add, "errno", of.errno.map(u64::from));
            add("inode", of.inode.into());
        }
        Kind::BindFail(of) => {
            add("errno", of.errno.into());
            add("stage", of.stage.name().into());
            // The connection that was accepted has the port as well.
            if let Some(holder) = of.holders.iter().find(|holder| holder.state == SocketState::Listen) {
                add("holder_port", holder.endpoints.local.port().into());
                add("holder_inode", holder.inode.into());
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
            .with("how", "handshake")
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
            .with("errno", libc::EADDRINUSE.unsigned_abs())
            .with("stage", "bind")
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
            .with("errno", libc::ECONNREFUSED.unsigned_abs()),
    );
    expected.push(Expected::of("no-listener", "no-listener", CLOSED, Some(CLIENT + 1)));

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
    expected.extend(ended(at(ENDED), at(last + 3), at(last + 4))?);
    expected.extend(without_descriptors(at(FULL), at(last + 5))?);
    expected.extend(refused_binds(ip)?);
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

/// A request that its peer resets, and one whose listener has gone when its data comes.
fn ended(server: SocketAddr, impatient: SocketAddr, late: SocketAddr) -> io::Result<Vec<Expected>> {
    let listener = TcpListener::from(bound(server)?);
    listen(&listener, Backlog::new(8)?)?;
    let inode = inode_of(&listener)?;
    setsockopt(&listener, TcpDeferAccept, &60)?;
    let connected = |from| -> io::Result<TcpStream> {
        let socket = bound(from)?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(server))?;
        Ok(TcpStream::from(socket))
    };
    let reset = connected(impatient)?;
    let mut writer = connected(late)?;
    setsockopt(&reset, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    // Another processor may be slower with the final ACK than this one with the reset.
    sleep(MOMENT);
    drop(reset);
    sleep(MOMENT);
    drop(listener);
    // It may be told at once that there is no listener any more.
    let _ = writer.write_all(b"1");
    sleep(MOMENT);
    let end = |from: SocketAddr, how: &'static str| {
        Expected::of("request-end", "request-end", server.port(), Some(from.port()))
            .with("how", how)
            .with("timeouts", 0_u32)
            .with("acked", 1_u32)
    };
    Ok(vec![
        end(impatient, RequestEnding::Reset.name()).with("inode", inode),
        end(late, RequestEnding::ListenerClosed.name()),
    ])
}

/// An accept() for which there is no descriptor: what the kernel side says of it comes from the registers that the system call
/// saved.
fn without_descriptors(server: SocketAddr, client: SocketAddr) -> io::Result<Vec<Expected>> {
    const LIMIT: u32 = 1;
    let listener = bound(server)?;
    listen(&listener, Backlog::new(8)?)?;
    let inode = inode_of(&listener)?;
    let client = bound(client)?;
    connect(client.as_raw_fd(), &SockaddrStorage::from(server))?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // For this moment no thread of this process gets a descriptor; the others wait for this one.
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT.into(), hard)?;
    let refused = accept(listener.as_raw_fd());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    match refused {
        Err(Errno::EMFILE) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return Err(io::Error::other("accept() had no descriptor, and gave one")),
    }
    Ok(vec![
        Expected::of("accept-failed", "accept-fail", server.port(), None)
            .with_some("pid", pid())
            .with("errno", libc::EMFILE.unsigned_abs())
            .with("open_files_limit", LIMIT)
            .with("total", 1_u32)
            .with("depth", 1_u32)
            .with("limit", 8_u32)
            .with("inode", inode),
    ])
}

/// A bind() to an address that is not here, and a listen() on a port at which another socket listens.
fn refused_binds(ip: IpAddr) -> io::Result<Vec<Expected>> {
    // For documentation (RFC 5737, RFC 3849): no host has them.
    let absent: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    if bound(SocketAddr::new(absent, ABSENT)).is_ok() {
        return Err(io::Error::other("an address that is not here could be bound"));
    }
    let shared = |()| -> io::Result<OwnedFd> {
        let family = if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, SHARED)))?;
        Ok(socket)
    };
    let (first, second) = (shared(())?, shared(())?);
    let inode = inode_of(&first)?;
    listen(&first, Backlog::new(1)?)?;
    if listen(&second, Backlog::new(1)?).is_ok() {
        return Err(io::Error::other("two listeners got one port"));
    }
    let of = |observation, port, errno: i32, stage: &'static str| {
        Expected::of(observation, "bind-fail", port, None)
            .with_some("pid", pid())
            .with("errno", errno.unsigned_abs())
            .with("stage", stage)
    };
    Ok(vec![
        of("bind-error", ABSENT, libc::EADDRNOTAVAIL, "bind"),
        of("listen-fail", SHARED, libc::EADDRINUSE, "listen")
            .with("holder_port", SHARED)
            .with("holder_inode", inode),
    ])
}

/// A connection that a cookie made, where every SYN is answered by one: another function enqueues it.
pub(super) fn cookie(ip: IpAddr) -> io::Result<Vec<Expected>> {
    let (server, from) = (SocketAddr::new(ip, COOKIE), SocketAddr::new(ip, CLIENT + 40));
    let listener = bound(server)?;
    listen(&listener, Backlog::new(8)?)?;
    let inode = inode_of(&listener)?;
    let client = bound(from)?;
    connect(client.as_raw_fd(), &SockaddrStorage::from(server))?;
    // accept(2), where the standard library uses accept4(2).
    nix::unistd::close(accept(listener.as_raw_fd())?)?;
    drop((client, listener));
    let of = |observation| {
        Expected::of(observation, "enqueue", server.port(), Some(from.port()))
            .with("depth", 1_u32)
            .with("limit", 8_u32)
            .with("inode", inode)
    };
    Ok(vec![of("enqueue"), of("cookie").with("how", EnqueuedBy::Cookie.name())])
}

/// A request that stays half-open until its timer runs out: first of all, while there is room.
pub(super) struct HalfOpen {
    pub(super) server: SocketAddr,
    _client: OwnedFd,
    from: u16,
}

impl HalfOpen {
    /// Where it goes to.
    pub(super) fn port() -> u16 {
        HALF_OPEN
    }

    /// Begins it at `listener`, which defers accepts.
    pub(super) fn start(listener: &TcpListener) -> io::Result<Self> {
        let server = listener.local_addr()?;
        let from = CLIENT + 41;
        Ok(Self { server, _client: started(SocketAddr::new(server.ip(), from), server)?, from })
    }

    /// What the kernel side says when its timer has run out once.
    pub(super) fn expected(&self, inode: u64) -> Vec<Expected> {
        let of = |observation| {
            Expected::of(observation, "synack-retransmit", self.server.port(), Some(self.from))
                .with("inode", inode)
        };
        // What tells a timer from a repeated SYN is seen by what sees the end of requests.
        vec![of("synack-retransmit"), of("request-end").with("cause", RetransmitCause::Timer.name())]
    }
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
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
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

pub(super) fn inode_of(socket: impl AsFd) -> io::Result<u64> {
    Ok(fstat(socket)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Endpoints, Event, Family, ListenerRef, RequestEnd, SynDrop, SynDropCause, Timestamp};

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
        let wrong = Wrong { field: "depth", expected: 4_u32.into(), seen: Some(9_u32.into()) };
        assert_eq!(expected.compare(&[drop_at(6_015, 4), drop_at(6_016, 9)], true), Some(vec![wrong]));
        assert_eq!(expected.compare(&[drop_at(6_015, 4)], true), None);
    }

    #[test]
    fn every_field_is_compared_and_the_wrong_one_is_named() {
        let SynDrop { endpoints, listener, .. } = (match drop_at(6_019, 0).kind {
            Kind::SynDrop(of) => Some(of),
            _ => None,
        })
        .unwrap();
        let end = |how, timeouts, acked| {
            let kind = Kind::RequestEnd(RequestEnd {
                endpoints,
                listener,
                age_ns: None,
                how,
                timeouts,
                total: 1,
                acked,
                deferred: true,
                icmp: None,
            });
            [Event { time: Timestamp::from_nanos(1), kind }]
        };
        let expected = Expected::of("request-end", "request-end", 5_010, Some(6_019))
            .with("how", RequestEnding::Reset.name())
            .with("timeouts", 0_u32)
            .with("acked", 1_u32);
        let wrong = |record: [Event; 1]| expected.compare(&record, true).unwrap();
        assert_eq!(wrong(end(RequestEnding::Reset, 0, true)), []);
        let told = |record| wrong(record).into_iter().map(|of| (of.field, of.seen)).collect::<Vec<_>>();
        assert_eq!(told(end(RequestEnding::Expired, 0, true)), [("how", Some("expired".into()))]);
        assert_eq!(
            told(end(RequestEnding::Reset, 9, false)),
            [("timeouts", Some(9_u32.into())), ("acked", Some(0_u32.into()))]
        );
    }

    #[test]
    fn a_field_that_is_not_there_is_wrong_but_for_what_a_tier_cannot_see() {
        let missing = Expected::of("syn-drop", "syn-drop", 5_010, Some(6_016)).with("wait_ns", 5_u32);
        let seen = missing.compare(&[drop_at(6_016, 4)], true).unwrap();
        assert_eq!(seen, [Wrong { field: "wait_ns", expected: 5_u32.into(), seen: None }]);
        assert!(ONLY_FULL.iter().all(|(record, _)| *record != "syn-drop" && *record != "listen"));
    }
}
