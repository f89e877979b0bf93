//! connection-exists: connect() from a port of its own failed with EADDRNOTAVAIL, because the same connection exists already.
//!
//! A socket that is bound to a port before connect() can have one connection to each destination: the same two addresses and
//! ports a second time is refused (`__inet_check_established()`), as long as the first connection, or what is left of it,
//! exists. The reader sees: "ftpd[12] cannot connect from 10.9.10.1:20 to 10.9.10.2:50100: the same connection is in TIME_WAIT
//! for 58 s more (EADDRNOTAVAIL)". Its neighbour `port-exhaustion` is about ports that the kernel chooses.

use std::collections::HashMap;
use std::time::Duration;

use crate::correlate::{Change, Correlator, Existing, PortHolder, TupleKey};
use crate::event::{OwnerConfidence, SocketState};

use super::case::{Concern, Description, Diagnosis};
use super::commands::sysctl;
use super::words::count;
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Remedy, Severity, SocketFacts,
    keys,
};

/// The diagnosis.
#[derive(Default)]
pub(super) struct ConnectionExists {
    /// Attempts that earlier findings of a connection have reported.
    told: HashMap<TupleKey, u64>,
}

/// What holds the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Its remnant, in TIME_WAIT.
    TimeWait,
    /// Closed on this side, and not over.
    Closing,
    /// It is open, or being opened.
    Open,
    /// It was gone before it could be looked up.
    Unknown,
}

impl Cause {
    fn of(existing: &Existing) -> Self {
        match existing.holder.as_ref() {
            Some(holder) if holder.state == SocketState::TimeWait => Self::TimeWait,
            Some(holder) if holder.is_remnant() => Self::Closing,
            Some(_) => Self::Open,
            None => Self::Unknown,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::TimeWait => "time-wait",
            Self::Closing => "closing",
            Self::Open => "open",
            Self::Unknown => "unknown",
        }
    }
}

/// How `port-exhaustion` is excluded, of every cause.
const NOT_EXHAUSTION: Apart = Apart {
    from: "`port-exhaustion`",
    by: "the socket had a port of its own when the kernel looked for one",
};

