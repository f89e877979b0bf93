//! Ports in use by process, and destinations of connects.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ahash::AHashMap;

use crate::correlate::Processes;
use crate::event::{Connect, ConnectResult, How, OwnerConfidence, PortReleased, PortTaken, Timestamp};
use crate::finding::ProcessName;

use super::port_use::Use;
use super::series::Series;

/// So many processes and destinations are followed; the rest is counted.
const ENTRIES: usize = 2_000;

/// So many sockets are remembered with the process that has their port.
const SOCKETS: usize = 1 << 20;

/// A process that takes ports.
#[derive(Clone, Debug)]
pub struct PortUser {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The same as findings name it.
    pub process: ProcessName,
    /// Ports taken in this time.
    pub taken: u64,
    /// Of these: chosen by the kernel, from the ephemeral range.
    pub ephemeral: u64,
    /// Given back.
    pub released: u64,
    /// Of these: left in TIME_WAIT.
    pub time_wait: u64,
    /// connect() calls that found no port.
    pub refused: u64,
    /// Most at a time, of those whose taking was seen.
    pub held_max: u64,
    /// Ports in use over time, of those whose taking was seen.
    pub series: Series,
}

/// Where connections were made to.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Remote end.
    pub remote: SocketAddr,
    /// Connects that took a port for it, as far as these are recorded (`record --all`).
    pub connects: u64,
    /// Connects whose SYN was sent again.
    pub unanswered: u64,
    /// Connects answered by RST.
    pub refused: u64,
    /// Connects that ended otherwise without a connection.
    pub failed: u64,
    /// The longest that a connect took, or waited in vain, ms; of those that were slow or failed.
    pub longest_ms: Option<f64>,
    /// The process that connected there first.
    pub comm: String,
    /// Its process id.
    pub pid: u32,
    /// The same as findings name it.
    pub process: ProcessName,
    /// How many processes connected there.
    pub processes: u64,
}

/// Ports as they are taken and given back. They are streamed on request only (`record --all`).
#[derive(Default)]
pub(super) struct Ports {
    users: BTreeMap<u32, (PortUser, u64)>,
    destinations: AHashMap<SocketAddr, (Destination, Vec<u32>)>,
    holders: AHashMap<u64, u32>,
    /// Connects are recorded that were answered at once, and so all are.
    all: bool,
    untold: u64,
}

impl Ports {
    pub(super) fn taken(&mut self, time: Timestamp, start: Timestamp, within: bool, taken: &PortTaken) {
        let owner = (taken.task.pid, taken.task.comm.as_str());
        self.take(time, start, within, owner, taken.sk, taken.how, taken.endpoints.remote);
    }

    /// What is told of a connect tells of its port, unless that was told before.
    pub(super) fn connected(&mut self, time: Timestamp, start: Timestamp, within: bool, connect: &Connect) {
        if within {
            self.connect(connect);
        }
        // Without `--all` only those are told that were not answered at once, and none of their ports' release.
        self.all |= connect.result == ConnectResult::Established && connect.syns_again == 0;
        let (Some(since), Some(task), true) = (connect.port_taken(time), &connect.task, self.all) else {
            return;
        };
        if connect.result == ConnectResult::SynAgain && connect.syns_again > 1
            || self.holders.contains_key(&connect.sk)
        {
            return;
        }
        let owner = (task.pid, task.comm.as_str());
        self.take(since, start, within, owner, connect.sk, How::Connect, connect.endpoints.remote);
    }

    #[expect(clippy::too_many_arguments, reason = "they are what two kinds of events have in common")]
    fn take(
        &mut self,
        time: Timestamp,
        start: Timestamp,
        within: bool,
        (pid, comm): (u32, &str),
        sk: u64,
        how: How,
        remote: Option<SocketAddr>,
    ) {
        if self.users.len() >= ENTRIES && !self.users.contains_key(&pid) {
            self.untold += 1;
            return;
        }
        let (user, held) = self.users.entry(pid).or_insert_with(|| {
            let user = PortUser {
                pid,
                comm: comm.to_owned(),
                process: ProcessName::default(),
                taken: 0,
                ephemeral: 0,
                released: 0,
                time_wait: 0,
                refused: 0,
                held_max: 0,
                series: Series::new(start),
            };
            (user, 0)
        });
        if sk != 0 && self.holders.len() < SOCKETS && self.holders.insert(sk, pid).is_none() {
            *held += 1;
        }
        user.held_max = user.held_max.max(*held);
        if !within {
            return;
        }
        user.taken += 1;
        user.ephemeral += u64::from(how.is_ephemeral());
        user.series.at(time).level = Some(*held);
        if how == How::Connect
            && let Some(remote) = remote
            && let Some(of) = self.destination(remote, pid, comm)
        {
            of.connects += 1;
        }
    }

