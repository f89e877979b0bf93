use crate::event::{
    CgroupFacts, Connect, ConnectResult, ConnectTotals, ConntrackFacts, DropFacts, Endpoints, Family,
    FoundRule, HandshakeDrop, Kind, ListenerReport, NeighbourFacts, NetfilterQueue, Owner, Packet,
    ReportedListener, RuleDeed, RuleFacts, SynDrop, SynDropCause,
};
use crate::finding::testing::{NETNS, Play, Server, address, handshake_drop, ms, task};
use crate::finding::{Confidence, Severity};

fn by_netfilter(packet: Packet, outgoing: bool) -> HandshakeDrop {
    HandshakeDrop {
        reason_name: Some("NETFILTER_DROP".to_owned()),
        function: Some("nf_hook_slow".to_owned()),
        input: 2,
        ..handshake_drop(packet, outgoing)
    }
}

/// The kernel side has counted `total` by now.
fn send_total(play: &mut Play, at: u64, total: u64, drop: &HandshakeDrop) {
    play.send(at, Kind::HandshakeDrop(Box::new(HandshakeDrop { total, ..drop.clone() })));
}

fn send(play: &mut Play, at: u64, drop: &HandshakeDrop) {
    send_total(play, at, at / 100, drop);
}

fn report(play: &mut Play, at: u64, listeners: &[&str]) {
    let listeners = listeners.iter().map(|local| ReportedListener {
        device: 0,
        netns: NETNS,
        local: address(local),
        v6only: None,
        inode: 7,
        owners: vec![Owner { pid: 42, comm: "nginx".to_owned() }],
    });
    let report = ListenerReport {
        netns: NETNS,
        port: 80,
        asked: ms(at),
        listeners: listeners.collect(),
        incomplete: None,
        called: Vec::new(),
    };
    play.send(at, Kind::ListenerReport(Box::new(report)));
}

#[test]
fn a_firewall_in_front_of_a_listener_is_told_with_its_hook() {
    let mut play = Play::new(4096);
    let drop = by_netfilter(Packet::Syn, false);
    send(&mut play, 1000, &drop);
    report(&mut play, 1001, &["0.0.0.0:80"]);
    assert!(play.findings.is_empty(), "one packet");
    send(&mut play, 2000, &drop);
    let finding = play.only();
    assert_eq!((finding.code, finding.cause), ("handshake-dropped", "netfilter"));
    assert_eq!(finding.title, "this host drops SYNs to nginx[42] 0.0.0.0:80: netfilter drops them in INPUT");
    assert!(finding.explanation.contains("INPUT hook"), "{}", finding.explanation);
}

#[test]
fn a_firewall_that_keeps_out_what_nobody_waits_for_is_none_of_our_business() {
    let mut play = Play::new(4096);
    for nth in 0..50 {
        send(&mut play, nth * 100, &by_netfilter(Packet::Syn, false));
    }
    report(&mut play, 5000, &["127.0.0.1:80"]);
    play.ticks_until(8000);
    assert!(play.findings.is_empty());
}

#[test]
fn packets_that_go_out_need_no_listener_and_name_who_connects() {
    let mut play = Play::new(4096);
    let drop = HandshakeDrop { task: Some(task(77, "curl")), ..by_netfilter(Packet::Syn, true) };
    send(&mut play, 1000, &drop);
    send(&mut play, 2000, &drop);
    let finding = play.only();
    assert_eq!(finding.subject.to_string(), "curl[77] 10.0.0.1:80");
    assert_eq!(Play::json(finding)["evidence"]["hook"], "OUTPUT");
}

#[test]
fn one_packet_is_enough_where_one_server_is_asked_about() {
    for (mut play, told) in [(Play::new(4096), 0), (Play::of_one_server(4096), 1)] {
        send(&mut play, 1000, &by_netfilter(Packet::Syn, false));
        report(&mut play, 1001, &["0.0.0.0:80"]);
        play.ticks_until(3000);
        assert_eq!(play.findings.len(), told);
    }
}

#[test]
fn an_ack_counts_only_if_it_is_a_handshake_s() {
    let mut play = Play::new(4096);
    report(&mut play, 0, &["0.0.0.0:80"]);
    let stray = HandshakeDrop { handshake: false, ..by_netfilter(Packet::Ack, false) };
    for nth in 0..10 {
        send(&mut play, nth * 100, &stray);
    }
    assert!(play.findings.is_empty());
    let last = by_netfilter(Packet::Ack, false);
    for nth in 10..12 {
        send(&mut play, nth * 100, &last);
    }
    report(&mut play, 1200, &["0.0.0.0:80"]);
    assert_eq!(Play::json(play.only())["evidence"]["packet"], "ACK");
}

