//! What an event may bring about.

use std::net::SocketAddr;

use crate::event::LossPlace;

use super::absent::AbsentKey;
use super::conflict::ConflictKey;
use super::connect::DestinationKey;
use super::existing::TupleKey;
use super::listener::ListenerId;
use super::path::PathKey;
use super::ports::PortUser;
use super::refusal::RefusalKey;
use super::served::ServedPort;

/// What an event brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A listener dropped at its full accept queue.
    Overflowed {
        /// The listener.
        listener: ListenerId,
        /// Whose SYN or final ACK it was, if one was seen.
        peer: Option<SocketAddr>,
    },
    /// Connections have been waiting for the time of [`Thresholds`](super::Thresholds), and nobody has accepted meanwhile. Told again every second.
    AcceptStalled(ListenerId),
    /// accept() failed for want of something.
    AcceptFailed(ListenerId),
    /// Connections wait at one member of a reuseport group, or are dropped there, while the others are idle. Told again every
    /// second.
    Imbalanced(ListenerId),
    /// The SYN queue of a listener is full, of connections that nobody else tells of. Told every second while it lasts.
    SynQueueFull(ListenerId),
    /// SYN-ACKs of a listener stay unanswered, and pile up. Told every second while it lasts.
    Captured(ListenerId),
    /// New numbers of a listener.
    ListenerRead(ListenerId),
    /// listen() made a listener, or changed its backlog.
    Listened(ListenerId),
    /// A listener was closed.
    ListenerClosed(ListenerId),
    /// bind() or listen() failed because of somebody else. Told once it is known as well as can be, at the latest a second
    /// of event time after the attempt.
    Conflict(ConflictKey),
    /// More is known of a conflict.
    ConflictExplained(ConflictKey),
    /// connect() from a port of its own failed: the same connection exists. Told once it is known as well as can be, at the
    /// latest a second of event time after the attempt.
    ConnectionExists(TupleKey),
    /// More is known of what holds it.
    ConnectionExplained(TupleKey),
    /// bind() or listen() failed, whoever has the port.
    BindRefused(RefusalKey),
    /// SYNs arrive for a port that nobody listens on.
    NoListener(AbsentKey),
    /// Packets of handshakes are dropped on their way by this host.
    HandshakeDropped(PathKey),
    /// Somebody wanted an ephemeral port of this namespace, and there was none. Told once it is known who has them, at the
    /// latest 1.5 s after the first failure.
    PortsExhausted(u32),
    /// A server listens on this port, which it asked for by number.
    PortServed(ServedPort),
    /// A client was given this port, which a server asked for by number before.
    PortGrabbed(ServedPort),
    /// More is known of who has the ports of this namespace.
    PortsRead(u32),
    /// A process takes ports and does not give them back. Told every second while it grows.
    PortsLeak(PortUser),
    /// Connects to a destination go unanswered.
    Unanswered(DestinationKey),
    /// Connects to a destination are refused.
    Refused(DestinationKey),
    /// The tracer lost events.
    EventsLost {
        /// Where.
        place: LossPlace,
    },
    /// Something may be known better: knobs, processes, counters.
    Learnt,
    /// A second has passed.
    Tick,
    /// Nothing more will come.
    End,
}
