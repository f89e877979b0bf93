//! From what the kernel side writes to events.
//!
//! A record is read as the type that its kind names, and taken over by name. One that is not as long as its type is an error of that
//! record alone: the caller counts it as lost and goes on. Numbers that stand for a choice and are not known here decode to the
//! "unknown" or "other" of their type, where there is one.

mod client;
mod parts;
mod port;
mod server;

use std::net::SocketAddr;

use tcptrace_common::listener::ListenerState;
use tcptrace_common::record::{self, Header};
use tcptrace_common::{connect, port as ports};
use zerocopy::FromBytes;

use super::socket::address;
use super::{ClockOffset, ConnectSample, Event, Family, ListenerRef, ListenerSample, PortUse, SampleSource};
use parts::comm;
pub(super) use parts::{endpoints, options};

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
pub fn port_use(key: &ports::PortUseKey, counts: &ports::PortUse, clock: ClockOffset) -> PortUse {
    PortUse {
        netns: key.netns,
        pid: key.tgid,
        comm: comm(&counts.comm).into(),
        since: clock.wall(counts.since_ns),
        by_connect: counts.by_connect,
        by_bind: counts.by_bind,
        bound_connects: counts.bound_connects,
        released: counts.released,
        time_wait: counts.time_wait,
        refused: counts.refused,
        late: counts.late,
        own_range: counts.own_range,
    }
}

/// What the kernel side counted of a listener, as a sample; `sk` is the key of its map.
pub fn listener_sample(sk: u64, state: &ListenerState, clock: ClockOffset) -> ListenerSample {
    ListenerSample {
        endpoints: endpoints(&state.endpoints),
        listener: ListenerRef { sk, inode: state.ino, depth: state.depth, limit: state.limit, syn_queue: 0 },
        source: SampleSource::Observed,
        totals: server::totals(state, clock),
        waits: None,
        handshakes: None,
    }
}

/// What the kernel side counted of a process's connects to one destination: a key and a value of its map.
pub fn connect_sample(
    key: &connect::ConnectKey,
    totals: &connect::ConnectTotals,
    clock: ClockOffset,
) -> ConnectSample {
    let remote = SocketAddr::new(address(key.peer, Family::V6), key.port);
    ConnectSample { netns: key.netns, pid: key.tgid, remote, totals: client::connect_totals(totals, clock) }
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
    let Ok((header, _)) = Header::read_from_prefix(bytes) else {
        return Err(DecodeError::Short { kind: 0, len });
    };
    if usize::from(header.len) != len {
        return Err(DecodeError::Length { kind: header.kind, claimed: header.len, len });
    }
    let of = Body { kind: header.kind, bytes };
    let kind = match header.kind {
        record::LISTEN => server::listen(&of.read()?),
        record::SYN => server::syn(&of.read()?),
        record::SYN_DROP => server::syn_drop(&of.read()?),
        record::ACK_DROP => server::ack_drop(&of.read()?),
        record::ENQUEUE => server::enqueue(&of.read()?),
        record::ACCEPT => server::accept(&of.read()?),
        record::BIND_FAIL => port::bind_fail(&of.read()?, clock),
        record::PORT_TAKEN => port::port_taken(&of.read()?),
        record::PORT_RELEASED => port::port_released(&of.read()?),
        record::LISTENER_CLOSED => server::listener_closed(&of.read()?, clock),
        record::SYNACK_RETRANSMIT => server::synack_retransmit(&of.read()?),
        record::REQUEST_END => server::request_end(&of.read()?),
        record::NO_PORT => port::no_port(&of.read()?),
        record::CONNECT => client::connect(&of.read()?, clock),
        record::ESTABLISHED => client::established(&of.read()?),
        record::HANDSHAKE_DROP => client::handshake_drop(&of.read()?),
        record::NO_LISTENER => server::no_listener(&of.read()?),
        record::ACCEPT_FAIL => server::accept_fail(&of.read()?),
        kind => return Err(DecodeError::UnknownKind { kind }),
    };
    Ok(Event { time: clock.wall(header.time_ns), kind })
}

/// A record whose kind is known, and its type not yet.
struct Body<'a> {
    kind: u16,
    bytes: &'a [u8],
}

impl Body<'_> {
    fn read<T: FromBytes>(&self) -> Result<T, DecodeError> {
        T::read_from_bytes(self.bytes).map_err(|_wrong_size| {
            let (kind, len) = (self.kind, self.bytes.len());
            match len.checked_sub(size_of::<T>()) {
                None => DecodeError::Short { kind, len },
                Some(extra) => DecodeError::Trailing { kind, extra },
            }
        })
    }
}

#[cfg(test)]
mod tests;
