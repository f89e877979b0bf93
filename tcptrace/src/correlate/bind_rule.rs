//! Whether two sockets may have the same port: the kernel's rule (`inet_bind_conflict()` and `inet_rcv_saddr_equal()`).
//!
//! The kernel only says EADDRINUSE. Asking the rule about each holder tells which of them is in the way, and why.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::event::{Family, SocketOptions, SocketState};

/// One side of the question. Options and user are `None` where they could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Its local end.
    pub local: SocketAddr,
    /// Family of the socket.
    pub family: Family,
    /// Device that it is bound to; 0 for none.
    pub device: u32,
    /// Its state.
    pub state: SocketState,
    /// Its options.
    pub options: Option<SocketOptions>,
    /// IPV6_V6ONLY, which may be known when the other options are not.
    pub v6only: bool,
    /// Its user.
    pub uid: Option<u32>,
}

/// What the rule says about a requester and a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They conflict, for this reason.
    Conflict(Reason),
    /// They may conflict: the holder's options could not be read.
    Unreadable,
    /// They do not conflict: it is not this holder that is in the way.
    Compatible,
}

/// Why they conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The holder listens, which SO_REUSEADDR does not help against; SO_REUSEPORT is missing somewhere.
    Listening {
        /// The requester has SO_REUSEPORT.
        requester_reuseport: bool,
        /// The holder has it.
        holder_reuseport: bool,
    },
    /// SO_REUSEADDR is missing somewhere, and so is SO_REUSEPORT.
    NoReuse {
        /// The requester has SO_REUSEADDR.
        requester_reuseaddr: bool,
        /// The holder has it.
        holder_reuseaddr: bool,
    },
    /// Both have SO_REUSEPORT but belong to different users.
    OtherUser,
}

/// What the kernel says when `requester` wants the port of `holder`.
pub(crate) fn verdict(requester: &Side, holder: &Side) -> Verdict {
    let devices_meet = requester.device == 0 || holder.device == 0 || requester.device == holder.device;
    if !devices_meet || !addresses_meet(requester, holder) {
        return Verdict::Compatible;
    }
    let (Some(wants), Some(has)) = (requester.options, holder.options) else { return Verdict::Unreadable };
    let listening = holder.state == SocketState::Listen;
    if wants.reuseaddr() && has.reuseaddr() && !listening {
        return Verdict::Compatible;
    }
    if wants.reuseport() && has.reuseport() {
        if holder.state == SocketState::TimeWait {
            return Verdict::Compatible;
        }
        return match (requester.uid, holder.uid) {
            (Some(ours), Some(theirs)) if ours == theirs => Verdict::Compatible,
            (Some(_), Some(_)) => Verdict::Conflict(Reason::OtherUser),
            _ => Verdict::Unreadable,
        };
    }
    Verdict::Conflict(if listening {
        Reason::Listening { requester_reuseport: wants.reuseport(), holder_reuseport: has.reuseport() }
    } else {
        Reason::NoReuse { requester_reuseaddr: wants.reuseaddr(), holder_reuseaddr: has.reuseaddr() }
    })
}

