//! Where settings are looked for, and how they are read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::{ConfigError, Found};
use crate::identity::invoker::Invoker;

/// Of the whole host.
const OF_HOST: &str = "/etc/tcptrace/tcptrace.toml";

/// Below a user's directory of configurations.
const OF_USER: &str = "tcptrace/tcptrace.toml";

/// Longest file that is read.
const LONGEST: u64 = 1 << 20;

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of the host, or of the user that this process runs as.
    Own,
    /// Of the user who called sudo.
    Invoker,
    /// It was named: it must be there.
    Named,
}

/// A file of settings.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) of: Whose,
    /// With whose rights it is opened, if not with ours.
    rights: Option<(Uid, Gid)>,
}

/// The places of this process. Later ones win.
pub(super) fn find(named: Option<PathBuf>) -> Vec<Place> {
    let invoker = Invoker::find();
    let rights = invoker.as_ref().map(|invoker| (invoker.uid, invoker.gid));
    if let Some(path) = named {
        // Otherwise sudo for this program alone would show which words stand in files that only root may read.
        return vec![Place { path, of: Whose::Named, rights }];
    }
    let own = match &invoker {
        Some(invoker) => {
            let home = invoker.variable("HOME").map(PathBuf::from);
            let path = home.filter(|home| home.is_absolute()).map(|home| home.join(".config").join(OF_USER));
            path.map(|path| Place { path, of: Whose::Invoker, rights })
        }
        None => {
            let absolute = |path: &PathBuf| path.is_absolute();
            let set = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute);
            let home = || Some(std::env::home_dir().filter(absolute)?.join(".config"));
            let path = set.or_else(home).map(|path| path.join(OF_USER));
            path.map(|path| Place { path, of: Whose::Own, rights: None })
        }
    };
    let host = Place { path: PathBuf::from(OF_HOST), of: Whose::Own, rights: None };
    [host].into_iter().chain(own).collect()
}

impl Place {
    /// A file that is read with our own rights.
    #[cfg(test)]
    pub(super) fn of(path: PathBuf, of: Whose) -> Self {
        Self { path, of, rights: None }
    }

    pub(super) fn whose(&self) -> &'static str {
        match self.of {
            Whose::Own | Whose::Named => "",
            Whose::Invoker => " (of the user who called sudo)",
        }
    }

    /// What stands in it; or why nothing is read, if it need not be.
    pub(super) fn read(&self) -> Result<Result<String, Found>, ConfigError> {
        let unreadable = |why: String| ConfigError::Unreadable { path: self.path.clone(), why };
        let file = match self.rights {
            Some((uid, gid)) => open_as(uid, gid, &self.path),
            None => open(&self.path),
        };
        let file = match file {
            Ok(file) => file,
            Err(error)
                if self.of != Whose::Named
                    && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Ok(Err(Found::NotThere));
            }
            Err(error) if self.of == Whose::Invoker && error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Err(Found::Forbidden));
            }
            // Somebody else's directory, as HOME may name one after a change of user: there is nothing of ours in it.
            Err(error)
                if self.of == Whose::Own
                    && error.kind() == io::ErrorKind::PermissionDenied
                    && self.path.symlink_metadata().is_err() =>
            {
                return Ok(Err(Found::NotThere));
            }
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let mut text = String::new();
        match file.take(LONGEST + 1).read_to_string(&mut text) {
            Ok(_) if u64::try_from(text.len()).is_ok_and(|length| length <= LONGEST) => Ok(Ok(text)),
            Ok(_) => Err(unreadable(format!("it is longer than {LONGEST} bytes"))),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(unreadable("it is not text (UTF-8)".to_owned()))
            }
            Err(error) => Err(unreadable(error.to_string())),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe that no process writes to must not hold us up.
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Opens a file with the rights of another user. Root's groups stay: what a file shows to root's group alone is refused.
fn open_as(uid: Uid, gid: Gid, path: &Path) -> io::Result<File> {
    let (own_uid, own_gid) = (setfsuid(uid), setfsgid(gid));
    // They say what was before, and nothing of what is: asked again, they do.
    let changed = setfsuid(uid) == uid && setfsgid(gid) == gid;
    let opened = if changed { open(path) } else { Err(io::ErrorKind::PermissionDenied.into()) };
    setfsuid(own_uid);
    setfsgid(own_gid);
    let file = opened?;
    let metadata = file.metadata()?;
    let readable = {
        use std::os::unix::fs::MetadataExt as _;
        metadata.uid() == uid.as_raw() || metadata.gid() == gid.as_raw() || metadata.mode() & 0o004 != 0
    };
    if readable { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}
