//! What processes do with ephemeral ports: the kernel side's counts once a second, and a look at all sockets when it matters.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tcptrace_common::port::PortUseKey;

use crate::event::{BindFailure, Event, Kind, Owner, PortSurvey, PortUse, port_use};
use crate::host::sock_diag::{self, Query, States};
use crate::stock;

use super::Live;

/// Seconds in a row in which a process must take more ports than it gives back for a look.
const GROWING: u32 = 3;

/// A look is worth it from this share of the ports on (one in so many).
const SHARE: u64 = 4;

/// Time between two looks at the same namespace: at the least, and as a multiple of what the last one took.
const PAUSE: Duration = Duration::from_secs(3);
const PAUSE_FACTOR: u32 = 50;

/// The same where a port was wanted and there was none.
const URGENT_PAUSE: Duration = Duration::from_secs(1);
const URGENT_PAUSE_FACTOR: u32 = 5;

/// How many processes and destinations a look names.
const NAMED: usize = 16;

/// Seconds without a change after which the counts of a process that holds nothing are forgotten.
const IDLE: u32 = 30;

/// Ports as last said.
#[derive(Default)]
pub(super) struct Ports {
    said: HashMap<(u32, u32), Said>,
    looks: HashMap<u32, Look>,
    /// Ports that servers have, had or want, a bit each, and whether the kernel side knows.
    served: Served,
    /// Namespaces in which a port was wanted and there was none.
    wanted: HashSet<u32>,
}

/// What [`crate::probe::Tracer::watch_ports`] is told.
struct Served {
    ports: Box<[u64; 1024]>,
    told: bool,
}

impl Default for Served {
    fn default() -> Self {
        Self { ports: Box::new([0; 1024]), told: true }
    }
}

impl Served {
    /// A few ports below the ephemeral range do no harm: nobody is given them.
    fn add(&mut self, port: u16) {
        let bit = 1 << (port % 64);
        if let Some(word) = self.ports.get_mut(usize::from(port / 64))
            && *word & bit == 0
        {
            *word |= bit;
            self.told = false;
        }
    }
}

struct Said {
    last: PortUse,
    growing: u32,
    idle: u32,
}

/// The last look at a namespace.
struct Look {
    ended: Instant,
    took: Duration,
    in_use: u32,
    capacity: u32,
    /// Ports held by what was counted then.
    held: u64,
}

impl Ports {
    /// A namespace is gone, and its number may be given to another one.
    pub(super) fn forget(&mut self, netns: u32) {
        self.looks.remove(&netns);
        self.wanted.remove(&netns);
    }

    /// Takes in an event of the kernel side.
    pub(super) fn note(&mut self, kind: &Kind) {
        match kind {
            Kind::NoPort(refused) if refused.endpoints.local.port() == 0 => {
                self.wanted.insert(refused.endpoints.netns);
            }
            Kind::BindFail(fail) => match fail.failure() {
                BindFailure::Exhaustion => {
                    self.wanted.insert(fail.endpoints.netns);
                }
                BindFailure::Conflict => self.served.add(fail.endpoints.local.port()),
                BindFailure::Refusal => {}
            },
            Kind::Listen(listen) => self.served.add(listen.endpoints.local.port()),
            Kind::SocketOwner(found) if found.port_by_number => {
                self.served.add(found.endpoints.local.port());
            }
            _ => {}
        }
    }
}

impl Live {
    /// Looks at the namespaces where a port was wanted just now and there was none; not again and again.
    pub(super) fn look_where_ports_are_wanted(&mut self, into: &mut Vec<Event>) {
        let wanted = std::mem::take(&mut self.ports.wanted);
        for netns in wanted {
            if self.may_look(netns, URGENT_PAUSE, URGENT_PAUSE_FACTOR) {
                self.look_at_ports(netns, into);
            } else {
                self.ports.wanted.insert(netns);
            }
        }
    }

    /// Tells the kernel side on which ports clients are worth a record.
    pub(super) fn watch_served_ports(&mut self) {
        if self.ports.served.told {
            return;
        }
        self.ports.served.told = true;
        if let Err(error) = self.tracer.watch_ports(*self.ports.served.ports) {
            log::warn!("clients on servers' ports will not be seen: {error}");
        }
    }

    /// Whether the last look is long enough ago, and was cheap enough.
    fn may_look(&self, netns: u32, pause: Duration, factor: u32) -> bool {
        self.ports.looks.get(&netns).is_none_or(|look| look.ended.elapsed() >= pause.max(look.took * factor))
    }

