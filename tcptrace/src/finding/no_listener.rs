//! no-listener: SYNs arrive for a port that nobody listens on, and are answered by RST.

use std::time::Duration;

use crate::correlate::{Absent, AbsentKey, Change, Correlator, Former};
use crate::event::{OwnerConfidence, ReportedListener};

use super::case::{Concern, Description, Diagnosis};
use super::words::{count, span};
use super::{Apart, CauseRule, Confidence, Evidence, Party, ProcessName, Remedy, Severity};

/// Processes named in the evidence.
const NAMED: usize = 8;

/// The diagnosis.
pub(super) struct NoListener;

impl Diagnosis for NoListener {
    const CODE: &'static str = "no-listener";
    const CAUSES: &'static [CauseRule] = &[
        CauseRule {
            code: "never-listened",
            means: "no process has listened there since the tracer started, at any address, in any namespace",
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
    ];
    const QUIET: Duration = Duration::from_secs(10);

    type Key = AbsentKey;
    type Memory = ();

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<AbsentKey>> {
        match change {
            Change::NoListener(key) => Some(Concern::Happened(*key)),
            _ => None,
        }
    }

    fn begin(&mut self, _key: &AbsentKey, _world: &Correlator) {}

    fn observe(&mut self, _key: &AbsentKey, _memory: &mut (), _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &AbsentKey, _memory: &(), world: &Correlator) -> Option<Description> {
        let absent = world.absent(*key)?;
        Some(Account { key: *key, absent, world }.describe())
    }
}

/// Why nobody answers at that address.
enum Cause<'a> {
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
    world: &'a Correlator,
}

impl Account<'_> {
    fn cause(&self) -> Cause<'_> {
        let (netns, _) = self.key;
        let called = self.absent.address();
        let elsewhere = self.absent.elsewhere(netns);
        let here = elsewhere.iter().find(|l| l.netns == netns);
        if let (Some(listener), Some(called)) = (here, called) {
            return if listener.speaks(called) {
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

    fn describe(&self) -> Description {
        let (netns, port) = self.key;
        let cause = self.cause();
        let called = self.absent.address();
        let place = called.map_or_else(|| format!("port {port}"), |called| called.to_string());
        let incomplete = self.absent.report.as_ref().and_then(|report| report.incomplete.clone());
        let elsewhere = |l: &ReportedListener| format!("{} listens on {}", self.name(l), l.local);
        let (code, explanation, remedy) = match &cause {
            Cause::WrongAddress(l) => (
                "wrong-address",
                format!("{}, and not on the address that is called", elsewhere(l)),
                format!("call {}, or have it listen on {place} too (or on all addresses)", l.local),
            ),
            Cause::OtherFamily(l) => (
                "other-family",
                format!(
                    "{}, which does not take {} connections",
                    elsewhere(l),
                    if l.local.is_ipv6() { "IPv4" } else { "IPv6" }
                ),
                format!("call {}, or have it listen for both address families", l.local),
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
                    "start it again, and find out why it went: its log, its exit status, the kernel's log (OOM killer)"
                        .to_owned(),
                )
            }
            Cause::OtherNetns(l) => (
                "other-netns",
                format!("{}, but in another network namespace ({})", elsewhere(l), l.netns),
                "publish the port (container port mapping, hostNetwork), or call the address of that namespace"
                    .to_owned(),
            ),
            Cause::NeverListened => (
                "never-listened",
                "nobody has listened on that port since the tracer started, at any address, in any namespace"
                    .to_owned(),
                "start the service, or call the port that it is on".to_owned(),
            ),
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
                _ if incomplete.is_some() => Confidence::Likely,
                _ => Confidence::Certain,
            },
            title: format!(
                "nobody listens on {place}: {}",
                count(self.absent.total, "SYN is", "SYNs are").to_owned() + " answered by RST"
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
                .with_some("requester", requester)
                .with("holders", self.holders(&cause))
                .with_some("incomplete", incomplete)
                .with("why", explanation.as_str()),
            remedy: vec![Remedy::text(remedy)],
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
        netns: Some(listener.netns),
        process: Some(ProcessName::of_owners(&owners, world.processes())),
        ..Party::default()
    }
}

#[cfg(test)]
mod tests;
