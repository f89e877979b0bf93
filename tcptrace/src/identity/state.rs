//! What a process is doing right now: why it may not be accepting connections.

use std::io;
use std::os::unix::ffi::OsStrExt as _;

use super::process::Stat;
use crate::event::Watch;
use crate::host::procfs::{ProcessDir, Procfs, is_gone};

/// Threads that are looked at, at most: reading 10,000 of them would take as long as the stall it explains.
pub const THREADS_LIMIT: usize = 256;

/// What a thread is doing, from its state letter in `/proc/PID/task/TID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunState {
    /// R: on a CPU or waiting for one.
    Running,
    /// S: waiting, for a connection for example.
    Sleeping,
    /// D: waiting uninterruptibly, as a rule for a disk or a network file system.
    Uninterruptible,
    /// T: stopped by a signal.
    Stopped,
    /// t: stopped by a debugger.
    Traced,
    /// Z, X: exited.
    Dead,
    /// Another letter (I idle, P parked…).
    Other(char),
}

impl RunState {
    /// From proc(5)'s letter.
    pub fn from_letter(letter: char) -> Self {
        match letter {
            'R' => Self::Running,
            'S' => Self::Sleeping,
            'D' => Self::Uninterruptible,
            'T' => Self::Stopped,
            't' => Self::Traced,
            'Z' | 'X' | 'x' => Self::Dead,
            other => Self::Other(other),
        }
    }
}

/// The system call that a thread is blocked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syscall {
    /// Its number on this architecture.
    pub number: i64,
    /// Its first argument; for accept() and its like, the file descriptor.
    pub first_argument: u64,
}

impl Syscall {
    /// Whether it is `accept` or `accept4` (of this architecture's native ABI).
    pub fn is_accept(self) -> bool {
        [libc::SYS_accept, libc::SYS_accept4].contains(&self.number)
    }

    /// Whether it waits for events of an epoll instance.
    pub fn is_epoll(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let older = [libc::SYS_epoll_wait];
        #[cfg(not(target_arch = "x86_64"))]
        let older: [i64; 0] = [];
        [libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2].contains(&self.number) || older.contains(&self.number)
    }

    /// Whether it waits for another thread (a lock, a condition, work from a queue).
    pub fn is_futex(self) -> bool {
        self.number == libc::SYS_futex
    }

    /// Whether it waits for events of many descriptors, as an event loop at rest does.
    pub fn is_poll(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let older = [libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_wait];
        #[cfg(not(target_arch = "x86_64"))]
        let older: [i64; 0] = [];
        let newer = [
            libc::SYS_ppoll,
            libc::SYS_pselect6,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_io_uring_enter,
        ];
        newer.contains(&self.number) || older.contains(&self.number)
    }
}

/// One thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadState {
    /// Thread id.
    pub tid: u32,
    /// Thread name.
    pub comm: String,
    /// What it is doing.
    pub state: RunState,
    /// Kernel function that it sleeps in. `None` when it runs, and without ptrace rights.
    pub wchan: Option<String>,
    /// System call that it is blocked in. `None` when it runs, and without ptrace rights.
    pub syscall: Option<Syscall>,
}

/// A process's threads and file descriptors at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessState {
    /// The threads looked at, at most [`THREADS_LIMIT`].
    pub threads: Vec<ThreadState>,
    /// Threads that were not looked at, because there are too many.
    pub threads_left_out: usize,
    /// Open file descriptors. `None` without ptrace rights.
    pub open_files: Option<u64>,
    /// Soft RLIMIT_NOFILE: accept() fails with EMFILE at it. `None` if unlimited or unreadable.
    pub open_files_limit: Option<u64>,
}

