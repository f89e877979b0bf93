//! A conflict in words.

use crate::correlate::{PortHolder, Reason, Verdict};
use crate::event::{Endpoints, How, SocketState};
use crate::finding::Party;
use crate::finding::party::at_device;
use crate::finding::words::{count, span};

use super::holder_kind::Kind;
use super::{Account, process_of};

impl Account<'_> {
    /// Which side lacks what.
    pub(super) fn why(&self, holder: &PortHolder, kind: Kind) -> String {
        let wanted = self.conflict.endpoints.local;
        let held = holder.endpoints.local;
        let place = if wanted.ip() == held.ip() {
            format!("both want {wanted}")
        } else if held.ip().is_unspecified() {
            format!(
                "{held} covers {wanted}{}",
                if kind == Kind::Wildcard { " too, without IPV6_V6ONLY" } else { "" }
            )
        } else if wanted.ip().is_unspecified() {
            format!("{wanted} covers {held}")
        } else {
            format!("{held} is in the way of {wanted}")
        };
        let place = if kind == Kind::Wildcard && !held.is_ipv6() {
            format!("{wanted} covers {held} too")
        } else {
            place
        };
        let place = format!("{place}{}", self.devices(holder));
        let reason = match holder.verdict {
            Verdict::Conflict(Reason::Listening { requester_reuseport, holder_reuseport }) => {
                let missing = lacks(requester_reuseport, holder_reuseport);
                format!(
                    "; a listener shares its port only with SO_REUSEPORT on both sides, which {missing}; \
                     SO_REUSEADDR does not help against a listener"
                )
            }
            Verdict::Conflict(Reason::NoReuse { requester_reuseaddr, holder_reuseaddr }) => {
                let missing = lacks(requester_reuseaddr, holder_reuseaddr);
                format!("; they could share the port with SO_REUSEADDR on both sides, which {missing}")
            }
            Verdict::Conflict(Reason::OtherUser) => {
                "; both have SO_REUSEPORT, but belong to different users".to_owned()
            }
            Verdict::Unreadable => "; the holder's socket options could not be read".to_owned(),
            Verdict::Compatible => {
                "; by the kernel's rule this holder should not be in the way: the one that was may be gone"
                    .to_owned()
            }
        };
        let state = match self.conflict.reuse_state {
            Some(_) if self.taken_by_connect() => {
                " (the kernel's entry for the port was made by connect())".to_owned()
            }
            Some(state) => format!(" (fastreuse {}, fastreuseport {})", state.fastreuse, state.fastreuseport),
            None => String::new(),
        };
        format!("{place}{reason}{state}")
    }

    /// What the devices of the two have to do with it.
    fn devices(&self, holder: &PortHolder) -> String {
        let netns = self.conflict.endpoints.netns;
        let name = |ends: &Endpoints| self.world.device_name(netns, ends.device);
        match (name(&self.conflict.endpoints), name(&holder.endpoints)) {
            (None, None) => String::new(),
            (Some(wanted), None) => {
                format!("; the holder is bound to no device and covers all of them, {wanted} as well")
            }
            (None, Some(held)) => {
                format!(
                    "; the requester is bound to no device and wants all of them, the holder's {held} as well"
                )
            }
            (Some(wanted), Some(held)) if wanted == held => format!("; both are bound to {held}"),
            (Some(wanted), Some(held)) => {
                format!("; the requester is bound to {wanted}, the holder to {held}")
            }
        }
    }

    /// Where a holder is, with its device.
    fn place(&self, holder: &PortHolder) -> String {
        let device = self.world.device_name(holder.endpoints.netns, holder.endpoints.device);
        at_device(holder.endpoints.local, device.as_deref())
    }

    /// An old connection, by whom and to whom.
    fn old_connection(&self, holder: &PortHolder) -> String {
        let whose = match &holder.taker {
            Some(taker) => format!(" of {}[{}]", self.world.processes().comm(taker), taker.pid),
            None => String::new(),
        };
        let peer = holder.endpoints.remote.map_or_else(String::new, |remote| format!(" to {remote}"));
        format!("an old connection{whose}{peer}")
    }

    pub(super) fn has_it(&self, holder: &PortHolder, kind: Kind, held: &Party) -> String {
        let who = process_of(held);
        let place = self.place(holder);
        match kind {
            Kind::EphemeralGrab if holder.endpoints.remote == Some(holder.endpoints.local) => {
                format!("{who} is connected to itself: its connect() was given the very port that it called")
            }
            Kind::EphemeralGrab => {
                let given = match holder.how {
                    How::Connect => "was given the port by connect()",
                    How::BindAny => "was given the port by bind() to port 0",
                    How::ListenAny => "was given the port by listen() without bind()",
                    How::Bind | How::Unknown if self.taken_by_connect() => "was given the port by connect()",
                    How::Bind | How::Unknown => "has it for a connection, probably given by the kernel",
                };
                match holder.endpoints.remote {
                    Some(remote) => format!("{who} {given} (connection to {remote})"),
                    None => format!("{who} {given}"),
                }
            }
            Kind::Listener => format!("{who} listens on {place}"),
            Kind::TimeWait => format!("{} is in TIME_WAIT", self.old_connection(holder)),
            Kind::FinWait if holder.state == SocketState::FinWait2 => format!(
                "{} is in FIN-WAIT-2: this side has closed it, and its peer has not",
                self.old_connection(holder)
            ),
            Kind::FinWait => format!(
                "{} is in FIN-WAIT-1: this side has closed it, and its peer has not acknowledged that",
                self.old_connection(holder)
            ),
            Kind::LastAck => format!(
                "{} is in {}: both sides have closed it, and its peer has not acknowledged the last step",
                self.old_connection(holder),
                if holder.state == SocketState::Closing { "CLOSING" } else { "LAST-ACK" }
            ),
            Kind::BoundSocket if holder.state == SocketState::Bound => {
                format!("{who} is bound to {place} (neither listening nor connected)")
            }
            Kind::BoundSocket => {
                let peer = holder.endpoints.remote.map_or_else(String::new, |remote| format!(" to {remote}"));
                let closed = match holder.state {
                    SocketState::CloseWait => {
                        "close-wait: the peer has closed it, and this process has not".to_owned()
                    }
                    state => state.to_string(),
                };
                format!("{who} has a connection{peer} on it ({closed})")
            }
            Kind::InheritedFd => {
                let from = self.heir_of(holder).map_or_else(String::new, |taker| {
                    format!(", inherited from {}[{}]", taker.comm, taker.pid)
                });
                format!("{who} holds the socket on {place}{from}")
            }
            Kind::Wildcard => format!("{who} has {place}, which covers the other address family"),
            Kind::KernelSocket => format!("a socket of the kernel itself has {place}"),
        }
    }

    pub(super) fn numbers(&self, holder: &PortHolder, held: &Party) -> Vec<String> {
        let mut facts = vec![format!("held by {held}: {}", holder.state)];
        let before = holder.since.map(|since| format!("{} before", span(self.conflict.last.since(since))));
        match (holder.how, before) {
            (How::Unknown, None) => {}
            (How::Unknown, Some(before)) => facts.push(format!("taken {before}")),
            (how, Some(before)) => facts.push(format!("taken by {} {before}", how.name())),
            (how, None) => facts.push(format!("taken by {}", how.name())),
        }
        if let Some(remote) = holder.endpoints.remote {
            facts.push(format!("peer {remote}"));
        }
        if let Some(left) = holder.time_wait_left_ms {
            let name = if holder.state == SocketState::FinWait2 { "FIN-WAIT-2" } else { "TIME_WAIT" };
            facts.push(format!("{} s of {name} left", left.div_ceil(1000)));
        }
        if holder.is_remnant() && holder.retransmits > 0 {
            facts.push(format!(
                "its last segment was sent again {}",
                count(holder.retransmits.into(), "time", "times")
            ));
        }
        let mut lines = vec![facts.join(", ")];
        let others = self.conflict.holders.len().saturating_sub(1);
        let others = others.max(usize::try_from(self.conflict.holders_met).unwrap_or(0).saturating_sub(1));
        if others > 0 {
            lines.push(format!("{others} more on the same port"));
        }
        lines.push(self.attempts_in_words());
        lines
    }

    pub(super) fn attempts_in_words(&self) -> String {
        let conflict = self.conflict;
        let tries = count(self.attempts, "attempt", "attempts");
        let options = conflict.options;
        format!(
            "{tries} by uid {}, options {options}, at {}()",
            conflict.requester.uid,
            conflict.stage.call()
        )
    }
}

fn lacks(requester: bool, holder: bool) -> &'static str {
    match (requester, holder) {
        (false, false) => "both lack",
        (false, true) => "the requester lacks",
        (true, false) => "the holder lacks",
        (true, true) => "both have",
    }
}
