//! Where a network namespace sends packets for an address: one `RTM_GETROUTE` request, so that the kernel itself decides,
//! policy rules and all. Nothing is sent on the network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::netns::{Netns, NetnsError, in_netns};

/// The kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The address is one of the namespace's own.
    Local,
    /// Out of a device.
    Unicast {
        /// The neighbour it goes to; `None` for an address on the link.
        gateway: Option<IpAddr>,
        /// Index of the device.
        device: u32,
        /// Source address that the kernel would take.
        source: Option<IpAddr>,
    },
    /// A broadcast or multicast address: TCP does not go there.
    NotUnicast,
    /// There is none, or one that leads nowhere.
    Nowhere(Nowhere),
}

/// Why packets go nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nowhere {
    /// No route matches (ENETUNREACH).
    NoRoute,
    /// A blackhole route: dropped without a word (EINVAL).
    Blackhole,
    /// An unreachable route (EHOSTUNREACH).
    Unreachable,
    /// A prohibit route (EACCES).
    Prohibit,
}

impl Nowhere {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::Blackhole => "blackhole-route",
            Self::Unreachable => "unreachable-route",
            Self::Prohibit => "prohibit-route",
        }
    }
}

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// rtnetlink failed.
    #[error("cannot ask network namespace {netns} for the route to {to}: {source}")]
    Ask {
        /// The namespace.
        netns: u32,
        /// The address asked for.
        to: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

const HEADER: usize = 16;
const RTMSG: usize = 12;

/// The route that `netns` has to `to`.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel not be asked. That there is no route is an answer.
pub fn route(netns: &Netns, to: IpAddr) -> Result<Route, RouteError> {
    route_by(netns, to, None)
}

/// The route that `netns` has to `to` by a device: link-local addresses have one each.
///
/// # Errors
/// As for [`route`].
pub fn route_by(netns: &Netns, to: IpAddr, device: Option<u32>) -> Result<Route, RouteError> {
    let ask = || -> io::Result<Route> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        send(netlink.as_raw_fd(), &request(to, device), MsgFlags::empty())?;
        let mut reply = vec![0; 8192];
        let length = recv(netlink.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        answer(reply.get(..length).unwrap_or_default())
    };
    in_netns(netns, ask)?.map_err(|source| RouteError::Ask { netns: netns.id(), to, source })
}

fn request(to: IpAddr, device: Option<u32>) -> Vec<u8> {
    let (family, bytes) = match to {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let bits = u8::try_from(bytes.len() * 8).unwrap_or_default();
    let mut body = vec![u8::try_from(family).unwrap_or_default(), bits];
    body.resize(RTMSG, 0);
    body.extend(u16::try_from(4 + bytes.len()).unwrap_or_default().to_ne_bytes());
    body.extend(libc::RTA_DST.to_ne_bytes());
    body.extend(bytes);
    if let Some(device) = device {
        body.extend(8_u16.to_ne_bytes());
        body.extend(libc::RTA_OIF.to_ne_bytes());
        body.extend(device.to_ne_bytes());
    }
    let mut message = Vec::new();
    message.extend(u32::try_from(HEADER + body.len()).unwrap_or_default().to_ne_bytes());
    message.extend(libc::RTM_GETROUTE.to_ne_bytes());
    message.extend(u16::try_from(libc::NLM_F_REQUEST).unwrap_or_default().to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one request a socket
    message.extend(body);
    message
}

pub(crate) fn answer(reply: &[u8]) -> io::Result<Route> {
    let strange =
        || io::Error::new(io::ErrorKind::InvalidData, "the kernel answered rtnetlink with something else");
    let kind = reply
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes)
        .ok_or_else(strange)?;
    let body = reply.get(HEADER..).ok_or_else(strange)?;
    if i32::from(kind) == libc::NLMSG_ERROR {
        let code = body
            .get(..4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(i32::from_ne_bytes)
            .ok_or_else(strange)?;
        return match code.saturating_neg() {
            libc::ENETUNREACH => Ok(Route::Nowhere(Nowhere::NoRoute)),
            libc::EHOSTUNREACH => Ok(Route::Nowhere(Nowhere::Unreachable)),
            libc::EACCES => Ok(Route::Nowhere(Nowhere::Prohibit)),
            // Requests are well-formed: fib_result of a blackhole is EINVAL (fib_props in fib_semantics.c).
            libc::EINVAL => Ok(Route::Nowhere(Nowhere::Blackhole)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        };
    }
    if kind != libc::RTM_NEWROUTE {
        return Err(strange());
    }
    let route_type = *body.get(7).ok_or_else(strange)?;
    let (mut gateway, mut device, mut source) = (None, 0, None);
    let mut rest = body.get(RTMSG..).unwrap_or_default();
    while let Some((kind, value, after)) = attribute(rest) {
        match kind {
            libc::RTA_GATEWAY => gateway = address(value),
            libc::RTA_PREFSRC => source = address(value),
            libc::RTA_OIF => device = value.try_into().map(u32::from_ne_bytes).unwrap_or(0),
            _ => {}
        }
        rest = after;
    }
    Ok(match route_type {
        libc::RTN_LOCAL => Route::Local,
        libc::RTN_UNICAST => Route::Unicast { gateway, device, source },
        // IPv6 answers with the route itself instead of an error.
        libc::RTN_BLACKHOLE => Route::Nowhere(Nowhere::Blackhole),
        libc::RTN_UNREACHABLE => Route::Nowhere(Nowhere::NoRoute),
        libc::RTN_PROHIBIT => Route::Nowhere(Nowhere::Prohibit),
        _ => Route::NotUnicast,
    })
}

fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
    let value = bytes.get(4..length)?;
    Some((kind, value, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;
    use proptest::prelude::*;

    #[test]
    fn a_namespace_with_nothing_but_lo() {
        let Some(netns) = private_netns() else { return };
        let to = |address: &str| route(&netns, address.parse().unwrap()).unwrap();
        assert_eq!(to("127.0.0.1"), Route::Local);
        assert_eq!(to("::1"), Route::Local);
        assert_eq!(to("192.0.2.1"), Route::Nowhere(Nowhere::NoRoute));
        assert_eq!(to("2001:db8::1"), Route::Nowhere(Nowhere::NoRoute));
    }

    #[test]
    fn routes_that_lead_nowhere_say_how() {
        let Some(netns) = private_netns() else { return };
        let ip = |arguments: &str| {
            let arguments: Vec<&str> = arguments.split(' ').collect();
            in_netns(&netns, || {
                std::process::Command::new("ip")
                    .args(&arguments)
                    .status()
                    .is_ok_and(|status| status.success())
            })
            .unwrap()
        };
        for (address, kind, expected) in [
            ("192.0.2.1", "blackhole", Nowhere::Blackhole),
            ("192.0.2.2", "unreachable", Nowhere::Unreachable),
            ("192.0.2.3", "prohibit", Nowhere::Prohibit),
            ("2001:db8::1", "blackhole", Nowhere::Blackhole),
            ("2001:db8::3", "prohibit", Nowhere::Prohibit),
        ] {
            if !ip(&format!("route add {kind} {address}")) {
                println!("skipped: no iproute2");
                return;
            }
            assert_eq!(
                route(&netns, address.parse().unwrap()).unwrap(),
                Route::Nowhere(expected),
                "{address} {kind}"
            );
        }
        assert!(ip("route add 198.51.100.0/24 dev lo"));
        assert!(matches!(
            route(&netns, "198.51.100.7".parse().unwrap()).unwrap(),
            Route::Unicast { gateway: None, device: 1, .. }
        ));
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&bytes);
        }
    }
}
