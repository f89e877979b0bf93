//! Columns of several numbers a row.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, PrimitiveBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt64Type;
use arrow_array::{Array as _, ArrayRef, ListArray};
use arrow_schema::{ArrowError, DataType, Field};

use super::{Build, Column, Order, Sparse, View};

/// Several numbers a row.
pub(in super::super) struct Many;

/// Collects lists of numbers.
#[derive(Default)]
pub(in super::super) struct Lists(Sparse<Vec<u64>>, usize);

impl Lists {
    pub(in super::super) fn put(&mut self, row: usize, numbers: impl IntoIterator<Item = u64>) {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        self.1 += size_of_val(numbers.as_slice());
        self.0.put(row, numbers);
    }
}

impl Build for Lists {
    fn weight(&self) -> usize {
        self.1
    }

    fn finish(&mut self, order: &Order) -> Result<ArrayRef, ArrowError> {
        self.1 = 0;
        let mut lists = ListBuilder::new(PrimitiveBuilder::<UInt64Type>::new());
        for numbers in self.0.drain_places(order) {
            lists.append_option(numbers.map(|numbers| numbers.into_iter().map(Some)));
        }
        Ok(Arc::new(lists.finish()))
    }
}

/// Lists of numbers.
#[derive(Default)]
pub(in super::super) struct ListView(Option<ListArray>);

impl View for ListView {
    fn new(array: &ArrayRef) -> Self {
        Self(array.as_list_opt::<i32>().cloned())
    }
}

impl ListView {
    pub(in super::super) fn get(&self, row: usize) -> Option<Vec<u64>> {
        let array = self.0.as_ref().filter(|array| array.is_valid(row))?;
        Some(array.value(row).as_primitive_opt::<UInt64Type>()?.values().to_vec())
    }
}

impl Column for Many {
    type Builder = Lists;
    type View = ListView;
    const NAME: &'static str = "list(uint64)";
    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::UInt64, true)))
    }
}
