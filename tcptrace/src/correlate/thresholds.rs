//! From when on something is reported: numbers that a configuration may change.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest list of times that is kept, which is the most that can be counted.
const KEPT: u32 = 16;

/// From when on something is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Thresholds {
    /// `accept-stall`.
    pub accept_stall: AcceptStall,
    /// `slow-accept`.
    pub slow_accept: SlowAccept,
    /// `connect-refused`.
    pub connect_refused: ConnectRefused,
    /// `handshake-dropped`.
    pub handshake_dropped: HandshakeDropped,
}

/// `accept-stall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AcceptStall {
    /// For how long no process must have accepted while connections waited.
    #[serde(with = "seconds")]
    pub after: Duration,
    /// From when on that is critical: clients that wait this long give up.
    #[serde(with = "seconds")]
    pub critical: Duration,
}

impl Default for AcceptStall {
    fn default() -> Self {
        Self { after: Duration::from_secs(3), critical: Duration::from_secs(10) }
    }
}

/// `slow-accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SlowAccept {
    /// The accept wait that one connection in a hundred must be over.
    #[serde(with = "time")]
    pub wait: Duration,
    /// Of how many accepts at least.
    pub accepts: NonZeroU64,
}

impl Default for SlowAccept {
    fn default() -> Self {
        Self { wait: Duration::from_secs(1), accepts: NonZeroU64::MIN.saturating_add(19) }
    }
}

/// `connect-refused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConnectRefused {
    /// How many connects to one destination must be refused within a minute.
    #[serde(deserialize_with = "few")]
    pub connects: NonZeroU32,
}

impl Default for ConnectRefused {
    fn default() -> Self {
        Self { connects: NonZeroU32::MIN.saturating_add(2) }
    }
}

/// `handshake-dropped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HandshakeDropped {
    /// How many packets must be dropped at one place within a minute.
    #[serde(deserialize_with = "few")]
    pub packets: NonZeroU32,
}

impl Default for HandshakeDropped {
    fn default() -> Self {
        Self { packets: NonZeroU32::MIN.saturating_add(1) }
    }
}

/// A time in a configuration, as on the command line.
fn parse_time(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a time: use 250ms, 30s, 5m or 2h"))?;
    match Duration::try_from(span) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(format!("{text:?} is no time that passes: use 250ms, 30s, 5m or 2h")),
    }
}

fn in_words(time: &Duration) -> String {
    jiff::SignedDuration::try_from(*time)
        .map_or_else(|_| format!("{}s", time.as_secs()), |span| format!("{span:#}"))
}

fn few<'de, D: serde::Deserializer<'de>>(of: D) -> Result<NonZeroU32, D::Error> {
    let number = i64::deserialize(of)?;
    u32::try_from(number)
        .ok()
        .filter(|number| *number <= KEPT)
        .and_then(NonZeroU32::new)
        .ok_or_else(|| serde::de::Error::custom(format!("{number} is not a number from 1 to {KEPT}")))
}

mod time {
    use super::{Deserialize, Duration};

    pub(super) fn serialize<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::in_words(time))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(of: D) -> Result<Duration, D::Error> {
        super::parse_time(&String::deserialize(of)?).map_err(serde::de::Error::custom)
    }
}

/// Listeners are read once a second: less than one cannot be told.
mod seconds {
    use super::Duration;
    pub(super) use super::time::serialize;

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(of: D) -> Result<Duration, D::Error> {
        let time = super::time::deserialize(of)?;
        if time >= Duration::from_secs(1) {
            return Ok(time);
        }
        Err(serde::de::Error::custom("listeners are read once a second: use 1s or more"))
    }
}
