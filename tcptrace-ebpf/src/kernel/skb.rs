//! `struct sk_buff`.

use core::marker::PhantomData;

use tcptrace_common::{ABSENT, wire::Endpoints};

use super::{Access, IPPROTO_TCP, Net, Probed, Sock, address::mapped, layout};

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

    /// Whether it is for an address of this host: the kernel answers nothing else by an RST (`tcp_v4_send_reset()`,
    /// `tcp_v6_send_reset()`). Assumed where its route does not tell.
    #[inline(always)]
    pub fn is_for_this_host(self) -> bool {
        const RTN_LOCAL: u16 = 2;
        const RTF_LOCAL: u32 = 0x8000_0000;
        let route = self.route();
        if route == 0 {
            true
        } else if self.is_ipv4() {
            let known = layout!(rtable_type) != ABSENT;
            !known || Probed::read::<u16>(route, layout!(rtable_type)) == RTN_LOCAL
        } else {
            let known = layout!(rt6_flags) != ABSENT;
            !known || Probed::read::<u32>(route, layout!(rt6_flags)) & RTF_LOCAL != 0
        }
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
