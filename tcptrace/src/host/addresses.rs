//! The addresses that a network namespace has, by getifaddrs(3): one rtnetlink dump, no port. Of IPv6 addresses also which
//! cannot be bound yet, and on which devices IPv6 is off: procfs and sysctls show it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::netns::{Netns, NetnsError, in_netns};

/// Why the addresses could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AddressesError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// rtnetlink failed.
    #[error("cannot list the addresses of network namespace {netns}: {source}")]
    List {
        /// The namespace.
        netns: u32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The addresses of all devices of `netns`, each once, in ascending order.
///
/// # Errors
/// When the namespace cannot be entered, or the kernel not be asked.
pub fn addresses(netns: &Netns) -> Result<Vec<IpAddr>, AddressesError> {
    let list =
        || -> io::Result<Vec<IpAddr>> { Ok(getifaddrs()?.filter_map(|on| address(&on.address?)).collect()) };
    let mut found =
        in_netns(netns, list)?.map_err(|source| AddressesError::List { netns: netns.id(), source })?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The name of the device of `netns` that has an address; `None` if none has, or that cannot be asked. Addresses of a VRF's devices are
/// in no route of the main table.
pub fn device_of(netns: &Netns, ip: IpAddr) -> Option<String> {
    let find = || {
        let mut all = getifaddrs().ok()?;
        all.find(|on| on.address.as_ref().and_then(address) == Some(ip)).map(|on| on.interface_name)
    };
    in_netns(netns, find).ok().flatten()
}

/// The first address of a device of `netns`, of one family; `None` if it has none, or that cannot be asked.
pub fn first_of(netns: &Netns, device: &str, ipv6: bool) -> Option<IpAddr> {
    let find = || {
        let mut all = getifaddrs().ok()?.filter(|on| on.interface_name == device);
        all.find_map(|on| on.address.as_ref().and_then(address).filter(|ip| ip.is_ipv6() == ipv6))
    };
    in_netns(netns, find).ok().flatten()
}

/// `IFA_F_DADFAILED`, `IFA_F_OPTIMISTIC` and `IFA_F_TENTATIVE` (`include/uapi/linux/if_addr.h`).
const DAD_FAILED: u8 = 0x08;
const OPTIMISTIC: u8 = 0x04;
const TENTATIVE: u8 = 0x40;

/// An IPv6 address that a device has and that cannot be bound (`ipv6_chk_addr_and_flags()`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbindable {
    /// The address.
    pub address: Ipv6Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// Name of the device that has it.
    pub device: String,
    /// Another node has the address as well: duplicate address detection failed. Otherwise it is still running.
    pub duplicate: bool,
}

/// The devices of a namespace on which IPv6 is off (`net.ipv6.conf.DEVICE.disable_ipv6`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ipv6Off {
    /// Their names, ascending.
    pub devices: Vec<String>,
    /// These are all devices.
    pub everywhere: bool,
}

/// What keeps IPv6 addresses of `netns` from being bound.
///
/// # Errors
/// When the namespace cannot be entered. A kernel without IPv6 shows nothing.
pub fn ipv6_obstacles(netns: &Netns) -> Result<(Vec<Unbindable>, Ipv6Off), NetnsError> {
    // /proc/self is the process, which stays where it is; /proc/sys/net shows the namespace of the task that looks.
    in_netns(netns, || {
        let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
        (addresses.lines().filter_map(unbindable).collect(), ipv6_off(Path::new("/proc/sys/net/ipv6/conf")))
    })
}

/// A line of `/proc/net/if_inet6`: address, device's index, prefix length, scope, flags, device.
fn unbindable(line: &str) -> Option<Unbindable> {
    let mut words = line.split_ascii_whitespace();
    let address = u128::from_str_radix(words.next()?, 16).ok()?;
    let prefix = u8::from_str_radix(words.nth(1)?, 16).ok()?;
    let flags = u8::from_str_radix(words.nth(1)?, 16).ok()?;
    let device = words.next()?.to_owned();
    // An optimistic address may be used before it is known to be unique.
    let tentative = flags & TENTATIVE != 0 && flags & OPTIMISTIC == 0;
    let duplicate = flags & DAD_FAILED != 0;
    (tentative || duplicate).then_some(Unbindable {
        address: Ipv6Addr::from_bits(address),
        prefix,
        device,
        duplicate,
    })
}

fn ipv6_off(conf: &Path) -> Ipv6Off {
    let mut off = Ipv6Off { devices: Vec::new(), everywhere: true };
    let mut devices = 0;
    for entry in fs::read_dir(conf).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "all" || name == "default" {
            continue;
        }
        devices += 1;
        match fs::read_to_string(entry.path().join("disable_ipv6")) {
            Ok(text) if text.trim() != "0" => off.devices.push(name),
            _ => off.everywhere = false,
        }
    }
    off.devices.sort_unstable();
    off.everywhere &= devices > 0;
    off
}

fn address(of: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = of.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| of.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;

    #[test]
    fn a_namespace_with_lo_alone_has_its_addresses_alone() {
        let Some(netns) = private_netns() else { return };
        let found = addresses(&netns).unwrap();
        assert!(found.contains(&IpAddr::from([127, 0, 0, 1])), "{found:?}");
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    }

    #[test]
    fn a_device_with_ipv6_off_is_named() {
        let Some(netns) = private_netns() else { return };
        let (unbindable, before) = ipv6_obstacles(&netns).unwrap();
        assert_eq!((unbindable, before.everywhere), (Vec::new(), false));
        let switched =
            in_netns(&netns, || fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1").is_ok()).unwrap();
        if !switched {
            println!("skipped: no IPv6 here");
            return;
        }
        let (_, off) = ipv6_obstacles(&netns).unwrap();
        assert!(off.devices.contains(&"lo".to_owned()), "{off:?}");
    }

    #[test]
    fn what_cannot_be_bound_is_told_by_its_flags() {
        let line = |flags: &str| format!("20010db8000500000000000000000001 0a 40 00 {flags}     srv0");
        let tentative = unbindable(&line("40")).unwrap();
        assert_eq!(tentative.address, "2001:db8:5::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!((tentative.device.as_str(), tentative.prefix, tentative.duplicate), ("srv0", 64, false));
        assert!(unbindable(&line("c8")).unwrap().duplicate);
        // Permanent; tentative and optimistic.
        assert_eq!((unbindable(&line("80")), unbindable(&line("44"))), (None, None));
        assert_eq!(unbindable("what is this"), None);
    }
}
