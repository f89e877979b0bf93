//! Who and where: subjects of findings, holders and requesters in their evidence.

use std::fmt;
use std::net::SocketAddr;

use crate::correlate::{Correlator, Listener, Owners, Processes};
use crate::event::{Owner, OwnerConfidence, ProcessDetails, SocketOptions, Task, Timestamp};

/// A listener, a port, a process or another thing that a finding is about, and the process that has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Party {
    /// listener, process, port, peer, destination, host or tracer.
    pub kind: &'static str,
    /// Local address.
    pub address: Option<SocketAddr>,
    /// Name of the device that the socket is bound to.
    pub device: Option<String>,
    /// Port, for a subject that is one.
    pub port: Option<u16>,
    /// Remote address of a connection.
    pub remote: Option<SocketAddr>,
    /// Network namespace.
    pub netns: Option<u32>,
    /// Its name, if it has one: the engine adds it.
    pub netns_name: Option<String>,
    /// The process, where there is one to name.
    pub process: Option<ProcessName>,
    /// What else is known of a socket.
    pub socket: Option<SocketFacts>,
    /// What is known of a remote network.
    pub network: Option<NetworkFacts>,
}

/// Half-open requests of a remote network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFacts {
    /// `192.0.2.0/24`.
    pub network: String,
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

/// A process as it is named in output. `None` is shown as null: there is a process, and it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessName {
    /// Process id in the initial pid namespace.
    pub pid: Option<u32>,
    /// Command name.
    pub comm: Option<String>,
    /// Command line.
    pub command: Option<String>,
    /// Container, pod or unit.
    pub container: Option<String>,
    /// What else is known of it.
    pub details: ProcessDetails,
    /// How well it is known that it is this one.
    pub confidence: OwnerConfidence,
    /// Others that have the same socket.
    pub also: Vec<Owner>,
}

/// What is known of a socket that has a port, beyond its addresses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SocketFacts {
    /// State.
    pub state: Option<&'static str>,
    /// How its port was taken.
    pub how: Option<&'static str>,
    /// When.
    pub since: Option<Timestamp>,
    /// What is left of TIME_WAIT, seconds.
    pub time_wait_s_left: Option<f64>,
    /// Options that decide about sharing a port.
    pub options: Option<SocketOptions>,
    /// User id.
    pub uid: Option<u32>,
    /// Ephemeral ports that the process has.
    pub ports: Option<u64>,
    /// Who took the port, if that is not (or no longer) the process that has it.
    pub taken_by: Option<Owner>,
}

impl Party {
    /// A listener, and who has it.
    pub(super) fn of_listener(listener: &Listener, world: &Correlator) -> Self {
        Self {
            kind: "listener",
            address: Some(listener.endpoints.local),
            device: world.device_name(listener.endpoints.netns, listener.endpoints.device),
            netns: Some(listener.endpoints.netns),
            process: match &listener.made_by {
                Some(_) if listener.owners.is_empty() => None,
                _ => Some(serving(listener, world.processes()).unwrap_or_default()),
            },
            ..Self::default()
        }
    }

    /// Its address, with its device as ss(8) writes it.
    pub(super) fn place(&self) -> Option<String> {
        Some(at_device(self.address?, self.device.as_deref()))
    }
}

/// The process of a listener that is to be named, and the others: one that accepts and lives; if all that accepted have exited, the
/// last of them; else an owner that lives, the one that is known best.
pub(crate) fn serving(listener: &Listener, processes: &Processes) -> Option<ProcessName> {
    let lives = |pid: u32| processes.exited(pid).is_none();
    let accepted = listener.acceptors.processes();
    // In the order of their pids, so that the one that is named does not change with every accept.
    let accepting = accepted.iter().map(|(pid, _)| *pid).filter(|pid| lives(*pid)).min();
    let owner = |pid: u32| listener.owners.iter().find(|owner| owner.pid == pid);
    let first = accepting.or_else(|| accepted.first().map(|(pid, _)| *pid));
    let (pid, known) = match first {
        Some(pid) => (pid, owner(pid)),
        None => {
            let living = || listener.owners.iter().filter(|owner| lives(owner.pid));
            let best = living().map(|owner| owner.confidence).max();
            let known = living().find(|owner| Some(owner.confidence) == best).or(listener.owners.first())?;
            (known.pid, Some(known))
        }
    };
    let confidence =
        if first.is_some() { OwnerConfidence::Observed } else { known.map(|owner| owner.confidence)? };
    let comm_of =
        |pid: u32, comm: &str| processes.info(pid).map_or_else(|| comm.to_owned(), |info| info.comm.clone());
    let comm = comm_of(pid, known.map_or("", |owner| &owner.comm));
    // Others that accept first.
    let mut others: Vec<u32> = accepted.iter().map(|(pid, _)| *pid).filter(|pid| lives(*pid)).collect();
    others.sort_unstable();
    others.extend(listener.owners.iter().map(|owner| owner.pid).filter(|pid| lives(*pid)));
    let mut also: Vec<Owner> = Vec::new();
    for other in others.into_iter().filter(|other| *other != pid) {
        if also.len() < ALSO && also.iter().all(|named| named.pid != other) {
            let comm = owner(other).map_or("", |owner| &owner.comm);
            also.push(Owner { pid: other, comm: comm_of(other, comm) });
        }
    }
    Some(ProcessName {
        comm: (!comm.is_empty()).then_some(comm),
        also,
        ..ProcessName::of(pid, confidence, processes)
    })
}

