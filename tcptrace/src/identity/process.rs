//! One process, as `/proc/PID` describes it at one moment.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::cgroup::{self, Container};
use super::pods;
use crate::event::ProcessDetails;
use crate::host::procfs::{ProcessDir, Procfs, is_gone, link_inode};

/// Longest command line that is kept; longer ones are cut.
pub const COMMAND_LIMIT: u64 = 8 * 1024;

/// A process (a thread group). Strings are as the process chose them, decoded lossily: any character may be in them, and
/// making them fit to print is the output's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id in the pid namespace of the procfs read.
    pub pid: u32,
    /// Parent's process id; 0 if the parent is outside the pid namespace.
    pub ppid: u32,
    /// Command name, at most 15 bytes for user processes.
    pub comm: String,
    /// Arguments joined by blanks, cut at [`COMMAND_LIMIT`]. `None` for kernel threads and zombies.
    pub command: Option<String>,
    /// Path of the executable, ` (deleted)` behind it if it is gone from disk. `None` for kernel threads, and without
    /// ptrace rights.
    pub exe: Option<String>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Control group path that says most about the process; `/` at the root.
    pub cgroup: Option<String>,
    /// Container the process runs in, if any.
    pub container: Option<Container>,
    /// Innermost systemd service or scope, if any: inside a container that runs systemd, the unit inside.
    pub unit: Option<String>,
    /// Network namespace id. `None` for zombies, and without ptrace rights.
    pub netns: Option<u32>,
    /// Start, in clock ticks since boot ([`Process::started`]). A recycled pid has another one.
    pub start_time: u64,
    /// Number of threads.
    pub threads: u32,
}

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It does not exist (any more).
    #[error("process {pid} does not exist (any more)")]
    Gone {
        /// The process id.
        pid: u32,
    },
    /// It may not be looked at.
    #[error("cannot read process {pid} in {}: {source}; procfs may be mounted with hidepid (run with sudo)", root.display())]
    Unreadable {
        /// The process id.
        pid: u32,
        /// The procfs root.
        root: std::path::PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// `/proc/PID/stat` is not what proc(5) says.
    #[error("cannot understand {}/{pid}/stat; is procfs mounted there?", root.display())]
    Malformed {
        /// The process id.
        pid: u32,
        /// The procfs root.
        root: std::path::PathBuf,
    },
}

impl Process {
    /// Where it runs, in one name: its container or pod, or else its systemd unit.
    pub fn place(&self) -> Option<String> {
        self.container.as_ref().map(ToString::to_string).or_else(|| self.unit.clone())
    }

    /// What else is known of it, as lines of output have it.
    pub fn details(&self) -> ProcessDetails {
        ProcessDetails {
            exe: self.exe.clone(),
            pod: self.container.as_ref().and_then(|container| container.pod.clone()),
            namespace: self.container.as_ref().and_then(|container| container.namespace.clone()),
            unit: self.unit.clone(),
        }
    }

    /// Reads a process. What may not be read is `None`; what is read is all of one process, even if the pid is
    /// recycled in the middle.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] when there is no such process, or it exits before its `stat` is read.
    pub fn read(procfs: &Procfs, pid: u32) -> Result<Self, ProcessError> {
        let (dir, stat) = open_with_stat(procfs, pid)?;
        let placement = dir.read("cgroup", 64 * 1024).ok().map(|text| cgroup::of_process(&text));
        let (cgroup, mut container, unit) = placement.map_or((None, None, None), |placement| {
            (Some(placement.path), placement.container, placement.unit)
        });
        if let Some(container) = &mut container {
            container.namespace = container.pod.as_deref().and_then(|uid| pods::namespace_of(procfs, uid));
        }
        Ok(Self {
            pid,
            ppid: stat.ppid,
            comm: stat.comm,
            command: command(&dir),
            exe: dir.read_link("exe").ok().map(|path| path.to_string_lossy().into_owned()),
            uid: dir.read("status", 4096).ok().and_then(|status| real_uid(&status)),
            cgroup,
            container,
            unit,
            netns: dir
                .read_link("ns/net")
                .ok()
                .and_then(|link| u32::try_from(link_inode(link.as_bytes(), "net")?).ok()),
            start_time: stat.start_time,
            threads: stat.threads,
        })
    }

    /// Start time and command name of the process that has `pid` now: what it takes to tell it from an earlier one, for
    /// a fraction of what [`Process::read`] costs.
    ///
    /// # Errors
    /// As [`Process::read`].
    pub fn probe(procfs: &Procfs, pid: u32) -> Result<Stat, ProcessError> {
        open_with_stat(procfs, pid).map(|(_, stat)| stat)
    }

    /// Start of the process since boot (CLOCK_BOOTTIME), rounded down to a clock tick, 10 ms on most machines.
    pub fn started(&self) -> Duration {
        ticks_to_duration(self.start_time)
    }
}

/// Clock ticks of procfs (`USER_HZ`) as a duration.
pub fn ticks_to_duration(ticks: u64) -> Duration {
    use nix::unistd::{SysconfVar, sysconf};
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hertz| u64::try_from(hertz).ok());
    let hertz = hertz.filter(|hertz| *hertz > 0).unwrap_or(100);
    Duration::from_millis(ticks.saturating_mul(1000) / hertz)
}

/// What `/proc/PID/stat` says, as far as it is of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Command name.
    pub comm: String,
    /// State letter: R, S, D, T (stopped), t (traced), Z, X, I…
    pub state: char,
    /// Parent's process id.
    pub ppid: u32,
    /// Number of threads.
    pub threads: u32,
    /// Start in clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Reads the text of a `stat` file. The command name may contain anything, parentheses, blanks and newlines
    /// included: it ends at the last closing parenthesis.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        // Counted from the state, which is field 3 of proc(5).
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            comm,
            state: field(3)?.chars().next()?,
            ppid: field(4)?.parse().ok()?,
            threads: field(20)?.parse().ok()?,
            start_time: field(22)?.parse().ok()?,
        })
    }
}

