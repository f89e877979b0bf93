//! BPF programs that choose another socket or destination for a connection: `sk_lookup` programs of a network namespace, and
//! `connect4`/`connect6` programs of a control group (as Cilium's).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use super::netns::Netns;

/// Attach types (uapi/linux/bpf.h).
const CGROUP_INET4_CONNECT: u32 = 10;
const CGROUP_INET6_CONNECT: u32 = 11;
const SK_LOOKUP: u32 = 36;
/// `BPF_F_QUERY_EFFECTIVE`: with those of the groups above.
const EFFECTIVE: u32 = 1;

/// The `query` variant of `union bpf_attr`, whole. From 6.6 on the kernel writes the last member in answers about a device, whatever length
/// it is told: beyond the end of a shorter one. Older kernels take members that they do not know, as long as they are zero.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct QueryAttr {
    pub(crate) target: u32,
    pub(crate) attach_type: u32,
    pub(crate) query_flags: u32,
    pub(crate) attach_flags: u32,
    pub(crate) ids: u64,
    pub(crate) count: u32,
    pub(crate) padding: u32,
    pub(crate) ids_attach_flags: u64,
    pub(crate) link_ids: u64,
    pub(crate) link_attach_flags: u64,
    pub(crate) revision: u64,
}
const _: () = assert!(size_of::<QueryAttr>() == 64);

fn count(target: &impl AsFd, attach_type: u32, query_flags: u32) -> io::Result<u32> {
    query(u32::try_from(target.as_fd().as_raw_fd()).map_err(io::Error::other)?, attach_type, query_flags)
}

/// The target is a device's index where the attach type is one of devices.
fn query(target: u32, attach_type: u32, query_flags: u32) -> io::Result<u32> {
    let mut attr = QueryAttr { target, attach_type, query_flags, ..QueryAttr::default() };
    // SAFETY: there is no buffer for ids.
    unsafe { attr.ask() }?;
    Ok(attr.count)
}

impl QueryAttr {
    /// `BPF_PROG_QUERY`.
    ///
    /// # Safety
    /// `ids` is zero, or the address of `count` numbers that may be written.
    pub(crate) unsafe fn ask(&mut self) -> io::Result<()> {
        /// `BPF_PROG_QUERY` (uapi/linux/bpf.h).
        const PROG_QUERY: libc::c_long = 16;
        // SAFETY: the kernel reads and writes `self`, which is all of what it may write, and the numbers, as the caller promises.
        let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut *self, size_of::<Self>()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// How many `sk_lookup` programs choose sockets in the namespace. Kernels before 5.9 have none.
///
/// # Errors
/// When the kernel refuses (`CAP_NET_ADMIN`).
pub fn socket_lookups(netns: &Netns) -> io::Result<u32> {
    none_where_unknown(count(netns, SK_LOOKUP, 0))
}

/// How many programs may change the destination that processes of this process's control group connect to.
///
/// # Errors
/// When the group cannot be opened, or the kernel refuses.
pub fn connect_programs(ipv6: bool) -> io::Result<u32> {
    let Some(path) = own_group()? else { return Ok(0) };
    let group = std::fs::File::open(path)?;
    let attach_type = if ipv6 { CGROUP_INET6_CONNECT } else { CGROUP_INET4_CONNECT };
    none_where_unknown(count(&group, attach_type, EFFECTIVE))
}

/// How many programs of this type are attached to a device of the calling thread's namespace.
pub(super) fn programs_of_device(index: u32, attach_type: u32) -> io::Result<u32> {
    none_where_unknown(query(index, attach_type, 0))
}

/// A kernel that does not know the attach type has no such programs.
fn none_where_unknown(counted: io::Result<u32>) -> io::Result<u32> {
    match counted {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(0),
        other => other,
    }
}

/// This process's group in the unified hierarchy; `None` if that is not mounted at its usual places.
fn own_group() -> io::Result<Option<PathBuf>> {
    let groups = std::fs::read_to_string("/proc/self/cgroup")?;
    let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return Ok(None) };
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists());
    Ok(root.map(|root| root.join(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;

    #[test]
    fn a_fresh_namespace_has_no_programs() {
        let Some(netns) = private_netns() else { return };
        match socket_lookups(&netns) {
            Ok(found) => assert_eq!(found, 0),
            Err(error) => println!("skipped: {error}"),
        }
    }
}
