//! The kernel's own TCP counters of a network namespace, to reconcile our events with.
//!
//! Read from `/proc/net/netstat` (`TcpExt`) and `/proc/net/snmp` (`Tcp`) by column name: columns are added in most
//! kernel releases, and their order means nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::event::CounterSample;

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

/// Reads a namespace's counters once. To read them again and again, keep a [`CounterReader`].
///
/// # Errors
/// When the namespace cannot be entered or its files cannot be read.
pub fn read(netns: &Netns) -> Result<CounterSample, CountersError> {
    CounterReader::open(netns)?.read()
}

/// Takes the counters it knows from text of the form of `/proc/net/netstat` or `/proc/net/snmp`: pairs of lines, names and values,
/// each starting with the group's name. Anything else is passed over.
pub fn absorb(into: &mut CounterSample, text: &[u8]) {
    let mut lines = text.split(|byte| *byte == b'\n');
    while let Some(names) = lines.next() {
        let Some((group, names)) = split_group(names) else { continue };
        let Some((value_group, values)) = lines.next().and_then(split_group) else { return };
        if group != value_group {
            continue;
        }
        for (name, value) in words(names).zip(words(values)) {
            let value = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            into.set(group, name, value);
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
    pub fn read(&mut self) -> Result<CounterSample, CountersError> {
        let netns = self.netns;
        let mut counters = CounterSample { netns, cookie: self.cookie, ..CounterSample::default() };
        for (file, name) in [(&self.netstat, NETSTAT), (&self.snmp, SNMP)] {
            let text = read_from_start(file, &mut self.buffer).map_err(|source| CountersError::Read {
                file: name,
                netns,
                source,
            })?;
            absorb(&mut counters, text);
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
        let mut counters = CounterSample::default();
        absorb(
            &mut counters,
            b"TcpExt: ListenDrops Novel ListenOverflows\nTcpExt: 7 1 5\n\
              IpExt: ListenDrops\nIpExt: 99\n\
              Tcp: MaxConn ActiveOpens PassiveOpens\nTcp: -1 3\n",
        );
        let expected = CounterSample {
            listen_drops: Some(7),
            listen_overflows: Some(5),
            active_opens: Some(3),
            ..CounterSample::default()
        };
        assert_eq!(counters, expected);
    }

    #[test]
    fn deltas_know_what_they_do_not_know() {
        let then = CounterSample {
            listen_drops: Some(7),
            attempt_fails: Some(5),
            active_opens: None,
            ..CounterSample::default()
        };
        let now = CounterSample {
            listen_drops: Some(9),
            attempt_fails: Some(4),
            active_opens: Some(1),
            ..CounterSample::default()
        };
        assert_eq!(now.delta(&then), CounterSample { listen_drops: Some(2), ..CounterSample::default() });
    }

    #[test]
    fn the_running_kernel_has_the_counters_that_matter() {
        let counters = read(&Netns::current().unwrap()).unwrap();
        // All are older than any kernel that is supported; one that is missing is left out.
        let json = serde_json::to_value(CounterSample { cookie: None, ..counters }).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 1 + 17, "{json}");
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
            absorb(&mut CounterSample::default(), &bytes);
        }

        #[test]
        fn absorbs_anything_shaped_like_it(text in "((TcpExt|Tcp|Ip): ?([A-Za-z]{1,4} |[0-9]{1,25} |-1 ){0,6}\n){0,6}") {
            absorb(&mut CounterSample::default(), text.as_bytes());
        }
    }
}
