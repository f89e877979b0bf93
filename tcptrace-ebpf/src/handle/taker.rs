//! Who took a port: one entry for each bound or connected socket, and for connections that live on in TIME_WAIT, which has
//! no owner of its own.

use aya_ebpf::{macros::map, maps::Array};
use tcptrace_common::port::Taker;

use crate::{
    kernel::{Access, Sock},
    table::{self, SETS, Set, Way, lower_half, mix},
};

/// Who has a port or had one that is in TIME_WAIT.
#[map]
static TAKERS: Array<Set<Entry>> = Array::with_max_entries(SETS, 0);

/// What an entry is found by.
///
/// A connected socket is found by its addresses, which its TIME_WAIT remnant shares; one that is only bound or listens, by
/// its address in memory, because several may be bound to one port.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Key {
    /// Remote address if connected; else the socket's address in memory, and 0.
    peer: [u64; 2],
    /// Network namespace (the lower half of its address), local port, and remote port, which is 0 for a socket that is not
    /// connected.
    place: u64,
}

/// A key and its hash.
pub struct Hashed {
    key: Key,
    hash: u64,
}

impl Hashed {
    /// Of a socket that is not connected, or (tracepoint tier, port 0) is connecting.
    #[inline(always)]
    pub fn bound<A: Access>(sk: Sock<A>, port: u16) -> Self {
        let place = place(sk, port, 0);
        Self { key: Key { peer: [sk.id(), 0], place }, hash: mix(mix(0, lower_half(sk.id())), place) }
    }

    /// Of a connected socket, or of its TIME_WAIT remnant.
    #[inline(always)]
    pub fn connected<A: Access>(sk: Sock<A>, port: u16, remote_port: u16) -> Self {
        let place = place(sk, port, remote_port);
        let peer = sk.remote_address_words();
        Self { key: Key { peer, place }, hash: mix(mix(mix(0, peer[0]), peer[1]), place) }
    }

    #[inline(always)]
    fn ways(&self) -> *mut Entry {
        table::ways(&TAKERS, self.hash)
    }

    #[inline(always)]
    fn is_of(&self, entry: &Entry) -> bool {
        // Volatile: the compiler would make one comparison of several, by arithmetic with an address.
        // SAFETY: a member of a map value.
        let peer =
            |index: usize| unsafe { (&raw const entry.key.peer).cast::<u64>().add(index).read_volatile() };
        entry.key.place == self.key.place && peer(1) == self.key.peer[1] && peer(0) == self.key.peer[0]
    }
}

/// [`Key::place`]: never 0, because no namespace is at an odd address.
#[inline(always)]
fn place<A: Access>(sk: Sock<A>, port: u16, remote_port: u16) -> u64 {
    lower_half(sk.net().id()) | u64::from(port) << 32 | u64::from(remote_port) << 48 | 1
}

/// An entry of [`TAKERS`]. Free if its place is 0.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Entry {
    key: Key,
    /// `released_ns` is set for a connection in TIME_WAIT.
    pub taker: Taker,
    /// [`Self::check_word`].
    check: u64,
}
const _: () = assert!(size_of::<Entry>() == 96);

// SAFETY: repr(C), integers only.
unsafe impl Way for Entry {
    #[inline(always)]
    fn worth(&self) -> u64 {
        if self.key.place == 0 {
            0
        } else if self.taker.released_ns != 0 {
            // The longest gone go first.
            self.taker.released_ns
        } else {
            // Of those who have their port, the oldest.
            self.taker.since_ns | 1 << 63
        }
    }
}

impl Entry {
    /// Over all members but those that change later.
    #[inline(always)]
    fn check_word(&self) -> u64 {
        // SAFETY: the key, the task and the time are the first nine words.
        let check = unsafe { table::check::<9>(core::ptr::from_ref(self).cast()) };
        mix(check, u64::from(self.taker.how) | u64::from(self.taker.bootstrapped) << 8)
    }

    /// Whether two processors have mixed two entries here.
    #[inline(always)]
    pub fn is_mixed(&self) -> bool {
        self.check != self.check_word()
    }
}

/// Remembers `taker` under `key`, in place of what was there.
#[inline(always)]
pub fn remember(key: &Hashed, taker: &Taker) {
    let ways = key.ways();
    if ways.is_null() {
        return;
    }
    let mut way = table::find(ways, |entry| key.is_of(entry));
    if way.is_null() {
        way = table::room(ways);
    }
    // SAFETY: a way of a set in a map value, which stays writable for the length of a program run.
    let entry = unsafe { &mut *way };
    entry.key = key.key;
    entry.taker = *taker;
    entry.check = entry.check_word();
}

/// The entry of `key`, in TIME_WAIT or not; null for none.
#[inline(always)]
pub fn recall(key: &Hashed) -> *mut Entry {
    let ways = key.ways();
    if ways.is_null() {
        return ways;
    }
    table::find(ways, |entry| key.is_of(entry))
}

/// The entry of a socket that has its port; null for none.
#[inline(always)]
pub fn recall_live(key: &Hashed) -> *mut Entry {
    let entry = recall(key);
    // SAFETY: a map value stays readable for the length of a program run.
    if !entry.is_null() && unsafe { (*entry).taker.released_ns } != 0 {
        return core::ptr::null_mut();
    }
    entry
}

/// Makes an entry free.
#[inline(always)]
pub fn forget(entry: &mut Entry) {
    entry.key.place = 0;
    entry.taker.released_ns = 0;
}
