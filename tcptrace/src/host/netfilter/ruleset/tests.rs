use proptest::prelude::*;

use super::super::packet::testing::packet;
use super::super::set::{Data, Element};
use super::super::wire::Attributes;
use super::*;

use Decision as Verdict;

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
    Rule { label: format!("handle {handle}"), expressions }
}

fn named(family: u8, table: &str, name: &str) -> Named {
    Named { family, table: table.into(), name: name.into() }
}

fn at(family: u8, hook: Hook, drops: bool, rules: Vec<Rule>) -> Ruleset {
    let chain = named(family, "filter", "input");
    let mut ruleset = Ruleset::default();
    ruleset.add_base(Base { chain: chain.clone(), place: Place::Hook(hook), priority: 0, drops });
    rules.into_iter().for_each(|rule| ruleset.add_rule(chain.clone(), rule));
    ruleset
}

fn input(drops: bool, rules: Vec<Rule>) -> Ruleset {
    at(INET, Hook::Input, drops, rules)
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
    open.insert(0, Expression::Open("limit".into()));
    let rules = input(false, vec![rule(9, open, DROP)]);
    let facts = rules.about(&packet("10.0.0.1:80"));
    assert_eq!((facts.rule, facts.candidates.len()), (None, 1));
    // The connection's state is not known.
    let state = vec![
        Expression::Fills { register: 1, what: "ct state".into() },
        Expression::Compare { register: 1, operation: 1, value: vec![0; 4] },
    ];
    let facts = input(false, vec![rule(9, state, DROP)]).about(&packet("10.0.0.1:80"));
    assert_eq!(facts.candidates[0].open.as_deref(), Some("ct state"));
}

#[test]
fn chains_that_are_jumped_to_are_followed() {
    let mut rules = input(false, vec![rule(1, port_is(80), Verdict::Jump("web".into()))]);
    let queues = rule(2, Vec::new(), Verdict::Ends(RuleDeed::Queue, Some(3)));
    rules.add_rule(named(INET, "filter", "web"), queues);
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
    assert_eq!(at(INET, Hook::Output, true, Vec::new()).about(&packet("10.0.0.1:80")).rule, None);
    assert_eq!(at(IPV6, Hook::Input, true, Vec::new()).about(&packet("10.0.0.1:80")).rule, None);
    assert!(at(IPV4, Hook::Input, true, Vec::new()).about(&packet("10.0.0.1:80")).rule.is_some());
}

#[test]
fn a_chain_at_a_device_sees_what_comes_in_by_it() {
    let on = |names: &[&str], outgoing| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let mut ruleset = input(true, Vec::new());
        ruleset.bases[0].place = Place::Device { outgoing, names };
        ruleset.about(&packet("10.0.0.1:80")).rule.is_some()
    };
    assert!(on(&["lo", "eth0"], false) && !on(&["lo"], false) && !on(&["eth0"], true) && !on(&[], false));
}

/// `@name` has these ports.
fn with_set(mut ruleset: Ruleset, name: &str, elements: Vec<(u16, Data)>) -> Ruleset {
    let element = |(port, data): (u16, Data)| {
        let key = port.to_be_bytes().to_vec();
        Element { first: key.clone(), last: key, data }
    };
    let elements = elements.into_iter().map(element).collect();
    ruleset.add_set(named(INET, "filter", name), Set { fields: vec![2], elements, others: None });
    ruleset
}

fn port_in(set: &str, inverted: bool, to: Option<u32>) -> Vec<Expression> {
    vec![
        Expression::Payload { register: 1, base: 2, offset: 2, length: 2 },
        Expression::Lookup { register: 1, set: set.into(), inverted, to },
    ]
}

#[test]
fn a_port_is_looked_up_in_a_set_by_name() {
    let drops = |inverted, to: &str| {
        let rules = input(false, vec![rule(1, port_in("web", inverted, None), DROP)]);
        let rules = with_set(rules, "web", vec![(80, Data::Nothing), (443, Data::Nothing)]);
        rules.about(&packet(to)).rule.is_some()
    };
    assert!(drops(false, "10.0.0.1:80") && !drops(false, "10.0.0.1:81"));
    assert!(!drops(true, "10.0.0.1:80") && drops(true, "10.0.0.1:81"));
    // One that could not be read leaves it open, and is named.
    let unread = input(false, vec![rule(1, port_in("web", false, None), DROP)]).about(&packet("10.0.0.1:80"));
    assert_eq!((unread.rule, unread.candidates[0].open.as_deref()), (None, Some("set web")));
}

