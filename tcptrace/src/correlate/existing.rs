//! connect() calls from a port of their own whose connection exists already: the same two addresses and ports.

use std::net::SocketAddr;
use std::time::Duration;

use crate::event::{Endpoints, HolderReport, NoPort, SocketOptions, Task, Timestamp};

use super::bounded::BoundedMap;
use super::conflict::{OwnersOf, PortHolder};

/// How many of them are remembered.
const TUPLES: usize = 1024;

/// How long one waits for sock_diag's report before it is reported without.
const WAIT_FOR_REPORT: Duration = Duration::from_secs(1);

/// Names a connection that could not be made: attempts that are reported as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TupleKey {
    /// Network namespace.
    pub netns: u32,
    /// The socket's own address and port.
    pub local: SocketAddr,
    /// What it called.
    pub remote: SocketAddr,
    /// Command name of the caller.
    pub comm: String,
}

/// A connection that was wanted, and is there already.
#[derive(Clone, Debug)]
pub struct Existing {
    /// How often since the tracer started.
    pub attempts: u64,
    /// First attempt.
    pub first: Timestamp,
    /// Last attempt.
    pub last: Timestamp,
    /// The last caller.
    pub requester: Task,
    /// What it asked for.
    pub endpoints: Endpoints,
    /// Options of its socket.
    pub options: SocketOptions,
    /// What holds the same addresses and ports, if it was found.
    pub holder: Option<PortHolder>,
    /// What may be missing from sock_diag's report; `None` if nothing, or if there was no report.
    pub incomplete: Option<String>,
    /// Whether sock_diag's report has come.
    pub reported: bool,
    waiting: Option<Timestamp>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct ExistingTuples {
    by_key: BoundedMap<TupleKey, Existing>,
}

impl Default for ExistingTuples {
    fn default() -> Self {
        Self { by_key: BoundedMap::new(TUPLES) }
    }
}

impl ExistingTuples {
    /// Nothing is known any more of this namespace.
    pub(super) fn forget(&mut self, netns: u32) {
        self.by_key.retain(|key, _| key.netns != netns);
    }

    pub(super) fn get(&self, key: &TupleKey) -> Option<&Existing> {
        self.by_key.get(key)
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.by_key.forgotten()
    }

    /// An attempt failed. The key, if it is known already what holds the connection.
    pub(super) fn note(&mut self, time: Timestamp, refused: &NoPort) -> Option<TupleKey> {
        let key = TupleKey {
            netns: refused.endpoints.netns,
            local: refused.endpoints.local,
            remote: refused.endpoints.remote?,
            comm: refused.task.comm.to_string(),
        };
        let fresh = || Existing {
            attempts: 0,
            first: time,
            last: time,
            requester: refused.task.clone(),
            endpoints: refused.endpoints,
            options: refused.options,
            holder: None,
            incomplete: None,
            reported: false,
            waiting: Some(time),
        };
        let known = self.by_key.get_or_insert_with(key.clone(), fresh);
        known.attempts += 1;
        if time >= known.last {
            known.last = time;
            known.requester = refused.task.clone();
            known.endpoints = refused.endpoints;
            known.options = refused.options;
        }
        known.waiting.is_none().then_some(key)
    }

    /// sock_diag's report came: those that it is about, and whether they waited for it.
    pub(super) fn note_report(
        &mut self,
        report: &HolderReport,
        owners_of: OwnersOf<'_>,
    ) -> Vec<(TupleKey, bool)> {
        let about = |key: &TupleKey| key.netns == report.netns && key.local.port() == report.port;
        let mut keys: Vec<TupleKey> =
            self.by_key.iter().map(|(key, _)| key).filter(|key| about(key)).cloned().collect();
        keys.sort_unstable();
        keys.into_iter()
            .filter_map(|key| {
                let known = self.by_key.get_mut(&key)?;
                let mut holders = report
                    .holders
                    .iter()
                    .filter(|holder| holder.local == key.local && holder.remote == Some(key.remote));
                let found =
                    holders.next().map(|reported| PortHolder::from_report(report.netns, reported, owners_of));
                // One that is gone by now was there before.
                known.holder = found.or(known.holder.take());
                known.incomplete.clone_from(&report.incomplete);
                known.reported = true;
                Some((key, known.waiting.take().is_some()))
            })
            .collect()
    }

    /// Ends the waiting for reports that did not come in time (or at all, at the `end`). Returns those that waited.
    pub(super) fn stop_waiting(&mut self, now: Timestamp, end: bool) -> Vec<TupleKey> {
        let late =
            |known: &Existing| known.waiting.is_some_and(|since| end || now.since(since) >= WAIT_FOR_REPORT);
        let mut keys: Vec<TupleKey> =
            self.by_key.iter().filter(|(_, known)| late(known)).map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        for key in &keys {
            if let Some(known) = self.by_key.get_mut(key) {
                known.waiting = None;
            }
        }
        keys
    }
}
