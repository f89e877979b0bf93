//! Kinds of columns: how one is built row by row, and how one is read.
//!
//! Most rows leave most columns empty, so a column is told only of rows that have something: the empty ones before are filled
//! in when the next value comes, or the batch ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, ListBuilder, PrimitiveBuilder, StringBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Int32Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, DictionaryArray, ListArray, PrimitiveArray, StringArray};
use arrow_buffer::NullBufferBuilder;
use arrow_schema::{ArrowError, DataType, Field, TimeUnit};

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
    /// The column with `rows` rows; the builder is empty afterwards.
    ///
    /// # Errors
    /// When the values do not make an array.
    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError>;
}

/// Gives the values of a column, and none for a column that is missing or has another type than it should.
pub(super) trait View: Default {
    /// Of an array.
    fn new(array: &ArrayRef) -> Self;
}

/// Numbers. An empty row repeats the number before it beneath its mark of being empty: most columns belong to some kinds of
/// events, and would else say again and again, in every column, which kind each row is.
pub(super) struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    filled: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(super) fn put(&mut self, row: usize, value: impl Into<Option<T::Native>>) {
        if let Some(value) = value.into() {
            self.skip_to(row);
            self.values.push(value);
            self.filled.append_non_null();
        }
    }

    fn skip_to(&mut self, row: usize) {
        let missing = row.saturating_sub(self.values.len());
        if missing > 0 {
            let last = self.values.last().copied().unwrap_or_default();
            self.values.resize(row, last);
            self.filled.append_n_nulls(missing);
        }
    }

    /// The column with `rows` rows; empty afterwards.
    fn array(&mut self, rows: usize) -> Result<PrimitiveArray<T>, ArrowError> {
        self.skip_to(rows);
        let next = Vec::with_capacity(self.values.len());
        PrimitiveArray::try_new(std::mem::replace(&mut self.values, next).into(), self.filled.finish())
    }
}

impl<T: ArrowPrimitiveType> Default for Numbers<T> {
    fn default() -> Self {
        Self { values: Vec::new(), filled: NullBufferBuilder::new(0) }
    }
}

impl<T: ArrowPrimitiveType> Build for Numbers<T> {
    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(self.array(rows)?))
    }
}

/// Values of a column of numbers.
pub(super) struct NumberView<T: ArrowPrimitiveType>(Option<PrimitiveArray<T>>);

impl<T: ArrowPrimitiveType> Default for NumberView<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: ArrowPrimitiveType> View for NumberView<T> {
    fn new(array: &ArrayRef) -> Self {
        Self(array.as_primitive_opt::<T>().cloned())
    }
}

impl<T: ArrowPrimitiveType> NumberView<T> {
    pub(super) fn get(&self, row: usize) -> Option<T::Native> {
        let array = self.0.as_ref()?;
        if array.is_null(row) { None } else { array.values().get(row).copied() }
    }
}

