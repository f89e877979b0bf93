//! This host now, without probes: its network namespaces with their settings, their TCP sockets, and who has those.
//!
//! Needs neither BPF nor a free port. Without root, other namespaces and other users' processes stay out of sight; what
//! was not looked at is in [`Survey::gaps`].

pub mod ports;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use crate::event::OwnerConfidence;
use crate::finding::ProcessName;
use crate::host::{
    knobs::{Knobs, PortRange},
    netns::{Netns, NetnsError, NetnsTable},
    port_set::PortSet,
    procfs::{Procfs, link_inode},
    sock_diag::{DiagSocket, Query, SockDiag, SockDiagError, States},
    tcp_state::TcpState,
};
use crate::identity::{process::Process, sockets::SocketOwners};

/// What there is, and what could not be looked at.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The namespaces, by ascending id.
    pub namespaces: Vec<Namespace>,
    /// What was not looked at, and why: a sentence each.
    pub gaps: Vec<String>,
}

/// A network namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Inode number of its file.
    pub id: u32,
    /// Its name in `/run/netns`, if it has one.
    pub name: Option<String>,
    /// Whether it is the one that this process is in.
    pub is_own: bool,
    /// A process in it, through which commands can enter it.
    pub member: Option<u32>,
    /// Its settings.
    pub knobs: Knobs,
    /// Its sockets, of those that were asked for.
    pub sockets: Vec<Socket>,
}

/// A TCP socket and the processes that have it open.
#[derive(Clone, Debug)]
pub struct Socket {
    /// As the kernel lists it.
    pub diag: DiagSocket,
    /// Its processes, by ascending pid; none for TIME_WAIT, and where they may not be looked at.
    pub owners: Vec<Arc<Process>>,
}

impl Survey {
    /// Looks at `only` or at every namespace that may be entered, for sockets in `states`.
    ///
    /// # Errors
    /// When not even this process's own namespace can be looked at. Everything else that cannot is a gap.
    pub fn take(only: Option<&Netns>, states: States) -> Result<Self, NetnsError> {
        let procfs = Procfs::default();
        let own = Netns::current()?;
        let mut survey = Self::default();
        let places = match only {
            Some(netns) => vec![netns.clone()],
            None => survey.all_namespaces(&procfs)?,
        };
        let members = members(&procfs);
        for netns in places {
            match look_at(&netns, states, &mut survey.gaps) {
                Ok((knobs, sockets)) => survey.namespaces.push(Namespace {
                    id: netns.id(),
                    name: netns.name().map(ToOwned::to_owned),
                    is_own: netns.id() == own.id(),
                    member: members.get(&netns.id()).copied(),
                    knobs,
                    sockets,
                }),
                Err(error) => survey.gaps.push(error.to_string()),
            }
        }
        survey.find_owners(&procfs);
        Ok(survey)
    }

    fn all_namespaces(&mut self, procfs: &Procfs) -> Result<Vec<Netns>, NetnsError> {
        let mut table = NetnsTable::new(procfs.clone())?;
        let refresh = table.refresh()?;
        if refresh.unreadable > 0 {
            self.gaps.push(format!(
                "the namespaces of {} may not be looked at: there may be more than those shown (run with sudo)",
                processes(refresh.unreadable)
            ));
        }
        if refresh.unopened > 0 {
            self.gaps.push(format!("{} network namespaces could not be opened", refresh.unopened));
        }
        Ok(table.iter().cloned().collect())
    }

    /// One pass over all processes for the owners of all sockets.
    fn find_owners(&mut self, procfs: &Procfs) {
        let sockets = || self.namespaces.iter().flat_map(|namespace| &namespace.sockets);
        let inodes: HashSet<u64> =
            sockets().map(|socket| socket.diag.inode).filter(|inode| *inode != 0).collect();
        let found = match SocketOwners::find(procfs, &inodes) {
            Ok(found) => found,
            Err(error) => {
                self.gaps.push(format!("the processes cannot be listed, so no socket has an owner: {error}"));
                return;
            }
        };
        if found.unreadable > 0 && inodes.iter().any(|inode| found.of(*inode).is_empty()) {
            self.gaps.push(format!(
                "the sockets of {} may not be looked at: some sockets are shown without their owner (run with sudo)",
                processes(found.unreadable)
            ));
        }
        let mut known: HashMap<u32, Option<Arc<Process>>> = HashMap::new();
        for socket in self.namespaces.iter_mut().flat_map(|namespace| &mut namespace.sockets) {
            let mut pids: Vec<u32> = found.of(socket.diag.inode).iter().map(|owner| owner.pid).collect();
            pids.dedup();
            socket.owners = pids
                .into_iter()
                .filter_map(|pid| {
                    let read = || Process::read(procfs, pid).ok().map(Arc::new);
                    known.entry(pid).or_insert_with(read).clone()
                })
                .collect();
        }
    }
}

fn processes(count: u32) -> String {
    format!("{count} process{}", if count == 1 { "" } else { "es" })
}

