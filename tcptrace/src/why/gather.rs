//! Looking: name, routes, whose address it is, listeners, connections. Nothing is sent but what resolving a name takes.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use super::facts::{ClosedListener, LeftOver, Ruled, Waiting, ends_of, is_same};
use super::sampler::Samples;
use super::steered;
use super::{AddressFacts, Facts, Pending, Place, Seen, Target};
use crate::event::{CounterSample, FoundRule, ObservationStatus, Packet, RuleDeed, SocketState, canonical};
use crate::finding::Finding;
use crate::host::addresses::device_of;
use crate::host::counters;
use crate::host::devices::{Device, device, devices};
use crate::host::knobs::Knobs;
use crate::host::netfilter::{self, Hook, RulePacket, queues};
use crate::host::netns::{Netns, NetnsError, NetnsTable, in_netns};
use crate::host::procfs::Procfs;
use crate::host::route::{Route, route, route_by};
use crate::host::sock_diag::{DiagSocket, SockDiag, SockDiagError, States};
use crate::stock::{self, Gap, Tracing};

/// What to look at.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The destination.
    pub target: Target,
    /// The namespace from which it is asked for.
    pub client: Netns,
    /// Addresses that connections were opened to, and where they were seen to end.
    pub joined: Vec<(SocketAddr, SocketAddr)>,
}

/// Looks at everything that needs no probes.
///
/// # Errors
/// When not even tcptrace's own namespace can be opened.
pub fn look(scope: &Scope) -> Result<Facts, NetnsError> {
    // Loading it takes as long as all that is looked at before the listeners. Their ports are not known yet.
    let iterator = std::thread::spawn(|| stock::listener_iterator(&Procfs::default()));
    let own = Netns::current()?.id();
    let place = |netns: &Netns| Place {
        netns: netns.id(),
        name: netns.name().map(str::to_owned),
        own: netns.id() == own,
    };
    let mut table = NetnsTable::new(Procfs::default())?;
    // What goes wrong with it is in the stock's gaps.
    let _ = table.refresh();
    let mut gaps = Vec::new();
    let addresses = resolve(scope).map(|addresses| {
        let of = |to| of_address(scope, to, &table, &place, &mut gaps);
        addresses.into_iter().map(of).collect::<Vec<_>>()
    });
    let ports = ports(scope.target.port, addresses.as_deref().unwrap_or_default());
    let scope_of_ports = stock::Scope { ports: ports.clone(), ..stock::Scope::default() };
    let mut stock = stock::take_with(&scope_of_ports, || iterator.join().ok().flatten())?;
    // It has those in between as well.
    stock.listeners.retain(|listener| ports.contains(&listener.socket.local.port()));
    gaps.splice(0..0, stock.missing);
    let devices =
        stock.listeners.iter().filter(|listener| listener.socket.ifindex != 0).filter_map(|listener| {
            let found = device(table.get(listener.netns)?, listener.socket.ifindex).ok()??;
            Some((listener.netns, found))
        });
    let mut devices: Vec<(u32, Device)> = devices.collect();
    for address in addresses.iter().flatten() {
        let way = (Some(scope.client.id()), address.route.as_ref().ok());
        let back = (
            address.server.as_ref().map(|server| server.netns),
            address.way_back.as_ref().map(|back| &back.1),
        );
        for (netns, route) in [way, back] {
            if let (Some(netns), Some(Route::Unicast { device: index, .. })) = (netns, route) {
                let of = if netns == scope.client.id() { Some(&scope.client) } else { table.get(netns) };
                let found = of.and_then(|of| device(of, *index).ok()?);
                devices.extend(found.map(|found| (netns, found)));
            }
        }
    }
    Ok(Facts {
        target: scope.target.clone(),
        client: place(&scope.client),
        addresses,
        listeners: stock.listeners,
        devices,
        gaps,
        seen: None,
    })
}

