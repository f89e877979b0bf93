//! Who has the ephemeral ports of a namespace, added up from a list of its sockets. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use crate::event::{DestinationUse, Owner, PortHolders, PortSurvey, SocketState, canonical};
use crate::host::knobs::Knobs;
use crate::host::sock_diag::DiagSocket;

/// A port, and what has it.
#[derive(Clone, Copy, Default)]
struct Port {
    /// Any socket.
    used: bool,
    /// Something else than TIME_WAIT.
    alive: bool,
    /// A socket that listens, or is bound and nothing else.
    blocked: bool,
    /// A socket that listens.
    listening: bool,
}

/// Ports between two ends.
#[derive(Default)]
struct Lane<'a> {
    ports: Vec<u16>,
    time_wait: u32,
    owners: HashMap<u32, (&'a str, u32)>,
}

/// What one process has.
#[derive(Default)]
struct Share {
    holders: PortHolders,
    ports: Vec<u16>,
    destinations: HashMap<SocketAddr, u32>,
}

/// Adds up `sockets`, each with the process id and command name of an owner. At most `kept` processes and destinations are named.
/// `None` if the range is not known.
pub fn survey<'a>(
    netns: u32,
    knobs: &Knobs,
    sockets: impl Iterator<Item = (&'a DiagSocket, Option<(u32, &'a str)>)> + Clone,
    kept: usize,
) -> Option<PortSurvey> {
    let range = knobs.ip_local_port_range?;
    let mut ports = vec![Port::default(); 1 << u16::BITS];
    // A connection that a listener accepted has the listener's port.
    for (socket, _) in sockets.clone().filter(|(socket, _)| socket.state == SocketState::Listen) {
        if let Some(port) = ports.get_mut(usize::from(socket.local.port())) {
            port.listening = true;
        }
    }
    let mut lanes: HashMap<(IpAddr, SocketAddr), Lane<'_>> = HashMap::new();
    let mut shares: BTreeMap<Option<u32>, Share> = BTreeMap::new();
    for (socket, owner) in sockets {
        let local = canonical(socket.local);
        let number = local.port();
        if knobs.is_ephemeral(number) != Some(true) {
            continue;
        }
        let Some(port) = ports.get_mut(usize::from(number)) else { continue };
        let accepted = socket.state != SocketState::Listen && port.listening;
        let idle = matches!(socket.state, SocketState::Listen | SocketState::Bound);
        let time_wait = socket.state == SocketState::TimeWait;
        port.used = true;
        port.alive |= !time_wait;
        port.blocked |= idle;
        if accepted {
            continue;
        }
        let share = shares.entry(owner.map(|(pid, _)| pid)).or_default();
        if share.ports.is_empty() {
            share.holders.owner = owner.map(|(pid, comm)| Owner { pid, comm: comm.to_owned() });
        }
        share.ports.push(number);
        match socket.state {
            SocketState::TimeWait => share.holders.time_wait += 1,
            SocketState::CloseWait => share.holders.close_wait += 1,
            SocketState::Bound => share.holders.bound += 1,
            SocketState::Listen => {}
            _ => share.holders.established += 1,
        }
        if !idle {
            let remote = canonical(socket.remote);
            *share.destinations.entry(remote).or_default() += 1;
            let lane = lanes.entry((local.ip(), remote)).or_default();
            lane.ports.push(number);
            lane.time_wait += u32::from(time_wait);
            if let Some((pid, comm)) = owner {
                lane.owners.entry(pid).or_insert((comm, 0)).1 += 1;
            }
        }
    }
    let count = |wanted: &dyn Fn(usize, &Port) -> bool| {
        number(ports.iter().enumerate().filter(|(number, port)| port.used && wanted(*number, port)).count())
    };
    let mut processes: Vec<PortHolders> = shares.into_values().map(Share::total).collect();
    // Equal counts in the same order every time.
    processes.sort_by_key(|holders| {
        (std::cmp::Reverse(holders.ports), holders.owner.as_ref().map(|owner| owner.pid))
    });
    let mut destinations: Vec<DestinationUse> =
        lanes.into_iter().map(|((source, remote), lane)| lane.total(source, remote)).collect();
    destinations.sort_by_key(|destination| {
        (std::cmp::Reverse(destination.ports), destination.remote, destination.source)
    });
    let (processes_total, destinations_total) = (number(processes.len()), number(destinations.len()));
    processes.truncate(kept);
    destinations.truncate(kept);
    Some(PortSurvey {
        netns,
        range,
        capacity: knobs.ephemeral_ports()?,
        in_use: count(&|_, _| true),
        time_wait: count(&|_, port| !port.alive),
        blocked: count(&|_, port| port.blocked),
        in_use_connect_half: count(&|number, _| number % 2 == usize::from(range.first % 2)),
        processes,
        processes_total,
        destinations,
        destinations_total,
        incomplete: None,
    })
}

