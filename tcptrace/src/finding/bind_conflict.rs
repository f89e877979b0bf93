//! bind-conflict: bind() or listen() failed with EADDRINUSE for a port that was asked for by number.
//!
//! Its cause says what kind of holder is in the way, because that decides what to do: a client that was given the port by
//! the kernel (ephemeral-grab), another server (listener), the remains of a connection (time-wait), a socket that is bound
//! and does nothing (bound-socket), a process that inherited the descriptor (inherited-fd), a wildcard of the other address
//! family (wildcard), or the kernel itself (kernel-socket).

mod holder_kind;
mod remedy;
mod wording;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::correlate::{Change, Conflict, ConflictKey, Correlator, PortHolder, Verdict};
use crate::event::{Found, How, Owner, OwnerConfidence};

use super::case::{Concern, Description, Diagnosis};
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Remedy, Severity, SocketFacts,
    keys,
};
use holder_kind::Kind;

/// The diagnosis.
#[derive(Default)]
pub(super) struct BindConflict {
    /// Attempts that earlier findings of a conflict have told of.
    told: HashMap<ConflictKey, u64>,
}

impl Diagnosis for BindConflict {
    const KIND: FindingKind = FindingKind {
        code: "bind-conflict",
        opens_when: "bind() or listen() failed with EADDRINUSE for a given port",
        page: include_str!("../../../docs/findings/bind-conflict.md"),
        observations: &["bind-fail", "listen-fail", "port-taken", "port-released"],
        tracepoint_tier: "a conflict at bind() is seen at the return of the system call, and the holders are looked up a moment later: one that is gone by \
         then is not found. A conflict at listen() is not seen.",
        causes: &[
            CauseRule {
                code: "ephemeral-grab",
                means: "a client was given the port by connect() or by bind() to port 0",
                certain: Some(
                    "the holder stood in the kernel's table of bound ports at the failure, and how its port was taken was observed",
                ),
                likely: Some(
                    "the holder was found a moment later by sock_diag, or how it took the port is concluded from its state",
                ),
                possible: Some("the holder's options would allow sharing, or several sockets hold the port"),
                told_apart: &[
                    Apart {
                        from: "`listener`",
                        by: "the holder does not listen, and connect() or bind() to port 0 chose its port",
                    },
                    Apart {
                        from: "`bound-socket`: a connection that a former server accepted",
                        by: "no process listened at that port, or the kernel's entry was made by connect()",
                    },
                ],
            },
            CauseRule {
                code: "listener",
                means: "another process listens there",
                certain: Some(
                    "the listener stood in the kernel's table of bound ports at the failure, and the process that was seen opening it was found to have it still",
                ),
                likely: Some("the listener or its owner was found a moment later"),
                possible: Some("its options would allow sharing"),
                told_apart: &[
                    Apart {
                        from: "a socket in another network namespace",
                        by: "the table is that of the requester's namespace",
                    },
                    Apart { from: "`inherited-fd`", by: "the process that opened it still has it" },
                ],
            },
            CauseRule {
                code: "time-wait",
                means: "a closed connection still holds the port",
                certain: Some(
                    "the remnant stood in the kernel's table of bound ports at the failure, and sock_diag lists it in TIME_WAIT a moment later",
                ),
                likely: Some("one of the two was seen"),
                possible: Some("several sockets hold the port"),
                told_apart: &[
                    Apart { from: "a connection that is still open", by: "its state is TIME_WAIT" },
                    Apart {
                        from: "`fin-wait`, which the kernel's table shows alike",
                        by: "sock_diag names its state",
                    },
                ],
            },
            CauseRule {
                code: "fin-wait",
                means: "a connection that this side has closed and its peer has not still holds the port; no process has it any more",
                certain: Some(
                    "the remnant stood in the kernel's table of bound ports at the failure, and sock_diag lists it in FIN-WAIT-1 or FIN-WAIT-2 a moment later",
                ),
                likely: Some("it was found a moment later by sock_diag"),
                possible: Some("several sockets hold the port"),
                told_apart: &[
                    Apart {
                        from: "`time-wait`",
                        by: "sock_diag names its state: the peer's FIN has not come, and another setting limits its time",
                    },
                    Apart {
                        from: "`bound-socket`: a connection that a process has half closed",
                        by: "no file leads to the socket",
                    },
                ],
            },
            CauseRule {
                code: "last-ack",
                means: "a connection that both sides have closed still holds the port: its last FIN is not acknowledged",
                certain: Some(
                    "the remnant stood in the kernel's table of bound ports at the failure, in LAST-ACK or CLOSING, and no file leads to it",
                ),
                likely: Some("it was found a moment later by sock_diag"),
                possible: Some("several sockets hold the port"),
                told_apart: &[Apart { from: "`time-wait`, `fin-wait`", by: "its state" }],
            },
            CauseRule {
                code: "bound-socket",
                means: "a socket is bound there and does not listen: idle, or a connection that a former listener accepted",
                certain: Some(
                    "the socket stood in the kernel's table of bound ports at the failure, and the process that was seen opening it was found to have it still",
                ),
                likely: Some("it was found a moment later"),
                possible: Some(
                    "no holder was found: before 6.8 sock_diag does not list sockets that are only bound",
                ),
                told_apart: &[Apart {
                    from: "`ephemeral-grab`",
                    by: "the port was not chosen by the kernel",
                }],
            },
            CauseRule {
                code: "inherited-fd",
                means: "a process has the socket that did not open it: a child that outlived its parent",
                certain: None,
                likely: Some(
                    "the socket's owners now, looked up a moment after the failure, do not include the process that opened it",
                ),
                possible: Some("several sockets hold the port"),
                told_apart: &[
                    Apart {
                        from: "a socket that was passed on purpose",
                        by: "nothing: SCM_RIGHTS and fork look the same from here",
                    },
                    Apart { from: "`listener`", by: "none of its present owners called listen()" },
                ],
            },
            CauseRule {
                code: "wildcard",
                means: "`[::]:P` without IPV6_V6ONLY covers `0.0.0.0:P`, or the reverse",
                certain: Some(
                    "the holder stood in the kernel's table of bound ports at the failure, and the process that was seen opening it was found to have it still",
                ),
                likely: Some("it was found a moment later"),
                possible: Some("its options would allow sharing"),
                told_apart: &[Apart {
                    from: "`listener` of the same family",
                    by: "the holder is a wildcard of the other family",
                }],
            },
            CauseRule {
                code: "kernel-socket",
                means: "the kernel itself holds it (NFS, multipath TCP)",
                certain: Some(
                    "the socket stood in the kernel's table of bound ports at the failure, belongs to root, and no file leads to it",
                ),
                likely: Some("it was found a moment later, and every process could be looked at"),
                possible: Some("several sockets hold the port"),
                told_apart: &[Apart {
                    from: "a process that may not be looked at",
                    by: "the kernel side saw that the socket has no file",
                }],
            },
        ],
        evidence: &[
            keys::ATTEMPTS,
            keys::DEVICE,
            keys::ERRNO,
            keys::text("fastreuse", "the port's `fastreuse` in the kernel"),
            keys::text("fastreuseport", "the port's `fastreuseport` in the kernel"),
            keys::HOLDERS,
            keys::number("holders_met", "sockets that the kernel met on the port"),
            keys::INCOMPLETE,
            keys::range("ip_local_port_range", "`net.ipv4.ip_local_port_range`"),
            keys::ranges("ip_local_reserved_ports", "`net.ipv4.ip_local_reserved_ports`"),
            keys::OPTIONS,
            keys::PORT,
            keys::REQUESTED,
            keys::REQUESTER,
            keys::STAGE,
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = ConflictKey;
    /// Attempts before this finding: an earlier one has told of them.
    type Memory = u64;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<ConflictKey>> {
        match change {
            Change::Conflict(key) => Some(Concern::Happened(key.clone())),
            Change::ConflictExplained(key) => Some(Concern::Known(key.clone())),
            _ => None,
        }
    }

    fn begin(&mut self, key: &ConflictKey, world: &Correlator) -> u64 {
        self.told.retain(|key, _| world.conflict(key).is_some());
        self.told.get(key).copied().unwrap_or(0)
    }

    fn observe(&mut self, _key: &ConflictKey, _memory: &mut u64, _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &ConflictKey, before: &u64, world: &Correlator) -> Option<Description> {
        let conflict = world.conflict(key)?;
        Some(Account { conflict, world, attempts: conflict.attempts.saturating_sub(*before) }.describe())
    }

    fn end(&mut self, key: &ConflictKey, _before: &u64, world: &Correlator) {
        if let Some(conflict) = world.conflict(key) {
            self.told.insert(key.clone(), conflict.attempts);
        }
    }
}

/// All that is said about a conflict.
struct Account<'a> {
    conflict: &'a Conflict,
    world: &'a Correlator,
    attempts: u64,
}

impl Account<'_> {
    fn describe(&self) -> Description {
        let conflict = self.conflict;
        let (netns, wanted) = (conflict.endpoints.netns, conflict.endpoints.local);
        let requester = self.requester();
        let Some(holder) = conflict.holder() else { return self.describe_unknown(requester) };
        let kind = self.kind(holder);
        let held = self.party(holder);
        let confidence = self.confidence(holder, kind);
        let why = self.why(holder, kind);
        let call = conflict.stage.call();
        Description {
            severity: Severity::Critical,
            confidence,
            title: format!(
                "{} cannot {call} {}: {}",
                process_of(&requester),
                requester.place().unwrap_or_else(|| wanted.to_string()),
                self.has_it(holder, kind, &held)
            ),
            subject: subject(netns, wanted),
            cause: kind.code(),
            numbers: self.numbers(holder, &held),
            evidence: self.evidence(requester.clone(), &why),
            remedy: self.remedy(holder, kind, &held, &requester),
            explanation: why,
        }
    }

