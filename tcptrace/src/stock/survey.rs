//! Looking: network namespaces with their settings, their TCP sockets, and who has those. Needs neither BPF nor a free port.
//!
//! Without root, other namespaces and other users' processes stay out of sight; what was not looked at is in
//! [`Survey::gaps`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Gap, openers};
use crate::command::{Inside, Standpoint};
use crate::event::{Owner, OwnerConfidence, PortRange, PortSet, SocketState};
use crate::finding::ProcessName;
use crate::finding::words::count;
use crate::host::devices::{self, Device};
use crate::host::knobs::Knobs;
use crate::host::netns::{Netns, NetnsError, NetnsTable};
use crate::host::numbers::NumberSet;
use crate::host::procfs::Procfs;
use crate::host::sock_diag::{DiagSocket, Query, SockDiag, States};
use crate::identity::process::Process;
use crate::probe::open_sockets::Loaded;

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The procfs to find processes in.
    pub procfs: Procfs,
    /// Only these namespaces; all if there is none.
    pub netns: Vec<Netns>,
    /// Only sockets of local ports from the least to the greatest of these; empty for all.
    pub ports: Vec<u16>,
}

/// Sockets to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What they are called in a gap.
    pub what: &'static str,
    /// Their states.
    pub states: States,
}

impl Wanted {
    /// All sockets.
    pub const ALL: Self = Self { what: "sockets", states: States::ALL };
    /// Listeners.
    pub const LISTENERS: Self = Self { what: "listeners", states: States::LISTEN };
    /// Half-open connections.
    pub const HALF_OPEN: Self = Self { what: "syn-queue", states: States::of(&[SocketState::SynRecv]) };
}

/// What there is, and what could not be looked at.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The namespaces, by ascending id.
    pub namespaces: Vec<Namespace>,
    /// Whether every process could be asked for its sockets.
    pub owners_complete: bool,
    /// What was not looked at, and why.
    pub gaps: Vec<Gap>,
}

/// A network namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Inode number of its file.
    pub id: u32,
    /// Its name in `/run/netns`, if it has one.
    pub name: Option<Arc<str>>,
    /// Whether it is the one that this process is in.
    pub is_own: bool,
    /// A process in it, through which commands can enter it.
    pub member: Option<u32>,
    /// Its settings; those that could not be read are `None` there.
    pub knobs: Arc<Knobs>,
    /// Devices that its sockets are bound to, by index.
    pub devices: BTreeMap<u32, Arc<Device>>,
    /// Its sockets, of those that were asked for.
    pub sockets: Vec<Socket>,
    /// How many of the questions for sockets were answered.
    pub answered: usize,
}

/// A TCP socket and the processes that have it open.
#[derive(Clone, Debug)]
pub struct Socket {
    /// As the kernel lists it.
    pub diag: DiagSocket,
    /// Its processes, by ascending pid; none for TIME_WAIT, and where they may not be looked at.
    pub owners: Vec<Opener>,
}

/// A process that has a socket open, through one descriptor or several.
#[derive(Clone, Debug)]
pub struct Opener {
    /// Its descriptors for the socket, ascending.
    pub fds: Vec<u32>,
    /// Who it is, shared between its sockets.
    pub process: Arc<Process>,
}

impl Survey {
    /// Looks for the sockets that are `wanted`: in each namespace one question after the other, until one finds nothing, as each is
    /// a walk through a table of the kernel's. Then one pass over all processes' descriptors.
    ///
    /// # Errors
    /// When not even this process's own namespace can be looked at. Everything else that cannot is a gap.
    pub fn take(scope: &Scope, wanted: &[Wanted]) -> Result<Self, NetnsError> {
        let ports = span(&scope.ports).unwrap_or(0..=u16::MAX);
        // Half-open connections have no owner.
        let listeners_only = wanted.iter().all(|of| [Wanted::LISTENERS, Wanted::HALF_OPEN].contains(of));
        let state = listeners_only.then_some(SocketState::Listen);
        Self::take_with(scope, wanted, || openers::prepare(&scope.procfs, &ports, state))
    }

