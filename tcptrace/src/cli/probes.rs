//! `tcptrace probes`
use super::{args::ProbesArgs, exit::{Exit, Failure}};
pub(super) fn run(_args: &ProbesArgs) -> Result<Exit, Failure> { Ok(Exit::Done) }
