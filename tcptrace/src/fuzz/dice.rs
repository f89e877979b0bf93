//! Chance that is the same every time, and changes to bytes.

/// Numbers by chance: SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if there is none.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.any() % limit).unwrap_or(0)
    }

    /// Whether one of `of` cases is this one.
    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of them.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// A number as those choose it who look for trouble.
    pub fn nasty(&mut self, near: u64) -> u64 {
        const EDGES: [u64; 12] =
            [0, 1, 7, 255, 65_535, 1 << 17, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, u64::MAX - 1, u64::MAX];
        match self.below(4) {
            0 => near.wrapping_add(1),
            1 => near.wrapping_sub(1),
            2 => self.any() >> self.below(64),
            _ => self.one(&EDGES).copied().unwrap_or_default(),
        }
    }

    /// Changes `bytes` in one place or another.
    pub fn change(&mut self, bytes: &mut Vec<u8>) {
        let place = self.below(bytes.len());
        let length = self.below(64).min(bytes.len() - place.min(bytes.len()));
        match self.below(10) {
            0 => {
                bytes.truncate(place);
            }
            1 => {
                bytes.drain(place..place + length);
            }
            2 => {
                let block = bytes.get(place..place + length).unwrap_or_default().to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, block);
            }
            3 => bytes.iter_mut().skip(place).take(length).for_each(|byte| *byte = 0),
            4 | 5 => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << self.below(8);
                }
            }
            6 => self.number::<2>(bytes, place & !1),
            7 => self.number::<4>(bytes, place & !3),
            8 => self.number::<8>(bytes, place & !7),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = self.any().to_le_bytes()[0];
                }
            }
        }
    }

    /// Puts a nasty number of `N` bytes at a place.
    pub fn number<const N: usize>(&mut self, bytes: &mut [u8], place: usize) {
        let Some(at) = bytes.get_mut(place..place + N) else { return };
        let mut before = [0; 8];
        for (to, from) in before.iter_mut().zip(at.iter()) {
            *to = *from;
        }
        let number = self.nasty(u64::from_le_bytes(before)).to_le_bytes();
        for (to, from) in at.iter_mut().zip(number) {
            *to = from;
        }
    }
}

/// One of the seeds, changed once or several times.
pub(super) fn changed(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = dice.one(seeds).cloned().unwrap_or_default();
    for _ in 0..=dice.below(4) {
        dice.change(&mut bytes);
    }
    bytes
}