macro_rules! number_column {
    ($(#[$doc:meta])* $kind:ident, $arrow:ident, $name:literal) => {
        $(#[$doc])*
        pub(super) struct $kind;
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

/// Points in time.
pub(super) struct Time;

/// Collects points in time, as nanoseconds since 1970.
#[derive(Default)]
pub(super) struct Times(Numbers<TimestampNanosecondType>);

impl Times {
    pub(super) fn put(&mut self, row: usize, nanos: impl Into<Option<u64>>) {
        self.0.put(row, nanos.into().map(u64::cast_signed));
    }
}

impl Build for Times {
    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(self.0.array(rows)?.with_timezone("UTC")))
    }
}

/// Points in time, as nanoseconds since 1970.
#[derive(Default)]
pub(super) struct TimeView(NumberView<TimestampNanosecondType>);

impl View for TimeView {
    fn new(array: &ArrayRef) -> Self {
        Self(NumberView::new(array))
    }
}

impl TimeView {
    pub(super) fn get(&self, row: usize) -> Option<u64> {
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

/// Yes or no.
pub(super) struct Flag;

/// Collects flags.
#[derive(Default)]
pub(super) struct Flags(BooleanBuilder);

impl Flags {
    pub(super) fn put(&mut self, row: usize, value: impl Into<Option<bool>>) {
        if let Some(value) = value.into() {
            self.0.append_nulls(row.saturating_sub(arrow_array::builder::ArrayBuilder::len(&self.0)));
            self.0.append_value(value);
        }
    }
}

impl Build for Flags {
    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.0.append_nulls(rows.saturating_sub(arrow_array::builder::ArrayBuilder::len(&self.0)));
        Ok(Arc::new(self.0.finish()))
    }
}

/// Flags.
#[derive(Default)]
pub(super) struct FlagView(Option<BooleanArray>);

impl View for FlagView {
    fn new(array: &ArrayRef) -> Self {
        Self(array.as_boolean_opt().cloned())
    }
}

impl FlagView {
    pub(super) fn get(&self, row: usize) -> Option<bool> {
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

/// Texts of which few are different in a batch.
pub(super) struct Word;

/// Collects words.
#[derive(Default)]
pub(super) struct Words {
    keys: Numbers<Int32Type>,
    known: HashMap<Box<str>, i32>,
    values: StringBuilder,
}

impl Words {
    pub(super) fn put<'a>(&mut self, row: usize, word: impl Into<Option<&'a str>>) {
        let Some(word) = word.into() else { return };
        let key = match self.known.get(word) {
            Some(key) => *key,
            None => {
                let next = next_key(self.known.len());
                self.values.append_value(word);
                self.known.insert(word.into(), next);
                next
            }
        };
        self.keys.put(row, key);
    }
}

impl Build for Words {
    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.known.clear();
        dictionary_of(self.keys.array(rows)?, &mut self.values)
    }
}

/// The key after so many; a batch is ended long before they do not fit.
fn next_key(known: usize) -> i32 {
    i32::try_from(known).unwrap_or(i32::MAX)
}

fn dictionary_of(
    keys: PrimitiveArray<Int32Type>,
    values: &mut StringBuilder,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(DictionaryArray::try_new(keys, Arc::new(values.finish()))?))
}

/// Words.
#[derive(Default)]
pub(super) struct WordView(Option<(PrimitiveArray<Int32Type>, StringArray)>);

/// The keys and the values of a dictionary column.
fn dictionary(array: &ArrayRef) -> Option<(PrimitiveArray<Int32Type>, StringArray)> {
    let dictionary = array.as_dictionary_opt::<Int32Type>()?;
    Some((dictionary.keys().clone(), dictionary.values().as_string_opt::<i32>()?.clone()))
}

impl View for WordView {
    fn new(array: &ArrayRef) -> Self {
        Self(dictionary(array))
    }
}

impl WordView {
    /// The position of the row's word among [`Self::values`].
    pub(super) fn key(&self, row: usize) -> Option<usize> {
        let (keys, _) = self.0.as_ref()?;
        if keys.is_null(row) { None } else { usize::try_from(*keys.values().get(row)?).ok() }
    }

    pub(super) fn get(&self, row: usize) -> Option<&str> {
        let key = self.key(row)?;
        let (_, values) = self.0.as_ref()?;
        (key < values.len() && values.is_valid(key)).then(|| values.value(key))
    }

    /// All words of the batch.
    pub(super) fn values(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter().flat_map(|(_, values)| values.iter())
    }
}

impl Column for Word {
    type Builder = Words;
    type View = WordView;
    const NAME: &'static str = "dictionary(utf8)";
    fn data_type() -> DataType {
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
    }
}

/// IP addresses, written as text.
pub(super) struct Address;

/// Collects addresses.
#[derive(Default)]
pub(super) struct Addresses {
    keys: Numbers<Int32Type>,
    known: HashMap<IpAddr, i32>,
    values: StringBuilder,
}

impl Addresses {
    pub(super) fn put(&mut self, row: usize, address: impl Into<Option<IpAddr>>) {
        let Some(address) = address.into() else { return };
        let next = next_key(self.known.len());
        let values = &mut self.values;
        let key = *self.known.entry(address).or_insert_with(|| {
            values.append_value(address.to_string());
            next
        });
        self.keys.put(row, key);
    }
}

impl Build for Addresses {
    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.known.clear();
        dictionary_of(self.keys.array(rows)?, &mut self.values)
    }
}

/// Addresses.
#[derive(Default)]
pub(super) struct AddressView {
    keys: Option<PrimitiveArray<Int32Type>>,
    values: Vec<Option<IpAddr>>,
}

impl View for AddressView {
    fn new(array: &ArrayRef) -> Self {
        let Some((keys, values)) = dictionary(array) else { return Self::default() };
        let values = values.iter().map(|text| text?.parse().ok()).collect();
        Self { keys: Some(keys), values }
    }
}

impl AddressView {
    pub(super) fn get(&self, row: usize) -> Option<IpAddr> {
        let keys = self.keys.as_ref()?;
        if keys.is_null(row) {
            return None;
        }
        *self.values.get(usize::try_from(*keys.values().get(row)?).ok()?)?
    }
}

impl Column for Address {
    type Builder = Addresses;
    type View = AddressView;
    const NAME: &'static str = "dictionary(utf8)";
    fn data_type() -> DataType {
        Word::data_type()
    }
}

/// Texts of which every one may be different.
pub(super) struct Text;

/// Collects texts.
#[derive(Default)]
pub(super) struct Texts(StringBuilder);

impl Texts {
    pub(super) fn put(&mut self, row: usize, text: &str) {
        self.0.append_nulls(row.saturating_sub(arrow_array::builder::ArrayBuilder::len(&self.0)));
        self.0.append_value(text);
    }
}

impl Build for Texts {
    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.0.append_nulls(rows.saturating_sub(arrow_array::builder::ArrayBuilder::len(&self.0)));
        Ok(Arc::new(self.0.finish()))
    }
}

/// Texts.
#[derive(Default)]
pub(super) struct TextView(Option<StringArray>);

impl View for TextView {
    fn new(array: &ArrayRef) -> Self {
        Self(array.as_string_opt::<i32>().cloned())
    }
}

impl TextView {
    pub(super) fn get(&self, row: usize) -> Option<&str> {
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

/// Several numbers a row.
pub(super) struct Many;

/// Collects lists of numbers.
#[derive(Default)]
pub(super) struct Lists(ListBuilder<PrimitiveBuilder<UInt64Type>>);

impl Lists {
    pub(super) fn put(&mut self, row: usize, numbers: impl IntoIterator<Item = u64>) {
        self.0.append_nulls(row.saturating_sub(arrow_array::builder::ArrayBuilder::len(&self.0)));
        for number in numbers {
            self.0.values().append_value(number);
        }
        self.0.append(true);
    }
}

impl Build for Lists {
    fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.0.append_nulls(rows.saturating_sub(arrow_array::builder::ArrayBuilder::len(&self.0)));
        Ok(Arc::new(self.0.finish()))
    }
}

/// Lists of numbers.
#[derive(Default)]
pub(super) struct ListView(Option<ListArray>);

impl View for ListView {
    fn new(array: &ArrayRef) -> Self {
        Self(array.as_list_opt::<i32>().cloned())
    }
}

impl ListView {
    pub(super) fn get(&self, row: usize) -> Option<Vec<u64>> {
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
