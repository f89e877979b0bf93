//! What holds for any sequence of events, however strange.

use std::collections::HashMap;

use proptest::prelude::*;

use super::testing::{NETNS, Play, START, Server, address, bind_fail, coverage, holder, place, task};
use super::*;
use crate::event::{
    Accept, Acceptor, AckDrop, AckDropCause, BindFail, BindStage, CounterSample, Coverage, Endpoints,
    Enqueue, EnqueuedBy, HolderReport, How, Kind, KnobSample, Listen, ListenerClosed, ListenerRef,
    ListenerSample, ListenerTotals, LossPlace, Lost, ObservationStatus, Owner, OwnerConfidence, PortRange,
    PrefixSample, ProcessState, ReportedHolder, RequestEnd, RequestEnding, RetransmitCause, ReuseState,
    SampleSource, SocketOptions, SocketOwner, SocketState, SynAckRetransmit, SynDrop, SynDropCause, Tier,
    Timestamp,
};

const PLACES: [&str; 4] = ["0.0.0.0:80", "10.0.0.1:80", "[::]:80", "0.0.0.0:35010"];
const STATES: [SocketState; 5] = [
    SocketState::Listen,
    SocketState::Bound,
    SocketState::Established,
    SocketState::TimeWait,
    SocketState::Unknown,
];
const HOWS: [How; 4] = [How::Unknown, How::Bind, How::BindAny, How::Connect];

prop_compose! {
    fn queue()(sk in 0..4_u64, inode in 0..4_u64, depth in 0..30_u32, limit in 0..30_u32) -> ListenerRef {
        ListenerRef { sk, inode, depth, limit, syn_queue: 0 }
    }
}

prop_compose! {
    fn totals()(counts in proptest::array::uniform8(proptest::option::of(0..200_u64)), pid in 0..4_u32) -> ListenerTotals {
        let [syns, syn, ack, drops, enqueued, accepted, waits, longest] = counts;
        ListenerTotals {
            syns,
            syn_drops_accept_queue: syn,
            syn_drops_syn_queue: syn,
            syn_drops_max_syn_backlog: drops,
            cookies_sent: waits,
            retransmits_timer: longest,
            retransmits_duplicate_syn: ack,
            expired: ack,
            ack_drops_accept_queue: ack,
            ack_drops_other: ack,
            socket_drops: drops,
            enqueued,
            accepted,
            wait_total_ns: waits,
            waits,
            wait_max_ns: longest,
            resets: drops,
            orphans: waits,
            last_accept: accepted.map(|time| Timestamp::from_nanos(START + time * 100_000_000)),
            last_acceptor: (pid > 0).then_some(Acceptor { pid, tid: pid }),
            ..ListenerTotals::default()
        }
    }
}

prop_compose! {
    fn ends()(at in 0..PLACES.len(), peer in proptest::option::of((1..3_u8, 4000..4008_u16))) -> Endpoints {
        let remote = peer.map(|(peer, port)| ([10, 0, 1, peer], port).into());
        Endpoints { remote, ..place(PLACES[at]) }
    }
}

