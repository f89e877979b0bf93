//! Who and where, in the one form that every line of every command has.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::{Owner, OwnerConfidence, PortRange, PortSet, ProcessDetails, SocketOptions, Timestamp};
use crate::finding::{NetworkFacts, Party, ProcessName, SocketFacts};
use crate::identity::cgroup::Runtime;

/// A point in time: RFC 3339, UTC, with nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A point in time: RFC 3339, UTC, with nanoseconds.",
            "type": "string",
            "format": "date-time"
        })
    }
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

/// A process. A member that is null is not known; where all are, there is a process, and it is not known which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: Option<u32>,
    /// Command name (`/proc/PID/comm`), at most 15 bytes.
    pub comm: Option<String>,
    /// Command line, with blanks between arguments.
    pub command: Option<String>,
    /// Path of the executable; ` (deleted)` stands behind it if the file is gone.
    pub exe: Option<String>,
    /// Container, pod or unit that it runs in; null if it runs in none, or that is not known.
    pub container: Option<Container>,
}

impl Process {
    /// Of a process as it is named in texts.
    pub fn of(name: &ProcessName) -> Self {
        Self {
            pid: name.pid,
            comm: name.comm.clone(),
            command: name.command.clone(),
            exe: name.details.exe.clone(),
            container: Container::of(name.container.as_deref(), &name.details),
        }
    }

    /// Of a process that was read from procfs.
    pub fn read(process: &crate::identity::process::Process) -> Self {
        Self {
            pid: Some(process.pid),
            comm: Some(process.comm.clone()),
            command: process.command.clone(),
            exe: process.exe.clone(),
            container: Container::of(process.place().as_deref(), &process.details()),
        }
    }

    /// Of a process of which no more than that is known.
    pub fn named(pid: Option<u32>, comm: Option<&str>) -> Self {
        let comm = comm.filter(|comm| !comm.is_empty()).map(str::to_owned);
        Self { pid, comm, ..Self::default() }
    }
}

impl From<&Owner> for Process {
    fn from(owner: &Owner) -> Self {
        Self::named(Some(owner.pid), Some(&owner.comm))
    }
}

/// Where a process runs, as far as its control groups tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Container {
    /// What made the container: docker, containerd, cri-o, podman, lxc, machine, ecs or kubernetes; null without a container.
    pub engine: Option<String>,
    /// Its id as `docker ps` prints it (12 digits), or its name; null without a container.
    pub id: Option<String>,
    /// Uid of its Kubernetes pod, or id of its Podman pod.
    pub pod: Option<String>,
    /// Its Kubernetes namespace, by the kubelet's directory of the pod's logs (`/var/log/pods/NAMESPACE_POD_UID`); null if there is none.
    pub namespace: Option<String>,
    /// Innermost systemd service or scope: inside a container that runs systemd, the unit inside.
    pub unit: Option<String>,
}

impl Container {
    /// From the one text that stands for it, and the details.
    pub fn of(place: Option<&str>, details: &ProcessDetails) -> Option<Self> {
        let engine = |name: &str| Runtime::ALL.iter().any(|runtime| runtime.name() == name);
        let container = place.and_then(|place| place.split_once(':')).filter(|(name, _)| engine(name));
        let unit = || place.filter(|_| container.is_none()).map(str::to_owned);
        let of = Self {
            engine: container.map(|(engine, _)| engine.to_owned()),
            id: container.map(|(_, id)| id.to_owned()),
            pod: details.pod.clone(),
            namespace: details.namespace.clone(),
            unit: details.unit.clone().or_else(unit),
        };
        (of != Self::default()).then_some(of)
    }
}

/// `docker:4c01db0b339c`, or the unit.
impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.engine, &self.id, &self.unit) {
            (Some(engine), Some(id), _) => write!(f, "{engine}:{id}"),
            (_, _, Some(unit)) => f.write_str(unit),
            _ => f.write_str("?"),
        }
    }
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Netns {
    /// Inode number of its file, as `readlink /proc/PID/ns/net` shows it.
    pub id: u32,
    /// The name that it is mounted by (`blue` for `/run/netns/blue`); null if it has none, or none was seen.
    pub name: Option<String>,
}

impl Netns {
    /// A namespace whose name was looked up.
    pub fn named(id: u32, name: Option<&str>) -> Self {
        Self { id, name: name.map(str::to_owned) }
    }
}

