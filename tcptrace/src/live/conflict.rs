//! Who has a port that was refused a moment ago.

use std::collections::{HashMap, HashSet};

use super::Live;
use crate::event::{self, BindFailure, Event, Holder, HolderReport, Kind, Owner, ReportedHolder, Timestamp};
use crate::host::sock_diag;

/// A port, or a connection from one, that a process did not get.
pub(super) struct Refused {
    pub(super) time: Timestamp,
    pub(super) netns: u32,
    pub(super) port: u16,
    pub(super) requester: u32,
    /// Who has it, as the kernel side has seen.
    pub(super) holders: Vec<Holder>,
}

impl Refused {
    /// The port that `kind` did not get, if it is a matter of who has it.
    pub(super) fn of(time: Timestamp, kind: &Kind) -> Option<Self> {
        let (endpoints, requester, holders) = match kind {
            Kind::BindFail(fail) if fail.failure() == BindFailure::Conflict => {
                (fail.endpoints, fail.task.pid, fail.holders.clone())
            }
            Kind::NoPort(refused) if refused.endpoints.local.port() != 0 => {
                (refused.endpoints, refused.task.pid, Vec::new())
            }
            _ => return None,
        };
        Some(Self { time, netns: endpoints.netns, port: endpoints.local.port(), requester, holders })
    }

    /// Whether one look at the port answers both.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.netns, self.port, self.requester) == (other.netns, other.port, other.requester)
    }
}

impl Live {
    /// What sock_diag and procfs say about the holders of a port that was refused a moment ago.
    pub(super) fn report_holders(&mut self, conflict: &Refused, into: &mut Vec<Event>) {
        let (netns, port) = (conflict.netns, conflict.port);
        let mut incomplete = None;
        let sockets = match self.places.diag(netns).map(|diag| diag.holders(port)) {
            Some(Ok(found)) => {
                if found.interrupted {
                    incomplete = Some("the kernel's tables changed while they were listed".to_owned());
                }
                found.sockets
            }
            Some(Err(error)) => {
                incomplete = Some(error.to_string());
                Vec::new()
            }
            None => {
                incomplete = Some("that namespace cannot be entered".to_owned());
                Vec::new()
            }
        };
        if incomplete.is_none() && sock_diag::lists_bound_only() == Some(false) {
            incomplete = Some("before 6.8 sock_diag does not list sockets that are only bound".to_owned());
        }
        let mut inodes: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
        inodes.extend(conflict.holders.iter().map(|holder| holder.inode));
        inodes.remove(&0);
        let owners: HashMap<u64, Vec<Owner>> = self.people.find_owners(&inodes);
        let now = self.moment;
        for owner in owners.values().flatten() {
            if let Some(kind) = self.people.introduce(owner.pid) {
                into.push(Event { time: now, kind });
            }
        }
        let devices = sockets.iter().map(|socket| socket.ifindex);
        for device in devices.chain(conflict.holders.iter().map(|holder| holder.endpoints.device)) {
            let known = self.places.introduce_device(netns, device);
            into.extend(known.map(|kind| Event { time: now, kind }));
        }
        let mut holders: Vec<ReportedHolder> = sockets
            .iter()
            .map(|socket| ReportedHolder {
                local: event::canonical(socket.local),
                remote: (socket.remote.port() != 0).then(|| event::canonical(socket.remote)),
                state: socket.state,
                inode: socket.inode,
                uid: (socket.inode != 0).then_some(socket.uid),
                v6only: socket.v6only,
                device: socket.ifindex,
                retransmits: socket.timer.map_or(0, |timer| u32::from(timer.retransmits)),
                time_wait_left_ms: socket
                    .time_wait_left()
                    .map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                owners: owners.get(&socket.inode).cloned().unwrap_or_default(),
            })
            .collect();
        // Bound-only sockets that only the kernel's own table shows: their owners are found all the same.
        for holder in conflict.holders.iter().filter(|h| h.inode != 0) {
            if !holders.iter().any(|reported| reported.inode == holder.inode)
                && let Some(owners) = owners.get(&holder.inode)
            {
                holders.push(ReportedHolder {
                    local: holder.endpoints.local,
                    remote: holder.endpoints.remote,
                    state: holder.state,
                    inode: holder.inode,
                    uid: holder.uid,
                    v6only: holder.options.map(event::SocketOptions::v6only),
                    device: holder.endpoints.device,
                    retransmits: 0,
                    time_wait_left_ms: None,
                    owners: owners.clone(),
                });
            }
        }
        let report = HolderReport {
            netns,
            port,
            requester: conflict.requester,
            conflict: conflict.time,
            holders,
            incomplete,
        };
        into.push(Event { time: now, kind: Kind::HolderReport(Box::new(report)) });
    }
}
