//! "Who held port 35010 at 03:12": everything in a recording that says who had one port.

use std::net::SocketAddr;
use std::time::Duration;

use crate::correlate::Correlator;
use crate::event::{Event, How, Kind, ProcessDetails, Timestamp};

/// So many holdings are kept; of a port that is taken and given back all the time, the last ones before the question's time.
const HOLDINGS: usize = 4_096;

/// The question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortQuestion {
    /// Which port.
    pub port: u16,
    /// When, from its first to its last nanosecond; `None` for any time.
    pub at: Option<(Timestamp, Timestamp)>,
}

/// Somebody had the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Process id, if known.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its command line, if it was read.
    pub command: Option<String>,
    /// Its container, pod or unit.
    pub container: Option<String>,
    /// What else is known of it.
    pub details: ProcessDetails,
    /// Namespace.
    pub netns: u32,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end, of a connection.
    pub remote: Option<SocketAddr>,
    /// connect, bind, bind-any, listen…
    pub how: &'static str,
    /// Since when; with `since_seen` false: it was first seen then, and may have been there before.
    pub since: Timestamp,
    /// Whether the taking itself was seen.
    pub since_seen: bool,
    /// Until when; `None`: still held at the recording's end, as far as was seen.
    pub until: Option<Timestamp>,
    /// A TIME_WAIT remnant held it for up to a minute longer.
    pub time_wait: bool,
    sk: u64,
    inode: u64,
}

/// What is known about a port.
#[derive(Debug)]
pub(super) struct Holders {
    question: PortQuestion,
    known: Vec<Holding>,
}

impl Holders {
    pub(super) fn new(question: PortQuestion) -> Self {
        Self { question, known: Vec::new() }
    }

    pub(super) fn note(&mut self, event: &Event) {
        let (time, port) = (event.time, self.question.port);
        match &event.kind {
            Kind::PortTaken(taken) if taken.endpoints.local.port() == port => {
                let ends = &taken.endpoints;
                let mut holding = holding(ends.netns, ends.local, ends.remote, time);
                holding.pid = Some(taken.task.pid);
                holding.comm = Some(taken.task.comm.to_string());
                holding.how = taken.how.name();
                holding.since_seen = true;
                holding.sk = taken.sk;
                self.add(holding);
            }
            Kind::Connect(connect) if connect.endpoints.local.port() == port => {
                let Some(since) = connect.port_taken(time) else { return };
                if self.known.iter().any(|of| of.sk == connect.sk && of.until.is_none()) {
                    return;
                }
                let ends = &connect.endpoints;
                let mut holding = holding(ends.netns, ends.local, ends.remote, since);
                if let Some(task) = &connect.task {
                    holding.pid = Some(task.pid);
                    holding.comm = Some(task.comm.to_string());
                }
                holding.how = How::Connect.name();
                holding.since_seen = true;
                holding.sk = connect.sk;
                self.add(holding);
            }
            Kind::PortReleased(released) if released.endpoints.local.port() == port => {
                let open = self.known.iter_mut().rev().find(|of| of.sk == released.sk && of.until.is_none());
                if let Some(open) = open {
                    open.until = Some(time);
                    open.time_wait = released.time_wait;
                    open.remote = open.remote.or(released.endpoints.remote);
                } else {
                    let ends = &released.endpoints;
                    let since = time.before(Duration::from_nanos(released.held_ns));
                    let mut holding = holding(ends.netns, ends.local, ends.remote, since);
                    holding.pid = Some(released.pid);
                    holding.comm = Some(released.comm.to_string());
                    holding.how = released.how.name();
                    holding.since_seen = true;
                    holding.until = Some(time);
                    holding.time_wait = released.time_wait;
                    self.add(holding);
                }
            }
            Kind::Listen(listen) if listen.endpoints.local.port() == port => {
                let ends = &listen.endpoints;
                let mut holding = holding(ends.netns, ends.local, None, time);
                holding.pid = Some(listen.task.pid);
                holding.comm = Some(listen.task.comm.to_string());
                holding.how = "listen";
                holding.since_seen = !listen.again;
                (holding.sk, holding.inode) = (listen.listener.sk, listen.listener.inode);
                self.see(holding);
            }
            Kind::ListenerSample(sample) if sample.endpoints.local.port() == port => {
                let ends = &sample.endpoints;
                let mut holding = holding(ends.netns, ends.local, None, time);
                holding.how = "listen";
                (holding.sk, holding.inode) = (sample.listener.sk, sample.listener.inode);
                self.see(holding);
            }
            Kind::ListenerClosed(closed) if closed.endpoints.local.port() == port => {
                let inode = closed.listener.inode;
                for open in self.known.iter_mut().filter(|of| of.inode == inode && of.until.is_none()) {
                    open.until = Some(time);
                }
            }
            Kind::SocketOwner(found) if found.endpoints.local.port() == port => {
                let ends = &found.endpoints;
                let mut holding = holding(ends.netns, ends.local, ends.remote, time);
                if let Some(owner) = found.owners.first() {
                    holding.pid = Some(owner.pid);
                    holding.comm = Some(owner.comm.clone());
                }
                holding.how = "socket";
                (holding.sk, holding.inode) = (found.sk, found.inode);
                self.see(holding);
            }
            Kind::BindFail(fail) if fail.endpoints.local.port() == port => {
                for found in &fail.holders {
                    let ends = &found.endpoints;
                    let since = found.taker.as_ref().map_or(time, |taker| taker.since);
                    let mut holding = holding(ends.netns, ends.local, ends.remote, since);
                    holding.how = found.state.name();
                    if let Some(taker) = &found.taker {
                        holding.pid = Some(taker.task.pid);
                        holding.comm = Some(taker.task.comm.to_string());
                        holding.since_seen = true;
                        holding.until = taker.released;
                        holding.how = taker.how.name();
                    }
                    (holding.sk, holding.inode) = (found.sk, found.inode);
                    self.see(holding);
                }
            }
            Kind::HolderReport(report) if report.port == port => {
                for found in &report.holders {
                    let mut holding = holding(report.netns, found.local, found.remote, report.conflict);
                    holding.how = found.state.name();
                    if let Some(owner) = found.owners.first() {
                        holding.pid = Some(owner.pid);
                        holding.comm = Some(owner.comm.clone());
                    }
                    holding.inode = found.inode;
                    holding.until =
                        found.time_wait_left_ms.map(|left| time.after(Duration::from_millis(left)));
                    holding.time_wait = found.time_wait_left_ms.is_some();
                    self.see(holding);
                }
            }
            _ => {}
        }
    }

