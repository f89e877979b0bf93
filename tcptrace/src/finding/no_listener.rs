//! no-listener: SYNs arrive for a port that nobody listens on, and are answered by RST.

use std::time::Duration;

use crate::correlate::{Absent, AbsentKey, Change, Correlator, Destination, Former, ServerSide};
use crate::event::{Device, OwnerConfidence, ReportedListener};

use super::case::{Concern, Description, Diagnosis};
use super::commands::sysctl;
use super::words::{count, span};
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Remedy, Severity, keys,
};

/// Processes named in the evidence.
const NAMED: usize = 8;

/// The diagnosis.
#[derive(Default)]
pub(super) struct NoListener;

impl Diagnosis for NoListener {
    const KIND: FindingKind = FindingKind {
        code: "no-listener",
        opens_when: "SYNs arrive for a port that nobody listens on",
        page: include_str!("../../../docs/findings/no-listener.md"),
        observations: &["no-listener"],
        tracepoint_tier: "the same holds since 5.17; before, it is not seen.",
        causes: &[
            CauseRule {
                code: "never-listened",
                means: "no process listens on that port, at any address, in any namespace, and none has in this one since the tracer started",
                certain: Some("SYNs found no socket, and the listeners of every namespace were looked up"),
                likely: Some("SYNs found no socket, and some namespaces or processes could not be looked at"),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "`listener-exited`",
                        by: "no listener of that port was closed while it was traced",
                    },
                    Apart { from: "a firewall that rejects", by: "the SYN reached TCP, and found no socket" },
                ],
            },
            CauseRule {
                code: "listener-exited",
                means: "a process listened there while the tracer ran, and its listener is closed",
                certain: Some("its close was observed, and SYNs found no socket"),
                likely: Some("the same, and some namespaces could not be looked at"),
                possible: None,
                told_apart: &[Apart { from: "`never-listened`", by: "its listener had been seen" }],
            },
            CauseRule {
                code: "wrong-address",
                means: "a process listens on that port, at another address",
                certain: Some("SYNs found no socket, and that listener is in the same namespace"),
                likely: Some("the same, and some namespaces could not be looked at"),
                possible: None,
                told_apart: &[Apart {
                    from: "`other-family`",
                    by: "the listener speaks the family that was called",
                }],
            },
            CauseRule {
                code: "other-device",
                means: "a process listens on that port and address, bound to a device or VRF that the SYNs did not come by",
                certain: Some(
                    "SYNs found no socket and came by one device, and the listener at that address is bound to another one (or the SYNs came by a VRF, the listener is bound to none, and `net.ipv4.tcp_l3mdev_accept` is 0)",
                ),
                likely: Some("the same, and some namespaces could not be looked at"),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "`wrong-address`",
                        by: "the listener's address takes the one that was called",
                    },
                    Apart {
                        from: "`listener-started`: the listener came after the SYNs",
                        by: "by its device it would not have taken them",
                    },
                ],
            },
            CauseRule {
                code: "listener-started",
                means: "a process listens there now, and did not when the SYNs came",
                certain: None,
                likely: Some("SYNs found no socket, and a listener that takes them was found a moment later"),
                possible: None,
                told_apart: &[
                    Apart { from: "`other-device`", by: "the listener takes what comes by the SYNs' device" },
                    Apart {
                        from: "a packet that was redirected or steered by a program",
                        by: "nothing: the listener's start was not observed, which is why it is not certain",
                    },
                ],
            },
            CauseRule {
                code: "other-family",
                means: "a process listens on that port, for the other address family",
                certain: Some("SYNs found no socket, and that listener is in the same namespace"),
                likely: Some("the same, and some namespaces could not be looked at"),
                possible: None,
                told_apart: &[Apart {
                    from: "`wrong-address`",
                    by: "the listener does not take the family that was called",
                }],
            },
            CauseRule {
                code: "other-netns",
                means: "a process listens on that port in another network namespace",
                certain: None,
                likely: None,
                possible: Some("SYNs found no socket here, and that listener is elsewhere"),
                told_apart: &[Apart {
                    from: "another service that uses the same port there",
                    by: "nothing: whether it is the one that was meant, the caller knows",
                }],
            },
        ],
        evidence: &[
            keys::AT_LEAST,
            keys::DEVICE,
            keys::HOLDERS,
            keys::INCOMPLETE,
            keys::PEERS,
            keys::REQUESTER,
            keys::number("syns", "SYNs that arrived"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    type Key = AbsentKey;
    type Memory = Vrf;

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<AbsentKey>> {
        match change {
            Change::NoListener(key) => Some(Concern::Happened(*key)),
            _ => None,
        }
    }

    fn begin(&mut self, _key: &AbsentKey, _world: &Correlator) -> Vrf {
        Vrf::default()
    }

    fn observe(&mut self, key: &AbsentKey, vrf: &mut Vrf, _change: &Change, world: &Correlator) {
        let Some(absent) = world.absent(*key) else { return };
        let account = Account { key: *key, absent, vrf: *vrf, world };
        vrf.kept_apart |= account.is_kept_apart_by_vrf();
    }

    fn describe(&self, key: &AbsentKey, vrf: &Vrf, world: &Correlator) -> Option<Description> {
        let absent = world.absent(*key)?;
        Some(Account { key: *key, absent, vrf: *vrf, world }.describe())
    }
}

/// What a VRF did to the SYNs. To let its connections through afterwards makes of the listener none that was started since.
#[derive(Clone, Copy, Default)]
pub(super) struct Vrf {
    kept_apart: bool,
}

/// Why nobody answers at that address.
enum Cause<'a> {
    /// Somebody listens at that address, for what comes by another device.
    OtherDevice(&'a ReportedListener),
    /// Somebody listens at that address now: since then.
    ListenerStarted(&'a ReportedListener),
    /// Somebody listens at another address of the namespace.
    WrongAddress(&'a ReportedListener),
    /// Somebody listens for the other address family.
    OtherFamily(&'a ReportedListener),
    /// Somebody did.
    ListenerExited(&'a Former),
    /// Somebody listens in another namespace.
    OtherNetns(&'a ReportedListener),
    /// Nobody, as far as is known.
    NeverListened,
}

struct Account<'a> {
    key: AbsentKey,
    absent: &'a Absent,
    vrf: Vrf,
    world: &'a Correlator,
}

impl Account<'_> {
    /// Whether a client on this host sends its SYNs again, and was never refused: the kernel counts an RST also where it finds no way
    /// for it.
    fn rst_is_lost(&self) -> bool {
        let waits = |destination: &Destination| {
            destination.server_side == Some(ServerSide::NoListener(self.key))
                && destination.most_syns_again >= 1
                && destination.totals().refused == 0
        };
        self.world.destinations().any(|(_, destination)| waits(destination))
    }

    fn cause(&self) -> Cause<'_> {
        let (netns, _) = self.key;
        let called = self.absent.address();
        let elsewhere = self.absent.elsewhere(netns);
        let here = elsewhere.iter().find(|l| l.netns == netns);
        if let (Some(listener), Some(called)) = (here, called) {
            return if listener.takes(called) && self.keeps_apart(listener) {
                Cause::OtherDevice(listener)
            } else if listener.takes(called) {
                Cause::ListenerStarted(listener)
            } else if listener.speaks(called) {
                Cause::WrongAddress(listener)
            } else {
                Cause::OtherFamily(listener)
            };
        }
        if let Some(former) = self.world.former_listener(self.key) {
            return Cause::ListenerExited(former);
        }
        match elsewhere.first() {
            Some(listener) => Cause::OtherNetns(listener),
            None => Cause::NeverListened,
        }
    }

    /// Whether a listener does not take what comes by the device that the SYNs came by (`inet_bound_dev_eq()`).
    fn keeps_apart(&self, listener: &ReportedListener) -> bool {
        let Some(device) = self.device_of_syns() else { return listener.device != 0 };
        if listener.device != 0 {
            return listener.device != device;
        }
        // Packets of a VRF's devices come by the VRF.
        self.is_vrf(device) && (self.vrf.kept_apart || self.l3mdev_accept() != Some(true))
    }

    /// Whether the SYNs came by a VRF, and a listener outside of it was not to take them.
    fn is_kept_apart_by_vrf(&self) -> bool {
        let by_vrf = self.device_of_syns().is_some_and(|device| self.is_vrf(device));
        by_vrf && matches!(self.cause(), Cause::OtherDevice(listener) if listener.device == 0)
    }

    /// The device that the kernel compares with a listener's: the one that the SYNs came by. What a host sends to an address of
    /// its own comes by the loopback device, and counts as come by the device that has the address, which is not known here.
    fn device_of_syns(&self) -> Option<u32> {
        let is_own = self.absent.is_called_from_here()
            && self.absent.address().is_some_and(|called| !called.ip().to_canonical().is_loopback());
        self.absent.device().filter(|_| !is_own)
    }

    fn is_vrf(&self, device: u32) -> bool {
        self.world.device(self.key.0, device).is_some_and(Device::is_vrf)
    }

    fn l3mdev_accept(&self) -> Option<bool> {
        self.world.namespace(self.key.0)?.knobs.l3mdev_accept
    }

    /// What kind of thing a device is, and its name: `VRF red`, `device srv0`.
    fn device(&self, index: u32) -> String {
        let kind = if self.is_vrf(index) { "VRF" } else { "device" };
        let name = self.world.device_name(self.key.0, index).unwrap_or_else(|| "another one".to_owned());
        if name.starts_with(kind) { name } else { format!("{kind} {name}") }
    }

    /// The device that the SYNs came by.
    fn came_by(&self) -> String {
        if let (None, Some(called)) = (self.device_of_syns(), self.absent.address())
            && self.absent.is_called_from_here()
        {
            return format!("the device that has {} (this host calls itself)", called.ip());
        }
        match self.absent.device() {
            Some(1) => "the loopback device (this host calls itself)".to_owned(),
            Some(device) => self.device(device),
            None => "another device".to_owned(),
        }
    }

    /// Why a listener at the address that is called does not take the connection, and what to do.
    fn other_device(&self, l: &ReportedListener) -> (String, Vec<Remedy>) {
        let (who, came_by) = (self.name(l), self.came_by());
        if l.device == 0 {
            let value = if self.l3mdev_accept() == Some(true) { "1 by now" } else { "0" };
            let explanation = format!(
                "{who} listens on {}, bound to no device, and the SYNs came by {came_by}: a listener outside of a VRF takes its \
                 connections only with net.ipv4.tcp_l3mdev_accept=1 (it is {value})",
                l.local
            );
            let process = of_reported(l, self.world).process;
            let vrf = self.absent.device().and_then(|device| self.world.device_name(l.netns, device));
            return (
                explanation,
                vec![
                    Remedy::command(
                        "let listeners without a device take the connections of every VRF",
                        sysctl(self.key.0, process.as_ref(), "net.ipv4.tcp_l3mdev_accept=1"),
                    ),
                    Remedy::text(format!(
                        "or start {who} in the VRF: ip vrf exec {} COMMAND",
                        vrf.unwrap_or_else(|| "VRF".to_owned())
                    )),
                ],
            );
        }
        let bound = self.device(l.device);
        let explanation = format!(
            "{who} listens on {}, bound to {bound} alone (SO_BINDTODEVICE), and the SYNs came by {came_by}",
            l.local
        );
        let outside = if self.is_vrf(l.device) { "outside of the VRF" } else { "without the device" };
        let remedy = vec![
            Remedy::text(format!("call it by an address that leads in through {bound}")),
            Remedy::text(format!(
                "or have it listen {outside} (systemd: BindToDevice=), bound to an address instead"
            )),
            Remedy::text(format!("or have it listen a second time, for {came_by}")),
        ];
        (explanation, remedy)
    }

    fn describe(&self) -> Description {
        let (netns, port) = self.key;
        let cause = self.cause();
        let called = self.absent.address();
        let place = called.map_or_else(|| format!("port {port}"), |called| called.to_string());
        let for_device = match &cause {
            Cause::OtherDevice(_) => format!(" for what comes by {}", self.came_by()),
            _ => String::new(),
        };
        let incomplete = self.absent.report.as_ref().and_then(|report| report.incomplete.clone());
        let elsewhere = |l: &ReportedListener| format!("{} listens on {}", self.name(l), l.local);
        let one = |text: String| vec![Remedy::text(text)];
        let (code, explanation, remedy) = match &cause {
            Cause::OtherDevice(l) => {
                let (explanation, remedy) = self.other_device(l);
                ("other-device", explanation, remedy)
            }
            Cause::ListenerStarted(l) => (
                "listener-started",
                format!("{} now, and did not when the SYNs came", elsewhere(l)),
                one("start the server before its clients, or let them try again".to_owned()),
            ),
            // What is on a loopback address can be called from its own namespace alone.
            Cause::WrongAddress(l) if l.local.ip().is_loopback() && !self.absent.is_called_from_here() => (
                "wrong-address",
                format!(
                    "{}, which only processes of its own network namespace can call; the SYNs came from outside",
                    elsewhere(l)
                ),
                one(format!("have it listen on {place} as well (or on all addresses)")),
            ),
            Cause::WrongAddress(l) => (
                "wrong-address",
                format!("{}, and not on the address that is called", elsewhere(l)),
                one(format!("call {}, or have it listen on {place} as well (or on all addresses)", l.local)),
            ),
            Cause::OtherFamily(l) => (
                "other-family",
                format!(
                    "{}, which does not take {} connections",
                    elsewhere(l),
                    if l.local.is_ipv6() { "IPv4" } else { "IPv6" }
                ),
                one(format!("call {}, or have it listen for both address families", l.local)),
            ),
            Cause::ListenerExited(former) => {
                let who = ProcessName::of_owners(&former.owners, self.world.processes());
                let how = if former.exiting == Some(true) { "until it ended" } else { "until it closed it" };
                (
                    "listener-exited",
                    format!(
                        "{who} listened on {} {how} {} ago ({})",
                        former.local,
                        span(self.world.now().since(former.closed)),
                        former.closed
                    ),
                    one("start it again, and find out why it went: log, exit status, the kernel's log (OOM killer)"
                        .to_owned()),
                )
            }
            Cause::OtherNetns(l) => (
                "other-netns",
                format!("{}, but in another network namespace ({})", elsewhere(l), l.netns),
                one("publish the port (container port mapping, hostNetwork), or call that namespace's address"
                    .to_owned()),
            ),
            Cause::NeverListened => (
                "never-listened",
                "no process listens on that port, at any address, in any namespace, and none has in this one since the tracer started"
                    .to_owned(),
                one("start the service, or call the port that it is on".to_owned()),
            ),
        };
        let rst_is_lost = self.rst_is_lost();
        let explanation = if rst_is_lost {
            format!(
                "{explanation}. The RST that would tell the client so does not reach it: the called address is none of this host's own (TPROXY, a route of type local), or something drops it"
            )
        } else {
            explanation
        };
        let requester = self.requester();
        // Somebody who tries a port where nothing ever was may just be looking around; and who calls localhost by both
        // families is served by the other.
        let harmless = match cause {
            Cause::NeverListened => requester.is_none(),
            Cause::OtherFamily(_) => called.is_some_and(|called| called.ip().is_loopback()),
            _ => false,
        };
        Description {
            severity: if harmless { Severity::Info } else { Severity::Warning },
            confidence: match cause {
                // Another container may just use the same port.
                Cause::OtherNetns(_) => Confidence::Possible,
                // It was not seen to be started.
                Cause::ListenerStarted(_) => Confidence::Likely,
                // Then it was led here, as a rule to a proxy, which is not at this port.
                _ if rst_is_lost => Confidence::Likely,
                _ if incomplete.is_some() => Confidence::Likely,
                _ => Confidence::Certain,
            },
            title: format!(
                "nobody listens on {place}{for_device}: {}",
                if rst_is_lost {
                    count(self.absent.total, "SYN meets no socket", "SYNs meet no socket")
                } else {
                    count(self.absent.total, "SYN is answered by RST", "SYNs are answered by RST")
                }
            ),
            subject: Party {
                kind: "port",
                address: called,
                port: Some(port),
                netns: Some(netns),
                ..Party::default()
            },
            cause: code,
            numbers: self.numbers(requester.as_ref()),
            evidence: Evidence::new()
                .with("syns", self.absent.total)
                .with_some("at_least", self.absent.at_least.then_some(true))
                .with("peers", self.absent.peers.count())
                .with_some(
                    "device",
                    self.absent.device().and_then(|device| self.world.device_name(netns, device)),
                )
                .with_some("requester", requester)
                .with("holders", self.holders(&cause))
                .with_some("incomplete", incomplete)
                .with("why", explanation.as_str()),
            remedy,
            explanation,
        }
    }

    fn numbers(&self, requester: Option<&Party>) -> Vec<String> {
        let who = requester.map_or_else(String::new, |party| format!(", among them {party}"));
        vec![format!(
            "{}{} from {}{who}",
            // The kernel side may have counted more since.
            if self.absent.at_least { "at least " } else { "" },
            count(self.absent.total, "SYN", "SYNs"),
            count(self.absent.peers.count(), "address", "addresses"),
        )]
    }

    /// A process of this host that calls.
    fn requester(&self) -> Option<Party> {
        let task = self.absent.clients.first()?;
        Some(Party {
            kind: "process",
            process: Some(ProcessName::of_task(task, self.world.processes())),
            ..Party::default()
        })
    }

    /// Who listens elsewhere, or did here.
    fn holders(&self, cause: &Cause<'_>) -> Vec<Party> {
        if let Cause::ListenerExited(former) = cause {
            return vec![Party {
                kind: "listener",
                address: Some(former.local),
                netns: Some(self.key.0),
                process: Some(ProcessName::of_owners(&former.owners, self.world.processes())),
                ..Party::default()
            }];
        }
        let elsewhere = self.absent.elsewhere(self.key.0);
        elsewhere.into_iter().take(NAMED).map(|l| of_reported(l, self.world)).collect()
    }

    fn name(&self, listener: &ReportedListener) -> String {
        of_reported(listener, self.world).process.map_or_else(String::new, |process| process.to_string())
    }
}

/// A listener that was looked up.
pub(super) fn of_reported(listener: &ReportedListener, world: &Correlator) -> Party {
    let mut owners = crate::correlate::Owners::default();
    for owner in &listener.owners {
        owners.found(owner, OwnerConfidence::Likely);
    }
    Party {
        kind: "listener",
        address: Some(listener.local),
        device: world.device_name(listener.netns, listener.device),
        netns: Some(listener.netns),
        process: Some(ProcessName::of_owners(&owners, world.processes())),
        ..Party::default()
    }
}

#[cfg(test)]
mod tests;
