//! handshake-dropped: a SYN, SYN-ACK or final ACK is dropped on its way by this host itself.

use std::time::Duration;

use crate::correlate::{Change, Correlator, DropCause, PathDrops, PathKey};
use crate::event::Packet;

use super::case::{Concern, Description, Diagnosis};
use super::no_listener::of_reported;
use super::words::{count, errno_name};
use super::{Apart, CauseRule, Confidence, Evidence, Party, ProcessName, Remedy, Severity, commands};

/// The diagnosis.
pub(super) struct HandshakeDropped;

impl Diagnosis for HandshakeDropped {
    const CODE: &'static str = "handshake-dropped";
    const CAUSES: &'static [CauseRule] = &[
        CauseRule {
            code: "netfilter",
            means: "a firewall rule drops it in the hook that is named",
            certain: Some("the packet was freed by netfilter with its own drop verdict"),
            likely: None,
            possible: None,
            told_apart: &[Apart {
                from: "a drop at a socket or queue",
                by: "the kernel names the function that freed the packet",
            }],
        },
        CauseRule {
            code: "rp-filter",
            means: "the reverse-path filter drops it",
            certain: Some(
                "the packet was freed for the reason IP_RPFILTER, or its counter grew at that moment",
            ),
            likely: None,
            possible: None,
            told_apart: &[Apart { from: "a missing route", by: "the kernel's reason is another" }],
        },
        CauseRule {
            code: "checksum",
            means: "a wrong checksum or header",
            certain: Some("the packet was freed for that reason"),
            likely: None,
            possible: None,
            told_apart: &[Apart { from: "any other drop", by: "the kernel's reason is another" }],
        },
        CauseRule {
            code: "no-route",
            means: "there is no route for it, or one that leads nowhere",
            certain: Some(
                "the packet was freed by the route's own function, or connect() failed with the route's error",
            ),
            likely: None,
            possible: None,
            told_apart: &[Apart { from: "`rp-filter`", by: "the kernel's reason is another" }],
        },
        CauseRule {
            code: "other",
            means: "another reason, by the kernel's own word",
            certain: None,
            likely: Some("the packet was freed, and the kernel names the reason or the function"),
            possible: None,
            told_apart: &[Apart { from: "the causes above", by: "their reasons and functions are known" }],
        },
    ];
    /// Longer than the pause before the fifth repetition of a SYN.
    const QUIET: Duration = Duration::from_secs(20);

    type Key = PathKey;
    type Memory = ();

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<PathKey>> {
        match change {
            Change::HandshakeDropped(key) => Some(Concern::Happened(*key)),
            _ => None,
        }
    }

    fn begin(&mut self, _key: &PathKey, _world: &Correlator) {}

    fn observe(&mut self, _key: &PathKey, _memory: &mut (), _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &PathKey, _memory: &(), world: &Correlator) -> Option<Description> {
        let drops = world.path_drops(key)?;
        Some(Account { key, drops, world, subject: subject(key, world) }.describe())
    }
}

/// The server that the packets are for or from, if it is here; else the destination, and who calls it.
pub(super) fn subject(key: &PathKey, world: &Correlator) -> Party {
    let drops = world.path_drops(key);
    if let Some(listener) = drops.and_then(|drops| world.listener(drops.answering?)) {
        return Party::of_listener(listener, world);
    }
    if let Some(listener) = drops.and_then(|drops| drops.listener(key)) {
        return of_reported(listener, world);
    }
    let client = drops.and_then(|drops| drops.clients.values().next());
    Party {
        kind: "destination",
        address: Some(key.server),
        netns: Some(key.netns),
        process: client.map(|task| ProcessName::of_task(task, world.processes())),
        ..Party::default()
    }
}

struct Account<'a> {
    key: &'a PathKey,
    drops: &'a PathDrops,
    world: &'a Correlator,
    subject: Party,
}

