//! What may lead a connection to another socket than the one that listens at the called address: translation by netfilter or
//! IPVS, TPROXY, BPF programs. The absence of a listener is no proof of anything where packets are translated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Place;
use crate::host::netfilter::conntrack;
use crate::host::netfilter::ruleset::{Hook, How, Steering};
use crate::host::netfilter::{self, ipvs};
use crate::host::netns::{Netns, NetnsTable};
use crate::host::route::{Route, route};
use crate::host::steering;

/// What leads connections elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steered {
    /// Where they really go, as far as that is known.
    pub known: Option<Known>,
    /// What may lead them elsewhere, in words; where to is not known.
    pub may: Vec<String>,
    /// What could not be looked into, in words.
    pub unread: Vec<String>,
}

/// Where connections really go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The other end's address.
    pub to: SocketAddr,
    /// What leads them there, in words.
    pub by: String,
    /// Whether a connection was seen to go there; otherwise a rule says so.
    pub seen: bool,
    /// The namespace that translates.
    pub at: Place,
    /// Whether the address is on a link of that namespace: if no namespace of this host has it, it may have had one until lately.
    pub is_neighbour: bool,
}

impl Steered {
    /// Whether the called address is known to be where connections end.
    pub fn is_excluded(&self) -> bool {
        self.known.is_none() && self.may.is_empty() && self.unread.is_empty()
    }

    /// What leaves it open where connections end, in words.
    pub fn doubts(&self) -> Option<String> {
        let may = self.may.iter().map(|what| format!("{what} may lead connections elsewhere"));
        let unread = self.unread.iter().map(|what| format!("it could not be looked into {what}"));
        let all: Vec<String> = may.chain(unread).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// The namespaces through which a connection goes, and where in each it meets rules.
pub(super) struct Way<'a> {
    pub(super) client: &'a Netns,
    /// The one that has the called address.
    pub(super) server: Option<&'a Netns>,
    /// The first neighbour that packets go to.
    pub(super) gateway: Option<IpAddr>,
}

/// Looks for what leads connections to `to` elsewhere; `joined` is where one was seen to end.
pub(super) fn look(
    way: &Way<'_>,
    to: SocketAddr,
    joined: Option<SocketAddr>,
    table: &NetnsTable,
    place: &impl Fn(&Netns) -> Place,
) -> (Steered, Netns) {
    let mut found = Steered::default();
    let mut last = way.client.clone();
    let mut at = to;
    for (netns, hook) in hops(way, table) {
        let here = place(netns);
        if let Some(known) = translation(&mut found, netns, hook, &here, at) {
            at = known.to;
            last = netns.clone();
            found.known = Some(known);
        }
        match steering::socket_lookups(netns) {
            Ok(0) => {}
            // A socket lookup program decides about packets that arrive, at whichever address.
            Ok(programs) => found.may.push(format!("{programs} BPF sk_lookup program(s) of {here}")),
            Err(error) => found.unread.push(format!("the BPF sk_lookup programs of {here} ({error})")),
        }
    }
    match steering::connect_programs(to.is_ipv6()) {
        Ok(0) => {}
        Ok(programs) => found.may.push(format!(
            "{programs} BPF program(s) of the control group, which may change what its processes connect to,"
        )),
        Err(error) => {
            found.unread.push(format!("the BPF programs that may change what is connected to ({error})"));
        }
    }
    if let Some(joined) = joined.filter(|joined| *joined != to) {
        let by = found.known.take().filter(|known| known.to == joined).map(|known| known.by);
        let route = route(&last, joined.ip());
        found.known = Some(Known {
            to: joined,
            by: by.unwrap_or_else(|| "the tuple that the kernel keeps of the connection".to_owned()),
            seen: true,
            at: place(&last),
            is_neighbour: matches!(route, Ok(Route::Unicast { gateway: None, .. })),
        });
    }
    (found, last)
}

/// The client's own namespace, then the one that the packets come to, where it is on this host.
fn hops<'a>(way: &Way<'a>, table: &'a NetnsTable) -> Vec<(&'a Netns, Hook)> {
    let mut hops = vec![(way.client, Hook::Output)];
    let gateway = way.gateway.and_then(|gateway| owner_of(table, gateway, way.client));
    for next in [gateway, way.server].into_iter().flatten() {
        if hops.iter().all(|(known, _)| known.id() != next.id()) {
            hops.push((next, Hook::Prerouting));
        }
    }
    hops
}

/// The namespace of this host, other than `but`, that has an address.
pub(super) fn owner_of<'t>(table: &'t NetnsTable, ip: IpAddr, but: &Netns) -> Option<&'t Netns> {
    if ip.is_loopback() {
        return None;
    }
    let mut others = table.iter().filter(|netns| netns.id() != but.id());
    others.find(|netns| route(netns, ip).is_ok_and(|found| found == Route::Local))
}

