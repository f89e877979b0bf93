//! The kernel side of tcptrace.
//!
//! `attach/` decodes the arguments of one attachment type and calls `handle/`, which says what happened, once for all
//! attachment types; `kernel/` is the only place that knows where the kernel keeps a thing.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(unreachable_pub, reason = "a program has no outside; pub says what a module offers")
)]

#[cfg(target_arch = "bpf")]
mod attach;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod handle;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod stand_in;
#[cfg(target_arch = "bpf")]
mod table;

/// The helpers that read kernel memory and the ring buffer are for GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // A reachable panic would leave an endless loop that the verifier rejects, so none is.
    loop {}
}

/// On the host there is nothing to run: this crate is built for bpfel-unknown-none by `cargo xtask ebpf`.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
