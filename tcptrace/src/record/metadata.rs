//! What a recording says about itself, in the metadata of its schema.

use std::collections::BTreeMap;
use std::fs;

use crate::event::{ClockOffset, Coverage, Timestamp};
use crate::output::json_text;

use super::frame::{CHECKSUM, NO_CHECKSUM};

/// Major version of the format: a reader refuses a higher one. Since 2, the rows of a batch stand by kind of event.
pub const FORMAT_MAJOR: u32 = 2;

/// Minor version of the format: a higher one has columns or events more, which a reader passes over. Since 2.1, groups name
/// their file, and the header of a recording that was ended in order says how much is in it.
pub const FORMAT_MINOR: u32 = 1;

/// Key of the format version in the schema's metadata. By it a recording is known.
const FORMAT: &str = "tcptrace.format";

/// Keys of what is known only when a recording has ended. Their values have the same length always, so that they can be
/// written over.
const ROWS: &str = "tcptrace.rows";
const ENDED: &str = "tcptrace.ended";

/// Every key, and what stands there.
pub(super) const KEYS: &[(&str, &str)] = &[
    (FORMAT, "version of this format: `major.minor`"),
    ("tcptrace.version", "version of tcptrace that recorded"),
    ("tcptrace.host", "host name"),
    ("tcptrace.kernel", "kernel release (`uname -r`)"),
    (
        "tcptrace.boot_id",
        "`/proc/sys/kernel/random/boot_id`: times and inode numbers of one boot belong together",
    ),
    (
        "tcptrace.clock_offset_ns",
        "how far the wall clock was ahead of CLOCK_MONOTONIC, ns; times in the file are wall-clock",
    ),
    ("tcptrace.recording", "the same in all parts of one rotated recording"),
    ("tcptrace.part", "number of this part, from 1"),
    ("tcptrace.started", "when this part began, ns since 1970"),
    ("tcptrace.command", "the command that was recorded, as a JSON array; absent if there was none"),
    ("tcptrace.coverage", "what was observed at the start, as the `coverage` event's JSON"),
    (ROWS, "how many rows the file has: 20 digits, filled in when it ends in order, and zeros until then"),
    (ENDED, "time of its last event, ns since 1970: 20 digits, filled in with them"),
    (CHECKSUM, "CRC-32 of the header, in which these digits count as zeros"),
];

/// What a recording says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Version of the format.
    pub format: (u32, u32),
    /// Version of tcptrace that recorded.
    pub version: String,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// Which boot of the host.
    pub boot_id: String,
    /// How far the wall clock was ahead of `CLOCK_MONOTONIC`, ns.
    pub clock_offset_ns: i64,
    /// The same in all parts of one recording.
    pub recording: String,
    /// Number of this part, from 1.
    pub part: u32,
    /// When this part began.
    pub started: Timestamp,
    /// The command that was recorded.
    pub command: Option<Vec<String>>,
    /// What was observed at the start.
    pub coverage: Option<Coverage>,
    /// What is in it, if it was ended in order.
    pub totals: Option<Totals>,
}

/// What is in a file that was ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// How many rows.
    pub rows: u64,
    /// The time of its last event.
    pub ended: Timestamp,
}

impl Metadata {
    /// Of a recording that begins now, on this host.
    pub fn of_this_host(clock: ClockOffset, started: Timestamp, coverage: Option<Coverage>) -> Self {
        let read =
            |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let name = nix::sys::utsname::uname().ok();
        let text =
            |of: Option<&std::ffi::OsStr>| of.map(|of| of.to_string_lossy().into_owned()).unwrap_or_default();
        let boot_id = read("/proc/sys/kernel/random/boot_id");
        Self {
            format: (FORMAT_MAJOR, FORMAT_MINOR),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: text(name.as_ref().map(nix::sys::utsname::UtsName::nodename)),
            kernel: text(name.as_ref().map(nix::sys::utsname::UtsName::release)),
            recording: format!("{boot_id}/{}/{}", std::process::id(), started.nanos()),
            boot_id,
            clock_offset_ns: clock.nanos(),
            part: 1,
            started,
            command: None,
            coverage,
            totals: None,
        }
    }