#[test]
fn what_the_kernel_side_held_back_is_in_the_number() {
    let mut play = Play::new(4096);
    let drop = by_netfilter(Packet::Syn, false);
    send_total(&mut play, 1000, 1, &drop);
    report(&mut play, 1001, &["0.0.0.0:80"]);
    for nth in 2..65 {
        send_total(&mut play, 1000 + nth, nth, &drop);
    }
    play.ticks_until(2900);
    let finding = play.findings.last().unwrap();
    assert!(finding.numbers[0].starts_with("at least 64 SYNs"), "{:?}", finding.numbers);
    // 435 more were counted and not told.
    send_total(&mut play, 3000, 500, &drop);
    play.ticks_until(5000);
    let finding = play.findings.last().unwrap();
    assert!(finding.numbers[0].starts_with("500 SYNs"), "{:?}", finding.numbers);
    let evidence = Play::json(finding)["evidence"].clone();
    assert_eq!((evidence["dropped"].as_u64(), evidence.get("at_least")), (Some(500), None));
}

fn unroutable(errno: u32) -> Kind {
    let (local, remote) = (address("10.0.0.9:40000"), Some(address("192.0.2.1:80")));
    Kind::Connect(Box::new(Connect {
        endpoints: Endpoints { netns: NETNS, family: Family::V4, local, remote, device: 0 },
        task: Some(task(77, "curl")),
        sk: 1,
        inode: 1,
        age_ns: Some(0),
        result: ConnectResult::Error,
        errno: Some(errno),
        syns_again: 0,
        totals: ConnectTotals::default(),
    }))
}

#[test]
fn a_route_that_somebody_made_to_lead_nowhere_is_told_and_no_route_is_not() {
    for (errno, word) in [(22, "blackhole"), (13, "prohibit"), (113, "unreachable")] {
        let mut play = Play::new(4096);
        play.send(1000, unroutable(errno));
        play.send(2000, unroutable(errno));
        let finding = play.only();
        assert_eq!((finding.code, finding.cause), ("handshake-dropped", "no-route"));
        assert_eq!(finding.subject.to_string(), "curl[77] 192.0.2.1:80");
        assert!(finding.explanation.contains(word), "{}", finding.explanation);
    }
    let mut play = Play::new(4096);
    for nth in 0..9 {
        // ENETUNREACH: a host without IPv6.
        play.send(1000 * nth, unroutable(101));
    }
    assert!(play.findings.is_empty());
}

#[test]
fn a_listener_without_a_way_back_is_named() {
    let mut play = Play::new(4096);
    let server = Server::new(100, "10.0.0.1:80", 128);
    server.listen(&mut play, task(42, "nginx"), Some(128), 4096);
    for total in 1..3 {
        let (local, remote) = (address("10.0.0.1:80"), Some(address("10.9.0.9:40000")));
        play.send(
            1000 * total,
            Kind::SynDrop(SynDrop {
                endpoints: Endpoints { netns: NETNS, family: Family::V4, local, remote, device: 2 },
                listener: server.listener(),
                cause: SynDropCause::NoRoute,
                syncookies: 1,
                total,
            }),
        );
    }
    let finding = play.only();
    assert_eq!((finding.code, finding.cause), ("handshake-dropped", "no-route"));
    assert_eq!(finding.subject.to_string(), "nginx[42] 10.0.0.1:80");
    assert!(finding.explanation.contains("no route leads back"), "{}", finding.explanation);
}

/// A SYN that comes in for nginx on port 80 twice, dropped for this reason, with what the host showed.
fn dropped_twice(reason: &str, function: &str, facts: DropFacts) -> Play {
    let mut play = Play::new(4096);
    let drop = HandshakeDrop {
        reason: 5,
        reason_name: Some(reason.to_owned()),
        function: Some(function.to_owned()),
        input: 2,
        facts: Some(Box::new(facts)),
        ..handshake_drop(Packet::Syn, false)
    };
    send(&mut play, 1000, &drop);
    report(&mut play, 1001, &["0.0.0.0:80"]);
    send(&mut play, 2000, &drop);
    play
}

fn evidence(play: &Play) -> serde_json::Value {
    Play::json(play.only())["evidence"].clone()
}

#[test]
fn a_rule_is_certain_only_if_one_was_read_that_matches() {
    let rule = |rule: Option<RuleDeed>| {
        let rule = rule.map(|deed| FoundRule {
            place: "table inet filter, chain input, handle 7".to_owned(),
            deed,
            queue: None,
            open: None,
        });
        let rules = Some(RuleFacts { rule, ..RuleFacts::default() });
        dropped_twice("NETFILTER_DROP", "nf_hook_slow", DropFacts { rules, ..DropFacts::default() })
    };
    let known = rule(Some(RuleDeed::Drop));
    assert_eq!((known.only().cause, known.only().confidence), ("netfilter", Confidence::Certain));
    assert!(known.only().explanation.contains("handle 7"), "{}", known.only().explanation);
    let unknown = rule(None);
    assert_eq!((unknown.only().cause, unknown.only().confidence), ("netfilter", Confidence::Likely));
    assert!(unknown.only().explanation.contains("IPVS"), "{}", unknown.only().explanation);
    assert_eq!(rule(Some(RuleDeed::Reject)).only().cause, "reject");
}

