//! Single connections, and what happened to each.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::event::Timestamp;
use crate::finding::words::span;
use crate::output::zone;
use crate::output::{self, Row as Line};

use super::super::filter::{Filter, Subject};

use super::super::timeline::Timeline;
use super::findings::{heading, plain};
use super::{Cell, Column, Cx, Row, RowKey, most};

impl Row for Rc<Timeline> {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            title: "last",
            width: 8,
            grow: 0,
            right: false,
            rank: 1,
            cell: |row, cx| Cell::plain(zone::second(&cx.clock.zone, row.last())),
            order: Some(|one, other| most(&one.last(), &other.last())),
        },
        Column {
            title: "client",
            width: 21,
            grow: 1,
            right: false,
            rank: 0,
            cell: |row, _| Cell::plain(row.key.client.to_string()),
            order: Some(|one, other| one.key.client.cmp(&other.key.client)),
        },
        Column {
            title: "server",
            width: 21,
            grow: 1,
            right: false,
            rank: 0,
            cell: |row, _| Cell::plain(row.key.server.to_string()),
            order: Some(|one, other| one.key.server.cmp(&other.key.server)),
        },
        Column {
            title: "process",
            width: 15,
            grow: 2,
            right: false,
            rank: 3,
            cell: |row, _| Cell::plain(who(row)),
            order: Some(|one, other| who(one).cmp(&who(other))),
        },
        Column {
            title: "events",
            width: 6,
            grow: 0,
            right: true,
            rank: 2,
            cell: |row, _| Cell::plain((count(row)).to_string()),
            order: Some(|one, other| most(&count(one), &count(other))),
        },
        Column {
            title: "lasted",
            width: 8,
            grow: 0,
            right: true,
            rank: 4,
            cell: |row, _| Cell::plain(span(row.last().since(row.first()))),
            order: Some(|one, other| {
                most(&one.last().since(one.first()), &other.last().since(other.first()))
            }),
        },
        Column {
            title: "how it stands",
            width: 18,
            grow: 1,
            right: false,
            rank: 0,
            cell: |row, _| Cell::plain(row.outcome()),
            order: Some(|one, other| one.outcome().cmp(other.outcome())),
        },
    ];

    fn key(&self) -> RowKey {
        RowKey::Connection(self.key)
    }

    fn is_wanted(&self, filter: &Filter) -> bool {
        let processes = (!self.processes.is_empty())
            .then(|| self.processes.iter().map(|(pid, comm)| (*pid, comm.as_str())).collect());
        let subject = |netns, peer| Subject {
            netns: Some(netns),
            ports: [Some(self.key.client.port()), Some(self.key.server.port())],
            processes: Option::clone(&processes),
            container: None,
            peer: Some(peer),
        };
        self.netns.iter().any(|netns| {
            filter.wants(&subject(*netns, self.key.client.ip()))
                || filter.wants(&subject(*netns, self.key.server.ip()))
        })
    }

    fn title(&self, _cx: &Cx<'_>) -> String {
        format!("connection {} to {}", self.key.client, self.key.server)
    }

    fn detail(&self, cx: &Cx<'_>, width: usize) -> Vec<Line> {
        let netns: Vec<String> = self.netns.iter().map(|netns| cx.netns(*netns)).collect();
        let mut lines = super::facts("who", vec![who(self)], width);
        lines.extend(super::facts("netns", vec![netns.join(", ")], width));
        lines.push(plain(String::new()));
        lines.push(heading("What was reported of it, one by one (--all reports every step)"));
        let indent = " ".repeat(24);
        let mut before = self.first();
        for (number, event) in self.events.iter().enumerate() {
            if number == 8 && self.left_out > 0 {
                lines.push(plain(format!("{indent}({} events are not kept)", self.left_out)));
            }
            let Some(text) = output::event_in_words(event, cx.world) else { continue };
            let time = zone::clock(&cx.clock.zone, event.time);
            let lead = format!("{time} {:>9}  ", format!("+{}", span(event.time.since(before))));
            before = event.time;
            let wrapped = output::wrap(&output::escape(&text), &lead, &indent, width);
            lines.extend(wrapped.into_iter().map(plain));
        }
        lines
    }

    fn moment(&self) -> Option<Timestamp> {
        Some(self.first())
    }

    fn natural(&self, other: &Self) -> Ordering {
        most(&self.last(), &other.last()).then(self.key.cmp(&other.key))
    }

    fn nothing() -> &'static str {
        "No event of a single connection so far. Without --all only anomalies are reported one by one."
    }
}

fn count(of: &Timeline) -> u64 {
    u64::try_from(of.events.len()).unwrap_or(u64::MAX).saturating_add(of.left_out)
}

fn who(of: &Timeline) -> String {
    let names: Vec<String> =
        of.processes.iter().take(3).map(|(pid, comm)| format!("{comm}[{pid}]")).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}
