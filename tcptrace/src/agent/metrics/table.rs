//! Rows by label, of bounded number: what comes on top shares one row.

use std::collections::BTreeMap;

use super::OTHER;

/// Labels that a row is known by.
pub(super) trait Labels: Ord + Clone {
    /// Those of the row that stands for all that were too many.
    fn other() -> Self;
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NetnsLabel(pub(crate) String);

impl Labels for NetnsLabel {
    fn other() -> Self {
        Self(OTHER.to_owned())
    }
}

/// Rows by label.
#[derive(Debug)]
pub(super) struct Table<L, R> {
    rows: BTreeMap<L, R>,
    most: usize,
    overflow: u64,
}

impl<L: Labels, R: Default> Table<L, R> {
    pub(super) fn new(most: usize) -> Self {
        Self { rows: BTreeMap::new(), most, overflow: 0 }
    }

    /// From now on there may be this many rows; none is removed for it.
    pub(super) fn bound(&mut self, most: usize) {
        self.most = most;
    }

    /// The labels under which something new is counted from now on: its own, or those of all that were too many. What is
    /// `urgent` may use a fifth more rows: trouble must have a name. A row that is of nothing any more, since the time that `gone`
    /// tells, makes room; the one that has been so for longest goes first.
    pub(super) fn place<T: Ord>(&mut self, labels: L, urgent: bool, gone: impl Fn(&R) -> Option<T>) -> L {
        if self.rows.contains_key(&labels) {
            return labels;
        }
        let other = L::other();
        let most = if urgent { self.most + self.most.div_ceil(5) } else { self.most };
        if self.own_rows() >= most {
            let own = self.rows.iter().filter(|(labels, _)| **labels != other);
            let gone = own.filter_map(|(labels, row)| Some((gone(row)?, labels)));
            if let Some(labels) =
                gone.min_by(|one, other| one.0.cmp(&other.0)).map(|(_, labels)| labels.clone())
            {
                self.rows.remove(&labels);
            }
        }
        let labels = if self.own_rows() < most {
            labels
        } else {
            self.overflow += 1;
            other
        };
        self.rows.entry(labels.clone()).or_default();
        labels
    }

    fn own_rows(&self) -> usize {
        self.rows.len() - usize::from(self.rows.contains_key(&L::other()))
    }

    /// The row of these labels, if it has not made room for another.
    pub(super) fn row(&mut self, labels: &L) -> Option<&mut R> {
        self.rows.get_mut(labels)
    }

    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut R> {
        self.rows.values_mut()
    }

    /// Forgets rows that are of nothing any more. That of all that were too many stays: what was counted there must not be lost.
    pub(super) fn retain(&mut self, keep: impl Fn(&R) -> bool) {
        let other = L::other();
        self.rows.retain(|labels, row| *labels == other || keep(row));
    }

    /// How many things were counted in the row of all that were too many.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }

    pub(super) fn copy(&self) -> BTreeMap<L, R>
    where
        R: Clone,
    {
        self.rows.clone()
    }
}
