//! Remedies in the words of the program that they are about: the one place where findings ask what software a process is.
//!
//! "raise the application's own listen backlog" becomes "raise the listen backlog of nginx: `listen 0.0.0.0:8080
//! backlog=1024;` in the server block, then reload it: `nginx -s reload` (default: 511)". Where the program is not recognised, or
//! its entry says nothing about the need, the general sentence stays.

use std::net::SocketAddr;

use crate::software::{self, Need, Process, Software};

use super::{Party, ProcessName, Remedy};

/// systemd has the sockets of socket units, and called listen().
const SYSTEMD: u32 = 1;

/// Accepting threads that are worth asking for; more is for somebody else to decide.
const MOST_WORKERS: f64 = 512.0;

/// What meets `need` in the software of `party`, each alternative for itself; or else `general`. Both end with `rest`.
pub(crate) fn or_general(party: &Party, need: Need, general: &str, rest: &str) -> Vec<Remedy> {
    let own = of(party, need);
    if own.is_empty() {
        return vec![Remedy::text(format!("{general}{rest}"))];
    }
    own.into_iter().map(|remedy| Remedy { text: format!("{}{rest}", remedy.text), ..remedy }).collect()
}

/// What meets `need` in the software of `party`; nothing if it is not recognised.
pub(crate) fn of(party: &Party, need: Need) -> Vec<Remedy> {
    party.process.as_ref().map_or_else(Vec::new, |process| of_process(process, party.address, need))
}

/// Likewise, for a process and the address that it listens on, if it does.
pub(crate) fn of_process(process: &ProcessName, address: Option<SocketAddr>, need: Need) -> Vec<Remedy> {
    let Some(software) = responsible(process, need) else { return Vec::new() };
    let advice = software.advice(need, address, process.pid);
    advice.into_iter().map(|advice| Remedy::text(advice.text)).collect()
}

/// The software that decides about `need`. The queue of a socket that systemd opened is as long as its unit says, whoever accepts.
fn responsible(process: &ProcessName, need: Need) -> Option<&'static Software> {
    let by_unit = matches!(need, Need::Backlog(_) | Need::Listen | Need::Release);
    let unit = || process.also.iter().find(|owner| owner.pid == SYSTEMD);
    if let Some(systemd) = by_unit.then(unit).flatten()
        && let Some(software) = software::recognise(&Process::new(&systemd.comm, None))
    {
        return Some(software);
    }
    software::recognise(&Process::new(process.comm.as_deref()?, process.command.as_deref()))
}

/// How many accepting workers keep up with what arrives, a quarter in reserve; `None` where that cannot be told. `threads` were
/// seen accepting; of workers that have long requests there may be more, which have the socket as well.
pub(crate) fn workers_for(party: &Party, threads: Option<u64>, accepts: f64, arrivals: f64) -> Option<u32> {
    let others = party.process.as_ref().map_or(0, |process| process.also.len());
    let threads = threads?.max(u64::try_from(others).unwrap_or(u64::MAX)).max(1);
    #[expect(clippy::cast_precision_loss, reason = "a number of threads is small")]
    let wanted = (threads as f64 * arrivals / accepts * 1.25).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 1 and MOST_WORKERS"
    )]
    (wanted.is_finite() && (1.0..=MOST_WORKERS).contains(&wanted)).then_some(wanted as u32)
}

#[cfg(test)]
mod tests;
