//! A packet, as far as rules look at it.

use std::net::{IpAddr, SocketAddr};

use crate::event::Packet;

/// Where packets meet a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Packets that come in by a device.
    Prerouting,
    /// Packets for this namespace.
    Input,
    /// Packets that go through.
    Forward,
    /// Packets that a program of the namespace sends.
    Output,
    /// Packets that leave by a device.
    Postrouting,
}

impl Hook {
    /// From the kernel's number (`NF_INET_*`).
    pub(super) fn of(number: u32) -> Option<Self> {
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting]
            .get(usize::try_from(number).ok()?)
            .copied()
    }
}

/// A packet of a handshake. What is `None` is not known, and what a rule says about it cannot be told.
#[derive(Clone, Debug)]
pub struct RulePacket {
    /// Its source; with port 0, which no connection has, the address alone is known.
    pub source: Option<SocketAddr>,
    /// Its destination.
    pub destination: SocketAddr,
    /// Whether the destination is one of the namespace's own addresses.
    pub is_local: Option<bool>,
    /// Which step of a handshake.
    pub packet: Packet,
    /// It was made here.
    pub outgoing: bool,
    /// Hooks that it may have been in.
    pub hooks: &'static [Hook],
    /// Index of the device that it came in by; 0 where that is not known.
    pub device: u32,
    /// The device's name, or of an outgoing packet the name of the one that it leaves by.
    pub device_name: Option<String>,
}

const TCP: u8 = 6;

const META_PROTOCOL: u32 = 1;
const META_IIF: u32 = 4;
pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
pub(super) const META_L4PROTO: u32 = 16;

/// Where a header begins that bytes are taken from (`NFT_PAYLOAD_*_HEADER`).
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;

/// Bytes, each known or not.
pub(super) type Bytes = Vec<Option<u8>>;

impl RulePacket {
    pub(super) fn source_port(&self) -> Option<u16> {
        self.source.map(|source| source.port()).filter(|port| *port != 0)
    }

    pub(super) fn flags(&self) -> u8 {
        match self.packet {
            Packet::Syn => 0x02,
            Packet::SynAck => 0x12,
            Packet::Ack => 0x10,
        }
    }

    /// Bytes of a header.
    pub(super) fn header(&self, base: u32, offset: u32, length: u32) -> Bytes {
        let header = match base {
            NETWORK => self.network_header(),
            TRANSPORT => self.transport_header(),
            _ => Vec::new(),
        };
        // Offsets and lengths in headers are below 256.
        let size = |number: u32| usize::try_from(number).unwrap_or_default().min(256);
        let (offset, length) = (size(offset), size(length));
        (offset..offset + length).map(|at| header.get(at).copied().flatten()).collect()
    }

    fn network_header(&self) -> Bytes {
        let (protocol_at, source_at, destination_at) =
            if self.destination.is_ipv4() { (9, 12, 16) } else { (6, 8, 24) };
        let mut header = vec![None; 40];
        let mut put = |at: usize, bytes: &[u8]| {
            header.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = Some(*byte));
        };
        put(protocol_at, &[TCP]);
        for (at, address) in [(source_at, self.source), (destination_at, Some(self.destination))] {
            match address.map(|address| address.ip()) {
                Some(IpAddr::V4(ip)) => put(at, &ip.octets()),
                Some(IpAddr::V6(ip)) => put(at, &ip.octets()),
                None => {}
            }
        }
        header
    }

    fn transport_header(&self) -> Bytes {
        let known = |port: u16| port.to_be_bytes().map(Some);
        let source = self.source_port().map_or([None; 2], known);
        let mut header: Bytes = source.into_iter().chain(known(self.destination.port())).collect();
        header.resize(20, None);
        if let Some(place) = header.get_mut(13) {
            *place = Some(self.flags());
        }
        header
    }

    /// A property of the packet; unknown bytes where it is not known.
    pub(super) fn meta(&self, key: u32) -> Bytes {
        let ipv6 = self.destination.is_ipv6();
        let known = |bytes: &[u8]| bytes.iter().copied().map(Some).collect();
        // 16 bytes, filled up with zeroes.
        let name = |wanted: bool| match self.device_name.as_ref().filter(|_| wanted) {
            Some(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(16, 0);
                known(&bytes)
            }
            None => vec![None; 16],
        };
        match key {
            META_L4PROTO => known(&[TCP]),
            META_NFPROTO => known(&[if ipv6 { 10 } else { 2 }]),
            META_PROTOCOL => known(if ipv6 { &[0x86, 0xdd] } else { &[8, 0] }),
            META_IIF if !self.outgoing && self.device != 0 => known(&self.device.to_ne_bytes()),
            META_IIFNAME => name(!self.outgoing),
            META_OIFNAME => name(self.outgoing),
            _ => vec![None; 16],
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A SYN that comes in by eth0.
    pub(in crate::host::netfilter) fn packet(to: &str) -> RulePacket {
        RulePacket {
            source: Some("10.0.0.9:40000".parse().unwrap()),
            destination: to.parse().unwrap(),
            is_local: Some(true),
            packet: Packet::Syn,
            outgoing: false,
            hooks: &[Hook::Input],
            device: 2,
            device_name: Some("eth0".to_owned()),
        }
    }
}
