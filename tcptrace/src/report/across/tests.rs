//! Two hosts, their clocks, and what happened between them.

use super::*;
use crate::event::{
    AckDrop, AckDropCause, Connect, ConnectResult, ConnectTotals, Endpoints, Enqueue, EnqueuedBy, Event,
    Family, Kind, ListenerRef, NoListener, SynDrop, SynDropCause, Task, Timestamp,
};
use crate::finding::Confidence;
use crate::report::Digest;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const START: u64 = 1_700_000_000 * SECOND;
const SERVER: &str = "10.0.0.1:80";

/// What happened, by true time; each end's clock is off by so much.
#[derive(Default)]
struct World {
    client_ahead: i64,
    server_ahead: i64,
    client: Vec<Event>,
    server: Vec<Event>,
}

fn ends(local: &str, remote: &str) -> Endpoints {
    Endpoints {
        netns: 1,
        family: Family::V4,
        local: local.parse().unwrap(),
        remote: Some(remote.parse().unwrap()),
        device: 0,
    }
}

fn listener() -> ListenerRef {
    ListenerRef { sk: 9, inode: 7, depth: 6, limit: 5, syn_queue: 0 }
}

impl World {
    fn skewed(server_ahead: i64) -> Self {
        Self { server_ahead, ..Self::default() }
    }

    fn at_client(&mut self, time: u64, kind: Kind) {
        let time = Timestamp::from_nanos((START + time).saturating_add_signed(self.client_ahead));
        self.client.push(Event { time, kind });
    }

    fn at_server(&mut self, time: u64, kind: Kind) {
        let time = Timestamp::from_nanos((START + time).saturating_add_signed(self.server_ahead));
        self.server.push(Event { time, kind });
    }

    fn connect(&mut self, time: u64, began: u64, port: u16, syns_again: u32, result: ConnectResult) {
        let client = format!("10.0.0.2:{port}");
        let connect = Connect {
            endpoints: ends(&client, SERVER),
            task: Some(Task { pid: 815, tid: 815, comm: "curl".into(), ..Task::default() }),
            sk: u64::from(port),
            inode: 0,
            age_ns: Some(time - began),
            result,
            errno: None,
            syns_again,
            totals: ConnectTotals::default(),
        };
        self.at_client(time, Kind::Connect(Box::new(connect)));
    }

    fn enqueue(&mut self, time: u64, answered: u64, port: u16) {
        let enqueue = Enqueue {
            endpoints: ends(SERVER, &format!("10.0.0.2:{port}")),
            listener: listener(),
            child: 1,
            how: EnqueuedBy::Handshake,
            handshake_ns: Some(time - answered),
        };
        self.at_server(time, Kind::Enqueue(enqueue));
    }

    fn syn_drop(&mut self, time: u64, port: u16) {
        let drop = SynDrop {
            endpoints: ends(SERVER, &format!("10.0.0.2:{port}")),
            listener: listener(),
            cause: SynDropCause::AcceptQueue,
            syncookies: 1,
            total: 1,
        };
        self.at_server(time, Kind::SynDrop(drop));
    }

    /// A handshake that goes well: so long there, so long back.
    fn handshake(&mut self, time: u64, port: u16, there: u64, back: u64) {
        self.connect(time + there + back, time, port, 0, ConnectResult::Established);
        self.enqueue(time + 2 * there + back, time + there, port);
    }

    /// A connect whose SYN is dropped at the full accept queue, twice.
    fn stall(&mut self, time: u64, port: u16) {
        let hop = MS / 4;
        self.syn_drop(time + hop, port);
        self.connect(time + SECOND, time, port, 1, ConnectResult::SynAgain);
        self.syn_drop(time + SECOND + hop, port);
        self.connect(time + 3 * SECOND, time, port, 2, ConnectResult::SynAgain);
        self.connect(time + 3 * SECOND + 2 * hop, time, port, 2, ConnectResult::Established);
        self.enqueue(time + 3 * SECOND + 3 * hop, time + 3 * SECOND + hop, port);
    }

    fn joined(&self) -> Across {
        joined(&[("client", "a", &self.client), ("web1", "b", &self.server)])
    }
}

