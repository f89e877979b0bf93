//! An entry of a process's descriptor table, as the `task_file` iterator presents it.

use aya_ebpf::{
    bindings::{file, seq_file},
    cty::c_void,
    helpers::generated::{bpf_seq_write, bpf_sock_from_file},
};
use tcptrace_common::wire::COMM_LEN;

use super::{ABSENT, Access, Direct, Probed, Sock, layout};

/// `struct bpf_iter__task_file`: `{ meta, task, fd, file }`, each at a multiple of eight bytes; ABI of the iterator.
#[derive(Clone, Copy)]
pub struct TaskFile {
    ctx: *mut c_void,
    task: u64,
    file: u64,
}

impl TaskFile {
    #[inline(always)]
    pub fn at(ctx: *mut c_void) -> Self {
        Self { ctx, task: slot(ctx, 1), file: slot(ctx, 3) }
    }

    #[inline(always)]
    pub fn task(&self) -> u64 {
        self.task
    }

    #[inline(always)]
    pub fn file(&self) -> u64 {
        self.file
    }

    #[inline(always)]
    pub fn tgid(&self) -> u32 {
        Probed::read(self.task, layout!(task_tgid))
    }

    #[inline(always)]
    pub fn comm(&self) -> [u8; COMM_LEN] {
        Probed::read(self.task, layout!(task_comm))
    }

    #[inline(always)]
    pub fn descriptor(&self) -> u32 {
        let at = self.ctx.cast::<u32>().wrapping_add(4);
        // SAFETY: the verifier knows the context's layout and refuses any other load.
        unsafe { at.read_volatile() }
    }

    #[inline(always)]
    pub fn inode(&self) -> u64 {
        let inode: u64 = Probed::read(self.file, layout!(file_inode));
        Probed::read(inode, layout!(inode_ino))
    }

    /// Whether [`Self::typed_socket`] may be called on this kernel.
    #[inline(always)]
    pub fn has_typed_socket() -> bool {
        layout!(helper_sock_from_file) != ABSENT
    }

    /// The socket, if the file is one (`bpf_sock_from_file()`); address 0 if not. The verifier knows its type, so that looking
    /// at it costs next to nothing: of a host's files most are not what is looked for.
    #[inline(always)]
    pub fn typed_socket(&self) -> Sock<Direct> {
        // SAFETY: a helper that takes the context's file, which is not NULL here.
        let socket = unsafe { bpf_sock_from_file(self.file as *mut file) } as u64;
        if socket == 0 {
            return Sock::at(0);
        }
        Sock::at(Direct::read(socket, layout!(socket_sk)))
    }

    /// The same by reading, for kernels without that helper.
    #[inline(always)]
    pub fn probed_socket(&self) -> Option<Sock<Probed>> {
        socket_of_file(self.file)
    }

    /// Appends `row` to what user space reads. If the buffer is full, the kernel drops it and comes again.
    #[inline(always)]
    pub fn write<T: Copy>(&self, row: &T) {
        let meta = slot(self.ctx, 0) as *const u64;
        // SAFETY: `struct bpf_iter_meta` begins with the `struct seq_file *`; the verifier knows it.
        let seq = unsafe { meta.read_volatile() } as *mut seq_file;
        // SAFETY: `row` is as long as its type, without padding, and initialised.
        unsafe { bpf_seq_write(seq, (&raw const *row).cast(), size_of::<T>() as u32) };
    }
}

/// The socket of a file that is one; by its inode's mode, because `sockfs` has no other.
#[inline(always)]
pub(super) fn socket_of_file(file: u64) -> Option<Sock<Probed>> {
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    let inode: u64 = Probed::read(file, layout!(file_inode));
    let mode: u16 = Probed::read(inode, layout!(inode_mode));
    if mode & S_IFMT != S_IFSOCK {
        return None;
    }
    // A named UNIX socket opened with O_PATH has such a mode and no private data: reading on gives 0.
    let socket: u64 = Probed::read(file, layout!(file_private));
    let sk: u64 = Probed::read(socket, layout!(socket_sk));
    (sk != 0).then(|| Sock::at(sk))
}

#[inline(always)]
fn slot(ctx: *mut c_void, index: usize) -> u64 {
    let at = ctx.cast::<u64>().wrapping_add(index);
    // SAFETY: as for the descriptor.
    unsafe { at.read_volatile() }
}
