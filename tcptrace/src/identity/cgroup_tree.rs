//! Control group id → path, for the ids in events and in sock_diag: they tell the container of a process that was gone
//! before anybody could read its `/proc`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::host::procfs::Procfs;

/// Removed groups that are remembered, at most.
const REMOVED_LIMIT: usize = 16 * 1024;

/// The v2 control group hierarchy. A group's id is the inode of its directory (on 64-bit kernels from 5.6), and is not
/// used again until the next boot, so that removed groups can be remembered.
#[derive(Debug)]
pub struct CgroupTree {
    mount: PathBuf,
    paths: HashMap<u64, String>,
}

impl CgroupTree {
    /// The hierarchy mounted in the caller's mount namespace, not walked yet. `None` if there is none.
    pub fn mounted(procfs: &Procfs) -> Option<Self> {
        let mountinfo = std::fs::read(procfs.root().join("self/mountinfo")).ok()?;
        cgroup2_mount(&mountinfo).map(Self::at)
    }

    /// The hierarchy below `mount`, not walked yet.
    pub fn at(mount: impl Into<PathBuf>) -> Self {
        Self { mount: mount.into(), paths: HashMap::new() }
    }

    /// Where the hierarchy is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Path of a group, as in `/proc/PID/cgroup`, if it was there at some [`CgroupTree::refresh`].
    pub fn path(&self, id: u64) -> Option<&str> {
        self.paths.get(&id).map(String::as_str)
    }

    /// Walks the hierarchy: one directory listing a group. Worth it when an id is not known, and not more often than
    /// once a second.
    ///
    /// # Errors
    /// When the root of the hierarchy cannot be read. Groups that are removed meanwhile are left out.
    pub fn refresh(&mut self) -> io::Result<()> {
        let root = std::fs::metadata(&self.mount)?.ino();
        let mut present = HashSet::from([root]);
        self.paths.insert(root, "/".to_owned());
        let mut to_read = vec![(self.mount.clone(), String::new())];
        let mut is_root = true;
        while let Some((directory, path)) = to_read.pop() {
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if is_root => return Err(error),
                Err(_) => continue,
            };
            is_root = false;
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let path = format!("{path}/{}", entry.file_name().to_string_lossy());
                present.insert(entry.ino());
                to_read.push((entry.path(), path.clone()));
                self.paths.insert(entry.ino(), path);
            }
        }
        if self.paths.len() > present.len() + REMOVED_LIMIT {
            self.paths.retain(|id, _| present.contains(id));
        }
        Ok(())
    }
}

/// Mount point of the first `cgroup2` file system whose root is the hierarchy's (a bind mount of a part would give paths
/// that are not those of `/proc/PID/cgroup`).
fn cgroup2_mount(mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        let filesystem = fields.skip_while(|field| *field != b"-").nth(1)?;
        (root == b"/" && filesystem == b"cgroup2")
            .then(|| Path::new(std::ffi::OsStr::from_bytes(mount_point)).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_inode_and_remembered() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path().join("system.slice/a.service");
        std::fs::create_dir_all(&service).unwrap();
        std::fs::write(service.join("cgroup.procs"), "").unwrap();
        let id = std::fs::metadata(&service).unwrap().ino();
        let mut tree = CgroupTree::at(root.path());
        assert_eq!(tree.path(id), None);
        tree.refresh().unwrap();
        assert_eq!(tree.path(id), Some("/system.slice/a.service"));
        assert_eq!(tree.path(std::fs::metadata(root.path()).unwrap().ino()), Some("/"));
        std::fs::remove_dir_all(&service).unwrap();
        tree.refresh().unwrap();
        assert_eq!(tree.path(id), Some("/system.slice/a.service"));
    }

    #[test]
    fn an_unreadable_root_is_an_error() {
        assert!(CgroupTree::at("/nonexistent").refresh().is_err());
    }

    #[test]
    fn this_process_s_group_is_in_the_tree() {
        let procfs = Procfs::default();
        let Some(mut tree) = CgroupTree::mounted(&procfs) else {
            println!("skipped: no cgroup2 mounted");
            return;
        };
        tree.refresh().unwrap();
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return };
        assert!(tree.paths.values().any(|known| known == path), "{path}");
    }

    #[test]
    fn the_mount_of_the_whole_hierarchy_is_taken() {
        let text = b"20 1 0:5 / /proc rw - proc proc rw\n\
            30 1 0:26 /system.slice /part rw - cgroup2 cgroup2 rw\n\
            31 1 0:26 / /sys/fs/cgroup/unified rw shared:2 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mount(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount(b""), None);
    }
}
