//! What each cause means, with the setting's value of that time.

use crate::correlate::{DropCause, REASONS};
use crate::event::{FoundRule, RuleDeed};

use super::account::Account;

/// The cause in a few words, as titles have it.
pub(super) fn short(account: &Account<'_>) -> String {
    use DropCause as C;
    let hook = account.drops.hook.name();
    let device = |what: &str| match account.device() {
        Some(device) => format!("{what} of device {device}"),
        None => what.to_owned(),
    };
    match account.key.cause {
        C::Netfilter => match account.rule(&[RuleDeed::Drop, RuleDeed::Policy]) {
            Some(_) => format!("a firewall rule drops them in {hook}"),
            None if account.is_by_rule() => format!("a firewall rule drops them in {hook}"),
            None => format!("netfilter drops them in {hook}"),
        },
        C::Reject => format!("a firewall rule rejects them in {hook}"),
        C::ConntrackFull => "the connection tracking table is full".to_owned(),
        C::ConntrackInvalid => "connection tracking drops them".to_owned(),
        C::QueueUnread => "they are sent to a netfilter queue that no program reads".to_owned(),
        C::QueueFull => "a netfilter queue is full".to_owned(),
        C::QueueVerdict => "the program that reads a netfilter queue drops them".to_owned(),
        C::RpFilter => "the reverse-path filter".to_owned(),
        C::BadAddress => "an address that may not be there".to_owned(),
        C::Checksum => "a wrong checksum or header".to_owned(),
        C::NoRoute => "no route".to_owned(),
        C::Ipv6Disabled => "IPv6 is switched off".to_owned(),
        C::Ipsec => "an IPsec policy".to_owned(),
        C::Md5 => "a TCP MD5 key".to_owned(),
        C::Ao => "a TCP-AO key".to_owned(),
        C::MinTtl => "the socket's TTL security (IP_MINTTL)".to_owned(),
        C::SocketFilter => "a filter on the socket".to_owned(),
        C::CgroupFilter => match unit(account) {
            Some(unit) => format!("the IP filter of {unit}"),
            None => "a BPF program of the control group".to_owned(),
        },
        C::SecurityModule => "a security module".to_owned(),
        C::OldConnection => "a socket of an earlier connection".to_owned(),
        C::NeighbourTable => "the neighbour table is full".to_owned(),
        C::Neighbour => match account.drops.neighbours.iter().collect::<Vec<_>>().as_slice() {
            [next] => format!("no host answers {} for {next}", protocol(account)),
            _ => format!("no host answers {} for their next hops", protocol(account)),
        },
        C::TrafficControl => device("traffic control"),
        C::Qdisc => device("the queueing discipline"),
        C::Xdp => device("the XDP program"),
        C::CpuBacklog => "the backlog of a CPU is full".to_owned(),
        C::NoMemory => "no memory".to_owned(),
        C::Device => device("the state"),
        C::Unknown => account.drops.reason.clone().unwrap_or_else(|| "a reason without a name".to_owned()),
    }
}

/// The unit, or else the path, of the control group whose programs filter.
pub(super) fn unit(account: &Account<'_>) -> Option<String> {
    let group = account.drops.facts.as_ref()?.cgroup.as_ref()?;
    let path = group.attached_to.as_ref().unwrap_or(&group.path);
    group
        .unit()
        .map(str::to_owned)
        .or_else(|| (!path.is_empty()).then(|| format!("the control group {path}")))
}

