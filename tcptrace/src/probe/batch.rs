//! Reads a hash map of the kernel side many entries at a time (5.6): one system call for what would take two for each entry.
//!
//! Not for where a kprobe is attached: the kernel skips kprobes on this CPU while it reads a map for bpf(2). For one entry that
//! is a moment; but `__htab_map_lookup_and_delete_batch` passes over all empty buckets in one go, and a timer that sends a SYN
//! again meanwhile makes drops that no kprobe sees (seen on 5.10: 5 of 739).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// `BPF_MAP_LOOKUP_BATCH` (uapi/linux/bpf.h).
const MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Entries asked for at once. More than any bucket of a hash map ever has: the kernel gives whole buckets.
const ENTRIES: usize = 1024;

/// The `batch` variant of `union bpf_attr`.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A hash map with keys of 8 bytes and values of `VALUE` bytes.
#[derive(Debug)]
pub(super) struct BatchMap<const VALUE: usize> {
    map: OwnedFd,
}

impl<const VALUE: usize> BatchMap<VALUE> {
    /// Of the map behind `map`, which must have such keys and values.
    pub(super) fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { map: map.try_clone_to_owned()? })
    }

    /// Hands every entry to `each`, in no order. One that is added or deleted meanwhile may be missed.
    pub(super) fn read(&self, mut each: impl FnMut(u64, &[u8; VALUE])) -> io::Result<()> {
        let mut keys = vec![0_u64; ENTRIES];
        let mut values = vec![[0_u8; VALUE]; ENTRIES];
        // Where the next batch begins: a bucket's number, which only the kernel understands.
        let mut position: Option<u32> = None;
        loop {
            let mut next = 0_u32;
            let mut attr = BatchAttr {
                in_batch: position.as_ref().map_or(0, |at| std::ptr::from_ref(at) as u64),
                out_batch: (&raw mut next) as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: u32::try_from(ENTRIES).unwrap_or(0),
                map_fd: u32::try_from(self.map.as_fd().as_raw_fd()).unwrap_or(u32::MAX),
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: the kernel reads `attr` and `position`, and writes at most `count` keys of 8 bytes, `count` values of
            // VALUE bytes and a bucket's number to where `attr` says; all of it outlives the call.
            let result = unsafe {
                libc::syscall(libc::SYS_bpf, MAP_LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>())
            };
            let error = (result != 0).then(io::Error::last_os_error);
            let is_last = match error {
                None => false,
                // No more buckets; what was still found is given with it.
                Some(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Some(error) => return Err(error),
            };
            let count = usize::try_from(attr.count).unwrap_or(0);
            for (key, value) in keys.iter().zip(&values).take(count) {
                each(*key, value);
            }
            if is_last {
                return Ok(());
            }
            position = Some(next);
        }
    }
}
