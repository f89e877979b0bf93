//! Looking: sock_diag in every network namespace, then procfs for whoever has the listeners.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::half_open::Doors;
use super::{Gap, Group, HalfOpen, Limit, Listener, Owner, OwnerProcess, Stock};
use crate::finding::words::count;
use crate::host::knobs::Knobs;
use crate::host::netns::{Netns, NetnsError, NetnsTable};
use crate::host::procfs::Procfs;
use crate::host::sock_diag::{self, Query, SockDiag, SockDiagError, States};
use crate::host::tcp_state::TcpState;
use crate::identity::process::Process;
use crate::identity::sockets::SocketOwners;
use crate::identity::state::ProcessState;

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The procfs to find processes in.
    pub procfs: Procfs,
    /// Only this namespace.
    pub netns: Option<Netns>,
    /// Only listeners of these ports; empty for all.
    pub ports: Vec<u16>,
}

/// Takes stock of all listeners. What cannot be looked at is in [`Stock::missing`].
///
/// Costs: one walk over the listening sockets of each namespace, one over the connections of each that has listeners (to
/// count half-open requests), one pass over all processes' descriptors, a few small files for each owner.
///
/// # Errors
/// When not even tcptrace's own namespace can be opened.
pub fn take(scope: &Scope) -> Result<Stock, NetnsError> {
    let mut stock = Stock::default();
    let own = Netns::current()?.id();
    for netns in namespaces(scope, &mut stock.missing)? {
        stock.namespaces += 1;
        match of_namespace(&netns, own, scope, &mut stock.missing) {
            Ok(listeners) => stock.listeners.extend(listeners),
            Err(error) => stock.missing.push(Gap::new("listeners", error.to_string())),
        }
    }
    merge_refusals(&mut stock.missing);
    find_owners(scope, &mut stock);
    Ok(stock)
}

fn namespaces(scope: &Scope, missing: &mut Vec<Gap>) -> Result<Vec<Netns>, NetnsError> {
    if let Some(only) = &scope.netns {
        return Ok(vec![only.clone()]);
    }
    let mut table = NetnsTable::new(scope.procfs.clone())?;
    match table.refresh() {
        Ok(refresh) => {
            if refresh.unreadable > 0 {
                let whose = count(refresh.unreadable.into(), "process", "processes");
                let why = format!(
                    "the network namespaces of {whose} may not be looked at: listeners there are not shown{}",
                    as_root()
                );
                missing.push(Gap::new("namespaces", why));
            }
            if refresh.unopened > 0 {
                let which = count(refresh.unopened.into(), "network namespace", "network namespaces");
                missing.push(Gap::new(
                    "namespaces",
                    format!("{which} could not be opened: listeners there are not shown"),
                ));
            }
        }
        Err(error) => missing.push(Gap::new("namespaces", format!("{error}; only this namespace is shown"))),
    }
    Ok(table.iter().cloned().collect())
}

fn of_namespace(
    netns: &Netns,
    own: u32,
    scope: &Scope,
    missing: &mut Vec<Gap>,
) -> Result<Vec<Listener>, SockDiagError> {
    let mut diag = SockDiag::open(netns)?;
    let ports = scope.ports.iter().min().zip(scope.ports.iter().max()).map(|(first, last)| *first..=*last);
    let answer = diag.sockets(&Query { states: States::LISTEN, ports: ports.clone() })?;
    if answer.interrupted {
        let why = format!(
            "the listeners of namespace {} changed while they were listed: some may be missing",
            netns.id()
        );
        missing.push(Gap::new("listeners", why));
    }
    let sockets: Vec<sock_diag::Listener> =
        answer.sockets.into_iter().filter_map(|socket| sock_diag::Listener::try_from(socket).ok()).collect();
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let half_open = half_open(&mut diag, &sockets, ports, missing);
    let knobs = match Knobs::of(netns) {
        Ok(knobs) => knobs,
        Err(error) => {
            missing.push(Gap::new("knobs", format!("{error}; what limits its queues is not known")));
            Knobs::default()
        }
    };
    let knobs = Arc::new(knobs);
    let groups = groups(&sockets);
    let name: Option<Arc<str>> = netns.name().map(Arc::from);
    let listeners = sockets.into_iter().enumerate().map(|(index, socket)| Listener {
        netns: netns.id(),
        netns_name: name.clone(),
        own_netns: netns.id() == own,
        owners: Vec::new(),
        owners_complete: false,
        limit: Limit { limit: socket.limit, backlog: None, somaxconn: knobs.somaxconn, somaxconn_then: None },
        half_open: half_open.as_ref().and_then(|found| found.get(index).copied()),
        group: groups.get(&address_of(&socket)).copied().filter(|group| group.members > 1),
        knobs: Arc::clone(&knobs),
        traced: None,
        socket,
    });
    Ok(listeners.collect())
}

fn half_open(
    diag: &mut SockDiag,
    listeners: &[sock_diag::Listener],
    ports: Option<std::ops::RangeInclusive<u16>>,
    missing: &mut Vec<Gap>,
) -> Option<Vec<HalfOpen>> {
    let query = Query { states: States::of(&[TcpState::SynRecv]), ports };
    let netns = diag.netns();
    let why = match diag.sockets(&query) {
        Ok(found) => {
            let mut doors = Doors::new(listeners);
            found.sockets.iter().for_each(|socket| doors.note(socket));
            if found.interrupted {
                let why = format!(
                    "half-open connections of namespace {netns} changed while they were listed: counts are near"
                );
                missing.push(Gap::new("syn-queue", why));
            }
            return Some(doors.into_found());
        }
        Err(error) => error.to_string(),
    };
    missing.push(Gap::new("syn-queue", why));
    None
}

