//! The ways in which a host drops handshakes, and what is true of each before it is played.

use std::net::IpAddr;

use crate::rehearse::actor::Guard;
use crate::rehearse::incident::Variant;

/// A way in which a host drops handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    QueueUnread,
    QueueOut,
    TrackedDrop,
    ConntrackFull,
    Md5,
    MinTtl,
    SocketFilter,
    CgroupIn,
    CgroupOut,
    RejectReset,
    RejectIcmp,
    NeighbourSilent,
    NeighbourTable,
    XdpGeneric,
    XdpDriver,
    Qdisc,
}

pub(super) const KINDS: [(Kind, Variant); 16] = [
    (
        Kind::QueueUnread,
        variant("queue-unread", "a rule sends the SYNs to a netfilter queue that no program reads"),
    ),
    (Kind::QueueOut, variant("queue-out", "the same for the client's SYNs as they go out")),
    (
        Kind::TrackedDrop,
        variant(
            "tracked-drop",
            "a rule drops the SYNs, while connections are tracked and the table has room",
        ),
    ),
    (
        Kind::ConntrackFull,
        variant(
            "conntrack-full",
            "the connection tracking table is full (on a machine without devices only)",
        ),
    ),
    (Kind::Md5, variant("md5", "the listener has a TCP MD5 key for the client, which signs nothing")),
    (Kind::MinTtl, variant("min-ttl", "the listener demands the highest TTL")),
    (Kind::SocketFilter, variant("socket-filter", "the listener has a socket filter that takes nothing")),
    (Kind::CgroupIn, variant("cgroup-in", "a BPF program of the server's control group drops what comes in")),
    (
        Kind::CgroupOut,
        variant("cgroup-out", "a BPF program of the client's control group drops what goes out"),
    ),
    (
        Kind::RejectReset,
        variant("reject-reset", "the host's own firewall answers by RST, though the server listens"),
    ),
    (
        Kind::RejectIcmp,
        variant("reject-icmp", "the host's own firewall answers by ICMP, though the server listens"),
    ),
    (Kind::NeighbourSilent, variant("neighbour-silent", "no host answers for twelve addresses on the link")),
    (
        Kind::NeighbourTable,
        variant("neighbour-table", "the neighbour table is full (on a machine without devices only)"),
    ),
    (
        Kind::XdpGeneric,
        variant("xdp-generic", "an XDP program drops the SYNs, where the kernel gives a reason"),
    ),
    (
        Kind::XdpDriver,
        variant(
            "xdp-driver",
            "an XDP program drops the SYNs in the driver of the server's device, without a trace",
        ),
    ),
    (
        Kind::Qdisc,
        variant("qdisc", "the queueing discipline of the client's device drops the SYNs as they go out"),
    ),
];

const fn variant(name: &'static str, summary: &'static str) -> Variant {
    Variant { name, summary }
}

impl Kind {
    /// The one that a variant is called by.
    pub(super) fn of(name: &str) -> Self {
        KINDS.iter().find(|(_, variant)| variant.name == name).map_or(Self::QueueUnread, |(kind, _)| *kind)
    }

    /// The kernel's word without which such a drop cannot be told.
    pub(super) fn needs_word(self) -> Option<&'static str> {
        match self {
            Self::Md5 => Some("TCP_MD5NOTFOUND"),
            Self::MinTtl => Some("TCP_MINTTL"),
            Self::SocketFilter | Self::CgroupIn => Some("SOCKET_FILTER"),
            Self::XdpGeneric => Some("XDP"),
            Self::Qdisc => Some("QDISC_DROP"),
            _ => None,
        }
    }

    /// Whether the client is in the namespace that is traced.
    pub(super) fn client_is_traced(self) -> bool {
        matches!(
            self,
            Self::QueueOut
                | Self::CgroupOut
                | Self::RejectReset
                | Self::RejectIcmp
                | Self::NeighbourSilent
                | Self::NeighbourTable
                | Self::XdpDriver
                | Self::Qdisc
        )
    }

    /// Whether there is a server at all.
    pub(super) fn has_server(self) -> bool {
        self != Self::NeighbourSilent
    }

    /// Whether the server is on the far side.
    pub(super) fn server_is_far(self) -> bool {
        matches!(
            self,
            Self::QueueOut | Self::CgroupOut | Self::NeighbourTable | Self::XdpDriver | Self::Qdisc
        )
    }

    /// What has the listening socket discard its clients' packets.
    pub(super) fn guard(self, client: IpAddr) -> Option<Guard> {
        match self {
            Self::Md5 => Some(Guard::Md5 { peer: client }),
            Self::MinTtl => Some(Guard::MinTtl),
            Self::SocketFilter => Some(Guard::Filter),
            _ => None,
        }
    }
}