#[test]
fn a_map_of_verdicts_decides_or_if_unread_may_lead_anywhere() {
    let rules = || {
        let map = Rule { label: "handle 1".into(), expressions: port_in("ports", false, Some(0)) };
        let mut rules = input(false, vec![map]);
        rules.add_rule(named(INET, "filter", "web"), rule(2, Vec::new(), DROP));
        rules
    };
    let jump = Data::Decides(Some(Verdict::Jump("web".into())));
    let read = with_set(rules(), "ports", vec![(80, jump)]);
    assert_eq!(
        read.about(&packet("10.0.0.1:80")).rule.unwrap().place,
        "table inet filter, chain web, handle 2"
    );
    assert_eq!(read.about(&packet("10.0.0.1:81")), RuleFacts::default());
    let facts = rules().about(&packet("10.0.0.1:81"));
    assert_eq!((facts.rule, facts.candidates[0].open.as_deref()), (None, Some("set ports")));
}

#[test]
fn what_may_have_decided_before_is_said() {
    let state = |verdict| {
        let state = Expression::Fills { register: 1, what: "ct state".into() };
        let is = Expression::Compare { register: 1, operation: 0, value: vec![0, 0, 0, 1] };
        rule(1, vec![state, is], verdict)
    };
    // One rule drops what is invalid, the next one every packet: which of them it was is open.
    let facts = input(false, vec![state(DROP), rule(2, port_is(80), DROP)]).about(&packet("10.0.0.1:80"));
    assert_eq!((facts.rule.is_some(), facts.candidates.len()), (true, 1));
    // A rule that may accept it before is no candidate: it was dropped.
    let facts =
        input(false, vec![state(Verdict::Accept), rule(2, port_is(80), DROP)]).about(&packet("10.0.0.1:80"));
    assert_eq!((facts.rule.is_some(), facts.candidates.len()), (true, 0));
    // What is accepted for sure meets no later rule of the chain.
    let accepted = vec![rule(1, port_is(80), Verdict::Accept), rule(2, Vec::new(), DROP)];
    assert_eq!(input(true, accepted).about(&packet("10.0.0.1:80")).rule, None);
}

fn dnat(mut expressions: Vec<Expression>, to: &str, port: u16) -> Rule {
    let to = Some(to.parse().unwrap());
    expressions.push(Expression::Decide(Decision::Steer { how: How::Dnat, to, port: Some(port) }));
    Rule { label: "handle 1".to_owned(), expressions }
}

fn translating(rules: Vec<(&str, Rule)>) -> Ruleset {
    let mut ruleset = Ruleset::default();
    for (name, hook) in [("PREROUTING", Hook::Prerouting), ("OUTPUT", Hook::Output)] {
        let chain = named(IPV4, "nat", name);
        ruleset.add_base(Base { chain, place: Place::Hook(hook), priority: -100, drops: false });
    }
    rules.into_iter().for_each(|(chain, rule)| ruleset.add_rule(named(IPV4, "nat", chain), rule));
    ruleset
}

fn met(rules: &Ruleset, hook: Hook, to: &str, is_local: bool) -> Vec<(Option<IpAddr>, bool)> {
    let found = rules.steering(hook, to.parse().unwrap(), is_local);
    found.into_iter().map(|steering| (steering.to, steering.open.is_empty())).collect()
}

