//! bind-refused: bind() failed, whoever has the port: the address is not there, or the port is not for everybody.
//!
//! Its neighbour `bind-conflict` tells of ports that somebody has. What is left (a socket that is bound already, a family
//! that does not fit) is a mistake in the program: an event, and no finding.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::correlate::{Change, Correlator, Refusal, RefusalKey};
use crate::event::{BindStage, Ipv6Off, KnobSample};

use super::case::{Concern, Description, Diagnosis};
use super::commands::{inside, sysctl};
use super::words::{count, errno_name};
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Remedy, Severity, SocketFacts,
    keys,
};

const EPERM: u32 = 1;
const EACCES: u32 = 13;
const EINVAL: u32 = 22;
const EAFNOSUPPORT: u32 = 97;
const EADDRNOTAVAIL: u32 = 99;

/// The device that has `::1`.
const LOOPBACK: &str = "lo";

/// Addresses that are named in words.
const NAMED: usize = 8;

/// The diagnosis.
#[derive(Default)]
pub(super) struct BindRefused {
    /// Attempts that earlier findings of a refusal have told of.
    told: HashMap<RefusalKey, u64>,
}

/// Why it may not have the address or the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// No device of the namespace has the address.
    AddressMissing,
    /// A device has the address, and duplicate address detection is still running.
    AddressTentative,
    /// A device has the address, and so has another node.
    AddressDuplicate,
    /// IPv6 is off on the device that would have the address, or on all.
    Ipv6Off,
    /// The port is below `ip_unprivileged_port_start`, and the process lacks CAP_NET_BIND_SERVICE.
    PrivilegedPort,
    /// A security module, or a program attached to the process's cgroup, says no.
    Denied,
}

impl Cause {
    fn of(key: &RefusalKey, knobs: Option<&KnobSample>) -> Option<Self> {
        let unprivileged = knobs.and_then(|knobs| knobs.unprivileged_port_start);
        match key.errno {
            // What SELinux and Landlock say of an address that does not fit its socket.
            EINVAL | EAFNOSUPPORT => None,
            _ if key.stage == BindStage::Security => Some(Self::Denied),
            EADDRNOTAVAIL => Some(Self::AddressMissing),
            // For ports only (`__inet_bind()`, `__inet6_bind()`), and from security modules.
            EACCES if unprivileged.is_some_and(|start| u32::from(key.requested.port()) >= start) => {
                Some(Self::Denied)
            }
            EACCES => Some(Self::PrivilegedPort),
            EPERM => Some(Self::Denied),
            _ => None,
        }
    }

    /// The same, with what was looked up about the address.
    fn refined(self, wanted: IpAddr, refusal: &Refusal) -> Self {
        if self != Self::AddressMissing {
            return self;
        }
        if let Some(unusable) = &refusal.unusable {
            return if unusable.duplicate { Self::AddressDuplicate } else { Self::AddressTentative };
        }
        let is_there = refusal.addresses.as_ref().is_none_or(|has| has.contains(&wanted));
        let off = |off: &Ipv6Off| {
            off.everywhere || (wanted.is_loopback() && off.devices.iter().any(|device| device == LOOPBACK))
        };
        if !is_there && refusal.ipv6_off.as_ref().is_some_and(off) {
            return Self::Ipv6Off;
        }
        self
    }

    /// Whether the address is what cannot be had.
    fn is_of_address(self) -> bool {
        match self {
            Self::AddressMissing | Self::AddressTentative | Self::AddressDuplicate | Self::Ipv6Off => true,
            Self::PrivilegedPort | Self::Denied => false,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::AddressTentative => "address-tentative",
            Self::AddressDuplicate => "address-duplicate",
            Self::Ipv6Off => "ipv6-off",
            Self::AddressMissing => "address-missing",
            Self::PrivilegedPort => "privileged-port",
            Self::Denied => "denied",
        }
    }
}

