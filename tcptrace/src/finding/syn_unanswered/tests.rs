use crate::event::{
    CalledAddress, ConnectResult, ConnectTotals, Kind, ListenerReport, ListenerSample, NoListener, Owner,
    Packet, ReportedListener, Timestamp,
};
use crate::finding::testing::{NETNS, Play, Server, connect, handshake_drop, ms};
use crate::finding::{Confidence, Severity, State};

/// Connects of one process to one destination, with the kernel side's counts.
struct Client {
    play: Play,
    totals: ConnectTotals,
}

impl Client {
    fn new() -> Self {
        Self { play: Play::new(4096), totals: ConnectTotals { since: ms(0), ..ConnectTotals::default() } }
    }

    fn tell(&mut self, at: u64, port: u16, result: ConnectResult, syns_again: u32) {
        let totals = &mut self.totals;
        match result {
            ConnectResult::SynAgain => {
                totals.syns_again += 1;
                totals.unanswered += u64::from(syns_again == 1);
            }
            ConnectResult::TimedOut => totals.timed_out += 1,
            ConnectResult::Unreachable => totals.unreachable += 1,
            ConnectResult::Cancelled => totals.cancelled += 1,
            ConnectResult::Established => totals.established += 1,
            _ => {}
        }
        let errno = match result {
            ConnectResult::TimedOut => Some(110),
            ConnectResult::Unreachable => Some(113),
            _ => None,
        };
        let mut connect = connect(result, errno, *totals);
        connect.endpoints.local.set_port(port);
        connect.sk = u64::from(port);
        connect.age_ns = Some(at * 1_000_000);
        connect.syns_again = syns_again;
        self.play.send(at, Kind::Connect(Box::new(connect)));
    }
}

#[test]
fn a_connect_that_waits_long_is_told_once_and_updated() {
    let mut client = Client::new();
    client.tell(1000, 40000, ConnectResult::SynAgain, 1);
    client.tell(3000, 40000, ConnectResult::SynAgain, 2);
    client.play.ticks_until(6000);
    assert!(client.play.findings.is_empty(), "the loss of a packet or two is nothing to tell of");
    client.tell(7000, 40000, ConnectResult::SynAgain, 3);
    client.play.ticks_until(9000);
    client.tell(15_000, 40000, ConnectResult::TimedOut, 3);
    client.play.ticks_until(16_000);
    let finding = client.play.only();
    assert_eq!((finding.code, finding.cause), ("syn-unanswered", "no-answer"));
    assert_eq!(finding.subject.to_string(), "curl[77] 10.0.0.1:80");
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(
        finding.numbers,
        ["1 connect not answered, 3 SYNs sent again; waited up to 15.0 s; 1 timed out"]
    );
    client.play.ticks_until(60_000);
    assert_eq!(client.play.only().state, State::Closed);
}

#[test]
fn a_syn_to_a_loopback_address_is_not_lost_on_the_way() {
    for (remote, cause) in
        [("127.0.0.1:1081", "local-drop"), ("[::1]:1081", "local-drop"), ("192.0.2.1:1081", "no-answer")]
    {
        let mut play = Play::new(4096);
        for (at, syns_again) in [(1000, 1), (3000, 2), (7000, 3)] {
            let totals = ConnectTotals {
                since: ms(0),
                syns_again: syns_again.into(),
                unanswered: 1,
                ..ConnectTotals::default()
            };
            let mut connect = connect(ConnectResult::SynAgain, None, totals);
            connect.endpoints.remote = Some(remote.parse().unwrap());
            (connect.age_ns, connect.syns_again) = (Some(at * 1_000_000), syns_again);
            play.send(at, Kind::Connect(Box::new(connect)));
        }
        play.ticks_until(9000);
        let finding = play.only();
        assert_eq!((finding.cause, finding.confidence), (cause, Confidence::Likely), "{remote}");
        let advice = &finding.remedy[0].text;
        assert_eq!(advice.contains("sk_lookup"), cause == "local-drop", "{advice}");
        assert_eq!(advice.contains("at the destination"), cause == "no-answer", "{advice}");
    }
}

