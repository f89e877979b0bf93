//! What every socket has: ends, state, options.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use tcptrace_common::port;

/// Address family of a socket; not that of its packets: an IPv6 listener takes IPv4 connections too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`.
    #[default]
    V4,
    /// `AF_INET6`.
    V6,
}

impl Family {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// The kernel's number.
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// From the kernel's number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            2 => Some(Self::V4),
            10 => Some(Self::V6),
            _ => None,
        }
    }
}

/// The ends of a socket, and where they mean something.
///
/// IPv4-mapped IPv6 addresses are given as the IPv4 addresses that they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoints {
    /// Network namespace: inode number of `/proc/PID/ns/net`.
    pub netns: u32,
    /// Family of the socket.
    pub family: Family,
    /// Local end; port 0 where none is bound.
    pub local: SocketAddr,
    /// Remote end, if there is one.
    pub remote: Option<SocketAddr>,
    /// Index of the device that the socket is bound to; 0 for none.
    pub device: u32,
}

impl Endpoints {
    /// The local end of a socket without a remote one, not bound to a device.
    pub fn local_only(netns: u32, family: Family, local: SocketAddr) -> Self {
        Self { netns, family, local: canonical(local), remote: None, device: 0 }
    }
}

/// `address` with an IPv4-mapped IPv6 address written as IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An address as the wire has it (IPv4 mapped into IPv6), for a socket of `family`. An IPv4 socket has no IPv6 address:
/// all zero then is `0.0.0.0`.
pub(super) fn address(bytes: [u8; 16], family: Family) -> IpAddr {
    match Ipv6Addr::from(bytes).to_canonical() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if family == Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        address => address,
    }
}

/// State of a TCP socket, as users know it; with the kernel's numbers (`include/net/tcp_states.h`), which are part of its user
/// interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum SocketState {
    /// Connected.
    Established = 1,
    /// SYN sent, not answered yet.
    SynSent = 2,
    /// SYN received, handshake not complete.
    SynRecv = 3,
    /// Closed here, FIN not acknowledged yet.
    #[serde(rename = "fin-wait-1")]
    FinWait1 = 4,
    /// Closed here, FIN acknowledged, the peer has not closed.
    #[serde(rename = "fin-wait-2")]
    FinWait2 = 5,
    /// Closed on both sides; goes on holding its port for up to 60 s. Belongs to no process.
    TimeWait = 6,
    /// Neither listening nor connected: a socket that holds a port in this state is bound only.
    Bound = 7,
    /// The peer has closed, this side has not.
    CloseWait = 8,
    /// Closed on both sides, the last FIN not acknowledged yet.
    LastAck = 9,
    /// Listening.
    Listen = 10,
    /// Closed by both sides at the same time.
    Closing = 11,
    /// A number that this version does not know.
    Unknown = u8::MAX,
}

impl SocketState {
    /// From the kernel's number. 12 is a half-open request, which sock_diag and users call like its state on the wire.
    pub fn from_kernel(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            // 13 is the pseudo state under which sock_diag lists bound-only sockets.
            7 | 13 => Self::Bound,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => Self::Unknown,
        }
    }

    /// Name in output: `time-wait`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn-sent",
            Self::SynRecv => "syn-recv",
            Self::FinWait1 => "fin-wait-1",
            Self::FinWait2 => "fin-wait-2",
            Self::TimeWait => "time-wait",
            Self::Bound => "bound",
            Self::CloseWait => "close-wait",
            Self::LastAck => "last-ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a socket in this state has, or had, a connection: its port is then part of a 4-tuple.
    pub fn is_connected(self) -> bool {
        !matches!(self, Self::Bound | Self::Listen | Self::Unknown)
    }
}

impl fmt::Display for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Options of a socket that decide whether two may share a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SocketOptions(u8);

impl SocketOptions {
    /// None set.
    pub const NONE: Self = Self(0);

    /// From a bit set of `tcptrace_common::port::OPT_*`.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bit set.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// SO_REUSEADDR.
    pub const fn reuseaddr(self) -> bool {
        self.0 & port::OPT_REUSEADDR != 0
    }

    /// SO_REUSEPORT.
    pub const fn reuseport(self) -> bool {
        self.0 & port::OPT_REUSEPORT != 0
    }

    /// IPV6_V6ONLY.
    pub const fn v6only(self) -> bool {
        self.0 & port::OPT_V6ONLY != 0
    }

    /// IP_FREEBIND.
    pub const fn freebind(self) -> bool {
        self.0 & port::OPT_FREEBIND != 0
    }

    /// IP_TRANSPARENT.
    pub const fn transparent(self) -> bool {
        self.0 & port::OPT_TRANSPARENT != 0
    }

    /// IP_BIND_ADDRESS_NO_PORT.
    pub const fn late_port(self) -> bool {
        self.0 & port::OPT_LATE_PORT != 0
    }
}

impl SocketOptions {
    /// Names of those that are set, as in setsockopt(2).
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let names = [
            (self.reuseaddr(), "SO_REUSEADDR"),
            (self.reuseport(), "SO_REUSEPORT"),
            (self.v6only(), "IPV6_V6ONLY"),
            (self.freebind(), "IP_FREEBIND"),
            (self.transparent(), "IP_TRANSPARENT"),
            (self.late_port(), "IP_BIND_ADDRESS_NO_PORT"),
        ];
        names.into_iter().filter(|(set, _)| *set).map(|(_, name)| name)
    }
}

/// Names as in setsockopt(2), blank-separated; `none` for none.
impl fmt::Display for SocketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for name in self.names() {
            if !first {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
            first = false;
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4_and_wildcards_keep_their_family() {
        let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets();
        assert_eq!(address(mapped, Family::V6), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(address([0; 16], Family::V6), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        assert_eq!(address([0; 16], Family::V4), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn options_print_as_in_the_manual() {
        assert_eq!(SocketOptions::NONE.to_string(), "none");
        assert_eq!(SocketOptions::from_bits(0b101).to_string(), "SO_REUSEADDR IPV6_V6ONLY");
    }

    #[test]
    fn states_are_named_alike_in_text_and_json() {
        for number in 0..=13 {
            let state = SocketState::from_kernel(number);
            assert_eq!(crate::output::json_text(&state), format!("\"{state}\""));
        }
    }
}
