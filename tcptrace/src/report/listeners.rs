//! Listeners: what their queues did over time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::correlate::Correlator;
use crate::event::{Distribution, ListenerSample, ListenerTotals, Timestamp};
use crate::finding::ProcessName;

use super::series::Series;

/// So many listeners are followed; the rest is counted.
const LISTENERS: usize = 2_000;

/// Listeners whose first sample comes so soon were there before the recording.
const BOOTSTRAP: Duration = Duration::from_millis(500);

/// A listener in a report.
#[derive(Clone, Debug)]
pub struct ListenerReport {
    /// Its address.
    pub address: SocketAddr,
    /// Its network namespace.
    pub netns: u32,
    /// Process that has it, if known.
    pub pid: Option<u32>,
    /// That process's name.
    pub comm: Option<String>,
    /// Its container, pod or unit.
    pub container: Option<String>,
    /// The same as findings name it, with the other processes that have the listener.
    pub process: Option<ProcessName>,
    /// Limit of its accept queue, as last seen.
    pub queue_limit: u32,
    /// Deepest accept queue seen.
    pub queue_max: u32,
    /// SYNs that reached it in this time, where that is counted.
    pub syns: Option<u64>,
    /// SYNs dropped at its full accept queue.
    pub syn_drops: Option<u64>,
    /// Final ACKs dropped there.
    pub ack_drops: Option<u64>,
    /// The kernel's `sk_drops`: what is left where drops are not seen one by one. Counts a dropped final ACK twice.
    pub socket_drops: Option<u64>,
    /// SYNs dropped at its full SYN queue.
    pub syn_queue_drops: Option<u64>,
    /// SYN-ACKs sent again.
    pub synack_retransmits: Option<u64>,
    /// Connections put into the accept queue.
    pub enqueued: Option<u64>,
    /// Connections accepted.
    pub accepted: Option<u64>,
    /// Accept wait that half of the connections were not over, ms.
    pub wait_p50_ms: Option<f64>,
    /// The same of 99 %.
    pub wait_p99_ms: Option<f64>,
    /// Longest accept wait, ms.
    pub wait_max_ms: Option<f64>,
    /// All of its accept waits.
    pub waits: Distribution,
    /// All of its handshake times.
    pub handshakes: Distribution,
    /// When it was closed, if it was.
    pub closed: Option<Timestamp>,
    /// Over time.
    pub series: Series,
}

impl ListenerReport {
    /// Connections lost at it, at either stage, whatever queue was full; where SYNs are not seen one by one, by the kernel's
    /// count of the socket.
    pub fn drops(&self) -> u64 {
        lost(self.syn_drops, self.syn_queue_drops, self.ack_drops, self.socket_drops)
    }

    /// `nginx[70]`, or a dash.
    pub fn owner(&self) -> String {
        match (&self.comm, self.pid) {
            (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
            _ => "-".to_owned(),
        }
    }
}

struct Followed {
    report: ListenerReport,
    /// Its counts before the time that the report is about.
    before: ListenerTotals,
    waits_before: Distribution,
    handshakes_before: Distribution,
    last: ListenerTotals,
    waits: Distribution,
    handshakes: Distribution,
    inode: u64,
}

/// Listeners as their samples come.
#[derive(Default)]
pub(super) struct Listeners {
    /// By namespace and address in kernel memory, or inode where that is not known.
    followed: BTreeMap<(u32, u64), Followed>,
    untold: u64,
}

impl Listeners {
    pub(super) fn note(
        &mut self,
        time: Timestamp,
        start: Timestamp,
        within: bool,
        sample: &ListenerSample,
        world: &Correlator,
    ) {
        let of = &sample.listener;
        let key = (sample.endpoints.netns, if of.sk != 0 { of.sk } else { of.inode });
        let full = self.followed.len() >= LISTENERS;
        if full && !self.followed.contains_key(&key) {
            self.untold += 1;
            return;
        }
        let followed = self.followed.entry(key).or_insert_with(|| Followed {
            report: ListenerReport {
                address: sample.endpoints.local,
                netns: sample.endpoints.netns,
                pid: None,
                comm: None,
                container: None,
                process: None,
                queue_limit: of.limit,
                queue_max: 0,
                syns: None,
                syn_drops: None,
                ack_drops: None,
                socket_drops: None,
                syn_queue_drops: None,
                synack_retransmits: None,
                enqueued: None,
                accepted: None,
                wait_p50_ms: None,
                wait_p99_ms: None,
                wait_max_ms: None,
                waits: Distribution::default(),
                handshakes: Distribution::default(),
                closed: None,
                series: Series::new(start),
            },
            before: ListenerTotals::default(),
            waits_before: Distribution::default(),
            handshakes_before: Distribution::default(),
            last: ListenerTotals::default(),
            waits: Distribution::default(),
            handshakes: Distribution::default(),
            inode: of.inode,
        });
        if followed.last == ListenerTotals::default() && time.since(start) < BOOTSTRAP {
            // The kernel counts these from the listener's birth, which was before ours.
            followed.last.socket_drops = sample.totals.socket_drops;
            followed.before.socket_drops = sample.totals.socket_drops;
        }
        if followed.report.pid.is_none() {
            name(&mut followed.report, of.inode, world);
        }
        followed.report.queue_limit = of.limit;
        let grown = sample.totals.less(&followed.last);
        followed.last = sample.totals;
        if within {
            // What was too short for a sample is known from the deepest queue, which only grows.
            let seen = grown_maximum(sample, &followed.report);
            followed.report.queue_max = followed.report.queue_max.max(seen);
            let bin = followed.report.series.at(time);
            bin.queue = bin.queue.max(Some(of.depth));
            bin.syn_queue = bin.syn_queue.max(Some(of.syn_queue));
            bin.drops = bin.drops.saturating_add(drops(&grown));
            bin.accepted = bin.accepted.saturating_add(grown.accepted.unwrap_or(0));
        } else {
            followed.before = sample.totals;
        }
        if let Some(waits) = &sample.waits {
            let news = waits.since(&followed.waits);
            if within {
                followed.report.series.at(time).wait(&news);
            } else {
                followed.waits_before = waits.clone();
            }
            followed.waits = waits.clone();
        }
        if let Some(handshakes) = &sample.handshakes {
            if !within {
                followed.handshakes_before = handshakes.clone();
            }
            followed.handshakes = handshakes.clone();
        }
    }

