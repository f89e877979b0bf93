//! The running kernel's own description of its types: BTF, read from `/sys/kernel/btf/vmlinux`.
//!
//! Offsets, argument counts and enumerator values move between releases and inside stable series, so nothing about them
//! is compiled in. [`Btf::load`] reads the description, [`resolve`] turns it into the
//! [`KernelLayout`](tcptrace_common::KernelLayout) that the eBPF programs get as a constant, and the queries of
//! [`Btf`] (functions, tracepoints, enumerators) tell the attach plan what this kernel has.
//!
//! The bytes may come from anywhere (a file a user names), so nothing here trusts them: every length is checked, every
//! chain of references is cut after a fixed number of steps, and a member that cannot be found is absent, never guessed.

mod enumeration;
mod error;
mod extract;
mod format;
mod function;
mod header;
mod load;
mod member;
mod names;
mod reader;
mod resolve;
mod text;

#[cfg(test)]
mod builder;
#[cfg(test)]
mod tests;

pub use error::BtfError;
pub use load::{LoadError, VMLINUX};
pub use reader::Btf;
pub use resolve::{Resolution, resolve};
