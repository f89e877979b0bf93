//! `--netns`: a network namespace as the user names it.

use super::exit::{Exit, Failure};
use crate::host::{
    netns::{Netns, NetnsTable},
    procfs::Procfs,
};

/// The namespaces of those names, each once.
pub(super) fn find_all(names: &[String]) -> Result<Vec<Netns>, Failure> {
    let mut found: Vec<Netns> = Vec::new();
    for name in names {
        let netns = find(name)?;
        if !found.iter().any(|known| known.id() == netns.id()) {
            found.push(netns);
        }
    }
    Ok(found)
}

/// A namespace by the inode number of its file, by a pid in it, or by its name in `/run/netns`.
pub(super) fn find(name: &str) -> Result<Netns, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("--netns {name}: {error}"));
    let Ok(number) = name.parse::<u32>() else {
        let netns = Netns::from_path(&std::path::Path::new("/run/netns").join(name));
        return netns.map(|netns| netns.named(Some(name))).map_err(|error| usage(&error));
    };
    let mut table = NetnsTable::new(Procfs::default()).map_err(|error| usage(&error))?;
    table.refresh().map_err(|error| usage(&error))?;
    if let Some(netns) = table.get(number) {
        return Ok(netns.clone());
    }
    let netns = Netns::of_process(&Procfs::default(), number).map_err(|_| {
        usage(&"no network namespace has this inode number, and no process this pid (see lsns -t net)")
    })?;
    Ok(table.get(netns.id()).cloned().unwrap_or(netns))
}
