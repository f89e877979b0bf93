//! What may lead a connection to another socket than the one that listens at the called address: translation by netfilter or
//! IPVS, TPROXY, BPF programs. The absence of a listener is no proof of anything where packets are translated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Place;
use super::facts::is_same;
use crate::host::netfilter::conntrack;
use crate::host::netfilter::ruleset::{How, Steering};
use crate::host::netfilter::{self, Hook, ipvs};
use crate::host::netns::{Netns, NetnsTable};
use crate::host::route::{Route, route, route_by};
use crate::host::{addresses, devices, neighbours, rewriting, steering};

/// What leads connections elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steered {
    /// Where they really go, as far as that is known.
    pub known: Option<Known>,
    /// What may lead them elsewhere, in words; where to is not known.
    pub may: Vec<String>,
    /// What could not be looked into, in words.
    pub unread: Vec<String>,
    /// What may rewrite packets at a device of the way, in words.
    pub rewriting: Vec<String>,
    /// Programs of the control group may change what is connected to, or could not be asked for.
    pub may_rewrite_connects: bool,
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
    /// Whether a rule leads them to a socket of that very namespace, whichever address it is (TPROXY, REDIRECT).
    pub ends_there: bool,
    /// Whether the address is on a link of that namespace, or it has no route there (any more): if no namespace of this host has it,
    /// one may have had it until lately.
    pub is_neighbour: bool,
}

impl Steered {
    /// What leaves it open where connections end, in words.
    pub fn doubts(&self) -> Option<String> {
        let may = self.may.iter().map(|what| format!("{what} may lead connections elsewhere"));
        let unread = self.unread.iter().map(|what| format!("it could not be looked into {what}"));
        let rewriting = self.rewriting.iter().map(|what| format!("{what} may rewrite packets"));
        let all: Vec<String> = may.chain(unread).chain(rewriting).collect();
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
    /// The device by which they leave.
    pub(super) device: u32,
    /// The address that the client takes.
    pub(super) source: Option<IpAddr>,
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
        let arrival = arrival(way, netns, hook, at);
        if let Some(known) = translation(&mut found, netns, (hook, arrival), &here, at) {
            at = known.to;
            last = netns.clone();
            found.known = Some(known);
        }
        look_at_devices(&mut found, way, netns, &here, at);
        match steering::socket_lookups(netns) {
            Ok(0) => {}
            // A socket lookup program decides about packets that arrive, at whichever address.
            Ok(programs) => found.may.push(format!("{programs} BPF sk_lookup program(s) of {here}")),
            Err(error) => found.unread.push(format!("the BPF sk_lookup programs of {here} ({error})")),
        }
    }
    let programs = steering::connect_programs(to.is_ipv6());
    found.may_rewrite_connects = !matches!(programs, Ok(0));
    match programs {
        Ok(0) => {}
        Ok(programs) => found.may.push(format!(
            "{programs} BPF program(s) of the control group, which may change what its processes connect to,"
        )),
        Err(error) => {
            found.unread.push(format!("the BPF programs that may change what is connected to ({error})"));
        }
    }
    if let Some(joined) = joined.filter(|joined| !is_same(*joined, to)) {
        let by = found.known.take().filter(|known| known.to == joined).map(|known| known.by);
        let route = route(&last, joined.ip());
        found.known = Some(Known {
            to: joined,
            by: by.unwrap_or_else(|| "the tuple that the kernel keeps of the connection".to_owned()),
            seen: true,
            at: place(&last),
            ends_there: false,
            is_neighbour: matches!(route, Ok(Route::Unicast { gateway: None, .. })),
        });
    }
    (found, last)
}

/// The first address of the device by which packets to `to` come into a namespace: what a rule leads to a socket of this host, without
/// saying to which address, is led there.
fn arrival(way: &Way<'_>, netns: &Netns, hook: Hook, to: SocketAddr) -> Option<IpAddr> {
    let source = way.source.filter(|_| hook == Hook::Prerouting)?;
    match route(netns, source) {
        Ok(Route::Unicast { device, .. }) => {
            let device = devices::device(netns, device).ok()??;
            addresses::first_of(netns, &device.name, to.is_ipv6())
        }
        _ => None,
    }
}

/// The client's own namespace, then the one that the packets come to, where it is on this host.
fn hops<'a>(way: &Way<'a>, table: &'a NetnsTable) -> Vec<(&'a Netns, Hook)> {
    let mut hops = vec![(way.client, Hook::Output)];
    let gateway = way.gateway.and_then(|gateway| owners(table, gateway, way.client).next());
    for next in [gateway, way.server].into_iter().flatten() {
        if hops.iter().all(|(known, _)| known.id() != next.id()) {
            hops.push((next, Hook::Prerouting));
        }
    }
    hops
}

