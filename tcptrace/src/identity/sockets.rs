//! Which processes have a socket open: socket inode → (process, file descriptor), from `/proc/PID/fd`.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::io;
use std::os::unix::ffi::OsStrExt;

use crate::host::procfs::{Procfs, is_gone, link_inode};

/// A process's file descriptor for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// File descriptor number.
    pub fd: u32,
}

/// Who owns which sockets, from one pass over all processes.
///
/// Not found that way: sockets that only a thread with a file table of its own has, that are in flight in a UNIX socket
/// message, registered with io_uring and closed, or held by the kernel itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketOwners {
    /// The socket of each owner: by inode, then by owner. There may be a million, so each costs no allocation of its own.
    inodes: Vec<u64>,
    owners: Vec<Owner>,
    /// Processes whose descriptors were read.
    pub processes: u32,
    /// Processes whose descriptors may not be read (not root): a socket without an owner here may be one of theirs.
    pub unreadable: u32,
}

impl SocketOwners {
    /// Looks for the owners of the sockets with these inodes.
    ///
    /// # Errors
    /// When the processes cannot be listed at all. Processes that exit meanwhile are passed over.
    pub fn find(procfs: &Procfs, inodes: &HashSet<u64, impl BuildHasher>) -> io::Result<Self> {
        if inodes.is_empty() {
            return Ok(Self::default());
        }
        Self::scan(procfs, |inode| inodes.contains(&inode))
    }

    /// Looks for the owners of all sockets, of every protocol.
    ///
    /// # Errors
    /// As [`SocketOwners::find`].
    pub fn all(procfs: &Procfs) -> io::Result<Self> {
        Self::scan(procfs, |_| true)
    }

    /// The owners of a socket, by ascending pid and descriptor: several for a socket that was inherited over fork() or
    /// passed on, or duplicated.
    pub fn of(&self, inode: u64) -> &[Owner] {
        let from = self.inodes.partition_point(|known| *known < inode);
        let count = self.inodes.iter().skip(from).take_while(|known| **known == inode).count();
        self.owners.get(from..from + count).unwrap_or_default()
    }

    /// From a list of all sockets that are open, each with an owner.
    pub fn listed(open: impl IntoIterator<Item = (u64, Owner)>) -> Self {
        let mut open: Vec<(u64, Owner)> = open.into_iter().collect();
        open.sort_unstable();
        let (inodes, owners) = open.into_iter().unzip();
        Self { inodes, owners, ..Self::default() }
    }

    /// How many sockets were found.
    pub fn len(&self) -> usize {
        self.inodes.chunk_by(|one, other| one == other).count()
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    fn scan(procfs: &Procfs, wanted: impl Fn(u64) -> bool) -> io::Result<Self> {
        let (mut open, mut processes, mut unreadable) = (Vec::new(), 0, 0);
        for pid in procfs.pids()? {
            match scan_process(procfs, pid, &wanted, &mut open) {
                Ok(()) => processes += 1,
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    log::debug!("process {pid}: cannot read its file descriptors: {error}");
                    unreadable += 1;
                }
            }
        }
        Ok(Self { processes, unreadable, ..Self::listed(open) })
    }
}

fn scan_process(
    procfs: &Procfs,
    pid: u32,
    wanted: impl Fn(u64) -> bool,
    open: &mut Vec<(u64, Owner)>,
) -> io::Result<()> {
    let directory = procfs.process(pid)?.directory("fd")?;
    for fd in directory.entries()? {
        // A descriptor closed since the listing is no failure.
        let Ok(link) = directory.read_link(fd) else { continue };
        if let Some(inode) = link_inode(link.as_bytes(), "socket")
            && wanted(inode)
        {
            open.push((inode, Owner { pid, fd }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    fn inode(socket: &impl AsRawFd) -> u64 {
        std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino()
    }

    #[test]
    fn finds_this_process_s_sockets_and_duplicates() {
        let socket = UnixDatagram::unbound().unwrap();
        let twin = socket.try_clone().unwrap();
        let owners = SocketOwners::find(&Procfs::default(), &HashSet::from([inode(&socket)])).unwrap();
        let pid = std::process::id();
        let mut fds = [socket.as_raw_fd(), twin.as_raw_fd()].map(i32::cast_unsigned);
        fds.sort_unstable();
        assert_eq!(owners.of(inode(&socket)), fds.map(|fd| Owner { pid, fd }));
        assert_eq!(owners.len(), 1);
        assert!(owners.processes > 0);
    }

    #[test]
    fn a_socket_inherited_by_a_child_has_two_owners() {
        let socket = UnixDatagram::unbound().unwrap();
        // As the child's stdin the descriptor survives exec.
        let child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()))
            .spawn()
            .map(crate::host::testing::KillOnDrop)
            .unwrap();
        let owners = SocketOwners::all(&Procfs::default()).unwrap();
        let pids: HashSet<u32> = owners.of(inode(&socket)).iter().map(|owner| owner.pid).collect();
        assert_eq!(pids, HashSet::from([std::process::id(), child.0.id()]));
        assert!(owners.of(inode(&socket)).contains(&Owner { pid: child.0.id(), fd: 0 }));
    }

    fn process(root: &Path, pid: u32, links: &[(&str, &str)]) {
        let fds = root.join(pid.to_string()).join("fd");
        std::fs::create_dir_all(&fds).unwrap();
        for (fd, target) in links {
            symlink(target, fds.join(fd)).unwrap();
        }
    }

    #[test]
    fn a_tree_with_shared_sockets_odd_links_and_a_vanished_process() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 12, &[("0", "/dev/null"), ("3", "socket:[77]"), ("4", "socket:[78]")]);
        process(
            root.path(),
            7,
            &[("9", "socket:[77]"), ("10", "anon_inode:[eventpoll]"), ("11", "socket:[]")],
        );
        std::fs::create_dir(root.path().join("99")).unwrap(); // no fd directory: gone
        std::fs::create_dir(root.path().join("self")).unwrap();
        let owners = SocketOwners::all(&Procfs::at(root.path())).unwrap();
        assert_eq!(owners.of(77), [Owner { pid: 7, fd: 9 }, Owner { pid: 12, fd: 3 }]);
        assert_eq!(owners.of(78), [Owner { pid: 12, fd: 4 }]);
        assert_eq!(owners.of(79), []);
        assert_eq!((owners.processes, owners.unreadable), (2, 0));
        let one = SocketOwners::find(&Procfs::at(root.path()), &HashSet::from([78])).unwrap();
        assert_eq!(one.len(), 1);
    }

    #[test]
    fn a_missing_procfs_is_an_error() {
        assert!(SocketOwners::all(&Procfs::at("/nonexistent")).is_err());
    }
}
