//! What the subcommands that read recordings have in common.

use std::path::PathBuf;

use jiff::tz::TimeZone;

use super::{
    exit::{Exit, Failure},
    moment::Moment,
};
use crate::{
    event::Timestamp,
    record::{self, Condition, Tape},
};

/// The one recording that `files` are.
pub(super) fn only(files: &[PathBuf]) -> Result<Tape, Failure> {
    let mut tapes = record::open(files)?;
    if tapes.len() > 1 {
        let message = format!(
            "these files are {} recordings; replay takes one (its parts together), report takes several",
            tapes.len()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    tapes.pop().ok_or_else(|| Failure::new(Exit::Usage, "no recording is given"))
}

/// What `--from` and `--to` mean for the recordings in `files`.
pub(super) fn span(
    files: &[PathBuf],
    from: Option<Moment>,
    to: Option<Moment>,
) -> Result<(Option<Timestamp>, Option<Timestamp>), Failure> {
    if from.is_none() && to.is_none() {
        return Ok((None, None));
    }
    let end = end(files, [from, to].into_iter().flatten())?;
    let meant =
        |moment: Option<Moment>| moment.map(|moment| moment.in_recording(end, now(), &TimeZone::system()));
    let (from, to) = (meant(from), meant(to));
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Failure::new(Exit::Usage, format!("--from {from} is after --to {to}")));
    }
    Ok((from, to))
}

/// The time of the last event, if any of the moments needs it.
pub(super) fn end(
    files: &[PathBuf],
    mut moments: impl Iterator<Item = Moment>,
) -> Result<Timestamp, Failure> {
    if !moments.any(|moment| matches!(moment, Moment::OfDay(_))) {
        return Ok(now());
    }
    let mut end = Timestamp::default();
    let mut events = Vec::new();
    for mut tape in record::open(files)? {
        while tape.next_events(&mut events)? {
            end = events.drain(..).map(|event| event.time).max().map_or(end, |last| end.max(last));
        }
    }
    Ok(end)
}

/// Now.
pub(super) fn now() -> Timestamp {
    Timestamp::from_nanos(u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default())
}

/// What is wrong with a recording of which nothing could be read.
pub(super) fn unreadable(condition: &Condition) -> Failure {
    let marks: Vec<String> = condition.marks.iter().map(ToString::to_string).collect();
    Failure::new(Exit::BadInput, format!("nothing could be read: {}", marks.join("; ")))
}

/// How a command ends that was to fail on findings: it cannot pass what it has not seen.
pub(super) fn verdict(found: bool, asked: bool, conditions: &[&Condition]) -> Result<Exit, Failure> {
    if found {
        return Ok(Exit::Found);
    }
    match conditions.iter().find_map(|condition| condition.shortage()) {
        Some(shortage) if asked => {
            let message =
                format!("--fail-on cannot be decided: part of the recording is missing ({shortage})");
            Err(Failure::new(Exit::BadInput, message))
        }
        _ => Ok(Exit::Done),
    }
}