    /// Nobody knows who has the port.
    fn describe_unknown(&self, requester: Party) -> Description {
        let conflict = self.conflict;
        let (netns, wanted) = (conflict.endpoints.netns, conflict.endpoints.local);
        let why = match &conflict.incomplete {
            Some(reason) => format!("its holder could not be found: {reason}"),
            None => {
                "its holder was gone before it could be looked up, or is a kind of socket that sock_diag \
                     does not show (bound, but neither listening nor connected)"
                    .to_owned()
            }
        };
        Description {
            severity: Severity::Critical,
            confidence: Confidence::Possible,
            title: format!(
                "{} cannot {} {wanted}: the port is in use, by whom is not known",
                process_of(&requester),
                conflict.stage.call()
            ),
            subject: subject(netns, wanted),
            // Whatever does not show up anywhere is most often a socket that is bound and does nothing.
            cause: Kind::BoundSocket.code(),
            numbers: vec![self.attempts_in_words()],
            evidence: self.evidence(requester, &why),
            remedy: vec![Remedy::command(
                "look for sockets that are bound but not listening",
                format!("ss -tanp --bound-inactive 'sport = :{}'", wanted.port()),
            )],
            explanation: why,
        }
    }

    fn confidence(&self, holder: &PortHolder, kind: Kind) -> Confidence {
        let convicted = matches!(holder.verdict, Verdict::Conflict(_));
        let named = match kind {
            // No process has these. FIN-WAIT-2 looks like TIME_WAIT until sock_diag has named it.
            Kind::TimeWait => self.conflict.reported,
            Kind::FinWait | Kind::LastAck | Kind::KernelSocket => true,
            // Who has it now was looked up a moment later.
            Kind::InheritedFd => false,
            // A client's socket is named by the connect() that took the port.
            Kind::EphemeralGrab => observed(holder).is_some(),
            // The process that opened it may have left it to another one, which sock_diag and /proc tell a moment later.
            _ => observed(holder).zip(holder.present.as_ref()).is_some_and(|(pid, has)| has.contains(&pid)),
        };
        let guessed = kind == Kind::EphemeralGrab && holder.how == How::Unknown && !self.taken_by_connect();
        if holder.verdict == Verdict::Compatible {
            Confidence::Possible
        } else if convicted && named && !guessed && holder.found == Found::BindHash {
            Confidence::Certain
        } else if convicted || self.conflict.holders.len() == 1 {
            Confidence::Likely
        } else {
            Confidence::Possible
        }
    }

