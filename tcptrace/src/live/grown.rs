//! Which packets a counter counted: the kernel increments it just before it drops one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Timestamp;

/// Follows a counter that is read now and then, and hands each of its increments to one packet.
#[derive(Debug, Default)]
pub(super) struct GrownCounter {
    counted: Option<u64>,
    /// When it was found to have grown, and by how much that is not handed out yet.
    grown: VecDeque<(Timestamp, u64)>,
}

/// Between counting and dropping, and between two CPUs' clocks.
const BETWEEN: Duration = Duration::from_millis(100);
/// Growth that is remembered.
const REMEMBERED: usize = 64;

impl GrownCounter {
    /// It stood at `counted` when it was `read`. What it had counted before it was first read is older than any packet.
    pub(super) fn note(&mut self, read: Timestamp, counted: u64) {
        let more = self.counted.map_or(0, |before| counted.saturating_sub(before));
        self.counted = Some(counted);
        if more > 0 {
            if self.grown.len() >= REMEMBERED {
                self.grown.pop_front();
            }
            self.grown.push_back((read, more));
        }
    }

    /// Whether it counted a packet that was dropped at this time. Growth that was found before that is of others.
    pub(super) fn meet(&mut self, dropped: Timestamp) -> bool {
        while self.grown.front().is_some_and(|(read, left)| *left == 0 || read.after(BETWEEN) < dropped) {
            self.grown.pop_front();
        }
        match self.grown.front_mut() {
            Some((_, left)) => {
                *left -= 1;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(1_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn each_increment_is_one_packet_s() {
        let mut counter = GrownCounter::default();
        counter.note(at(0), 100);
        assert!(!counter.meet(at(10)), "nothing was counted since");
        counter.note(at(1000), 102);
        assert!(counter.meet(at(900)) && counter.meet(at(950)));
        assert!(!counter.meet(at(960)), "the third was another's");
    }

    #[test]
    fn what_was_counted_long_before_a_packet_is_not_its_own() {
        let mut counter = GrownCounter::default();
        counter.note(at(0), 0);
        counter.note(at(1000), 5);
        assert!(!counter.meet(at(3000)));
        counter.note(at(3001), 6);
        assert!(counter.meet(at(3000)));
    }
}