/// What one namespace does to connections to `to`.
fn translation(
    found: &mut Steered,
    netns: &Netns,
    hook: Hook,
    here: &Place,
    to: SocketAddr,
) -> Option<Known> {
    let is_local = route(netns, to.ip()).is_ok_and(|found| found == Route::Local);
    let rules = netfilter::rules(netns);
    found.unread.extend(rules.unread.into_iter().map(|what| format!("the {what}")));
    let tracks = conntrack::is_loaded(netns);
    let mut met = rules.rules.steering(hook, to, is_local);
    // Without connection tracking no rule translates.
    met.retain(|rule| tracks || rule.how == How::Tproxy);
    let services = match ipvs::services(netns) {
        Ok(Ok(services)) => services,
        Ok(Err(error)) => {
            found.unread.push(format!("the IPVS services of {here} ({error})"));
            Vec::new()
        }
        Err(error) => {
            found.unread.push(format!("the IPVS services of {here} ({error})"));
            Vec::new()
        }
    };
    let known = |to: SocketAddr, by: String, seen: bool| Known {
        to,
        by,
        seen,
        at: here.clone(),
        is_neighbour: matches!(route(netns, to.ip()), Ok(Route::Unicast { gateway: None, .. })),
    };
    let service = services.iter().find(|service| service.address == Some(to));
    if let Some(service) = service {
        let by = format!("the IPVS service {to} of {here}");
        let mut live = service.servers.iter().filter(|(_, weight)| *weight > 0);
        return match (live.next(), live.next()) {
            (Some((server, _)), None) => Some(known(*server, by, false)),
            _ => {
                found.may.push(by);
                None
            }
        };
    }
    if services.iter().any(|service| service.address.is_none()) {
        found.may.push(format!("an IPVS service of {here} by firewall mark"));
    }
    let steer = met.iter().find(|rule| rule.surely_met).or(met.first());
    let by = steer.map(|rule| format!("{} by {} of {here}", rule.how.name(), rule.rule));
    // What was seen outweighs what rules say.
    if tracks && (steer.is_some() || !found.unread.is_empty()) {
        match conntrack::destinations(netns, to) {
            Ok((seen, _)) => {
                let elsewhere: Vec<_> = seen.iter().filter(|(end, _)| *end != to).collect();
                if let [(end, _)] = elsewhere.as_slice() {
                    let by = by.unwrap_or_else(|| format!("a translation of {here}"));
                    return Some(known(*end, by, true));
                }
                if let [(end, count), ..] = elsewhere.as_slice() {
                    found.may.push(format!(
                        "a translation of {here} to one of {} servers ({end} has {count} connections)",
                        elsewhere.len()
                    ));
                    return None;
                }
            }
            Err(error) => found.unread.push(format!("the connections that {here} tracks ({error})")),
        }
    }
    let rule = steer?;
    let by = by.unwrap_or_default();
    match end(rule, hook, to) {
        Some(end) => {
            if !rule.surely_met {
                found.may.push(format!("{by}, if its other conditions hold,"));
            }
            Some(known(end, by, false))
        }
        None => {
            found.may.push(by);
            None
        }
    }
}

/// Where a rule leads connections to `to`, if it says so itself.
fn end(rule: &Steering, hook: Hook, to: SocketAddr) -> Option<SocketAddr> {
    let port = rule.port.unwrap_or(to.port());
    let loopback: IpAddr = if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    match (rule.how, rule.to) {
        (_, Some(ip)) => Some(SocketAddr::new(ip, port)),
        // Without an address and without a port a map decides.
        (How::Dnat, None) => rule.port.map(|port| SocketAddr::new(to.ip(), port)),
        (How::Redirect, None) if hook == Hook::Output => Some(SocketAddr::new(loopback, port)),
        // To the first address of the device that it came in by, for which the called address stands here.
        (How::Redirect | How::Tproxy, None) => Some(SocketAddr::new(to.ip(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(how: How, to: Option<&str>, port: Option<u16>) -> Steering {
        let to = to.map(|to| to.parse().unwrap());
        Steering { how, to, port, rule: String::new(), surely_met: true }
    }

    #[test]
    fn where_rules_lead() {
        let to = "10.0.0.1:80".parse().unwrap();
        let led = |rule: Steering, hook| end(&rule, hook, to).map(|end| end.to_string());
        let at = |text: &str| Some(text.to_owned());
        let container = || rule(How::Dnat, Some("172.17.0.2"), Some(8080));
        assert_eq!(led(container(), Hook::Output), at("172.17.0.2:8080"));
        assert_eq!(led(rule(How::Dnat, Some("172.17.0.2"), None), Hook::Output), at("172.17.0.2:80"));
        assert_eq!(led(rule(How::Dnat, None, None), Hook::Output), None);
        assert_eq!(led(rule(How::Redirect, None, Some(81)), Hook::Output), at("127.0.0.1:81"));
        assert_eq!(led(rule(How::Redirect, None, Some(81)), Hook::Prerouting), at("10.0.0.1:81"));
        assert_eq!(led(rule(How::Tproxy, None, Some(81)), Hook::Prerouting), at("10.0.0.1:81"));
    }

    #[test]
    fn doubts_are_put_into_words() {
        assert!(Steered::default().is_excluded() && Steered::default().doubts().is_none());
        let doubtful = Steered { may: vec!["a rule".into()], unread: vec!["IPVS".into()], known: None };
        assert!(!doubtful.is_excluded());
        let doubts = doubtful.doubts().unwrap();
        assert!(doubts.contains("a rule may lead") && doubts.contains("looked into IPVS"), "{doubts}");
    }
}
