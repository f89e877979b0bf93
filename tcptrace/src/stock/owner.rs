//! A process that has a listener open, and what its threads do.

use std::sync::Arc;

use crate::identity::process::Process;
use crate::identity::state::{ProcessState, RunState, Syscall};

/// A process that has the listener open, through one descriptor or several.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Its descriptors for the listener, ascending.
    pub fds: Vec<u32>,
    /// Who it is, shared between its listeners.
    pub process: Arc<OwnerProcess>,
}

/// A process that has listeners open.
#[derive(Debug, Clone)]
pub struct OwnerProcess {
    /// Its identity.
    pub who: Process,
    /// What it is doing; `None` where that may not be read.
    pub state: Option<ProcessState>,
}

impl OwnerProcess {
    /// Container, or else the systemd unit, that it runs in.
    pub fn container(&self) -> Option<String> {
        self.who.place()
    }

    /// Whether a signal or a debugger has stopped it.
    pub fn is_stopped(&self) -> bool {
        self.state.as_ref().is_some_and(ProcessState::is_stopped)
    }

    /// Whether it can open no further file, so that accept() fails.
    pub fn is_at_file_limit(&self) -> bool {
        self.state.as_ref().and_then(ProcessState::is_at_file_limit).unwrap_or(false)
    }

    /// Threads in uninterruptible sleep.
    pub fn uninterruptible(&self) -> usize {
        self.state.as_ref().map_or(0, |state| state.uninterruptible().count())
    }

    /// Sleeping threads whose system call satisfies `test`; `None` when the system calls of its threads may not be read.
    fn sleeping_in(&self, test: impl Fn(Syscall) -> bool) -> Option<usize> {
        let state = self.state.as_ref()?;
        let asleep = |state: RunState| matches!(state, RunState::Sleeping | RunState::Uninterruptible);
        let sleeping = || state.threads.iter().filter(|thread| asleep(thread.state));
        let unreadable = sleeping().count() > 0 && sleeping().all(|thread| thread.syscall.is_none());
        (!unreadable).then(|| sleeping().filter(|thread| thread.syscall.is_some_and(&test)).count())
    }
}

impl Owner {
    /// Threads that sleep in accept() on this listener; `None` when the system calls of its threads may not be read.
    pub fn accepting(&self) -> Option<usize> {
        let on_it =
            |call: Syscall| self.fds.iter().any(|fd| u64::from(*fd) == call.first_argument & 0xffff_ffff);
        self.process.sleeping_in(|call| call.is_accept() && on_it(call))
    }

    /// Threads that wait for events (epoll, poll, select, io_uring), as those of an event loop at rest do. Whether for
    /// events of this listener is not known.
    pub fn polling(&self) -> Option<usize> {
        self.process.sleeping_in(Syscall::is_poll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::testing::{blocked_in, owner, thread};

    #[test]
    fn threads_in_accept_are_those_on_this_descriptor() {
        let threads = vec![
            blocked_in(libc::SYS_accept4, 7),
            blocked_in(libc::SYS_accept, 9),
            blocked_in(libc::SYS_epoll_pwait, 7),
            thread(RunState::Running),
        ];
        let owner = owner(10, "server", &[7, 8], threads);
        assert_eq!((owner.accepting(), owner.polling()), (Some(1), Some(1)));
    }

    #[test]
    fn system_calls_that_may_not_be_read_are_unknown() {
        let hidden = owner(10, "server", &[7], vec![thread(RunState::Sleeping)]);
        assert_eq!((hidden.accepting(), hidden.polling()), (None, None));
        let busy = owner(10, "server", &[7], vec![thread(RunState::Running)]);
        assert_eq!(busy.accepting(), Some(0));
    }

    #[test]
    fn a_process_is_stopped_when_all_of_it_is() {
        let halves = vec![thread(RunState::Stopped), thread(RunState::Sleeping)];
        assert!(!owner(1, "a", &[3], halves).process.is_stopped());
        assert!(owner(1, "a", &[3], vec![thread(RunState::Stopped)]).process.is_stopped());
    }
}
