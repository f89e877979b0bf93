//! A writer of `newc` cpio archives, the format of an initramfs. The kernel unpacks several, one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};

const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive in memory.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    /// A regular file; its directories are made as needed.
    pub(crate) fn file(&mut self, path: &Path, permissions: u32, content: &[u8]) -> Result<()> {
        let path = self.with_parents(path)?;
        self.entry(&path, REGULAR | (permissions & 0o7777), (0, 0), content)
    }

    /// A copy of a file of this machine, with its permissions.
    pub(crate) fn copy(&mut self, host: &Path, path: &Path) -> Result<()> {
        let content = fs::read(host).with_context(|| format!("reading {}", host.display()))?;
        let mode =
            fs::metadata(host).with_context(|| format!("reading {}", host.display()))?.permissions().mode();
        self.file(path, mode, &content)
    }

    pub(crate) fn symlink(&mut self, path: &Path, target: &Path) -> Result<()> {
        let path = self.with_parents(path)?;
        self.entry(&path, SYMLINK, (0, 0), target.as_os_str().as_bytes())
    }

    pub(crate) fn directory(&mut self, path: &Path) -> Result<()> {
        let path = self.with_parents(path)?;
        if self.directories.insert(path.clone()) {
            self.entry(&path, DIRECTORY, (0, 0), &[])?;
        }
        Ok(())
    }

    /// The console has to exist before devtmpfs is mounted, or process 1 starts without stdout.
    pub(crate) fn character_device(&mut self, path: &Path, major: u32, minor: u32) -> Result<()> {
        let path = self.with_parents(path)?;
        self.entry(&path, CHARACTER_DEVICE, (major, minor), &[])
    }

    /// Closes the archive, padded so that another may follow.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[])?;
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
        Ok(self.bytes)
    }

    /// Drops the leading `/` and makes the directories above.
    fn with_parents(&mut self, path: &Path) -> Result<PathBuf> {
        let mut inside = PathBuf::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => inside.push(name),
                _ => bail!("{} is no plain path for a guest", path.display()),
            }
        }
        let mut parents: Vec<&Path> =
            inside.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).collect();
        parents.reverse();
        for parent in parents {
            if self.directories.insert(parent.to_path_buf()) {
                self.entry(parent, DIRECTORY, (0, 0), &[])?;
            }
        }
        Ok(inside)
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        self.entries += 1;
        let name = path.as_os_str().as_bytes();
        let size =
            u32::try_from(content.len()).with_context(|| format!("{} is too large", path.display()))?;
        let name_size = u32::try_from(name.len() + 1).context("a path is too long")?;
        let (major, minor) = device;
        // inode, mode, uid, gid, links, mtime, size, device of the file system (2), of the node (2), name, checksum.
        // The time is always 0: the same content gives the same bytes.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn parents_come_once_and_before_their_files() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/one"), 0o755, b"1").unwrap();
        archive.file(Path::new("a/b/two"), 0o644, b"2").unwrap();
        archive.directory(Path::new("/a")).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8_lossy(&bytes);
        let at = |name: &str| text.match_indices(name).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(
            at("\0a\0").len() + at("a/b\0").len() + at("a/b/one\0").len(),
            2 + usize::from(!at("\0a\0").is_empty())
        );
        assert!(at("a/b\0") < at("a/b/one\0"));
    }

    #[test]
    fn no_way_out_of_the_guest() {
        assert!(Archive::default().file(Path::new("/a/../../etc/passwd"), 0o644, b"").is_err());
    }

    /// The reference reader, where it is installed.
    #[test]
    fn the_cpio_tool_reads_it() {
        let mut archive = Archive::default();
        archive.file(Path::new("/bin/tool"), 0o755, b"odd").unwrap();
        archive.symlink(Path::new("/bin/alias"), Path::new("tool")).unwrap();
        let bytes = archive.finish().unwrap();
        let Ok(mut cpio) = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            return;
        };
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        assert!(listing.contains("-rwxr-xr-x") && listing.contains("bin/alias -> tool"), "{listing}");
    }
}
