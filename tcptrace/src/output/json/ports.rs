//! The ephemeral ports of a namespace as a line of `tcptrace ports`.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::identity::{Container, Endpoint, Missing, Netns, Process, Range};

/// The ephemeral ports of a network namespace; `time` is when they were looked at.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SpaceLine {
    /// The network namespace.
    pub netns: Netns,
    /// `net.ipv4.ip_local_port_range`.
    pub range: Range,
    /// `net.ipv4.ip_local_reserved_ports`; null where it cannot be read.
    pub reserved: Option<Vec<Range>>,
    /// Ports that the kernel may choose.
    pub capacity: u32,
    /// Ports in use.
    pub in_use: u32,
    /// Ports that are left.
    pub free: u32,
    /// Ports that nothing but TIME_WAIT has.
    pub time_wait: u32,
    /// Ports that listening and bound-only sockets have: connect() is given none of these.
    pub blocked: u32,
    /// Of the ports in use: those of the parity that connect() prefers.
    pub in_use_connect_half: u32,
    /// The others, which bind() to port 0 prefers.
    pub in_use_bind_half: u32,
    /// The processes that have ports, the most first.
    pub processes: Vec<ProcessPortsLine>,
    /// Ports by container or unit, the most first.
    pub containers: Vec<ContainerPortsLine>,
    /// With `--for`: what the processes of the whole namespace did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trend: Option<TrendLine>,
    /// Where the ports lead, the most first.
    pub destinations: Vec<LaneLine>,
    /// What will hurt.
    pub risks: Vec<PortRiskLine>,
    /// What of this could not be seen.
    pub missing: Vec<Missing>,
}

/// A process and its ports; all of `process` null: sockets that no process has open.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProcessPortsLine {
    /// The process.
    pub process: Process,
    /// Ports that it has.
    pub ports: u32,
    /// Of these: of established connections.
    pub established: u32,
    /// Of these: in CLOSE-WAIT; the peer has closed, and the process has not.
    pub close_wait: u32,
    /// Of these: bound, and nothing else.
    pub bound: u32,
    /// Of these: in TIME_WAIT.
    pub time_wait: u32,
    /// Where most of them lead.
    pub most_to: Option<Endpoint>,
    /// With `--for`: what it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trend: Option<TrendLine>,
}

/// A container, or unit, and the ports of its processes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ContainerPortsLine {
    /// The container or unit.
    pub container: Container,
    /// Ports that its processes have.
    pub ports: u32,
    /// With `--for`: what they did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trend: Option<TrendLine>,
}

/// A destination and the room toward it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LaneLine {
    /// Local address.
    pub source: IpAddr,
    /// Remote end.
    pub remote: Endpoint,
    /// Ports in use between the two.
    pub used: u32,
    /// Of these: in TIME_WAIT.
    pub time_wait: u32,
    /// Ports that are left between the two.
    pub free: u32,
    /// The process that has most of them.
    pub process: Option<Process>,
    /// With `--for`: more ports in use a second than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_per_s: Option<f64>,
}

/// A risk that `tcptrace check` explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PortRiskLine {
    /// Its code.
    pub code: &'static str,
    /// One sentence.
    pub title: String,
}

/// Ports taken and given back while traced, and how long that can go on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TrendLine {
    /// Ports taken.
    pub taken: u64,
    /// Ports given back.
    pub released: u64,
    /// Of those taken: chosen by connect() after a bind() with IP_BIND_ADDRESS_NO_PORT.
    pub taken_late: u64,
    /// Of those taken: from ranges that sockets have for themselves (IP_LOCAL_PORT_RANGE).
    pub taken_from_own_range: u64,
    /// Taken a second.
    pub taken_per_s: f64,
    /// Given back a second.
    pub released_per_s: f64,
    /// Growth of the processes that only grow; null if none does.
    pub growth_per_s: Option<f64>,
    /// That may be so much more or less.
    pub growth_error_per_s: Option<f64>,
    /// Until none is left, if it goes on so.
    pub left_s: Option<f64>,
    /// At least.
    pub left_min_s: Option<f64>,
    /// At most; null: perhaps for ever.
    pub left_max_s: Option<f64>,
}
