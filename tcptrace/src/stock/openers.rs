//! Which processes have which sockets open: by one pass of the kernel's `task_file` iterator where that pays, else from procfs.

use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;

use crate::event::SocketState;
use crate::host::numbers::NumberSet;
use crate::host::procfs::Procfs;
use crate::identity::sockets::{Owner, SocketOwners};
use crate::probe::ProbeError;
use crate::probe::open_sockets::{self, Loaded};

/// With so many files open on the host, the iterator is faster than a `readlink` for each, although it takes some 20 ms to load.
const MANY: u64 = 10_000;

/// The iterator over every descriptor of every process for a TCP socket with a local port in `ports`, and in `state` if there is one.
///
/// # Errors
/// When it is not to be had.
pub(crate) fn iterator(
    ports: &RangeInclusive<u16>,
    state: Option<SocketState>,
) -> Result<Loaded, ProbeError> {
    /// Inode number of the initial pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
    const INITIAL: u64 = 0xeffffffc;
    let own = std::fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
    if own.is_ok_and(|own| own != INITIAL) {
        let why =
            "iter task_file: tcptrace runs in a pid namespace of its own, whose numbers it does not tell";
        return Err(ProbeError::NothingAttached(why.to_owned()));
    }
    open_sockets::load(ports, state)
}

/// The same where it pays.
pub(super) fn prepare(
    procfs: &Procfs,
    ports: &RangeInclusive<u16>,
    state: Option<SocketState>,
) -> Option<Loaded> {
    if !is_hosts(procfs) || open_files(procfs)? < MANY {
        return None;
    }
    iterator(ports, state).inspect_err(|error| log::debug!("owners of sockets: {error}")).ok()
}

/// The same for all listeners.
pub(crate) fn listener_iterator(procfs: &Procfs) -> Option<Loaded> {
    prepare(procfs, &(0..=u16::MAX), Some(SocketState::Listen))
}

/// The owners of the sockets with these inodes.
///
/// # Errors
/// When the processes cannot be listed at all.
pub(super) fn find(
    procfs: &Procfs,
    inodes: &NumberSet,
    iterator: Option<Loaded>,
) -> io::Result<SocketOwners> {
    if let Some(iterator) = iterator {
        let mut open = Vec::new();
        let found = iterator.read(|socket| {
            if inodes.contains(&socket.inode) {
                open.push((socket.inode, Owner { pid: socket.pid, fd: socket.fd }));
            }
        });
        match found {
            Ok(()) => return Ok(SocketOwners::listed(open)),
            Err(error) => log::debug!("owners of sockets: {error}"),
        }
    }
    SocketOwners::find(procfs, inodes)
}

/// The iterator lists the processes of this host, not those of another procfs.
fn is_hosts(procfs: &Procfs) -> bool {
    procfs.root() == Procfs::default().root()
}

/// How many files the host has open.
fn open_files(procfs: &Procfs) -> Option<u64> {
    let text = std::fs::read_to_string(procfs.root().join("sys/fs/file-nr")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}