type Address = (sock_diag::Family, SocketAddr, u32);

fn address_of(socket: &sock_diag::Listener) -> Address {
    (socket.family, socket.local, socket.ifindex)
}

/// Only with SO_REUSEPORT can several listen at one address.
fn groups(sockets: &[sock_diag::Listener]) -> HashMap<Address, Group> {
    let mut groups: HashMap<Address, Group> = HashMap::new();
    for socket in sockets {
        let group = groups.entry(address_of(socket)).or_insert(Group { members: 0, queued: 0 });
        group.members += 1;
        group.queued += u64::from(socket.depth);
    }
    groups
}

fn find_owners(scope: &Scope, stock: &mut Stock) {
    let mut inodes: HashSet<u64> = stock.listeners.iter().map(|listener| listener.socket.inode).collect();
    inodes.remove(&0);
    let found = match SocketOwners::find(&scope.procfs, &inodes) {
        Ok(found) => found,
        Err(error) => {
            let why = format!("the processes cannot be listed: {error}; who has the listeners is not known");
            stock.missing.push(Gap::new("owners", why));
            return;
        }
    };
    let mut people: HashMap<u32, Option<Arc<OwnerProcess>>> = HashMap::new();
    let mut nameless = 0_u64;
    for listener in &mut stock.listeners {
        listener.owners_complete = found.unreadable == 0;
        for owner in found.of(listener.socket.inode) {
            if let Some(known) = listener.owners.last_mut().filter(|known| known.process.who.pid == owner.pid)
            {
                known.fds.push(owner.fd);
                continue;
            }
            let process = people.entry(owner.pid).or_insert_with(|| read_process(&scope.procfs, owner.pid));
            match process {
                Some(process) => {
                    listener.owners.push(Owner { fds: vec![owner.fd], process: Arc::clone(process) });
                }
                // It has exited since.
                None => listener.owners_complete = false,
            }
        }
        nameless += u64::from(listener.owners.is_empty() && !listener.is_kernel_s());
    }
    if found.unreadable > 0 && nameless > 0 {
        let why = format!(
            "{} no known owner: the descriptors of {} may not be read{}",
            count(nameless, "listener has", "listeners have"),
            count(found.unreadable.into(), "process", "processes"),
            as_root(),
        );
        stock.missing.push(Gap::new("owners", why));
    }
}

/// What helps; root is told nothing, because even root may not look at everybody (user namespaces, security modules).
fn as_root() -> &'static str {
    if nix::unistd::geteuid().is_root() { "" } else { " (run as root)" }
}

fn read_process(procfs: &Procfs, pid: u32) -> Option<Arc<OwnerProcess>> {
    let who = Process::read(procfs, pid).ok()?;
    Some(Arc::new(OwnerProcess { who, state: ProcessState::read(procfs, pid).ok() }))
}

/// Without rights every namespace but one's own is refused with the same words: one line for all.
fn merge_refusals(missing: &mut Vec<Gap>) {
    const KEPT: usize = 3;
    let mut seen: HashMap<&'static str, usize> = HashMap::new();
    let mut more: HashMap<&'static str, u64> = HashMap::new();
    missing.retain(|gap| {
        let told = seen.entry(gap.what).or_default();
        *told += 1;
        let keep = *told <= KEPT;
        if !keep {
            *more.entry(gap.what).or_default() += 1;
        }
        keep
    });
    let mut more: Vec<_> = more.into_iter().collect();
    more.sort_unstable();
    for (what, number) in more {
        let why = format!("{} of this kind", count(number, "more namespace", "more namespaces"));
        missing.push(Gap::new(what, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns::in_netns;
    use crate::host::testing::private_netns;
    use crate::stock::testing::socket;
    use std::net::TcpListener;

    #[test]
    fn listeners_at_one_address_are_a_group() {
        let mut sockets =
            [socket("0.0.0.0:80"), socket("0.0.0.0:80"), socket("10.0.0.1:80"), socket("[::]:80")];
        (sockets[0].depth, sockets[1].depth) = (2, 3);
        let groups = groups(&sockets);
        assert_eq!(groups.get(&address_of(&sockets[0])), Some(&Group { members: 2, queued: 5 }));
        assert_eq!(groups.get(&address_of(&sockets[2])).map(|group| group.members), Some(1));
        assert_eq!(groups.get(&address_of(&sockets[3])).map(|group| group.members), Some(1));
    }

    #[test]
    fn a_listener_of_this_process_is_found_with_all_that_is_known_of_it() {
        let Some(netns) = private_netns() else { return };
        let (listener, waiting) = in_netns(&netns, || {
            std::fs::write("/proc/sys/net/core/somaxconn", "300").unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let waiting: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(to).unwrap()).collect();
            (listener, waiting)
        })
        .unwrap();
        let scope = Scope { netns: Some(netns.clone()), ..Scope::default() };
        let stock = take(&scope).unwrap();
        let [found] = stock.listeners.as_slice() else { panic!("{stock:?}") };
        assert_eq!(found.socket.local, listener.local_addr().unwrap());
        assert_eq!((found.netns, found.socket.depth), (netns.id(), 3));
        assert_eq!(found.limit.somaxconn, Some(300));
        assert_eq!(found.half_open, Some(HalfOpen::default()));
        let owner = found.owner().unwrap();
        assert_eq!(owner.process.who.pid, std::process::id());
        assert_eq!(owner.fds.len(), 1);
        drop(waiting);
        let elsewhere = take(&Scope { ports: vec![1], ..scope }).unwrap();
        assert!(elsewhere.listeners.is_empty());
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
