//! What is written is read, and damage is survived.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use crate::event::{
    Accept, Acceptor, AckDrop, AckDropCause, BindFail, BindStage, Connect, ConnectResult, ConnectSample,
    ConnectTotals, Coverage, Distribution, Endpoints, Enqueue, EnqueuedBy, Event, Family, How, Kind,
    KnobSample, Listen, ListenerClosed, ListenerRef, ListenerSample, ListenerTotals, LossPlace, Lost, Owner,
    OwnerConfidence, PortRange, PortReleased, PortTaken, PrefixSample, ProcessInfo, RequestEnd,
    RequestEnding, RetransmitCause, SampleSource, SocketOptions, SocketOwner, Syn, SynAckRetransmit,
    SynAnswer, SynDrop, SynDropCause, Task, Timestamp,
};

use super::parts::Parts;
use super::{Damage, Metadata, Plan, ReadError, Reader, Recorder, Rotation, Writer};

fn metadata() -> Metadata {
    Metadata {
        format: (super::FORMAT_MAJOR, super::FORMAT_MINOR),
        version: "test".to_owned(),
        host: "here".to_owned(),
        recording: "a".to_owned(),
        part: 1,
        ..Metadata::default()
    }
}

fn written(batches: &[Vec<Event>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &metadata()).unwrap();
    for batch in batches {
        for event in batch {
            writer.push(event, false).unwrap();
        }
        writer.flush().unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Event>, Vec<Damage>), ReadError> {
    let mut reader = Reader::new(bytes)?;
    let mut events = Vec::new();
    while reader.next_events(&mut events)? {}
    Ok((events, reader.damage().to_vec()))
}

/// A sample of what happens, the same for the same seed.
fn some_events(seed: u64, count: u64) -> Vec<Event> {
    (0..count)
        .map(|n| {
            let at = Timestamp::from_nanos(1_700_000_000_000_000_000 + seed * 1_000_000_000 + n * 1_000_000);
            let remote = SocketAddr::from(([10, 0, (n % 7) as u8, (seed % 250) as u8], 40_000 + n as u16));
            let endpoints = Endpoints {
                netns: 4_026_531_840,
                family: Family::V4,
                local: "10.0.0.1:80".parse().unwrap(),
                remote: Some(remote),
                device: 0,
            };
            let listener =
                ListenerRef { sk: 0xffff_8881_0000_0000, inode: 77, depth: 3, limit: 20, syn_queue: 1 };
            let kind = match n % 3 {
                0 => Kind::Enqueue(Enqueue {
                    endpoints,
                    listener,
                    child: n,
                    how: EnqueuedBy::Handshake,
                    handshake_ns: Some(n),
                }),
                1 => Kind::SynDrop(SynDrop {
                    endpoints,
                    listener,
                    cause: SynDropCause::AcceptQueue,
                    syncookies: 1,
                    total: n,
                }),
                _ => Kind::Tick,
            };
            Event { time: at, kind }
        })
        .collect()
}

prop_compose! {
    fn any_endpoints()(
        netns: u32, v6: bool, local: (IpAddr, u16), remote: Option<(IpAddr, u16)>, device: u32
    ) -> Endpoints {
        Endpoints {
            netns,
            family: if v6 { Family::V6 } else { Family::V4 },
            local: local.into(),
            remote: remote.map(SocketAddr::from),
            device,
        }
    }
}

prop_compose! {
    fn any_listener()(sk: u64, inode: u64, depth: u32, limit: u32, syn_queue: u32) -> ListenerRef {
        ListenerRef { sk, inode, depth, limit, syn_queue }
    }
}

prop_compose! {
    fn any_task()(pid: u32, tid: u32, uid: u32, cgroup: u64, comm in ".{0,16}") -> Task {
        Task { pid, tid, uid, cgroup, comm }
    }
}

prop_compose! {
    fn any_totals()(
        counts in prop::collection::vec(any::<Option<u64>>(), 31),
        maxima: (Option<u32>, Option<u32>),
        times: (Option<u64>, Option<u64>, Option<u64>),
        acceptor: Option<(u32, u32)>,
    ) -> ListenerTotals {
        ListenerTotals {
            syns: counts[0],
            syn_drops_accept_queue: counts[1],
            syn_drops_syn_queue: counts[2],
            syn_drops_max_syn_backlog: counts[3],
            syn_drops_no_route: counts[30],
            cookies_sent: counts[4],
            retransmits_timer: counts[5],
            retransmits_duplicate_syn: counts[6],
            expired: counts[7],
            ack_drops_accept_queue: counts[8],
            ack_drops_other: counts[9],
            socket_drops: counts[10],
            enqueued: counts[11],
            accepted: counts[12],
            wait_total_ns: counts[13],
            waits: counts[14],
            wait_max_ns: counts[15],
            cookies_at_limit: counts[16],
            cookies_dropped: counts[17],
            cookies_dropped_at_limit: counts[18],
            cookies_valid: counts[19],
            cookies_invalid: counts[20],
            cookies_accepted: counts[21],
            fast_opens: counts[22],
            retransmits_unknown: counts[23],
            resets: counts[24],
            aborts: counts[25],
            icmp_ends: counts[26],
            joins: counts[27],
            deferred: counts[28],
            orphans: counts[29],
            depth_max: maxima.0,
            syn_queue_max: maxima.1,
            last_retransmit: times.0.map(Timestamp::from_nanos),
            last_accept: times.1.map(Timestamp::from_nanos),
            last_enqueue: times.2.map(Timestamp::from_nanos),
            last_acceptor: acceptor.map(|(pid, tid)| Acceptor { pid, tid }),
        }
    }
}

fn any_distribution() -> impl Strategy<Value = Option<Distribution>> {
    prop::option::of(
        prop::collection::vec((any::<u64>(), 1..1_u64 << 40), 0..20).prop_map(Distribution::from_buckets),
    )
}

prop_compose! {
    fn any_connects()(since: u64, counts in prop::collection::vec(any::<u64>(), 8)) -> ConnectTotals {
        ConnectTotals {
            since: Timestamp::from_nanos(since),
            syns_again: counts[0],
            unanswered: counts[1],
            established: counts[2],
            refused: counts[3],
            unreachable: counts[4],
            timed_out: counts[5],
            cancelled: counts[6],
            errors: counts[7],
        }
    }
}

fn any_how() -> impl Strategy<Value = How> {
    prop::sample::select(vec![How::Unknown, How::Bind, How::BindAny, How::Connect, How::ListenAny])
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let answers = vec![SynAnswer::Request, SynAnswer::Cookie, SynAnswer::FastOpen];
    let syn_causes = vec![
        SynDropCause::AcceptQueue,
        SynDropCause::SynQueue,
        SynDropCause::MaxSynBacklog,
        SynDropCause::NoRoute,
        SynDropCause::Other,
    ];
    let retransmits = vec![RetransmitCause::Timer, RetransmitCause::DuplicateSyn, RetransmitCause::Unknown];
    let ends = || (any_endpoints(), any_listener());
    prop_oneof![
        Just(Kind::Tick),
        Just(Kind::End),
        (ends(), prop::sample::select(syn_causes), any::<(u32, u64)>()).prop_map(
            |((endpoints, listener), cause, (syncookies, total))| Kind::SynDrop(SynDrop {
                endpoints,
                listener,
                cause,
                syncookies,
                total
            })
        ),
        (ends(), prop::sample::select(answers)).prop_map(|((endpoints, listener), answer)| Kind::Syn(Syn {
            endpoints,
            listener,
            answer
        })),
        (ends(), any::<(bool, u64)>()).prop_map(|((endpoints, listener), (full, total))| {
            let cause = if full { AckDropCause::AcceptQueue } else { AckDropCause::Other };
            Kind::AckDrop(AckDrop { endpoints, listener, cause, total })
        }),
        (ends(), any::<(u64, bool, Option<u64>)>()).prop_map(
            |((endpoints, listener), (child, cookie, handshake_ns))| {
                let how = if cookie { EnqueuedBy::Cookie } else { EnqueuedBy::FastOpen };
                Kind::Enqueue(Enqueue { endpoints, listener, child, how, handshake_ns })
            }
        ),
        (ends(), any_task(), any::<(Option<u64>, u64)>()).prop_map(
            |((endpoints, listener), task, (wait_ns, child))| {
                Kind::Accept(Box::new(Accept { endpoints, listener, task, wait_ns, child }))
            }
        ),
        (any_endpoints(), any_task(), any::<u64>(), any_how(), any::<u8>()).prop_map(
            |(endpoints, task, sk, how, options)| {
                let options = SocketOptions::from_bits(options);
                Kind::PortTaken(Box::new(PortTaken { endpoints, task, sk, how, options }))
            }
        ),
        (any_endpoints(), any::<(u64, u64, u32, bool)>(), ".{0,16}", any_how()).prop_map(
            |(endpoints, (sk, held_ns, pid, time_wait), comm, how)| {
                let released = PortReleased { endpoints, sk, held_ns, pid, comm, how, time_wait };
                Kind::PortReleased(Box::new(released))
            }
        ),
        (ends(), prop::sample::select(retransmits), any::<(Option<u64>, u32, u64, bool, bool)>()).prop_map(
            |((endpoints, listener), cause, (age_ns, timeouts, total, acked, deferred))| {
                Kind::SynAckRetransmit(SynAckRetransmit {
                    endpoints,
                    listener,
                    age_ns,
                    cause,
                    timeouts,
                    total,
                    acked,
                    deferred,
                })
            }
        ),
        (ends(), any::<(bool, Option<u64>, u32, u64, bool, Option<(u8, u8)>)>()).prop_map(
            |((endpoints, listener), (expired, age_ns, timeouts, total, acked, icmp))| {
                let how = if expired { RequestEnding::Expired } else { RequestEnding::Icmp };
                Kind::RequestEnd(RequestEnd {
                    endpoints,
                    listener,
                    age_ns,
                    how,
                    timeouts,
                    total,
                    acked,
                    deferred: !acked,
                    icmp,
                })
            }
        ),
        (
            any_endpoints(),
            prop::option::of(any_task()),
            any::<(u64, u64, Option<u64>, bool, Option<u32>, u32)>(),
            any_connects()
        )
            .prop_map(|(endpoints, task, (sk, inode, age_ns, failed, errno, syns_again), totals)| {
                let result = if failed { ConnectResult::TimedOut } else { ConnectResult::SynAgain };
                Kind::Connect(Box::new(Connect {
                    endpoints,
                    task,
                    sk,
                    inode,
                    age_ns,
                    result,
                    errno,
                    syns_again,
                    totals,
                }))
            }),
        (any::<(u32, u32, (IpAddr, u16))>(), any_connects()).prop_map(|((netns, pid, remote), totals)| {
            Kind::ConnectSample(Box::new(ConnectSample { netns, pid, remote: remote.into(), totals }))
        }),
        (ends(), any::<bool>(), any_totals(), any_distribution(), any_distribution()).prop_map(
            |((endpoints, listener), polled, totals, waits, handshakes)| {
                let source = if polled { SampleSource::Polled } else { SampleSource::Observed };
                let sample = ListenerSample { endpoints, listener, source, totals, waits, handshakes };
                Kind::ListenerSample(Box::new(sample))
            }
        ),
        (ends(), any_task(), any::<(Option<u32>, Option<u32>, bool)>()).prop_map(
            |((endpoints, listener), task, (backlog, somaxconn, again))| {
                let options = SocketOptions::NONE;
                Kind::Listen(Box::new(Listen {
                    endpoints,
                    listener,
                    task,
                    backlog,
                    somaxconn,
                    options,
                    again,
                }))
            }
        ),
        (any_endpoints(), any_task(), any::<(u64, u32)>()).prop_map(|(endpoints, task, (sk, errno))| {
            Kind::BindFail(Box::new(BindFail {
                endpoints,
                task,
                sk,
                errno,
                stage: BindStage::Listen,
                options: SocketOptions::NONE,
                holders_met: 1,
                reuse_state: None,
                own_range: Some(PortRange { first: 40000, last: 40009 }),
                holders: Vec::new(),
                addresses: Some(vec![[127, 0, 0, 1].into()]),
            }))
        }),
        (ends(), any_task(), any_totals()).prop_map(|((endpoints, listener), task, last)| {
            Kind::ListenerClosed(Box::new(ListenerClosed {
                endpoints,
                listener,
                task,
                exiting: Some(true),
                last: Some(last),
            }))
        }),
        any::<(u32, u64, IpAddr, u8, u64)>().prop_map(|(netns, sk, network, bits, completed)| {
            Kind::PrefixSample(PrefixSample { netns, sk, network, bits, completed })
        }),
        any::<(u32, Option<u32>)>().prop_map(|(netns, somaxconn)| Kind::KnobSample(Box::new(KnobSample {
            netns,
            somaxconn,
            ..KnobSample::default()
        }))),
        (any::<(u32, Option<u32>)>(), ".{0,40}", ".{0,40}").prop_map(|((pid, uid), comm, text)| {
            Kind::ProcessInfo(Box::new(ProcessInfo {
                pid,
                comm,
                command: Some(text.clone()),
                uid,
                container: Some(text),
                netns: None,
            }))
        }),
        (any_endpoints(), any::<(u64, u64, u32)>(), ".{0,16}").prop_map(
            |(endpoints, (sk, inode, pid), comm)| {
                Kind::SocketOwner(Box::new(SocketOwner {
                    sk,
                    inode,
                    endpoints,
                    owners: vec![Owner { pid, comm }],
                    port_by_number: true,
                    confidence: OwnerConfidence::Likely,
                }))
            }
        ),
        ".{0,20}".prop_map(|kernel| Kind::Coverage(Box::new(Coverage { kernel, ..Coverage::default() }))),
        (".{0,20}", any::<u64>()).prop_map(|(what, count)| Kind::Lost(Box::new(Lost {
            what,
            count,
            place: LossPlace::Output,
            from: Timestamp::default(),
            to: Timestamp::default(),
        }))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn events_come_back_as_they_were(
        batches in prop::collection::vec(
            prop::collection::vec((any::<u64>(), any_kind()), 0..40), 1..4)
    ) {
        let batches: Vec<Vec<Event>> = batches
            .into_iter()
            .map(|batch| {
                let event = |(time, kind)| Event { time: Timestamp::from_nanos(time), kind };
                batch.into_iter().map(event).collect()
            })
            .collect();
        let (events, damage) = read(&written(&batches)).unwrap();
        prop_assert_eq!(damage, vec![]);
        prop_assert_eq!(events, batches.concat());
    }

    #[test]
    fn foreign_bytes_are_no_recording_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(&bytes).is_err());
    }

    /// Damage with a right checksum: what an attacker would make. It may be read as anything, but not bring us down.
    #[test]
    fn forged_groups_do_not_panic(seed in 0..50_u64, at in 0.0..1.0_f64, value: u8, count in 1..4_usize) {
        let mut bytes = written(&[some_events(seed, 30)]);
        let header = bytes.len();
        for n in 0..count {
            let place = ((bytes.len() - 64) as f64 * (at + n as f64 * 0.07).fract()) as usize;
            bytes[place] = value.wrapping_add(n as u8);
        }
        prop_assert_eq!(header, bytes.len());
        super::frame::forge(&mut bytes);
        let _ = read(&bytes);
    }
}

#[test]
fn truncation_at_any_byte_loses_at_most_the_batch_that_was_cut() {
    let batches: Vec<Vec<Event>> = (0..4).map(|seed| some_events(seed, 9 + seed)).collect();
    let bytes = written(&batches);
    // Where each batch ends.
    let mut ends = Vec::new();
    for count in 0..=batches.len() {
        ends.push(written(&batches[..count]).len() - 8);
    }
    let near =
        ends.iter().flat_map(|end| end.saturating_sub(2)..end + 3).filter(|length| *length < bytes.len());
    for length in (0..bytes.len()).step_by(37).chain(near) {
        let whole = ends.iter().filter(|end| **end <= length).count();
        match read(&bytes[..length]) {
            Ok((events, damage)) => {
                assert!(whole > 0, "{length}");
                assert_eq!(events, batches[..whole - 1].concat(), "{length}");
                assert_eq!(damage.len(), 1, "{length}: {damage:?}");
            }
            Err(error) => {
                assert!(matches!(error, ReadError::Foreign(_)));
                assert_eq!(whole, 0, "{length}: {error}");
            }
        }
    }
}

#[test]
fn damage_anywhere_is_seen_and_costs_one_batch() {
    let batches: Vec<Vec<Event>> = (0..4).map(|seed| some_events(seed, 20)).collect();
    let clean = written(&batches);
    let header = written(&[]).len() - 8;
    for place in (0..8).chain((8..clean.len() - 8).step_by(29)) {
        let mut bytes = clean.clone();
        bytes[place] ^= 0x10;
        let (mut events, damage) = match read(&bytes) {
            Ok(read) => read,
            // What says that it is a recording of ours stands in the header, once.
            Err(error) => {
                assert!(place < header && matches!(error, ReadError::Foreign(_)), "{place}: {error}");
                continue;
            }
        };
        assert!(!damage.is_empty(), "{place}");
        if place < header {
            assert!(damage.contains(&Damage::Header), "{place}: {damage:?}");
            continue;
        }
        let lost =
            |event: &Event| matches!(&event.kind, Kind::Lost(lost) if lost.place == LossPlace::Recording);
        let said = events.iter().any(lost);
        events.retain(|event| !lost(event));
        assert_eq!(events.len(), 60, "{place}: {damage:?}");
        // Nothing follows the last batch, by which its rows could be counted.
        let last = matches!(damage[..], [Damage::Cut { .. }]);
        assert_eq!(said, !last, "{place}: {damage:?}");
        if let [Damage::Skipped { rows, .. }] = damage[..] {
            assert_eq!(rows, 20);
        }
    }
}

#[test]
fn bytes_that_were_taken_out_are_missed() {
    let batches: Vec<Vec<Event>> = (0..4).map(|seed| some_events(seed, 20)).collect();
    let mut bytes = written(&batches);
    let from = written(&batches[..1]).len() - 8;
    bytes.drain(from + 101..from + 124);
    let (events, damage) = read(&bytes).unwrap();
    assert!(matches!(damage[..], [Damage::Skipped { rows: 20, .. }]), "{damage:?}");
    assert_eq!(events.len(), 61);
}

#[test]
fn what_is_no_recording_is_said() {
    for (bytes, word) in [
        (&b""[..], "empty"),
        (b"{\"type\":\"finding\"}\n", "JSON"),
        (b"PAR1xxxxxxxxxxxx", "Parquet"),
        (b"ARROW1\0\0xxxxxxxx", "Arrow file"),
        (b"\x1f\x8bxxxxxxxxxx", "gzip"),
        (b"#!/bin/sh\n", "differently"),
    ] {
        let error = read(bytes).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
    let newer = Metadata { format: (2, 0), ..metadata() };
    let bytes = Writer::new(Vec::new(), &newer).unwrap().finish().unwrap();
    assert!(matches!(read(&bytes), Err(ReadError::TooNew(2, 0))));
}

#[test]
fn what_follows_the_end_is_passed_over() {
    let mut bytes = written(&[some_events(1, 5)]);
    bytes.extend_from_slice(b"appended");
    let (events, damage) = read(&bytes).unwrap();
    assert_eq!(events.len(), 5);
    assert_eq!(damage, [Damage::Trailing { bytes: 8 }]);
}

fn plan(directory: &tempfile::TempDir) -> Plan {
    Plan { path: directory.path().join("run.arrows"), ..Plan::default() }
}

#[test]
fn a_rotated_recording_reads_as_one_and_each_part_alone() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan { rotation: Some(Rotation::Size(1)), ..plan(&directory) };
    let mut parts = Parts::begin(plan, metadata()).unwrap();
    let knobs = Event {
        time: Timestamp::from_nanos(1),
        kind: Kind::KnobSample(Box::new(KnobSample { netns: 1, ..KnobSample::default() })),
    };
    let batches: Vec<Vec<Event>> =
        vec![[vec![knobs.clone()], some_events(1, 4)].concat(), some_events(2, 4), some_events(3, 4)];
    for batch in &batches {
        for event in batch {
            parts.push(event).unwrap();
        }
        parts.flush(Timestamp::from_nanos(5)).unwrap();
    }
    parts.finish().unwrap();
    let mut all = Vec::new();
    for part in 1..=4 {
        let path = directory.path().join(format!("run.{part:06}.arrows"));
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.metadata().part, part);
        let mut carried = Vec::new();
        let mut new = |again, event| if again { carried.push(event) } else { all.push(event) };
        while reader.next_rows(&mut new).unwrap() {}
        assert_eq!(reader.damage(), []);
        assert_eq!(carried, if part == 1 { vec![] } else { vec![knobs.clone()] });
    }
    assert_eq!(all, batches.concat());
}

