//! Which findings and events to print: the filters that the kernel cannot apply, because a dropped packet belongs to no
//! process and a finding names several.

use std::net::IpAddr;

use crate::correlate::Correlator;
use crate::event::{About, Event, PlaceFilter};
use crate::finding::{Finding, Party, Value};

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
    /// Ports and network namespaces. Of a live trace nothing else comes here.
    pub place: PlaceFilter,
}

impl Selection {
    /// Whether all processes, peers, ports and namespaces are wanted.
    pub fn is_everybody(&self) -> bool {
        self.pids.is_empty()
            && self.comms.is_empty()
            && self.containers.is_empty()
            && self.peers.is_empty()
            && self.place.is_everywhere()
    }

    /// Whether nothing is left out, no kind of finding either.
    pub fn is_everything(&self) -> bool {
        self.is_everybody() && self.codes.is_empty()
    }

    /// The same as the user wrote it, an option each.
    pub fn words(&self) -> Vec<String> {
        let ports = Some(&self.place.ports).filter(|ports| !ports.is_empty());
        let ports = ports.into_iter().map(|ports| format!("--port {ports}"));
        let netns = self.place.netns.iter().map(|netns| format!("--netns {netns}"));
        let pids = self.pids.iter().map(|pid| format!("--pid {pid}"));
        let comms = self.comms.iter().map(|name| format!("--comm {name}"));
        let containers = self.containers.iter().map(|name| format!("--container {name}"));
        let peers = self.peers.iter().map(|network| format!("--peer {network}"));
        let codes = self.codes.iter().map(|code| format!("--finding {code}"));
        ports.chain(netns).chain(pids).chain(comms).chain(containers).chain(peers).chain(codes).collect()
    }

    /// Whether a finding is wanted: its code, and one of the parties that it names.
    pub fn wants(&self, finding: &Finding) -> bool {
        if !self.codes.is_empty() && !self.codes.iter().any(|code| code == finding.code) {
            return false;
        }
        if self.is_everybody() {
            return true;
        }
        // A finding about a listener has many peers and names none: it is not about the one asked for, nor about another.
        let mut parties = vec![&finding.subject];
        if let Some(Value::Party(requester)) = finding.evidence.get("requester") {
            parties.push(requester);
        }
        if let Some(Value::Parties(holders)) = finding.evidence.get("holders") {
            parties.extend(holders);
        }
        self.wants_place(finding) && parties.iter().any(|party| self.wants_party(party))
    }

    /// Whether it is about one of the ports and the namespace that were asked for, as far as it is about any.
    fn wants_place(&self, finding: &Finding) -> bool {
        let subject = &finding.subject;
        let port = subject.port.or(subject.address.map(|address| address.port()));
        self.place.wants(&About { netns: subject.netns, ports: [port, None], ..About::default() })
    }

    fn wants_party(&self, party: &Party) -> bool {
        let process = party.process.as_ref();
        let pid = process.and_then(|process| process.pid);
        let comm = process.and_then(|process| process.comm.as_deref());
        let container = process.and_then(|process| process.container.as_deref());
        let within = |wanted: &String| container.is_some_and(|of| of.contains(wanted.as_str()));
        (self.pids.is_empty() || self.pids.iter().any(|wanted| pid == Some(*wanted)))
            && (self.comms.is_empty() || self.comms.iter().any(|wanted| comm == Some(wanted.as_str())))
            && (self.containers.is_empty() || self.containers.iter().any(within))
            && party.remote.is_none_or(|remote| self.wants_peer(remote.ip()))
    }

    /// Whether an event is wanted: by its sockets' ends, and by one of the processes that it names or that are known to have
    /// its listener. What is about no socket and no process is always wanted.
    pub fn wants_event(&self, event: &Event, world: &Correlator) -> bool {
        if self.is_everybody() {
            return true;
        }
        let about = event.kind.about();
        if about.is_nothing() {
            return true;
        }
        self.place.wants(&about)
            && about.peer.is_none_or(|peer| self.wants_peer(peer))
            && self.wants_processes(&about, world)
    }

