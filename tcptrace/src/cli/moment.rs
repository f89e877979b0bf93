//! A moment as people say it: `2026-11-22T03:00:00Z`, `2026-11-22 03:00` (local time), `03:12`, `10m ago`.

use std::{str::FromStr, time::Duration};

use jiff::{SignedDuration, civil, tz::TimeZone};

use crate::event::Timestamp;

/// A moment, as precise as it was said; what it means may depend on the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    kind: Kind,
    /// How long it is: `03:16` is a minute, `03:16:36` a second.
    length: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
    /// Its first nanosecond, for a recording that ends at `end`.
    pub fn in_recording(self, end: Timestamp, now: Timestamp, zone: &TimeZone) -> Timestamp {
        match self.kind {
            Kind::At(time) => time,
            Kind::Ago(span) => now.before(span),
            Kind::Local(local) => zoned(local, zone).unwrap_or(end),
            Kind::OfDay(time) => {
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

    /// The last nanosecond of one that begins at `first`.
    pub fn last(self, first: Timestamp) -> Timestamp {
        Timestamp::from_nanos(first.after(self.length).nanos().saturating_sub(1).max(first.nanos()))
    }
}

/// How long a time is that was written so: of `03:16` a minute, of `03:16:36` a second, of `03:16:36.5` a point.
fn length(text: &str) -> Duration {
    let clock = text.rsplit(['T', 't', ' ']).next().unwrap_or(text);
    // An offset follows.
    let clock = clock.trim_end_matches(['Z', 'z']).split(['+', '-']).next().unwrap_or(clock);
    if !clock.contains(':') {
        return Duration::from_secs(86_400);
    }
    match (clock.contains(['.', ',']), clock.matches(':').count()) {
        (true, _) => Duration::ZERO,
        (false, 1) => Duration::from_secs(60),
        (false, _) => Duration::from_secs(1),
    }
}

/// As the user wrote it, or near to it.
impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::At(time) => write!(f, "{time}"),
            Kind::Local(local) => write!(f, "{local}"),
            Kind::OfDay(time) => write!(f, "{time}"),
            Kind::Ago(span) => write!(f, "{} s ago", span.as_secs()),
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
        let said = |kind| Ok(Self { kind, length: length(text) });
        if let Some(span) = text.strip_suffix("ago") {
            let span: Option<SignedDuration> = span.trim().parse().ok();
            if let Some(span) = span.and_then(|span| Duration::try_from(span).ok()) {
                return Ok(Self { kind: Kind::Ago(span), length: Duration::ZERO });
            }
        } else if let Ok(time) = text.parse::<jiff::Timestamp>() {
            if let Ok(nanos) = u64::try_from(time.as_nanosecond()) {
                return said(Kind::At(Timestamp::from_nanos(nanos)));
            }
        } else if let Ok(time) = text.parse::<civil::Time>() {
            return said(Kind::OfDay(time));
        } else if let Ok(time) = text.parse::<civil::DateTime>() {
            return said(Kind::Local(time));
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
            Ok(Moment { kind: Kind::At(time), .. }) => time,
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

    #[test]
    fn a_moment_is_as_long_as_it_was_said() {
        for (text, seconds) in [
            ("03:16", 60),
            ("2026-11-22 03:16", 60),
            ("2026-11-22T03:16Z", 60),
            ("03:16:36", 1),
            ("2026-11-22T03:16:36+01:00", 1),
            ("2026-11-22", 86_400),
        ] {
            let moment: Moment = text.parse().unwrap();
            let first = at("2026-11-22T03:16:00Z");
            let last = first.after(Duration::from_secs(seconds)).nanos() - 1;
            assert_eq!(moment.last(first).nanos(), last, "{text}");
        }
        for text in ["03:16:36.5", "5m ago"] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.last(at("2026-11-22T03:16:00Z")), at("2026-11-22T03:16:00Z"), "{text}");
        }
    }
}
