//! Rules, whichever tool made them, and which of them a packet meets: what drops it, and what leads it elsewhere.
//!
//! Only what rules say about addresses, ports, flags, devices, protocol numbers and sets is understood; whatever else a rule asks
//! for (connection states, limits) is left open, and such a rule is only a candidate.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::expression::{Answer, Decision, Expression, Outcome, Registers};
use super::packet::{Hook, RulePacket};
use super::set::Set;
use crate::event::{FoundRule, Packet, RuleDeed, RuleFacts};

/// Chains and their rules.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    bases: Vec<Base>,
    chains: HashMap<Named, Vec<Rule>>,
    sets: HashMap<Named, Set>,
}

/// A chain that the kernel calls at a hook.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) chain: Named,
    pub(super) place: Place,
    pub(super) priority: i32,
    /// What no rule decides is dropped.
    pub(super) drops: bool,
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Hook(Hook),
    /// At devices of these names.
    Device {
        outgoing: bool,
        names: Vec<String>,
    },
}

/// A chain or set within its table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Named {
    /// `NFPROTO_*`.
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
}

pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
pub(super) const NETDEV: u8 = 5;
pub(super) const IPV6: u8 = 10;

/// One rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// How to find it: `handle 4`.
    pub(super) label: String,
    pub(super) expressions: Vec<Expression>,
}

/// How a rule changes where a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// To another address.
    Dnat,
    /// To a port of this host.
    Redirect,
    /// To a socket of this host (TPROXY); the destination stays.
    Tproxy,
}

impl How {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dnat => "DNAT",
            Self::Redirect => "REDIRECT",
            Self::Tproxy => "TPROXY",
        }
    }
}

/// A rule that a connection meets, or may meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steering {
    /// What it does.
    pub how: How,
    /// Where to: `None` if the rule keeps the address, or a map decides that could not be read.
    pub to: Option<IpAddr>,
    /// The port, likewise.
    pub port: Option<u16>,
    /// The rule: `table ip nat, chain DOCKER, handle 4`.
    pub rule: String,
    /// What it asks for that could not be told, and what a rule before it did by which the connection may not meet it; empty if
    /// the connection meets it for sure.
    pub open: Vec<String>,
}

/// Rules are visited at most this often for one connection.
const VISITS: usize = 100_000;
/// The kernel allows 16 jumps deep.
const DEPTH: usize = 16;
/// Candidates that are named.
const CANDIDATES: usize = 4;

impl Ruleset {
    pub(super) fn add_base(&mut self, base: Base) {
        self.bases.push(base);
    }

    pub(super) fn add_rule(&mut self, chain: Named, rule: Rule) {
        self.chains.entry(chain).or_default().push(rule);
    }

    pub(super) fn add_set(&mut self, name: Named, set: Set) {
        self.sets.insert(name, set);
    }

    /// The sets that rules ask for.
    pub(super) fn wanted_sets(&self) -> impl Iterator<Item = Named> {
        self.chains.iter().flat_map(|(chain, rules)| {
            let expressions = rules.iter().flat_map(|rule| &rule.expressions);
            expressions.filter_map(|expression| match expression {
                Expression::Lookup { set, .. } => Some(Named { name: set.clone(), ..chain.clone() }),
                _ => None,
            })
        })
    }

