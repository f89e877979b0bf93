//! The sysctls that limit connection set-up in a network namespace.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::netns::{Netns, NetnsError, in_netns};
use crate::event::{PortRange, PortSet};

macro_rules! knobs {
    ($($(#[$doc:meta])* $field:ident: $type:ty, $name:literal, $read:path, $write:path;)*) => {
        /// Sysctls of one network namespace. `None`: this kernel does not have the knob, or it may not be read.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Knobs {
            $($(#[$doc])* pub $field: Option<$type>,)*
        }

        impl Knobs {
            /// Reads the knobs below a `/proc/sys` tree. The real one shows the calling thread's namespace.
            pub fn read_from(sys: &Path) -> Self {
                Self { $($field: read_knob(sys, $name).as_deref().and_then($read),)* }
            }

            /// Every knob that is present: its sysctl name (`net.core.somaxconn`) and its value, written as sysctl(8)
            /// takes it.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, String)> {
                [$(($name, self.$field.as_ref().map($write))),*]
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?)))
            }
        }
    };
}

knobs! {
    /// Upper bound of every listen() backlog, applied at listen() time.
    somaxconn: u32, "net.core.somaxconn", number, text;
    /// SYN-queue bound that counts only with `tcp_syncookies=0`.
    tcp_max_syn_backlog: u32, "net.ipv4.tcp_max_syn_backlog", number, text;
    /// 0 never, 1 when the SYN queue is full, 2 always.
    tcp_syncookies: u32, "net.ipv4.tcp_syncookies", number, text;
    /// 1: a final ACK at a full accept queue is answered by RST instead of being ignored.
    tcp_abort_on_overflow: u32, "net.ipv4.tcp_abort_on_overflow", number, text;
    /// How often a SYN-ACK is retransmitted.
    tcp_synack_retries: u32, "net.ipv4.tcp_synack_retries", number, text;
    /// How often a SYN is retransmitted.
    tcp_syn_retries: u32, "net.ipv4.tcp_syn_retries", number, text;
    /// SYN retransmissions one second apart before the interval starts to double (kernels from 6.5).
    tcp_syn_linear_timeouts: u32, "net.ipv4.tcp_syn_linear_timeouts", number, text;
    /// Fast Open bits: 1 client, 2 server, and more (ip-sysctl.rst).
    tcp_fastopen: u32, "net.ipv4.tcp_fastopen", number, text;
    /// 1: connections of a closing reuseport listener move to another one (kernels from 5.14).
    tcp_migrate_req: u32, "net.ipv4.tcp_migrate_req", number, text;
    /// TIME_WAIT reuse by connect(): 0 no, 1 yes, 2 on loopback only.
    tcp_tw_reuse: u32, "net.ipv4.tcp_tw_reuse", number, text;
    /// Seconds that an orphan stays in FIN_WAIT2. Not the length of TIME_WAIT, which is fixed at 60 s.
    tcp_fin_timeout: u32, "net.ipv4.tcp_fin_timeout", number, text;
    /// How often the last FIN of a socket that its process has closed is sent again; 0 stands for 8.
    tcp_orphan_retries: u32, "net.ipv4.tcp_orphan_retries", number, text;
    /// 0: no TCP timestamps, without which TIME_WAIT cannot be reused.
    tcp_timestamps: u32, "net.ipv4.tcp_timestamps", number, text;
    /// 1: a listener without a device takes connections from all VRFs.
    tcp_l3mdev_accept: u32, "net.ipv4.tcp_l3mdev_accept", number, text;
    /// TIME_WAIT sockets that are kept at most.
    tcp_max_tw_buckets: u32, "net.ipv4.tcp_max_tw_buckets", number, text;
    /// The ephemeral range.
    ip_local_port_range: PortRange, "net.ipv4.ip_local_port_range", port_range, port_range_text;
    /// Ports of the ephemeral range that the kernel does not pick by itself.
    ip_local_reserved_ports: PortSet, "net.ipv4.ip_local_reserved_ports", port_set, text;
    /// First port that needs no CAP_NET_BIND_SERVICE.
    ip_unprivileged_port_start: u32, "net.ipv4.ip_unprivileged_port_start", number, text;
    /// 1: bind(…, 0) may share a port whose holders all have SO_REUSEADDR.
    ip_autobind_reuse: u32, "net.ipv4.ip_autobind_reuse", number, text;
    /// 1: bind() takes addresses that the host does not have.
    ip_nonlocal_bind: u32, "net.ipv4.ip_nonlocal_bind", number, text;
    /// The same for IPv6.
    ipv6_nonlocal_bind: u32, "net.ipv6.ip_nonlocal_bind", number, text;
    /// 1: new IPv6 sockets do not take IPv4 connections.
    ipv6_bindv6only: u32, "net.ipv6.bindv6only", number, text;
}

/// A knob that has another value than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnobChange {
    /// Sysctl name, for example `net.core.somaxconn`.
    pub name: &'static str,
    /// Value before, as sysctl(8) writes it; `None` if the knob was not there.
    pub before: Option<String>,
    /// Value now; `None` if the knob is not there any more.
    pub after: Option<String>,
}

impl Knobs {
    /// Reads the knobs of a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered. Single knobs that cannot be read are `None`.
    pub fn of(netns: &Netns) -> Result<Self, NetnsError> {
        // /proc/sys/net shows the namespace of the task that looks a file up.
        in_netns(netns, || Self::read_from(Path::new("/proc/sys")))
    }