pub(super) fn protocol(account: &Account<'_>) -> &'static str {
    let v6 = account.drops.servers.keys().next().is_some_and(std::net::SocketAddr::is_ipv6);
    if v6 { "neighbour discovery" } else { "ARP" }
}

/// The kernel's word for it, spelt out.
fn meaning<'a>(account: &'a Account<'_>) -> Option<&'a str> {
    let reason = account.drops.reason.as_deref().unwrap_or_default();
    let named = REASONS.iter().find(|known| known.name == reason);
    // Where the function alone tells, any word for that cause says what it means.
    let alike = || match account.key.cause {
        DropCause::Xdp | DropCause::CpuBacklog => {
            REASONS.iter().find(|known| known.cause == Some(account.key.cause))
        }
        _ => None,
    };
    named.or_else(alike).map(|known| known.means)
}

/// The cause in whole sentences.
pub(super) fn explanation(account: &Account<'_>) -> String {
    use DropCause as C;
    let facts = account.drops.facts.as_deref();
    let by_word = |rest: &str| {
        let means = meaning(account).unwrap_or("the kernel drops it");
        format!("{means}{rest} ({})", account.place())
    };
    match account.key.cause {
        C::Netfilter => netfilter(account),
        C::Reject => match account.rule(&[RuleDeed::Reject]) {
            Some(rule) => format!("a firewall rule of this host answers by RST or ICMP and drops it: {rule}"),
            None => "a firewall rule of this host answers by RST or ICMP and drops it".to_owned(),
        },
        C::ConntrackFull => {
            let tracking = account.tracking().unwrap_or_default();
            format!(
                "connection tracking has no room for a new entry: {} of {} in use in this network namespace \
                 (net.netfilter.nf_conntrack_max), and its counter of dropped packets grew with this one; no rule is to blame",
                tracking.count, tracking.max
            )
        }
        C::ConntrackInvalid => {
            let tracking = account.tracking().unwrap_or_default();
            let why = if tracking.invalid {
                "the packet fits no connection that it knows"
            } else {
                "it found no memory, or no place for the entry"
            };
            format!(
                "connection tracking itself drops it, by its own counter: {why}; {} of {} entries are in use, so the table is \
                 not full",
                tracking.count, tracking.max
            )
        }
        C::QueueUnread => {
            let rule = account.rule(&[RuleDeed::Queue]).map_or_else(String::new, |rule| format!(" ({rule})"));
            format!(
                "a firewall rule{rule} hands it to a netfilter queue (NFQUEUE) in {}, and no program reads that queue: the kernel \
                 drops what it cannot queue, unless the rule says bypass",
                account.drops.hook.name()
            )
        }
        C::QueueFull => {
            let queues = facts.and_then(|facts| facts.queues.as_deref()).unwrap_or_default();
            let queues: Vec<String> = queues
                .iter()
                .map(|queue| {
                    format!(
                        "queue {} has {} packets waiting and has dropped {} (reader: netlink port {})",
                        queue.number, queue.waiting, queue.dropped, queue.reader
                    )
                })
                .collect();
            format!(
                "a firewall rule hands it to a netfilter queue (NFQUEUE), which does not take it: {}",
                queues.join("; ")
            )
        }
        C::QueueVerdict => {
            let readers = facts.and_then(|facts| facts.queues.as_deref()).unwrap_or_default();
            let readers: Vec<String> =
                readers.iter().map(|queue| format!("queue {}: netlink port {}", queue.number, queue.reader)).collect();
            let readers = if readers.is_empty() { String::new() } else { format!(" ({})", readers.join(", ")) };
            format!("a firewall rule hands it to a netfilter queue (NFQUEUE), and its reader{readers} drops it, or ended")
        }
        C::RpFilter => format!(
            "the reverse-path filter drops it: by this host's routes, the way back to its sender does not go by the device it \
             came in by ({})",
            account.device().unwrap_or_else(|| "unknown".to_owned())
        ),
        C::Checksum if meaning(account).is_none_or(|means| means.contains("checksum")) => {
            "its checksum or header is wrong: it was damaged on the way, or a device that should have filled in the checksum did \
             not"
            .to_owned()
        }
        C::NoRoute => no_route(account),
        C::Md5 | C::Ao => by_word("; the socket discards it without an answer"),
        C::SocketFilter => by_word(
            "; programs of a control group were not found, so it is the socket's own filter (SO_ATTACH_FILTER, SO_ATTACH_BPF), a \
             security module, or a program that is gone by now",
        ),
        C::CgroupFilter => cgroup_filter(account),
        C::NeighbourTable => {
            let table = facts.and_then(|facts| facts.neighbours).unwrap_or_default();
            let limit = match table.limit {
                // Entries that are permanent count, too, and may be more than the limit.
                Some(limit) => {
                    format!("{} entries are in use, and the limit (gc_thresh3) is {limit}", table.entries)
                }
                None => format!("{} entries are in use, and the limit is gc_thresh3", table.entries),
            };
            let full = if table.overflowed { ", and its counter of overflows grew" } else { "" };
            format!(
                "the packet's next hop is not in the neighbour table, and there is no room for it: {limit}{full}; the table is one \
                 for all network namespaces"
            )
        }
        C::Neighbour => {
            let next: Vec<String> = account.drops.neighbours.iter().map(ToString::to_string).collect();
            let next = if next.is_empty() { "the next hop".to_owned() } else { next.join(", ") };
            let device = account.device().map_or_else(String::new, |device| format!(" on {device}"));
            format!(
                "no host answers {} for {next}{device}: that host is down or not on this link, or the address is wrong",
                protocol(account)
            )
        }
        C::CpuBacklog => {
            let value = facts.and_then(|facts| facts.netdev_max_backlog);
            let value = value.map_or_else(String::new, |value| format!("; net.core.netdev_max_backlog is {value}"));
            by_word(&value)
        }
        C::Unknown => {
            let what = match &account.drops.reason {
                Some(reason) => format!("the kernel's word for the reason is {reason}"),
                None => "the kernel gives a reason that has no name in its type information".to_owned(),
            };
            let function = account.drops.function.as_deref().unwrap_or("unknown");
            format!("{what}, in function {function}; this version of tcptrace does not know what that means")
        }
        _ => by_word(""),
    }
}

/// Rules that may do so, each with what it asks for that could not be told.
fn candidates(rules: &[FoundRule]) -> String {
    let one = |rule: &FoundRule| match &rule.open {
        Some(open) => format!("{} (if its condition holds, which cannot be told here: {open})", rule.place),
        None => rule.place.clone(),
    };
    rules.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn netfilter(account: &Account<'_>) -> String {
    let hook = account.drops.hook.name();
    let rules = account.drops.facts.as_ref().and_then(|facts| facts.rules.as_ref());
    let others = rules.map_or_else(String::new, |rules| candidates(&rules.candidates));
    let or_others =
        if others.is_empty() { String::new() } else { format!("; unless it was one of these: {others}") };
    if let Some(rule) = account.rule(&[RuleDeed::Drop]) {
        // A base chain is mostly called like its hook.
        let chain = format!(", chain {hook},").to_ascii_lowercase();
        let is_said = rule.to_string().to_ascii_lowercase().contains(&chain);
        let of_hook = if is_said { String::new() } else { format!(" in the {hook} hook") };
        return format!("a firewall rule drops it{of_hook}: {rule}{or_others}");
    }
    if let Some(rule) = account.rule(&[RuleDeed::Policy]) {
        return format!(
            "no firewall rule accepts it, and the chain's policy drops it in the {hook} hook: {rule}{or_others}"
        );
    }
    if account.is_by_rule() {
        let which = if others.is_empty() {
            "it asks for something that is not understood here, or could not be read".to_owned()
        } else {
            format!("it may be {others}")
        };
        return format!(
            "a rule of nf_tables (iptables-nft's are among them) drops it in the {hook} hook; which one is not known: {which}"
        );
    }
    let mut text = format!("netfilter drops it in the {hook} hook");
    match rules {
        Some(_) if !others.is_empty() => {
            text.push_str(&format!("; rules that may do so: {others}"));
        }
        Some(rules) if !rules.unread.is_empty() => {
            text.push_str(&format!("; not all rules could be read ({})", rules.unread.join("; ")));
        }
        Some(_) => text.push_str("; no rule of nf_tables or iptables was found that does so"),
        None => text.push_str(", a rule as a rule"),
    }
    let tracking = match account.tracking() {
        Some(tracking) if tracking.counted => "connection tracking did not drop it, by its counters; ",
        _ => "",
    };
    text.push_str(&format!(
        "; {tracking}IPVS, a BPF netfilter program, NAT without a free port and a security module look the same"
    ));
    text
}

fn no_route(account: &Account<'_>) -> String {
    if account.drops.answering.is_some() {
        return "no route leads back to the client, so the SYN is dropped before it is answered".to_owned();
    }
    match account.drops.errno.and_then(|errno| i32::try_from(errno).ok()) {
        Some(libc::EINVAL) => "a blackhole route of this host swallows it".to_owned(),
        Some(libc::EACCES) => "a prohibit route of this host forbids it".to_owned(),
        Some(_) => "an unreachable route of this host refuses it".to_owned(),
        None => "this host has no route for it, or one that goes nowhere".to_owned(),
    }
}

fn cgroup_filter(account: &Account<'_>) -> String {
    let group = account.drops.facts.as_ref().and_then(|facts| facts.cgroup.as_ref());
    let whose = if account.key.outgoing { "the sender's" } else { "the listener's" };
    let Some(group) = group else {
        return format!(
            "a BPF program that is attached to {whose} control group, or one above it, forbids it"
        );
    };
    let programs = match group.programs.as_slice() {
        [] => "a BPF program".to_owned(),
        [one] => format!("the BPF program {one}"),
        several => format!("one of the BPF programs {}", several.join(", ")),
    };
    let attached = match &group.attached_to {
        Some(path) if *path == group.path => String::new(),
        Some(path) => format!(", attached to {path}"),
        None => ", attached to it or to one above it".to_owned(),
    };
    let systemd = if group.programs.iter().any(|name| name.starts_with("sd_fw")) {
        "; systemd makes such a program from IPAddressDeny= and IPAddressAllow= of a unit"
    } else {
        ""
    };
    format!("{programs} of {whose} control group {}{attached} forbids it{systemd}", group.path)
}
