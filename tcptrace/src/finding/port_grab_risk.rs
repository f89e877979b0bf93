//! port-grab-risk: a server's port is one that the kernel may give to a client (range-overlap), or has just given
//! (near-miss): the server's next start may fail with EADDRINUSE.

use std::time::Duration;

use crate::correlate::{BoundedMap, Change, Correlator, Grab, Server};
use crate::event::{PortRange, PortSet};

use super::case::{Concern, Description, Diagnosis};
use super::words::{count, span};
use super::{
    Apart, CauseRule, Confidence, Evidence, FindingKind, Party, ProcessName, Remedy, Severity, SocketFacts,
    commands, keys,
};

/// Ports that are remembered so as not to be told of twice.
const PORTS: usize = 8192;

/// The diagnosis.
pub(super) struct PortGrabRisk {
    /// Ports in the range that were told of.
    told: BoundedMap<(u32, u16), ()>,
}

impl Default for PortGrabRisk {
    fn default() -> Self {
        Self { told: BoundedMap::new(PORTS) }
    }
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Case {
    /// All ports of a namespace.
    Overlap(u32),
    /// One port of it.
    Grabbed(u32, u16),
}

impl Diagnosis for PortGrabRisk {
    const KIND: FindingKind = FindingKind {
        code: "port-grab-risk",
        opens_when: "a server's port lies in the ephemeral range, unreserved; or a client was just given it",
        page: include_str!("../../../docs/findings/port-grab-risk.md"),
        observations: &["port-taken", "listen"],
        tracepoint_tier: "the same holds.",
        causes: &[
            CauseRule {
                code: "range-overlap",
                means: "a process listens on a port of the ephemeral range that is not reserved",
                certain: Some("the listener's bind(), the range and the reserved ports were read"),
                likely: None,
                possible: None,
                told_apart: &[Apart {
                    from: "a listener that let the kernel choose its port",
                    by: "bind() asked for this port by number",
                }],
            },
            CauseRule {
                code: "near-miss",
                means: "a connect() was just given a port on which a server listened, or which one wanted in vain",
                certain: Some("the connect() and the server's port were both observed"),
                likely: None,
                possible: None,
                told_apart: &[Apart { from: "`bind-conflict`", by: "no server has failed yet" }],
            },
        ],
        evidence: &[
            keys::HOLDERS,
            keys::PORT,
            keys::ranges("ports_at_risk", "ports of servers that lie in the ephemeral range, unreserved"),
            keys::RANGE,
            keys::REQUESTER,
            keys::ranges("reserved", "`net.ipv4.ip_local_reserved_ports`"),
            keys::parties("servers_at_risk", "listeners that lie in the ephemeral range"),
        ],
    };
    const QUIET: Duration = Duration::from_secs(5);

    type Key = Case;
    type Memory = ();

    fn concern(&self, change: &Change, world: &Correlator) -> Option<Concern<Case>> {
        match change {
            Change::PortServed((netns, port)) => {
                if !world.namespace(*netns)?.knobs.is_ephemeral(*port) {
                    return None;
                }
                // Once, however often the server is started again.
                Some(match self.told.get(&(*netns, *port)) {
                    Some(()) => Concern::Known(Case::Overlap(*netns)),
                    None => Concern::Happened(Case::Overlap(*netns)),
                })
            }
            Change::PortGrabbed((netns, port)) => Some(Concern::Happened(Case::Grabbed(*netns, *port))),
            _ => None,
        }
    }

    fn begin(&mut self, _key: &Case, _world: &Correlator) {}

    fn observe(&mut self, _key: &Case, _memory: &mut (), change: &Change, _world: &Correlator) {
        if let Change::PortServed(port) = change {
            self.told.get_or_insert_with(*port, || ());
        }
    }

