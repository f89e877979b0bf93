//! Tables that cannot grow without end, and that say what they forgot.

use std::collections::VecDeque;
use std::hash::Hash;

use ahash::{AHashMap, AHashSet};

/// A map of at most `capacity` entries. A new key beyond that takes the place of the key that was inserted longest ago.
#[derive(Debug)]
pub struct BoundedMap<K, V> {
    entries: AHashMap<K, V>,
    /// Keys in order of insertion; may name keys that were removed since.
    order: VecDeque<K>,
    capacity: usize,
    forgotten: u64,
}

impl<K: Eq + Hash + Clone, V> BoundedMap<K, V> {
    /// An empty map.
    pub fn new(capacity: usize) -> Self {
        Self { entries: AHashMap::new(), order: VecDeque::new(), capacity: capacity.max(1), forgotten: 0 }
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// The value of `key`, to change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// The value of `key`, made by `make` if there is none yet.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.make_room();
            self.order.push_back(key.clone());
        }
        self.entries.entry(key).or_insert_with(make)
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    /// Keeps only what `keep` says.
    pub fn retain(&mut self, keep: impl FnMut(&K, &mut V) -> bool) {
        self.entries.retain(keep);
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    /// All values, in no order, to change.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries lost their place to newer ones.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn make_room(&mut self) {
        while self.entries.len() >= self.capacity {
            let Some(oldest) = self.order.pop_front() else { return };
            if self.entries.remove(&oldest).is_some() {
                self.forgotten += 1;
            }
        }
        // Keys that were removed stay in `order`: drop them before they outnumber the others.
        if self.order.len() > self.capacity.saturating_mul(2) {
            let entries = &self.entries;
            let mut seen = AHashSet::new();
            self.order.retain(|key| entries.contains_key(key) && seen.insert(key.clone()));
        }
    }
}

/// Counts different values, exactly up to a limit, and says when it stopped counting.
#[derive(Clone, Debug)]
pub struct DistinctCount<T> {
    seen: AHashSet<T>,
    limit: usize,
    more: bool,
}

impl<T: Eq + Hash> DistinctCount<T> {
    /// Counts up to `limit`.
    pub fn new(limit: usize) -> Self {
        Self { seen: AHashSet::new(), limit, more: false }
    }

    /// Counts `value` if it is new.
    pub fn note(&mut self, value: T) {
        if self.seen.len() < self.limit {
            self.seen.insert(value);
        } else if !self.more && !self.seen.contains(&value) {
            self.more = true;
        }
    }

    /// How many different values there were; at least, if [`Self::is_exact`] is false.
    pub fn count(&self) -> u64 {
        u64::try_from(self.seen.len()).unwrap_or(u64::MAX)
    }

    /// Whether the count is exact.
    pub fn is_exact(&self) -> bool {
        !self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_is_counted() {
        let mut map = BoundedMap::new(2);
        for key in [1, 2, 1, 3] {
            map.get_or_insert_with(key, || key * 10);
        }
        assert_eq!((map.get(&1), map.get(&2), map.get(&3)), (None, Some(&20), Some(&30)));
        assert_eq!((map.len(), map.forgotten()), (2, 1));
    }

    #[test]
    fn removed_keys_do_not_pile_up() {
        let mut map = BoundedMap::new(4);
        for key in 0..1000 {
            map.get_or_insert_with(key, || ());
            map.remove(&key);
        }
        assert!(map.order.len() <= 9 && map.is_empty() && map.forgotten() == 0);
    }

    #[test]
    fn distinct_values_are_counted_up_to_the_limit() {
        let mut count = DistinctCount::new(2);
        for value in [1, 1, 2] {
            count.note(value);
        }
        assert_eq!((count.count(), count.is_exact()), (2, true));
        count.note(2);
        assert!(count.is_exact());
        count.note(3);
        assert_eq!((count.count(), count.is_exact()), (2, false));
    }
}
