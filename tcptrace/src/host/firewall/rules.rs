//! The rules of nf_tables, read through netlink, and what they say about one packet.
//!
//! Only what rules say about addresses, ports, flags, devices and protocol numbers is understood; whatever else a rule asks
//! for (sets, connection states, limits) is left open, and such a rule is only a candidate.

mod expression;
mod wire;

use std::net::SocketAddr;

use crate::event::{FoundRule, Packet, RuleDeed, RuleFacts};
use crate::host::netns::{Netns, NetnsError, in_netns};

use expression::{Answer, Expression, Registers, Verdict};

/// Why rules could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Netlink failed.
    #[error("cannot read the firewall rules of network namespace {netns}: {source}")]
    Read {
        /// The namespace.
        netns: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// A packet, as rules look at it.
#[derive(Clone, Debug)]
pub struct FirewallPacket {
    /// Its source.
    pub source: SocketAddr,
    /// Its destination.
    pub destination: SocketAddr,
    /// Which step of a handshake.
    pub packet: Packet,
    /// It was made here.
    pub outgoing: bool,
    /// Hooks that it may have been in: `NF_INET_*`.
    pub hooks: &'static [u32],
    /// Index of the device that it came in by; 0 for none.
    pub device: u32,
    /// The device's name, or of an outgoing packet the name of the one that it leaves by.
    pub device_name: Option<String>,
}

/// All rules of a namespace.
#[derive(Debug, Default)]
pub struct FirewallRules {
    chains: Vec<Chain>,
    /// Old iptables tables exist.
    legacy: bool,
}

/// A chain and its rules, in order.
#[derive(Debug, Default)]
struct Chain {
    family: u8,
    table: String,
    name: String,
    /// The hook it is at, its priority and device; `None` for one that is jumped to.
    base: Option<Base>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Base {
    hook: u32,
    priority: i32,
    device: Option<String>,
    drops: bool,
}

#[derive(Debug)]
struct Rule {
    handle: u64,
    expressions: Vec<Expression>,
}

/// `NFPROTO_*`.
const INET: u8 = 1;
const IPV4: u8 = 2;
const NETDEV: u8 = 5;
const IPV6: u8 = 10;

/// A chain that calls others deeper than this is not followed; the kernel allows 16.
const DEPTH: usize = 16;
/// Candidates that are named.
const CANDIDATES: usize = 4;

impl FirewallRules {
    /// Reads them. Costs a dump of the ruleset, which is long on some hosts: not for every packet.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel not be asked (no nf_tables, or not permitted).
    pub fn read(netns: &Netns) -> Result<Self, RulesError> {
        let read = || {
            let legacy = ["ip_tables_names", "ip6_tables_names"].iter().any(|name| {
                std::fs::read_to_string(format!("/proc/thread-self/net/{name}"))
                    .is_ok_and(|names| !names.is_empty())
            });
            wire::dump().map(|chains| Self { chains, legacy })
        };
        in_netns(netns, read)?.map_err(|source| RulesError::Read { netns: netns.id(), source })
    }

    /// What they say about a packet that netfilter dropped, or could not queue.
    pub fn about(&self, packet: &FirewallPacket) -> RuleFacts {
        let mut facts = RuleFacts { legacy: self.legacy, ..RuleFacts::default() };
        let mut bases: Vec<(&Chain, &Base)> = self
            .chains
            .iter()
            .filter_map(|chain| Some((chain, chain.base.as_ref()?)))
            .filter(|(chain, base)| chain.sees(base, packet))
            .collect();
        bases.sort_by_key(|(_, base)| base.priority);
        for (chain, base) in bases {
            let flow = self.walk(chain, packet, &mut facts, true, 0);
            if flow == Flow::GoesOn && base.drops {
                facts.rule.get_or_insert(FoundRule {
                    place: format!("table {}, chain {}, policy drop", chain.table_name(), chain.name),
                    deed: RuleDeed::Policy,
                    queue: None,
                });
            }
        }
        facts
    }

    /// Follows the packet through a chain. `certain`: it is known to come here.
    fn walk(
        &self,
        chain: &Chain,
        packet: &FirewallPacket,
        facts: &mut RuleFacts,
        certain: bool,
        depth: usize,
    ) -> Flow {
        for rule in &chain.rules {
            let (answer, verdict) = rule.about(packet, chain.family);
            let (Some(verdict), Answer::Yes | Answer::Open) = (verdict, answer) else { continue };
            let sure = certain && answer == Answer::Yes;
            match verdict {
                Verdict::Accept if sure => return Flow::Ended,
                Verdict::Return if sure => return Flow::GoesOn,
                Verdict::Accept | Verdict::Return => {}
                Verdict::Jump(ref name) | Verdict::Goto(ref name) => {
                    let Some(target) = self.chain(chain, name).filter(|_| depth < DEPTH) else { continue };
                    let flow = self.walk(target, packet, facts, sure, depth + 1);
                    if sure && (flow == Flow::Ended || matches!(verdict, Verdict::Goto(_))) {
                        return flow;
                    }
                }
                Verdict::Ends(deed, queue) => {
                    let place =
                        format!("table {}, chain {}, handle {}", chain.table_name(), chain.name, rule.handle);
                    let found = FoundRule { place, deed, queue };
                    if sure {
                        facts.rule.get_or_insert(found);
                        return Flow::Ended;
                    }
                    if facts.candidates.len() < CANDIDATES {
                        facts.candidates.push(found);
                    }
                }
            }
        }
        Flow::GoesOn
    }

    fn chain(&self, from: &Chain, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|c| c.family == from.family && c.table == from.table && c.name == name)
    }
}

/// What becomes of a packet in a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// It comes to the end of the chain, or leaves it early: the caller goes on, or the policy decides.
    GoesOn,
    /// A rule has decided.
    Ended,
}

impl Chain {
    fn sees(&self, base: &Base, packet: &FirewallPacket) -> bool {
        let ipv6 = packet.destination.is_ipv6();
        let on_device = base.device.is_none() || base.device == packet.device_name;
        match self.family {
            INET => packet.hooks.contains(&base.hook),
            IPV4 => !ipv6 && packet.hooks.contains(&base.hook),
            IPV6 => ipv6 && packet.hooks.contains(&base.hook),
            // Ingress 0, egress 1.
            NETDEV => on_device && base.hook == u32::from(packet.outgoing),
            _ => false,
        }
    }

    /// `inet filter`.
    fn table_name(&self) -> String {
        let family = match self.family {
            INET => "inet",
            IPV4 => "ip",
            IPV6 => "ip6",
            NETDEV => "netdev",
            _ => "other",
        };
        format!("{family} {}", self.table)
    }
}

impl Rule {
    /// Whether it matches, and its verdict.
    fn about(&self, packet: &FirewallPacket, family: u8) -> (Answer, Option<Verdict>) {
        let mut registers = Registers::default();
        let mut all = Answer::Yes;
        for expression in &self.expressions {
            match expression.about(packet, family, &mut registers) {
                Ok(Answer::No) => return (Answer::No, None),
                Ok(Answer::Open) => all = Answer::Open,
                Ok(Answer::Yes) => {}
                Err(verdict) => return (all, Some(verdict)),
            }
        }
        (all, None)
    }
}

#[cfg(test)]
mod tests;