impl ProcessState {
    /// Takes the snapshot. Threads that exit meanwhile are left out.
    ///
    /// # Errors
    /// When the process is gone ([`is_gone`]) or its threads may not be listed.
    pub fn read(procfs: &Procfs, pid: u32) -> io::Result<Self> {
        let dir = procfs.process(pid)?;
        let tids = dir.directory("task")?.entries()?;
        let mut threads = Vec::with_capacity(tids.len().min(THREADS_LIMIT));
        for tid in tids.iter().take(THREADS_LIMIT) {
            match thread(&dir, *tid) {
                Ok(Some(thread)) => threads.push(thread),
                Ok(None) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let limit = dir.read("limits", 16 * 1024).ok().and_then(|limits| soft_nofile(&limits));
        Ok(Self {
            threads,
            threads_left_out: tids.len().saturating_sub(THREADS_LIMIT),
            open_files: open_files(&dir, limit),
            open_files_limit: limit,
        })
    }

    /// Whether the process is stopped: all of its living threads are, by a signal or a debugger.
    pub fn is_stopped(&self) -> bool {
        let mut living = self.threads.iter().filter(|thread| thread.state != RunState::Dead).peekable();
        living.peek().is_some()
            && living.all(|thread| matches!(thread.state, RunState::Stopped | RunState::Traced))
    }

    /// Whether one of its threads is stopped by a tracer, which may be for a moment (strace, at each system call).
    pub fn is_traced(&self) -> bool {
        self.threads.iter().any(|thread| thread.state == RunState::Traced)
    }

    /// Threads in uninterruptible sleep.
    pub fn uninterruptible(&self) -> impl Iterator<Item = &ThreadState> {
        self.threads.iter().filter(|thread| thread.state == RunState::Uninterruptible)
    }

    /// How many threads are running or waiting for a CPU.
    pub fn running(&self) -> usize {
        self.threads.iter().filter(|thread| thread.state == RunState::Running).count()
    }

    /// Whether the process can open no further file, so that accept() fails with EMFILE.
    pub fn is_at_file_limit(&self) -> Option<bool> {
        // The kernel compares the lowest free descriptor with the limit.
        Some(self.open_files? >= self.open_files_limit?)
    }
}

/// How the epoll instances of a process watch the socket with this inode; `None` where that may not be read, or the process has
/// too many descriptors to look through.
pub fn watch(procfs: &Procfs, pid: u32, inode: u64) -> Option<Watch> {
    /// Event loops are made early: their descriptors are low ones.
    const DESCRIPTORS: usize = 4096;
    let process = procfs.process(pid).ok()?;
    let directory = process.directory("fd").ok()?;
    let descriptors = directory.entries().ok()?;
    let all = descriptors.len() <= DESCRIPTORS;
    let mut found = Watch::NoEpoll;
    for fd in descriptors.into_iter().take(DESCRIPTORS) {
        let Ok(link) = directory.read_link(fd) else { continue };
        if link.as_bytes() != b"anon_inode:[eventpoll]" {
            continue;
        }
        match watch_of_instance(&process.read(format!("fdinfo/{fd}"), 4 << 20).ok()?, inode) {
            // What is said again and again outweighs what is said once.
            Watch::Level => return Some(Watch::Level),
            Watch::Edge => found = Watch::Edge,
            _ if found == Watch::NoEpoll => found = Watch::No,
            _ => {}
        }
    }
    all.then_some(found)
}

/// Lines such as `tfd:        5 events:       19 data: 5  pos:0 ino:3f7a sdev:8`, numbers after `events` in hexadecimal.
fn watch_of_instance(text: &[u8], inode: u64) -> Watch {
    const EPOLLIN: u32 = 0x1;
    const EPOLLRDNORM: u32 = 0x40;
    const EPOLLET: u32 = 1 << 31;
    let Ok(text) = std::str::from_utf8(text) else { return Watch::No };
    let mut watch = Watch::No;
    for line in text.lines().filter(|line| line.starts_with("tfd:")) {
        let after = |name: &str| line.split_once(name)?.1.split_ascii_whitespace().next();
        let number = |name: &str| u64::from_str_radix(after(name)?, 16).ok();
        if number("ino:") != Some(inode) {
            continue;
        }
        let events = number("events:").and_then(|events| u32::try_from(events).ok()).unwrap_or_default();
        if events & (EPOLLIN | EPOLLRDNORM) == 0 {
            continue;
        }
        if events & EPOLLET == 0 {
            return Watch::Level;
        }
        watch = Watch::Edge;
    }
    watch
}

fn thread(process: &ProcessDir, tid: u32) -> io::Result<Option<ThreadState>> {
    let Some(stat) = Stat::parse(&process.read(format!("task/{tid}/stat"), 4096)?) else { return Ok(None) };
    let wchan = process.read(format!("task/{tid}/wchan"), 256).ok();
    let syscall = process.read(format!("task/{tid}/syscall"), 256).ok();
    Ok(Some(ThreadState {
        tid,
        comm: stat.comm,
        state: RunState::from_letter(stat.state),
        // "0" stands for none.
        wchan: wchan
            .map(|name| String::from_utf8_lossy(&name).trim().to_owned())
            .filter(|name| !name.is_empty() && name != "0"),
        syscall: syscall.and_then(|text| blocked_in(&text)),
    }))
}

/// `/proc/PID/task/TID/syscall`: `running`, `-1 SP PC` (blocked outside a system call), or
/// `NUMBER ARG1 … ARG6 SP PC`, arguments in hexadecimal.
fn blocked_in(text: &[u8]) -> Option<Syscall> {
    let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
    let first_argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    Some(Syscall { number, first_argument })
}

/// How many files are open. At the limit only those count whose descriptors are below it: a limit that was lowered later leaves
/// higher ones open, and lower ones may be free.
fn open_files(dir: &ProcessDir, limit: Option<u64>) -> Option<u64> {
    let count = count_of_files(dir)?;
    let Some(limit) = limit.filter(|limit| count >= *limit) else { return Some(count) };
    let below = |number: &&u32| u64::from(**number) < limit;
    u64::try_from(dir.directory("fd").ok()?.entries().ok()?.iter().filter(below).count()).ok()
}

fn count_of_files(dir: &ProcessDir) -> Option<u64> {
    // Kernels from 6.2 give the count as the directory's size; 0 before.
    let size = dir.stat("fd").ok().and_then(|stat| u64::try_from(stat.st_size).ok());
    let entries = dir.directory("fd").ok()?;
    match size {
        Some(count) if count > 0 => Some(count),
        _ => u64::try_from(entries.entries().ok()?.len()).ok(),
    }
}

/// The soft value of `Max open files            1024                 524288               files`.
fn soft_nofile(limits: &[u8]) -> Option<u64> {
    let line = limits.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Max open files"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{KillOnDrop, wait_for};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    #[test]
    fn an_instance_watches_by_inode_and_events() {
        let text = b"pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1\n\
            tfd:        4 events:       19 data:                4  pos:0 ino:3f7a sdev:8\n\
            tfd:        5 events:        0 data:                5  pos:0 ino:3f7b sdev:8\n\
            tfd:        6 events: 80002019 data:                6  pos:0 ino:3f7c sdev:8\n";
        assert_eq!(watch_of_instance(text, 0x3f7a), Watch::Level);
        assert_eq!(watch_of_instance(text, 0x3f7b), Watch::No);
        assert_eq!(watch_of_instance(text, 0x3f7c), Watch::Edge);
        assert_eq!(watch_of_instance(text, 0x1), Watch::No);
        assert_eq!(watch_of_instance(b"\xff", 1), Watch::No);
    }

    #[test]
    fn a_listener_is_watched_until_it_is_taken_out_of_the_loop() {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
        use std::os::fd::AsRawFd as _;
        let (procfs, me) = (Procfs::default(), std::process::id());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = nix::sys::stat::fstat(&listener).unwrap().st_ino;
        let watched = || watch(&procfs, me, inode).unwrap();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        assert_eq!(watched(), Watch::No);
        let data = u64::try_from(listener.as_raw_fd()).unwrap();
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, data)).unwrap();
        assert_eq!(watched(), Watch::Level);
        epoll.delete(&listener).unwrap();
        assert_eq!(watched(), Watch::No);
    }