/// Processes that are named beside the first.
const ALSO: usize = 16;

impl ProcessName {
    /// The process of `task`, which was seen doing something.
    pub fn of_task(task: &Task, processes: &Processes) -> Self {
        Self {
            comm: Some(processes.comm(task).to_owned()),
            ..Self::of(task.pid, OwnerConfidence::Observed, processes)
        }
    }

    /// The process that was seen having or using a socket, called `comm` then.
    pub fn observed(pid: u32, comm: &str, processes: &Processes) -> Self {
        let comm = processes.info(pid).map_or(comm, |info| &info.comm);
        Self { comm: Some(comm.to_owned()), ..Self::of(pid, OwnerConfidence::Observed, processes) }
    }

    /// The owner to name first, and the others.
    pub fn of_owners(owners: &Owners, processes: &Processes) -> Self {
        let Some(first) = owners.first() else { return Self::default() };
        let comm = |pid: u32, comm: &str| {
            processes.info(pid).map_or_else(|| comm.to_owned(), |info| info.comm.clone())
        };
        Self {
            comm: Some(comm(first.pid, &first.comm)),
            also: owners
                .iter()
                .filter(|owner| owner.pid != first.pid)
                .map(|owner| Owner { pid: owner.pid, comm: comm(owner.pid, &owner.comm) })
                .collect(),
            ..Self::of(first.pid, first.confidence, processes)
        }
    }

    fn of(pid: u32, confidence: OwnerConfidence, processes: &Processes) -> Self {
        let info = processes.info(pid);
        Self {
            pid: Some(pid),
            comm: None,
            command: info.and_then(|info| info.command.clone()),
            container: info.and_then(|info| info.container.clone()),
            details: info.map(|info| info.details.clone()).unwrap_or_default(),
            confidence,
            also: Vec::new(),
        }
    }
}

/// `delegated[6039]`, `delegated` or `unknown process`.
impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.comm, self.pid) {
            (Some(comm), Some(pid)) => write!(f, "{comm}[{pid}]"),
            (Some(comm), None) => f.write_str(comm),
            (None, Some(pid)) => write!(f, "pid {pid}"),
            (None, None) => f.write_str("unknown process"),
        }
    }
}

/// An address and the device that it is bound to: `0.0.0.0%mgmt0:2222`.
pub(crate) fn at_device(address: SocketAddr, device: Option<&str>) -> String {
    match (device, address) {
        (None, _) => address.to_string(),
        (Some(device), SocketAddr::V4(at)) => format!("{}%{device}:{}", at.ip(), at.port()),
        (Some(device), SocketAddr::V6(at)) => format!("[{}]%{device}:{}", at.ip(), at.port()),
    }
}

/// The process and the address: `delegated[6039] 0.0.0.0:1080`.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.process, self.place()) {
            (Some(process), Some(address)) => write!(f, "{process} {address}"),
            (Some(process), None) => write!(f, "{process}"),
            (None, Some(address)) => write!(f, "{address}"),
            (None, None) => f.write_str(self.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_reads_as_the_contract_says() {
        let subject = Party {
            kind: "listener",
            address: Some("0.0.0.0:1080".parse().unwrap()),
            netns: Some(4026531840),
            process: Some(ProcessName {
                pid: Some(6039),
                comm: Some("delegated".into()),
                command: Some("delegated -P1080".into()),
                container: None,
                details: ProcessDetails::default(),
                confidence: OwnerConfidence::Observed,
                also: Vec::new(),
            }),
            ..Party::default()
        };
        assert_eq!(
            crate::output::json_text(&crate::output::json::Subject::from(&subject)),
            concat!(
                r#"{"kind":"listener","address":"0.0.0.0","port":1080,"netns":{"id":4026531840,"name":null},"#,
                r#""process":{"pid":6039,"comm":"delegated","command":"delegated -P1080","exe":null,"container":null},"#,
                r#""confidence":"observed"}"#
            )
        );
        assert_eq!(subject.to_string(), "delegated[6039] 0.0.0.0:1080");
    }

    #[test]
    fn a_port_has_no_process() {
        let subject = Party { kind: "port", port: Some(35010), netns: Some(1), ..Party::default() };
        assert_eq!(
            crate::output::json_text(&crate::output::json::Subject::from(&subject)),
            r#"{"kind":"port","port":35010,"netns":{"id":1,"name":null}}"#
        );
    }
}