impl Diagnosis for BindRefused {
    const KIND: FindingKind = FindingKind {
        code: "bind-refused",
        opens_when: "bind() failed, whoever has the port",
        page: include_str!("../../../docs/findings/bind-refused.md"),
        observations: &["bind-error"],
        tracepoint_tier: "the error of the system call is all that is seen: what refused it is concluded, at most `likely` where more than one thing can.",
        causes: &[
            CauseRule {
                code: "address-missing",
                means: "no device of the network namespace has the address",
                certain: Some(
                    "bind() failed with EADDRNOTAVAIL, and the namespace's addresses, read a moment later, do not include it",
                ),
                likely: Some(
                    "bind() failed with EADDRNOTAVAIL; the addresses could not be read, or include it by then",
                ),
                possible: None,
                told_apart: &[
                    Apart { from: "`bind-conflict`: the port is in use", by: "that is EADDRINUSE" },
                    Apart {
                        from: "`address-tentative`, `address-duplicate`",
                        by: "the address is not among the namespace's addresses",
                    },
                    Apart {
                        from: "`ipv6-off`",
                        by: "IPv6 is on, on the loopback device for `::1` and on some device for others",
                    },
                ],
            },
            CauseRule {
                code: "address-tentative",
                means: "a device has the IPv6 address, and duplicate address detection is still running: it cannot be bound yet",
                certain: Some(
                    "bind() failed with EADDRNOTAVAIL, and the kernel lists the address as tentative a moment later",
                ),
                likely: None,
                possible: None,
                told_apart: &[
                    Apart { from: "`address-missing`", by: "a device has the address" },
                    Apart { from: "`address-duplicate`", by: "the detection has not failed" },
                ],
            },
            CauseRule {
                code: "address-duplicate",
                means: "a device has the IPv6 address, and duplicate address detection has found another node that has it",
                certain: Some(
                    "bind() failed with EADDRNOTAVAIL, and the kernel lists the address as failed (dadfailed)",
                ),
                likely: None,
                possible: None,
                told_apart: &[
                    Apart { from: "`address-missing`", by: "a device has the address" },
                    Apart { from: "`address-tentative`", by: "the detection is over, and has failed" },
                ],
            },
            CauseRule {
                code: "ipv6-off",
                means: "IPv6 is off (`disable_ipv6`) on the device that would have the address, or on all devices",
                certain: Some(
                    "bind() failed with EADDRNOTAVAIL, no device has the address, and `disable_ipv6` is 1: for `::1` on the loopback device, for others on every device",
                ),
                likely: None,
                possible: None,
                told_apart: &[Apart {
                    from: "`address-missing`",
                    by: "no such device can have an IPv6 address while that is set",
                }],
            },
            CauseRule {
                code: "privileged-port",
                means: "the port is below `net.ipv4.ip_unprivileged_port_start`, and the process lacks CAP_NET_BIND_SERVICE",
                certain: Some(
                    "bind() failed with EACCES after the security modules had agreed, the port is below the start, and the user is not root",
                ),
                likely: Some(
                    "the same, but the user is root or the start could not be read: a security module may deny it as well",
                ),
                possible: None,
                told_apart: &[Apart {
                    from: "`denied` by a security module",
                    by: "the modules are asked earlier, where the full tiers see them",
                }],
            },
            CauseRule {
                code: "denied",
                means: "a security module, or a BPF program of the process's control group, denies it",
                certain: Some("`security_socket_bind` returned the error"),
                likely: Some(
                    "the error is one that only a module (EACCES at a port that is not privileged) or a program of the control group (EPERM) gives",
                ),
                possible: None,
                told_apart: &[Apart {
                    from: "`privileged-port`",
                    by: "the module was seen to deny it, or the port is not privileged",
                }],
            },
        ],
        evidence: &[
            keys::text("address_device", "device that has the address, which cannot be used yet"),
            keys::texts("addresses", "addresses that this network namespace has"),
            keys::ATTEMPTS,
            keys::DEVICE,
            keys::texts("disable_ipv6", "devices on which IPv6 is off"),
            keys::ERRNO,
            keys::flag("ip_nonlocal_bind", "`net.ipv4.ip_nonlocal_bind`, or the one of IPv6"),
            keys::number("ip_unprivileged_port_start", "`net.ipv4.ip_unprivileged_port_start`"),
            keys::OPTIONS,
            keys::PORT,
            keys::REQUESTED,
            keys::REQUESTER,
            keys::STAGE,
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = RefusalKey;
    /// Attempts before this finding: an earlier one has told of them.
    type Memory = u64;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<RefusalKey>> {
        match change {
            Change::BindRefused(key) if Cause::of(key, None).is_some() => {
                Some(Concern::Happened(key.clone()))
            }
            _ => None,
        }
    }

    fn begin(&mut self, key: &RefusalKey, world: &Correlator) -> u64 {
        self.told.retain(|key, _| world.refusal(key).is_some());
        self.told.get(key).copied().unwrap_or(0)
    }

    fn observe(&mut self, _key: &RefusalKey, _memory: &mut u64, _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &RefusalKey, before: &u64, world: &Correlator) -> Option<Description> {
        let knobs = world.namespace(key.netns).map(|namespace| &namespace.knobs);
        let refusal = world.refusal(key)?;
        let cause = Cause::of(key, knobs)?.refined(key.requested.ip(), refusal);
        let attempts = refusal.attempts.saturating_sub(*before);
        Some(Account { key, refusal, cause, knobs, world, attempts }.describe())
    }

    fn end(&mut self, key: &RefusalKey, _before: &u64, world: &Correlator) {
        if let Some(refusal) = world.refusal(key) {
            self.told.insert(key.clone(), refusal.attempts);
        }
    }
}

/// All that is said about a refusal.
struct Account<'a> {
    key: &'a RefusalKey,
    refusal: &'a Refusal,
    cause: Cause,
    knobs: Option<&'a KnobSample>,
    world: &'a Correlator,
    attempts: u64,
}

impl Account<'_> {
    fn describe(&self) -> Description {
        let (refusal, wanted) = (self.refusal, self.key.requested);
        let requester = self.requester();
        let name = requester.process.as_ref().map_or_else(|| "a process".to_owned(), ToString::to_string);
        let explanation = self.explanation();
        let what = match self.cause {
            Cause::AddressMissing => format!("this network namespace does not have {}", wanted.ip()),
            Cause::AddressTentative => format!("{} is there, and still tentative", wanted.ip()),
            Cause::AddressDuplicate => format!("{} is there, and another node has it as well", wanted.ip()),
            Cause::Ipv6Off if wanted.ip().is_loopback() => format!("IPv6 is off on {LOOPBACK}"),
            Cause::Ipv6Off => "IPv6 is off".to_owned(),
            Cause::PrivilegedPort => format!("port {} is privileged", wanted.port()),
            Cause::Denied if self.by_module() => "a security module denies it".to_owned(),
            Cause::Denied => "it is not permitted to".to_owned(),
        };
        let tries = count(self.attempts, "attempt", "attempts");
        Description {
            severity: Severity::Warning,
            confidence: self.confidence(),
            title: format!(
                "{name} cannot {} {wanted}: {what} ({})",
                self.key.stage.call(),
                errno_name(self.key.errno)
            ),
            subject: Party {
                kind: "port",
                address: Some(wanted),
                port: Some(wanted.port()),
                netns: Some(self.key.netns),
                ..Party::default()
            },
            cause: self.cause.code(),
            numbers: vec![format!(
                "{tries} by uid {}, options {}, at {}()",
                refusal.requester.uid,
                refusal.options,
                self.key.stage.call()
            )],
            evidence: self.evidence(requester, &explanation),
            remedy: self.remedy(&name),
            explanation,
        }
    }

