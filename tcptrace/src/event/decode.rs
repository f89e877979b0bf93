//! From the bytes of the kernel side to events.
//!
//! A record that cannot be decoded is an error of that record alone: the caller counts it as lost and goes on. Numbers that
//! stand for a choice and are not known here decode to the "unknown" or "other" of their type, where there is one.

use std::net::SocketAddr;

use tcptrace_common::{connect, drop, port, record, wire};

use super::cursor::{Cursor, Ended};
use super::socket::address;
use super::{
    Accept, Acceptor, AckDrop, AckDropCause, BindFail, BindStage, ClockOffset, Connect, ConnectResult,
    ConnectSample, ConnectTotals, Endpoints, Enqueue, EnqueuedBy, Event, Family, Found, HandshakeDrop,
    Holder, How, Kind, Listen, ListenerClosed, ListenerRef, ListenerSample, ListenerTotals, NoListener,
    NoPort, Packet, PortRange, PortReleased, PortTaken, PortUse, RequestEnd, RequestEnding, RetransmitCause,
    ReuseState, SampleSource, SocketOptions, SocketState, Syn, SynAckRetransmit, SynAnswer, SynDrop,
    SynDropCause, Taker, Task,
};

/// Why a record could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends inside its header or its body.
    #[error("a record of {len} bytes ends too early for its kind ({kind})")]
    Short {
        /// Its kind; 0 if not even that could be read.
        kind: u16,
        /// Its length in bytes.
        len: usize,
    },
    /// It goes on after its body: it comes from another version of the kernel side.
    #[error("a record of kind {kind} has {extra} bytes more than it should")]
    Trailing {
        /// Its kind.
        kind: u16,
        /// How many bytes too many.
        extra: usize,
    },
    /// The length in its header is not its length.
    #[error("a record of kind {kind} claims {claimed} bytes and has {len}")]
    Length {
        /// Its kind.
        kind: u16,
        /// What its header says.
        claimed: u16,
        /// Its length in bytes.
        len: usize,
    },
    /// A kind that this version does not know.
    #[error("unknown kind of record: {kind}")]
    UnknownKind {
        /// Its kind.
        kind: u16,
    },
}

impl DecodeError {
    /// The kind of the record, 0 if it could not be read.
    pub fn kind(self) -> u16 {
        match self {
            Self::Short { kind, .. }
            | Self::Trailing { kind, .. }
            | Self::Length { kind, .. }
            | Self::UnknownKind { kind } => kind,
        }
    }
}

/// What the kernel side counted of a process's ephemeral ports: a key and a value of its map.
///
/// # Errors
/// When they are not as long as they should be.
pub fn decode_port_use(key: &[u8], counts: &[u8], clock: ClockOffset) -> Result<PortUse, DecodeError> {
    let short = |Ended| DecodeError::Short { kind: 0, len: key.len() + counts.len() };
    let mut key_from = Cursor::new(key);
    let mut from = Cursor::new(counts);
    let mut decode = || {
        let (netns, pid) = (key_from.u32()?, key_from.u32()?);
        let since = clock.wall(from.u64()?);
        let (by_connect, by_bind, bound_connects) = (from.u64()?, from.u64()?, from.u64()?);
        let (released, time_wait, refused) = (from.u64()?, from.u64()?, from.u64()?);
        let (late, own_range) = (from.u64()?, from.u64()?);
        from.skip::<16>()?;
        let comm = comm(&from.array::<{ wire::COMM_LEN }>()?);
        Ok(PortUse {
            netns,
            pid,
            comm,
            since,
            by_connect,
            by_bind,
            bound_connects,
            released,
            time_wait,
            refused,
            late,
            own_range,
        })
    };
    decode().map_err(short)
}

