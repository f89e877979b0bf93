//! Records into the ring buffer: reserve, fill in place, submit; batched wake-ups; every record that finds no room is counted.

use core::ops::{Deref, DerefMut};

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_smp_processor_id, bpf_ktime_get_ns,
        generated::{bpf_probe_read_kernel, bpf_ringbuf_query, bpf_ringbuf_reserve, bpf_ringbuf_submit},
    },
};
use tcptrace_common::record::{self, Header, KINDS};

use crate::filter::stream_all;
use crate::maps::{EVENTS, LOST, ZEROES, ZEROES_LEN};

/// A record type: what its kind is called on the wire.
///
/// # Safety
/// `Self` must be `repr(C)`, begin with a [`Header`], be valid for all-zero bytes, and be at most [`ZEROES_LEN`] long.
pub unsafe trait Record: Copy + 'static {
    const KIND: u16;
}

macro_rules! records {
    ($($record:ident = $kind:ident),* $(,)?) => {
        $(
            // SAFETY: the wire types of tcptrace-common are repr(C), integer-only and begin with a Header.
            unsafe impl Record for record::$record {
                const KIND: u16 = record::$kind;
            }
            const _: () = assert!(size_of::<record::$record>() <= ZEROES_LEN);
        )*
    };
}
records!(
    Listen = LISTEN,
    Syn = SYN,
    SynDrop = SYN_DROP,
    AckDrop = ACK_DROP,
    Enqueue = ENQUEUE,
    Accept = ACCEPT,
    BindFail = BIND_FAIL,
    PortTaken = PORT_TAKEN,
    PortReleased = PORT_RELEASED,
    ListenerClosed = LISTENER_CLOSED,
    SynAckRetransmit = SYNACK_RETRANSMIT,
    RequestEnd = REQUEST_END,
    NoPort = NO_PORT,
    Connect = CONNECT,
    Established = ESTABLISHED,
    HandshakeDrop = HANDSHAKE_DROP,
    NoListener = NO_LISTENER,
    AcceptFail = ACCEPT_FAIL,
);

/// Wake the reader whenever so much more waits for it; in between it comes by itself ten times a second. A wake-up for each
/// event would cost more than the event, and so would one for each event beyond a threshold.
const WAKE_BYTES: u64 = 64 << 10;

/// Sends a record whose every member `make` gives: what happens with every connection is not zeroed first. Counts a loss when
/// the ring buffer is full.
#[inline(always)]
pub fn send<T: Record>(time_ns: u64, make: impl FnOnce(Header) -> T) {
    let entry = reserve_raw::<T>();
    if entry.is_null() {
        return;
    }
    let record = make(header::<T>(time_ns));
    // SAFETY: the reservation is as long as the record and aligned to 8 bytes.
    unsafe { entry.write(record) };
    submit(entry);
}

/// Room for a record, of any content; null (and a loss counted) when the ring buffer is full.
#[inline(always)]
fn reserve_raw<T: Record>() -> *mut T {
    // SAFETY: the ring buffer is a static map; the size is a constant.
    let entry: *mut T =
        unsafe { bpf_ringbuf_reserve((&raw const EVENTS).cast_mut().cast(), size_of::<T>() as u64, 0) }
            .cast();
    if entry.is_null() {
        lost(T::KIND);
    }
    entry
}

#[inline(always)]
fn header<T: Record>(time_ns: u64) -> Header {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Header { time_ns, kind: T::KIND, len: size_of::<T>() as u16, cpu }
}

/// Hands a filled record to the reader.
#[inline(always)]
fn submit<T: Record>(entry: *mut T) {
    /// What the ring buffer keeps before each record.
    const RING_HEADER: u64 = 8;
    if stream_all() {
        // The reader comes by a hundred times a second, and a look at the ring buffer for every step of every connection
        // would cost a tenth of the step.
        // SAFETY: the entry came from the ring buffer's reserve and is given back once.
        unsafe { bpf_ringbuf_submit(entry.cast(), u64::from(BPF_RB_NO_WAKEUP)) };
        return;
    }
    // SAFETY: the ring buffer is a static map.
    let waiting =
        unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) };
    // This record counts already. Which of several processors crosses a mark may be misjudged: the next one wakes.
    let before = waiting.saturating_sub(size_of::<T>() as u64 + RING_HEADER);
    let wake =
        if waiting / WAKE_BYTES == before / WAKE_BYTES { BPF_RB_NO_WAKEUP } else { BPF_RB_FORCE_WAKEUP };
    // SAFETY: the entry came from the ring buffer's reserve and is given back once.
    unsafe { bpf_ringbuf_submit(entry.cast(), u64::from(wake)) };
}

/// A record reserved in the ring buffer, zeroed but for its header. Must be [submitted](Self::submit): the verifier
/// refuses a program that loses one.
#[must_use]
pub struct Entry<T: Record>(*mut T);

/// Room for a record; `None` (and a loss counted) when the ring buffer is full.
#[inline(always)]
pub fn reserve<T: Record>() -> Option<Entry<T>> {
    let Some(zeroes) = ZEROES.get_ptr(0) else { return None };
    let entry = reserve_raw::<T>();
    if entry.is_null() {
        return None;
    }
    // SAFETY: both sides are at least size_of::<T>() long.
    unsafe { bpf_probe_read_kernel(entry.cast(), size_of::<T>() as u32, zeroes.cast()) };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: every record begins with a header, and the reservation is aligned to 8 bytes.
    unsafe { entry.cast::<Header>().write(header::<T>(now)) };
    Some(Entry(entry))
}

/// Counts a record of `kind` that found no room; kind 0 counts a map entry that found none.
#[inline(always)]
pub fn lost(kind: u16) {
    if let Some(counts) = LOST.get_ptr_mut(0) {
        if usize::from(kind) < KINDS {
            // SAFETY: the kind is within the array.
            add(unsafe { counts.cast::<u64>().add(usize::from(kind)) }, 1);
        }
    }
}

/// Atomic add without fetching, the only atomic that 5.10 has (BPF_XADD). In assembly because core offers no atomics for
/// a target without compare-and-swap.
#[inline(always)]
pub fn add(to: *mut u64, n: u64) {
    // SAFETY: callers pass an aligned member of a map value, which other CPUs too change only by atomic adds.
    unsafe {
        core::arch::asm!("lock *(u64 *)({to} + 0) += {n}", to = in(reg) to, n = in(reg) n, options(nostack))
    };
}

/// The same for a 32-bit count.
#[inline(always)]
pub fn add32(to: *mut u32, n: u32) {
    // SAFETY: as for `add`.
    unsafe {
        core::arch::asm!("lock *(u32 *)({to} + 0) += {n}", to = in(reg) to, n = in(reg) u64::from(n), options(nostack))
    };
}

impl<T: Record> Entry<T> {
    #[inline(always)]
    pub fn submit(self) {
        submit(self.0);
    }
}

impl<T: Record> Deref for Entry<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: reserved and zeroed; all-zero bytes are a valid T.
        unsafe { &*self.0 }
    }
}

impl<T: Record> DerefMut for Entry<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and this entry is its only owner.
        unsafe { &mut *self.0 }
    }
}
