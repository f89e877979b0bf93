//! Many clients that no kernel plays: they send SYNs as real ones do, and do with the answers what an incident needs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::frame::{ACK, FIN, PSH, RST, SYN, Seen, Segment};
use super::order::{Crowd, CrowdTally, Manner, Place};
use super::packets::Packets;
use crate::rehearse::stage::{ABROAD_V4, ABROAD_V6};

/// What a client says once it is connected; the small web server answers it and closes.
const LAST_REQUEST: &[u8] = b"c";

/// How far resent SYNs are spread: clients' clocks are not the server's.
const SPREAD_MS: u64 = 150;

/// The address of client number `index`.
pub(super) fn address(place: Place, index: usize, ipv6: bool) -> IpAddr {
    let index = u16::try_from(index % 0xffff).unwrap_or_default();
    let (network, host) = match place {
        Place::Prefix(network) => (u16::from(network), index % 250 + 1),
        // Multiplied by an odd number, 16 bits take every value once: nobody is met twice, and neighbours lie far apart.
        Place::Everywhere => (index.wrapping_mul(40_503) >> 8, index.wrapping_mul(40_503) & 0xff),
    };
    if ipv6 {
        let [a, b, ..] = ABROAD_V6.segments();
        // One client of the crowd a /64 when they come from everywhere.
        let subnet = if place == Place::Everywhere { host } else { 0 };
        Ipv6Addr::new(a, b, network, subnet, 0, 0, 0, host).into()
    } else {
        let [a, b, ..] = ABROAD_V4.octets();
        let [_, network] = network.to_be_bytes();
        let [_, host] = host.to_be_bytes();
        Ipv4Addr::new(a, b, network, host).into()
    }
}

/// A crowd at large; dropping this sends it home.
#[derive(Debug)]
pub(super) struct Loose {
    stop: Arc<AtomicBool>,
    /// Nobody has anything left to do of his own accord.
    idle: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<CrowdTally>>>,
}

impl Loose {
    /// Lets a crowd loose on a server.
    pub(super) fn start(order: Crowd) -> io::Result<Self> {
        let (stop, idle) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut players = Players::gather(order)?;
        let thread = {
            let (stop, idle) = (Arc::clone(&stop), Arc::clone(&idle));
            // Unnamed on purpose: a thread without a name of its own carries the actor's.
            std::thread::Builder::new().spawn(move || players.play(&stop, &idle))?
        };
        Ok(Self { stop, idle, thread: Some(thread) })
    }

    /// Whether anybody still has something to do of his own accord, other than answering.
    pub(super) fn is_busy(&self) -> bool {
        !self.idle.load(Ordering::Relaxed) && !self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Sends everybody home and tells what they did.
    pub(super) fn disperse(mut self) -> io::Result<CrowdTally> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(tally)) => tally,
            _ => Err(io::Error::other("a crowd panicked")),
        }
    }
}

impl Drop for Loose {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it had to say is not wanted any more.
            let _ = thread.join();
        }
    }
}

/// Something that a client does at its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    /// A client calls, for the first time or again from a new port.
    Call { client: usize, round: u16 },
    /// The SYN of this call once more.
    Again(usize),
    /// The last step of the handshake.
    Finish(usize),
    /// It is not waited for any longer.
    GiveUp(usize),
}

/// One call: what a kernel would have a socket for.
#[derive(Debug)]
struct Call {
    client: usize,
    round: u16,
    from: SocketAddr,
    /// Our first sequence number.
    begin: u32,
    /// The server's.
    theirs: u32,
    synacks: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// SYNs are being sent.
    Calling,
    /// The answer has been heard; the last step follows in a moment.
    Finishing,
    Established,
    /// The client does not know of it any more.
    Over,
}

struct Players {
    order: Crowd,
    line: Packets,
    calls: Vec<Call>,
    by_source: HashMap<SocketAddr, usize>,
    deeds: BinaryHeap<Reverse<(Instant, Deed)>>,
    tally: CrowdTally,
}

