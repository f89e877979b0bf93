//! Who has a socket.

use crate::event::{Endpoints, Owner, OwnerConfidence, SocketOwner, Task};

use super::bounded::BoundedMap;

/// How many processes are remembered for one socket.
const OWNERS: usize = 16;

/// The processes that have a socket, the one to name first at the front.
///
/// Sockets are shared: a listener is inherited by the workers of a pre-forking server, or handed over by a supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    known: Vec<KnownOwner>,
    /// There were more than are kept.
    more: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownOwner {
    /// Process id.
    pub pid: u32,
    /// Command name of the process or of the thread that was seen.
    pub comm: String,
    /// User id, if it was seen.
    pub uid: Option<u32>,
    /// How well it is known.
    pub confidence: OwnerConfidence,
}

impl Owners {
    /// The process to name: the first of those known best.
    pub fn first(&self) -> Option<&KnownOwner> {
        let best = self.known.iter().map(|owner| owner.confidence).max()?;
        self.known.iter().find(|owner| owner.confidence == best)
    }

    /// All that are known.
    pub fn iter(&self) -> impl Iterator<Item = &KnownOwner> {
        self.known.iter()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether `pid` is among them.
    pub fn contains(&self, pid: u32) -> bool {
        self.known.iter().any(|owner| owner.pid == pid)
    }

    /// Whether there are owners beyond those kept.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Takes `pid` out.
    pub fn remove(&mut self, pid: u32) {
        self.known.retain(|owner| owner.pid != pid);
    }

    /// `task` was seen using the socket.
    pub fn observe(&mut self, task: &Task) {
        self.note(task.pid, &task.comm, Some(task.uid), OwnerConfidence::Observed);
    }

    /// `owner` was found to have the socket.
    pub fn found(&mut self, owner: &Owner, confidence: OwnerConfidence) {
        self.note(owner.pid, &owner.comm, None, confidence);
    }

    /// `pid`, known already, was seen using the socket.
    pub(super) fn confirm(&mut self, pid: u32) {
        if let Some(known) = self.known.iter_mut().find(|owner| owner.pid == pid) {
            known.confidence = OwnerConfidence::Observed;
        }
    }

    fn note(&mut self, pid: u32, comm: &str, uid: Option<u32>, confidence: OwnerConfidence) {
        if pid == 0 {
            return;
        }
        if let Some(known) = self.known.iter_mut().find(|owner| owner.pid == pid) {
            known.uid = uid.or(known.uid);
            if confidence > known.confidence {
                known.confidence = confidence;
                comm.clone_into(&mut known.comm);
            }
        } else if self.known.len() < OWNERS {
            self.known.push(KnownOwner { pid, comm: comm.to_owned(), uid, confidence });
        } else {
            self.more = true;
        }
    }
}

/// Owners of sockets that are older than the tracer, until they are asked for. By inode number: a socket's address in memory
/// is soon used again.
#[derive(Debug)]
pub(super) struct SocketOwners {
    by_inode: BoundedMap<u64, OwnedSocket>,
}

#[derive(Debug, Default)]
struct OwnedSocket {
    owners: Owners,
    /// Its ends, if they were read from the socket itself.
    place: Option<Endpoints>,
}

/// How many sockets are remembered.
const SOCKETS: usize = 65_536;

impl Default for SocketOwners {
    fn default() -> Self {
        Self { by_inode: BoundedMap::new(SOCKETS) }
    }
}

impl SocketOwners {
    /// Remembers who has a socket.
    pub(super) fn note(&mut self, found: &SocketOwner) {
        // Without a file nobody has it.
        if found.inode == 0 || found.owners.is_empty() {
            return;
        }
        let socket = self.by_inode.get_or_insert_with(found.inode, OwnedSocket::default);
        for owner in &found.owners {
            socket.owners.found(owner, found.confidence);
        }
        // What is looked for because of a packet has the packet's address.
        if found.confidence == OwnerConfidence::Bootstrapped {
            socket.place = Some(found.endpoints);
        }
    }

    /// The ends of the socket with this inode, if they were read when the tracer started.
    pub(super) fn place_of(&self, inode: u64) -> Option<&Endpoints> {
        self.by_inode.get(&inode)?.place.as_ref()
    }

    /// Who has the socket with this inode.
    pub(super) fn of(&self, inode: u64) -> Option<&Owners> {
        if inode == 0 { None } else { self.by_inode.get(&inode).map(|socket| &socket.owners) }
    }

    /// The socket is gone.
    pub(super) fn forget(&mut self, inode: u64) {
        self.by_inode.remove(&inode);
    }

    /// How many were forgotten for newer ones.
    pub(super) fn forgotten(&self) -> u64 {
        self.by_inode.forgotten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: u32, comm: &str) -> Task {
        Task { pid, tid: pid, uid: 7, cgroup: 0, comm: comm.into() }
    }

    #[test]
    fn observed_owners_come_first() {
        let mut owners = Owners::default();
        owners.found(&Owner { pid: 1, comm: "systemd".into() }, OwnerConfidence::Bootstrapped);
        owners.found(&Owner { pid: 2, comm: "old-name".into() }, OwnerConfidence::Likely);
        owners.observe(&task(2, "server"));
        let first = owners.first().unwrap();
        assert_eq!((first.pid, first.comm.as_str(), first.uid), (2, "server", Some(7)));
        assert_eq!(owners.iter().count(), 2);
    }

    #[test]
    fn there_is_an_end_to_owners() {
        let mut owners = Owners::default();
        for pid in 1..100 {
            owners.observe(&task(pid, "worker"));
        }
        assert_eq!((owners.iter().count(), owners.has_more()), (OWNERS, true));
        assert_eq!(owners.first().unwrap().pid, 1);
    }
}
