//! The kernel's own TCP counters of a network namespace, to reconcile our events with.
//!
//! Read from `/proc/net/netstat` (`TcpExt`) and `/proc/net/snmp` (`Tcp`) by column name: columns are added in most
//! kernel releases, and their order means nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::netns::{Netns, NetnsError, cookie_here, in_netns};

/// Why the counters of a namespace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A file could not be opened or read.
    #[error("cannot read {file} of network namespace {netns}: {source}; is procfs mounted at /proc?")]
    Read {
        /// The file, as seen from a thread in the namespace.
        file: &'static str,
        /// The namespace.
        netns: u32,
        /// What the kernel said.
        source: io::Error,
    },
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident: $group:literal $name:literal,)*) => {
        /// TCP counters of one network namespace since it was made. `None`: this kernel does not have the counter.
        ///
        /// Each counts segments, connections or events, and only grows. KERNEL.md §12 says where the kernel
        /// increments which.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $field: Option<u64>,)*
        }

        impl Counters {
            /// Every counter with its kernel name (`ListenOverflows`), in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
                [$(($name, self.$field)),*].into_iter()
            }

            /// How much each has grown since `earlier`, a reading of the same namespace. `None` where either reading
            /// lacks the counter, or where it went down (then they are not readings of one namespace).
            pub fn delta(&self, earlier: &Self) -> Self {
                let grown = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
                Self { $($field: grown(self.$field, earlier.$field),)* }
            }

            fn set(&mut self, group: &[u8], name: &[u8], value: Option<u64>) {
                match (group, name) {
                    $((group, name) if group == $group.as_bytes() && name == $name.as_bytes() => {
                        self.$field = value;
                    })*
                    _ => {}
                }
            }
        }
    };
}

counters! {
    /// SYNs and final ACKs dropped because the accept queue was full.
    listen_overflows: "TcpExt" "ListenOverflows",
    /// All SYNs and final ACKs dropped at listeners, the overflows included.
    listen_drops: "TcpExt" "ListenDrops",
    /// SYNs dropped because the SYN queue was full (`tcp_syncookies=0`).
    req_queue_full_drop: "TcpExt" "TCPReqQFullDrop",
    /// SYNs granted a cookie because the SYN queue was full, those dropped right afterwards included.
    req_queue_full_do_cookies: "TcpExt" "TCPReqQFullDoCookies",
    /// SYN-ACKs sent with a cookie.
    syncookies_sent: "TcpExt" "SyncookiesSent",
    /// Valid cookies that came back.
    syncookies_received: "TcpExt" "SyncookiesRecv",
    /// Invalid cookies that came back while the listener was overflowing.
    syncookies_failed: "TcpExt" "SyncookiesFailed",
    /// Retransmission timers that ran out: half-open requests' and all sockets'.
    timeouts: "TcpExt" "TCPTimeouts",
    /// SYNs and SYN-ACKs retransmitted.
    syn_retransmits: "TcpExt" "TCPSynRetrans",
    /// Retransmissions that failed to be sent.
    retransmit_fails: "TcpExt" "TCPRetransFail",
    /// Half-open requests that were reset.
    embryonic_resets: "TcpExt" "EmbryonicRsts",
    /// Sockets given up after a timeout.
    abort_on_timeout: "TcpExt" "TCPAbortOnTimeout",
    /// Bare final ACKs ignored by `TCP_DEFER_ACCEPT`.
    defer_accept_drop: "TcpExt" "TCPDeferAcceptDrop",
    /// Fast Open SYNs accepted.
    fastopen_passive: "TcpExt" "TCPFastOpenPassive",
    /// Fast Open SYNs that fell back to a normal handshake.
    fastopen_passive_fail: "TcpExt" "TCPFastOpenPassiveFail",
    /// Fast Open SYNs over the listener's Fast Open queue limit.
    fastopen_listen_overflow: "TcpExt" "TCPFastOpenListenOverflow",
    /// Requests and children moved to another reuseport listener (kernels from 5.14).
    migrate_success: "TcpExt" "TCPMigrateReqSuccess",
    /// Requests and children that could not be moved (kernels from 5.14).
    migrate_failure: "TcpExt" "TCPMigrateReqFailure",
    /// Sockets that left TIME_WAIT after their time.
    time_wait: "TcpExt" "TW",
    /// TIME_WAIT sockets reused by a connect.
    time_wait_recycled: "TcpExt" "TWRecycled",
    /// Sockets closed at once for want of TIME_WAIT places (`tcp_max_tw_buckets`).
    time_wait_overflow: "TcpExt" "TCPTimeWaitOverflow",
    /// Packets dropped because their source is not where the route to it leads (`rp_filter`), IPv4 only.
    rp_filter_drops: "TcpExt" "IPReversePathFilter",
    /// connect() calls whose SYN was queued.
    active_opens: "Tcp" "ActiveOpens",
    /// Children made from completed handshakes.
    passive_opens: "Tcp" "PassiveOpens",
    /// Handshakes that failed, on either side.
    attempt_fails: "Tcp" "AttemptFails",
    /// Established connections that were reset.
    established_resets: "Tcp" "EstabResets",
    /// Segments retransmitted, SYNs, SYN-ACKs and data.
    retransmitted_segments: "Tcp" "RetransSegs",
    /// RSTs sent.
    resets_sent: "Tcp" "OutRsts",
}

