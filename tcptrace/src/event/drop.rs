//! Packets of handshakes that this host drops on their way, and SYNs for ports that nobody listens on.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::drop_facts::DropFacts;
use super::{Endpoints, Owner, Task, Timestamp};

/// Which step of a handshake a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packet {
    /// A SYN.
    Syn,
    /// A SYN-ACK.
    SynAck,
    /// An ACK without data.
    Ack,
}

impl Packet {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYN",
            Self::SynAck => "SYN-ACK",
            Self::Ack => "ACK",
        }
    }
}

/// A packet of a handshake was dropped on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandshakeDrop {
    /// The packet's ends: local is its destination if it came in, its source if it was made here. The device is the one that it
    /// came in by.
    pub endpoints: Endpoints,
    /// Who connects, where that is known: of SYNs made here.
    pub task: Option<Task>,
    /// Which packet.
    pub packet: Packet,
    /// It was made here, and did not come in by a device.
    pub outgoing: bool,
    /// It is certain that it belongs to a handshake.
    pub handshake: bool,
    /// The kernel's number of the reason; 0 where it gives none.
    pub reason: u32,
    /// Its name for it (`NETFILTER_DROP`).
    pub reason_name: Option<String>,
    /// Where in the kernel it was dropped: a number that stands for the address ([`AddressKey`](super::AddressKey)).
    pub location: u64,
    /// The function at that address (`nf_hook_slow`).
    pub function: Option<String>,
    /// The function that its route hands it to, likewise; 0 if it had no route yet.
    pub input: u64,
    /// The name of that function (`ip_forward`).
    pub input_name: Option<String>,
    /// How many were dropped like this one, itself included.
    pub total: u64,
    /// What the host showed then of what can be behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Box<DropFacts>>,
}

impl HandshakeDrop {
    /// The server's end of the handshake.
    pub fn server(&self) -> SocketAddr {
        // SYNs and final ACKs go to the server, SYN-ACKs come from it.
        let local = self.endpoints.local;
        let remote = self.endpoints.remote.unwrap_or(local);
        if self.outgoing == (self.packet == Packet::SynAck) { local } else { remote }
    }

    /// The client's end.
    pub fn client(&self) -> SocketAddr {
        let local = self.endpoints.local;
        let remote = self.endpoints.remote.unwrap_or(local);
        if self.outgoing == (self.packet == Packet::SynAck) { remote } else { local }
    }

    /// Whether the server's end is this host's: the packet came in for it, or was made by it.
    pub fn is_at_server(&self) -> bool {
        self.outgoing == (self.packet == Packet::SynAck)
    }
}

/// A SYN came for a port that nobody listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoListener {
    /// The address that was called, and who called.
    pub endpoints: Endpoints,
    /// How many SYNs came for this port, this one included.
    pub total: u64,
}

/// Who listens on a port, at whatever address and in whatever namespace, as sock_diag and procfs showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerReport {
    /// Network namespace that it was looked up for.
    pub netns: u32,
    /// The port.
    pub port: u16,
    /// When that was asked for.
    pub asked: Timestamp,
    /// Every listener on that port.
    pub listeners: Vec<ReportedListener>,
    /// Why something may be missing; `None` if complete.
    pub incomplete: Option<String>,
    /// Addresses that processes called at this port in vain, and who has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub called: Vec<CalledAddress>,
}

/// An address that was called, and the network namespaces of this host that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalledAddress {
    /// The address.
    pub address: IpAddr,
    /// Of the namespaces that have a listener on the port: those that have the address.
    pub held_by: Vec<u32>,
}

/// A listener in a [`ListenerReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedListener {
    /// Its network namespace.
    pub netns: u32,
    /// Where it listens.
    pub local: SocketAddr,
    /// It takes IPv6 connections only, if the kernel tells.
    pub v6only: Option<bool>,
    /// Index of the device that it is bound to; 0 for none.
    #[serde(default)]
    pub device: u32,
    /// Inode number of its file.
    pub inode: u64,
    /// Processes that have it open.
    pub owners: Vec<Owner>,
}

impl ReportedListener {
    /// Whether it would take a connection to `called`, an address of its namespace.
    pub fn takes(&self, called: SocketAddr) -> bool {
        if self.local.port() != called.port() || !self.speaks(called) {
            return false;
        }
        self.local.ip().is_unspecified() || self.local.ip() == called.ip()
    }

    /// Whether it takes connections of the address family of `called` at all.
    pub fn speaks(&self, called: SocketAddr) -> bool {
        match (self.local.is_ipv6(), called.is_ipv6()) {
            (true, false) => self.local.ip().is_unspecified() && self.v6only == Some(false),
            (own, other) => own == other,
        }
    }
}