fn joined(recordings: &[(&str, &str, &[Event])]) -> Across {
    let mut reports: Vec<(Metadata, Report)> = recordings
        .iter()
        .map(|(host, boot, events)| {
            let mut events = events.to_vec();
            events.sort_by_key(|event| event.time);
            let mut digest = Digest::new(None, None, None).to_be_joined();
            events.iter().for_each(|event| assert!(digest.note(event)));
            let metadata =
                Metadata { host: (*host).to_owned(), boot_id: (*boot).to_owned(), ..Metadata::default() };
            (metadata, digest.finish())
        })
        .collect();
    join(&mut reports.iter_mut().map(|(metadata, report)| (&*metadata, report)).collect::<Vec<_>>())
}

/// Whether the clock is said to be ahead by that much, within the error that is said.
fn tells(clock: &Clock, ahead_ns: i64) -> bool {
    let (Some(ahead), Some(error)) = (clock.ahead_ms, clock.error_ms) else { return false };
    (ahead - ahead_ns as f64 / 1e6).abs() <= error
}

#[test]
fn clocks_are_compared_by_what_both_saw() {
    for skew in [0, 2_300_412_345, -86_400_000_000_000, 1] {
        let mut world = World::skewed(skew);
        for n in 0..40_u16 {
            let there = MS / 10 + u64::from(n * 919 % 13) * MS;
            let back = MS / 10 + u64::from(n * 104 % 11) * MS;
            world.handshake(u64::from(n) * 10 * MS, 40_000 + n, there, back);
        }
        let across = world.joined();
        let clock = &across.clocks[1];
        assert!(tells(clock, skew), "{skew}: {clock:?}");
        assert!(
            clock.error_ms.unwrap() < 2.0 && clock.handshakes == 40 && clock.contradicting == 0,
            "{clock:?}"
        );
        assert_eq!((clock.against.as_deref(), clock.untold), (Some("client"), None));
        assert!(across.stalls.is_empty(), "{:?}", across.stalls);
        // The same from the other side.
        let turned = joined(&[("web1", "b", &world.server), ("client", "a", &world.client)]);
        assert!(tells(&turned.clocks[1], -skew), "{skew}: {:?}", turned.clocks[1]);
    }
}

#[test]
fn clocks_that_share_no_handshake_are_not_compared() {
    let (mut one, mut other) = (World::default(), World::default());
    one.handshake(0, 40_000, MS, MS);
    other.handshake(0, 40_001, MS, MS);
    let across = joined(&[("client", "a", &one.client), ("web1", "b", &other.server)]);
    let clock = &across.clocks[1];
    assert_eq!((clock.ahead_ms, clock.error_ms, &clock.against), (None, None, &None));
    assert!(clock.untold.unwrap().contains("no handshake is in both"));
}

/// Behind a NAT the two ends know the connection by different addresses: nothing is put together, and nothing is claimed.
#[test]
fn translated_addresses_are_not_matched() {
    let mut world = World::default();
    world.stall(0, 40_000);
    let mut server = world.server.clone();
    for event in &mut server {
        match &mut event.kind {
            Kind::SynDrop(drop) => drop.endpoints.remote = "192.0.2.9:61000".parse().ok(),
            Kind::Enqueue(enqueue) => enqueue.endpoints.remote = "192.0.2.9:61000".parse().ok(),
            _ => {}
        }
    }
    let across = joined(&[("client", "a", &world.client), ("web1", "b", &server)]);
    assert!(across.clocks[1].untold.is_some() && across.stalls.is_empty(), "{across:?}");
}

#[test]
fn one_side_of_a_handshake_bounds_one_side_of_the_offset() {
    let mut world = World::skewed(5_000);
    world.connect(SECOND, 0, 40_000, 1, ConnectResult::SynAgain);
    world.syn_drop(MS, 40_000);
    assert!(world.joined().clocks[1].untold.unwrap().contains("one side only"));
}

