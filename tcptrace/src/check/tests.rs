//! Every rule finds its risk, and is quiet once its own remedy was carried out, on a namespace of the kernel's.

use std::net::TcpListener;
use std::process::Command;

use crate::host::netns::{Netns, in_netns};
use crate::host::testing::private_netns;

use super::*;
use crate::stock::{Scope, Survey, Wanted};

fn set(netns: &Netns, settings: &[(&str, &str)]) {
    in_netns(netns, || {
        for (name, value) in settings {
            std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value).unwrap();
        }
    })
    .unwrap();
}

fn look(netns: &Netns, plan: &Plan) -> Vec<Risk> {
    let scope = Scope { netns: vec![netns.clone()], ..Scope::default() };
    let mut survey = Survey::take(&scope, &[Wanted::LISTENERS]).unwrap();
    // The commands are run inside the namespace.
    survey.namespaces[0].is_own = true;
    risks(&survey.namespaces[0], plan)
}

fn codes(risks: &[Risk]) -> Vec<&'static str> {
    risks.iter().map(|risk| risk.code).collect()
}

/// Runs the first command of every risk, as it is printed.
fn apply(netns: &Netns, risks: &[Risk]) {
    for command in risks.iter().filter_map(|risk| risk.remedy.first()?.command.as_ref()) {
        let status = in_netns(netns, || Command::new("sh").args(["-c", command]).output()).unwrap().unwrap();
        assert!(status.status.success(), "{command}: {status:?}");
    }
}

#[test]
fn every_remedy_silences_its_risk() {
    let Some(netns) = private_netns() else { return };
    set(
        &netns,
        &[
            ("net.ipv4.ip_local_port_range", "35000 36000"),
            ("net.ipv4.ip_local_reserved_ports", "35500-35510,1234"),
            ("net.core.somaxconn", "100"),
            ("net.ipv4.tcp_syncookies", "0"),
            ("net.ipv4.tcp_max_syn_backlog", "64"),
            ("net.ipv4.tcp_abort_on_overflow", "1"),
        ],
    );
    let _servers: Vec<TcpListener> = in_netns(&netns, || {
        ["127.0.0.1:35010", "[::1]:35505", "127.0.0.1:40000", "127.0.0.1:80"]
            .into_iter()
            .map(|address| TcpListener::bind(address).unwrap())
            .collect()
    })
    .unwrap();
    let plan = Plan { servers: "35020-35021,50000".parse().unwrap() };
    let found = look(&netns, &plan);
    let all: Vec<&str> = RULES.iter().map(|rule| rule.code()).collect();
    assert_eq!(codes(&found), all, "{found:#?}");
    assert!(found[0].title.contains("35010,35020-35021"), "{}", found[0].title);
    assert_eq!(found[0].listeners.len(), 1);
    assert_eq!(found[0].listeners[0].process.as_ref().unwrap().pid, Some(std::process::id()));

    apply(&netns, &found);
    assert_eq!(codes(&look(&netns, &plan)), Vec::<&str>::new());
    let knobs = crate::host::knobs::Knobs::of(&netns).unwrap();
    let reserved = knobs.ip_local_reserved_ports.unwrap().to_string();
    assert_eq!(reserved, "1234,35010,35020-35021,35500-35510,40000,50000");
}

#[test]
fn a_small_range_is_told_with_what_tcp_tw_reuse_does_about_it() {
    let Some(netns) = private_netns() else { return };
    set(&netns, &[("net.ipv4.ip_local_port_range", "35000 35599")]);
    for (reuse, said) in [
        ("0", "10 new connections a second can go on, no more"),
        ("1", "With net.ipv4.tcp_tw_reuse=1, as it is, a port is used again after a second"),
        ("2", "With net.ipv4.tcp_tw_reuse=2, as it is, destinations on this host are better off"),
    ] {
        set(&netns, &[("net.ipv4.tcp_tw_reuse", reuse)]);
        let found = look(&netns, &Plan::default());
        assert_eq!(codes(&found), ["small-range"]);
        assert!(found[0].why.contains(said), "{reuse}: {}", found[0].why);
        assert_eq!(found[0].why.contains("tcp_tw_reuse="), reuse != "0", "{reuse}: {}", found[0].why);
    }
}

#[test]
fn what_is_reserved_already_stays_so() {
    let Some(netns) = private_netns() else { return };
    set(&netns, &[("net.ipv4.ip_local_reserved_ports", "1234,35009")]);
    let _server = in_netns(&netns, || TcpListener::bind("127.0.0.1:35010").unwrap()).unwrap();
    let found = look(&netns, &Plan::default());
    assert_eq!(codes(&found), ["port-grab-risk"]);
    apply(&netns, &found);
    assert_eq!(look(&netns, &Plan::default()), Vec::new());
    let knobs = crate::host::knobs::Knobs::of(&netns).unwrap();
    assert_eq!(knobs.ip_local_reserved_ports.unwrap().to_string(), "1234,35009-35010");
}

#[test]
fn a_usual_namespace_has_no_risks() {
    let Some(netns) = private_netns() else { return };
    // A new namespace has the kernel's defaults; the number of half-open requests depends on the machine's memory.
    let _server = in_netns(&netns, || TcpListener::bind("127.0.0.1:8080").unwrap()).unwrap();
    assert_eq!(look(&netns, &Plan::default()), Vec::new());
}

#[test]
fn what_concerns_listeners_needs_listeners() {
    let Some(netns) = private_netns() else { return };
    set(&netns, &[("net.ipv4.tcp_syncookies", "2"), ("net.ipv4.tcp_abort_on_overflow", "1")]);
    assert_eq!(look(&netns, &Plan::default()), Vec::new());
    let _server = in_netns(&netns, || TcpListener::bind("[::]:8080").unwrap()).unwrap();
    let found = look(&netns, &Plan::default());
    assert_eq!(codes(&found), ["syncookies", "abort-on-overflow"]);
    apply(&netns, &found);
    assert_eq!(look(&netns, &Plan::default()), Vec::new());
}

#[test]
fn nothing_is_said_of_what_cannot_be_read() {
    assert_eq!(risks(&Namespace::default(), &Plan::default()), Vec::new());
}

#[test]
fn a_reuseport_group_is_named_once() {
    let Some(netns) = private_netns() else { return };
    set(&netns, &[("net.core.somaxconn", "10")]);
    let _group: Vec<_> = in_netns(&netns, || {
        use nix::sys::socket::*;
        use std::os::fd::AsRawFd as _;
        (0..3)
            .map(|_| {
                let member =
                    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
                setsockopt(&member, sockopt::ReusePort, &true).unwrap();
                bind(member.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 700)).unwrap();
                listen(&member, Backlog::new(100).unwrap()).unwrap();
                member
            })
            .collect()
    })
    .unwrap();
    let found = look(&netns, &Plan::default());
    assert_eq!(codes(&found), ["backlog-truncated"]);
    assert_eq!(found[0].listeners.len(), 1);
}
