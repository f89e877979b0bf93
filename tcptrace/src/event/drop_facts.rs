//! What the host showed, at the moment of a drop, of the things that can be behind it: tables, rules, queues, programs. What is
//! read for one packet is given to those that follow it within a second, too.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What was looked at for a packet that was dropped. `None`: it does not bear on this packet's reason, or could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DropFacts {
    /// Name of the device that it came in by, or was to leave by.
    pub device: Option<String>,
    /// The neighbour that it was to go to: the gateway, or the destination itself.
    pub next_hop: Option<IpAddr>,
    /// Connection tracking, of packets that netfilter dropped.
    pub conntrack: Option<ConntrackFacts>,
    /// The netfilter queues that programs read, likewise.
    pub queues: Option<Vec<NetfilterQueue>>,
    /// What the rules of the namespace say about this packet, likewise.
    pub rules: Option<RuleFacts>,
    /// The neighbour table, of packets that found no room in it.
    pub neighbours: Option<NeighbourFacts>,
    /// The control group that the socket belongs to, of packets that a filter dropped.
    pub cgroup: Option<CgroupFacts>,
    /// `net.core.netdev_max_backlog`, of packets that found no room in a CPU's backlog.
    pub netdev_max_backlog: Option<u64>,
}

/// The table of tracked connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConntrackFacts {
    /// `net.netfilter.nf_conntrack_count`: entries of this network namespace.
    pub count: u64,
    /// `net.netfilter.nf_conntrack_max`: the limit of each namespace; 0 for none.
    pub max: u64,
    /// Its counter `drop` grew with this packet: it was connection tracking that dropped it.
    pub dropped: bool,
    /// Its counter `invalid` grew with it: the packet fits no connection.
    pub invalid: bool,
    /// Packets that it dropped since the tracer met the namespace.
    pub drops: u64,
    /// The counters could be read: that they did not grow means something.
    pub counted: bool,
}

impl ConntrackFacts {
    /// Whether there was no room for a new entry. Entries expire all the time: what was read a moment after the drop may be
    /// a little less than the limit.
    pub fn is_full(&self) -> bool {
        self.max > 0 && self.count.saturating_add(self.max / 50) >= self.max
    }
}

/// A netfilter queue that a program reads (`/proc/net/netfilter/nfnetlink_queue`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetfilterQueue {
    /// Its number.
    pub number: u16,
    /// Netlink port of its reader, as a rule the process id.
    pub reader: u32,
    /// Packets that wait in it.
    pub waiting: u64,
    /// Packets dropped because it was full.
    pub dropped: u64,
    /// Packets dropped because they could not be handed to the reader.
    pub unread: u64,
}

/// What the rules of a namespace say about a packet. Expressions that are not understood are left open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleFacts {
    /// The rule that drops, rejects or queues it, every expression of which was understood and matches the packet.
    pub rule: Option<FoundRule>,
    /// Rules that may do so as well: what they ask for could not all be told.
    pub candidates: Vec<FoundRule>,
    /// Rules that could not be read, in words.
    pub unread: Vec<String>,
}

/// A rule, or a chain's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRule {
    /// Where it stands: `table inet filter, chain input, handle 7`, as `nft -a list ruleset` shows it.
    pub place: String,
    /// What it does.
    pub deed: RuleDeed,
    /// The number of the queue, for one that queues.
    pub queue: Option<u16>,
    /// What it asks for that could not be told: `ct state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<String>,
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleDeed {
    /// It drops it without a word.
    Drop,
    /// The chain's policy drops what no rule accepts.
    Policy,
    /// It answers by RST or an ICMP message.
    Reject,
    /// It hands it to a program.
    Queue,
    /// A SYN proxy answers in the server's stead.
    Synproxy,
}

/// A table of neighbours (ARP or NDP), which all network namespaces share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NeighbourFacts {
    /// Entries.
    pub entries: u64,
    /// `gc_thresh3`: its limit; `None` where the namespace does not show it.
    pub limit: Option<u64>,
    /// Its counter `table_fulls` grew lately.
    pub overflowed: bool,
}

impl NeighbourFacts {
    /// Whether there was no room for a new entry.
    pub fn is_full(&self) -> bool {
        self.overflowed || self.limit.is_some_and(|limit| self.entries >= limit)
    }
}

/// A control group, and the programs that filter its sockets' packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupFacts {
    /// Path of the socket's or the process's group, below the mount.
    pub path: String,
    /// The group that the programs are attached to: this one or one above it.
    pub attached_to: Option<String>,
    /// Names of the programs that are effective in that direction.
    pub programs: Vec<String>,
    /// The programs could be asked for.
    pub asked: bool,
}

impl CgroupFacts {
    /// The systemd unit that the programs are attached to, if its path names one.
    pub fn unit(&self) -> Option<&str> {
        let path = self.attached_to.as_deref().unwrap_or(&self.path);
        let last = path.rsplit('/').next()?;
        let unit = [".service", ".scope", ".slice", ".socket"].iter().any(|suffix| last.ends_with(suffix));
        unit.then_some(last)
    }
}
