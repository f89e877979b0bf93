//! `bind-refused`: a server cannot bind, though nobody has its port.

use std::net::SocketAddr;

use serde_json::json;

use super::{Entry, Family, Incident, Options, Variant, facts};
use crate::probe::deny::{Denial, deny_binds};
use crate::rehearse::actor::{Actor, Bind, BindAttempt, Order, can_confine};
use crate::rehearse::cgroup::Cgroup;
use crate::rehearse::counters;
use crate::rehearse::error::{Error, Result};
use crate::rehearse::stage::{Layout, Stage};
use crate::rehearse::truth::{Expectation, GroundTruth, Party};

pub(super) const ENTRY: Entry = Entry {
    name: "bind-refused",
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
        Variant { name: "every", summary: "all of these that this kernel can do, at once" },
        Variant { name: "nonlocal", summary: "as address-missing, but ip_nonlocal_bind is on: no trouble" },
    ],
    make: |variant, options| Ok(Box::new(BindRefused::new(variant, &options)?)),
};

/// A user that is not root.
const USER: u32 = 65534;
const TRIES: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AddressMissing,
    PrivilegedPort,
    Multipath,
    SecurityModule,
    CgroupProgram,
    /// No trouble.
    Nonlocal,
}

/// Those that are a trouble.
const KINDS: [Kind; 5] =
    [Kind::AddressMissing, Kind::PrivilegedPort, Kind::Multipath, Kind::SecurityModule, Kind::CgroupProgram];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::AddressMissing => "address-missing",
            Self::PrivilegedPort => "privileged-port",
            Self::Multipath => "multipath",
            Self::SecurityModule => "security-module",
            Self::CgroupProgram => "cgroup-program",
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
            Self::Nonlocal => None,
        }
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
        let stage = options.stage(Layout::Loopback)?;
        let asked: Vec<Kind> = match variant.name {
            "every" => KINDS.into(),
            "nonlocal" => vec![Kind::Nonlocal],
            name => KINDS.into_iter().filter(|kind| kind.name() == name).collect(),
        };
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
        match kind {
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
