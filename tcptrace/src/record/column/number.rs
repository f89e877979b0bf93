//! Columns of numbers.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{ArrowPrimitiveType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array as _, ArrayRef, PrimitiveArray};
use arrow_buffer::{BooleanBufferBuilder, NullBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType};

use super::{Build, Column, Order, Sparse, View};

/// Collects numbers. An empty row repeats the number before it beneath its mark of being empty: so it costs nothing.
pub(in super::super) struct Numbers<T: ArrowPrimitiveType>(Sparse<T::Native>);

impl<T: ArrowPrimitiveType> Default for Numbers<T> {
    fn default() -> Self {
        Self(Sparse::default())
    }
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(in super::super) fn put(&mut self, row: usize, value: impl Into<Option<T::Native>>) {
        if let Some(value) = value.into() {
            self.0.put(row, value);
        }
    }

    /// See [`Sparse::values`].
    pub(super) fn values(&self) -> &[T::Native] {
        self.0.values()
    }

    /// The column of a batch whose rows stand in that order; empty afterwards.
    pub(super) fn array(&mut self, order: &Order) -> Result<PrimitiveArray<T>, ArrowError> {
        let mut values = vec![T::Native::default(); order.rows()];
        let mut filled = BooleanBufferBuilder::new(order.rows());
        filled.append_n(order.rows(), false);
        let mut missing = order.rows();
        for (place, value) in self.0.drain(order) {
            if let Some(slot) = values.get_mut(place) {
                *slot = value;
                filled.set_bit(place, true);
                missing = missing.saturating_sub(1);
            }
        }
        let nulls = (missing > 0).then(|| NullBuffer::from(filled.finish()));
        if let Some(nulls) = &nulls {
            let mut last = T::Native::default();
            for (slot, filled) in values.iter_mut().zip(nulls) {
                if filled {
                    last = *slot;
                } else {
                    *slot = last;
                }
            }
        }
        PrimitiveArray::try_new(values.into(), nulls)
    }
}

impl<T: ArrowPrimitiveType> Build for Numbers<T> {
    fn finish(&mut self, order: &Order) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(self.array(order)?))
    }
}

/// Values of a column of numbers.
pub(in super::super) struct NumberView<T: ArrowPrimitiveType> {
    values: ScalarBuffer<T::Native>,
    nulls: Option<NullBuffer>,
}

impl<T: ArrowPrimitiveType> Default for NumberView<T> {
    fn default() -> Self {
        Self { values: Vec::new().into(), nulls: None }
    }
}

impl<T: ArrowPrimitiveType> From<&PrimitiveArray<T>> for NumberView<T> {
    fn from(array: &PrimitiveArray<T>) -> Self {
        Self {
            values: array.values().clone(),
            nulls: array.nulls().filter(|nulls| nulls.null_count() > 0).cloned(),
        }
    }
}

impl<T: ArrowPrimitiveType> View for NumberView<T> {
    fn new(array: &ArrayRef) -> Self {
        array.as_primitive_opt::<T>().map(Self::from).unwrap_or_default()
    }
}

impl<T: ArrowPrimitiveType> NumberView<T> {
    #[inline]
    pub(in super::super) fn get(&self, row: usize) -> Option<T::Native> {
        let value = *self.values.get(row)?;
        match &self.nulls {
            Some(nulls) if nulls.is_null(row) => None,
            _ => Some(value),
        }
    }
}

macro_rules! number_column {
    ($(#[$doc:meta])* $kind:ident, $arrow:ident, $name:literal) => {
        $(#[$doc])*
        pub(in super::super) struct $kind;
        impl Column for $kind {
            type Builder = Numbers<$arrow>;
            type View = NumberView<$arrow>;
            const NAME: &'static str = $name;
            fn data_type() -> DataType {
                $arrow::DATA_TYPE
            }
        }
    };
}

number_column!(
    /// Numbers of 8 bits.
    U8, UInt8Type, "uint8");
number_column!(
    /// Numbers of 16 bits.
    U16, UInt16Type, "uint16");
number_column!(
    /// Numbers of 32 bits.
    U32, UInt32Type, "uint32");
number_column!(
    /// Numbers of 64 bits.
    U64, UInt64Type, "uint64");
