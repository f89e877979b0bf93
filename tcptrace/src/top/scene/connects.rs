//! Connects of this host's processes that were not answered at once, by destination.

use std::cmp::Ordering;
use std::time::Duration;

use crate::correlate::{Correlator, Destination, DestinationKey, ServerSide};
use crate::event::{ConnectTotals, Timestamp};
use crate::finding::words::{errno_name, span};
use crate::output::zone;
use crate::output::{Meaning, Row as Line};

use super::super::filter::{Filter, Subject};

use super::findings::{blank, heading, plain};
use super::{Cell, Column, Cx, Row, RowKey, facts, most, number};

/// A destination at one moment.
#[derive(Clone, Debug)]
pub(crate) struct ConnectRow {
    key: DestinationKey,
    /// Process, command name, container, and what became of its connects; those with most failures first.
    clients: Vec<(u32, String, Option<String>, ConnectTotals)>,
    totals: ConnectTotals,
    longest: Duration,
    first: Timestamp,
    last: Timestamp,
    errno: Option<u32>,
    side: &'static str,
}

pub(super) fn rows(world: &Correlator) -> Vec<ConnectRow> {
    world.destinations().map(|(key, of)| ConnectRow::of(*key, of, world)).collect()
}

impl ConnectRow {
    fn of(key: DestinationKey, of: &Destination, world: &Correlator) -> Self {
        let clients = of.clients().into_iter().map(|(pid, client)| {
            let info = world.processes().info(pid);
            let task = client.task.as_ref();
            let comm = info.map(|info| info.comm.clone()).or_else(|| task.map(|task| task.comm.to_string()));
            let container = info.and_then(|info| info.container.clone());
            (pid, comm.unwrap_or_else(|| "-".to_owned()), container, client.totals())
        });
        Self {
            key,
            clients: clients.collect(),
            totals: of.totals(),
            longest: Duration::from_nanos(of.longest_ns),
            first: of.first,
            last: of.last,
            errno: of.errno,
            side: match of.server_side {
                Some(ServerSide::AcceptQueueFull(_)) => "accept queue full here",
                Some(ServerSide::SynQueueFull(_)) => "SYN queue full here",
                Some(ServerSide::NoListener(_)) => "no listener here",
                Some(ServerSide::Dropped(_)) => "dropped by this host",
                None if of.rejected_here => "rejected by this host",
                None if of.here.is_some() => "listener on this host",
                None => "-",
            },
        }
    }

    fn who(&self) -> String {
        match self.clients.as_slice() {
            [] => "-".to_owned(),
            [(pid, comm, ..)] => format!("{comm}[{pid}]"),
            [(pid, comm, ..), more @ ..] => format!("{comm}[{pid}] +{}", more.len()),
        }
    }

    fn failed(&self) -> u64 {
        let of = &self.totals;
        of.refused + of.unreachable + of.timed_out + of.cancelled + of.errors
    }
}