impl From<u32> for Netns {
    fn from(id: u32) -> Self {
        Self { id, name: None }
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Endpoint {
    /// IP address; IPv4-mapped addresses as IPv4.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(of: SocketAddr) -> Self {
        Self { address: of.ip(), port: of.port() }
    }
}

/// `192.0.2.1:80`, `[::1]:80`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Range {
    /// First port.
    pub from: u16,
    /// Last port.
    pub to: u16,
}

impl From<PortRange> for Range {
    fn from(range: PortRange) -> Self {
        Self { from: range.first, to: range.last }
    }
}

/// `32768-60999`, `80`.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to { self.from.fmt(f) } else { write!(f, "{}-{}", self.from, self.to) }
    }
}

impl Range {
    /// The ranges of a set of ports.
    pub fn all(ports: &PortSet) -> Vec<Self> {
        ports.ranges().map(|range| Self { from: *range.start(), to: *range.end() }).collect()
    }
}

/// Names of socket options that are set, as in setsockopt(2).
pub(super) fn options(of: SocketOptions) -> Vec<String> {
    of.names().map(str::to_owned).collect()
}

/// Something that was not looked at, or could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Missing {
    /// What: `owners`, `namespaces`, `sockets`, `listeners`, `syn-queue`, `knobs`, `traced`, `events`, or an observation.
    pub what: String,
    /// Why, what that means, and what helps.
    pub why: String,
}

impl From<&crate::stock::Gap> for Missing {
    fn from(gap: &crate::stock::Gap) -> Self {
        Self { what: gap.what.to_owned(), why: gap.why.clone() }
    }
}

/// What a finding or a risk is about, or a party in its evidence. Members that do not apply are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Subject {
    /// listener, process, socket, port, peer, network, destination, host, namespace or tracer.
    pub kind: &'static str,
    /// Local address; of a destination, the remote one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Name of the device that the socket is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Remote end of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Endpoint>,
    /// Network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// The process that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// How well it is known that it is this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<OwnerConfidence>,
    /// Other processes that have the same socket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Process>,
    /// State of the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// How its port was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<&'static str>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What is left of TIME_WAIT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_wait_left_s: Option<f64>,
    /// Options that decide about sharing a port, as in setsockopt(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
    /// User id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Ephemeral ports that the process has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<u64>,
    /// The process that took the port, if that is not (or no longer) the one that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<Process>,
    /// Half-open requests of a remote network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<RemoteNetwork>,
}

/// Half-open requests of a remote network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RemoteNetwork {
    /// `192.0.2.0/24`.
    pub prefix: String,
    /// Requests whose SYN-ACK was sent again.
    pub requests: u64,
    /// How often SYN-ACKs were sent again.
    pub retransmissions: u64,
    /// Requests that expired; null where ends of requests are not seen.
    pub expired: Option<u64>,
    /// Connections completed meanwhile; null where that is not counted.
    pub completed: Option<u64>,
    /// Remote addresses.
    pub sources: u64,
    /// Of these: those that tried again from another port.
    pub retried_from_new_port: u64,
}

impl From<&NetworkFacts> for RemoteNetwork {
    fn from(of: &NetworkFacts) -> Self {
        Self {
            prefix: of.network.clone(),
            requests: of.requests,
            retransmissions: of.retransmissions,
            expired: of.expired,
            completed: of.completed,
            sources: of.sources,
            retried_from_new_port: of.retried_from_new_port,
        }
    }
}

impl From<&Party> for Subject {
    fn from(party: &Party) -> Self {
        let none = SocketFacts::default();
        let socket = party.socket.as_ref().unwrap_or(&none);
        Self {
            kind: party.kind,
            address: party.address.map(|address| address.ip()),
            port: party.address.map(|address| address.port()).or(party.port),
            device: party.device.clone(),
            remote: party.remote.map(Endpoint::from),
            netns: party.netns.map(|id| Netns::named(id, party.netns_name.as_deref())),
            process: party.process.as_ref().map(Process::of),
            confidence: party.process.as_ref().map(|process| process.confidence),
            also: party.process.iter().flat_map(|process| &process.also).map(Process::from).collect(),
            state: socket.state,
            how: socket.how,
            since: socket.since.map(Time),
            time_wait_left_s: socket.time_wait_s_left,
            options: socket.options.map(options),
            uid: socket.uid,
            ports: socket.ports,
            taken_by: socket.taken_by.as_ref().map(Process::from),
            network: party.network.as_ref().map(RemoteNetwork::from),
        }
    }
}
