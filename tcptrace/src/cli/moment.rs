//! A moment as people say it: `2026-11-22T03:00:00Z`, `2026-11-22 03:00` (local time), `03:12`, `10m ago`.

use std::{str::FromStr, time::Duration};

use jiff::{SignedDuration, civil, tz::TimeZone};

use crate::event::Timestamp;

/// A moment; what it means may depend on the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A point in time.
    At(Timestamp),
    /// A date and time, in the time zone of whoever says it.
    Local(civil::DateTime),
    /// A time of the day, there: the last such before the recording's end.
    OfDay(civil::Time),
    /// So long before now.
    Ago(Duration),
}

impl Moment {
    /// The point in time, for a recording that ends at `end`.
    pub fn in_recording(self, end: Timestamp, now: Timestamp, zone: &TimeZone) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(span) => now.before(span),
            Self::Local(local) => zoned(local, zone).unwrap_or(end),
            Self::OfDay(time) => {
                let Ok(last) = jiff::Timestamp::from_nanosecond(i128::from(end.nanos())) else { return end };
                let day = last.to_zoned(zone.clone()).date();
                let on = |day: civil::Date| zoned(day.to_datetime(time), zone);
                on(day)
                    .filter(|found| *found <= end)
                    .or_else(|| day.yesterday().ok().and_then(on))
                    .unwrap_or(end)
            }
        }
    }
}

/// As the user wrote it, or near to it.
impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(time) => write!(f, "{time}"),
            Self::Local(local) => write!(f, "{local}"),
            Self::OfDay(time) => write!(f, "{time}"),
            Self::Ago(span) => write!(f, "{} s ago", span.as_secs()),
        }
    }
}

fn zoned(local: civil::DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let time = local.to_zoned(zone.clone()).ok()?.timestamp();
    u64::try_from(time.as_nanosecond()).ok().map(Timestamp::from_nanos)
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(span) = text.strip_suffix("ago") {
            let span: Option<SignedDuration> = span.trim().parse().ok();
            if let Some(span) = span.and_then(|span| Duration::try_from(span).ok()) {
                return Ok(Self::Ago(span));
            }
        } else if let Ok(time) = text.parse::<jiff::Timestamp>() {
            if let Ok(nanos) = u64::try_from(time.as_nanosecond()) {
                return Ok(Self::At(Timestamp::from_nanos(nanos)));
            }
        } else if let Ok(time) = text.parse::<civil::Time>() {
            return Ok(Self::OfDay(time));
        } else if let Ok(time) = text.parse::<civil::DateTime>() {
            return Ok(Self::Local(time));
        }
        Err(format!(
            "{text:?} is not a time: use 2026-11-22T03:00:00Z, \"2026-11-22 03:00\", 03:12 or \"10m ago\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        match text.parse() {
            Ok(Moment::At(time)) => time,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn moments_are_as_documented() {
        let zone = TimeZone::UTC;
        let (end, now) = (at("2026-11-22T04:00:00Z"), at("2026-11-23T00:00:00Z"));
        let meant = |text: &str| text.parse::<Moment>().unwrap().in_recording(end, now, &zone);
        assert_eq!(meant("2026-11-22T03:00:00Z"), at("2026-11-22T03:00:00Z"));
        assert_eq!(meant("2026-11-22T03:00:00+01:00"), at("2026-11-22T02:00:00Z"));
        assert_eq!(meant("03:12"), at("2026-11-22T03:12:00Z"));
        assert_eq!(meant("23:00"), at("2026-11-21T23:00:00Z"));
        assert_eq!(meant("2026-11-22 03:00"), at("2026-11-22T03:00:00Z"));
        assert_eq!(meant("10m ago"), at("2026-11-22T23:50:00Z"));
        for wrong in ["", "soon", "ago", "-5m ago", "25:00"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }
}