/// Name in output of a record kind (`tcptrace_common::record`), for counts of losses by kind.
pub fn record_name(kind: u16) -> &'static str {
    match kind {
        // Slot 0 of the kernel side's loss counters.
        0 => "listener-state",
        record::LISTEN => "listen",
        record::SYN => "syn",
        record::SYN_DROP => "syn-drop",
        record::ACK_DROP => "ack-drop",
        record::ENQUEUE => "enqueue",
        record::ACCEPT => "accept",
        record::BIND_FAIL => "bind-fail",
        record::PORT_TAKEN => "port-taken",
        record::PORT_RELEASED => "port-released",
        record::LISTENER_CLOSED => "listener-closed",
        record::SYNACK_RETRANSMIT => "synack-retransmit",
        record::REQUEST_END => "request-end",
        record::NO_PORT => "no-port",
        record::CONNECT | record::ESTABLISHED => "connect",
        record::HANDSHAKE_DROP => "handshake-drop",
        record::NO_LISTENER => "no-listener",
        _ => "unknown",
    }
}

/// One record of the ring buffer.
///
/// # Errors
/// When the bytes are not exactly one record of a known kind.
pub fn decode_record(bytes: &[u8], clock: ClockOffset) -> Result<Event, DecodeError> {
    let len = bytes.len();
    let mut cursor = Cursor::new(bytes);
    let header = header(&mut cursor).map_err(|Ended| DecodeError::Short { kind: 0, len })?;
    let kind = header.kind;
    if usize::from(header.len) != len {
        return Err(DecodeError::Length { kind, claimed: header.len, len });
    }
    let body = Body { clock };
    let from = &mut cursor;
    let decoded = match kind {
        record::LISTEN => body.listen(from),
        record::SYN => syn(from),
        record::SYN_DROP => body.syn_drop(from),
        record::ACK_DROP => body.ack_drop(from),
        record::ENQUEUE => body.enqueue(from),
        record::ACCEPT => body.accept(from),
        record::BIND_FAIL => body.bind_fail(from),
        record::PORT_TAKEN => body.port_taken(from),
        record::PORT_RELEASED => body.port_released(from),
        record::LISTENER_CLOSED => body.listener_closed(from),
        record::SYNACK_RETRANSMIT => body.synack_retransmit(from),
        record::REQUEST_END => body.request_end(from),
        record::NO_PORT => body.no_port(from),
        record::CONNECT => body.connect(from),
        record::ESTABLISHED => established(from),
        record::HANDSHAKE_DROP => handshake_drop(from),
        record::NO_LISTENER => no_listener(from),
        _ => return Err(DecodeError::UnknownKind { kind }),
    };
    let event_kind = decoded.map_err(|Ended| DecodeError::Short { kind, len })?;
    match cursor.left() {
        0 => Ok(Event { time: clock.wall(header.time_ns), kind: event_kind }),
        extra => Err(DecodeError::Trailing { kind, extra }),
    }
}

/// One value of the kernel side's map of listeners, as a sample; `sk` is the value's key.
///
/// # Errors
/// When the bytes are not exactly one `ListenerState`.
pub fn decode_listener_state(
    sk: u64,
    bytes: &[u8],
    clock: ClockOffset,
) -> Result<ListenerSample, DecodeError> {
    let len = bytes.len();
    let mut cursor = Cursor::new(bytes);
    let state =
        Body { clock }.listener_state(&mut cursor).map_err(|Ended| DecodeError::Short { kind: 0, len })?;
    match cursor.left() {
        0 => Ok(state.into_sample(sk)),
        extra => Err(DecodeError::Trailing { kind: 0, extra }),
    }
}

/// One value of the kernel side's map of connects, as a sample; `key` is its key.
///
/// # Errors
/// When the bytes are not exactly one `ConnectTotals`.
pub fn decode_connect_sample(
    key: &connect::ConnectKey,
    bytes: &[u8],
    clock: ClockOffset,
) -> Result<ConnectSample, DecodeError> {
    let len = bytes.len();
    let mut cursor = Cursor::new(bytes);
    let totals =
        Body { clock }.connect_totals(&mut cursor).map_err(|Ended| DecodeError::Short { kind: 0, len })?;
    match cursor.left() {
        0 => {
            let remote = SocketAddr::new(address(key.peer, Family::V6), key.port);
            Ok(ConnectSample { netns: key.netns, pid: key.tgid, remote, totals })
        }
        extra => Err(DecodeError::Trailing { kind: 0, extra }),
    }
}

