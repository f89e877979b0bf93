//! From the bytes of the kernel side to events.
//!
//! A record that cannot be decoded is an error of that record alone: the caller counts it as lost and goes on. Numbers that
//! stand for a choice and are not known here decode to the "unknown" or "other" of their type, where there is one.

mod client;
mod parts;
mod port;
mod server;

use std::net::SocketAddr;

use tcptrace_common::{connect, record, wire};

use super::cursor::{Cursor, Ended};
use super::socket::address;
use super::{ClockOffset, ConnectSample, Event, Family, ListenerSample, PortUse};
use client::{established, handshake_drop};
use parts::comm;
pub(super) use parts::{options, read_endpoints};
use server::{accept_fail, no_listener, syn};

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
            comm: comm.into(),
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
        record::ACCEPT_FAIL => "accept-fail",
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
        record::ACCEPT_FAIL => accept_fail(from),
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

/// What starts every record.
struct Header {
    time_ns: u64,
    kind: u16,
    len: u16,
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

#[cfg(test)]
mod tests;
