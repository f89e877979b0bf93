//! Entries of the user's own, before those that come with tcptrace.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Catalogue, CatalogueError, EMBEDDED, IN_FORCE};

/// Names a file of entries; it must be readable then.
const VARIABLE: &str = "TCPTRACE_SOFTWARE";

/// Of the whole host.
const OF_HOST: &str = "/etc/tcptrace/software.toml";

/// Below the user's directory of configurations.
const OF_USER: &str = "tcptrace/software.toml";

/// Longest file that is read.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Why a file of entries cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UserFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It is no catalogue of software.
    #[error("{}: {source}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CatalogueError,
    },
}

/// Takes in the user's own entries: the file that `TCPTRACE_SOFTWARE` names, or else `~/.config/tcptrace/software.toml` and
/// `/etc/tcptrace/software.toml`. Earlier ones win, and all of them win over those that come with tcptrace. To be called once,
/// before anything is recognised: findings are the same for the same events and the same entries.
///
/// # Errors
/// [`UserFileError`] if the file that `TCPTRACE_SOFTWARE` names cannot be used. One at a usual place is reported and left out:
/// what tcptrace finds does not depend on it.
pub fn add_user_files() -> Result<(), UserFileError> {
    let own = of(std::env::var_os(VARIABLE), &usual_places())?;
    if let Some(own) = own {
        let _ = IN_FORCE.set(own.before(&EMBEDDED));
    }
    Ok(())
}

fn of(named: Option<OsString>, usual: &[PathBuf]) -> Result<Option<Catalogue>, UserFileError> {
    if let Some(path) = named.filter(|path| !path.is_empty()) {
        return read(Path::new(&path)).map(Some);
    }
    let mut own: Option<Catalogue> = None;
    for path in usual {
        match read(path) {
            Ok(catalogue) => {
                own = Some(match own {
                    Some(earlier) => earlier.before(&catalogue),
                    None => catalogue,
                });
            }
            Err(UserFileError::Unreadable { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound
                    || source.kind() == std::io::ErrorKind::NotADirectory => {}
            Err(error) => log::warn!("{error}; left out"),
        }
    }
    Ok(own)
}

fn usual_places() -> Vec<PathBuf> {
    let configurations = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".config")));
    configurations.map(|path| path.join(OF_USER)).into_iter().chain([PathBuf::from(OF_HOST)]).collect()
}

fn read(path: &Path) -> Result<Catalogue, UserFileError> {
    use std::io::Read as _;
    let unreadable = |source| UserFileError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LONGEST).read_to_string(&mut text).map_err(unreadable)?;
    Catalogue::parse(&text).map_err(|source| UserFileError::Wrong { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"
        [[software]]
        name = "NAME"
        is.program = ["frontd"]
        setting = [{ for = "backlog", set = "queue {value}", source = "its manual" }]
    "#;

    #[test]
    fn earlier_files_win_and_missing_or_broken_ones_are_left_out() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let missing = place.path().join("no/such/file");
        let (broken, first, second) = (
            at("broken", "software = 1"),
            at("first", &ENTRY.replace("NAME", "first")),
            at("second", &ENTRY.replace("NAME", "second")),
        );
        let process = super::super::Process::new("frontd", None);
        let own = of(None, &[missing.clone(), broken.clone(), first, second.clone()]).unwrap().unwrap();
        assert_eq!(own.recognise(&process).unwrap().name, "first");
        assert!(of(None, std::slice::from_ref(&missing)).unwrap().is_none());
        // One that is asked for must be there and be right.
        assert!(of(Some(missing.into()), &[]).is_err());
        assert!(of(Some(broken.into()), &[]).unwrap_err().to_string().contains("broken"));
        let own = of(Some(second.into()), &[]).unwrap().unwrap().before(&EMBEDDED);
        assert_eq!(own.recognise(&process).unwrap().name, "second");
        assert_eq!(own.recognise(&super::super::Process::new("nginx", None)).unwrap().name, "nginx");
    }
}
