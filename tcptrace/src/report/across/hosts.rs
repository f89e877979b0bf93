//! The clocks of all hosts, each against each.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::record::Metadata;
use crate::report::Report;

use super::clocks::{Offset, Untold, offset, room};
use super::handshakes::{Ends, Visit};

/// A recording's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    /// The recording: its host's name, numbered if there are several of that name.
    pub recording: String,
    /// The recording whose clock it is compared with: the first that it can be compared with; `None` for that one itself.
    pub against: Option<String>,
    /// How far it is ahead, ms.
    pub ahead_ms: Option<f64>,
    /// It may be so much more or less.
    pub error_ms: Option<f64>,
    /// Handshakes seen at both ends that say so; 0 for recordings of one boot of one host, which have one clock.
    pub handshakes: u64,
    /// Handshakes that say otherwise.
    pub contradicting: u64,
    /// Why it cannot be told how far it is ahead of the first recording's.
    pub untold: Option<&'static str>,
}

/// A name for each recording: the host's, numbered where there are several.
pub(super) fn names<'a>(metadata: impl Iterator<Item = &'a Metadata>) -> Vec<String> {
    let hosts: Vec<&str> = metadata.map(|of| of.host.as_str()).collect();
    let name = |(index, host): (usize, &&str)| {
        let all = hosts.iter().filter(|of| *of == host).count();
        let before = hosts.iter().take(index).filter(|of| *of == host).count();
        if all > 1 { format!("{host}#{}", before + 1) } else { (*host).to_owned() }
    };
    hosts.iter().enumerate().map(name).collect()
}

/// How far which clock is ahead of which.
pub(super) struct Table {
    /// From the first to the second, over others if need be.
    known: BTreeMap<(usize, usize), Offset>,
    untold: BTreeMap<(usize, usize), Untold>,
    count: usize,
}

impl Table {
    /// Compares them all.
    pub(super) fn new(recordings: &[(&Metadata, &mut Report)]) -> Self {
        let count = recordings.len();
        let mut direct = BTreeMap::new();
        let mut untold = BTreeMap::new();
        let rooms = rooms(recordings);
        for (a, (one, _)) in recordings.iter().enumerate() {
            for (b, (other, _)) in recordings.iter().enumerate().skip(a + 1) {
                if is_same_clock(one, other) {
                    let ahead_ns = other.clock_offset_ns.saturating_sub(one.clock_offset_ns);
                    direct.insert((a, b), Offset { ahead_ns, ..Offset::NONE });
                    continue;
                }
                match offset(rooms.get(&(a, b)).map(Vec::as_slice).unwrap_or_default()) {
                    Ok(offset) => {
                        direct.insert((a, b), offset);
                    }
                    Err(reason) => {
                        untold.insert((a, b), reason);
                    }
                }
            }
        }
        let known = (0..count).flat_map(|from| reach(from, count, &direct)).collect();
        Self { known, untold, count }
    }

    /// How far the clock of `to` is ahead of that of `from`.
    pub(super) fn offset(&self, from: usize, to: usize) -> Option<Offset> {
        self.known.get(&(from, to)).copied()
    }

    /// What is said of them.
    pub(super) fn clocks(&self, names: &[String]) -> Vec<Clock> {
        #[expect(clippy::cast_precision_loss, reason = "shown with six decimals of a millisecond")]
        let ms = |ns: i64| ns as f64 / 1e6;
        let name = |index: usize| names.get(index).cloned().unwrap_or_default();
        (0..self.count)
            .map(|index| {
                let against = (0..index).find(|first| self.known.contains_key(&(*first, index)));
                let offset = against.and_then(|first| self.offset(first, index));
                let untold = (index > 0 && !self.known.contains_key(&(0, index)))
                    .then(|| self.untold.get(&(0, index)).copied().unwrap_or(Untold::NothingShared));
                Clock {
                    recording: name(index),
                    against: against.map(name),
                    ahead_ms: offset.map(|of| ms(of.ahead_ns)),
                    error_ms: offset.map(|of| ms(of.error_ns)),
                    handshakes: offset.map_or(0, |of| of.agree),
                    contradicting: offset.map_or(0, |of| of.disagree),
                    untold: untold.map(Untold::reason),
                }
            })
            .collect()
    }
}

