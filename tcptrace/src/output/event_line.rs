//! An event as a line of output: what all events have in common, then what its kind adds.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::correlate::Correlator;
use crate::event::{Endpoints, Event, Kind, ListenerRef, Task, Timestamp};
use crate::finding::{
    Evidence, ProcessName, Value,
    words::{self, errno_name},
};

/// An event, to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EventLine {
    pub(super) time: Timestamp,
    pub(super) event: &'static str,
    pub(super) netns: u32,
    /// Its name, if it has one.
    pub(super) netns_name: Option<String>,
    /// The process that acted, or that has the listener.
    pub(super) process: Option<ProcessName>,
    pub(super) local: SocketAddr,
    pub(super) remote: Option<SocketAddr>,
    /// What its kind adds.
    pub(super) facts: Evidence,
}

impl EventLine {
    /// The line of a kernel record; other events are no lines.
    pub(super) fn of(event: &Event, world: &Correlator) -> Option<Self> {
        let (endpoints, task, facts): (&Endpoints, Option<&Task>, Evidence) = match &event.kind {
            Kind::Listen(listen) => (
                &listen.endpoints,
                Some(&listen.task),
                Evidence::new()
                    .with("backlog", listen.backlog)
                    .with("somaxconn", listen.somaxconn)
                    .with("queue_limit", listen.listener.limit)
                    .with("options", listen.options)
                    .with("again", listen.again),
            ),
            Kind::Syn(syn) => (&syn.endpoints, None, queue(&syn.listener).with("answer", syn.answer.name())),
            Kind::SynDrop(drop) => (
                &drop.endpoints,
                None,
                queue(&drop.listener)
                    .with("cause", drop.cause.name())
                    .with("syncookies", drop.syncookies)
                    .with("total", drop.total),
            ),
            Kind::AckDrop(drop) => (
                &drop.endpoints,
                None,
                queue(&drop.listener).with("cause", drop.cause.name()).with("total", drop.total),
            ),
            Kind::Enqueue(enqueue) => (
                &enqueue.endpoints,
                None,
                queue(&enqueue.listener)
                    .with("how", enqueue.how.name())
                    .with("handshake_ms", ms(enqueue.handshake_ns)),
            ),
            Kind::SynAckRetransmit(again) => (
                &again.endpoints,
                None,
                queue(&again.listener)
                    .with("cause", again.cause.name())
                    .with("timeouts", again.timeouts)
                    .with("age_ms", ms(again.age_ns))
                    .with("first_synack", first_synack(event.time, again.age_ns))
                    .with("acked", again.acked)
                    .with("deferred", again.deferred),
            ),
            Kind::RequestEnd(end) => (
                &end.endpoints,
                None,
                queue(&end.listener)
                    .with("how", end.how.name())
                    .with("timeouts", end.timeouts)
                    .with("age_ms", ms(end.age_ns))
                    .with("first_synack", first_synack(event.time, end.age_ns))
                    .with("acked", end.acked)
                    .with("deferred", end.deferred)
                    .with("icmp", end.icmp.map(|(kind, code)| format!("{kind}/{code}"))),
            ),
            Kind::Accept(accept) => (
                &accept.endpoints,
                Some(&accept.task),
                queue(&accept.listener).with("tid", accept.task.tid).with("wait_ms", ms(accept.wait_ns)),
            ),
            Kind::BindFail(fail) => (
                &fail.endpoints,
                Some(&fail.task),
                Evidence::new()
                    .with("stage", fail.stage.name())
                    .with("errno", errno_name(fail.errno))
                    .with("why", fail.reason())
                    .with("options", fail.options)
                    .with("uid", fail.task.uid)
                    .with("holders", fail.holders_met),
            ),
            Kind::HandshakeDrop(dropped) => (
                &dropped.endpoints,
                dropped.task.as_ref(),
                Evidence::new()
                    .with("packet", dropped.packet.name())
                    .with("direction", if dropped.outgoing { "out" } else { "in" })
                    .with("reason", dropped.reason_name.clone())
                    .with("function", dropped.function.clone())
                    .with("total", dropped.total),
            ),
            Kind::NoListener(absent) => {
                (&absent.endpoints, None, Evidence::new().with("total", absent.total))
            }
            Kind::Connect(connect) => (
                &connect.endpoints,
                connect.task.as_ref(),
                Evidence::new()
                    .with("result", connect.result.name())
                    .with("errno", connect.errno.map(errno_name))
                    .with("syns_again", connect.syns_again)
                    .with("age_ms", ms(connect.age_ns)),
            ),
            Kind::PortTaken(taken) => (
                &taken.endpoints,
                Some(&taken.task),
                Evidence::new().with("how", taken.how.name()).with("options", taken.options),
            ),
            Kind::PortReleased(released) => {
                let facts = Evidence::new()
                    .with("how", released.how.name())
                    .with("held_ms", ms(released.held_ns))
                    .with("time_wait", released.time_wait);
                let mut line = Self::new(event, &released.endpoints, facts, world);
                line.name(released.pid, &released.comm, world);
                return Some(line);
            }
            Kind::NoPort(refused) => (
                &refused.endpoints,
                Some(&refused.task),
                Evidence::new()
                    .with("errno", "EADDRNOTAVAIL")
                    .with(
                        "why",
                        if refused.endpoints.local.port() == 0 {
                            "no-port-left"
                        } else {
                            "connection-exists"
                        },
                    )
                    .with("options", refused.options)
                    .with("total", refused.total),
            ),
            Kind::AcceptFail(fail) => (
                &fail.endpoints,
                Some(&fail.task),
                Evidence::new()
                    .with("errno", errno_name(fail.errno))
                    .with("open_files_limit", fail.open_files_limit)
                    .with_some("host_files_limit", fail.host_files_limit)
                    .with("queue", fail.listener.depth)
                    .with("total", fail.total),
            ),
            Kind::ListenerClosed(closed) => (
                &closed.endpoints,
                Some(&closed.task),
                Evidence::new().with("lost_connections", closed.listener.depth),
            ),
            _ => return None,
        };
        let mut line = Self::new(event, endpoints, facts, world);
        match task {
            Some(task) => line.name(task.pid, &task.comm, world),
            // In softirq context nobody acts; but the listener has an owner.
            None => line.name_listener(event, world),
        }
        Some(line)
    }

