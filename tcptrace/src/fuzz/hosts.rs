//! What the kernel says of itself: BTF, netlink, files of /proc. In a container it may be another's.

use super::Target;
use super::dice::changed;
use crate::{host, identity, probe};

pub(super) fn targets() -> Vec<Target> {
    let target =
        |name, what, seeds: Vec<Vec<u8>>, run: fn(&[u8])| Target { name, what, seeds, change: changed, run };
    vec![
        target("btf", "BTF: parsed and resolved", vec![btf()], |bytes| {
            if let Ok(btf) = probe::btf::Btf::parse(bytes.to_vec()) {
                let _resolved = probe::btf::resolve(&btf);
            }
        }),
        target("sock-diag", "answers of sock_diag", diag(), |bytes| {
            host::sock_diag::wire::messages(bytes).for_each(drop);
        }),
        target("route", "answers of rtnetlink", route(), |bytes| {
            let _route = host::route::answer(bytes);
        }),
        target("cgroup", "/proc/PID/cgroup", texts(&CGROUPS), |bytes| {
            let _placement = identity::cgroup::of_process(bytes);
        }),
        target("stat", "/proc/PID/stat", texts(&STATS), |bytes| {
            let _stat = identity::process::Stat::parse(bytes);
        }),
        target("counters", "/proc/net/netstat and snmp", texts(&COUNTERS), |bytes| {
            host::counters::absorb(&mut crate::event::CounterSample::default(), bytes);
        }),
    ]
}

/// That of our own eBPF object.
fn btf() -> Vec<u8> {
    const OBJECT: &[u8] = include_bytes!("../../ebpf/tcptrace.bpf.o");
    const BEGIN: [u8; 8] = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
    let at = OBJECT.windows(BEGIN.len()).position(|bytes| bytes == BEGIN).unwrap_or_default();
    let number = |offset: usize| {
        let bytes = OBJECT.get(at + offset..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| usize::try_from(u32::from_le_bytes(*bytes)).unwrap_or(0))
    };
    // Where the strings begin, and how long they are.
    OBJECT.get(at..at + 24 + number(16) + number(20)).unwrap_or_default().to_vec()
}

/// A netlink message.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 2], &1_u32.to_ne_bytes(), &[0; 4], body].concat()
}

/// An attribute of one.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn diag() -> Vec<Vec<u8>> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    let mut seeds = Vec::new();
    for family in [2_u8, 10] {
        let mut body = vec![1; 72];
        if let Some(first) = body.first_mut() {
            *first = family;
        }
        // Memory, congestion control, TCP state, options, mark, cgroup: whatever a kernel may add.
        for kind in 0..24 {
            body.extend(attribute(kind, &[3; 40]));
        }
        let both = [message(SOCK_DIAG_BY_FAMILY, &body), message(3, &0_i32.to_ne_bytes())].concat();
        seeds.extend([message(SOCK_DIAG_BY_FAMILY, &body), both, message(2, &(-2_i32).to_ne_bytes())]);
    }
    seeds
}

fn route() -> Vec<Vec<u8>> {
    const RTM_NEWROUTE: u16 = 24;
    let mut body = vec![2, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
    for kind in 1..20 {
        body.extend(attribute(kind, &[10, 0, 0, 1]));
    }
    vec![message(RTM_NEWROUTE, &body), message(2, &(-101_i32).to_ne_bytes())]
}

fn texts(of: &[&str]) -> Vec<Vec<u8>> {
    of.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const CGROUPS: [&str; 4] = [
    "0::/system.slice/nginx.service\n",
    "0::/kubepods.slice/kubepods-pod5f1c_2b.slice/cri-containerd-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope\n",
    "12:pids:/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n1:name=systemd:/user.slice\n0::/\n",
    "0::/../../lxc/web/ns (deleted)\n",
];

const STATS: [&str; 2] = [
    "4242 (a) b (c)) S 1 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 123456 99 88 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n",
    "1 (systemd) R 0 1 1 0 -1 4194560\n",
];

const COUNTERS: [&str; 2] = [
    "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 3\nIpExt: InNoRoutes\nIpExt: 0\n",
    "Tcp: ActiveOpens PassiveOpens AttemptFails\nTcp: 1 2 18446744073709551615\n",
];
