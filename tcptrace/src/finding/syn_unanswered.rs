//! syn-unanswered: connects of this host's processes get no answer; their SYNs are sent again, and again.

use std::time::Duration;

use crate::correlate::{Change, DestinationKey, Listener, ServerSide};

use super::case::Description;
use super::commands::{self, CommandLine};
use super::destination::{Account, Trouble, others, subject, who_says};
use super::handshake_dropped;
use super::no_listener::of_reported;
use super::words::{count, errno_name, span};
use super::{Apart, CauseRule, Confidence, Evidence, FindingKind, Party, Remedy, Severity, keys};

/// The diagnosis.
#[derive(Default)]
pub(super) struct SynUnanswered;

impl Trouble for SynUnanswered {
    const KIND: FindingKind = FindingKind {
        code: "syn-unanswered",
        opens_when: "connects of this host's processes get no answer",
        page: include_str!("../../../docs/findings/syn-unanswered.md"),
        observations: &["syn-retransmit", "connect-end", "connect-error"],
        tracepoint_tier: "that this host itself drops the SYNs is concluded from a listener that overflows at the called address.",
        causes: &[
            CauseRule {
                code: "no-answer",
                means: "neither a SYN-ACK nor an RST came back",
                certain: None,
                likely: Some("the SYN was sent again, and nothing answered it"),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "`connect-refused`",
                        by: "no RST came, and no ICMP message that refuses the port",
                    },
                    Apart {
                        from: "a loss on the way there from one on the way back, a silent firewall, or a host that is down",
                        by: "nothing on one host: a capture at the destination would tell",
                    },
                ],
            },
            CauseRule {
                code: "local-drop",
                means: "this host itself drops the SYN, at a listener's full queue or on its way",
                certain: Some(
                    "of each of the last 16 connects that had to send their SYN again, a drop of that SYN was seen, with its addresses \
                 and ports",
                ),
                likely: Some(
                    "drops of earlier connects, or the listener's own count of drops, were seen; or a listener of this host has the \
                 address and room, and no drop was seen with a reason; or a loopback address was called, and neither an answer nor an \
                 RST came back; or the SYN was seen to meet no socket on this host, and its RST did not come back",
                ),
                possible: None,
                told_apart: &[Apart {
                    from: "`no-answer`: a loss elsewhere",
                    by: "the other end is on this host, and its drop was seen; where it is only likely, another host could have the \
                     same address, unless the caller's neighbour entry has the link-layer address of this one",
                }],
            },
        ],
        evidence: &[
            keys::number("cancelled", "connects that the program gave up"),
            keys::CLIENTS,
            keys::ERRNO,
            keys::number("established", "connects that were answered in the end"),
            keys::measure("longest_ms", "longest that a connect waited"),
            keys::number("most_syns_again", "most SYNs that one connect sent again"),
            keys::party("server", "the listener at the other end, on this host"),
            keys::number("syns_again", "SYNs sent again"),
            keys::number("timed_out", "connects that ended with ETIMEDOUT"),
            keys::number("unanswered", "connects whose SYN was sent again"),
            keys::number("unreachable", "connects that ended with another error of the network"),
        ],
    };
    /// Longer than the pause before the fifth repetition of a SYN.
    const QUIET: Duration = Duration::from_secs(20);

    fn happened(change: &Change) -> Option<DestinationKey> {
        match change {
            Change::Unanswered(key) => Some(*key),
            _ => None,
        }
    }

    fn describe(account: &Account<'_>) -> Description {
        account.unanswered()
    }
}

