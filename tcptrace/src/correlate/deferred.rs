//! Half-open requests that `TCP_DEFER_ACCEPT` keeps waiting: their final ACK has come, and they wait for data in the SYN queue.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Timestamp;

/// The option's usual times are shorter; what waited longer ago does not fill the queue any more.
pub const DEFERRED_LATELY: Duration = Duration::from_secs(60);

/// Notes kept: about one a second.
const KEPT: usize = 64;

/// Deferred requests of a listener in the last minute.
#[derive(Clone, Debug, Default)]
pub struct Deferred {
    notes: VecDeque<(Timestamp, Note)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    /// So many more were deferred.
    More(u64),
    /// So many were deferred when they were looked at.
    AtOnce(u64),
}

impl Deferred {
    /// So many more have waited for data until their timer ran out for the first time.
    pub(super) fn note_more(&mut self, time: Timestamp, more: u64) {
        self.note(time, Note::More(more), more);
    }

    /// So many are waiting at `time`.
    pub(super) fn note_at_once(&mut self, time: Timestamp, number: u64) {
        self.note(time, Note::AtOnce(number), number);
    }

    fn note(&mut self, time: Timestamp, note: Note, number: u64) {
        if number == 0 {
            return;
        }
        if self.notes.len() >= KEPT {
            self.notes.pop_front();
        }
        self.notes.push_back((time, note));
    }

    /// At least so many were deferred in the minute before `now`.
    pub fn lately(&self, now: Timestamp) -> u64 {
        let recent = self.notes.iter().filter(|(time, _)| now.since(*time) < DEFERRED_LATELY);
        let (mut more, mut at_once) = (0_u64, 0_u64);
        for (_, note) in recent {
            match *note {
                Note::More(number) => more = more.saturating_add(number),
                Note::AtOnce(number) => at_once = at_once.max(number),
            }
        }
        more.max(at_once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_is_counted_adds_up_and_what_is_looked_at_does_not() {
        let mut counted = Deferred::default();
        counted.note_more(at(1), 20);
        counted.note_more(at(2), 13);
        assert_eq!(counted.lately(at(3)), 33);
        assert_eq!(counted.lately(at(61)), 13);
        let mut polled = Deferred::default();
        polled.note_at_once(at(1), 20);
        polled.note_at_once(at(2), 33);
        polled.note_at_once(at(3), 31);
        assert_eq!((polled.lately(at(4)), polled.lately(at(90))), (33, 0));
    }
}
