//! How far the clocks of two hosts are apart, from the handshakes that both saw.
//!
//! A SYN cannot arrive before it was sent, nor can the client be told of an answer before it was given: each handshake leaves
//! the server's clock some room beside the client's. The true offset lies in all of these intervals. What does not fit the
//! others (addresses that two networks use, a clock that was set meanwhile) is outvoted, as NTP does it (Marzullo).

use std::time::Duration;

use crate::event::{ConnectResult, EnqueuedBy, Timestamp};

use super::handshakes::{Attempt, Deed, Visit};

/// Times are taken from clocks that tick in microseconds in places.
const TICK: i64 = 2_000;

/// How far a clock is ahead of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offset {
    /// ns.
    pub(super) ahead_ns: i64,
    /// It may be so much more or less.
    pub(super) error_ns: i64,
    /// Handshakes that say so.
    pub(super) agree: u64,
    /// Handshakes that say otherwise.
    pub(super) disagree: u64,
}

impl Offset {
    /// The same clock.
    pub(super) const NONE: Self = Self { ahead_ns: 0, error_ns: 0, agree: 0, disagree: 0 };

    /// The other way round.
    pub(super) fn back(self) -> Self {
        Self { ahead_ns: -self.ahead_ns, ..self }
    }

    /// This one, and then that.
    pub(super) fn then(self, next: Self) -> Self {
        let fewest = match (self.agree, next.agree) {
            (0, of) | (of, 0) => of,
            (a, b) => a.min(b),
        };
        Self {
            ahead_ns: self.ahead_ns.saturating_add(next.ahead_ns),
            error_ns: self.error_ns.saturating_add(next.error_ns),
            agree: fewest,
            disagree: self.disagree.max(next.disagree),
        }
    }

    /// A time of the clock that is ahead, by the other one.
    pub(super) fn undo(self, time: Timestamp) -> Timestamp {
        Timestamp::from_nanos(time.nanos().saturating_add_signed(self.ahead_ns.saturating_neg()))
    }

    /// The error.
    pub(super) fn error(self) -> Duration {
        Duration::from_nanos(self.error_ns.unsigned_abs())
    }
}

/// Why clocks are not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untold {
    /// No handshake is in both recordings.
    NothingShared,
    /// Those that are leave one side open.
    OneSided,
    /// Most of them contradict each other.
    Contradictory,
}

impl Untold {
    /// In words.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NothingShared => {
                "no handshake is in both recordings (none was recorded at both ends, or addresses are translated on the way)"
            }
            Self::OneSided => {
                "the handshakes that are in both recordings bound it on one side only (record --all tells both)"
            }
            Self::Contradictory => {
                "the handshakes that are in both recordings contradict each other: a clock was set meanwhile, or these are \
                 different networks with the same addresses"
            }
        }
    }
}

/// What decides about two clocks: how far the second may be ahead of the first, by each handshake that both saw.
pub(super) fn offset(rooms: &[(i64, i64)]) -> Result<Offset, Untold> {
    let bounded = rooms.iter().filter(|(low, high)| *low != i64::MIN || *high != i64::MAX);
    let rooms: Vec<(i64, i64)> = bounded.copied().collect();
    if rooms.is_empty() {
        return Err(Untold::NothingShared);
    }
    let (low, high, agree) = most_agreed(&rooms);
    if agree * 2 <= rooms.len() {
        return Err(Untold::Contradictory);
    }
    if low == i64::MIN || high == i64::MAX {
        return Err(Untold::OneSided);
    }
    let count = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
    let error_ns = (high - low) / 2;
    let (agree, disagree) = (count(agree), count(rooms.len() - agree));
    Ok(Offset { ahead_ns: low + error_ns, error_ns, agree, disagree })
}

/// How far the server's clock may be ahead of the client's, by one handshake: at least and at most.
pub(super) fn room(attempt: &Attempt, visit: &Visit) -> (i64, i64) {
    let (mut low, mut high) = (i64::MIN, i64::MAX);
    let difference =
        |server: Timestamp, client: Timestamp| server.nanos().cast_signed() - client.nanos().cast_signed();
    // `after` happened at the server after `before` at the client.
    let mut arrived = |after: Option<Timestamp>, before: Option<Timestamp>| {
        if let (Some(after), Some(before)) = (after, before) {
            high = high.min(difference(after, before) + TICK);
        }
    };
    arrived(visit.first(), attempt.began);
    let enqueued = visit.when(|deed| matches!(deed, Deed::Enqueued(how) if *how != EnqueuedBy::FastOpen));
    arrived(enqueued, attempt.established());
    let drops = visit.times(|deed| matches!(deed, Deed::SynDropped(_)));
    // As many SYNs as were dropped were sent in vain: then it was these.
    if drops.len() == attempt.sent_again.len() {
        let sent = attempt.began.into_iter().chain(attempt.sent_again.iter().copied());
        drops.iter().zip(sent).for_each(|(drop, sent)| arrived(Some(*drop), Some(sent)));
    }
    let mut returned = |before: Option<Timestamp>, after: Option<Timestamp>| {
        if let (Some(before), Some(after)) = (before, after) {
            low = low.max(difference(before, after) - TICK);
        }
    };
    returned(visit.when(|deed| *deed == Deed::SynAck), attempt.established());
    returned(drops.last().copied(), attempt.established());
    if let Some((refused, ConnectResult::Refused)) = attempt.ended {
        returned(visit.when(|deed| *deed == Deed::Refused), Some(refused));
    }
    (low, high)
}

/// The part that most of the intervals have in common, and how many of them.
fn most_agreed(rooms: &[(i64, i64)]) -> (i64, i64, usize) {
    let mut edges: Vec<(i64, bool)> = rooms
        .iter()
        .filter(|(low, high)| low <= high)
        .flat_map(|(low, high)| [(*low, false), (*high, true)])
        .collect();
    // Of edges at one place the beginnings come first: they touch.
    edges.sort_unstable();
    let (mut open, mut best) = (0_usize, (i64::MIN, i64::MAX, 0_usize));
    for (index, (place, is_end)) in edges.iter().enumerate() {
        if *is_end {
            open -= 1;
            continue;
        }
        open += 1;
        if open > best.2 {
            let end = edges.get(index + 1).map_or(i64::MAX, |(next, _)| *next);
            best = (*place, end, open);
        }
    }
    best
}

/// Whether `visit` may be what became of `attempt`, the server's clock being ahead by `offset`.
pub(super) fn fits(attempt: &Attempt, visit: &Visit, offset: Offset) -> bool {
    /// A packet on its way, and clocks that drift.
    const SLACK: Duration = Duration::from_millis(500);
    let slack = SLACK + offset.error();
    let (Some(began), Some(ended)) = (attempt.first(), attempt.last()) else { return false };
    let (Some(first), Some(last)) = (visit.first(), visit.last()) else { return false };
    let (first, last) = (offset.undo(first), offset.undo(last));
    first <= ended.after(slack) && last.after(slack) >= began
}