    fn wants_peer(&self, peer: IpAddr) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|network| network.contains(peer))
    }

    fn wants_processes(&self, about: &About<'_>, world: &Correlator) -> bool {
        if self.pids.is_empty() && self.comms.is_empty() && self.containers.is_empty() {
            return true;
        }
        let listeners = world.listeners();
        let known = about.listener.and_then(|of| {
            // The tracepoint tier does not see which socket it is: then any of that port.
            let same_port = || {
                about
                    .netns
                    .zip(about.ports[0])
                    .and_then(|(netns, port)| listeners.at_port(netns, port).next())
            };
            listeners.with_sk(of.sk).or_else(|| listeners.with_inode(of.inode)).or_else(same_port)
        });
        let owners = known.into_iter().flat_map(|listener| listener.owners.iter());
        let owners = owners.map(|owner| (owner.pid, owner.comm.as_str()));
        about.processes.iter().copied().chain(owners).any(|(pid, comm)| {
            let info = world.processes().info(pid);
            // A name may have changed since.
            let is = |wanted: &String| comm == wanted || info.is_some_and(|info| info.comm == *wanted);
            let within = |wanted: &String| {
                info.and_then(|info| info.container.as_ref()).is_some_and(|of| of.contains(wanted.as_str()))
            };
            (self.pids.is_empty() || self.pids.contains(&pid))
                && (self.comms.is_empty() || self.comms.iter().any(is))
                && (self.containers.is_empty() || self.containers.iter().any(within))
        })
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

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
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
    use crate::event::{
        Endpoints, Family, Kind, Listen, ListenerRef, ProcessInfo, SocketOptions, SynDrop, SynDropCause,
        Task, Timestamp,
    };
    use crate::finding::ProcessName;

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

    fn ends(local: &str, remote: Option<&str>) -> Endpoints {
        Endpoints {
            netns: 1,
            family: Family::V4,
            local: local.parse().unwrap(),
            remote: remote.map(|remote| remote.parse().unwrap()),
            device: 0,
        }
    }

    /// A drop names no process: it belongs to whoever has the listener.
    #[test]
    fn events_are_wanted_by_their_ends_and_by_who_has_the_listener() {
        let mut world = Correlator::default();
        let of = ListenerRef { sk: 9, inode: 7, depth: 0, limit: 5, syn_queue: 0 };
        let info = ProcessInfo {
            pid: 33,
            comm: "nginx".to_owned(),
            container: Some("docker:abc".to_owned()),
            ..ProcessInfo::default()
        };
        let listen = Listen {
            endpoints: ends("10.0.0.1:80", None),
            listener: of,
            task: Task { pid: 33, tid: 33, comm: "nginx".into(), ..Task::default() },
            backlog: Some(5),
            somaxconn: None,
            options: SocketOptions::NONE,
            again: false,
        };
        let event = |kind| Event { time: Timestamp::from_nanos(1), kind };
        for event in [event(Kind::ProcessInfo(Box::new(info))), event(Kind::Listen(Box::new(listen)))] {
            world.on_event(&event, &mut Vec::new());
        }
        let drop = event(Kind::SynDrop(SynDrop {
            endpoints: ends("10.0.0.1:80", Some("192.0.2.7:40000")),
            listener: of,
            cause: SynDropCause::AcceptQueue,
            syncookies: 1,
            total: 1,
        }));
        let everybody = Selection::default;
        let at = |ports: &str, netns: &[u32]| Selection {
            place: PlaceFilter { ports: ports.parse().unwrap(), netns: netns.to_vec() },
            ..Selection::default()
        };
        for (selection, wanted) in [
            (everybody(), true),
            (Selection { pids: vec![33], ..everybody() }, true),
            (Selection { pids: vec![34], ..everybody() }, false),
            (Selection { comms: vec!["nginx".to_owned()], ..everybody() }, true),
            (Selection { comms: vec!["other".to_owned()], ..everybody() }, false),
            (Selection { containers: vec!["abc".to_owned()], ..everybody() }, true),
            (Selection { containers: vec!["xyz".to_owned()], ..everybody() }, false),
            (Selection { peers: vec![network("192.0.2.0/24")], ..everybody() }, true),
            (Selection { peers: vec![network("10.0.0.0/8")], ..everybody() }, false),
            (at("40000", &[]), true),
            (at("443,39000-40000", &[]), true),
            (at("443,39000-39999", &[]), false),
            (at("", &[3, 1]), true),
            (at("", &[2]), false),
            (Selection { pids: vec![33], peers: vec![network("10.0.0.0/8")], ..everybody() }, false),
        ] {
            assert_eq!(selection.wants_event(&drop, &world), wanted, "{selection:?}");
            // What the rest cannot be understood without.
            assert!(selection.wants_event(&event(Kind::Tick), &world));
        }
    }

    #[test]
    fn parties_are_wanted_by_name_and_number() {
        let selection = Selection { pids: vec![7], comms: vec!["nginx".to_owned()], ..Selection::default() };
        let party = |pid: Option<u32>, comm: &str| Party {
            kind: "process",
            process: Some(ProcessName { pid, comm: Some(comm.to_owned()), ..ProcessName::default() }),
            ..Party::default()
        };
        assert!(selection.wants_party(&party(Some(7), "nginx")));
        assert!(!selection.wants_party(&party(Some(7), "other")));
        assert!(!selection.wants_party(&party(None, "nginx")));
    }
}
