//! What is written is read, and damage is survived.

mod arbitrary;
mod damage;

use std::net::SocketAddr;
use std::sync::Arc;

use arrow_array::{RecordBatch, UInt16Array};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use crate::event::{
    Endpoints, Enqueue, EnqueuedBy, Event, Family, Kind, KnobSample, ListenerRef, LossPlace, SynDrop,
    SynDropCause, Timestamp,
};

pub(crate) use arbitrary::any_kind;
use arbitrary::{KINDS, name_of};

use super::export::{Format, export};
use super::get::Rows;
use super::parts::Parts;
use super::schema::ORDER;
use super::{Damage, Metadata, Missing, Plan, ReadError, Reader, Recorder, Rotation, Writer};

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

/// Every kind of event is among those that are written and read back above; one that is added does not compile before it is
/// named in `KINDS`, and fails here before it is made.
#[test]
fn every_kind_of_event_is_tried() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut met = std::collections::BTreeSet::new();
    for _ in 0..2_000 {
        met.insert(name_of(&any_kind().new_tree(&mut runner).unwrap().current()));
    }
    let missing: Vec<_> = KINDS.iter().filter(|kind| !met.contains(*kind)).collect();
    assert!(missing.is_empty(), "never tried: {missing:?}");
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
        if let [Damage::Skipped { missing, .. }] = damage[..] {
            assert_eq!(missing.rows, Some(20));
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
    assert!(
        matches!(damage[..], [Damage::Skipped { missing: Missing { rows: Some(20), .. }, .. }]),
        "{damage:?}"
    );
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
    let mut newer = written(&[]);
    let place = newer.windows(3).position(|bytes| bytes == b"2.1").unwrap();
    newer[place] = b'3';
    super::frame::forge(&mut newer);
    assert!(matches!(read(&newer), Err(ReadError::TooNew(3, 1))));
}

#[test]
fn an_export_has_the_order_in_which_events_came() {
    let batches: Vec<Vec<Event>> = (0..2).map(|seed| some_events(seed, 20)).collect();
    let bytes = written(&batches);
    let mut lines = Vec::new();
    export(&mut Reader::new(&bytes[..]).unwrap(), Format::Jsonl, &mut lines).unwrap();
    let kinds: Vec<String> = String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds, batches.concat().iter().map(|event| event.kind.name()).collect::<Vec<_>>());
}

/// Damage with a right checksum must not turn into a made-up order.
#[test]
fn rows_without_an_order_are_not_told() {
    let bytes = written(&[some_events(1, 20)]);
    let batch = Reader::new(&bytes[..]).unwrap().next_group(true).unwrap().unwrap().0;
    let place = batch.schema().index_of(ORDER).unwrap();
    let mut columns = batch.columns().to_vec();
    columns[place] = Arc::new(UInt16Array::from(vec![0; batch.num_rows()]));
    let batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
    assert!(Rows::new(&batch).is_err());
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
    assert!(size < scattered / 3, "{size} of {scattered}");
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
    let missing = Missing { rows: None, from: events.last().map(|event| event.time), to: None };
    assert!(
        matches!(damage[..], [Damage::Cut { bytes: 0, missing: said, .. }] if said == missing),
        "{damage:?}"
    );
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
    assert!(std::fs::metadata("/dev/full").is_ok(), "root has deleted the device");
}
