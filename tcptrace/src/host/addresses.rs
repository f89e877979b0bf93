//! The addresses that a network namespace has, by getifaddrs(3): one rtnetlink dump, no port.

use std::io;
use std::net::IpAddr;

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
}
