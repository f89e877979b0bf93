//! bind() and listen() calls that failed whoever has the port: the address or the port is not to be had at all.

use std::net::{IpAddr, SocketAddr};

use crate::event::{BindFail, BindStage, Ipv6Off, SocketOptions, Task, Timestamp, UnusableAddress};

use super::bounded::BoundedMap;

/// How many refusals are remembered.
const REFUSALS: usize = 1024;

/// Names a refusal: attempts that are told as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefusalKey {
    /// Network namespace.
    pub netns: u32,
    /// Requested address and port.
    pub requested: SocketAddr,
    /// errno.
    pub errno: u32,
    /// Where it failed.
    pub stage: BindStage,
    /// Command name of who asked: a service that is restarted with a new pid and fails again is the same refusal.
    pub comm: String,
}

/// An address or a port that somebody wants and may not have.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// How often since the tracer started.
    pub attempts: u64,
    /// Last attempt.
    pub last: Timestamp,
    /// Who asked last.
    pub requester: Task,
    /// Options of the requesting socket.
    pub options: SocketOptions,
    /// Index of the device that it is bound to; 0 for none.
    pub device: u32,
    /// Addresses that the namespace had, if they were read.
    pub addresses: Option<Vec<IpAddr>>,
    /// The device that has the requested address, which cannot be bound yet, or at all.
    pub unusable: Option<UnusableAddress>,
    /// Where IPv6 was off, if an IPv6 address was asked for.
    pub ipv6_off: Option<Ipv6Off>,
}

/// All refusals.
#[derive(Debug)]
pub(super) struct Refusals {
    by_key: BoundedMap<RefusalKey, Refusal>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { by_key: BoundedMap::new(REFUSALS) }
    }
}

impl Refusals {
    /// Nothing is known any more of this namespace.
    pub(super) fn forget(&mut self, netns: u32) {
        self.by_key.retain(|key, _| key.netns != netns);
    }

    pub(super) fn get(&self, key: &RefusalKey) -> Option<&Refusal> {
        self.by_key.get(key)
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.by_key.forgotten()
    }

    /// An attempt failed.
    pub(super) fn note(&mut self, time: Timestamp, fail: &BindFail) -> RefusalKey {
        let key = RefusalKey {
            netns: fail.endpoints.netns,
            requested: fail.endpoints.local,
            errno: fail.errno,
            stage: fail.stage,
            comm: fail.task.comm.to_string(),
        };
        let fresh = || Refusal {
            attempts: 0,
            last: time,
            requester: fail.task.clone(),
            options: fail.options,
            device: fail.endpoints.device,
            addresses: None,
            unusable: None,
            ipv6_off: None,
        };
        let refusal = self.by_key.get_or_insert_with(key.clone(), fresh);
        refusal.attempts += 1;
        if time >= refusal.last {
            refusal.last = time;
            refusal.requester = fail.task.clone();
            refusal.options = fail.options;
            refusal.device = fail.endpoints.device;
        }
        if fail.addresses.is_some() {
            refusal.addresses.clone_from(&fail.addresses);
            refusal.unusable.clone_from(&fail.unusable);
            refusal.ipv6_off.clone_from(&fail.ipv6_off);
        }
        key
    }
}
