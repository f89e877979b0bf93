//! SYN queues where no probe sees them: half-open requests from sock_diag, looked at only while something points to them.
//!
//! A look walks the kernel's whole table of connections, so it is made for a namespace whose counters say that a SYN queue was
//! full, or in which a SYN-ACK was sent again, and for some seconds after that.

use std::collections::HashMap;
use std::time::Duration;

use crate::event::{CounterSample, Event, Kind, Timestamp};
use crate::host::sock_diag::{DiagSocket, Listener};
use crate::stock::{Doors, HalfOpen};

use super::places::Places;

/// How long after the last sign the requests of a namespace are looked at.
const WATCH: Duration = Duration::from_secs(10);

/// A look is as good as new for this long: requests stay for about a second, and listeners are read five times a second.
const FRESH: Duration = Duration::from_millis(500);

/// Half-open requests by namespace and the cookie of their listener. A listener that is not here was not looked at.
pub(super) type Requests = HashMap<(u32, u64), HalfOpen>;

/// Which namespaces are worth a look.
#[derive(Default)]
pub(super) struct SynQueues {
    until: HashMap<u32, Timestamp>,
    counted: HashMap<u32, u64>,
    /// What the last look found, and when that was.
    found: HashMap<u32, (Timestamp, Vec<DiagSocket>)>,
}

impl SynQueues {
    /// Takes in what may be a sign.
    pub(super) fn note(&mut self, event: &Event) {
        match &event.kind {
            Kind::SynAckRetransmit(again) => self.watch(again.endpoints.netns, event.time),
            Kind::CounterSample(sample) => {
                let counted = signs(sample);
                let before = self.counted.insert(sample.netns, counted);
                if before.is_some_and(|before| counted > before) {
                    self.watch(sample.netns, event.time);
                }
            }
            _ => {}
        }
    }

    /// Whether requests are looked at now.
    pub(super) fn is_watching(&self) -> bool {
        !self.until.is_empty()
    }

    fn watch(&mut self, netns: u32, time: Timestamp) {
        self.until.insert(netns, time.after(WATCH));
    }

    /// The requests of all listeners of the namespaces that are worth a look now.
    pub(super) fn look(
        &mut self,
        places: &mut Places,
        listeners: &[(u32, Listener)],
        now: Timestamp,
    ) -> Requests {
        self.until.retain(|_, until| now < *until);
        let until = &self.until;
        self.found.retain(|netns, (read, _)| until.contains_key(netns) && now.since(*read) < FRESH);
        let mut found = Requests::new();
        for &netns in self.until.keys() {
            let mine: Vec<Listener> = listeners
                .iter()
                .filter(|(of, _)| *of == netns)
                .map(|(_, listener)| listener.clone())
                .collect();
            if !self.found.contains_key(&netns)
                && let Some(requests) = places.half_open(netns)
            {
                self.found.insert(netns, (now, requests));
            }
            let Some((_, requests)) = self.found.get(&netns) else { continue };
            let mut doors = Doors::new(&mine);
            requests.iter().for_each(|request| doors.note(request));
            let counts = doors.into_found();
            found.extend(mine.iter().zip(counts).map(|(l, requests)| ((netns, l.cookie), requests)));
        }
        found
    }
}

/// What counts SYNs that met a full SYN queue. `ListenDrops` has those that the last quarter of `tcp_max_syn_backlog` turned
/// away, among others.
fn signs(sample: &CounterSample) -> u64 {
    let counters = [
        sample.req_queue_full_drop,
        sample.req_queue_full_do_cookies,
        sample.syncookies_sent,
        sample
            .listen_drops
            .zip(sample.listen_overflows)
            .map(|(all, overflows)| all.saturating_sub(overflows)),
    ];
    counters.into_iter().flatten().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_watched_while_its_counters_grow_and_a_while_after() {
        let mut queues = SynQueues::default();
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let counted = |queues: &mut SynQueues, seconds, drops| {
            let sample =
                CounterSample { netns: 7, req_queue_full_drop: Some(drops), ..CounterSample::default() };
            queues.note(&Event { time: at(seconds), kind: Kind::CounterSample(Box::new(sample)) });
            queues.until.get(&7).copied()
        };
        // What was counted before the tracer started is no sign.
        assert_eq!(counted(&mut queues, 1, 900), None);
        assert_eq!(counted(&mut queues, 2, 900), None);
        assert_eq!(counted(&mut queues, 3, 901), Some(at(13)));
        assert_eq!(counted(&mut queues, 4, 901), Some(at(13)));
        assert_eq!(counted(&mut queues, 5, 950), Some(at(15)));
    }
}
