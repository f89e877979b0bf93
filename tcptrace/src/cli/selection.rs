//! From arguments to what is printed.

use super::{
    args::SelectionArgs,
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
    Ok(Selection {
        codes: args.finding.clone(),
        pids: args.pid.clone(),
        comms: args.comm.clone(),
        containers: args.container.clone(),
        peers: args.peer.clone(),
    })
}
