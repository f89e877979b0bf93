//! Records of ports taken, refused and given back.

use tcptrace_common::{port, record};

use super::parts::{comm, endpoints, options, task};
use crate::event::{
    BindFail, BindStage, ClockOffset, Found, Holder, How, Kind, NoPort, PortRange, PortReleased, PortTaken,
    ReuseState, SocketOptions, SocketState, Taker,
};

pub(super) fn bind_fail(from: &record::BindFail, clock: ClockOffset) -> Kind {
    let filled = usize::try_from(from.holders_len).unwrap_or(usize::MAX);
    Kind::BindFail(Box::new(BindFail {
        endpoints: endpoints(&from.endpoints),
        task: task(&from.task),
        sk: from.sk,
        errno: from.errno,
        stage: match from.stage {
            record::STAGE_LISTEN => BindStage::Listen,
            record::STAGE_SECURITY => BindStage::Security,
            _ => BindStage::Bind,
        },
        options: options(from.options),
        holders_met: from.holders_met,
        reuse_state: (from.reuse_state != record::REUSE_STATE_UNKNOWN).then(|| {
            let [fastreuse, fastreuseport, ..] =
                from.reuse_state.to_ne_bytes().map(|byte| i8::from_ne_bytes([byte]));
            ReuseState { fastreuse, fastreuseport }
        }),
        own_range: own_range(from.own_range),
        holders: from.holders.iter().take(filled).map(|of| holder(of, clock)).collect(),
        addresses: None,
        unusable: None,
        ipv6_off: None,
    }))
}

fn holder(from: &port::Holder, clock: ClockOffset) -> Holder {
    let state = SocketState::from_kernel(from.state);
    Holder {
        endpoints: endpoints(&from.endpoints),
        taker: (from.taker.task.tgid != 0).then(|| taker(&from.taker, clock)),
        sk: from.sk,
        inode: from.ino,
        uid: (from.uid != u32::MAX && state != SocketState::TimeWait).then_some(from.uid),
        state,
        options: Some(SocketOptions::from_bits(from.options)),
        found: if from.found == port::FOUND_HISTORY { Found::History } else { Found::BindHash },
    }
}

fn taker(from: &port::Taker, clock: ClockOffset) -> Taker {
    Taker {
        task: task(&from.task),
        since: clock.wall(from.since_ns),
        released: clock.wall_unless_zero(from.released_ns),
        how: how(from.how.into()),
        bootstrapped: from.bootstrapped != 0,
    }
}

pub(super) fn port_taken(from: &record::PortTaken) -> Kind {
    Kind::PortTaken(Box::new(PortTaken {
        endpoints: endpoints(&from.endpoints),
        task: task(&from.task),
        sk: from.sk,
        how: how(from.how),
        options: options(from.options),
    }))
}

pub(super) fn no_port(from: &record::NoPort) -> Kind {
    Kind::NoPort(Box::new(NoPort {
        endpoints: endpoints(&from.endpoints),
        task: task(&from.task),
        sk: from.sk,
        total: from.total,
        options: options(from.options),
        own_range: own_range(from.own_range),
    }))
}

pub(super) fn port_released(from: &record::PortReleased) -> Kind {
    Kind::PortReleased(Box::new(PortReleased {
        endpoints: endpoints(&from.endpoints),
        sk: from.sk,
        held_ns: from.held_ns,
        pid: from.tgid,
        comm: comm(&from.comm),
        how: how(from.how.into()),
        time_wait: from.time_wait != 0,
    }))
}

/// A socket's own range of ports. A side of 0 is the namespace's, and nearly always both are given.
fn own_range(word: u32) -> Option<PortRange> {
    let [low, high] = [word & 0xffff, word >> 16].map(|half| u16::try_from(half).unwrap_or(u16::MAX));
    (word != 0).then_some(PortRange { first: low, last: if high == 0 { u16::MAX } else { high } })
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
