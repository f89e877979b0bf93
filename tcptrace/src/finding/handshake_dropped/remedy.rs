//! What to do about each cause.

use crate::correlate::DropCause;
use crate::event::RuleDeed;
use crate::finding::{Remedy, commands};

use super::account::Account;
use super::words;

pub(super) fn of(account: &Account<'_>) -> Vec<Remedy> {
    use DropCause as C;
    let netns = account.key.netns;
    let process = account.subject.process.as_ref();
    let inside = |command: &str| commands::inside(netns, process, command);
    let device = account.drops.facts.as_ref().and_then(|facts| facts.device.clone());
    let device = device.unwrap_or_else(|| "DEVICE".to_owned());
    match account.key.cause {
        C::Netfilter | C::Reject => rules(account),
        C::ConntrackFull => {
            let max = account.tracking().map_or(0, |tracking| tracking.max);
            vec![
                Remedy::command(
                    "raise the limit (about 300 bytes of kernel memory an entry; it is one setting for the whole host, and each \
                     network namespace may use that many)",
                    format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.saturating_mul(2).max(65_536)),
                ),
                Remedy::command("see what fills the table", inside("conntrack -S; conntrack -L")),
                Remedy::text(
                    "or keep this traffic out of it: a notrack rule for the port, or shorter time-outs \
                     (nf_conntrack_tcp_timeout_established)",
                ),
            ]
        }
        C::ConntrackInvalid => vec![
            Remedy::command("see which of its counters grow", inside("conntrack -S")),
            Remedy::command(
                "have it log what it takes for invalid",
                inside("sysctl -w net.netfilter.nf_conntrack_log_invalid=6"),
            ),
        ],
        C::QueueUnread => vec![
            Remedy::text(
                "start the program that reads the queue (an IPS such as Suricata, a filter such as OpenSnitch)",
            ),
            Remedy::text(
                "or let packets pass while it does not run: `bypass` in the rule (nft: queue num 0 bypass; iptables: -j NFQUEUE \
                 --queue-bypass)",
            ),
            Remedy::command("queues that are read", inside("cat /proc/net/netfilter/nfnetlink_queue")),
        ],
        C::QueueFull => vec![
            Remedy::text(
                "give the reader more threads or a longer queue (nfq_set_queue_maxlen, Suricata: nfq.queue-maxlen)",
            ),
            Remedy::text(
                "or let packets pass when it is full: fail-open (NFQA_CFG_F_FAIL_OPEN, Suricata: fail-open: yes)",
            ),
        ],
        C::QueueVerdict => {
            vec![Remedy::text("look into the rules and the log of the program that reads the queue")]
        }
        C::RpFilter => vec![Remedy::command(
            "add the route back by that device, or let the filter be loose (2: any device will do)",
            commands::sysctl(netns, process, "net.ipv4.conf.all.rp_filter=2"),
        )],
        C::BadAddress if account.drops.reason.as_deref() == Some("IP_LOCALNET") => vec![Remedy::command(
            "let the device take packets for 127.0.0.0/8, if they are meant to come in by it",
            commands::sysctl(netns, process, &format!("net.ipv4.conf.{device}.route_localnet=1")),
        )],
        C::BadAddress => vec![Remedy::command(
            "have such packets logged, with their source and device",
            commands::sysctl(netns, process, "net.ipv4.conf.all.log_martians=1"),
        )],
        C::Checksum => vec![Remedy::text(
            "capture at both ends and compare; switch off checksum offload on the sender's device (ethtool -K DEV tx off) to try",
        )],
        C::NoRoute => vec![Remedy::command(
            "look at the route, and for blackhole, unreachable and prohibit routes",
            inside("ip route show table all"),
        )],
        C::Ipv6Disabled => vec![Remedy::command(
            "switch IPv6 on for the device, or do not call this address",
            commands::sysctl(netns, process, &format!("net.ipv6.conf.{device}.disable_ipv6=0")),
        )],
        C::Ipsec => vec![Remedy::command(
            "look at the policies and associations",
            inside("ip xfrm policy; ip xfrm state"),
        )],
        C::Md5 => vec![Remedy::text(
            "set the same MD5 password for this peer at both ends, or remove it at both (FRR: neighbor PEER password …; BIRD: \
             password; a key that is left over on the listener goes away when the daemon is restarted)",
        )],
        C::Ao => vec![Remedy::text(
            "configure the same TCP-AO keys and identifiers for this peer at both ends, or none",
        )],
        C::MinTtl => vec![Remedy::text(
            "the peer is more hops away than the service allows (FRR: neighbor PEER ttl-security hops N; BIRD: ttl security): allow \
             more hops, or switch it on at both ends",
        )],
        C::SocketFilter => vec![Remedy::text(
            "look in the service's configuration for a filter of its own; `ss -lntpe --bpf` shows socket filters of packet sockets \
             only",
        )],
        C::CgroupFilter => cgroup_filter(account),
        C::SecurityModule => {
            vec![Remedy::command("see what the security module denied", "ausearch -m avc -ts recent")]
        }
        C::OldConnection => vec![Remedy::text(
            "the client takes the same source port again too soon: let it take another one, and let time stamps grow for all hosts \
             behind one address (PAWS)",
        )],
        C::NeighbourTable => {
            let v6 = account.drops.servers.keys().next().is_some_and(std::net::SocketAddr::is_ipv6);
            let family = if v6 { "ipv6" } else { "ipv4" };
            let table = account.drops.facts.as_ref().and_then(|facts| facts.neighbours).unwrap_or_default();
            let limit = table.limit.unwrap_or(table.entries).max(1024);
            let setting = |name: &str, value: u64| format!("net.{family}.neigh.default.{name}={value}");
            vec![Remedy::command(
                "raise the limits of the table, in the initial network namespace: they hold for the whole host",
                format!(
                    "sysctl -w {} {} {}",
                    setting("gc_thresh3", limit * 4),
                    setting("gc_thresh2", limit * 2),
                    setting("gc_thresh1", limit)
                ),
            )]
        }
        C::Neighbour => {
            let next = account
                .drops
                .neighbours
                .iter()
                .next()
                .map_or_else(|| "ADDRESS".to_owned(), ToString::to_string);
            vec![
                Remedy::command("look at the neighbours", inside(&format!("ip neigh show dev {device}"))),
                Remedy::command(
                    "see whether anything on the link answers",
                    if words::protocol(account) == "ARP" {
                        inside(&format!("arping -c 3 -I {device} {next}"))
                    } else {
                        inside(&format!("ndisc6 {next} {device}"))
                    },
                ),
            ]
        }
        C::TrafficControl => vec![Remedy::command(
            "look at the filters and programs",
            inside(&format!(
                "tc filter show dev {device} ingress; tc filter show dev {device} egress; bpftool net show dev {device}"
            )),
        )],
        C::Qdisc => vec![Remedy::command(
            "look at its limits and drop counters",
            inside(&format!("tc -s qdisc show dev {device}")),
        )],
        C::Xdp => vec![Remedy::command(
            "look at the program",
            inside(&format!("ip link show dev {device}; bpftool net show dev {device}")),
        )],
        C::CpuBacklog => {
            let now = account.drops.facts.as_ref().and_then(|facts| facts.netdev_max_backlog).unwrap_or(1000);
            vec![Remedy::command(
                "raise the backlog, and spread the load over more CPUs (RPS)",
                format!("sysctl -w net.core.netdev_max_backlog={}", now.saturating_mul(4)),
            )]
        }
        C::NoMemory => vec![Remedy::command(
            "look at what TCP uses and may use",
            "cat /proc/net/sockstat; sysctl net.ipv4.tcp_mem; free -m",
        )],
        C::Device => {
            vec![Remedy::command("look at the device", inside(&format!("ip -d -s link show dev {device}")))]
        }
        C::Unknown => vec![Remedy::text(
            "look the word up in include/net/dropreason-core.h of this kernel's source, and report it to tcptrace",
        )],
    }
}