#[test]
fn a_rule_that_may_have_come_first_leaves_it_likely_and_is_named() {
    let rule = |handle: u8, open: Option<&str>| FoundRule {
        place: format!("table inet filter, chain input, handle {handle}"),
        deed: RuleDeed::Drop,
        queue: None,
        open: open.map(str::to_owned),
    };
    let play = |rules| {
        dropped_twice(
            "NETFILTER_DROP",
            "nf_hook_slow",
            DropFacts { rules: Some(rules), ..DropFacts::default() },
        )
    };
    let facts = RuleFacts {
        rule: Some(rule(7, None)),
        candidates: vec![rule(5, Some("ct state"))],
        ..RuleFacts::default()
    };
    let two = play(facts);
    assert_eq!((two.only().cause, two.only().confidence), ("netfilter", Confidence::Likely));
    for part in ["handle 7", "handle 5", "ct state"] {
        assert!(two.only().explanation.contains(part), "{}", two.only().explanation);
    }
    let unread =
        RuleFacts { rule: Some(rule(7, None)), unread: vec!["set bad".into()], ..RuleFacts::default() };
    assert_eq!(play(unread).only().confidence, Confidence::Likely);
    // Nor is a full table certain to have dropped it then.
    let full = ConntrackFacts { count: 9, max: 9, dropped: true, invalid: false, drops: 9, counted: true };
    let rules = Some(RuleFacts { candidates: vec![rule(5, Some("ct state"))], ..RuleFacts::default() });
    let facts = DropFacts { conntrack: Some(full), rules, ..DropFacts::default() };
    let both = dropped_twice("NETFILTER_DROP", "nf_hook_slow", facts);
    assert_eq!((both.only().cause, both.only().confidence), ("conntrack-full", Confidence::Likely));
}

#[test]
fn a_full_connection_tracking_table_blames_no_rule() {
    let conntrack = Some(ConntrackFacts {
        count: 4096,
        max: 4096,
        dropped: true,
        invalid: false,
        drops: 9,
        counted: true,
    });
    let with = |rules| {
        dropped_twice(
            "NETFILTER_DROP",
            "nf_hook_slow",
            DropFacts { conntrack, rules, ..DropFacts::default() },
        )
    };
    // Without a look at the rules, one of them may have dropped it.
    assert_eq!(with(None).only().confidence, Confidence::Likely);
    let play = with(Some(RuleFacts::default()));
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("conntrack-full", Confidence::Certain));
    assert_eq!(
        finding.title,
        "this host drops SYNs to nginx[42] 0.0.0.0:80: the connection tracking table is full"
    );
    assert_eq!((evidence(&play)["conntrack_max"].as_u64(), evidence(&play).get("hook")), (Some(4096), None));
    assert!(finding.explanation.contains("4096 of 4096"), "{}", finding.explanation);
    let command = finding.remedy[0].command.as_deref().unwrap();
    assert_eq!(command, "sysctl -w net.netfilter.nf_conntrack_max=65536");
}

#[test]
fn an_unread_queue_is_told_from_one_that_is_full() {
    let with = |queues: &[NetfilterQueue]| {
        let queues = Some(queues.to_vec());
        dropped_twice("NOT_SPECIFIED", "nf_queue", DropFacts { queues, ..DropFacts::default() })
    };
    let unread = with(&[]);
    assert_eq!((unread.only().cause, unread.only().confidence), ("nfqueue-unread", Confidence::Certain));
    let full = with(&[NetfilterQueue { number: 0, reader: 77, waiting: 1024, dropped: 5, unread: 0 }]);
    assert_eq!((full.only().cause, full.only().confidence), ("nfqueue-full", Confidence::Likely));
}

