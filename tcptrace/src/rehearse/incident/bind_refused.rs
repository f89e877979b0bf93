//! `bind-refused`: a server cannot bind, though nobody has its port.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::json;

use super::{Entry, Family, Incident, Options, Variant, facts};
use crate::probe::deny::{Denial, deny_binds};
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Order, can_confine};
use crate::rehearse::cgroup::Cgroup;
use crate::rehearse::counters;
use crate::rehearse::error::{During as _, Error, Result};
use crate::rehearse::netlink;
use crate::rehearse::stage::{CLIENT_LINK, Layout, SERVER_LINK, Stage, has_ipv6};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "bind-refused",
    aliases: &[],
    summary: "a server cannot bind, though nobody has its port",
    variants: &[
        Variant { name: "address-missing", summary: "its address is configured nowhere" },
        Variant { name: "privileged-port", summary: "it is not root, and its port is privileged" },
        Variant {
            name: "multipath",
            summary: "as address-missing, with a multipath TCP socket, as Go programs have",
        },
        Variant { name: "security-module", summary: "a security module denies it (Landlock, Linux 6.7)" },
        Variant { name: "cgroup-program", summary: "a program attached to its control group denies it" },
        Variant { name: "tentative", summary: "its IPv6 address is still tested for uniqueness" },
        Variant { name: "duplicate", summary: "its IPv6 address is another node's as well" },
        Variant { name: "loopback-off", summary: "it wants ::1, and IPv6 is off on lo" },
        Variant { name: "every", summary: "all of these that this kernel can do, at once" },
        Variant { name: "ipv6-off", summary: "it wants an IPv6 address, and IPv6 is off on every device" },
        Variant {
            name: "untested",
            summary: "as tentative, but the address is added without the test: no trouble",
        },
        Variant { name: "nonlocal", summary: "as address-missing, but ip_nonlocal_bind is on: no trouble" },
    ],
    make: |variant, options| Ok(Box::new(BindRefused::new(variant, &options)?)),
};

/// A user that is not root.
const USER: u32 = 65534;
const TRIES: u32 = 3;
/// Of the addresses that are tested for uniqueness.
const PREFIX: u8 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AddressMissing,
    PrivilegedPort,
    Multipath,
    SecurityModule,
    CgroupProgram,
    Tentative,
    Duplicate,
    LoopbackOff,
    Ipv6Off,
    /// No trouble.
    Untested,
    /// No trouble.
    Nonlocal,
}

/// All of them.
const KINDS: [Kind; 11] = [
    Kind::AddressMissing,
    Kind::PrivilegedPort,
    Kind::Multipath,
    Kind::SecurityModule,
    Kind::CgroupProgram,
    // The duplicate first: both go by how often the link asks, which the kernel reads a moment after the address was added.
    Kind::Duplicate,
    Kind::Tentative,
    Kind::LoopbackOff,
    Kind::Ipv6Off,
    Kind::Untested,
    Kind::Nonlocal,
];

/// Addresses of the servers' end of the pair that are tested for uniqueness: which one, by its last group.
fn tested(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 5, 0, 0, 0, 0, last], 8000 + last))
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::AddressMissing => "address-missing",
            Self::PrivilegedPort => "privileged-port",
            Self::Multipath => "multipath",
            Self::SecurityModule => "security-module",
            Self::CgroupProgram => "cgroup-program",
            Self::Tentative => "tentative",
            Self::Duplicate => "duplicate",
            Self::LoopbackOff => "loopback-off",
            Self::Ipv6Off => "ipv6-off",
            Self::Untested => "untested",
            Self::Nonlocal => "nonlocal",
        }
    }

    /// What comes of it: the cause that must be said, and the errno.
    fn outcome(self) -> Option<(&'static str, i32)> {
        match self {
            Self::AddressMissing | Self::Multipath => Some(("address-missing", libc::EADDRNOTAVAIL)),
            Self::PrivilegedPort => Some(("privileged-port", libc::EACCES)),
            Self::SecurityModule => Some(("denied", libc::EACCES)),
            Self::CgroupProgram => Some(("denied", libc::EPERM)),
            Self::Tentative => Some(("address-tentative", libc::EADDRNOTAVAIL)),
            Self::Duplicate => Some(("address-duplicate", libc::EADDRNOTAVAIL)),
            Self::LoopbackOff | Self::Ipv6Off => Some(("ipv6-off", libc::EADDRNOTAVAIL)),
            Self::Untested | Self::Nonlocal => None,
        }
    }

    /// Whether all of these can be played in one namespace.
    fn can_share(self) -> bool {
        self.outcome().is_some() && self != Self::Ipv6Off
    }

    /// Whether it takes a link to another node.
    fn needs_link(self) -> bool {
        matches!(self, Self::Tentative | Self::Duplicate | Self::Untested)
    }

    /// Whether it is about IPv6, whatever family was asked for.
    fn needs_ipv6(self) -> bool {
        self.needs_link() || matches!(self, Self::LoopbackOff | Self::Ipv6Off)
    }

    fn order(self, family: Family) -> Bind {
        let absent = |port| {
            // For documentation (RFC 5737, RFC 3849): nobody has these.
            Bind::to(match family {
                Family::V4 => SocketAddr::from(([192, 0, 2, 7], port)),
                _ => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], port)),
            })
        };
        let order = match self {
            Self::AddressMissing | Self::Nonlocal => absent(8090),
            Self::PrivilegedPort => Bind { user: Some(USER), ..Bind::to(family.any(80)) },
            Self::Multipath => Bind { mptcp: true, ..absent(8091) },
            Self::SecurityModule => Bind { confined: true, ..Bind::to(family.any(8092)) },
            Self::CgroupProgram => Bind::to(family.any(8093)),
            Self::Tentative | Self::Untested => Bind::to(tested(53)),
            Self::Duplicate => Bind::to(tested(54)),
            Self::LoopbackOff => Bind::to(SocketAddr::from((Ipv6Addr::LOCALHOST, 8055))),
            Self::Ipv6Off => Bind::to(SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 8056))),
        };
        Bind { reuseaddr: true, backlog: Some(128), attempts: TRIES, gap_ms: 100, ..order }
    }
}

