//! What user space reads of a network namespace: counters and knobs.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Declares [`CounterSample`]: counters with their names in the kernel.
macro_rules! counter_sample {
    ($($(#[$doc:meta])* $counter:ident: $name:literal,)*) => {
        /// The kernel's own counters of a network namespace: absolute values of `/proc/net/netstat` and `/proc/net/snmp`,
        /// under their names there. The first sample of a namespace is the baseline of its reconciliation.
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

            /// Whether a counter is lower than in `earlier`: then they are not of one namespace, for counters only grow.
            #[must_use]
            pub fn fell_since(&self, earlier: &Self) -> bool {
                [$((self.$counter, earlier.$counter),)*]
                    .into_iter()
                    .any(|(now, then)| now.zip(then).is_some_and(|(now, then)| now < then))
            }

            /// The counters that were read, under their names in the kernel.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($name, self.$counter),)*].into_iter().filter_map(|(name, count)| Some((name, count?)))
            }
        }
    };
}

counter_sample! {
    /// SYNs and final ACKs dropped at a full accept queue.
    listen_overflows: "ListenOverflows",
    /// Every SYN and final ACK dropped at a listener, the overflows included.
    listen_drops: "ListenDrops",
    /// SYNs dropped at a full SYN queue.
    req_queue_full_drop: "TCPReqQFullDrop",
    /// SYNs granted a cookie at a full SYN queue.
    req_queue_full_do_cookies: "TCPReqQFullDoCookies",
    /// SYN-ACKs sent with a cookie.
    syncookies_sent: "SyncookiesSent",
    /// Valid cookies that came back.
    syncookies_received: "SyncookiesRecv",
    /// Invalid cookies that came back while a listener was overflowing.
    syncookies_failed: "SyncookiesFailed",
    /// SYNs and SYN-ACKs sent again.
    syn_retransmits: "TCPSynRetrans",
    /// Retransmissions that could not be sent.
    retransmit_fails: "TCPRetransFail",
    /// Half-open requests that were reset, by either side.
    embryonic_resets: "EmbryonicRsts",
    /// Final ACKs put aside by `TCP_DEFER_ACCEPT`.
    defer_accept_drop: "TCPDeferAcceptDrop",
    /// Connections made by a Fast Open SYN.
    fastopen_passive: "TCPFastOpenPassive",
    /// Children made of completed handshakes.
    passive_opens: "PassiveOpens",
    /// connect() calls whose SYN was queued.
    active_opens: "ActiveOpens",
    /// Handshakes that failed, on either side.
    attempt_fails: "AttemptFails",
    /// RSTs sent.
    resets_sent: "OutRsts",
}

/// The knobs of a network namespace, at the start and whenever one changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnobSample {
    /// Network namespace.
    pub netns: u32,
    /// Its cookie, as in [`CounterSample::cookie`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
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
    pub reserved_ports: Option<PortRanges>,
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

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl PortRange {
    /// How many ports it has.
    pub fn len(self) -> u32 {
        (u32::from(self.last) + 1).saturating_sub(u32::from(self.first))
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether `port` lies in it.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A set of ports, as ranges that are sorted, apart and not adjacent. Written like `ip_local_reserved_ports`:
/// `8080,35000-36000`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortRanges(Vec<PortRange>);

impl PortRanges {
    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(port))
    }

    /// How many ports of `range` are in the set.
    pub fn len_within(&self, range: PortRange) -> u32 {
        let common = |own: &PortRange| {
            let (first, last) = (own.first.max(range.first), own.last.min(range.last));
            (u32::from(last) + 1).saturating_sub(u32::from(first))
        };
        self.0.iter().map(common).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The set and `port`.
    #[must_use]
    pub fn with(&self, port: u16) -> Self {
        self.0.iter().map(|range| range.first..=range.last).chain([port..=port]).collect()
    }
}

impl FromIterator<RangeInclusive<u16>> for PortRanges {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        let mut sorted: Vec<RangeInclusive<u16>> =
            ranges.into_iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_unstable_by_key(|range| *range.start());
        let mut merged: Vec<PortRange> = Vec::new();
        for range in sorted {
            let (first, last) = range.into_inner();
            match merged.last_mut() {
                Some(before) if u32::from(first) <= u32::from(before.last) + 1 => {
                    before.last = before.last.max(last);
                }
                _ => merged.push(PortRange { first, last }),
            }
        }
        Self(merged)
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if range.first == range.last { write!(f, "{}", range.first)? } else { write!(f, "{range}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_print_like_the_sysctl() {
        let set: PortRanges = [40000..=40000, 35000..=36000, 36001..=36002].into_iter().collect();
        assert_eq!(set.to_string(), "35000-36002,40000");
        assert_eq!(set.with(35010), set);
        assert_eq!(set.with(39999).to_string(), "35000-36002,39999-40000");
        assert_eq!(PortRanges::default().with(65535).to_string(), "65535");
        assert!(set.contains(36002) && !set.contains(36003));
        assert_eq!(set.len_within(PortRange { first: 36000, last: 50000 }), 4);
    }
}
