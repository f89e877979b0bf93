//! Connection tracking of a network namespace: its limit, its entries, and its own counters of what it dropped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::host::netns::{Netns, NetnsError, in_netns};

/// What was read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// `net.netfilter.nf_conntrack_count`.
    pub count: u64,
    /// `net.netfilter.nf_conntrack_max`; 0 for none.
    pub max: u64,
    /// Packets that it dropped, of all CPUs; `None` where the kernel shows no counters.
    pub dropped: Option<u64>,
    /// Packets that fit no connection.
    pub invalid: Option<u64>,
}

/// Reads it again and again, without entering the namespace again.
#[derive(Debug)]
pub struct ConntrackReader {
    count: File,
    max: File,
    counters: Option<File>,
}

impl ConntrackReader {
    /// `None` if the namespace's connections are not tracked: the kernel has no such module, or it is not loaded.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn open(netns: &Netns) -> Result<Option<Self>, NetnsError> {
        in_netns(netns, || {
            let sysctl = |name: &str| File::open(format!("/proc/sys/net/netfilter/{name}")).ok();
            Some(Self {
                count: sysctl("nf_conntrack_count")?,
                max: sysctl("nf_conntrack_max")?,
                counters: File::open("/proc/thread-self/net/stat/nf_conntrack").ok(),
            })
        })
    }

    /// What it shows now.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self) -> io::Result<Conntrack> {
        let counters = match &self.counters {
            Some(file) => read(file)?,
            None => String::new(),
        };
        Ok(Conntrack {
            count: number(&read(&self.count)?)?,
            max: number(&read(&self.max)?)?,
            dropped: column(&counters, "drop"),
            invalid: column(&counters, "invalid"),
        })
    }
}

fn read(file: &File) -> io::Result<String> {
    // A line of some 160 bytes for each CPU: more than this are cut off, and the counters are then a little low.
    let mut text = vec![0; 64 * 1024];
    let mut filled = 0;
    while let Some(room) = text.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    text.truncate(filled);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn number(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no number"))
}

/// The sum of a column of `/proc/net/stat/*`: a line of names, then a line of hexadecimal numbers for each CPU.
pub(in crate::host) fn column(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let at = lines.next()?.split_ascii_whitespace().position(|known| known == name)?;
    lines
        .map(|line| u64::from_str_radix(line.split_ascii_whitespace().nth(at)?, 16).ok())
        .try_fold(0_u64, |sum, value| Some(sum.saturating_add(value?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::private_netns;

    const STAT: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop\n\
        0000ffff  00000000 00000000 00000000 00000002 00000000 00000000 00000000 00000000 00000000 00000010 00000000\n\
        0000ffff  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000000 0000000a 00000000\n";

    #[test]
    fn counters_are_the_sum_of_all_cpus() {
        assert_eq!(column(STAT, "drop"), Some(26));
        assert_eq!(column(STAT, "invalid"), Some(3));
        assert_eq!(column(STAT, "novel"), None);
        assert_eq!(column("", "drop"), None);
    }

    #[test]
    fn a_new_namespace_tracks_nothing_yet() {
        let Some(netns) = private_netns() else { return };
        let Some(reader) = ConntrackReader::open(&netns).unwrap() else { return };
        let read = reader.read().unwrap();
        assert_eq!((read.count, read.dropped.unwrap_or(0)), (0, 0));
        assert!(read.max > 0);
    }
}
