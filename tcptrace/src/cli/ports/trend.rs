//! What processes did with ports while they were traced, one or several together.

use serde::Serialize;

use crate::correlate::{Growth, ProcessPorts};

/// Ports taken and given back, and how long that can go on.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Trend {
    pub(super) taken: u64,
    pub(super) released: u64,
    /// Of those taken: chosen by connect() after a bind() with IP_BIND_ADDRESS_NO_PORT.
    pub(super) taken_late: u64,
    /// Of those taken: from ranges that sockets have for themselves (IP_LOCAL_PORT_RANGE).
    pub(super) taken_from_own_range: u64,
    pub(super) taken_per_s: f64,
    pub(super) released_per_s: f64,
    /// Of the processes that only grow.
    pub(super) growth_per_s: Option<f64>,
    pub(super) growth_error_per_s: Option<f64>,
    pub(super) seconds_left: Option<f64>,
    pub(super) seconds_left_min: Option<f64>,
    pub(super) seconds_left_max: Option<f64>,
}

impl Trend {
    /// Of processes that were traced for `span` seconds, `free` ports being left; `None` if none of them took a port.
    pub(super) fn of<'a>(
        processes: impl IntoIterator<Item = &'a ProcessPorts>,
        span: f64,
        free: u32,
    ) -> Option<Self> {
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
        any.then(|| Self {
            taken,
            released,
            taken_late: late,
            taken_from_own_range: own,
            taken_per_s: rate(taken),
            released_per_s: rate(released),
            growth_per_s: growth.map(|growth| round(growth.per_s)),
            growth_error_per_s: growth.map(|growth| round(growth.error_per_s)),
            seconds_left: forecast.map(|(_, likely, _)| round(likely.as_secs_f64())),
            seconds_left_min: forecast.map(|(least, ..)| round(least.as_secs_f64())),
            seconds_left_max: forecast.and_then(|(.., most)| most).map(|most| round(most.as_secs_f64())),
        })
    }

    /// `took 26 (6.5/s), gave back 0 (0/s); only grows, 6.5 ± 0.1/s: none is left in 1.1 s (1 s to 1.1 s)`.
    pub(super) fn in_words(&self) -> String {
        let mut text = format!(
            "took {} ({}/s), gave back {} ({}/s)",
            self.taken, self.taken_per_s, self.released, self.released_per_s
        );
        for (count, how) in [
            (self.taken_late, "after bind() with IP_BIND_ADDRESS_NO_PORT"),
            (self.taken_from_own_range, "from sockets' own ranges"),
        ] {
            if count > 0 {
                text.push_str(&format!("; {count} {how}"));
            }
        }
        if let (Some(growth), Some(left)) = (self.growth_per_s, self.seconds_left) {
            let error = self.growth_error_per_s.unwrap_or(0.0);
            let least = self.seconds_left_min.unwrap_or(left);
            let most =
                self.seconds_left_max.map_or_else(|| "much later".to_owned(), |most| format!("{most} s"));
            text.push_str(&format!(
                "; only grows, {growth} ± {error}/s: none is left in {left} s ({least} s to {most})"
            ));
        }
        text
    }
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
        let both = Trend::of(&[process(30, 10, 2), process(10, 10, 0)], 4.0, 100).unwrap();
        assert_eq!((both.taken, both.released, both.taken_per_s, both.released_per_s), (40, 20, 10.0, 5.0));
        assert_eq!((both.taken_late, both.taken_from_own_range, both.growth_per_s), (2, 2, None));
        assert_eq!(
            both.in_words(),
            "took 40 (10/s), gave back 20 (5/s); 2 after bind() with IP_BIND_ADDRESS_NO_PORT; 2 from sockets' own ranges"
        );
        assert!(Trend::of(&[], 4.0, 100).is_none());
    }
}
