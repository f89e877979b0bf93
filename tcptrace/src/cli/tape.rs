//! What the subcommands that read recordings have in common.

use std::path::PathBuf;

use super::{
    exit::{Exit, Failure},
    moment::Moment,
};
use crate::{
    event::Timestamp,
    output::zone,
    record::{self, Tape},
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
    let meant = |moment: Option<Moment>| moment.map(|moment| moment.in_recording(end, now(), &zone::local()));
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

/// What was wrong with the files, a line each.
pub(super) fn damage_in_words(tape: &Tape) -> Vec<String> {
    let damage = tape.damage().iter().map(|(path, damage)| format!("{}: {damage}", path.display()));
    let missing =
        tape.missing_parts().into_iter().map(|part| format!("part {part} of this recording is missing"));
    damage.chain(missing).collect()
}

/// Says it on stderr.
pub(super) fn say_damage(tape: &Tape) {
    for line in damage_in_words(tape) {
        log::warn!("{line}");
    }
}