    /// What is different from an earlier reading of the same namespace.
    pub fn changes_since(&self, earlier: &Self) -> Vec<KnobChange> {
        let value =
            |knobs: &Self, name| knobs.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        let mut names: Vec<&'static str> = earlier.iter().chain(self.iter()).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        names
            .into_iter()
            .map(|name| KnobChange { name, before: value(earlier, name), after: value(self, name) })
            .filter(|change| change.before != change.after)
            .collect()
    }

    /// How many ports the kernel may pick for `connect()` and `bind(…, 0)`: the range less the reserved ports. `None`
    /// if the range is not known.
    pub fn ephemeral_ports(&self) -> Option<u32> {
        let range = self.ip_local_port_range?;
        let reserved = self.ip_local_reserved_ports.as_ref().map_or(0, |set| set.len_within(range));
        Some(range.len().saturating_sub(reserved))
    }

    /// Whether the kernel may pick `port` for a connect() or a bind(…, 0). `None` if the range is not known.
    pub fn is_ephemeral(&self, port: u16) -> Option<bool> {
        let reserved = self.ip_local_reserved_ports.as_ref().is_some_and(|set| set.contains(port));
        Some(self.ip_local_port_range?.contains(port) && !reserved)
    }
}

/// A sysctl's text. In one single read: sysctl handlers answer only at file offset 0, and what does not fit the buffer of
/// that first read is lost (`proc_do_large_bitmap` cuts `ip_local_reserved_ports` so, in all versions).
fn read_knob(sys: &Path, name: &str) -> Option<String> {
    /// More than `ip_local_reserved_ports` can print: 32768 ports of at most five digits and a comma.
    const LONGEST: usize = 256 * 1024;
    let path = sys.join(name.replace('.', "/"));
    let mut text = vec![0; if name.ends_with("_ports") { LONGEST } else { 256 }];
    let mut read = || -> io::Result<usize> { File::open(&path)?.read(&mut text) };
    let count = match read() {
        Ok(count) => count,
        Err(error) => {
            log::debug!("sysctl {name}: cannot read {}: {error}", path.display());
            return None;
        }
    };
    text.truncate(count);
    String::from_utf8(text).ok()
}

fn number(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

fn port_set(text: &str) -> Option<PortSet> {
    text.parse().ok()
}

fn port_range(text: &str) -> Option<PortRange> {
    let mut words = text.split_ascii_whitespace();
    let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (first <= last && words.next().is_none()).then_some(PortRange { first, last })
}

fn text(value: &impl ToString) -> String {
    value.to_string()
}

fn port_range_text(range: &PortRange) -> String {
    format!("{} {}", range.first, range.last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;

    #[test]
    fn reads_a_namespace_s_own_values() {
        let Some(netns) = private_netns() else { return };
        let host = Knobs::of(&Netns::current().unwrap()).unwrap();
        in_netns(&netns, || {
            std::fs::write("/proc/sys/net/core/somaxconn", "77").unwrap();
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20009").unwrap();
            std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "20003,20005-20006,8080").unwrap();
        })
        .unwrap();
        let knobs = Knobs::of(&netns).unwrap();
        assert_eq!(knobs.somaxconn, Some(77));
        assert_eq!(knobs.ip_local_port_range, Some(PortRange { first: 20000, last: 20009 }));
        assert_eq!(knobs.ip_local_reserved_ports.as_ref().unwrap().to_string(), "8080,20003,20005-20006");
        assert_eq!(knobs.ephemeral_ports(), Some(7));
        assert_eq!(knobs.is_ephemeral(20003), Some(false));
        assert_eq!(knobs.is_ephemeral(20004), Some(true));
        assert_eq!(Knobs::of(&Netns::current().unwrap()).unwrap(), host);
    }

    #[test]
    fn a_long_list_of_reserved_ports_is_read_whole() {
        let Some(netns) = private_netns() else { return };
        let wanted: PortSet = (10_000..16_000).step_by(2).collect();
        in_netns(&netns, || {
            std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", wanted.to_string()).unwrap();
        })
        .unwrap();
        assert_eq!(Knobs::of(&netns).unwrap().ip_local_reserved_ports, Some(wanted));
    }

    #[test]
    fn the_running_kernel_has_the_knobs_that_matter() {
        let knobs = Knobs::of(&Netns::current().unwrap()).unwrap();
        let names: Vec<_> = knobs.iter().map(|(name, _)| name).collect();
        for name in ["net.core.somaxconn", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_synack_retries"] {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn missing_and_strange_knobs_are_none() {
        let sys = tempfile::tempdir().unwrap();
        let ipv4 = sys.path().join("net/ipv4");
        std::fs::create_dir_all(&ipv4).unwrap();
        std::fs::write(ipv4.join("ip_local_port_range"), "9 5\n").unwrap();
        std::fs::write(ipv4.join("tcp_syn_retries"), "many\n").unwrap();
        std::fs::write(ipv4.join("tcp_syncookies"), "2\n").unwrap();
        let knobs = Knobs::read_from(sys.path());
        assert_eq!(knobs, Knobs { tcp_syncookies: Some(2), ..Knobs::default() });
        assert_eq!(knobs.ephemeral_ports(), None);
    }

    #[test]
    fn changes_name_the_knob_and_both_values() {
        let before = Knobs { somaxconn: Some(128), tcp_syncookies: Some(1), ..Knobs::default() };
        let after = Knobs { somaxconn: Some(4096), tcp_syncookies: Some(1), ..Knobs::default() };
        let change = KnobChange {
            name: "net.core.somaxconn",
            before: Some("128".to_owned()),
            after: Some("4096".to_owned()),
        };
        assert_eq!(after.changes_since(&before), [change]);
    }
}