/// What is at the devices that packets pass in one namespace.
fn look_at_devices(found: &mut Steered, way: &Way<'_>, netns: &Netns, here: &Place, to: SocketAddr) {
    const LOOPBACK: u32 = 1;
    let device = |to: IpAddr| match route(netns, to) {
        Ok(Route::Unicast { device, .. }) => Some(device),
        _ => None,
    };
    let is_client = netns.id() == way.client.id();
    let (first, then) =
        (if is_client { Some(way.device) } else { way.source.and_then(device) }, device(to.ip()));
    let all = match devices::devices(netns) {
        Ok(all) => all,
        Err(error) => return found.unread.push(format!("the devices of {here} ({error})")),
    };
    let passed: Vec<&devices::Device> = match first {
        Some(first) => [Some(first), then]
            .into_iter()
            .flatten()
            .flat_map(|index| devices::passed_with(&all, index))
            .collect(),
        // By which one they come is not known.
        None => all.iter().filter(|device| device.index != LOOPBACK).collect(),
    };
    for device in passed {
        match rewriting::at(netns, device) {
            Ok(what) => found.rewriting.extend(what.into_iter().map(|what| format!("{what} of {here}"))),
            Err(error) => found.unread.push(format!("the programs of device {} ({error})", device.name)),
        }
    }
    found.rewriting.sort_unstable();
    found.rewriting.dedup();
}

/// The namespaces of this host, other than `but`, that have an address.
fn owners<'t>(table: &'t NetnsTable, ip: IpAddr, but: &Netns) -> impl Iterator<Item = &'t Netns> {
    let but = but.id();
    let others = table.iter().filter(move |netns| netns.id() != but && !ip.is_loopback());
    others.filter(move |netns| has_address(netns, ip))
}

/// Whether an address is one of the namespace's own, in whichever VRF.
pub(super) fn has_address(netns: &Netns, ip: IpAddr) -> bool {
    route(netns, ip).is_ok_and(|found| found == Route::Local) || addresses::device_of(netns, ip).is_some()
}

/// A namespace of this host that has an address which another one calls.
pub(super) struct Holder {
    pub(super) netns: Netns,
    /// Why it may be another host, or another namespace, that has it for the caller.
    pub(super) doubt: Option<String>,
}

/// Gateways of this host that are followed.
const GATEWAYS: usize = 4;

/// The namespace of this host that has an address for `from`: the way there is followed by the link-layer addresses of neighbours.
pub(super) fn holder(table: &NetnsTable, from: &Netns, to: IpAddr, device: Option<u32>) -> Option<Holder> {
    let mut at = from.clone();
    let mut is_sure = true;
    for step in 0..GATEWAYS {
        if step > 0 && has_address(&at, to) {
            return Some(Holder { doubt: (!is_sure).then(|| doubt(to, &at)), netns: at });
        }
        let way = route_by(&at, to, device.filter(|_| step == 0));
        let Ok(Route::Unicast { gateway, device, .. }) = way else { break };
        let next = gateway.unwrap_or(to);
        let have: Vec<&Netns> = owners(table, next, &at).collect();
        let address = neighbours::link_address(&at, device, next);
        let has = |netns: &&&Netns| {
            let all = devices::devices(netns).unwrap_or_default();
            address.as_ref().is_some_and(|address| all.iter().any(|device| device.address == *address))
        };
        let proven = have.iter().find(has).copied();
        let Some(next) = proven.or_else(|| have.first().copied()) else { break };
        is_sure &= proven.is_some();
        at = next.clone();
    }
    // It cannot be followed: whichever namespace has the address.
    let netns = owners(table, to, from).next()?.clone();
    Some(Holder { doubt: Some(doubt(to, &netns)), netns })
}

fn doubt(ip: IpAddr, netns: &Netns) -> String {
    let name = netns.name().map_or_else(|| netns.id().to_string(), str::to_owned);
    format!(
        "that network namespace {name} is the one that is reached at {ip} is not proven (no neighbour entry of the client has a link-layer address of it): another host may have the same address"
    )
}

