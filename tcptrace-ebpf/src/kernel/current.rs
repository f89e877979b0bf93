//! The thread in whose context a process-context hook runs.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
    bpf_get_current_uid_gid, generated::bpf_get_current_task_btf,
};
use tcptrace_common::{
    ABSENT,
    record::LIMIT_UNKNOWN,
    wire::{COMM_LEN, TASK_EXITING, TASK_FLAGS_SEEN, TASK_KERNEL, Task},
};

use super::{Access as _, Direct, Probed, Sock, address::bytes, layout};

#[inline(always)]
pub fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

#[inline(always)]
pub fn fill(to: &mut Task) {
    *to = task();
}

/// Who the current task is.
#[inline(always)]
pub fn task() -> Task {
    // SAFETY: a helper without arguments.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    if layout!(helper_current_task_btf) != ABSENT {
        // Loads, where three helpers would take more than twice as long.
        // SAFETY: a helper without arguments, which this kernel has (5.11).
        let task = unsafe { bpf_get_current_task_btf() } as u64;
        let cred: u64 = Direct::read(task, layout!(task_cred));
        let comm: [u64; 2] = Direct::read(task, layout!(task_comm));
        return Task {
            tgid: Direct::read(task, layout!(task_tgid)),
            tid: Direct::read(task, layout!(task_pid)),
            uid: Direct::read(cred, layout!(cred_uid)),
            flags: 0,
            cgroup,
            comm: bytes(comm),
        };
    }
    let id = bpf_get_current_pid_tgid();
    Task {
        tgid: (id >> 32) as u32,
        tid: id as u32,
        uid: bpf_get_current_uid_gid() as u32,
        flags: 0,
        cgroup,
        comm: bpf_get_current_comm().unwrap_or([0; COMM_LEN]),
    }
}

/// `wire::TASK_*` of the current task.
#[inline(always)]
pub fn flags() -> u32 {
    // include/linux/sched.h, unchanged since 2.6.
    const PF_EXITING: u32 = 0x4;
    const PF_KTHREAD: u32 = 0x20_0000;
    if layout!(task_flags) == ABSENT {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let flags: u32 = Probed::read(unsafe { bpf_get_current_task() }, layout!(task_flags));
    let mut seen = TASK_FLAGS_SEEN;
    if flags & PF_EXITING != 0 {
        seen |= TASK_EXITING;
    }
    if flags & PF_KTHREAD != 0 {
        seen |= TASK_KERNEL;
    }
    seen
}

/// The soft limit on open files of the current process; [`LIMIT_UNKNOWN`] where it cannot be read.
#[inline(always)]
pub fn open_files_limit() -> u64 {
    /// RLIMIT_NOFILE, alike on x86_64 and arm64; a limit is two words.
    const OPEN_FILES: u32 = 7 * 16;
    if layout!(task_signal) == ABSENT || layout!(signal_rlim) == ABSENT {
        return LIMIT_UNKNOWN;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let signal: u64 = Probed::read(task, layout!(task_signal));
    if signal == 0 { LIMIT_UNKNOWN } else { Probed::read(signal, layout!(signal_rlim) + OPEN_FILES) }
}

/// The listener that the current thread has called accept() or accept4() for; `None` if it is in another system call.
#[inline(always)]
pub fn accepting_at() -> Option<Sock<Probed>> {
    socket_of_descriptor(accept_descriptor()?)
}

/// The first argument of accept() or accept4(), from the registers that are saved at the end of the thread's kernel stack.
#[inline(always)]
fn accept_descriptor() -> Option<i64> {
    /// Length of a kernel stack, on x86_64 and (with pages of 4 KiB) on arm64.
    const STACK: u64 = 16 << 10;
    if layout!(task_stack) == ABSENT || layout!(regs_size) == ABSENT {
        return None;
    }
    // SAFETY: a helper without arguments.
    let stack: u64 = Probed::read(unsafe { bpf_get_current_task() }, layout!(task_stack));
    let registers = stack + STACK - u64::from(layout!(regs_size));
    if layout!(regs_orig_ax) != ABSENT && layout!(regs_di) != ABSENT {
        let is_accept = |registers| {
            let number: u64 = Probed::read(registers, layout!(regs_orig_ax));
            number == 43 || number == 288
        };
        let registers = if is_accept(registers) {
            registers
        } else if is_accept(registers - 16) {
            // A kernel built for FRED leaves two words free (6.9 and later).
            registers - 16
        } else {
            return None;
        };
        return Some(i64::from(Probed::read::<u32>(registers, layout!(regs_di)) as i32));
    }
    if layout!(regs_syscallno) != ABSENT && layout!(regs_orig_x0) != ABSENT {
        let number: i32 = Probed::read(registers, layout!(regs_syscallno));
        if number == 202 || number == 242 {
            return Some(i64::from(Probed::read::<u32>(registers, layout!(regs_orig_x0)) as i32));
        }
    }
    None
}

/// The socket behind a file descriptor of the current process: what `sockfd_lookup()` does, by reading.
#[inline(always)]
pub fn socket_of_descriptor(descriptor: i64) -> Option<Sock<Probed>> {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let files: u64 = Probed::read(task, layout!(task_files));
    let table: u64 = Probed::read(files, layout!(files_fdt));
    let limit: u32 = Probed::read(table, layout!(fdt_max_fds));
    if descriptor < 0 || descriptor >= i64::from(limit) {
        return None;
    }
    let array: u64 = Probed::read(table, layout!(fdt_fd));
    super::task_file::socket_of_file(Probed::read(array + descriptor as u64 * 8, 0))
}
