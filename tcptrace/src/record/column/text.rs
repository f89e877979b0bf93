//! Columns of texts of which every one may be different.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef, StringArray};
use arrow_schema::{ArrowError, DataType};

use super::{Build, Column, Order, Sparse, View};

/// Texts of which every one may be different.
pub(in super::super) struct Text;

/// Collects texts.
#[derive(Default)]
pub(in super::super) struct Texts(Sparse<String>, usize);

impl Texts {
    pub(in super::super) fn put(&mut self, row: usize, text: String) {
        self.1 += text.len();
        self.0.put(row, text);
    }
}

impl Build for Texts {
    fn finish(&mut self, order: &Order) -> Result<ArrayRef, ArrowError> {
        self.1 = 0;
        Ok(Arc::new(self.0.drain_places(order).collect::<StringArray>()))
    }

    fn weight(&self) -> usize {
        self.1
    }
}

/// Texts.
#[derive(Default)]
pub(in super::super) struct TextView(Option<StringArray>);

impl View for TextView {
    fn new(array: &ArrayRef) -> Self {
        Self(array.as_string_opt::<i32>().cloned())
    }
}

impl TextView {
    #[inline]
    pub(in super::super) fn get(&self, row: usize) -> Option<&str> {
        self.0.as_ref().filter(|array| array.is_valid(row)).map(|array| array.value(row))
    }
}

impl Column for Text {
    type Builder = Texts;
    type View = TextView;
    const NAME: &'static str = "utf8";
    fn data_type() -> DataType {
        DataType::Utf8
    }
}
