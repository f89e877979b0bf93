//! Recordings of real incidents: what they come to, in this version and in every later one, and that other programs read them.

#[path = "common/checked.rs"]
mod checked;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use jiff::tz::TimeZone;
use tcptrace::event::{Event, Kind};
use tcptrace::finding::{Engine, contradictions};
use tcptrace::output::Summary;
use tcptrace::record::{Condition, FORMAT_MAJOR, Metadata, Reader, Writer, open};
use tcptrace::report::{Digest, Report, text};

/// Recordings of rehearsals, one an incident, and the reports on them. `tests/recordings/README.md` says how they are made.
fn fixtures() -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path: &Result<PathBuf>| {
            path.as_ref().is_ok_and(|path| path.extension().is_some_and(|of| of == "arrows"))
        })
        .collect::<Result<_>>()?;
    files.sort();
    ensure!(files.len() > 5, "the recordings are missing");
    Ok(files)
}

fn events(path: &Path) -> Result<(Metadata, Vec<Event>)> {
    let mut reader = Reader::open(path)?;
    let mut events = Vec::new();
    while reader.next_events(&mut events)? {}
    ensure!(reader.damage().is_empty(), "{}: {:?}", path.display(), reader.damage());
    Ok((reader.metadata().clone(), events))
}

fn report(events: &[Event]) -> Report {
    let mut digest = Digest::new(None, None, None);
    events.iter().for_each(|event| {
        digest.note(event);
    });
    digest.finish()
}

/// Every recording of an earlier version opens, and is told of as before. `TCPTRACE_BLESS=1 cargo test -p tcptrace --test
/// recording` takes over what is told now: look at the difference before you commit it.
#[test]
fn recordings_of_every_incident_are_told_as_before() -> Result<()> {
    let bless = std::env::var_os("TCPTRACE_BLESS").is_some();
    let mut changed = Vec::new();
    for path in fixtures()? {
        let (metadata, events) = events(&path)?;
        ensure!(events.iter().any(|event| matches!(event.kind, Kind::End)), "{} has no end", path.display());
        let now = text(&metadata, &Condition::default(), &report(&events), &TimeZone::UTC, 100).to_string();
        let golden = path.with_extension("txt");
        if bless {
            fs::write(&golden, &now)?;
        }
        if fs::read_to_string(&golden).unwrap_or_default() != now {
            changed.push(path.display().to_string());
        }
    }
    ensure!(
        changed.is_empty(),
        "other reports than before: {changed:?}. If that is meant: TCPTRACE_BLESS=1 cargo test -p tcptrace --test recording"
    );
    Ok(())
}

