//! What the kernel side counts of listeners, as samples: read once a second if it changed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::Ipv6Addr;
use std::time::Duration;

use tcptrace_common::listener::{HISTOGRAM_BUCKETS, ListenerState, PREFIX_BITS_V4, PREFIX_BITS_V6};
use zerocopy::IntoBytes as _;

use super::polled::ByPort;
use super::{Live, places, polled};
use crate::event::{
    Distribution, Event, Kind, ListenerRef, ListenerSample, ListenerTotals, OwnerConfidence, PrefixSample,
    Timestamp, listener_sample,
};
use crate::host::sock_diag::Listener;
use crate::probe::BackEnd;

/// Seconds between two looks at the histograms.
const IN_FULL: u64 = 5;

/// For how long after an unanswered SYN-ACK the kernel side counts connections by remote network.
const PREFIX_WATCH: Duration = Duration::from_secs(60);

/// After so long without an accept, what the owner of a listener with waiting connections does is worth a look.
const WAITING: Duration = Duration::from_secs(2);

impl Live {
    /// Whether a look between two seconds may show something: reading thousands of listeners that nothing happens to costs more
    /// than all the rest. A queue fills by connections that the probes count, and drops come with a full queue.
    pub(super) fn is_anything_new_of_listeners(&self) -> bool {
        let Some(polled) = &self.polled else { return false };
        let counts_arrivals = self.tracer.coverage().back_end("enqueue") == Some(BackEnd::Tracepoint);
        if !counts_arrivals || polled.has_waiting() || self.syn_queues.is_watching() {
            return true;
        }
        self.digest_of_ports() != self.said_ports
    }

    /// What the tracepoint tier counted by port, as one number.
    fn digest_of_ports(&self) -> u64 {
        let mut digest = 0_u64;
        self.each_listener(|key, state| {
            if is_port_key(key) {
                let mut hasher = DefaultHasher::new();
                (key, state.as_bytes()).hash(&mut hasher);
                // In whatever order the map is read.
                digest = digest.wrapping_add(hasher.finish());
            }
        });
        digest
    }

    pub(super) fn look_at_listeners(&mut self, into: &mut Vec<Event>, waiting_too: bool) {
        let Some(mut polled) = self.polled.take() else { return };
        // Before the queues are read: what comes in between is news in the next look.
        self.said_ports = self.digest_of_ports();
        let listeners = self.places.listeners();
        let requests = self.syn_queues.look(&mut self.places, &listeners, self.moment);
        let mut by_port = self.by_port();
        let owns = |pid, inode| self.people.owners_of(inode).contains(&pid);
        polled::give_to_listeners(&mut by_port, &listeners, &self.acceptors, owns);
        let samples = polled.samples(&listeners, &by_port, &requests, waiting_too);
        self.polled = Some(polled);
        let now = self.moment;
        let mut strangers = Vec::new();
        for (netns, listener) in &listeners {
            // Full, or waiting: which of the two matters is for the findings to say.
            if listener.depth > 0 {
                let ends = places::endpoints(*netns, listener);
                let listener = ListenerRef { inode: listener.inode, ..ListenerRef::default() };
                self.trouble(listener, ends, &mut strangers);
            }
        }
        let owners = if strangers.is_empty() {
            Vec::new()
        } else {
            self.people.owner_events(&strangers, OwnerConfidence::Likely)
        };
        into.extend(owners.into_iter().chain(samples).map(|kind| Event { time: now, kind }));
    }

    /// What the tracepoint tier counted by namespace and port.
    fn by_port(&self) -> ByPort {
        let mut by_port = ByPort::new();
        self.each_listener(|key, state| {
            if is_port_key(key) {
                let sample = listener_sample(key, state, self.clock);
                by_port.insert(
                    (sample.endpoints.netns, sample.endpoints.local.port()),
                    (self.known_by_port(sample.totals), self.tracer.waits(key).map(distribution)),
                );
            }
        });
        by_port
    }

    /// Of the counts kept by port, those that the attached probes make.
    fn known_by_port(&self, totals: ListenerTotals) -> ListenerTotals {
        let sees = |name: &str| self.tracer.coverage().back_end(name).is_some();
        ListenerTotals {
            ack_drops_accept_queue: totals.ack_drops_accept_queue.filter(|_| sees("ack-drop")),
            enqueued: totals.enqueued.filter(|_| sees("enqueue")),
            accepted: totals.accepted.filter(|_| sees("accept")),
            wait_total_ns: totals.wait_total_ns,
            waits: totals.waits,
            wait_max_ns: totals.wait_max_ns,
            last_accept: totals.last_accept,
            last_enqueue: totals.last_enqueue,
            last_acceptor: totals.last_acceptor,
            // The rest is counted by the full tiers only.
            ..ListenerTotals::default()
        }
    }

    /// Hands every listener in the kernel's map to `each`.
    fn each_listener(&self, mut each: impl FnMut(u64, &ListenerState)) {
        if let Err(error) = self.tracer.listeners(&mut each) {
            log::error!("the listeners' counters cannot be read: {error}");
        }
    }

