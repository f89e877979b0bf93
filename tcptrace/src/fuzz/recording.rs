//! Recordings: right ones whose bytes are changed, with checksums that are right again; and right ones whose events say what no
//! kernel says.

use std::fs;
use std::path::Path;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::{Dice, Paper, Target, assert_harmless};
use crate::event::{Event, Timestamp};
use crate::output::json::report_lines;
use crate::output::{JsonWriter, Look, Output, Selection, TextWriter};
use crate::pipeline::Pipeline;
use crate::record::export::{Format, export};
use crate::record::{Condition, Mark, Metadata, Reader, Writer, forge};
use crate::report::{Across, Digest, html, markdown, text};

/// What wants to be markup, to move a terminal, to turn a line round, to break it.
const HOSTILE: &str = "<b>\u{1b}[2J\u{202e}\r\n\u{9b}31m,\"'\u{200b}=";

/// What every packed column begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

pub(super) fn targets() -> [Target; 2] {
    let seeds = seeds();
    let read = Target {
        name: "recording",
        what: "recordings: read as events and as rows",
        seeds: seeds.clone(),
        change,
        run: read,
    };
    let what = "recordings: reported in every form, replayed, exported";
    [read, Target { name: "report", what, seeds, change, run: report }]
}

/// The recordings that are committed, as they are; and as they were while they were made, with many batches.
fn seeds() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|of| of.path()).collect();
    files.retain(|path| path.extension().is_some_and(|of| of == "arrows"));
    files.sort();
    let whole: Vec<Vec<u8>> = files.iter().filter_map(|path| fs::read(path).ok()).collect();
    let anew: Vec<Vec<u8>> =
        whole.iter().filter_map(|bytes| written(&events(bytes).1, 40, &events(bytes).0)).collect();
    [whole, anew].concat()
}

fn events(bytes: &[u8]) -> (Metadata, Vec<Event>) {
    let Ok(mut reader) = Reader::new(bytes) else { return Default::default() };
    let mut events = Vec::new();
    while reader.next_events(&mut events).is_ok_and(|more| more) {}
    (reader.metadata().clone(), events)
}

fn written(events: &[Event], batch: usize, metadata: &Metadata) -> Option<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), metadata).ok()?;
    for batch in events.chunks(batch.max(1)) {
        batch.iter().try_for_each(|event| writer.push(event, false)).ok()?;
        writer.flush().ok()?;
    }
    writer.finish().ok()
}

fn change(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = dice.one(seeds).cloned().unwrap_or_default();
    match dice.below(8) {
        0 => return other_events(&bytes, dice),
        1 => {
            // Two files in one, or one twice.
            let cut = dice.below(bytes.len());
            bytes.truncate(if dice.one_in(2) { cut } else { bytes.len() });
            let other = dice.one(seeds).cloned().unwrap_or_default();
            bytes.extend(other);
        }
        2 | 3 => packed(&mut bytes, dice),
        _ => {}
    }
    for _ in 0..dice.below(5) {
        dice.change(&mut bytes);
    }
    // Without it, a checksum stops most of them.
    if !dice.one_in(6) {
        forge(&mut bytes);
    }
    bytes
}

/// Changes what a packed column says of itself, or packs into it what unpacks to a thousand times as much.
fn packed(bytes: &mut [u8], dice: &mut Dice) {
    let places: Vec<usize> =
        bytes.windows(ZSTD.len()).enumerate().filter(|(_, four)| *four == ZSTD).map(|(at, _)| at).collect();
    for _ in 0..=dice.below(3) {
        let Some(place) = dice.one(&places).copied() else { return };
        if dice.one_in(2) {
            dice.number::<8>(bytes, place.saturating_sub(8));
            continue;
        }
        let length: usize = 1 << (10 + dice.below(17));
        let Ok(bomb) = zstd::bulk::compress(&vec![0; length], 1) else { return };
        let said = u64::try_from(length).unwrap_or_default().to_le_bytes();
        let whole = said.iter().chain(&bomb);
        for (to, from) in bytes.iter_mut().skip(place.saturating_sub(8)).zip(whole) {
            *to = *from;
        }
    }
}

