//! Rules as far as they bear on where a connection ends, whichever tool made them, and which of them a connection meets.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Chains and their rules.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    bases: Vec<Base>,
    chains: HashMap<ChainKey, Vec<Rule>>,
}

/// A chain that the kernel calls at a hook.
#[derive(Debug, Clone)]
struct Base {
    chain: ChainKey,
    hook: Hook,
}

/// A chain within its table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ChainKey {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) chain: String,
}

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
    Both,
}

/// Where packets meet a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Packets that come in by a device.
    Prerouting,
    /// Packets that a program of the namespace sends.
    Output,
}

/// One rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// How to find it: `handle 4`.
    pub(super) label: String,
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// What a packet must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Of this protocol.
    Protocol(u8),
    /// To (or not to) a port from the first to the last.
    Port { first: u16, last: u16, negated: bool },
    /// To (or not to) an address of this range.
    To { ip: IpAddr, prefix: u8, negated: bool },
    /// To (or not to) one of the namespace's own addresses.
    ToLocal { negated: bool },
    /// Anything else: whether a packet is like that is not known.
    Other,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing that matters here.
    None,
    /// It meets the rules of another chain of the table.
    Jump(String),
    /// It may meet any other chain of the table: a map decides.
    JumpSomewhere,
    /// Its destination is changed, or a socket is chosen for it.
    Steer { how: How, to: Option<IpAddr>, port: Option<u16> },
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
    /// Where to: `None` if the rule keeps the address, or a map decides.
    pub to: Option<IpAddr>,
    /// The port, likewise.
    pub port: Option<u16>,
    /// The rule: `table ip nat, chain DOCKER, handle 4`.
    pub rule: String,
    /// Whether all its conditions are known to hold.
    pub surely_met: bool,
}

/// Rules are visited at most this often for one connection.
const VISITS: usize = 100_000;
/// The kernel allows 16 jumps deep.
const DEPTH: usize = 16;

impl Ruleset {
    pub(super) fn add_base(&mut self, chain: ChainKey, hook: Hook) {
        self.bases.push(Base { chain, hook });
    }

    pub(super) fn add_rule(&mut self, chain: ChainKey, rule: Rule) {
        self.chains.entry(chain).or_default().push(rule);
    }

    /// The rules that may steer a connection to `to` at `hook`, in the order in which it meets them, those that cannot be met left
    /// out. `is_local`: whether the address is one of the namespace's own.
    pub fn steering(&self, hook: Hook, to: SocketAddr, is_local: bool) -> Vec<Steering> {
        let mut walk = Walk { to, is_local, found: Vec::new(), visits: 0 };
        for base in self.bases.iter().filter(|base| base.hook == hook) {
            if base.chain.family.has(to.ip()) {
                self.visit(&base.chain, true, 0, &mut walk);
            }
        }
        walk.found
    }

    fn visit(&self, chain: &ChainKey, surely: bool, depth: usize, walk: &mut Walk) {
        if depth > DEPTH {
            return;
        }
        for rule in self.chains.get(chain).into_iter().flatten() {
            walk.visits += 1;
            if walk.visits > VISITS {
                return;
            }
            let Some(met) = walk.meets(&rule.conditions) else { continue };
            let surely = surely && met;
            match &rule.action {
                Action::None => {}
                Action::Jump(name) => {
                    let next = ChainKey { chain: name.clone(), ..chain.clone() };
                    self.visit(&next, surely, depth + 1, walk);
                }
                Action::JumpSomewhere => {
                    let others = self.chains.iter().filter(|(other, _)| {
                        other.family == chain.family && other.table == chain.table && *other != chain
                    });
                    for (other, rules) in others {
                        rules.iter().for_each(|rule| walk.consider(other, rule, false));
                    }
                }
                Action::Steer { .. } => walk.consider(chain, rule, surely),
            }
        }
    }
}

struct Walk {
    to: SocketAddr,
    is_local: bool,
    found: Vec<Steering>,
    visits: usize,
}

impl Walk {
    /// `None`: not met. Otherwise whether all conditions are known to hold.
    fn meets(&self, conditions: &[Condition]) -> Option<bool> {
        let mut surely = true;
        for condition in conditions {
            match self.holds(condition) {
                Some(true) => {}
                Some(false) => return None,
                None => surely = false,
            }
        }
        Some(surely)
    }

    fn holds(&self, condition: &Condition) -> Option<bool> {
        const TCP: u8 = 6;
        match condition {
            Condition::Protocol(protocol) => Some(*protocol == TCP),
            Condition::Port { first, last, negated } => {
                Some((*first..=*last).contains(&self.to.port()) != *negated)
            }
            Condition::To { ip, prefix, negated } => Some(within(self.to.ip(), *ip, *prefix) != *negated),
            Condition::ToLocal { negated } => Some(self.is_local != *negated),
            Condition::Other => None,
        }
    }

    fn consider(&mut self, chain: &ChainKey, rule: &Rule, surely: bool) {
        let Action::Steer { how, to, port } = &rule.action else { return };
        let Some(met) = self.meets(&rule.conditions) else { return };
        let family = match chain.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
            Family::Both => "inet",
        };
        let steering = Steering {
            how: *how,
            to: *to,
            port: *port,
            rule: format!("table {family} {}, chain {}, {}", chain.table, chain.chain, rule.label),
            surely_met: surely && met,
        };
        if !self.found.contains(&steering) {
            self.found.push(steering);
        }
    }
}