/// The process of lowest id in each namespace.
fn members(procfs: &Procfs) -> BTreeMap<u32, u32> {
    let mut members = BTreeMap::new();
    for pid in procfs.pids().unwrap_or_default() {
        let Ok(link) = std::fs::read_link(procfs.root().join(pid.to_string()).join("ns/net")) else {
            continue;
        };
        if let Some(id) = link_inode(link.as_os_str().as_bytes(), "net").and_then(|id| u32::try_from(id).ok())
        {
            members.entry(id).and_modify(|first: &mut u32| *first = pid.min(*first)).or_insert(pid);
        }
    }
    members
}

fn look_at(
    netns: &Netns,
    states: States,
    gaps: &mut Vec<String>,
) -> Result<(Knobs, Vec<Socket>), SockDiagError> {
    let knobs = Knobs::of(netns)?;
    // Settings can be judged without sockets.
    let sockets = SockDiag::open(netns).and_then(|mut diag| diag.sockets(&Query { states, ports: None }));
    let sockets = sockets.unwrap_or_else(|error| {
        gaps.push(error.to_string());
        crate::host::sock_diag::Sockets::default()
    });
    if sockets.interrupted {
        gaps.push(format!(
            "the sockets of network namespace {} changed while they were listed: some may be missing",
            netns.id()
        ));
    }
    let sockets = sockets.sockets.into_iter().map(|diag| Socket { diag, owners: Vec::new() }).collect();
    Ok((knobs, sockets))
}

impl Namespace {
    /// The listeners among its sockets.
    pub fn listeners(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(|socket| socket.diag.state == TcpState::Listen)
    }

    /// `sysctl -w SETTING…`, entering this namespace first if it is another one than ours.
    pub fn sysctl(&self, settings: &[String]) -> String {
        let command = format!("sysctl -w {}", settings.join(" "));
        match (self.member, &self.name) {
            _ if self.is_own => command,
            (Some(pid), _) => format!("nsenter -t {pid} -n {command}"),
            (None, Some(name)) => format!("ip netns exec {name} {command}"),
            (None, None) => command,
        }
    }

    /// What `ip_local_reserved_ports` must be for `ports` to be reserved, too: what is reserved already stays so.
    pub fn reserved_and(&self, ports: impl IntoIterator<Item = u16>) -> PortSet {
        let mut reserved = self.knobs.ip_local_reserved_ports.clone().unwrap_or_default();
        reserved.merge(&ports.into_iter().collect());
        reserved
    }

    /// Ports that the kernel may pick in `range`, and those that are reserved there.
    pub fn capacity(&self, range: PortRange, reserved: &PortSet) -> u32 {
        range.len() - reserved.len_within(range.first, range.last)
    }
}

/// `blue (4026532200)`, `4026531840`, for headings.
impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

impl Socket {
    /// Its process as findings name it, and the others that have it.
    pub fn process(&self) -> ProcessName {
        let Some((first, others)) = self.owners.split_first() else { return ProcessName::default() };
        ProcessName {
            pid: Some(first.pid),
            comm: Some(first.comm.clone()),
            command: first.command.clone(),
            container: container(first),
            confidence: OwnerConfidence::Bootstrapped,
            also: others
                .iter()
                .map(|owner| crate::event::Owner { pid: owner.pid, comm: owner.comm.clone() })
                .collect(),
        }
    }
}

/// Container, pod or unit of a process.
pub fn container(process: &Process) -> Option<String> {
    process.container.as_ref().map(ToString::to_string).or_else(|| process.unit.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{netns::in_netns, testing::private_netns};

    #[test]
    fn own_namespace_needs_no_rights_and_names_who_listens() {
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = here.local_addr().unwrap().port();
        let survey = Survey::take(Some(&Netns::current().unwrap()), States::LISTEN).unwrap();
        let [own] = survey.namespaces.as_slice() else { panic!("{survey:?}") };
        assert!(own.is_own && own.sysctl(&["a=1".into(), "b=2".into()]) == "sysctl -w a=1 b=2");
        let listener = own.listeners().find(|socket| socket.diag.local.port() == port).unwrap();
        assert_eq!(listener.process().pid, Some(std::process::id()));
    }

    #[test]
    fn another_namespace_is_entered_and_needs_no_free_port() {
        let Some(netns) = private_netns() else { return };
        let holders: Vec<std::net::TcpListener> = in_netns(&netns, || {
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20003").unwrap();
            (20000..=20003).map(|port| std::net::TcpListener::bind(("0.0.0.0", port)).unwrap()).collect()
        })
        .unwrap();
        let survey = Survey::take(Some(&netns), States::ALL).unwrap();
        let there = &survey.namespaces[0];
        assert_eq!(there.listeners().count(), holders.len());
        assert!(!there.is_own);
        let range = there.knobs.ip_local_port_range.unwrap();
        assert_eq!(there.capacity(range, &there.reserved_and([20002, 80])), 3);
        assert_eq!(there.reserved_and([20002, 80]).to_string(), "80,20002");
    }
}
