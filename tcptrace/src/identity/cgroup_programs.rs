//! BPF programs that filter the packets of a control group's sockets (`cgroup_skb`): what systemd makes of `IPAddressDeny=`, and
//! container runtimes and network plugins of their policies.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use aya::programs::loaded_programs;

use crate::host::steering::QueryAttr;

/// Which packets a program filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that come in (`BPF_CGROUP_INET_INGRESS`).
    Ingress,
    /// Those that go out (`BPF_CGROUP_INET_EGRESS`).
    Egress,
}

/// The programs that filter a control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Names of all that are effective, those of the groups above included.
    pub programs: Vec<String>,
    /// The nearest group that one is attached to: this one, or one above it.
    pub attached_to: Option<String>,
}

/// The programs that filter the group with this path, below `mount`.
///
/// # Errors
/// When the group is gone, or may not be asked (CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN).
pub fn filters(mount: &Path, path: &str, direction: Direction) -> io::Result<Filters> {
    let open = |path: &str| File::open(mount.join(path.trim_start_matches('/')));
    let ids = query(open(path)?.as_fd(), direction, true)?;
    if ids.is_empty() {
        return Ok(Filters::default());
    }
    let mut attached_to = None;
    let mut at = Some(path);
    while let Some(group) = at {
        if open(group).and_then(|file| query(file.as_fd(), direction, false)).is_ok_and(|ids| !ids.is_empty())
        {
            attached_to = Some(if group.is_empty() { "/" } else { group }.to_owned());
            break;
        }
        at = group.rsplit_once('/').map(|(above, _)| above);
    }
    let mut names: Vec<(u32, String)> = ids.iter().map(|id| (*id, format!("number {id}"))).collect();
    for program in loaded_programs().flatten() {
        let name = program.name_as_str().filter(|name| !name.is_empty());
        let known = names.iter_mut().find(|(id, _)| *id == program.id());
        if let (Some((_, known)), Some(name)) = (known, name) {
            name.clone_into(known);
        }
    }
    Ok(Filters { programs: names.into_iter().map(|(_, name)| name).collect(), attached_to })
}

const QUERY_EFFECTIVE: u32 = 1;
/// More programs than one group has.
const MOST: usize = 64;

fn query(group: BorrowedFd<'_>, direction: Direction, effective: bool) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut attr = QueryAttr {
        target: u32::try_from(group.as_raw_fd()).unwrap_or(u32::MAX),
        attach_type: match direction {
            Direction::Ingress => 0,
            Direction::Egress => 1,
        },
        query_flags: if effective { QUERY_EFFECTIVE } else { 0 },
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(MOST).unwrap_or_default(),
        ..QueryAttr::default()
    };
    // SAFETY: `ids` has room for `count` numbers.
    unsafe { attr.ask() }?;
    Ok(ids.iter().copied().take(usize::try_from(attr.count).unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::procfs::Procfs;
    use crate::identity::cgroup_tree::CgroupTree;

    #[test]
    fn the_root_group_can_be_asked() {
        let Some(tree) = CgroupTree::mounted(&Procfs::default()) else { return };
        match filters(tree.mount(), "/", Direction::Ingress) {
            Ok(found) => assert_eq!(found.programs.is_empty(), found.attached_to.is_none()),
            Err(error) => println!("skipped: {error}"),
        }
    }

    #[test]
    fn a_group_that_is_gone_is_an_error() {
        let Some(tree) = CgroupTree::mounted(&Procfs::default()) else { return };
        assert!(filters(tree.mount(), "/no/such/group", Direction::Egress).is_err());
    }
}
