//! How memory behind a pointer may be read.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel as raw_probe_read_kernel;

/// How memory behind a pointer may be read.
pub trait Access: Copy {
    /// The `T` at `base + offset`; zero where the memory cannot be read.
    fn read<T: Copy>(base: u64, offset: u32) -> T;
}

/// Loads through a pointer whose type the verifier knows (fentry, fexit and BTF tracepoint arguments, and what is loaded
/// through them). A fault reads as zero (exception table), but a pointer that may be null must not be followed: 5.10 gives the
/// main function of a program that has others no exception table, and panics (0108a4e9f358, in 6.5, is not in 5.10.262).
#[derive(Clone, Copy)]
pub struct Direct;
impl Access for Direct {
    #[inline(always)]
    fn read<T: Copy>(base: u64, offset: u32) -> T {
        let at = (base as *const u8).wrapping_add(offset as usize).cast::<T>();
        // SAFETY: the verifier refuses the program unless this is a load of a member of the pointer's BTF type; volatile
        // keeps the load at the width that was checked.
        unsafe { at.read_volatile() }
    }
}

/// Reads through `bpf_probe_read_kernel`: for kprobes, whose arguments are untyped, and for lists walked by hand.
#[derive(Clone, Copy)]
pub struct Probed;
impl Access for Probed {
    #[inline(always)]
    fn read<T: Copy>(base: u64, offset: u32) -> T {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        let at = (base as *const u8).wrapping_add(offset as usize);
        // SAFETY: the helper writes all of `value`: the memory's bytes, or zeroes when it faults. Every T used here is
        // an integer or an array of integers, for which all bytes are valid.
        unsafe {
            raw_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, at.cast());
            value.assume_init()
        }
    }
}
