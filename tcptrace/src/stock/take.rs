//! Listeners, from what a survey shows of listening and half-open sockets, and what their owners' threads do.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::half_open::Doors;
use super::survey::{Namespace, Opener, Scope, Survey, Wanted};
use super::{Group, HalfOpen, Limit, Listener, Owner, OwnerProcess, Stock};
use crate::event::{Family, SocketState};
use crate::host::netns::NetnsError;
use crate::host::procfs::Procfs;
use crate::host::sock_diag;
use crate::identity::state::ProcessState;
use crate::probe::open_sockets::Loaded;

const WANTED: [Wanted; 2] = [Wanted::LISTENERS, Wanted::HALF_OPEN];

/// Takes stock of all listeners. What cannot be looked at is in [`Stock::missing`].
///
/// Costs: one walk over the listening sockets of each namespace, one over the connections of each that has listeners (to
/// count half-open requests), one pass over all processes' descriptors, a few small files for each owner.
///
/// # Errors
/// When not even tcptrace's own namespace can be opened.
pub fn take(scope: &Scope) -> Result<Stock, NetnsError> {
    Ok(of_survey(Survey::take(scope, &WANTED)?, scope))
}

/// The same, with an iterator over listeners that is being loaded already, if any.
pub(crate) fn take_with(
    scope: &Scope,
    iterator: impl FnOnce() -> Option<Loaded> + Send,
) -> Result<Stock, NetnsError> {
    Ok(of_survey(Survey::take_with(scope, &WANTED, iterator)?, scope))
}

fn of_survey(survey: Survey, scope: &Scope) -> Stock {
    let mut people = People { procfs: &scope.procfs, known: HashMap::new() };
    let complete = survey.owners_complete;
    let listeners = |namespace: &Namespace| of_namespace(namespace, complete, &mut people);
    Stock {
        namespaces: survey.namespaces.len(),
        listeners: survey.namespaces.iter().flat_map(listeners).collect(),
        missing: survey.gaps,
    }
}

fn of_namespace(namespace: &Namespace, owners_complete: bool, people: &mut People<'_>) -> Vec<Listener> {
    let found: Vec<(sock_diag::Listener, &[Opener])> = namespace
        .sockets
        .iter()
        .filter_map(|socket| {
            Some((sock_diag::Listener::try_from(socket.diag.clone()).ok()?, socket.owners.as_slice()))
        })
        .collect();
    let sockets: Vec<sock_diag::Listener> = found.iter().map(|(socket, _)| socket.clone()).collect();
    let half_open = half_open(namespace, &sockets);
    let groups = groups(&sockets);
    let knobs = &namespace.knobs;
    let listeners = found.into_iter().enumerate().map(|(index, (socket, openers))| Listener {
        netns: namespace.id,
        netns_name: namespace.name.clone(),
        own_netns: namespace.is_own,
        owners: openers.iter().map(|opener| people.owner(opener)).collect(),
        owners_complete,
        limit: Limit { limit: socket.limit, backlog: None, somaxconn: knobs.somaxconn, somaxconn_then: None },
        half_open: half_open.as_ref().and_then(|found| found.get(index).copied()),
        group: groups.get(&address_of(&socket)).copied().filter(|group| group.members > 1),
        knobs: Arc::clone(knobs),
        device: namespace.devices.get(&socket.ifindex).cloned(),
        traced: None,
        socket,
    });
    listeners.collect()
}

/// `None` if the kernel did not tell.
fn half_open(namespace: &Namespace, listeners: &[sock_diag::Listener]) -> Option<Vec<HalfOpen>> {
    let mut doors = Doors::new(listeners);
    let requests = namespace.sockets.iter().filter(|socket| socket.diag.state == SocketState::SynRecv);
    requests.for_each(|socket| doors.note(&socket.diag));
    (namespace.answered == 2).then(|| doors.into_found())
}

/// Owners, each looked at once.
struct People<'a> {
    procfs: &'a Procfs,
    known: HashMap<u32, Arc<OwnerProcess>>,
}

impl People<'_> {
    fn owner(&mut self, opener: &Opener) -> Owner {
        let read = || {
            let who = (*opener.process).clone();
            Arc::new(OwnerProcess { state: ProcessState::read(self.procfs, who.pid).ok(), who })
        };
        let process = self.known.entry(opener.process.pid).or_insert_with(read);
        Owner { fds: opener.fds.clone(), process: Arc::clone(process) }
    }
}

type Address = (Family, SocketAddr, u32);

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
        let scope = Scope { netns: vec![netns.clone()], ..Scope::default() };
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
}
