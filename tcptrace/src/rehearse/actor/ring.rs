//! A listening socket that an io_uring keeps as well: when the last descriptor and the ring are closed, a thread of the kernel
//! closes it, later and in place of the process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `IORING_REGISTER_FILES` of linux/io_uring.h.
const REGISTER_FILES: libc::c_uint = 2;
/// `struct io_uring_params` is 120 bytes, none of which has to be set.
const PARAMETERS: usize = 120;

/// A ring that has `socket` among its registered files. No request is ever made: the memory that it shares with its owner is not
/// mapped.
///
/// # Errors
/// Where there is no io_uring, or it is switched off (kernel.io_uring_disabled, a seccomp filter).
pub(super) fn keeping(socket: &impl AsFd) -> io::Result<OwnedFd> {
    let mut parameters = [0_u64; PARAMETERS / size_of::<u64>()];
    // SAFETY: the kernel reads and writes `io_uring_params`, which is as large as `parameters`.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    // SAFETY: the kernel has just handed this descriptor to us alone, if it is one.
    let ring = unsafe { OwnedFd::from_raw_fd(descriptor(ring)?) };
    let files = [socket.as_fd().as_raw_fd()];
    // SAFETY: the kernel reads one descriptor from `files`, which outlives the call.
    let registered = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_FILES, files.as_ptr(), 1)
    };
    descriptor(registered).map(|_| ring)
}

/// What a system call returned, as a number that is not negative.
fn descriptor(result: libc::c_long) -> io::Result<i32> {
    i32::try_from(result).ok().filter(|number| *number >= 0).ok_or_else(io::Error::last_os_error)
}
