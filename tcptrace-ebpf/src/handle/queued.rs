//! Children that wait in an accept queue: since when, and in whose.

use crate::{
    maps::QUEUED,
    table::{self, Way, lower_half, mix},
};

/// An entry of [`QUEUED`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Queued {
    /// Address of the child; 0 for a free entry.
    child: u64,
    /// When it was enqueued (`CLOCK_MONOTONIC`, ns).
    pub time_ns: u64,
    /// Key of its listener in `LISTENERS`; 0 in the tracepoint tier.
    pub listener: u64,
    /// [`Self::check_word`].
    check: u64,
}

// SAFETY: repr(C), integers only.
unsafe impl Way for Queued {
    #[inline(always)]
    fn worth(&self) -> u64 {
        if self.child == 0 { 0 } else { self.time_ns }
    }
}

impl Queued {
    /// Nothing known of a child.
    const UNSEEN: Self = Self { child: 0, time_ns: 0, listener: 0, check: 0 };

    #[inline(always)]
    fn check_word(&self) -> u64 {
        // SAFETY: the first three members are words.
        unsafe { table::check::<3>(core::ptr::from_ref(self).cast()) }
    }
}

/// `child` entered the accept queue of `listener`.
#[inline(always)]
pub fn enter(child: u64, listener: u64, time_ns: u64) {
    let ways = table::ways(&QUEUED, mix(0, lower_half(child)));
    if ways.is_null() {
        return;
    }
    // SAFETY: a way of a set in a map value, which stays writable for the length of a program run.
    let queued = unsafe { &mut *table::room(ways) };
    *queued = Queued { child, time_ns, listener, check: 0 };
    queued.check = queued.check_word();
}

/// What is known of `child`, forgotten with this call; time and listener 0 when it was not seen entering a queue. (Not an
/// `Option`: the compiler would carry its unset payload in a register, which the verifier refuses.)
#[inline(always)]
pub fn leave(child: u64) -> Queued {
    let ways = table::ways(&QUEUED, mix(0, lower_half(child)));
    if ways.is_null() {
        return Queued::UNSEEN;
    }
    let way = table::find(ways, |queued| queued.child == child);
    if way.is_null() {
        return Queued::UNSEEN;
    }
    // SAFETY: a way of a set in a map value, which stays writable for the length of a program run.
    let way = unsafe { &mut *way };
    let queued = if way.check == way.check_word() { *way } else { Queued::UNSEEN };
    way.child = 0;
    queued
}