impl Diagnosis for ConnectionExists {
    const KIND: FindingKind = FindingKind {
        code: "connection-exists",
        opens_when: "connect() from a port of its own failed: the same connection exists already",
        page: include_str!("../../../docs/findings/connection-exists.md"),
        observations: &["connection-exists"],
        tracepoint_tier: "it is not seen.",
        causes: &[
            CauseRule {
                code: "time-wait",
                means: "this host has closed the same connection a moment ago, and keeps it in TIME_WAIT",
                certain: Some(
                    "the kernel refused the socket's own port (EADDRNOTAVAIL of `inet_hash_connect`), and sock_diag lists the same addresses and ports in TIME_WAIT a moment later",
                ),
                likely: None,
                possible: None,
                told_apart: &[NOT_EXHAUSTION, Apart { from: "`closing`, `open`", by: "its state" }],
            },
            CauseRule {
                code: "closing",
                means: "this host has closed the same connection, and its peer has not, or has not acknowledged it",
                certain: Some(
                    "the kernel refused the socket's own port, and sock_diag lists the same addresses and ports in FIN-WAIT, CLOSING or LAST-ACK, without a file",
                ),
                likely: None,
                possible: None,
                told_apart: &[NOT_EXHAUSTION, Apart { from: "`time-wait`", by: "its state" }],
            },
            CauseRule {
                code: "open",
                means: "the same connection is open, or being opened, by another socket",
                certain: Some(
                    "the kernel refused the socket's own port, and sock_diag lists the same addresses and ports, with an owner or open",
                ),
                likely: None,
                possible: None,
                told_apart: &[NOT_EXHAUSTION, Apart { from: "`time-wait`", by: "its state" }],
            },
            CauseRule {
                code: "unknown",
                means: "the same connection existed, and was gone before it could be looked up",
                certain: None,
                likely: None,
                possible: Some(
                    "the kernel refused the socket's own port, and sock_diag does not list the connection",
                ),
                told_apart: &[
                    NOT_EXHAUSTION,
                    Apart {
                        from: "`time-wait`, `closing`, `open`",
                        by: "nothing: `tcptrace who PORT` right after the next failure would tell",
                    },
                ],
            },
        ],
        evidence: &[
            keys::ATTEMPTS,
            keys::CALL,
            keys::DESTINATION,
            keys::ERRNO,
            keys::HOLDERS,
            keys::INCOMPLETE,
            keys::LEFT_S,
            keys::OPTIONS,
            keys::PORT,
            keys::REQUESTER,
            keys::number("tcp_timestamps", "`net.ipv4.tcp_timestamps`"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = TupleKey;
    /// Attempts before this finding: an earlier one has reported them.
    type Memory = u64;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<TupleKey>> {
        match change {
            Change::ConnectionExists(key) => Some(Concern::Happened(key.clone())),
            Change::ConnectionExplained(key) => Some(Concern::Known(key.clone())),
            _ => None,
        }
    }

    fn begin(&mut self, key: &TupleKey, world: &Correlator) -> u64 {
        self.told.retain(|key, _| world.existing(key).is_some());
        self.told.get(key).copied().unwrap_or(0)
    }

    fn observe(&mut self, _key: &TupleKey, _memory: &mut u64, _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &TupleKey, before: &u64, world: &Correlator) -> Option<Description> {
        let existing = world.existing(key)?;
        let attempts = existing.attempts.saturating_sub(*before);
        Some(Account { key, existing, cause: Cause::of(existing), world, attempts }.describe())
    }

    fn end(&mut self, key: &TupleKey, _before: &u64, world: &Correlator) {
        if let Some(existing) = world.existing(key) {
            self.told.insert(key.clone(), existing.attempts);
        }
    }
}

/// All that is said about one connection.
struct Account<'a> {
    key: &'a TupleKey,
    existing: &'a Existing,
    cause: Cause,
    world: &'a Correlator,
    attempts: u64,
}

impl Account<'_> {
    fn describe(&self) -> Description {
        let TupleKey { local, remote, netns, .. } = self.key;
        let requester = self.requester();
        let name = requester.process.as_ref().map_or_else(|| "a process".to_owned(), ToString::to_string);
        let from = requester.place().unwrap_or_else(|| local.to_string());
        let explanation = self.explanation();
        Description {
            severity: Severity::Critical,
            confidence: if self.cause == Cause::Unknown { Confidence::Possible } else { Confidence::Certain },
            title: format!("{name} cannot connect from {from} to {remote}: {} (EADDRNOTAVAIL)", self.what()),
            subject: Party {
                kind: "port",
                address: Some(*local),
                remote: Some(*remote),
                port: Some(local.port()),
                netns: Some(*netns),
                ..Party::default()
            },
            cause: self.cause.code(),
            numbers: self.numbers(),
            evidence: Evidence::new()
                .with("requester", requester)
                .with("holders", self.holder().into_iter().collect::<Vec<_>>())
                .with("destination", *remote)
                .with("port", local.port())
                .with("errno", "EADDRNOTAVAIL")
                .with("call", "connect")
                .with("options", self.existing.options)
                .with("attempts", self.attempts)
                .with_some("left_s", self.left().map(|left| Duration::from_secs(left).as_secs_f64()))
                .with_some("tcp_timestamps", self.timestamps())
                .with_some("incomplete", self.existing.incomplete.clone())
                .with("why", explanation.as_str()),
            remedy: self.remedy(&name),
            explanation,
        }
    }

    /// The holder's last stage, in words.
    fn what(&self) -> String {
        let left = self.left().map_or_else(String::new, |left| format!(" for {left} s more"));
        match (self.cause, &self.existing.holder) {
            (Cause::TimeWait, _) => format!("the same connection is in TIME_WAIT{left}"),
            (Cause::Closing, Some(holder)) => {
                format!("the same connection is still being closed ({}){left}", holder.state)
            }
            (Cause::Open, Some(holder)) => {
                format!("{} has the same connection ({})", self.owner(holder), holder.state)
            }
            _ => "the same connection exists already".to_owned(),
        }
    }

    fn owner(&self, holder: &PortHolder) -> String {
        if holder.owners.is_empty() {
            return "a socket whose process is not known".to_owned();
        }
        ProcessName::of_owners(&holder.owners, self.world.processes()).to_string()
    }

    /// Whole seconds, rounded up, for which the kernel keeps what is left of the connection.
    fn left(&self) -> Option<u64> {
        self.existing.holder.as_ref()?.time_wait_left_ms.map(|left| left.div_ceil(1000))
    }

    fn timestamps(&self) -> Option<u32> {
        self.world.namespace(self.key.netns)?.knobs.timestamps
    }

    fn requester(&self) -> Party {
        let existing = self.existing;
        Party {
            kind: "process",
            address: Some(self.key.local),
            device: self.world.device_name(self.key.netns, existing.endpoints.device),
            remote: Some(self.key.remote),
            netns: Some(self.key.netns),
            process: Some(ProcessName::of_task(&existing.requester, self.world.processes())),
            socket: Some(SocketFacts {
                options: Some(existing.options),
                uid: Some(existing.requester.uid),
                ..SocketFacts::default()
            }),
            ..Party::default()
        }
    }

    fn holder(&self) -> Option<Party> {
        let holder = self.existing.holder.as_ref()?;
        let mut process = ProcessName::of_owners(&holder.owners, self.world.processes());
        process.confidence = process.confidence.min(OwnerConfidence::Likely);
        Some(Party {
            kind: "process",
            address: Some(self.key.local),
            device: self.world.device_name(self.key.netns, holder.endpoints.device),
            remote: Some(self.key.remote),
            netns: Some(self.key.netns),
            process: Some(process),
            socket: Some(SocketFacts {
                state: Some(holder.state.name()),
                time_wait_s_left: holder
                    .time_wait_left_ms
                    .map(|left| Duration::from_millis(left).as_secs_f64()),
                uid: holder.uid,
                ..SocketFacts::default()
            }),
            ..Party::default()
        })
    }

    fn numbers(&self) -> Vec<String> {
        let existing = self.existing;
        vec![format!(
            "{} from port {} by uid {}, options {}",
            count(self.attempts, "attempt", "attempts"),
            self.key.local.port(),
            existing.requester.uid,
            existing.options
        )]
    }

    fn explanation(&self) -> String {
        let TupleKey { local, remote, .. } = self.key;
        let own = format!(
            "its socket is bound to port {}, so its connection to {remote} would have the same addresses and ports as",
            local.port()
        );
        match self.cause {
            Cause::TimeWait => {
                let timestamps = match self.timestamps() {
                    Some(0) => "net.ipv4.tcp_timestamps is 0 here",
                    Some(_) => {
                        "they are on here: the peer does not send them, or the connection was made before"
                    }
                    None => "the setting here could not be read",
                };
                format!(
                    "{own} one that this host closed a moment ago. TIME_WAIT keeps it for 60 s; connect() may take it over \
                     only if both ends use TCP timestamps ({timestamps})"
                )
            }
            Cause::Closing => {
                let fin_timeout =
                    self.world.namespace(self.key.netns).and_then(|known| known.knobs.fin_timeout);
                let fin_timeout = fin_timeout.map_or_else(String::new, |value| format!(" ({value} s)"));
                format!(
                    "{own} one that this host has closed, and whose peer still has its end open, or does not acknowledge the \
                     close. The kernel keeps it for net.ipv4.tcp_fin_timeout{fin_timeout}, or while it sends the last \
                     segment again"
                )
            }
            Cause::Open => {
                format!("{own} one that is there, and two connections may not have all four alike")
            }
            Cause::Unknown => match &self.existing.incomplete {
                Some(why) => format!("{own} another one; what that is could not be looked up: {why}"),
                None => format!("{own} another one, which was gone before it could be looked up"),
            },
        }
    }

    fn remedy(&self, name: &str) -> Vec<Remedy> {
        let port = self.key.local.port();
        let mut remedy = vec![Remedy::text(format!(
            "let {name} connect from another port each time: no bind() before connect(), or bind() to port 0 with \
             IP_BIND_ADDRESS_NO_PORT. Where the protocol wants port {port}, call another port of the peer each time"
        ))];
        match self.cause {
            Cause::TimeWait => {
                let process = ProcessName::of_task(&self.existing.requester, self.world.processes());
                if self.timestamps() == Some(0) {
                    remedy.push(Remedy::command(
                        "or use TCP timestamps on both hosts (the default): then connect() from the same port takes over what \
                         is in TIME_WAIT, whatever net.ipv4.tcp_tw_reuse says",
                        sysctl(self.key.netns, Some(&process), "net.ipv4.tcp_timestamps=1"),
                    ));
                } else {
                    remedy.push(Remedy::text(format!(
                        "or have {} use TCP timestamps (net.ipv4.tcp_timestamps=1 there): then connect() takes over what is in \
                         TIME_WAIT",
                        self.key.remote.ip()
                    )));
                }
                remedy.push(Remedy::text(
                    "or let the peer close first: TIME_WAIT stays with the side that does",
                ));
                if let Some(left) = self.left() {
                    remedy.push(Remedy::text(format!("or try again in {left} s")));
                }
                remedy.push(Remedy::text(
                    "not by SO_LINGER with a timeout of 0: it avoids TIME_WAIT by an RST, which may destroy data on their way",
                ));
            }
            Cause::Closing => {
                remedy.push(Remedy::text("or have the peer close its end when this side has"));
            }
            Cause::Open => {
                remedy.push(Remedy::text("or use the connection that is there, or close it first"));
            }
            Cause::Unknown => {}
        }
        remedy
    }
}

#[cfg(test)]
mod tests;
