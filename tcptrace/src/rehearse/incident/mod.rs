//! The incidents: one file each, and the catalogue that lists them.

mod accept_failed;
mod accept_overflow;
mod accept_stall;
mod backlog_capture;
mod backlog_truncated;
mod bind_refused;
mod connection_exists;
mod crowds;
mod defer_accept;
mod dropped;
mod healthy;
mod listener_closed;
mod no_answer;
mod port_exhaustion;
mod port_grab;
mod port_leak;
mod port_risk;
mod reuseport_imbalance;
mod slow_accept;
mod storm;
mod syn_queue_full;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::actor::{Actor, Door, Order};
use super::error::{Error, Result};
use super::stage::{Layout, Stage, has_ipv6};
use super::truth::GroundTruth;

/// Something that goes wrong, or is meant not to, on a stage of its own. Dropping it ends every process it started.
pub trait Incident: Send {
    /// Its name in the catalogue.
    fn name(&self) -> &'static str;

    /// The variant being played.
    fn variant(&self) -> &'static str;

    /// What is made, in two or three lines.
    fn describe(&self) -> String;

    /// Where it happens: the namespace to trace, and the switch to end it early.
    fn stage(&self) -> &Stage;

    /// Does what must have been done before the tracer starts. Call it once, before [`Incident::play`].
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Plays it, which takes some seconds, and tells what happened. Servers are still up afterwards.
    ///
    /// Stop tracing before dropping the incident: its end would be traced too.
    fn play(&mut self) -> Result<GroundTruth>;

    /// Whether the first command of the finding's remedy is to be carried out after the play, and what led to the trouble is to
    /// happen [again](Incident::again).
    fn is_remedied(&self) -> bool {
        false
    }

    /// Whether `tcptrace why` is asked after the play about what the [truth](GroundTruth::why) lists.
    fn is_asked_why(&self) -> bool {
        false
    }

    /// Once the remedy has been applied: what led to the trouble happens again. Whether the trouble came back.
    fn again(&mut self) -> Result<bool> {
        Ok(false)
    }
}

/// Which addresses an incident uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4 sockets.
    #[default]
    V4,
    /// IPv6 sockets.
    V6,
    /// IPv4 clients of a server with an IPv6 socket.
    Mapped,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    fn server_ip(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 | Self::Mapped => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// A server's wildcard address.
    fn any(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.server_ip(), port)
    }

    /// The address at which clients call a server.
    fn call(self, stage: &Stage, port: u16) -> SocketAddr {
        SocketAddr::new(stage.server_address(self == Self::V6), port)
    }
}

impl FromStr for Family {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "4" => Ok(Self::V4),
            "6" => Ok(Self::V6),
            "mapped" => Ok(Self::Mapped),
            other => Err(Error::Usage(format!("unknown address family {other:?}: use 4, 6 or mapped"))),
        }
    }
}

/// What a caller may choose about an incident.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A variant's name; None: the first, which is the default.
    pub variant: Option<String>,
    /// Which addresses to use.
    pub family: Family,
    /// `net.ipv4.tcp_abort_on_overflow` in the stage.
    pub abort_on_overflow: bool,
    /// `net.ipv4.tcp_syncookies` in the stage; None: 1, the kernel's default.
    pub syncookies: Option<u8>,
    /// Start the server in `prepare`, so that it is older than the tracer.
    pub older: bool,
    /// How many conflicts, for `port-grab --variant vanishing`; None: one.
    pub count: Option<u16>,
    /// Start actors from this executable instead of `/proc/self/exe`.
    pub actor_executable: Option<PathBuf>,
}

impl Options {
    /// A stage as these options want it.
    fn stage(&self, layout: Layout) -> Result<Stage> {
        let mut stage = Stage::with(layout)?;
        if let Some(executable) = &self.actor_executable {
            stage = stage.with_actor_executable(executable.clone());
        }
        if self.family != Family::V4 && !has_ipv6(stage.server())? {
            return Err(Error::NotSupported("this kernel has no IPv6, or it is switched off".into()));
        }
        // Set even where it is the default: a private namespace takes some of these from the host's.
        stage.set_sysctl("net.ipv4.tcp_abort_on_overflow", u8::from(self.abort_on_overflow))?;
        stage.set_sysctl("net.ipv4.tcp_syncookies", self.syncookies.unwrap_or(1))?;
        stage.set_sysctl("net.ipv4.ip_local_port_range", "32768 60999")?;
        Ok(stage)
    }
}

/// An incident in the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What to call it by: as the finding about it, if there is one.
    pub name: &'static str,
    /// Other names for it: of former times, or of further findings about it.
    pub aliases: &'static [&'static str],
    /// What it is, in one line.
    pub summary: &'static str,
    /// Its variants; the first is the default.
    pub variants: &'static [Variant],
    make: fn(&'static Variant, Options) -> Result<Box<dyn Incident>>,
}

/// A variant of an incident.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// What to call it by.
    pub name: &'static str,
    /// What is different about it, in one line.
    pub summary: &'static str,
}

/// Every incident that can be rehearsed.
pub fn catalogue() -> &'static [Entry] {
    &[
        accept_overflow::ENTRY,
        accept_stall::ENTRY,
        accept_failed::ENTRY,
        slow_accept::ENTRY,
        backlog_capture::ENTRY,
        syn_queue_full::ENTRY,
        defer_accept::ENTRY,
        backlog_truncated::ENTRY,
        listener_closed::ENTRY,
        reuseport_imbalance::ENTRY,
        storm::ENTRY,
        no_answer::ENTRY,
        dropped::ENTRY,
        port_grab::ENTRY,
        bind_refused::ENTRY,
        connection_exists::ENTRY,
        port_exhaustion::ENTRY,
        port_leak::ENTRY,
        port_risk::ENTRY,
        healthy::ENTRY,
    ]
}

/// The incident that is called so, or was once.
pub fn entry(name: &str) -> Option<&'static Entry> {
    catalogue().iter().find(|entry| entry.name == name || entry.aliases.contains(&name))
}

/// A server with its door open; nobody works in it yet.
fn open(stage: &Stage, role: &str, door: Door) -> Result<Actor> {
    let mut server = stage.start_server(role)?;
    server.ask::<()>(&Order::Open(door))?;
    Ok(server)
}

/// A JSON object as a [`super::GroundTruth`] takes it.
fn facts(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
}

/// Sets the stage for an incident.
pub fn incident(name: &str, options: &Options) -> Result<Box<dyn Incident>> {
    let entry = entry(name).ok_or_else(|| {
        let names: Vec<_> = catalogue().iter().map(|entry| entry.name).collect();
        Error::Usage(format!("unknown incident {name:?}: there are {}", names.join(", ")))
    })?;
    let variant = match &options.variant {
        None => entry.variants.first(),
        Some(wanted) => entry.variants.iter().find(|variant| variant.name == wanted),
    };
    let variant = variant.ok_or_else(|| {
        let names: Vec<_> = entry.variants.iter().map(|variant| variant.name).collect();
        Error::Usage(format!("{name} has no such variant: there are {}", names.join(", ")))
    })?;
    (entry.make)(variant, options.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::catalogue;
    use crate::finding::explained;

    #[test]
    fn each_finding_can_be_rehearsed_by_its_own_name() {
        let names: Vec<&str> =
            catalogue().iter().flat_map(|entry| entry.aliases.iter().chain([&entry.name])).copied().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "one name for two: {names:?}");
        for code in explained() {
            // Losses are made by a ring buffer that is too small, not by an incident.
            assert!(code == "events-lost" || names.contains(&code), "{code}");
        }
    }
}
