//! Listeners: how full their queues are, how fast they are filled and emptied, how long connections wait, who has them.

use std::cmp::Ordering;
use std::time::Duration;

use crate::correlate::{Listener, ListenerId, per_second};
use crate::event::{ListenerTotals, Timestamp};
use crate::finding::{QueueLimit, at_device, serving};
use crate::output::{Meaning, Row as Line};
use crate::stock::{Limit, LimitedBy};

use super::super::filter::{Filter, Subject};
use super::super::format::{age, or_dash, short_count, short_rate, short_span};
use super::super::model::Model;
use super::findings::{blank, heading, plain};
use super::{Cell, Column, Cx, Row, RowKey, facts, most, number};

/// Rates are of this time.
const WINDOW: Duration = Duration::from_secs(3);

/// A listener at one moment.
#[derive(Clone, Debug)]
pub(crate) struct ListenerRow {
    id: ListenerId,
    place: String,
    port: u16,
    netns: u32,
    owner: String,
    pid: Option<u32>,
    comm: String,
    others: Vec<(u32, String)>,
    container: Option<String>,
    depth: u32,
    limit: Option<u32>,
    set_by: LimitedBy,
    backlog: Option<u32>,
    somaxconn: Option<u32>,
    syn_queue: Option<u32>,
    depths: Vec<u32>,
    /// SYNs that reach it.
    syns: Option<f64>,
    /// Connections put into its queue.
    queued: Option<f64>,
    accepts: Option<f64>,
    drops_per_s: Option<f64>,
    p50: Option<Duration>,
    p99: Option<Duration>,
    longest: Option<Duration>,
    drops: u64,
    inferred: bool,
    stalled: Option<Duration>,
    closed: Option<Timestamp>,
    acceptors: u64,
    totals: ListenerTotals,
}

/// Every listener that is remembered.
pub(super) fn rows(model: &Model) -> Vec<ListenerRow> {
    model.world().listeners().iter().map(|listener| ListenerRow::of(listener, model)).collect()
}

impl ListenerRow {
    fn of(listener: &Listener, model: &Model) -> Self {
        let world = model.world();
        let now = world.now();
        let process = serving(listener, world.processes());
        let netns = listener.endpoints.netns;
        let device = world.device_name(netns, listener.endpoints.device);
        let limit = QueueLimit::of(listener, world.namespace(netns));
        let of_limit = limit.map(|of| Limit {
            limit: of.limit,
            backlog: of.asked,
            somaxconn: of.somaxconn_now,
            somaxconn_then: of.somaxconn_then,
        });
        let rates = Rates::of(listener, now);
        let waits = listener.waits.recent().map(|(waits, _)| waits).filter(|waits| !waits.is_empty());
        let waits = waits.or_else(|| listener.waits.all().cloned());
        let wait = |quantile: f64| waits.as_ref().and_then(|waits| waits.quantile(quantile));
        let totals = listener.totals;
        let syn_queue_drops = totals.syn_drops_syn_queue.unwrap_or(0)
            + totals.syn_drops_max_syn_backlog.unwrap_or(0)
            + listener.inferred_syns.drops
            + listener.inferred_syns.reserved;
        Self {
            id: listener.id,
            place: at_device(listener.endpoints.local, device.as_deref()),
            port: listener.endpoints.local.port(),
            netns,
            owner: process.as_ref().map_or_else(|| unknown_owner(listener), ToString::to_string),
            pid: process.as_ref().and_then(|process| process.pid),
            comm: process.as_ref().and_then(|process| process.comm.clone()).unwrap_or_default(),
            others: process.as_ref().map_or_else(Vec::new, |process| {
                process.also.iter().map(|other| (other.pid, other.comm.clone())).collect()
            }),
            container: process.and_then(|process| process.container),
            depth: listener.depth,
            limit: listener.limit_seen.then_some(listener.limit),
            set_by: of_limit.map_or(LimitedBy::Unknown, |of| of.limited_by()),
            backlog: of_limit.and_then(|of| of.backlog),
            somaxconn: of_limit.and_then(|of| of.somaxconn),
            syn_queue: listener.syn_queue,
            depths: model.depths(listener),
            syns: rates.syns,
            queued: rates.queued,
            accepts: rates.accepts,
            drops_per_s: rates.drops,
            p50: wait(0.5),
            p99: wait(0.99),
            longest: totals.wait_max_ns.filter(|longest| *longest > 0).map(Duration::from_nanos),
            drops: listener.overflows().total() + syn_queue_drops,
            inferred: listener.inferred.count > 0 || listener.inferred_syns.drops > 0,
            stalled: listener.stalled_since().map(|since| now.since(since)),
            closed: listener.closed,
            acceptors: listener.acceptors.count(),
            totals,
        }
    }

