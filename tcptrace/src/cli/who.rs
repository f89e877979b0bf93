//! `tcptrace who PORT`: who holds a port, and what a bind to it would meet.

use super::{
    args::WhoArgs,
    exit::{Exit, Failure},
    netns, trace,
};
use crate::{
    event::{PortSet, Timestamp},
    output::{stdout_json, stdout_lines, zone},
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
        return Err(Failure::new(Exit::NotPermitted, answer.gaps.join("; ")));
    }
    let ports: Vec<u16> = ports.ranges().flatten().collect();
    let written = if args.json {
        answer.write_json(&ports, now(), &mut stdout_json())
    } else {
        answer.write_text(&ports, now(), &zone::local(), &mut stdout_lines())
    };
    let _gone = written.map_err(|error| trace::cannot_write(&error))?;
    Ok(if answer.holders().next().is_some() { Exit::Done } else { Exit::Found })
}

fn now() -> Timestamp {
    let nanos = jiff::Timestamp::now().as_nanosecond();
    Timestamp::from_nanos(u64::try_from(nanos).unwrap_or_default())
}
