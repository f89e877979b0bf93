//! From arguments to what is printed, or recorded.

use super::{
    args::{PartyArgs, SelectionArgs},
    exit::{Exit, Failure},
};
use crate::{finding::Engine, output::Selection};

/// The selection that was asked for.
pub(super) fn of(args: &SelectionArgs) -> Result<Selection, Failure> {
    let engine = Engine::default();
    let known: Vec<&str> = engine.codes().collect();
    if let Some(unknown) = args.finding.iter().find(|code| !known.contains(&code.as_str())) {
        let message =
            format!("--finding {unknown}: there is no such finding; there are {}", known.join(", "));
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(Selection { codes: args.finding.clone(), ..of_parties(&args.parties) })
}

/// The selection of processes and peers that was asked for.
pub(super) fn of_parties(args: &PartyArgs) -> Selection {
    Selection {
        pids: args.pid.clone(),
        comms: args.comm.clone(),
        containers: args.container.clone(),
        peers: args.peer.clone(),
        ..Selection::default()
    }
}

/// Refuses processes that there are none of: of a live trace, nothing would ever be about them.
pub(super) fn are_there(pids: &[u32]) -> Result<(), Failure> {
    match pids.iter().find(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
        Some(pid) => Err(Failure::new(Exit::Usage, format!("--pid {pid}: there is no such process"))),
        None => Ok(()),
    }
}

/// What is left out of what is to come, in words for the first line: `; only --port 80 --comm nginx`.
pub(super) fn only(words: &[String]) -> String {
    if words.is_empty() { String::new() } else { format!("; only {}", words.join(" ")) }
}
