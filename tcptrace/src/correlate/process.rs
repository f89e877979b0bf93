//! What is known of processes.

use crate::event::{ProcessInfo, ProcessState, Task, Timestamp, Watch};

use super::bounded::BoundedMap;

/// How many processes are remembered.
const PROCESSES: usize = 16_384;

/// Processes by pid. They are remembered after their end: findings are often about those that have just died.
#[derive(Debug)]
pub struct Processes {
    by_pid: BoundedMap<u32, Process>,
}

/// What is known of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// What `/proc` said, if it was asked in time.
    pub info: Option<ProcessInfo>,
    /// What its threads were doing, and when.
    pub state: Option<(Timestamp, ProcessState)>,
    /// How it watches listeners, by inode, and when that was seen.
    watches: Vec<(u64, Timestamp, Watch)>,
}

/// Listeners of one process that are remembered.
const WATCHES: usize = 16;

impl Process {
    /// How it watched the listener with this inode at `since` or later.
    pub fn watch(&self, inode: u64, since: Timestamp) -> Option<Watch> {
        let of_listener = self.watches.iter().find(|(known, ..)| *known == inode);
        of_listener.filter(|(_, time, _)| *time >= since).map(|(.., watch)| *watch)
    }
}

impl Default for Processes {
    fn default() -> Self {
        Self { by_pid: BoundedMap::new(PROCESSES) }
    }
}

impl Processes {
    /// What is known of `pid`.
    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid)
    }

    /// When `pid` was found to have exited, if it was.
    pub fn exited(&self, pid: u32) -> Option<Timestamp> {
        self.get(pid)?.state.filter(|(_, state)| state.has_exited()).map(|(time, _)| time)
    }

    /// What `/proc` said of `pid`.
    pub fn info(&self, pid: u32) -> Option<&ProcessInfo> {
        self.get(pid)?.info.as_ref()
    }

    /// Command name of the process of `task`, which itself has the name of one of its threads.
    pub fn comm<'a>(&'a self, task: &'a Task) -> &'a str {
        self.info(task.pid).map_or(&task.comm, |info| &info.comm)
    }

    /// How many were forgotten for newer ones.
    pub fn forgotten(&self) -> u64 {
        self.by_pid.forgotten()
    }

    pub(super) fn note_info(&mut self, info: &ProcessInfo) {
        let process = self.by_pid.get_or_insert_with(info.pid, Process::default);
        // The number of a process that has exited is given to another one in time.
        if process.info.as_ref() != Some(info) && process.state.is_some_and(|(_, state)| state.has_exited()) {
            process.state = None;
        }
        process.info = Some(info.clone());
    }

    pub(super) fn note_state(&mut self, time: Timestamp, state: ProcessState) {
        let process = self.by_pid.get_or_insert_with(state.pid, Process::default);
        process.state = Some((time, state));
        if let Some(watch) = state.watches {
            process.watches.retain(|(inode, ..)| *inode != state.listener);
            if process.watches.len() < WATCHES {
                process.watches.push((state.listener, time, watch));
            }
        }
    }
}