#[test]
fn connects_that_are_called_off_count_if_there_are_several() {
    let mut client = Client::new();
    for port in 0..3 {
        assert!(client.play.findings.is_empty());
        let at = u64::from(port) * 3000;
        client.tell(at + 1000, 40000 + port, ConnectResult::SynAgain, 1);
        client.tell(at + 1500, 40000 + port, ConnectResult::Cancelled, 1);
    }
    client.play.ticks_until(10_000);
    assert_eq!(client.play.only().cause, "no-answer");
}

#[test]
fn an_icmp_message_is_quoted() {
    let mut client = Client::new();
    client.tell(3000, 40000, ConnectResult::Unreachable, 0);
    client.play.ticks_until(5000);
    let finding = client.play.only();
    assert!(finding.explanation.starts_with("EHOSTUNREACH: an ICMP message"), "{}", finding.explanation);
}

#[test]
fn slow_but_answered_connects_are_no_finding() {
    let mut client = Client::new();
    for port in 0..20 {
        let at = u64::from(port) * 500;
        client.tell(at, 40000 + port, ConnectResult::SynAgain, 1);
        client.tell(at + 100, 40000 + port, ConnectResult::Established, 1);
    }
    client.play.ticks_until(30_000);
    assert!(client.play.findings.is_empty());
}

#[test]
fn records_that_come_late_do_not_count_twice() {
    let mut client = Client::new();
    client.tell(1000, 40000, ConnectResult::TimedOut, 0);
    let late = client.totals;
    client.tell(2000, 40001, ConnectResult::TimedOut, 0);
    client.totals = ConnectTotals { timed_out: 0, ..late };
    client.tell(2001, 40002, ConnectResult::TimedOut, 0);
    client.play.ticks_until(4000);
    assert_eq!(Play::json(client.play.only())["evidence"]["timed_out"], 2);
    assert_eq!(client.totals.since, Timestamp::from_nanos(crate::finding::testing::START));
}

/// The listener that has 10.0.0.1:80 is on this host.
fn found_here(client: &mut Client, at: u64) {
    let listener = ReportedListener {
        netns: NETNS + 1,
        local: "0.0.0.0:80".parse().unwrap(),
        v6only: None,
        inode: 7,
        device: 0,
        owners: vec![Owner { pid: 42, comm: "nginx".to_owned() }],
    };
    let report = ListenerReport {
        netns: NETNS,
        port: 80,
        asked: ms(at),
        listeners: vec![listener],
        incomplete: None,
        called: vec![CalledAddress { address: [10, 0, 0, 1].into(), held_by: vec![NETNS + 1] }],
    };
    client.play.send(at, Kind::ListenerReport(Box::new(report)));
}

#[test]
fn a_syn_that_is_lost_between_two_ends_of_this_host_is_lost_here() {
    let mut client = Client::new();
    client.tell(1000, 40000, ConnectResult::SynAgain, 1);
    client.tell(3000, 40000, ConnectResult::SynAgain, 2);
    found_here(&mut client, 3001);
    client.tell(7000, 40000, ConnectResult::SynAgain, 3);
    client.play.ticks_until(9000);
    let finding = client.play.only();
    assert_eq!((finding.cause, finding.confidence), ("local-drop", Confidence::Likely));
    assert!(finding.explanation.contains("nginx[42] 0.0.0.0:80"), "{}", finding.explanation);
    assert!(finding.explanation.contains("last seen as the client sent it"), "{}", finding.explanation);
}

#[test]
fn a_full_queue_in_another_namespace_of_this_host_is_not_a_loss_on_the_way() {
    let mut client = Client::new();
    let mut server = Server::new(1, "0.0.0.0:80", 0);
    (server.inode, server.depth) = (7, 1);
    client.play.send(500, Kind::ListenerSample(Box::new(in_another_namespace(server.polled_sample()))));
    client.tell(1000, 40000, ConnectResult::SynAgain, 1);
    client.tell(3000, 40000, ConnectResult::SynAgain, 2);
    found_here(&mut client, 3001);
    client.tell(7000, 40000, ConnectResult::SynAgain, 3);
    client.play.ticks_until(9000);
    let finding = client.play.findings.iter().rfind(|finding| finding.code == "syn-unanswered").unwrap();
    assert_eq!((finding.cause, finding.confidence), ("local-drop", Confidence::Likely));
    assert!(finding.explanation.contains("its accept queue is full"), "{}", finding.explanation);
}

