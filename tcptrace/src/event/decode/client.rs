//! Records of connects, and of their packets on the way.

use tcptrace_common::{connect, drop, record};

use super::Body;
use super::parts::{read_endpoints, task};
use crate::event::cursor::{Cursor, Ended};
use crate::event::{Connect, ConnectResult, ConnectTotals, HandshakeDrop, Kind, Packet};

impl Body {
    pub(super) fn connect(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
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

    pub(super) fn connect_totals(&self, from: &mut Cursor<'_>) -> Result<ConnectTotals, Ended> {
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
}

/// Names are for those to add who can read this kernel's.
pub(super) fn handshake_drop(from: &mut Cursor<'_>) -> Result<Kind, Ended> {
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
        facts: None,
    })))
}

/// A connect that was answered at once is one of its kind, of which nothing is counted.
pub(super) fn established(from: &mut Cursor<'_>) -> Result<Kind, Ended> {
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
