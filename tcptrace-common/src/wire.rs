//! The parts that several records share: endpoints and processes.

/// Length of a task's command name in the kernel (`TASK_COMM_LEN`), terminating NUL included.
pub const COMM_LEN: usize = 16;

/// `AF_INET`, the socket's own family (not the family of the packet).
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// The two ends of a connection or request, or the local end alone.
///
/// IPv4 addresses are written as IPv4-mapped IPv6 (`::ffff:a.b.c.d`), so that one form holds for both families and
/// a v4-mapped peer of an IPv6 listener reads as the IPv4 peer that it is. `family` stays that of the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Endpoints {
    /// Local address, network byte order.
    pub local: [u8; 16],
    /// Remote address, network byte order; all zero where there is none.
    pub remote: [u8; 16],
    /// Local port, host byte order; 0 where none is bound.
    pub local_port: u16,
    /// Remote port, host byte order; 0 where there is none.
    pub remote_port: u16,
    /// The socket's family: [`AF_INET`] or [`AF_INET6`].
    pub family: u16,
    /// Padding, zero.
    pub pad: u16,
    /// Network namespace: inode of `/proc/PID/ns/net` (`net.ns.inum`).
    pub netns: u32,
    /// Index of the bound device (`sk_bound_dev_if`), 0 for none.
    pub device: u32,
}
const _: () = assert!(size_of::<Endpoints>() == 48);

/// The process is exiting: what it closes, the kernel closes for it.
pub const TASK_EXITING: u32 = 1 << 0;
/// [`Task::flags`] was read.
pub const TASK_FLAGS_SEEN: u32 = 1 << 1;
/// A thread of the kernel itself, which does something for a process (io_uring closes files by one).
pub const TASK_KERNEL: u32 = 1 << 2;

/// A process, as the current task of a process-context hook showed it. Never filled in softirq context, where the
/// current task is whoever was interrupted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Task {
    /// Process id (thread group id) in the initial pid namespace; 0 for "not known".
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Real user id of the task (`bpf_get_current_uid_gid`).
    pub uid: u32,
    /// Bit set of [`TASK_EXITING`], [`TASK_KERNEL`] and [`TASK_FLAGS_SEEN`]; read where it matters only.
    pub flags: u32,
    /// Control group id (v2): inode of the cgroup directory.
    pub cgroup: u64,
    /// Command name, NUL padded. Bytes as the process set them: hostile until escaped.
    pub comm: [u8; COMM_LEN],
}
const _: () = assert!(size_of::<Task>() == 40);
