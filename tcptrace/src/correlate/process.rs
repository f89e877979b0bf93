//! What is known of processes.

use crate::event::{ProcessInfo, ProcessState, Task, Timestamp};

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
        process.info = Some(info.clone());
    }

    pub(super) fn note_state(&mut self, time: Timestamp, state: ProcessState) {
        let process = self.by_pid.get_or_insert_with(state.pid, Process::default);
        process.state = Some((time, state));
    }
}