/// Looks again, after something was traced: `before` are the counters of the servers' namespaces when that began.
///
/// # Errors
/// As for [`look`].
pub fn look_after(
    scope: &Scope,
    tracing: &Tracing,
    before: &[(Netns, CounterSample)],
) -> Result<Facts, NetnsError> {
    let mut facts = look(scope)?;
    facts.listeners.iter_mut().for_each(|listener| tracing.add_to_listener(listener));
    facts.seen = Some(what_was_seen(&facts, tracing, before));
    Ok(facts)
}

/// The ports that matter: the called one, and those at which connections end.
pub(super) fn ports(called: u16, addresses: &[AddressFacts]) -> Vec<u16> {
    let mut ports = vec![called];
    ports.extend(addresses.iter().map(|address| address.at().port()));
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn resolve(scope: &Scope) -> Result<Vec<SocketAddr>, String> {
    let target = &scope.target;
    if let Ok(address) = target.host.parse::<IpAddr>() {
        return Ok(vec![canonical(SocketAddr::new(address, target.port))]);
    }
    let ask = || (target.host.as_str(), target.port).to_socket_addrs();
    let found = in_netns(&scope.client, ask)
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("{} cannot be resolved: {error}", target.host))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    // The zone of a link-local address stays.
    let with_zone = |address: SocketAddr| match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => address,
        other => canonical(other),
    };
    for address in found.map(with_zone) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn of_address(
    scope: &Scope,
    to: SocketAddr,
    table: &NetnsTable,
    place: &impl Fn(&Netns) -> Place,
    gaps: &mut Vec<Gap>,
) -> AddressFacts {
    let zone = match to {
        SocketAddr::V6(v6) => Some(v6.scope_id()).filter(|zone| *zone != 0),
        SocketAddr::V4(_) => None,
    };
    let way = route_by(&scope.client, to.ip(), zone).map_err(|error| error.to_string());
    let mut server_doubt = None;
    let called = if way == Ok(Route::Local) || to.ip().is_unspecified() {
        Some(scope.client.clone())
    } else {
        let holder = steered::holder(table, &scope.client, to.ip(), zone);
        server_doubt = holder.as_ref().and_then(|holder| holder.doubt.clone());
        holder.map(|holder| holder.netns)
    };
    let joined = scope.joined.iter().find(|(called, _)| *called == to).map(|(_, end)| *end);
    // By the loopback device, the first of every namespace, if by no other.
    let (gateway, by, from) = match &way {
        Ok(Route::Unicast { gateway, device, source }) => (*gateway, *device, *source),
        _ => (None, 1, None),
    };
    let on_the_way =
        steered::Way { client: &scope.client, server: called.as_ref(), gateway, device: by, source: from };
    let (steered, last) = steered::look(&on_the_way, to, joined, table, place);
    let at = steered.known.as_ref().map_or(to, |known| known.to);
    let server = if steered.known.is_none() {
        called
    } else if at.ip().is_loopback()
        || steered.known.as_ref().is_some_and(|known| known.ends_there)
        || route(&last, at.ip()).is_ok_and(|found| found == Route::Local)
    {
        Some(last)
    } else {
        let holder = steered::holder(table, &last, at.ip(), None);
        server_doubt = holder.as_ref().and_then(|holder| holder.doubt.clone()).or(server_doubt);
        holder.map(|holder| holder.netns)
    };
    let ask = |netns: &Netns, port| SockDiag::open(netns)?.about(port);
    let mut list = |netns: &Netns, port| {
        ask(netns, port).unwrap_or_else(|error| {
            gaps.push(Gap::new("connections", error.to_string()));
            Vec::new()
        })
    };
    // One walk through the kernel's tables serves both ends, where they are in one namespace.
    let there = server.as_ref().map(|server| list(server, at.port())).unwrap_or_default();
    let is_here =
        server.as_ref().is_some_and(|server| server.id() == scope.client.id()) && at.port() == to.port();
    let pending =
        if is_here { pending_in(&there, to) } else { pending_in(&list(&scope.client, to.port()), to) };
    let there: Vec<_> = there.into_iter().filter(|socket| socket.local.port() == at.port()).collect();
    let (left_over, waiting) = (left_over(&there), waiting(&there));
    let source = match &way {
        Ok(Route::Unicast { source, .. }) => *source,
        // To one of its own addresses a namespace sends from that same address; translated, that goes on the way.
        Ok(Route::Local) => {
            Some(to.ip()).filter(|_| server.as_ref().is_some_and(|s| s.id() != scope.client.id()))
        }
        _ => None,
    };
    let vrf = server.as_ref().and_then(|server| vrf_of(server, at.ip()));
    let way_back = server.as_ref().zip(source).and_then(|(server, source)| {
        // Beside the point where it cannot be asked for: what the server drops is seen, too.
        Some((source, route_by(server, source, vrf.as_ref().map(|vrf| vrf.index)).ok()?))
    });
    // From its own namespace by the loopback device, the first of every namespace; from another one by the device that leads back.
    let index = match (&server, &way_back) {
        (Some(server), _) if server.id() == scope.client.id() => Some(1),
        (Some(_), Some((_, Route::Unicast { device, .. }))) => Some(*device),
        _ => None,
    };
    let arrival = server.as_ref().zip(index).and_then(|(server, index)| device(server, index).ok()?);
    let mut ends = vec![&scope.client];
    ends.extend(server.as_ref().filter(|server| server.id() != scope.client.id()));
    let holding = ends.into_iter().flat_map(|netns| {
        let queues = queues(netns).ok().flatten().unwrap_or_default();
        queues.into_iter().filter(|queue| queue.waiting > 0).map(move |queue| (place(netns), queue))
    });
    let holding = holding.collect();
    let ruled = server.as_ref().and_then(|server| {
        let from = SocketAddr::new(source.or_else(|| (way == Ok(Route::Local)).then_some(to.ip()))?, 0);
        let leaves_by = device(&scope.client, by).ok().flatten().map(|device| device.name);
        let comes_by = arrival.as_ref().map(|device| device.name.clone());
        // Translated, it has another address in PREROUTING than later.
        let hooks: &[Hook] = if at == to { &[Hook::Prerouting, Hook::Input] } else { &[Hook::Input] };
        ruled(&scope.client, (from, to), &[Hook::Output, Hook::Postrouting], leaves_by)
            .or_else(|| ruled(server, (from, at), hooks, comes_by))
            .map(|(netns, rule)| Ruled { at: place(netns), rule })
    });
    AddressFacts {
        to,
        holding,
        ruled,
        arrival,
        vrf,
        way_back,
        route: way,
        knobs: server.as_ref().and_then(|server| Knobs::of(server).ok()).unwrap_or_default(),
        server: server.as_ref().map(place),
        server_doubt,
        left_over,
        pending,
        steered,
        waiting,
        probe: None,
    }
}

