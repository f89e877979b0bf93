//! Which listeners to show, and in which order.

use std::cmp::Ordering;

use super::Listener;
use crate::event::PortSet;

/// Which listeners are wanted; empty lists want all. Between lists: all must agree.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Local ports.
    pub ports: PortSet,
    /// Process ids of an owner.
    pub pids: Vec<u32>,
    /// Command names of an owner.
    pub comms: Vec<String>,
    /// Parts of the name of an owner's container, pod or unit.
    pub containers: Vec<String>,
}

impl Filter {
    /// Whether it is wanted.
    pub fn wants(&self, listener: &Listener) -> bool {
        let any = |test: &dyn Fn(&super::OwnerProcess) -> bool| {
            listener.owners.iter().any(|owner| test(&owner.process))
        };
        (self.ports.is_empty() || self.ports.contains(listener.socket.local.port()))
            && (self.pids.is_empty() || any(&|process| self.pids.contains(&process.who.pid)))
            && (self.comms.is_empty() || any(&|process| self.comms.contains(&process.who.comm)))
            && (self.containers.is_empty()
                || any(&|process| {
                    let name = process.container().unwrap_or_default();
                    self.containers.iter().any(|part| name.contains(part.as_str()))
                }))
    }
}

/// What to sort by. Quantities go from most to least, names from first to last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SortBy {
    /// Connections waiting to be accepted
    #[default]
    Queue,
    /// The same as a share of the limit
    Fill,
    /// Half-open connections
    SynQueue,
    /// Drops since the listener was made; with --for: during the trace
    Drops,
    /// Longest accept wait (with --for)
    Wait,
    /// SYNs that arrive (with --for)
    Arrivals,
    /// Limit of the accept queue, the smallest first
    Limit,
    /// Port
    Port,
    /// Process id
    Pid,
    /// Command name
    Comm,
    /// Network namespace
    Netns,
}

impl SortBy {
    /// Sorts; equals by port, address, namespace and descriptor.
    pub fn sort(self, listeners: &mut [Listener]) {
        listeners.sort_by(|a, b| self.compare(a, b).then_with(|| place(a).cmp(&place(b))));
    }

    fn compare(self, a: &Listener, b: &Listener) -> Ordering {
        fn down<T: Ord>(a: &Listener, b: &Listener, of: impl Fn(&Listener) -> T) -> Ordering {
            of(b).cmp(&of(a))
        }
        let pid = |l: &Listener| l.owner().map_or(u32::MAX, |owner| owner.process.who.pid);
        let traced = |l: &Listener, of: fn(&super::Traced) -> Option<u64>| l.traced.as_ref().and_then(of);
        match self {
            Self::Queue => down(a, b, |l| l.socket.depth),
            Self::Fill => b.fill().total_cmp(&a.fill()),
            Self::SynQueue => down(a, b, |l| l.half_open.map(|found| found.requests)),
            Self::Drops => down(a, b, |l| (traced(l, super::Traced::drops), l.socket.drops)),
            Self::Wait => down(a, b, |l| traced(l, |traced| traced.totals.wait_max_ns)),
            Self::Arrivals => {
                down(a, b, |l| traced(l, |traced| traced.totals.syns.or(traced.totals.enqueued)))
            }
            Self::Limit => a.socket.limit.cmp(&b.socket.limit),
            Self::Port => Ordering::Equal,
            Self::Pid => pid(a).cmp(&pid(b)),
            Self::Comm => {
                let comm = |l: &Listener| l.owner().map(|owner| owner.process.who.comm.clone());
                // Those without an owner last.
                (comm(a).is_none(), comm(a)).cmp(&(comm(b).is_none(), comm(b)))
            }
            Self::Netns => (!a.own_netns, a.netns).cmp(&(!b.own_netns, b.netns)),
        }
    }
}

fn place(listener: &Listener) -> (u16, std::net::IpAddr, bool, u32, u64) {
    let socket = &listener.socket;
    (socket.local.port(), socket.local.ip(), !listener.own_netns, listener.netns, socket.inode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::testing::{listener, owner};

    fn ports(by: SortBy, listeners: &[Listener]) -> Vec<u16> {
        let mut sorted = listeners.to_vec();
        by.sort(&mut sorted);
        sorted.iter().map(|listener| listener.socket.local.port()).collect()
    }

    fn some() -> Vec<Listener> {
        let mut all = vec![listener("0.0.0.0:82"), listener("0.0.0.0:80"), listener("0.0.0.0:81")];
        all[0].owners = vec![owner(5, "b", &[3], vec![])];
        all[1].owners = vec![owner(9, "a", &[3], vec![]), owner(10, "worker", &[3], vec![])];
        all[2].owners = vec![];
        (all[0].socket.depth, all[0].socket.limit) = (3, 1000);
        (all[1].socket.depth, all[1].socket.limit) = (2, 2);
        all[2].socket.drops = Some(7);
        all
    }

    #[test]
    fn quantities_go_down_and_names_go_up() {
        assert_eq!(ports(SortBy::Queue, &some()), [82, 80, 81]);
        assert_eq!(ports(SortBy::Fill, &some()), [80, 82, 81]);
        assert_eq!(ports(SortBy::Drops, &some()), [81, 80, 82]);
        assert_eq!(ports(SortBy::Limit, &some()), [80, 81, 82]);
        assert_eq!(ports(SortBy::Port, &some()), [80, 81, 82]);
        assert_eq!(ports(SortBy::Pid, &some()), [82, 80, 81]);
        assert_eq!(ports(SortBy::Comm, &some()), [80, 82, 81]);
    }

    #[test]
    fn filters_look_at_every_owner() {
        let some = some();
        let wanted = |filter: &Filter| -> Vec<u16> {
            some.iter().filter(|l| filter.wants(l)).map(|l| l.socket.local.port()).collect()
        };
        assert_eq!(wanted(&Filter::default()), [82, 80, 81]);
        assert_eq!(wanted(&Filter { pids: vec![10], ..Filter::default() }), [80]);
        assert_eq!(wanted(&Filter { comms: vec!["b".into()], ..Filter::default() }), [82]);
        assert_eq!(
            wanted(&Filter { ports: [80, 81].into_iter().collect(), pids: vec![5], ..Filter::default() }),
            [0u16; 0]
        );
        assert_eq!(wanted(&Filter { containers: vec!["x".into()], ..Filter::default() }), [0u16; 0]);
    }
}
