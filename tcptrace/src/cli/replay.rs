//! `tcptrace replay`: a recording through the same pipeline as a live trace.

use std::{collections::BTreeSet, io, ops::ControlFlow};

use super::{
    args::{ReplayArgs, union},
    exit::{Exit, Failure},
    selection, tape, trace,
};
use crate::{
    event::{Event, PlaceFilter, Timestamp},
    finding::Severity,
    output::{
        Selection, ended, escape, go_on, json::DamageLine, stdout_json, stdout_lines, stdout_output, zone,
    },
    pipeline::Pipeline,
    record::{Condition, Tape},
};

pub(super) fn run(args: &ReplayArgs) -> Result<Exit, Failure> {
    let place = PlaceFilter { ports: union(&args.port), netns: args.netns.clone() };
    let selection = Selection { place, ..selection::of(&args.selection)? };
    let mut recording = tape::only(&args.files)?;
    let span = tape::span(&args.files, args.period.from, args.period.to)?;
    let moments = [("--from", &args.period.from), ("--to", &args.period.to)];
    let moments = moments.into_iter().filter_map(|(name, moment)| Some((name, moment.as_ref()?)));
    let moments: Vec<String> = moments.map(|(name, moment)| format!("{name} {moment}")).collect();
    let words: Vec<String> = selection.words().into_iter().chain(moments.iter().cloned()).collect();
    let mut output = stdout_output("replay", args.json, args.counters);
    if let [only] = args.netns.as_slice() {
        output.at_home(*only);
    }
    let of = recording.metadata();
    output.of_host(&of.host);
    let host = of.host.clone();
    let opening = format!(
        "replaying a recording of {}, kernel {}, begun {}{}",
        escape(&of.host),
        escape(&of.kernel),
        zone::moment_and_zone(&zone::local(), of.started),
        selection::only(&words)
    );
    let gone = trace::at_once(&mut output, &opening).map_err(|error| trace::cannot_write(&error))?;
    if gone.is_break() {
        return Ok(Exit::Done);
    }
    let mut pipeline = Pipeline::new(output, selection, args.events);
    pipeline.only(moments);
    let mut met = BTreeSet::new();
    let played = play(&mut recording, &mut pipeline, span, &mut met)?;
    let condition = recording.condition();
    if recording.events() == 0 && !condition.is_complete() {
        return Err(tape::unreadable(&condition));
    }
    if let Some(strange) = args.netns.iter().find(|netns| !met.contains(netns)) {
        let there: Vec<String> = met.iter().map(u32::to_string).collect();
        let message = format!(
            "--netns {strange}: nothing of this recording is of that network namespace; there are {}",
            if there.is_empty() { "none".to_owned() } else { there.join(", ") }
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    match played {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(trace::cannot_write(&error)),
        Ok(_) => {
            let last = pipeline.engine().world().now();
            let gone = pipeline.finish().map_err(|error| trace::cannot_write(&error))?;
            if gone.is_continue() {
                ended(mark(&condition, args.json, &host, last))
                    .map_err(|error| trace::cannot_write(&error))?;
            }
        }
    }
    let fails = |on| pipeline.worst().is_some_and(|worst| worst >= Severity::from(on));
    tape::verdict(args.fail_on.is_some_and(fails), args.fail_on.is_some(), &[&condition])
}

/// Says what is wrong with the recording where everything else is said, so that whoever keeps that keeps this as well.
fn mark(condition: &Condition, json: bool, host: &str, ended: Timestamp) -> io::Result<()> {
    if json {
        let mut out = stdout_json("replay");
        out.of_host(host);
        for mark in &condition.marks {
            go_on(out.write(mark.to.unwrap_or(ended), &DamageLine::from(mark).into()))?;
        }
        return go_on(out.flush());
    }
    let mut out = stdout_lines();
    if let Some(shortage) = condition.shortage() {
        go_on(out.line(&format!("! THIS RECORDING IS NOT COMPLETE: {shortage}")))?;
    }
    for mark in &condition.marks {
        go_on(out.line(&format!("! {}", escape(&mark.to_string()))))?;
    }
    go_on(out.flush())
}

/// Everything goes through the pipeline, so that it knows what was before; said is what lies in `span`.
fn play<W: io::Write>(
    recording: &mut Tape,
    pipeline: &mut Pipeline<W>,
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    met: &mut BTreeSet<u32>,
) -> Result<io::Result<()>, Failure> {
    let mut events = Vec::new();
    while recording.next_events(&mut events)? {
        for event in events.drain(..) {
            let late = to.is_some_and(|to| event.time > to);
            if late {
                return Ok(Ok(()));
            }
            met.extend(event.kind.about().netns);
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
