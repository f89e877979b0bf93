//! What happened to single connections, as far as events of them were reported one by one.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::correlate::BoundedMap;
use crate::event::{Connect, ConnectResult, Event, Kind, Timestamp};

/// Connections that are remembered; beyond that the one that was met first is forgotten.
const CONNECTIONS: usize = 2_048;

/// Events of one connection: these first ones, and as many of the latest.
const FIRST: usize = 8;
const LATEST: usize = 40;

/// Names a connection: both ends, and the namespace where an address means nothing without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionKey {
    /// The end that called connect().
    pub(crate) client: SocketAddr,
    /// The other end, as the client or the listener sees it.
    pub(crate) server: SocketAddr,
    /// Network namespace if an end is a loopback address, which each namespace has; else 0.
    netns: u32,
}

/// A connection, and what happened to it.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    pub(crate) key: ConnectionKey,
    /// Network namespaces that its events are of: the client's, the server's, or both.
    pub(crate) netns: Vec<u32>,
    /// Processes that its events name.
    pub(crate) processes: Vec<(u32, String)>,
    /// Oldest first.
    pub(crate) events: VecDeque<Event>,
    /// Events between the first and the latest that are not kept.
    pub(crate) left_out: u64,
}

impl Timeline {
    /// From the first event to the last.
    pub(crate) fn first(&self) -> Timestamp {
        self.events.front().map(|event| event.time).unwrap_or_default()
    }

    /// See `first`.
    pub(crate) fn last(&self) -> Timestamp {
        self.events.back().map(|event| event.time).unwrap_or_default()
    }

    /// How it stands, in a word or two.
    pub(crate) fn outcome(&self) -> &'static str {
        let mut outcome = "-";
        for event in &self.events {
            outcome = match &event.kind {
                Kind::Connect(connect) => match connect.result {
                    ConnectResult::SynAgain => "not answered yet",
                    result => result.name(),
                },
                Kind::Accept(_) => "accepted",
                Kind::Enqueue(_) => "waits for accept",
                Kind::SynDrop(_) => "SYN dropped",
                Kind::AckDrop(_) => "final ACK dropped",
                Kind::HandshakeDrop(_) => "dropped on its way",
                Kind::NoListener(_) => "no listener",
                Kind::NoPort(_) => "no port",
                Kind::SynAckRetransmit(_) => "SYN-ACK sent again",
                Kind::RequestEnd(end) => end.how.name(),
                _ => outcome,
            };
        }
        outcome
    }

    fn note(&mut self, event: &Event) {
        let about = event.kind.about();
        if let Some(netns) = about.netns.filter(|netns| !self.netns.contains(netns)) {
            self.netns.push(netns);
        }
        for (pid, comm) in about.processes {
            if pid != 0 && self.processes.iter().all(|(known, _)| *known != pid) {
                self.processes.push((pid, comm.to_owned()));
            }
        }
        if self.events.len() >= FIRST + LATEST {
            self.events.remove(FIRST);
            self.left_out += 1;
        }
        // Events of several CPUs come a little out of order.
        let later = self.events.iter().rev().take_while(|known| known.time > event.time).count();
        self.events.insert(self.events.len() - later, event.clone());
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Timelines {
    all: BoundedMap<ConnectionKey, Rc<Timeline>>,
}

impl Default for Timelines {
    fn default() -> Self {
        Self { all: BoundedMap::new(CONNECTIONS) }
    }
}

impl Timelines {
    pub(crate) fn note(&mut self, event: &Event) {
        let Some(key) = key_of(&event.kind) else { return };
        let new = || {
            Rc::new(Timeline {
                key,
                netns: Vec::new(),
                processes: Vec::new(),
                events: VecDeque::new(),
                left_out: 0,
            })
        };
        Rc::make_mut(self.all.get_or_insert_with(key, new)).note(event);
    }

    /// In no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Timeline>> {
        self.all.iter().map(|(_, timeline)| timeline)
    }

    /// How many are no longer kept.
    pub(crate) fn forgotten(&self) -> u64 {
        self.all.forgotten()
    }
}

/// The connection that an event is of; `None` if it is of none.
fn key_of(kind: &Kind) -> Option<ConnectionKey> {
    let (endpoints, at_server) = match kind {
        Kind::Syn(of) => (&of.endpoints, true),
        Kind::SynDrop(of) => (&of.endpoints, true),
        Kind::AckDrop(of) => (&of.endpoints, true),
        Kind::Enqueue(of) => (&of.endpoints, true),
        Kind::Accept(of) => (&of.endpoints, true),
        Kind::SynAckRetransmit(of) => (&of.endpoints, true),
        Kind::RequestEnd(of) => (&of.endpoints, true),
        Kind::NoListener(of) => (&of.endpoints, true),
        Kind::Connect(of) => (&of.endpoints, false),
        Kind::HandshakeDrop(of) => (&of.endpoints, of.server() == of.endpoints.local),
        _ => return None,
    };
    let remote = endpoints.remote?;
    let (client, server) = if at_server { (remote, endpoints.local) } else { (endpoints.local, remote) };
    // The tracepoint tier does not see the end of a connection that was reset before it was accepted.
    if server.port() == 0 {
        return None;
    }
    if client.port() == 0 && !matches!(kind, Kind::Connect(of) if is_told(of)) {
        return None;
    }
    let is_local = client.ip().to_canonical().is_loopback() || server.ip().to_canonical().is_loopback();
    Some(ConnectionKey { client, server, netns: if is_local { endpoints.netns } else { 0 } })
}

/// A connect that failed before it had a port is still worth a line of its own.
fn is_told(connect: &Connect) -> bool {
    connect.result == ConnectResult::Error
}
