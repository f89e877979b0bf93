//! connect-refused: connects of this host's processes are refused, by RST or by an ICMP message.

use std::time::Duration;

use crate::correlate::{Change, DestinationKey};

use super::case::Description;
use super::destination::{Account, Trouble, others, subject};
use super::no_listener::of_reported;
use super::words::count;
use super::{Apart, CauseRule, Confidence, Evidence, FindingKind, Remedy, Severity, keys};

/// The diagnosis.
#[derive(Default)]
pub(super) struct ConnectRefused;

impl Trouble for ConnectRefused {
    const KIND: FindingKind = FindingKind {
        code: "connect-refused",
        opens_when: "connects of this host's processes are refused, again and again",
        page: include_str!("../../../docs/findings/connect-refused.md"),
        observations: &["connect-end"],
        tracepoint_tier: "the same holds.",
        causes: &[
            CauseRule {
                code: "no-listener",
                means: "the SYN was answered by RST",
                certain: None,
                likely: Some("the RST was seen, and no listener of this host has the address and port"),
                possible: None,
                told_apart: &[
                    Apart {
                        from: "a firewall of this host that rejects with RST",
                        by: "netfilter was not seen to drop the SYN, and no listener of this host has the address",
                    },
                    Apart {
                        from: "a firewall elsewhere that rejects with RST",
                        by: "nothing on this host: it looks the same; the destination's own rules would tell",
                    },
                    Apart {
                        from: "a connect that gets no answer",
                        by: "an RST came: see `syn-unanswered` for time-outs",
                    },
                ],
            },
            CauseRule {
                code: "reject",
                means: "a firewall rejects: an ICMP message refused the port, or this host dropped the SYN and answered it",
                certain: Some(
                    "the ICMP error was seen on each connecting socket, where a closed port is answered by RST; or this host's \
                 netfilter was seen to drop the very SYN that was refused",
                ),
                likely: Some(
                    "the RST was seen, though a listener of this host has that address and port; or some connects were answered by RST \
                     and more refused by ICMP",
                ),
                possible: None,
                told_apart: &[Apart {
                    from: "a closed port",
                    by: "TCP answers a closed port with RST, never with ICMP; and a SYN that netfilter drops meets no port",
                }],
            },
        ],
        evidence: &[
            keys::number("by_icmp", "connects refused by an ICMP message"),
            keys::number("by_rst", "connects refused by RST"),
            keys::CLIENTS,
            keys::number("refused", "connects refused"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(10);

    fn happened(change: &Change) -> Option<DestinationKey> {
        match change {
            Change::Refused(key) => Some(*key),
            _ => None,
        }
    }

    fn describe(account: &Account<'_>) -> Description {
        account.refused()
    }
}

impl Account<'_> {
    fn refused(&self) -> Description {
        let subject = subject(self.key, self.destination, self.world);
        let by_icmp = self.destination.refused_by_icmp;
        let (cause, confidence, explanation) = self.why_refused();
        let process = subject.process.as_ref().map_or_else(|| "a process".to_owned(), ToString::to_string);
        let refused = self.totals.refused + by_icmp;
        Description {
            severity: Severity::Warning,
            confidence,
            title: format!("{process} is refused by {}", self.key.remote),
            cause,
            numbers: vec![format!(
                "{}: {} by RST, {by_icmp} by ICMP",
                count(refused, "connect refused", "connects refused"),
                self.totals.refused
            )],
            evidence: Evidence::new()
                .with("refused", refused)
                .with("by_rst", self.totals.refused)
                .with("by_icmp", by_icmp)
                .with("clients", others(self.destination, self.world))
                .with("why", explanation.clone()),
            remedy: vec![Remedy::text(if cause == "reject" {
                "look for the rule that rejects, on the destination and on the way there; this is no time-out and no closed port"
            } else {
                "look on the destination whether the service runs, and at which address and port it listens; this is no time-out: \
                 the way there and back works"
            })],
            explanation,
            subject,
        }
    }
}

impl Account<'_> {
    fn why_refused(&self) -> (&'static str, Confidence, String) {
        if self.destination.rejected_here {
            return (
                "reject",
                Confidence::Certain,
                "this host itself drops the SYN, and answers it: a rule of its firewall rejects (see handshake-dropped); whether \
                 a service listens does not matter"
                    .to_owned(),
            );
        }
        // A connect whose RST the kernel's tracepoint did not show ends like one that ICMP refuses: one among others that were
        // answered by RST says nothing.
        let (by_icmp, by_rst) = (self.destination.refused_by_icmp, self.totals.refused);
        if by_icmp > 0 && by_rst == 0 {
            return (
                "reject",
                Confidence::Certain,
                "an ICMP message refuses the port, where a closed port would be answered by RST: a firewall rejects".to_owned(),
            );
        }
        if by_icmp > by_rst {
            return (
                "reject",
                Confidence::Likely,
                "ICMP messages refuse the port, where a closed port would be answered by RST: a firewall rejects, though some connects \
                 were answered by RST"
                    .to_owned(),
            );
        }
        if let Some(here) = &self.destination.here {
            let listener = of_reported(&here.listener, self.world);
            return (
                "reject",
                Confidence::Likely,
                format!(
                    "the SYN is answered by RST, though {listener} of this host has that address: a firewall rejects with RST, or \
                     the listener has only just come"
                ),
            );
        }
        (
            "no-listener",
            Confidence::Likely,
            "the SYN is answered by RST: no process listens there; a firewall that rejects with RST looks the same from here"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests;
