//! Half-open requests whose SYN-ACK stays unanswered, by remote network.

use std::cmp::Ordering;

use crate::correlate::{Correlator, ListenerId, PeerPattern, UnansweredNetwork};
use crate::event::observation;
use crate::finding::serving;
use crate::output::Row as Line;

use super::super::filter::{Filter, Subject};
use super::super::format::or_dash;
use super::{Cell, Column, Cx, Row, RowKey, facts, most, number};

/// The unanswered requests of one network at one listener.
#[derive(Clone, Debug)]
pub(crate) struct HalfOpenRow {
    listener: ListenerId,
    place: String,
    port: u16,
    netns: u32,
    owner: Option<(u32, String)>,
    container: Option<String>,
    network: UnansweredNetwork,
    pattern: PeerPattern,
    syn_queue: Option<u32>,
    all: u64,
    stubborn: u64,
    /// Requests that expired, where ends of requests are seen.
    expired: Option<u64>,
}

pub(super) fn rows(world: &Correlator) -> Vec<HalfOpenRow> {
    let mut rows = Vec::new();
    for listener in world.listeners().iter() {
        let unanswered = world.unanswered(listener.id);
        if unanswered.requests == 0 {
            continue;
        }
        let process = serving(listener, world.processes());
        let owner = process.as_ref().and_then(|of| Some((of.pid?, of.comm.clone().unwrap_or_default())));
        rows.extend(unanswered.networks.iter().map(|network| HalfOpenRow {
            listener: listener.id,
            place: listener.endpoints.local.to_string(),
            port: listener.endpoints.local.port(),
            netns: listener.endpoints.netns,
            owner: owner.clone(),
            container: process.as_ref().and_then(|of| of.container.clone()),
            network: network.clone(),
            pattern: unanswered.pattern(),
            syn_queue: listener.syn_queue,
            all: unanswered.requests,
            stubborn: unanswered.stubborn,
            expired: world.observes(observation::REQUEST_END).then_some(network.expired),
        }));
    }
    rows
}

impl HalfOpenRow {
    fn name(&self) -> String {
        format!("{}/{}", self.network.network, self.network.bits)
    }

    fn who(&self) -> String {
        self.owner.as_ref().map_or_else(|| "-".to_owned(), |(pid, comm)| format!("{comm}[{pid}]"))
    }
}

impl Row for HalfOpenRow {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            title: "network",
            width: 18,
            grow: 1,
            right: false,
            rank: 0,
            cell: |row, _| Cell::plain(row.name()),
            order: Some(|one, other| one.network.network.cmp(&other.network.network)),
        },
        Column {
            title: "listener",
            width: 15,
            grow: 2,
            right: false,
            rank: 0,
            cell: |row, _| Cell::plain(row.place.clone()),
            order: Some(|one, other| one.place.cmp(&other.place)),
        },
        Column {
            title: "netns",
            width: 10,
            grow: 0,
            right: false,
            rank: 9,
            cell: |row, cx| Cell::plain(cx.netns(row.netns)),
            order: None,
        },
        Column {
            title: "owner",
            width: 14,
            grow: 2,
            right: false,
            rank: 3,
            cell: |row, _| Cell::plain(row.who()),
            order: Some(|one, other| one.who().cmp(&other.who())),
        },
        number!("unanswered", 10, 0, |row| row.network.requests, Cell::bad_count),
        number!("SYN-ACK again", 13, 2, |row| row.network.retransmissions, Cell::count),
        number!("expired", 7, 1, |row| row.expired, Cell::known_bad_count),
        number!("addresses", 9, 4, |row| row.network.sources, Cell::count),
        number!("tried again", 11, 5, |row| row.network.retried, Cell::count),
        number!("completed", 9, 2, |row| row.network.completed, Cell::known_count),
    ];

    fn key(&self) -> RowKey {
        RowKey::Network(self.listener, self.network.network, self.network.bits)
    }

    fn is_wanted(&self, filter: &Filter) -> bool {
        filter.wants(&Subject {
            netns: Some(self.netns),
            ports: [Some(self.port), None],
            processes: Some(self.owner.iter().map(|(pid, comm)| (*pid, comm.as_str())).collect()),
            container: self.container.as_deref(),
            peer: Some(self.network.network),
        })
    }

    fn title(&self, cx: &Cx<'_>) -> String {
        format!("half-open from {} at {}{}", self.name(), self.place, cx.elsewhere(self.netns))
    }

    fn detail(&self, _cx: &Cx<'_>, width: usize) -> Vec<Line> {
        let network = &self.network;
        let mut lines = facts("owner", vec![self.who()], width);
        let text = format!(
            "{} requests without a final ACK, {} SYN-ACKs sent again, {}, from {} addresses, {} of which tried again from another port",
            network.requests,
            network.retransmissions,
            self.expired.map_or_else(
                || "how many expired is not seen here".to_owned(),
                |expired| format!("{expired} expired")
            ),
            network.sources,
            network.retried
        );
        lines.extend(facts("from", vec![text], width));
        let completed = match network.completed {
            Some(completed) => format!("{completed} connections of this network were completed meanwhile"),
            None => "how many connections of this network were completed is not counted here".to_owned(),
        };
        lines.extend(facts("others", vec![completed], width));
        let queue = or_dash(self.syn_queue, |requests| requests.to_string());
        let text = format!(
            "{} unanswered requests in all, {} of them for long; {queue} requests in the SYN queue",
            self.all, self.stubborn
        );
        lines.extend(facts("queue", vec![text], width));
        let peers = match self.pattern {
            PeerPattern::Insist => {
                "try again, by the same SYN or from another port: their answers, or ours, get lost"
            }
            PeerPattern::Flood => "are many, and each tries once: as in a SYN flood or a scan",
            PeerPattern::GiveUp => "are few, and do not try again",
        };
        lines.extend(facts("peers", vec![format!("of this listener {peers}")], width));
        lines
    }

    fn natural(&self, other: &Self) -> Ordering {
        most(&self.network.requests, &other.network.requests)
            .then(self.network.network.cmp(&other.network.network))
            .then(self.listener.cmp(&other.listener))
    }

    fn nothing() -> &'static str {
        "No listener that is open now had to send a SYN-ACK again lately, as far as is observed. What was found before is in 1."
    }
}
