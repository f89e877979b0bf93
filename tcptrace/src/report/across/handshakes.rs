//! What one host saw of handshakes, by connection: as their client, as their server.
//!
//! Of very many, those that went wrong are kept, and of the others those whose addresses hash lowest: so two hosts keep the
//! same ones without knowing of each other.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::time::Duration;

use crate::event::{
    AckDropCause, Connect, ConnectResult, Endpoints, EnqueuedBy, Event, HandshakeDrop, How, Kind,
    ListenerRef, PortTaken, RequestEnding, SynAnswer, SynDropCause, Timestamp,
};

/// So many connections are kept of each side.
const CONNECTIONS: usize = 1 << 16;

/// So many addresses are kept by which servers were called.
const CALLED: usize = 4_096;

/// So many times are kept of one connection's SYNs.
const TIMES: usize = 16;

/// So many handshakes of one pair of ends are kept: its port is used again.
const AGAIN: usize = 8;

/// What is so far apart does not belong to one handshake: a client gives up after 127 s by default.
const PATIENCE: Duration = Duration::from_secs(200);

/// A connection's two ends, as both hosts know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

/// A handshake, as its client saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) netns: u32,
    pub(super) sk: u64,
    pub(super) pid: u32,
    pub(super) comm: String,
    /// When connect() was called, if that was seen.
    pub(super) began: Option<Timestamp>,
    /// When its SYN was sent again.
    pub(super) sent_again: Vec<Timestamp>,
    /// How it ended.
    pub(super) ended: Option<(Timestamp, ConnectResult)>,
}

impl Attempt {
    /// Whether it was not answered at once as it wished.
    pub(super) fn is_troubled(&self) -> bool {
        let failed = self.ended.is_some_and(|(_, result)| {
            !matches!(result, ConnectResult::Established | ConnectResult::Cancelled)
        });
        failed || !self.sent_again.is_empty()
    }

    /// When its client was told that it stands.
    pub(super) fn established(&self) -> Option<Timestamp> {
        self.ended.and_then(|(time, result)| (result == ConnectResult::Established).then_some(time))
    }

    /// The first that is known of it.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.began.or_else(|| self.sent_again.first().copied()).or(self.ended.map(|(time, _)| time))
    }

    /// The last that is known of it.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.ended.map(|(time, _)| time).or_else(|| self.sent_again.last().copied()).or(self.began)
    }
}

/// Something that a server did with a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Dropped its SYN.
    SynDropped(SynDropCause),
    /// Dropped its final ACK.
    AckDropped(AckDropCause),
    /// Answered its SYN for the first time.
    SynAck,
    /// Sent the SYN-ACK again.
    SynAckAgain,
    /// Answered by RST: nobody listens.
    Refused,
    /// The host dropped a packet of it, for this reason.
    PathDropped(&'static str, String),
    /// Put it into the accept queue.
    Enqueued(EnqueuedBy),
    /// The request ended without a connection.
    Ended(RequestEnding),
}

/// A handshake, as its server saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) netns: u32,
    /// The listener's address in kernel memory, and its inode number; zeros where there is none.
    pub(super) listener: (u64, u64),
    /// In order, with when.
    pub(super) deeds: Vec<(Timestamp, Deed)>,
    /// How many were too many to keep.
    pub(super) more: u64,
}

impl Visit {
    /// When the first deed like this happened.
    pub(super) fn when(&self, like: impl Fn(&Deed) -> bool) -> Option<Timestamp> {
        self.deeds.iter().find(|(_, deed)| like(deed)).map(|(time, _)| *time)
    }

    /// Every time that a deed like this happened.
    pub(super) fn times(&self, like: impl Fn(&Deed) -> bool) -> Vec<Timestamp> {
        self.deeds.iter().filter(|(_, deed)| like(deed)).map(|(time, _)| *time).collect()
    }

    /// The first that is known of it.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.deeds.iter().map(|(time, _)| *time).min()
    }

    /// The last that is known of it.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.deeds.iter().map(|(time, _)| *time).max()
    }

    fn is_over(&self) -> bool {
        self.deeds.iter().any(|(_, deed)| matches!(deed, Deed::Enqueued(_) | Deed::Ended(_)))
    }

    fn is_troubled(&self) -> bool {
        self.more > 0 || self.deeds.iter().any(|(_, deed)| !matches!(deed, Deed::SynAck | Deed::Enqueued(_)))
    }

    fn add(&mut self, time: Timestamp, deed: Deed) {
        if self.deeds.len() < TIMES || matches!(deed, Deed::Enqueued(_) | Deed::Ended(_)) {
            self.deeds.push((time, deed));
            self.deeds.sort_by_key(|(time, _)| *time);
        } else {
            self.more += 1;
        }
    }
}