struct BindRefused {
    variant: &'static Variant,
    family: Family,
    kinds: Vec<Kind>,
    /// What this kernel cannot do of what was asked for, and why.
    left_out: Vec<(Kind, String)>,
    servers: Vec<Actor>,
    denied: Option<Denied>,
    stage: Stage,
}

/// A control group that may not bind. After the server, which is in it.
struct Denied {
    _denial: Denial,
    cgroup: Cgroup,
}

impl BindRefused {
    fn new(variant: &'static Variant, options: &Options) -> Result<Self> {
        let asked: Vec<Kind> = match variant.name {
            "every" => KINDS.into_iter().filter(|kind| kind.can_share()).collect(),
            name => KINDS.into_iter().filter(|kind| kind.name() == name).collect(),
        };
        let linked = asked.iter().any(|kind| kind.needs_link());
        let stage = options.stage(if linked { Layout::Pair } else { Layout::Loopback })?;
        let (kinds, left_out, servers) = (Vec::new(), Vec::new(), Vec::new());
        let mut incident =
            Self { variant, family: options.family, kinds, left_out, servers, denied: None, stage };
        for kind in asked {
            match incident.prepare(kind) {
                Ok(()) => incident.kinds.push(kind),
                Err(Error::NotSupported(why)) if variant.name == "every" => {
                    incident.left_out.push((kind, why));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(incident)
    }

    fn prepare(&mut self, kind: Kind) -> Result<()> {
        if kind.needs_ipv6() && !has_ipv6(self.stage.server())? {
            return Err(Error::NotSupported("this kernel has no IPv6, or it is switched off".into()));
        }
        match kind {
            Kind::Tentative => {
                // Longer than the play.
                self.stage.set_sysctl(&format!("net.ipv6.conf.{}.dad_transmits", SERVER_LINK.name), 60)?;
                self.add_address(kind, true)?;
            }
            Kind::Untested => self.add_address(kind, false)?,
            Kind::Duplicate => {
                let ip = kind.order(self.family).address.ip();
                let there =
                    self.stage.client().run(move || netlink::add_address(CLIENT_LINK.name, ip, PREFIX))?;
                there.during("giving the other node the address")?;
                self.stage.set_sysctl(&format!("net.ipv6.conf.{}.dad_transmits", SERVER_LINK.name), 1)?;
                self.add_address(kind, true)?;
                self.stage.await_that("the kernel finds the duplicate", || self.is_duplicate(ip))?;
            }
            Kind::LoopbackOff => self.stage.set_sysctl("net.ipv6.conf.lo.disable_ipv6", 1)?,
            Kind::Ipv6Off => self.stage.set_sysctl("net.ipv6.conf.all.disable_ipv6", 1)?,
            Kind::Nonlocal => {
                let ip = if self.family == Family::V4 { "ipv4" } else { "ipv6" };
                self.stage.set_sysctl(&format!("net.{ip}.ip_nonlocal_bind"), 1)?;
            }
            Kind::Multipath => self
                .stage
                .set_sysctl("net.mptcp.enabled", 1)
                .map_err(|_| Error::NotSupported("this kernel has no multipath TCP".into()))?,
            Kind::SecurityModule if !can_confine() => {
                let why = "Landlock does not look at ports here (it does since 6.7)";
                return Err(Error::NotSupported(why.into()));
            }
            Kind::CgroupProgram => {
                let cgroup = Cgroup::new("tt-server.service")?;
                let denial =
                    deny_binds(cgroup.open()?).map_err(|error| Error::NotSupported(error.to_string()))?;
                self.denied = Some(Denied { _denial: denial, cgroup });
            }
            Kind::AddressMissing | Kind::PrivilegedPort | Kind::SecurityModule => {}
        }
        Ok(())
    }

    fn add_address(&self, kind: Kind, test: bool) -> Result<()> {
        let ip = kind.order(self.family).address.ip();
        let add = if test { netlink::add_address_to_test } else { netlink::add_address };
        let added = self.stage.server().run(move || add(SERVER_LINK.name, ip, PREFIX))?;
        added.during(format!("giving {} the address {ip}", SERVER_LINK.name))
    }

    /// Whether duplicate address detection has failed (`IFA_F_DADFAILED` in `/proc/net/if_inet6`).
    fn is_duplicate(&self, ip: IpAddr) -> Result<bool> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/if_inet6");
        let addresses = self.stage.server().run(read)?.during("reading the addresses")?;
        let IpAddr::V6(wanted) = ip else { return Ok(false) };
        let wanted = format!("{:032x}", wanted.to_bits());
        let mut lines = addresses.lines().filter(|line| line.starts_with(&wanted));
        Ok(lines.any(|line| {
            let flags = line.split_ascii_whitespace().nth(4).unwrap_or_default();
            u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 0x08 != 0)
        }))
    }

    /// A server that tries, and what must be said of it.
    fn fail(&self, kind: Kind) -> Result<(Actor, Option<Expectation>)> {
        let order = kind.order(self.family);
        let wanted = order.address;
        let mut server = self.stage.start_server("tt-server")?;
        if let Some(denied) = self.denied.as_ref().filter(|_| kind == Kind::CgroupProgram) {
            denied.cgroup.admit(&server)?;
        }
        let attempts: Vec<BindAttempt> = server.ask(&Order::Bind(order))?;
        let outcome = kind.outcome();
        if attempts.iter().any(|attempt| attempt.errno != outcome.map(|(_, errno)| errno)) {
            return Err(Error::NotStaged(format!("taking {wanted} came out as {attempts:?}")));
        }
        let expected = outcome.map(|(cause, _)| Expectation {
            requester: Some(Party::of(server.identity(), "process", wanted)),
            ..Expectation::about(ENTRY.name, cause, Party::port(wanted))
        });
        Ok((server, expected))
    }
}

impl Incident for BindRefused {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn variant(&self) -> &'static str {
        self.variant.name
    }

