//! Typed views of kernel structures: the only file that knows offsets.
//!
//! Offsets come from [`LAYOUT`], which user space fills from the running kernel's BTF before it loads a program. The
//! verifier reads that map as constants, so a load through a BTF pointer at such an offset is checked like a load of a
//! named member, and a branch on [`ABSENT`] is pruned.

mod task_file;

use core::marker::PhantomData;

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
    bpf_get_current_uid_gid,
    generated::{bpf_get_current_task_btf, bpf_probe_read_kernel as raw_probe_read_kernel},
};
use tcptrace_common::{
    ABSENT, KernelLayout, TraceConfig,
    open_socket::OpenSocketQuery,
    port::{OPT_FREEBIND, OPT_LATE_PORT, OPT_REUSEADDR, OPT_REUSEPORT, OPT_TRANSPARENT, OPT_V6ONLY},
    record::{ListenerRef, REQUEST_ACKED, REQUEST_DEFERRED},
    wire::{AF_INET, AF_INET6, COMM_LEN, Endpoints, TASK_EXITING, TASK_FLAGS_SEEN, Task},
};

pub use task_file::TaskFile;

/// The running kernel's layout. Overridden at load.
#[unsafe(no_mangle)]
pub static LAYOUT: KernelLayout = KernelLayout::NOTHING;

/// What the user asked for. Overridden at load.
#[unsafe(no_mangle)]
pub static CONFIG: TraceConfig = TraceConfig {
    flags: 0,
    netns: 0,
    port_count: 0,
    pad: 0,
    ports: [0; tcptrace_common::config::PORT_FILTERS],
};

/// What an iteration over open sockets is asked for. Overridden at load.
#[unsafe(no_mangle)]
pub static OPEN_SOCKETS: OpenSocketQuery = OpenSocketQuery { first: 0, last: u16::MAX, remember: 0 };

/// An entry of [`LAYOUT`], read so that the compiler cannot fold in the value it sees here.
macro_rules! layout {
    ($entry:ident) => {
        // SAFETY: LAYOUT is an initialised static; volatile because user space replaces it before load.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::LAYOUT.$entry) }
    };
}
pub(crate) use layout;

/// TCP states as the kernel numbers them (include/net/tcp_states.h).
pub mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}

/// How memory behind a pointer may be read.
pub trait Access: Copy {
    /// The `T` at `base + offset`; zero where the memory cannot be read.
    fn read<T: Copy>(base: u64, offset: u32) -> T;
}

/// Loads through a pointer whose type the verifier knows (fentry, fexit and BTF tracepoint arguments, and what is loaded
/// through them). A fault reads as zero (exception table).
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

/// In `sk_userlocks` (include/net/sock.h): bind() gave the socket an address.
const SOCK_BINDADDR_LOCK: u8 = 4;

/// `struct sock`, or as much of it as a request or TIME_WAIT socket shares (`struct sock_common`).
#[derive(Clone, Copy)]
pub struct Sock<A> {
    at: u64,
    access: PhantomData<A>,
}

impl<A: Access> Sock<A> {
    #[inline(always)]
    pub fn at(at: u64) -> Self {
        Self { at, access: PhantomData }
    }

    /// That of a `struct socket`.
    #[inline(always)]
    pub fn of_socket(socket: u64) -> Self {
        Self::at(A::read(socket, layout!(socket_sk)))
    }