/// The numbers of every finding in every recording agree, whenever it is told; so do those of the summary.
#[test]
fn no_number_contradicts_another() -> Result<()> {
    let mut wrong = Vec::new();
    for path in fixtures()? {
        let (_, events) = events(&path)?;
        let mut engine = Engine::default();
        for event in &events {
            let mut told = Vec::new();
            engine.on_event(event, |finding| told.push(finding));
            for finding in told {
                let found = contradictions(&finding, engine.world());
                wrong.extend(
                    found.into_iter().map(|what| format!("{} {}: {what}", path.display(), finding.code)),
                );
            }
        }
        wrong.extend(Summary::of(&engine).contradictions());
    }
    wrong.dedup();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Recordings of every version of the format are committed; what they say, they say in the format of this version too, in the
/// same order.
#[test]
fn recordings_of_every_format_are_the_same_in_this_one() -> Result<()> {
    let mut formats = Vec::new();
    for path in fixtures()? {
        let (metadata, before) = events(&path)?;
        formats.push(metadata.format.0);
        let mut writer = Writer::new(Vec::new(), &metadata)?;
        before.iter().try_for_each(|event| writer.push(event, false))?;
        let bytes = writer.finish()?;
        let mut reader = Reader::new(bytes.as_slice())?;
        ensure!(reader.metadata().format.0 == FORMAT_MAJOR, "it is not said that it is written anew");
        let mut now = Vec::new();
        while reader.next_events(&mut now)? {}
        ensure!(now == before, "{}: other events, or another order", path.display());
    }
    formats.sort_unstable();
    formats.dedup();
    ensure!(formats == (1..=FORMAT_MAJOR).collect::<Vec<_>>(), "only of these formats: {formats:?}");
    Ok(())
}

/// What names the columns is lost: of this version's recordings no event is; those of others are not misread.
#[test]
fn a_recording_without_its_header_is_read_or_refused() -> Result<()> {
    for path in fixtures()? {
        let mut bytes = fs::read(&path)?;
        let (metadata, whole) = events(&path)?;
        bytes.get_mut(..64).context("it is longer")?.fill(0xaa);
        let reader = Reader::new(bytes.as_slice());
        if metadata.format.0 < FORMAT_MAJOR {
            let refused = reader.err().map(|error| error.to_string()).unwrap_or_default();
            ensure!(refused.contains("columns"), "{}: {refused:?}", path.display());
            continue;
        }
        let mut reader = reader?;
        let mut read = Vec::new();
        while reader.next_events(&mut read)? {}
        ensure!(read == whole, "{}: {:?}", path.display(), reader.damage());
    }
    Ok(())
}

/// A real recording, cut at 200 places: nothing panics, and whatever was whole is read.
#[test]
fn a_real_recording_may_be_cut_anywhere() -> Result<()> {
    let path = fixtures()?.pop().context("there are recordings")?;
    let (metadata, whole) = events(&path)?;
    // As it was while it was recorded: a batch every now and then.
    let mut writer = Writer::new(Vec::new(), &metadata)?;
    for batch in whole.chunks(20) {
        batch.iter().try_for_each(|event| writer.push(event, false))?;
        writer.flush()?;
    }
    let bytes = writer.finish()?;
    // Where its batches end.
    let (mut reader, mut all, mut ends) = (Reader::new(bytes.as_slice())?, Vec::new(), vec![0]);
    while reader.next_events(&mut all)? {
        ends.push(all.len());
    }
    ensure!(all == whole && ends.len() > 3, "it is not written in batches");
    let mut place = 12_345_usize;
    let mut longest = 0;
    for _ in 0..200 {
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let cut = (place >> 16) % bytes.len();
        let Ok(mut reader) = Reader::new(bytes.get(..cut).unwrap_or_default()) else { continue };
        let mut read = Vec::new();
        while reader.next_events(&mut read)? {}
        ensure!(whole.starts_with(&read), "cut at {cut}: other events than were written");
        ensure!(ends.contains(&read.len()), "cut at {cut}: half a batch");
        ensure!(!reader.damage().is_empty(), "cut at {cut}: it is not said");
        longest = longest.max(read.len());
    }
    ensure!(longest > 0, "nothing was read at all");
    Ok(())
}

/// What is traced, recorded and replayed gives byte for byte what was said live. `TCPTRACE_REHEARSE="port-grab listener-closed"`
/// chooses other incidents than the one that is quick, `all` takes all of them.
#[test]
fn a_replay_says_what_was_said_live() -> Result<()> {
    let program = env!("CARGO_BIN_EXE_tcptrace");
    let asked = std::env::var("TCPTRACE_REHEARSE").unwrap_or_else(|_| "backlog-truncated".to_owned());
    let all: Vec<&str> = tcptrace::rehearse::catalogue().iter().map(|entry| entry.name).collect();
    let names: Vec<&str> = if asked == "all" { all } else { asked.split_whitespace().collect() };
    let directory = tempfile::tempdir()?;
    for name in names {
        let file = directory.path().join(format!("{name}.arrows"));
        let live = Command::new(program)
            .args(["rehearse", name, "--json", "--attach", "tracepoint", "--record"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()?;
        if live.status.code() == Some(3) || live.status.code() == Some(4) {
            println!("skipped: {name} cannot be traced here: {}", String::from_utf8_lossy(&live.stderr));
            continue;
        }
        let replayed = Command::new(program).args(["replay", "--json"]).arg(&file).output()?;
        ensure!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
        // The summary names the command.
        let said =
            String::from_utf8(live.stdout)?.replace("\"command\":\"rehearse\"", "\"command\":\"replay\"");
        checked::lines(&said)?;
        let said: Vec<&str> = said.lines().filter(|line| !line.contains("\"type\":\"rehearsal\"")).collect();
        let again = String::from_utf8(replayed.stdout)?;
        ensure!(
            said == again.lines().collect::<Vec<_>>(),
            "{name}: live\n{}\nreplayed\n{again}",
            said.join("\n")
        );
    }
    Ok(())
}

/// A directory of recordings is as good as its files.
#[test]
fn a_directory_stands_for_its_recordings() -> Result<()> {
    let files = fixtures()?;
    let directory = files.first().and_then(|path| path.parent()).context("they lie somewhere")?;
    ensure!(open(&[directory.to_owned()])?.len() == files.len());
    Ok(())
}
