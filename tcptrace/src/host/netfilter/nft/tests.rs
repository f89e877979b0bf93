use super::super::expression::Decision;
use super::super::packet::testing::packet;
use super::super::ruleset::{How, IPV4};
use super::super::wire::{push_attribute, push_nested};
use super::*;
use crate::event::RuleDeed;
use crate::host::netfilter::rules;
use crate::host::netns::in_netns;
use crate::host::testing::private_netns;
use proptest::prelude::*;

fn expression(name: &str, numbers: &[(u16, u32)], data: Option<(u16, u16, &[u8])>) -> Vec<u8> {
    let mut inner = Vec::new();
    for (kind, number) in numbers {
        push_attribute(&mut inner, *kind, &number.to_be_bytes());
    }
    if let Some((kind, inside, value)) = data {
        let mut nested = Vec::new();
        push_attribute(&mut nested, inside, value);
        push_nested(&mut inner, kind, &nested);
    }
    let mut bytes = Vec::new();
    push_attribute(&mut bytes, 1, format!("{name}\0").as_bytes());
    push_nested(&mut bytes, 2, &inner);
    bytes
}

fn encoded(expressions: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::new();
    expressions.iter().for_each(|one| push_nested(&mut list, 1, one));
    let mut bytes = Vec::new();
    push_attribute(&mut bytes, 1, b"nat\0");
    push_attribute(&mut bytes, 2, b"pre\0");
    push_attribute(&mut bytes, 3, &4_u64.to_be_bytes());
    push_nested(&mut bytes, 4, &list);
    bytes
}

#[test]
fn a_rule_that_translates_a_port() {
    let bytes = encoded(&[
        expression("meta", &[(1, 1), (2, 16)], None),
        expression("cmp", &[(1, 1), (2, 0)], Some((3, 1, &[6]))),
        expression("payload", &[(1, 1), (2, 2), (3, 2), (4, 2)], None),
        expression("cmp", &[(1, 1), (2, 0)], Some((3, 1, &8080_u16.to_be_bytes()))),
        expression("immediate", &[(1, 1)], Some((2, 1, &[10, 99, 1, 2]))),
        expression("immediate", &[(1, 2)], Some((2, 1, &80_u16.to_be_bytes()))),
        expression("nat", &[(1, 1), (2, 2), (3, 1), (5, 2)], None),
    ]);
    let (chain, rule) = rule(IPV4, &Attributes(&bytes)).unwrap();
    assert_eq!(chain, Named { family: IPV4, table: "nat".into(), name: "pre".into() });
    assert_eq!(rule.label, "handle 4");
    let wanted = Expression::Compare { register: 1, operation: 0, value: 8080_u16.to_be_bytes().to_vec() };
    assert_eq!(rule.expressions[3], wanted);
    assert_eq!(
        rule.expressions.last(),
        Some(&Expression::Steer { how: How::Dnat, address: Some(1), port: Some(2) })
    );
}

#[test]
fn verdicts_and_what_is_not_understood() {
    let read = |name: &str, bytes: &[u8]| Expression::read(name, &Attributes(bytes));
    let verdict = |code: i32| {
        let (mut inner, mut data, mut all) = (Vec::new(), Vec::new(), Vec::new());
        push_attribute(&mut inner, 1, &code.to_be_bytes());
        push_nested(&mut data, 2, &inner);
        push_attribute(&mut all, 1, &0_u32.to_be_bytes());
        push_nested(&mut all, 2, &data);
        read("immediate", &all)
    };
    assert_eq!(verdict(0), Expression::Decide(Decision::Ends(RuleDeed::Drop, None)));
    assert_eq!(verdict(1), Expression::Decide(Decision::Accept));
    assert_eq!(verdict(-1), Expression::Nothing);
    assert_eq!(read("limit", &[]), Expression::Open("limit".into()));
}

