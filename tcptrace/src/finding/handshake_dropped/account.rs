//! One case in words and numbers.

use crate::correlate::{BY_RULE, Correlator, DropCause, PathDrops, PathKey};
use crate::event::{ConntrackFacts, Packet, RuleDeed};
use crate::finding::case::Description;
use crate::finding::words::{count, errno_name};
use crate::finding::{Confidence, Evidence, Party, ProcessName, Severity};

use super::{remedy, words};

pub(super) struct Account<'a> {
    pub(super) key: &'a PathKey,
    pub(super) drops: &'a PathDrops,
    pub(super) world: &'a Correlator,
    pub(super) subject: Party,
    /// Whether the server completes other handshakes; `None` if that cannot be told.
    pub(super) serves: Option<bool>,
}

impl Account<'_> {
    pub(super) fn describe(self) -> Description {
        let packet = self.key.packet.name();
        let way = if self.key.outgoing && self.key.packet == Packet::SynAck { "from" } else { "to" };
        let explanation = words::explanation(&self);
        Description {
            severity: self.severity(),
            confidence: self.confidence(),
            title: format!("this host drops {packet}s {way} {}: {}", self.end(), words::short(&self)),
            cause: self.key.cause.name(),
            numbers: vec![self.numbers()],
            evidence: self.evidence(&explanation),
            remedy: remedy::of(&self),
            explanation,
            subject: self.subject,
        }
    }

    /// Whom the packets were for, or from.
    fn end(&self) -> String {
        if self.subject.kind == "listener" {
            return self.subject.to_string();
        }
        match (self.key.server.or(self.subject.address), self.drops.server_count.count()) {
            (Some(server), _) => server.to_string(),
            (None, servers) => count(servers, "server", "servers"),
        }
    }

    /// A service that fails for its clients is critical; what hits a few of many is not.
    fn severity(&self) -> Severity {
        // Of some packets one is enough: the client gives up at once.
        let at_once =
            matches!(self.key.cause, DropCause::Reject | DropCause::Neighbour) || self.drops.errno.is_some();
        let fails = at_once || self.drops.failing() > 0;
        if fails && self.serves != Some(true) { Severity::Critical } else { Severity::Warning }
    }

    fn confidence(&self) -> Confidence {
        use DropCause as C;
        let facts = self.drops.facts.as_deref();
        let rule = facts.and_then(|facts| facts.rules.as_ref()?.rule.as_ref());
        // What connection tracking did or did not drop is known if its counters were read, or if it is not in use.
        let tracking = self.tracking();
        let certain = match self.key.cause {
            C::Netfilter | C::Reject => {
                self.is_by_rule()
                    || (rule.is_some()
                        && self.has_no_candidates()
                        && tracking.is_none_or(|tracking| tracking.counted && !tracking.dropped))
            }
            C::ConntrackFull => rule.is_none() && self.has_no_candidates(),
            C::QueueUnread => facts.is_some_and(|facts| facts.queues.as_ref().is_some_and(Vec::is_empty)),
            C::QueueFull | C::ConntrackInvalid | C::QueueVerdict | C::SocketFilter | C::Unknown => false,
            C::NeighbourTable => {
                facts.and_then(|facts| facts.neighbours).is_some_and(|table| table.is_full())
            }
            // The control group's programs were seen; a filter of the socket's own could still be what dropped it.
            C::CgroupFilter => self.drops.reason.as_deref() != Some("SOCKET_FILTER"),
            // Before 5.17 the function alone tells.
            C::Neighbour if self.is_by_failed_neighbour() => true,
            C::Qdisc | C::TrafficControl | C::Neighbour | C::CpuBacklog | C::NoMemory | C::Device => {
                self.drops.reason.as_deref().is_some_and(|reason| reason != "NOT_SPECIFIED")
            }
            _ => true,
        };
        match (certain, self.key.cause) {
            (true, _) => Confidence::Certain,
            (false, C::Unknown) => Confidence::Possible,
            (false, _) => Confidence::Likely,
        }
    }

    /// Whether nf_tables' own code dropped it.
    pub(super) fn is_by_rule(&self) -> bool {
        self.drops.function.as_deref() == Some(BY_RULE)
    }

    /// Whether it was dropped by what frees the packets of a neighbour that failed to answer, and nothing else. IPv6 gives no
    /// reason for these.
    fn is_by_failed_neighbour(&self) -> bool {
        const ONLY: [&str; 3] = ["neigh_invalidate", "arp_error_report", "ndisc_error_report"];
        self.drops.reason.is_some() && self.drops.function.as_deref().is_some_and(|name| ONLY.contains(&name))
    }

    /// Whether no rule may have done it of which that cannot be told, and all rules could be read.
    fn has_no_candidates(&self) -> bool {
        let rules = self.drops.facts.as_ref().and_then(|facts| facts.rules.as_ref());
        rules.is_some_and(|rules| rules.candidates.is_empty() && rules.unread.is_empty())
    }

    pub(super) fn tracking(&self) -> Option<ConntrackFacts> {
        self.drops.facts.as_ref()?.conntrack
    }

    /// The rule that is known to be behind it.
    pub(super) fn rule(&self, deeds: &[RuleDeed]) -> Option<&str> {
        let rule = self.drops.facts.as_ref()?.rules.as_ref()?.rule.as_ref()?;
        deeds.contains(&rule.deed).then_some(rule.place.as_str())
    }

    /// The device that the packets came in by, or were to leave by.
    pub(super) fn device(&self) -> Option<String> {
        let name = self.drops.facts.as_ref().and_then(|facts| facts.device.clone());
        name.or_else(|| (self.drops.device != 0).then(|| format!("number {}", self.drops.device)))
    }

    fn numbers(&self) -> String {
        let packet = self.key.packet.name();
        if let Some(errno) = self.drops.errno {
            let connects = count(self.drops.seen, "connect", "connects");
            return format!("{connects} failed at once: {}", errno_name(errno));
        }
        let servers = self.drops.server_count.count();
        format!(
            "{}{} dropped {} of {}{}, {}",
            // The kernel side may have counted more since.
            if self.drops.at_least { "at least " } else { "" },
            count(self.drops.seen, &format!("{packet} was"), &format!("{packet}s were")),
            if self.key.outgoing { "going out" } else { "coming in" },
            count(self.drops.peers.count(), "client", "clients"),
            if servers > 1 { format!(" to {servers} servers") } else { String::new() },
            self.place(),
        )
    }

    pub(super) fn place(&self) -> String {
        let function = self.drops.function.as_deref().unwrap_or("an unknown function");
        match &self.drops.reason {
            Some(reason) => format!("in {function}, reason {reason}"),
            None => format!("in {function}"),
        }
    }

    fn evidence(&self, explanation: &str) -> Evidence {
        let client = self.drops.clients.values().next().map(|task| Party {
            kind: "process",
            process: Some(ProcessName::of_task(task, self.world.processes())),
            ..Party::default()
        });
        let facts = self.drops.facts.as_deref();
        let several = self.key.server.is_none();
        let servers = self.drops.servers.keys().map(|address| Party {
            kind: "destination",
            address: Some(*address),
            netns: Some(self.key.netns).filter(|_| self.is_at_server()),
            ..Party::default()
        });
        let neighbours = self.drops.neighbours.iter().map(ToString::to_string).collect::<Vec<_>>();
        let by_netfilter = matches!(self.key.cause, DropCause::Netfilter | DropCause::Reject);
        let tracking = self.tracking();
        let table = facts.and_then(|facts| facts.neighbours);
        let group = facts.and_then(|facts| facts.cgroup.as_ref());
        let rule = facts.and_then(|facts| facts.rules.as_ref()?.rule.as_ref());
        Evidence::new()
            .with("packet", self.key.packet.name())
            .with("direction", if self.key.outgoing { "out" } else { "in" })
            .with("dropped", self.drops.seen)
            .with_some("at_least", self.drops.at_least.then_some(true))
            .with("peers", self.drops.peers.count())
            .with("reason", self.drops.reason.clone())
            .with("function", self.drops.function.clone())
            .with_some("hook", by_netfilter.then(|| self.drops.hook.name()))
            .with_some("rule", rule.map(|rule| rule.place.clone()))
            .with_some("conntrack_count", tracking.map(|tracking| tracking.count))
            .with_some("conntrack_max", tracking.map(|tracking| tracking.max))
            .with_some("conntrack_drops", tracking.filter(|t| t.counted).map(|t| t.drops))
            .with_some("neighbours", table.map(|table| table.entries))
            .with_some("gc_thresh3", table.and_then(|table| table.limit))
            .with_some("next_hops", (!neighbours.is_empty()).then_some(neighbours))
            .with_some("cgroup", group.map(|group| group.path.clone()))
            .with_some("cgroup_programs", group.map(|group| group.programs.clone()))
            .with_some("errno", self.drops.errno.map(errno_name))
            .with_some("device", self.device())
            .with_some("server_address", self.key.server)
            .with_some("server_count", several.then(|| self.drops.server_count.count()))
            .with_some("servers", several.then(|| servers.collect::<Vec<Party>>()))
            .with_some("requester", client)
            .with("why", explanation)
    }

    /// Whether the server's end is this namespace's.
    fn is_at_server(&self) -> bool {
        self.key.outgoing == (self.key.packet == Packet::SynAck)
    }
}
