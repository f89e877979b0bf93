//! The answer as JSON lines: a `holder` each, then a `port` for each port and namespace that says what a bind would meet, then
//! the `summary`.

use std::io::Write;
use std::net::SocketAddr;
use std::ops::ControlFlow;

use serde::Serialize;

use super::holder::Since;
use super::{Answer, Holder, Outlook, Place, Way};
use crate::event::{Family, Timestamp};
use crate::finding::ProcessName;
use crate::output::{JsonWriter, Written};

#[derive(Serialize)]
struct HolderLine<'a> {
    port: u16,
    netns: u32,
    namespace: Option<&'a str>,
    address: SocketAddr,
    remote: Option<SocketAddr>,
    family: Family,
    state: &'static str,
    belongs: &'static str,
    #[serde(flatten)]
    process: ProcessName,
    /// Descriptors of the first process.
    descriptors: &'a [u32],
    /// bind, bind-any, connect, accepted; null if that cannot be told.
    how: Option<&'static str>,
    since: Option<String>,
    /// When the process was started, that has had the port no longer than that unless it inherited it.
    since_not_before: Option<String>,
    uid: Option<u32>,
    inode: u64,
    /// Name of the device that it is bound to.
    device: Option<String>,
    device_index: u32,
    options: Option<String>,
    v6only: bool,
    mptcp: bool,
    time_wait_s_left: Option<f64>,
    queue: Option<u32>,
    queue_limit: Option<u32>,
}

#[derive(Serialize)]
struct PortLine<'a> {
    port: u16,
    netns: u32,
    namespace: Option<&'a str>,
    holders: usize,
    binds: Vec<BindLine>,
    ephemeral_range: Option<String>,
    in_ephemeral_range: Option<bool>,
    reserved: Option<bool>,
    /// Only with CAP_NET_BIND_SERVICE.
    privileged: Option<bool>,
}

#[derive(Serialize)]
struct BindLine {
    address: SocketAddr,
    reuseaddr: bool,
    /// succeeds, fails or depends (on the holder's SO_REUSEADDR, which could not be read).
    outlook: &'static str,
    /// Who is in the way.
    holder: Option<ProcessName>,
    holder_address: Option<SocketAddr>,
    holder_state: Option<&'static str>,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    holders: usize,
    namespaces: usize,
    owners_via: &'a str,
    /// What could not be looked at.
    gaps: &'a [String],
}

impl Answer {
    /// Writes the answer about `ports` as JSON lines.
    ///
    /// # Errors
    /// When it cannot be written; a reader that has gone is none.
    pub fn write_json(&self, ports: &[u16], now: Timestamp, out: &mut JsonWriter<impl Write>) -> Written {
        for place in &self.places {
            for holder in &place.holders {
                if out.write("holder", &HolderLine::of(holder, place, now))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        for place in &self.places {
            for &port in ports.iter().filter(|port| place.is_own || place.has(**port)) {
                if out.write("port", &PortLine::of(port, place))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        let summary = SummaryLine {
            holders: self.holders().count(),
            namespaces: self.places.len(),
            owners_via: self.owners_via,
            gaps: &self.gaps,
        };
        match out.write("summary", &summary)? {
            ControlFlow::Continue(()) => out.flush(),
            gone => Ok(gone),
        }
    }
}

impl<'a> HolderLine<'a> {
    fn of(holder: &'a Holder, place: &'a Place, now: Timestamp) -> Self {
        let since = holder.since(now);
        Self {
            port: holder.local.port(),
            netns: place.id,
            namespace: place.name.as_deref(),
            address: holder.local,
            remote: holder.remote,
            family: holder.family,
            state: holder.state.name(),
            belongs: holder.belongs.name(),
            process: holder.name(),
            descriptors: holder.processes.first().map_or(&[], |process| process.descriptors.as_slice()),
            how: holder.taken.map(super::Taken::name),
            since: match since {
                Since::At(time) => Some(time.to_string()),
                _ => None,
            },
            since_not_before: match since {
                Since::NotBefore(time) => Some(time.to_string()),
                _ => None,
            },
            uid: holder.uid,
            inode: holder.inode,
            device: place.device_name(holder),
            device_index: holder.device,
            options: holder.options.map(|options| options.to_string()),
            v6only: holder.v6only,
            mptcp: holder.mptcp,
            time_wait_s_left: holder.time_wait_left.map(|left| left.as_secs_f64()),
            queue: holder.queue.map(|(depth, _)| depth),
            queue_limit: holder.queue.map(|(_, limit)| limit),
        }
    }
}

impl<'a> PortLine<'a> {
    fn of(port: u16, place: &'a Place) -> Self {
        let knobs = &place.knobs;
        Self {
            port,
            netns: place.id,
            namespace: place.name.as_deref(),
            holders: place.holders.iter().filter(|holder| holder.local.port() == port).count(),
            binds: Way::ALL.iter().map(|&way| BindLine::of(way, port, place)).collect(),
            ephemeral_range: knobs.ip_local_port_range.map(|range| format!("{}-{}", range.first, range.last)),
            in_ephemeral_range: knobs.ip_local_port_range.map(|range| range.contains(port)),
            reserved: knobs.ip_local_reserved_ports.as_ref().map(|reserved| reserved.contains(port)),
            privileged: knobs.ip_unprivileged_port_start.map(|start| u32::from(port) < start),
        }
    }
}

impl BindLine {
    fn of(way: Way, port: u16, place: &Place) -> Self {
        let outlook = Outlook::of(way, port, place);
        let holder = outlook.holder();
        Self {
            address: way.address(port),
            reuseaddr: way.reuseaddr,
            outlook: outlook.name(),
            holder: holder.map(Holder::name),
            holder_address: holder.map(|holder| holder.local),
            holder_state: holder.map(|holder| holder.state.name()),
        }
    }
}