impl Share {
    fn total(self) -> PortHolders {
        let most_to = self.destinations.into_iter().max_by_key(|(remote, count)| (*count, *remote));
        PortHolders { ports: distinct(self.ports), most_to, ..self.holders }
    }
}

impl Lane<'_> {
    fn total(self, source: IpAddr, remote: SocketAddr) -> DestinationUse {
        let most = self.owners.into_iter().max_by_key(|(pid, (_, count))| (*count, *pid));
        DestinationUse {
            source,
            remote,
            ports: distinct(self.ports),
            time_wait: self.time_wait,
            owner: most.map(|(pid, (comm, _))| Owner { pid, comm: comm.to_owned() }),
        }
    }
}

/// How many there are; a port that is shared is there once for each socket.
fn distinct(mut ports: Vec<u16>) -> u32 {
    ports.sort_unstable();
    ports.dedup();
    number(ports.len())
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Family, PortRange};

    fn socket(state: SocketState, local: &str, remote: &str) -> DiagSocket {
        DiagSocket {
            family: Family::V4,
            state,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            ifindex: 0,
            cookie: 0,
            timer: None,
            rqueue: 0,
            wqueue: 0,
            uid: 0,
            inode: 1,
            drops: None,
            v6only: None,
            cgroup: None,
            options: None,
            silent_for: None,
        }
    }

    #[test]
    fn ports_are_counted_once_whoever_shares_them() {
        let knobs = Knobs {
            ip_local_port_range: Some(PortRange { first: 1000, last: 1009 }),
            ip_local_reserved_ports: Some("1009".parse().unwrap()),
            ..Knobs::default()
        };
        let (leaker, other, nobody) = (Some((7, "leaker")), Some((8, "other")), None);
        let (db, web) = ("10.0.0.1:5432", "10.0.0.2:80");
        let sockets = [
            (socket(SocketState::Established, "10.0.0.9:1000", db), leaker),
            (socket(SocketState::CloseWait, "10.0.0.9:1002", db), leaker),
            // The same port to another destination.
            (socket(SocketState::Established, "10.0.0.9:1000", web), leaker),
            (socket(SocketState::TimeWait, "10.0.0.9:1004", db), nobody),
            (socket(SocketState::Bound, "0.0.0.0:1001", "0.0.0.0:0"), other),
            // A server with a client, in the range.
            (socket(SocketState::Listen, "0.0.0.0:1003", "0.0.0.0:0"), other),
            (socket(SocketState::Established, "10.0.0.9:1003", "10.0.0.3:40000"), other),
            // Not ephemeral.
            (socket(SocketState::Established, "10.0.0.9:1009", db), other),
            (socket(SocketState::Established, "10.0.0.9:80", db), other),
        ];
        let list = || sockets.iter().map(|(socket, owner)| (socket, *owner));
        let survey = survey(1, &knobs, list(), 8).unwrap();
        assert_eq!((survey.capacity, survey.in_use, survey.time_wait, survey.blocked), (9, 5, 1, 2));
        assert_eq!((survey.in_use_connect_half, survey.free()), (3, 4));
        let names: Vec<_> = survey
            .processes
            .iter()
            .map(|holders| (holders.owner.as_ref().map(|owner| owner.pid), holders.ports))
            .collect();
        assert_eq!(names, [(Some(7), 2), (Some(8), 2), (None, 1)]);
        assert_eq!(survey.processes[0].most_to, Some((db.parse().unwrap(), 2)));
        assert_eq!((survey.processes[0].close_wait, survey.processes[1].bound), (1, 1));
        let to_db = survey.toward(db.parse().unwrap()).unwrap();
        assert_eq!((to_db.ports, to_db.time_wait, survey.destinations_total), (3, 1, 2));
        assert_eq!(survey.free_toward(to_db.ports), 4);
        assert!(super::survey(1, &Knobs::default(), list(), 8).is_none());
    }
}
