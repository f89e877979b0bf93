//! Looks at the listeners of a port and at the connects to it again and again while it is watched: a queue that was full for a
//! moment, or a SYN that was sent again, may be over in the end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::gather::pending;
use crate::host::netns::Netns;
use crate::host::sock_diag::SockDiag;

/// What was seen of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// Its namespace.
    pub netns: u32,
    /// Inode of its socket.
    pub inode: u64,
    /// Its address.
    pub local: SocketAddr,
    /// In how many looks it was there.
    pub looks: u32,
    /// In how many its accept queue was full.
    pub full: u32,
    /// The largest depth.
    pub deepest: u32,
    /// Depth at the first look, and at the last.
    pub depth: (u32, u32),
    /// The smallest depth.
    pub shallowest: u32,
    /// Whether the depth has ever fallen from one look to the next: connections were accepted, or given up.
    pub has_fallen: bool,
}

/// What was seen in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples {
    /// Number of looks.
    pub looks: u32,
    /// The listeners.
    pub listeners: Vec<Sampled>,
    /// For each address: how many connects had sent their SYN again, at most.
    pub syn_again: Vec<(SocketAddr, u32)>,
}

/// Between two looks.
const STEP: Duration = Duration::from_millis(100);

/// Looks until `over`: at the listeners of `ports` in `servers`, and at connects of `client` to `targets`.
pub fn sample(
    client: &Netns,
    targets: &[SocketAddr],
    servers: &[Netns],
    ports: &[u16],
    over: &AtomicBool,
) -> Samples {
    let mut samples = Samples::default();
    let mut open: Vec<SockDiag> = servers.iter().filter_map(|netns| SockDiag::open(netns).ok()).collect();
    while !over.load(Ordering::Relaxed) {
        for diag in &mut open {
            let netns = diag.netns();
            for listener in diag.listeners().unwrap_or_default() {
                if ports.contains(&listener.local.port()) {
                    let seen = (netns, listener.inode, listener.local);
                    samples.note(seen, listener.depth, listener.limit);
                }
            }
        }
        for to in targets {
            let again = pending(client, *to).map_or(0, |found| found.syn_again);
            samples.note_again(*to, again);
        }
        samples.looks += 1;
        std::thread::sleep(STEP);
    }
    samples
}

impl Samples {
    pub(super) fn note(&mut self, (netns, inode, local): (u32, u64, SocketAddr), depth: u32, limit: u32) {
        let full = u32::from(depth > limit);
        let known = self.listeners.iter_mut().find(|known| (known.netns, known.inode) == (netns, inode));
        match known {
            Some(known) => {
                known.looks += 1;
                known.full += full;
                known.deepest = known.deepest.max(depth);
                known.shallowest = known.shallowest.min(depth);
                known.has_fallen |= depth < known.depth.1;
                known.depth.1 = depth;
            }
            None => self.listeners.push(Sampled {
                netns,
                inode,
                local,
                looks: 1,
                full,
                deepest: depth,
                depth: (depth, depth),
                shallowest: depth,
                has_fallen: false,
            }),
        }
    }

    fn note_again(&mut self, to: SocketAddr, again: u32) {
        match self.syn_again.iter_mut().find(|(known, _)| *known == to) {
            Some((_, most)) => *most = (*most).max(again),
            None => self.syn_again.push((to, again)),
        }
    }

    /// What was seen of a listener.
    pub fn of(&self, netns: u32, inode: u64) -> Option<&Sampled> {
        self.listeners.iter().find(|known| (known.netns, known.inode) == (netns, inode))
    }

    /// How many connects to an address had sent their SYN again, at most.
    pub fn syn_again(&self, to: SocketAddr) -> u32 {
        self.syn_again.iter().find(|(known, _)| *known == to).map_or(0, |(_, most)| *most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_was_full_for_a_moment_is_remembered() {
        let mut samples = Samples::default();
        let listener = (1, 2, "10.0.0.1:80".parse().unwrap());
        [0, 5, 3, 3].into_iter().for_each(|depth| samples.note(listener, depth, 4));
        let seen = samples.of(1, 2).unwrap();
        assert_eq!((seen.looks, seen.full, seen.deepest, seen.shallowest), (4, 1, 5, 0));
        assert_eq!((seen.depth, seen.has_fallen), ((0, 3), true));
        assert!(samples.of(1, 3).is_none());
    }

    #[test]
    fn syns_that_were_sent_again_are_remembered() {
        let mut samples = Samples::default();
        let to = "10.0.0.1:80".parse().unwrap();
        [0, 2, 0].into_iter().for_each(|again| samples.note_again(to, again));
        assert_eq!((samples.syn_again(to), samples.syn_again("10.0.0.1:81".parse().unwrap())), (2, 0));
    }
}