#[test]
fn a_wrong_match_is_outvoted_and_a_clock_that_was_set_is_said() {
    let mut world = World::skewed(SECOND.cast_signed());
    (0..9).for_each(|n| world.handshake(u64::from(n) * MS, 40_000 + n, MS, MS));
    world.server_ahead += 50 * SECOND.cast_signed();
    world.handshake(9 * MS, 40_009, MS, MS);
    let clock = &world.joined().clocks[1];
    assert!(tells(clock, SECOND.cast_signed()), "{clock:?}");
    assert_eq!((clock.handshakes, clock.contradicting), (9, 1));
    (10..30).for_each(|n| {
        world.server_ahead += 50 * SECOND.cast_signed();
        world.handshake(u64::from(n) * MS, 40_000 + n, MS, MS);
    });
    let clock = &world.joined().clocks[1];
    assert!(clock.untold.unwrap().contains("contradict"), "{clock:?}");
}

/// Times are wall-clock: two recordings of one boot have one clock, whatever the wall clock was set to in between.
#[test]
fn one_host_recorded_twice_has_one_clock_and_explains_nothing_twice() {
    let mut world = World::default();
    world.stall(0, 40_000);
    let both: Vec<Event> = world.client.iter().chain(&world.server).cloned().collect();
    let across = joined(&[("web1", "a", &both), ("web1", "a", &both)]);
    let clock = &across.clocks[1];
    assert_eq!((clock.ahead_ms, clock.error_ms, clock.handshakes), (Some(0.0), Some(0.0), 0));
    assert_eq!((across.clocks[0].recording.as_str(), clock.recording.as_str()), ("web1#1", "web1#2"));
    assert!(across.stalls.is_empty(), "{:?}", across.stalls);
    // Two hosts whose containers have the same addresses are not one.
    let across = joined(&[("web1", "a", &both), ("web2", "b", &both)]);
    assert!(across.clocks[1].untold.is_some() && across.stalls.is_empty(), "{across:?}");
    // Two namespaces of one host, recorded apart.
    let across = joined(&[("web1", "a", &world.client), ("web1", "a", &world.server)]);
    assert_eq!(across.stalls.len(), 1);
}

#[test]
fn clocks_are_compared_over_a_third() {
    let (mut near, mut far) = (World::skewed(7 * SECOND.cast_signed()), World::default());
    (0..5).for_each(|n| near.handshake(u64::from(n) * MS, 40_000 + n, MS / 2, MS / 2));
    // The server of the first is the client of the second.
    far.client_ahead = 7 * SECOND.cast_signed();
    far.server_ahead = -SECOND.cast_signed();
    (0..5).for_each(|n| far.handshake(u64::from(n) * MS, 50_000 + n, MS / 2, MS / 2));
    let middle: Vec<Event> = near.server.iter().chain(&far.client).cloned().collect();
    let across =
        joined(&[("front", "a", &near.client), ("middle", "b", &middle), ("back", "c", &far.server)]);
    assert!(
        tells(&across.clocks[1], 7 * SECOND.cast_signed()) && tells(&across.clocks[2], -SECOND.cast_signed())
    );
    assert!(across.clocks[2].error_ms > across.clocks[1].error_ms);
    assert_eq!(across.clocks[2].against.as_deref(), Some("front"));
}

#[test]
fn a_client_s_stall_names_what_the_server_did() {
    let mut world = World::skewed(-40 * SECOND.cast_signed());
    world.stall(0, 40_000);
    world.stall(100 * MS, 40_001);
    // One that the server never saw until its third SYN.
    world.connect(SECOND, 0, 40_002, 1, ConnectResult::SynAgain);
    world.connect(SECOND + MS, 0, 40_002, 1, ConnectResult::Established);
    world.enqueue(SECOND + MS + MS / 2, SECOND + MS / 2, 40_002);
    (3..20).for_each(|n| world.handshake(u64::from(n) * MS, 40_000 + n, MS / 4, MS / 4));
    let across = world.joined();
    assert!(tells(&across.clocks[1], -40 * SECOND.cast_signed()), "{:?}", across.clocks);
    let [full, lost] = &across.stalls[..] else { panic!("{:?}", across.stalls) };
    assert_eq!((full.code, full.matched, full.stalled), ("accept-queue-overflow", 2, 3));
    assert_eq!((full.client.as_str(), full.server_recording.as_str()), ("curl[815]", "web1"));
    assert_eq!((full.confidence, full.deeds.as_str()), (Confidence::Certain, "4 SYNs dropped"));
    assert_eq!(full.longest_ms, Some(3000.5));
    let course: Vec<&str> = full.course.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(
        course,
        [
            "connect()",
            "SYN dropped: the accept queue is full",
            "SYN sent again",
            "SYN dropped: the accept queue is full",
            "SYN sent again",
            "SYN answered",
            "established",
            "in the accept queue"
        ]
    );
    assert_eq!((lost.code, lost.matched), ("lost-on-the-way", 1));
    let (_, lines) = stall_lines(full);
    assert!(lines[0].contains("because at web1: unknown process 10.0.0.1:80 drops connections"), "{lines:?}");
    assert!(lines[1].contains("2 of 3 stalled connects seen at both ends: 4 SYNs dropped"), "{lines:?}");
}

