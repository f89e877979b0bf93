//! Sets of numbers that the kernel hands out, such as inodes and cookies of sockets.
//!
//! They come one after the other, and nobody can choose them so that they collide. So they need no hash that guards against that,
//! which took a good part of the time of a survey of many sockets.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// A set of such numbers.
pub type NumberSet = HashSet<u64, BuildHasherDefault<NumberHasher>>;

/// Spreads numbers that follow each other over all bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        /// 2^64 divided by the golden ratio, made odd.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        // A table takes the place from the lowest bits, and tells entries apart by the highest.
        self.0 = (self.0 ^ number).wrapping_mul(GOLDEN);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    #[test]
    fn numbers_that_follow_each_other_are_spread_over_the_places_and_the_marks() {
        let set = NumberSet::default();
        let hashes: Vec<u64> =
            (1_000_000..1_004_096_u64).map(|number| set.hasher().hash_one(number)).collect();
        for bits in [|hash: u64| hash & 0xfff, |hash: u64| hash >> 52] {
            let distinct: HashSet<u64> = hashes.iter().map(|hash| bits(*hash)).collect();
            // Of 4096 thrown at random into 4096 places, 2589 are hit.
            assert!(distinct.len() > 2400, "{}", distinct.len());
        }
    }
}
