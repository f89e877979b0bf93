//! Files for output: made for their owner alone, never over one that exists unless that is asked for, and never where somebody
//! else has laid a symbolic link.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::identity::invoker::Invoker;

/// A file that only its owner may read: command lines are in it. Where the user who called sudo may write, it is that user's, who
/// will want to read it without. Over one that exists only by `force`. A pipe or a device is opened as it is.
///
/// In a directory that others can write, nothing that was laid there is followed: neither a symbolic link nor somebody else's
/// pipe.
///
/// # Errors
/// When it exists, or cannot be made.
pub fn create(path: &Path, force: bool) -> io::Result<File> {
    refuse_foreign_links(path)?;
    let there = |why: &str| io::Error::new(io::ErrorKind::AlreadyExists, why.to_owned());
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {
            if !force {
                return Err(is_there());
            }
            // A new file rather than the old one emptied: its permissions, and whoever reads the old one.
            fs::remove_file(path)?;
        }
        Ok(found) if found.is_dir() => return Err(there("it is a directory")),
        Ok(found) if found.is_symlink() && is_shared(path) => {
            let why = "it is a symbolic link in a directory that others can write: name the file itself";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(found)
            if found.is_symlink() && fs::metadata(path).map_or(true, |of| of.is_file() || of.is_dir()) =>
        {
            return Err(there("it is a symbolic link: name the file itself"));
        }
        Ok(found) => return open_special(path, &found),
        // It is not there: what else is wrong is said when it is made.
        Err(_) => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(invoker) = Invoker::find().filter(|invoker| may_own(path, invoker))
        && let Err(error) =
            std::os::unix::fs::fchown(&file, Some(invoker.uid.as_raw()), Some(invoker.gid.as_raw()))
    {
        // A file system without owners, or one where root is not trusted: the file is as good.
        log::debug!("{} stays root's: {error}", path.display());
    }
    Ok(file)
}

/// That a file is there, and what to do.
pub(super) fn is_there() -> io::Error {
    let words = "it is there already: choose another name, or overwrite it with --force";
    io::Error::new(io::ErrorKind::AlreadyExists, words)
}

/// Opens a pipe or a device, and nothing else: what has this name may have changed meanwhile.
fn open_special(path: &Path, found: &Metadata) -> io::Result<File> {
    if is_shared(path) && !is_trusted(found) {
        let why = "it belongs to another user, in a directory that others can write";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let flags = if found.is_symlink() { 0 } else { libc::O_NOFOLLOW };
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let opened = file.metadata()?;
    if opened.is_file() || opened.is_dir() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it has become another file meanwhile"));
    }
    Ok(file)
}

/// Refuses a path on which a directory is a symbolic link that another user has laid where others can write.
pub(super) fn refuse_foreign_links(path: &Path) -> io::Result<()> {
    for directory in path.ancestors().skip(1).filter(|of| !of.as_os_str().is_empty()) {
        let Ok(found) = fs::symlink_metadata(directory) else { continue };
        if found.is_symlink() && is_shared(directory) && !is_trusted(&found) {
            let why = format!(
                "{} is another user's symbolic link in a directory that others can write",
                directory.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
    }
    Ok(())
}

/// Whether others can write the directory in which this is.
fn is_shared(path: &Path) -> bool {
    if path.parent().is_none() {
        return false;
    }
    // Who cannot look at it is not told that it is safe.
    fs::metadata(directory_of(path)).map_or(true, |found| found.mode() & 0o022 != 0 || !is_trusted(&found))
}

/// Whether the user could have made a file here: elsewhere one of theirs might be read by root as its own (`/etc/profile.d`).
fn may_own(path: &Path, invoker: &Invoker) -> bool {
    const ALL_MAY_WRITE: u32 = 0o002;
    fs::metadata(directory_of(path))
        .is_ok_and(|found| found.uid() == invoker.uid.as_raw() || found.mode() & ALL_MAY_WRITE != 0)
}

/// The directory in which this is.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether it belongs to us, or to root.
fn is_trusted(found: &Metadata) -> bool {
    found.uid() == 0 || found.uid() == nix::unistd::geteuid().as_raw()
}

/// Why a file cannot be written, for people.
pub fn write_failure(error: &io::Error) -> String {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ENOSPC) => "the disk is full (ENOSPC)".to_owned(),
        Some(nix::errno::Errno::EDQUOT) => "the user's share of the disk is used up (EDQUOT)".to_owned(),
        Some(nix::errno::Errno::EIO) => "the disk or its connection is failing (EIO)".to_owned(),
        Some(nix::errno::Errno::EFBIG) => "the file has become as large as a file may be (EFBIG)".to_owned(),
        Some(nix::errno::Errno::EROFS) => "the file system is read-only (EROFS)".to_owned(),
        Some(nix::errno::Errno::EPIPE) => "its reader is gone (EPIPE)".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    #[test]
    fn nothing_is_overwritten_unasked_and_only_the_owner_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.arrows");
        fs::write(&path, "precious").unwrap();
        assert!(create(&path, false).unwrap_err().to_string().contains("--force"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        create(&path, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    /// A directory in which anybody may write, as /tmp is.
    fn shared() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        directory
    }

    #[test]
    fn links_where_others_can_write_are_not_followed() {
        let (directory, private) = (shared(), tempfile::tempdir().unwrap());
        let victim = private.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for (name, target) in
            [("a", victim.as_path()), ("b", Path::new("/dev/null")), ("c", Path::new("nowhere"))]
        {
            let link = directory.path().join(name);
            symlink(target, &link).unwrap();
            for force in [false, true] {
                let error = create(&link, force).unwrap_err().to_string();
                assert!(error.contains("symbolic link"), "{name}: {error}");
            }
        }
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(create(&directory.path().join("new"), false).is_ok());
    }

    #[test]
    fn a_directory_that_another_user_links_is_not_entered() {
        let (directory, private) = (shared(), tempfile::tempdir().unwrap());
        let link = directory.path().join("way");
        symlink(private.path(), &link).unwrap();
        assert!(create(&link.join("own"), false).is_ok(), "our own link");
        // Only root can give a link to somebody else.
        if std::os::unix::fs::lchown(&link, Some(12_345), None).is_err() {
            return;
        }
        let error = create(&link.join("foreign"), false).unwrap_err().to_string();
        assert!(error.contains("another user"), "{error}");
        assert!(!private.path().join("foreign").exists());
    }

    #[test]
    fn another_user_s_pipe_is_not_written() {
        let directory = shared();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        if chown(&pipe, Some(12_345), None).is_err() {
            return;
        }
        assert!(create(&pipe, false).unwrap_err().to_string().contains("another user"));
    }

    #[test]
    fn a_device_is_opened_as_it_is() {
        assert!(create(Path::new("/dev/null"), false).is_ok());
        let private = tempfile::tempdir().unwrap();
        let link = private.path().join("null");
        symlink("/dev/null", &link).unwrap();
        assert!(create(&link, false).is_ok(), "nobody else can have laid it");
        symlink(private.path().join("file"), private.path().join("link")).unwrap();
        assert!(
            create(&private.path().join("link"), true).unwrap_err().to_string().contains("name the file")
        );
    }
}
