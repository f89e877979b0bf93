//! Columns of points in time.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::types::TimestampNanosecondType;
use arrow_schema::{ArrowError, DataType, TimeUnit};

use super::number::{NumberView, Numbers};
use super::{Build, Column, Order, View};

/// Points in time.
pub(in super::super) struct Time;

/// Collects points in time, as nanoseconds since 1970.
#[derive(Default)]
pub(in super::super) struct Times(Numbers<TimestampNanosecondType>);

impl Times {
    pub(in super::super) fn put(&mut self, row: usize, nanos: impl Into<Option<u64>>) {
        self.0.put(row, nanos.into().map(u64::cast_signed));
    }
}

impl Build for Times {
    fn finish(&mut self, order: &Order) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(self.0.array(order)?.with_timezone("UTC")))
    }
}

/// Points in time, as nanoseconds since 1970.
#[derive(Default)]
pub(in super::super) struct TimeView(NumberView<TimestampNanosecondType>);

impl View for TimeView {
    fn new(array: &ArrayRef) -> Self {
        Self(NumberView::new(array))
    }
}

impl TimeView {
    #[inline]
    pub(in super::super) fn get(&self, row: usize) -> Option<u64> {
        self.0.get(row).map(i64::cast_unsigned)
    }
}

impl Column for Time {
    type Builder = Times;
    type View = TimeView;
    const NAME: &'static str = "timestamp(ns, UTC)";
    fn data_type() -> DataType {
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
    }
}
