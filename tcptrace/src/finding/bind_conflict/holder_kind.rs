//! What kind of holder is in the way of a conflict: its cause.

use std::net::IpAddr;

use crate::correlate::PortHolder;
use crate::event::{Found, How, Owner, PortRange, SocketState};

use super::Account;

/// What kind of holder is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    EphemeralGrab,
    Listener,
    TimeWait,
    /// Closed here, and the peer has not closed, or not acknowledged it.
    FinWait,
    /// Closed on both sides, the last step not acknowledged.
    LastAck,
    BoundSocket,
    InheritedFd,
    Wildcard,
    KernelSocket,
}

impl Kind {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::EphemeralGrab => "ephemeral-grab",
            Self::Listener => "listener",
            Self::TimeWait => "time-wait",
            Self::FinWait => "fin-wait",
            Self::LastAck => "last-ack",
            Self::BoundSocket => "bound-socket",
            Self::InheritedFd => "inherited-fd",
            Self::Wildcard => "wildcard",
            Self::KernelSocket => "kernel-socket",
        }
    }
}

impl Account<'_> {
    pub(super) fn kind(&self, holder: &PortHolder) -> Kind {
        match holder.state {
            SocketState::TimeWait => return Kind::TimeWait,
            SocketState::FinWait1 | SocketState::FinWait2 if holder.is_remnant() => return Kind::FinWait,
            SocketState::Closing | SocketState::LastAck if holder.is_remnant() => return Kind::LastAck,
            _ => {}
        }
        let idle = matches!(holder.state, SocketState::Listen | SocketState::Bound);
        if idle && self.is_kernel_s(holder) {
            return Kind::KernelSocket;
        }
        if is_wildcard_of_other_family(self.conflict.endpoints.local.ip(), holder.endpoints.local.ip())
            && idle
        {
            return Kind::Wildcard;
        }
        if idle && self.heir_of(holder).is_some() {
            return Kind::InheritedFd;
        }
        if holder.how.is_ephemeral() {
            return Kind::EphemeralGrab;
        }
        if holder.state == SocketState::Listen {
            return Kind::Listener;
        }
        if holder.state.is_connected() && holder.how == How::Unknown && self.is_client(holder) {
            return Kind::EphemeralGrab;
        }
        Kind::BoundSocket
    }

    /// A socket that no process has, and that is not the remains of one.
    fn is_kernel_s(&self, holder: &PortHolder) -> bool {
        // The kernel side looks the inode up by the socket's file; sock_diag tells it with or without a file, but then the
        // processes were asked who has it.
        let has_no_file =
            if holder.found == Found::BindHash { holder.inode == 0 } else { self.conflict.reported };
        let nobody_has_it = has_no_file && !holder.is_named() && holder.uid == Some(0);
        nobody_has_it || holder.is_listener_without_file()
    }

    /// Whether the kernel chose the port of a connection that nobody saw taking it. Its entry for the port tells, if it was
    /// read; else it is guessed from the port, which lies in the ephemeral range, and nobody is known to have listened there.
    fn is_client(&self, holder: &PortHolder) -> bool {
        if self.conflict.reuse_state.is_some() {
            return self.taken_by_connect();
        }
        let (netns, port) = (holder.endpoints.netns, holder.endpoints.local.port());
        let listens =
            self.conflict.holders.iter().any(|other| other.state == SocketState::Listen)
                || self.world.listeners().iter().any(|listener| {
                    listener.endpoints.netns == netns && listener.endpoints.local.port() == port
                });
        !listens && self.range().is_some_and(|range| range.contains(port))
    }

    /// connect() makes the kernel's entry for a port with fastreuse -1, bind() with 0 or 1 (`__inet_hash_connect()`).
    pub(super) fn taken_by_connect(&self) -> bool {
        self.conflict.reuse_state.is_some_and(|state| state.fastreuse < 0)
    }

    /// The process that took the port, if it has the socket no more and others do, who did not call listen() themselves.
    pub(super) fn heir_of(&self, holder: &PortHolder) -> Option<Owner> {
        let taker = holder.taker.as_ref()?;
        let present = holder.present.as_ref()?;
        let listened = self
            .world
            .listeners()
            .with_inode(holder.inode)
            .and_then(|listener| listener.listen)
            .is_some_and(|call| present.contains(&call.pid));
        (!present.contains(&taker.pid) && !listened)
            .then(|| Owner { pid: taker.pid, comm: self.world.processes().comm(taker).to_owned() })
    }

    pub(super) fn range(&self) -> Option<PortRange> {
        self.world.namespace(self.conflict.endpoints.netns)?.knobs.local_port_range
    }
}

fn is_wildcard_of_other_family(wanted: IpAddr, held: IpAddr) -> bool {
    wanted.is_ipv4() != held.is_ipv4() && held.is_unspecified()
}