/// A `ListenerState`, decoded.
struct State {
    totals: ListenerTotals,
    depth: u32,
    limit: u32,
    endpoints: Endpoints,
    inode: u64,
}

impl State {
    fn into_sample(self, sk: u64) -> ListenerSample {
        ListenerSample {
            endpoints: self.endpoints,
            listener: ListenerRef {
                sk,
                inode: self.inode,
                depth: self.depth,
                limit: self.limit,
                syn_queue: 0,
            },
            source: SampleSource::Observed,
            totals: self.totals,
            waits: None,
            handshakes: None,
        }
    }
}

/// What starts every record.
struct Header {
    time_ns: u64,
    kind: u16,
    len: u16,
}

fn age(ns: u64) -> Option<u64> {
    (ns != record::AGE_UNKNOWN).then_some(ns)
}

fn header(from: &mut Cursor<'_>) -> Result<Header, Ended> {
    let header = Header { time_ns: from.u64()?, kind: from.u16()?, len: from.u16()? };
    from.u32()?; // The CPU: of use only to those who debug the kernel side.
    Ok(header)
}

/// Decodes bodies, in the order of the members in `tcptrace_common`.
struct Body {
    clock: ClockOffset,
}

impl Body {
    fn listen(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let listener = listener_ref(from)?;
        let task = task(from)?;
        let backlog = from.u32()?;
        let somaxconn = from.u32()?;
        let options = options(from.u32()?);
        let flags = from.u32()?;
        Ok(Kind::Listen(Box::new(Listen {
            endpoints,
            listener,
            task,
            backlog: (flags & record::LISTEN_BACKLOG_SEEN != 0).then_some(backlog),
            somaxconn: (somaxconn != 0).then_some(somaxconn),
            options,
            again: flags & record::LISTEN_AGAIN != 0,
        })))
    }

    fn syn_drop(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        Ok(Kind::SynDrop(SynDrop {
            endpoints: read_endpoints(from)?,
            listener: listener_ref(from)?,
            cause: match from.u32()? {
                record::SYN_DROP_ACCEPT_QUEUE => SynDropCause::AcceptQueue,
                record::SYN_DROP_SYN_QUEUE => SynDropCause::SynQueue,
                record::SYN_DROP_MAX_SYN_BACKLOG => SynDropCause::MaxSynBacklog,
                record::SYN_DROP_NO_ROUTE => SynDropCause::NoRoute,
                _ => SynDropCause::Other,
            },
            syncookies: from.u32()?,
            total: from.u64()?,
        }))
    }

    fn ack_drop(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let listener = listener_ref(from)?;
        let cause = match from.u32()? {
            record::ACK_DROP_ACCEPT_QUEUE => AckDropCause::AcceptQueue,
            _ => AckDropCause::Other,
        };
        from.skip::<4>()?;
        Ok(Kind::AckDrop(AckDrop { endpoints, listener, cause, total: from.u64()? }))
    }

    fn synack_retransmit(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let again = SynAckRetransmit {
            endpoints: read_endpoints(from)?,
            listener: listener_ref(from)?,
            age_ns: age(from.u64()?),
            cause: match from.u32()? {
                record::RETRANSMIT_DUPLICATE_SYN => RetransmitCause::DuplicateSyn,
                _ => RetransmitCause::Timer,
            },
            timeouts: from.u32()?,
            total: from.u64()?,
            acked: false,
            deferred: false,
        };
        let flags = from.u32()?;
        from.skip::<4>()?;
        Ok(Kind::SynAckRetransmit(SynAckRetransmit {
            acked: flags & record::REQUEST_ACKED != 0,
            deferred: flags & record::REQUEST_DEFERRED != 0,
            ..again
        }))
    }

