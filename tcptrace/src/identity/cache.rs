//! Identities that outlive their processes: who pid 6039 was, after it has exited.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::process::{Process, ProcessError};
use crate::host::procfs::Procfs;

/// A bounded cache of processes, keyed by pid and start time, so that a recycled pid never answers for an earlier one.
/// When full, the identity that was asked for longest ago makes room.
#[derive(Debug)]
pub struct IdentityCache {
    procfs: Procfs,
    capacity: usize,
    entries: HashMap<(u32, u64), Entry>,
    /// The latest known start time of each pid.
    latest: HashMap<u32, u64>,
    /// Order of use: clock → key.
    by_use: BTreeMap<u64, (u32, u64)>,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    process: Arc<Process>,
    used: u64,
}

impl IdentityCache {
    /// An empty cache for at most `capacity` processes (at least one).
    pub fn new(procfs: Procfs, capacity: usize) -> Self {
        Self {
            procfs,
            capacity: capacity.max(1),
            entries: HashMap::new(),
            latest: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
        }
    }

    /// The process that has `pid` now: from the cache if it is the same process under the same name (one small read
    /// of procfs), read anew after an exec or when the pid was recycled.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] when there is none; [`IdentityCache::last_known`] may still know it.
    pub fn current(&mut self, pid: u32) -> Result<Arc<Process>, ProcessError> {
        let now = Process::probe(&self.procfs, pid)?;
        let known = self.at(pid, now.start_time);
        // In the middle of an exec the name is there and the command line is not yet.
        if let Some(known) = &known
            && known.comm == now.comm
            && (known.command.is_some() || now.state == 'Z')
        {
            return Ok(Arc::clone(known));
        }
        let mut process = Process::read(&self.procfs, pid)?;
        if let Some(known) = known.filter(|known| known.start_time == process.start_time) {
            keep_what_exit_took(&mut process, &known);
        }
        let process = Arc::new(process);
        self.insert(Arc::clone(&process));
        Ok(process)
    }

    /// The process that has `pid` now, or else the one that had it last, as far as known. Whether it is alive is not
    /// said. For events whose process may have exited before user space read them.
    pub fn current_or_last(&mut self, pid: u32) -> Option<Arc<Process>> {
        self.current(pid).ok().or_else(|| self.last_known(pid))
    }

    /// The last process known to have had `pid`, from the cache alone: nothing is read.
    pub fn last_known(&mut self, pid: u32) -> Option<Arc<Process>> {
        let start_time = *self.latest.get(&pid)?;
        self.at(pid, start_time)
    }

    /// The process with this pid and start time, from the cache alone.
    pub fn at(&mut self, pid: u32, start_time: u64) -> Option<Arc<Process>> {
        let clock = self.tick();
        let entry = self.entries.get_mut(&(pid, start_time))?;
        self.by_use.remove(&entry.used);
        entry.used = clock;
        self.by_use.insert(clock, (pid, start_time));
        Some(Arc::clone(&entry.process))
    }

    /// Adds what is known from elsewhere, a recording for example; replaces an older description of the same process.
    pub fn insert(&mut self, process: Arc<Process>) {
        let key = (process.pid, process.start_time);
        let used = self.tick();
        let latest = self.latest.entry(key.0).or_insert(key.1);
        *latest = key.1.max(*latest);
        if let Some(before) = self.entries.insert(key, Entry { process, used }) {
            self.by_use.remove(&before.used);
        }
        self.by_use.insert(used, key);
        while self.entries.len() > self.capacity {
            self.forget_oldest();
        }
    }

    /// How many processes are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.by_use.pop_first() else { return };
        self.entries.remove(&key);
        if self.latest.get(&key.0) == Some(&key.1) {
            self.latest.remove(&key.0);
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// A zombie has no namespaces, and its control group may be gone.
fn keep_what_exit_took(process: &mut Process, known: &Process) {
    process.netns = process.netns.or(known.netns);
    process.uid = process.uid.or(known.uid);
    if process.cgroup.is_none() {
        process.cgroup.clone_from(&known.cgroup);
        process.container.clone_from(&known.container);
        process.unit.clone_from(&known.unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn write_process(root: &Path, pid: u32, comm: &str, start: u64) {
        let directory = root.join(pid.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0");
        std::fs::write(directory.join("stat"), stat).unwrap();
    }

    fn cache(root: &Path, capacity: usize) -> IdentityCache {
        IdentityCache::new(Procfs::at(root), capacity)
    }

    #[test]
    fn an_identity_survives_the_exit() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = cache(root.path(), 10);
        write_process(root.path(), 42, "server", 100);
        assert_eq!(cache.current(42).unwrap().comm, "server");
        std::fs::remove_dir_all(root.path().join("42")).unwrap();
        assert!(matches!(cache.current(42), Err(ProcessError::Gone { pid: 42 })));
        assert_eq!(cache.current_or_last(42).unwrap().comm, "server");
        assert_eq!(cache.last_known(42).unwrap().start_time, 100);
        assert!(cache.last_known(43).is_none());
    }

    #[test]
    fn a_recycled_pid_is_another_process() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = cache(root.path(), 10);
        write_process(root.path(), 42, "server", 100);
        cache.current(42).unwrap();
        write_process(root.path(), 42, "server", 200);
        assert_eq!(cache.current(42).unwrap().start_time, 200);
        assert_eq!(cache.at(42, 100).unwrap().start_time, 100);
        assert_eq!(cache.last_known(42).unwrap().start_time, 200);
        assert!(cache.at(42, 150).is_none());
    }

    #[test]
    fn an_exec_renews_the_description() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = cache(root.path(), 10);
        write_process(root.path(), 42, "sh", 100);
        let first = cache.current(42).unwrap();
        assert_eq!(first.command, None);
        std::fs::write(root.path().join("42/cmdline"), "sh\0-c\0true\0").unwrap();
        let complete = cache.current(42).unwrap();
        assert_eq!(complete.command.as_deref(), Some("sh -c true"));
        assert!(Arc::ptr_eq(&complete, &cache.current(42).unwrap()));
        write_process(root.path(), 42, "server", 100);
        assert_eq!(cache.current(42).unwrap().comm, "server");
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = cache(root.path(), 3);
        for pid in 1..=3 {
            write_process(root.path(), pid, "p", 10);
            cache.current(pid).unwrap();
        }
        cache.last_known(1).unwrap();
        write_process(root.path(), 4, "p", 10);
        cache.current(4).unwrap();
        assert_eq!(cache.len(), 3);
        assert!(cache.last_known(2).is_none());
        assert!([1, 3, 4].iter().all(|pid| cache.last_known(*pid).is_some()));
    }

    #[test]
    fn it_stays_bounded_whatever_comes() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = cache(root.path(), 8);
        for round in 0..200u32 {
            write_process(root.path(), 1 + round % 5, "p", u64::from(round));
            cache.current(1 + round % 5).unwrap();
        }
        assert_eq!(cache.len(), 8);
        assert_eq!(cache.by_use.len(), 8);
        assert!(cache.latest.len() <= 8);
    }
}
