//! Packets made and read by hand, for clients that no kernel plays: TCP over IPv4 and IPv6, and the one ICMP message that
//! ends a handshake.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// A TCP segment to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    pub(super) data: &'a [u8],
}

impl Segment<'_> {
    /// The IP packet with this segment in it. A SYN says its maximum segment size, and no other option.
    pub(super) fn packet(&self) -> Vec<u8> {
        const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];
        const WINDOW: u16 = 64240;
        let options: &[u8] = if self.flags & SYN == 0 { &[] } else { &MSS };
        let words: u8 = if options.is_empty() { 5 } else { 6 };
        let mut tcp = Vec::with_capacity(32 + self.data.len());
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgement.to_be_bytes());
        tcp.extend([words << 4, self.flags]);
        tcp.extend(WINDOW.to_be_bytes());
        tcp.extend([0; 4]); // checksum and urgent pointer
        tcp.extend(options);
        tcp.extend(self.data);
        packet(self.from.ip(), self.to.ip(), TCP, tcp, 16)
    }
}

/// A TCP segment that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    /// Bytes of data in it.
    pub(super) data: u32,
    /// The IP packet, from its first byte.
    packet: &'a [u8],
}

impl<'a> Seen<'a> {
    /// Reads an Ethernet frame; None if it has no TCP header in it. Checksums are not looked at: within one machine
    /// nobody fills them in.
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET_HEADER..)?;
        let (from, to, header, length): (IpAddr, IpAddr, _, _) = match packet.first()? >> 4 {
            4 if packet.get(9) == Some(&TCP) => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let from = Ipv4Addr::from(array::<4>(packet, 12)?);
                let to = Ipv4Addr::from(array::<4>(packet, 16)?);
                (from.into(), to.into(), header, usize::from(u16::from_be_bytes(array(packet, 2)?)))
            }
            6 if packet.get(6) == Some(&TCP) => {
                let from = Ipv6Addr::from(array::<16>(packet, 8)?);
                let to = Ipv6Addr::from(array::<16>(packet, 24)?);
                let payload = usize::from(u16::from_be_bytes(array(packet, 4)?));
                (from.into(), to.into(), IPV6_HEADER, IPV6_HEADER + payload)
            }
            _ => return None,
        };
        // Short frames are padded: the length that counts is the packet's own.
        let packet = packet.get(..length)?;
        let tcp = packet.get(header..)?;
        let offset = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            from: SocketAddr::new(from, u16::from_be_bytes(array(tcp, 0)?)),
            to: SocketAddr::new(to, u16::from_be_bytes(array(tcp, 2)?)),
            sequence: u32::from_be_bytes(array(tcp, 4)?),
            acknowledgement: u32::from_be_bytes(array(tcp, 8)?),
            flags: *tcp.get(13)?,
            data: u32::try_from(tcp.get(offset..)?.len()).ok()?,
            packet,
        })
    }

    /// A router's word to the sender that the packet cannot be delivered, of the kind that ends a handshake.
    pub(super) fn unreachable(&self, router: IpAddr) -> Vec<u8> {
        // Host unreachable; for IPv6, administratively prohibited: the sender may try on after "no route" there.
        let (protocol, kind, code) = if router.is_ipv4() { (ICMP, 3, 1) } else { (ICMP_V6, 1, 1) };
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        message.extend(self.packet.iter().take(1200));
        packet(router, self.from.ip(), protocol, message, 2)
    }
}

/// Puts Ethernet in front of an IP packet.
pub(super) fn framed(from: [u8; 6], to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind: u16 = if packet.first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { 0x0800 };
    [&to[..], &from, &kind.to_be_bytes(), packet].concat()
}