    /// Its address: an identity.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.at
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        A::read(self.at, layout!(skc_state))
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        A::read(self.at, layout!(skc_family))
    }

    #[inline(always)]
    pub fn local_port(self) -> u16 {
        A::read(self.at, layout!(skc_num))
    }

    /// Source port as it goes on the wire: still there after the local port was given back.
    ///
    /// Probed in every tier, as all that lies beyond `struct sock`: hooks are typed `struct sock *`, and the verifier
    /// refuses direct loads past its end.
    #[inline(always)]
    pub fn source_port(self) -> u16 {
        u16::from_be(Probed::read(self.at, layout!(inet_sport)))
    }

    #[inline(always)]
    pub fn remote_port(self) -> u16 {
        u16::from_be(A::read(self.at, layout!(skc_dport)))
    }

    /// Local and remote port, by one load where the kernel keeps them side by side (`skc_portpair`).
    #[inline(always)]
    pub fn ports(self) -> (u16, u16) {
        if layout!(skc_dport) + 2 != layout!(skc_num) {
            return (self.local_port(), self.remote_port());
        }
        let pair: u32 = A::read(self.at, layout!(skc_dport));
        ((pair >> 16) as u16, u16::from_be(pair as u16))
    }

    #[inline(always)]
    pub fn protocol(self) -> u16 {
        A::read(self.at, layout!(sk_protocol))
    }

    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        self.protocol() == u16::from(IPPROTO_TCP)
    }

    #[inline(always)]
    pub fn socket_type(self) -> u16 {
        A::read(self.at, layout!(sk_type))
    }

    /// `sk_userlocks`: what the application fixed by setsockopt() or bind().
    #[inline(always)]
    pub fn locks(self) -> u8 {
        if layout!(sk_userlocks) == ABSENT {
            return 0;
        }
        let byte: u8 = A::read(self.at, layout!(sk_userlocks));
        (byte >> layout!(sk_userlocks_shift)) & 0xf
    }

    /// 0 until somebody asked for it.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        A::read(self.at, layout!(skc_cookie))
    }

    #[inline(always)]
    pub fn net(self) -> Net<A> {
        if layout!(skc_net) == ABSENT {
            return Net::at(0);
        }
        Net::at(A::read(self.at, layout!(skc_net)))
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        if layout!(skc_net) == ABSENT || layout!(net_inum) == ABSENT {
            return 0;
        }
        self.net().inum()
    }

    #[inline(always)]
    pub fn device(self) -> u32 {
        A::read(self.at, layout!(skc_bound_dev_if))
    }

    #[inline(always)]
    pub fn accept_queue_depth(self) -> u32 {
        A::read(self.at, layout!(sk_ack_backlog))
    }

    #[inline(always)]
    pub fn accept_queue_limit(self) -> u32 {
        A::read(self.at, layout!(sk_max_ack_backlog))
    }

    #[inline(always)]
    pub fn syn_queue(self) -> u32 {
        Probed::read(self.at, layout!(icsk_qlen))
    }

    /// A listener with `TCP_DEFER_ACCEPT`.
    #[inline(always)]
    pub fn defers_accept(self) -> bool {
        layout!(icsk_defer_accept) != ABSENT && Probed::read::<u8>(self.at, layout!(icsk_defer_accept)) != 0
    }

    /// The error that ended the connection (`sk_err`), positive; 0 for none.
    #[inline(always)]
    pub fn error(self) -> u32 {
        A::read(self.at, layout!(sk_err))
    }

    /// What an ICMP message said about the connection without ending it (`sk_err_soft`), positive; 0 for nothing.
    #[inline(always)]
    pub fn soft_error(self) -> u32 {
        A::read(self.at, layout!(sk_err_soft))
    }

    /// How often its timer has sent the same segment again.
    #[inline(always)]
    pub fn retransmits(self) -> u8 {
        Probed::read(self.at, layout!(icsk_retransmits))
    }

    /// A connection over which no data has gone, in either direction.
    #[inline(always)]
    pub fn is_unused(self) -> bool {
        let sent: u32 = Probed::read(self.at, layout!(tcp_data_segs_out));
        let received: u32 = Probed::read(self.at, layout!(tcp_data_segs_in));
        layout!(tcp_data_segs_out) != ABSENT && sent == 0 && received == 0
    }

    #[inline(always)]
    pub fn uid(self) -> u32 {
        A::read(self.at, layout!(sk_uid))
    }

    /// Inode number of the socket's file; 0 for orphans, kernel sockets and children not yet accepted.
    #[inline(always)]
    pub fn ino(self) -> u64 {
        let socket: u64 = A::read(self.at, layout!(sk_socket));
        let file: u64 = A::read(socket, layout!(socket_file));
        let inode: u64 = A::read(file, layout!(file_inode));
        A::read(inode, layout!(inode_ino))
    }

    /// Bit set of `port::OPT_*`.
    #[inline(always)]
    pub fn options(self) -> u8 {
        let reuse: u8 = A::read(self.at, layout!(skc_reuse));
        let reuseport: u8 = A::read(self.at, layout!(skc_reuseport));
        let v6only: u8 = A::read(self.at, layout!(skc_ipv6only));
        let mut options = 0;
        if (reuse >> layout!(skc_reuse_shift)) & 0xf != 0 {
            options |= OPT_REUSEADDR;
        }
        if (reuseport >> layout!(skc_reuseport_shift)) & 1 != 0 {
            options |= OPT_REUSEPORT;
        }
        if (v6only >> layout!(skc_ipv6only_shift)) & 1 != 0 {
            options |= OPT_V6ONLY;
        }
        options
    }

    /// Options of an inet socket beyond those of [`Self::options`]; not for TIME_WAIT or request sockets.
    #[inline(always)]
    pub fn inet_options(self) -> u8 {
        let mut options = 0;
        if layout!(inet_flags) != ABSENT
            && layout!(inet_flag_freebind) != ABSENT
            && layout!(inet_flag_transparent) != ABSENT
        {
            let flags: u64 = Probed::read(self.at, layout!(inet_flags));
            if (flags >> layout!(inet_flag_freebind)) & 1 != 0 {
                options |= OPT_FREEBIND;
            }
            if (flags >> layout!(inet_flag_transparent)) & 1 != 0 {
                options |= OPT_TRANSPARENT;
            }
            if layout!(inet_flag_late_port) != ABSENT && (flags >> layout!(inet_flag_late_port)) & 1 != 0 {
                options |= OPT_LATE_PORT;
            }
        } else if layout!(inet_freebind) != ABSENT && layout!(inet_transparent) != ABSENT {
            let freebind: u8 = Probed::read(self.at, layout!(inet_freebind));
            let transparent: u8 = Probed::read(self.at, layout!(inet_transparent));
            if (freebind >> layout!(inet_freebind_shift)) & 1 != 0 {
                options |= OPT_FREEBIND;
            }
            if (transparent >> layout!(inet_transparent_shift)) & 1 != 0 {
                options |= OPT_TRANSPARENT;
            }
            if layout!(inet_late_port) != ABSENT {
                let late: u8 = Probed::read(self.at, layout!(inet_late_port));
                if (late >> layout!(inet_late_port_shift)) & 1 != 0 {
                    options |= OPT_LATE_PORT;
                }
            }
        }
        options
    }

    /// The range of ports that the socket has for itself: the first in the lower half, the last in the upper; 0 for none.
    #[inline(always)]
    pub fn own_range(self) -> u32 {
        if layout!(inet_own_range) == ABSENT {
            return 0;
        }
        Probed::read(self.at, layout!(inet_own_range))
    }

    /// Whether bind() gave it an address.
    #[inline(always)]
    pub fn has_bound_address(self) -> bool {
        self.locks() & SOCK_BINDADDR_LOCK != 0
    }

    #[inline(always)]
    pub fn local_address(self) -> [u8; 16] {
        bytes(self.local_address_words())
    }

    #[inline(always)]
    pub fn remote_address(self) -> [u8; 16] {
        bytes(self.remote_address_words())
    }

    #[inline(always)]
    fn local_address_words(self) -> [u64; 2] {
        if self.is_v6() {
            A::read(self.at, layout!(skc_v6_rcv_saddr))
        } else {
            mapped_words(A::read(self.at, layout!(skc_rcv_saddr)))
        }
    }

    /// The remote address in two loads or stores instead of sixteen.
    #[inline(always)]
    pub fn remote_address_words(self) -> [u64; 2] {
        if self.is_v6() {
            A::read(self.at, layout!(skc_v6_daddr))
        } else {
            mapped_words(A::read(self.at, layout!(skc_daddr)))
        }
    }

    #[inline(always)]
    fn is_v6(self) -> bool {
        layout!(skc_v6_daddr) != ABSENT && self.family() == AF_INET6
    }

    /// Both ends, with `local_port` given because the kernel sets and clears `skc_num` around the hooks.
    #[inline(always)]
    pub fn fill_endpoints(self, to: &mut Endpoints, local_port: u16) {
        to.local = self.local_address();
        to.remote_port = self.remote_port();
        if to.remote_port != 0 {
            to.remote = self.remote_address();
        }
        to.local_port = local_port;
        to.family = self.family();
        to.netns = self.netns();
        to.device = self.device();
    }

    /// Both ends of a connection, as [`Self::fill_endpoints`] has them.
    #[inline(always)]
    pub fn endpoints(self, local_port: u16) -> Endpoints {
        let remote_port = self.remote_port();
        Endpoints {
            local: self.local_address(),
            remote: if remote_port != 0 { self.remote_address() } else { [0; 16] },
            local_port,
            remote_port,
            family: self.family(),
            pad: 0,
            netns: self.netns(),
            device: self.device(),
        }
    }

    /// Identity and queues of a listener.
    #[inline(always)]
    pub fn as_listener(self) -> ListenerRef {
        ListenerRef {
            sk: self.at,
            ino: self.ino(),
            depth: self.accept_queue_depth(),
            limit: self.accept_queue_limit(),
            syn_queue: self.syn_queue(),
            pad: 0,
        }
    }
}

