//! Kinds of columns: how one is built row by row, and how one is read.
//!
//! Most rows leave most columns empty, so a column is told only of rows that have something. Where its rows stand in the batch
//! is known when the batch ends.

mod address;
mod flag;
mod list;
mod number;
mod text;
mod time;
mod word;

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, DataType};

use super::order::Order;

pub(super) use address::Address;
pub(super) use flag::Flag;
pub(super) use list::{Lists, Many};
pub(super) use number::{U8, U16, U32, U64};
pub(super) use text::Text;
pub(super) use time::Time;
pub(super) use word::{Word, WordView};

/// A kind of column.
pub(super) trait Column {
    /// Collects its values.
    type Builder: Build;
    /// Gives its values.
    type View: View;
    /// Its name in the documentation.
    const NAME: &'static str;
    /// Its Arrow type.
    fn data_type() -> DataType;
}

/// Collects the values of a column.
pub(super) trait Build: Default {
    /// The column of a batch whose rows stand in that order; the builder is empty afterwards.
    ///
    /// # Errors
    /// When the values do not make an array.
    fn finish(&mut self, order: &Order) -> Result<ArrayRef, ArrowError>;

    /// About how many bytes are in it, if its values have no size of their own.
    fn weight(&self) -> usize {
        0
    }
}

/// Gives the values of a column, and none for a column that is missing or has another type than it should.
pub(super) trait View: Default {
    /// Of an array.
    fn new(array: &ArrayRef) -> Self;
}

/// The values of those rows that have one, in the order in which the rows came.
pub(super) struct Sparse<T> {
    rows: Vec<u32>,
    values: Vec<T>,
}

impl<T> Default for Sparse<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), values: Vec::new() }
    }
}

impl<T> Sparse<T> {
    fn put(&mut self, row: usize, value: T) {
        // A batch is ended long before its rows cannot be counted so.
        self.rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        self.values.push(value);
    }

    /// The values; as long as every row has one, that of row `n` is the `n`th.
    fn values(&self) -> &[T] {
        &self.values
    }

    /// The values and their places in the batch, in the order in which they came; empty afterwards.
    fn drain<'a>(&'a mut self, order: &'a Order) -> impl Iterator<Item = (usize, T)> + 'a {
        self.rows.drain(..).map(|row| order.place(row)).zip(self.values.drain(..))
    }

    /// What stands at each place of the batch; empty afterwards.
    fn drain_places(&mut self, order: &Order) -> impl Iterator<Item = Option<T>> + use<T> {
        let mut placed: Vec<(usize, T)> = self.drain(order).collect();
        placed.sort_unstable_by_key(|(place, _)| *place);
        let mut placed = placed.into_iter().peekable();
        (0..order.rows()).map(move |place| Some(placed.next_if(|(next, _)| *next == place)?.1))
    }
}
