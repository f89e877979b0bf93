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
    let bucket = bucket_of(ns);
    if bucket < HISTOGRAM_BUCKETS {
        // SAFETY: the bucket is within the array.
        add32(unsafe { (&raw mut (*histogram).counts).cast::<u32>().add(bucket) }, 1);
    }
}
