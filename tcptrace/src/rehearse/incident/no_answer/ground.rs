//! What lies between client and server: routes, a second link, firewall rules, wrong settings.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::kind::Kind;
use crate::rehearse::error::{During, Error, Result};
use crate::rehearse::ipvs;
use crate::rehearse::netlink::{self, End, Via};
use crate::rehearse::nft::{self, Chain, Hook, Match, Verdict};
use crate::rehearse::stage::{ABROAD_V4, ABROAD_V6, CLIENT_LINK, Stage};

/// What a published port's own number lacks to that of its server.
pub(super) const PUBLISHED: u16 = 1000;

/// The second link, by which clients come in, and by which the server's routes do not lead back.
const DETOUR_SERVER: End = End { name: "tt-detour", mac: [0x02, b't', b't', 0, 0, 3] };
const DETOUR_CLIENT: End = End { name: "tt-detour", mac: [0x02, b't', b't', 0, 0, 4] };
const DETOUR_SERVER_IP: Ipv4Addr = Ipv4Addr::new(10, 76, 0, 1);
const DETOUR_CLIENT_IP: Ipv4Addr = Ipv4Addr::new(10, 76, 0, 2);

/// A client's network that the server has no route to, and the server's address that it calls.
const STRANGER_V4: Ipv4Addr = Ipv4Addr::new(10, 75, 0, 2);
const STRANGER_V6: Ipv6Addr = Ipv6Addr::new(0xfd75, 0, 0, 0, 0, 0, 0, 2);
const ESTRANGED_V4: Ipv4Addr = Ipv4Addr::new(10, 74, 0, 1);
const ESTRANGED_V6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0, 0, 0, 0, 0, 0, 1);

/// Addresses abroad: one that nobody has, and one that a blackhole route leads to.
fn abroad(ipv6: bool, host: u8) -> IpAddr {
    if ipv6 {
        Ipv6Addr::from_bits(ABROAD_V6.to_bits() + u128::from(host)).into()
    } else {
        Ipv4Addr::from_bits(ABROAD_V4.to_bits() + u32::from(host)).into()
    }
}

/// An address that is routed to the loopback device, though nobody has it.
const ASTRAY: Ipv4Addr = Ipv4Addr::new(10, 72, 0, 9);

/// What the client calls.
pub(super) fn called(kind: Kind, stage: &Stage, ipv6: bool) -> SocketAddr {
    let ip = match kind {
        Kind::Upstream => abroad(ipv6, 7),
        Kind::Blackhole => abroad(ipv6, 9),
        Kind::RoutedToLoopback => ASTRAY.into(),
        Kind::RpFilter => DETOUR_SERVER_IP.into(),
        Kind::OtherDeviceHere if ipv6 => Ipv6Addr::LOCALHOST.into(),
        Kind::OtherDeviceHere => Ipv4Addr::LOCALHOST.into(),
        Kind::OtherVrf => vrf_address(ipv6, 1),
        Kind::NoWayBack if ipv6 => ESTRANGED_V6.into(),
        Kind::NoWayBack => ESTRANGED_V4.into(),
        // The far side of the pair.
        Kind::OutputDrop | Kind::IptablesOutput | Kind::Reject | Kind::Unreachable | Kind::FarClosedPort => {
            stage.client_address(ipv6)
        }
        _ => stage.server_address(ipv6),
    };
    SocketAddr::new(ip, kind.port())
}

