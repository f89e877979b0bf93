//! Reading the kernel's BTF from its file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::BtfError;
use super::reader::Btf;

/// Where the running kernel describes its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Largest file that is read, in bytes: some ten times the BTF of a distribution's kernel, and an end for what has none.
const LARGEST: u64 = 64 << 20;

/// Why there is no [`Btf`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The running kernel was built without BTF (or `/sys` is not mounted here).
    #[error(
        "this kernel has no BTF ({VMLINUX}): rebuild with CONFIG_DEBUG_INFO_BTF=y or use a distribution kernel ≥ 5.8"
    )]
    NoBtf,
    /// The file may not be read.
    #[error("not permitted to read {}: run as root, in a container with the host's /sys", path.display())]
    NotPermitted {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read for another reason.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any kernel's BTF.
    #[error("{} is larger than {} MiB: no kernel's BTF", path.display(), LARGEST >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not BTF, or damaged.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BtfError,
    },
}

impl Btf {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoBtf`] if the kernel has none; otherwise as [`Btf::load_from`].
    pub fn load() -> Result<Self, LoadError> {
        Self::load_from(Path::new(VMLINUX)).map_err(|error| match error {
            LoadError::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                LoadError::NoBtf
            }
            other => other,
        })
    }

    /// Reads raw BTF from a file: another kernel's, say.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is too large, or is not BTF.
    pub fn load_from(path: &Path) -> Result<Self, LoadError> {
        let bytes = read(path).map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::PermissionDenied => LoadError::NotPermitted { path },
                io::ErrorKind::FileTooLarge => LoadError::TooLarge { path },
                _ => LoadError::Unreadable { path, source },
            }
        })?;
        Self::parse(bytes).map_err(|source| LoadError::Malformed { path: path.to_owned(), source })
    }
}

/// The whole file, if it is not too large. Older kernels cannot map the file in sysfs, so it is read.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len().min(LARGEST);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default().saturating_add(1));
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::builder::Builder;
    use super::*;

    #[test]
    fn a_file_is_read_or_the_reason_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("btf");
        let error = Btf::load_from(&path).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("cannot read {}: No such file", path.display())),
            "{error}"
        );

        std::fs::write(&path, Builder::new().build()).unwrap();
        assert!(Btf::load_from(&path).is_ok());

        std::fs::write(&path, b"\x7fELF and so on, not BTF at all").unwrap();
        let error = Btf::load_from(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{}: not BTF: it starts with 0x457f instead of 0xeb9f", path.display())
        );

        let error = Btf::load_from(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "/dev/zero is larger than 64 MiB: no kernel's BTF");
    }
}
