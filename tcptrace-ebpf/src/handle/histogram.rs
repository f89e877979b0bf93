//! Histograms of times, by listener.

use aya_ebpf::maps::HashMap;
use tcptrace_common::listener::{HISTOGRAM_BUCKETS, Histogram, bucket_of};

use crate::{
    emit::{add32, lost},
    maps::ZEROES,
};

/// Counts a time of `ns` for `listener`.
#[inline(always)]
pub fn count(histograms: &HashMap<u64, Histogram>, listener: u64, ns: u64) {
    let histogram = match histograms.get_ptr_mut(&listener) {
        Some(histogram) => histogram,
        None => {
            let Some(zero) = ZEROES.get_ptr(0) else { return };
            // SAFETY: the zero array is at least as long as a histogram, and all-zero bytes are a valid one.
            if histograms.insert(&listener, unsafe { &*zero.cast::<Histogram>() }, 0).is_err() {
                lost(0);
                return;
            }
            let Some(histogram) = histograms.get_ptr_mut(&listener) else { return };
            histogram
        }
    };
    let mut bucket = bucket_of(ns);
    // The compiler knows enough about the bucket to test another register than the one that it adds; the verifier does not.
    // A real instruction: line information of an empty one would be refused.
    // SAFETY: changes nothing, buckets being less than 512.
    unsafe { core::arch::asm!("{0} &= 511", inout(reg) bucket, options(pure, nomem, nostack)) };
    if bucket < HISTOGRAM_BUCKETS {
        // SAFETY: the bucket is within the array.
        add32(unsafe { (&raw mut (*histogram).counts).cast::<u32>().add(bucket) }, 1);
    }
}
