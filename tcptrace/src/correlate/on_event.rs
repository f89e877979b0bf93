//! Every event's way to the tables that it changes.

use std::time::Duration;

use crate::event::{
    BindFail, BindFailure, Event, HolderReport, Kind, Lost, SocketOwner, Timestamp, observation,
};

use super::conflict::Conflict;
use super::{Change, Correlator, Namespace, Observed, inference, owners_of, syn_inference};

/// What is read when the tracer starts comes within this time. A namespace that is met later is new.
const START: Duration = Duration::from_millis(500);

impl Correlator {
    /// Takes in an event; what it brings about is added to `changes`.
    pub fn on_event(&mut self, event: &Event, changes: &mut Vec<Change>) {
        let time = event.time;
        self.first.get_or_insert(time);
        self.now = self.now.max(time);
        if event.kind.is_kernel_record() {
            self.count(event.kind.name());
        }
        match &event.kind {
            Kind::Listen(listen) => {
                self.on_listen(time, listen, changes);
                if self.served.note_listen(time, listen) {
                    let port = (listen.endpoints.netns, listen.endpoints.local.port());
                    changes.push(Change::PortServed(port));
                }
            }
            Kind::Syn(syn) => self.on_syn(time, syn),
            Kind::SynDrop(drop) => self.on_syn_drop(time, drop, changes),
            Kind::AckDrop(drop) => self.on_ack_drop(time, drop, changes),
            Kind::SynAckRetransmit(again) => self.on_retransmit(time, again),
            Kind::RequestEnd(end) => self.on_request_end(time, end),
            Kind::Enqueue(enqueue) => self.on_enqueue(time, enqueue),
            Kind::Accept(accept) => self.on_accept(time, accept),
            Kind::AcceptFail(fail) => self.on_accept_fail(time, fail, changes),
            Kind::Connect(connect) => self.on_connect(time, connect, changes),
            Kind::NoListener(absent) => self.on_no_listener(time, absent, changes),
            Kind::HandshakeDrop(drop) => self.on_handshake_drop(time, drop, changes),
            Kind::ListenerReport(report) => {
                changes.extend(self.absences.note_report(self.now, report).map(Change::NoListener));
                self.destinations.note_report(report);
                let told = self.paths.note_report(self.now, report);
                changes.extend(told.into_iter().map(Change::HandshakeDropped));
            }
            Kind::ConnectSample(sample) => {
                let (key, grown) = self.destinations.note_sample(time, sample);
                self.namespace_mut(key.netns).note_observed(time, &grown.into());
                changes.push(Change::Learnt);
            }
            Kind::BindFail(fail) => self.on_bind_fail(time, fail, changes),
            Kind::ListenerClosed(closed) => self.on_closed(time, closed, changes),
            Kind::ListenerSample(sample) => self.on_sample(time, sample, changes),
            Kind::PrefixSample(sample) => {
                if let Some(id) = self.listeners.with_sk(sample.sk).map(|listener| listener.id)
                    && let Some(half_open) = self.half_open.get_mut(&id)
                {
                    half_open.note_completed(sample);
                }
            }
            Kind::CounterSample(sample) => {
                self.identify(time, sample.netns, sample.cookie, Some(sample));
                let late = time.since(self.start()) > START;
                self.namespace_mut(sample.netns).note_counters(time, **sample, late);
                changes.push(Change::Learnt);
            }
            Kind::KnobSample(sample) => {
                self.identify(time, sample.netns, sample.cookie, None);
                self.namespace_mut(sample.netns).knobs = (**sample).clone();
                changes.push(Change::Learnt);
            }
            Kind::Device(device) => {
                let key = (device.netns, device.index);
                self.devices.remove(&key);
                self.devices.get_or_insert_with(key, || (**device).clone());
                changes.push(Change::Learnt);
            }
            Kind::ProcessInfo(info) => {
                self.processes.note_info(info);
                changes.push(Change::Learnt);
            }
            Kind::ProcessState(state) => {
                self.processes.note_state(time, *state);
                changes.push(Change::Learnt);
            }
            Kind::SocketOwner(found) => {
                self.on_owner(found, changes);
                if self.served.note_owner(time, found) {
                    let port = (found.endpoints.netns, found.endpoints.local.port());
                    changes.push(Change::PortServed(port));
                }
            }
            Kind::HolderReport(report) => self.on_holder_report(report, changes),
            Kind::Coverage(coverage) => self.coverage = Some((**coverage).clone()),
            Kind::Lost(lost) => self.on_lost(lost, changes),
            Kind::Tick => self.on_tick(false, changes),
            Kind::End => self.on_tick(true, changes),
            Kind::NoPort(refused) => {
                if refused.endpoints.local.port() != 0 {
                    changes.extend(self.existing.note(time, refused).map(Change::ConnectionExists));
                } else if self.ports.note_no_port(time, refused) {
                    changes.push(Change::PortsExhausted(refused.endpoints.netns));
                }
            }
            Kind::PortUse(latest) => {
                let dialled = self.ports.note_use(time, latest);
                let more = Observed { dialled, ..Observed::default() };
                self.namespace_mut(latest.netns).note_observed(time, &more);
            }
            Kind::PortSurvey(survey) => changes.push(if self.ports.note_survey(time, survey) {
                Change::PortsExhausted(survey.netns)
            } else {
                Change::PortsRead(survey.netns)
            }),
            Kind::PortTaken(taken) => {
                if self.served.note_taken(time, taken) {
                    let port = (taken.endpoints.netns, taken.endpoints.local.port());
                    changes.push(Change::PortGrabbed(port));
                }
            }
            // Ports are followed in the kernel; these are streamed to be shown.
            Kind::PortReleased(_) => {}
        }
    }

