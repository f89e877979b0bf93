//! Every word that kernels from 5.17 to 7.2 have for dropping a packet that a handshake can meet.

use crate::event::Packet;

use super::DropCause;

/// The highest number that stands for no reason at all, in every release.
pub(super) const NAMELESS: u32 = 2;

/// Which of a handshake's packets a reason loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any of them.
    Any,
    /// SYNs only: for other packets it is what sockets do with what comes twice or late.
    Syns,
    /// None: the packet is a copy, or another finding reports it.
    None,
}

impl Scope {
    pub(super) fn includes(self, packet: Packet) -> bool {
        match self {
            Self::Any => true,
            Self::Syns => packet == Packet::Syn,
            Self::None => false,
        }
    }
}

/// A word of the kernel's.
#[derive(Clone, Copy, Debug)]
pub struct DropReason {
    /// The word, without `SKB_DROP_REASON_`.
    pub name: &'static str,
    /// What it is reported as; `None` for what is no loss.
    pub cause: Option<DropCause>,
    /// Which packets it loses.
    pub hits: Scope,
    /// What it means, to follow "because".
    pub means: &'static str,
}

const fn any(name: &'static str, cause: DropCause, means: &'static str) -> DropReason {
    DropReason { name, cause: Some(cause), hits: Scope::Any, means }
}

const fn syns(name: &'static str, cause: DropCause, means: &'static str) -> DropReason {
    DropReason { name, cause: Some(cause), hits: Scope::Syns, means }
}

const fn none(name: &'static str, means: &'static str) -> DropReason {
    DropReason { name, cause: None, hits: Scope::None, means }
}

/// The reason of that name.
pub(super) fn find(name: &str) -> Option<&'static DropReason> {
    REASONS.iter().find(|reason| reason.name == name)
}

use DropCause as C;

