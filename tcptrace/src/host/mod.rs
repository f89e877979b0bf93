//! What the kernel shows without probes: network namespaces, sysctls, protocol counters, sock_diag, procfs.
//!
//! Everything here only reads, opens no TCP port and needs no free one. Calls block; callers on an async runtime use a
//! thread of their own.

pub mod addresses;
pub mod counters;
pub mod devices;
pub mod kallsyms;
pub mod knobs;
pub mod neighbours;
pub mod netfilter;
pub mod netns;
pub mod numbers;
pub mod procfs;
pub mod rewriting;
pub mod route;
mod rtnetlink;
pub mod sock_diag;
pub mod sockstat;
pub mod steering;

#[cfg(test)]
pub(crate) mod testing;
