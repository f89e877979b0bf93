//! How many TCP sockets a network namespace has (`/proc/net/sockstat`): to know where listing them is worth its price.
//!
//! sock_diag walks the table of all namespaces for each namespace and family, whatever there is to find.

use std::fs;
use std::path::Path;

use crate::event::Family;

/// Numbers of TCP sockets in one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockStat {
    /// IPv4 sockets that listen or are connected, those without an owner included. Sockets that are only bound are not
    /// counted.
    pub v4: u64,
    /// IPv6 sockets, likewise.
    pub v6: u64,
    /// TIME_WAIT, of both families.
    pub time_wait: u64,
}

impl SockStat {
    /// Families of which there are sockets to list, but for those that are bound and nothing else.
    pub fn families(self) -> Vec<Family> {
        let mut families = Vec::new();
        if self.v4 + self.time_wait > 0 {
            families.push(Family::V4);
        }
        if self.v6 + self.time_wait > 0 {
            families.push(Family::V6);
        }
        families
    }

    /// Reads the calling thread's namespace's from a procfs. `None` if it cannot be read or understood. Without IPv6 in the
    /// kernel there is no file about it, and no such socket.
    pub fn read(procfs: &Path) -> Option<Self> {
        let net = procfs.join("thread-self/net");
        let v4 = fs::read_to_string(net.join("sockstat")).ok()?;
        let v6 = fs::read_to_string(net.join("sockstat6")).unwrap_or_default();
        Self::parse(&v4, &v6)
    }

    fn parse(v4: &str, v6: &str) -> Option<Self> {
        Some(Self {
            v4: number(v4, "TCP:", "inuse")?,
            time_wait: number(v4, "TCP:", "tw")?,
            v6: if v6.is_empty() { 0 } else { number(v6, "TCP6:", "inuse")? },
        })
    }
}

/// The number behind `key` in the line that starts with `protocol`: `TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1`.
fn number(text: &str, protocol: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(protocol))?;
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != key);
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_numbers() {
        let v4 = "sockets: used 290\nTCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1\nUDP: inuse 3 mem 2\n";
        let v6 = "TCP6: inuse 4\nUDP6: inuse 2\n";
        assert_eq!(SockStat::parse(v4, v6), Some(SockStat { v4: 5, v6: 4, time_wait: 2 }));
        assert_eq!(SockStat::parse(v4, ""), Some(SockStat { v4: 5, v6: 0, time_wait: 2 }));
        assert_eq!(SockStat::parse(v4, "odd"), None);
        assert_eq!(SockStat::parse("TCP: inuse many tw 1", v6), None);
    }

    #[test]
    fn this_thread_s_listener_is_counted() {
        let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(SockStat::read(Path::new("/proc")).unwrap().v4 > 0);
    }
}