    /// The rules that may steer a connection to `to` at `hook`, in the order in which it meets them, those that cannot be met left
    /// out. `is_local`: whether the address is one of the namespace's own.
    pub fn steering(&self, hook: Hook, to: SocketAddr, is_local: bool) -> Vec<Steering> {
        let hooks: &'static [Hook] = match hook {
            Hook::Output => &[Hook::Output],
            _ => &[Hook::Prerouting],
        };
        let packet = RulePacket {
            source: None,
            destination: to,
            is_local: Some(is_local),
            packet: Packet::Syn,
            outgoing: hook == Hook::Output,
            hooks,
            device: 0,
            device_name: None,
        };
        let mut found: Vec<Steering> = Vec::new();
        for met in self.met_by(&packet) {
            let Decision::Steer { how, to, port } = met.decision else { continue };
            let steering = Steering { how, to, port, rule: met.place, open: met.open };
            if !found.contains(&steering) {
                found.push(steering);
            }
        }
        found
    }

    /// What they say about a packet that netfilter dropped, or could not queue.
    pub(super) fn about(&self, packet: &RulePacket) -> RuleFacts {
        let mut facts = RuleFacts::default();
        for met in self.met_by(packet) {
            let Decision::Ends(deed, queue) = met.decision else { continue };
            let is_known = met.known;
            let open = (!is_known).then(|| met.open.join(", "));
            let found = FoundRule { place: met.place, deed, queue, open };
            if is_known && facts.rule.is_none() {
                facts.rule = Some(found);
            } else if facts.candidates.len() < CANDIDATES {
                facts.candidates.push(found);
            }
        }
        facts
    }

    /// The rules and policies that end a packet's way, or lead it elsewhere, for sure or perhaps.
    fn met_by(&self, packet: &RulePacket) -> Vec<Met> {
        let mut bases: Vec<(Hook, &Base)> =
            self.bases.iter().filter_map(|base| Some((base.met_at(packet)?, base))).collect();
        bases.sort_by_key(|(hook, base)| (*hook, base.priority));
        let mut walk = Walk { rules: self, packet, visits: 0, met: Vec::new(), passed: Vec::new() };
        for (_, base) in bases {
            walk.passed.clear();
            let flow = walk.visit(&base.chain, &[], 0);
            let ends = if flow == Flow::GoesOn && base.drops {
                walk.meet(&base.chain, "policy drop", Decision::Ends(RuleDeed::Policy, None), &[]);
                true
            } else {
                flow == Flow::Ended && walk.met.last().is_some_and(Met::ends)
            };
            if ends && walk.passed.is_empty() {
                break;
            }
        }
        walk.met
    }

    /// What a rule does with a packet: each verdict, and what it asks for that cannot be told.
    fn verdicts(&self, chain: &Named, rule: &Rule, packet: &RulePacket) -> Vec<(Decision, Vec<String>)> {
        let mut registers = Registers::default();
        let mut open = Vec::new();
        let mut found = Vec::new();
        let sets = |name: &str| self.sets.get(&Named { name: name.to_owned(), ..chain.clone() });
        for expression in &rule.expressions {
            match expression.about(packet, &mut registers, &sets) {
                Outcome::Is(Answer::No) => return found,
                Outcome::Is(Answer::Open) => open.push(expression.what(&registers)),
                Outcome::Is(Answer::Yes) => {}
                Outcome::Decides(decisions) => {
                    for (decision, answer) in decisions {
                        let mut open = open.clone();
                        if answer == Answer::Open {
                            open.push(expression.what(&registers));
                        }
                        found.push((decision, open));
                    }
                    // A transparent proxy is no verdict: the rule goes on.
                    if !matches!(found.last(), Some((Decision::Steer { how: How::Tproxy, .. }, _))) {
                        return found;
                    }
                }
            }
        }
        found
    }
}

impl Base {
    /// Where a packet meets it, if it does.
    fn met_at(&self, packet: &RulePacket) -> Option<Hook> {
        let ipv6 = packet.destination.is_ipv6();
        match &self.place {
            Place::Hook(hook) => {
                let family = match self.chain.family {
                    INET => true,
                    IPV4 => !ipv6,
                    IPV6 => ipv6,
                    _ => false,
                };
                (family && packet.hooks.contains(hook)).then_some(*hook)
            }
            // Before everything that comes in, and after everything that goes out.
            Place::Device { outgoing, names } => {
                let here = packet.device_name.as_ref().is_some_and(|name| names.contains(name));
                let at = if *outgoing { Hook::Postrouting } else { Hook::Prerouting };
                (here && *outgoing == packet.outgoing).then_some(at)
            }
        }
    }
}