    /// What is said of the cause rests on what was read a moment later.
    fn confidence(&self) -> Confidence {
        let seen = match self.cause {
            Cause::AddressMissing => {
                self.refusal.addresses.as_ref().is_some_and(|has| !has.contains(&self.key.requested.ip()))
            }
            Cause::AddressTentative | Cause::AddressDuplicate | Cause::Ipv6Off => true,
            // Root may lack the capability, and may be denied by a security module, which only the full tiers tell apart.
            Cause::PrivilegedPort => self.is_privileged() == Some(true) && self.refusal.requester.uid != 0,
            Cause::Denied => self.key.stage == BindStage::Security,
        };
        if seen { Confidence::Certain } else { Confidence::Likely }
    }

    fn is_privileged(&self) -> Option<bool> {
        Some(u32::from(self.key.requested.port()) < self.knobs?.unprivileged_port_start?)
    }

    /// Whether it is a security module that denies it, rather than a BPF program of the cgroup, which knows EPERM alone before
    /// 5.16, and mostly since.
    fn by_module(&self) -> bool {
        self.key.stage == BindStage::Security || self.key.errno == EACCES
    }

    fn requester(&self) -> Party {
        Party {
            kind: "process",
            address: Some(self.key.requested),
            netns: Some(self.key.netns),
            process: Some(ProcessName::of_task(&self.refusal.requester, self.world.processes())),
            socket: Some(SocketFacts {
                options: Some(self.refusal.options),
                uid: Some(self.refusal.requester.uid),
                ..SocketFacts::default()
            }),
            ..Party::default()
        }
    }

    /// What `ip_nonlocal_bind` of the address's family allows.
    fn nonlocal_bind(&self) -> Option<bool> {
        let knobs = self.knobs?;
        if self.key.requested.is_ipv6() { knobs.nonlocal_bind_v6 } else { knobs.nonlocal_bind }
    }

