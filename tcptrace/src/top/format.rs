//! Numbers and times, short enough for a column.

use std::time::Duration;

use crate::finding::words::rate;

/// `12 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A time that something took, in four cells or five: `850us`, `12ms`, `1.2s`, `3min`.
pub(crate) fn short_span(span: Duration) -> String {
    let micros = span.as_micros();
    let seconds = span.as_secs_f64();
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..10_000 => format!("{:.1}ms", seconds * 1e3),
        10_000..1_000_000 => format!("{}ms", span.as_millis()),
        1_000_000..100_000_000 => format!("{seconds:.1}s"),
        _ => format!("{}min", span.as_secs() / 60),
    }
}

/// What is not known is a dash, never a zero.
pub(crate) fn or_dash<T>(value: Option<T>, words: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), words)
}

/// A rate; see [`rate`].
pub(crate) fn short_rate(per_second: f64) -> String {
    if per_second >= 10_000.0 {
        return format!("{:.0}k/s", per_second / 1e3);
    }
    rate(per_second)
}

/// A count in five cells or less: `1234`, `12k`, `3.4M`.
pub(crate) fn short_count(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let number = count as f64;
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{:.0}k", number / 1e3),
        1_000_000..10_000_000 => format!("{:.1}M", number / 1e6),
        _ => format!("{:.0}M", number / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts_are_short() {
        let spans = [7_u64, 1_500, 12_000, 999_000, 1_200_000, 250_000_000];
        let spans: Vec<String> =
            spans.iter().map(|micros| short_span(Duration::from_micros(*micros))).collect();
        assert_eq!(spans, ["7us", "1.5ms", "12ms", "999ms", "1.2s", "4min"]);
        let counts = [0, 9_999, 10_000, 999_499, 1_234_567, 45_000_000].map(short_count);
        assert_eq!(counts, ["0", "9999", "10k", "999k", "1.2M", "45M"]);
        assert_eq!([5, 75, 7_500].map(|s| age(Duration::from_secs(s))), ["5 s", "1 min 15 s", "2 h 5 min"]);
        assert_eq!([71.2, 0.44, 12_345.0].map(short_rate), ["71/s", "0.4/s", "12k/s"]);
        assert_eq!(or_dash(None::<u64>, short_count), "-");
    }
}
