//! Stand-ins: a second program on a tracepoint that fires both in process context and in softirq.
//!
//! Since 6.1 the kernel skips a BTF tracepoint's program that would interrupt itself on the same CPU (`bpf_prog->active` in
//! `__bpf_trace_run()`). An interrupt in the middle of a run in process context hides whatever its softirq does, hundreds of
//! packets at times; so does a task that is preempted there. A second program has a count of its own. It looks whether the
//! first one was there for this event, and stands in for it if not. Only what both missed is lost.

use aya_ebpf::{macros::map, maps::PerCpuArray};

/// Index of [`ATTENDED`]: packets that are freed.
pub const DROP: u32 = 0;
/// Index of [`ATTENDED`]: sockets that change their state.
pub const STATE: u32 = 1;

/// Marks of one CPU. Several, since events nest: one that is interrupted between its two programs keeps its mark unless the
/// other one falls on the same place.
const MARKS: usize = 8;

/// The events for which the first program was there and the second one was not yet, each in the place that its value gives.
#[map]
static ATTENDED: PerCpuArray<[u64; MARKS]> = PerCpuArray::with_max_entries(2, 0);

/// Where the mark of `event` is. Sockets and packets lie at multiples of 64 or more.
#[inline(always)]
fn mark(which: u32, event: u64) -> Option<*mut u64> {
    let marks = ATTENDED.get_ptr_mut(which)?;
    let place = ((event >> 6) ^ (event >> 9) ^ (event >> 12)) as usize & (MARKS - 1);
    // SAFETY: the place is below MARKS.
    Some(unsafe { marks.cast::<u64>().add(place) })
}

/// The first program has `event`.
#[inline(always)]
pub fn attend(which: u32, event: u64) {
    if let Some(mark) = mark(which, event) {
        // SAFETY: a per-CPU array slot is always there; what nests on this CPU writes whole words.
        unsafe { mark.write_volatile(event) };
    }
}

/// Whether the first program was skipped, so that the second one has to do its work.
#[inline(always)]
pub fn is_needed(which: u32, event: u64) -> bool {
    let Some(mark) = mark(which, event) else { return false };
    // SAFETY: as above.
    unsafe {
        if mark.read_volatile() != event {
            return true;
        }
        mark.write_volatile(0);
    }
    false
}
