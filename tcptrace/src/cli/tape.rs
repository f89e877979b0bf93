//! What the subcommands that read recordings have in common.

use std::path::PathBuf;

use super::{
    exit::{Exit, Failure},
    moment::Moment,
};
use crate::{
    event::Timestamp,
    output::zone,
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
    let extent = Extent::of(files)?;
    let from = from.map(|from| (from, extent.first_of(from)));
    let to = to.map(|to| (to, to.last(extent.first_of(to))));
    if let Some((said, from)) = from
        && from > extent.last
    {
        return Err(extent.without(&format!("--from {said}")));
    }
    if let Some((said, to)) = to
        && to < extent.first
    {
        return Err(extent.without(&format!("--to {said}")));
    }
    let (from, to) = (from.map(|(_, time)| time), to.map(|(_, time)| time));
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Failure::new(Exit::Usage, format!("--from {from} is after --to {to}")));
    }
    Ok((from, to))
}

/// What `--at` means for the recordings in `files`: a time as long as it was said.
pub(super) fn at(files: &[PathBuf], said: Moment) -> Result<(Timestamp, Timestamp), Failure> {
    let extent = Extent::of(files)?;
    let first = extent.first_of(said);
    let last = said.last(first);
    if last < extent.first || first > extent.last {
        return Err(extent.without(&format!("--at {said}")));
    }
    Ok((first, last))
}

/// From the first to the last event of all recordings.
struct Extent {
    first: Timestamp,
    last: Timestamp,
}

impl Extent {
    fn of(files: &[PathBuf]) -> Result<Self, Failure> {
        let mut extent: Option<Self> = None;
        let mut events = Vec::new();
        for mut tape in record::open(files)? {
            while tape.next_events(&mut events)? {
                for time in events.drain(..).map(|event| event.time) {
                    let known = extent.get_or_insert(Self { first: time, last: time });
                    known.first = known.first.min(time);
                    known.last = known.last.max(time);
                }
            }
        }
        extent.ok_or_else(|| Failure::new(Exit::BadInput, "nothing is recorded there: no time lies in it"))
    }

    fn first_of(&self, moment: Moment) -> Timestamp {
        moment.in_recording(self.last, Timestamp::now(), &zone::local())
    }

    /// Nothing was recorded at that time.
    fn without(&self, said: &str) -> Failure {
        let zone = zone::local();
        let (first, last) = (zone::moment(&zone, self.first), zone::moment(&zone, self.last));
        let zone = zone::in_words(&zone, self.last);
        Failure::new(Exit::Usage, format!("{said}: what is recorded is from {first} to {last} ({zone})"))
    }
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