    /// Once a second: what processes took and gave back, and a look where that becomes much.
    pub(super) fn ports_of_second(&mut self, into: &mut Vec<Event>) {
        let uses = self.port_uses();
        let now = self.moment;
        let mut held: HashMap<u32, u64> = HashMap::new();
        let mut growing: HashSet<u32> = HashSet::new();
        let mut idle = Vec::new();
        let known: HashSet<(u32, u32)> = uses.iter().map(|(_, latest)| (latest.netns, latest.pid)).collect();
        for (key, latest) in uses {
            let netns = latest.netns;
            *held.entry(netns).or_default() += latest.held();
            let said =
                self.ports.said.get(&(netns, latest.pid)).filter(|said| said.last.since == latest.since);
            let before = said.map_or(0, |said| said.last.held());
            let changed = said.is_none_or(|said| said.last != latest);
            let grown = if latest.held() > before { said.map_or(0, |said| said.growing) + 1 } else { 0 };
            let still = if changed { 0 } else { said.map_or(0, |said| said.idle) + 1 };
            if grown >= GROWING {
                growing.insert(netns);
            }
            // A process that is gone holds nothing, even if not every release was seen (tracepoint tier).
            if still >= IDLE && (latest.held() == 0 || !self.people.exists(latest.pid)) {
                idle.push((key, (netns, latest.pid)));
                continue;
            }
            if changed {
                if let Some(kind) = self.people.introduce(latest.pid) {
                    into.push(Event { time: now, kind });
                }
                into.push(Event { time: now, kind: Kind::PortUse(Box::new(latest.clone())) });
            }
            let said = Said { last: latest, growing: grown, idle: still };
            self.ports.said.insert((said.last.netns, said.last.pid), said);
        }
        // What the kernel side has forgotten for newer ones.
        self.ports.said.retain(|process, _| known.contains(process));
        for (key, process) in idle {
            self.tracer.forget_port_use(&key);
            self.ports.said.remove(&process);
        }
        for netns in growing {
            let held = held.get(&netns).copied().unwrap_or(0);
            let worth = self.ports.looks.get(&netns).is_none_or(|look| {
                let now_in_use = u64::from(look.in_use) + held.saturating_sub(look.held);
                now_in_use * SHARE >= u64::from(look.capacity)
            });
            if worth && self.may_look(netns, PAUSE, PAUSE_FACTOR) {
                self.look_at_ports(netns, into);
            }
        }
    }

    fn port_uses(&self) -> Vec<(PortUseKey, PortUse)> {
        let entries = match self.tracer.port_use() {
            Ok(entries) => entries,
            Err(error) => {
                log::error!("what processes do with ports cannot be read: {error}");
                return Vec::new();
            }
        };
        entries.into_iter().map(|(key, counts)| (key, port_use(&key, &counts, self.clock))).collect()
    }

    /// Who has the ephemeral ports of a namespace: all its sockets, and a pass over all processes.
    fn look_at_ports(&mut self, netns: u32, into: &mut Vec<Event>) {
        let begin = Instant::now();
        // What a look shows is judged by what was counted until now.
        let now = self.moment;
        let counted = self.port_uses().into_iter().map(|(_, latest)| latest);
        let news = counted.filter(|latest| {
            latest.netns == netns
                && self.ports.said.get(&(netns, latest.pid)).is_none_or(|said| said.last != *latest)
        });
        into.extend(news.map(|latest| Event { time: now, kind: Kind::PortUse(Box::new(latest)) }));
        let survey = self.survey_ports(netns, into);
        let held = self.ports.said.values().filter(|said| said.last.netns == netns);
        let held = held.map(|said| said.last.held()).sum();
        self.ports.looks.insert(
            netns,
            Look {
                ended: Instant::now(),
                took: begin.elapsed(),
                in_use: survey.as_ref().map_or(0, |survey| survey.in_use),
                capacity: survey.as_ref().map_or(u32::MAX, |survey| survey.capacity),
                held,
            },
        );
        if let Some(survey) = survey {
            let time = self.moment;
            into.push(Event { time, kind: Kind::PortSurvey(Box::new(survey)) });
        }
    }

    fn survey_ports(&mut self, netns: u32, into: &mut Vec<Event>) -> Option<PortSurvey> {
        let knobs = self.places.knobs_of(netns)?;
        let query = Query { states: States::ALL, ports: None };
        let found = match self.places.diag(netns)?.sockets(&query) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("ports of namespace {netns}: {error}");
                return None;
            }
        };
        let ephemeral = |port: u16| knobs.is_ephemeral(port) == Some(true);
        let sockets: Vec<_> = found.sockets.iter().filter(|socket| ephemeral(socket.local.port())).collect();
        let inodes = sockets.iter().map(|socket| socket.inode).filter(|inode| *inode != 0).collect();
        let owners: HashMap<u64, Vec<Owner>> = self.people.find_owners(&inodes);
        let owned = sockets.iter().map(|socket| {
            let first = owners.get(&socket.inode).and_then(|owners| owners.first());
            (*socket, first.map(|owner| (owner.pid, owner.comm.as_str())))
        });
        let mut survey = stock::ports::survey(netns, &knobs, owned, NAMED)?;
        if found.interrupted {
            survey.incomplete = Some("the kernel's tables changed while they were listed".to_owned());
        } else if sock_diag::lists_bound_only() == Some(false) {
            survey.incomplete =
                Some("before 6.8 sock_diag does not list sockets that are only bound".to_owned());
        }
        let time = self.moment;
        for owner in survey.processes.iter().filter_map(|holders| holders.owner.as_ref()) {
            if let Some(kind) = self.people.introduce(owner.pid) {
                into.push(Event { time, kind });
            }
        }
        Some(survey)
    }
}