fn in_another_namespace(sample: Kind) -> ListenerSample {
    let Kind::ListenerSample(mut sample) = sample else { panic!("no sample: {sample:?}") };
    sample.endpoints.netns = NETNS + 1;
    *sample
}

#[test]
fn the_function_that_dropped_it_without_a_reason_is_named() {
    let mut client = Client::new();
    let mut drop = handshake_drop(Packet::Syn, true);
    drop.function = Some("veth_xmit".to_owned());
    client.play.send(900, Kind::HandshakeDrop(Box::new(drop)));
    client.tell(1000, 40000, ConnectResult::SynAgain, 1);
    found_here(&mut client, 3001);
    client.tell(7000, 40000, ConnectResult::SynAgain, 3);
    client.play.ticks_until(9000);
    let finding = client.play.only();
    assert!(finding.explanation.contains("function veth_xmit"), "{}", finding.explanation);
}

#[test]
fn an_icmp_message_from_elsewhere_is_no_local_drop() {
    let mut client = Client::new();
    client.tell(1000, 40000, ConnectResult::SynAgain, 1);
    found_here(&mut client, 1001);
    client.tell(3000, 40000, ConnectResult::Unreachable, 1);
    client.play.ticks_until(5000);
    assert_eq!(client.play.only().cause, "no-answer");
}

/// The drop of one connect's SYN proves nothing for the next one.
#[test]
fn what_was_seen_of_an_earlier_connect_makes_the_next_no_more_than_likely() {
    let told = |also_lost_elsewhere: bool| {
        let mut client = Client::new();
        let mut drop = handshake_drop(Packet::Syn, false);
        drop.reason_name = Some("NETFILTER_DROP".to_owned());
        client.play.send(900, Kind::HandshakeDrop(Box::new(drop)));
        for (at, syns_again) in [(1000, 1), (3000, 2), (7000, 3)] {
            client.tell(at, 40000, ConnectResult::SynAgain, syns_again);
            if also_lost_elsewhere {
                client.tell(at + 1, 40001, ConnectResult::SynAgain, syns_again);
            }
        }
        client.play.ticks_until(9000);
        let finding = client.play.only_of("syn-unanswered");
        (finding.cause, finding.confidence)
    };
    assert_eq!(told(false), ("local-drop", Confidence::Certain));
    assert_eq!(told(true), ("local-drop", Confidence::Likely));
}

#[test]
fn a_syn_that_meets_no_socket_and_whose_rst_is_lost_is_not_lost_on_the_way() {
    let mut client = Client::new();
    for nth in 1..=3_u32 {
        let at = 1000 * u64::from(nth);
        let endpoints = connect(ConnectResult::SynAgain, None, ConnectTotals::default()).endpoints;
        let mut server = endpoints;
        (server.local, server.remote) = (endpoints.remote.unwrap(), Some(endpoints.local));
        server.local.set_port(80);
        server.remote.as_mut().unwrap().set_port(40000);
        client.play.send(at, Kind::NoListener(NoListener { endpoints: server, total: nth.into() }));
        client.tell(at + 500, 40000, ConnectResult::SynAgain, nth);
    }
    let report = ListenerReport {
        netns: NETNS,
        port: 80,
        asked: ms(3600),
        listeners: Vec::new(),
        incomplete: None,
        called: Vec::new(),
    };
    client.play.send(3600, Kind::ListenerReport(Box::new(report)));
    client.play.ticks_until(9000);
    let told = |code: &str| client.play.findings.iter().find(|finding| finding.code == code).unwrap();
    let unanswered = told("syn-unanswered");
    assert_eq!((unanswered.cause, unanswered.confidence), ("local-drop", Confidence::Likely));
    assert!(unanswered.explanation.contains("meets no socket"), "{}", unanswered.explanation);
    let absent = told("no-listener");
    assert!(absent.title.ends_with("3 SYNs meet no socket"), "{}", absent.title);
    assert_eq!(absent.confidence, Confidence::Likely);
}
