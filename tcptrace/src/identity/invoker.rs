//! The user who called sudo or pkexec: as this user a command runs that was handed to us, and this user gets the files that were
//! asked for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;

use nix::unistd::{Gid, Uid, geteuid};

use crate::host::procfs::{ProcessDir, Procfs};

/// How many ancestors are looked at. sudo is the parent, or with a terminal of its own (`use_pty`) the grandparent; the user's
/// shell is one further, and a script or two may be in between.
const ANCESTORS: usize = 8;

/// Bytes of `/proc/PID/status` and `/proc/PID/environ` that are read; environments may be larger, and are cut.
const ENOUGH: u64 = 1 << 20;

/// A user who became root by sudo or pkexec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoker {
    /// User id; never root's.
    pub uid: Uid,
    /// Main group.
    pub gid: Gid,
    /// All groups, as the user's own process has them.
    pub groups: Vec<Gid>,
    /// What the user's own environment says under these names, and root's says otherwise.
    pub environment: Vec<(&'static str, OsString)>,
}

/// What sudo replaces by root's.
const REPLACED: [&str; 5] = ["HOME", "USER", "LOGNAME", "SHELL", "PATH"];

impl Invoker {
    /// Who called sudo or pkexec; `None` if we are not root, or if root did.
    pub fn find() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let number = |name| std::env::var(name).ok()?.parse().ok();
        let uid = number("SUDO_UID").or_else(|| number("PKEXEC_UID"))?;
        Self::among_ancestors(&Procfs::default(), std::process::id(), uid, number("SUDO_GID"))
    }

    /// The environment says who it is. Its groups are known to the ancestor that still runs as that user: to ask the user
    /// database would need the C library's modules, which a static program does not have.
    fn among_ancestors(procfs: &Procfs, pid: u32, uid: u32, gid: Option<u32>) -> Option<Self> {
        if uid == 0 {
            return None;
        }
        let unknown = Gid::from_raw(gid.unwrap_or(uid));
        let mut found =
            Self { uid: Uid::from_raw(uid), gid: unknown, groups: vec![unknown], environment: Vec::new() };
        let mut process = procfs.process(pid).ok()?;
        for _ in 0..ANCESTORS {
            let Some(parent) = status(&process).and_then(|status| numbers(&status, "PPid:").first().copied())
            else {
                break;
            };
            let Ok(next) = procfs.process(parent) else { break };
            process = next;
            let Some(status) = status(&process) else { break };
            if numbers(&status, "Uid:").first() != Some(&uid) {
                continue;
            }
            if let Some(own) = numbers(&status, "Gid:").first() {
                found.gid = Gid::from_raw(*own);
            }
            found.groups = numbers(&status, "Groups:").into_iter().map(Gid::from_raw).collect();
            found.environment = environment(&process);
            break;
        }
        Some(found)
    }

    /// What the user's environment says under this name.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment.iter().find(|(of, _)| *of == name).map(|(_, value)| value.as_os_str())
    }
}

fn status(process: &ProcessDir) -> Option<String> {
    String::from_utf8(process.read("status", ENOUGH).ok()?).ok()
}

/// The numbers of a line of `/proc/PID/status`. The command's name is in it, but cannot begin a line: its newlines are escaped.
fn numbers(status: &str, name: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

fn environment(process: &ProcessDir) -> Vec<(&'static str, OsString)> {
    let bytes = process.read("environ", ENOUGH).unwrap_or_default();
    let of = |name: &'static str| {
        let value = bytes.split(|byte| *byte == 0).find_map(|variable| {
            variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=").filter(|value| !value.is_empty())
        })?;
        Some((name, OsString::from_vec(value.to_vec())))
    };
    REPLACED.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A /proc of shell 10 (user 1000), sudo 20 and 21 (root), and us, 30.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let process = |pid: u32, parent: u32, uid: u32, groups: &str, environ: &str| {
            let directory = root.path().join(pid.to_string());
            fs::create_dir(&directory).unwrap();
            let status = format!(
                "Name:\tUid: 7\nPPid:\t{parent}\nUid:\t{uid}\t0\t0\t0\nGid:\t{uid}\t0\t0\t0\nGroups:\t{groups} \n"
            );
            fs::write(directory.join("status"), status).unwrap();
            fs::write(directory.join("environ"), environ).unwrap();
        };
        process(
            10,
            1,
            1000,
            "27 115 1000",
            "NOT_HOME=/x\0HOME=/home/ann\0PATH=/home/ann/bin:/usr/bin\0USER=\0",
        );
        process(20, 10, 0, "0", "HOME=/root\0");
        process(21, 20, 0, "0", "HOME=/root\0");
        process(30, 21, 0, "0", "HOME=/root\0");
        root
    }

    #[test]
    fn the_groups_and_the_environment_are_those_of_the_ancestor_that_runs_as_the_user() {
        let root = tree();
        let found = Invoker::among_ancestors(&Procfs::at(root.path()), 30, 1000, Some(5)).unwrap();
        assert_eq!((found.uid.as_raw(), found.gid.as_raw()), (1000, 1000));
        assert_eq!(found.groups, [27, 115, 1000].map(Gid::from_raw));
        assert_eq!(found.variable("HOME"), Some(OsStr::new("/home/ann")));
        assert_eq!(found.variable("PATH"), Some(OsStr::new("/home/ann/bin:/usr/bin")));
        assert_eq!(found.variable("USER"), None, "an empty one is none");
    }

    #[test]
    fn without_such_an_ancestor_only_what_sudo_says_is_used() {
        let root = tree();
        let found = Invoker::among_ancestors(&Procfs::at(root.path()), 30, 1001, Some(5)).unwrap();
        assert_eq!((found.uid.as_raw(), found.groups), (1001, vec![Gid::from_raw(5)]));
        assert!(found.environment.is_empty());
    }

    #[test]
    fn root_who_calls_sudo_stays_root() {
        assert_eq!(Invoker::among_ancestors(&Procfs::at(tree().path()), 30, 0, Some(0)), None);
    }
}