/// Rules that the tools made, read back: for each, the steering of a connection from this namespace.
#[test]
fn rules_as_the_tools_make_them() {
    let Some(netns) = private_netns() else { return };
    let run = |program: &str, arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        in_netns(&netns, || {
            std::process::Command::new(program).args(&arguments).status().is_ok_and(|status| status.success())
        })
        .unwrap()
    };
    let steering = |port: u16| {
        let found = rules(&netns);
        assert_eq!(found.unread, Vec::<String>::new());
        let to = std::net::SocketAddr::new("10.0.0.1".parse().unwrap(), port);
        let met = found.rules.steering(Hook::Output, to, true);
        met.into_iter()
            .map(|met| (met.how, met.to.map(|ip| ip.to_string()), met.port, met.open.is_empty()))
            .collect::<Vec<_>>()
    };
    // What drops a packet that comes in by eth0 from 10.0.0.9, if it is known, and how many rules may.
    let drops = |to: &str| {
        let facts = rules(&netns).about(&packet(to));
        assert_eq!(facts.unread, Vec::<String>::new());
        (facts.rule.map(|rule| rule.deed), facts.candidates.len())
    };
    let container = || Some("172.17.0.2".to_owned());
    if run("nft", "add table ip n") {
        assert!(run("nft", "add chain ip n out { type nat hook output priority -100 ; }"));
        assert!(run("nft", "add rule ip n out tcp dport 8080 dnat to 172.17.0.2:80"));
        assert!(run("nft", "add rule ip n out ip daddr 10.0.0.0/8 tcp dport 8081 redirect to :81"));
        assert!(run(
            "nft",
            "add rule ip n out ip daddr 10.0.0.0/12 fib daddr type local tcp dport 8082-8083 redirect"
        ));
        assert!(run("nft", "add rule ip n out tcp dport { 8084, 8086-8087 } dnat to 172.17.0.2"));
        assert!(
            run(
                "nft",
                "add rule ip n out dnat to tcp dport map { 8090 : 172.17.0.2 . 90, 8091 : 172.17.0.3 . 91 }"
            ) || run("nft", "add rule ip n out dnat to tcp dport map { 8090 : 172.17.0.2 }")
        );
        assert_eq!(steering(8080), [(How::Dnat, container(), Some(80), true)]);
        assert_eq!(steering(8081), [(How::Redirect, None, Some(81), true)]);
        assert_eq!(steering(8083), [(How::Redirect, None, None, true)]);
        for port in [8084, 8086, 8087] {
            assert_eq!(steering(port), [(How::Dnat, container(), None, true)], "{port}");
        }
        assert_eq!(steering(8085), []);
        assert_eq!(steering(8090)[0].1, container());
        assert!(run("nft", "delete table ip n"));

        assert!(run("nft", "add table inet f"));
        assert!(run("nft", "add chain inet f in { type filter hook input priority 0 ; }"));
        assert!(run(
            "nft",
            "add set inet f bad { type ipv4_addr ; flags interval ; elements = { 10.0.0.8/31, 192.0.2.1 } ; }"
        ));
        assert!(run(
            "nft",
            "add set inet f pairs { type ipv4_addr . inet_service ; flags interval ; elements = { 10.0.0.0/24 . 70-72 } ; }"
        ));
        assert!(run("nft", "add chain inet f web"));
        assert!(run("nft", "add rule inet f web reject"));
        assert!(run("nft", "add rule inet f in tcp dport vmap { 80 : jump web, 81 : drop, 82 : accept }"));
        assert!(run("nft", "add rule inet f in ip saddr @bad tcp dport { 83, 84 } drop"));
        assert!(run("nft", "add rule inet f in ip saddr . tcp dport @pairs drop"));
        assert!(run("nft", "add rule inet f in tcp dport 85 ct state new drop"));
        assert!(run("nft", "add rule inet f in tcp dport 86 iifname eth1 drop"));
        assert_eq!(drops("10.0.0.1:80"), (Some(RuleDeed::Reject), 0));
        assert_eq!(drops("10.0.0.1:81"), (Some(RuleDeed::Drop), 0));
        assert_eq!(drops("10.0.0.1:82"), (None, 0));
        assert_eq!(drops("10.0.0.1:84"), (Some(RuleDeed::Drop), 0));
        assert_eq!(drops("10.0.0.1:71"), (Some(RuleDeed::Drop), 0));
        assert_eq!(drops("10.0.0.1:73"), (None, 0));
        assert_eq!(drops("10.0.0.1:85"), (None, 1));
        assert_eq!(drops("10.0.0.1:86"), (None, 0));
        assert!(run("nft", "delete table inet f"));
    } else {
        println!("skipped: no nft");
    }
    for tool in ["iptables-nft", "iptables-legacy"] {
        if !run(tool, "-t nat -N DOCKER") {
            println!("skipped: no {tool}");
            continue;
        }
        assert!(run(tool, "-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"));
        assert!(run(
            tool,
            "-t nat -A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"
        ));
        assert!(run(tool, "-t nat -A OUTPUT -p tcp --dport 8081 -j REDIRECT --to-ports 81"));
        assert_eq!(steering(8080), [(How::Dnat, container(), Some(80), true)], "{tool}");
        assert_eq!(steering(8081), [(How::Redirect, None, Some(81), true)], "{tool}");
        assert!(steering(8082).is_empty(), "{tool}");
        assert!(run(tool, "-t nat -F OUTPUT"), "{tool}");
        assert!(run(tool, "-N WEB") && run(tool, "-A WEB -s 10.0.0.0/24 ! -i lo -j DROP"), "{tool}");
        assert!(run(tool, "-A INPUT -p tcp -m multiport --dports 80,8000:8010 -j WEB"), "{tool}");
        assert!(run(tool, "-A INPUT -p tcp --dport 81 -m conntrack --ctstate NEW -j DROP"), "{tool}");
        assert!(run(tool, "-A INPUT -p tcp --dport 82 -j REJECT"), "{tool}");
        assert_eq!(drops("10.0.0.1:8005"), (Some(RuleDeed::Drop), 0), "{tool}");
        assert_eq!(drops("10.0.0.1:8011"), (None, 0), "{tool}");
        assert_eq!(drops("10.0.0.1:81"), (None, 1), "{tool}");
        assert_eq!(drops("10.0.0.1:82"), (Some(RuleDeed::Reject), 0), "{tool}");
        assert!(run(tool, "-P INPUT DROP"), "{tool}");
        assert_eq!(drops("10.0.0.1:99"), (Some(RuleDeed::Policy), 0), "{tool}");
        assert!(run(tool, "-P INPUT ACCEPT") && run(tool, "-F") && run(tool, "-X"), "{tool}");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), family in any::<u8>()) {
        let of = Attributes(&bytes);
        let _ = (rule(family, &of), base(family, &of), shape(family, &of), element(&of, 4));
    }

    #[test]
    fn any_attributes(names in proptest::collection::vec("(cmp|nat|payload|lookup|immediate|match|target|bitwise|range|x)", 0..6),
                      bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let expressions: Vec<Vec<u8>> = names.iter().map(|name| {
            let mut one = Vec::new();
            push_attribute(&mut one, 1, name.as_bytes());
            push_nested(&mut one, 2, &bytes);
            one
        }).collect();
        let _ = rule(IPV4, &Attributes(&encoded(&expressions)));
    }
}