    fn destination(&mut self, remote: SocketAddr, pid: u32, comm: &str) -> Option<&mut Destination> {
        /// Processes that are told apart at one destination.
        const PROCESSES: usize = 64;
        if self.destinations.len() >= ENTRIES && !self.destinations.contains_key(&remote) {
            self.untold += 1;
            return None;
        }
        let (destination, pids) = self.destinations.entry(remote).or_insert_with(|| {
            let of = Destination {
                remote,
                connects: 0,
                unanswered: 0,
                refused: 0,
                failed: 0,
                longest_ms: None,
                process: ProcessName::default(),
                comm: comm.to_owned(),
                pid,
                processes: 0,
            };
            (of, Vec::new())
        });
        if !pids.contains(&pid) && pids.len() < PROCESSES {
            pids.push(pid);
            destination.processes += 1;
        }
        Some(destination)
    }

    /// What became of a connect.
    fn connect(&mut self, connect: &Connect) {
        let Some(remote) = connect.endpoints.remote else { return };
        let (pid, comm) = connect.task.as_ref().map_or((0, "?"), |task| (task.pid, task.comm.as_str()));
        let Some(of) = self.destination(remote, pid, comm) else { return };
        match connect.result {
            ConnectResult::SynAgain => of.unanswered += u64::from(connect.syns_again == 1),
            ConnectResult::Established => {}
            ConnectResult::Refused => of.refused += 1,
            ConnectResult::Unreachable
            | ConnectResult::TimedOut
            | ConnectResult::Cancelled
            | ConnectResult::Error => of.failed += 1,
        }
        #[expect(clippy::cast_precision_loss, reason = "a connect of 2^52 ns would take 52 days")]
        let age = connect.age_ns.map(|ns| (ns as f64 / 1e3).round() / 1e3);
        of.longest_ms = match (of.longest_ms, age) {
            (Some(longest), Some(age)) => Some(longest.max(age)),
            (longest, age) => longest.or(age),
        };
    }

    pub(super) fn released(&mut self, time: Timestamp, within: bool, released: &PortReleased) {
        let known = self.holders.remove(&released.sk);
        let Some((user, held)) = self.users.get_mut(&known.unwrap_or(released.pid)) else { return };
        if known.is_some() {
            *held = held.saturating_sub(1);
        }
        if within {
            user.released += 1;
            user.time_wait += u64::from(released.time_wait);
            user.series.at(time).level = Some(*held);
        }
    }

    /// What a process did with ephemeral ports, summed up: it holds whether or not each port was recorded.
    fn sum_up(&mut self, pid: u32, of: &Use) {
        let (comm, [taken, released, time_wait, refused]) = of.counts();
        let (user, _) = self.users.entry(pid).or_insert_with(|| {
            let series = of.series.clone();
            let user = PortUser {
                pid,
                comm: comm.to_owned(),
                process: ProcessName::default(),
                taken: 0,
                ephemeral: 0,
                released: 0,
                time_wait: 0,
                refused: 0,
                held_max: 0,
                series,
            };
            (user, 0)
        });
        // Ports of numbers that were asked for are in the events only.
        let by_number = user.taken.saturating_sub(user.ephemeral);
        if taken >= user.ephemeral {
            (user.taken, user.ephemeral) = (by_number + taken, taken);
            user.released = user.released.max(released);
            user.time_wait = user.time_wait.max(time_wait);
        }
        user.refused += refused;
        if of.held_max >= user.held_max {
            user.held_max = of.held_max;
            user.series.clone_from(&of.series);
        }
    }

    /// Who took the most ports, and where the most connections went; and how many were too many to follow.
    pub(super) fn finish(
        mut self,
        uses: &BTreeMap<(u32, u32), Use>,
        processes: &Processes,
    ) -> (Vec<PortUser>, Vec<Destination>, u64) {
        for ((_, pid), of) in uses {
            self.sum_up(*pid, of);
        }
        let mut users: Vec<PortUser> = self
            .users
            .into_values()
            .map(|(user, _)| user)
            .filter(|user| user.taken + user.released + user.refused > 0)
            .collect();
        users.sort_by(|a, b| b.taken.cmp(&a.taken).then(a.pid.cmp(&b.pid)));
        let mut destinations: Vec<Destination> = self.destinations.into_values().map(|(of, _)| of).collect();
        let name = |pid: u32, comm: &str| match processes.info(pid) {
            // The number may have been given to another process since.
            Some(info) if info.comm == comm => ProcessName::observed(pid, comm, processes),
            _ => ProcessName {
                pid: (pid != 0).then_some(pid),
                comm: (pid != 0).then(|| comm.to_owned()),
                confidence: OwnerConfidence::Observed,
                ..ProcessName::default()
            },
        };
        users.iter_mut().for_each(|of| of.process = name(of.pid, &of.comm));
        destinations.iter_mut().for_each(|of| of.process = name(of.pid, &of.comm));
        let trouble = |of: &Destination| of.unanswered + of.refused + of.failed;
        destinations.sort_by(|a, b| {
            trouble(b).cmp(&trouble(a)).then(b.connects.cmp(&a.connects)).then(a.remote.cmp(&b.remote))
        });
        (users, destinations, self.untold)
    }
}