    /// A listener was closed, with its last counts.
    pub(super) fn close(
        &mut self,
        time: Timestamp,
        within: bool,
        key: (u32, u64),
        last: Option<&ListenerTotals>,
    ) {
        let Some(followed) = self.followed.get_mut(&key) else { return };
        if let Some(last) = last {
            let grown = last.less(&followed.last);
            followed.last.raise_to(last);
            if within {
                let bin = followed.report.series.at(time);
                bin.drops = bin.drops.saturating_add(drops(&grown));
                bin.accepted = bin.accepted.saturating_add(grown.accepted.unwrap_or(0));
            } else {
                followed.before = followed.last;
            }
        }
        followed.report.closed = Some(time);
    }

    /// Those that had anything to do, the worst first; and how many were too many to follow.
    pub(super) fn finish(self, world: &Correlator) -> (Vec<ListenerReport>, u64) {
        let mut reports: Vec<ListenerReport> = self
            .followed
            .into_values()
            .map(|followed| {
                let mut report = followed.report;
                if report.pid.is_none() {
                    name(&mut report, followed.inode, world);
                }
                let totals = followed.last.less(&followed.before);
                report.syns = totals.syns;
                report.syn_drops = totals.syn_drops_accept_queue;
                report.ack_drops = totals.ack_drops_accept_queue;
                report.socket_drops = totals.socket_drops;
                report.syn_queue_drops = sum(totals.syn_drops_syn_queue, totals.syn_drops_max_syn_backlog);
                report.synack_retransmits = sum(totals.retransmits_timer, totals.retransmits_duplicate_syn);
                report.enqueued = totals.enqueued;
                report.accepted = totals.accepted;
                report.waits = followed.waits.since(&followed.waits_before);
                report.handshakes = followed.handshakes.since(&followed.handshakes_before);
                report.wait_p50_ms = milliseconds(&report.waits, 0.5);
                report.wait_p99_ms = milliseconds(&report.waits, 0.99);
                report.wait_max_ms = totals.wait_max_ns.map(as_milliseconds);
                report
            })
            .collect();
        reports.sort_by(|a, b| {
            b.drops()
                .cmp(&a.drops())
                .then(b.queue_max.cmp(&a.queue_max))
                .then(b.accepted.cmp(&a.accepted))
                .then(a.address.cmp(&b.address))
        });
        (reports, self.untold)
    }
}

fn grown_maximum(sample: &ListenerSample, so_far: &ListenerReport) -> u32 {
    // The deepest queue that the kernel side saw may lie before the time of the report: only what is deeper than all that was
    // seen so far is of now, and at the first sample nobody knows.
    let known = !so_far.series.bins.is_empty();
    let deepest = sample.totals.depth_max.filter(|_| known).unwrap_or(0);
    deepest.max(sample.listener.depth)
}

fn name(report: &mut ListenerReport, inode: u64, world: &Correlator) {
    let Some(owner) = world.listeners().with_inode(inode).and_then(|listener| listener.owners.first()) else {
        return;
    };
    report.pid = Some(owner.pid);
    let info = world.processes().info(owner.pid);
    report.comm = Some(info.map_or_else(|| owner.comm.clone(), |info| info.comm.clone()));
    report.container = info.and_then(|info| info.container.clone());
    let listener = world.listeners().with_inode(inode);
    report.process = listener.map(|of| ProcessName::of_owners(&of.owners, world.processes()));
}

fn drops(totals: &ListenerTotals) -> u64 {
    let syn_queue = sum(totals.syn_drops_syn_queue, totals.syn_drops_max_syn_backlog);
    lost(totals.syn_drops_accept_queue, syn_queue, totals.ack_drops_accept_queue, totals.socket_drops)
}

fn lost(syns: Option<u64>, syn_queue: Option<u64>, acks: Option<u64>, socket: Option<u64>) -> u64 {
    let seen = |of: Option<u64>| of.unwrap_or(0);
    match (syns, socket) {
        // `sk_drops` has each final ACK twice.
        (None, Some(socket)) => socket.saturating_sub(seen(acks)).max(seen(acks)),
        _ => seen(syns).saturating_add(seen(syn_queue)).saturating_add(seen(acks)),
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    }
}

fn milliseconds(waits: &Distribution, quantile: f64) -> Option<f64> {
    waits.quantile(quantile).map(|wait| round(wait.as_secs_f64() * 1e3))
}

#[expect(clippy::cast_precision_loss, reason = "a wait of 2^52 ns would be 52 days")]
fn as_milliseconds(ns: u64) -> f64 {
    round(ns as f64 / 1e6)
}

/// To a microsecond.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}
