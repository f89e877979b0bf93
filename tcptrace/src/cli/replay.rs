//! `tcptrace replay`: a recording through the same pipeline as a live trace.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    ops::ControlFlow,
};

use super::{
    args::ReplayArgs,
    exit::{Exit, Failure},
    selection, tape, trace,
};
use crate::{
    event::{Event, Timestamp},
    finding::Severity,
    output::{Selection, escape, json_text},
    pipeline::Pipeline,
    record::{Condition, Tape},
};

pub(super) fn run(args: &ReplayArgs) -> Result<Exit, Failure> {
    let selection =
        Selection { ports: args.port.clone(), netns: args.netns, ..selection::of(&args.selection)? };
    let mut recording = tape::only(&args.files)?;
    let span = tape::span(&args.files, args.period.from, args.period.to)?;
    let mut pipeline = Pipeline::new(trace::output(args.json), selection, args.events);
    let played = play(&mut recording, &mut pipeline, span)?;
    let condition = recording.condition();
    if recording.events() == 0 && !condition.is_complete() {
        return Err(tape::unreadable(&condition));
    }
    match played {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(trace::cannot_write(&error)),
        Ok(_) => {
            let gone = pipeline.finish().map_err(|error| trace::cannot_write(&error))?;
            if gone.is_continue() {
                mark(&condition, args.json)?;
            }
        }
    }
    let fails = |on| pipeline.worst().is_some_and(|worst| worst >= Severity::from(on));
    tape::verdict(args.fail_on.is_some_and(fails), args.fail_on.is_some(), &[&condition])
}

/// Says what is wrong with the recording where everything else is said, so that whoever keeps that keeps this as well.
fn mark(condition: &Condition, json: bool) -> Result<(), Failure> {
    let mut out = String::new();
    if let Some(shortage) = condition.shortage().filter(|_| !json) {
        let _ = writeln!(out, "! THIS RECORDING IS NOT COMPLETE: {shortage}");
    }
    for mark in &condition.marks {
        if json {
            let mut line = serde_json::to_value(mark).unwrap_or_default();
            if let serde_json::Value::Object(line) = &mut line {
                line.insert("type".to_owned(), "damage".into());
            }
            let _ = writeln!(out, "{}", json_text(&line));
        } else {
            let _ = writeln!(out, "! {}", escape(&mark.to_string()));
        }
    }
    match io::stdout().lock().write_all(out.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(trace::cannot_write(&error)),
        _ => Ok(()),
    }
}

/// Everything goes through the pipeline, so that it knows what was before; said is what lies in `span`.
fn play<W: io::Write>(
    recording: &mut Tape,
    pipeline: &mut Pipeline<W>,
    (from, to): (Option<Timestamp>, Option<Timestamp>),
) -> Result<io::Result<()>, Failure> {
    let mut events = Vec::new();
    while recording.next_events(&mut events)? {
        for event in events.drain(..) {
            let late = to.is_some_and(|to| event.time > to);
            if late {
                return Ok(Ok(()));
            }
            pipeline.mute(from.is_some_and(|from| event.time < from));
            match feed(pipeline, &event) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(Err(io::ErrorKind::BrokenPipe.into())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    Ok(Ok(()))
}

fn feed<W: io::Write>(pipeline: &mut Pipeline<W>, event: &Event) -> crate::output::Written {
    pipeline.feed(std::slice::from_ref(event))
}