/// An IPv4 address (be32 as loaded) as an IPv4-mapped IPv6 address.
#[inline(always)]
pub fn mapped(v4: u32) -> [u8; 16] {
    bytes(mapped_words(v4))
}

/// The same, as two words in memory order.
#[inline(always)]
fn mapped_words(v4: u32) -> [u64; 2] {
    [0, u64::from(0xffff_u32.to_be()) | u64::from(v4) << 32]
}

#[inline(always)]
fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: two words are sixteen bytes, and any bytes are valid.
    unsafe { core::mem::transmute(words) }
}

/// Whether an address is an IPv4 address mapped into IPv6.
#[inline(always)]
pub fn is_mapped(address: &[u8; 16]) -> bool {
    address[..10] == [0; 10] && address[10] == 0xff && address[11] == 0xff
}

/// `struct net`.
#[derive(Clone, Copy)]
pub struct Net<A> {
    at: u64,
    access: PhantomData<A>,
}

impl<A: Access> Net<A> {
    #[inline(always)]
    pub fn at(at: u64) -> Self {
        Self { at, access: PhantomData }
    }

    #[inline(always)]
    pub fn id(self) -> u64 {
        self.at
    }

    #[inline(always)]
    pub fn inum(self) -> u32 {
        A::read(self.at, layout!(net_inum))
    }