/// What the kernel compares for an IPv6 socket where an IPv4 address is asked for (`LOOPBACK4_IPV6`), unless its IPv6 address
/// is the wildcard.
const IPV6_AS_IPV4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// Whether the local addresses are equal, or a wildcard of one covers the other (`inet_rcv_saddr_equal()`).
fn addresses_meet(requester: &Side, holder: &Side) -> bool {
    let v6only = |side: &Side| side.family == Family::V6 && side.v6only;
    let same_or_wildcard = |a: Ipv4Addr, b: Ipv4Addr| a == b || a.is_unspecified() || b.is_unspecified();
    match (requester.local.ip(), holder.local.ip()) {
        // An address that is IPv4, mapped or not.
        (IpAddr::V4(wanted), IpAddr::V4(held)) => same_or_wildcard(wanted, held) && !v6only(holder),
        (IpAddr::V4(_), IpAddr::V6(held)) if held.is_unspecified() => !v6only(holder),
        // Only an AF_INET requester is compared so.
        (IpAddr::V4(wanted), IpAddr::V6(_)) => {
            requester.family == Family::V4 && !v6only(holder) && same_or_wildcard(wanted, IPV6_AS_IPV4)
        }
        (IpAddr::V6(wanted), IpAddr::V4(_)) => wanted.is_unspecified() && !v6only(requester),
        (IpAddr::V6(wanted), IpAddr::V6(held)) => {
            wanted == held || wanted.is_unspecified() || held.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REUSEADDR: u8 = 1;
    const REUSEPORT: u8 = 2;
    const V6ONLY: u8 = 4;

    fn side(local: &str, family: Family, state: SocketState, options: u8) -> Side {
        Side {
            local: local.parse().unwrap(),
            family,
            device: 0,
            state,
            options: Some(SocketOptions::from_bits(options)),
            v6only: options & V6ONLY != 0,
            uid: Some(1000),
        }
    }

    fn v4(local: &str, options: u8) -> Side {
        side(local, Family::V4, SocketState::Bound, options)
    }

    fn v6(local: &str, options: u8) -> Side {
        side(local, Family::V6, SocketState::Bound, options)
    }

    fn conflict(requester: Side, holder: Side) -> bool {
        matches!(verdict(&requester, &holder), Verdict::Conflict(_))
    }

    #[test]
    fn addresses() {
        assert!(conflict(v4("0.0.0.0:80", 0), v4("10.0.0.1:80", 0)));
        assert!(conflict(v4("10.0.0.1:80", 0), v4("0.0.0.0:80", 0)));
        assert!(!conflict(v4("10.0.0.1:80", 0), v4("10.0.0.2:80", 0)));
        // Across families.
        assert!(conflict(v4("0.0.0.0:80", 0), v6("[::]:80", 0)));
        assert!(conflict(v4("10.0.0.1:80", 0), v6("[::]:80", 0)));
        assert!(!conflict(v4("0.0.0.0:80", 0), v6("[::]:80", V6ONLY)));
        assert!(conflict(v6("[::]:80", 0), v4("10.0.0.1:80", 0)));
        assert!(!conflict(v6("[::]:80", V6ONLY), v4("10.0.0.1:80", 0)));
        assert!(!conflict(v6("[fd00::1]:80", V6ONLY), v4("0.0.0.0:80", 0)));
        // An IPv6 client, which is not v6only, blocks the IPv4 wildcard.
        assert!(conflict(v4("0.0.0.0:80", 0), v6("[fd00::1]:80", 0)));
        assert!(!conflict(v4("10.0.0.1:80", 0), v6("[fd00::1]:80", 0)));
        // IPv6 among itself.
        assert!(conflict(v6("[::]:80", V6ONLY), v6("[::]:80", 0)));
        assert!(conflict(v6("[fd00::1]:80", 0), v6("[::]:80", V6ONLY)));
        assert!(!conflict(v6("[fd00::1]:80", 0), v6("[fd00::2]:80", 0)));
        // Mapped: an IPv6 socket at an IPv4 address.
        assert!(conflict(v6("10.0.0.1:80", 0), v4("0.0.0.0:80", 0)));
        assert!(!conflict(v6("10.0.0.1:80", 0), v6("[fd00::1]:80", 0)));
        assert!(conflict(v6("10.0.0.1:80", 0), v6("[::]:80", 0)));
    }

    #[test]
    fn devices() {
        let on = |device| Side { device, ..v4("0.0.0.0:80", 0) };
        assert!(conflict(on(0), on(2)) && conflict(on(2), on(2)) && !conflict(on(2), on(3)));
    }

    #[test]
    fn reuseaddr_needs_both_and_no_listener() {
        let holder = |state, options| side("0.0.0.0:80", Family::V4, state, options);
        let asks = |options| v4("0.0.0.0:80", options);
        for state in [SocketState::Bound, SocketState::Established, SocketState::TimeWait] {
            assert!(!conflict(asks(REUSEADDR), holder(state, REUSEADDR)));
            let reason = Reason::NoReuse { requester_reuseaddr: true, holder_reuseaddr: false };
            assert_eq!(verdict(&asks(REUSEADDR), &holder(state, 0)), Verdict::Conflict(reason));
            assert!(conflict(asks(0), holder(state, REUSEADDR)));
        }
        let reason = Reason::Listening { requester_reuseport: false, holder_reuseport: false };
        assert_eq!(
            verdict(&asks(REUSEADDR), &holder(SocketState::Listen, REUSEADDR)),
            Verdict::Conflict(reason)
        );
    }

    #[test]
    fn reuseport_needs_both_and_the_same_user() {
        let holder = |state, uid| Side { uid, ..side("0.0.0.0:80", Family::V4, state, REUSEPORT) };
        let asks = v4("0.0.0.0:80", REUSEPORT);
        assert_eq!(verdict(&asks, &holder(SocketState::Listen, Some(1000))), Verdict::Compatible);
        assert_eq!(
            verdict(&asks, &holder(SocketState::Listen, Some(0))),
            Verdict::Conflict(Reason::OtherUser)
        );
        assert_eq!(verdict(&asks, &holder(SocketState::TimeWait, None)), Verdict::Compatible);
        assert_eq!(verdict(&asks, &holder(SocketState::Listen, None)), Verdict::Unreadable);
        assert!(conflict(v4("0.0.0.0:80", 0), holder(SocketState::Listen, Some(1000))));
    }

    #[test]
    fn unknown_options_are_said_to_be_unknown() {
        let holder = Side { options: None, ..v4("0.0.0.0:80", 0) };
        assert_eq!(verdict(&v4("0.0.0.0:80", 0), &holder), Verdict::Unreadable);
        assert_eq!(
            verdict(&v4("10.0.0.1:80", 0), &Side { local: "10.0.0.2:80".parse().unwrap(), ..holder }),
            Verdict::Compatible
        );
    }
}