    fn explanation(&self) -> String {
        let (ip, port) = (self.key.requested.ip(), self.key.requested.port());
        match (self.cause, &self.refusal.addresses) {
            (Cause::AddressTentative, _) => format!(
                "{} has {ip}, and the kernel is still testing whether another node on the link has it as well (duplicate \
                 address detection): until that is over, no program can bind it",
                self.device()
            ),
            (Cause::AddressDuplicate, _) => format!(
                "{} has {ip}, and duplicate address detection has found another node on the link that has it: the kernel \
                 does not let it be used (dadfailed)",
                self.device()
            ),
            (Cause::Ipv6Off, _) => {
                let place = if ip.is_loopback() {
                    format!("on {LOOPBACK} (net.ipv6.conf.{LOOPBACK}.disable_ipv6 is 1)")
                } else {
                    "on every device (net.ipv6.conf.DEVICE.disable_ipv6 is 1)".to_owned()
                };
                format!("IPv6 is off {place}, so {ip} cannot be there")
            }
            (Cause::AddressMissing, Some(has)) if has.contains(&ip) => format!(
                "{ip} was not there when it was asked for, and is now: it was configured too late (an IPv6 address cannot be \
                 bound while its uniqueness is still being tested)"
            ),
            (Cause::AddressMissing, Some(has)) => {
                let off = match &self.refusal.ipv6_off {
                    Some(off) => format!("; IPv6 is off on {} (disable_ipv6)", off.devices.join(", ")),
                    None => String::new(),
                };
                format!("no device of the namespace has {ip}; it has {}{off}", listed(has))
            }
            (Cause::AddressMissing, None) => {
                format!("no device of the namespace has {ip}; which addresses it has could not be read")
            }
            (Cause::PrivilegedPort, _) => match self.knobs.and_then(|knobs| knobs.unprivileged_port_start) {
                Some(start) => {
                    let uid = self.refusal.requester.uid;
                    let root = if uid == 0 { "; or a security module denies it" } else { "" };
                    format!(
                        "ports below {start} (net.ipv4.ip_unprivileged_port_start) take CAP_NET_BIND_SERVICE, which uid \
                         {uid} does not have there{root}"
                    )
                }
                None => {
                    "ports below net.ipv4.ip_unprivileged_port_start take CAP_NET_BIND_SERVICE".to_owned()
                }
            },
            (Cause::Denied, _) if self.key.stage == BindStage::Security => {
                "a security module (SELinux, AppArmor, Landlock, a BPF LSM program) denies it, before the kernel looks \
                 at the address or the port"
                    .to_owned()
            }
            (Cause::Denied, _) if self.by_module() => {
                format!("port {port} is not privileged: a security module (SELinux, AppArmor, Landlock) denies it")
            }
            (Cause::Denied, _) => {
                "a BPF program attached to its cgroup (or a security module) denies it".to_owned()
            }
        }
    }

    fn evidence(&self, requester: Party, why: &str) -> Evidence {
        let refusal = self.refusal;
        let missing = self.cause.is_of_address();
        let addresses = refusal.addresses.as_ref().filter(|_| missing);
        let addresses = addresses.map(|has| has.iter().map(ToString::to_string).collect::<Vec<_>>());
        Evidence::new()
            .with("requester", requester)
            .with("requested", self.key.requested)
            .with("port", self.key.requested.port())
            .with("errno", errno_name(self.key.errno))
            .with("stage", self.key.stage.name())
            .with("options", refusal.options)
            .with("attempts", self.attempts)
            .with_some("addresses", addresses)
            .with_some("address_device", refusal.unusable.as_ref().map(|unusable| unusable.device.clone()))
            .with_some("device", self.world.device_name(self.key.netns, refusal.device))
            .with_some(
                "disable_ipv6",
                refusal.ipv6_off.as_ref().filter(|_| missing).map(|off| off.devices.clone()),
            )
            .with_some("ip_nonlocal_bind", self.nonlocal_bind().filter(|_| missing))
            .with_some(
                "ip_unprivileged_port_start",
                self.knobs
                    .and_then(|knobs| knobs.unprivileged_port_start)
                    .filter(|_| self.cause == Cause::PrivilegedPort),
            )
            .with("why", why)
    }

    /// The device that has the address.
    fn device(&self) -> &str {
        self.refusal.unusable.as_ref().map_or("a device", |unusable| &unusable.device)
    }

    /// How to have an address bound that is not there, or not yet.
    fn bind_it_all_the_same(&self, name: &str, when: &str) -> Remedy {
        let process = ProcessName::of_task(&self.refusal.requester, self.world.processes());
        let version = if self.key.requested.is_ipv6() { "ipv6" } else { "ipv4" };
        Remedy::command(
            format!("{when}: IP_FREEBIND in {name}, or for all programs of the namespace"),
            sysctl(self.key.netns, Some(&process), &format!("net.{version}.ip_nonlocal_bind=1")),
        )
    }

