//! The embedded eBPF object, and the bytes of its globals.

use std::thread;

use aya::EbpfLoader;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::chroot,
};
use tcptrace_common::{
    KernelLayout, TraceConfig, connect::ConnectKey, listener::PrefixKey, open_socket::OpenSocketQuery,
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

/// The layout as the eBPF side's global has it: its members in order, each a native-endian u32.
#[must_use]
pub(super) fn bytes_of_layout(layout: &KernelLayout) -> Vec<u8> {
    layout.values().iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// The configuration as the eBPF side's global has it.
#[must_use]
pub(super) fn bytes_of_config(config: &TraceConfig) -> Vec<u8> {
    let TraceConfig { flags, netns, port_count, pad, ports } = *config;
    let words = [flags, netns, port_count, pad];
    words.iter().flat_map(|w| w.to_ne_bytes()).chain(ports.iter().flat_map(|p| p.to_ne_bytes())).collect()
}

/// What the iterator over open sockets is asked for, as its global has it.
#[must_use]
pub(super) fn bytes_of_query(query: &OpenSocketQuery) -> Vec<u8> {
    let OpenSocketQuery { first, last, remember } = *query;
    [first, last].iter().flat_map(|port| port.to_ne_bytes()).chain(remember.to_ne_bytes()).collect()
}

/// A key of `PREFIXES`.
pub(super) fn prefix_key(bytes: [u8; size_of::<PrefixKey>()]) -> Option<PrefixKey> {
    let (listener, prefix) = bytes.split_first_chunk::<8>()?;
    Some(PrefixKey { listener: u64::from_ne_bytes(*listener), prefix: prefix.try_into().ok()? })
}

/// A key of `CONNECTS`.
pub(super) fn connect_key(bytes: [u8; size_of::<ConnectKey>()]) -> Option<ConnectKey> {
    let (peer, rest) = bytes.split_first_chunk::<16>()?;
    let (netns, rest) = rest.split_first_chunk::<4>()?;
    let (tgid, rest) = rest.split_first_chunk::<4>()?;
    let (port, _) = rest.split_first_chunk::<2>()?;
    Some(ConnectKey {
        peer: *peer,
        netns: u32::from_ne_bytes(*netns),
        tgid: u32::from_ne_bytes(*tgid),
        port: u16::from_ne_bytes(*port),
        pad: [0; 3],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globals_are_as_long_as_their_types() {
        assert_eq!(bytes_of_layout(&KernelLayout::NOTHING).len(), size_of::<KernelLayout>());
        let query = OpenSocketQuery { first: 1, last: 2, remember: 3 };
        assert_eq!(bytes_of_query(&query).len(), size_of::<OpenSocketQuery>());
        assert_eq!(bytes_of_config(&TraceConfig::default()).len(), size_of::<TraceConfig>());
    }
}