impl Players {
    fn gather(order: Crowd) -> io::Result<Self> {
        let line = Packets::open(order.to.is_ipv6())?;
        let tally = CrowdTally { clients: order.clients as u64, ..CrowdTally::default() };
        let (calls, by_source, deeds) = (Vec::new(), HashMap::new(), BinaryHeap::new());
        let mut players = Self { order, line, calls, by_source, deeds, tally };
        let begin = Instant::now();
        for client in 0..players.order.clients {
            let after =
                Duration::from_micros(players.order.every_us) * u32::try_from(client).unwrap_or(u32::MAX);
            players.deeds.push(Reverse((begin + after, Deed::Call { client, round: 0 })));
        }
        Ok(players)
    }

    fn play(&mut self, stop: &AtomicBool, idle: &AtomicBool) -> io::Result<CrowdTally> {
        const LOOK_UP: Duration = Duration::from_millis(50);
        let mut buffer = vec![0; 2048];
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            while let Some(&Reverse((when, deed))) =
                self.deeds.peek().filter(|Reverse((when, _))| *when <= now)
            {
                self.deeds.pop();
                self.act(when, deed)?;
            }
            idle.store(self.deeds.is_empty(), Ordering::Relaxed);
            let next = self.deeds.peek().map_or(LOOK_UP, |Reverse((when, _))| {
                // A poll of no time at all would be a busy one.
                when.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), LOOK_UP)
            });
            let mut fds = [PollFd::new(self.line.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::try_from(next).unwrap_or(PollTimeout::ZERO))?;
            self.listen(&mut buffer)?;
        }
        Ok(std::mem::take(&mut self.tally))
    }

    fn act(&mut self, when: Instant, deed: Deed) -> io::Result<()> {
        match deed {
            Deed::Call { client, round } => self.call(when, client, round),
            Deed::Again(index) => match self.calls.get(index) {
                Some(call) if call.state == State::Calling => self.say(index, SYN, &[]),
                _ => Ok(()),
            },
            Deed::Finish(index) => self.finish(index),
            Deed::GiveUp(index) => {
                let Some(call) = self.calls.get_mut(index).filter(|call| call.state == State::Calling) else {
                    return Ok(());
                };
                call.state = State::Over;
                let (client, round) = (call.client, call.round + 1);
                if round < self.order.rounds {
                    self.tally.retried += u64::from(round == 1);
                    self.deeds.push(Reverse((when, Deed::Call { client, round })));
                }
                Ok(())
            }
        }
    }

    fn call(&mut self, when: Instant, client: usize, round: u16) -> io::Result<()> {
        let index = self.calls.len();
        let neighbour = u16::try_from(client % 997).unwrap_or_default();
        let port = 40_000 + (round % 20) * 1000 + neighbour;
        let from = SocketAddr::new(address(self.order.place, client, self.order.to.is_ipv6()), port);
        let begin =
            0x5eed_0000_u32.wrapping_add(u32::try_from(index).unwrap_or_default().wrapping_mul(0x1_0001));
        self.calls.push(Call { client, round, from, begin, theirs: 0, synacks: 0, state: State::Calling });
        self.by_source.insert(from, index);
        self.tally.calls += 1;
        self.say(index, SYN, &[])?;
        let spread = Duration::from_millis(client as u64 * 37 % SPREAD_MS);
        let again = self.order.again_ms.iter().map(|&after| (after, Deed::Again(index)));
        for (after, deed) in again.chain([(self.order.give_up_ms, Deed::GiveUp(index))]) {
            self.deeds.push(Reverse((when + Duration::from_millis(after) + spread, deed)));
        }
        Ok(())
    }

    /// Takes in what has come.
    fn listen(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let Some(frame) = self.line.receive(buffer)? else { return Ok(()) };
            let Some(seen) = Seen::read(frame) else { continue };
            if let Some(&index) = self.by_source.get(&seen.to).filter(|_| seen.from == self.order.to) {
                self.hear(index, &seen)?;
            }
        }
    }

    fn hear(&mut self, index: usize, seen: &Seen<'_>) -> io::Result<()> {
        let Some(call) = self.calls.get_mut(index) else { return Ok(()) };
        if seen.flags & RST != 0 {
            self.tally.was_reset += 1;
            call.state = State::Over;
            return Ok(());
        }
        if seen.flags & (SYN | ACK) == SYN | ACK {
            call.synacks += 1;
            // A cookie differs from SYN to SYN; the latest one counts.
            call.theirs = seen.sequence.wrapping_add(1);
            self.tally.synacks += 1;
            self.tally.heard += u64::from(call.synacks == 1);
            return self.answer(index, seen);
        }
        if call.state == State::Established {
            self.tally.answered += u64::from(seen.data > 0);
            if seen.flags & FIN != 0 {
                // The answer has come: it wants no more, and it waits for nothing.
                call.state = State::Over;
                let last = call.begin.wrapping_add(2);
                self.send(index, RST, last, 0, &[])?;
            }
        }
        Ok(())
    }

    /// What a client does about a SYN-ACK.
    fn answer(&mut self, index: usize, seen: &Seen<'_>) -> io::Result<()> {
        let Some(call) = self.calls.get_mut(index) else { return Ok(()) };
        match (self.order.manner, call.state) {
            (Manner::Answer { synack, after_ms }, State::Calling) if call.synacks >= synack => {
                call.state = State::Finishing;
                let when = Instant::now() + Duration::from_millis(after_ms);
                self.deeds.push(Reverse((when, Deed::Finish(index))));
                Ok(())
            }
            (Manner::Silent, State::Calling) => {
                call.state = State::Established;
                self.tally.completed += 1;
                self.say(index, ACK, &[])
            }
            // The last step got lost on the way, or at a full accept queue.
            (Manner::Answer { .. }, State::Established) => self.finish(index),
            (Manner::Reset, State::Over) => {
                self.tally.resets += 1;
                // As a kernel without such a socket does.
                self.send(index, RST, seen.acknowledgement, 0, &[])
            }
            (Manner::Unreachable { router }, State::Over) => {
                self.tally.unreachables += 1;
                self.line.send(&seen.unreachable(router))
            }
            _ => Ok(()),
        }
    }

    /// The last step of the handshake, and the request with it.
    fn finish(&mut self, index: usize) -> io::Result<()> {
        let Some(call) = self.calls.get_mut(index) else { return Ok(()) };
        self.tally.completed += u64::from(call.state == State::Finishing);
        call.state = State::Established;
        self.say(index, ACK, &[])?;
        self.say(index, ACK | PSH, LAST_REQUEST)
    }

    /// Sends a segment that belongs at the beginning of the connection.
    fn say(&mut self, index: usize, flags: u8, data: &[u8]) -> io::Result<()> {
        let Some(call) = self.calls.get(index) else { return Ok(()) };
        let is_syn = flags & SYN != 0;
        self.tally.syns += u64::from(is_syn);
        let (sequence, theirs) =
            if is_syn { (call.begin, 0) } else { (call.begin.wrapping_add(1), call.theirs) };
        self.send(index, flags, sequence, theirs, data)
    }

    fn send(
        &self,
        index: usize,
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
        data: &[u8],
    ) -> io::Result<()> {
        let Some(call) = self.calls.get(index) else { return Ok(()) };
        let segment = Segment { from: call.from, to: self.order.to, sequence, acknowledgement, flags, data };
        self.line.send(&segment.packet())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_crowd_from_everywhere_has_no_two_addresses_alike() {
        for ipv6 in [false, true] {
            let all: HashSet<IpAddr> =
                (0..0xffff).map(|index| address(Place::Everywhere, index, ipv6)).collect();
            assert_eq!(all.len(), 0xffff);
        }
        let neighbours: HashSet<IpAddr> =
            (0..250).map(|index| address(Place::Prefix(7), index, false)).collect();
        assert_eq!(neighbours.len(), 250);
        assert!(neighbours.iter().all(|ip| ip.to_string().starts_with("10.78.7.")));
        assert_eq!(address(Place::Prefix(7), 4, true), "fd78:0:7::5".parse::<IpAddr>().unwrap());
    }
}