/// What one recording says of handshakes.
#[derive(Debug, Default)]
pub struct Handshakes {
    attempts: Kept<Attempt>,
    visits: Kept<Visit>,
    /// The addresses by which servers here were called, with their namespaces.
    called: HashMap<SocketAddr, u32>,
}

impl Handshakes {
    /// Takes in an event.
    pub(in crate::report) fn note(&mut self, event: &Event) {
        let time = event.time;
        match &event.kind {
            Kind::PortTaken(taken) if taken.how == How::Connect => self.took_port(time, taken),
            Kind::Connect(connect) => self.connected(time, connect),
            Kind::Syn(syn) if syn.answer != SynAnswer::FastOpen => {
                self.syn(time, &syn.endpoints, &syn.listener);
            }
            Kind::SynDrop(drop) => {
                self.did(time, &drop.endpoints, Some(&drop.listener), Deed::SynDropped(drop.cause));
            }
            Kind::AckDrop(drop) => {
                self.did(time, &drop.endpoints, Some(&drop.listener), Deed::AckDropped(drop.cause));
            }
            Kind::SynAckRetransmit(again) => {
                self.answered(time, &again.endpoints, &again.listener, again.age_ns);
                self.did(time, &again.endpoints, Some(&again.listener), Deed::SynAckAgain);
            }
            Kind::RequestEnd(end) => {
                self.answered(time, &end.endpoints, &end.listener, end.age_ns);
                self.did(time, &end.endpoints, Some(&end.listener), Deed::Ended(end.how));
            }
            Kind::Enqueue(enqueue) => {
                self.answered(time, &enqueue.endpoints, &enqueue.listener, enqueue.handshake_ns);
                self.did(time, &enqueue.endpoints, Some(&enqueue.listener), Deed::Enqueued(enqueue.how));
            }
            Kind::NoListener(absent) => self.did(time, &absent.endpoints, None, Deed::Refused),
            Kind::HandshakeDrop(drop) if drop.is_at_server() => self.dropped_on_its_way(time, drop),
            _ => {}
        }
    }

    /// What was seen as a client, by connection.
    pub(super) fn attempts(&self) -> impl Iterator<Item = (&Ends, &VecDeque<Attempt>)> {
        self.attempts.of.iter()
    }

    /// The connections of which something was seen as a server.
    pub(super) fn visited(&self) -> impl Iterator<Item = &Ends> {
        self.visits.of.keys()
    }

    /// Whether something was seen of this connection as a client.
    pub(super) fn has_attempts_of(&self, ends: &Ends) -> bool {
        self.attempts.of.contains_key(ends)
    }

    /// What was seen as the server of one connection, the oldest first.
    pub(super) fn visits_of(&self, ends: &Ends) -> Option<&VecDeque<Visit>> {
        self.visits.of.get(ends)
    }

    /// The namespace of a server here that was called by this address.
    pub(super) fn called_at(&self, address: SocketAddr) -> Option<u32> {
        self.called.get(&address).copied()
    }

    /// Connections that were too many to keep.
    pub(super) fn left_out(&self) -> u64 {
        self.attempts.left_out + self.visits.left_out
    }

    fn took_port(&mut self, time: Timestamp, taken: &PortTaken) {
        let Some(ends) = as_client(&taken.endpoints) else { return };
        let attempt = Attempt {
            netns: taken.endpoints.netns,
            sk: taken.sk,
            pid: taken.task.pid,
            comm: taken.task.comm.to_string(),
            began: Some(time),
            ..Attempt::default()
        };
        self.attempts.add(ends, attempt, false);
    }

    fn connected(&mut self, time: Timestamp, connect: &Connect) {
        if connect.result == ConnectResult::Error {
            return;
        }
        let Some(ends) = as_client(&connect.endpoints) else { return };
        let began = connect.age_ns.map(|age| time.before(Duration::from_nanos(age)));
        let same = |last: &Attempt| {
            last.ended.is_none()
                && last.sk == connect.sk
                && last.last().is_none_or(|of| time.since(of) < PATIENCE)
        };
        let attempt = self.attempts.open(ends, same, || Attempt {
            netns: connect.endpoints.netns,
            sk: connect.sk,
            began,
            ..Attempt::default()
        });
        if let (0, Some(task)) = (attempt.pid, &connect.task) {
            attempt.pid = task.pid;
            attempt.comm = task.comm.to_string();
        }
        // What connect() itself says is earlier than when its port was seen to be taken.
        attempt.began = match (attempt.began, began) {
            (Some(known), Some(told)) => Some(known.min(told)),
            (known, told) => known.or(told),
        };
        if connect.result == ConnectResult::SynAgain {
            if attempt.sent_again.len() < TIMES {
                attempt.sent_again.push(time);
            }
        } else {
            attempt.ended = Some((time, connect.result));
        }
        let troubled = attempt.is_troubled();
        self.attempts.rank(ends, troubled);
    }