    fn request_end(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let end = RequestEnd {
            endpoints: read_endpoints(from)?,
            listener: listener_ref(from)?,
            age_ns: age(from.u64()?),
            how: match from.u32()? {
                record::END_LISTENER_CLOSED => RequestEnding::ListenerClosed,
                record::END_RESET => RequestEnding::Reset,
                record::END_ABORTED => RequestEnding::Aborted,
                record::END_ICMP => RequestEnding::Icmp,
                record::END_JOINED => RequestEnding::Joined,
                _ => RequestEnding::Expired,
            },
            timeouts: from.u32()?,
            total: from.u64()?,
            acked: false,
            deferred: false,
            icmp: None,
        };
        let flags = from.u32()?;
        let [code, kind, ..] = from.u32()?.to_le_bytes();
        Ok(Kind::RequestEnd(RequestEnd {
            acked: flags & record::REQUEST_ACKED != 0,
            deferred: flags & record::REQUEST_DEFERRED != 0,
            icmp: (end.how == RequestEnding::Icmp).then_some((kind, code)),
            ..end
        }))
    }

    fn connect(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let task = task(from)?;
        let sk = from.u64()?;
        let inode = from.u64()?;
        let age_ns = from.u64()?;
        let result = match from.u32()? {
            connect::CONNECT_SYN_AGAIN => ConnectResult::SynAgain,
            connect::CONNECT_ESTABLISHED => ConnectResult::Established,
            connect::CONNECT_REFUSED => ConnectResult::Refused,
            connect::CONNECT_UNREACHABLE => ConnectResult::Unreachable,
            connect::CONNECT_TIMED_OUT => ConnectResult::TimedOut,
            connect::CONNECT_CANCELLED => ConnectResult::Cancelled,
            _ => ConnectResult::Error,
        };
        let errno = from.u32()?;
        let syns_again = from.u32()?;
        from.skip::<4>()?;
        Ok(Kind::Connect(Box::new(Connect {
            endpoints,
            task: (task.pid != 0).then_some(task),
            sk,
            inode,
            age_ns: (age_ns != record::CONNECT_AGE_UNKNOWN).then_some(age_ns),
            result,
            errno: (errno != 0).then_some(errno),
            syns_again,
            totals: self.connect_totals(from)?,
        })))
    }

    fn connect_totals(&self, from: &mut Cursor<'_>) -> Result<ConnectTotals, Ended> {
        let totals = ConnectTotals {
            since: self.clock.wall(from.u64()?),
            syns_again: from.u64()?,
            unanswered: from.u64()?,
            established: from.u64()?,
            refused: from.u64()?,
            unreachable: from.u64()?,
            timed_out: from.u64()?,
            cancelled: from.u64()?,
            errors: from.u64()?,
        };
        // How much of it was streamed lately is for the kernel side alone.
        from.skip::<16>()?;
        Ok(totals)
    }

    fn enqueue(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let enqueue = Enqueue {
            endpoints: read_endpoints(from)?,
            listener: listener_ref(from)?,
            child: from.u64()?,
            handshake_ns: age(from.u64()?),
            how: match from.u32()? {
                record::ENQUEUE_COOKIE => EnqueuedBy::Cookie,
                record::ENQUEUE_FAST_OPEN => EnqueuedBy::FastOpen,
                _ => EnqueuedBy::Handshake,
            },
        };
        from.skip::<4>()?;
        Ok(Kind::Enqueue(enqueue))
    }

    fn accept(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let listener = listener_ref(from)?;
        let task = task(from)?;
        let wait_ns = from.u64()?;
        Ok(Kind::Accept(Box::new(Accept {
            endpoints,
            listener,
            task,
            wait_ns: (wait_ns != record::WAIT_UNKNOWN).then_some(wait_ns),
            child: from.u64()?,
        })))
    }