#[test]
fn a_published_port_is_met_through_its_chain() {
    // As Docker makes them.
    let local = || Expression::ToLocal { inverted: false };
    let no_loopback = [
        Expression::Payload { register: 1, base: 1, offset: 16, length: 4 },
        Expression::Bitwise { source: 1, register: 1, mask: vec![255, 0, 0, 0], xor: vec![0; 4] },
        Expression::Compare { register: 1, operation: 1, value: vec![127, 0, 0, 0] },
        local(),
    ];
    let to_docker = || Verdict::Jump("DOCKER".into());
    let rules = translating(vec![
        ("PREROUTING", rule(1, vec![local()], to_docker())),
        ("OUTPUT", rule(2, no_loopback.to_vec(), to_docker())),
        ("DOCKER", dnat(port_is(8080), "172.17.0.2", 80)),
    ]);
    let container = Some("172.17.0.2".parse().unwrap());
    assert_eq!(met(&rules, Hook::Output, "10.0.0.1:8080", true), [(container, true)]);
    assert_eq!(met(&rules, Hook::Prerouting, "10.0.0.1:8080", true), [(container, true)]);
    // The jump excludes loopback addresses, the rule another port, the first jump what is not local.
    assert!(met(&rules, Hook::Output, "127.0.0.1:8080", true).is_empty());
    assert!(met(&rules, Hook::Output, "10.0.0.1:8081", true).is_empty());
    assert!(met(&rules, Hook::Output, "10.0.0.1:8080", false).is_empty());
    assert!(met(&rules, Hook::Output, "[::1]:8080", true).is_empty());
    let found = rules.steering(Hook::Output, "10.0.0.1:8080".parse().unwrap(), true);
    assert_eq!(found[0].rule, "table ip nat, chain DOCKER, handle 1");
}

#[test]
fn what_is_asked_of_the_client_leaves_a_translation_open() {
    let open = [port_is(80), vec![Expression::Open("limit".into())]].concat();
    let rules = translating(vec![("OUTPUT", dnat(open, "10.0.0.2", 80))]);
    assert!(!met(&rules, Hook::Output, "10.0.0.1:80", true)[0].1);
    assert!(met(&rules, Hook::Prerouting, "10.0.0.1:80", true).is_empty());
    // The first rule accepts what comes from some source, without translation.
    let from = vec![
        Expression::Payload { register: 1, base: 1, offset: 12, length: 4 },
        Expression::Compare { register: 1, operation: 0, value: vec![10, 0, 0, 5] },
    ];
    let rules = translating(vec![
        ("OUTPUT", rule(1, from, Verdict::Accept)),
        ("OUTPUT", dnat(port_is(80), "10.0.0.2", 80)),
    ]);
    let found = rules.steering(Hook::Output, "10.0.0.1:80".parse().unwrap(), true);
    assert_eq!(found[0].open, ["its source or headers in a rule before it"]);
}

#[test]
fn a_translation_may_take_the_address_and_port_from_a_map() {
    let mut rules = translating(vec![(
        "OUTPUT",
        Rule {
            label: "handle 1".into(),
            expressions: vec![
                Expression::Payload { register: 1, base: 2, offset: 2, length: 2 },
                Expression::Lookup { register: 1, set: "m".into(), inverted: false, to: Some(1) },
                Expression::Steer { how: How::Dnat, address: Some(1), port: Some(9) },
            ],
        },
    )]);
    let data = Data::Value(vec![10, 0, 0, 7, 0x1f, 0x90, 0, 0]);
    let elements = vec![Element { first: vec![0, 80], last: vec![0, 80], data }];
    rules.add_set(named(IPV4, "nat", "m"), Set { fields: vec![2], elements, others: None });
    let found = rules.steering(Hook::Output, "10.0.0.1:80".parse().unwrap(), true);
    assert_eq!((found[0].to, found[0].port), (Some("10.0.0.7".parse().unwrap()), Some(8080)));
    assert!(found[0].open.is_empty() && met(&rules, Hook::Output, "10.0.0.1:81", true).is_empty());
}

#[test]
fn chains_that_lead_to_each_other_end() {
    let jump = |to: &str| rule(1, Vec::new(), Verdict::Jump(to.into()));
    let rules =
        translating(vec![("OUTPUT", jump("a")), ("a", jump("b")), ("b", jump("a")), ("b", jump("a"))]);
    assert!(met(&rules, Hook::Output, "10.0.0.1:80", true).is_empty());
}

proptest! {
    #[test]
    fn takes_any_expression(name in "payload|meta|cmp|range|bitwise|immediate|match|target|queue|lookup|nat|fib|ct",
        bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let expressions = vec![Expression::read(&name, &Attributes(&bytes))];
        let rule = Rule { label: String::new(), expressions };
        let _ = input(false, vec![rule]).about(&packet("10.0.0.1:80"));
    }
}