prop_compose! {
    fn fail()(
        at in 0..PLACES.len(),
        pid in 1..4_u32,
        holders in proptest::collection::vec((0..PLACES.len(), 0..STATES.len(), 0..HOWS.len(), 0..4_u32, 0..8_u8), 0..4),
        listen in any::<bool>(),
        reuse in proptest::option::of(-1..2_i8),
    ) -> BindFail {
        let holders = holders
            .into_iter()
            .map(|(at, state, how, pid, options)| {
                let who = (pid > 0).then(|| task(pid, "hol\u{1b}der"));
                let mut holder = holder(PLACES[at], STATES[state], HOWS[how], who);
                holder.options = Some(SocketOptions::from_bits(options));
                holder.inode = u64::from(pid);
                holder
            })
            .collect();
        BindFail {
            stage: if listen { BindStage::Listen } else { BindStage::Bind },
            reuse_state: reuse.map(|fastreuse| ReuseState { fastreuse, fastreuseport: 0 }),
            ..bind_fail(PLACES[at], task(pid, "asks"), holders)
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    let listen = (ends(), queue(), 1..4_u32, proptest::option::of(0..60_u32), any::<bool>()).prop_map(
        |(endpoints, listener, pid, backlog, again)| {
            Kind::Listen(Box::new(Listen {
                endpoints,
                listener,
                task: task(pid, "ser\u{202e}ver"),
                backlog,
                somaxconn: Some(25),
                options: SocketOptions::NONE,
                again,
            }))
        },
    );
    let syn_drop =
        (ends(), queue(), 0..200_u64, any::<bool>()).prop_map(|(endpoints, listener, total, full)| {
            let cause = if full { SynDropCause::AcceptQueue } else { SynDropCause::SynQueue };
            Kind::SynDrop(SynDrop { endpoints, listener, cause, syncookies: 1, total })
        });
    let ack_drop = (ends(), queue(), 0..200_u64).prop_map(|(endpoints, listener, total)| {
        Kind::AckDrop(AckDrop { endpoints, listener, cause: AckDropCause::AcceptQueue, total })
    });
    let sample =
        (ends(), queue(), totals(), any::<bool>()).prop_map(|(endpoints, listener, totals, polled)| {
            let source = if polled { SampleSource::Polled } else { SampleSource::Observed };
            Kind::ListenerSample(Box::new(ListenerSample {
                endpoints,
                listener,
                source,
                totals,
                waits: None,
                handshakes: None,
            }))
        });
    let closed = (ends(), queue(), proptest::option::of(totals())).prop_map(|(endpoints, listener, last)| {
        Kind::ListenerClosed(Box::new(ListenerClosed {
            endpoints,
            listener,
            task: task(1, "server"),
            exiting: None,
            by_kernel: false,
            last,
        }))
    });
    let accept = (ends(), queue(), 1..4_u32).prop_map(|(endpoints, listener, pid)| {
        let wait_ns = Some(u64::from(pid));
        Kind::Accept(Box::new(Accept { endpoints, listener, task: task(pid, "worker"), wait_ns, child: 1 }))
    });
    let enqueue = (ends(), queue()).prop_map(|(endpoints, listener)| {
        let (how, handshake_ns) = (EnqueuedBy::Cookie, None);
        Kind::Enqueue(Enqueue { endpoints, listener, child: 1, how, handshake_ns })
    });
    let report = (0..PLACES.len(), 0..STATES.len(), 0..4_u32).prop_map(|(at, state, pid)| {
        let owners = if pid == 0 { Vec::new() } else { vec![Owner { pid, comm: "owner".into() }] };
        let local = address(PLACES[at]);
        let held = ReportedHolder {
            local,
            remote: None,
            state: STATES[state],
            inode: pid.into(),
            uid: Some(0),
            v6only: None,
            device: 0,
            retransmits: 0,
            time_wait_left_ms: Some(1),
            owners,
        };
        Kind::HolderReport(Box::new(HolderReport {
            netns: NETNS,
            port: local.port(),
            requester: 1,
            conflict: Timestamp::default(),
            holders: vec![held],
            incomplete: None,
        }))
    });
    let counters = (0..2_u32, proptest::option::of(0..500_u64)).prop_map(|(netns, count)| {
        Kind::CounterSample(Box::new(CounterSample {
            netns: NETNS + netns,
            listen_overflows: count,
            listen_drops: count,
            ..CounterSample::default()
        }))
    });
    let knobs = (0..60_u32).prop_map(|somaxconn| {
        Kind::KnobSample(Box::new(KnobSample {
            netns: NETNS,
            somaxconn: Some(somaxconn),
            local_port_range: Some(PortRange { first: 35010, last: 35010 }),
            ..KnobSample::default()
        }))
    });
    let state = (1..4_u32, 0..3_u32).prop_map(|(pid, stopped)| {
        Kind::ProcessState(ProcessState { pid, threads: 2, stopped, ..ProcessState::default() })
    });
    let owner = (ends(), 0..4_u64, 1..4_u32).prop_map(|(endpoints, inode, pid)| {
        Kind::SocketOwner(Box::new(SocketOwner {
            sk: 0,
            inode,
            endpoints,
            owners: vec![Owner { pid, comm: "owner".into() }],
            confidence: OwnerConfidence::Bootstrapped,
            port_by_number: false,
        }))
    });
    let cover = any::<bool>().prop_map(|full| {
        let status = if full { ObservationStatus::Attached } else { ObservationStatus::Polled };
        Kind::Coverage(Box::new(coverage(Tier::Tracepoint, status)))
    });
    let again = (ends(), queue(), 0..200_u64, 0..6_u32, any::<bool>()).prop_map(
        |(endpoints, listener, total, timeouts, timer)| {
            let cause = if timer { RetransmitCause::Timer } else { RetransmitCause::DuplicateSyn };
            let age_ns = timer.then_some(total * 100_000_000);
            Kind::SynAckRetransmit(SynAckRetransmit {
                endpoints,
                listener,
                age_ns,
                cause,
                timeouts,
                total,
                acked: total % 3 == 0,
                deferred: false,
            })
        },
    );
    let request_end =
        (ends(), queue(), 0..200_u64, 0..6_usize).prop_map(|(endpoints, listener, total, how)| {
            let how = [
                RequestEnding::Expired,
                RequestEnding::ListenerClosed,
                RequestEnding::Reset,
                RequestEnding::Aborted,
                RequestEnding::Icmp,
                RequestEnding::Joined,
            ][how];
            Kind::RequestEnd(RequestEnd {
                endpoints,
                listener,
                age_ns: None,
                how,
                timeouts: 3,
                total,
                acked: total % 2 == 0,
                deferred: total % 4 == 0,
                icmp: None,
            })
        });
    let prefix = (0..4_u64, 0..200_u64).prop_map(|(sk, completed)| {
        let network = [10, 0, 1, 0].into();
        Kind::PrefixSample(PrefixSample { netns: NETNS, sk, network, bits: 24, completed })
    });
    let lost = (0..5_u64).prop_map(|count| {
        let time = Timestamp::from_nanos(START);
        let what = "syn-drop".to_owned();
        Kind::Lost(Box::new(Lost { what, count, place: LossPlace::RingBuffer, from: time, to: time }))
    });
    prop_oneof![
        3 => listen,
        6 => syn_drop,
        4 => ack_drop,
        6 => sample,
        2 => closed,
        2 => accept,
        1 => enqueue,
        5 => fail().prop_map(|fail| Kind::BindFail(Box::new(fail))),
        4 => report,
        3 => counters,
        1 => knobs,
        2 => state,
        2 => owner,
        1 => cover,
        1 => lost,
        12 => again,
        3 => request_end,
        1 => prefix,
        6 => Just(Kind::Tick),
    ]
}

/// Events whose times mostly grow, but go back by up to 100 ms now and then.
fn events() -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec((kind(), 0..1500_u64, 0..100_u64), 0..120).prop_map(|steps| {
        let mut now = START + 1_000_000_000;
        let mut events: Vec<Event> = steps
            .into_iter()
            .map(|(kind, forward, back)| {
                now += forward * 1_000_000;
                Event { time: Timestamp::from_nanos(now - back * 1_000_000), kind }
            })
            .collect();
        events.push(Event { time: Timestamp::from_nanos(now), kind: Kind::End });
        events
    })
}

fn told(events: &[Event]) -> Vec<Finding> {
    let mut engine = Engine::default();
    let mut findings = Vec::new();
    for event in events {
        engine.on_event(event, |finding| findings.push(finding));
    }
    let _ = engine.world().reconcile();
    findings
}

proptest! {
    #[test]
    fn every_finding_opens_once_is_updated_seldom_and_closes_once(events in events()) {
        let mut lives: HashMap<u64, Vec<Finding>> = HashMap::new();
        for finding in told(&events) {
            lives.entry(finding.id).or_default().push(finding);
        }
        for (id, life) in &lives {
            prop_assert!((1..=lives.len() as u64).contains(id));
            let states: Vec<State> = life.iter().map(|finding| finding.state).collect();
            prop_assert_eq!(states.first(), Some(&State::Opened));
            prop_assert_eq!(states.last(), Some(&State::Closed));
            prop_assert!(states[1..states.len() - 1].iter().all(|state| *state == State::Updated));
            for pair in life[..life.len() - 1].windows(2) {
                prop_assert!(pair[1].time.since(pair[0].time).as_millis() >= 950);
            }
            prop_assert!(life.iter().all(|finding| !finding.remedy.is_empty() && !finding.explanation.is_empty()));
        }
    }

    #[test]
    fn the_same_events_give_the_same_findings(events in events()) {
        let json = |findings: Vec<Finding>| {
            let lines: Vec<_> = findings.iter().map(crate::output::json::FindingLine::from).collect();
            crate::output::json_text(&lines)
        };
        prop_assert_eq!(json(told(&events)), json(told(&events)));
    }

    #[test]
    fn events_survive_a_recording(events in events()) {
        let json = crate::output::json_text(&events);
        prop_assert_eq!(serde_json::from_str::<Vec<Event>>(&json).unwrap(), events);
    }
}

/// The initial namespace has another number since Linux 6.18: only what the coverage says of this host counts.
#[test]
fn a_command_is_taken_to_its_namespace_by_what_the_coverage_says_of_this_host() {
    let command = |own_netns, host_netns| {
        let mut play = Play::new(128);
        let of_host =
            Coverage { own_netns, host_netns, ..coverage(Tier::Fexit, ObservationStatus::Attached) };
        play.send(0, Kind::Coverage(Box::new(of_host)));
        Server::new(100, "0.0.0.0:80", 128).listen(&mut play, task(7, "web"), Some(4096), 128);
        play.ticks_until(5_000);
        play.only().remedy[0].command.clone().unwrap()
    };
    assert_eq!(command(Some(NETNS), Some(NETNS)), "sysctl -w net.core.somaxconn=4096");
    assert_eq!(command(Some(5), Some(NETNS)), "nsenter -t 1 -n sysctl -w net.core.somaxconn=4096");
    assert_eq!(command(Some(5), Some(5)), "nsenter -t 7 -n sysctl -w net.core.somaxconn=4096");
    // A recording of an older version.
    assert_eq!(command(None, None), "sysctl -w net.core.somaxconn=4096");
}
