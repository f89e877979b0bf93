//! What a device's index stands for in a network namespace: one `RTM_GETLINK` request.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::netns::{Netns, NetnsError, in_netns};

/// A network device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind (`veth`, `vrf`), if it has one.
    pub kind: Option<String>,
    /// Index of the device that it belongs to.
    pub master: Option<u32>,
}

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// rtnetlink failed.
    #[error("cannot ask network namespace {netns} for device {index}: {source}")]
    Ask {
        /// The namespace.
        netns: u32,
        /// The device.
        index: u32,
        /// What the kernel said.
        source: io::Error,
    },
}

const HEADER: usize = 16;
const IFINFOMSG: usize = 16;
/// `IFLA_INFO_KIND` (`include/uapi/linux/if_link.h`).
const INFO_KIND: u16 = 1;
/// Attributes may have flags in their upper bits.
const TYPE_MASK: u16 = 0x3fff;
/// A device's statistics and its families' settings take some thousand bytes.
const LONGEST: usize = 32 * 1024;

/// The device with `index` in `netns`; `None` if there is none.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel not be asked.
pub fn device(netns: &Netns, index: u32) -> Result<Option<Device>, DeviceError> {
    let ask = || -> io::Result<Option<Device>> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        send(netlink.as_raw_fd(), &request(index), MsgFlags::empty())?;
        let mut reply = vec![0; LONGEST];
        let length = recv(netlink.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        answer(reply.get(..length).unwrap_or_default())
    };
    in_netns(netns, ask)?.map_err(|source| DeviceError::Ask { netns: netns.id(), index, source })
}

fn request(index: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + IFINFOMSG);
    message.extend(u32::try_from(HEADER + IFINFOMSG).unwrap_or_default().to_ne_bytes());
    message.extend(libc::RTM_GETLINK.to_ne_bytes());
    message.extend(u16::try_from(libc::NLM_F_REQUEST).unwrap_or_default().to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one request a socket
    message.extend([0; 4]); // struct ifinfomsg: family, padding, type
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]); // flags, and which of them change
    message
}

fn answer(reply: &[u8]) -> io::Result<Option<Device>> {
    let strange =
        || io::Error::new(io::ErrorKind::InvalidData, "the kernel answered rtnetlink with something else");
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
    };
    let kind = reply.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let body = reply.get(HEADER..).unwrap_or_default();
    match kind {
        Some(libc::RTM_NEWLINK) => {}
        Some(kind) if i32::from(kind) == libc::NLMSG_ERROR => {
            let errno = word(body, 0).ok_or_else(strange)?.cast_signed().saturating_neg();
            return if errno == libc::ENODEV { Ok(None) } else { Err(io::Error::from_raw_os_error(errno)) };
        }
        _ => return Err(strange()),
    }
    let mut device = Device { index: word(body, 4).ok_or_else(strange)?, ..Device::default() };
    for (kind, value) in attributes(body.get(IFINFOMSG..).unwrap_or_default()) {
        match kind {
            libc::IFLA_IFNAME => device.name = text(value),
            libc::IFLA_MASTER => device.master = word(value, 0),
            libc::IFLA_LINKINFO => {
                device.kind =
                    attributes(value).find(|(kind, _)| *kind == INFO_KIND).map(|(_, value)| text(value));
            }
            _ => {}
        }
    }
    Ok(Some(device))
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// Attributes, up to the first that is cut.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    })
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
        assert_eq!((lo.index, lo.name.as_str(), lo.kind, lo.master), (1, "lo", None, None));
        assert_eq!(device(&netns, 4711).unwrap(), None);
    }

    #[test]
    fn kind_and_master_are_read() {
        let attribute = |kind: u16, value: &[u8]| {
            let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let mut reply = vec![0; HEADER + IFINFOMSG];
        reply[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        reply[HEADER + 4..HEADER + 8].copy_from_slice(&7u32.to_ne_bytes());
        reply.extend(attribute(libc::IFLA_IFNAME, b"red\0"));
        reply.extend(attribute(libc::IFLA_MASTER, &9u32.to_ne_bytes()));
        reply.extend(attribute(libc::IFLA_LINKINFO | 0x8000, &attribute(INFO_KIND, b"vrf")));
        let found = answer(&reply).unwrap().unwrap();
        let expected = Device { index: 7, name: "red".into(), kind: Some("vrf".into()), master: Some(9) };
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&bytes);
        }
    }
}
