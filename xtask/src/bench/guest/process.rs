//! What procfs says of a process.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bench::measurement::Memory;

/// `USER_HZ`: the unit of times in `/proc/PID/stat`, fixed for x86-64.
const TICK: Duration = Duration::from_millis(10);

/// Processor time used so far, by all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        Self::parse(&stat).with_context(|| format!("{path} is not understood"))
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name before it may contain anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11);
        let mut time = || Some(TICK * fields.next()?.parse::<u32>().ok()?);
        Some(Self { user: time()?, system: time()? })
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

/// Its memory now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = read(pid, "status")?;
    // Missing where the kernel was built without it.
    let rollup = read(pid, "smaps_rollup").unwrap_or_default();
    Ok(Memory {
        rss_kib: field(&status, "VmRSS").context("no VmRSS")?,
        anonymous_kib: field(&status, "RssAnon").context("no RssAnon")?,
        peak_kib: field(&status, "VmHWM").context("no VmHWM")?,
        proportional_kib: field(&rollup, "Pss").unwrap_or_default(),
    })
}

/// Kernel memory of the BPF maps that it has open, each counted once.
pub(crate) fn maps_kib(pid: u32) -> Result<u64> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("reading {directory}"))? {
        // Closed since: nothing to count.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        if let (Some(id), Some(bytes)) = (field(&text, "map_id"), field(&text, "memlock")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum::<u64>() / 1024)
}

fn read(pid: u32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}

/// `NAME:   123 kB`
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 100 1 1";
        let cpu = Cpu::parse(stat).unwrap();
        assert_eq!((cpu.user, cpu.system), (Duration::from_millis(1500), Duration::from_millis(250)));
        assert_eq!(Cpu::parse("77 (x) S 1"), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmPeak:\t  100 kB\nVmRSS:\t    42 kB\n";
        assert_eq!(field(status, "VmRSS"), Some(42));
        assert_eq!(field(status, "Vm"), None);
    }

    #[test]
    fn this_very_process_can_be_measured() {
        let pid = std::process::id();
        assert!(memory(pid).unwrap().rss_kib > 0);
        assert_eq!(maps_kib(pid).unwrap(), 0);
        Cpu::of(pid).unwrap();
    }
}