    /// How full its queue is: it holds one more than its limit.
    fn fill(&self) -> f64 {
        self.limit.map_or(0.0, |limit| f64::from(self.depth) / (f64::from(limit) + 1.0))
    }

    fn is_full(&self) -> bool {
        self.closed.is_none() && self.limit.is_some_and(|limit| self.depth > limit)
    }

    fn queue_meaning(&self) -> Option<Meaning> {
        match () {
            () if self.closed.is_some() => Some(Meaning::Faint),
            () if self.is_full() => Some(Meaning::Critical),
            () if self.fill() >= 0.7 => Some(Meaning::Warning),
            () => None,
        }
    }

    /// `backlog`, `somaxconn?`: what set the limit, and whether that is certain.
    fn knob(&self) -> String {
        let word = match self.set_by {
            LimitedBy::Argument { .. } => "backlog",
            LimitedBy::Somaxconn | LimitedBy::ProbablySomaxconn => "somaxconn",
            LimitedBy::Unknown => "-",
        };
        let doubt = if self.set_by.confidence() == Some("likely") { "?" } else { "" };
        format!("{word}{doubt}")
    }
}

fn unknown_owner(listener: &Listener) -> String {
    match &listener.made_by {
        Some(task) => format!("kernel (for {}[{}])", task.comm, task.pid),
        None => "-".to_owned(),
    }
}

struct Rates {
    /// SYNs that reach it.
    syns: Option<f64>,
    /// Connections put into its queue.
    queued: Option<f64>,
    accepts: Option<f64>,
    drops: Option<f64>,
}

impl Rates {
    /// Over the last seconds. A listener that is not read again has not changed since.
    fn of(listener: &Listener, now: Timestamp) -> Self {
        let from = now.before(WINDOW);
        let (Some(before), Some(latest)) = (listener.readings.at(from), listener.readings.latest()) else {
            return Self { syns: None, queued: None, accepts: None, drops: None };
        };
        // What changed between the two has changed since the first of them was made, and until now.
        let span = if before.time <= from { WINDOW } else { now.since(before.time) };
        let grown =
            |of: fn(&crate::correlate::Reading) -> Option<u64>| per_second(of(before), of(latest), span);
        Self {
            syns: grown(|of| of.syns),
            queued: grown(|of| of.enqueued),
            accepts: grown(|of| of.accepted),
            drops: per_second(Some(before.overflows), Some(latest.overflows), span),
        }
    }
}

const RIGHT: bool = true;
const LEFT: bool = false;