    /// By what the groups of its file are known.
    pub(super) fn file(&self) -> u32 {
        crc32fast::hash(format!("{}/{}", self.recording, self.part).as_bytes())
    }

    /// As the schema's metadata, the checksum still open.
    pub(super) fn to_map(&self) -> BTreeMap<String, String> {
        let mut map: BTreeMap<String, String> = [
            (FORMAT, format!("{}.{}", self.format.0, self.format.1)),
            ("tcptrace.version", self.version.clone()),
            ("tcptrace.host", self.host.clone()),
            ("tcptrace.kernel", self.kernel.clone()),
            ("tcptrace.boot_id", self.boot_id.clone()),
            ("tcptrace.clock_offset_ns", self.clock_offset_ns.to_string()),
            ("tcptrace.recording", self.recording.clone()),
            ("tcptrace.part", self.part.to_string()),
            ("tcptrace.started", self.started.nanos().to_string()),
            (ROWS, format!("{:020}", self.totals.map_or(0, |of| of.rows))),
            (ENDED, format!("{:020}", self.totals.map_or(0, |of| of.ended.nanos()))),
            (CHECKSUM, NO_CHECKSUM.to_owned()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        let mut add =
            |key: &str, value: Option<String>| map.extend(value.map(|value| (key.to_owned(), value)));
        add("tcptrace.command", self.command.as_ref().map(json_text));
        add("tcptrace.coverage", self.coverage.as_ref().map(json_text));
        map
    }

    /// From a schema's metadata; `None` if they are not those of a recording. What is missing stays empty.
    pub(super) fn from_map(map: &arrow_schema::Metadata) -> Option<Self> {
        let (major, minor) = map.get(FORMAT)?.split_once('.')?;
        let text = |key: &str| map.get(key).cloned().unwrap_or_default();
        Some(Self {
            format: (major.parse().ok()?, minor.parse().ok()?),
            version: text("tcptrace.version"),
            host: text("tcptrace.host"),
            kernel: text("tcptrace.kernel"),
            boot_id: text("tcptrace.boot_id"),
            clock_offset_ns: text("tcptrace.clock_offset_ns").parse().unwrap_or_default(),
            recording: text("tcptrace.recording"),
            part: text("tcptrace.part").parse().unwrap_or(1),
            started: Timestamp::from_nanos(text("tcptrace.started").parse().unwrap_or_default()),
            command: map.get("tcptrace.command").and_then(|json| serde_json::from_str(json).ok()),
            coverage: map.get("tcptrace.coverage").and_then(|json| serde_json::from_str(json).ok()),
            totals: totals(&text(ROWS), &text(ENDED)),
        })
    }
}

fn totals(rows: &str, ended: &str) -> Option<Totals> {
    let ended = ended.parse().ok().filter(|ended| *ended != 0)?;
    Some(Totals { rows: rows.parse().ok()?, ended: Timestamp::from_nanos(ended) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_and_documented() {
        let said = Metadata {
            command: Some(vec!["wrk".to_owned(), "-t 4 \u{1b}[31m".to_owned()]),
            totals: Some(Totals { rows: 7, ended: Timestamp::from_nanos(8) }),
            ..Metadata::of_this_host(
                ClockOffset::from_readings(7, 5),
                Timestamp::from_nanos(9),
                Some(Coverage::default()),
            )
        };
        let map = said.to_map();
        assert_eq!(Metadata::from_map(&map.clone().into()), Some(said));
        for key in map.keys() {
            assert!(KEYS.iter().any(|(known, _)| known == key), "{key} is not documented");
        }
        assert_eq!(map.len(), KEYS.len());
    }
}