/// What one namespace does to connections to `to`.
fn translation(
    found: &mut Steered,
    netns: &Netns,
    (hook, arrival): (Hook, Option<IpAddr>),
    here: &Place,
    to: SocketAddr,
) -> Option<Known> {
    let is_local = has_address(netns, to.ip());
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
        ends_there: false,
        is_neighbour: matches!(
            route(netns, to.ip()),
            Ok(Route::Unicast { gateway: None, .. } | Route::Nowhere(_))
        ),
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
    let steer = met.iter().find(|rule| rule.open.is_empty()).or(met.first());
    // Another rule comes first, if what it asks for holds.
    for before in met.iter().take_while(|rule| Some(*rule) != steer) {
        found.may.push(format!(
            "{} by {} of {here}, {}",
            before.how.name(),
            before.rule,
            if_it_holds(before)
        ));
    }
    let by = steer.map(|rule| format!("{} by {} of {here}", rule.how.name(), rule.rule));
    // What was seen outweighs what rules say.
    if tracks && (steer.is_some() || !found.unread.is_empty()) {
        match conntrack::destinations(netns, to) {
            Ok((seen, _)) => {
                let elsewhere: Vec<_> = seen.iter().filter(|(end, _)| *end != to).collect();
                // From another place the same rule may lead elsewhere: to a loopback address from this very namespace.
                let by_rule =
                    steer.filter(|rule| rule.open.is_empty()).and_then(|rule| end(rule, (hook, arrival), to));
                if let Some((end, _)) = elsewhere.iter().find(|(end, _)| Some(*end) == by_rule) {
                    return Some(known(*end, by.unwrap_or_default(), true));
                }
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
    match end(rule, (hook, arrival), to) {
        Some(end) => {
            if !rule.open.is_empty() {
                found.may.push(format!("{by}, {}", if_it_holds(rule)));
            }
            let ends_there = matches!(rule.how, How::Redirect | How::Tproxy);
            Some(Known { ends_there, ..known(end, by, false) })
        }
        None => {
            found.may.push(by);
            None
        }
    }
}

/// What a rule asks for that could not be told.
fn if_it_holds(rule: &Steering) -> String {
    format!("if what it asks for holds ({}),", rule.open.join(", "))
}

/// Where a rule leads connections to `to`, if it says so itself.
fn end(rule: &Steering, (hook, arrival): (Hook, Option<IpAddr>), to: SocketAddr) -> Option<SocketAddr> {
    let port = rule.port.unwrap_or(to.port());
    let loopback: IpAddr = if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    match (rule.how, rule.to) {
        (_, Some(ip)) => Some(SocketAddr::new(ip, port)),
        // Without an address and without a port a map decides.
        (How::Dnat, None) => rule.port.map(|port| SocketAddr::new(to.ip(), port)),
        (How::Redirect, None) if hook == Hook::Output => Some(SocketAddr::new(loopback, port)),
        // To the first address of the device that it came in by; the called one stands for it where that is not known.
        (How::Redirect | How::Tproxy, None) => Some(SocketAddr::new(arrival.unwrap_or(to.ip()), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(how: How, to: Option<&str>, port: Option<u16>) -> Steering {
        let to = to.map(|to| to.parse().unwrap());
        Steering { how, to, port, rule: String::new(), open: Vec::new() }
    }

    fn to_web() -> SocketAddr {
        "198.51.100.7:443".parse().unwrap()
    }

    #[test]
    fn where_rules_lead() {
        let to = "10.0.0.1:80".parse().unwrap();
        let led = |rule: Steering, hook| end(&rule, (hook, None), to).map(|end| end.to_string());
        let at = |text: &str| Some(text.to_owned());
        let container = || rule(How::Dnat, Some("172.17.0.2"), Some(8080));
        assert_eq!(led(container(), Hook::Output), at("172.17.0.2:8080"));
        assert_eq!(led(rule(How::Dnat, Some("172.17.0.2"), None), Hook::Output), at("172.17.0.2:80"));
        assert_eq!(led(rule(How::Dnat, None, None), Hook::Output), None);
        assert_eq!(led(rule(How::Redirect, None, Some(81)), Hook::Output), at("127.0.0.1:81"));
        assert_eq!(led(rule(How::Redirect, None, Some(81)), Hook::Prerouting), at("10.0.0.1:81"));
        assert_eq!(led(rule(How::Tproxy, None, Some(81)), Hook::Prerouting), at("10.0.0.1:81"));
        // A gateway takes connections to other hosts, at the first address of the device that they come by.
        let arrival = (Hook::Prerouting, Some("192.0.2.1".parse().unwrap()));
        let caught = |how, to: Option<&str>| end(&rule(how, to, Some(3128)), arrival, to_web());
        assert_eq!(caught(How::Tproxy, None), Some("192.0.2.1:3128".parse().unwrap()));
        assert_eq!(caught(How::Redirect, None), Some("192.0.2.1:3128".parse().unwrap()));
        assert_eq!(caught(How::Tproxy, Some("127.0.0.1")), Some("127.0.0.1:3128".parse().unwrap()));
    }

    #[test]
    fn doubts_are_put_into_words() {
        assert!(Steered::default().doubts().is_none());
        let doubtful =
            Steered { may: vec!["a rule".into()], unread: vec!["IPVS".into()], ..Steered::default() };
        let doubts = doubtful.doubts().unwrap();
        assert!(doubts.contains("a rule may lead") && doubts.contains("looked into IPVS"), "{doubts}");
    }
}
