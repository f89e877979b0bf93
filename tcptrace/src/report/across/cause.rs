//! What a server did with one handshake, in the words of findings.

use crate::event::{AckDropCause, RequestEnding, SynDropCause, Timestamp, observation};
use crate::report::Gap;

use super::handshakes::{Attempt, Deed, Visit};

/// Code of what is no finding: the SYNs before the one that the server saw did not arrive there.
pub(super) const LOST_ON_THE_WAY: &str = "lost-on-the-way";

/// Observations without which the server's silence says nothing about the way there.
const WATCHED: &[&str] = &[observation::SYN_DROP, observation::ENQUEUE, "handshake-drop"];

/// The code of the finding at the server that explains why the client of `attempt` had to wait, or failed; `None` if what the
/// server did does not explain it. `gaps`: what was not observed there.
pub(super) fn code(attempt: &Attempt, visit: &Visit, gaps: &[Gap]) -> Option<&'static str> {
    let did = |like: fn(&Deed) -> bool| visit.deeds.iter().any(|(_, deed)| like(deed));
    // What the client took for a connection was none, or came late.
    let full = did(|deed| {
        matches!(
            deed,
            Deed::AckDropped(AckDropCause::AcceptQueue)
                | Deed::SynDropped(SynDropCause::AcceptQueue)
                | Deed::Ended(RequestEnding::Aborted)
        )
    });
    if full {
        return Some("accept-queue-overflow");
    }
    if did(|deed| matches!(deed, Deed::PathDropped(..) | Deed::SynDropped(SynDropCause::NoRoute))) {
        return Some("handshake-dropped");
    }
    if !attempt.is_troubled() {
        return None;
    }
    if did(|deed| *deed == Deed::Refused) {
        return Some("no-listener");
    }
    if did(|deed| matches!(deed, Deed::SynDropped(SynDropCause::SynQueue | SynDropCause::MaxSynBacklog))) {
        return Some("syn-queue-full");
    }
    if did(|deed| *deed == Deed::Ended(RequestEnding::ListenerClosed)) {
        return Some("listener-closed");
    }
    if did(|deed| matches!(deed, Deed::SynAckAgain | Deed::Ended(RequestEnding::Expired))) {
        return Some("half-open-capture");
    }
    let arrived = did(|deed| matches!(deed, Deed::SynAck | Deed::Enqueued(_)));
    let watched = !gaps.iter().any(|gap| WATCHED.contains(&gap.name.as_str()));
    (watched && arrived && !did(|deed| matches!(deed, Deed::SynDropped(_)))).then_some(LOST_ON_THE_WAY)
}

/// What the server did, counted and in words: for the sum over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deeds {
    syns: u64,
    acks: u64,
    synacks: u64,
    refused: u64,
    path: u64,
    aborted: u64,
}

impl Deeds {
    /// Adds what was done with one handshake.
    pub(super) fn add(&mut self, visit: &Visit) {
        for (_, deed) in &visit.deeds {
            let count = match deed {
                Deed::SynDropped(_) => &mut self.syns,
                Deed::AckDropped(_) => &mut self.acks,
                Deed::SynAckAgain => &mut self.synacks,
                Deed::Refused => &mut self.refused,
                Deed::PathDropped(..) => &mut self.path,
                Deed::Ended(RequestEnding::Aborted) => &mut self.aborted,
                Deed::SynAck | Deed::Enqueued(_) | Deed::Ended(_) => continue,
            };
            *count += 1;
        }
    }

    /// `25 SYNs dropped, 3 final ACKs dropped`; empty if there is nothing to count.
    pub(super) fn words(&self) -> String {
        let all = [
            (self.syns, "SYN dropped", "SYNs dropped"),
            (self.acks, "final ACK dropped", "final ACKs dropped"),
            (self.synacks, "SYN-ACK sent again", "SYN-ACKs sent again"),
            (self.refused, "SYN answered by RST", "SYNs answered by RST"),
            (self.path, "packet dropped on its way", "packets dropped on their way"),
            (self.aborted, "request reset", "requests reset"),
        ];
        let said: Vec<String> = all
            .into_iter()
            .filter(|(count, _, _)| *count > 0)
            .map(|(count, one, many)| crate::finding::words::count(count, one, many))
            .collect();
        said.join(", ")
    }
}

/// A deed in words.
pub(super) fn deed_words(deed: &Deed) -> String {
    match deed {
        Deed::SynDropped(SynDropCause::AcceptQueue) => "SYN dropped: the accept queue is full".to_owned(),
        Deed::SynDropped(SynDropCause::SynQueue) => "SYN dropped: the SYN queue is full".to_owned(),
        Deed::SynDropped(SynDropCause::MaxSynBacklog) => {
            "SYN dropped: the rest of tcp_max_syn_backlog is kept for known peers".to_owned()
        }
        Deed::SynDropped(SynDropCause::NoRoute) => "SYN dropped: no route back to the client".to_owned(),
        Deed::SynDropped(SynDropCause::Other) => "SYN dropped".to_owned(),
        Deed::AckDropped(AckDropCause::AcceptQueue) => {
            "final ACK dropped: the accept queue is full".to_owned()
        }
        Deed::AckDropped(AckDropCause::Other) => "final ACK dropped".to_owned(),
        Deed::SynAck => "SYN answered".to_owned(),
        Deed::SynAckAgain => "SYN-ACK sent again".to_owned(),
        Deed::Refused => "SYN answered by RST: nobody listens".to_owned(),
        Deed::PathDropped(packet, reason) if reason.is_empty() => format!("{packet} dropped on its way"),
        Deed::PathDropped(packet, reason) => format!("{packet} dropped on its way: {reason}"),
        Deed::Enqueued(_) => "in the accept queue".to_owned(),
        Deed::Ended(how) => format!("request ended: {}", how.name()),
    }
}

/// What the client did, with when.
pub(super) fn client_steps(attempt: &Attempt) -> Vec<(Timestamp, String)> {
    let mut steps = Vec::new();
    steps.extend(attempt.began.map(|time| (time, "connect()".to_owned())));
    steps.extend(attempt.sent_again.iter().map(|time| (*time, "SYN sent again".to_owned())));
    steps.extend(attempt.ended.map(|(time, result)| (time, result.name().to_owned())));
    steps
}
