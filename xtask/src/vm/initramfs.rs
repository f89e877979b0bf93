//! The guest's root file system: a base that depends on the kernel alone and is kept, and on top what this run copies.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;
use super::frame::Job;
use super::kernel::Kernel;
use super::unpacked::Unpacked;
use super::{Guest, agent, libs, modules};
use crate::arch::Arch;
use crate::{binary, paths, tool};

/// Raise it when the base's content changes by an edit of this program.
const BASE_VERSION: u32 = 3;
/// Where the guest has this very program.
pub(crate) const AGENT: &str = "/xtask/agent";

/// A file or directory of this machine and where the guest shall have it: `HOST:GUEST` or `HOST`.
#[derive(Clone, Debug)]
pub(crate) struct HostCopy {
    pub(crate) host: PathBuf,
    pub(crate) guest: PathBuf,
}

impl FromStr for HostCopy {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (host, guest) = text.split_once(':').unwrap_or((text, "/usr/local/bin/"));
        let host = PathBuf::from(host);
        let name = host.file_name().with_context(|| format!("{text}: names no file to copy"))?;
        if !guest.starts_with('/') {
            bail!("{text}: the path in the guest has to start with /");
        }
        let guest = if guest.ends_with('/') { Path::new(guest).join(name) } else { PathBuf::from(guest) };
        Ok(Self { host, guest })
    }
}

/// Builds the whole, as QEMU wants it: one archive after the other.
pub(crate) fn build(guest: &Guest, jobs: &[Job]) -> Result<Vec<u8>> {
    let mut image = base(&guest.kernel)?;
    image.extend(overlay(guest, jobs)?);
    Ok(image)
}

/// busybox and the kernel's modules, from the cache if nothing about them has changed.
fn base(kernel: &Kernel) -> Result<Vec<u8>> {
    let busybox = busybox(kernel.arch)?;
    let cache = paths::cache()?.join("initramfs");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let mut hasher = DefaultHasher::new();
    (BASE_VERSION, &kernel.modules, stamp(&kernel.image)?, stamp(&kernel.modules)?, stamp(&busybox)?)
        .hash(&mut hasher);
    let file = cache.join(format!("{}-{:016x}.cpio", kernel.release, hasher.finish()));
    if let Ok(image) = fs::read(&file) {
        return Ok(image);
    }
    let mut archive = Archive::default();
    for directory in
        ["dev", "proc", "sys", "tmp", "run", "root", "etc", "var/tmp", "usr/bin", "usr/sbin", "sbin"]
    {
        archive.directory(Path::new(directory))?;
    }
    archive.character_device(Path::new("dev/console"), 5, 1)?;
    archive.character_device(Path::new("dev/null"), 1, 3)?;
    add_busybox(&mut archive, &busybox, kernel.arch)?;
    archive.file(
        Path::new("etc/passwd"),
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    )?;
    archive.file(Path::new("etc/group"), 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.file(Path::new("etc/hosts"), 0o644, b"127.0.0.1 localhost guest\n::1 localhost\n")?;
    modules::add(&mut archive, &kernel.release, &kernel.modules)
        .with_context(|| format!("the modules of {}", kernel.release))?;
    let image = archive.finish()?;
    remove_older(&cache, &kernel.release);
    // Renamed into place: another run must never read half of it.
    let partial = tempfile::NamedTempFile::new_in(&cache).context("making a temporary file")?;
    fs::write(partial.path(), &image).with_context(|| format!("writing {}", partial.path().display()))?;
    partial.persist(&file).with_context(|| format!("writing {}", file.display()))?;
    Ok(image)
}

/// Bases of the same kernel that nobody will ask for again.
fn remove_older(cache: &Path, release: &str) {
    let prefix = format!("{release}-");
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // If it stays, it only takes up room.
            let _stays = fs::remove_file(entry.path());
        }
    }
}

/// A static busybox for that architecture; of another than this machine's, Debian's, kept in the cache.
pub(crate) fn busybox(arch: Arch) -> Result<PathBuf> {
    const SUITE: &str = "bookworm";
    if arch == Arch::X86_64 {
        return paths::find_program("busybox").context("busybox is not installed; run: cargo xtask setup");
    }
    let in_tree = |tree: &Path| {
        let places = [tree.join("bin/busybox"), tree.join("usr/bin/busybox")];
        places.into_iter().find(|path| path.is_file()).context("the package has no busybox")
    };
    let unpacked = Unpacked::of(arch, "busybox", SUITE)?;
    in_tree(unpacked.tree(
        SUITE,
        |_| Ok(vec!["busybox-static".to_owned()]),
        |tree| in_tree(tree).map(drop),
    )?)
}

