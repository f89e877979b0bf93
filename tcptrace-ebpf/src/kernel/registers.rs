//! `struct pt_regs`: where a kprobe finds arguments, a kretprobe the result, and the wrapper of a system call its arguments. The
//! only place that knows which processor's registers these are.
//!
//! One object serves x86-64 and arm64: each access holds both layouts, and the verifier prunes the one that the running kernel
//! has not, because [`LAYOUT`](super::LAYOUT) has no member of that name. What a kprobe gets may be read at constant offsets only,
//! and the compiler would merge two such loads in two branches into one at a chosen offset, which no verifier accepts: hence
//! assembly, with the offsets as constants. Where the kernel's own BTF gives another offset than the constant, nothing is read.

use aya_ebpf::{
    EbpfContext,
    programs::{ProbeContext, RetProbeContext},
};

use super::{Access, layout};

/// x86-64 (`arch/x86/include/asm/ptrace.h`): `di`, `si`, `dx`, `cx`, and `ax` for the result.
mod x86_64 {
    pub(super) const DI: u32 = 112;
    pub(super) const SI: u32 = 104;
    pub(super) const DX: u32 = 96;
    pub(super) const CX: u32 = 88;
    pub(super) const AX: u32 = 80;
}

/// arm64 (`arch/arm64/include/asm/ptrace.h`): `regs[0]` to `regs[3]`, of which the first is the result as well.
mod arm64 {
    pub(super) const X0: u32 = 0;
    pub(super) const X1: u32 = 8;
    pub(super) const X2: u32 = 16;
    pub(super) const X3: u32 = 24;
}

/// Argument `N` of the function at whose entry a kprobe is, for the first four.
#[inline(always)]
pub fn argument<const N: usize>(ctx: &ProbeContext) -> u64 {
    const { assert!(N < 4, "only the first four arguments have been needed") };
    match N {
        0 => either::<{ x86_64::DI }, { arm64::X0 }>(ctx),
        1 => either::<{ x86_64::SI }, { arm64::X1 }>(ctx),
        2 => either::<{ x86_64::DX }, { arm64::X2 }>(ctx),
        _ => either::<{ x86_64::CX }, { arm64::X3 }>(ctx),
    }
}

/// The result of the function at whose return a kretprobe is. Of a result narrower than a register the rest of it means nothing.
#[inline(always)]
pub fn result(ctx: &RetProbeContext) -> u64 {
    either::<{ x86_64::AX }, { arm64::X0 }>(ctx)
}

/// Second argument of a system call, from the registers that its wrapper got.
#[inline(always)]
pub fn syscall_second_argument<A: Access>(registers: u64) -> u64 {
    if is_arm64() {
        A::read(registers, arm64::X1)
    } else if is_x86_64() {
        A::read(registers, x86_64::SI)
    } else {
        0
    }
}

/// Whether `regs` of this kernel's `pt_regs` is there and lies where it is read.
#[inline(always)]
fn is_arm64() -> bool {
    layout!(regs_regs) == arm64::X0
}

/// Likewise, for two registers that x86-64 alone has.
#[inline(always)]
fn is_x86_64() -> bool {
    layout!(regs_di) == x86_64::DI && layout!(regs_si) == x86_64::SI
}

/// The register at one offset or the other.
#[inline(always)]
fn either<const X86_64: u32, const ARM64: u32>(ctx: &impl EbpfContext) -> u64 {
    if is_arm64() {
        register::<ARM64>(ctx)
    } else if is_x86_64() {
        register::<X86_64>(ctx)
    } else {
        0
    }
}

#[inline(always)]
fn register<const OFFSET: u32>(ctx: &impl EbpfContext) -> u64 {
    let value: u64;
    // SAFETY: a load from the registers that the program was called with, within those of either processor; the verifier checks it.
    unsafe {
        core::arch::asm!(
            "{value} = *(u64 *)({ctx} + {offset})",
            value = out(reg) value,
            ctx = in(reg) ctx.as_ptr(),
            offset = const OFFSET,
            options(nostack, readonly),
        );
    }
    value
}