    /// The listeners whose counters changed since the last second, and those with connections that wait.
    fn news_of_listeners(&mut self) -> Vec<(u64, bool, ListenerSample)> {
        let mut news = Vec::new();
        let mut said = HashMap::with_capacity(self.said_listeners.len());
        self.each_listener(|key, state| {
            if is_port_key(key) {
                return;
            }
            let mut digest = DefaultHasher::new();
            state.as_bytes().hash(&mut digest);
            let digest = digest.finish();
            let changed = self.said_listeners.get(&key) != Some(&digest);
            said.insert(key, digest);
            if changed || state.depth > 0 || self.changed.contains(&key) {
                news.push((key, changed, listener_sample(key, state, self.clock)));
            }
        });
        self.said_listeners = said;
        news
    }

    /// What the kernel side counted of each listener, where that changed; with `in_full` also the histograms.
    pub(super) fn listener_samples(&mut self, in_full: bool) -> Vec<Kind> {
        let mut kinds = Vec::new();
        let counts_by_listener =
            self.tracer.coverage().back_end("syn-drop").is_some_and(|b| b < BackEnd::Tracepoint);
        if !counts_by_listener {
            return kinds;
        }
        // Each map is read by system calls, during which the kernel skips kprobes on this CPU: no more often than needed.
        self.seconds += 1;
        let in_full = in_full || self.seconds.is_multiple_of(IN_FULL);
        let mut shown = HashMap::new();
        for (key, mut changed, mut sample) in self.news_of_listeners() {
            if is_waiting(&sample, self.now())
                && let Some(depth) = self.shorter_queue(&sample, &mut shown)
            {
                sample.listener.depth = depth;
                changed = true;
            }
            if is_waiting(&sample, self.now()) {
                let troubled = (sample.listener.sk, sample.endpoints);
                self.troubled.entry(sample.listener.inode).or_insert(troubled);
            }
            self.last_retransmit = self.last_retransmit.max(sample.totals.last_retransmit);
            if changed {
                self.changed.insert(key);
            }
            // A histogram that was not read when its listener changed is news in the next full look.
            let look = in_full && self.changed.remove(&key);
            // Waiting is news as long as it lasts.
            if changed || look || sample.listener.depth > 0 {
                let mut news = sample;
                if look {
                    news.waits = self.tracer.waits(key).map(distribution);
                    news.handshakes = self.tracer.handshakes(key).map(distribution);
                }
                kinds.push(Kind::ListenerSample(Box::new(news)));
            }
        }
        if in_full && self.last_retransmit.is_some_and(|last| self.now().since(last) < PREFIX_WATCH) {
            kinds.extend(self.prefixes());
        }
        kinds
    }

    /// How long the accept queue of a listener really is, if that is less than what the kernel side saw last: an accept() that was
    /// asleep while another tracer attached to the function it sleeps in returns unseen. (The kernel changes the trampoline, and what
    /// waits in the old one leaves it without its exit programs: `bpf_tramp_image_put`.)
    fn shorter_queue(
        &mut self,
        sample: &ListenerSample,
        shown: &mut HashMap<u32, Vec<Listener>>,
    ) -> Option<u32> {
        let netns = sample.endpoints.netns;
        let shown = shown.entry(netns).or_insert_with(|| self.places.listeners_in(netns));
        let inode = Some(sample.listener.inode).filter(|inode| *inode != 0)?;
        let listener = shown.iter().find(|listener| listener.inode == inode)?;
        (listener.depth < sample.listener.depth).then_some(listener.depth)
    }

    /// Connections completed by remote network, where that changed.
    pub(super) fn prefixes(&mut self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for (key, completed) in self.tracer.prefixes() {
            let said = self.said_prefixes.insert((key.listener, key.prefix), completed);
            if said == Some(completed) {
                continue;
            }
            let network = Ipv6Addr::from(key.prefix).to_canonical();
            kinds.push(Kind::PrefixSample(PrefixSample {
                netns: self.netns_of(key.listener),
                sk: key.listener,
                network,
                bits: if network.is_ipv4() { PREFIX_BITS_V4 } else { PREFIX_BITS_V6 },
                completed,
            }));
        }
        kinds
    }

    /// The namespace of a listener; 0 if it is gone.
    pub(super) fn netns_of(&self, listener: u64) -> u32 {
        self.tracer.listener(listener).map_or(0, |state| state.endpoints.netns)
    }
}

/// A histogram of the kernel side, in the terms of events.
fn distribution(counts: [u32; HISTOGRAM_BUCKETS]) -> Distribution {
    Distribution::from_counts(counts.into_iter().map(u64::from))
}

/// Whether connections wait and nobody has accepted for a while.
fn is_waiting(sample: &ListenerSample, now: Timestamp) -> bool {
    let last = sample.totals.last_accept.max(sample.totals.last_enqueue);
    let stuck = sample.totals.last_accept.is_none_or(|accept| now.since(accept) >= WAITING);
    sample.listener.depth > 0 && stuck && last.is_some()
}

/// Keys of counts by port (tracepoint tier) are small; addresses of sockets are in the kernel's half.
fn is_port_key(key: u64) -> bool {
    key >> 48 == 0
}
