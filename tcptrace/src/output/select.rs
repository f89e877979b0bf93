//! Which findings and events to print: the filters that the kernel cannot apply, because a dropped packet belongs to no
//! process and a finding names several.

use std::net::IpAddr;

use serde_json::Value;

use crate::event::{Event, Kind, Task};
use crate::finding::Finding;

/// What a user wants to see; empty lists want everything. Between lists: all must agree.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Codes of findings.
    pub codes: Vec<String>,
    /// Process ids.
    pub pids: Vec<u32>,
    /// Command names.
    pub comms: Vec<String>,
    /// Parts of a container's, pod's or unit's name.
    pub containers: Vec<String>,
    /// Networks that a remote address must be in.
    pub peers: Vec<Network>,
}

impl Selection {
    fn is_everybody(&self) -> bool {
        self.pids.is_empty() && self.comms.is_empty() && self.containers.is_empty() && self.peers.is_empty()
    }

    /// Whether a finding is wanted: its code, and one of the parties that it names.
    pub fn wants(&self, finding: &Finding) -> bool {
        if !self.codes.is_empty() && !self.codes.iter().any(|code| code == finding.code) {
            return false;
        }
        if self.is_everybody() {
            return true;
        }
        let (Ok(subject), Ok(evidence)) =
            (serde_json::to_value(&finding.subject), serde_json::to_value(&finding.evidence))
        else {
            return true;
        };
        // A finding about a listener has many peers and names none: it is not about the one asked for, nor about another.
        let mut parties = vec![&subject];
        parties.extend(evidence.get("requester"));
        parties.extend(evidence.get("holders").and_then(Value::as_array).into_iter().flatten());
        parties.iter().any(|party| self.wants_party(party))
    }

    fn wants_party(&self, party: &Value) -> bool {
        let text = |name: &str| party.get(name).and_then(Value::as_str);
        let pid = party.get("pid").and_then(Value::as_u64);
        let remote = text("remote").and_then(|remote| remote.parse::<std::net::SocketAddr>().ok());
        (self.pids.is_empty() || self.pids.iter().any(|wanted| pid == Some(u64::from(*wanted))))
            && (self.comms.is_empty() || self.comms.iter().any(|wanted| text("comm") == Some(wanted)))
            && (self.containers.is_empty()
                || self
                    .containers
                    .iter()
                    .any(|wanted| text("container").is_some_and(|c| c.contains(wanted.as_str()))))
            && (self.peers.is_empty()
                || remote.is_none_or(|remote| self.peers.iter().any(|network| network.contains(remote.ip()))))
    }

    /// Whether an event is wanted. Events of softirq context name no process: a filter for processes leaves them out.
    pub fn wants_event(&self, event: &Event) -> bool {
        if self.is_everybody() {
            return true;
        }
        let (task, remote): (Option<&Task>, _) = match &event.kind {
            Kind::Listen(e) => (Some(&e.task), None),
            Kind::Syn(e) => (None, e.endpoints.remote),
            Kind::SynDrop(e) => (None, e.endpoints.remote),
            Kind::AckDrop(e) => (None, e.endpoints.remote),
            Kind::Enqueue(e) => (None, e.endpoints.remote),
            Kind::Accept(e) => (Some(&e.task), e.endpoints.remote),
            Kind::BindFail(e) => (Some(&e.task), None),
            Kind::HandshakeDrop(e) => (e.task.as_ref(), e.endpoints.remote),
            Kind::NoListener(e) => (None, e.endpoints.remote),
            Kind::Connect(e) => (e.task.as_ref(), e.endpoints.remote),
            Kind::PortTaken(e) => (Some(&e.task), e.endpoints.remote),
            Kind::PortReleased(e) => (None, e.endpoints.remote),
            Kind::ListenerClosed(e) => (Some(&e.task), None),
            _ => return true,
        };
        (self.pids.is_empty() || task.is_some_and(|task| self.pids.contains(&task.pid)))
            && (self.comms.is_empty() || task.is_some_and(|task| self.comms.contains(&task.comm)))
            && (self.peers.is_empty()
                || remote
                    .is_some_and(|remote| self.peers.iter().any(|network| network.contains(remote.ip()))))
    }
}

/// An IP network: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` lies in it. An IPv4-mapped address is the IPv4 address that it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a network: use 10.0.0.0/8, fd00::/8 or an address");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix > longest {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        assert!(network("10.0.0.0/8").contains("10.255.1.2".parse().unwrap()));
        assert!(!network("10.0.0.0/8").contains("11.0.0.0".parse().unwrap()));
        assert!(network("10.0.0.7").contains("::ffff:10.0.0.7".parse().unwrap()));
        assert!(!network("10.0.0.7").contains("10.0.0.6".parse().unwrap()));
        assert!(network("0.0.0.0/0").contains("1.2.3.4".parse().unwrap()));
        assert!(!network("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(network("fd00::/8").contains("fdab::1".parse().unwrap()));
        assert!(!network("::1/128").contains("::2".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/x", "host", "::/129", "/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn parties_are_wanted_by_name_and_number() {
        let selection = Selection { pids: vec![7], comms: vec!["nginx".to_owned()], ..Selection::default() };
        assert!(selection.wants_party(&serde_json::json!({"pid": 7, "comm": "nginx"})));
        assert!(!selection.wants_party(&serde_json::json!({"pid": 7, "comm": "other"})));
        assert!(!selection.wants_party(&serde_json::json!({"pid": null, "comm": "nginx"})));
    }
}
