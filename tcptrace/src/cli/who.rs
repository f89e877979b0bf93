//! `tcptrace who PORT`: who holds a port, and what a bind to it would meet.

use super::{
    args::WhoArgs,
    exit::{Exit, Failure},
    netns, trace,
};
use crate::{
    event::{PortSet, Timestamp},
    output::{ended, go_on, json, stdout_json, stdout_lines, zone},
    stock::Gap,
    who::{Question, ask},
};

pub(super) fn run(args: &WhoArgs) -> Result<Exit, Failure> {
    let mut ports = PortSet::new();
    for range in args.ports.iter().flat_map(PortSet::ranges) {
        ports.add_range(*range.start(), *range.end());
    }
    let netns = args.netns.as_deref().map(netns::find).transpose()?;
    let answer = ask(&Question { ports: ports.clone(), netns })
        .map_err(|error| Failure::new(Exit::NotPermitted, error))?;
    if answer.places.is_empty() {
        return Err(Failure::new(Exit::NotPermitted, Gap::reasons(&answer.gaps).join("; ")));
    }
    let ports: Vec<u16> = ports.ranges().flatten().collect();
    let now = Timestamp::now();
    let written = if args.json {
        json::who::write(&answer, &ports, now, &mut stdout_json("who"))
    } else {
        answer.write_text(&ports, now, &zone::local(), &mut stdout_lines()).and_then(|gone| go_on(Ok(gone)))
    };
    ended(written).map_err(|error| trace::cannot_write(&error))?;
    Ok(if answer.holders().next().is_some() { Exit::Done } else { Exit::Found })
}