    fn dropped_on_its_way(&mut self, time: Timestamp, drop: &HandshakeDrop) {
        let reason = drop.reason_name.clone().or_else(|| drop.function.clone()).unwrap_or_default();
        let ends = Ends { client: drop.client(), server: drop.server() };
        self.deed(time, ends, drop.endpoints.netns, None, Deed::PathDropped(drop.packet.name(), reason));
    }

    /// A SYN that is answered.
    fn syn(&mut self, time: Timestamp, ends: &Endpoints, listener: &ListenerRef) {
        let open = as_server(ends).and_then(|of| self.visits.of.get(&of)?.back());
        let again =
            open.is_some_and(|last| !last.is_over() && last.when(|deed| *deed == Deed::SynAck).is_some());
        self.did(time, ends, Some(listener), if again { Deed::SynAckAgain } else { Deed::SynAck });
    }

    /// The first SYN-ACK, told of later.
    fn answered(&mut self, time: Timestamp, ends: &Endpoints, listener: &ListenerRef, age_ns: Option<u64>) {
        let (Some(age), Some(of)) = (age_ns, as_server(ends)) else { return };
        let known = self.visits.of.get(&of).and_then(VecDeque::back);
        if !known.is_some_and(|last| !last.is_over() && last.when(|deed| *deed == Deed::SynAck).is_some()) {
            self.did(time.before(Duration::from_nanos(age)), ends, Some(listener), Deed::SynAck);
        }
    }

    fn did(&mut self, time: Timestamp, ends: &Endpoints, listener: Option<&ListenerRef>, deed: Deed) {
        if let Some(of) = as_server(ends) {
            self.deed(time, of, ends.netns, listener, deed);
        }
    }

    fn deed(&mut self, time: Timestamp, ends: Ends, netns: u32, listener: Option<&ListenerRef>, deed: Deed) {
        let same = |last: &Visit| !last.is_over() && last.last().is_none_or(|of| time.since(of) < PATIENCE);
        let visit = self.visits.open(ends, same, || Visit { netns, ..Visit::default() });
        if let Some(of) = listener
            && (of.sk, of.inode) != (0, 0)
        {
            visit.listener = (of.sk, of.inode);
        }
        visit.add(time, deed);
        let troubled = visit.is_troubled();
        self.visits.rank(ends, troubled);
        if self.called.len() < CALLED {
            self.called.insert(ends.server, netns);
        }
    }
}

fn as_client(ends: &Endpoints) -> Option<Ends> {
    let server = ends.remote?;
    (ends.local.port() != 0 && server.port() != 0).then_some(Ends { client: ends.local, server })
}

fn as_server(ends: &Endpoints) -> Option<Ends> {
    Some(Ends { client: ends.remote?, server: ends.local })
}

/// Connections with what is known of them.
#[derive(Debug)]
struct Kept<T> {
    of: HashMap<Ends, VecDeque<T>>,
    troubled: HashMap<Ends, ()>,
    left_out: u64,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { of: HashMap::new(), troubled: HashMap::new(), left_out: 0 }
    }
}

impl<T> Kept<T> {
    fn add(&mut self, ends: Ends, one: T, troubled: bool) {
        let all = self.of.entry(ends).or_default();
        if all.len() >= AGAIN {
            all.pop_front();
            self.left_out += 1;
        }
        all.push_back(one);
        self.rank(ends, troubled);
    }

    /// The last one if it is the `same`, or a new one.
    fn open(&mut self, ends: Ends, same: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
        let all = self.of.entry(ends).or_default();
        if !all.back().is_some_and(same) {
            if all.len() >= AGAIN {
                all.pop_front();
                self.left_out += 1;
            }
            all.push_back(new());
        }
        let last = all.len() - 1;
        &mut all[last]
    }

    /// Remembers whether there is something wrong with it, and makes room.
    fn rank(&mut self, ends: Ends, troubled: bool) {
        if troubled {
            self.troubled.insert(ends, ());
        }
        if self.of.len() < 2 * CONNECTIONS {
            return;
        }
        let place = |of: &Ends| {
            let mut hasher = DefaultHasher::new();
            of.hash(&mut hasher);
            (!self.troubled.contains_key(of), hasher.finish())
        };
        let mut places: Vec<(bool, u64)> = self.of.keys().map(place).collect();
        let (_, worst, _) = places.select_nth_unstable(CONNECTIONS);
        let worst = *worst;
        let gone: Vec<Ends> = self.of.keys().filter(|of| place(of) >= worst).copied().collect();
        for ends in gone {
            self.of.remove(&ends);
            self.troubled.remove(&ends);
            self.left_out += 1;
        }
    }
}