    fn on_holder_report(&mut self, report: &HolderReport, changes: &mut Vec<Change>) {
        let (sockets, listeners) = (&self.sockets, &self.listeners);
        let waiting = self.conflicts.note_report(report, &|inode| owners_of(sockets, listeners, inode));
        for (key, was_waiting) in waiting {
            changes.push(if was_waiting { Change::Conflict(key) } else { Change::ConflictExplained(key) });
        }
        let waiting = self.existing.note_report(report, &|inode| owners_of(sockets, listeners, inode));
        for (key, was_waiting) in waiting {
            changes.push(if was_waiting {
                Change::ConnectionExists(key)
            } else {
                Change::ConnectionExplained(key)
            });
        }
    }

    fn on_bind_fail(&mut self, time: Timestamp, fail: &BindFail, changes: &mut Vec<Change>) {
        match fail.failure() {
            BindFailure::Conflict => {}
            BindFailure::Exhaustion => {
                if self.ports.note_bind(time, fail) {
                    changes.push(Change::PortsExhausted(fail.endpoints.netns));
                }
                return;
            }
            BindFailure::Refusal => {
                changes.push(Change::BindRefused(self.refusals.note(time, fail)));
                return;
            }
        }
        self.served.note_refused(time, fail);
        let (sockets, listeners) = (&self.sockets, &self.listeners);
        let key = self.conflicts.note(time, fail, &|inode| owners_of(sockets, listeners, inode));
        if self.conflicts.get(&key).is_some_and(Conflict::is_explained) {
            changes.push(Change::Conflict(key));
        }
    }

    fn on_owner(&mut self, found: &SocketOwner, changes: &mut Vec<Change>) {
        self.sockets.note(found);
        if let Some(id) = self.listeners.with_inode(found.inode).map(|listener| listener.id)
            && let Some(listener) = self.listeners.get_mut(id)
        {
            for owner in &found.owners {
                listener.owners.found(owner, found.confidence);
            }
        }
        changes.push(Change::Learnt);
    }

    fn on_lost(&mut self, lost: &Lost, changes: &mut Vec<Change>) {
        self.losses.note(lost);
        if lost.count > 0 {
            changes.push(Change::EventsLost { place: lost.place });
        }
    }

    fn on_tick(&mut self, end: bool, changes: &mut Vec<Change>) {
        if !self.observes(observation::SYN_DROP) || !self.observes(observation::ACK_DROP) {
            let mut netnses: Vec<u32> = self.namespaces.iter().map(|(netns, _)| *netns).collect();
            // In the same order every time: so findings get the same numbers in a replay.
            netnses.sort_unstable();
            for netns in netnses {
                let Some(namespace) = self.namespaces.get_mut(&netns) else { continue };
                for listener in inference::attribute(netns, namespace, &mut self.listeners, self.now) {
                    if let Some(listener) = self.listeners.get_mut(listener) {
                        listener.last_overflow = Some(self.now);
                    }
                    changes.push(Change::Overflowed { listener, peer: None });
                }
            }
        }
        self.settle_unanswered(end, changes);
        if !self.observes(observation::SYN_DROP) {
            let mut netnses: Vec<u32> = self.namespaces.iter().map(|(netns, _)| *netns).collect();
            netnses.sort_unstable();
            for netns in netnses {
                if let Some(namespace) = self.namespaces.get_mut(&netns) {
                    syn_inference::attribute(netns, namespace, &mut self.listeners, self.now);
                }
            }
        }
        if !end {
            // In this order: what imbalance explains is not told as a stall.
            changes.extend(self.listeners.imbalanced(self.now).into_iter().map(Change::Imbalanced));
            changes.extend(
                self.listeners
                    .stalled(self.now, self.thresholds.accept_stall.after)
                    .into_iter()
                    .map(Change::AcceptStalled),
            );
        }
        self.look_at_syn_queues(end, changes);
        if !end {
            self.namespaces.values_mut().for_each(Namespace::note_looked);
        }
        self.listeners.expire(self.now);
        changes.extend(self.ports.tick(self.now, end).into_iter().map(Change::PortsExhausted));
        let namespaces = &self.namespaces;
        let leaks = self.ports.leaks(self.now, |netns| namespaces.get(&netns)?.knobs.ephemeral_ports());
        changes.extend(leaks.into_iter().map(Change::PortsLeak));
        changes.extend(self.conflicts.stop_waiting(self.now, end).into_iter().map(Change::Conflict));
        changes.extend(self.existing.stop_waiting(self.now, end).into_iter().map(Change::ConnectionExists));
        changes.push(if end { Change::End } else { Change::Tick });
    }
}