impl Account<'_> {
    fn describe(self) -> Description {
        let packet = self.key.packet.name();
        let explanation = self.explanation();
        let way = if self.key.outgoing { "from" } else { "to" };
        let end = match (self.key.packet, self.key.outgoing) {
            (Packet::SynAck, true) | (Packet::Syn | Packet::Ack, false) => self.subject.to_string(),
            _ => format!("{} (server {})", "this host", self.key.server),
        };
        Description {
            severity: Severity::Warning,
            confidence: if self.key.cause == DropCause::Other {
                Confidence::Likely
            } else {
                Confidence::Certain
            },
            title: format!("this host drops {packet}s {way} {end}: {}", self.key.cause.name()),
            cause: self.key.cause.name(),
            numbers: vec![self.numbers()],
            evidence: self.evidence(&explanation),
            remedy: self.remedy(),
            explanation,
            subject: self.subject,
        }
    }

    fn numbers(&self) -> String {
        let packet = self.key.packet.name();
        if let Some(errno) = self.drops.errno {
            let connects = count(self.drops.seen, "connect", "connects");
            return format!("{connects} failed at once: {}", errno_name(errno));
        }
        format!(
            "{}{} dropped {} of {}, {}",
            // The kernel side may have counted more since.
            if self.drops.at_least { "at least " } else { "" },
            count(self.drops.seen, &format!("{packet} was"), &format!("{packet}s were")),
            if self.key.outgoing { "going out" } else { "coming in" },
            count(self.drops.peers.count(), "client", "clients"),
            self.place(),
        )
    }

    fn place(&self) -> String {
        let function = self.drops.function.as_deref().unwrap_or("an unknown function");
        match &self.drops.reason {
            Some(reason) => format!("in {function}, reason {reason}"),
            None => format!("in {function}"),
        }
    }

    fn explanation(&self) -> String {
        match self.key.cause {
            DropCause::Netfilter => format!(
                "a netfilter rule drops it in the {} hook; in which table and chain, the kernel does not tell",
                self.drops.hook.name()
            ),
            DropCause::RpFilter => format!(
                "the reverse-path filter drops it: by this host's routes, the way back to its sender does not go by the device \
                 it came in by (index {})",
                self.drops.device
            ),
            DropCause::Checksum => {
                "its checksum or header is wrong: it was damaged on the way, or a device that should have \
                                    filled in the checksum did not"
                    .to_owned()
            }
            DropCause::NoRoute if self.drops.answering.is_some() => {
                "this host has no route back to the client, so the SYN is dropped before it is answered"
                    .to_owned()
            }
            DropCause::NoRoute => match self.drops.errno.and_then(|errno| i32::try_from(errno).ok()) {
                Some(libc::EINVAL) => "a blackhole route of this host swallows it".to_owned(),
                Some(libc::EACCES) => "a prohibit route of this host forbids it".to_owned(),
                Some(_) => "an unreachable route of this host refuses it".to_owned(),
                None => "this host has no route for it, or one that goes nowhere".to_owned(),
            },
            DropCause::Other => format!("the kernel drops it {}", self.place()),
        }
    }

    fn evidence(&self, explanation: &str) -> Evidence {
        let client = self.drops.clients.values().next().map(|task| Party {
            kind: "process",
            process: Some(ProcessName::of_task(task, self.world.processes())),
            ..Party::default()
        });
        Evidence::new()
            .with("packet", self.key.packet.name())
            .with("direction", if self.key.outgoing { "out" } else { "in" })
            .with("dropped", self.drops.seen)
            .with_some("at_least", self.drops.at_least.then_some(true))
            .with("peers", self.drops.peers.count())
            .with("reason", self.drops.reason.clone())
            .with("function", self.drops.function.clone())
            .with_some("hook", (self.key.cause == DropCause::Netfilter).then(|| self.drops.hook.name()))
            .with_some("errno", self.drops.errno.map(errno_name))
            .with_some("device", (self.drops.device != 0).then_some(self.drops.device))
            .with("server", self.key.server.to_string())
            .with_some("requester", client)
            .with("why", explanation)
    }

    fn remedy(&self) -> Vec<Remedy> {
        let netns = self.key.netns;
        let process = self.subject.process.as_ref();
        match self.key.cause {
            DropCause::Netfilter => vec![
                Remedy::command(
                    format!(
                        "look for the rule: {} hook, TCP port {}; rules of iptables-nft show there too",
                        self.drops.hook.name().to_lowercase(),
                        self.key.server.port()
                    ),
                    commands::inside(netns, process, "nft list ruleset"),
                ),
                Remedy::command(
                    "on a host with the old iptables the counters of its rules tell",
                    commands::inside(netns, process, "iptables -L -v -n"),
                ),
            ],
            DropCause::RpFilter => vec![Remedy::command(
                "add the route back by that device, or let the filter be loose (2: any device will do)",
                commands::sysctl(netns, process, "net.ipv4.conf.all.rp_filter=2"),
            )],
            DropCause::Checksum => vec![Remedy::text(
                "capture at both ends and compare; switch off checksum offload on the sender's device (ethtool -K DEV tx off) to try",
            )],
            DropCause::NoRoute => vec![Remedy::command(
                "look at the route, and for blackhole, unreachable and prohibit routes",
                commands::inside(netns, process, "ip route show table all"),
            )],
            DropCause::Other => {
                vec![Remedy::text("look up the reason in the kernel's include/net/dropreason-core.h")]
            }
        }
    }
}

#[cfg(test)]
mod tests;