    /// What happened, for people, without when and where: `syn-drop nginx[70] queue=6 queue_limit=5`.
    pub(super) fn in_words(&self) -> String {
        let mut text = self.event.to_owned();
        if let Some(process) = &self.process {
            let _ = write!(text, " {process}");
        }
        for (name, value) in self.facts.iter() {
            let time = |ms: &f64| Duration::try_from_secs_f64(ms / 1e3).ok();
            match (name.strip_suffix("_ms"), value) {
                (Some(name), Value::Measure(ms)) => {
                    let span = time(ms).map(words::span).unwrap_or_default();
                    let _ = write!(text, " {name}={}", span.replace(' ', ""));
                }
                _ => {
                    let value = super::text::value_in_words(value).map(|value| format!(" {name}={value}"));
                    text.extend(value);
                }
            }
        }
        text
    }

    fn new(event: &Event, endpoints: &Endpoints, facts: Evidence, world: &Correlator) -> Self {
        Self {
            time: event.time,
            event: event.kind.name(),
            netns: endpoints.netns,
            netns_name: world.netns_name(endpoints.netns).map(str::to_owned),
            process: None,
            local: endpoints.local,
            remote: endpoints.remote,
            facts,
        }
    }

    fn name(&mut self, pid: u32, comm: &str, world: &Correlator) {
        self.process = Some(ProcessName::observed(pid, comm, world.processes()));
    }

    fn name_listener(&mut self, event: &Event, world: &Correlator) {
        let inode = match &event.kind {
            Kind::SynDrop(drop) => drop.listener.inode,
            Kind::AckDrop(drop) => drop.listener.inode,
            Kind::Enqueue(enqueue) => enqueue.listener.inode,
            Kind::SynAckRetransmit(again) => again.listener.inode,
            Kind::RequestEnd(end) => end.listener.inode,
            _ => 0,
        };
        let owner = world.listeners().with_inode(inode).and_then(|listener| listener.owners.first());
        if let Some(owner) = owner {
            self.name(owner.pid, &owner.comm, world);
        }
    }
}

/// Nanoseconds as milliseconds, to the microsecond.
#[expect(clippy::cast_precision_loss, reason = "2^52 ns are 52 days")]
fn ms(ns: impl Into<Option<u64>>) -> Value {
    ns.into().map_or(Value::Unknown(()), |ns| Value::Measure((ns as f64 / 1e3).round() / 1e3))
}

/// What happened, in words, without when and where; `None` for what is no record of the kernel side.
pub(crate) fn event_in_words(event: &Event, world: &Correlator) -> Option<String> {
    EventLine::of(event, world).map(|line| line.in_words())
}

/// When a request was first answered, so when its SYN came.
fn first_synack(time: Timestamp, age_ns: Option<u64>) -> Option<String> {
    age_ns.map(|age| time.before(Duration::from_nanos(age)).to_string())
}

/// What is known of the queues; in the tracepoint tier nothing.
fn queue(listener: &ListenerRef) -> Evidence {
    let seen = |number: u32| (listener.sk != 0).then_some(number);
    Evidence::new()
        .with("queue", seen(listener.depth))
        .with("queue_limit", seen(listener.limit))
        .with("syn_queue", seen(listener.syn_queue))
}
