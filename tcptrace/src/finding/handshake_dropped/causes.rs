//! What each cause rests on.

use crate::finding::{Apart, CauseRule};

pub(super) const CAUSES: &[CauseRule] = &[
    CauseRule {
        code: "netfilter",
        means: "a netfilter rule drops it in the hook that is named",
        certain: Some(
            "nf_tables' own code freed the packet (nft_do_chain()); or netfilter freed it with a drop verdict, all rules were read, one (or a chain's policy) of that hook matches it and drops it, no other one may have done so, and connection tracking's own counter of drops did not grow",
        ),
        likely: Some(
            "the packet was freed by netfilter with a drop verdict, and no rule was read that is known to match it, or another one may have done it (a rule that asks for something that cannot be told: `ct state`, a limit, a set that could not be read)",
        ),
        possible: None,
        told_apart: &[
            Apart {
                from: "`conntrack-full`, `conntrack-invalid`",
                by: "the `drop` counter of /proc/net/stat/nf_conntrack grows with the packet",
            },
            Apart { from: "`nfqueue-unread`", by: "the kernel frees that packet in nf_queue()" },
            Apart {
                from: "IPVS, a BPF netfilter program, NAT without a free port, SELinux",
                by: "nothing, unless a matching rule was read: then it is never certain",
            },
        ],
    },
    CauseRule {
        code: "reject",
        means: "a netfilter rule answers by RST or ICMP and drops it",
        certain: Some("as for `netfilter`, and the rule that matches rejects"),
        likely: Some("as for `netfilter`, and connects to that server are refused meanwhile"),
        possible: None,
        told_apart: &[Apart {
            from: "a closed port",
            by: "the SYN was dropped by netfilter before it met a socket",
        }],
    },
    CauseRule {
        code: "conntrack-full",
        means: "connection tracking has no room for a new entry",
        certain: Some(
            "the `drop` counter of connection tracking grew with the packet, its table was at its limit, all rules were read, and none drops the packet or may drop it",
        ),
        likely: Some("the same, and a rule that matches exists as well"),
        possible: None,
        told_apart: &[
            Apart { from: "`netfilter`", by: "the counter grows for its own drops only" },
            Apart {
                from: "`conntrack-invalid`",
                by: "the count of entries is at nf_conntrack_max (within 2 %)",
            },
        ],
    },
    CauseRule {
        code: "conntrack-invalid",
        means: "connection tracking drops it for another reason",
        certain: None,
        likely: Some("its `drop` counter grew with the packet while its table had room"),
        possible: None,
        told_apart: &[
            Apart { from: "`conntrack-full`", by: "the count of entries is below nf_conntrack_max" },
            Apart {
                from: "a rule such as `ct state invalid drop`",
                by: "connection tracking's `drop` counter does not grow for that",
            },
        ],
    },
    CauseRule {
        code: "nfqueue-unread",
        means: "a rule hands it to a netfilter queue that no program reads",
        certain: Some(
            "the packet was freed in nf_queue(), which does so when it cannot be queued, and no queue has a reader",
        ),
        likely: Some("the same, where queues could not be read, or others have readers"),
        possible: None,
        told_apart: &[
            Apart {
                from: "`nfqueue-full`",
                by: "/proc/net/netfilter/nfnetlink_queue lists the queues that are read",
            },
            Apart { from: "`netfilter`", by: "a drop verdict is freed in nf_hook_slow()" },
        ],
    },
    CauseRule {
        code: "nfqueue-full",
        means: "the reader of a netfilter queue does not keep up",
        certain: None,
        likely: Some("the packet was freed in nf_queue(), and the queue has a reader"),
        possible: None,
        told_apart: &[Apart { from: "`nfqueue-unread`", by: "a program reads the queue" }],
    },
    CauseRule {
        code: "nfqueue-verdict",
        means: "the program that reads a netfilter queue drops it",
        certain: None,
        likely: Some("the packet was freed when the reader's verdict came, or when the reader ended"),
        possible: None,
        told_apart: &[Apart { from: "`nfqueue-full`", by: "the packet had been queued" }],
    },
    CauseRule {
        code: "rp-filter",
        means: "the reverse-path filter drops it",
        certain: Some("the packet was freed for the reason IP_RPFILTER, or its counter grew at that moment"),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "a missing route", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "bad-address",
        means: "its source or destination may not be there",
        certain: Some("the packet was freed for that reason"),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "`rp-filter`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "checksum",
        means: "a wrong checksum or header",
        certain: Some("the packet was freed for that reason"),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "any other drop", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "no-route",
        means: "there is no route for it, or one that leads nowhere",
        certain: Some(
            "the packet was freed by the route's own function, or connect() failed with the route's error",
        ),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "`rp-filter`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "ipv6-disabled",
        means: "IPv6 is switched off on the device",
        certain: Some("the packet was freed for the reason IPV6DISABLED"),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "`no-route`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "ipsec-policy",
        means: "an IPsec policy (or PSP) does not let it pass",
        certain: Some("the packet was freed for that reason"),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "`netfilter`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "tcp-md5",
        means: "its MD5 signature is missing, unexpected or wrong for the socket's key",
        certain: Some(
            "the packet was freed for that reason; before 5.18 no kernel names it, and nothing is reported",
        ),
        likely: None,
        possible: None,
        told_apart: &[
            Apart { from: "a full queue", by: "such a SYN is not freed by this way" },
            Apart { from: "a firewall", by: "the socket's own code frees it" },
        ],
    },
    CauseRule {
        code: "tcp-ao",
        means: "the same for TCP-AO",
        certain: Some("the packet was freed for that reason"),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "`tcp-md5`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "min-ttl",
        means: "its TTL is less than the socket demands",
        certain: Some(
            "the packet was freed for the reason TCP_MINTTL; before 5.18 no kernel names it, and nothing is reported",
        ),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "a firewall", by: "the socket's own code frees it" }],
    },
    CauseRule {
        code: "socket-filter",
        means: "a filter that is attached to the socket discards it",
        certain: None,
        likely: Some(
            "the packet was freed for the reason SOCKET_FILTER, and no program of a control group was found",
        ),
        possible: None,
        told_apart: &[
            Apart {
                from: "`cgroup-filter`",
                by: "the programs of the listener's control group were asked for",
            },
            Apart {
                from: "a security module that denies the packet",
                by: "nothing: the kernel has the same word for it",
            },
        ],
    },
    CauseRule {
        code: "cgroup-filter",
        means: "a BPF program of the control group forbids it",
        certain: Some(
            "the packet was freed for the reason BPF_CGROUP_EGRESS, or by the function that runs these programs",
        ),
        likely: Some(
            "the packet was freed for the reason SOCKET_FILTER, and the listener's control group has programs for what comes in",
        ),
        possible: None,
        told_apart: &[Apart {
            from: "`socket-filter`",
            by: "programs are attached to the group; that the socket has no filter of its own as well is not known",
        }],
    },
    CauseRule {
        code: "security-module",
        means: "a security module forbids it",
        certain: Some("the packet was freed for the reason SECURITY_HOOK"),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "`netfilter`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "old-connection",
        means: "a socket of an earlier connection between the same addresses and ports is still there",
        certain: Some(
            "a SYN was freed for a reason that only such a socket gives (sequence numbers, time stamps)",
        ),
        likely: None,
        possible: None,
        told_apart: &[Apart { from: "packets that come twice", by: "only SYNs count" }],
    },
    CauseRule {
        code: "neighbour-table",
        means: "the neighbour table has no room for the next hop",
        certain: Some(
            "the packet was freed because no entry could be made, and the table was at its limit or counted an overflow",
        ),
        likely: Some("the packet was freed because no entry could be made"),
        possible: None,
        told_apart: &[
            Apart { from: "`neighbour-unresolved`", by: "no entry was made at all" },
            Apart {
                from: "no memory, or a device that is going down",
                by: "the table's entries and its counter of overflows",
            },
        ],
    },
    CauseRule {
        code: "neighbour-unresolved",
        means: "no host answers for the next hop's address",
        certain: Some(
            "the packet was freed for the reason NEIGH_FAILED or a like one, or without a reason by the function that gives up a \
             neighbour (IPv6)",
        ),
        likely: Some("the packet was freed by a function of the neighbour table (before 5.17)"),
        possible: None,
        told_apart: &[
            Apart { from: "`neighbour-table`", by: "an entry was made, and asked for" },
            Apart { from: "`no-route`", by: "there was a route, with this next hop" },
        ],
    },
    CauseRule {
        code: "traffic-control",
        means: "a filter or BPF program of traffic control drops it",
        certain: Some("the packet was freed for that reason"),
        likely: Some("the packet was freed by a function of traffic control (before 5.17)"),
        possible: None,
        told_apart: &[Apart { from: "`qdisc`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "qdisc",
        means: "a queueing discipline drops it",
        certain: Some("the packet was freed for that reason"),
        likely: Some("the packet was freed where a device's queue takes it (before 5.17)"),
        possible: None,
        told_apart: &[Apart { from: "`traffic-control`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "xdp",
        means: "an XDP program drops it",
        certain: Some("the packet was freed for the reason XDP, or by the function that runs generic XDP"),
        likely: None,
        possible: None,
        told_apart: &[Apart {
            from: "XDP in the driver",
            by: "nothing: the packet is gone before the kernel sees it; see `syn-unanswered`",
        }],
    },
    CauseRule {
        code: "cpu-backlog",
        means: "a CPU's backlog of received packets is full",
        certain: Some("the packet was freed for the reason CPU_BACKLOG"),
        likely: Some("the packet was freed by enqueue_to_backlog() (before 5.17)"),
        possible: None,
        told_apart: &[Apart { from: "`qdisc`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "no-memory",
        means: "there is no memory for it",
        certain: Some("the packet was freed for that reason"),
        likely: Some("the packet was freed by a function that needs memory"),
        possible: None,
        told_apart: &[Apart { from: "`cpu-backlog`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "device",
        means: "the device, bridge or tunnel does not take it",
        certain: Some("the packet was freed for that reason"),
        likely: Some("the packet was freed by a function of the device"),
        possible: None,
        told_apart: &[Apart { from: "`qdisc`", by: "the kernel's reason is another" }],
    },
    CauseRule {
        code: "unknown",
        means: "a reason that this version of the tool does not know",
        certain: None,
        likely: None,
        possible: Some("the packet was freed; the kernel's word for the reason and the function are given"),
        told_apart: &[Apart {
            from: "the causes above",
            by: "their reasons and functions are known; the kernel's source would tell",
        }],
    },
];
