//! Iterators: programs that the kernel runs once for each object of a kind when user space reads.

use aya_ebpf::cty::c_void;

use crate::{handle::open_socket, kernel::TaskFile};

/// `task_file`: every open file of every process; threads that share their process's descriptor table come once
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn iter_open_sockets(ctx: *mut c_void) -> i32 {
    let entry = TaskFile::at(ctx);
    // Both are NULL in the last call, after the last file.
    if entry.task() != 0 && entry.file() != 0 {
        open_socket::met(&entry);
    }
    0
}