/// Makes connects fail, where it is not the server itself that does.
pub(super) fn obstruct(kind: Kind, stage: &Stage, ipv6: bool) -> Result<()> {
    let port = kind.port();
    let rule = |far: bool, chain: Chain, packets, verdict| {
        let namespace = if far { stage.client() } else { stage.server() };
        namespace.run(move || nft::rule(chain, packets, verdict))?.map_err(nft::lacking)
    };
    let (nft, iptables) = (Chain::nft, |hook| Chain::iptables(hook, ipv6));
    match kind {
        Kind::InputDrop => rule(false, nft(Hook::Input), Match::To(port), Verdict::Drop),
        Kind::OutputDrop => rule(false, nft(Hook::Output), Match::To(port), Verdict::Drop),
        Kind::IptablesInput => rule(false, iptables(Hook::Input), Match::To(port), Verdict::Drop),
        Kind::IptablesOutput => rule(false, iptables(Hook::Output), Match::To(port), Verdict::Drop),
        Kind::SynAckDrop => rule(false, nft(Hook::Output), Match::From(port), Verdict::Drop),
        Kind::AckDrop => rule(false, nft(Hook::Input), Match::BareAckTo(port), Verdict::Drop),
        Kind::Reject => rule(true, nft(Hook::Input), Match::To(port), Verdict::PortUnreachable),
        Kind::Unreachable => rule(true, nft(Hook::Input), Match::To(port), Verdict::HostUnreachable),
        Kind::Published | Kind::PublishedGone => {
            let to = SocketAddr::new(stage.client_address(ipv6), port + PUBLISHED);
            stage.server().run(move || nft::translate(port, to))?.map_err(nft::lacking)
        }
        Kind::Redirected | Kind::RedirectedGone => {
            let to = SocketAddr::new(stage.server_address(ipv6), port + PUBLISHED);
            stage.server().run(move || nft::translate(port, to))?.map_err(nft::lacking)
        }
        Kind::Balanced | Kind::BalancedGone => {
            let at = |ip, port| match SocketAddr::new(ip, port) {
                SocketAddr::V4(at) => Ok(at),
                SocketAddr::V6(_) => Err(Error::NotSupported("services are made for IPv4 only".into())),
            };
            let service = at(stage.server_address(ipv6), port)?;
            let server = at(stage.client_address(ipv6), port + PUBLISHED)?;
            stage.server().run(move || ipvs::serve(service, server))?.map_err(ipvs::lacking)
        }
        Kind::Transparent | Kind::TransparentGone => {
            let ruled = stage.server().run(move || nft::intercept(port, port + PUBLISHED, ipv6))?;
            ruled.map_err(nft::lacking)
        }
        Kind::RpFilter => detour(stage),
        Kind::OtherVrf => enter_vrf(stage, ipv6),
        Kind::NoWayBack => estrange(stage, ipv6),
        Kind::RoutedToLoopback => {
            let added = stage.server().run(|| netlink::add_route(ASTRAY.into(), 32, Via::Device("lo")))?;
            added.during("the route to the loopback device")
        }
        Kind::Blackhole => {
            let (to, prefix) = (abroad(ipv6, 9), if ipv6 { 128 } else { 32 });
            let added = stage.server().run(move || netlink::add_route(to, prefix, Via::Nowhere))?;
            added.during("the blackhole route")
        }
        _ => Ok(()),
    }
}

/// Clients come in by a second link, and the server's route to them leads back by the first.
fn detour(stage: &Stage) -> Result<()> {
    let entrance = stage.client().fd().try_clone_to_owned().during("duplicating a namespace's descriptor")?;
    let linked = stage.server().run(move || {
        use std::os::fd::AsFd;
        netlink::add_veth(DETOUR_SERVER, DETOUR_CLIENT, entrance.as_fd())?;
        netlink::set_up(DETOUR_SERVER.name)?;
        netlink::add_address(DETOUR_SERVER.name, DETOUR_SERVER_IP.into(), 32)
    })?;
    linked.during("the second link")?;
    let back = Via::Gateway(stage.client_address(false));
    let routed = stage.server().run(move || netlink::add_route(DETOUR_CLIENT_IP.into(), 32, back))?;
    routed.during("the route back")?;
    let linked = stage.client().run(|| {
        netlink::set_up(DETOUR_CLIENT.name)?;
        netlink::add_address(DETOUR_CLIENT.name, DETOUR_CLIENT_IP.into(), 24)
    })?;
    linked.during("the client's address")?;
    // Off at first: the filter would also keep the server from answering who has that address.
    stage.set_sysctl("net.ipv4.conf.tt-detour.rp_filter", 0)?;
    // A link is up a moment later than it says. Another port each time: many SYNs for one that nobody listens on are news.
    let mut ports = Kind::RpFilter.port() + 1000..;
    stage.await_that("somebody answers by the second link", || {
        let to = SocketAddr::new(DETOUR_SERVER_IP.into(), ports.next().unwrap_or_default());
        let knock = move || TcpStream::connect_timeout(&to, Duration::from_millis(200));
        let answer = stage.client().run(knock)?;
        Ok(answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
    })?;
    stage.set_sysctl("net.ipv4.conf.tt-detour.rp_filter", 1)
}

/// A third link, whose end at the server belongs to a VRF.
const VRF_SERVER: End = End { name: "tt-red", mac: [0x02, b't', b't', 0, 0, 5] };
const VRF_CLIENT: End = End { name: "tt-red", mac: [0x02, b't', b't', 0, 0, 6] };
const VRF: &str = "tt-vrf";
const VRF_TABLE: u32 = 77;

fn vrf_address(ipv6: bool, host: u8) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd73, 0, 0, 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(10, 73, 0, host).into()
    }
}

