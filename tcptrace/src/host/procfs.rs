//! Reading `/proc` (or a tree that looks like it) so that a recycled pid can never mix two processes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstatat};

/// A mounted procfs. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Procfs {
    root: PathBuf,
}

impl Default for Procfs {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Procfs {
    /// The procfs mounted at `root`: another mount of the real one (`/host/proc` in a container), or a test's tree.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Ids of all processes (thread group leaders) seen in one pass, in the kernel's order (ascending).
    ///
    /// # Errors
    /// When the root cannot be listed.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let dir = Dir::open(&self.root, DIRECTORY, Mode::empty())?;
        numeric_entries(dir)
    }

    /// Opens a process's directory.
    ///
    /// # Errors
    /// `NotFound` when there is no such process; `PermissionDenied` under `hidepid=1`.
    pub fn process(&self, pid: u32) -> io::Result<ProcessDir> {
        self.process_named(&pid.to_string(), pid)
    }

    fn process_named(&self, name: &str, pid: u32) -> io::Result<ProcessDir> {
        let fd = nix::fcntl::open(&self.root.join(name), OFlag::O_PATH | DIRECTORY, Mode::empty())?;
        Ok(ProcessDir { fd, pid })
    }
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);

/// An open `/proc/PID`. It stands for that one process for ever: once the process is gone, reads through it fail with
/// `ESRCH` or `ENOENT`, even if the pid has been given to another process meanwhile.
#[derive(Debug)]
pub struct ProcessDir {
    fd: OwnedFd,
    pid: u32,
}

impl ProcessDir {
    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Reads at most `limit` bytes of the file `name` (relative to the process's directory); a longer file is cut.
    ///
    /// # Errors
    /// See [`is_gone`] for a process that has exited; `PermissionDenied` for files that need ptrace rights.
    pub fn read(&self, name: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        let fd = openat(&self.fd, name.as_ref(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(fd).take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Target of the symbolic link `name`.
    ///
    /// # Errors
    /// As [`ProcessDir::read`].
    pub fn read_link(&self, name: impl AsRef<Path>) -> io::Result<OsString> {
        Ok(readlinkat(&self.fd, name.as_ref())?)
    }

    /// Opens what `name` leads to (for example `ns/net`) for reading.
    ///
    /// # Errors
    /// As [`ProcessDir::read`].
    pub fn open(&self, name: impl AsRef<Path>) -> io::Result<OwnedFd> {
        Ok(openat(&self.fd, name.as_ref(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// Status of the file `name`, symbolic links followed.
    ///
    /// # Errors
    /// As [`ProcessDir::read`].
    pub fn stat(&self, name: impl AsRef<Path>) -> io::Result<FileStat> {
        Ok(fstatat(&self.fd, name.as_ref(), AtFlags::empty())?)
    }

    /// Opens the directory `name` (`fd`, `task`) to list its numeric entries and read in it.
    ///
    /// # Errors
    /// As [`ProcessDir::read`].
    pub fn directory(&self, name: impl AsRef<Path>) -> io::Result<NumberedDir> {
        let fd = openat(&self.fd, name.as_ref(), OFlag::O_RDONLY | DIRECTORY, Mode::empty())?;
        Ok(NumberedDir { fd })
    }
}

/// A directory whose entries are numbers: `/proc/PID/fd` or `/proc/PID/task`.
#[derive(Debug)]
pub struct NumberedDir {
    fd: OwnedFd,
}

impl NumberedDir {
    /// All entries that are numbers.
    ///
    /// # Errors
    /// When the directory cannot be read, for example because the process is gone.
    pub fn entries(&self) -> io::Result<Vec<u32>> {
        numeric_entries(Dir::from_fd(self.fd.try_clone()?)?)
    }

    /// Target of the symbolic link `number`.
    ///
    /// # Errors
    /// As [`ProcessDir::read`].
    pub fn read_link(&self, number: u32) -> io::Result<OsString> {
        Ok(readlinkat(&self.fd, number.to_string().as_str())?)
    }
}

impl AsFd for NumberedDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn numeric_entries(mut dir: Dir) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Whether a read failed because the process has exited: procfs says `ENOENT` at open and `ESRCH` on an open file.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The inode in a link such as `net:[4026531840]` or `socket:[12345]`, if the link is of that `kind`.
pub fn link_inode(link: &[u8], kind: &str) -> Option<u64> {
    let digits = link.strip_prefix(kind.as_bytes())?.strip_prefix(b":[")?.strip_suffix(b"]")?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn own_process_is_listed_and_readable() {
        let procfs = Procfs::default();
        let me = std::process::id();
        assert!(procfs.pids().unwrap().contains(&me));
        let dir = procfs.process(me).unwrap();
        assert!(dir.read("stat", 4096).unwrap().starts_with(me.to_string().as_bytes()));
        assert_eq!(dir.read("stat", 3).unwrap().len(), 3);
        assert!(!dir.directory("fd").unwrap().entries().unwrap().is_empty());
    }

    #[test]
    fn a_directory_of_an_exited_process_reads_as_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let dir = Procfs::default().process(child.id()).unwrap();
        assert!(dir.read("stat", 4096).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_gone(&dir.read("stat", 4096).unwrap_err()));
        assert!(is_gone(&Procfs::default().process(child.id()).unwrap_err()));
    }

    #[test]
    fn link_inodes() {
        assert_eq!(link_inode(b"socket:[12345]", "socket"), Some(12345));
        assert_eq!(link_inode(b"net:[4026531840]", "net"), Some(4_026_531_840));
        for other in
            ["socket:[]", "socket:[+1]", "socket:[1", "pipe:[1]", "socket:[1] (deleted)", "/dev/null", ""]
        {
            assert_eq!(link_inode(other.as_bytes(), "socket"), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn link_inode_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = link_inode(&bytes, "socket");
        }
    }
}
