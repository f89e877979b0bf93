//! SYNs as fast as they go, each from an address and port of its own, and none of them lost on the way.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::crowd;
use super::frame::{SYN, Segment};
use super::order::{Place, Storm};
use super::packets::Packets;
use crate::rehearse::counters;

/// The receiving processor has a queue of a thousand packets (net.core.netdev_max_backlog) and drops beyond: this many
/// are on their way at most.
const ON_THE_WAY: u64 = 256;

/// How long the server may take to count them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends them all; the number sent.
pub(super) fn rage(order: &Storm) -> io::Result<u64> {
    const ADDRESSES: usize = 0xffff;
    let line = Packets::open(order.to.is_ipv6())?;
    let begin = counted(order)?;
    for sent in 1..=order.syns {
        let number = order.first + sent - 1;
        let index = usize::try_from(number).unwrap_or_default();
        let port = 1024 + u16::try_from(index / ADDRESSES % 60_000).unwrap_or_default();
        let from = SocketAddr::new(crowd::address(Place::Everywhere, index, order.to.is_ipv6()), port);
        let sequence = u32::try_from(number & 0xffff_ffff).unwrap_or_default();
        let syn = Segment { from, to: order.to, sequence, acknowledgement: 0, flags: SYN, data: &[] };
        line.send(&syn.packet())?;
        if sent % ON_THE_WAY == 0 || sent == order.syns {
            await_count(order, begin + sent)?;
        }
    }
    Ok(order.syns)
}

fn await_count(order: &Storm, expected: u64) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let counted = counted(order)?;
        if counted >= expected {
            return Ok(());
        }
        if Instant::now() > until {
            let missing = expected - counted;
            return Err(io::Error::other(format!("{missing} SYNs were not counted in {}", order.counter)));
        }
        std::thread::yield_now();
    }
}

/// The counter, in the namespace of the server.
fn counted(order: &Storm) -> io::Result<u64> {
    let netstat = fs::read_to_string(format!("/proc/{}/net/netstat", order.server))?;
    let counters = counters::columns(&netstat, "TcpExt:");
    let value = counters.get(&order.counter).copied();
    value.ok_or_else(|| io::Error::other(format!("this kernel does not count {}", order.counter)))
}
