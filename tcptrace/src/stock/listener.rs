//! One listener with everything that is known of it.

use std::sync::Arc;

use super::{HalfOpen, Limit, Owner, SynQueueLimit, Traced};
use crate::command::{Inside, Standpoint};
use crate::event::PortRange;
use crate::host::devices::Device;
use crate::host::knobs::Knobs;
use crate::host::sock_diag;

/// A listener, now.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Id of its network namespace.
    pub netns: u32,
    /// The namespace's name, where an administrator gave it one.
    pub netns_name: Option<Arc<str>>,
    /// Whether that is tcptrace's own namespace.
    pub own_netns: bool,
    /// What sock_diag says.
    pub socket: sock_diag::Listener,
    /// Who has it open, by ascending pid.
    pub owners: Vec<Owner>,
    /// Whether every process could be asked: if nobody has it then, nobody that can be found does.
    pub owners_complete: bool,
    /// What limits its accept queue.
    pub limit: Limit,
    /// Its SYN queue; `None` if that could not be read.
    pub half_open: Option<HalfOpen>,
    /// The SO_REUSEPORT group, if it is not alone at its address.
    pub group: Option<Group>,
    /// The device that it is bound to (SO_BINDTODEVICE, VRF), where that has a name; `socket.ifindex` is its index.
    pub device: Option<Arc<Device>>,
    /// Knobs of its namespace.
    pub knobs: Arc<Knobs>,
    /// What a trace has seen of it.
    pub traced: Option<Traced>,
}

/// Listeners at one address: they share it by SO_REUSEPORT, each with queues of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// How many they are.
    pub members: u32,
    /// Connections waiting at all of them together.
    pub queued: u64,
}

impl Listener {
    /// Whether the next connection is dropped (`sk_acceptq_is_full()`).
    pub fn is_full(&self) -> bool {
        self.socket.depth > self.socket.limit
    }

    /// Name of the device that it is bound to, or its number; `None` if it is bound to none.
    pub fn device_name(&self) -> Option<String> {
        let index = self.socket.ifindex;
        let known = || self.device.as_ref().map(|device| device.name.clone());
        (index != 0).then(|| known().unwrap_or_else(|| format!("device {index}")))
    }

    /// The process to name first: the one with the lowest pid, as a rule the parent of the others.
    pub fn owner(&self) -> Option<&Owner> {
        self.owners.first()
    }

    /// Whether it is the kernel's own (NFS, for example): a socket without a file.
    pub fn is_kernel_s(&self) -> bool {
        self.socket.inode == 0
    }

    /// `command`, for its namespace.
    pub fn command(&self, command: &str) -> String {
        let standpoint = Standpoint { own: self.own_netns.then_some(self.netns), host: None };
        let pid = self.owner().map(|owner| owner.process.who.pid);
        let place = Inside { netns: self.netns, pid, name: self.netns_name.as_deref() };
        standpoint.inside(place, command)
    }

    /// What bounds its SYN queue.
    pub fn syn_queue_limit(&self) -> SynQueueLimit {
        SynQueueLimit::of(self.socket.limit, &self.knobs)
    }

    /// The ephemeral range, if its port lies in it unreserved: another program may be given the port while this one is
    /// restarted.
    pub fn ephemeral(&self) -> Option<PortRange> {
        self.knobs
            .ip_local_port_range
            .filter(|_| self.knobs.is_ephemeral(self.socket.local.port()) == Some(true))
    }

    /// Whether all its owners are stopped, so that nobody can accept.
    pub fn is_stopped(&self) -> bool {
        !self.owners.is_empty() && self.owners.iter().all(|owner| owner.process.is_stopped())
    }

    /// How full the accept queue is: 1 and more when full.
    pub fn fill(&self) -> f64 {
        f64::from(self.socket.depth) / (f64::from(self.socket.limit) + 1.0)
    }
}
