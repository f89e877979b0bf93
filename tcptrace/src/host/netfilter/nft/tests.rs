use super::super::wire::{push_attribute, push_nested};
use super::*;
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
    push_attribute(&mut bytes, EXPRESSION_NAME, format!("{name}\0").as_bytes());
    push_nested(&mut bytes, EXPRESSION_DATA, &inner);
    bytes
}

fn encoded(expressions: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::new();
    expressions.iter().for_each(|one| push_nested(&mut list, 1, one));
    let mut bytes = Vec::new();
    push_attribute(&mut bytes, RULE_TABLE, b"nat\0");
    push_attribute(&mut bytes, RULE_CHAIN, b"pre\0");
    push_attribute(&mut bytes, RULE_HANDLE, &4_u64.to_be_bytes());
    push_nested(&mut bytes, RULE_EXPRESSIONS, &list);
    bytes
}

#[test]
fn a_rule_that_translates_a_port() {
    let bytes = encoded(&[
        expression("meta", &[(1, 1), (2, 16)], None),
        expression("cmp", &[(1, 1), (2, 0)], Some((3, DATA_VALUE, &[6]))),
        expression("payload", &[(1, 1), (2, 2), (3, 2), (4, 2)], None),
        expression("cmp", &[(1, 1), (2, 0)], Some((3, DATA_VALUE, &8080_u16.to_be_bytes()))),
        expression("immediate", &[(1, 1)], Some((2, DATA_VALUE, &[10, 99, 1, 2]))),
        expression("immediate", &[(1, 2)], Some((2, DATA_VALUE, &80_u16.to_be_bytes()))),
        expression("nat", &[(1, 1), (2, 2), (3, 1), (5, 2)], None),
    ]);
    let (chain, rule) = rule(2, &bytes).unwrap();
    assert_eq!(chain, ChainKey { family: Family::V4, table: "nat".into(), chain: "pre".into() });
    assert_eq!(
        rule.conditions,
        [Condition::Protocol(6), Condition::Port { first: 8080, last: 8080, negated: false }]
    );
    let to = Some("10.99.1.2".parse().unwrap());
    assert_eq!(rule.action, Action::Steer { how: How::Dnat, to, port: Some(80) });
    assert_eq!(rule.label, "handle 4");
}

#[test]
fn what_is_not_understood_is_a_condition_all_the_same() {
    let bytes = encoded(&[
        expression("ct", &[(1, 1), (2, 0)], None),
        expression("cmp", &[(1, 1), (2, 0)], Some((3, DATA_VALUE, &[1]))),
        expression("redir", &[], None),
    ]);
    let (_, rule) = rule(1, &bytes).unwrap();
    assert!(rule.conditions.contains(&Condition::Other), "{rule:?}");
    assert_eq!(rule.action, Action::Steer { how: How::Redirect, to: None, port: None });
}

#[test]
fn masks() {
    assert_eq!(prefix_of(&[255, 255, 255, 255]), Some(32));
    assert_eq!(prefix_of(&[255, 240, 0, 0]), Some(12));
    assert_eq!(prefix_of(&[0, 0, 0, 0]), Some(0));
    assert_eq!(prefix_of(&[255, 0, 255, 0]), None);
    assert_eq!(prefix_of(&[15, 0, 0, 0]), None);
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
            .map(|met| (met.how, met.to.map(|ip| ip.to_string()), met.port, met.surely_met))
            .collect::<Vec<_>>()
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
        assert!(run("nft", "add rule ip n out tcp dport { 8084, 8085 } dnat to 172.17.0.2"));
        assert_eq!(
            steering(8080),
            [(How::Dnat, container(), Some(80), true)]
                .into_iter()
                .chain([(How::Dnat, container(), None, false)])
                .collect::<Vec<_>>()
        );
        assert_eq!(steering(8081)[0], (How::Redirect, None, Some(81), true));
        assert_eq!(steering(8083)[0], (How::Redirect, None, None, true));
        assert_eq!(steering(9), [(How::Dnat, container(), None, false)]);
        assert!(run("nft", "delete table ip n"));
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
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), family in any::<u8>()) {
        let _ = (rule(family, &bytes), base(family, &bytes), prefix_of(&bytes));
    }

    #[test]
    fn any_attributes(names in proptest::collection::vec("(cmp|nat|payload|lookup|immediate|match|target|bitwise|range|x)", 0..6),
                      bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let expressions: Vec<Vec<u8>> = names.iter().map(|name| {
            let mut one = Vec::new();
            push_attribute(&mut one, EXPRESSION_NAME, name.as_bytes());
            push_nested(&mut one, EXPRESSION_DATA, &bytes);
            one
        }).collect();
        let _ = rule(2, &encoded(&expressions));
    }
}
