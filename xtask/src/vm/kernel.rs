//! The kernels that tests run on: found once, kept in the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::apt::Apt;
use crate::{paths, term, tool};

/// Debian's virtual package of the newest cloud kernel in a suite: small, with BTF, made for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// The kernels of the test matrix: the oldest that is supported, two long-term ones, and whatever is newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    #[value(name = "newest")]
    Newest,
}

impl Series {
    pub(crate) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::Newest => "sid",
        }
    }
}

/// A kernel that is here.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What people call it: the series, or the file given.
    pub(crate) name: String,
    /// `uname -r`, which is also the name of the modules' directory.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// The series' newest kernel when it was last looked up, fetched at the first use.
    pub(crate) fn of_series(series: Series) -> Result<Self> {
        let kernels = paths::cache()?.join("kernels");
        fs::create_dir_all(&kernels).with_context(|| format!("creating {}", kernels.display()))?;
        let home = kernels.join(series.name());
        // One of several runs fetches, the others wait for it.
        let lock_path = kernels.join(format!("{}.lock", series.name()));
        let lock = File::create(&lock_path).with_context(|| format!("creating {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("locking {}", lock_path.display()))?;
        if !home.exists() {
            fetch(series, &home).with_context(|| format!("fetching the {} kernel", series.name()))?;
        }
        Self::in_tree(series.name(), &home)
    }

    /// Forgets a series, so that its newest kernel is looked up again.
    pub(crate) fn forget(series: Series) -> Result<()> {
        let home = paths::cache()?.join("kernels").join(series.name());
        match fs::remove_dir_all(&home) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", home.display()))
            }
            _ => Ok(()),
        }
    }

    /// A kernel of the user's own: an image, and `lib/modules/RELEASE` or a tree that has one.
    pub(crate) fn of_files(image: &Path, modules: &Path) -> Result<Self> {
        if !image.is_file() {
            bail!("{} is no kernel image", image.display());
        }
        let modules =
            if modules.join("kernel").is_dir() { modules.to_path_buf() } else { modules_in(modules)? };
        let modules = fs::canonicalize(&modules).with_context(|| format!("reading {}", modules.display()))?;
        Ok(Self {
            name: image.display().to_string(),
            release: release_of(&modules)?,
            image: image.to_path_buf(),
            modules,
        })
    }

    /// What unpacked kernel packages contain.
    fn in_tree(name: &str, tree: &Path) -> Result<Self> {
        let modules = modules_in(tree)?;
        let release = release_of(&modules)?;
        let image = [modules.join("vmlinuz"), tree.join("boot").join(format!("vmlinuz-{release}"))]
            .into_iter()
            .find(|path| path.is_file())
            .with_context(|| format!("no kernel image of {release} in {}", tree.display()))?;
        Ok(Self { name: name.to_owned(), release, image, modules })
    }
}

fn fetch(series: Series, home: &Path) -> Result<()> {
    let work =
        tempfile::Builder::new().prefix("tcptrace-apt-").tempdir().context("making a temporary directory")?;
    let apt = Apt::new(work.path(), series.suite())?;
    let image = apt
        .dependencies(META_PACKAGE, &["linux-image-"])?
        .into_iter()
        .next()
        .with_context(|| format!("Debian {} names no kernel in {META_PACKAGE}", series.suite()))?;
    let mut packages = vec![image];
    // Since 7.x the image package is a shell around these two.
    let parts: Vec<String> = packages
        .iter()
        .map(|package| apt.dependencies(package, &["linux-binary-", "linux-modules-"]))
        .collect::<Result<Vec<_>>>()?
        .concat();
    packages.extend(parts);
    term::note(format_args!("downloading {}", packages.join(", ")));
    // Under a name of its own until it is whole: what is at `home` is complete.
    let partial = home.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    }
    for package in apt.download(&packages)? {
        tool::capture(Command::new("dpkg").arg("-x").arg(&package).arg(&partial))?;
    }
    Kernel::in_tree(series.name(), &partial)?;
    fs::rename(&partial, home).with_context(|| format!("moving {} in place", partial.display()))
}

/// The one directory of modules in an unpacked package or root.
fn modules_in(tree: &Path) -> Result<PathBuf> {
    for parent in [tree.join("lib/modules"), tree.join("usr/lib/modules")] {
        let Ok(entries) = fs::read_dir(&parent) else { continue };
        let releases: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.join("kernel").is_dir()).collect();
        match releases.as_slice() {
            [] => {}
            [one] => return Ok(one.clone()),
            _ => bail!("{} has modules of several kernels; name one of its directories", parent.display()),
        }
    }
    bail!("no kernel modules in {}", tree.display())
}

fn release_of(modules: &Path) -> Result<String> {
    let name = modules.file_name().context("a modules directory has a name")?;
    Ok(name.to_string_lossy().into_owned())
}
