//! What `tcptrace ports --json` prints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::trend::Trend;
use crate::event::Owner;

/// A namespace, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct SpaceLine<'a> {
    pub(super) netns: u32,
    pub(super) namespace: Option<&'a str>,
    pub(super) range: String,
    pub(super) reserved: Option<String>,
    /// Ports that the kernel may choose.
    pub(super) capacity: u32,
    pub(super) in_use: u32,
    pub(super) free: u32,
    /// Ports that nothing but TIME_WAIT has.
    pub(super) time_wait: u32,
    /// Ports that listening and bound-only sockets have: connect() is given none of these.
    pub(super) blocked: u32,
    /// Of the ports in use: those of the parity that connect() prefers, and the others, which bind() to port 0 prefers.
    pub(super) in_use_connect_half: u32,
    pub(super) in_use_bind_half: u32,
    pub(super) processes: Vec<ProcessLine<'a>>,
    pub(super) containers: BTreeMap<String, u32>,
    /// With `--for`: of the whole namespace, and of each container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trend: Option<Trend>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) container_trends: BTreeMap<String, Trend>,
    pub(super) destinations: Vec<DestinationLine<'a>>,
    pub(super) risks: Vec<RiskLine>,
    pub(super) incomplete: Option<&'a str>,
}

/// A process and its ports; pid null: sockets that no process has open.
#[derive(Serialize)]
pub(super) struct ProcessLine<'a> {
    pub(super) pid: Option<u32>,
    pub(super) comm: Option<&'a str>,
    pub(super) command: Option<&'a str>,
    pub(super) container: Option<String>,
    pub(super) ports: u32,
    pub(super) established: u32,
    pub(super) close_wait: u32,
    pub(super) bound: u32,
    pub(super) time_wait: u32,
    pub(super) most_to: Option<SocketAddr>,
    /// With `--for`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trend: Option<Trend>,
}

/// A destination and the room toward it.
#[derive(Serialize)]
pub(super) struct DestinationLine<'a> {
    pub(super) source: IpAddr,
    pub(super) remote: SocketAddr,
    pub(super) used: u32,
    pub(super) time_wait: u32,
    pub(super) free: u32,
    pub(super) owner: Option<&'a Owner>,
    /// With `--for`: more ports in use a second than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) growth_per_s: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct RiskLine {
    pub(super) code: &'static str,
    pub(super) title: String,
}

/// The last line.
#[derive(Serialize)]
pub(super) struct SummaryLine<'a> {
    pub(super) namespaces: usize,
    /// What could not be looked at.
    pub(super) gaps: Vec<&'a str>,
}
