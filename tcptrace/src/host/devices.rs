//! The devices of a network namespace, by `RTM_GETLINK`: names, kinds, addresses, and how they belong together.

use std::collections::BTreeSet;
use std::io;

use super::netns::{Netns, NetnsError, in_netns};
use super::rtnetlink::{attributes, get, list, text, word};

/// A network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind (`veth`, `vrf`), if it has one.
    pub kind: Option<String>,
    /// Index of the device that it belongs to (bridge, bond, VRF).
    pub master: Option<u32>,
    /// Index of the device of the same namespace that it is on (of a VLAN, a macvlan…).
    pub on: Option<u32>,
    /// Its link-layer address.
    pub address: Vec<u8>,
    /// It has an XDP program.
    pub has_xdp: bool,
}

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// rtnetlink failed.
    #[error("cannot ask network namespace {netns} for its devices: {source}")]
    Ask {
        /// The namespace.
        netns: u32,
        /// What the kernel said.
        source: io::Error,
    },
}

const IFINFOMSG: usize = 16;
/// `IFLA_INFO_KIND` (`include/uapi/linux/if_link.h`).
const INFO_KIND: u16 = 1;
/// `IFLA_XDP` and, in it, `IFLA_XDP_ATTACHED`.
const XDP: u16 = 43;
const XDP_ATTACHED: u16 = 2;

/// The device with `index` in `netns`; `None` if there is none.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel not be asked.
pub fn device(netns: &Netns, index: u32) -> Result<Option<Device>, DeviceError> {
    let ask = || {
        let mut found = None;
        match get(libc::RTM_GETLINK, &ifinfomsg(index), |body| found = parse(body)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            asked => asked.map(|()| found),
        }
    };
    in_netns(netns, ask)?.map_err(|source| DeviceError::Ask { netns: netns.id(), source })
}

/// All devices of `netns`.
///
/// # Errors
/// As for [`device`].
pub fn devices(netns: &Netns) -> Result<Vec<Device>, DeviceError> {
    let ask = || {
        let mut found = Vec::new();
        list(libc::RTM_GETLINK, &ifinfomsg(0), |body| found.extend(parse(body))).map(|()| found)
    };
    in_netns(netns, ask)?.map_err(|source| DeviceError::Ask { netns: netns.id(), source })
}

/// The devices that packets of one of them pass as well: those that it is on, and those that belong to it.
pub fn passed_with(all: &[Device], index: u32) -> Vec<&Device> {
    let mut passed = BTreeSet::from([index]);
    loop {
        let before = passed.len();
        for device in all {
            if device.master.is_some_and(|master| passed.contains(&master)) {
                passed.insert(device.index);
            }
            if passed.contains(&device.index) {
                passed.extend(device.on);
            }
        }
        if passed.len() == before {
            return all.iter().filter(|device| passed.contains(&device.index)).collect();
        }
    }
}

fn ifinfomsg(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4]; // struct ifinfomsg: family, padding, type
    body.extend(index.to_ne_bytes());
    body.extend([0; 8]); // flags, and which of them change
    body
}

fn parse(body: &[u8]) -> Option<Device> {
    let mut device = Device { index: word(body, 4)?, ..Device::default() };
    let mut elsewhere = false;
    for (kind, value) in attributes(body.get(IFINFOMSG..)?) {
        match kind {
            libc::IFLA_IFNAME => device.name = text(value),
            libc::IFLA_MASTER => device.master = word(value, 0),
            libc::IFLA_LINK => device.on = word(value, 0).filter(|on| *on != 0 && *on != device.index),
            libc::IFLA_LINK_NETNSID => elsewhere = true,
            libc::IFLA_ADDRESS => device.address = value.to_vec(),
            libc::IFLA_LINKINFO => {
                device.kind =
                    attributes(value).find(|(kind, _)| *kind == INFO_KIND).map(|(_, value)| text(value));
            }
            XDP => {
                device.has_xdp = attributes(value).any(|(kind, value)| {
                    kind == XDP_ATTACHED && value.first().is_some_and(|mode| *mode != 0)
                });
            }
            _ => {}
        }
    }
    // The other end of a veth pair in the same namespace is another device, not one below.
    if elsewhere || device.kind.as_deref() == Some("veth") {
        device.on = None;
    }
    Some(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;
    use proptest::prelude::*;

    #[test]
    fn a_device_is_told_by_its_index() {
        let Some(netns) = private_netns() else { return };
        let lo = device(&netns, 1).unwrap().unwrap();
        assert_eq!((lo.index, lo.name.as_str(), lo.kind.clone(), lo.master), (1, "lo", None, None));
        assert_eq!(device(&netns, 4711).unwrap(), None);
        assert!(devices(&netns).unwrap().contains(&lo));
    }

    #[test]
    fn kind_master_address_and_program_are_read() {
        let attribute = |kind: u16, value: &[u8]| {
            let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let mut body = vec![0; IFINFOMSG];
        body[4..8].copy_from_slice(&7u32.to_ne_bytes());
        body.extend(attribute(libc::IFLA_IFNAME, b"red\0"));
        body.extend(attribute(libc::IFLA_MASTER, &9u32.to_ne_bytes()));
        body.extend(attribute(libc::IFLA_LINK, &3u32.to_ne_bytes()));
        body.extend(attribute(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]));
        body.extend(attribute(libc::IFLA_LINKINFO | 0x8000, &attribute(INFO_KIND, b"vrf")));
        body.extend(attribute(XDP | 0x8000, &attribute(XDP_ATTACHED, &[2])));
        let expected = Device {
            index: 7,
            name: "red".into(),
            kind: Some("vrf".into()),
            master: Some(9),
            on: Some(3),
            address: vec![2, 0, 0, 0, 0, 1],
            has_xdp: true,
        };
        assert_eq!(parse(&body), Some(expected));
    }

    #[test]
    fn packets_of_a_bridge_s_vlan_pass_its_ports() {
        let device = |index, master, on| Device { index, master, on, ..Device::default() };
        let all = [
            device(1, None, None),
            device(2, None, None),
            device(3, Some(2), None),
            device(4, None, Some(2)),
            device(5, None, None),
        ];
        let passed: Vec<u32> = passed_with(&all, 4).iter().map(|device| device.index).collect();
        assert_eq!(passed, [2, 3, 4]);
        assert_eq!(passed_with(&all, 1).len(), 1);
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
