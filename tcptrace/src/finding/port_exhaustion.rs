//! port-exhaustion: an ephemeral port was wanted, and there was none.
//!
//! It has two faces. connect() fails with EADDRNOTAVAIL when every port is in use between its own address and that
//! destination; connects to others may still succeed. bind() to port 0 fails with EADDRINUSE when every port is in use
//! by anybody. What to do depends on who has the ports, and why they do not come back.

mod cause;
mod remedy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::correlate::{Change, Correlator, Exhaustion, ProcessPorts};
use crate::event::{DestinationUse, Owner, PortSurvey, PortUse, Task, Timestamp};

use super::case::{Concern, Description, Diagnosis};
use super::words::{count, span};
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Severity, SocketFacts, keys,
};

/// A look may be so much older than the failure that it explains: events of several CPUs are not in perfect order.
const BEFORE: Duration = Duration::from_millis(100);

/// Processes and destinations that are named.
const NAMED: usize = 4;

/// The diagnosis.
#[derive(Default)]
pub(super) struct PortExhaustion;

/// Who had the ports when there was none left.
#[derive(Default)]
pub(super) struct Memory {
    survey: Option<PortSurvey>,
    /// What the processes of that look had done with ports by the last failure, by pid: what they do afterwards (end, close all)
    /// explains nothing.
    users: BTreeMap<u32, ProcessPorts>,
    /// Until which failure they are known.
    until: Option<Timestamp>,
}

/// Ports of processes, of those that a look has found.
fn owned(survey: &PortSurvey) -> u64 {
    survey.processes.iter().filter(|seen| seen.owner.is_some()).map(|seen| u64::from(seen.ports)).sum()
}

