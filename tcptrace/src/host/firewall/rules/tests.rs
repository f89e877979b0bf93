use proptest::prelude::*;

use super::*;

fn packet(to: &str) -> FirewallPacket {
    FirewallPacket {
        source: "10.0.0.9:40000".parse().unwrap(),
        destination: to.parse().unwrap(),
        packet: Packet::Syn,
        outgoing: false,
        hooks: &[1],
        device: 2,
        device_name: Some("eth0".to_owned()),
    }
}

fn port_is(port: u16) -> Vec<Expression> {
    vec![
        Expression::Meta { register: 1, key: 16 },
        Expression::Compare { register: 1, operation: 0, value: vec![6] },
        Expression::Payload { register: 1, base: 2, offset: 2, length: 2 },
        Expression::Compare { register: 1, operation: 0, value: port.to_be_bytes().to_vec() },
    ]
}

fn rule(handle: u64, mut expressions: Vec<Expression>, verdict: Verdict) -> Rule {
    expressions.push(Expression::Decide(verdict));
    Rule { handle, expressions }
}

fn input(drops: bool, rules: Vec<Rule>) -> FirewallRules {
    let base = Some(Base { hook: 1, priority: 0, device: None, drops });
    FirewallRules {
        chains: vec![Chain { family: INET, table: "filter".into(), name: "input".into(), base, rules }],
        legacy: false,
    }
}

const DROP: Verdict = Verdict::Ends(RuleDeed::Drop, None);

#[test]
fn the_rule_that_matches_is_named() {
    let rules = input(false, vec![rule(4, port_is(443), DROP), rule(5, port_is(80), DROP)]);
    let found = rules.about(&packet("10.0.0.1:80")).rule.unwrap();
    assert_eq!(
        (found.place.as_str(), found.deed),
        ("table inet filter, chain input, handle 5", RuleDeed::Drop)
    );
    assert_eq!(rules.about(&packet("10.0.0.1:22")), RuleFacts::default());
}

#[test]
fn a_policy_drops_what_nothing_accepts() {
    let rules = input(true, vec![rule(4, port_is(443), Verdict::Accept)]);
    assert_eq!(rules.about(&packet("10.0.0.1:80")).rule.unwrap().deed, RuleDeed::Policy);
    assert_eq!(rules.about(&packet("10.0.0.1:443")).rule, None);
}

#[test]
fn what_is_not_understood_is_a_candidate_only() {
    let mut open = port_is(80);
    open.insert(0, Expression::Open);
    let rules = input(false, vec![rule(9, open, DROP)]);
    let facts = rules.about(&packet("10.0.0.1:80"));
    assert_eq!((facts.rule, facts.candidates.len()), (None, 1));
    // The connection's state is not known.
    let state = vec![
        Expression::Fills { register: 1 },
        Expression::Compare { register: 1, operation: 1, value: vec![0; 4] },
    ];
    assert_eq!(input(false, vec![rule(9, state, DROP)]).about(&packet("10.0.0.1:80")).candidates.len(), 1);
}

#[test]
fn chains_that_are_jumped_to_are_followed() {
    let mut rules = input(false, vec![rule(1, port_is(80), Verdict::Jump("web".into()))]);
    rules.chains.push(Chain {
        family: INET,
        table: "filter".into(),
        name: "web".into(),
        base: None,
        rules: vec![rule(2, Vec::new(), Verdict::Ends(RuleDeed::Queue, Some(3)))],
    });
    let found = rules.about(&packet("10.0.0.1:80")).rule.unwrap();
    assert_eq!((found.deed, found.queue), (RuleDeed::Queue, Some(3)));
    assert_eq!(rules.about(&packet("10.0.0.1:81")).rule, None);
}

#[test]
fn devices_addresses_and_flags_are_compared() {
    let holds = |expressions: Vec<Expression>| {
        input(false, vec![rule(1, expressions, DROP)]).about(&packet("10.0.0.1:80")).rule.is_some()
    };
    let name = |name: &str| {
        let mut value = name.as_bytes().to_vec();
        value.resize(16, 0);
        vec![
            Expression::Meta { register: 1, key: 6 },
            Expression::Compare { register: 1, operation: 0, value },
        ]
    };
    assert!(holds(name("eth0")) && !holds(name("eth1")));
    let network = |network: [u8; 4]| {
        vec![
            Expression::Payload { register: 1, base: 1, offset: 12, length: 4 },
            Expression::Bitwise { source: 1, register: 1, mask: vec![255, 255, 255, 0], xor: vec![0; 4] },
            Expression::Compare { register: 1, operation: 0, value: network.to_vec() },
        ]
    };
    assert!(holds(network([10, 0, 0, 0])) && !holds(network([10, 0, 1, 0])));
    let tcp = |destination, mask, flags, inverted| {
        vec![Expression::Tcp { source: [0, 65_535], destination, mask, flags, inverted }]
    };
    assert!(holds(tcp([80, 80], 0x17, 0x02, 0)) && !holds(tcp([80, 80], 0x17, 0x10, 0)));
    assert!(!holds(tcp([80, 80], 0, 0, 2)) && holds(tcp([81, 81], 0, 0, 2)));
    let range = |from: u16, to: u16| {
        vec![
            Expression::Payload { register: 8, base: 2, offset: 2, length: 2 },
            Expression::Range {
                register: 8,
                outside: false,
                from: from.to_be_bytes().to_vec(),
                to: to.to_be_bytes().to_vec(),
            },
        ]
    };
    assert!(holds(range(70, 90)) && !holds(range(90, 100)));
}

#[test]
fn other_hooks_and_families_do_not_see_it() {
    let mut rules = input(true, Vec::new());
    rules.chains[0].base.as_mut().unwrap().hook = 3;
    assert_eq!(rules.about(&packet("10.0.0.1:80")).rule, None);
    let mut rules = input(true, Vec::new());
    rules.chains[0].family = IPV6;
    assert_eq!(rules.about(&packet("10.0.0.1:80")).rule, None);
}

proptest! {
    #[test]
    fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut chains: Vec<Chain> = wire::chain(&bytes).into_iter().collect();
        let _ = wire::rule(&bytes, &mut chains);
    }

    #[test]
    fn takes_any_expression(name in "payload|meta|cmp|range|bitwise|immediate|match|target|queue",
        bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let expression = Expression::read(&name, &wire::Attributes(&bytes));
        let _ = expression.about(&packet("10.0.0.1:80"), INET, &mut Registers::default());
    }
}