    /// `net.ipv4.tcp_syncookies`.
    #[inline(always)]
    pub fn syncookies(self) -> u32 {
        if layout!(net_syncookies) == ABSENT {
            return 0;
        }
        // An int up to 5.12, u8 since (and in 5.10's stable series).
        if layout!(net_syncookies_size) == 1 {
            u32::from(A::read::<u8>(self.at, layout!(net_syncookies)))
        } else {
            A::read(self.at, layout!(net_syncookies))
        }
    }

    /// `net.ipv4.tcp_abort_on_overflow`.
    #[inline(always)]
    pub fn aborts_on_overflow(self) -> bool {
        layout!(net_abort_on_overflow) != ABSENT
            && A::read::<u8>(self.at, layout!(net_abort_on_overflow)) != 0
    }

    /// `net.core.somaxconn`; 0 where it cannot be read.
    #[inline(always)]
    pub fn somaxconn(self) -> u32 {
        if layout!(net_somaxconn) == ABSENT { 0 } else { A::read(self.at, layout!(net_somaxconn)) }
    }
}

/// `struct request_sock`: a half-open request. Always probed: in its timer's handler it is reached through its timer, which
/// no type says.
#[derive(Clone, Copy)]
pub struct Request(u64);

impl Request {
    #[inline(always)]
    pub fn at(at: u64) -> Self {
        Self(at)
    }

