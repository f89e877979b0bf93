//! Children that wait in an accept queue: since when, and in whose.

use aya_ebpf::{macros::map, maps::Array};

use crate::table::{self, SETS, Set, Way, lower_half, mix};

/// When a child entered an accept queue, by its address.
#[map]
static QUEUED: Array<Set<Queued>> = Array::with_max_entries(SETS, 0);

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
    /// Port of its peer: tells it from another child that has its memory after it.
    peer: u64,
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
    const UNSEEN: Self = Self { child: 0, time_ns: 0, listener: 0, peer: 0, check: 0 };

    /// The same, if it is `listener` whose queue it was in: a time in another one's (closed, or it was migrated from there) says
    /// nothing of this one.
    #[inline(always)]
    pub fn at(self, listener: u64) -> Self {
        if self.listener == listener { self } else { Self::UNSEEN }
    }

    #[inline(always)]
    fn check_word(&self) -> u64 {
        // SAFETY: the first four members are words.
        unsafe { table::check::<4>(core::ptr::from_ref(self).cast()) }
    }
}

/// `child`, whose peer has port `peer`, entered the accept queue of `listener`.
///
/// What was known of another child in the same memory is overwritten: it never left, because its listener was closed or its
/// accept was not seen. Beside it, the old entry would be found first, and its time be taken for this child's.
#[inline(always)]
pub fn enter(child: u64, peer: u16, listener: u64, time_ns: u64) {
    let ways = table::ways(&QUEUED, mix(0, lower_half(child)));
    if ways.is_null() {
        return;
    }
    let known = table::find(ways, |queued| queued.child == child);
    let way = if known.is_null() { table::room(ways) } else { known };
    // SAFETY: a way of a set in a map value, which stays writable for the length of a program run.
    let queued = unsafe { &mut *way };
    *queued = Queued { child, time_ns, listener, peer: u64::from(peer), check: 0 };
    queued.check = queued.check_word();
}

/// What is known of `child`, forgotten with this call; time and listener 0 when it was not seen entering a queue. (Not an
/// `Option`: the compiler would carry its unset payload in a register, which the verifier refuses.)
#[inline(always)]
pub fn leave(child: u64, peer: u16) -> Queued {
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
    let same = way.check == way.check_word() && way.peer == u64::from(peer);
    let queued = if same { *way } else { Queued::UNSEEN };
    way.child = 0;
    queued
}