    /// The same, with an iterator over what has those sockets open, if it pays to load one.
    pub(super) fn take_with(
        scope: &Scope,
        wanted: &[Wanted],
        iterator: impl FnOnce() -> Option<Loaded> + Send,
    ) -> Result<Self, NetnsError> {
        // It is loaded beside the listing, and runs when that is done: what was listed has its owner by then.
        let (survey, iterator) = std::thread::scope(|threads| {
            let iterator = threads.spawn(iterator);
            let survey = Self::list(scope, wanted);
            (survey, iterator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let mut survey = survey?;
        survey.find_owners(&scope.procfs, iterator);
        Ok(survey)
    }

    /// The sockets, without their owners.
    fn list(scope: &Scope, wanted: &[Wanted]) -> Result<Self, NetnsError> {
        let own = Netns::current()?.id();
        let mut survey = Self::default();
        for (netns, member) in survey.places(scope)? {
            let mut namespace = Namespace {
                id: netns.id(),
                name: netns.name().map(Arc::from),
                is_own: netns.id() == own,
                member,
                ..Namespace::default()
            };
            survey.look_at(&netns, scope, wanted, &mut namespace);
            namespace.devices = devices_of(&netns, &namespace.sockets);
            survey.namespaces.push(namespace);
        }
        merge_refusals(&mut survey.gaps);
        Ok(survey)
    }

    fn gap(&mut self, what: &'static str, why: impl Into<String>) {
        self.gaps.push(Gap::new(what, why));
    }

    /// The namespaces to look into, each with a process in it.
    fn places(&mut self, scope: &Scope) -> Result<Vec<(Netns, Option<u32>)>, NetnsError> {
        let mut table = NetnsTable::new(scope.procfs.clone())?;
        let refreshed = table.refresh();
        let with_member = |netns: &Netns| (netns.clone(), table.member(netns.id()));
        if !scope.netns.is_empty() {
            return Ok(scope.netns.iter().map(with_member).collect());
        }
        match refreshed {
            Ok(refresh) => {
                if refresh.unreadable > 0 {
                    let whose = count(refresh.unreadable.into(), "process", "processes");
                    let sudo = as_root();
                    let why = format!(
                        "the network namespaces of {whose} may not be looked at: there may be more than those shown{sudo}"
                    );
                    self.gap("namespaces", why);
                }
                if refresh.unopened > 0 {
                    let which = count(refresh.unopened.into(), "network namespace", "network namespaces");
                    self.gap(
                        "namespaces",
                        format!("{which} could not be opened: what is there is not shown"),
                    );
                }
            }
            Err(error) => self.gap("namespaces", format!("{error}; only this namespace is shown")),
        }
        Ok(table.iter().map(with_member).collect())
    }

    fn look_at(&mut self, netns: &Netns, scope: &Scope, wanted: &[Wanted], into: &mut Namespace) {
        match Knobs::of(netns) {
            Ok(knobs) => into.knobs = Arc::new(knobs),
            Err(error) => self.gap("knobs", format!("{error}; what is set there is not known")),
        }
        let mut diag = match SockDiag::open(netns) {
            Ok(diag) => diag,
            Err(error) => {
                return self.gap(wanted.first().map_or("sockets", |first| first.what), error.to_string());
            }
        };
        for Wanted { what, states } in wanted {
            let found = match diag.sockets(&Query { states: *states, ports: span(&scope.ports) }) {
                Ok(found) => found,
                Err(error) => return self.gap(what, error.to_string()),
            };
            if found.interrupted {
                let why = format!(
                    "the sockets of network namespace {} changed while they were listed: some may be missing",
                    netns.id()
                );
                self.gap(what, why);
            }
            into.answered += 1;
            let nothing = found.sockets.is_empty();
            into.sockets.extend(found.sockets.into_iter().map(|diag| Socket { diag, owners: Vec::new() }));
            if nothing {
                return;
            }
        }
    }

    fn find_owners(&mut self, procfs: &Procfs, iterator: Option<Loaded>) {
        let sockets = || self.namespaces.iter().flat_map(|namespace| &namespace.sockets);
        let inodes: NumberSet =
            sockets().map(|socket| socket.diag.inode).filter(|inode| *inode != 0).collect();
        let found = match openers::find(procfs, &inodes, iterator) {
            Ok(found) => found,
            Err(error) => {
                return self.gap(
                    "owners",
                    format!("the processes cannot be listed, so no socket has an owner: {error}"),
                );
            }
        };
        let nameless = || inodes.iter().filter(|inode| found.of(**inode).is_empty()).count();
        let nameless = if found.unreadable > 0 { nameless() } else { 0 };
        if nameless > 0 {
            let why = format!(
                "{} no known owner: the descriptors of {} may not be read{}",
                count(u64::try_from(nameless).unwrap_or(u64::MAX), "socket has", "sockets have"),
                count(found.unreadable.into(), "process", "processes"),
                as_root(),
            );
            self.gap("owners", why);
        }
        self.owners_complete = found.unreadable == 0;
        let mut known: HashMap<u32, Option<Arc<Process>>> = HashMap::new();
        for socket in self.namespaces.iter_mut().flat_map(|namespace| &mut namespace.sockets) {
            for owner in found.of(socket.diag.inode) {
                if let Some(last) = socket.owners.last_mut().filter(|last| last.process.pid == owner.pid) {
                    last.fds.push(owner.fd);
                    continue;
                }
                let read = || Process::read(procfs, owner.pid).ok().map(Arc::new);
                match known.entry(owner.pid).or_insert_with(read) {
                    Some(process) => {
                        let process = Arc::clone(process);
                        // Nearly every socket has one process.
                        socket.owners.reserve_exact(1);
                        socket.owners.push(Opener { fds: vec![owner.fd], process });
                    }
                    // It has exited since.
                    None => self.owners_complete = false,
                }
            }
        }
    }
}

/// From the least to the greatest.
fn span(ports: &[u16]) -> Option<RangeInclusive<u16>> {
    ports.iter().min().zip(ports.iter().max()).map(|(first, last)| *first..=*last)
}

/// What helps; root is told nothing, because even root may not look at everybody (user namespaces, security modules).
fn as_root() -> &'static str {
    if nix::unistd::geteuid().is_root() { "" } else { " (run as root)" }
}

/// Without rights every namespace but one's own is refused with the same words: one line for all.
fn merge_refusals(gaps: &mut Vec<Gap>) {
    const KEPT: usize = 3;
    let mut seen: HashMap<&'static str, usize> = HashMap::new();
    let mut more: BTreeMap<&'static str, u64> = BTreeMap::new();
    gaps.retain(|gap| {
        let told = seen.entry(gap.what).or_default();
        *told += 1;
        if *told > KEPT {
            *more.entry(gap.what).or_default() += 1;
        }
        *told <= KEPT
    });
    for (what, number) in more {
        let why = format!("{} of this kind", count(number, "more namespace", "more namespaces"));
        gaps.push(Gap::new(what, why));
    }
}

/// The devices that sockets are bound to. One that is gone has no name any more.
fn devices_of(netns: &Netns, sockets: &[Socket]) -> BTreeMap<u32, Arc<Device>> {
    let bound: HashSet<u32> =
        sockets.iter().map(|socket| socket.diag.ifindex).filter(|index| *index != 0).collect();
    let found = bound.into_iter().filter_map(|index| {
        let device = devices::device(netns, index).inspect_err(|error| log::warn!("{error}")).ok()??;
        Some((index, Arc::new(device)))
    });
    found.collect()
}

impl Namespace {
    /// The listeners among its sockets.
    pub fn listeners(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(|socket| socket.diag.state == SocketState::Listen)
    }

    /// `sysctl -w SETTING…`, entering this namespace first if it is another one than ours.
    pub fn sysctl(&self, settings: &[String]) -> String {
        let standpoint = Standpoint { own: self.is_own.then_some(self.id), host: None };
        let place = Inside { netns: self.id, pid: self.member, name: self.name.as_deref() };
        standpoint.inside(place, &format!("sysctl -w {}", settings.join(" ")))
    }

    /// What `ip_local_reserved_ports` must be for `ports` to be reserved, too: what is reserved already stays so.
    pub fn reserved_and(&self, ports: impl IntoIterator<Item = u16>) -> PortSet {
        let mut reserved = self.knobs.ip_local_reserved_ports.clone().unwrap_or_default();
        reserved.merge(&ports.into_iter().collect());
        reserved
    }

    /// Ports that the kernel may pick in `range`, and those that are reserved there.
    pub fn capacity(&self, range: PortRange, reserved: &PortSet) -> u32 {
        range.len() - reserved.len_within(range)
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
            pid: Some(first.process.pid),
            comm: Some(first.process.comm.clone()),
            command: first.process.command.clone(),
            container: first.process.place(),
            details: first.process.details(),
            confidence: OwnerConfidence::Bootstrapped,
            also: others.iter().map(Opener::owner).collect(),
        }
    }
}

impl Opener {
    /// Its name.
    pub fn owner(&self) -> Owner {
        Owner { pid: self.process.pid, comm: self.process.comm.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{netns::in_netns, testing::private_netns};

    fn only(netns: Netns) -> Scope {
        Scope { netns: vec![netns], ..Scope::default() }
    }

    #[test]
    fn own_namespace_needs_no_rights_and_names_who_listens() {
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = here.local_addr().unwrap().port();
        let survey = Survey::take(&only(Netns::current().unwrap()), &[Wanted::LISTENERS]).unwrap();
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
        let survey = Survey::take(&only(netns), &[Wanted::ALL]).unwrap();
        let there = &survey.namespaces[0];
        assert_eq!(there.listeners().count(), holders.len());
        assert!(!there.is_own);
        let range = there.knobs.ip_local_port_range.unwrap();
        assert_eq!(there.capacity(range, &there.reserved_and([20002, 80])), 3);
        assert_eq!(there.reserved_and([20002, 80]).to_string(), "80,20002");
    }

    #[test]
    fn many_refusals_become_few_lines() {
        let mut missing: Vec<Gap> =
            (0..100).map(|id| Gap::new("listeners", format!("namespace {id}"))).collect();
        missing.push(Gap::new("owners", "x"));
        merge_refusals(&mut missing);
        assert_eq!(missing.len(), 5);
        assert_eq!(missing[4], Gap::new("listeners", "97 more namespaces of this kind"));
    }
}
