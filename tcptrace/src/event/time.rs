//! Points in time, and the step from the kernel's clock to everybody's.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The given number of nanoseconds after 1970-01-01T00:00:00Z.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Now, by the wall clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to here; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `span` later; the end of time if that is nearer.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// `span` earlier, not before 1970.
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// RFC 3339 in UTC with nanoseconds: `2026-11-22T10:40:12.031441207Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.9}"),
            // Beyond the year 9999: u64 nanoseconds end in 2554, so never.
            Err(_) => write!(f, "@{}ns", self.0),
        }
    }
}

/// How far the wall clock is ahead of `CLOCK_MONOTONIC`, in which the kernel side stamps its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClockOffset(i64);

impl ClockOffset {
    /// From two readings taken as close together as possible: the wall clock (ns since 1970) and `CLOCK_MONOTONIC` (ns).
    pub fn from_readings(wall_ns: u64, monotonic_ns: u64) -> Self {
        let offset = i128::from(wall_ns) - i128::from(monotonic_ns);
        Self(i64::try_from(offset).unwrap_or(if offset < 0 { i64::MIN } else { i64::MAX }))
    }

    /// How far, ns.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The wall-clock time of a `CLOCK_MONOTONIC` reading (ns).
    pub fn wall(self, monotonic_ns: u64) -> Timestamp {
        Timestamp(monotonic_ns.saturating_add_signed(self.0))
    }

    /// Like [`Self::wall`], for fields in which 0 stands for "never".
    pub fn wall_unless_zero(self, monotonic_ns: u64) -> Option<Timestamp> {
        (monotonic_ns != 0).then(|| self.wall(monotonic_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_all_nine_digits() {
        assert_eq!(
            Timestamp::from_nanos(1_795_344_012_031_441_207).to_string(),
            "2026-11-22T10:40:12.031441207Z"
        );
        assert_eq!(Timestamp::from_nanos(0).to_string(), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(Timestamp::from_nanos(u64::MAX).to_string(), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn converts_the_kernel_s_clock() {
        let offset = ClockOffset::from_readings(1_700_000_000_000_000_500, 500);
        assert_eq!(offset.wall(7), Timestamp::from_nanos(1_700_000_000_000_000_007));
        assert_eq!(offset.wall_unless_zero(0), None);
        assert_eq!(ClockOffset::from_readings(5, 10).wall(10), Timestamp::from_nanos(5));
    }
}
