//! The running kernel's layout, as data: which user space reads from `/sys/kernel/btf/vmlinux` at start and hands to the
//! eBPF programs as a read-only global.
//!
//! rustc emits no CO-RE relocations, so an offset baked in at compile time would be silently wrong on the next kernel.
//! With the layout in frozen `.rodata` the verifier sees constants: it accepts direct loads through BTF pointers and
//! prunes every branch on a member that this kernel does not have.

/// The value of a [`KernelLayout`] entry whose field, function or enumerator this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// What a [`KernelLayout`] entry is resolved from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Byte offset of a member, written `struct.member[.member…]`. Members of anonymous structs and unions are reached by
    /// their own name. For a bit-field: the offset of the byte that holds its first bit.
    Offset(&'static str),
    /// For a bit-field `struct.member`: the position of its first bit within the byte that [`Source::Offset`] names.
    BitShift(&'static str),
    /// Number of parameters of a function: in a fexit program the return value stands in this slot.
    Params(&'static str),
    /// Value of an enumerator, written `enum.ENUMERATOR`, or `.ENUMERATOR` where the enum has no name. Those of drop
    /// reasons are renumbered nearly every release.
    Enumerator(&'static str),
    /// Size in bytes of a member, written like an offset, or of a whole struct, written as its name.
    Size(&'static str),
}

macro_rules! kernel_layout {
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ident($path:literal),)*) => {
        /// Offsets, argument counts and enumerator values of the running kernel; [`ABSENT`] where it has none.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
        pub struct KernelLayout {
            $(
                $(#[doc = $doc])*
                #[doc = concat!("\n\nResolved from `", $path, "`.")]
                pub $name: u32,
            )*
        }

        impl KernelLayout {
            /// Every entry in the order of the members: its name and what it is resolved from.
            pub const ENTRIES: &'static [(&'static str, Source)] = &[
                $((stringify!($name), Source::$kind($path)),)*
            ];

            /// A layout in which nothing is present.
            pub const NOTHING: Self = Self { $($name: ABSENT,)* };

            /// The layout whose entries, in the order of [`Self::ENTRIES`], are `values`.
            pub const fn from_values(values: [u32; Self::ENTRIES.len()]) -> Self {
                let [$($name,)*] = values;
                Self { $($name,)* }
            }

            /// The values of the entries, in the order of [`Self::ENTRIES`].
            #[must_use]
            pub const fn values(&self) -> [u32; Self::ENTRIES.len()] {
                let Self { $($name,)* } = *self;
                [$($name,)*]
            }
        }

        const _: () = assert!(size_of::<KernelLayout>() == 4 * KernelLayout::ENTRIES.len());
    };
}

kernel_layout! {
    // struct sock_common: at the same offsets in every kernel seen so far, and still read from BTF.
    /// Remote IPv4 address (be32).
    skc_daddr: Offset("sock_common.skc_daddr"),
    /// Local IPv4 address as bound (be32).
    skc_rcv_saddr: Offset("sock_common.skc_rcv_saddr"),
    /// Remote port (be16).
    skc_dport: Offset("sock_common.skc_dport"),
    /// Local port (host order).
    skc_num: Offset("sock_common.skc_num"),
    /// Address family.
    skc_family: Offset("sock_common.skc_family"),
    /// TCP state (u8).
    skc_state: Offset("sock_common.skc_state"),
    /// Byte that holds `skc_reuse:4`, `skc_reuseport:1`, `skc_ipv6only:1`.
    skc_reuse: Offset("sock_common.skc_reuse"),
    /// First bit of `skc_reuse` in its byte.
    skc_reuse_shift: BitShift("sock_common.skc_reuse"),
    /// Byte of `skc_reuseport`.
    skc_reuseport: Offset("sock_common.skc_reuseport"),
    /// Bit of `skc_reuseport` in its byte.
    skc_reuseport_shift: BitShift("sock_common.skc_reuseport"),
    /// Byte of `skc_ipv6only`.
    skc_ipv6only: Offset("sock_common.skc_ipv6only"),
    /// Bit of `skc_ipv6only` in its byte.
    skc_ipv6only_shift: BitShift("sock_common.skc_ipv6only"),
    /// Bound device (int).
    skc_bound_dev_if: Offset("sock_common.skc_bound_dev_if"),
    /// Link in a bind bucket's owner list (`hlist_node`).
    skc_bind_node: Offset("sock_common.skc_bind_node"),
    /// `struct proto *`.
    skc_prot: Offset("sock_common.skc_prot"),
    /// Network namespace pointer. Absent with CONFIG_NET_NS=n.
    skc_net: Offset("sock_common.skc_net.net"),
    /// Remote IPv6 address. Absent with CONFIG_IPV6=n.
    skc_v6_daddr: Offset("sock_common.skc_v6_daddr"),
    /// Local IPv6 address. Absent with CONFIG_IPV6=n.
    skc_v6_rcv_saddr: Offset("sock_common.skc_v6_rcv_saddr"),
    /// Socket cookie (atomic64): 0 until somebody asked for it.
    skc_cookie: Offset("sock_common.skc_cookie"),

    // struct sock: everything after sock_common moves between releases.
    /// Accept-queue depth (u32).
    sk_ack_backlog: Offset("sock.sk_ack_backlog"),
    /// Accept-queue limit (u32).
    sk_max_ack_backlog: Offset("sock.sk_max_ack_backlog"),
    /// IP protocol (u16): IPPROTO_TCP, or 262 for MPTCP.
    sk_protocol: Offset("sock.sk_protocol"),
    /// Socket type (u16): a raw socket may have IPPROTO_TCP, too.
    sk_type: Offset("sock.sk_type"),
    /// Error that ended the connection (int).
    sk_err: Offset("sock.sk_err"),
    /// Error that ends the connection if nothing better comes (int): what an ICMP message said while connect() was busy.
    sk_err_soft: Offset("sock.sk_err_soft"),
    /// Owner's uid (kuid_t).
    sk_uid: Offset("sock.sk_uid"),
    /// `struct socket *`; NULL for orphans and not-yet-accepted children.
    sk_socket: Offset("sock.sk_socket"),
    /// Byte that holds `sk_userlocks:4`.
    sk_userlocks: Offset("sock.sk_userlocks"),
    /// First bit of `sk_userlocks` in its byte.
    sk_userlocks_shift: BitShift("sock.sk_userlocks"),
    /// Drops counted against the socket (atomic).
    sk_drops: Offset("sock.sk_drops"),
    /// `struct file *` of a socket.
    socket_file: Offset("socket.file"),
    /// `struct sock *` of a socket.
    socket_sk: Offset("socket.sk"),
    /// `struct inode *` of a file.
    file_inode: Offset("file.f_inode"),
    /// `private_data` of a file: the `struct socket *` of a socket's file.
    file_private: Offset("file.private_data"),
    /// `f_op` of a file.
    file_op: Offset("file.f_op"),
    /// Inode number.
    inode_ino: Offset("inode.i_ino"),
    /// Inode mode (umode_t): tells a socket's inode.
    inode_mode: Offset("inode.i_mode"),

    // The listener's queues.
    /// Requests in the SYN queue (atomic_t).
    icsk_qlen: Offset("inet_connection_sock.icsk_accept_queue.qlen"),
    /// Requests never timed out (atomic_t).
    icsk_young: Offset("inet_connection_sock.icsk_accept_queue.young"),
    /// How often the timer sent the same segment again (u8).
    icsk_retransmits: Offset("inet_connection_sock.icsk_retransmits"),
    /// Bind bucket that the socket belongs to (`struct inet_bind_bucket *`).
    icsk_bind_hash: Offset("inet_connection_sock.icsk_bind_hash"),

    // inet options that decide a bind conflict.
    /// Source port (be16): survives the release that zeroes skc_num.
    inet_sport: Offset("inet_sock.inet_sport"),
    /// Byte of `freebind`: a bit-field of inet_sock up to 6.5, bit `inet_flag_freebind` of `inet_flags` since.
    inet_freebind: Offset("inet_sock.freebind"),
    /// Bit of `freebind` in its byte.
    inet_freebind_shift: BitShift("inet_sock.freebind"),
    /// Byte of `transparent`, likewise.
    inet_transparent: Offset("inet_sock.transparent"),
    /// Bit of `transparent` in its byte.
    inet_transparent_shift: BitShift("inet_sock.transparent"),
    /// `inet_flags` (unsigned long), since 6.6.
    inet_flags: Offset("inet_sock.inet_flags"),
    /// Number of the bit of `inet_flags` that says freebind.
    inet_flag_freebind: Enumerator(".INET_FLAGS_FREEBIND"),
    /// Number of the bit of `inet_flags` that says transparent.
    inet_flag_transparent: Enumerator(".INET_FLAGS_TRANSPARENT"),
    /// Byte of `bind_address_no_port`, up to 6.5.
    inet_late_port: Offset("inet_sock.bind_address_no_port"),
    /// Its bit in that byte.
    inet_late_port_shift: BitShift("inet_sock.bind_address_no_port"),
    /// Number of the bit of `inet_flags` that says IP_BIND_ADDRESS_NO_PORT, since 6.6.
    inet_flag_late_port: Enumerator(".INET_FLAGS_BIND_ADDRESS_NO_PORT"),
    /// The socket's own range of ports, since 6.3: the first in the lower half word, the last in the upper.
    inet_own_range: Offset("inet_sock.local_port_range"),

    // Network namespace and its TCP settings.
    /// Namespace inode number.
    net_inum: Offset("net.ns.inum"),
    /// Mixed into every hash of the namespace (u32); `net_hash_mix()`.
    net_hash_mix: Offset("net.hash_mix"),
    /// `net.ipv4.sysctl_tcp_syncookies`.
    net_syncookies: Offset("net.ipv4.sysctl_tcp_syncookies"),
    /// Its size: int up to 5.12, u8 since.
    net_syncookies_size: Size("net.ipv4.sysctl_tcp_syncookies"),
    /// `net.ipv4.sysctl_tcp_abort_on_overflow`: an int up to 5.13, u8 since; its low byte is first either way.
    net_abort_on_overflow: Offset("net.ipv4.sysctl_tcp_abort_on_overflow"),
    /// `net.core.sysctl_somaxconn`.
    net_somaxconn: Offset("net.core.sysctl_somaxconn"),
    /// Per-namespace hash info (pointer), since 6.1; the offset is of the pointer `hashinfo` in an embedded death row.
    /// Older kernels that embed the death row (5.10) have the pointer too; in between (some of 5.18 to 6.0) the death row
    /// is a pointer itself and this is absent.
    net_hashinfo: Offset("net.ipv4.tcp_death_row.hashinfo"),

    // The bind hash: who holds a port.
    /// Hash info of a protocol up to 6.0: `sk->sk_prot->h.hashinfo`.
    proto_hashinfo: Offset("proto.h.hashinfo"),
    /// Bind hash table (pointer to `struct inet_bind_hashbucket`).
    hashinfo_bhash: Offset("inet_hashinfo.bhash"),
    /// Number of its buckets (unsigned int), a power of two.
    hashinfo_bhash_size: Offset("inet_hashinfo.bhash_size"),
    /// Size in bytes of one bucket: what lies between two in the table.
    bhash_bucket_size: Size("inet_bind_hashbucket"),
    /// Chain of a bucket (`hlist_head`).
    bhash_bucket_chain: Offset("inet_bind_hashbucket.chain"),
    /// Namespace of a bind bucket (`possible_net_t`).
    tb_net: Offset("inet_bind_bucket.ib_net"),
    /// Port of a bind bucket (u16).
    tb_port: Offset("inet_bind_bucket.port"),
    /// `fastreuse` of a bind bucket (s8).
    tb_fastreuse: Offset("inet_bind_bucket.fastreuse"),
    /// `fastreuseport` of a bind bucket (s8).
    tb_fastreuseport: Offset("inet_bind_bucket.fastreuseport"),
    /// Link of a bind bucket in its chain (`hlist_node`).
    tb_node: Offset("inet_bind_bucket.node"),
    /// Owners of a bind bucket (`hlist_head`), up to 6.7.
    tb_owners: Offset("inet_bind_bucket.owners"),
    /// Second-level buckets of a bind bucket (`hlist_head`), since 6.8.
    tb_bhash2: Offset("inet_bind_bucket.bhash2"),
    /// Owners of a second-level bucket.
    tb2_owners: Offset("inet_bind2_bucket.owners"),
    /// Link of a second-level bucket in its bind bucket, since 6.8.
    tb2_bhash_node: Offset("inet_bind2_bucket.bhash_node"),
    /// `tw_substate` of a TIME_WAIT socket.
    tw_substate: Offset("inet_timewait_sock.tw_substate"),

    // Half-open requests.
    /// Timer of a request: its handler gets this address.
    req_timer: Offset("request_sock.rsk_timer"),
    /// Byte of `num_timeout` (7 bits): how often the timer ran out.
    req_num_timeout: Offset("request_sock.num_timeout"),
    /// First bit of `num_timeout` in its byte.
    req_num_timeout_shift: BitShift("request_sock.num_timeout"),
    /// Listener of a request.
    req_listener: Offset("sock_common.skc_listener"),
    /// Link of a request in the table of established sockets: `pprev` behind `next` is NULL when it is in none.
    req_hash_link: Offset("sock_common.skc_nulls_node.pprev"),
    /// Byte of `acked` (1 bit): the final ACK came and was put aside.
    req_acked: Offset("inet_request_sock.acked"),
    /// Bit of `acked` in its byte.
    req_acked_shift: BitShift("inet_request_sock.acked"),
    /// `TCP_DEFER_ACCEPT` of a listener (u8): 0 for off.
    icsk_defer_accept: Offset("inet_connection_sock.icsk_accept_queue.rskq_defer_accept"),
    /// When the first SYN-ACK was sent (`CLOCK_MONOTONIC`, µs); 0 for never, and for cookies.
    req_snt_synack: Offset("tcp_request_sock.snt_synack"),

    // MPTCP, where it is built in.
    /// First subflow of an MPTCP socket (`struct sock *`): what was in the accept queue.
    mptcp_first: Offset("mptcp_sock.first"),

    // Packets: only addresses and ports of a SYN.
    /// Start of a packet's buffer.
    skb_head: Offset("sk_buff.head"),
    /// Offset of the network header from `head` (u16).
    skb_network_header: Offset("sk_buff.network_header"),
    /// Offset of the transport header from `head` (u16).
    skb_transport_header: Offset("sk_buff.transport_header"),
    /// Socket that a packet belongs to, or is for.
    skb_sk: Offset("sk_buff.sk"),
    /// Device of a packet.
    skb_dev: Offset("sk_buff.dev"),
    /// Index of the device that a packet came in by (int); 0 if it was made here.
    skb_iif: Offset("sk_buff.skb_iif"),
    /// Route of a packet: `struct dst_entry *`, whose lowest bit is a flag.
    skb_refdst: Offset("sk_buff._skb_refdst"),
    /// Where a route hands incoming packets to.
    dst_input: Offset("dst_entry.input"),
    /// Device of a route.
    dst_dev: Offset("dst_entry.dev"),
    /// Type of an IPv4 route (u16): RTN_LOCAL for an address of this host.
    rtable_type: Offset("rtable.rt_type"),
    /// Flags of an IPv6 route (u32): RTF_LOCAL for an address of this host.
    rt6_flags: Offset("rt6_info.rt6i_flags"),
    /// Network namespace of a device.
    dev_net: Offset("net_device.nd_net.net"),
    /// Segments with data that a socket has sent (u32).
    tcp_data_segs_out: Offset("tcp_sock.data_segs_out"),
    /// Segments with data that it has received (u32).
    tcp_data_segs_in: Offset("tcp_sock.data_segs_in"),
    /// Packet type id (be16): ETH_P_IP or ETH_P_IPV6.
    skb_protocol: Offset("sk_buff.protocol"),

    // Tasks: from a file descriptor to its socket, for the tracepoint tier.
    /// Process id of a task (thread group; pid_t).
    task_tgid: Offset("task_struct.tgid"),
    /// Thread id of a task (pid_t).
    task_pid: Offset("task_struct.pid"),
    /// Command name of a task.
    task_comm: Offset("task_struct.comm"),
    /// Flags of a task (unsigned int): PF_EXITING.
    task_flags: Offset("task_struct.flags"),
    /// Credentials that the task acts by (pointer).
    task_cred: Offset("task_struct.cred"),
    /// Real uid (`kuid_t`) of credentials.
    cred_uid: Offset("cred.uid"),
    /// Number of the helper that gives the current task as a typed pointer; since 5.11.
    helper_current_task_btf: Enumerator("bpf_func_id.BPF_FUNC_get_current_task_btf"),
    /// Open files of a task.
    task_files: Offset("task_struct.files"),
    /// File-descriptor table of open files (pointer).
    files_fdt: Offset("files_struct.fdt"),
    /// Size of a descriptor table (unsigned int).
    fdt_max_fds: Offset("fdtable.max_fds"),
    /// Array of files of a descriptor table (pointer).
    fdt_fd: Offset("fdtable.fd"),

    /// Kernel stack of a task (pointer): the registers that its system call saved are at its end.
    task_stack: Offset("task_struct.stack"),
    /// What the threads of a process share of signals and limits (pointer).
    task_signal: Offset("task_struct.signal"),
    /// Resource limits of a process: an array of pairs, soft and hard (u64).
    signal_rlim: Offset("signal_struct.rlim"),

    // Saved registers of a system call.
    /// Second argument (x86_64). The kernel side reads registers at constant offsets, and only where they are these.
    regs_si: Offset("pt_regs.si"),
    /// First argument (x86_64), of system calls as well.
    regs_di: Offset("pt_regs.di"),
    /// All arguments (arm64): an array of u64.
    regs_regs: Offset("pt_regs.regs"),
    /// Number of the system call (x86_64).
    regs_orig_ax: Offset("pt_regs.orig_ax"),
    /// First system-call argument (arm64).
    regs_orig_x0: Offset("pt_regs.orig_x0"),
    /// Number of the system call (arm64, int).
    regs_syscallno: Offset("pt_regs.syscallno"),
    /// How much room the registers take.
    regs_size: Size("pt_regs"),

    /// There with PREEMPT_RT alone, where a spinlock sleeps: softirqs are threads then, and one may be preempted by another.
    realtime_lock: Offset("spinlock.lock"),

    // Functions: how many parameters, so where a fexit program finds the return value.
    /// 2 from 6.10 on, 4 before.
    params_inet_csk_accept: Params("inet_csk_accept"),
    /// 6, or 7 with the fix that reached 6.1, 6.12 and 6.18 in 2026.
    params_tcp_v4_syn_recv_sock: Params("tcp_v4_syn_recv_sock"),
    /// Likewise.
    params_tcp_v6_syn_recv_sock: Params("tcp_v6_syn_recv_sock"),
    /// 3 up to 5.10, then 4, 5 from 6.10 on.
    params_tcp_v4_route_req: Params("tcp_v4_route_req"),
    /// Likewise.
    params_tcp_v6_route_req: Params("tcp_v6_route_req"),
    /// 1 from 5.17 on, 2 before.
    params_inet_csk_listen_start: Params("inet_csk_listen_start"),
    /// 4 on every kernel seen.
    params_inet_csk_complete_hashdance: Params("inet_csk_complete_hashdance"),

    // Helpers that not every kernel has.
    /// `bpf_sock_from_file()`, since 5.11.
    helper_sock_from_file: Enumerator("bpf_func_id.BPF_FUNC_sock_from_file"),

    // Tracepoint prototypes: `btf_trace_NAME` is a typedef of a pointer to a function whose first parameter is `void *`.
    /// Parameters of `kfree_skb` with the leading context: 3 up to 5.16, 4 with a reason, 5 with the receiving socket (6.11).
    params_trace_kfree_skb: Params("btf_trace_kfree_skb"),
    /// Parameters of `tcp_retransmit_skb` with the leading context: 3 up to 6.16, 4 with an error number since.
    params_trace_tcp_retransmit_skb: Params("btf_trace_tcp_retransmit_skb"),

    // Names of drop reasons.
    /// No reason given.
    drop_not_specified: Enumerator("skb_drop_reason.SKB_DROP_REASON_NOT_SPECIFIED"),
    /// No socket; since 5.17.
    drop_no_socket: Enumerator("skb_drop_reason.SKB_DROP_REASON_NO_SOCKET"),
    /// netfilter; since 5.18.
    drop_netfilter: Enumerator("skb_drop_reason.SKB_DROP_REASON_NETFILTER_DROP"),
    /// Final ACK dropped because the accept queue was full; since 6.15.
    drop_tcp_listen_overflow: Enumerator("skb_drop_reason.SKB_DROP_REASON_TCP_LISTEN_OVERFLOW"),
}