    /// The request that owns a timer (`from_timer(req, t, rsk_timer)`).
    #[inline(always)]
    pub fn of_timer(timer: u64) -> Self {
        Self(timer.wrapping_sub(u64::from(layout!(req_timer))))
    }

    #[inline(always)]
    pub fn id(self) -> u64 {
        self.0
    }

    /// What it shares with sockets: its addresses.
    #[inline(always)]
    pub fn sock(self) -> Sock<Probed> {
        Sock::at(self.0)
    }

    /// Its listener; address 0 for none.
    #[inline(always)]
    pub fn listener(self) -> Sock<Probed> {
        Sock::at(Probed::read(self.0, layout!(req_listener)))
    }

    /// How often its timer ran out.
    #[inline(always)]
    pub fn timeouts(self) -> u32 {
        let byte: u8 = Probed::read(self.0, layout!(req_num_timeout));
        u32::from(byte >> layout!(req_num_timeout_shift)) & 0x7f
    }

    /// It is still in the table where packets find it.
    #[inline(always)]
    pub fn is_hashed(self) -> bool {
        Probed::read::<u64>(self.0, layout!(req_hash_link)) != 0
    }

    /// Bit set of `record::REQUEST_*`.
    #[inline(always)]
    pub fn flags(self) -> u32 {
        let mut flags = 0;
        if layout!(req_acked) != ABSENT {
            let byte: u8 = Probed::read(self.0, layout!(req_acked));
            if (byte >> layout!(req_acked_shift)) & 1 != 0 {
                flags |= REQUEST_ACKED;
            }
        }
        if self.listener().defers_accept() {
            flags |= REQUEST_DEFERRED;
        }
        flags
    }

    /// When its first SYN-ACK was sent, µs of `CLOCK_MONOTONIC`; 0 for never.
    #[inline(always)]
    pub fn first_synack_us(self) -> u64 {
        Probed::read(self.0, layout!(req_snt_synack))
    }

    /// The ends of the request. Its family is its listener's, so that of an IPv4 peer of an IPv6 listener is told by its
    /// IPv6 address not being set.
    #[inline(always)]
    pub fn fill_endpoints(self, to: &mut Endpoints) {
        let request = self.sock();
        request.fill_endpoints(to, request.local_port());
        let v4: u32 = Probed::read(self.0, layout!(skc_daddr));
        if to.family == AF_INET6 && v4 != 0 && to.remote == [0; 16] {
            to.remote = mapped(v4);
            to.local = mapped(Probed::read(self.0, layout!(skc_rcv_saddr)));
        }
    }
}

/// `struct sk_buff`, as far as the addresses of a TCP segment go.
#[derive(Clone, Copy)]
pub struct Skb<A> {
    at: u64,
    access: PhantomData<A>,
}

/// A received segment's two ends.
pub struct Segment {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub source_port: u16,
    pub destination_port: u16,
}

/// RST flag of a TCP segment (RFC 9293).
pub const TCP_RST: u8 = 0x04;
/// ACK flag.
pub const TCP_ACK: u8 = 0x10;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;

/// What of a TCP segment tells its place in a connection.
pub struct TcpHeader {
    pub flags: u8,
    /// Bytes of data.
    pub payload: u32,
}

impl<A: Access> Skb<A> {
    #[inline(always)]
    pub fn at(at: u64) -> Self {
        Self { at, access: PhantomData }
    }

    /// Carries IPv4, whatever the family of the socket that receives it.
    #[inline(always)]
    pub fn is_ipv4(self) -> bool {
        u16::from_be(A::read(self.at, layout!(skb_protocol))) == ETH_P_IP
    }

