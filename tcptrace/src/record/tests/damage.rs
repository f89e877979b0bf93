//! Damage costs the batches that it touches, and how much that is is said.

use std::ops::Range;
use std::sync::LazyLock;

use proptest::prelude::*;

use crate::event::{Event, Kind, LossPlace, Timestamp};

use super::super::frame::{self, Step};
use super::super::parts::Parts;
use super::super::writer::SPAN;
use super::super::{Damage, Metadata, Missing, Plan, Reader};
use super::{metadata, some_events};

/// Ten minutes, ten events a second.
const EVENTS: u64 = 6_000;

const BEGAN: u64 = 1_700_000_000_000_000_000;

/// A recording that ended in order, where its batches are, and what is in it.
struct Recording {
    bytes: Vec<u8>,
    batches: Vec<(Range<usize>, Range<usize>)>,
    events: Vec<Event>,
}

impl Recording {
    /// Made as `record` makes it on a host where not much happens: a batch a second, and gathered when it ends.
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.arrows");
        let started = Timestamp::from_nanos(BEGAN);
        let metadata = Metadata { recording: name.to_owned(), started, ..metadata() };
        let mut parts = Parts::begin(Plan { path: path.clone(), ..Plan::default() }, metadata).unwrap();
        let mut events = some_events(1, EVENTS);
        for (number, event) in (1_u64..).zip(&mut events) {
            event.time = Timestamp::from_nanos(BEGAN + number * 100_000_000);
            parts.push(event).unwrap();
            if number % 10 == 0 {
                parts.flush(event.time).unwrap();
            }
        }
        parts.finish().unwrap();
        let bytes = std::fs::read(path).unwrap();
        let batches = batches(&bytes);
        assert_eq!(batches.last().unwrap().1.end as u64, EVENTS);
        Self { bytes, batches, events }
    }

    /// Where the header ends.
    fn header(&self) -> usize {
        self.batches[0].0.start
    }

    /// The rows of the batches that keep clear of these bytes.
    fn spared(&self, bytes: Range<usize>) -> Vec<Event> {
        let clear =
            self.batches.iter().filter(|(place, _)| place.end <= bytes.start || bytes.end <= place.start);
        clear.flat_map(|(_, rows)| self.events[rows.clone()].to_vec()).collect()
    }
}

static TEN_MINUTES: LazyLock<Recording> = LazyLock::new(|| Recording::new("a"));
static ANOTHER: LazyLock<Recording> = LazyLock::new(|| Recording::new("b"));

/// Where batches are, and which rows are in them.
fn batches(bytes: &[u8]) -> Vec<(Range<usize>, Range<usize>)> {
    let frame::Header::Whole(_, mut at, true) = frame::header(bytes) else { panic!("a header") };
    let mut batches = Vec::new();
    while let Step::Group(group) = frame::group(&bytes[at..], &mut 0) {
        let first = group.first_row as usize;
        batches.push((at..at + group.length, first..first + group.count as usize));
        at += group.length;
    }
    batches
}

/// What is read: the events, those that are said to be missing, and what is wrong.
fn read(bytes: &[u8]) -> (Vec<Event>, u64, Vec<Damage>) {
    let mut reader = Reader::new(bytes).unwrap();
    let mut events = Vec::new();
    while reader.next_events(&mut events).unwrap() {}
    let mut told = 0;
    events.retain(|event| match &event.kind {
        Kind::Lost(lost) if lost.place == LossPlace::Recording => {
            told += lost.count;
            false
        }
        _ => true,
    });
    (events, told, reader.damage().to_vec())
}

/// Everything that is not read is said to be missing, in number and in time.
fn all_accounted_for(of: &Recording, bytes: &[u8]) -> Vec<Event> {
    let (events, told, damage) = read(bytes);
    let missing: Vec<Missing> = damage.iter().filter_map(Damage::missing).collect();
    let count: u64 = missing.iter().map(|missing| missing.rows.unwrap()).sum();
    assert_eq!(events.len() as u64 + count, EVENTS, "{damage:?}");
    assert_eq!(told, count, "{damage:?}");
    let mut read = events.iter().peekable();
    for event in &of.events {
        if read.next_if(|next| *next == event).is_none() {
            let within = |of: &Missing| of.from.unwrap() <= event.time && event.time <= of.to.unwrap();
            assert!(missing.iter().any(within), "{} is not in {missing:?}", event.time);
        }
    }
    assert!(read.next().is_none(), "what was never written");
    events
}

