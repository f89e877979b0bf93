//! Now, on both clocks.

use nix::time::{ClockId, clock_gettime};

use crate::event::{ClockOffset, Timestamp};

fn nanos(clock: ClockId) -> u64 {
    // Neither clock can fail to be read (clock_gettime(2)), nor lie before its epoch on a running system.
    let Ok(time) = clock_gettime(clock) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0))
}

/// How far the wall clock is ahead of the kernel side's clock: the tightest of a few readings.
pub(super) fn offset() -> ClockOffset {
    let readings = (0..5).map(|_| {
        let before = nanos(ClockId::CLOCK_MONOTONIC);
        let wall = nanos(ClockId::CLOCK_REALTIME);
        let after = nanos(ClockId::CLOCK_MONOTONIC);
        (after.saturating_sub(before), wall, before.midpoint(after))
    });
    let (_, wall, monotonic) = readings.min().unwrap_or_default();
    ClockOffset::from_readings(wall, monotonic)
}

/// Now, as the events of this trace tell time: the kernel's clock plus a fixed offset, so that a step of the wall clock
/// cannot put events out of order.
pub(super) fn now(offset: ClockOffset) -> Timestamp {
    offset.wall(nanos(ClockId::CLOCK_MONOTONIC))
}
