//! Stand-ins: a second program on a tracepoint that fires both in process context and in softirq.
//!
//! Since 6.1 the kernel skips a BTF tracepoint's program that would interrupt itself on the same CPU (`bpf_prog->active` in
//! `__bpf_trace_run()`). An interrupt in the middle of a run in process context hides whatever its softirq does, hundreds of
//! packets at times; so does a task that is preempted there. A second program has a count of its own. It looks whether the
//! first one was there for this event, and stands in for it if not. Only what both missed is lost.

use tcptrace_common::stand_in::{Attended, MARKS};

use crate::maps::ATTENDED;

/// What this CPU has of `pair`, and the place of `event` in it. Sockets and packets lie at multiples of 64 or more.
#[inline(always)]
fn place(pair: u32, event: u64) -> Option<(*mut Attended, *mut u64)> {
    let attended = ATTENDED.get_ptr_mut(pair)?;
    let place = ((event >> 6) ^ (event >> 9) ^ (event >> 12)) as usize & (MARKS - 1);
    // SAFETY: a per-CPU array slot is always there, and the place is below MARKS.
    Some((attended, unsafe { (&raw mut (*attended).marks).cast::<u64>().add(place) }))
}

/// The first program has `event`.
#[inline(always)]
pub fn attend(pair: u32, event: u64) {
    if let Some((_, mark)) = place(pair, event) {
        // SAFETY: see `place`; what nests on this CPU writes whole words.
        unsafe { mark.write_volatile(event) };
    }
}

/// Whether the first program was skipped, so that the second one has to do its work.
#[inline(always)]
pub fn is_needed(pair: u32, event: u64) -> bool {
    let Some((attended, mark)) = place(pair, event) else { return false };
    // SAFETY: as above.
    unsafe {
        if mark.read_volatile() != event {
            // No atomic: this program does not interrupt itself where the first one does not.
            (*attended).stood_in += 1;
            return true;
        }
        mark.write_volatile(0);
    }
    false
}