#[test]
fn no_batch_is_longer_than_a_few_seconds() {
    let of = &*TEN_MINUTES;
    for (_, rows) in &of.batches {
        assert!(of.events[rows.end - 1].time.since(of.events[rows.start].time) <= SPAN);
    }
    assert!((100..=200).contains(&of.batches.len()), "{}: not gathered", of.batches.len());
    let (events, told, damage) = read(&of.bytes);
    assert_eq!((events, told, damage), (of.events.clone(), 0, vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_costs_what_is_cut_off(at in 0.0..1.0_f64) {
        let of = &*TEN_MINUTES;
        let cut = of.header() + ((of.bytes.len() - of.header()) as f64 * at) as usize;
        match Reader::new(&of.bytes[..cut]) {
            Ok(_) => prop_assert_eq!(all_accounted_for(of, &of.bytes[..cut]), of.spared(cut..of.bytes.len())),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn any_flips_cost_the_batches_that_they_touch(
        places in prop::collection::vec((0.0..1.0_f64, 0..8_u32), 1..5)
    ) {
        let of = &*TEN_MINUTES;
        let mut bytes = of.bytes.clone();
        let mut touched = std::collections::BTreeMap::new();
        for (at, bit) in places {
            let place = of.header() + ((bytes.len() - 8 - of.header()) as f64 * at) as usize;
            bytes[place] ^= 1 << bit;
            *touched.entry((place, bit)).or_insert(0) += 1;
        }
        let hit = |place: &Range<usize>| touched.iter().any(|((at, _), times)| times % 2 == 1 && place.contains(at));
        let spared = of.batches.iter().filter(|(place, _)| !hit(place));
        let spared: Vec<Event> = spared.flat_map(|(_, rows)| of.events[rows.clone()].to_vec()).collect();
        prop_assert_eq!(all_accounted_for(of, &bytes), spared);
    }

    /// Zeros, ones, noise, or bytes that are simply not there any more.
    #[test]
    fn any_hole_costs_the_batches_that_it_touches(
        at in 0.0..1.0_f64, length in 1..60_000_usize, fill in prop::option::of(any::<u8>()), noise: bool
    ) {
        let of = &*TEN_MINUTES;
        let start = of.header() + ((of.bytes.len() - of.header()) as f64 * at) as usize;
        let hole = start..(start + length).min(of.bytes.len());
        let mut bytes = of.bytes.clone();
        match fill {
            Some(fill) => bytes[hole.clone()].iter_mut().enumerate().for_each(|(n, byte)| {
                *byte = if noise { fill.wrapping_mul(n as u8 | 1).wrapping_add((n >> 3) as u8) } else { fill };
            }),
            None => drop(bytes.drain(hole.clone())),
        }
        prop_assert_eq!(all_accounted_for(of, &bytes), of.spared(hole));
    }

    /// The first of two files is read as if it were alone, however it ends; nothing of the second is taken for its own.
    #[test]
    fn any_two_files_in_one_are_told_apart(
        cut in prop::option::of(0.0..1.0_f64), from in prop::option::of(0.0..1.0_f64), same: bool
    ) {
        let (of, other) = (&*TEN_MINUTES, if same { &*TEN_MINUTES } else { &*ANOTHER });
        let place = |of: &Recording, at: f64| of.header() + ((of.bytes.len() - of.header()) as f64 * at) as usize;
        let end = cut.map_or(of.bytes.len(), |at| place(of, at));
        let begin = from.map_or(0, |at| place(other, at));
        let bytes = [&of.bytes[..end], &other.bytes[begin..]].concat();
        let (events, _, damage) = read(&bytes);
        let whole = other.batches.iter().filter(|(place, _)| place.start >= begin);
        let theirs: usize = whole.map(|(_, rows)| rows.len()).sum();
        let another: u64 = damage.iter().map(|damage| match damage {
            Damage::Another { rows, .. } => *rows,
            _ => 0,
        }).sum();
        if same {
            // What the one has lost, the other may still have.
            prop_assert!(events.len() >= of.spared(end..of.bytes.len()).len());
            prop_assert_eq!(another, 0);
        } else {
            prop_assert_eq!(events, of.spared(end..of.bytes.len()));
            prop_assert_eq!(another, theirs as u64);
        }
        prop_assert!(!damage.is_empty());
    }
}

/// Names of columns and whose recording it is are in the header alone; events are not lost with it.
#[test]
fn a_damaged_header_costs_no_event() {
    let of = &*TEN_MINUTES;
    for place in (8..of.header()).step_by(61) {
        let mut bytes = of.bytes.clone();
        bytes[place] ^= 0x5a;
        let (events, told, damage) = read(&bytes);
        assert!(damage.contains(&Damage::Header), "{place}: {damage:?}");
        assert!(events == of.events && told == 0, "{place}: {} events, {damage:?}", events.len());
    }
}

/// What a file says of itself must not make a reader search for ever.
#[test]
fn a_file_in_which_everything_looks_like_a_batch_is_given_up() {
    let of = &*TEN_MINUTES;
    let first = of.batches[0].0.clone();
    let mut bytes = of.bytes[..of.header()].to_vec();
    // Beginnings of batches that are long, and have another's checksum.
    let begin = &of.bytes[first.start..first.end - 1];
    while bytes.len() < 3 << 20 {
        bytes.extend_from_slice(begin);
    }
    let begun = std::time::Instant::now();
    let (events, _, damage) = read(&bytes);
    assert!(events.is_empty() && !damage.is_empty());
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

/// A column says that it unpacks to gigabytes, or does: it is not tried, and the batch counts as damaged.
#[test]
fn what_unpacks_to_too_much_is_not_unpacked() {
    let of = &*TEN_MINUTES;
    let end = of.batches[2].0.end;
    let packed = of.bytes[..end]
        .windows(4)
        .enumerate()
        .skip(of.header())
        .filter(|(_, four)| *four == [0x28, 0xb5, 0x2f, 0xfd]);
    let mut refused = 0;
    for (place, _) in packed.step_by(7) {
        for said in [-2_i64, 1, 97 << 20, 1 << 33, i64::MAX, i64::MIN] {
            let mut bytes = of.bytes[..end].to_vec();
            bytes[place - 8..place].copy_from_slice(&said.to_le_bytes());
            frame::forge(&mut bytes);
            let (events, _, damage) = read(&bytes);
            // Of a column in which every row is empty, nothing is unpacked.
            refused += usize::from(events.len() < of.batches[2].1.end);
            assert_eq!(events.len() < of.batches[2].1.end, damage.len() > 1, "{place} {said}: {damage:?}");
        }
    }
    assert!(refused > 5, "{refused}");
}

/// A buffer may lie anywhere in its message, or say so: at places that are no multiple of anything, beyond the end, before it.
#[test]
fn buffers_are_where_they_can_be_or_are_refused() {
    let of = &*TEN_MINUTES;
    let first = of.batches[0].0.clone();
    let clean = &of.bytes[..first.end];
    for place in (first.start..first.end - 8).step_by(40) {
        for said in [1_u64, 3, 12, 4_097, u64::MAX, 1 << 62] {
            let mut bytes = clean.to_vec();
            bytes[place..place + 8].copy_from_slice(&said.to_le_bytes());
            frame::forge(&mut bytes);
            let Ok(mut reader) = Reader::new(&bytes[..]) else { continue };
            let mut events = Vec::new();
            while reader.next_events(&mut events).unwrap() {}
            assert!(events.len() <= 2 * of.batches[0].1.len());
        }
    }
}