fn open_with_stat(procfs: &Procfs, pid: u32) -> Result<(ProcessDir, Stat), ProcessError> {
    let root = || procfs.root().to_owned();
    let open = || -> io::Result<(ProcessDir, Vec<u8>)> {
        let dir = procfs.process(pid)?;
        let text = dir.read("stat", 4096)?;
        Ok((dir, text))
    };
    match open() {
        Ok((dir, text)) => Stat::parse(&text)
            .map(|stat| (dir, stat))
            .ok_or_else(|| ProcessError::Malformed { pid, root: root() }),
        Err(error) if is_gone(&error) => Err(ProcessError::Gone { pid }),
        Err(source) => Err(ProcessError::Unreadable { pid, root: root(), source }),
    }
}

fn command(dir: &ProcessDir) -> Option<String> {
    let arguments = dir.read("cmdline", COMMAND_LIMIT).ok()?;
    // Programs that rewrite their command line (setproctitle) pad it with NULs.
    let end = arguments.iter().rposition(|byte| *byte != 0)?;
    let arguments = arguments.get(..=end)?.split(|byte| *byte == 0);
    let arguments: Vec<_> = arguments.map(String::from_utf8_lossy).collect();
    Some(arguments.join(" "))
}

fn real_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns::current_id;
    use crate::host::testing::{KillOnDrop, wait_for};
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    const STAT: &str = "4242 (a) b (c)) S 17 4242 4242 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 12 0 987654 1 2 3";

    #[test]
    fn reads_this_very_process() {
        let me = Process::read(&Procfs::default(), std::process::id()).unwrap();
        assert_eq!(me.uid, Some(nix::unistd::getuid().as_raw()));
        assert_eq!(me.netns, Some(current_id().unwrap()));
        assert_eq!(me.ppid, nix::unistd::getppid().as_raw().cast_unsigned());
        assert_eq!(me.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert_eq!(me.command.unwrap(), std::env::args().collect::<Vec<_>>().join(" "));
        assert!(me.threads >= 1);
        assert!(me.cgroup.unwrap().starts_with('/'));
    }

    #[test]
    fn start_times_tell_processes_apart_and_grow() {
        let me = Process::read(&Procfs::default(), std::process::id()).unwrap();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!(me.started().as_secs_f64() <= uptime + 0.02);
        assert_eq!(Process::probe(&Procfs::default(), me.pid).unwrap().start_time, me.start_time);
    }

    #[test]
    fn hostile_names_are_kept_as_data() {
        let hostile = OsString::from_vec(b"a\x1b[31m\n\xff) R 1".to_vec());
        let child = std::process::Command::new("sh")
            .args(["-c", "printf 'x) R 9 (\n' >/proc/$$/comm; read wait"])
            .arg(hostile)
            .stdin(std::process::Stdio::piped())
            .spawn();
        let child = KillOnDrop(child.unwrap());
        let pid = child.0.id();
        let read = || Process::read(&Procfs::default(), pid).unwrap();
        assert!(wait_for(|| read().comm == "x) R 9 (\n"), "{:?}", read());
        let process = read();
        assert!(process.command.unwrap().ends_with(" a\u{1b}[31m\n\u{fffd}) R 1"));
        assert_eq!(process.ppid, std::process::id());
    }

    #[test]
    fn a_process_that_is_gone_is_said_to_be_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let error = Process::read(&Procfs::default(), pid).unwrap_err();
        assert!(matches!(error, ProcessError::Gone { pid: gone } if gone == pid), "{error}");
    }

    #[test]
    fn a_zombie_still_has_a_name() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        assert!(wait_for(|| { Process::probe(&Procfs::default(), pid).is_ok_and(|stat| stat.state == 'Z') }));
        let zombie = Process::read(&Procfs::default(), pid).unwrap();
        assert_eq!((zombie.comm.as_str(), zombie.command, zombie.netns), ("true", None, None));
        child.wait().unwrap();
    }

    #[test]
    fn a_tree_with_only_stat_is_enough() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("4242")).unwrap();
        std::fs::write(root.path().join("4242/stat"), STAT).unwrap();
        let process = Process::read(&Procfs::at(root.path()), 4242).unwrap();
        assert_eq!((process.comm.as_str(), process.ppid, process.threads), ("a) b (c)", 17, 12));
        assert_eq!((process.start_time, process.uid, process.command), (987_654, None, None));
        std::fs::write(root.path().join("4242/stat"), "4242 (cut) S 1").unwrap();
        let error = Process::read(&Procfs::at(root.path()), 4242).unwrap_err();
        assert!(matches!(error, ProcessError::Malformed { .. }));
    }

    #[test]
    fn command_lines() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("1")).unwrap();
        let dir = Procfs::at(root.path()).process(1).unwrap();
        for (raw, read) in [
            (&b"nginx: worker process\0\0\0\0"[..], Some("nginx: worker process")),
            (b"a\0\0b\0", Some("a  b")),
            (b"", None),
            (b"\0\0", None),
        ] {
            std::fs::write(root.path().join("1/cmdline"), raw).unwrap();
            assert_eq!(command(&dir).as_deref(), read);
        }
    }

    proptest! {
        #[test]
        fn stat_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Stat::parse(&bytes);
            let _ = real_uid(&bytes);
        }

        #[test]
        fn stat_takes_any_name(comm in "\\PC{0,20}") {
            let text = STAT.replace("a) b (c)", &comm);
            prop_assert_eq!(Stat::parse(text.as_bytes()).unwrap().comm, comm);
        }
    }
}
