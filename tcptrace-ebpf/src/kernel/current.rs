//! The thread in whose context a process-context hook runs.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
    bpf_get_current_uid_gid, generated::bpf_get_current_task_btf,
};
use tcptrace_common::{
    ABSENT,
    wire::{COMM_LEN, TASK_EXITING, TASK_FLAGS_SEEN, Task},
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
    if layout!(task_flags) == ABSENT {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let flags: u32 = Probed::read(unsafe { bpf_get_current_task() }, layout!(task_flags));
    if flags & PF_EXITING != 0 { TASK_FLAGS_SEEN | TASK_EXITING } else { TASK_FLAGS_SEEN }
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
