//! The server's side: what happens to listeners, their queues and their half-open requests.

use crate::event::{
    Accept, AcceptFail, AckDrop, AckDropCause, Endpoints, Enqueue, Listen, ListenerClosed, ListenerRef,
    ListenerSample, ListenerTotals, RequestEnd, RequestEnding, RetransmitCause, SampleSource, Syn,
    SynAckRetransmit, SynDrop, SynDropCause, Timestamp, observation,
};

use super::absent::Former;
use super::connect::ServerSide;
use super::half_open::HalfOpen;
use super::listener::{Closing, ListenerId};
use super::{Change, Correlator};

impl Correlator {
    pub(super) fn on_listen(&mut self, time: Timestamp, listen: &Listen, changes: &mut Vec<Change>) {
        let id = if listen.again {
            self.listeners.resolve(time, &listen.endpoints, &listen.listener)
        } else {
            self.listeners.began(time, &listen.endpoints, &listen.listener)
        };
        let zero = self.as_far_as_observed(ListenerTotals::ZERO);
        let port = (listen.endpoints.netns, listen.endpoints.local.port());
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.note_place(&listen.endpoints);
        listener.note_queue(time, &listen.listener);
        // What a program has open has a file.
        if listen.listener.inode == 0 && !listen.again {
            listener.made_by = Some(listen.task.clone());
        } else {
            listener.owners.observe(&listen.task);
        }
        listener.note_listen(time, listen);
        changes.push(Change::Listened(id));
        if listen.again {
            return;
        }
        self.absences.note_listening(port);
        // What it counted before is nothing: rates start here.
        listener.port_base = self.port_counts.get(&port).copied().unwrap_or_default();
        listener.note_totals(&zero);
        if !self.observes(observation::SYN_DROP) {
            self.listeners.forget_accepts_if_shared(port.0, port.1);
        }
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.take_reading(time);
        }
    }

    fn on_drop(
        &mut self,
        time: Timestamp,
        endpoints: &Endpoints,
        queue: &ListenerRef,
        totals: ListenerTotals,
        overflow: bool,
        changes: &mut Vec<Change>,
    ) -> ListenerId {
        let id = self.listeners.resolve_called(time, endpoints, queue);
        let Some(listener) = self.listeners.get_mut(id) else { return id };
        listener.note_queue(time, queue);
        let seen = listener.note_totals(&totals);
        if listener.owners.is_empty()
            && let Some(owners) = self.sockets.of(listener.inode)
        {
            listener.owners = owners.clone();
        }
        if !listener.place_known
            && let Some(place) = self.sockets.place_of(listener.inode)
        {
            listener.note_place(place);
        }
        if overflow {
            listener.last_overflow = listener.last_overflow.max(Some(time));
        }
        self.namespace_mut(endpoints.netns).note_observed(time, &seen.into());
        if overflow {
            changes.push(Change::Overflowed { listener: id, peer: endpoints.remote });
        }
        id
    }

    pub(super) fn on_syn_drop(&mut self, time: Timestamp, drop: &SynDrop, changes: &mut Vec<Change>) {
        let mut totals = ListenerTotals::default();
        match drop.cause {
            SynDropCause::AcceptQueue => totals.syn_drops_accept_queue = Some(drop.total),
            SynDropCause::SynQueue | SynDropCause::Other => {
                totals.syn_drops_syn_queue = Some(drop.total);
            }
            SynDropCause::MaxSynBacklog => totals.syn_drops_max_syn_backlog = Some(drop.total),
            SynDropCause::NoRoute => totals.syn_drops_no_route = Some(drop.total),
        }
        if matches!(drop.cause, SynDropCause::SynQueue | SynDropCause::MaxSynBacklog) {
            let id = self.listeners.resolve_called(time, &drop.endpoints, &drop.listener);
            if let Some(listener) = self.listeners.get_mut(id) {
                let before = listener.totals;
                listener.note_syn_queue_full(time, &before);
            }
        }
        let overflow = drop.cause == SynDropCause::AcceptQueue;
        let id = self.on_drop(time, &drop.endpoints, &drop.listener, totals, overflow, changes);
        if let Some(client) = drop.endpoints.remote {
            let what = match drop.cause {
                SynDropCause::AcceptQueue => ServerSide::AcceptQueueFull(id),
                SynDropCause::NoRoute => {
                    let (path, tells) = self.paths.note_no_way_back(time, &drop.endpoints, client, id);
                    changes.extend(tells.then_some(Change::HandshakeDropped(path)));
                    ServerSide::Dropped(path)
                }
                _ => ServerSide::SynQueueFull(id),
            };
            self.destinations.note_server_side(client, drop.endpoints.local, what);
            if !matches!(what, ServerSide::Dropped(_)) {
                self.destinations.note_end_of_way(&drop.endpoints, client, what);
            }
        }
    }

    pub(super) fn on_ack_drop(&mut self, time: Timestamp, drop: &AckDrop, changes: &mut Vec<Change>) {
        let id = self.listeners.resolve_called(time, &drop.endpoints, &drop.listener);
        self.note_port_acks(drop);
        if let (Some(half_open), Some(peer)) = (self.half_open.get_mut(&id), drop.endpoints.remote) {
            half_open.note_answer(peer);
        }
        let total = self.ack_total(id, drop.total, drop.cause);
        let mut totals = ListenerTotals::default();
        match drop.cause {
            AckDropCause::AcceptQueue => totals.ack_drops_accept_queue = Some(total),
            AckDropCause::Other => totals.ack_drops_other = Some(total),
        }
        let overflow = drop.cause == AckDropCause::AcceptQueue;
        let _ = self.on_drop(time, &drop.endpoints, &drop.listener, totals, overflow, changes);
    }

    pub(super) fn on_retransmit(&mut self, time: Timestamp, again: &SynAckRetransmit) {
        let mut totals = ListenerTotals { last_retransmit: Some(time), ..ListenerTotals::default() };
        match again.cause {
            RetransmitCause::Timer => totals.retransmits_timer = Some(again.total),
            RetransmitCause::DuplicateSyn => totals.retransmits_duplicate_syn = Some(again.total),
            RetransmitCause::Unknown => totals.retransmits_unknown = Some(again.total),
        }
        let id = self.on_half_open(time, &again.endpoints, &again.listener, totals);
        self.half_open.get_or_insert_with(id, HalfOpen::default).note_retransmit(time, again);
    }

    pub(super) fn on_request_end(&mut self, time: Timestamp, end: &RequestEnd) {
        let mut totals = ListenerTotals::default();
        match end.how {
            RequestEnding::Expired => totals.expired = Some(end.total),
            RequestEnding::Reset => totals.resets = Some(end.total),
            RequestEnding::Aborted => totals.aborts = Some(end.total),
            RequestEnding::Icmp => totals.icmp_ends = Some(end.total),
            RequestEnding::Joined => totals.joins = Some(end.total),
            RequestEnding::ListenerClosed => {}
        }
        let id = self.on_half_open(time, &end.endpoints, &end.listener, totals);
        if end.how == RequestEnding::Expired && !end.acked {
            self.half_open.get_or_insert_with(id, HalfOpen::default);
        }
        if let Some(half_open) = self.half_open.get_mut(&id) {
            half_open.note_end(time, end);
        }
    }

    pub(super) fn on_syn(&mut self, time: Timestamp, syn: &Syn) {
        let id = self.listeners.resolve_called(time, &syn.endpoints, &syn.listener);
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.note_queue(time, &syn.listener);
            listener.last_seen = listener.last_seen.max(time);
        }
    }

    pub(super) fn on_enqueue(&mut self, time: Timestamp, enqueue: &Enqueue) {
        if let Some(id) = self.quiet_listener(time, &enqueue.endpoints, &enqueue.listener)
            && let Some(listener) = self.listeners.get_mut(id)
        {
            if enqueue.listener.sk != 0 {
                listener.note_queue(time, &enqueue.listener);
            }
            listener.last_seen = listener.last_seen.max(time);
        }
    }

    pub(super) fn on_accept(&mut self, time: Timestamp, accept: &Accept) {
        if let Some(id) = self.quiet_listener(time, &accept.endpoints, &accept.listener)
            && let Some(listener) = self.listeners.get_mut(id)
        {
            if accept.listener.sk != 0 {
                listener.note_queue(time, &accept.listener);
            }
            listener.owners.observe(&accept.task);
            listener.note_accept(time, accept);
        }
    }

    pub(super) fn on_accept_fail(&mut self, time: Timestamp, fail: &AcceptFail, changes: &mut Vec<Change>) {
        let id = self.listeners.resolve(time, &fail.endpoints, &fail.listener);
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.note_place(&fail.endpoints);
        listener.note_queue(time, &fail.listener);
        listener.owners.observe(&fail.task);
        listener.note_accept_fail(time, fail);
        changes.push(Change::AcceptFailed(id));
    }

    fn note_port_acks(&mut self, drop: &AckDrop) {
        if self.observes(observation::SYN_DROP) {
            return;
        }
        let mut counts = ListenerTotals::default();
        match drop.cause {
            AckDropCause::AcceptQueue => counts.ack_drops_accept_queue = Some(drop.total),
            AckDropCause::Other => counts.ack_drops_other = Some(drop.total),
        }
        let port = (drop.endpoints.netns, drop.endpoints.local.port());
        self.port_counts.get_or_insert_with(port, ListenerTotals::default).raise_to(&counts);
    }

    /// The tracepoint tier counts final-ACK drops by port. That is the listener's own count if it is alone there; otherwise
    /// the drops that name it are counted one by one.
    fn ack_total(&self, id: ListenerId, total: u64, cause: AckDropCause) -> u64 {
        let Some(listener) = self.listeners.get(id) else { return total };
        let (netns, port) = (listener.endpoints.netns, listener.endpoints.local.port());
        if self.observes(observation::SYN_DROP) {
            return total;
        }
        let (mine, base) = match cause {
            AckDropCause::AcceptQueue => {
                (listener.totals.ack_drops_accept_queue, listener.port_base.ack_drops_accept_queue)
            }
            AckDropCause::Other => (listener.totals.ack_drops_other, listener.port_base.ack_drops_other),
        };
        if self.listeners.only_at_port(netns, port) == Some(id) {
            return total.saturating_sub(base.unwrap_or(0));
        }
        mine.unwrap_or(0) + 1
    }

    /// Takes in what happened to a half-open request of a listener.
    fn on_half_open(
        &mut self,
        time: Timestamp,
        endpoints: &Endpoints,
        queue: &ListenerRef,
        totals: ListenerTotals,
    ) -> ListenerId {
        let id = self.listeners.resolve_called(time, endpoints, queue);
        if let Some(listener) = self.listeners.get_mut(id) {
            let seen = listener.note_totals(&totals);
            if queue.sk != 0 {
                listener.syn_queue = Some(queue.syn_queue);
            }
            listener.last_seen = listener.last_seen.max(time);
            self.namespace_mut(endpoints.netns).note_observed(time, &seen.into());
        }
        id
    }

    /// The listener of a connection, which in the tracepoint tier is known by its port alone.
    fn quiet_listener(
        &mut self,
        time: Timestamp,
        endpoints: &Endpoints,
        queue: &ListenerRef,
    ) -> Option<ListenerId> {
        if queue.sk != 0 || queue.inode != 0 {
            // The local end of a connection has the address that the peer called, not the listener's own.
            return Some(self.listeners.resolve_called(time, endpoints, queue));
        }
        self.listeners.only_at_port(endpoints.netns, endpoints.local.port())
    }

    pub(super) fn on_closed(&mut self, time: Timestamp, closed: &ListenerClosed, changes: &mut Vec<Change>) {
        let id = self.listeners.resolve(time, &closed.endpoints, &closed.listener);
        let last = closed.last.map(|last| self.as_far_as_observed(last));
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.note_place(&closed.endpoints);
            listener.note_queue(time, &closed.listener);
            // A thread of the kernel closes it for a process, which it does not name.
            if listener.owners.is_empty() && !closed.by_kernel {
                listener.owners.observe(&closed.task);
            }
            listener.closing = Some(Closing {
                task: closed.task.clone(),
                queued: closed.listener.depth,
                half_open: closed.listener.syn_queue,
                exiting: closed.exiting,
                by_kernel: closed.by_kernel,
            });
            if let Some(last) = last {
                let seen = listener.note_totals(&last);
                listener.take_reading(time);
                self.namespace_mut(closed.endpoints.netns).note_observed(time, &seen.into());
            }
        }
        let owners = self.listeners.get(id).map(|listener| listener.owners.clone()).unwrap_or_default();
        let (netns, local) = (closed.endpoints.netns, closed.endpoints.local);
        let former = Former { local, owners, closed: time, exiting: closed.exiting };
        self.absences.note_closed((netns, local.port()), former);
        self.listeners.close(id, time);
        self.sockets.forget(closed.listener.inode);
        changes.push(Change::ListenerClosed(id));
    }

    pub(super) fn on_sample(&mut self, time: Timestamp, sample: &ListenerSample, changes: &mut Vec<Change>) {
        let (netns, port) = (sample.endpoints.netns, sample.endpoints.local.port());
        // Counts of the tracepoint tier are kept by namespace and port, under a key made of both.
        let keyed_by_port =
            sample.listener.sk != 0 && sample.listener.sk == u64::from(netns) << 16 | u64::from(port);
        // Samples of sock_diag carry them, too, when a listener is alone on its port.
        let by_port = keyed_by_port || sample.source == SampleSource::Polled;
        if by_port {
            self.port_counts.get_or_insert_with((netns, port), ListenerTotals::default).raise_to(
                &ListenerTotals {
                    socket_drops: None,
                    depth_max: None,
                    syn_queue_max: None,
                    deferred: None,
                    ..sample.totals
                },
            );
        }
        let id = if keyed_by_port {
            let Some(id) = self.listeners.only_at_port(netns, port) else { return };
            id
        } else {
            self.listeners.resolve(time, &sample.endpoints, &sample.listener)
        };
        let mut totals = match sample.source {
            SampleSource::Observed => self.as_far_as_observed(sample.totals),
            // What the probes counted by port comes along; what is polled is known whatever is observed.
            SampleSource::Polled => ListenerTotals {
                deferred: sample.totals.deferred,
                syn_queue_max: sample.totals.syn_queue_max.filter(|most| *most > 0),
                ..self.as_far_as_observed(sample.totals)
            },
        };
        if let Some(listener) = self.listeners.get(id).filter(|_| by_port) {
            totals = totals.less(&listener.port_base);
        }
        // Where no probe sees the queue, only polling does.
        let sees_queue = sample.source == SampleSource::Polled
            || (!keyed_by_port
                && (self.observes(observation::SYN_DROP) || self.observes(observation::ENQUEUE)));
        let syncookies = self.namespaces.get(&netns).and_then(|namespace| namespace.knobs.syncookies);
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.last_seen = listener.last_seen.max(time);
        // With tcp_syncookies=2 cookies are always sent.
        let for_want_of_room = match syncookies {
            Some(value) => value != 2,
            None => totals.syn_queue_max.is_some_and(|deepest| deepest >= sample.listener.limit),
        };
        if (for_want_of_room && totals.cookies_sent > listener.totals.cookies_sent.or(Some(0)))
            || totals.syn_drops_max_syn_backlog > listener.totals.syn_drops_max_syn_backlog.or(Some(0))
        {
            let before = listener.totals;
            listener.note_syn_queue_full(time, &before);
        }
        if !keyed_by_port {
            listener.note_place(&sample.endpoints);
        }
        if sees_queue {
            listener.note_queue(time, &sample.listener);
        }
        if sample.source == SampleSource::Polled {
            listener.syn_queue = totals.syn_queue_max;
        }
        if let Some(acceptor) = totals.last_acceptor {
            listener.owners.confirm(acceptor.pid);
        }
        let before = listener.overflows();
        let accepted_before = listener.totals.accepted;
        let seen = listener.note_totals(&totals);
        match sample.source {
            SampleSource::Observed => listener.deferred.note_more(time, seen.deferred.unwrap_or(0)),
            SampleSource::Polled => listener.deferred.note_at_once(time, totals.deferred.unwrap_or(0)),
        }
        if totals.last_accept.is_none() && listener.totals.accepted > accepted_before {
            listener.note_accepted_until(time);
        }
        listener.take_reading(time);
        if let Some(waits) = &sample.waits {
            listener.waits.note(time, waits);
        }
        if listener.owners.is_empty()
            && let Some(owners) = self.sockets.of(listener.inode)
        {
            listener.owners = owners.clone();
        }
        let overflowed = listener.overflows() != before;
        if overflowed {
            listener.last_overflow = listener.last_overflow.max(Some(time));
        }
        self.namespace_mut(netns).note_observed(time, &seen.into());
        // Drops whose own records were lost, or are still on their way.
        if overflowed {
            changes.push(Change::Overflowed { listener: id, peer: None });
        }
        changes.push(Change::ListenerRead(id));
    }
}