    #[inline(always)]
    pub fn segment(self) -> Segment {
        let head: u64 = A::read(self.at, layout!(skb_head));
        let network = head + u64::from(A::read::<u16>(self.at, layout!(skb_network_header)));
        let transport = head + u64::from(A::read::<u16>(self.at, layout!(skb_transport_header)));
        // Packet bytes have no BTF type: they are probed in every tier. Wire formats: RFC 791, RFC 8200, RFC 9293.
        let ports: [u16; 2] = Probed::read(transport, 0);
        let (source, destination) = if self.is_ipv4() {
            let addresses: [u32; 2] = Probed::read(network, 12);
            (mapped(addresses[0]), mapped(addresses[1]))
        } else {
            let addresses: [[u8; 16]; 2] = Probed::read(network, 8);
            (addresses[0], addresses[1])
        };
        Segment {
            source,
            destination,
            source_port: u16::from_be(ports[0]),
            destination_port: u16::from_be(ports[1]),
        }
    }

    /// The flags byte of a TCP segment: bit set of `TCP_*`.
    #[inline(always)]
    pub fn tcp_flags(self) -> u8 {
        let head: u64 = A::read(self.at, layout!(skb_head));
        let transport = head + u64::from(A::read::<u16>(self.at, layout!(skb_transport_header)));
        Probed::read(transport, 13)
    }

    /// Type and code of a received ICMP message (RFC 792), as bytes 1 and 0.
    #[inline(always)]
    pub fn icmp_type(self) -> u16 {
        let head: u64 = A::read(self.at, layout!(skb_head));
        let transport = head + u64::from(A::read::<u16>(self.at, layout!(skb_transport_header)));
        u16::from_be(Probed::read(transport, 0))
    }

    /// Where its network header is.
    #[inline(always)]
    fn network(self) -> u64 {
        let head: u64 = A::read(self.at, layout!(skb_head));
        head + u64::from(A::read::<u16>(self.at, layout!(skb_network_header)))
    }

    /// Its TCP header, found from the network header: the transport header may not be known yet. Without flags for anything
    /// else, for fragments, and behind IPv6 extension headers.
    #[inline(always)]
    pub fn tcp(self) -> TcpHeader {
        let network = self.network();
        let protocol = u16::from_be(A::read(self.at, layout!(skb_protocol)));
        let (transport, rest) = if protocol == ETH_P_IP {
            let first: u8 = Probed::read(network, 0);
            let [length, _, offset]: [u16; 3] = Probed::read(network, 2);
            let next: u8 = Probed::read(network, 9);
            if next != IPPROTO_TCP || u16::from_be(offset) & 0x1fff != 0 {
                return TcpHeader { flags: 0, payload: 0 };
            }
            let header = u32::from(first & 0xf) * 4;
            (header, u32::from(u16::from_be(length)).wrapping_sub(header))
        } else if protocol == ETH_P_IPV6 {
            let length: u16 = Probed::read(network, 4);
            let next: u8 = Probed::read(network, 6);
            if next != IPPROTO_TCP {
                return TcpHeader { flags: 0, payload: 0 };
            }
            (40, u32::from(u16::from_be(length)))
        } else {
            return TcpHeader { flags: 0, payload: 0 };
        };
        let [offset, flags]: [u8; 2] = Probed::read(network + u64::from(transport), 12);
        TcpHeader { flags, payload: rest.wrapping_sub(u32::from(offset >> 4) * 4) }
    }

    /// Like [`Self::segment`], for packets whose transport header may not be known yet.
    #[inline(always)]
    pub fn segment_by_network_header(self) -> Segment {
        let network = self.network();
        if self.is_ipv4() {
            let first: u8 = Probed::read(network, 0);
            let addresses: [u32; 2] = Probed::read(network, 12);
            let ports: [u16; 2] = Probed::read(network + u64::from(first & 0xf) * 4, 0);
            Segment {
                source: mapped(addresses[0]),
                destination: mapped(addresses[1]),
                source_port: u16::from_be(ports[0]),
                destination_port: u16::from_be(ports[1]),
            }
        } else {
            let addresses: [[u8; 16]; 2] = Probed::read(network, 8);
            let ports: [u16; 2] = Probed::read(network, 40);
            Segment {
                source: addresses[0],
                destination: addresses[1],
                source_port: u16::from_be(ports[0]),
                destination_port: u16::from_be(ports[1]),
            }
        }
    }