#[test]
fn what_sockets_and_control_groups_discard_is_theirs() {
    let plain = |reason| dropped_twice(reason, "tcp_v4_rcv", DropFacts::default());
    for (reason, cause) in
        [("TCP_MD5NOTFOUND", "tcp-md5"), ("TCP_AOFAILURE", "tcp-ao"), ("TCP_MINTTL", "min-ttl")]
    {
        let play = plain(reason);
        assert_eq!((play.only().cause, play.only().confidence), (cause, Confidence::Certain), "{reason}");
    }
    let cgroup = Some(CgroupFacts {
        path: "/system.slice/web.service".to_owned(),
        attached_to: Some("/system.slice/web.service".to_owned()),
        programs: vec!["sd_fw_ingress".to_owned()],
        asked: true,
    });
    let play = dropped_twice("SOCKET_FILTER", "tcp_v4_rcv", DropFacts { cgroup, ..DropFacts::default() });
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("cgroup-filter", Confidence::Likely));
    assert!(finding.title.ends_with("the IP filter of web.service"), "{}", finding.title);
    assert!(finding.explanation.contains("IPAddressDeny="), "{}", finding.explanation);
    assert_eq!(plain("SOCKET_FILTER").only().cause, "socket-filter");
}

#[test]
fn an_unknown_word_is_given_as_it_is() {
    let play = dropped_twice("NOVEL_REASON", "novel_function", DropFacts::default());
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("unknown", Confidence::Possible));
    assert!(finding.title.ends_with("NOVEL_REASON"), "{}", finding.title);
    assert!(finding.explanation.contains("novel_function") && finding.explanation.contains("does not know"));
}

#[test]
fn one_full_neighbour_table_is_one_finding_whoever_is_called() {
    let mut play = Play::new(4096);
    let neighbours = Some(NeighbourFacts { entries: 1024, limit: Some(1024), overflowed: true });
    for host in 0..20_u8 {
        let mut drop = handshake_drop(Packet::Syn, true);
        drop.reason_name = Some("NEIGH_CREATEFAIL".to_owned());
        drop.endpoints.remote = Some(([10, 9, 21, host], 80).into());
        drop.task = Some(task(77, "pod"));
        drop.facts = Some(Box::new(DropFacts { neighbours, ..DropFacts::default() }));
        send(&mut play, 1000 + u64::from(host) * 10, &drop);
    }
    play.ticks_until(4000);
    let finding = play.only();
    assert_eq!((finding.cause, finding.confidence), ("neighbour-table", Confidence::Certain));
    assert_eq!(finding.title, "this host drops SYNs to 20 servers: the neighbour table is full");
    assert_eq!(finding.subject.to_string(), "pod[77]");
    assert!(
        finding.explanation.contains("1024 entries are in use, and the limit (gc_thresh3) is 1024"),
        "{}",
        finding.explanation
    );
}

#[test]
fn a_neighbour_table_that_overflowed_stays_one_that_did() {
    let mut play = Play::new(4096);
    for (nth, (entries, overflowed)) in [(6, true), (5, false), (7, false)].into_iter().enumerate() {
        let mut drop = handshake_drop(Packet::Syn, true);
        drop.reason_name = Some("NEIGH_CREATEFAIL".to_owned());
        drop.task = Some(task(77, "pod"));
        let neighbours = Some(NeighbourFacts { entries, limit: Some(6), overflowed });
        drop.facts = Some(Box::new(DropFacts { neighbours, ..DropFacts::default() }));
        send(&mut play, 1000 + 100 * u64::try_from(nth).unwrap(), &drop);
    }
    play.ticks_until(3000);
    let explanation = &play.only().explanation;
    assert!(
        explanation.contains(
            "7 entries are in use, and the limit (gc_thresh3) is 6, and its counter of overflows grew"
        ),
        "{explanation}"
    );
}

#[test]
fn a_rule_on_the_way_out_is_told_for_a_few_servers_and_then_for_all() {
    let mut play = Play::new(4096);
    for host in 0..20_u8 {
        for again in 0..2 {
            let mut drop = by_netfilter(Packet::Syn, true);
            drop.endpoints.remote = Some(([10, 9, 21, host], 80).into());
            send(&mut play, 1000 + u64::from(host) * 10 + again, &drop);
        }
    }
    let mut ids: Vec<u64> = play.findings.iter().map(|finding| finding.id).collect();
    ids.dedup();
    assert_eq!(ids.iter().max(), Some(&5));
}

#[test]
fn a_server_that_serves_others_is_a_warning_and_one_that_serves_no_client_is_critical() {
    let syns = |served: bool| {
        let mut play = Play::new(4096);
        let mut server = Server::new(100, "0.0.0.0:80", 128);
        server.listen(&mut play, task(42, "nginx"), Some(128), 4096);
        if served {
            server.totals.enqueued = Some(5);
        }
        play.send(900, server.sample());
        let drop = by_netfilter(Packet::Syn, false);
        send(&mut play, 1000, &drop);
        report(&mut play, 1001, &["0.0.0.0:80"]);
        send(&mut play, 2000, &drop);
        play.ticks_until(4000);
        play.only().severity
    };
    assert_eq!(syns(false), Severity::Critical);
    assert_eq!(syns(true), Severity::Warning);
}
