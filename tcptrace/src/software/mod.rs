//! What to change in which software, in its own words: "raise the listen backlog" is nginx's `listen 8080 backlog=1024;` and
//! gunicorn's `--backlog 1024`.
//!
//! The facts are data (`software.toml`, shown in `docs/software.md`): how a program is recognised, and for each [`Need`] the
//! setting, where it is written, how it takes effect, its default, and where the software's own documentation says so. Users
//! may add entries of their own ([`add_user_files`]).
//!
//! Recognition rests on what a recording carries of a process, its command name and command line, so that a replay gives the
//! same words. Both are whatever the process has put there: they are compared, and never printed or run.

mod catalogue;
mod process;
mod user;

use std::net::SocketAddr;
use std::sync::{LazyLock, OnceLock};

pub(crate) use catalogue::Software;
pub use catalogue::{Catalogue, CatalogueError};
pub use process::Process;
pub use user::{UserFileError, add_user_files};

use catalogue::{Purpose, Values};

/// What is to be changed in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A longer accept queue: the argument of listen() that is wanted.
    Backlog(u32),
    /// More processes or threads that accept and serve, and how many, if that can be told.
    Workers(Option<u32>),
    /// A higher limit on its own connections, and which, if that can be told.
    Connections(Option<u32>),
    /// A higher limit on open files, for good.
    Descriptors(u64),
    /// Connections that are used again, by a client that opens one for each request.
    Reuse,
    /// Another address or port to listen on, for a program that cannot have the one it asks for.
    Listen,
    /// It gives up the address or port that it has.
    Release,
}

/// A change in a program's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    /// The setting as it is written in the software's configuration; `None` if it has none, which `rest` explains.
    pub(crate) setting: Option<String>,
    /// What is to be done in words, the setting and the program's name in it.
    pub(crate) text: String,
}

static EMBEDDED: LazyLock<Catalogue> = LazyLock::new(Catalogue::embedded);
/// With the user's own entries: set once, before anything is recognised.
static IN_FORCE: OnceLock<Catalogue> = OnceLock::new();

fn in_force() -> &'static Catalogue {
    IN_FORCE.get().unwrap_or(&EMBEDDED)
}

/// The software that a process is, if it is known.
pub(crate) fn recognise(process: &Process<'_>) -> Option<&'static Software> {
    in_force().recognise(process)
}

impl Software {
    /// What meets `need` in this software, each alternative for itself; nothing if its entry does not say.
    pub(crate) fn advice(&self, need: Need, address: Option<SocketAddr>, pid: Option<u32>) -> Vec<Advice> {
        let (purpose, value) = match need {
            Need::Backlog(wanted) => (Purpose::Backlog, Some(u64::from(wanted))),
            Need::Workers(wanted) => (Purpose::Workers, wanted.map(u64::from)),
            Need::Connections(wanted) => (Purpose::Connections, wanted.map(u64::from)),
            Need::Descriptors(wanted) => (Purpose::Descriptors, Some(wanted)),
            Need::Reuse => (Purpose::Reuse, None),
            Need::Listen => (Purpose::Listen, None),
            Need::Release => (Purpose::Release, None),
        };
        // An address that the program is to leave is not the one to write down.
        let another = need == Need::Listen;
        let values = Values { value, address, pid, another };
        self.settings(purpose).map(|setting| setting.advice(&self.name, &values)).collect()
    }
}

#[cfg(test)]
mod tests;
