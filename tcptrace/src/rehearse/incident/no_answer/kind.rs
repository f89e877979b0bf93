//! The reasons for which a server does not answer, and what is true of each before anybody plays it.

use crate::rehearse::incident::Variant;

/// A reason for which a server does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ClosedPort,
    ListenerExited,
    WrongAddress,
    OtherFamily,
    OtherDevice,
    OtherDeviceHere,
    OtherVrf,
    OtherNetns,
    InputDrop,
    OutputDrop,
    IptablesInput,
    IptablesOutput,
    SynAckDrop,
    AckDrop,
    Reject,
    Unreachable,
    RpFilter,
    Checksum,
    NoWayBack,
    Blackhole,
    SynQueue,
    AcceptQueue,
    Stopped,
    Upstream,
    FarClosedPort,
    Published,
    PublishedGone,
    Redirected,
    RedirectedGone,
    Balanced,
    BalancedGone,
    Transparent,
    TransparentGone,
    RoutedToLoopback,
}

/// All of them, with their variants: the n-th is played on the n-th port.
pub(super) const KINDS: [(Kind, Variant); 34] = [
    (Kind::ClosedPort, variant("closed-port", "nobody has ever listened on the port")),
    (Kind::ListenerExited, variant("listener-exited", "the server was ended a moment ago")),
    (Kind::WrongAddress, variant("wrong-address", "the server listens on the loopback address only")),
    (Kind::OtherFamily, variant("other-family", "the server listens for the other address family")),
    (Kind::OtherNetns, variant("other-netns", "the server listens in another network namespace")),
    (Kind::InputDrop, variant("input-drop", "a firewall rule drops the SYNs as they come in")),
    (Kind::OutputDrop, variant("output-drop", "a firewall rule drops the client's SYNs as they go out")),
    (
        Kind::IptablesInput,
        variant("iptables-input", "a rule as iptables-nft makes it drops the SYNs in INPUT"),
    ),
    (
        Kind::IptablesOutput,
        variant("iptables-output", "a rule as iptables-nft makes it drops the client's SYNs in OUTPUT"),
    ),
    (Kind::SynAckDrop, variant("synack-drop", "a firewall rule drops the server's SYN-ACKs")),
    (Kind::AckDrop, variant("ack-drop", "a firewall rule drops the handshakes' last ACKs")),
    (Kind::Reject, variant("reject", "a firewall on the far side rejects by ICMP: port unreachable")),
    (Kind::Unreachable, variant("unreachable", "the far side says by ICMP that the host is unreachable")),
    (Kind::RpFilter, variant("rp-filter", "the reverse-path filter drops the SYNs (IPv4)")),
    (Kind::Checksum, variant("checksum", "the SYNs arrive with a wrong checksum")),
    (Kind::NoWayBack, variant("no-way-back", "the server's host has no route to the client")),
    (Kind::Blackhole, variant("blackhole", "the client's host has a blackhole route to the server")),
    (Kind::SynQueue, variant("syn-queue", "the server's SYN queue is full, without cookies")),
    (Kind::AcceptQueue, variant("accept-queue", "the server's accept queue is full")),
    (Kind::Stopped, variant("stopped", "the server's process is stopped (SIGSTOP)")),
    (Kind::Upstream, variant("upstream", "the SYNs are lost outside this host")),
    (Kind::FarClosedPort, variant("far-closed-port", "nobody listens on the far side")),
    (
        Kind::Published,
        variant("published", "the port is only translated to a server in another namespace, and works"),
    ),
    (
        Kind::PublishedGone,
        variant("published-gone", "the port is translated to another namespace, whose server was ended"),
    ),
    (Kind::OtherDevice, variant("other-device", "the server listens for the loopback device only")),
    (
        Kind::OtherDeviceHere,
        variant(
            "other-device-here",
            "the server listens for the link's device only, and is called from its own host",
        ),
    ),
    (Kind::OtherVrf, variant("other-vrf", "the server listens outside of the VRF that the SYNs come by")),
    (
        Kind::Redirected,
        variant(
            "redirected",
            "the port is only translated to another one of the same host, where a server works",
        ),
    ),
    (
        Kind::RedirectedGone,
        variant(
            "redirected-gone",
            "the port is translated to another one of the same host, whose server was ended",
        ),
    ),
    (
        Kind::Balanced,
        variant(
            "balanced",
            "the port is an IPVS service whose server is in another namespace, and works (IPv4)",
        ),
    ),
    (
        Kind::BalancedGone,
        variant(
            "balanced-gone",
            "the port is an IPVS service whose server in another namespace was ended (IPv4)",
        ),
    ),
    (
        Kind::Transparent,
        variant(
            "transparent",
            "a TPROXY rule leads the port to a transparent proxy on another port, which works",
        ),
    ),
    (
        Kind::TransparentGone,
        variant("transparent-gone", "a TPROXY rule leads the port to a transparent proxy that was ended"),
    ),
    (
        Kind::RoutedToLoopback,
        variant(
            "routed-to-loopback",
            "the called address is routed to the loopback device, and is none of this host's own (IPv4)",
        ),
    ),
];

const fn variant(name: &'static str, summary: &'static str) -> Variant {
    Variant { name, summary }
}

/// Where hardly anybody else on the host listens, in whatever namespace: that would be worth a word.
const FIRST_PORT: u16 = 18_077;

impl Kind {
    /// The one that a variant is called by.
    pub(super) fn of(name: &str) -> Option<Self> {
        KINDS.iter().find(|(_, variant)| variant.name == name).map(|(kind, _)| *kind)
    }