    fn describe(&self, key: &Case, _memory: &(), world: &Correlator) -> Option<Description> {
        match key {
            Case::Overlap(netns) => overlap(*netns, world),
            Case::Grabbed(netns, port) => {
                let server = world.served().get((*netns, *port))?;
                grabbed(*netns, *port, server, server.grabbed.as_ref()?, world)
            }
        }
    }
}

fn overlap(netns: u32, world: &Correlator) -> Option<Description> {
    let knobs = &world.namespace(netns)?.knobs;
    let range = knobs.local_port_range?;
    let servers = world.served().of(netns).into_iter().filter(|(port, _)| knobs.is_ephemeral(*port));
    let listeners: Vec<(u16, Party)> = servers
        .map(|(port, server)| {
            let party = Party {
                kind: "listener",
                address: Some(server.address),
                netns: Some(netns),
                process: Some(ProcessName::observed(server.owner.pid, &server.owner.comm, world.processes())),
                ..Party::default()
            };
            (port, party)
        })
        .collect();
    let ports: PortSet = listeners.iter().map(|(port, _)| *port..=*port).collect();
    let (_, first) = listeners.first()?;
    let more = match listeners.len() {
        1 => String::new(),
        all => format!(" and {} more", all - 1),
    };
    let explanation = format!(
        "whenever such a server is down, for a restart too, the kernel may give its port to any connect() or bind() to port 0; \
         then its bind() fails with EADDRINUSE (the ephemeral range is {range})"
    );
    Some(Description {
        severity: Severity::Info,
        confidence: Confidence::Certain,
        title: format!("{first}{more}: in the ephemeral range {range}, and not reserved"),
        subject: Party { kind: "host", netns: Some(netns), ..Party::default() },
        cause: "range-overlap",
        numbers: vec![format!("{}: {ports}", count(u64::try_from(listeners.len()).ok()?, "port", "ports"))],
        evidence: Evidence::new()
            .with("ports_at_risk", &ports)
            .with("range", range)
            .with("reserved", knobs.reserved_ports.as_ref())
            .with("servers_at_risk", listeners.iter().map(|(_, party)| party.clone()).collect::<Vec<_>>())
            .with("why", explanation.as_str()),
        remedy: reserve(netns, listeners.iter().map(|(port, _)| *port), range, first.process.as_ref()),
        explanation,
    })
}

fn grabbed(netns: u32, port: u16, server: &Server, grab: &Grab, world: &Correlator) -> Option<Description> {
    let range = world.namespace(netns)?.knobs.local_port_range?;
    let holder = Party {
        kind: "process",
        address: Some(grab.endpoints.local),
        remote: grab.endpoints.remote,
        netns: Some(netns),
        process: Some(ProcessName::of_task(&grab.task, world.processes())),
        socket: Some(SocketFacts { how: Some("connect"), since: Some(grab.time), ..SocketFacts::default() }),
        ..Party::default()
    };
    let requester = Party {
        kind: "process",
        address: Some(server.address),
        netns: Some(netns),
        process: Some(ProcessName::observed(server.owner.pid, &server.owner.comm, world.processes())),
        ..Party::default()
    };
    let client = holder.process.as_ref()?.to_string();
    let had = requester.process.as_ref()?.to_string();
    let before = span(grab.time.since(server.seen));
    let did = if server.listened { "listened on" } else { "asked for" };
    let explanation = format!(
        "connect() of {client} was given port {port}; {had} {did} it {before} before. Until {client} closes that connection, \
         the server cannot start"
    );
    let remote =
        grab.endpoints.remote.map_or_else(String::new, |remote| format!(" for a connection to {remote}"));
    Some(Description {
        severity: Severity::Warning,
        confidence: Confidence::Certain,
        title: format!("{client} was given port {port}{remote}, which {had} {did}"),
        subject: Party {
            kind: "port",
            address: Some(server.address),
            port: Some(port),
            netns: Some(netns),
            ..Party::default()
        },
        cause: "near-miss",
        numbers: vec![format!("last seen with {had} {before} before")],
        evidence: Evidence::new()
            .with("requester", requester)
            .with("holders", vec![holder.clone()])
            .with("port", port)
            .with("range", range)
            .with("why", explanation.as_str()),
        remedy: reserve(netns, [port].into_iter(), range, holder.process.as_ref()),
        explanation,
    })
}

/// The ports beside what is reserved already.
fn reserve(
    netns: u32,
    ports: impl Iterator<Item = u16>,
    range: PortRange,
    process: Option<&ProcessName>,
) -> Vec<Remedy> {
    let ports: PortSet = ports.map(|port| port..=port).collect();
    vec![
        Remedy::command(
            "reserve them, so that the kernel does not hand them out; what is reserved already stays so",
            commands::reserve(netns, process, &ports, None),
        ),
        Remedy::text(format!("or configure the servers to ports outside of {range}")),
    ]
}

#[cfg(test)]
mod tests;