/// Puts an IP header in front of a payload, and the payload's checksum, which covers both, at `checksum_at` in it.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, mut payload: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    const HOPS: u8 = 64;
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (from, to) => [in_v6(from).octets(), in_v6(to).octets()].concat(),
    };
    let ipv4 = addresses.len() == 8;
    // ICMP for IPv4 alone does not count the addresses in.
    let covered: &[u8] = if protocol == ICMP { &[] } else { &addresses };
    let pseudo = if protocol == ICMP { 0 } else { u32::from(protocol) + u32::from(length) };
    let checksum = fold(sum(covered) + sum(&payload) + pseudo);
    put(&mut payload, checksum_at, checksum);

    let mut packet = Vec::with_capacity(IPV6_HEADER + payload.len());
    if ipv4 {
        let total = length.saturating_add(IPV4_HEADER as u16).to_be_bytes();
        packet.extend([0x45, 0, total[0], total[1], 0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
        packet.extend(&addresses);
        let checksum = fold(sum(&packet));
        put(&mut packet, 10, checksum);
    } else {
        let length = length.to_be_bytes();
        packet.extend([0x60, 0, 0, 0, length[0], length[1], protocol, HOPS]);
        packet.extend(&addresses);
    }
    packet.extend(payload);
    packet
}

fn in_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(u16::from_be_bytes([high, 0])),
        _ => 0,
    });
    pairs.sum()
}

/// The checksum of a message that has zeroes in its place (RFC 1071).
pub(in crate::rehearse) fn checksum(message: &[u8]) -> u16 {
    fold(sum(message))
}

/// The one's complement of a one's complement sum.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(ipv6: bool) -> Segment<'static> {
        let ends =
            if ipv6 { ["[fd78::7:5]:40001", "[fd77::1]:80"] } else { ["10.78.7.5:40001", "10.77.0.1:80"] };
        let [from, to] = ends.map(|end| end.parse().unwrap());
        Segment { from, to, sequence: 0xfeed_f00d, acknowledgement: 7, flags: ACK | PSH, data: b"odd" }
    }

    #[test]
    fn what_is_written_is_read() {
        for ipv6 in [false, true] {
            for flags in [SYN, ACK | PSH] {
                let segment = Segment { flags, ..segment(ipv6) };
                let packet = segment.packet();
                let mut frame = framed([1; 6], [2; 6], &packet);
                frame.extend([0; 9]); // padding
                let seen = Seen::read(&frame).unwrap();
                assert_eq!((seen.from, seen.to, seen.flags), (segment.from, segment.to, flags));
                assert_eq!((seen.sequence, seen.acknowledgement, seen.data), (0xfeed_f00d, 7, 3));
                assert_eq!(seen.packet, packet);
            }
        }
    }

    /// A sum over everything that a right checksum covers, itself included, comes out as nothing.
    #[test]
    fn checksums_are_right() {
        let v4 = segment(false).packet();
        assert_eq!(fold(sum(&v4[..20])), 0);
        assert_eq!(fold(sum(&v4[12..]) + 6 + u32::try_from(v4.len() - 20).unwrap()), 0);
        let v6 = segment(true).packet();
        assert_eq!(fold(sum(&v6[8..]) + 6 + u32::try_from(v6.len() - 40).unwrap()), 0);

        let frame = framed([0; 6], [0; 6], &v4);
        let icmp = Seen::read(&frame).unwrap().unreachable("10.77.0.2".parse().unwrap());
        assert_eq!((fold(sum(&icmp[20..])), icmp[20], icmp[21]), (0, 3, 1));
        assert_eq!(icmp[28..], v4);
        let frame = framed([0; 6], [0; 6], &v6);
        let icmp = Seen::read(&frame).unwrap().unreachable("fd77::2".parse().unwrap());
        assert_eq!(fold(sum(&icmp[8..]) + 58 + u32::try_from(icmp.len() - 40).unwrap()), 0);
    }

    #[test]
    fn a_cut_frame_is_no_segment() {
        for ipv6 in [false, true] {
            let frame = framed([0; 6], [0; 6], &segment(ipv6).packet());
            assert!((0..frame.len()).all(|length| Seen::read(&frame[..length]).is_none()));
        }
        assert_eq!(Seen::read(&[0xff; 80]), None);
    }
}