    fn describe(&self) -> String {
        let mut text = match self.variant.name {
            "privileged-port" => "tt-server wants port 80, and is not root.".to_owned(),
            "security-module" => "tt-server has confined itself, and may not bind any port.".to_owned(),
            "cgroup-program" => {
                "tt-server is in a control group whose program denies every bind().".to_owned()
            }
            "tentative" => {
                "tt-server wants an IPv6 address that the kernel still tests for uniqueness.".to_owned()
            }
            "duplicate" => "tt-server wants an IPv6 address that another node has as well.".to_owned(),
            "loopback-off" => "tt-server wants ::1, and IPv6 is off on lo.".to_owned(),
            "ipv6-off" => "tt-server wants an IPv6 address, and IPv6 is off on every device.".to_owned(),
            "untested" => "tt-server binds an IPv6 address that was added without the test.".to_owned(),
            "nonlocal" => {
                "tt-server binds an address that no device has, as ip_nonlocal_bind allows.".to_owned()
            }
            "every" => {
                let names: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
                format!("Servers that may not have their ports: {}.", names.join(", "))
            }
            _ => "tt-server wants an address that no device has.".to_owned(),
        };
        for (kind, why) in &self.left_out {
            text.push_str(&format!(" Without {}: {why}.", kind.name()));
        }
        text
    }

    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn play(&mut self) -> Result<GroundTruth> {
        let before = self.stage.counters()?;
        let mut expect = Vec::new();
        for kind in self.kinds.clone() {
            let (server, expected) = self.fail(kind)?;
            expect.extend(expected);
            self.servers.push(server);
        }
        let left_out: Vec<_> = self.left_out.iter().map(|(kind, _)| kind.name()).collect();
        Ok(GroundTruth {
            actors: self.servers.iter().map(|server| server.identity().clone()).collect(),
            expect,
            facts: facts(json!({ "attempts": TRIES, "left_out": left_out })),
            counters: counters::growth(&before, &self.stage.settled_counters()?),
            ..GroundTruth::of(ENTRY.name, self.variant.name, self.stage.netns_inode())
        })
    }
}