impl Row for ListenerRow {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            title: "listener",
            width: 15,
            grow: 2,
            right: LEFT,
            rank: 0,
            cell: |row, _| Cell::Text(row.place.clone(), row.closed.map(|_| Meaning::Faint)),
            order: Some(|one, other| {
                (one.port, &one.place, one.netns).cmp(&(other.port, &other.place, other.netns))
            }),
        },
        Column {
            title: "owner",
            width: 15,
            grow: 2,
            right: LEFT,
            rank: 0,
            cell: |row, _| Cell::plain(row.owner.clone()),
            order: Some(|one, other| one.owner.cmp(&other.owner)),
        },
        Column {
            title: "container",
            width: 12,
            grow: 2,
            right: LEFT,
            rank: 9,
            cell: |row, _| Cell::plain(row.container.clone().unwrap_or_else(|| "-".to_owned())),
            order: Some(|one, other| one.container.cmp(&other.container)),
        },
        Column {
            title: "netns",
            width: 10,
            grow: 0,
            right: LEFT,
            rank: 9,
            cell: |row, cx| Cell::plain(cx.netns(row.netns)),
            order: None,
        },
        Column {
            title: "queue",
            width: 9,
            grow: 1,
            right: LEFT,
            rank: 4,
            cell: |row, _| Cell::Bar {
                part: row.depth.into(),
                whole: row.limit.map_or(0, |limit| u64::from(limit) + 1),
                meaning: row.queue_meaning(),
            },
            order: Some(|one, other| most(&one.fill(), &other.fill())),
        },
        Column {
            title: "depth/limit",
            width: 11,
            grow: 0,
            right: RIGHT,
            rank: 0,
            cell: |row, _| {
                let limit = or_dash(row.limit, |limit| limit.to_string());
                Cell::Text(format!("{}/{limit}", row.depth), row.queue_meaning())
            },
            order: Some(|one, other| most(&one.depth, &other.depth)),
        },
        Column {
            title: "set by",
            width: 10,
            grow: 0,
            right: LEFT,
            rank: 2,
            cell: |row, _| Cell::plain(row.knob()),
            order: None,
        },
        Column {
            title: "depth, 1 s each",
            width: 15,
            grow: 3,
            right: LEFT,
            rank: 6,
            cell: |row, _| Cell::Spark {
                values: row.depths.clone(),
                whole: row.limit.map(|limit| limit.saturating_add(1)),
            },
            order: None,
        },
        number!("SYNs", 7, 6, |row| row.syns, Cell::rate),
        number!("queued", 7, 3, |row| row.queued, Cell::rate),
        number!("accept", 7, 3, |row| row.accepts, Cell::rate),
        number!("p50", 6, 8, |row| row.p50, Cell::span),
        number!("p99", 6, 5, |row| row.p99, Cell::span),
        number!("max", 6, 7, |row| row.longest, Cell::span),
        Column {
            title: "drops",
            width: 6,
            grow: 0,
            right: RIGHT,
            rank: 0,
            cell: |row, _| {
                let about = if row.inferred { "~" } else { "" };
                let meaning = match row.drops_per_s {
                    Some(rate) if rate > 0.0 && row.closed.is_none() => Some(Meaning::Critical),
                    _ => (row.drops > 0).then_some(Meaning::Warning),
                };
                Cell::Text(format!("{about}{}", short_count(row.drops)), meaning)
            },
            order: Some(|one, other| most(&one.drops, &other.drops)),
        },
    ];

    fn key(&self) -> RowKey {
        RowKey::Listener(self.id)
    }

    fn is_wanted(&self, filter: &Filter) -> bool {
        let mut processes: Vec<(u32, &str)> = self.pid.iter().map(|pid| (*pid, self.comm.as_str())).collect();
        processes.extend(self.others.iter().map(|(pid, comm)| (*pid, comm.as_str())));
        filter.wants(&Subject {
            netns: Some(self.netns),
            ports: [Some(self.port), None],
            processes: Some(processes),
            container: self.container.as_deref(),
            peer: None,
        })
    }

    fn title(&self, cx: &Cx<'_>) -> String {
        format!("listener {}{}", self.place, cx.elsewhere(self.netns))
    }

    fn detail(&self, cx: &Cx<'_>, width: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        let also: Vec<String> = self.others.iter().map(|(pid, comm)| format!("{comm}[{pid}]")).collect();
        let mut who = self.owner.clone();
        if !also.is_empty() {
            who.push_str(&format!(", also {}", also.join(", ")));
        }
        who.extend(self.container.iter().map(|container| format!(", in {container}")));
        lines.extend(facts("owner", vec![who], width));
        if let Some(closed) = self.closed {
            let at = crate::output::zone::second(&cx.clock.zone, closed);
            lines.extend(facts("closed", vec![format!("at {at}")], width));
        }
        lines.extend(facts("queue", vec![self.queue_in_words()], width));
        lines.extend(facts("limit", vec![self.limit_in_words()], width));
        lines.extend(facts("flow", vec![self.flow_in_words()], width));
        let waits = match (self.p50, self.p99, self.longest) {
            (None, None, None) => "no connection was seen to wait until it was accepted".to_owned(),
            (p50, p99, longest) => format!(
                "half of the connections waited no longer than {}, 99 % than {}, the longest {}",
                or_dash(p50, short_span),
                or_dash(p99, short_span),
                or_dash(longest, short_span)
            ),
        };
        lines.extend(facts("wait", vec![waits], width));
        lines.push(blank());
        lines.push(heading("Findings about it"));
        let about = |finding: &crate::finding::Finding| {
            finding.subject.netns == Some(self.netns)
                && finding.subject.address.is_some_and(|address| address.port() == self.port)
        };
        let found: Vec<Line> = cx
            .scene
            .findings
            .iter()
            .filter(|story| about(&story.latest))
            .map(|story| {
                let finding = &story.latest;
                let over = if story.is_open() { "" } else { ", over" };
                plain(format!(
                    "  #{} {} {}: {} ({}{over})",
                    finding.id,
                    finding.severity.name(),
                    finding.code,
                    finding.cause,
                    finding.confidence.name()
                ))
            })
            .collect();
        lines.extend(if found.is_empty() { vec![plain("  none".to_owned())] } else { found });
        lines.push(blank());
        lines.push(heading("Counted since the trace began (what is not listed cannot be seen here)"));
        let counts: Vec<String> =
            self.totals.counts().map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
        let text = counts.join(", ");
        lines.extend(crate::output::wrap(&text, "  ", "  ", width).into_iter().map(plain));
        lines
    }

    /// What hurts first.
    fn natural(&self, other: &Self) -> Ordering {
        let lives = |row: &Self| row.closed.is_none();
        most(&lives(self), &lives(other))
            .then(most(&self.is_full(), &other.is_full()))
            .then(most(&self.drops_per_s.unwrap_or(0.0), &other.drops_per_s.unwrap_or(0.0)))
            .then(most(&self.drops, &other.drops))
            .then(most(&self.stalled, &other.stalled))
            .then(most(&self.fill(), &other.fill()))
            .then(most(&self.queued, &other.queued))
            .then_with(|| (self.port, &self.place, self.netns).cmp(&(other.port, &other.place, other.netns)))
            .then(self.id.cmp(&other.id))
    }

    fn nothing() -> &'static str {
        "No process of this host listens, as far as is asked for."
    }
}