/// A rule or policy that a packet meets, or may meet.
struct Met {
    place: String,
    decision: Decision,
    /// All that it and the jumps to it ask for is known to hold.
    known: bool,
    open: Vec<String>,
}

impl Met {
    fn ends(&self) -> bool {
        self.known && matches!(self.decision, Decision::Ends(..))
    }
}

/// What becomes of a packet in a chain, if it comes there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// It comes to the end of the chain, or leaves it early: the caller goes on, or the policy decides.
    GoesOn,
    /// A rule has decided.
    Ended,
}

struct Walk<'r> {
    rules: &'r Ruleset,
    packet: &'r RulePacket,
    visits: usize,
    met: Vec<Met>,
    /// What rules ask for that may have decided about the packet before.
    passed: Vec<String>,
}

impl Walk<'_> {
    /// Follows the packet through a chain; `open` is what the jumps to it ask for that cannot be told.
    fn visit(&mut self, chain: &Named, open: &[String], depth: usize) -> Flow {
        let rules = self.rules;
        for rule in rules.chains.get(chain).into_iter().flatten() {
            self.visits += 1;
            if self.visits > VISITS {
                self.passed.push("more rules than are looked at".to_owned());
                return Flow::GoesOn;
            }
            for (decision, asks) in rules.verdicts(chain, rule, self.packet) {
                let all = [open, &asks].concat();
                let flow = match &decision {
                    Decision::Accept => Some(Flow::Ended),
                    Decision::Return => Some(Flow::GoesOn),
                    Decision::Jump(name) | Decision::Goto(name) => {
                        let next = Named { name: name.clone(), ..chain.clone() };
                        let flow =
                            if depth < DEPTH { self.visit(&next, &all, depth + 1) } else { Flow::GoesOn };
                        let leaves = flow == Flow::Ended || matches!(decision, Decision::Goto(_));
                        leaves.then_some(flow)
                    }
                    Decision::JumpSomewhere => {
                        self.somewhere(chain, &all);
                        None
                    }
                    Decision::Ends(..) => {
                        self.meet(chain, &rule.label, decision, &all);
                        Some(Flow::Ended)
                    }
                    Decision::Steer { how, .. } => {
                        let ends = *how != How::Tproxy;
                        self.meet(chain, &rule.label, decision, &all);
                        ends.then_some(Flow::Ended)
                    }
                };
                match flow {
                    Some(flow) if asks.is_empty() => return flow,
                    Some(_) => self.passed.extend(asks),
                    None => {}
                }
            }
        }
        Flow::GoesOn
    }

    /// Any other chain of the table may come next.
    fn somewhere(&mut self, from: &Named, open: &[String]) {
        let rules = self.rules;
        let mut chains: Vec<_> = rules
            .chains
            .iter()
            .filter(|(chain, _)| chain.family == from.family && chain.table == from.table && *chain != from)
            .collect();
        chains.sort_by_key(|(chain, _)| *chain);
        for (chain, list) in chains {
            for rule in list {
                for (decision, asks) in rules.verdicts(chain, rule, self.packet) {
                    if matches!(decision, Decision::Ends(..) | Decision::Steer { .. }) {
                        self.meet(chain, &rule.label, decision, &[open, &asks].concat());
                    }
                }
            }
        }
        self.passed.extend_from_slice(open);
    }

    fn meet(&mut self, chain: &Named, label: &str, decision: Decision, open: &[String]) {
        let family = match chain.family {
            INET => "inet",
            IPV4 => "ip",
            IPV6 => "ip6",
            NETDEV => "netdev",
            _ => "other",
        };
        let place = format!("table {family} {}, chain {}, {label}", chain.table, chain.name);
        let mut all = open.to_vec();
        all.extend(self.passed.iter().map(|asked| format!("{asked} in a rule before it")));
        all.sort_unstable();
        all.dedup();
        self.met.push(Met { place, decision, known: open.is_empty(), open: all });
    }
}

#[cfg(test)]
mod tests;