    fn bind_fail(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let task = task(from)?;
        let sk = from.u64()?;
        let errno = from.u32()?;
        let stage = if from.u32()? == record::STAGE_LISTEN { BindStage::Listen } else { BindStage::Bind };
        let options = options(from.u32()?);
        let holders_met = from.u32()?;
        let filled = from.u32()?;
        let reuse_state = match from.u32()? {
            record::REUSE_STATE_UNKNOWN => None,
            state => {
                let [fastreuse, fastreuseport, ..] =
                    state.to_ne_bytes().map(|byte| i8::from_ne_bytes([byte]));
                Some(ReuseState { fastreuse, fastreuseport })
            }
        };
        let own_range = own_range(from.u32()?);
        from.skip::<4>()?;
        let mut holders = Vec::new();
        for index in 0..record::HOLDERS {
            let holder = self.holder(from)?;
            if u32::try_from(index).is_ok_and(|index| index < filled) {
                holders.push(holder);
            }
        }
        Ok(Kind::BindFail(Box::new(BindFail {
            endpoints,
            task,
            sk,
            errno,
            stage,
            options,
            holders_met,
            reuse_state,
            own_range,
            holders,
            addresses: None,
        })))
    }

    fn holder(&self, from: &mut Cursor<'_>) -> Result<Holder, Ended> {
        let endpoints = read_endpoints(from)?;
        let taker = self.taker(from)?;
        let sk = from.u64()?;
        let inode = from.u64()?;
        let uid = from.u32()?;
        let state = SocketState::from_kernel(from.u8()?);
        let options = SocketOptions::from_bits(from.u8()?);
        let found = if from.u8()? == port::FOUND_HISTORY { Found::History } else { Found::BindHash };
        from.skip::<1>()?;
        Ok(Holder {
            endpoints,
            taker: (taker.task.pid != 0).then_some(taker),
            sk,
            inode,
            uid: (uid != u32::MAX && state != SocketState::TimeWait).then_some(uid),
            state,
            options: Some(options),
            found,
        })
    }

    fn taker(&self, from: &mut Cursor<'_>) -> Result<Taker, Ended> {
        let taker = Taker {
            task: task(from)?,
            since: self.clock.wall(from.u64()?),
            released: self.clock.wall_unless_zero(from.u64()?),
            how: how(from.u8()?.into()),
            bootstrapped: from.u8()? != 0,
        };
        from.skip::<6>()?;
        Ok(taker)
    }

    fn port_taken(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        Ok(Kind::PortTaken(Box::new(PortTaken {
            endpoints: read_endpoints(from)?,
            task: task(from)?,
            sk: from.u64()?,
            how: how(from.u32()?),
            options: options(from.u32()?),
        })))
    }

    fn no_port(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let no_port = NoPort {
            endpoints: read_endpoints(from)?,
            task: task(from)?,
            sk: from.u64()?,
            total: from.u64()?,
            options: options(from.u32()?),
            own_range: own_range(from.u32()?),
        };
        Ok(Kind::NoPort(Box::new(no_port)))
    }

    fn port_released(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let sk = from.u64()?;
        let held_ns = from.u64()?;
        let pid = from.u32()?;
        let how = how(from.u16()?.into());
        let time_wait = from.u16()? != 0;
        let comm = comm(&from.array::<{ wire::COMM_LEN }>()?);
        Ok(Kind::PortReleased(Box::new(PortReleased { endpoints, sk, held_ns, pid, comm, how, time_wait })))
    }

    fn listener_closed(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let listener = listener_ref(from)?;
        let (task, exiting) = task_and_exiting(from)?;
        let state = self.listener_state(from)?;
        // A listener that the kernel side kept no state of: the struct is all zero, and a listener's port never is.
        let last = (state.endpoints.local.port() != 0).then_some(state.totals);
        Ok(Kind::ListenerClosed(Box::new(ListenerClosed { endpoints, listener, task, exiting, last })))
    }