    /// Address of the socket that it belongs to, or is for; 0 for none.
    #[inline(always)]
    pub fn socket(self) -> u64 {
        A::read(self.at, layout!(skb_sk))
    }

    /// Index of the device that it came in by; 0 if it was made here.
    #[inline(always)]
    pub fn arrived_by(self) -> u32 {
        A::read(self.at, layout!(skb_iif))
    }

    /// Its route; 0 for none.
    #[inline(always)]
    fn route(self) -> u64 {
        let reference: u64 = A::read(self.at, layout!(skb_refdst));
        reference & !1
    }

    /// The function that its route hands it to when it comes in; 0 if it has no route.
    #[inline(always)]
    pub fn destined_input(self) -> u64 {
        let route = self.route();
        if route == 0 { 0 } else { Probed::read(route, layout!(dst_input)) }
    }

    /// Its network namespace: that of its device if it came in by one, else of its socket, else of its route.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        if layout!(dev_net) == ABSENT || layout!(net_inum) == ABSENT {
            return 0;
        }
        let socket = self.socket();
        let mut device: u64 = 0;
        if self.arrived_by() != 0 {
            device = A::read(self.at, layout!(skb_dev));
        } else if socket != 0 {
            return Sock::<Probed>::at(socket).netns();
        }
        if device == 0 {
            let route = self.route();
            if route == 0 {
                return 0;
            }
            device = Probed::read(route, layout!(dst_dev));
        }
        Net::<Probed>::at(Probed::read(device, layout!(dev_net))).inum()
    }

    /// The ends of a segment that `listener` received.
    #[inline(always)]
    pub fn received(self, listener: Sock<A>) -> Endpoints {
        let segment = self.segment();
        Endpoints {
            local: segment.destination,
            remote: segment.source,
            local_port: segment.destination_port,
            remote_port: segment.source_port,
            family: listener.family(),
            pad: 0,
            netns: listener.netns(),
            device: listener.device(),
        }
    }
}

/// The thread in whose context a process-context hook runs.
pub mod current {
    use super::{
        ABSENT, Access as _, COMM_LEN, Direct, Probed, Sock, TASK_EXITING, TASK_FLAGS_SEEN, Task,
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_get_current_task_btf, bpf_get_current_uid_gid, bytes,
    };

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
}

/// The bind hash: which sockets hold a port.
pub mod bind_hash {
    use super::{ABSENT, Access, Net, Probed, Sock};

    /// `struct inet_bind_bucket` of one port in one namespace.
    #[derive(Clone, Copy)]
    pub struct Bucket(u64);

    /// How many buckets of a hash chain, and second-level buckets of a bucket, are looked at: chains are short (the table
    /// is sized for the host's memory), and a bound keeps the verifier and the host safe.
    const CHAIN: u32 = 64;

    /// Chain head of `port` in the namespace of `sk`; 0 when this kernel's hash cannot be found.
    #[inline(always)]
    fn chain<A: Access>(sk: Sock<A>, net: Net<A>, port: u16) -> u64 {
        // Per namespace since 6.1 (tcp_death_row.hashinfo); before, of the protocol (sk_prot->h.hashinfo).
        let info: u64 = if layout!(net_hashinfo) != ABSENT {
            Probed::read(net.id(), layout!(net_hashinfo))
        } else if layout!(proto_hashinfo) != ABSENT {
            let prot: u64 = Probed::read(sk.id(), layout!(skc_prot));
            Probed::read(prot, layout!(proto_hashinfo))
        } else {
            0
        };
        if info == 0 {
            return 0;
        }
        let table: u64 = Probed::read(info, layout!(hashinfo_bhash));
        let size: u32 = Probed::read(info, layout!(hashinfo_bhash_size));
        let mix: u32 =
            if layout!(net_hash_mix) == ABSENT { 0 } else { Probed::read(net.id(), layout!(net_hash_mix)) };
        // inet_bhashfn(): (port + net_hash_mix(net)) & (size - 1)
        let index = u32::from(port).wrapping_add(mix) & size.wrapping_sub(1);
        table
            + u64::from(index) * u64::from(layout!(bhash_bucket_size))
            + u64::from(layout!(bhash_bucket_chain))
    }

