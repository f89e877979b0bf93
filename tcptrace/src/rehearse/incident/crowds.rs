//! What incidents with a crowd have in common: waiting for it, and what its requests mean.

use std::time::Duration;

use crate::rehearse::actor::{Actor, Order, Place};
use crate::rehearse::error::Result;
use crate::rehearse::stage::Stage;

/// The network in which a crowd's clients are.
pub(super) const PLACE: Place = Place::Prefix(7);

/// [`PLACE`] as people write it.
pub(super) fn prefix(ipv6: bool) -> &'static str {
    if ipv6 { "fd78:0:7::/64" } else { "10.78.7.0/24" }
}

/// Waits until the crowd has done all it wanted, and every request has completed, expired or been reset; the most
/// half-open requests at one time.
pub(super) fn await_calm(stage: &Stage, crowd: &mut Actor, port: u16) -> Result<usize> {
    /// Reading the table of sockets takes a while: not so often that it would slow the play.
    const LOOK: Duration = Duration::from_millis(50);
    let mut most = 0;
    let mut look = |stage: &Stage| {
        stage.cancel().sleep(LOOK)?;
        let now = stage.half_open(port)?;
        most = most.max(now);
        Ok(now)
    };
    stage.await_that("the crowd has given up", || {
        look(stage)?;
        Ok(!crowd.ask::<bool>(&Order::CrowdBusy)?)
    })?;
    stage.await_that("no request is half-open", || Ok(look(stage)? == 0))?;
    Ok(most)
}

/// How long a request lives whose SYN-ACKs stay unanswered: the kernel waits one second, then twice as long each time.
pub(super) fn timeout_seconds(synack_retries: u32) -> u64 {
    (1_u64 << (synack_retries + 1)) - 1
}
