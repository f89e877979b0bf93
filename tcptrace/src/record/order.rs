//! How the rows of a batch stand: those of one kind of event together, each kind in the order in which its events came.
//!
//! So the columns that a kind leaves empty are empty for many rows on end, and those that it always fills the same way are the
//! same on end: both pack to nothing, and unpack fast. Were the kinds mixed as they came, every column would say again which
//! kind each row is. The order in which the events came is in one column: how many of other kinds came in between.

/// A batch has at most so many rows: what is unpacked at once stays near the processor, and what each batch costs is little beside
/// them. The numbers in between fit 16 bits.
pub(super) const MOST_ROWS: usize = 1 << 15;

/// Where the rows of a batch that is being written stand.
pub(super) struct Order {
    /// For each row, in the order in which they came.
    places: Vec<usize>,
}

impl Order {
    /// Rows that come with these keys, small numbers from 0, are put together by key.
    pub(super) fn by(keys: &[i32]) -> Self {
        let keys = || keys.iter().map(|key| usize::try_from(*key).unwrap_or_default());
        let mut next = vec![0_usize; keys().max().map_or(0, |most| most + 1)];
        for key in keys() {
            count(&mut next, key);
        }
        let mut begin = 0;
        for place in &mut next {
            let count = std::mem::replace(place, begin);
            begin += count;
        }
        Self { places: keys().map(|key| count(&mut next, key)).collect() }
    }

    /// Where a row stands.
    pub(super) fn place(&self, row: u32) -> usize {
        usize::try_from(row).ok().and_then(|row| self.places.get(row).copied()).unwrap_or(usize::MAX)
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.places.len()
    }
}

fn count(counts: &mut [usize], key: usize) -> usize {
    counts.get_mut(key).map_or(usize::MAX, |count| std::mem::replace(count, *count + 1))
}

/// For each row, in the order in which they came: how many with other keys came since the last with its own, or the first.
pub(super) fn others_between(keys: &[i32]) -> impl Iterator<Item = u16> {
    let mut next: Vec<usize> = Vec::new();
    keys.iter().enumerate().map(move |(row, key)| {
        let key = usize::try_from(*key).unwrap_or_default();
        if next.len() <= key {
            next.resize(key + 1, 0);
        }
        let begin = next.get_mut(key).map_or(row, |next| std::mem::replace(next, row + 1));
        u16::try_from(row.saturating_sub(begin)).unwrap_or(u16::MAX)
    })
}

/// The rows in the order in which they came, from where they stand: for each its key, and [`others_between`]. `None` if these
/// are no such numbers.
pub(super) fn arrival(rows: impl ExactSizeIterator<Item = (Option<usize>, u16)>) -> Option<Vec<u32>> {
    const NONE: u32 = u32::MAX;
    let mut arrived = vec![NONE; rows.len()];
    let (mut group, mut next) = (None, 0);
    for (row, (key, others)) in (0_u32..).zip(rows) {
        if group != Some(key) {
            (group, next) = (Some(key), 0);
        }
        let slot = arrived.get_mut(next + usize::from(others)).filter(|slot| **slot == NONE)?;
        *slot = row;
        next += usize::from(others) + 1;
    }
    Some(arrived)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_back_in_the_order_in_which_they_came(keys in prop::collection::vec(0..5_i32, 0..300)) {
            let order = Order::by(&keys);
            prop_assert_eq!(order.rows(), keys.len());
            let mut standing = vec![None; keys.len()];
            for (row, (key, others)) in keys.iter().zip(others_between(&keys)).enumerate() {
                let slot = &mut standing[order.place(row as u32)];
                prop_assert_eq!(*slot, None);
                *slot = Some((*key, others, row as u32));
            }
            let standing: Vec<_> = standing.into_iter().flatten().collect();
            prop_assert!(standing.is_sorted_by_key(|(key, _, row)| (*key, *row)));
            let rows = arrival(standing.iter().map(|(key, others, _)| (Some(*key as usize), *others))).unwrap();
            let came: Vec<u32> = rows.iter().map(|row| standing[*row as usize].2).collect();
            prop_assert_eq!(came, (0..keys.len() as u32).collect::<Vec<_>>());
        }

        #[test]
        fn other_numbers_are_refused_or_some_order(rows in prop::collection::vec((0..3_usize, 0..9_u16), 0..20)) {
            if let Some(mut rows) = arrival(rows.iter().map(|(key, others)| (Some(*key), *others))) {
                rows.sort_unstable();
                prop_assert!(rows.iter().copied().eq(0..rows.len() as u32));
            }
        }
    }

    #[test]
    fn the_largest_batch_has_an_order() {
        let mut keys = vec![0; MOST_ROWS];
        keys[MOST_ROWS - 1] = 1;
        assert_eq!(others_between(&keys).last().map(usize::from), Some(MOST_ROWS - 1));
    }
}
