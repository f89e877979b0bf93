//! The client's side: connects, and what becomes of their packets on the way.

use std::time::Duration;

use crate::event::{Connect, HandshakeDrop, NoListener, Packet, Timestamp};

use super::connect::{DestinationKey, ServerSide};
use super::{Change, Correlator, Observed};

/// A SYN that is sent again was dropped so long ago: less than the pause before the fourth repetition.
const RECENT_OVERFLOW: Duration = Duration::from_secs(10);

impl Correlator {
    pub(super) fn on_connect(&mut self, time: Timestamp, connect: &Connect, changes: &mut Vec<Change>) {
        if let Some((path, tells)) = self.paths.note_unroutable(time, connect) {
            changes.extend(tells.then_some(Change::HandshakeDropped(path)));
        }
        let Some((key, meaning, grown)) = self.destinations.note(time, connect) else { return };
        self.namespace_mut(key.netns).note_observed(time, &grown.into());
        if !meaning.refused && self.destination(&key).is_some_and(|known| known.server_side.is_none()) {
            // Where no probe sees the drop itself: a listener here that overflows, and has that address.
            let (local, remote) = (connect.endpoints.local.ip(), key.remote.ip());
            let here = remote.is_loopback() || remote == local;
            let mut listeners = self.listeners.at_port(key.netns, key.remote.port()).filter(|_| here);
            if let Some(listener) = listeners.find(|l| l.overflowed_within(RECENT_OVERFLOW, time)) {
                self.destinations.note_full_listener(&key, listener.id);
            }
        }
        let silent = self.paths.dropped_silently(connect.endpoints.local, key.remote).map(str::to_owned);
        if let Some(function) = silent {
            self.destinations.note_silent_drop(&key, &function);
        }
        let server_side = self.destination(&key).and_then(|known| known.server_side);
        match (server_side, &connect.task) {
            (Some(ServerSide::NoListener(absent)), Some(task)) => self.absences.note_client(absent, task),
            (Some(ServerSide::Dropped(path)), Some(task)) => self.paths.note_client(&path, task),
            _ => {}
        }
        if meaning.unanswered && server_side.is_none() {
            self.destinations.wait_for_a_drop(time, key, connect.endpoints.local);
        } else if meaning.unanswered && !self.is_dropped_with_others(&key) {
            changes.push(Change::Unanswered(key));
        }
        // Where the port is this host's, it is told from there, and who calls is told with it.
        if meaning.refused && !matches!(server_side, Some(ServerSide::NoListener(_))) {
            changes.push(Change::Refused(key));
        }
    }

    /// Whether this host drops SYNs to a destination for a cause that hits many: that is reported once, with all of them.
    fn is_dropped_with_others(&self, key: &DestinationKey) -> bool {
        let server_side = self.destination(key).and_then(|known| known.server_side);
        matches!(server_side, Some(ServerSide::Dropped(path)) if path.server.is_none())
    }

    /// Connects that went unanswered a moment ago, now that what this host did with their SYNs is known.
    pub(super) fn settle_unanswered(&mut self, end: bool, changes: &mut Vec<Change>) {
        for key in self.destinations.stop_waiting(self.now, end) {
            if !self.is_dropped_with_others(&key) {
                changes.push(Change::Unanswered(key));
            }
        }
    }

    pub(super) fn on_handshake_drop(
        &mut self,
        time: Timestamp,
        drop: &HandshakeDrop,
        changes: &mut Vec<Change>,
    ) {
        if !drop.handshake && !self.is_half_open(drop) {
            return;
        }
        let Some((key, tells)) = self.paths.note(time, drop) else { return };
        if drop.packet == Packet::Syn {
            self.destinations.note_server_side(drop.client(), drop.server(), ServerSide::Dropped(key));
        }
        if tells {
            changes.push(Change::HandshakeDropped(key));
        }
    }

    /// Whether an ACK is the answer to a SYN-ACK that was sent again.
    fn is_half_open(&self, drop: &HandshakeDrop) -> bool {
        let (client, server) = (drop.client(), drop.server());
        let mut listeners = self.listeners.at_port(drop.endpoints.netns, server.port());
        listeners.any(|listener| self.half_open.get(&listener.id).is_some_and(|known| known.awaits(client)))
    }

    pub(super) fn on_no_listener(&mut self, time: Timestamp, absent: &NoListener, changes: &mut Vec<Change>) {
        let key = (absent.endpoints.netns, absent.endpoints.local.port());
        if let Some(client) = absent.endpoints.remote {
            let what = ServerSide::NoListener(key);
            self.destinations.note_server_side(client, absent.endpoints.local, what);
            self.destinations.note_end_of_way(&absent.endpoints, client, what);
        }
        let (more, told) = self.absences.note(time, absent);
        let more = Observed { absent: more, ..Observed::default() };
        self.namespace_mut(key.0).note_observed(time, &more);
        changes.extend(told.map(Change::NoListener));
    }
}
