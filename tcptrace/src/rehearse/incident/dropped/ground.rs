//! What drops the packets: rules, programs, settings of the whole host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::net::if_::if_nametoindex;

use super::kind::Kind;
use super::whole_host::Setting;
use crate::probe::deny_packets::{Dropping, drop_packets_of, drop_segments_on};
use crate::rehearse::actor::Actor;
use crate::rehearse::cgroup::Cgroup;
use crate::rehearse::error::{During, Error, Result};
use crate::rehearse::netlink;
use crate::rehearse::nft::{self, Chain, Hook, Match, Verdict};
use crate::rehearse::stage::{CLIENT_LINK, SERVER_LINK, Stage};

/// Addresses on the link that are called: of the far side, or of no host.
const NEIGHBOURS: u8 = 12;
/// The first of them, behind those of the pair.
const FIRST: u8 = 100;
/// Connections that may be tracked.
const TRACKED: u32 = 4;
/// Entries that the neighbour table may have.
const ENTRIES: u32 = 6;

/// What must be undone in the end.
pub(super) struct Ground {
    dropping: Option<Dropping>,
    /// After the programs, and after the actors, which are in it.
    cgroup: Option<Cgroup>,
    settings: Vec<Setting>,
}

impl Ground {
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let cgroup = match kind {
            Kind::CgroupIn => Some(Cgroup::new("tt-server.service")?),
            Kind::CgroupOut => Some(Cgroup::new("tt-client.service")?),
            _ => None,
        };
        if matches!(kind, Kind::ConntrackFull | Kind::NeighbourTable) {
            Setting::require_throwaway_machine()?;
        }
        Ok(Self { dropping: None, cgroup, settings: Vec::new() })
    }

    pub(super) fn admit(&self, actor: &Actor) -> Result<()> {
        self.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.admit(actor))
    }

    /// Makes the packets be dropped, once everything stands.
    pub(super) fn obstruct(&mut self, kind: Kind, stage: &Stage, ipv6: bool, port: u16) -> Result<()> {
        let rule = |hook, verdict| {
            let made = move || nft::rule(Chain::nft(hook), Match::To(port), verdict);
            stage.server().run(made)?.map_err(nft::lacking)
        };
        match kind {
            Kind::QueueUnread | Kind::QueueOut => {
                let hook = if kind == Kind::QueueUnread { Hook::Input } else { Hook::Output };
                // Kernels have one, the other, or both.
                rule(hook, Verdict::Queue(0)).or_else(|_| {
                    let chain = Chain::iptables(hook, ipv6);
                    let made = move || nft::rule(chain, Match::To(port), Verdict::IptablesQueue(0));
                    stage.server().run(made)?.map_err(nft::lacking)
                })
            }
            Kind::RejectReset => rule(Hook::Input, Verdict::Reset),
            Kind::RejectIcmp => rule(Hook::Input, Verdict::PortUnreachable),
            Kind::TrackedDrop => {
                rule(Hook::Input, Verdict::Track)?;
                rule(Hook::Input, Verdict::Drop)
            }
            Kind::ConntrackFull => {
                rule(Hook::Input, Verdict::Track)?;
                self.settings.push(Setting::set("net/netfilter/nf_conntrack_max", TRACKED)?);
                Ok(())
            }
            Kind::NeighbourTable => {
                for host in 0..NEIGHBOURS {
                    let address = neighbour(stage, ipv6, host);
                    let prefix = if ipv6 { 64 } else { 24 };
                    let added = stage
                        .client()
                        .run(move || netlink::add_address(CLIENT_LINK.name, address, prefix))?;
                    added.during("the far side's addresses")?;
                }
                let family = if ipv6 { "ipv6" } else { "ipv4" };
                for (name, value) in [("gc_thresh1", 1), ("gc_thresh2", 2), ("gc_thresh3", ENTRIES)] {
                    self.settings.push(Setting::set(&format!("net/{family}/neigh/default/{name}"), value)?);
                }
                Ok(())
            }
            Kind::CgroupIn | Kind::CgroupOut => {
                let Some(cgroup) = &self.cgroup else { return Ok(()) };
                let dropping = drop_packets_of(cgroup.open()?, kind == Kind::CgroupOut);
                self.dropping = Some(dropping.map_err(|error| Error::NotSupported(error.to_string()))?);
                Ok(())
            }
            Kind::XdpGeneric | Kind::XdpDriver => {
                let generic = kind == Kind::XdpGeneric;
                let (namespace, name) = if generic {
                    (stage.server(), SERVER_LINK.name)
                } else {
                    (stage.client(), CLIENT_LINK.name)
                };
                let attached = namespace.run(move || {
                    let device = if_nametoindex(name).map_err(|errno| errno.to_string())?;
                    drop_segments_on(device, generic).map_err(|error| error.to_string())
                })?;
                self.dropping = Some(attached.map_err(Error::NotSupported)?);
                Ok(())
            }
            Kind::Qdisc => {
                let added = stage.server().run(|| netlink::drop_what_is_sent(SERVER_LINK.name))?;
                added.map_err(|source| match source.raw_os_error() {
                    Some(libc::EOPNOTSUPP | libc::ENOENT) => {
                        Error::NotSupported("this kernel has no queueing discipline that drops all".into())
                    }
                    _ => Error::Io {
                        what: "setting the queueing discipline of a private device".into(),
                        source,
                    },
                })
            }
            Kind::Md5 | Kind::MinTtl | Kind::SocketFilter | Kind::NeighbourSilent => Ok(()),
        }
    }
}

/// What the client calls.
pub(super) fn called(kind: Kind, stage: &Stage, ipv6: bool, port: u16) -> Vec<SocketAddr> {
    match kind {
        Kind::NeighbourSilent | Kind::NeighbourTable => {
            (0..NEIGHBOURS).map(|host| SocketAddr::new(neighbour(stage, ipv6, host), port)).collect()
        }
        kind if kind.server_is_far() => vec![SocketAddr::new(stage.client_address(ipv6), port)],
        _ => vec![SocketAddr::new(stage.server_address(ipv6), port)],
    }
}

/// An address on the link.
fn neighbour(stage: &Stage, ipv6: bool, host: u8) -> IpAddr {
    match stage.client_address(ipv6) {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, FIRST + host).into()
        }
        IpAddr::V6(v6) => Ipv6Addr::from_bits((v6.to_bits() & !0xff) | u128::from(FIRST + host)).into(),
    }
}
