//! Debian packages, unpacked below the cache: fetched at the first use, by one of several runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::Apt;
use crate::arch::Arch;
use crate::{paths, term, tool};

/// What the cache has, or shall have, at `KIND/NAME`.
pub(crate) struct Unpacked {
    home: PathBuf,
    name: String,
    arch: Arch,
}

impl Unpacked {
    pub(crate) fn new(kind: &str, name: &str) -> Result<Self> {
        Self::of(Arch::X86_64, kind, name)
    }

    /// Of packages for that architecture.
    pub(crate) fn of(arch: Arch, kind: &str, name: &str) -> Result<Self> {
        let name = match arch {
            Arch::X86_64 => name.to_owned(),
            Arch::Arm64 => format!("{name}-{}", arch.name()),
        };
        let directory = paths::cache()?.join(kind);
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        Ok(Self { home: directory.join(&name), name, arch })
    }

    /// The tree. If it is not here yet: `choose` names the packages of the suite, and `check` refuses a tree that lacks
    /// what is wanted of it.
    pub(crate) fn tree(
        &self,
        suite: &str,
        choose: impl FnOnce(&Apt) -> Result<Vec<String>>,
        check: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<&Path> {
        // One of several runs fetches, the others wait for it.
        let lock_path = self.beside("lock");
        let lock = File::create(&lock_path).with_context(|| format!("creating {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("locking {}", lock_path.display()))?;
        if !self.home.exists() {
            self.fetch(suite, choose, check)?;
        }
        Ok(&self.home)
    }

    /// Removes it, so that it is fetched again.
    pub(crate) fn forget(&self) -> Result<()> {
        match fs::remove_dir_all(&self.home) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.home.display()))
            }
            _ => Ok(()),
        }
    }

    fn fetch(
        &self,
        suite: &str,
        choose: impl FnOnce(&Apt) -> Result<Vec<String>>,
        check: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let work = tempfile::Builder::new()
            .prefix("tcptrace-apt-")
            .tempdir()
            .context("making a temporary directory")?;
        let apt = Apt::new(work.path(), suite, self.arch)?;
        let packages = choose(&apt)?;
        term::note(format_args!("downloading {}", packages.join(", ")));
        // Under a name of its own until it is whole: what is at `home` is complete.
        let partial = self.beside("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
        }
        for package in apt.download(&packages)? {
            tool::capture(Command::new("dpkg").arg("-x").arg(&package).arg(&partial))?;
        }
        check(&partial)?;
        fs::rename(&partial, &self.home).with_context(|| format!("moving {} in place", partial.display()))
    }

    /// A name in the same directory. (Not `with_extension`, which takes the `.12` of `6.12` for one.)
    fn beside(&self, ending: &str) -> PathBuf {
        self.home.with_file_name(format!("{}.{ending}", self.name))
    }
}