    fn read(pid: u32) -> ProcessState {
        ProcessState::read(&Procfs::default(), pid).unwrap()
    }

    #[test]
    fn a_sleeping_then_stopped_process() {
        let child = KillOnDrop(Command::new("sleep").arg("60").spawn().unwrap());
        let pid = child.0.id();
        assert!(wait_for(|| read(pid).threads[0].state == RunState::Sleeping));
        let state = read(pid);
        assert_eq!(state.threads.len(), 1);
        assert!(!state.is_stopped());
        assert!(state.open_files.is_some() && state.is_at_file_limit() == Some(false));
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).unwrap();
        assert!(wait_for(|| read(pid).is_stopped()));
    }

    #[test]
    fn a_thread_blocked_in_accept_is_seen_to_be() {
        // In a namespace of its own if possible; a socket that never listens cannot block in accept.
        let Some(netns) = crate::host::testing::private_netns() else { return };
        let listener =
            crate::host::netns::in_netns(&netns, || std::net::TcpListener::bind("127.0.0.1:0").unwrap())
                .unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = std::thread::Builder::new().name("acceptor".to_owned());
        let acceptor = acceptor.spawn(move || listener.accept().map(drop)).unwrap();
        let seen = wait_for(|| {
            let state = read(std::process::id());
            let accepting = state.threads.iter().find(|thread| thread.comm == "acceptor");
            // Without ptrace rights or CONFIG_HAVE_ARCH_TRACEHOOK there is nothing to see.
            accepting.is_some_and(|thread| thread.syscall.is_some_and(Syscall::is_accept))
        });
        crate::host::netns::in_netns(&netns, || std::net::TcpStream::connect(address).map(drop))
            .unwrap()
            .unwrap();
        acceptor.join().unwrap().unwrap();
        assert!(seen);
    }

    #[test]
    fn a_process_at_its_file_limit() {
        let script = "ulimit -n 20; for i in {3..19}; do eval \"exec $i</dev/null\"; done; read";
        let bash = Command::new("bash").args(["-c", script]).stdin(Stdio::piped()).spawn();
        let Ok(child) = bash.map(KillOnDrop) else {
            println!("skipped: no bash");
            return;
        };
        assert!(wait_for(|| read(child.0.id()).is_at_file_limit() == Some(true)), "{:?}", read(child.0.id()));
        assert_eq!(read(child.0.id()).open_files_limit, Some(20));
    }

    #[test]
    fn syscall_texts() {
        let accept = format!("{} 0x3 0x0 0x0 0x80000 0x0 0x0 0x7ffc 0x7f12", libc::SYS_accept4);
        let parsed = blocked_in(accept.as_bytes()).unwrap();
        assert!(parsed.is_accept() && !parsed.is_poll() && parsed.first_argument == 3);
        for text in ["running\n", "-1 0x7ffd 0x7f34\n", "", "0", "x"] {
            assert_eq!(blocked_in(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn limits_texts() {
        let text = b"Limit Soft Limit Hard Limit Units\nMax open files            1024                 524288    files\n";
        assert_eq!(soft_nofile(text), Some(1024));
        assert_eq!(soft_nofile(b"Max open files   unlimited unlimited files\n"), None);
        assert_eq!(soft_nofile(b""), None);
    }

    proptest! {
        #[test]
        fn parsers_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (blocked_in(&bytes), soft_nofile(&bytes));
        }
    }
}