impl ListenerRow {
    fn queue_in_words(&self) -> String {
        let limit = or_dash(self.limit, |limit| limit.to_string());
        let full = if self.is_full() { ": it is full, and what comes next is dropped" } else { "" };
        let stalled = self
            .stalled
            .filter(|stalled| *stalled >= crate::config::thresholds().accept_stall.after)
            .map(|stalled| format!("; no accept() for {} though connections wait", age(stalled)));
        let half_open = or_dash(self.syn_queue, |requests| requests.to_string());
        format!(
            "{} wait, limit {limit} (it holds one more){full}{}; half-open requests: {half_open}",
            self.depth,
            stalled.unwrap_or_default()
        )
    }

    fn limit_in_words(&self) -> String {
        let asked = self.backlog.map_or_else(
            || "listen() was not seen".to_owned(),
            // The kernel takes it for unsigned; the program wrote a signed int.
            |backlog| format!("listen() asked for {}", i32::from_ne_bytes(backlog.to_ne_bytes())),
        );
        let somaxconn = or_dash(self.somaxconn, |somaxconn| somaxconn.to_string());
        let by = match self.set_by {
            LimitedBy::Argument { seen: true } => "the program's own backlog argument sets it",
            LimitedBy::Argument { seen: false } => {
                "likely the program's own backlog argument: somaxconn would allow more"
            }
            LimitedBy::Somaxconn => "net.core.somaxconn sets it: the program asked for more",
            LimitedBy::ProbablySomaxconn => "likely net.core.somaxconn, or an equal argument",
            LimitedBy::Unknown => "what sets it was not seen",
        };
        format!("{by}; {asked}, net.core.somaxconn is {somaxconn}")
    }

    fn flow_in_words(&self) -> String {
        let threads = match self.acceptors {
            0 => "no thread was seen accepting".to_owned(),
            1 => "1 thread accepts".to_owned(),
            threads => format!("{threads} threads accept"),
        };
        let syns = self
            .syns
            .map_or_else(|| "SYNs are not seen here".to_owned(), |rate| format!("{} SYNs", short_rate(rate)));
        format!(
            "{syns}, {} connections queued, {} accepted, {} packets dropped ({}{} in all); {threads}",
            or_dash(self.queued, short_rate),
            or_dash(self.accepts, short_rate),
            or_dash(self.drops_per_s, short_rate),
            if self.inferred { "about " } else { "" },
            self.drops
        )
    }
}