    impl Bucket {
        /// The bucket of `port` in the namespace of `sk`. The bind lock is not held: best effort, and nothing is followed
        /// but through reads that may fail.
        #[inline(always)]
        pub fn find<A: Access>(sk: Sock<A>, port: u16) -> Option<Self> {
            let net = sk.net();
            let head = chain(sk, net, port);
            if head == 0 {
                return None;
            }
            let mut node: u64 = Probed::read(head, 0);
            for _ in 0..CHAIN {
                if node == 0 {
                    break;
                }
                let bucket = node - u64::from(layout!(tb_node));
                let bucket_port: u16 = Probed::read(bucket, layout!(tb_port));
                let bucket_net: u64 = Probed::read(bucket, layout!(tb_net));
                if bucket_port == port && bucket_net == net.id() {
                    return Some(Self(bucket));
                }
                node = Probed::read(node, 0);
            }
            None
        }

        /// `fastreuse` in byte 0, `fastreuseport` in byte 1.
        #[inline(always)]
        pub fn reuse_state(self) -> u32 {
            let fastreuse: u8 = Probed::read(self.0, layout!(tb_fastreuse));
            let fastreuseport: u8 = Probed::read(self.0, layout!(tb_fastreuseport));
            u32::from(fastreuse) | u32::from(fastreuseport) << 8
        }

        /// Where to begin walking its owners.
        #[inline(always)]
        pub fn owners(self) -> Owners {
            if layout!(tb_bhash2) != ABSENT {
                // Since 6.8 the owners hang below second-level buckets, one for each bound address.
                let second: u64 = Probed::read(self.0, layout!(tb_bhash2));
                let mut owners = Owners { node: 0, second };
                owners.descend();
                owners
            } else {
                Owners { node: Probed::read(self.0, layout!(tb_owners)), second: 0 }
            }
        }
    }

    /// A walk over the sockets that own a bind bucket.
    pub struct Owners {
        /// Link of the current socket.
        node: u64,
        /// Link of the second-level bucket whose owners come next; 0 before 6.8.
        second: u64,
    }

    impl Owners {
        /// Goes to the first owner below the next second-level bucket.
        #[inline(always)]
        fn descend(&mut self) {
            if self.second != 0 {
                let bucket = self.second - u64::from(layout!(tb2_bhash_node));
                self.node = Probed::read(bucket, layout!(tb2_owners));
                self.second = Probed::read(self.second, 0);
            }
        }

        /// The current owner, if any, and one step on. A step may find no owner though more follow (an empty second-level
        /// bucket): [`Self::is_done`] tells.
        #[inline(always)]
        pub fn step(&mut self) -> Option<Sock<Probed>> {
            let at = self.node;
            if at != 0 {
                self.node = Probed::read(at, 0);
            }
            if self.node == 0 && layout!(tb_bhash2) != ABSENT {
                self.descend();
            }
            (at != 0).then(|| Sock::at(at - u64::from(layout!(skc_bind_node))))
        }

        #[inline(always)]
        pub fn is_done(&self) -> bool {
            self.node == 0 && self.second == 0
        }
    }
}

/// Second argument of a system call, from the registers that its wrapper got (x86_64).
#[inline(always)]
pub fn syscall_second_argument<A: Access>(registers: u64) -> u64 {
    A::read(registers, layout!(regs_si))
}

/// Where a `struct sockaddr` in kernel memory points to: address and port, for the families of TCP.
#[inline(always)]
pub fn socket_address(at: u64) -> Option<([u8; 16], u16)> {
    // struct sockaddr_in and sockaddr_in6: part of the system-call interface.
    let [family, port]: [u16; 2] = Probed::read(at, 0);
    let address = match family {
        AF_INET => mapped(Probed::read(at, 4)),
        AF_INET6 => Probed::read(at, 8),
        _ => return None,
    };
    Some((address, u16::from_be(port)))
}
