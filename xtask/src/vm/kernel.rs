//! The kernels that tests run on: found once, kept in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::apt::Apt;
use super::unpacked::Unpacked;
use crate::arch::Arch;

/// The kernels of the test matrix: the oldest that is supported, two long-term ones, and whatever is newest. Beside them those
/// that are asked for by name only.
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
    /// 6.12 with PREEMPT_RT: softirqs are threads, and a lock may sleep.
    #[value(name = "rt")]
    Realtime,
    /// 6.1 with PREEMPT_RT.
    #[value(name = "rt-6.1")]
    RealtimeV6_1,
    /// The newest with PREEMPT_RT, from where Debian tries kernels out. Since 7.3 softirqs hold no lock of their CPU there.
    #[value(name = "rt-newest")]
    RealtimeNewest,
}

impl Series {
    /// Those with PREEMPT_RT.
    pub(crate) const REALTIME: [Self; 3] = [Self::Realtime, Self::RealtimeV6_1, Self::RealtimeNewest];
    pub(crate) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];
    /// Those of arm64: before 6.4 it has no trampolines, and goes by kprobes.
    pub(crate) const ARM64: [Self; 3] = [Self::V6_1, Self::V6_12, Self::Newest];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
            Self::Realtime => "rt",
            Self::RealtimeV6_1 => "rt-6.1",
            Self::RealtimeNewest => "rt-newest",
        }
    }

    /// Whose kernel it is.
    pub(crate) fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 | Self::RealtimeV6_1 => "bookworm",
            Self::V6_12 | Self::Realtime => "trixie",
            Self::Newest => "sid",
            Self::RealtimeNewest => "experimental",
        }
    }

    /// Debian's virtual package of its newest kernel of this kind in a suite. The cloud kernels are small, with BTF, and made for
    /// virtual machines.
    fn meta_package(self, arch: Arch) -> String {
        let kind = match self {
            Self::Realtime | Self::RealtimeV6_1 | Self::RealtimeNewest => "rt",
            Self::V5_10 | Self::V6_1 | Self::V6_12 | Self::Newest => "cloud",
        };
        format!("linux-image-{kind}-{}", arch.debian())
    }
}

/// A kernel that is here.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) arch: Arch,
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
        Self::of(Arch::X86_64, series)
    }

    /// The same for that architecture.
    pub(crate) fn of(arch: Arch, series: Series) -> Result<Self> {
        let name = format!("{}{}", arch.prefix(), series.name());
        let unpacked = Unpacked::of(arch, "kernels", series.name())?;
        let tree = unpacked
            .tree(
                series.suite(),
                |apt| packages(apt, &series.meta_package(arch)),
                |tree| Self::in_tree(arch, &name, tree).map(drop),
            )
            .with_context(|| format!("fetching the {name} kernel"))?;
        Self::in_tree(arch, &name, tree)
    }

    /// Forgets a series, so that its newest kernel is looked up again.
    pub(crate) fn forget(arch: Arch, series: Series) -> Result<()> {
        Unpacked::of(arch, "kernels", series.name())?.forget()
    }

    /// A kernel of the user's own: an image, and `lib/modules/RELEASE` or a tree that has one.
    pub(crate) fn of_files(arch: Arch, image: &Path, modules: &Path) -> Result<Self> {
        if !image.is_file() {
            bail!("{} is no kernel image", image.display());
        }
        let modules =
            if modules.join("kernel").is_dir() { modules.to_path_buf() } else { modules_in(modules)? };
        let modules = fs::canonicalize(&modules).with_context(|| format!("reading {}", modules.display()))?;
        Ok(Self {
            arch,
            name: image.display().to_string(),
            release: release_of(&modules)?,
            image: image.to_path_buf(),
            modules,
        })
    }

    /// What unpacked kernel packages contain.
    fn in_tree(arch: Arch, name: &str, tree: &Path) -> Result<Self> {
        let modules = modules_in(tree)?;
        let release = release_of(&modules)?;
        let image = [modules.join("vmlinuz"), tree.join("boot").join(format!("vmlinuz-{release}"))]
            .into_iter()
            .find(|path| path.is_file())
            .with_context(|| format!("no kernel image of {release} in {}", tree.display()))?;
        Ok(Self { arch, name: name.to_owned(), release, image, modules })
    }
}

/// The packages that make up a suite's newest kernel.
fn packages(apt: &Apt, meta_package: &str) -> Result<Vec<String>> {
    let image = apt
        .dependencies(meta_package, &["linux-image-"])?
        .into_iter()
        .next()
        .with_context(|| format!("Debian names no kernel in {meta_package}"))?;
    // Since 7.x the image package is a shell around these two.
    let parts = apt.dependencies(&image, &["linux-binary-", "linux-modules-"])?;
    Ok(std::iter::once(image).chain(parts).collect())
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