/// Makes the VRF, still without links. An error of its own where the kernel has none.
pub(super) fn make_vrf(stage: &Stage) -> Result<()> {
    let made = stage.server().run(|| netlink::add_vrf(VRF, VRF_TABLE))?;
    made.map_err(|source| match source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => Error::NotSupported("this kernel has no VRFs (module vrf)".into()),
        _ => Error::Io { what: "making a VRF".into(), source },
    })
}

/// Clients come in by a link that belongs to a VRF, outside of which the server listens.
fn enter_vrf(stage: &Stage, ipv6: bool) -> Result<()> {
    let entrance = stage.client().fd().try_clone_to_owned().during("duplicating a namespace's descriptor")?;
    let prefix = if ipv6 { 64 } else { 24 };
    stage.set_sysctl("net.ipv4.tcp_l3mdev_accept", 0)?;
    let linked = stage.server().run(move || {
        use std::os::fd::AsFd;
        netlink::add_veth(VRF_SERVER, VRF_CLIENT, entrance.as_fd())?;
        netlink::set_up(VRF)?;
        netlink::set_master(VRF_SERVER.name, VRF)?;
        netlink::set_up(VRF_SERVER.name)?;
        netlink::add_address(VRF_SERVER.name, vrf_address(ipv6, 1), prefix)
    })?;
    linked.during("the link of the VRF")?;
    let linked = stage.client().run(move || {
        netlink::set_up(VRF_CLIENT.name)?;
        netlink::add_address(VRF_CLIENT.name, vrf_address(ipv6, 2), prefix)
    })?;
    linked.during("the client's end of the VRF's link")?;
    // A link is up a moment later than it says. Another port each time: many SYNs for one that nobody listens on are news.
    let mut ports = Kind::OtherVrf.port() + 1000..;
    stage.await_that("somebody answers by the VRF's link", || {
        let to = SocketAddr::new(vrf_address(ipv6, 1), ports.next().unwrap_or_default());
        let knock = move || TcpStream::connect_timeout(&to, Duration::from_millis(200));
        let answer = stage.client().run(knock)?;
        Ok(answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
    })
}

/// The client calls from an address that the server's host has no route to.
fn estrange(stage: &Stage, ipv6: bool) -> Result<()> {
    let (stranger, estranged): (IpAddr, IpAddr) = if ipv6 {
        (STRANGER_V6.into(), ESTRANGED_V6.into())
    } else {
        (STRANGER_V4.into(), ESTRANGED_V4.into())
    };
    let prefix = if ipv6 { 128 } else { 32 };
    let added = stage.server().run(move || netlink::add_address("lo", estranged, prefix))?;
    added.during("the server's address")?;
    let there = Via::GatewayFrom { gateway: stage.server_address(ipv6), source: stranger };
    let added = stage.client().run(move || {
        netlink::add_address(CLIENT_LINK.name, stranger, prefix)?;
        netlink::add_route(estranged, prefix, there)
    })?;
    added.during("the client's address and route")
}