    /// A socket that is there, perhaps known already.
    fn see(&mut self, seen: Holding) {
        let same = |of: &&mut Holding| {
            of.until.is_none()
                && ((seen.sk != 0 && of.sk == seen.sk) || (seen.inode != 0 && of.inode == seen.inode))
        };
        let Some(known) = self.known.iter_mut().rev().find(same) else { return self.add(seen) };
        known.pid = known.pid.or(seen.pid);
        known.comm = known.comm.take().or(seen.comm);
        known.remote = known.remote.or(seen.remote);
        known.inode = known.inode.max(seen.inode);
        known.sk = known.sk.max(seen.sk);
        if seen.since_seen && !known.since_seen {
            (known.since, known.since_seen) = (seen.since, true);
        }
        if seen.how == "listen" {
            known.how = seen.how;
        }
    }

    fn add(&mut self, holding: Holding) {
        if self.question.at.is_some_and(|(_, last)| holding.since > last) {
            return;
        }
        if self.known.len() >= HOLDINGS {
            let over = self.known.iter().position(|of| of.until.is_some()).unwrap_or(0);
            self.known.remove(over);
        }
        self.known.push(holding);
    }

    /// Those that answer the question, the latest last.
    pub(super) fn finish(mut self, world: &Correlator) -> Vec<Holding> {
        let minute = Duration::from_secs(60);
        if let Some((first, last)) = self.question.at {
            self.known.retain(|of| {
                let until = of.until.map(|until| if of.time_wait { until.after(minute) } else { until });
                of.since <= last && until.is_none_or(|until| until >= first)
            });
        }
        for holding in &mut self.known {
            let Some(info) = holding.pid.and_then(|pid| world.processes().info(pid)) else { continue };
            // The number may have been given to another process since.
            if holding.comm.as_ref().is_none_or(|comm| *comm == info.comm) {
                holding.comm = Some(info.comm.clone());
                holding.command.clone_from(&info.command);
                holding.container.clone_from(&info.container);
                holding.details.clone_from(&info.details);
            }
        }
        self.known.sort_by_key(|of| of.since);
        self.known
    }
}

fn holding(netns: u32, local: SocketAddr, remote: Option<SocketAddr>, since: Timestamp) -> Holding {
    Holding {
        pid: None,
        comm: None,
        command: None,
        container: None,
        details: ProcessDetails::default(),
        netns,
        local,
        remote,
        how: "",
        since,
        since_seen: false,
        until: None,
        time_wait: false,
        sk: 0,
        inode: 0,
    }
}
