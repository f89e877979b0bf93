//! What user space reads of a network namespace: counters and knobs.

use serde::{Deserialize, Serialize};

use super::{PortRange, PortSet};

/// Declares [`CounterSample`]: counters with their group and name in the kernel.
macro_rules! counter_sample {
    ($($(#[$doc:meta])* $counter:ident: $group:literal $name:literal,)*) => {
        /// The kernel's own counters of a network namespace: absolute values of `/proc/net/netstat` and `/proc/net/snmp`,
        /// under their names there; `None` where this kernel does not have the counter. Each counts segments, connections or events,
        /// and only grows. The first sample of a namespace is the baseline of its reconciliation.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct CounterSample {
            /// Network namespace.
            pub netns: u32,
            /// Its cookie, which no other namespace has while the host runs; since 5.14. Inode numbers are used again.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub cookie: Option<u64>,
            $(
                $(#[$doc])*
                #[doc = concat!("\n\n`", $name, "`.")]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $counter: Option<u64>,
            )*
        }

        impl CounterSample {
            /// The same counters at zero: those of a namespace when it was made.
            #[must_use]
            pub fn at_birth(&self) -> Self {
                Self { netns: self.netns, cookie: self.cookie, $($counter: self.$counter.map(|_| 0),)* }
            }

            /// How much each has grown since `earlier`, a reading of the same namespace. `None` where either reading lacks the
            /// counter, or where it fell (then they are not readings of one namespace).
            #[must_use]
            pub fn delta(&self, earlier: &Self) -> Self {
                let grown = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
                Self {
                    netns: self.netns,
                    cookie: self.cookie,
                    $($counter: grown(self.$counter, earlier.$counter),)*
                }
            }

            /// Sets the counter of that group and name, if it is one of these.
            pub fn set(&mut self, group: &[u8], name: &[u8], value: Option<u64>) {
                match (group, name) {
                    $((group, name) if group == $group.as_bytes() && name == $name.as_bytes() => {
                        self.$counter = value;
                    })*
                    _ => {}
                }
            }

            /// Whether a counter is lower than in `earlier`: then they are not of one namespace, for counters only grow.
            #[must_use]
            pub fn fell_since(&self, earlier: &Self) -> bool {
                [$((self.$counter, earlier.$counter),)*]
                    .into_iter()
                    .any(|(now, then)| now.zip(then).is_some_and(|(now, then)| now < then))
            }
        }
    };
}

counter_sample! {
    /// SYNs and final ACKs dropped at a full accept queue.
    listen_overflows: "TcpExt" "ListenOverflows",
    /// Every SYN and final ACK dropped at a listener, the overflows included.
    listen_drops: "TcpExt" "ListenDrops",
    /// SYNs dropped at a full SYN queue.
    req_queue_full_drop: "TcpExt" "TCPReqQFullDrop",
    /// SYNs granted a cookie at a full SYN queue.
    req_queue_full_do_cookies: "TcpExt" "TCPReqQFullDoCookies",
    /// SYN-ACKs sent with a cookie.
    syncookies_sent: "TcpExt" "SyncookiesSent",
    /// Valid cookies that came back.
    syncookies_received: "TcpExt" "SyncookiesRecv",
    /// Invalid cookies that came back while a listener was overflowing.
    syncookies_failed: "TcpExt" "SyncookiesFailed",
    /// SYNs and SYN-ACKs sent again.
    syn_retransmits: "TcpExt" "TCPSynRetrans",
    /// Retransmissions that could not be sent.
    retransmit_fails: "TcpExt" "TCPRetransFail",
    /// Half-open requests that were reset, by either side.
    embryonic_resets: "TcpExt" "EmbryonicRsts",
    /// Final ACKs put aside by `TCP_DEFER_ACCEPT`.
    defer_accept_drop: "TcpExt" "TCPDeferAcceptDrop",
    /// Connections made by a Fast Open SYN.
    fastopen_passive: "TcpExt" "TCPFastOpenPassive",
    /// Children made of completed handshakes.
    passive_opens: "Tcp" "PassiveOpens",
    /// connect() calls whose SYN was queued.
    active_opens: "Tcp" "ActiveOpens",
    /// Handshakes that failed, on either side.
    attempt_fails: "Tcp" "AttemptFails",
    /// RSTs sent.
    resets_sent: "Tcp" "OutRsts",
    /// Packets dropped because their source is not where the route to it leads (`rp_filter`), IPv4 only.
    rp_filter_drops: "TcpExt" "IPReversePathFilter",
}

/// The knobs of a network namespace, at the start and whenever one changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnobSample {
    /// Network namespace.
    pub netns: u32,
    /// Its cookie, as in [`CounterSample::cookie`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// The name that it is mounted by (`blue` for `/run/netns/blue`). Whatever an administrator chose: escape it before showing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u32>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub max_syn_backlog: Option<u32>,
    /// `net.ipv4.tcp_syncookies` (0–2).
    pub syncookies: Option<u32>,
    /// `net.ipv4.tcp_abort_on_overflow`.
    pub abort_on_overflow: Option<bool>,
    /// `net.ipv4.tcp_synack_retries`.
    pub synack_retries: Option<u32>,
    /// `net.ipv4.ip_local_port_range`.
    pub local_port_range: Option<PortRange>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved_ports: Option<PortSet>,
    /// `net.ipv4.tcp_tw_reuse` (0–2).
    #[serde(default)]
    pub tw_reuse: Option<u32>,
    /// `net.ipv4.ip_unprivileged_port_start`.
    #[serde(default)]
    pub unprivileged_port_start: Option<u32>,
    /// `net.ipv4.ip_nonlocal_bind`.
    #[serde(default)]
    pub nonlocal_bind: Option<bool>,
    /// `net.ipv6.ip_nonlocal_bind`.
    #[serde(default)]
    pub nonlocal_bind_v6: Option<bool>,
    /// `net.ipv4.tcp_fin_timeout`, seconds.
    #[serde(default)]
    pub fin_timeout: Option<u32>,
    /// `net.ipv4.tcp_orphan_retries`; 0 stands for 8.
    #[serde(default)]
    pub orphan_retries: Option<u32>,
    /// `net.ipv4.tcp_timestamps` (0–2).
    #[serde(default)]
    pub timestamps: Option<u32>,
    /// `net.ipv4.tcp_l3mdev_accept`.
    #[serde(default)]
    pub l3mdev_accept: Option<bool>,
    /// `net.ipv4.tcp_migrate_req`.
    #[serde(default)]
    pub migrate_req: Option<bool>,
}

impl KnobSample {
    /// How many ports the kernel may choose: the range without what is reserved.
    pub fn ephemeral_ports(&self) -> Option<u32> {
        let range = self.local_port_range?;
        let reserved = self.reserved_ports.as_ref().map_or(0, |reserved| reserved.len_within(range));
        Some(range.len().saturating_sub(reserved))
    }

    /// Whether the kernel may choose `port`.
    pub fn is_ephemeral(&self, port: u16) -> bool {
        self.local_port_range.is_some_and(|range| range.contains(port))
            && !self.reserved_ports.as_ref().is_some_and(|reserved| reserved.contains(port))
    }
}