    fn listener_state(&self, from: &mut Cursor<'_>) -> Result<State, Ended> {
        let mut totals = ListenerTotals {
            syns: Some(from.u64()?),
            syn_drops_accept_queue: Some(from.u64()?),
            syn_drops_syn_queue: Some(from.u64()?),
            syn_drops_max_syn_backlog: Some(from.u64()?),
            syn_drops_no_route: Some(from.u64()?),
            cookies_sent: Some(from.u64()?),
            retransmits_timer: Some(from.u64()?),
            retransmits_duplicate_syn: Some(from.u64()?),
            expired: Some(from.u64()?),
            resets: Some(from.u64()?),
            aborts: Some(from.u64()?),
            icmp_ends: Some(from.u64()?),
            joins: Some(from.u64()?),
            deferred: Some(from.u64()?),
            cookies_accepted: Some(from.u64()?),
            cookies_valid: Some(from.u64()?),
            cookies_invalid: Some(from.u64()?),
            fast_opens: Some(from.u64()?),
            orphans: Some(from.u64()?),
            cookies_dropped: Some(from.u64()?),
            cookies_dropped_at_limit: Some(from.u64()?),
            cookies_at_limit: Some(from.u64()?),
            ack_drops_accept_queue: Some(from.u64()?),
            ack_drops_other: Some(from.u64()?),
            enqueued: Some(from.u64()?),
            accepted: Some(from.u64()?),
            wait_total_ns: Some(from.u64()?),
            waits: Some(from.u64()?),
            wait_max_ns: Some(from.u64()?),
            last_accept: self.clock.wall_unless_zero(from.u64()?),
            last_enqueue: self.clock.wall_unless_zero(from.u64()?),
            last_retransmit: self.clock.wall_unless_zero(from.u64()?),
            depth_max: Some(from.u32()?),
            ..ListenerTotals::default()
        };
        let depth = from.u32()?;
        let limit = from.u32()?;
        let tid = from.u32()?;
        let pid = from.u32()?;
        totals.last_acceptor = acceptor(pid, tid);
        totals.syn_queue_max = Some(from.u32()?);
        Ok(State { totals, depth, limit, endpoints: read_endpoints(from)?, inode: from.u64()? })
    }
}

/// Names are for those to add who can read this kernel's.
fn handshake_drop(from: &mut Cursor<'_>) -> Result<Kind, Ended> {
    let endpoints = read_endpoints(from)?;
    let task = task(from)?;
    let location = from.u64()?;
    let input = from.u64()?;
    from.u64()?; // The socket, which is not followed.
    let reason = from.u32()?;
    let packet = match from.u32()? {
        packet if packet == u32::from(drop::PACKET_SYN) => Packet::Syn,
        packet if packet == u32::from(drop::PACKET_SYN_ACK) => Packet::SynAck,
        _ => Packet::Ack,
    };
    let outgoing = from.u32()? == u32::from(drop::DIRECTION_OUT);
    let handshake = from.u32()? & drop::HANDSHAKE != 0;
    Ok(Kind::HandshakeDrop(Box::new(HandshakeDrop {
        endpoints,
        task: (task.pid != 0).then_some(task),
        packet,
        outgoing,
        handshake,
        reason,
        reason_name: None,
        location,
        function: None,
        input,
        input_name: None,
        total: from.u64()?,
    })))
}

/// A connect that was answered at once is one of its kind, of which nothing is counted.
fn established(from: &mut Cursor<'_>) -> Result<Kind, Ended> {
    let endpoints = read_endpoints(from)?;
    let task = task(from)?;
    let (sk, inode, age_ns) = (from.u64()?, from.u64()?, from.u64()?);
    Ok(Kind::Connect(Box::new(Connect {
        endpoints,
        task: (task.pid != 0).then_some(task),
        sk,
        inode,
        age_ns: (age_ns != record::CONNECT_AGE_UNKNOWN).then_some(age_ns),
        result: ConnectResult::Established,
        errno: None,
        syns_again: 0,
        totals: ConnectTotals::default(),
    })))
}