#[test]
fn refusals_and_connections_that_never_were_are_matched() {
    let mut world = World::skewed(3 * SECOND.cast_signed());
    for port in 40_000..40_004 {
        world.connect(MS, 0, port, 0, ConnectResult::Refused);
        let absent = NoListener { endpoints: ends(SERVER, &format!("10.0.0.2:{port}")), total: 1 };
        world.at_server(MS / 2, Kind::NoListener(absent));
    }
    // The client is connected, as it thinks; its ACK was dropped.
    world.connect(MS, 0, 40_009, 0, ConnectResult::Established);
    let drop = AckDrop {
        endpoints: ends(SERVER, "10.0.0.2:40009"),
        listener: listener(),
        cause: AckDropCause::AcceptQueue,
        total: 1,
    };
    world.at_server(MS + MS / 2, Kind::AckDrop(drop));
    let across = world.joined();
    // A refusal lies between connect() and its end: that is an error of half a millisecond.
    assert!(tells(&across.clocks[1], 3 * SECOND.cast_signed()) && across.clocks[1].error_ms.unwrap() < 0.6);
    let codes: Vec<_> = across.stalls.iter().map(|stall| (stall.code, stall.matched)).collect();
    assert_eq!(codes, [("no-listener", 4), ("accept-queue-overflow", 1)]);
}

#[test]
fn a_port_that_is_used_again_is_told_apart_by_time() {
    let mut world = World::skewed(600 * SECOND.cast_signed());
    (1..9).for_each(|n| world.handshake(u64::from(n) * MS, 41_000 + n, MS / 4, MS / 4));
    world.handshake(20 * MS, 40_000, MS / 4, MS / 4);
    world.stall(300 * SECOND, 40_000);
    let across = world.joined();
    let [stall] = &across.stalls[..] else { panic!("{:?}", across.stalls) };
    assert_eq!((stall.code, stall.matched, stall.course.len()), ("accept-queue-overflow", 1, 8));
}

/// Of too many, both hosts keep the same ones: else nothing of them would be shared.
#[test]
fn of_too_many_handshakes_both_ends_keep_the_same() {
    let (mut client, mut server) = (Handshakes::default(), Handshakes::default());
    let mut world = World::default();
    for n in 0..170_000_u64 {
        world.handshake(n * MS, (n % 60_000) as u16 + 1, MS, MS);
        for (of, events) in [(&mut client, &mut world.client), (&mut server, &mut world.server)] {
            for mut event in events.drain(..) {
                let ends = match &mut event.kind {
                    Kind::Connect(connect) => &mut connect.endpoints.local,
                    Kind::Enqueue(enqueue) => enqueue.endpoints.remote.as_mut().unwrap(),
                    _ => unreachable!(),
                };
                ends.set_ip([10, 1, 0, (n / 60_000) as u8].into());
                of.note(&event);
            }
        }
    }
    let kept = client.attempts().count();
    let shared = client.attempts().filter(|(ends, _)| server.visits_of(ends).is_some()).count();
    assert!(client.left_out() > 60_000 && kept <= 1 << 17, "{kept}");
    assert!(shared * 10 > kept * 9, "{shared} of {kept}");
}