/// A right recording whose events say other things.
fn other_events(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let (mut metadata, mut events) = events(bytes);
    for _ in 0..=dice.below(12) {
        let place = dice.below(events.len());
        let Some(event) = events.get_mut(place) else { continue };
        if dice.one_in(4) {
            event.time = Timestamp::from_nanos(dice.nasty(event.time.nanos()));
            continue;
        }
        let mut value = serde_json::to_value(&event.kind).unwrap_or_default();
        let leaves = count(&value);
        let chosen = dice.below(leaves);
        spoil(&mut value, &mut (0, chosen), dice);
        if let Ok(kind) = serde_json::from_value(value) {
            event.kind = kind;
        }
    }
    if dice.one_in(3) {
        metadata.host = HOSTILE.to_owned();
        metadata.kernel = HOSTILE.to_owned();
        metadata.command = Some(vec![HOSTILE.to_owned()]);
        metadata.started = Timestamp::from_nanos(dice.nasty(0));
    }
    if dice.one_in(3) {
        let copies = events.clone();
        events.extend(copies);
    }
    written(&events, 1 + dice.below(200), &metadata).unwrap_or_default()
}

/// How many values there are to be changed.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(of) => 1 + of.iter().map(count).sum::<usize>(),
        Value::Object(of) => of.values().map(count).sum(),
        _ => 1,
    }
}

/// Changes the chosen one.
fn spoil(value: &mut Value, (at, chosen): &mut (usize, usize), dice: &mut Dice) {
    let this = matches!(value, Value::Object(_)) as usize == 0 && *at == *chosen;
    if !matches!(value, Value::Object(_)) {
        *at += 1;
    }
    match value {
        Value::Object(of) => of.values_mut().for_each(|of| spoil(of, &mut (*at, *chosen), dice)),
        Value::Array(of) if this => {
            let copy = of.clone();
            match dice.below(3) {
                0 => of.clear(),
                _ => (0..dice.below(200)).for_each(|_| of.extend(copy.iter().cloned())),
            }
        }
        Value::Array(of) => of.iter_mut().for_each(|of| spoil(of, &mut (*at, *chosen), dice)),
        Value::String(text) if this => *text = HOSTILE.repeat(1 + dice.below(40)),
        Value::Number(number) if this => *value = dice.nasty(number.as_u64().unwrap_or(0)).into(),
        Value::Bool(of) if this => *of = !*of,
        Value::Null if this => *value = dice.nasty(0).into(),
        _ => {}
    }
}

fn read(bytes: &[u8]) {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let mut events = Vec::new();
    while reader.next_events(&mut events).is_ok_and(|more| more) {
        events.clear();
    }
    let Ok(mut reader) = Reader::new(bytes) else { return };
    while reader.next_batch().is_ok_and(|batch| batch.is_some()) {}
}

fn report(bytes: &[u8]) {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let (mut events, mut digest) = (Vec::new(), Digest::new(None, None, None));
    let papers = [Paper::default(), Paper::default()];
    let [for_text, for_lines] = papers.clone();
    let to_text = Output::Text(TextWriter::new(for_text, Look::plain(TimeZone::UTC)));
    let mut said = Pipeline::new(to_text, Selection::default(), true);
    let mut lines = Pipeline::new(
        Output::Json(JsonWriter::new(for_lines, HOSTILE, "replay")),
        Selection::default(),
        true,
    );
    while reader.next_events(&mut events).is_ok_and(|more| more) {
        for event in &events {
            digest.note(event);
        }
        let _said = (said.feed(&events), lines.feed(&events));
        events.clear();
    }
    let _said = (said.finish(), lines.finish());
    papers.iter().for_each(Paper::assert_harmless);
    let path = Path::new(HOSTILE);
    let marks = reader.damage().iter().map(|damage| Mark::new(Some(path), damage)).collect();
    let (condition, report) = (Condition { marks }, digest.finish());
    assert_harmless(&condition.shortage().unwrap_or_default());
    assert_harmless(&text(reader.metadata(), &condition, &report, &TimeZone::UTC, 100).to_string());
    let mut lines = JsonWriter::new(Vec::new(), &reader.metadata().host, "report");
    for (time, line) in report_lines(reader.metadata(), &condition, &report) {
        let _written = lines.write(time, &line);
    }
    String::from_utf8_lossy(&lines.into_inner()).lines().for_each(assert_harmless);
    let sections = [(reader.metadata(), &condition, &report)];
    let page = html(&sections, &Across::default(), &TimeZone::UTC, report.to);
    assert!(page.matches("<b>").count() <= 1, "markup of others");
    assert_harmless(&markdown(&sections, &Across::default(), &TimeZone::UTC));
    for format in [Format::Jsonl, Format::Csv] {
        let Ok(mut again) = Reader::new(bytes) else { return };
        let mut out = Vec::new();
        if export(&mut again, format, &mut out).is_ok() {
            assert_harmless(&String::from_utf8_lossy(&out));
        }
    }
}