impl Account<'_> {
    fn unanswered(&self) -> Description {
        let subject = subject(self.key, self.destination, self.world);
        let server = self.server();
        let (cause, confidence, explanation) = self.cause(server.as_ref());
        let process = subject.process.as_ref().map_or_else(|| "a process".to_owned(), ToString::to_string);
        Description {
            // Somebody else's finding tells how bad a known cause is.
            severity: if server.is_some() { Severity::Info } else { Severity::Warning },
            confidence,
            title: format!("{process} gets no answer from {}", self.key.remote),
            cause,
            numbers: self.numbers(),
            evidence: self.evidence(server.clone(), &explanation),
            remedy: self.remedy(server.as_ref()),
            explanation,
            subject,
        }
    }

    /// The socket on this host that dropped the SYNs.
    fn server(&self) -> Option<Party> {
        match self.side()? {
            ServerSide::AcceptQueueFull(id) | ServerSide::SynQueueFull(id) => {
                Some(Party::of_listener(self.world.listener(id)?, self.world))
            }
            ServerSide::Dropped(key) => Some(handshake_dropped::subject(&key, self.world)),
            // An answer, which this is not about.
            ServerSide::NoListener(_) => None,
        }
    }

    /// What this host does with the SYNs. Where their drops are polled, and the listener is in another network namespace, its full
    /// queue is all that is seen.
    fn side(&self) -> Option<ServerSide> {
        self.destination.server_side.or_else(|| {
            let unreachable = self.destination.errno.is_some_and(|errno| errno != 110);
            let here = self.destination.here.as_ref().filter(|_| !unreachable)?;
            let known = self.world.listeners().with_inode(here.listener.inode)?;
            let now = self.world.now();
            let drops = known.is_full() || known.overflowed_within(now.since(self.destination.first), now);
            let its_own = here.alone || here.listener.netns == self.key.netns;
            (drops && its_own).then_some(ServerSide::AcceptQueueFull(known.id))
        })
    }

    fn cause(&self, server: Option<&Party>) -> (&'static str, Confidence, String) {
        if let (Some(side), Some(server)) = (self.side(), server) {
            let led = server.address.filter(|at| at.port() != self.key.remote.port());
            let led = led.map_or_else(String::new, |_| {
                format!(", to which a rule or program leads connects to {},", self.key.remote)
            });
            let full = |queue, finding| {
                format!(
                    "the other end is on this host: {server}{led} drops the SYNs because its {queue} is full (see {finding})"
                )
            };
            let explanation = match side {
                ServerSide::AcceptQueueFull(_) => full("accept queue", "accept-queue-overflow"),
                ServerSide::SynQueueFull(_) => full("SYN queue", "syn-queue-full"),
                ServerSide::Dropped(_) | ServerSide::NoListener(_) => {
                    "this host itself drops the SYNs on their way (see handshake-dropped)".to_owned()
                }
            };
            let seen = self.world.drops_were_seen(self.key);
            let confidence = if seen { Confidence::Certain } else { Confidence::Likely };
            return ("local-drop", confidence, explanation);
        }
        if let Some(ServerSide::NoListener(_)) = self.side() {
            let explanation = "the SYN meets no socket on this host (see no-listener), and the RST that would say so does not come back";
            return ("local-drop", Confidence::Likely, explanation.to_owned());
        }
        if let Some(explanation) = self.lost_here() {
            return ("local-drop", Confidence::Likely, explanation);
        }
        if self.never_leaves() {
            let called = self.key.remote;
            let explanation = format!(
                "the SYN never leaves this host, so this host drops it, or a full queue does of a listener that it is steered to: \
                 no listener of {called} itself was found, and where there is none, an RST would come back"
            );
            return ("local-drop", Confidence::Likely, explanation);
        }
        let explanation = match self.destination.errno {
            Some(errno) if errno != 110 => format!(
                "{}: {}; nothing answered the SYN itself",
                errno_name(errno),
                who_says(errno, self.key.remote.is_ipv6())
            ),
            _ => "neither a SYN-ACK nor an RST nor an ICMP message came back: the SYN or its answer is lost on the way, a \
                  firewall drops it without a word, or the host is down"
                .to_owned(),
        };
        ("no-answer", Confidence::Likely, explanation)
    }

    /// Whether a loopback address was called, and no error came back.
    fn never_leaves(&self) -> bool {
        let unreachable = self.destination.errno.is_some_and(|errno| errno != 110);
        self.key.remote.ip().to_canonical().is_loopback() && !unreachable
    }

    /// The listener of this host that does not answer, if it has room: where its SYNs were last seen, in words.
    fn lost_here(&self) -> Option<String> {
        let unreachable = self.destination.errno.is_some_and(|errno| errno != 110);
        let here = self.destination.here.as_ref().filter(|_| !unreachable)?;
        let known = self.world.listeners().with_inode(here.listener.inode);
        if known.is_some_and(Listener::is_full) {
            return None;
        }
        let listener = of_reported(&here.listener, self.world);
        let same = here.listener.netns == self.key.netns;
        let answers = known.is_some_and(|known| self.world.unanswered(known.id).requests > 0);
        let last_seen = match &self.destination.dropped_in {
            Some(function) if !function.is_empty() => {
                format!("the SYN was last seen in the function {function}, which frees it without a reason")
            }
            _ if answers => "the listener gets the SYNs and answers them: its SYN-ACKs are lost on their way back".to_owned(),
            _ => "the SYN was last seen as the client sent it, and no hook that gives a reason dropped it: a netfilter queue may \
                  hold it whose program does not answer; an XDP program in a driver, a BPF program, or a device may drop it without a \
                  trace"
                .to_owned(),
        };
        let place =
            if same { "in the same network namespace" } else { "in another network namespace of this host" };
        let alone =
            if same || here.alone { "" } else { " (several namespaces of this host have this address)" };
        Some(format!(
            "this host drops it: the other end is {listener}, {place}{alone}, and has room in its queue; {last_seen}"
        ))
    }

    /// `command`, in the namespace of the listener that has the address.
    fn at_the_server(&self, command: &str) -> CommandLine {
        let here = self.destination.here.as_ref();
        let netns = here.map_or(self.key.netns, |here| here.listener.netns);
        let process = here.and_then(|here| of_reported(&here.listener, self.world).process);
        commands::inside(netns, process.as_ref(), command)
    }

    fn numbers(&self) -> Vec<String> {
        let totals = &self.totals;
        let mut ends = Vec::new();
        for (number, how) in [
            (totals.timed_out, "timed out"),
            (totals.unreachable, "ended by an error"),
            (totals.cancelled, "called off"),
            (totals.established, "answered in the end"),
        ] {
            if number > 0 {
                ends.push(format!("{number} {how}"));
            }
        }
        let ends = if ends.is_empty() { String::new() } else { format!("; {}", ends.join(", ")) };
        vec![format!(
            "{}, {}{}{ends}",
            count(self.connects(), "connect not answered", "connects not answered"),
            count(totals.syns_again, "SYN sent again", "SYNs sent again"),
            self.longest().map_or_else(String::new, |longest| format!("; waited up to {}", span(longest))),
        )]
    }

    /// How many connects were not answered. One that is older than the tracer may have ended without being counted.
    fn connects(&self) -> u64 {
        let totals = &self.totals;
        let ended = totals.timed_out.saturating_add(totals.cancelled).saturating_add(totals.established);
        totals.unanswered.max(ended).max(1)
    }

    /// The longest that a connect waited; unknown if all of them are older than the tracer.
    fn longest(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.destination.longest_ns)).filter(|longest| !longest.is_zero())
    }

    fn evidence(&self, server: Option<Party>, explanation: &str) -> Evidence {
        let totals = &self.totals;
        Evidence::new()
            .with("unanswered", self.connects())
            .with("syns_again", totals.syns_again)
            .with("most_syns_again", self.destination.most_syns_again)
            .with("timed_out", totals.timed_out)
            .with("unreachable", totals.unreachable)
            .with("cancelled", totals.cancelled)
            .with("established", totals.established)
            .with("errno", self.destination.errno.map(errno_name))
            .with("longest_ms", self.longest().map(|longest| longest.as_secs_f64() * 1e3))
            .with("clients", others(self.destination, self.world))
            .with_some("server", server)
            .with("why", explanation)
    }

    fn remedy(&self, server: Option<&Party>) -> Vec<Remedy> {
        let port = self.key.remote.port();
        match server {
            Some(server) => vec![Remedy::text(format!("see what is told of {server}"))],
            None if self.lost_here().is_some() => vec![
                Remedy::command(
                    "see whether packets wait in a netfilter queue (its third number)",
                    self.at_the_server("cat /proc/net/netfilter/nfnetlink_queue"),
                ),
                Remedy::command(
                    "look for programs that see packets before the rest of the kernel does, on every device of the way",
                    "ip -d link show; bpftool net show",
                ),
                Remedy::command(
                    "see on which device it is last seen",
                    format!("tcpdump -ni any 'tcp port {port} and tcp[tcpflags] & tcp-syn != 0'"),
                ),
            ],
            None if self.never_leaves() => vec![
                Remedy::command(
                    "look for what takes the SYNs: BPF programs that steer connections to another listener (sk_lookup), TPROXY and \
                     other rules",
                    "bpftool link show; nft list ruleset",
                ),
                Remedy::text(
                    "look at the accept queue of the listener that they are steered to, if they are",
                ),
            ],
            None => vec![
                Remedy::command(
                    "see at the destination whether the SYNs arrive there; if not, the loss is on the way: firewalls, security \
                     groups, routes",
                    format!("tcpdump -ni any 'tcp port {port} and tcp[tcpflags] & tcp-syn != 0'"),
                ),
                Remedy::text(
                    "if they arrive and are answered, the answer is lost on the way back: compare the routes of both directions",
                ),
            ],
        }
    }
}

#[cfg(test)]
mod tests;
