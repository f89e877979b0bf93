//! Numbers as people read them.

use std::time::Duration;

/// `1 SYN`, `312 SYNs`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A rate without false precision: `71/s`, `0.4/s`, `0/s`.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 10.0 || per_second == 0.0 {
        format!("{per_second:.0}/s")
    } else {
        let text = format!("{per_second:.1}");
        format!("{}/s", text.strip_suffix(".0").unwrap_or(&text))
    }
}

/// A time span: `3.1 s`, `250 ms`, `12 min`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 {
        format!("{} ms", duration.as_millis())
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.0} min", seconds / 60.0)
    }
}

/// A network namespace by its name, where it has one, and its number: `netns blue (4026532943)`, `netns 4026532943`.
pub(crate) fn netns(number: u32, name: Option<&str>) -> String {
    name.map_or_else(|| format!("netns {number}"), |name| format!("netns {name} ({number})"))
}

/// The name of an errno: `EHOSTUNREACH`.
pub(crate) fn errno_name(errno: u32) -> String {
    let raw = i32::try_from(errno).unwrap_or(0);
    match nix::errno::Errno::from_raw(raw) {
        nix::errno::Errno::UnknownErrno => format!("errno {errno}"),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1, "SYN", "SYNs"), "1 SYN");
        assert_eq!(count(0, "SYN", "SYNs"), "0 SYNs");
        assert_eq!([rate(71.2), rate(8.0), rate(0.44), rate(0.0)], ["71/s", "8/s", "0.4/s", "0/s"]);
        assert_eq!(span(Duration::from_millis(3120)), "3.1 s");
        assert_eq!(span(Duration::from_millis(250)), "250 ms");
        assert_eq!(span(Duration::from_secs(720)), "12 min");
        assert_eq!([netns(7, None), netns(7, Some("blue"))], ["netns 7", "netns blue (7)"]);
    }
}
