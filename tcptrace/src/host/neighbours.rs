//! The neighbour tables (ARP, NDP), which all network namespaces share. Only the initial namespace shows them.

use std::fs;
use std::net::IpAddr;

use super::netfilter::column;
use super::netns::{Netns, in_netns};
use super::rtnetlink::{attributes, get};

/// A neighbour table at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourTable {
    /// Entries, of all namespaces.
    pub entries: u64,
    /// `gc_thresh3`; `None` outside the initial namespace.
    pub limit: Option<u64>,
    /// How often there was no room for a new entry.
    pub overflows: Option<u64>,
}

impl NeighbourTable {
    /// The table of one address family; `None` if this namespace does not show it.
    pub fn read(ipv6: bool) -> Option<Self> {
        let (name, family) = if ipv6 { ("ndisc_cache", "ipv6") } else { ("arp_cache", "ipv4") };
        let at = |root: &str| fs::read_to_string(format!("{root}/net/stat/{name}")).ok();
        // Pid 1 is in the initial namespace on hosts; in a container it is not, and shows as little as we do.
        let text = at("/proc/self").or_else(|| at("/proc/1"))?;
        let limit = fs::read_to_string(format!("/proc/sys/net/{family}/neigh/default/gc_thresh3"));
        Some(Self {
            entries: entries(&text)?,
            limit: limit.ok().and_then(|text| text.trim().parse().ok()),
            overflows: column(&text, "table_fulls"),
        })
    }
}

/// `struct ndmsg`, and the attributes of a neighbour.
const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// The link-layer address of a neighbour, as `netns` knows it; `None` if it was not asked for lately, does not answer, or the device
/// needs none.
pub fn link_address(netns: &Netns, device: u32, neighbour: IpAddr) -> Option<Vec<u8>> {
    let (family, bytes) = match neighbour {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let mut body = vec![u8::try_from(family).ok()?, 0, 0, 0];
    body.extend(device.to_ne_bytes());
    body.resize(NDMSG, 0);
    body.extend(u16::try_from(4 + bytes.len()).ok()?.to_ne_bytes());
    body.extend(NDA_DST.to_ne_bytes());
    body.extend(bytes);
    let ask = || {
        let mut found = None;
        let asked = get(libc::RTM_GETNEIGH, &body, |body| {
            let of = attributes(body.get(NDMSG..).unwrap_or_default());
            found = of.filter(|(kind, _)| *kind == NDA_LLADDR).map(|(_, value)| value.to_vec()).next();
        });
        asked.inspect_err(|error| log::debug!("neighbour {neighbour}: {error}")).ok().and(found)
    };
    in_netns(netns, ask).ok().flatten().filter(|address| address.iter().any(|byte| *byte != 0))
}

/// The same number stands in the line of every CPU.
fn entries(text: &str) -> Option<u64> {
    u64::from_str_radix(text.lines().nth(1)?.split_ascii_whitespace().next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_once_and_overflows_by_cpu() {
        let text = "entries  allocs   table_fulls\n00000400 00000036 00000003\n00000400 0000003d 00000002\n";
        assert_eq!((entries(text), column(text, "table_fulls")), (Some(1024), Some(5)));
        assert_eq!(entries(""), None);
    }
}
