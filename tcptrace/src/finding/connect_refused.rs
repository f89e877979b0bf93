//! connect-refused: connects of this host's processes are refused, by RST or by an ICMP message.

use std::time::Duration;

use crate::correlate::{Change, Correlator, Destination, DestinationKey};
use crate::event::ConnectTotals;

use super::case::{Concern, Description, Diagnosis};
use super::destination::{others, subject};
use super::words::count;
use super::{Confidence, Evidence, Remedy, Severity};

/// The diagnosis.
pub(super) struct ConnectRefused;

impl Diagnosis for ConnectRefused {
    const CODE: &'static str = "connect-refused";
    const QUIET: Duration = Duration::from_secs(10);

    type Key = DestinationKey;
    type Memory = ();

    fn concern(&self, change: &Change, _world: &Correlator) -> Option<Concern<DestinationKey>> {
        match change {
            Change::Refused(key) => Some(Concern::Happened(*key)),
            _ => None,
        }
    }

    fn begin(&mut self, _key: &DestinationKey, _world: &Correlator) {}

    fn observe(&mut self, _key: &DestinationKey, _memory: &mut (), _change: &Change, _world: &Correlator) {}

    fn describe(&self, key: &DestinationKey, _memory: &(), world: &Correlator) -> Option<Description> {
        let destination = world.destination(key)?;
        Some(Account { key, destination, totals: destination.totals(), world }.describe())
    }
}

struct Account<'a> {
    key: &'a DestinationKey,
    destination: &'a Destination,
    totals: ConnectTotals,
    world: &'a Correlator,
}

impl Account<'_> {
    fn describe(&self) -> Description {
        let subject = subject(self.key, self.destination, self.world);
        let by_icmp = self.destination.refused_by_icmp;
        let (cause, confidence, explanation) = if by_icmp > 0 {
            (
                "reject",
                Confidence::Certain,
                "an ICMP message refuses the port, where a closed port would be answered by RST: a firewall rejects",
            )
        } else {
            (
                "no-listener",
                Confidence::Likely,
                "the SYN is answered by RST: nobody listens there; a firewall that rejects with RST looks the same from here",
            )
        };
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
                .with("why", explanation),
            remedy: vec![Remedy::text(if by_icmp > 0 {
                "look for the rule that rejects, on the destination and on the way there; this is no time-out and no closed port"
            } else {
                "look on the destination whether the service runs, and at which address and port it listens; this is no time-out: \
                 the way there and back works"
            })],
            explanation: explanation.to_owned(),
            subject,
        }
    }
}

#[cfg(test)]
mod tests;
