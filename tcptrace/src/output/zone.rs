//! The time zone in which text tells times: that of whoever reads.

use std::sync::OnceLock;

use jiff::tz::TimeZone;

use crate::event::Timestamp;

/// The time zone of this process (`TZ`, else the system's). One that is not known is UTC, and a warning says so, once.
pub fn local() -> TimeZone {
    LOCAL.get_or_init(find).clone()
}

static LOCAL: OnceLock<TimeZone> = OnceLock::new();

/// From now on times are told in UTC, wherever this process is.
pub fn tell_utc() {
    LOCAL.get_or_init(|| TimeZone::UTC);
}

fn find() -> TimeZone {
    // A name goes to the database by itself: what the system makes of one that it does not know is UTC, in silence.
    if let Some(name) = std::env::var_os("TZ").filter(|name| !name.is_empty()) {
        let name = name.to_string_lossy().into_owned();
        let bare = name.trim_start_matches(':');
        let found = if bare.starts_with('/') {
            std::fs::read(bare).ok().and_then(|bytes| TimeZone::tzif(bare, &bytes).ok())
        } else {
            TimeZone::get(bare).or_else(|_| TimeZone::posix(bare)).ok()
        };
        return found.unwrap_or_else(|| {
            log::warn!(
                "TZ={name} is not a time zone that this system knows (is tzdata installed?): times are UTC"
            );
            TimeZone::UTC
        });
    }
    TimeZone::try_system().unwrap_or_else(|error| {
        log::debug!("the system's time zone: {error}");
        TimeZone::UTC
    })
}

/// How far the clock in `zone` is from UTC at `time`, and what it is called: `UTC`, `UTC+09:00 (Asia/Tokyo)`.
pub fn in_words(zone: &TimeZone, time: Timestamp) -> String {
    let Ok(at) = jiff::Timestamp::from_nanosecond(i128::from(time.nanos())) else { return "UTC".to_owned() };
    let at = at.to_zoned(zone.clone());
    if at.offset().is_zero() && zone.iana_name().is_none_or(|name| name == "UTC" || name == "Etc/UTC") {
        return "UTC".to_owned();
    }
    let offset = at.strftime("UTC%:z");
    match zone.iana_name() {
        Some(name) => format!("{offset} ({name})"),
        None => offset.to_string(),
    }
}

/// Date and time, there.
pub fn moment(zone: &TimeZone, time: Timestamp) -> String {
    told(zone, time, "%Y-%m-%d %H:%M:%S.%3f")
}

/// Time of day: `19:40:12.031`.
pub fn clock(zone: &TimeZone, time: Timestamp) -> String {
    told(zone, time, "%H:%M:%S.%3f")
}

/// Time of day, to the second: `19:40:12`.
pub fn second(zone: &TimeZone, time: Timestamp) -> String {
    told(zone, time, "%H:%M:%S")
}

/// Date, time to the second, and the offset of the zone: `2026-11-22 19:40:12 UTC+09:00 (Asia/Tokyo)`.
pub fn moment_and_zone(zone: &TimeZone, time: Timestamp) -> String {
    format!("{} {}", told(zone, time, "%Y-%m-%d %H:%M:%S"), in_words(zone, time))
}

/// Date, time to the second, and the bare offset of the zone: `2026-11-22 19:40:12+09:00`.
pub fn moment_and_offset(zone: &TimeZone, time: Timestamp) -> String {
    told(zone, time, "%Y-%m-%d %H:%M:%S%:z")
}

fn told(zone: &TimeZone, time: Timestamp, how: &str) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.nanos())) {
        Ok(at) => at.to_zoned(zone.clone()).strftime(how).to_string(),
        Err(_) => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_nanos(u64::try_from(time.as_nanosecond()).unwrap())
    }

    #[test]
    fn a_zone_is_named_with_the_offset_that_it_has_then() {
        assert_eq!(in_words(&TimeZone::UTC, at("2026-11-22T03:00:00Z")), "UTC");
        let nine = TimeZone::fixed(jiff::tz::Offset::constant(9));
        assert_eq!(in_words(&nine, at("2026-11-22T03:00:00Z")), "UTC+09:00");
        let Ok(berlin) = TimeZone::get("Europe/Berlin") else { return println!("skipped: no tzdata") };
        assert_eq!(in_words(&berlin, at("2026-11-22T03:00:00Z")), "UTC+01:00 (Europe/Berlin)");
        assert_eq!(in_words(&berlin, at("2026-07-22T03:00:00Z")), "UTC+02:00 (Europe/Berlin)");
    }
}