fn syn(from: &mut Cursor<'_>) -> Result<Kind, Ended> {
    let syn = Syn {
        endpoints: read_endpoints(from)?,
        listener: listener_ref(from)?,
        answer: match from.u32()? {
            record::SYN_COOKIE => SynAnswer::Cookie,
            record::SYN_FAST_OPEN => SynAnswer::FastOpen,
            _ => SynAnswer::Request,
        },
    };
    from.skip::<4>()?;
    Ok(Kind::Syn(syn))
}

fn no_listener(from: &mut Cursor<'_>) -> Result<Kind, Ended> {
    Ok(Kind::NoListener(NoListener { endpoints: read_endpoints(from)?, total: from.u64()? }))
}

fn acceptor(pid: u32, tid: u32) -> Option<Acceptor> {
    (pid != 0).then_some(Acceptor { pid, tid })
}

fn endpoints(wire: &wire::Endpoints) -> Endpoints {
    let family = if wire.family == wire::AF_INET6 { Family::V6 } else { Family::V4 };
    let local = SocketAddr::new(address(wire.local, family), wire.local_port);
    let remote = SocketAddr::new(address(wire.remote, family), wire.remote_port);
    let is_remote = remote.port() != 0 || !remote.ip().is_unspecified();
    Endpoints { netns: wire.netns, family, local, remote: is_remote.then_some(remote), device: wire.device }
}

pub(super) fn read_endpoints(from: &mut Cursor<'_>) -> Result<Endpoints, Ended> {
    Ok(endpoints(&wire::Endpoints {
        local: from.array()?,
        remote: from.array()?,
        local_port: from.u16()?,
        remote_port: from.u16()?,
        family: from.u16()?,
        pad: from.u16()?,
        netns: from.u32()?,
        device: from.u32()?,
    }))
}

fn listener_ref(from: &mut Cursor<'_>) -> Result<ListenerRef, Ended> {
    let listener = ListenerRef {
        sk: from.u64()?,
        inode: from.u64()?,
        depth: from.u32()?,
        limit: from.u32()?,
        syn_queue: from.u32()?,
    };
    from.skip::<4>()?;
    Ok(listener)
}

fn task(from: &mut Cursor<'_>) -> Result<Task, Ended> {
    Ok(task_and_exiting(from)?.0)
}

/// A task, and whether it was exiting, where that was read.
fn task_and_exiting(from: &mut Cursor<'_>) -> Result<(Task, Option<bool>), Ended> {
    let pid = from.u32()?;
    let tid = from.u32()?;
    let uid = from.u32()?;
    let flags = from.u32()?;
    let exiting = (flags & wire::TASK_FLAGS_SEEN != 0).then_some(flags & wire::TASK_EXITING != 0);
    let task = Task { pid, tid, uid, cgroup: from.u64()?, comm: comm(&from.array::<{ wire::COMM_LEN }>()?) };
    Ok((task, exiting))
}

/// A command name up to its NUL; bytes that are not UTF-8 as `\xNN`.
fn comm(bytes: &[u8]) -> String {
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A socket's own range of ports. A side of 0 is the namespace's, and nearly always both are given.
fn own_range(word: u32) -> Option<PortRange> {
    let [low, high] = [word & 0xffff, word >> 16].map(|half| u16::try_from(half).unwrap_or(u16::MAX));
    (word != 0).then_some(PortRange { first: low, last: if high == 0 { u16::MAX } else { high } })
}

pub(super) fn options(bits: u32) -> SocketOptions {
    let [low, ..] = bits.to_le_bytes();
    SocketOptions::from_bits(low)
}

fn how(number: u32) -> How {
    match u8::try_from(number) {
        Ok(port::HOW_BIND) => How::Bind,
        Ok(port::HOW_BIND_ANY) => How::BindAny,
        Ok(port::HOW_CONNECT) => How::Connect,
        Ok(port::HOW_LISTEN_ANY) => How::ListenAny,
        _ => How::Unknown,
    }
}

#[cfg(test)]
mod tests;
