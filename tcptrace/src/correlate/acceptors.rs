//! Who accepts the connections of a listener: threads and processes that were seen doing it.

use crate::event::{Acceptor, Timestamp};

/// Threads that are told apart.
const THREADS: usize = 256;

/// Threads that were seen accepting, and when last.
#[derive(Clone, Debug, Default)]
pub struct Acceptors {
    known: Vec<(Acceptor, Timestamp)>,
}

impl Acceptors {
    pub(super) fn note(&mut self, acceptor: Acceptor, time: Timestamp) {
        if let Some((_, last)) = self.known.iter_mut().find(|(known, _)| *known == acceptor) {
            *last = (*last).max(time);
        } else if self.known.len() < THREADS {
            self.known.push((acceptor, time));
        }
    }

    /// How many threads were seen accepting.
    pub fn count(&self) -> u64 {
        u64::try_from(self.known.len()).unwrap_or(u64::MAX)
    }

    /// The processes of those threads, and when each was last seen accepting: the latest first.
    pub fn processes(&self) -> Vec<(u32, Timestamp)> {
        let mut processes: Vec<(u32, Timestamp)> = Vec::new();
        for (acceptor, time) in &self.known {
            match processes.iter_mut().find(|(pid, _)| *pid == acceptor.pid) {
                Some((_, last)) => *last = (*last).max(*time),
                None => processes.push((acceptor.pid, *time)),
            }
        }
        processes.sort_unstable_by(|(pid, last), (other, of_other)| of_other.cmp(last).then(pid.cmp(other)));
        processes
    }

    /// When `pid` was last seen accepting.
    pub fn last_of(&self, pid: u32) -> Option<Timestamp> {
        let of_process = self.known.iter().filter(|(acceptor, _)| acceptor.pid == pid);
        of_process.map(|(_, last)| *last).max()
    }
}

/// accept() of one process that failed, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptFailure {
    /// The process.
    pub pid: u32,
    /// The thread's name.
    pub comm: String,
    /// Why.
    pub errno: u32,
    /// When that was first seen.
    pub first: Timestamp,
    /// When it was last seen.
    pub last: Timestamp,
    /// How often it has failed.
    pub total: u64,
    /// The process's limit on open files, if it was read.
    pub open_files_limit: Option<u64>,
    /// The host's limit on open files, where that was reached.
    pub host_files_limit: Option<u64>,
    /// Files open on the host at that moment, likewise.
    pub host_files: Option<u64>,
    /// Connections that had been accepted from the listener at its last failure, where that is counted for this listener.
    pub accepted: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn threads_are_counted_and_their_processes_come_in_the_order_of_their_last_accepts() {
        let mut acceptors = Acceptors::default();
        for (pid, tid, ms) in [(10, 10, 5), (11, 11, 9), (10, 12, 7), (10, 10, 6)] {
            acceptors.note(Acceptor { pid, tid }, at(ms));
        }
        assert_eq!(acceptors.count(), 3);
        assert_eq!(acceptors.processes(), [(11, at(9)), (10, at(7))]);
        assert_eq!((acceptors.last_of(10), acceptors.last_of(12)), (Some(at(7)), None));
    }
}
