//! What the function that dropped a packet tells, where the kernel gives no reason: kernels before 5.17, and places that still
//! have none.

use crate::event::Packet;

use super::{Class, DropCause};

pub(super) fn class_of(function: &str, packet: Packet) -> Class {
    let cause = match function {
        "nf_hook_slow" | "nf_hook_slow_list" => DropCause::Netfilter,
        // What cannot be queued: as a rule no program reads the queue (`nf_queue()` frees the packet for any error).
        "nf_queue" | "__nf_queue" => DropCause::QueueUnread,
        // The verdict of a queue's reader; also what waits in the queue of a reader that ends.
        "nf_reinject" | "nfqnl_reinject" | "nfqnl_recv_verdict" | "nfqnl_flush" => DropCause::QueueVerdict,
        "ip_rcv_finish_core" | "ip_rcv_finish" | "ip_error" | "ip_pkt_drop" | "ip6_pkt_drop"
        | "ip6_pkt_discard" => DropCause::NoRoute,
        "ip_rcv_core" | "ip6_rcv_core" => DropCause::Checksum,
        // `BPF_CGROUP_RUN_PROG_INET_EGRESS` refused it.
        "ip_finish_output" | "ip6_finish_output" => DropCause::CgroupFilter,
        // No neighbour could be made for it.
        "ip_finish_output2" | "ip6_finish_output2" => DropCause::NeighbourTable,
        "neigh_resolve_output"
        | "arp_error_report"
        | "ndisc_error_report"
        | "__neigh_event_send"
        | "neigh_probe"
        | "neigh_timer_handler"
        | "neigh_invalidate" => DropCause::Neighbour,
        "__dev_queue_xmit" | "__dev_xmit_skb" => DropCause::Qdisc,
        "enqueue_to_backlog" => DropCause::CpuBacklog,
        "sch_handle_ingress" | "tcf_action_exec" => DropCause::TrafficControl,
        "do_xdp_generic" | "netif_receive_generic_xdp" => DropCause::Xdp,
        // Sockets free what they have read, what comes twice, and what they do not expect; captures free their copies.
        _ if packet == Packet::Ack => return Class::Ignored,
        "" => return Class::Silent,
        name if OF_SOCKETS.iter().any(|prefix| name.starts_with(prefix)) => return Class::Ignored,
        name if COPIES.contains(&name) => return Class::Ignored,
        _ => return Class::Silent,
    };
    Class::Cause(cause)
}

const OF_SOCKETS: &[&str] =
    &["tcp_", "inet_", "inet6_", "__inet", "sk_", "__sk_", "mptcp_", "subflow_", "skb_release"];

/// Functions that free a copy of a packet that goes on its way.
const COPIES: &[&str] =
    &["packet_rcv", "tpacket_rcv", "packet_rcv_fanout", "packet_rcv_spkt", "dev_queue_xmit_nit"];