    /// What it is called by, and what it is.
    pub(super) fn variant(self) -> &'static Variant {
        // Every kind stands in the table: a test says so.
        KINDS.iter().find(|(kind, _)| *kind == self).map_or(&KINDS[0].1, |(_, variant)| variant)
    }

    /// The server's port: one for each, so that all can be played at once.
    pub(super) fn port(self) -> u16 {
        let ports = KINDS.iter().zip(FIRST_PORT..);
        ports.into_iter().find(|((kind, _), _)| *kind == self).map_or(FIRST_PORT, |(_, port)| port)
    }

    /// Whether it exists for IPv4 only.
    pub(super) fn is_ipv4_only(self) -> bool {
        // A route of IPv6 to the loopback device refuses what is sent by it.
        matches!(self, Self::RpFilter | Self::Balanced | Self::BalancedGone | Self::RoutedToLoopback)
    }

    /// Whether only a kernel that gives its reasons for dropping a packet can tell (from 5.17).
    pub(super) fn needs_reasons(self) -> bool {
        self == Self::Checksum
    }

    /// Whether the client is in the namespace that is traced; if not, it is on the far side.
    pub(super) fn client_is_traced(self) -> bool {
        match self {
            Self::ClosedPort
            | Self::ListenerExited
            | Self::OtherDeviceHere
            | Self::OtherNetns
            | Self::OutputDrop
            | Self::IptablesOutput
            | Self::Reject
            | Self::Unreachable
            | Self::Blackhole
            | Self::SynQueue
            | Self::AcceptQueue
            | Self::Stopped
            | Self::Upstream
            | Self::FarClosedPort
            | Self::Published
            | Self::PublishedGone
            | Self::Redirected
            | Self::RedirectedGone
            | Self::Balanced
            | Self::BalancedGone
            | Self::RoutedToLoopback => true,
            Self::WrongAddress
            | Self::OtherFamily
            | Self::OtherDevice
            | Self::OtherVrf
            | Self::InputDrop
            | Self::IptablesInput
            | Self::SynAckDrop
            | Self::AckDrop
            | Self::RpFilter
            | Self::Checksum
            | Self::NoWayBack
            | Self::Transparent
            | Self::TransparentGone => false,
        }
    }

    /// Whether the server is on the far side.
    pub(super) fn server_is_far(self) -> bool {
        matches!(
            self,
            Self::OtherNetns
                | Self::OutputDrop
                | Self::IptablesOutput
                | Self::Reject
                | Self::Unreachable
                | Self::Published
                | Self::PublishedGone
                | Self::Balanced
                | Self::BalancedGone
        )
    }

    /// Whether the client learns at once that there is no connection.
    pub(super) fn is_refused(self) -> bool {
        matches!(
            self,
            Self::ClosedPort
                | Self::ListenerExited
                | Self::WrongAddress
                | Self::OtherFamily
                | Self::OtherDevice
                | Self::OtherDeviceHere
                | Self::OtherVrf
                | Self::OtherNetns
                | Self::FarClosedPort
                | Self::PublishedGone
                | Self::RedirectedGone
                | Self::BalancedGone
                | Self::TransparentGone
        )
    }

    /// Whether it works only by a translation, for which the kernel tracks every connection of the namespace, or by what leads
    /// connections elsewhere without one (IPVS, TPROXY): it is not played beside the others.
    pub(super) fn is_translated(self) -> bool {
        matches!(
            self,
            Self::Published
                | Self::PublishedGone
                | Self::Redirected
                | Self::RedirectedGone
                | Self::Balanced
                | Self::BalancedGone
                | Self::Transparent
                | Self::TransparentGone
        )
    }

    /// Whether the connects succeed: the only server that is to serve.
    pub(super) fn works(self) -> bool {
        matches!(self, Self::Published | Self::Redirected | Self::Balanced | Self::Transparent)
    }

    /// Whether its server is ended before anybody calls.
    pub(super) fn loses_its_server(self) -> bool {
        matches!(
            self,
            Self::ListenerExited
                | Self::PublishedGone
                | Self::RedirectedGone
                | Self::BalancedGone
                | Self::TransparentGone
        )
    }

    /// What `tcptrace why` must answer.
    pub(super) fn verdict(self) -> &'static str {
        match self {
            Self::ClosedPort | Self::FarClosedPort | Self::PublishedGone | Self::BalancedGone => {
                "no-listener"
            }
            Self::Published | Self::Redirected | Self::Balanced | Self::Transparent => "answers",
            Self::ListenerExited | Self::RedirectedGone | Self::TransparentGone => "listener-exited",
            Self::WrongAddress => "wrong-address",
            Self::OtherFamily => "other-family",
            Self::OtherDevice | Self::OtherDeviceHere | Self::OtherVrf => "other-device",
            Self::OtherNetns => "other-netns",
            Self::InputDrop
            | Self::OutputDrop
            | Self::IptablesInput
            | Self::IptablesOutput
            | Self::SynAckDrop
            | Self::AckDrop
            | Self::RpFilter
            | Self::Checksum => "handshake-dropped",
            Self::NoWayBack => "no-route-back",
            Self::Reject => "refused",
            Self::Unreachable => "unreachable",
            Self::Blackhole => "blackhole-route",
            Self::SynQueue => "syn-queue-full",
            Self::AcceptQueue => "accept-queue-overflow",
            Self::Stopped => "process-stopped",
            Self::Upstream | Self::RoutedToLoopback => "no-answer",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_and_a_port_of_its_own() {
        let ports: BTreeSet<u16> = KINDS.iter().map(|(kind, _)| kind.port()).collect();
        assert_eq!(ports.len(), KINDS.len());
        for (kind, variant) in &KINDS {
            assert_eq!((Kind::of(variant.name), kind.variant().name), (Some(*kind), variant.name));
        }
    }
}
