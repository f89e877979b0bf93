//! Records of ports taken, refused and given back.

use tcptrace_common::{port, record, wire};

use super::Body;
use super::parts::{comm, options, read_endpoints, task};
use crate::event::cursor::{Cursor, Ended};
use crate::event::{
    BindFail, BindStage, Found, Holder, How, Kind, NoPort, PortRange, PortReleased, PortTaken, ReuseState,
    SocketOptions, SocketState, Taker,
};

impl Body {
    pub(super) fn bind_fail(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let task = task(from)?;
        let sk = from.u64()?;
        let errno = from.u32()?;
        let stage = match from.u32()? {
            record::STAGE_LISTEN => BindStage::Listen,
            record::STAGE_SECURITY => BindStage::Security,
            _ => BindStage::Bind,
        };
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
            unusable: None,
            ipv6_off: None,
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

    pub(super) fn port_taken(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        Ok(Kind::PortTaken(Box::new(PortTaken {
            endpoints: read_endpoints(from)?,
            task: task(from)?,
            sk: from.u64()?,
            how: how(from.u32()?),
            options: options(from.u32()?),
        })))
    }

    pub(super) fn no_port(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
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

    pub(super) fn port_released(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let sk = from.u64()?;
        let held_ns = from.u64()?;
        let pid = from.u32()?;
        let how = how(from.u16()?.into());
        let time_wait = from.u16()? != 0;
        let comm = comm(&from.array::<{ wire::COMM_LEN }>()?);
        Ok(Kind::PortReleased(Box::new(PortReleased { endpoints, sk, held_ns, pid, comm, how, time_wait })))
    }
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
