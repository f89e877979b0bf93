//! What processes did with ports while they were traced, one or several together.

use crate::correlate::{Growth, ProcessPorts};
use crate::output::json::TrendLine;

/// Of processes that were traced for `span` seconds, `free` ports being left; `None` if none of them took a port.
pub(super) fn trend_of<'a>(
    processes: impl IntoIterator<Item = &'a ProcessPorts>,
    span: f64,
    free: u32,
) -> Option<TrendLine> {
    let (mut taken, mut released, mut late, mut own) = (0, 0, 0, 0);
    let mut growth: Option<Growth> = None;
    let mut any = false;
    for ports in processes {
        any = true;
        taken += ports.latest.taken();
        released += ports.latest.released;
        late += ports.latest.late;
        own += ports.latest.own_range;
        if let Some(one) = ports.growth() {
            growth = Some(growth.map_or(one, |sum| sum.and(&one)));
        }
    }
    let forecast = growth.and_then(|growth| growth.forecast(free.into()));
    #[expect(clippy::cast_precision_loss, reason = "a rate has few significant digits")]
    let rate = |count: u64| if span > 0.0 { round(count as f64 / span) } else { 0.0 };
    any.then(|| TrendLine {
        taken,
        released,
        taken_late: late,
        taken_from_own_range: own,
        taken_per_s: rate(taken),
        released_per_s: rate(released),
        growth_per_s: growth.map(|growth| round(growth.per_s)),
        growth_error_per_s: growth.map(|growth| round(growth.error_per_s)),
        left_s: forecast.map(|(_, likely, _)| round(likely.as_secs_f64())),
        left_min_s: forecast.map(|(least, ..)| round(least.as_secs_f64())),
        left_max_s: forecast.and_then(|(.., most)| most).map(|most| round(most.as_secs_f64())),
    })
}

/// `took 26 (6.5/s), gave back 0 (0/s); only grows, 6.5 ± 0.1/s: none is left in 1.1 s (1 s to 1.1 s)`.
pub(super) fn in_words(trend: &TrendLine) -> String {
    let mut text = format!(
        "took {} ({}/s), gave back {} ({}/s)",
        trend.taken, trend.taken_per_s, trend.released, trend.released_per_s
    );
    for (count, how) in [
        (trend.taken_late, "after bind() with IP_BIND_ADDRESS_NO_PORT"),
        (trend.taken_from_own_range, "from sockets' own ranges"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {how}"));
        }
    }
    if let (Some(growth), Some(left)) = (trend.growth_per_s, trend.left_s) {
        let error = trend.growth_error_per_s.unwrap_or(0.0);
        let least = trend.left_min_s.unwrap_or(left);
        let most = trend.left_max_s.map_or_else(|| "much later".to_owned(), |most| format!("{most} s"));
        text.push_str(&format!(
            "; only grows, {growth} ± {error}/s: none is left in {left} s ({least} s to {most})"
        ));
    }
    text
}

/// To a tenth.
pub(super) fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PortUse;

    #[test]
    fn several_processes_are_added_up_and_none_is_nothing() {
        let process = |by_connect, released, late| {
            let mut ports = ProcessPorts::default();
            ports.latest = PortUse { by_connect, released, late, own_range: 1, ..PortUse::default() };
            ports
        };
        let both = trend_of(&[process(30, 10, 2), process(10, 10, 0)], 4.0, 100).unwrap();
        assert_eq!((both.taken, both.released, both.taken_per_s, both.released_per_s), (40, 20, 10.0, 5.0));
        assert_eq!((both.taken_late, both.taken_from_own_range, both.growth_per_s), (2, 2, None));
        assert_eq!(
            in_words(&both),
            "took 40 (10/s), gave back 20 (5/s); 2 after bind() with IP_BIND_ADDRESS_NO_PORT; 2 from sockets' own ranges"
        );
        assert!(trend_of(&[], 4.0, 100).is_none());
    }
}