/// busybox under the name of each of its applets, where a distribution would have them. One that does not run on this machine names
/// its applets in the guest (see `init.sh`).
fn add_busybox(archive: &mut Archive, busybox: &Path, arch: Arch) -> Result<()> {
    let content = fs::read(busybox).with_context(|| format!("reading {}", busybox.display()))?;
    if !libs::needed_by(busybox, &content)?.is_empty() {
        bail!("{} is not a static one; run: cargo xtask setup", busybox.display());
    }
    archive.file(Path::new("bin/busybox"), 0o755, &content)?;
    if arch != Arch::X86_64 {
        archive.symlink(Path::new("bin/sh"), Path::new("busybox"))?;
        return archive.symlink(Path::new("sbin/modprobe"), Path::new("../bin/busybox"));
    }
    for applet in
        tool::capture_text(Command::new(busybox).arg("--list"))?.lines().filter(|name| *name != "busybox")
    {
        archive.symlink(&Path::new("bin").join(applet), Path::new("busybox"))?;
    }
    // The kernel calls this path by itself when it wants a module.
    archive.symlink(Path::new("sbin/modprobe"), Path::new("../bin/busybox"))
}

/// What can tell that a file is another one now.
fn stamp(path: &Path) -> Result<(u64, Option<SystemTime>)> {
    let meta = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
    Ok((meta.len(), meta.modified().ok()))
}

fn overlay(guest: &Guest, jobs: &[Job]) -> Result<Vec<u8>> {
    let mut overlay = Overlay::default();
    overlay.archive.file(Path::new("init"), 0o755, include_bytes!("init.sh"))?;
    overlay.archive.file(Path::new(agent::JOBS_FILE), 0o644, &serde_json::to_vec(jobs)?)?;
    overlay.add_agent(guest.kernel.arch)?;
    for copy in &guest.copies {
        overlay.copy(&copy.host, &copy.guest).with_context(|| format!("copying {}", copy.host.display()))?;
    }
    for copy in &guest.bare_copies {
        overlay.archive.copy(&copy.host, &copy.guest)?;
    }
    overlay.finish()
}

/// An archive that knows which libraries its programs need.
#[derive(Default)]
struct Overlay {
    archive: Archive,
    libraries: BTreeSet<PathBuf>,
}

impl Overlay {
    /// The agent is this very program, or built from the same sources: both ends of the protocol cannot differ.
    fn add_agent(&mut self, arch: Arch) -> Result<()> {
        if arch != Arch::X86_64 {
            let agent = binary::build_agent(arch)?;
            return self.archive.copy(&agent, Path::new(AGENT));
        }
        let work = tempfile::tempdir().context("making a temporary directory")?;
        let (this, stripped) = (work.path().join("this"), work.path().join("agent"));
        // Not by its name: cargo may have put another build there since.
        fs::copy("/proc/self/exe", &this).context("copying this program")?;
        // Nine tenths of a debug build are debug information; a guest under emulation would unpack it at every boot.
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&this).output();
        let agent = if strip.is_ok_and(|strip| strip.status.success()) { &stripped } else { &this };
        let content = fs::read(agent).with_context(|| format!("reading {}", agent.display()))?;
        self.libraries.extend(libs::needed_by(&this, &content)?);
        self.archive.file(Path::new(AGENT), 0o755, &content)
    }

    fn copy(&mut self, host: &Path, guest: &Path) -> Result<()> {
        let meta = fs::metadata(host)?;
        if meta.is_dir() {
            return self.copy_directory(host, guest);
        }
        let content = fs::read(host)?;
        self.libraries.extend(libs::needed_by(host, &content)?);
        self.archive.file(guest, meta.permissions().mode(), &content)
    }

    fn copy_directory(&mut self, host: &Path, guest: &Path) -> Result<()> {
        self.archive.directory(guest)?;
        for entry in fs::read_dir(host)? {
            let entry = entry?;
            let (from, to) = (entry.path(), guest.join(entry.file_name()));
            if entry.file_type()?.is_symlink() {
                self.archive.symlink(&to, &fs::read_link(&from)?)?;
            } else {
                self.copy(&from, &to)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        for library in &self.libraries {
            self.archive.copy(library, library)?;
        }
        self.archive.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_copy_goes() {
        let at = |text: &str| HostCopy::from_str(text).unwrap().guest;
        assert_eq!(at("target/x:/opt/y"), Path::new("/opt/y"));
        assert_eq!(at("target/x:/opt/"), Path::new("/opt/x"));
        assert_eq!(at("target/x"), Path::new("/usr/local/bin/x"));
        assert!(HostCopy::from_str("x:opt").is_err());
        assert!(HostCopy::from_str("/:/x").is_err());
    }
}
