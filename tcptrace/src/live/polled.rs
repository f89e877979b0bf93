//! What the tracepoint tier polls: listeners, their queues and drops, from sock_diag, joined with what its probes count by
//! port.

use std::collections::HashMap;

use crate::{
    event::{Distribution, Kind, ListenerRef, ListenerSample, ListenerTotals, SampleSource},
    host::sock_diag::Listener,
};

use super::places;
use super::syn_queues::Requests;

/// Counts by namespace and port, from the probes of the tracepoint tier.
pub(super) type ByPort = HashMap<(u32, u16), (ListenerTotals, Option<Distribution>)>;

/// Listeners as last said.
#[derive(Default)]
pub(super) struct Polled {
    said: HashMap<(u32, u64), ListenerSample>,
}

impl Polled {
    /// A sample of each listener that changed, and with `waiting_too` of each where connections wait. Where several listeners share a port, what the probes counted by port
    /// belongs to nobody in particular and is left out.
    pub(super) fn samples(
        &mut self,
        listeners: &[(u32, Listener)],
        by_port: &ByPort,
        requests: &Requests,
        waiting_too: bool,
    ) -> Vec<Kind> {
        let mut sharing: HashMap<(u32, u16), u32> = HashMap::new();
        for (netns, listener) in listeners {
            *sharing.entry((*netns, listener.local.port())).or_default() += 1;
        }
        let mut now = HashMap::new();
        let mut events = Vec::new();
        for (netns, listener) in listeners {
            let port = (*netns, listener.local.port());
            let counted = if sharing.get(&port) == Some(&1) { by_port.get(&port).cloned() } else { None };
            let (counted, waits) = counted.unwrap_or_default();
            // What several listeners share is nobody's in particular.
            let requests = requests.get(&(*netns, listener.cookie)).filter(|requests| !requests.shared);
            let sample = ListenerSample {
                endpoints: places::endpoints(*netns, listener),
                listener: ListenerRef {
                    sk: 0,
                    inode: listener.inode,
                    depth: listener.depth,
                    limit: listener.limit,
                    syn_queue: requests.map_or(0, |requests| requests.requests),
                },
                source: SampleSource::Polled,
                totals: ListenerTotals {
                    socket_drops: listener.drops.map(u64::from),
                    syn_queue_max: requests.map(|requests| requests.requests),
                    deferred: requests.map(|requests| requests.deferred.into()),
                    ..counted
                },
                waits,
                handshakes: None,
            };
            let key = (*netns, listener.cookie);
            if self.said.get(&key) != Some(&sample) || (waiting_too && listener.depth > 0) {
                events.push(Kind::ListenerSample(Box::new(sample.clone())));
            }
            now.insert(key, sample);
        }
        self.said = now;
        events
    }
}
