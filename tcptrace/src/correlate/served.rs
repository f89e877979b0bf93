//! Ports that servers have, had or want, by number, inside the ephemeral range: what a client might be given.

use std::net::SocketAddr;

use crate::event::{BindFail, Endpoints, How, Listen, Owner, PortTaken, SocketOwner, Task, Timestamp};

use super::bounded::BoundedMap;

/// How many are remembered.
const PORTS: usize = 8192;

/// A port of a namespace.
pub type ServedPort = (u32, u16);

/// Ports asked for by number.
#[derive(Debug)]
pub struct Served {
    ports: BoundedMap<ServedPort, Server>,
}

impl Default for Served {
    fn default() -> Self {
        Self { ports: BoundedMap::new(PORTS) }
    }
}

/// Who asked for a port by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The address.
    pub address: SocketAddr,
    /// The last process that asked for it.
    pub owner: Owner,
    /// When it was last seen asking or listening.
    pub seen: Timestamp,
    /// It listens, or did.
    pub listened: bool,
    /// It was asked for in vain.
    pub refused: bool,
    /// The client that was given the port since.
    pub grabbed: Option<Grab>,
}

/// A client was given a server's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grab {
    /// When.
    pub time: Timestamp,
    /// Who.
    pub task: Task,
    /// From where, and where to.
    pub endpoints: Endpoints,
}

impl Served {
    /// Nothing is known any more of this namespace.
    pub(super) fn forget(&mut self, netns: u32) {
        self.ports.retain(|(of, _), _| *of != netns);
    }

    /// Who asked for a port.
    pub fn get(&self, port: ServedPort) -> Option<&Server> {
        self.ports.get(&port)
    }

    /// The ports of a namespace on which somebody listens or did, in order.
    pub fn of(&self, netns: u32) -> Vec<(u16, &Server)> {
        let of_netns = self.ports.iter().filter(|((there, _), server)| *there == netns && server.listened);
        let mut ports: Vec<(u16, &Server)> = of_netns.map(|((_, port), server)| (*port, server)).collect();
        ports.sort_unstable_by_key(|(port, _)| *port);
        ports
    }

    fn note(&mut self, endpoints: &Endpoints, owner: Owner, time: Timestamp) -> &mut Server {
        let address = endpoints.local;
        let fresh = || Server {
            address,
            owner: Owner::default(),
            seen: time,
            listened: false,
            refused: false,
            grabbed: None,
        };
        let server = self.ports.get_or_insert_with((endpoints.netns, address.port()), fresh);
        server.owner = owner;
        server.seen = time;
        server
    }

    /// A port was taken. Whether a client was given one that a server asked for.
    pub(super) fn note_taken(&mut self, time: Timestamp, taken: &PortTaken) -> bool {
        let owner = || Owner { pid: taken.task.pid, comm: taken.task.comm.to_string() };
        match taken.how {
            How::Bind => {
                self.note(&taken.endpoints, owner(), time).grabbed = None;
                false
            }
            How::Connect => {
                let key = (taken.endpoints.netns, taken.endpoints.local.port());
                let Some(server) =
                    self.ports.get_mut(&key).filter(|server| server.listened || server.refused)
                else {
                    return false;
                };
                server.grabbed = Some(Grab { time, task: taken.task.clone(), endpoints: taken.endpoints });
                true
            }
            _ => false,
        }
    }

    /// listen(). Whether the port was asked for by number.
    pub(super) fn note_listen(&mut self, time: Timestamp, listen: &Listen) -> bool {
        let key = (listen.endpoints.netns, listen.endpoints.local.port());
        let Some(server) = self.ports.get_mut(&key) else { return false };
        server.seen = time;
        server.listened = true;
        server.owner = Owner { pid: listen.task.pid, comm: listen.task.comm.to_string() };
        true
    }

    /// A socket that is older than the tracer. Whether its port was asked for by number.
    pub(super) fn note_owner(&mut self, time: Timestamp, found: &SocketOwner) -> bool {
        if !found.port_by_number || found.endpoints.remote.is_some() {
            return false;
        }
        let Some(owner) = found.owners.first() else { return false };
        self.note(&found.endpoints, owner.clone(), time).listened = true;
        true
    }

    /// bind() failed for a port. Who listened there, and when it was last seen to, stays as it was.
    pub(super) fn note_refused(&mut self, time: Timestamp, fail: &BindFail) {
        let key = (fail.endpoints.netns, fail.endpoints.local.port());
        if let Some(server) = self.ports.get_mut(&key).filter(|server| server.listened) {
            server.refused = true;
            return;
        }
        let owner = Owner { pid: fail.task.pid, comm: fail.task.comm.to_string() };
        self.note(&fail.endpoints, owner, time).refused = true;
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.ports.forgotten()
    }
}