    fn remedy(&self, name: &str) -> Vec<Remedy> {
        let (ip, port) = (self.key.requested.ip(), self.key.requested.port());
        let process = ProcessName::of_task(&self.refusal.requester, self.world.processes());
        let here = |command: &str| inside(self.key.netns, Some(&process), command);
        let address = || {
            let prefix = self.refusal.unusable.as_ref().map_or(128, |unusable| unusable.prefix);
            format!("{ip}/{prefix} dev {}", self.device())
        };
        match self.cause {
            Cause::AddressTentative => vec![
                Remedy::command(
                    format!(
                        "wait until the test is over, which takes a second or two, and let {name} try again; at boot, order it \
                         after that (systemd: After=network-online.target). Still tested are"
                    ),
                    here("ip -6 address show tentative"),
                ),
                Remedy::command(
                    "or add the address without the test, where it is sure that no other node has it",
                    here(&format!("ip -6 address replace {} nodad", address())),
                ),
                self.bind_it_all_the_same(name, "or bind it before it can be used"),
            ],
            Cause::AddressDuplicate => vec![
                Remedy::command(
                    "find the other node, and give one of the two another address: the kernel's log names the other's \
                     Ethernet address",
                    "dmesg | grep 'IPv6 duplicate address'",
                ),
                Remedy::command(
                    "then add the address again: the kernel does not test it a second time by itself",
                    here(&format!("sh -c 'ip -6 address del {0}; ip -6 address add {0}'", address())),
                ),
                Remedy::text(format!("or let {name} bind another address")),
            ],
            Cause::Ipv6Off => {
                let device = if ip.is_loopback() { LOOPBACK } else { "all" };
                let again = if ip.is_loopback() { "" } else { ", then configure the address again" };
                vec![
                    Remedy::text(format!(
                        "take {ip} out of the configuration of {name}, and let it bind an IPv4 address alone"
                    )),
                    Remedy::command(
                        format!("or switch IPv6 on{again}"),
                        sysctl(
                            self.key.netns,
                            Some(&process),
                            &format!("net.ipv6.conf.{device}.disable_ipv6=0"),
                        ),
                    ),
                ]
            }
            Cause::AddressMissing => {
                let every = if ip.is_ipv6() { "[::]" } else { "0.0.0.0" };
                vec![
                    Remedy::text(format!("let {name} bind one of the addresses that are there, or {every}")),
                    Remedy::command(
                        format!("or start it after {ip} is configured: see which device should have it"),
                        inside(self.key.netns, Some(&process), "ip address show"),
                    ),
                    self.bind_it_all_the_same(name, "for an address that moves between hosts"),
                ]
            }
            Cause::PrivilegedPort => {
                let mut remedy = vec![Remedy::text(format!(
                    "give {name} CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or another port"
                ))];
                if self.is_privileged() == Some(true) {
                    remedy.push(Remedy::command(
                        format!("or open port {port} and all above it to every user of the namespace"),
                        sysctl(
                            self.key.netns,
                            Some(&process),
                            &format!("net.ipv4.ip_unprivileged_port_start={port}"),
                        ),
                    ));
                }
                remedy
            }
            Cause::Denied if self.by_module() => vec![
                Remedy::command(
                    "see which security modules are active, and what they say that they denied",
                    "cat /sys/kernel/security/lsm; dmesg | grep -iE 'avc|apparmor|denied'",
                ),
                Remedy::command(
                    format!(
                        "see under which profile {name} runs (unconfined: it may have confined itself, by Landlock)"
                    ),
                    format!("cat /proc/{}/attr/current", self.refusal.requester.pid),
                ),
                Remedy::text(format!(
                    "allow port {port} in its policy (SELinux: semanage port -a -t TYPE -p tcp {port}; AppArmor: a network \
                     rule of its profile), or use a port that is allowed"
                )),
            ],
            Cause::Denied => vec![
                Remedy::command("see which programs are attached to the cgroups", "bpftool cgroup tree"),
                Remedy::text(format!(
                    "if it is a unit of systemd: allow port {port} by SocketBindAllow=, or lift SocketBindDeny="
                )),
            ],
        }
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let mut named: Vec<String> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
    if addresses.is_empty() {
        return "none".to_owned();
    }
    if addresses.len() > NAMED {
        named.push(format!("{} more", addresses.len() - NAMED));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests;