impl Diagnosis for PortExhaustion {
    const KIND: FindingKind = FindingKind {
        code: "port-exhaustion",
        opens_when: "connect() or bind() to port 0 found no ephemeral port",
        page: include_str!("../../../docs/findings/port-exhaustion.md"),
        observations: &["no-port", "bind-fail", "port-taken"],
        tracepoint_tier: "the same holds, but for a connect from a port that bind() gave, which fails unseen.",
        causes: &[
            CauseRule {
                code: "leak",
                means: "one process has at least half of the ports and does not give them back",
                certain: Some(
                    "every holder was looked up, and the process's peers have closed and it has not, or it only grows",
                ),
                likely: Some("the same, and the holders could not be listed completely"),
                possible: Some(
                    "the process had the ports before it was traced, and has given back few since",
                ),
                told_apart: &[
                    Apart { from: "`churn`", by: "less than half of the ports are in TIME_WAIT" },
                    Apart {
                        from: "a pool that is full",
                        by: "its peers have closed, or it only grows; a pool does neither",
                    },
                ],
            },
            CauseRule {
                code: "churn",
                means: "at least half are in TIME_WAIT",
                certain: Some("every holder was looked up"),
                likely: Some("the holders could not be listed completely"),
                possible: None,
                told_apart: &[Apart { from: "`leak`", by: "no process has the sockets: they are closed" }],
            },
            CauseRule {
                code: "bind-before-connect",
                means: "ports were taken by bind() to port 0 before connect()",
                certain: Some("most ports were seen being taken so, and every holder was looked up"),
                likely: Some(
                    "the process with most of the ports takes them so now; most are older than the trace",
                ),
                possible: None,
                told_apart: &[Apart { from: "`hot-destination`", by: "no single destination uses them up" }],
            },
            CauseRule {
                code: "hot-destination",
                means: "all are in use toward one destination, and there are some toward others",
                certain: Some("every holder was looked up"),
                likely: Some("the holders could not be listed completely"),
                possible: None,
                told_apart: &[Apart { from: "`small-range`", by: "toward others there are free ports" }],
            },
            CauseRule {
                code: "small-range",
                means: "there are few, and no process has most of them; or the socket has a range of its own",
                certain: Some(
                    "the range is smaller than the kernel's default, or the socket's own was read; every holder was looked up",
                ),
                likely: Some("the holders could not be listed completely"),
                possible: Some("who has the ports could not be looked up, or they were given back meanwhile"),
                told_apart: &[
                    Apart { from: "`leak`", by: "no process has half of the ports" },
                    Apart { from: "`churn`", by: "less than half are in TIME_WAIT" },
                ],
            },
        ],
        evidence: &[
            keys::number(
                "blocked_by_bound",
                "ports that connect() is not given because listening or bound-only sockets have them",
            ),
            keys::CALL,
            keys::CAPACITY,
            keys::DESTINATION,
            keys::number("destinations", "destinations that ports are in use toward"),
            keys::ERRNO,
            keys::number("failed_binds", "bind() calls that found no port"),
            keys::number("failed_connects", "connect() calls that found no port"),
            keys::parties("found_no_port", "processes that found no port"),
            keys::HOLDERS,
            keys::IN_USE,
            keys::INCOMPLETE,
            keys::range("own_range", "the socket's own range (IP_LOCAL_PORT_RANGE)"),
            keys::RANGE,
            keys::REQUESTER,
            keys::number("requesters", "processes that found no port"),
            keys::number("taken_from_own_range", "ports taken from sockets' own ranges"),
            keys::number(
                "taken_late",
                "ports chosen by connect() after a bind() with IP_BIND_ADDRESS_NO_PORT",
            ),
            keys::TIME_WAIT,
            keys::measure("time_wait_percent", "share of these among the ports in use"),
            keys::number("toward_destination", "ports in use toward the destination"),
            keys::number("toward_destination_time_wait", "of these: in TIME_WAIT"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    /// The network namespace.
    type Key = u32;
    type Memory = Memory;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<u32>> {
        match change {
            Change::PortsExhausted(netns) => Some(Concern::Happened(*netns)),
            Change::PortsRead(netns) => Some(Concern::Known(*netns)),
            _ => None,
        }
    }

    fn begin(&mut self, _key: &u32, _world: &Correlator) -> Memory {
        Memory::default()
    }

    fn observe(&mut self, key: &u32, memory: &mut Memory, _change: &Change, world: &Correlator) {
        let Some(space) = world.ports().space(*key) else { return };
        let (Some((time, survey)), Some(exhaustion)) = (&space.survey, &space.exhaustion) else { return };
        // A look before the first failure does not show who has the ports, nor one that comes when they are free again.
        if *time >= exhaustion.first.before(BEFORE)
            && memory
                .survey
                .as_ref()
                .is_none_or(|known| survey.in_use >= known.in_use && owned(survey) >= owned(known))
        {
            memory.survey = Some(survey.clone());
        }
        let failed_again = memory.until.is_none_or(|until| exhaustion.last > until);
        memory.until = Some(exhaustion.last);
        let seen = memory.survey.iter().flat_map(|survey| &survey.processes);
        for pid in seen.filter_map(|seen| seen.owner.as_ref()).map(|owner| owner.pid) {
            let Some(ports) = world.ports().user((*key, pid)) else { continue };
            let keeps = memory.users.get(&pid).is_none_or(|known| ports.latest.held() >= known.latest.held());
            if failed_again || keeps {
                memory.users.insert(pid, ports.clone());
            }
        }
    }

    fn describe(&self, key: &u32, memory: &Memory, world: &Correlator) -> Option<Description> {
        let exhaustion = world.ports().space(*key)?.exhaustion.as_ref()?;
        Some(Account::new(*key, exhaustion, memory, world).describe())
    }
}

/// A process and how many ephemeral ports it has, by sock_diag or by our own count, whichever is more.
struct Holder {
    /// Nobody: TIME_WAIT, and connections that are being closed.
    owner: Option<Owner>,
    ports: u64,
    close_wait: u32,
}

/// All that is said about an exhaustion.
struct Account<'a> {
    netns: u32,
    exhaustion: &'a Exhaustion,
    survey: Option<&'a PortSurvey>,
    memory: &'a Memory,
    world: &'a Correlator,
    /// Most ports first.
    holders: Vec<Holder>,
    /// Where connect() failed to; `None` if only bind() did.
    destination: Option<SocketAddr>,
}

impl<'a> Account<'a> {
    fn new(netns: u32, exhaustion: &'a Exhaustion, memory: &'a Memory, world: &'a Correlator) -> Self {
        let survey = memory.survey.as_ref();
        let mut holders: Vec<Holder> = survey
            .iter()
            .flat_map(|survey| &survey.processes)
            .map(|seen| Holder {
                owner: seen.owner.clone(),
                ports: seen.ports.into(),
                close_wait: seen.close_wait,
            })
            .collect();
        for (pid, ports) in world.ports().users(netns) {
            let held = memory.users.get(&pid).unwrap_or(ports).latest.held();
            match holders
                .iter_mut()
                .find(|holder| holder.owner.as_ref().is_some_and(|owner| owner.pid == pid))
            {
                // sock_diag does not show what is only bound before 6.8.
                Some(holder) => holder.ports = holder.ports.max(held),
                None if held > 0 && survey.is_none_or(|survey| survey.incomplete.is_some()) => {
                    let owner = Owner { pid, comm: ports.latest.comm.clone() };
                    holders.push(Holder { owner: Some(owner), ports: held, close_wait: 0 });
                }
                None => {}
            }
        }
        holders.sort_by_key(|holder| {
            (std::cmp::Reverse(holder.ports), holder.owner.as_ref().map(|owner| owner.pid))
        });
        Self { netns, exhaustion, survey, memory, world, holders, destination: exhaustion.destination() }
    }

    fn describe(&self) -> Description {
        let (cause, confidence) = self.cause();
        let requester = self.requester();
        let title = self.title(&requester);
        let explanation = self.explain(cause);
        let subject = Party {
            kind: if cause.is_of_destination() { "destination" } else { "host" },
            remote: self.destination.filter(|_| cause.is_of_destination()),
            netns: Some(self.netns),
            ..Party::default()
        };
        Description {
            severity: Severity::Critical,
            confidence,
            title,
            subject,
            cause: cause.code(),
            numbers: self.numbers(),
            evidence: self.evidence(requester.clone(), &explanation),
            remedy: self.remedy(cause, &requester),
            explanation,
        }
    }

    /// Ports that the kernel may choose.
    fn capacity(&self) -> Option<u64> {
        match self.survey {
            Some(survey) => Some(survey.capacity.into()),
            None => self.world.namespace(self.netns)?.knobs.ephemeral_ports().map(u64::from),
        }
    }

    /// What is between the failing connect's destination and this host.
    fn lane(&self) -> Option<&DestinationUse> {
        self.survey?.toward(self.destination?)
    }

    fn requester(&self) -> Party {
        let exhaustion = self.exhaustion;
        Party {
            kind: "process",
            remote: exhaustion.endpoints.remote,
            netns: Some(self.netns),
            process: Some(ProcessName::of_task(&exhaustion.requester, self.world.processes())),
            socket: Some(SocketFacts {
                options: Some(exhaustion.options),
                uid: Some(exhaustion.requester.uid),
                ..SocketFacts::default()
            }),
            ..Party::default()
        }
    }

    fn process_name(&self, owner: &Owner) -> ProcessName {
        ProcessName::observed(owner.pid, &owner.comm, self.world.processes())
    }

    /// How many ports were taken in some way since the tracer started; `None` for none.
    fn taken(&self, how: fn(&PortUse) -> u64) -> Option<u64> {
        let taken = self.world.ports().users(self.netns).map(|(_, ports)| how(&ports.latest)).sum();
        (taken > 0).then_some(taken)
    }

    /// Ports are free where none was found: the socket may have a narrower range of its own, or they have just become so.
    fn is_free_after_all(&self) -> bool {
        let Some(survey) = self.survey else { return false };
        // Outside of a narrower range the kernel did not look, whatever else may have ports there.
        let narrower = self.exhaustion.own_range.is_some_and(|own| own.len() < survey.capacity);
        if survey.incomplete.is_some() && !narrower {
            return false;
        }
        let free = match (self.destination, self.lane()) {
            (Some(_), lane) => survey.free_toward(lane.map_or(0, |lane| lane.ports)),
            (None, _) => survey.free(),
        };
        free * 10 > survey.capacity
    }

    fn title(&self, requester: &Party) -> String {
        let who = requester.process.as_ref().map_or_else(String::new, ToString::to_string);
        if self.is_free_after_all() {
            if let Some(own) = self.exhaustion.own_range {
                let call = self.exhaustion.endpoints.remote.map_or_else(
                    || "bind() to port 0 (EADDRINUSE)".to_owned(),
                    |remote| format!("connect() to {remote} (EADDRNOTAVAIL)"),
                );
                return format!("{who} found no port in its socket's own range {own} for {call}");
            }
            return match self.exhaustion.endpoints.remote {
                Some(remote) => {
                    format!("{who} found no ephemeral port to connect to {remote} (EADDRNOTAVAIL)")
                }
                None => format!("{who} got no port from bind() to port 0 (EADDRINUSE)"),
            };
        }
        let all = self.capacity().map_or_else(String::new, |capacity| format!("all {capacity} "));
        match self.exhaustion.endpoints.remote {
            Some(remote) => {
                format!(
                    "{who} cannot connect to {remote}: {all}ephemeral ports are in use toward it (EADDRNOTAVAIL)"
                )
            }
            None => format!(
                "{who} gets no port from bind() to port 0: {all}ephemeral ports are in use (EADDRINUSE)"
            ),
        }
    }

    fn numbers(&self) -> Vec<String> {
        let exhaustion = self.exhaustion;
        let failures: Vec<String> =
            [(exhaustion.connects(), "connect()", "connect()s"), (exhaustion.binds, "bind()", "bind()s")]
                .into_iter()
                .filter(|(failed, ..)| *failed > 0)
                .map(|(failed, one, many)| count(failed, one, many))
                .collect();
        let others = exhaustion.requesters().len().saturating_sub(1);
        let failures =
            format!("{} failed in {}", failures.join(" and "), span(exhaustion.last.since(exhaustion.first)));
        let mut victims: Vec<String> = exhaustion
            .requesters()
            .into_iter()
            .take(NAMED)
            .map(|(task, failed)| {
                let name = ProcessName::of_task(task, self.world.processes());
                format!("{name} {}", count(failed, "time", "times"))
            })
            .collect();
        if others >= NAMED {
            victims.push(format!("{} more", others + 1 - NAMED));
        }
        let victims = format!("found no port: {}", victims.join(", "));
        let Some(survey) = self.survey else {
            return vec![format!("{failures}; who has the ports could not be looked up"), victims];
        };
        let wait = match survey.time_wait {
            0 => String::new(),
            wait => format!(", {wait} of them by TIME_WAIT alone"),
        };
        let mut lines = vec![format!(
            "{} of {} ports ({}) in use{wait}; {failures}",
            survey.in_use, survey.capacity, survey.range
        )];
        let holder = |holder: &Holder| match &holder.owner {
            Some(owner) => format!("{} {}", self.process_name(owner), holder.ports),
            None => format!("no process (TIME_WAIT, closing) {}", holder.ports),
        };
        let mut who: Vec<String> = self.holders.iter().take(NAMED).map(holder).collect();
        if self.holders.len() > NAMED {
            who.push(format!("{} more", self.holders.len() - NAMED));
        }
        if !who.is_empty() {
            lines.push(format!("by process: {}", who.join(", ")));
        }
        let lane = |lane: &DestinationUse| {
            let wait =
                if lane.time_wait > 0 { format!(" ({} TIME_WAIT)", lane.time_wait) } else { String::new() };
            format!("{} {} used{wait}, {} free", lane.remote, lane.ports, survey.free_toward(lane.ports))
        };
        let lanes: Vec<String> = survey.destinations.iter().take(NAMED).map(lane).collect();
        if !lanes.is_empty() {
            lines.push(format!("by destination: {}", lanes.join("; ")));
        }
        if others > 0 {
            lines.push(victims);
        }
        lines
    }

    /// The processes that found no port.
    fn victims(&self) -> Vec<Party> {
        let party = |(task, _): (&Task, u64)| Party {
            kind: "process",
            netns: Some(self.netns),
            process: Some(ProcessName::of_task(task, self.world.processes())),
            ..Party::default()
        };
        self.exhaustion.requesters().into_iter().take(16).map(party).collect()
    }

    fn evidence(&self, requester: Party, why: &str) -> Evidence {
        let holders: Vec<Party> = self
            .holders
            .iter()
            .take(16)
            .filter_map(|holder| {
                let owner = holder.owner.as_ref()?;
                Some(Party {
                    kind: "process",
                    netns: Some(self.netns),
                    process: Some(self.process_name(owner)),
                    socket: Some(SocketFacts { ports: Some(holder.ports), ..SocketFacts::default() }),
                    ..Party::default()
                })
            })
            .collect();
        let survey = self.survey;
        let share = |part: u32, of: u32| f64::from(part) * 100.0 / f64::from(of.max(1));
        let connect = self.exhaustion.endpoints.remote.is_some();
        Evidence::new()
            .with("requester", requester)
            .with("holders", holders)
            .with("errno", if connect { "EADDRNOTAVAIL" } else { "EADDRINUSE" })
            .with("call", if connect { "connect" } else { "bind" })
            .with("failed_connects", self.exhaustion.connects())
            .with("failed_binds", self.exhaustion.binds)
            .with("requesters", u64::try_from(self.exhaustion.requesters().len()).unwrap_or(u64::MAX))
            .with("found_no_port", self.victims())
            .with_some("destination", self.destination)
            .with("capacity", self.capacity())
            .with("range", survey.map(|survey| survey.range))
            .with("in_use", survey.map(|survey| survey.in_use))
            .with("time_wait", survey.map(|survey| survey.time_wait))
            .with("time_wait_percent", survey.map(|survey| share(survey.time_wait, survey.in_use)))
            .with("blocked_by_bound", survey.map(|survey| survey.blocked))
            .with_some("toward_destination", self.lane().map(|lane| lane.ports))
            .with_some("toward_destination_time_wait", self.lane().map(|lane| lane.time_wait))
            .with("destinations", survey.map(|survey| survey.destinations_total))
            .with_some("own_range", self.exhaustion.own_range)
            .with_some("taken_late", self.taken(|ports| ports.late))
            .with_some("taken_from_own_range", self.taken(|ports| ports.own_range))
            .with_some("incomplete", survey.and_then(|survey| survey.incomplete.clone()))
            .with("why", why)
    }
}

/// Whether it is worth more than a guess.
fn sure(certain: bool) -> Confidence {
    if certain { Confidence::Certain } else { Confidence::Likely }
}

#[cfg(test)]
mod tests;
