//! Network devices that sockets are bound to, or that packets came by.

use serde::{Deserialize, Serialize};

/// A network device: what an index in other events stands for. Said before the first event that has the index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Network namespace.
    pub netns: u32,
    /// Its index there.
    pub index: u32,
    /// Its name. Whatever an administrator chose: escape it before showing it.
    pub name: String,
    /// What kind of device it is (`veth`, `vrf`, `bridge`), for those that have a kind.
    pub kind: Option<String>,
    /// Index of the device that it belongs to (its bridge, bond or VRF).
    pub master: Option<u32>,
}

impl Device {
    /// Whether it is a VRF: a routing domain, which sockets are bound to as to a device.
    pub fn is_vrf(&self) -> bool {
        self.kind.as_deref() == Some("vrf")
    }
}
