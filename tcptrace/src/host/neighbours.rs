//! The neighbour tables (ARP, NDP), which all network namespaces share. Only the initial namespace shows them.

use std::fs;

use super::firewall::column;

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
