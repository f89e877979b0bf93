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

/// The same as the user wrote it, an option each.
pub(super) fn words(args: &PartyArgs) -> Vec<String> {
    let pids = args.pid.iter().map(|pid| format!("--pid {pid}"));
    let comms = args.comm.iter().map(|name| format!("--comm {name}"));
    let containers = args.container.iter().map(|name| format!("--container {name}"));
    let peers = args.peer.iter().map(|network| format!("--peer {network}"));
    pids.chain(comms).chain(containers).chain(peers).collect()
}