fn rules(account: &Account<'_>) -> Vec<Remedy> {
    let netns = account.key.netns;
    let process = account.subject.process.as_ref();
    let port = account.key.server.map_or_else(String::new, |server| format!(", TCP port {}", server.port()));
    let hook = account.drops.hook.name().to_lowercase();
    let known = account.rule(&[RuleDeed::Drop, RuleDeed::Policy, RuleDeed::Reject]);
    if let Some(rule) = known {
        // Those of the old iptables are shown by its own tools alone.
        let list = match (rule.contains("(iptables-legacy)"), rule.starts_with("table ip6")) {
            (false, _) => "nft -a list ruleset",
            (true, false) => "iptables-legacy-save -c",
            (true, true) => "ip6tables-legacy-save -c",
        };
        return vec![Remedy::command(
            // Which rule it is, the cause says.
            "if it is not meant so, accept these packets before this rule, or delete it",
            commands::inside(netns, process, list),
        )];
    }
    vec![
        Remedy::command(
            format!("look for the rule: {hook} hook{port}; rules of iptables-nft show there too"),
            commands::inside(netns, process, "nft list ruleset"),
        ),
        Remedy::command(
            "on a host with the old iptables the counters of its rules tell",
            commands::inside(netns, process, "iptables -L -v -n"),
        ),
    ]
}

fn cgroup_filter(account: &Account<'_>) -> Vec<Remedy> {
    let group = account.drops.facts.as_ref().and_then(|facts| facts.cgroup.as_ref());
    let direction = if account.key.outgoing { "egress" } else { "ingress" };
    let by_systemd = group.is_some_and(|group| group.programs.iter().any(|name| name.starts_with("sd_fw")));
    let unit = group.and_then(|group| group.unit());
    let mut remedy = Vec::new();
    if let (Some(unit), true) = (unit, by_systemd) {
        remedy.push(Remedy::command(
            format!(
                "allow the address in the unit's own filter: IPAddressAllow= beside IPAddressDeny= of {unit}"
            ),
            format!("systemctl show -p IPAddressDeny -p IPAddressAllow {unit}"),
        ));
    }
    let path = group.map_or("", |group| group.attached_to.as_deref().unwrap_or(&group.path));
    remedy.push(Remedy::command(
        format!("see which programs filter its {direction} (attached by systemd, a container runtime or a network plugin)"),
        format!("bpftool cgroup show /sys/fs/cgroup{path} effective"),
    ));
    remedy
}
