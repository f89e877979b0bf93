//! Times in reports, in the reader's time zone.

use jiff::tz::TimeZone;

use crate::event::Timestamp;
use crate::output::zone;

/// Prints times.
#[derive(Clone, Copy, Debug)]
pub(super) struct When<'a> {
    pub(super) zone: &'a TimeZone,
}

impl When<'_> {
    /// Date and time.
    pub(super) fn moment(self, time: Timestamp) -> String {
        zone::moment(self.zone, time)
    }

    /// Date and time, with the zone's name.
    pub(super) fn moment_and_zone(self, time: Timestamp) -> String {
        format!("{} {}", self.moment(time), zone::in_words(self.zone, time))
    }

    /// `at …`, or for a time that is longer `between … and …`.
    pub(super) fn within(self, first: Timestamp, last: Timestamp) -> String {
        if first == last {
            return format!("at {}", self.moment(first));
        }
        format!("between {} and {}", self.moment(first), self.moment(last))
    }

    /// Time of day.
    pub(super) fn clock(self, time: Timestamp) -> String {
        zone::clock(self.zone, time)
    }

    /// Time of day, to the second: what a picture's axis has room for.
    pub(super) fn second(self, time: Timestamp) -> String {
        zone::second(self.zone, time)
    }
}

/// `1 h 20 min`, `12.3 s`.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    let span = to.since(from);
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{:.1} s", span.as_secs_f64()),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
