//! `struct sock`.

use core::marker::PhantomData;

use tcptrace_common::{
    ABSENT,
    port::{OPT_FREEBIND, OPT_LATE_PORT, OPT_REUSEADDR, OPT_REUSEPORT, OPT_TRANSPARENT, OPT_V6ONLY},
    record::ListenerRef,
    wire::{AF_INET6, Endpoints},
};

use super::{
    Access, IPPROTO_TCP, Net, Probed,
    address::{bytes, mapped_words},
    layout,
};

const IPPROTO_MPTCP: u16 = 262;
const SOCK_STREAM: u16 = 1;
/// In `sk_userlocks` (include/net/sock.h): bind() gave the socket an address.
const SOCK_BINDADDR_LOCK: u8 = 4;
/// Likewise: bind() was asked for a port by number, and gave it.
const SOCK_BINDPORT_LOCK: u8 = 8;

/// `struct sock`, or as much of it as a request or TIME_WAIT socket shares (`struct sock_common`).
#[derive(Clone, Copy)]
pub struct Sock<A> {
    at: u64,
    /// Its `struct net`, if `has_net`.
    net: u64,
    has_net: bool,
    access: PhantomData<A>,
}

impl<A: Access> Sock<A> {
    #[inline(always)]
    pub fn at(at: u64) -> Self {
        Self { at, net: 0, has_net: false, access: PhantomData }
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

    /// A multipath TCP socket, as the application has it; its subflows are TCP sockets.
    #[inline(always)]
    pub fn is_mptcp(self) -> bool {
        self.protocol() == IPPROTO_MPTCP
    }

    /// Of a multipath TCP socket the subflow that was accepted first; any other socket itself.
    #[inline(always)]
    pub fn first_subflow(self) -> Self {
        if layout!(mptcp_first) == ABSENT || !self.is_mptcp() {
            return self;
        }
        Self::at(A::read(self.at, layout!(mptcp_first)))
    }

    /// What an application calls a TCP socket, where the kernel may hand over one of any kind.
    #[inline(always)]
    pub fn is_tcp_of_application(self) -> bool {
        (self.is_tcp() || self.is_mptcp()) && self.socket_type() == SOCK_STREAM
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

    /// The same, its network namespace looked up once for all. For each load of a pointer from an argument the verifier searches
    /// the kernel's types by name, from first to last (`btf_nested_type_is_trusted`, 6.4 to 6.18): a millisecond, and again on
    /// each path.
    #[inline(always)]
    pub fn with_net(self) -> Self {
        Self { net: self.net().id(), has_net: true, ..self }
    }

    #[inline(always)]
    pub fn net(self) -> Net<A> {
        if self.has_net {
            return Net::at(self.net);
        }
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
        // None of these is followed where it is null: a direct load that faults is no zero in every kernel, see `Direct`.
        let socket: u64 = A::read(self.at, layout!(sk_socket));
        if socket == 0 {
            return 0;
        }
        let file: u64 = A::read(socket, layout!(socket_file));
        if file == 0 {
            return 0;
        }
        let inode: u64 = A::read(file, layout!(file_inode));
        if inode == 0 { 0 } else { A::read(inode, layout!(inode_ino)) }
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

    /// Whether bind() gave it the port that it asked for by number; `unknown` where the kernel does not tell.
    #[inline(always)]
    pub fn has_bound_port(self, unknown: bool) -> bool {
        if layout!(sk_userlocks) == ABSENT { unknown } else { self.locks() & SOCK_BINDPORT_LOCK != 0 }
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