impl Counters {
    /// Reads a namespace's counters once. To read them again and again, keep a [`CounterReader`].
    ///
    /// # Errors
    /// When the namespace cannot be entered or its files cannot be read.
    pub fn of(netns: &Netns) -> Result<Self, CountersError> {
        CounterReader::open(netns)?.read()
    }

    /// Takes the counters it knows from text of the form of `/proc/net/netstat` or `/proc/net/snmp`: pairs of lines,
    /// names and values, each starting with the group's name. Anything else is passed over.
    pub fn absorb(&mut self, text: &[u8]) {
        let mut lines = text.split(|byte| *byte == b'\n');
        while let Some(names) = lines.next() {
            let Some((group, names)) = split_group(names) else { continue };
            let Some((value_group, values)) = lines.next().and_then(split_group) else { return };
            if group != value_group {
                continue;
            }
            for (name, value) in words(names).zip(words(values)) {
                let value = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                self.set(group, name, value);
            }
        }
    }
}

fn split_group(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((line.get(..colon)?, line.get(colon + 1..)?))
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

/// Reads the counters of one namespace again and again: the two files stay open and are read anew from their start, so
/// that a reading enters no namespace and starts no thread. The open files keep the namespace alive.
#[derive(Debug)]
pub struct CounterReader {
    netns: u32,
    cookie: Option<u64>,
    netstat: File,
    snmp: File,
    buffer: Vec<u8>,
}

// The thread's own /proc/net, not /proc/self/net: the latter is that of the thread group leader.
const NETSTAT: &str = "/proc/thread-self/net/netstat";
const SNMP: &str = "/proc/thread-self/net/snmp";

impl CounterReader {
    /// Opens the counters of a namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the files cannot be opened.
    pub fn open(netns: &Netns) -> Result<Self, CountersError> {
        let id = netns.id();
        let (netstat, snmp, cookie) =
            in_netns(netns, || (File::open(NETSTAT), File::open(SNMP), cookie_here()))?;
        Ok(Self {
            netns: id,
            cookie,
            netstat: netstat.map_err(|source| CountersError::Read { file: NETSTAT, netns: id, source })?,
            snmp: snmp.map_err(|source| CountersError::Read { file: SNMP, netns: id, source })?,
            buffer: vec![0; 16 * 1024],
        })
    }

    /// The namespace's cookie; see [`cookie_here`].
    pub fn cookie(&self) -> Option<u64> {
        self.cookie
    }

    /// The counters as they are now.
    ///
    /// # Errors
    /// [`CountersError::Read`] when the kernel refuses to read a file that is open already (out of memory).
    pub fn read(&mut self) -> Result<Counters, CountersError> {
        let netns = self.netns;
        let mut counters = Counters::default();
        for (file, name) in [(&self.netstat, NETSTAT), (&self.snmp, SNMP)] {
            let text = read_from_start(file, &mut self.buffer).map_err(|source| CountersError::Read {
                file: name,
                netns,
                source,
            })?;
            counters.absorb(text);
        }
        Ok(counters)
    }
}

/// The whole file, by `pread`. Growing the buffer and starting over keeps names and values from one rendering.
fn read_from_start<'b>(file: &File, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    const LARGEST: usize = 1024 * 1024;
    loop {
        let mut filled = 0;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match file.read_at(room, filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled < buffer.len() || buffer.len() >= LARGEST {
            return Ok(buffer.get(..filled).unwrap_or_default());
        }
        buffer.resize(buffer.len() * 2, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;
    use proptest::prelude::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn columns_are_found_by_name_wherever_they_stand() {
        let mut counters = Counters::default();
        counters.absorb(
            b"TcpExt: ListenDrops Novel ListenOverflows\nTcpExt: 7 1 5\n\
              IpExt: ListenDrops\nIpExt: 99\n\
              Tcp: MaxConn ActiveOpens PassiveOpens\nTcp: -1 3\n",
        );
        let expected = Counters {
            listen_drops: Some(7),
            listen_overflows: Some(5),
            active_opens: Some(3),
            ..Counters::default()
        };
        assert_eq!(counters, expected);
    }

    #[test]
    fn deltas_know_what_they_do_not_know() {
        let then =
            Counters { listen_drops: Some(7), timeouts: Some(5), active_opens: None, ..Counters::default() };
        let now = Counters {
            listen_drops: Some(9),
            timeouts: Some(4),
            active_opens: Some(1),
            ..Counters::default()
        };
        assert_eq!(now.delta(&then), Counters { listen_drops: Some(2), ..Counters::default() });
        assert!(now.iter().any(|counter| counter == ("ListenDrops", Some(9))));
    }

    #[test]
    fn the_running_kernel_has_the_counters_that_matter() {
        let counters = Counters::of(&Netns::current().unwrap()).unwrap();
        for (name, value) in counters.iter() {
            // Migration came with 5.14; all others are older than any kernel we support.
            assert!(value.is_some() || name.starts_with("TCPMigrate"), "{name}");
        }
    }

    #[test]
    fn an_open_reader_follows_its_own_namespace() {
        let Some(netns) = private_netns() else { return };
        let mut reader = CounterReader::open(&netns).unwrap();
        let before = reader.read().unwrap();
        in_netns(&netns, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            for _ in 0..3 {
                drop(TcpStream::connect(address).unwrap());
            }
        })
        .unwrap();
        let grown = reader.read().unwrap().delta(&before);
        assert_eq!(grown.active_opens, Some(3));
        assert_eq!(grown.passive_opens, Some(3));
        assert_eq!(grown.listen_overflows, Some(0));
    }

    #[test]
    fn a_small_buffer_grows_until_all_columns_fit() {
        let mut reader = CounterReader::open(&Netns::current().unwrap()).unwrap();
        reader.buffer = vec![0; 16];
        assert!(reader.read().unwrap().resets_sent.is_some());
    }

    proptest! {
        #[test]
        fn absorbs_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Counters::default().absorb(&bytes);
        }

        #[test]
        fn absorbs_anything_shaped_like_it(text in "((TcpExt|Tcp|Ip): ?([A-Za-z]{1,4} |[0-9]{1,25} |-1 ){0,6}\n){0,6}") {
            Counters::default().absorb(text.as_bytes());
        }
    }
}
