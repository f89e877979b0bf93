//! What some seconds of tracing add to a stock: how fast connections come and go, what was dropped where, how long they
//! waited.

use std::collections::HashMap;
use std::time::Duration;

use super::{Listener, Stock};
use crate::event::{Acceptor, Distribution, Event, Kind, ListenerTotals, SampleSource, Timestamp};
use crate::finding::{Engine, Finding, State};

/// What a trace has seen of one listener. `None` where the probes of this host cannot know.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// How long it was traced.
    pub span: Duration,
    /// Counts of that time.
    pub totals: ListenerTotals,
    /// Accepted when the counts were last read all at once: single accepts are known sooner than what was completed.
    pub accepted_then: Option<u64>,
    /// Whether these were counted by probes, or read now and then.
    pub source: Option<SampleSource>,
    /// Drops deduced from the namespace's counters where no probe sees them.
    pub inferred_drops: u64,
    /// Accept waits.
    pub waits: Option<Distribution>,
    /// Handshake times: first SYN-ACK to final ACK.
    pub handshakes: Option<Distribution>,
    /// Threads that accepted, as far as they were seen.
    pub acceptors: u64,
    /// Who accepted last.
    pub last_acceptor: Option<Acceptor>,
}

impl Traced {
    /// Everything that was dropped at the listener, at either stage and for whatever cause.
    pub fn drops(&self) -> Option<u64> {
        let totals = &self.totals;
        let counted = [
            totals.syn_drops_accept_queue,
            totals.syn_drops_syn_queue,
            totals.syn_drops_max_syn_backlog,
            totals.syn_drops_no_route,
            totals.ack_drops_accept_queue,
            totals.ack_drops_other,
        ];
        let known = counted.iter().any(Option::is_some) || self.inferred_drops > 0;
        known.then(|| counted.iter().flatten().sum::<u64>() + self.inferred_drops)
    }

    /// `count` of the time traced, per second.
    pub fn per_second(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate has few significant digits")]
        let count = count as f64;
        count / self.span.as_secs_f64().max(0.001)
    }
}

/// Follows a trace, to lay it beside a stock in the end.
#[derive(Default)]
pub struct Tracing {
    engine: Engine,
    started: Option<Timestamp>,
    /// By address in kernel memory and by inode: the latest that was read of each listener.
    read: HashMap<u64, Read>,
    findings: Vec<Finding>,
}

#[derive(Default)]
struct Read {
    source: Option<SampleSource>,
    waits: Option<Distribution>,
    handshakes: Option<Distribution>,
}

impl Tracing {
    /// For a question about one server, where a single drop is an answer.
    pub fn of_one_server() -> Self {
        Self { engine: Engine::of_one_server(), ..Self::default() }
    }

    /// Takes in what came of the trace, in order.
    pub fn feed(&mut self, events: &[Event]) {
        for event in events {
            if let Kind::ListenerSample(sample) = &event.kind {
                let read = self.read.entry(sample.listener.inode).or_default();
                read.source = Some(sample.source);
                // Counts since the probes were attached: the latest is the whole.
                read.waits = sample.waits.clone().or_else(|| read.waits.take());
                read.handshakes = sample.handshakes.clone().or_else(|| read.handshakes.take());
            }
            self.started.get_or_insert(event.time);
            let findings = &mut self.findings;
            self.engine.on_event(event, |finding| match finding.state {
                State::Opened => findings.push(finding),
                State::Updated | State::Closed => {
                    if let Some(known) = findings.iter_mut().find(|known| known.id == finding.id) {
                        *known = finding;
                    }
                }
            });
        }
    }

    /// What the trace knows.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The findings, each as it was last told.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How long it has gone on.
    pub fn span(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| self.engine.world().now().since(started))
    }

    /// Adds what was seen to each listener of a stock.
    pub fn add_to(&self, stock: &mut Stock) {
        for listener in &mut stock.listeners {
            self.add_to_listener(listener);
        }
    }

    /// Adds what was seen of one listener.
    pub fn add_to_listener(&self, listener: &mut Listener) {
        let inode = listener.socket.inode;
        if inode == 0 {
            // The kernel's own: nothing names it in the trace.
            return;
        }
        let Some(known) = self.engine.world().listeners().with_inode(inode) else {
            listener.traced = Some(self.nothing_seen());
            return;
        };
        let read = self.read.get(&inode);
        if let Some(call) = known.listen {
            listener.limit.backlog = call.backlog;
            listener.limit.somaxconn_then = call.somaxconn;
        }
        listener.traced = Some(Traced {
            span: self.span(),
            totals: known.totals,
            accepted_then: known.readings.latest().map_or(known.totals.accepted, |reading| reading.accepted),
            source: read.and_then(|read| read.source),
            inferred_drops: known.inferred.count,
            waits: read.and_then(|read| read.waits.clone()),
            handshakes: read.and_then(|read| read.handshakes.clone()),
            acceptors: known.acceptors.count(),
            last_acceptor: known.totals.last_acceptor,
        });
    }

    /// A listener at which nothing happened is not in the kernel side's map: what the probes would have counted is zero.
    fn nothing_seen(&self) -> Traced {
        let counts = self.engine.world().observes(crate::event::observation::SYN_DROP);
        let zero = self.engine.world().as_far_as_observed(ListenerTotals::ZERO);
        Traced {
            span: self.span(),
            totals: if counts { zero } else { ListenerTotals::default() },
            accepted_then: None,
            source: counts.then_some(SampleSource::Observed),
            inferred_drops: 0,
            waits: None,
            handshakes: None,
            acceptors: 0,
            last_acceptor: None,
        }
    }
}
