//! Columns of texts of which few are different in a batch.

use std::sync::Arc;

use ahash::AHashMap;
use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayRef, DictionaryArray, PrimitiveArray, StringArray};
use arrow_schema::{ArrowError, DataType};

use super::number::{NumberView, Numbers};
use super::{Build, Column, Order, View};

/// Texts of which few are different in a batch.
pub(in super::super) struct Word;

/// Collects words.
#[derive(Default)]
pub(in super::super) struct Words {
    keys: Numbers<Int32Type>,
    known: AHashMap<Box<str>, i32>,
    values: StringBuilder,
    weight: usize,
}

impl Words {
    pub(in super::super) fn put<'a>(&mut self, row: usize, word: impl Into<Option<&'a str>>) {
        let Some(word) = word.into() else { return };
        let key = match self.known.get(word) {
            Some(key) => *key,
            None => {
                let next = next_key(self.known.len());
                self.values.append_value(word);
                self.known.insert(word.into(), next);
                self.weight += word.len();
                next
            }
        };
        self.keys.put(row, key);
    }

    /// Of a column in which every row has a word: for each row that came, the same number for the same word, from 0.
    pub(in super::super) fn keys(&self) -> &[i32] {
        self.keys.values()
    }
}

impl Build for Words {
    fn weight(&self) -> usize {
        self.weight
    }

    fn finish(&mut self, order: &Order) -> Result<ArrayRef, ArrowError> {
        self.known.clear();
        self.weight = 0;
        dictionary_of(self.keys.array(order)?, &mut self.values)
    }
}

/// The key after so many; a batch is ended long before they do not fit.
pub(super) fn next_key(known: usize) -> i32 {
    i32::try_from(known).unwrap_or(i32::MAX)
}

pub(super) fn dictionary_of(
    keys: PrimitiveArray<Int32Type>,
    values: &mut StringBuilder,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(DictionaryArray::try_new(keys, Arc::new(values.finish()))?))
}

/// The keys and the values of a dictionary column.
pub(super) fn dictionary(array: &ArrayRef) -> Option<(NumberView<Int32Type>, StringArray)> {
    let dictionary = array.as_dictionary_opt::<Int32Type>()?;
    Some((dictionary.keys().into(), dictionary.values().as_string_opt::<i32>()?.clone()))
}

/// Words.
#[derive(Default)]
pub(in super::super) struct WordView(Option<(NumberView<Int32Type>, StringArray)>);

impl View for WordView {
    fn new(array: &ArrayRef) -> Self {
        Self(dictionary(array))
    }
}

impl WordView {
    /// The position of the row's word among [`Self::values`].
    #[inline]
    pub(in super::super) fn key(&self, row: usize) -> Option<usize> {
        let (keys, _) = self.0.as_ref()?;
        usize::try_from(keys.get(row)?).ok()
    }

    #[inline]
    pub(in super::super) fn get(&self, row: usize) -> Option<&str> {
        let key = self.key(row)?;
        let (_, values) = self.0.as_ref()?;
        (key < values.len() && values.is_valid(key)).then(|| values.value(key))
    }

    /// All words of the batch.
    pub(in super::super) fn values(&self) -> impl Iterator<Item = Option<&str>> {
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
