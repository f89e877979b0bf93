//! Who holds a port, now: every socket that has it, in every state and namespace, and what a bind to it would meet.
//!
//! Opens no port and needs none free. The sockets come from sock_diag (all states, but before 6.8 not those that are bound
//! and nothing else), and their processes from one pass of the kernel's `task_file` iterator, which knows bound-only sockets
//! on every kernel; where that is refused, from procfs. Without root, what cannot be seen is said in [`Answer::gaps`].

mod gather;
mod holder;
mod outlook;
#[cfg(test)]
mod tests;
mod text;

pub use gather::ask;
pub use holder::{Belonging, Holder, Process, Since, Taken};
pub use outlook::{Outlook, Way};

use std::collections::BTreeMap;

use crate::command::Standpoint;
use crate::event::PortSet;
use crate::host::knobs::Knobs;
use crate::stock::Gap;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// These ports.
    pub ports: PortSet,
    /// Only in this namespace.
    pub netns: Option<crate::host::netns::Netns>,
}

/// The answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The namespaces that were looked at: the caller's own (or the one asked for) first, then by id. Those in which nobody
    /// has any of the ports have no holders.
    pub places: Vec<Place>,
    /// Where the owners come from: `iter task_file` or `procfs`.
    pub owners_via: &'static str,
    /// Which namespaces a command need not be taken to.
    pub standpoint: Standpoint,
    /// What could not be looked at, and why.
    pub gaps: Vec<Gap>,
}

impl Answer {
    /// All holders.
    pub fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.places.iter().flat_map(|place| &place.holders)
    }
}

/// A network namespace.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Inode number of its file.
    pub id: u32,
    /// Its name in `/run/netns`, if it has one.
    pub name: Option<String>,
    /// Whether it is the one asked about, or else the one that this process is in.
    pub is_own: bool,
    /// Its settings; none where it cannot be entered.
    pub knobs: Knobs,
    /// Names of the devices that its sockets are bound to, by index.
    pub devices: BTreeMap<u32, String>,
    /// Sockets that have one of the ports: by port, those that stay before those that pass.
    pub holders: Vec<Holder>,
}

impl Place {
    /// Name of the device that a holder is bound to, or its number; `None` for none.
    pub fn device_name(&self, holder: &Holder) -> Option<String> {
        let index = holder.device;
        let known = || self.devices.get(&index).cloned();
        (index != 0).then(|| known().unwrap_or_else(|| format!("device {index}")))
    }

    /// Whether somebody has `port` here.
    pub fn has(&self, port: u16) -> bool {
        self.holders.iter().any(|holder| holder.local.port() == port)
    }
}
