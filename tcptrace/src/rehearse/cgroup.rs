//! A control group of a rehearsal's own: a container as far as anybody can tell, or a unit with rules of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::host::procfs::Procfs;
use crate::identity::cgroup_tree::CgroupTree;

use super::actor::Actor;
use super::error::{During, Error, Result};

/// Whoever is in it must have ended before it is dropped: a group with processes stays.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// What was made for it; the last is the group itself.
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// A new group called `name`, below one of this process's own.
    pub(super) fn new(name: &str) -> Result<Self> {
        let tree = CgroupTree::mounted(&Procfs::default())
            .ok_or_else(|| Error::NotSupported("no cgroup2 file system is mounted here".into()))?;
        let own = tree.mount().join(format!("tcptrace-rehearsal-{}", std::process::id()));
        let mut cgroup = Self { made: Vec::new() };
        for path in [own.clone(), own.join(name)] {
            // In most containers the hierarchy is there and may not be changed.
            fs::create_dir(&path).map_err(|error| {
                Error::NotSupported(format!(
                    "no control group can be made here: {}: {error}; run on the host, or with a writable cgroup2",
                    path.display()
                ))
            })?;
            cgroup.made.push(path);
        }
        Ok(cgroup)
    }

    /// Moves an actor into it.
    pub(super) fn admit(&self, actor: &Actor) -> Result<()> {
        let pid = actor.identity().pid;
        fs::write(self.path().join("cgroup.procs"), pid.to_string())
            .during(format!("moving {pid} to the control group {}", self.path().display()))
    }

    /// To attach programs to it.
    pub(super) fn open(&self) -> Result<File> {
        File::open(self.path()).during(format!("opening the control group {}", self.path().display()))
    }

    fn path(&self) -> &Path {
        self.made.last().map_or(Path::new(""), PathBuf::as_path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            if let Err(error) = fs::remove_dir(path) {
                log::warn!("the control group {} stays: {error}", path.display());
            }
        }
    }
}
