//! `tcptrace report`: what happened, from recordings.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::{
    args::ReportArgs,
    exit::{Exit, Failure},
    tape, trace,
};
use crate::{
    event::Timestamp,
    finding::Severity,
    output::json::{across_lines, report_lines},
    output::{columns, ended, go_on, stdout_json, stdout_lines, zone},
    record::{self, Condition, Metadata, Tape},
    report::{Across, Digest, PortQuestion, Report, Sheet, across_text, html, join, markdown, text},
};

/// A recording that has been read.
struct Read {
    metadata: Metadata,
    condition: Condition,
    report: Report,
}

pub(super) fn run(args: &ReportArgs) -> Result<Exit, Failure> {
    let span = tape::span(&args.files, args.period.from, args.period.to)?;
    let question = question(args)?;
    let zone = zone::local();
    let tapes = record::open(&args.files)?;
    let several = tapes.len() > 1;
    let mut read = Vec::new();
    for tape in tapes {
        read.push(digest(tape, span, question, several)?);
    }
    if let Some(of) = read.first()
        && read.iter().all(|of| of.report.events == 0 && !of.condition.is_complete())
    {
        return Err(tape::unreadable(&of.condition));
    }
    let across: Across =
        join(&mut read.iter_mut().map(|of| (&of.metadata, &mut of.report)).collect::<Vec<_>>());
    let sections: Vec<_> = read.iter().map(|of| (&of.metadata, &of.condition, &of.report)).collect();
    if let Some(path) = &args.html {
        put(path, args.force, &html(&sections, &across, &zone, Timestamp::now()))?;
    }
    if let Some(path) = &args.md {
        put(path, args.force, &markdown(&sections, &across, &zone))?;
    }
    if args.json || (args.html.is_none() && args.md.is_none()) {
        let written = if args.json { print_json(&read, &across) } else { print_text(&read, &across, &zone) };
        ended(written).map_err(|error| trace::cannot_write(&error))?;
    }
    let worst = read.iter().flat_map(|of| &of.report.verdicts).map(|verdict| verdict.worst).max();
    let fails = |on| worst.is_some_and(|worst| worst >= Severity::from(on));
    let conditions: Vec<&Condition> = read.iter().map(|of| &of.condition).collect();
    tape::verdict(args.fail_on.is_some_and(fails), args.fail_on.is_some(), &conditions)
}

fn print_json(read: &[Read], across: &Across) -> io::Result<()> {
    let mut out = stdout_json("report");
    if let ([first, _, ..], last) = (read, read.iter().map(|of| of.report.to).max()) {
        for line in across_lines(across) {
            go_on(out.write(last.unwrap_or(first.report.to), &line))?;
        }
    }
    for of in read {
        out.of_host(&of.metadata.host);
        for (time, line) in report_lines(&of.metadata, &of.condition, &of.report) {
            go_on(out.write(time, &line))?;
        }
    }
    go_on(out.flush())
}

fn print_text(read: &[Read], across: &Across, zone: &TimeZone) -> io::Result<()> {
    let mut out = stdout_lines();
    let joined = (read.len() > 1).then(|| across_text(across, zone));
    let each = read.iter().map(|of| text(&of.metadata, &of.condition, &of.report, zone, columns()));
    for (number, part) in joined.into_iter().chain(each).enumerate() {
        if number > 0 {
            go_on(out.line(""))?;
        }
        go_on(out.rows(part.rows()))?;
    }
    go_on(out.flush())
}

fn print(text: &str) -> io::Result<()> {
    let mut out = stdout_lines();
    go_on(out.text(text))?;
    go_on(out.flush())
}

/// The report on the one recording in `files`, and what was wrong with them.
pub(super) fn only(files: &[PathBuf]) -> Result<(Report, Condition), Failure> {
    let read = digest(tape::only(files)?, (None, None), None, false)?;
    Ok((read.report, read.condition))
}

/// The text of a report on one recording, for the end of `record -- CMD`.
pub(super) fn of_file(files: &[PathBuf]) -> Result<Sheet, Failure> {
    let read = digest(tape::only(files)?, (None, None), None, false)?;
    Ok(text(&read.metadata, &read.condition, &read.report, &zone::local(), columns()))
}

/// Writes a page where it is wanted: `-` is standard output.
fn put(path: &Path, force: bool, page: &str) -> Result<(), Failure> {
    if path.as_os_str() != "-" {
        return write_page(path, force, page);
    }
    ended(print(page)).map_err(|error| trace::cannot_write(&error))
}

/// Writes a page, down to the disk. Half a page is none.
fn write_page(path: &Path, force: bool, page: &str) -> Result<(), Failure> {
    let mut file = record::create(path, force)
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))?;
    let is_file = file.metadata().is_ok_and(|found| found.is_file());
    let written =
        file.write_all(page.as_bytes()).and_then(|()| if is_file { file.sync_all() } else { Ok(()) });
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            if is_file {
                let _gone = fs::remove_file(path);
            }
            let why = record::write_failure(&error);
            let full = trace::full(&error);
            Err(Failure::new(Exit::CannotWrite, format!("{} cannot be written: {why}{full}", path.display())))
        }
        Ok(()) => Ok(()),
    }
}

fn question(args: &ReportArgs) -> Result<Option<PortQuestion>, Failure> {
    let Some(port) = args.port else { return Ok(None) };
    let at = match args.at {
        Some(moment) => Some(tape::at(&args.files, moment)?),
        None => None,
    };
    Ok(Some(PortQuestion { port, at }))
}

fn digest(
    mut tape: Tape,
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    question: Option<PortQuestion>,
    to_be_joined: bool,
) -> Result<Read, Failure> {
    let mut digest = Digest::new(from, to, question);
    if to_be_joined {
        digest = digest.to_be_joined();
    }
    let mut events = Vec::new();
    'reading: while tape.next_events(&mut events)? {
        for event in &events {
            if !digest.note(event) {
                break 'reading;
            }
        }
        events.clear();
    }
    let mut report = digest.finish();
    if report.events == 0 {
        // Nothing tells the time but the recording itself.
        (report.from, report.to) = (tape.metadata().started, tape.metadata().started);
    }
    Ok(Read { metadata: tape.metadata().clone(), condition: tape.condition(), report })
}
