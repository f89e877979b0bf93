//! The kernel's own TCP counters of one namespace, and the little of `/proc/net/tcp` that staging needs.
//!
//! Private to this room on purpose: the ground truth must not be read with the code that it is to judge.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::error::{During, Error, Result};
use super::namespace::Namespace;

/// The counters that a rehearsal reports; those that the running kernel lacks are left out.
const REPORTED: [&str; 25] = [
    "ListenOverflows",
    "ListenDrops",
    "TCPReqQFullDrop",
    "TCPReqQFullDoCookies",
    "SyncookiesSent",
    "SyncookiesRecv",
    "SyncookiesFailed",
    "TCPSynRetrans",
    "TCPTimeouts",
    "TCPDeferAcceptDrop",
    "TCPACKSkippedSynRecv",
    "TCPFastOpenActive",
    "TCPFastOpenPassive",
    "TCPMigrateReqSuccess",
    "MPCapableSYNRX",
    "TCPAbortOnTimeout",
    "EmbryonicRsts",
    "TW",
    "ActiveOpens",
    "PassiveOpens",
    "AttemptFails",
    "EstabResets",
    "OutRsts",
    "RetransSegs",
    "TCPRetransFail",
];

/// Counter values, or differences, by the kernel's column name.
pub type Counters = BTreeMap<String, u64>;

/// All TcpExt, MPTcpExt and Tcp counters of the namespace.
pub(super) fn read(namespace: &Namespace) -> Result<Counters> {
    let texts = namespace.run(|| -> io::Result<_> {
        // Not /proc/net: that is the process's own namespace, not this thread's.
        Ok((
            fs::read_to_string("/proc/thread-self/net/netstat")?,
            fs::read_to_string("/proc/thread-self/net/snmp")?,
        ))
    })?;
    let (netstat, snmp) = texts.during("reading the namespace's counters")?;
    let mut counters = columns(&netstat, "TcpExt:");
    counters.extend(columns(&netstat, "MPTcpExt:"));
    counters.extend(columns(&snmp, "Tcp:"));
    Ok(counters)
}

/// What the reported counters grew by.
pub(super) fn growth(before: &Counters, after: &Counters) -> Counters {
    REPORTED
        .iter()
        .filter_map(|&name| {
            let grown = after.get(name)?.saturating_sub(before.get(name).copied().unwrap_or(0));
            Some((name.to_owned(), grown))
        })
        .collect()
}

/// One of the values that [`growth`] hands out.
pub(super) fn grown(counters: &Counters, name: &str) -> Result<u64> {
    let value = counters.get(name).copied();
    value.ok_or_else(|| Error::NotSupported(format!("this kernel does not count {name}")))
}

/// A line of column names followed by a line of values, both starting with `prefix`.
pub(super) fn columns(text: &str, prefix: &str) -> Counters {
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (names, values) = (rows.next().unwrap_or(""), rows.next().unwrap_or(""));
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        // Tcp's MaxConn is -1: the one value that is no counter.
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// One row of `/proc/net/tcp` or `/proc/net/tcp6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Local port.
    pub(super) port: u16,
    /// TCP state number, as the kernel prints it: 0x0a is LISTEN, 0x06 TIME_WAIT.
    pub(super) state: u8,
    /// For a listener: connections in its accept queue.
    pub(super) queue: u32,
}

/// State number of a listener.
pub(super) const LISTEN: u8 = 0x0a;
/// State number of a connection whose handshake is complete at this end.
pub(super) const ESTABLISHED: u8 = 0x01;
/// State number of a half-open request.
pub(super) const SYN_RECV: u8 = 0x03;
/// State number of a connection in TIME_WAIT.
pub(super) const TIME_WAIT: u8 = 0x06;

/// State numbers of connections that are being closed.
pub(super) const FIN_WAIT1: u8 = 0x04;
/// See [`FIN_WAIT1`].
pub(super) const FIN_WAIT2: u8 = 0x05;
/// See [`FIN_WAIT1`].
pub(super) const CLOSE_WAIT: u8 = 0x08;
/// See [`FIN_WAIT1`].
pub(super) const LAST_ACK: u8 = 0x09;

/// The namespace's TCP sockets on local `port`.
pub(super) fn sockets_on(namespace: &Namespace, port: u16) -> Result<Vec<Row>> {
    let texts = namespace.run(|| -> io::Result<_> {
        let v4 = fs::read_to_string("/proc/thread-self/net/tcp")?;
        // Absent on a kernel without IPv6.
        let v6 = fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default();
        Ok([v4, v6])
    })?;
    let texts = texts.during("reading the namespace's sockets")?;
    Ok(texts.iter().flat_map(|text| text.lines()).filter_map(row).filter(|row| row.port == port).collect())
}

fn row(line: &str) -> Option<Row> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, _remote, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some(Row {
        port: u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?,
        state: u8::from_str_radix(state, 16).ok()?,
        queue: u32::from_str_radix(queues.split_once(':')?.1, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 3 41\nIpExt: InOctets\nIpExt: 7\n";
        let counters = columns(text, "TcpExt:");
        assert_eq!(counters.get("ListenOverflows"), Some(&41));
        assert_eq!(counters.len(), 2);
        assert_eq!(columns("Tcp: MaxConn InErrs\nTcp: -1 2\n", "Tcp:").len(), 1);
    }

    #[test]
    fn a_counter_that_this_kernel_lacks_is_left_out() {
        let before = Counters::from([("ListenDrops".into(), 2)]);
        let after = Counters::from([("ListenDrops".into(), 5), ("ListenOverflows".into(), 1)]);
        let grown = growth(&before, &after);
        assert_eq!(grown, Counters::from([("ListenDrops".into(), 3), ("ListenOverflows".into(), 1)]));
    }

    #[test]
    fn rows_of_both_families_are_read() {
        let v4 =
            "   0: 00000000:0438 00000000:0000 0A 00000000:00000015 00:00000000 00000000     0        0 1 1";
        assert_eq!(row(v4), Some(Row { port: 1080, state: LISTEN, queue: 21 }));
        let v6 = "   1: 00000000000000000000000000000000:88C2 00000000000000000000000000000000:0000 06 00000000:00000000 03";
        assert_eq!(row(v6), Some(Row { port: 35010, state: TIME_WAIT, queue: 0 }));
        assert_eq!(row("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        assert_eq!(row(""), None);
    }
}
