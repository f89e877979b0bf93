//! Why a packet was dropped: from the kernel's own word for the reason (`enum skb_drop_reason`, whose numbers move every
//! release), from the function that dropped it where there is no word, and from what the host showed at that moment.

mod function;
mod table;

use crate::event::{DropFacts, HandshakeDrop, Packet, RuleDeed};

pub use table::{DropReason, REASONS};

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a packet was dropped, as far as findings tell it apart.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropCause {
            $($(#[$doc])* $name,)*
        }

        impl DropCause {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its code in output.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

causes! {
    /// A netfilter rule, or something else in netfilter that cannot be told from one.
    Netfilter = "netfilter",
    /// A rule that answers by RST or ICMP.
    Reject = "reject",
    /// Connection tracking has no room for a new entry.
    ConntrackFull = "conntrack-full",
    /// Connection tracking dropped it for another reason.
    ConntrackInvalid = "conntrack-invalid",
    /// A netfilter queue that no program reads.
    QueueUnread = "nfqueue-unread",
    /// A netfilter queue whose reader does not keep up.
    QueueFull = "nfqueue-full",
    /// The program that reads a netfilter queue said so.
    QueueVerdict = "nfqueue-verdict",
    /// The way back goes by another device.
    RpFilter = "rp-filter",
    /// A source or destination address that may not be there.
    BadAddress = "bad-address",
    /// A wrong checksum or header.
    Checksum = "checksum",
    /// There is no route, or one that goes nowhere.
    NoRoute = "no-route",
    /// IPv6 is switched off on the device.
    Ipv6Disabled = "ipv6-disabled",
    /// An IPsec policy.
    Ipsec = "ipsec-policy",
    /// The TCP MD5 signature is missing, unexpected or wrong.
    Md5 = "tcp-md5",
    /// The same for TCP-AO.
    Ao = "tcp-ao",
    /// TTL security.
    MinTtl = "min-ttl",
    /// A filter of the socket or of its control group.
    SocketFilter = "socket-filter",
    /// A BPF program of the control group.
    CgroupFilter = "cgroup-filter",
    /// A security module.
    SecurityModule = "security-module",
    /// A socket of an earlier connection between the same addresses and ports is still there.
    OldConnection = "old-connection",
    /// The neighbour table is full.
    NeighbourTable = "neighbour-table",
    /// The neighbour does not answer ARP or NDP.
    Neighbour = "neighbour-unresolved",
    /// A program or filter of traffic control.
    TrafficControl = "traffic-control",
    /// A queueing discipline.
    Qdisc = "qdisc",
    /// An XDP program.
    Xdp = "xdp",
    /// A CPU's backlog of received packets.
    CpuBacklog = "cpu-backlog",
    /// No memory.
    NoMemory = "no-memory",
    /// The device, or what it is made of.
    Device = "device",
    /// The tool does not know the kernel's word for it.
    Unknown = "unknown",
}

/// What a dropped packet means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A loss, for this cause.
    Cause(DropCause),
    /// No loss of a handshake: a copy of the packet, or something that others report.
    Ignored,
    /// Freed in a function that is not known to lose handshakes, without a reason: an explanation if the connection turns out
    /// to be unanswered, and nothing by itself.
    Silent,
}

impl DropCause {
    /// Whether one of these hits packets for any server alike: such drops are reported together.
    pub fn is_shared(self) -> bool {
        matches!(
            self,
            Self::ConntrackFull
                | Self::NeighbourTable
                | Self::Neighbour
                | Self::TrafficControl
                | Self::Qdisc
                | Self::Xdp
                | Self::CpuBacklog
                | Self::NoMemory
                | Self::Device
        )
    }

    /// Whether it is a limit or a fault, which matters whoever the packet is for. What may be meant, such as a firewall that
    /// keeps out what no process waits for, does not.
    pub(super) fn is_fault(self) -> bool {
        matches!(
            self,
            Self::ConntrackFull
                | Self::QueueUnread
                | Self::QueueFull
                | Self::NeighbourTable
                | Self::Neighbour
                | Self::CpuBacklog
                | Self::NoMemory
        )
    }
}

/// Why, or why it does not matter.
pub(super) fn class_of(drop: &HandshakeDrop) -> Class {
    let function = drop.function.as_deref().unwrap_or_default();
    let facts = drop.facts.as_deref();
    let class = match drop.reason_name.as_deref() {
        None if drop.reason > table::NAMELESS => Class::Cause(DropCause::Unknown),
        None | Some("NOT_SPECIFIED") => function::class_of(function, drop.packet),
        Some(name) => match table::find(name) {
            Some(reason) if !reason.hits.includes(drop.packet) => Class::Ignored,
            Some(reason) => reason.cause.map_or(Class::Ignored, Class::Cause),
            None => Class::Cause(DropCause::Unknown),
        },
    };
    match (class, facts) {
        (Class::Cause(cause), Some(facts)) => Class::Cause(refined(cause, function, drop.packet, facts)),
        (class, _) => class,
    }
}

/// A cause that the kernel has one word for and that the host's state tells apart further.
fn refined(cause: DropCause, function: &str, packet: Packet, facts: &DropFacts) -> DropCause {
    match cause {
        DropCause::Netfilter => netfilter(function, packet, facts),
        DropCause::QueueUnread => {
            let queue = facts.rules.as_ref().and_then(|rules| rules.rule.as_ref()?.queue);
            let has_reader = facts.queues.as_ref().is_some_and(|queues| {
                queues.iter().any(|known| queue.is_none_or(|number| known.number == number))
            });
            if has_reader { DropCause::QueueFull } else { cause }
        }
        DropCause::SocketFilter => {
            let programs = facts.cgroup.as_ref().is_some_and(|cgroup| !cgroup.programs.is_empty());
            if programs { DropCause::CgroupFilter } else { cause }
        }
        _ => cause,
    }
}

/// Where nf_tables' own code frees what a rule of it drops (from 6.11 at the latest; before, netfilter's general code does).
pub(crate) const BY_RULE: &str = "nft_do_chain";

fn netfilter(function: &str, packet: Packet, facts: &DropFacts) -> DropCause {
    let by_tracking = facts.conntrack.filter(|tracking| tracking.dropped && function != BY_RULE);
    if let Some(tracking) = by_tracking {
        return if tracking.is_full() && packet == Packet::Syn && !tracking.invalid {
            DropCause::ConntrackFull
        } else {
            DropCause::ConntrackInvalid
        };
    }
    let deed = facts.rules.as_ref().and_then(|rules| Some(rules.rule.as_ref()?.deed));
    if deed == Some(RuleDeed::Reject) { DropCause::Reject } else { DropCause::Netfilter }
}

#[cfg(test)]
mod tests;
