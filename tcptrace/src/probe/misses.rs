//! Runs that the kernel skipped: a program that would have interrupted itself (or, for kprobes, another) is not run.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// `BPF_OBJ_GET_INFO_BY_FD` (uapi/linux/bpf.h).
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// `struct bpf_prog_info` (uapi/linux/bpf.h) up to `recursion_misses`, as 64-bit words: the member stands at byte 208 since
/// 5.12, after `run_cnt` at 200; older kernels fill less and leave it zero.
const WORDS: usize = 27;
const RECURSION_MISSES: usize = 208 / 8;

/// The `info` variant of `union bpf_attr`.
#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// How often the kernel skipped the program behind `fd`; 0 before 5.12, which does not count.
pub(super) fn of_program(fd: BorrowedFd<'_>) -> u64 {
    let mut info = [0_u64; WORDS];
    let mut attr = InfoAttr {
        fd: u32::try_from(fd.as_fd().as_raw_fd()).unwrap_or(u32::MAX),
        len: u32::try_from(size_of_val(&info)).unwrap_or(0),
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to `info`, and reads and writes `attr`; both outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut attr, size_of::<InfoAttr>()) };
    if result == 0 { info.get(RECURSION_MISSES).copied().unwrap_or(0) } else { 0 }
}