impl Family {
    fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
            Self::Both => true,
        }
    }
}

/// Whether `ip` has the first `prefix` bits of `range`.
fn within(ip: IpAddr, range: IpAddr, prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ((ip, length), (range, range_length)) = (bits(ip), bits(range));
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(prefix))).unwrap_or(0);
    length == range_length && (ip ^ range) & mask == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str) -> ChainKey {
        ChainKey { family: Family::V4, table: "nat".to_owned(), chain: name.to_owned() }
    }

    fn to_port(port: u16) -> Condition {
        Condition::Port { first: port, last: port, negated: false }
    }

    fn dnat(conditions: Vec<Condition>, to: &str, port: u16) -> Rule {
        let action = Action::Steer { how: How::Dnat, to: Some(to.parse().unwrap()), port: Some(port) };
        Rule { label: "handle 1".to_owned(), conditions, action }
    }

    fn jump(conditions: Vec<Condition>, to: &str) -> Rule {
        Rule { label: "handle 2".to_owned(), conditions, action: Action::Jump(to.to_owned()) }
    }

    /// As Docker makes them.
    fn published() -> Ruleset {
        let mut rules = Ruleset::default();
        rules.add_base(chain("PREROUTING"), Hook::Prerouting);
        rules.add_base(chain("OUTPUT"), Hook::Output);
        let local = Condition::ToLocal { negated: false };
        rules.add_rule(chain("PREROUTING"), jump(vec![local.clone()], "DOCKER"));
        let loopback = Condition::To { ip: "127.0.0.0".parse().unwrap(), prefix: 8, negated: true };
        rules.add_rule(chain("OUTPUT"), jump(vec![loopback, local], "DOCKER"));
        rules.add_rule(chain("DOCKER"), dnat(vec![Condition::Protocol(6), to_port(8080)], "172.17.0.2", 80));
        rules
    }

    fn met(rules: &Ruleset, hook: Hook, to: &str, is_local: bool) -> Vec<(Option<IpAddr>, bool)> {
        let found = rules.steering(hook, to.parse().unwrap(), is_local);
        found.into_iter().map(|steering| (steering.to, steering.surely_met)).collect()
    }

    #[test]
    fn a_published_port_is_met_through_its_chain() {
        let rules = published();
        let container = Some("172.17.0.2".parse().unwrap());
        assert_eq!(met(&rules, Hook::Output, "10.0.0.1:8080", true), [(container, true)]);
        assert_eq!(met(&rules, Hook::Prerouting, "10.0.0.1:8080", true), [(container, true)]);
        // The jump excludes loopback addresses, the rule another port, the first jump what is not local.
        assert!(met(&rules, Hook::Output, "127.0.0.1:8080", true).is_empty());
        assert!(met(&rules, Hook::Output, "10.0.0.1:8081", true).is_empty());
        assert!(met(&rules, Hook::Output, "10.0.0.1:8080", false).is_empty());
        assert!(met(&rules, Hook::Output, "[::1]:8080", true).is_empty());
        let found = rules.steering(Hook::Output, "10.0.0.1:8080".parse().unwrap(), true);
        assert_eq!(found[0].rule, "table ip nat, chain DOCKER, handle 1");
    }

    #[test]
    fn a_condition_that_is_not_understood_leaves_it_open() {
        let mut rules = Ruleset::default();
        rules.add_base(chain("OUTPUT"), Hook::Output);
        rules.add_rule(chain("OUTPUT"), dnat(vec![to_port(80), Condition::Other], "10.0.0.2", 80));
        assert!(!met(&rules, Hook::Output, "10.0.0.1:80", true)[0].1);
        assert!(met(&rules, Hook::Prerouting, "10.0.0.1:80", true).is_empty());
    }

    #[test]
    fn a_map_of_verdicts_may_lead_anywhere_in_its_table() {
        let mut rules = Ruleset::default();
        rules.add_base(chain("OUTPUT"), Hook::Output);
        let somewhere = Rule { label: String::new(), conditions: Vec::new(), action: Action::JumpSomewhere };
        rules.add_rule(chain("OUTPUT"), somewhere);
        rules.add_rule(chain("service"), dnat(vec![], "10.0.0.2", 80));
        rules.add_rule(chain("other-port"), dnat(vec![to_port(81)], "10.0.0.3", 80));
        assert_eq!(met(&rules, Hook::Output, "10.0.0.1:80", true).len(), 1);
    }

    #[test]
    fn chains_that_lead_to_each_other_end() {
        let mut rules = Ruleset::default();
        rules.add_base(chain("a"), Hook::Output);
        for (from, to) in [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")] {
            rules.add_rule(chain(from), jump(vec![], to));
        }
        assert!(met(&rules, Hook::Output, "10.0.0.1:80", true).is_empty());
    }

    #[test]
    fn ranges_of_addresses() {
        let within =
            |ip: &str, range: &str, prefix| within(ip.parse().unwrap(), range.parse().unwrap(), prefix);
        assert!(within("127.9.9.9", "127.0.0.0", 8) && !within("128.0.0.1", "127.0.0.0", 8));
        assert!(within("10.0.0.1", "10.0.0.1", 32) && within("10.0.0.1", "1.2.3.4", 0));
        assert!(within("fd00::1", "fd00::", 64) && !within("fd00::1", "10.0.0.1", 0));
    }
}
