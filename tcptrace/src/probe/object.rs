//! The embedded eBPF object, and what loads it.

use std::thread;

use aya::EbpfLoader;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::chroot,
};
/// The committed object that `cargo xtask ebpf` made; aligned as an ELF reader wants it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/tcptrace.bpf.o");

/// Maps that are large, and the least that each may be.
const LARGE_MAPS: [(&str, u32); 11] = [
    ("EVENTS", 4096),
    ("LISTENERS", 1),
    ("WAITS", 1),
    ("HANDSHAKES", 1),
    ("PREFIXES", 1),
    ("QUEUED", 1),
    ("TAKERS", 1),
    ("CALLS", 1),
    ("DROPS", 1),
    ("CONNECTS", 1),
    ("PORT_USE", 1),
];

/// A loader, made while the caller does its `work`: `EbpfLoader::new` (aya 0.14) reads and parses all of the kernel's types, whether
/// they are needed or not, which takes longer than our own reading of them.
pub(super) fn loader_beside<T>(work: impl FnOnce() -> T) -> (EbpfLoader<'static>, T) {
    thread::scope(|scope| {
        let loader = scope.spawn(EbpfLoader::new);
        let done = work();
        (loader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), done)
    })
}

/// A loader for a command that is over in a moment, and needs a program that uses none of the large maps: it waits neither for their
/// memory nor for aya to read the kernel's types. Aya does not where it finds no `/sys`: in a thread of its own, whose root is
/// another directory. Not for a service: whoever filters its system calls may well have it killed for a chroot().
pub(super) fn quick_loader() -> EbpfLoader<'static> {
    let elsewhere = || {
        // Where a sandbox refuses it, it takes longer, and that is all.
        if unshare(CloneFlags::CLONE_FS).is_ok()
            && let Err(error) = chroot("/proc/self/fdinfo")
        {
            log::debug!("chroot: {error}; aya reads the kernel's types too");
        }
        EbpfLoader::new()
    };
    let mut loader = thread::scope(|scope| scope.spawn(elsewhere).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for (map, least) in LARGE_MAPS {
        loader.map_max_entries(map, least);
    }
    loader
}

/// Before 5.11 the memory of maps counts against RLIMIT_MEMLOCK. Where raising it fails it is rarely needed; if it is,
/// creating a map fails and says so.
pub(super) fn raise_memlock() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        log::debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}
