//! What netfilter does to packets of a network namespace: rules of nf_tables and of legacy iptables that drop, translate, redirect
//! or steer, IPVS services, queues that are read, and connection tracking.
//!
//! Everything here only reads, and asks nothing whose question would load a module or start to track connections.

pub mod conntrack;
mod expression;
pub mod ipvs;
mod legacy;
mod netlink;
mod nft;
mod packet;
mod queues;
pub mod ruleset;
mod set;
mod tracking;
mod wire;
mod xtables;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netns::{Netns, NetnsError};
use crate::event::RuleFacts;
use ruleset::Ruleset;

pub use packet::{Hook, RulePacket};
pub use queues::queues;
pub(super) use tracking::column;
pub use tracking::{Conntrack, ConntrackReader};

/// Why netfilter could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum NetfilterError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel could not be asked, or refused.
    #[error("cannot ask netfilter in network namespace {netns}: {source}")]
    Ask {
        /// The namespace.
        netns: u32,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// The rules of a namespace.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Those that could be read.
    pub rules: Ruleset,
    /// What could not be read, in words.
    pub unread: Vec<String>,
}

/// Reads the rules of a namespace: nf_tables' (iptables-nft keeps its rules there as well), then legacy iptables'. Costs a dump of
/// the ruleset, which is long on some hosts: not for every packet.
pub fn rules(netns: &Netns) -> Rules {
    let mut found = Rules::default();
    if let Err(error) = nft::read(netns, &mut found) {
        found.unread.push(format!("nf_tables rules: {error}"));
    }
    legacy::read(netns, &mut found);
    found
}

impl Rules {
    /// What they say about a packet that netfilter dropped, or could not queue.
    pub fn about(&self, packet: &RulePacket) -> RuleFacts {
        let mut facts = self.rules.about(packet);
        facts.unread.clone_from(&self.unread);
        facts
    }
}

/// An address as netlink has it.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}
