//! Columns of yes or no.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef, BooleanArray};
use arrow_schema::{ArrowError, DataType};

use super::{Build, Column, Order, Sparse, View};

/// Yes or no.
pub(in super::super) struct Flag;

/// Collects flags.
#[derive(Default)]
pub(in super::super) struct Flags(Sparse<bool>);

impl Flags {
    pub(in super::super) fn put(&mut self, row: usize, value: impl Into<Option<bool>>) {
        if let Some(value) = value.into() {
            self.0.put(row, value);
        }
    }
}

impl Build for Flags {
    fn finish(&mut self, order: &Order) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(self.0.drain_places(order).collect::<BooleanArray>()))
    }
}

/// Flags.
#[derive(Default)]
pub(in super::super) struct FlagView(Option<BooleanArray>);

impl View for FlagView {
    fn new(array: &ArrayRef) -> Self {
        Self(array.as_boolean_opt().cloned())
    }
}

impl FlagView {
    #[inline]
    pub(in super::super) fn get(&self, row: usize) -> Option<bool> {
        self.0.as_ref().filter(|array| array.is_valid(row)).map(|array| array.value(row))
    }
}

impl Column for Flag {
    type Builder = Flags;
    type View = FlagView;
    const NAME: &'static str = "bool";
    fn data_type() -> DataType {
        DataType::Boolean
    }
}
