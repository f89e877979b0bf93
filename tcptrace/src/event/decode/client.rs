//! Records of connects, and of their packets on the way.

use tcptrace_common::{connect, drop, record};

use super::parts::{endpoints, known_task};
use crate::event::{ClockOffset, Connect, ConnectResult, ConnectTotals, HandshakeDrop, Kind, Packet};

pub(super) fn connect(from: &record::Connect, clock: ClockOffset) -> Kind {
    Kind::Connect(Box::new(Connect {
        endpoints: endpoints(&from.endpoints),
        task: known_task(&from.task),
        sk: from.sk,
        inode: from.ino,
        age_ns: age(from.age_ns),
        result: match from.result {
            connect::CONNECT_SYN_AGAIN => ConnectResult::SynAgain,
            connect::CONNECT_ESTABLISHED => ConnectResult::Established,
            connect::CONNECT_REFUSED => ConnectResult::Refused,
            connect::CONNECT_UNREACHABLE => ConnectResult::Unreachable,
            connect::CONNECT_TIMED_OUT => ConnectResult::TimedOut,
            connect::CONNECT_CANCELLED => ConnectResult::Cancelled,
            _ => ConnectResult::Error,
        },
        errno: (from.errno != 0).then_some(from.errno),
        syns_again: from.syns_again,
        totals: connect_totals(&from.totals, clock),
    }))
}

/// How much of it was streamed lately is for the kernel side alone.
pub(super) fn connect_totals(from: &connect::ConnectTotals, clock: ClockOffset) -> ConnectTotals {
    ConnectTotals {
        since: clock.wall(from.since_ns),
        syns_again: from.syns_again,
        unanswered: from.unanswered,
        established: from.established,
        refused: from.refused,
        unreachable: from.unreachable,
        timed_out: from.timed_out,
        cancelled: from.cancelled,
        errors: from.errors,
    }
}

/// Names are added by the caller, who can read this kernel's. The socket is not followed.
pub(super) fn handshake_drop(from: &record::HandshakeDrop) -> Kind {
    Kind::HandshakeDrop(Box::new(HandshakeDrop {
        endpoints: endpoints(&from.endpoints),
        task: known_task(&from.task),
        packet: match from.packet {
            packet if packet == u32::from(drop::PACKET_SYN) => Packet::Syn,
            packet if packet == u32::from(drop::PACKET_SYN_ACK) => Packet::SynAck,
            _ => Packet::Ack,
        },
        outgoing: from.direction == u32::from(drop::DIRECTION_OUT),
        handshake: from.flags & drop::HANDSHAKE != 0,
        reason: from.reason,
        reason_name: None,
        location: from.location,
        function: None,
        input: from.input,
        input_name: None,
        total: from.total,
        facts: None,
    }))
}

/// A connect that was answered at once is one of its kind, of which nothing is counted.
pub(super) fn established(from: &record::Established) -> Kind {
    Kind::Connect(Box::new(Connect {
        endpoints: endpoints(&from.endpoints),
        task: known_task(&from.task),
        sk: from.sk,
        inode: from.ino,
        age_ns: age(from.age_ns),
        result: ConnectResult::Established,
        errno: None,
        syns_again: 0,
        totals: ConnectTotals::default(),
    }))
}

fn age(ns: u64) -> Option<u64> {
    (ns != record::CONNECT_AGE_UNKNOWN).then_some(ns)
}