/// The rule of a namespace that ends every SYN between these ends; none if what one asks for could not be told.
fn ruled<'n>(
    netns: &'n Netns,
    (source, destination): (SocketAddr, SocketAddr),
    hooks: &'static [Hook],
    device_name: Option<String>,
) -> Option<(&'n Netns, FoundRule)> {
    let outgoing = hooks.contains(&Hook::Output);
    let packet = RulePacket {
        source: Some(source),
        destination,
        is_local: (!outgoing).then_some(true),
        packet: Packet::Syn,
        outgoing,
        hooks,
        device: 0,
        device_name,
    };
    let found = netfilter::rules(netns).about(&packet).rule?;
    let ends = match found.deed {
        RuleDeed::Drop | RuleDeed::Policy | RuleDeed::Reject => true,
        // What a program decides that reads the queue is not known.
        RuleDeed::Queue => {
            let read = queues(netns).ok().flatten()?;
            found.queue.is_some_and(|number| read.iter().all(|queue| queue.number != number))
        }
        RuleDeed::Synproxy => false,
    };
    ends.then_some((netns, found))
}

/// The VRF that an address of the namespace is in.
fn vrf_of(server: &Netns, ip: IpAddr) -> Option<Device> {
    let name = device_of(server, ip)?;
    let all = devices(server).ok()?;
    let master = all.iter().find(|device| device.name == name)?.master?;
    all.into_iter().find(|device| device.index == master && device.kind.as_deref() == Some("vrf"))
}

