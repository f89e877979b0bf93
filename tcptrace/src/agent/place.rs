//! The agent's directory: `ring/`, `incidents/`, and a lock that only one agent can have.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::record::write_failure;

/// A directory of which this process is the agent.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// Held until the process ends, however it ends.
    _lock: Flock<File>,
}

/// Why a directory cannot be an agent's.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Another agent has it.
    #[error(
        "{path}: {holder} records there already; end that one, or give each agent a directory of its own"
    )]
    Taken {
        /// The directory.
        path: String,
        /// `another tcptrace agent (pid 17)`.
        holder: String,
    },
    /// It cannot be made, or be written to.
    #[error("{path}: {}", write_failure(.error))]
    Io {
        /// The directory, or what in it is meant.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Without the capabilities that are given up, it could not be written to.
    #[error(
        "{path}: it belongs to uid {owner}, and the agent runs as uid {own}: chown it, or name another directory"
    )]
    Foreign {
        /// The directory.
        path: String,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// Others could change what is in it.
    #[error(
        "{path}: other users may write there, and could exchange what root writes: chmod go-w {path}, or name another directory"
    )]
    Shared {
        /// The directory.
        path: String,
    },
}

impl Place {
    /// Takes a directory, which is made if it is not there.
    ///
    /// # Errors
    /// When another agent has it, or it cannot be written to.
    pub fn take(path: &Path) -> Result<Self, PlaceError> {
        let failed = |at: &Path| {
            let path = at.display().to_string();
            move |error| PlaceError::Io { path, error }
        };
        make_directory(path).map_err(failed(path))?;
        // What is told of it later must not depend on where the process is then.
        let path = fs::canonicalize(path).map_err(failed(path))?;
        let found = fs::metadata(&path).map_err(failed(&path))?;
        let own = nix::unistd::geteuid().as_raw();
        if found.uid() != own {
            return Err(PlaceError::Foreign { path: path.display().to_string(), owner: found.uid(), own });
        }
        if found.mode() & 0o022 != 0 {
            return Err(PlaceError::Shared { path: path.display().to_string() });
        }
        let lock = path.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&lock)
            .map_err(failed(&lock))?;
        let mut locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let path = path.display().to_string();
                return Err(PlaceError::Taken { path, holder: holder(&mut file) });
            }
            Err((_, errno)) => return Err(failed(&lock)(errno.into())),
        };
        locked
            .set_len(0)
            .and_then(|()| locked.rewind())
            .and_then(|()| writeln!(locked, "{}", std::process::id()))
            .map_err(failed(&lock))?;
        let place = Self { path, _lock: locked };
        for directory in [place.ring(), place.incidents()] {
            make_directory(&directory).map_err(failed(&directory))?;
        }
        Ok(place)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the last hours are.
    pub fn ring(&self) -> PathBuf {
        self.path.join("ring")
    }

    /// Where incidents are kept.
    pub fn incidents(&self) -> PathBuf {
        self.path.join("incidents")
    }
}

fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    let read = file.take(16).read_to_string(&mut pid);
    match read.ok().and_then(|_| pid.trim().parse::<u32>().ok()) {
        Some(pid) => format!("another tcptrace agent (pid {pid})"),
        None => "another tcptrace agent".to_owned(),
    }
}

/// For its owner alone: command lines are in recordings.
fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::metadata(path)?.is_dir() {
                return Ok(());
            }
            Err(error)
        }
        other => other,
    }
}

/// Makes what was made, renamed or removed in a directory outlast a power cut.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