#[test]
fn a_quiet_recording_is_gathered_when_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = plan(&directory).path;
    let mut parts = Parts::begin(plan(&directory), metadata()).unwrap();
    let mut events = Vec::new();
    for seed in 0..20 {
        for event in some_events(seed, 3) {
            parts.push(&event).unwrap();
            events.push(event);
        }
        parts.flush(Timestamp::from_nanos(5)).unwrap();
    }
    let scattered = std::fs::metadata(&path).unwrap().len();
    parts.finish().unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < scattered / 5, "{size} of {scattered}");
    assert_eq!(parts.bytes(), size);
    let (read, damage) = read(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((read, damage), (events, vec![]));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn old_parts_make_room() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan { rotation: Some(Rotation::Size(1)), keep: Some(40_000), ..plan(&directory) };
    let mut parts = Parts::begin(plan, metadata()).unwrap();
    for seed in 0..12 {
        for event in some_events(seed, 4) {
            parts.push(&event).unwrap();
        }
        parts.flush(Timestamp::from_nanos(5)).unwrap();
    }
    parts.finish().unwrap();
    let sizes: Vec<u64> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert!(sizes.len() > 1 && sizes.iter().sum::<u64>() <= 40_000, "{sizes:?}");
    assert!(directory.path().join("run.000013.arrows").exists());
}

#[test]
fn a_recorder_that_is_not_ended_has_written_all_but_the_last_second() {
    let directory = tempfile::tempdir().unwrap();
    let path = plan(&directory).path;
    let mut recorder = Recorder::begin(plan(&directory), metadata()).unwrap();
    let events = some_events(1, 10);
    assert_eq!(recorder.record(&events).unwrap(), None);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    // As if it were killed now: the file as it is.
    let (read_now, damage) = read(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(read_now, events);
    assert_eq!(damage, [Damage::NotEnded]);
    let recorded = recorder.finish().unwrap();
    assert_eq!((recorded.events, recorded.parts), (10, 1));
    assert_eq!(recorded.bytes, std::fs::metadata(&path).unwrap().len());
    assert!(Recorder::begin(plan(&directory), metadata()).is_err());
}

#[test]
fn a_full_disk_ends_the_recording_and_says_so() {
    let Ok(full) = std::fs::metadata("/dev/full") else { return };
    assert!(!full.is_file());
    let plan = Plan { path: "/dev/full".into(), ..Plan::default() };
    let error = Recorder::begin(plan, metadata()).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}