/// Connections that wait for accept(): they have no inode yet.
fn waiting(sockets: &[DiagSocket]) -> Waiting {
    let mut found = Waiting::default();
    for socket in sockets {
        let is_complete = matches!(socket.state, SocketState::Established | SocketState::CloseWait);
        if is_complete && socket.inode == 0 {
            found.count += 1;
            found.longest = found.longest.max(socket.silent_for.unwrap_or_default());
        }
    }
    found
}

fn left_over(sockets: &[DiagSocket]) -> LeftOver {
    let mut found = LeftOver::default();
    for socket in sockets {
        match socket.state {
            SocketState::Listen | SocketState::SynRecv => {}
            SocketState::Bound => found.bound += 1,
            _ => found.connected += 1,
        }
    }
    found
}

pub(super) fn pending(client: &Netns, to: SocketAddr) -> Result<Pending, SockDiagError> {
    let states = States::of(&[SocketState::SynSent, SocketState::Established]);
    Ok(pending_in(&SockDiag::open(client)?.connected_to(to.port(), states)?, to))
}

/// What of these sockets is connected, or being connected, to the address.
fn pending_in(sockets: &[DiagSocket], to: SocketAddr) -> Pending {
    let mut found = Pending::default();
    for socket in sockets.iter().filter(|socket| is_same(canonical(socket.remote), to)) {
        match socket.state {
            SocketState::SynSent => {
                found.syn_sent += 1;
                found.syn_again += u32::from(socket.timer.is_some_and(|timer| timer.retransmits > 0));
            }
            SocketState::Established => found.established += 1,
            _ => {}
        }
    }
    found
}

/// Name of the observation that shows handshake packets dropped inside this host.
const HANDSHAKE_DROPS: &str = "handshake-drop";

/// Whether an observation sees every single case; not, if this version has no such observation.
fn observes(tracing: &Tracing, name: &str) -> bool {
    let coverage = tracing.engine().world().coverage();
    coverage.and_then(|coverage| coverage.status(name)) == Some(ObservationStatus::Attached)
}

/// What a trace has seen of the port, and by how much the counters have grown since `before`.
fn what_was_seen(facts: &Facts, tracing: &Tracing, before: &[(Netns, CounterSample)]) -> Seen {
    let ports = ports(facts.target.port, facts.addresses.as_deref().unwrap_or_default());
    let about = |finding: &&Finding| ends_of(finding).iter().any(|(_, port)| ports.contains(port));
    let world = tracing.engine().world();
    let closed = world
        .listeners()
        .iter()
        .filter(|listener| ports.contains(&listener.endpoints.local.port()))
        .filter_map(|listener| {
            let when = listener.closed?;
            let task = listener.closing.as_ref().map(|closing| &closing.task);
            Some(ClosedListener {
                netns: listener.endpoints.netns,
                local: listener.endpoints.local,
                when: when.to_string(),
                who: task.map(|task| format!("{}[{}]", world.processes().comm(task), task.pid)),
                exiting: listener.closing.as_ref().and_then(|closing| closing.exiting),
            })
        });
    Seen {
        span: tracing.span(),
        findings: tracing.findings().iter().filter(about).cloned().collect(),
        closed: closed.collect(),
        untraced: None,
        samples: Samples::default(),
        before: None,
        sees_drops: observes(tracing, HANDSHAKE_DROPS),
        counters: growth(before),
    }
}

/// How much the counters of these namespaces have grown.
pub(super) fn growth(before: &[(Netns, CounterSample)]) -> Vec<(u32, CounterSample)> {
    let grown =
        |(netns, then): &(Netns, CounterSample)| Some((netns.id(), counters::read(netns).ok()?.delta(then)));
    before.iter().filter_map(grown).collect()
}
