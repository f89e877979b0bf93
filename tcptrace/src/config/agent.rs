//! `[agent]`: what the options of the same names tell `tcptrace agent`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::finding::Severity;

/// The agent's settings. A flag of the same name replaces each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AgentSettings {
    /// Where it records.
    pub dir: Option<PathBuf>,
    /// Where it answers HTTP requests.
    pub metrics: Option<SocketAddr>,
    /// Whether that may be an address that other hosts can reach.
    pub metrics_remote: bool,
    /// How many listeners have metrics of their own.
    pub max_listeners: usize,
    /// What the ring may have of the disk.
    #[serde(with = "size")]
    pub keep_size: u64,
    /// How long a part stays in the ring.
    #[serde(with = "time")]
    pub keep_age: Duration,
    /// Findings of this severity, or a worse one, are incidents.
    pub keep_on: KeepOn,
    /// What is kept of the time before an incident.
    #[serde(with = "time")]
    pub before: Duration,
    /// And of the time after it.
    #[serde(with = "time")]
    pub after: Duration,
    /// What all incidents may have of the disk.
    #[serde(with = "size")]
    pub keep_incidents: u64,
    /// How long a part is.
    #[serde(with = "time")]
    pub part: Duration,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            dir: None,
            metrics: None,
            metrics_remote: false,
            max_listeners: 500,
            keep_size: 512 << 20,
            keep_age: Duration::from_secs(24 * 3600),
            keep_on: KeepOn::Critical,
            before: Duration::from_secs(120),
            after: Duration::from_secs(120),
            keep_incidents: 512 << 20,
            part: Duration::from_secs(60),
        }
    }
}

/// Which findings are incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KeepOn {
    /// Connections fail, or a service does not start.
    Critical,
    /// It may hurt.
    Warning,
}

impl From<KeepOn> for Severity {
    fn from(on: KeepOn) -> Self {
        match on {
            KeepOn::Critical => Self::Critical,
            KeepOn::Warning => Self::Warning,
        }
    }
}

/// A size as on the command line: `512M`.
mod size {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(size: &u64, to: S) -> Result<S::Ok, S::Error> {
        let unit =
            [(30, "G"), (20, "M"), (10, "k")].into_iter().find(|(bits, _)| size.is_multiple_of(1 << bits));
        match unit {
            Some((bits, unit)) => to.collect_str(&format_args!("{}{unit}", size >> bits)),
            None => to.collect_str(size),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        crate::cli::args::size(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A time as on the command line: `2m`, and `0s` for none.
mod time {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        match jiff::SignedDuration::try_from(*time) {
            Ok(span) => to.collect_str(&format_args!("{span:#}")),
            Err(_) => to.collect_str(&format_args!("{}s", time.as_secs())),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        crate::cli::args::duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}