    fn evidence(&self, requester: Party, why: &str) -> Evidence {
        let conflict = self.conflict;
        let holders: Vec<Party> = conflict.holders.iter().map(|holder| self.party(holder)).collect();
        let met = u64::from(conflict.holders_met).max(u64::try_from(holders.len()).unwrap_or(u64::MAX));
        let knobs = self.world.namespace(conflict.endpoints.netns).map(|namespace| &namespace.knobs);
        let reserved = knobs.and_then(|knobs| knobs.reserved_ports.as_ref());
        Evidence::new()
            .with("requester", requester)
            .with("holders", holders)
            .with("holders_met", met)
            .with("requested", conflict.endpoints.local)
            .with("port", conflict.endpoints.local.port())
            .with("errno", "EADDRINUSE")
            .with("stage", conflict.stage.name())
            .with("options", conflict.options)
            .with_some("device", self.world.device_name(conflict.endpoints.netns, conflict.endpoints.device))
            .with_some("fastreuse", conflict.reuse_state.map(|state| state.fastreuse.to_string()))
            .with_some("fastreuseport", conflict.reuse_state.map(|state| state.fastreuseport.to_string()))
            .with("attempts", self.attempts)
            .with_some("ip_local_port_range", self.range())
            .with_some("ip_local_reserved_ports", reserved)
            .with_some("incomplete", conflict.incomplete.clone())
            .with("why", why)
    }

