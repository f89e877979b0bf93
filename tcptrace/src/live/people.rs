//! Who is behind the events: processes introduced before the first event that names them, owners of sockets.

use std::collections::{BTreeMap, HashMap, HashSet};

use smol_str::SmolStr;

use crate::{
    event::{self, Kind, OpenSocket, Owner, OwnerConfidence, ProcessInfo, ProcessState, SocketOwner, Task},
    host::procfs::Procfs,
    identity::{cache::IdentityCache, process::Process, sockets::SocketOwners, state},
};

/// Identities kept at most.
const IDENTITIES: usize = 4096;

/// Processes and socket owners, as far as they were looked up.
pub(super) struct People {
    procfs: Procfs,
    identities: IdentityCache,
    /// Processes that were seen at work in this second, and what they were called.
    at_work: HashMap<u32, SmolStr>,
    /// What was last said about a process.
    introduced: HashMap<u32, ProcessInfo>,
    /// Owners by inode of the socket.
    owners: HashMap<u64, Vec<u32>>,
    /// Inodes whose owners were looked for in vain or in this second: not again before the next.
    looked_for: HashSet<u64>,
    /// In which second the owners of an inode were last looked for.
    looked_at: HashMap<u64, u64>,
    seconds: u64,
    /// Processes whose end was reported.
    gone: HashSet<u32>,
}

impl People {
    pub(super) fn new(procfs: Procfs) -> Self {
        Self {
            identities: IdentityCache::new(procfs.clone(), IDENTITIES),
            procfs,
            at_work: HashMap::new(),
            introduced: HashMap::new(),
            owners: HashMap::new(),
            looked_for: HashSet::new(),
            looked_at: HashMap::new(),
            seconds: 0,
            gone: HashSet::new(),
        }
    }

    /// A new second: what was not found may be looked for again.
    pub(super) fn second(&mut self) {
        self.seconds += 1;
        self.looked_for.clear();
        self.at_work.clear();
        if self.looked_at.len() > 16 * IDENTITIES {
            self.looked_at.clear();
        }
        if self.gone.len() > IDENTITIES {
            self.gone.clear();
        }
        if self.introduced.len() > IDENTITIES {
            self.introduced.clear();
        }
        if self.owners.len() > 16 * IDENTITIES {
            self.owners.clear();
        }
    }

    /// Like [`Self::introduce`], for a process that was just seen at work. It may have thousands of connections a second: it is
    /// looked at again in the next one, or when it is called otherwise (exec).
    pub(super) fn introduce_actor(&mut self, task: &Task) -> Option<Kind> {
        if self.at_work.get(&task.pid) == Some(&task.comm) {
            return None;
        }
        self.at_work.insert(task.pid, task.comm.clone());
        self.introduce(task.pid)
    }

    /// Who `pid` is, if that was not said yet or has changed. The process may be gone already; then nobody knows.
    pub(super) fn introduce(&mut self, pid: u32) -> Option<Kind> {
        if pid == 0 {
            return None;
        }
        let info = info(&*self.identities.current_or_last(pid)?);
        if self.introduced.get(&pid) == Some(&info) {
            return None;
        }
        self.introduced.insert(pid, info.clone());
        Some(Kind::ProcessInfo(Box::new(info)))
    }

    fn owner(&mut self, pid: u32) -> Owner {
        let comm =
            self.identities.current_or_last(pid).map(|process| process.comm.clone()).unwrap_or_default();
        Owner { pid, comm }
    }

    /// Notes that `pid` has the socket of `inode`, as it was seen to.
    pub(super) fn saw_owner(&mut self, inode: u64, pid: u32) {
        if inode != 0 && pid != 0 {
            let owners = self.owners.entry(inode).or_default();
            if !owners.contains(&pid) {
                owners.push(pid);
            }
        }
    }

    /// Whether an owner of the socket of `inode` is known, or was looked for just now.
    pub(super) fn has_looked_for(&self, inode: u64) -> bool {
        inode == 0 || self.owners.contains_key(&inode) || self.looked_for.contains(&inode)
    }

    /// Processes that are known to have the socket of `inode`.
    pub(super) fn owners_of(&self, inode: u64) -> &[u32] {
        self.owners.get(&inode).map_or(&[], Vec::as_slice)
    }