impl Row for ConnectRow {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            title: "destination",
            width: 21,
            grow: 3,
            right: false,
            rank: 0,
            cell: |row, _| Cell::plain(row.key.remote.to_string()),
            order: Some(|one, other| one.key.cmp(&other.key)),
        },
        Column {
            title: "from netns",
            width: 10,
            grow: 0,
            right: false,
            rank: 9,
            cell: |row, cx| Cell::plain(cx.netns(row.key.netns)),
            order: None,
        },
        Column {
            title: "by",
            width: 15,
            grow: 2,
            right: false,
            rank: 0,
            cell: |row, _| Cell::plain(row.who()),
            order: Some(|one, other| one.who().cmp(&other.who())),
        },
        number!("no answer", 9, 0, |row| row.totals.unanswered, Cell::bad_count),
        number!("refused", 7, 0, |row| row.totals.refused, Cell::bad_count),
        number!("timed out", 9, 2, |row| row.totals.timed_out, Cell::bad_count),
        number!("unreach", 7, 4, |row| row.totals.unreachable, Cell::bad_count),
        number!("errors", 6, 5, |row| row.totals.errors, Cell::bad_count),
        number!("in the end", 10, 6, |row| row.totals.established, Cell::count),
        number!("SYN again", 9, 7, |row| row.totals.syns_again, Cell::count),
        Column {
            title: "longest",
            width: 8,
            grow: 0,
            right: true,
            rank: 3,
            cell: |row, _| {
                Cell::plain(if row.longest.is_zero() { "-".to_owned() } else { span(row.longest) })
            },
            order: Some(|one, other| most(&one.longest, &other.longest)),
        },
        Column {
            title: "the other end",
            width: 22,
            grow: 1,
            right: false,
            rank: 8,
            cell: |row, _| {
                Cell::Text(row.side.to_owned(), row.side.contains("full").then_some(Meaning::Warning))
            },
            order: Some(|one, other| one.side.cmp(other.side)),
        },
    ];

    fn key(&self) -> RowKey {
        RowKey::Destination(self.key)
    }

    fn is_wanted(&self, filter: &Filter) -> bool {
        let subject = |container| Subject {
            netns: Some(self.key.netns),
            ports: [Some(self.key.remote.port()), None],
            processes: Some(self.clients.iter().map(|(pid, comm, ..)| (*pid, comm.as_str())).collect()),
            container,
            peer: Some(self.key.remote.ip()),
        };
        let containers = self.clients.iter().map(|(_, _, container, _)| container.as_deref());
        filter.wants(&subject(None)) || containers.flatten().any(|of| filter.wants(&subject(Some(of))))
    }

    fn title(&self, cx: &Cx<'_>) -> String {
        format!("connects to {}{}", self.key.remote, cx.elsewhere(self.key.netns))
    }

    fn detail(&self, cx: &Cx<'_>, width: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        let zone = &cx.clock.zone;
        let when = format!("from {} to {}", zone::second(zone, self.first), zone::second(zone, self.last));
        lines.extend(facts("when", vec![when], width));
        lines.extend(facts("result", vec![in_words(&self.totals)], width));
        let longest = format!("up to {} so far", span(self.longest));
        lines.extend(facts(
            "waited",
            (!self.longest.is_zero()).then_some(longest).into_iter().collect(),
            width,
        ));
        lines.extend(facts("errno", self.errno.map(errno_name).into_iter().collect(), width));
        let side = match self.side {
            "-" => "what the other end did was not seen: it is not on this host, or its side is not observed",
            side => side,
        };
        lines.extend(facts("there", vec![side.to_owned()], width));
        lines.push(blank());
        lines.push(heading("By process"));
        for (pid, comm, container, totals) in &self.clients {
            let container = container.as_ref().map(|of| format!(" in {of}")).unwrap_or_default();
            let text = format!("{comm}[{pid}]{container}: {}", in_words(totals));
            let text = crate::output::escape(&text).into_owned();
            lines.extend(crate::output::wrap(&text, "  ", "    ", width).into_iter().map(plain));
        }
        lines
    }

    fn natural(&self, other: &Self) -> Ordering {
        most(&self.failed(), &other.failed())
            .then(most(&self.totals.unanswered, &other.totals.unanswered))
            .then(self.key.cmp(&other.key))
    }

    fn nothing() -> &'static str {
        "Every connect of this host was answered at once, as far as is observed: only those that were not are listed."
    }
}

fn in_words(of: &ConnectTotals) -> String {
    format!(
        "{} not answered at once ({} of these established in the end), {} SYNs sent again, {} refused, {} timed out, {} unreachable, {} cancelled, {} failed in connect()",
        of.unanswered,
        of.established,
        of.syns_again,
        of.refused,
        of.timed_out,
        of.unreachable,
        of.cancelled,
        of.errors
    )
}