    fn requester(&self) -> Party {
        let conflict = self.conflict;
        Party {
            kind: "process",
            address: Some(conflict.endpoints.local),
            device: self.world.device_name(conflict.endpoints.netns, conflict.endpoints.device),
            netns: Some(conflict.endpoints.netns),
            process: Some(ProcessName::of_task(&conflict.requester, self.world.processes())),
            socket: Some(SocketFacts {
                options: Some(conflict.options),
                uid: Some(conflict.requester.uid),
                ..SocketFacts::default()
            }),
            ..Party::default()
        }
    }

    fn party(&self, holder: &PortHolder) -> Party {
        let processes = self.world.processes();
        let taken_by = self.heir_of(holder).or_else(|| {
            let taker = holder.taker.as_ref()?;
            (holder.is_remnant() || holder.is_listener_without_file())
                .then(|| Owner { pid: taker.pid, comm: processes.comm(taker).to_owned() })
        });
        let process = match (&holder.taker, holder.owners.is_empty()) {
            _ if holder.is_listener_without_file() => ProcessName::default(),
            // What is left of a connection belongs to no process any more, but was left by one.
            (Some(taker), true) => {
                let mut name = ProcessName::of_task(taker, processes);
                if holder.taker_bootstrapped {
                    name.confidence = OwnerConfidence::Bootstrapped;
                }
                name
            }
            (None, true) if holder.is_remnant() => self.left_by(holder),
            _ => {
                let mut owners = holder.owners.clone();
                if taken_by.is_some() {
                    owners.remove(holder.taker.as_ref().map_or(0, |taker| taker.pid));
                }
                ProcessName::of_owners(&owners, processes)
            }
        };
        Party {
            kind: "process",
            address: Some(holder.endpoints.local),
            device: self.world.device_name(holder.endpoints.netns, holder.endpoints.device),
            remote: holder.endpoints.remote,
            netns: Some(holder.endpoints.netns),
            process: Some(process),
            socket: Some(SocketFacts {
                state: Some(holder.state.name()),
                how: Some(holder.how.name()),
                since: holder.since,
                time_wait_s_left: holder
                    .time_wait_left_ms
                    .map(|left| Duration::from_millis(left).as_secs_f64()),
                options: holder.options,
                uid: holder.uid,
                taken_by,
                ports: None,
            }),
            ..Party::default()
        }
    }
}

impl Account<'_> {
    /// Who left a connection whose port nobody was seen taking: likely whoever listened there, and accepted it.
    fn left_by(&self, holder: &PortHolder) -> ProcessName {
        let (netns, port) = (holder.endpoints.netns, holder.endpoints.local.port());
        let listened = self
            .world
            .listeners()
            .iter()
            .filter(|listener| listener.endpoints.netns == netns && listener.endpoints.local.port() == port)
            .max_by_key(|listener| {
                (listener.closed.is_none(), listener.closed, listener.endpoints.local, listener.id)
            });
        let Some(listener) = listened else { return ProcessName::default() };
        let mut name = ProcessName::of_owners(&listener.owners, self.world.processes());
        name.confidence = name.confidence.min(OwnerConfidence::Likely);
        name
    }
}

fn subject(netns: u32, wanted: SocketAddr) -> Party {
    Party {
        kind: "port",
        address: Some(wanted),
        port: Some(wanted.port()),
        netns: Some(netns),
        ..Party::default()
    }
}

fn process_of(party: &Party) -> String {
    party.process.as_ref().map_or_else(|| "unknown process".to_owned(), ToString::to_string)
}

/// The process that was seen taking the port, if one was.
fn observed(holder: &PortHolder) -> Option<u32> {
    let owner = holder.owners.first()?;
    (owner.confidence == OwnerConfidence::Observed).then_some(owner.pid)
}

#[cfg(test)]
mod tests;