    /// Looks for the owners of sockets by their inodes: one pass over all processes.
    pub(super) fn find_owners(&mut self, inodes: &HashSet<u64>) -> HashMap<u64, Vec<Owner>> {
        self.looked_for.extend(inodes);
        self.looked_at.extend(inodes.iter().map(|inode| (*inode, self.seconds)));
        let found = match SocketOwners::find(&self.procfs, inodes) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("owners of sockets: the processes cannot be listed: {error}");
                return HashMap::new();
            }
        };
        if found.unreadable > 0 {
            log::debug!("owners of sockets: {} processes may not be looked at", found.unreadable);
        }
        let mut owners = HashMap::new();
        for &inode in inodes {
            let mut pids: Vec<u32> = found.of(inode).iter().map(|owner| owner.pid).collect();
            pids.dedup();
            if !pids.is_empty() {
                owners.insert(inode, pids.iter().map(|&pid| self.owner(pid)).collect());
                // Those that were known stay: that they have exited is then noticed, and reported.
                let known = self.owners.remove(&inode).unwrap_or_default();
                pids.extend(known.into_iter().filter(|pid| !self.gone.contains(pid)));
                pids.sort_unstable();
                pids.dedup();
                self.owners.insert(inode, pids);
            }
        }
        owners
    }

    /// The same as events: introductions, then the owners. `sockets` are (address in the kernel, inode, ends).
    pub(super) fn owner_events(
        &mut self,
        sockets: &[(u64, u64, event::Endpoints)],
        confidence: OwnerConfidence,
    ) -> Vec<Kind> {
        let inodes = sockets.iter().map(|(_, inode, _)| *inode).filter(|inode| *inode != 0).collect();
        let mut owners = self.find_owners(&inodes);
        let mut events = Vec::new();
        for &(sk, inode, endpoints) in sockets {
            let Some(owners) = owners.remove(&inode) else { continue };
            events.extend(owners.iter().filter_map(|owner| self.introduce(owner.pid)));
            events.push(Kind::SocketOwner(Box::new(SocketOwner {
                sk,
                inode,
                endpoints,
                owners,
                confidence,
                port_by_number: false,
            })));
        }
        events
    }

    /// Who has sockets that were there before the tracer, as the kernel listed them: introductions, then the owners.
    pub(super) fn bootstrap(&mut self, sockets: Vec<OpenSocket>) -> Vec<Kind> {
        let mut by_inode: BTreeMap<u64, (OpenSocket, Vec<u32>)> = BTreeMap::new();
        for socket in sockets {
            let pid = socket.pid;
            let (_, pids) = by_inode.entry(socket.inode).or_insert_with(|| (socket, Vec::new()));
            if !pids.contains(&pid) {
                pids.push(pid);
            }
        }
        let mut events = Vec::new();
        for (inode, (socket, pids)) in by_inode {
            events.extend(pids.iter().filter_map(|&pid| self.introduce(pid)));
            events.push(Kind::SocketOwner(Box::new(SocketOwner {
                // The socket that a program sees of an MPTCP listener is not the one that TCP listens on.
                sk: if socket.mptcp { 0 } else { socket.sk },
                inode,
                endpoints: socket.endpoints,
                owners: pids.iter().map(|&pid| self.owner(pid)).collect(),
                confidence: OwnerConfidence::Bootstrapped,
                port_by_number: socket.port_by_number && socket.state == event::SocketState::Listen,
            })));
            self.owners.insert(inode, pids);
        }
        events
    }

    /// How many files the host has open, and how many it may (`fs.file-max`).
    pub(super) fn files_of_host(&self) -> Option<(u64, u64)> {
        let text = std::fs::read_to_string(self.procfs.root().join("sys/fs/file-nr")).ok()?;
        let mut numbers = text.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
        let (open, _free, limit) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some((open, limit))
    }

    /// Whether `pid` is there now.
    pub(super) fn exists(&self, pid: u32) -> bool {
        self.procfs.process(pid).is_ok()
    }

    /// Whether the owners of the socket of `inode` are worth another look: it was handed on since, or its workers began.
    pub(super) fn is_stale(&self, inode: u64) -> bool {
        /// Seconds for which owners that were found stay good, while one of them lives.
        const GOOD: u64 = 10;
        if inode == 0 || self.looked_for.contains(&inode) {
            return false;
        }
        let looked = self.looked_at.get(&inode);
        let alive = || self.owners_of(inode).iter().any(|pid| self.exists(*pid));
        looked.is_none_or(|looked| self.seconds.saturating_sub(*looked) >= GOOD || !alive())
    }

    /// What the threads of `pid` are doing, and how it watches the listener with this inode. A process that has exited is
    /// reported once, as one without threads.
    ///
    /// `accepting` are its threads that were seen accepting from that listener.
    pub(super) fn state(&mut self, pid: u32, listener: u64, accepting: &[u32]) -> Option<Kind> {
        let Ok(state) = state::ProcessState::read(&self.procfs, pid) else {
            return self.exited(pid);
        };
        let living = || state.threads.iter().filter(|thread| thread.state != state::RunState::Dead);
        let count = |wanted: fn(&state::ThreadState) -> bool| {
            u32::try_from(living().filter(|thread| wanted(thread)).count()).unwrap_or(u32::MAX)
        };
        if living().next().is_none() {
            return self.exited(pid);
        }
        self.gone.remove(&pid);
        let is_call = |thread: &state::ThreadState, test: fn(state::Syscall) -> bool| {
            thread.state == state::RunState::Sleeping && thread.syscall.is_some_and(test)
        };
        let calls = |test: fn(state::Syscall) -> bool| {
            u32::try_from(living().filter(|thread| is_call(thread, test)).count()).unwrap_or(u32::MAX)
        };
        let asleep =
            || living().filter(|thread| thread.state == state::RunState::Sleeping).map(|t| t.syscall);
        let in_epoll = calls(state::Syscall::is_epoll);
        let acceptors = |test: &dyn Fn(&state::ThreadState) -> bool| {
            let threads = living().filter(|thread| accepting.contains(&thread.tid) && test(thread));
            u32::try_from(threads.count()).unwrap_or(u32::MAX)
        };
        Some(Kind::ProcessState(ProcessState {
            pid,
            threads: count(|_| true),
            running: count(|t| matches!(t.state, state::RunState::Running)),
            sleeping: count(|t| matches!(t.state, state::RunState::Sleeping)),
            blocked: count(|t| matches!(t.state, state::RunState::Uninterruptible)),
            stopped: count(|t| matches!(t.state, state::RunState::Stopped | state::RunState::Traced)),
            open_files: state.open_files,
            open_files_limit: state.open_files_limit,
            accepting: calls(state::Syscall::is_accept),
            in_epoll,
            in_poll: calls(state::Syscall::is_poll).saturating_sub(in_epoll),
            in_futex: calls(state::Syscall::is_futex),
            calls_known: state.threads_left_out == 0 && asleep().all(|call| call.is_some()),
            acceptors: acceptors(&|_| true),
            acceptors_in_epoll: acceptors(&|thread| is_call(thread, state::Syscall::is_epoll)),
            acceptors_waiting: acceptors(&|thread| {
                is_call(thread, state::Syscall::is_accept) || is_call(thread, state::Syscall::is_poll)
            }),
            listener,
            watches: (listener != 0).then(|| state::watch(&self.procfs, pid, listener)).flatten(),
        }))
    }

    fn exited(&mut self, pid: u32) -> Option<Kind> {
        if self.exists_at_all(pid) || !self.gone.insert(pid) {
            return None;
        }
        Some(Kind::ProcessState(ProcessState { pid, ..ProcessState::default() }))
    }

    /// Whether `pid` has a thread that lives. A process that may not be looked at counts as living.
    fn exists_at_all(&self, pid: u32) -> bool {
        let is_gone = |error: &std::io::Error| crate::host::procfs::is_gone(error);
        match state::ProcessState::read(&self.procfs, pid) {
            Ok(state) => state.threads.iter().any(|thread| thread.state != state::RunState::Dead),
            Err(error) => !is_gone(&error),
        }
    }
}

fn info(process: &Process) -> ProcessInfo {
    ProcessInfo {
        pid: process.pid,
        comm: process.comm.clone(),
        command: process.command.clone(),
        uid: process.uid,
        container: process.place(),
        netns: process.netns,
        details: process.details(),
    }
}