/// Recordings of one boot of one host.
fn is_same_clock(one: &Metadata, other: &Metadata) -> bool {
    !one.boot_id.is_empty() && one.boot_id == other.boot_id
}

/// For each pair of recordings, what each handshake that both saw leaves for the second's clock beside the first's.
fn rooms(recordings: &[(&Metadata, &mut Report)]) -> BTreeMap<(usize, usize), Vec<(i64, i64)>> {
    let mut visited: HashMap<&Ends, Vec<usize>> = HashMap::new();
    for (index, (_, report)) in recordings.iter().enumerate() {
        for ends in report.handshakes.visited() {
            visited.entry(ends).or_default().push(index);
        }
    }
    let mut rooms: BTreeMap<(usize, usize), Vec<(i64, i64)>> = BTreeMap::new();
    for (client, (_, report)) in recordings.iter().enumerate() {
        for (ends, attempts) in report.handshakes.attempts() {
            // Which belongs to which is not known yet where a port was used again.
            let (1, Some(attempt)) = (attempts.len(), attempts.front()) else { continue };
            for &server in visited.get(ends).into_iter().flatten() {
                let Some(visits) = other_end(recordings, client, server, ends) else { continue };
                let (1, Some(visit)) = (visits.len(), visits.front()) else { continue };
                let (low, high) = room(attempt, visit);
                let (pair, room) = if client < server {
                    ((client, server), (low, high))
                } else {
                    ((server, client), (turned(high), turned(low)))
                };
                rooms.entry(pair).or_default().push(room);
            }
        }
    }
    rooms
}

/// What `server` saw of a connection of `client`. None of a connection within one host: the addresses of loopback and of
/// private networks of containers are the same on many hosts.
pub(super) fn other_end<'a>(
    recordings: &'a [(&Metadata, &mut Report)],
    client: usize,
    server: usize,
    ends: &Ends,
) -> Option<&'a VecDeque<Visit>> {
    let ((one, at_client), (other, at_server)) = (recordings.get(client)?, recordings.get(server)?);
    let within_client = at_client.handshakes.visits_of(ends).is_some();
    let within_server = !is_same_clock(one, other)
        && (at_server.handshakes.has_attempts_of(ends) || ends.server.ip().is_loopback());
    if client == server || within_client || within_server {
        return None;
    }
    at_server.handshakes.visits_of(ends)
}

/// The same bound, seen from the other side.
fn turned(bound: i64) -> i64 {
    match bound {
        i64::MIN => i64::MAX,
        i64::MAX => i64::MIN,
        of => -of,
    }
}

/// Everything that can be compared with `from`, over others if need be: where the errors add up to least.
fn reach(
    from: usize,
    count: usize,
    direct: &BTreeMap<(usize, usize), Offset>,
) -> Vec<((usize, usize), Offset)> {
    let step = |a: usize, b: usize| {
        direct.get(&(a, b)).copied().or_else(|| direct.get(&(b, a)).map(|offset| offset.back()))
    };
    let mut best: Vec<Option<Offset>> = vec![None; count];
    let mut done = vec![false; count];
    if let Some(start) = best.get_mut(from) {
        *start = Some(Offset::NONE);
    }
    while let Some((error, here)) = (0..count)
        .filter(|index| !done.get(*index).copied().unwrap_or(true))
        .filter_map(|index| Some((best.get(index).copied().flatten()?, index)))
        .min_by_key(|(offset, index)| (offset.error_ns, *index))
    {
        if let Some(of) = done.get_mut(here) {
            *of = true;
        }
        for (next, known) in best.iter_mut().enumerate() {
            if let Some(more) = step(here, next) {
                let way = error.then(more);
                if known.is_none_or(|known| way.error_ns < known.error_ns) {
                    *known = Some(way);
                }
            }
        }
    }
    best.into_iter().enumerate().filter_map(|(to, offset)| Some(((from, to), offset?))).collect()
}