/// All of them, in the kernel's order (`include/net/dropreason-core.h`).
pub const REASONS: &[DropReason] = &[
    none("NOT_DROPPED_YET", "it was not dropped"),
    none("CONSUMED", "it was used up"),
    none("SKB_NOT_DROPPED_YET", "it was not dropped"),
    none("SKB_CONSUMED", "it was used up"),
    none("NO_SOCKET", "no socket waits for it; no-listener reports it"),
    none("SOCKET_CLOSE", "the socket is being closed"),
    any(
        "SOCKET_FILTER",
        C::SocketFilter,
        "a filter attached to the socket, or to its control group, discards it",
    ),
    any("SOCKET_RCVBUFF", C::NoMemory, "the socket's receive buffer is full"),
    none("UNIX_DISCONNECT", "a Unix socket was disconnected"),
    none("UNIX_SKIP_OOB", "a Unix socket skipped it"),
    any("PKT_TOO_SMALL", C::Checksum, "it is shorter than its headers say"),
    any("TCP_CSUM", C::Checksum, "its TCP checksum is wrong"),
    none("UDP_CSUM", "a wrong UDP checksum"),
    any("NETFILTER_DROP", C::Netfilter, "netfilter dropped it"),
    none("OTHERHOST", "it is addressed to another host on the link, and was seen in passing"),
    any("IP_CSUM", C::Checksum, "its IP checksum is wrong"),
    any("IP_INHDR", C::Checksum, "its IP header is malformed"),
    any("IP_RPFILTER", C::RpFilter, "the way back to its sender does not go by the device it came in by"),
    any(
        "UNICAST_IN_L2_MULTICAST",
        C::BadAddress,
        "it came in a multicast or broadcast frame, though it is for one host",
    ),
    any("XFRM_POLICY", C::Ipsec, "an IPsec policy demands that it be encrypted, or forbids it"),
    any("IP_NOPROTO", C::Unknown, "no protocol is registered for it"),
    any("PROTO_MEM", C::NoMemory, "TCP's memory is used up (net.ipv4.tcp_mem)"),
    any("TCP_AUTH_HDR", C::Ao, "its authentication options are malformed, or both MD5 and AO are present"),
    any(
        "TCP_MD5NOTFOUND",
        C::Md5,
        "it carries no MD5 signature, and the socket has an MD5 key for this peer",
    ),
    any(
        "TCP_MD5UNEXPECTED",
        C::Md5,
        "it carries an MD5 signature, and the socket has no MD5 key for this peer",
    ),
    any("TCP_MD5FAILURE", C::Md5, "its MD5 signature does not match the socket's key for this peer"),
    any(
        "TCP_AONOTFOUND",
        C::Ao,
        "it carries no TCP-AO signature, and the socket has a TCP-AO key for this peer",
    ),
    any(
        "TCP_AOUNEXPECTED",
        C::Ao,
        "it carries a TCP-AO signature, and the socket has no TCP-AO key for this peer",
    ),
    any("TCP_AOKEYNOTFOUND", C::Ao, "the socket has no TCP-AO key with the identifier that it carries"),
    any("TCP_AOFAILURE", C::Ao, "its TCP-AO signature does not match the socket's key for this peer"),
    none("SOCKET_BACKLOG", "a process has the socket locked, and too much waits for it"),
    syns("TCP_FLAGS", C::Checksum, "its TCP flags make no sense together"),
    none("TCP_ABORT_ON_DATA", "data came for a closed socket"),
    none("TCP_ZEROWINDOW", "the window is closed"),
    none("TCP_OLD_DATA", "it came twice"),
    none("TCP_OVERWINDOW", "it is beyond the window"),
    none("TCP_OFOMERGE", "it came twice"),
    syns(
        "TCP_RFC7323_PAWS",
        C::OldConnection,
        "its time stamp is older than those of an earlier connection from the same address and port (PAWS)",
    ),
    none("TCP_RFC7323_PAWS_ACK", "an old ACK"),
    syns(
        "TCP_RFC7323_TW_PAWS",
        C::OldConnection,
        "its time stamp is older than those of the connection in TIME_WAIT between the same addresses and ports (PAWS)",
    ),
    none("TCP_RFC7323_TSECR", "an echoed time stamp that was never sent"),
    none("TCP_LISTEN_OVERFLOW", "the accept queue is full; accept-queue-overflow reports it"),
    syns(
        "TCP_OLD_SEQUENCE",
        C::OldConnection,
        "its sequence number is older than those of the connection that still exists between the same addresses and ports",
    ),
    syns(
        "TCP_INVALID_SEQUENCE",
        C::OldConnection,
        "its sequence number does not fit the connection that still exists between the same addresses and ports",
    ),
    syns(
        "TCP_INVALID_END_SEQUENCE",
        C::OldConnection,
        "its sequence number does not fit the connection that still exists between the same addresses and ports",
    ),
    none("TCP_INVALID_ACK_SEQUENCE", "an ACK of something else"),
    none("TCP_RESET", "an RST"),
    syns(
        "TCP_INVALID_SYN",
        C::OldConnection,
        "a connection still exists between the same addresses and ports: it is answered by a challenge ACK",
    ),
    none("TCP_CLOSE", "the socket is closed"),
    none("TCP_FASTOPEN", "a Fast Open socket does not expect it yet"),
    none("TCP_OLD_ACK", "an old ACK"),
    none("TCP_TOO_OLD_ACK", "an old ACK"),
    none("TCP_ACK_UNSENT_DATA", "an ACK of what was never sent"),
    none("TCP_OFO_QUEUE_PRUNE", "data out of order, for which there is no room"),
    none("TCP_OFO_DROP", "data out of order"),
    any("IP_OUTNOROUTES", C::NoRoute, "this host has no route for it"),
    any("BPF_CGROUP_EGRESS", C::CgroupFilter, "a BPF program of the sender's control group forbids it"),
    any("IPV6DISABLED", C::Ipv6Disabled, "IPv6 is switched off on the device (disable_ipv6=1)"),
    any("NEIGH_CREATEFAIL", C::NeighbourTable, "the neighbour table has no room for the next hop"),
    any("NEIGH_FAILED", C::Neighbour, "no host answers for the next hop's address on the link"),
    any(
        "NEIGH_QUEUEFULL",
        C::Neighbour,
        "the next hop's address is not resolved yet, and too much waits for it",
    ),
    any("NEIGH_DEAD", C::Neighbour, "the next hop's entry was removed while the packet waited"),
    any("NEIGH_HH_FILLFAIL", C::Device, "the link-layer header could not be made"),
    any("TC_EGRESS", C::TrafficControl, "a traffic control filter or BPF program drops it on its way out"),
    any("SECURITY_HOOK", C::SecurityModule, "a security module forbids it"),
    any("QDISC_DROP", C::Qdisc, "the queueing discipline of the device drops it"),
    any("QDISC_OVERLIMIT", C::Qdisc, "the queue of the device's queueing discipline is full"),
    any("QDISC_CONGESTED", C::Qdisc, "the device's queueing discipline drops it for congestion"),
    any("QDISC_BURST_DROP", C::Qdisc, "the device's queueing discipline drops it for a burst"),
    any("CAKE_FLOOD", C::Qdisc, "CAKE takes its flow for a flood"),
    any("FQ_BAND_LIMIT", C::Qdisc, "fq's band is full"),
    any("FQ_HORIZON_LIMIT", C::Qdisc, "fq was asked to send it too far in the future"),
    any("FQ_FLOW_LIMIT", C::Qdisc, "fq's limit for one flow is reached"),
    any("DUALPI2_STEP_DROP", C::Qdisc, "DualPI2 drops it for congestion"),
    any("CPU_BACKLOG", C::CpuBacklog, "the CPU's backlog of received packets is full"),
    any("XDP", C::Xdp, "an XDP program drops it"),
    any("TC_INGRESS", C::TrafficControl, "a traffic control filter or BPF program drops it as it comes in"),
    any("UNHANDLED_PROTO", C::Device, "nothing on the device takes packets of its kind"),
    any("SKB_CSUM", C::Checksum, "its checksum is wrong"),
    any("SKB_GSO_SEG", C::NoMemory, "it could not be cut into segments"),
    any("SKB_UCOPY_FAULT", C::NoMemory, "it could not be copied from a program's memory"),
    any("DEV_HDR", C::Device, "the device's header for it is malformed"),
    any("DEV_READY", C::Device, "the device is not ready: it is down, or its other end is"),
    any("FULL_RING", C::Device, "the device's ring is full: the program at its other end does not keep up"),
    any("NOMEM", C::NoMemory, "there is no memory"),
    any("HDR_TRUNC", C::Checksum, "its headers are cut off"),
    any("TAP_FILTER", C::Device, "a filter attached to the tap device drops it"),
    any("TAP_TXFILTER", C::Device, "the tap device's transmit filter drops it"),
    none("ICMP_CSUM", "a wrong ICMP checksum"),
    any("INVALID_PROTO", C::Checksum, "its protocol is not what its headers say"),
    any("IP_INADDRERRORS", C::NoRoute, "this host has no route for its destination"),
    any("IP_INNOROUTES", C::NoRoute, "this host has no route for its destination"),
    any(
        "IP_LOCAL_SOURCE",
        C::BadAddress,
        "it came in from the link with one of this host's own addresses as its source",
    ),
    any("IP_INVALID_SOURCE", C::BadAddress, "its source address is no address of a host"),
    any(
        "IP_LOCALNET",
        C::BadAddress,
        "it is for a loopback address and came in by a device where route_localnet is 0",
    ),
    any("IP_INVALID_DEST", C::BadAddress, "its destination address is no address of a host"),
    any("PKT_TOO_BIG", C::Device, "it is larger than the path's MTU"),
    any("DUP_FRAG", C::Checksum, "a fragment of it came twice"),
    any("FRAG_REASM_TIMEOUT", C::Checksum, "fragments of it did not come in time"),
    any("FRAG_TOO_FAR", C::Checksum, "its fragments are too far apart"),
    any(
        "TCP_MINTTL",
        C::MinTtl,
        "its TTL (hop limit) is less than the socket demands (IP_MINTTL, TTL security)",
    ),
    any("IPV6_BAD_EXTHDR", C::Checksum, "an IPv6 extension header of it is malformed"),
    none("IPV6_NDISC_FRAG", "neighbour discovery"),
    none("IPV6_NDISC_HOP_LIMIT", "neighbour discovery"),
    none("IPV6_NDISC_BAD_CODE", "neighbour discovery"),
    none("IPV6_NDISC_BAD_OPTIONS", "neighbour discovery"),
    none("IPV6_NDISC_NS_OTHERHOST", "neighbour discovery"),
    none("QUEUE_PURGE", "the socket or device that held it is gone"),
    any("TC_COOKIE_ERROR", C::TrafficControl, "traffic control could not keep its place in the filters"),
    none("PACKET_SOCK_ERROR", "a capture had no room for its copy of it"),
    any("TC_CHAIN_NOTFOUND", C::TrafficControl, "traffic control was sent to a chain that does not exist"),
    any("TC_RECLASSIFY_LOOP", C::TrafficControl, "traffic control filters lead in a circle"),
    any("VXLAN_INVALID_HDR", C::Device, "its VXLAN header is malformed"),
    any("VXLAN_VNI_NOT_FOUND", C::Device, "no VXLAN device has its network identifier"),
    any("MAC_INVALID_SOURCE", C::Device, "its Ethernet source address is no address of a host"),
    any("VXLAN_ENTRY_EXISTS", C::Device, "a fixed VXLAN entry forbids its sender"),
    any("VXLAN_NO_REMOTE", C::Device, "VXLAN knows no remote end for it"),
    any("NO_TX_TARGET", C::Device, "the bridge or tunnel has nowhere to send it"),
    any("IP_TUNNEL_ECN", C::Device, "its ECN bits do not fit those of its tunnel"),
    any("TUNNEL_TXINFO", C::Device, "the tunnel was not told where to send it"),
    any("LOCAL_MAC", C::Device, "it has this host's own Ethernet address as its source"),
    any("ARP_PVLAN_DISABLE", C::Device, "ARP for private VLANs is off"),
    any("MAC_IEEE_MAC_CONTROL", C::Device, "its Ethernet destination is reserved for bridges"),
    any("BRIDGE_INGRESS_STP_STATE", C::Device, "the bridge's port is not forwarding yet (spanning tree)"),
    none("CAN_RX_INVALID_FRAME", "a CAN frame"),
    none("CANFD_RX_INVALID_FRAME", "a CAN frame"),
    none("CANXL_RX_INVALID_FRAME", "a CAN frame"),
    any("PFMEMALLOC", C::NoMemory, "memory is so short that only packets for swapping are taken"),
    any("PSP_INPUT", C::Ipsec, "PSP demands that it be encrypted, or the key is wrong"),
    any("PSP_OUTPUT", C::Ipsec, "PSP demands that it be encrypted"),
    any("RECURSION_LIMIT", C::Device, "devices are stacked in a circle"),
    any("BPF_CGROUP_INGRESS", C::CgroupFilter, "a BPF program of the receiver's control group forbids it"),
];
